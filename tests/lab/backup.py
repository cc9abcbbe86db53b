# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

"""Backups: vzdump, and the archives among a storage's content. restore.py restores them."""

from __future__ import annotations

import copy
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fakepve.model import PveError, TaskError
from fakepve.routing import die, param_error, split_list

from .drives import DRIVE_KEY, UNUSED_KEY, Drive, drives, human_size
from .guest import LabGuest
from .locks import FileLock
from .tasks import Log

SUFFIXES = {"0": "", "1": ".lzo", "lzo": ".lzo", "gzip": ".gz", "zstd": ".zst"}
# What an archive takes of its disks' bytes; nobody measured that, for it depends on the disks.
SHARES = {"": 0.5, ".lzo": 0.35, ".gz": 0.3, ".zst": 0.3}
# Bytes a PVE second.
RATE = 500 * 1024**2
STEPS = 20
# What a restored guest boots into: not part of its config, but on its disks.
SYSTEM = ("acpi", "agent_hangs", "start_secs", "stop_secs", "shutdown_secs", "agent_secs")
VARIABLE = re.compile(r"\{\{(.*?)\}\}")
PERIODS = {
    "keep-hourly": "%Y/%m/%d/%H",
    "keep-daily": "%Y/%m/%d",
    "keep-weekly": "%G/%V",
    "keep-monthly": "%Y/%m",
    "keep-yearly": "%Y",
}


class Backup:
    """Mixin: POST ``vzdump``, and backups among a storage's content."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Seconds that a node's clock is ahead of this machine's.
        self.clock_ahead: dict[str, float] = {}
        self._vzdump_locks: dict[str, FileLock] = {}

    def _routes_backup(self) -> list[tuple[str, str, Any]]:
        return [
            ("POST", "/nodes/{node}/vzdump", self._vzdump),
            ("GET", "/nodes/{node}/vzdump/extractconfig", self._extract_config),
            ("GET", "/nodes/{node}/time", self._time),
        ]

    def node_time(self, node: str) -> int:
        return int(time.time() + self.clock_ahead.get(node, 0))

    async def _time(self, values: dict[str, Any], user: str) -> dict[str, Any]:
        now = self.node_time(values["node"])
        return {"time": now, "localtime": now, "timezone": "UTC"}

    # ----------------------------------------------------------------- vzdump

    async def _vzdump(self, values: dict[str, Any], user: str) -> str:
        node = values["node"]
        sid = values.get("storage", "local")
        wanted = [int(vmid) for vmid in split_list(values.get("vmid", ""))]
        if not wanted and not values.get("all"):
            raise param_error(vmid="property is missing")
        if wanted and values.get("all"):
            raise param_error(all="option conflicts with option 'vmid'")
        for option in ("tmpdir", "dumpdir", "script", "job-id"):
            if values.get(option) is not None and user != "root@pam":
                raise param_error(**{option: "Only root may set this option."})
        self._check_template(values.get("notes-template", ""))
        self.require(user, "/storage/" + sid, "Datastore.AllocateSpace")
        if values.get("prune-backups") or values.get("protected"):
            self.require(user, "/storage/" + sid, "Datastore.Allocate")
        for vmid in wanted:
            self.require(user, f"/vms/{vmid}", "VM.Backup")
        elsewhere = {guest.vmid for guest in self._guests() if guest.node != node}
        here = [vmid for vmid in wanted if vmid not in elsewhere]
        if values.get("all"):
            here = sorted(guest.vmid for guest in self.vms if guest.node == node)
        elif not here:
            return "OK"  # no worker, nothing done, no complaint

        async def body(log: Log) -> None:
            given = sorted((key, value) for key, value in values.items() if key not in ("vmid", "node"))
            options = " ".join(f"--{key} {value}" for key, value in given)
            log(f"INFO: starting new backup job: vzdump {' '.join(map(str, here))} {options}".rstrip())
            async with self._vzdump_lock(node, int(values.get("lockwait", 180)), log):
                self._check_target(sid, node)
                outcomes = [await self._backup_logged(vmid, sid, values, log) for vmid in here]
            if not all(outcomes):
                log("INFO: Backup job finished with errors")
                raise TaskError("job errors")
            log("INFO: Backup job finished successfully")

        return str(await self.worker(node, "vzdump", here[0] if len(here) == 1 else "", user, body))

    @staticmethod
    def _check_template(text: str) -> None:
        for name in VARIABLE.findall(text):
            if name.strip() not in ("cluster", "guestname", "node", "vmid"):
                raise param_error(**{"notes-template": f"unexpected variable '{name.strip()}' in notes template"})
        if "\n" in text:
            raise param_error(**{"notes-template": "contains unescaped newline"})

    @asynccontextmanager
    async def _vzdump_lock(self, node: str, minutes: int, log: Log) -> AsyncIterator[None]:
        """One vzdump a node at a time. One that does not get the lock exits, which looks as if it was killed."""
        lock = self._vzdump_locks.setdefault(node, FileLock())
        if not await lock.take(shared=False, seconds=0.0):
            if not minutes:
                log("ERROR: can't acquire lock '/var/run/vzdump.lock' (wait = 0)")
                raise TaskError("unexpected status")
            log("INFO: trying to get global lock - waiting...")
            if not await lock.take(shared=False, seconds=minutes * 60 * self.time_scale):
                log("ERROR: can't acquire lock '/var/run/vzdump.lock' - got timeout")
                raise TaskError("unexpected status")
            log("INFO: got global lock")
        try:
            yield
        finally:
            lock.drop(shared=False)

    def _check_target(self, sid: str, node: str) -> None:
        problem = f"could not get storage information for '{sid}': "
        try:
            store = self._active_store(sid, node)
        except PveError as error:
            raise TaskError(problem + error.message) from error
        if "backup" not in split_list(store.get("content")):
            raise TaskError(f"{problem}can't use storage '{sid}' for backups - wrong content type")

    async def _backup_logged(self, vmid: int, sid: str, values: dict[str, Any], log: Log) -> bool:
        log(f"INFO: Starting Backup of VM {vmid} (qemu)")
        try:
            await self._backup(vmid, sid, values, log)
        except (TaskError, PveError) as error:
            log(f"ERROR: Backup of VM {vmid} failed - {error.message if isinstance(error, PveError) else error}")
            return False
        return True

    async def _backup(self, vmid: int, sid: str, values: dict[str, Any], log: Log) -> None:
        node, mode = values["node"], values.get("mode", "snapshot")
        guest = self.vm(vmid)
        if guest is None or guest.node != node:
            raise TaskError(f"unable to find VM '{vmid}'")
        async with self.config_lock(vmid):
            self._check_lock(guest)
            self._qm_lock(guest, "backup")
        try:
            log(f"INFO: status = {guest.status}")
            log(f"INFO: VM Name: {guest.config.get('name', f'VM {vmid}')}")
            log(f"INFO: backup mode: {mode if guest.running else 'stop'}")
            if guest.running and mode == "stop":
                log("INFO: stopping virtual guest")
                await self.pause(guest.shutdown_secs)
                self.power_off(guest)
                self._boot(guest)
                self.set_status(guest, "running")
            elif guest.running and mode == "suspend":
                guest.qmpstatus = "paused"
            await self._write_archive(guest, sid, values, log)
        finally:
            guest.qmpstatus = guest.status
            self._qm_lock(guest, None)
        if values.get("remove", 1):
            self._prune(guest.vmid, sid, node, values.get("prune-backups"), log)
        log(f"INFO: Finished Backup of VM {vmid} (00:00:01)")

    async def _write_archive(self, guest: LabGuest, sid: str, values: dict[str, Any], log: Log) -> None:
        suffix = SUFFIXES[values.get("compress", "0")]
        name, ctime = self._archive_name(sid, guest.vmid, self.node_time(guest.node), suffix)
        record = self._archive(guest, ctime, suffix)
        size = record["disks"]
        log(f"INFO: creating vzdump archive '{self._volume_path(sid, name, 'backup')}'")
        log(f"INFO: started backup task '{self.new_uuid()}'")
        for step in range(1, STEPS + 1):
            await self.pause(size / RATE / STEPS)
            percent = 100 * step // STEPS
            seconds = round(size / RATE * step / STEPS)
            log(
                f"INFO: {percent:3d}% ({human_size(size * step / STEPS)} of {human_size(size)}) in {seconds}s, "
                f"read: {human_size(RATE)}/s, write: {human_size(RATE * SHARES[suffix])}/s"
            )
        total, used = self.space(sid, guest.node)
        if record["size"] > total - used:
            log("ERROR: vma_queue_write: write error - Broken pipe")
            raise TaskError("zstd: error 70 : Write error : cannot write block : No space left on device")
        names = {"cluster": self.cluster_name, "node": guest.node, "vmid": guest.vmid, "guestname": guest.name}
        template = values.get("notes-template", "")
        notes = VARIABLE.sub(lambda found: str(names[found[1].strip()]), template)
        notes = re.sub(r"\\(.)", lambda found: "\n" if found[1] == "n" else found[1], notes)
        if notes:
            record["notes"] = notes
        if values.get("protected"):
            record["protected"] = True
        self.storages[sid]["volumes"][name] = record
        log(f"INFO: archive file size: {human_size(record['size'])}")

    def _archive_name(self, sid: str, vmid: int, ctime: int, suffix: str) -> tuple[str, int]:
        """A free name and its time: scaled down, more than one backup a second can be taken."""
        while True:
            stamp = time.strftime("%Y_%m_%d-%H_%M_%S", time.localtime(ctime))
            name = f"backup/vzdump-qemu-{vmid}-{stamp}.vma"
            if not any(other.startswith(name) for other in self.storages[sid]["volumes"]):
                return name + suffix, ctime
            ctime += 1

    def _archive(self, guest: LabGuest, ctime: int, suffix: str) -> dict[str, Any]:
        """What the archive has of the guest as it is now."""
        config = {key: value for key, value in guest.config.items() if key != "lock" and not UNUSED_KEY.fullmatch(key)}
        kept = {key: self._qm_volume(drive.volume) for key, drive in drives(config).items() if self._in_backup(drive)}
        size = sum(int(volume["size"]) for volume in kept.values() if volume)
        return {
            "content": "backup",
            "format": f"vma{suffix}",
            "size": int(size * SHARES[suffix]) + 1024,
            "vmid": guest.vmid,
            "ctime": ctime,
            "node": guest.node,
            "disks": size,
            "config": {k: v for k, v in config.items() if k in kept or not DRIVE_KEY.match(k) or Drive(v).cdrom},
            "sizes": {key: int(volume["size"]) for key, volume in kept.items() if volume},
            "formats": {key: volume["format"] for key, volume in kept.items() if volume},
            "system": {name: getattr(guest, name) for name in SYSTEM},
            "agent": copy.deepcopy(guest.agent),
        }

    @staticmethod
    def _in_backup(drive: Drive) -> bool:
        return not drive.cdrom and drive.options.get("backup") != "0"

    def add_backup(
        self, vmid: int, storage: str = "local", *, age: float = 0, notes: str | None = None, protected: bool = False
    ) -> str:
        """A backup of a guest as it is now that was taken ``age`` seconds ago. Its volume id."""
        guest = self.vm(vmid)
        name, ctime = self._archive_name(storage, vmid, int(self.node_time(guest.node) - age), ".zst")
        record = self._archive(guest, ctime, ".zst")
        if notes:
            record["notes"] = notes
        if protected:
            record["protected"] = True
        self.storages[storage]["volumes"][name] = record
        return f"{storage}:{name}"

    # -------------------------------------------------------------- retention

    def _prune(self, vmid: int, sid: str, node: str, keep: str | None, log: Log) -> None:
        store = self.storages[sid]
        options = dict(part.partition("=")[::2] for part in split_list(keep or store.get("prune-backups") or ""))
        if not options or options.get("keep-all") == "1":
            return
        own = {
            name: volume
            for name, volume in store["volumes"].items()
            if volume["content"] == "backup"
            and volume.get("vmid") == vmid
            and (store.get("shared") or volume.get("node") in (None, node))
        }
        own = {name: volume for name, volume in own.items() if not volume.get("protected")}
        kept = keep_marks({name: volume["ctime"] for name, volume in own.items()}, options)
        log(f"INFO: prune older backups with retention: {', '.join(f'{k}={v}' for k, v in sorted(options.items()))}")
        gone = [name for name in own if name not in kept]
        for name in gone:
            log(f"INFO: removing backup '{sid}:{name}'")
            del store["volumes"][name]
        log(f"INFO: pruned {len(gone)} backup(s) not covered by keep-retention policy")

    # ---------------------------------------------------------------- content

    def _elsewhere(self, values: dict[str, Any]) -> bool:
        """Whether the volume is on the storage of that name on another node."""
        sid, name = self._volume_target(values)[:2]
        volume = self.storages[sid]["volumes"].get(name, {})
        return not self.storages[sid].get("shared") and volume.get("node") not in (None, values["node"])

    def _item(self, name: str, volname: str, volume: dict[str, Any]) -> dict[str, Any]:
        """A row of the listing, which has no more than the first line of the notes."""
        item: dict[str, Any] = super()._item(name, volname, volume)
        if volume["content"] == "backup":
            item["subtype"] = "lxc" if "vzdump-lxc-" in volname else "qemu"
            if item.get("notes"):
                item["notes"] = item["notes"].partition("\n")[0]
        return item

    async def _content_put(self, values: dict[str, Any], user: str) -> None:
        sid, name, volid = self._volume_target(values)[:3]
        if self._elsewhere(values):
            raise die(f"volume_size_info on '{volid}' failed - no format")
        # fakepve drops the empty values of a form, but an empty text is how notes are removed
        form = next(body for method, path, body in reversed(self.requests) if method == "PUT" and path.endswith(volid))
        if b"notes=" in form.split(b"&"):
            values = {**values, "notes": ""}
        await super()._content_put(values, user)
        volume = self.storages[sid]["volumes"].get(name, {})
        if volume.get("protected") is False:
            del volume["protected"]

    async def _content_delete(self, values: dict[str, Any], user: str) -> Any:
        if self._elsewhere(values):
            sid, volid = self._volume_target(values)[0], self._volume_target(values)[2]

            async def body(log: Log) -> None:
                log(f"Removed volume '{volid}'")

            return await self.worker(values["node"], "imgdel", f"@{sid}", user, body)
        return await super()._content_delete(values, user)


def keep_marks(ctimes: dict[str, int], options: dict[str, str]) -> set[str]:
    """The backups that a retention keeps: of each period the newest, unless a finer period keeps one of it already."""
    newest_first = sorted(ctimes, key=lambda name: -ctimes[name])
    kept: set[str] = set(newest_first[: int(options.get("keep-last", 0))])
    for option, form in PERIODS.items():
        left = int(options.get(option, 0))

        def period(name: str, form: str = form) -> str:
            return time.strftime(form, time.localtime(ctimes[name]))

        covered = {period(name) for name in kept}
        for name in newest_first:
            if left and name not in kept and period(name) not in covered:
                covered.add(period(name))
                kept.add(name)
                left -= 1
    return kept
