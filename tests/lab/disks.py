# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

"""Volumes: allocated, attached, detached to unusedN, freed, resized."""

from __future__ import annotations

import re
import time
from typing import Any

from fakepve.model import TaskError
from fakepve.routing import die, param_error, split_list
from fakepve.storage import _exists_message, _is_file, spec_of

from .drives import NEW_DISK, UNUSED_KEY, Drive, drives, parse_size, print_size, volume_ref
from .guest import LabGuest

CLOUDINIT_BYTES = 4 * 1024**2
# The EFI variables and the TPM state have sizes of their own.
FIXED_BYTES = {"efidisk0": 528 * 1024, "tpmstate0": 4 * 1024**2}


class Disks:
    """Mixin: a guest's volumes. A volume of a storage that is not shared lives on one node."""

    def _routes_resize(self) -> list[tuple[str, str, Any]]:
        return [("PUT", "/nodes/{node}/qemu/{vmid}/resize", self._resize)]

    # ------------------------------------------------------------- allocation

    def allocate(self, guest: LabGuest, sid: str, size: int, *, fmt: str | None = None, base: str | None = None) -> str:
        """A new disk of ``size`` bytes; ``base`` is the volume name that it is a linked clone of. Its volume id."""
        store = self._check_enabled(sid, guest.node)
        fmt = fmt if fmt in self._formats(store) else store.get("format") or self._formats(store)[0]
        if base and _is_file(store) and fmt == "raw":
            fmt = "qcow2"  # raw has no backing file
        volume, fmt = self._volume_name(store, guest.vmid, fmt, self._free_name(store, guest.vmid, fmt))
        if base and _is_file(store):
            volume = f"{base}/{volume}"
        return self._add_volume(guest, sid, volume, fmt, size, parent=base)

    def allocate_cloudinit(self, guest: LabGuest, sid: str) -> str:
        """The drive that cloud-init reads, ``vm-<vmid>-cloudinit``. Its volume id."""
        store = self._check_enabled(sid, guest.node)
        fmt = "qcow2" if _is_file(store) else "raw"
        name = f"vm-{guest.vmid}-cloudinit"
        volume = f"{guest.vmid}/{name}.{fmt}" if _is_file(store) else name
        return self._add_volume(guest, sid, volume, fmt, CLOUDINIT_BYTES)

    def _add_volume(
        self, guest: LabGuest, sid: str, volume: str, fmt: str, size: int, parent: str | None = None
    ) -> str:
        store = self.storages[sid]
        if volume in store.setdefault("volumes", {}):
            raise die(
                f"disk image '{self._volume_path(sid, volume, 'images')}' already exists"
                if _is_file(store)
                else _exists_message(store, volume)
            )
        self.need_room(sid, guest.node, volume, size)
        store["volumes"][volume] = {
            "content": "images",
            "format": fmt,
            "size": size,
            "vmid": guest.vmid,
            "ctime": int(time.time()),
            "node": guest.node,
            "parent": parent,
        }
        return f"{sid}:{volume}"

    @staticmethod
    def _free_name(store: dict[str, Any], vmid: int, fmt: str) -> str:
        """The first vm-<vmid>-disk-<n> that is free on the storage, as a base volume too."""
        names = [name for name, volume in store.setdefault("volumes", {}).items() if volume.get("vmid") == vmid]
        taken = {int(found[1]) for name in names if (found := re.search(r"-disk-(\d+)", name.rpartition("/")[2]))}
        free = next(number for number in range(len(taken) + 1) if number not in taken)
        return f"vm-{vmid}-disk-{free}" + (f".{fmt}" if _is_file(store) else "")

    @staticmethod
    def _formats(store: dict[str, Any]) -> list[str]:
        """The image formats of a storage, its default first."""
        spec = spec_of(store) or {"format": "raw", "formats": None}
        return [spec["format"], *(f for f in spec["formats"] or () if f not in (spec["format"], "subvol"))]

    def free(self, volid: str) -> None:
        """Destroy a volume; one that is not there is no error."""
        sid, name = volume_ref(volid)
        self.storages.get(sid, {}).get("volumes", {}).pop(name, None)

    def owned(self, guest: LabGuest, volid: str) -> bool:
        """Whether the volume is this guest's own disk, not an ISO or a path."""
        record = self._qm_volume(volid)
        return bool(record and record.get("vmid") == guest.vmid and record["content"] == "images")

    def _parse_volname(self, store: dict[str, Any], name: str) -> tuple[str, int | None, str]:
        """A linked clone on a file storage is named ``9000/base-9000-disk-0.raw/100/vm-100-disk-0.qcow2``."""
        linked = re.fullmatch(r"\d+/[^/]+/(\d+/[^/]+)", name) if _is_file(store) else None
        parsed: tuple[str, int | None, str] = super()._parse_volname(store, linked[1] if linked else name)
        return parsed

    # ------------------------------------------------------- drives of a config

    def check_drive(self, user: str, node: str, vmid: int, key: str, value: str, default: str | None = None) -> None:
        """What PVE checks of a drive before it allocates anything."""
        drive = Drive(value)
        found = NEW_DISK.match(drive.volume)
        sid = (found[1] or default) if found else drive.storage
        if found and not sid:
            raise die("no storage ID specified (and no default storage)")
        if sid is None:
            return
        self._check_enabled(sid, node)
        if found or drive.volume.endswith(":cloudinit"):
            self.require(user, "/storage/" + sid, "Datastore.AllocateSpace")
            if "images" not in split_list(self.storages[sid].get("content")):
                raise param_error(storage=f"storage '{sid}' does not support vm images")
            return
        self._qm_check_drive(user, vmid, None, key, value, default)

    def attach(self, guest: LabGuest, key: str, value: str, default: str | None = None) -> tuple[str, str | None]:
        """(the drive as the config holds it, the volume allocated for it or None)."""
        drive = Drive(value)
        found = NEW_DISK.match(drive.volume)
        made = None
        if drive.volume.endswith(":cloudinit"):
            made = self.allocate_cloudinit(guest, drive.storage or str(default))
            drive.options.update(media="cdrom")
        elif found and not drive.cdrom:
            kib = int(float(found[2]) * 1024**2 + 0.5)
            size = FIXED_BYTES.get(key, kib * 1024)
            made = self.allocate(guest, found[1] or str(default), size, fmt=drive.options.pop("format", None))
            drive.options["size"] = print_size(size)
        elif drive.storage is not None:
            record = self._volumes(drive.storage).get(volume_ref(drive.volume)[1])
            if record is None:
                raise die(f"volume {drive.volume} does not exist")
            drive.options.pop("format", None)
            if record.get("size") and not drive.cloudinit:
                drive.options["size"] = print_size(int(record["size"]))
        drive.volume = made or drive.volume
        return str(drive), made

    def detach(self, guest: LabGuest, value: str, *, destroy: bool = False) -> None:
        """A drive left the config: its disk becomes unusedN, or goes for good."""
        drive = Drive(value)
        if not self.owned(guest, drive.volume):
            return
        if destroy or drive.cloudinit:
            self.free(drive.volume)
            return
        if any(other.volume == drive.volume for other in drives(guest.config).values()):
            return
        number = next(n for n in range(256) if f"unused{n}" not in guest.config)
        guest.config[f"unused{number}"] = drive.volume

    def forget_used(self, guest: LabGuest) -> None:
        """A disk that is attached again is no longer unused."""
        used = {drive.volume for drive in drives(guest.merged()).values()}
        for key in [key for key in guest.config if UNUSED_KEY.fullmatch(key)]:
            if guest.config[key] in used:
                del guest.config[key]

    # ----------------------------------------------------------------- resize

    async def _resize(self, values: dict[str, Any], user: str) -> str:
        node, vmid = values["node"], int(values["vmid"])
        if values.get("skiplock") and user != "root@pam":
            raise param_error(skiplock="Only root may use this option.")
        self.find(node, vmid)
        self.need_quorum()

        async def body(log: Any) -> None:
            async with self.config_lock(vmid):
                guest = self.find(node, vmid)
                if values.get("digest") and values["digest"] != guest.digest():
                    raise TaskError("checksum mismatch (file change by other user?)")
                if not values.get("skiplock"):
                    self._check_lock(guest)
                self._grow(guest, values["disk"], str(values["size"]))
                self.note(guest)

        return await self.worker(node, "resize", vmid, user, body)

    def _grow(self, guest: LabGuest, key: str, text: str) -> None:
        if key not in guest.config:
            raise TaskError(f"disk '{key}' does not exist")
        drive = Drive(guest.config[key])
        if drive.cdrom:
            raise TaskError("you can't resize a cdrom")
        record = self._qm_volume(drive.volume)
        if record is None:
            raise TaskError(f"disk '{key}' has no associated volume")
        relative, size = parse_size(text)
        size += record["size"] if relative else 0
        if size < record["size"]:
            raise TaskError("shrinking disks is not supported")
        if size > record["size"]:
            self.need_room(str(drive.storage), guest.node, volume_ref(drive.volume)[1], size - record["size"])
        record["size"] = size
        drive.options["size"] = print_size(size)
        # Only the current config is written: a pending line of the same disk keeps its old size.
        guest.config[key] = str(drive)
