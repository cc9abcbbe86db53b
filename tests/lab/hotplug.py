# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

"""What a running VM takes at once, and what waits for its next start. Pure functions.

After ``vmconfig_hotplug_pending`` of qemu-server, for the devices the lab knows.
"""

from __future__ import annotations

from .cloudinit_options import is_cloudinit_option
from .drives import DRIVE_KEY, NIC_KEY, Drive

DEFAULT_FEATURES = "network,disk,usb"
ALWAYS = frozenset(
    (
        "affinity",
        "cpulimit",
        "cpuunits",
        "description",
        "hookscript",
        "hotplug",
        "lock",
        "migrate_downtime",
        "migrate_speed",
        "name",
        "onboot",
        "protection",
        "shares",
        "startup",
        "tablet",
        "tags",
        "vmstatestorage",
    )
)
# Options of a disk in use that QEMU changes while it runs; the others wait.
LIVE_DISK_OPTIONS = ("backup", "replicate", "iops", "mbps", "bps")


def hotplug_features(config: dict[str, object]) -> frozenset[str]:
    text = str(config.get("hotplug", DEFAULT_FEATURES))
    if text == "1":
        text = DEFAULT_FEATURES
    return frozenset() if text == "0" else frozenset(text.split(","))


def takes_effect(key: str, old: object, new: object, features: frozenset[str]) -> bool:
    """Whether a running VM takes this change now. ``old`` None: not set so far; ``new`` None: deleted."""
    if key in ALWAYS or is_cloudinit_option(key) or key.startswith("unused"):
        return True
    if NIC_KEY.fullmatch(key):
        return "network" in features
    if DRIVE_KEY.match(key):
        return _drive_takes_effect(key, old, new, features)
    if key.startswith("usb"):
        return "usb" in features
    if key == "vcpus":
        return "cpu" in features
    if key == "memory":
        return "memory" in features
    if key == "balloon":
        # The balloon device itself cannot be plugged or pulled; its target can be moved.
        return _balloon_on(old) == _balloon_on(new)
    return False


def _balloon_on(value: object) -> bool:
    return value is None or str(value) != "0"


def _drive_takes_effect(key: str, old: object, new: object, features: frozenset[str]) -> bool:
    if key.startswith(("efidisk", "tpmstate")):
        return False
    if old is not None and new is not None:
        before, after = Drive(str(old)), Drive(str(new))
        if before.cdrom and after.cdrom and not before.cloudinit and not after.cloudinit:
            return True  # the medium is swapped
        if before.volume == after.volume:
            return all(name.startswith(LIVE_DISK_OPTIONS) for name in changed_options(before, after))
    return "disk" in features and key.startswith(("scsi", "virtio"))


def changed_options(before: Drive, after: Drive) -> set[str]:
    """Names of the options that differ, ``size`` apart: it is not an option but a fact."""
    names = (before.options.keys() | after.options.keys()) - {"size"}
    return {name for name in names if before.options.get(name) != after.options.get(name)}
