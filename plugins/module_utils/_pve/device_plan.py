# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The part of a server's plan that is about its disks and network devices. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from ansible_collections.pvefleet.infra.plugins.module_utils._plan import Change
from ansible_collections.pvefleet.infra.plugins.module_utils._pve import values
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.guest import Guest
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server_spec import DiskSpec, NicSpec, ServerSpec

# What PVE takes when a drive or network device does not say, from PVE/QemuServer/Drive.pm and PVE/QemuServer.pm.
_DRIVE_DEFAULTS = {
    "ssd": "0",
    "discard": "ignore",
    "iothread": "0",
    "backup": "1",
    "replicate": "1",
    "ro": "0",
    "cache": "none",
} | dict.fromkeys(("iops_rd", "iops_wr", "mbps_rd", "mbps_wr"), "0")
_NIC_DEFAULTS = {"firewall": "0", "link_down": "0", "tag": "0", "queues": "0", "rate": "0"}

# LVM and ZFS round a volume up to their own unit; as much more than asked for is no shrinking.
ROUNDING = 4 * 1024**2


class PlanError(ValueError):
    """What is asked for cannot be done to this server; nothing was changed."""


@dataclass(frozen=True)
class Placement:
    """Where new volumes go when the options do not say."""

    default_storage: str | None = None


NO_DEFAULTS = Placement()


class Draft:
    """Collects a plan's parts."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.settings: dict[str, str] = {}
        self.delete: list[str] = []
        self.resizes: dict[str, int] = {}

    def set(self, key: str, value: str, *, item: str, before: Any, after: Any) -> None:
        self.settings[key] = value
        self.changes.append(Change(item, before, after))

    def unset(self, key: str, *, item: str, before: Any) -> None:
        self.delete.append(key)
        self.changes.append(Change(item, before, None))


def plan_disk(spec: ServerSpec, key: str, disk: DiskSpec, guest: Guest, placement: Placement, draft: Draft) -> None:
    present = guest.drive(key)
    if disk.detached:
        _plan_detach(spec, key, present, guest, draft)
    elif present is None:
        _plan_new_disk(spec, key, disk, guest, placement, draft)
    elif present.is_cdrom or present.is_cloudinit:
        raise PlanError(f"Unable to manage disk {key} of server {spec.label}: it is a CD-ROM or cloud-init drive")
    else:
        _plan_present_disk(spec, key, disk, present, guest, draft)


def plan_nic(spec: ServerSpec, key: str, nic: NicSpec, guest: Guest, draft: Draft) -> None:
    present = values.parse_nic(guest.text(key)) if key in guest.config else None
    if nic.absent:
        if present is not None:
            draft.unset(key, item=key, before=values.print_nic(present))
        return
    if present is None and "bridge" not in nic.options:
        raise PlanError(f"Unable to create network device {key} of server {spec.label}: it has no bridge")
    base = present or values.Nic("virtio")
    merged = values.Nic(nic.model or base.model, nic.mac or base.mac, _merged(base.options, nic.options, _NIC_DEFAULTS))
    if merged != present:
        draft.set(
            key,
            values.print_nic(merged),
            item=key,
            before=None if present is None else values.print_nic(present),
            after=values.print_nic(merged),
        )


def storage_for(spec: ServerSpec, guest: Guest, placement: Placement) -> str | None:
    """A new volume goes to the clone's storage, the cluster's default, or beside the first disk, in this order."""
    if spec.clone and spec.clone.storage:
        return spec.clone.storage
    return placement.default_storage or next((drive.storage for drive in guest.disks().values() if drive.storage), None)


def is_new_volume(value: str) -> bool:
    """Whether a drive's value has PVE allocate a volume."""
    volume = values.parse_drive(value).volume
    return volume.endswith(":cloudinit") or bool(re.fullmatch(r"[^/:\s]+:\d+(\.\d+)?", volume))


def _plan_detach(spec: ServerSpec, key: str, present: values.Drive | None, guest: Guest, draft: Draft) -> None:
    if present is None:
        return
    boots_from = {*values.parse_boot(guest.text("boot")), guest.text("bootdisk")}
    if guest.running and spec.state != "stopped" and key in boots_from:
        raise PlanError(
            f"Unable to detach {key} of server {spec.label}: it boots from it and is running; stop it first"
        )
    if guest.is_protected:
        raise PlanError(f"Unable to detach {key} of server {spec.label}: its protection is on")
    draft.unset(key, item=key, before=values.print_drive(present))


def _plan_new_disk(
    spec: ServerSpec, key: str, disk: DiskSpec, guest: Guest, placement: Placement, draft: Draft
) -> None:
    if disk.size is None:
        raise PlanError(f"Unable to create disk {key} of server {spec.label}: it has no size")
    storage = disk.storage or storage_for(spec, guest, placement)
    if storage is None:
        raise PlanError(
            f"Unable to create disk {key} of server {spec.label}: no storage is given, and there is no default"
        )
    options = _merged({}, disk.options, _DRIVE_DEFAULTS)
    if disk.format:
        options["format"] = disk.format
    value = values.print_drive(values.Drive(f"{storage}:{_gibibytes(disk.size)}", options))
    shown = values.print_drive(values.Drive(storage, {"size": values.print_size(disk.size), **options}))
    draft.set(key, value, item=key, before=None, after=shown)


def _plan_present_disk(
    spec: ServerSpec, key: str, disk: DiskSpec, present: values.Drive, guest: Guest, draft: Draft
) -> None:
    if disk.storage and disk.storage != present.storage:
        raise PlanError(
            f"Unable to move {key} of server {spec.label} from {present.storage} to {disk.storage}: "
            "disks are not moved here"
        )
    drive = values.Drive(present.volume, _merged(present.options, disk.options, _DRIVE_DEFAULTS))
    for name, after in disk.options.items():
        before = present.options.get(name, _DRIVE_DEFAULTS.get(name))
        if before != after:
            draft.settings[key] = values.print_drive(drive)
            draft.changes.append(Change(f"{key}.{name}", before, after))
    if disk.size is None:
        return
    if present.size is None:
        raise PlanError(f"Unable to resize {key} of server {spec.label}: PVE does not say how large it is")
    if disk.size > present.size:
        draft.resizes[key] = disk.size
        draft.changes.append(Change(f"{key}.size", values.print_size(present.size), values.print_size(disk.size)))
        if key in guest.pending:
            # Resizing writes the running value only: the pending one would bring the old size back at the next start.
            # PVE puts the volume's true size into whatever is written.
            draft.settings[key] = values.print_drive(drive)
    elif present.size - disk.size >= ROUNDING:
        raise PlanError(
            f"Unable to resize {key} of server {spec.label} from {values.print_size(present.size)} "
            f"to {values.print_size(disk.size)}: PVE disks cannot shrink"
        )


def _merged(present: Mapping[str, str], wanted: Mapping[str, str], defaults: Mapping[str, str]) -> dict[str, str]:
    """The options of a device: those that are not given stay as they are, and a default is not written down."""
    merged = dict(present)
    for name, value in wanted.items():
        if value == present.get(name, defaults.get(name)):
            continue
        if value == defaults.get(name):
            del merged[name]
        else:
            merged[name] = value
    return merged


def _gibibytes(size: int) -> str:
    """PVE takes the size of a new volume in GiB, fractions allowed; exact for whole KiB."""
    return format((Decimal(size) / 1024**3).normalize(), "f")
