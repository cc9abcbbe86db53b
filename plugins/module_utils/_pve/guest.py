# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A server as it is: its config read with tolerance, for PVE and its users put more into it than is managed here."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.pvefleet.infra.plugins.module_utils._pve import values

# The first line of the notes of a server that is not finished yet. It tells a second run that what is done once, on
# creation, is still to be done; and with its id, after a lost answer, whose clone it is.
MARKER = "pvefleet: being created"

_DRIVE_KEY = re.compile(r"(ide|sata|scsi|virtio)\d+")
# They have volumes, too, but are no disks of the guest.
_STATE_KEY = re.compile(r"(efidisk|tpmstate)\d+")


def is_drive(key: str) -> bool:
    return _DRIVE_KEY.fullmatch(key) is not None


def is_nic(key: str) -> bool:
    return re.fullmatch(r"net\d+", key) is not None


@dataclass(frozen=True)
class Guest:
    """`config` is what its next start will use; `pending` has the keys whose running value differs, with that value."""

    vmid: int | None  # None while it is only planned
    node: str
    name: str
    config: Mapping[str, Any]
    running: bool = False
    digest: str | None = None
    pending: Mapping[str, str | None] = field(default_factory=dict)
    pool: str | None = None

    @property
    def unfinished(self) -> bool:
        return self.text("description").startswith(MARKER)

    @property
    def is_template(self) -> bool:
        return self.text("template") == "1"

    @property
    def is_protected(self) -> bool:
        return self.text("protection") == "1"

    @property
    def lock(self) -> str | None:
        return self.text("lock") or None

    def text(self, key: str) -> str:
        """The value of a config key as PVE writes it, empty without one."""
        return str(self.config.get(key, ""))

    def running_text(self, key: str) -> str | None:
        """The value that the running server has, None without one."""
        if key in self.pending:
            return self.pending[key]
        return self.text(key) if key in self.config else None

    def drive(self, key: str) -> values.Drive | None:
        """The drive in a slot. ValueError when its value is not understood."""
        return values.parse_drive(self.text(key)) if key in self.config else None

    def disks(self) -> dict[str, values.Drive]:
        """Its disks by slot, without CD-ROMs and the cloud-init drive."""
        return {key: drive for key, drive in self._drives() if not drive.is_cdrom and not drive.is_cloudinit}

    def storages(self) -> set[str]:
        """Every storage that it has a volume on: disks, CD-ROMs, cloud-init, EFI variables, TPM state."""
        return {drive.storage for _key, drive in self._drives(_STATE_KEY) if drive.storage}

    def cloud_init_drive(self) -> str | None:
        return next((key for key, drive in self._drives() if drive.is_cloudinit), None)

    def bridges(self) -> set[str]:
        return bridges_of(self.config)

    def _drives(self, more: re.Pattern[str] | None = None) -> Iterator[tuple[str, values.Drive]]:
        for key in sorted(self.config):
            if is_drive(key) or (more is not None and more.fullmatch(key)):
                try:
                    yield key, values.parse_drive(self.text(key))
                except ValueError:
                    continue


def bridges_of(config: Mapping[str, Any]) -> set[str]:
    """The bridges that the network devices of a config, or of a part of one, are on."""
    found = set()
    for key in filter(is_nic, config):
        try:
            found.add(values.parse_nic(str(config[key])).options.get("bridge"))
        except ValueError:
            continue
    return {bridge for bridge in found if bridge}


def without_marker(description: str) -> str:
    """The notes that a server has, or will have once it is finished."""
    if not description.startswith(MARKER):
        return description.strip()
    return description.partition("\n")[2].strip()
