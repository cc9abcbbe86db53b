# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

"""Sizes and drive values as PVE writes them. Pure functions."""

from __future__ import annotations

import re

from fakepve.qemu import DRIVE_KEY, NEW_DISK, join_drive, split_drive, volume_ref, with_mac

__all__ = [
    "DRIVE_KEY",
    "NEW_DISK",
    "NIC_KEY",
    "Drive",
    "boot_devices",
    "drives",
    "mac_of",
    "network_options",
    "print_size",
    "volume_ref",
    "with_mac",
]

NIC_KEY = re.compile(r"net\d+")
UNUSED_KEY = re.compile(r"unused\d+")
UNITS = {"K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}
SIZE = re.compile(r"(\+)?(\d+(?:\.\d+)?)([KMGT])?")


def parse_size(text: str) -> tuple[bool, int]:
    """(is it relative, bytes) of a resize parameter such as ``+5G`` or ``10G``."""
    found = SIZE.fullmatch(text)
    if found is None:
        raise ValueError(text)
    return bool(found[1]), int(float(found[2]) * UNITS.get(found[3] or "", 1))


def print_size(size: int) -> str:
    """Bytes as PVE writes ``size=``: in the largest unit that divides them."""
    for unit in "TGMK":
        if size and size % UNITS[unit] == 0:
            return f"{size // UNITS[unit]}{unit}"
    return str(size)


def human_size(size: float) -> str:
    """Bytes as PVE's progress lines show them, ``512.0 MiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


class Drive:
    """A drive value: its volume and its options."""

    def __init__(self, value: str) -> None:
        self.volume, self.options = split_drive(str(value))
        self.options = dict(self.options)

    def __str__(self) -> str:
        return str(join_drive(self.volume, self.options))

    @property
    def cdrom(self) -> bool:
        return self.options.get("media") == "cdrom" or self.volume in ("cdrom", "none")

    @property
    def cloudinit(self) -> bool:
        return self.volume.endswith(":cloudinit") or re.search(r"vm-\d+-cloudinit", self.volume) is not None

    @property
    def storage(self) -> str | None:
        return volume_ref(self.volume)[0]


def drives(config: dict[str, object]) -> dict[str, Drive]:
    """The drives of a config by key, CD-ROMs included, unusedN not."""
    return {key: Drive(str(value)) for key, value in sorted(config.items()) if DRIVE_KEY.match(key)}


def boot_devices(config: dict[str, object]) -> list[str]:
    """The devices of ``boot: order=a;b``, in order."""
    _before, found, order = str(config.get("boot") or "").partition("order=")
    return [device for device in order.split(";") if device] if found else []


def network_options(value: object) -> dict[str, str]:
    """The options of a netN value; the model is under ``model``, the MAC under ``macaddr``."""
    first, _comma, rest = str(value).partition(",")
    model, _equals, mac = first.partition("=")
    options = dict(part.partition("=")[::2] for part in rest.split(",") if part)
    return {"model": model, "macaddr": mac, **options}


def mac_of(value: object) -> str:
    return network_options(value)["macaddr"]
