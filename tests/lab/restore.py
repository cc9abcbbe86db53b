# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

"""Restoring: POST ``qemu`` with ``archive``, into a free vmid or over a stopped guest."""

from __future__ import annotations

import asyncio
import copy
from typing import Any

from fakepve.model import PveError, TaskError
from fakepve.routing import die

from .backup import RATE, STEPS
from .drives import NIC_KEY, Drive, drives, with_mac
from .guest import LabGuest
from .tasks import Log

UNPACK = {".lzo": "lzop -d -c ", ".gz": "zcat ", ".zst": "zstd -q -d -c "}
# Options of the new config that a restore takes. PVE takes more.
OVERRIDES = ("name", "memory", "cores", "sockets")


class Restore:
    """Mixin: a guest from an archive, as it was when the backup was taken."""

    async def _qm_create(self, values: dict[str, Any], user: str) -> str:
        if not values.get("archive"):
            return str(await super()._qm_create(values, user))
        node, vmid, archive = values["node"], int(values["vmid"]), values["archive"]
        self.need_quorum()
        if values.get("storage"):
            self.require(user, "/storage/" + values["storage"], "Datastore.AllocateSpace")
        existing = self.vm(vmid)
        if not self.allowed(user, f"/vms/{vmid}", "VM.Allocate") and not (
            values.get("force") and existing and self.allowed(user, f"/vms/{vmid}", "VM.Backup")
        ):
            raise PveError(403, "Permission check failed")
        record = self._open_archive(archive, node, user)
        problem = f"unable to restore VM {vmid} -"
        other = self.guest(vmid)
        if other is not None and (not values.get("force") or other.node != node or other is not existing):
            kind = "VM" if other is existing else "CT"
            raise die(f"{problem} {kind} {vmid} already exists on node '{other.node}'")
        if existing is not None:
            if existing.lock:
                raise die(f"{problem} VM is locked ({existing.lock})")
            self._qm_lock(existing, "create")
        guest = existing or self._reserve(vmid, node, "create")

        async def body(log: Log) -> None:
            try:
                async with self.config_lock(vmid, wait=1):
                    self._qm_check_protection(guest, problem)
                    if guest.running:
                        raise TaskError(f"{problem} vm is running")
                    await self._restore(guest, record, values, log)
            except (PveError, TaskError, asyncio.CancelledError):
                self._qm_lock(guest, None)  # the config stays, empty when it is a new guest's
                raise
            if values.get("start"):
                await self.power_on(guest, log)

        return str(await self.worker(node, "qmrestore", vmid, user, body))

    def _open_archive(self, volid: str, node: str, user: str) -> dict[str, Any]:
        values = {"volume": volid, "node": node}
        sid, name, _volid, _store, kind, owner, _format = self._volume_target(values)
        self._check_access(user, sid, kind, owner, volid)
        self._active_store(sid, node)
        record = self.storages[sid]["volumes"].get(name)
        if record is None or self._elsewhere(values):
            raise die(f"can't find file '{volid}'")
        if "config" not in record:
            raise die("ERROR: archive contains no configuration file")
        return dict(record)

    async def _extract_config(self, values: dict[str, Any], user: str) -> str:
        """The config in an archive, as the text that it is there."""
        config = self._open_archive(values["volume"], values["node"], user)["config"]
        notes = [f"#{line}" for line in str(config.get("description", "")).splitlines()]
        lines = [f"{key}: {value}" for key, value in sorted(config.items()) if key != "description"]
        return "".join(f"{line}\n" for line in notes + lines)

    async def _restore(self, guest: LabGuest, record: dict[str, Any], values: dict[str, Any], log: Log) -> None:
        path = self._volume_path(*values["archive"].split(":", 1), "backup")
        suffix = next((ending for ending in UNPACK if path.endswith(ending)), "")
        source = (
            f"{UNPACK[suffix]}{path} | vma extract -v -r /var/tmp/vzdumptmp1.fifo -"
            if suffix
            else (f"vma extract -v -r /var/tmp/vzdumptmp1.fifo {path}")
        )
        log(f"restore vma archive: {source} /var/tmp/vzdumptmp1")
        self._free_all(guest)
        config = {key: value for key, value in record["config"].items() if key not in ("lock", "vmgenid")}
        try:
            for key, size in record["sizes"].items():
                drive = Drive(config[key])
                sid = values.get("storage") or str(drive.storage)
                total, used = self.space(sid, guest.node) if sid in self.storages else (size, 0)
                if size > total - used:
                    raise TaskError(f"unable to restore VM {guest.vmid} - no space left on storage '{sid}'")
                drive.volume = self.allocate(guest, sid, size, fmt=record["formats"][key])
                log(f"new volume ID is '{drive.volume}'")
                config[key] = str(drive)
            await self._extract(record["disks"], log)
            for key, drive in drives(config).items():
                if drive.cloudinit:
                    drive.volume = self.allocate_cloudinit(guest, values.get("storage") or str(drive.storage))
                    config[key] = str(drive)
        except BaseException:
            self._free_all(guest)
            raise
        if record["config"].get("vmgenid"):
            config["vmgenid"] = self.new_uuid()
        if values.get("unique"):
            config.update({key: with_mac(value, fresh=True) for key, value in config.items() if NIC_KEY.fullmatch(key)})
            config["smbios1"] = f"uuid={self.new_uuid()}"
        for name, value in record["system"].items():
            setattr(guest, name, value)
        guest.agent = copy.deepcopy(record["agent"])
        config.update({key: values[key] for key in OVERRIDES if key in values})
        guest.pending.clear()
        guest.template = bool(config.get("template"))
        if guest.template:
            for key in record["sizes"]:
                drive = Drive(config[key])
                drive.volume = self._qm_rename_volume(drive.volume)
                config[key] = str(drive)
        self._appear(guest, config, values.get("pool"))

    async def _extract(self, size: int, log: Log) -> None:
        for percent in range(1, 101):
            if percent % (100 // STEPS) == 0:
                await self.pause(size / RATE / STEPS)
            seconds = round(size / RATE * percent / 100)
            log(f"progress {percent}% (read {size * percent // 100} bytes, duration {seconds} sec)")
        log(f"total bytes read {size}, sparse bytes 0 (0%)")
        log("rescan volumes...")
