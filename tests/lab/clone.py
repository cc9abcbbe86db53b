# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

"""Clones: full ones copy, linked ones refer, both under the lock rules of qemu-server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fakepve.lxc import split_props
from fakepve.model import PveError, TaskError
from fakepve.qemu import CLONE_SKIP
from fakepve.routing import die, param_error, split_list

from .drives import DRIVE_KEY, NIC_KEY, UNUSED_KEY, Drive, drives, human_size, print_size, volume_ref, with_mac
from .guest import LabGuest
from .tasks import Log

# What copying costs, in PVE seconds: a disk's fixed part, and its bytes a second.
DISK_SECONDS = 0.1
COPY_RATE = 500 * 1024**2
# A progress line for each percent; time passes this many times a disk.
COPY_STEPS = 20


@dataclass(frozen=True)
class Order:
    """What was asked for."""

    newid: int
    full: bool
    name: str | None
    description: str | None
    pool: str | None
    storage: str | None
    format: str | None
    target: str | None


class Clone:
    """Mixin: POST ``/clone``."""

    async def _qm_clone(self, values: dict[str, Any], user: str) -> str:
        node, vmid = values["node"], int(values["vmid"])
        source = self.find(node, vmid)
        order = self._order(values, source)
        self._qm_check_pool(order.pool)
        self.need_quorum()
        self._check_clone_storage(order)
        self._check_lock(source)
        config = source.config
        if values.get("snapname"):
            if values["snapname"] not in source.snapshots:
                raise die(f"snapshot '{values['snapname']}' does not exist")
            config = source.snapshots[values["snapname"]]
        self._check_clone_drives(user, source, config, order)
        if self.guest(order.newid) is not None:
            raise die(f"unable to create VM {order.newid}: config file already exists")
        guest = self._reserve(order.newid, node, "clone")
        guest.config["description"] = "qmclone temporary file\n"
        self._inherit(guest, source)
        running = source.running

        async def body(log: Log) -> None:
            try:
                # Shared when the source is stopped: any number of clones at once; one by one when it runs.
                async with self.config_lock(vmid, wait=1, shared=not running), self.config_lock(order.newid, wait=1):
                    await self._copy(source, guest, dict(config), order, log)
            except BaseException:
                self._discard(guest)
                raise

        return str(await self.worker(node, "qmclone", vmid, user, body))

    @staticmethod
    def _order(values: dict[str, Any], source: LabGuest) -> Order:
        full = values.get("full")
        order = Order(
            newid=int(values["newid"]),
            full=not source.template if full is None else bool(full),
            name=values.get("name"),
            description=values.get("description"),
            pool=values.get("pool"),
            storage=values.get("storage"),
            format=values.get("format"),
            target=None if values.get("target") in (source.node, "localhost") else values.get("target"),
        )
        for option in ("storage", "format"):
            if getattr(order, option) and not order.full:
                raise die(f"parameter '{option}' not allowed for linked clones")
        return order

    def _check_clone_storage(self, order: Order) -> None:
        if order.target and order.target not in self.nodes:
            raise die(f"no such cluster node '{order.target}'")
        if order.storage is None:
            return
        store = self._store(order.storage)
        if "images" not in split_list(store.get("content")):
            raise param_error(storage=f"storage '{order.storage}' does not support vm images")
        if order.target:
            self._check_enabled(order.storage, order.target)
            if not store.get("shared"):
                raise die(f"can't clone to non-shared storage '{order.storage}'")

    def _check_clone_drives(self, user: str, source: LabGuest, config: dict[str, Any], order: Order) -> None:
        for key, drive in drives(config).items():
            if drive.storage is None:
                continue
            store = self._store(drive.storage)
            if order.target and not store.get("shared"):
                raise die(f"can't clone VM to node '{order.target}' (VM uses local storage)")
            if not drive.cdrom:
                self.require(user, "/storage/" + (order.storage or drive.storage), "Datastore.AllocateSpace")
            if not drive.cdrom and not order.full and "base-" not in drive.volume:
                raise die(f"Linked clone feature is not supported for drive '{key}'")

    @staticmethod
    def _inherit(guest: LabGuest, source: LabGuest) -> None:
        """The same disks boot the same operating system."""
        guest.agent = None if source.agent is None else {}
        guest.acpi, guest.agent_hangs = source.acpi, source.agent_hangs
        for name in ("start_secs", "stop_secs", "shutdown_secs", "agent_secs"):
            setattr(guest, name, getattr(source, name))

    async def _copy(self, source: LabGuest, guest: LabGuest, old: dict[str, Any], order: Order, log: Log) -> None:
        config: dict[str, Any] = {}
        try:
            for key, value in old.items():
                if key in CLONE_SKIP or UNUSED_KEY.fullmatch(key):
                    continue
                if NIC_KEY.fullmatch(key):
                    config[key] = with_mac(value, fresh=True)
                elif not DRIVE_KEY.match(key):
                    config[key] = value
            for key, drive in drives(old).items():
                config[key] = await self._copy_drive(source, guest, key, drive, order, log)
        except (PveError, TaskError) as error:
            raise TaskError(f"clone failed: {error}") from error
        config["name"] = order.name or f"Copy-of-VM-{old.get('name') or source.vmid}"
        if order.description is not None:
            config["description"] = order.description
        smbios = split_props("x," + str(config.get("smbios1", "")))[1]
        smbios["uuid"] = self.new_uuid()
        config["smbios1"] = ",".join(f"{key}={smbios[key]}" for key in sorted(smbios))
        if config.get("vmgenid"):
            config["vmgenid"] = self.new_uuid()
        if order.target:
            guest.node = order.target
        self._appear(guest, config, order.pool)

    async def _copy_drive(
        self, source: LabGuest, guest: LabGuest, key: str, drive: Drive, order: Order, log: Log
    ) -> str:
        """The drive of the copy, once its volume is there."""
        record = self._qm_volume(drive.volume)
        if record is None or (drive.cdrom and not drive.cloudinit):
            return str(drive)
        sid, name = volume_ref(drive.volume)
        size = int(record["size"])
        full = order.full or drive.cloudinit
        log(f"create {'full' if full else 'linked'} clone of drive {key} ({drive.volume})")
        await self.pause(DISK_SECONDS)
        copy = Drive(str(drive))
        if drive.cloudinit:
            copy.volume = self.allocate_cloudinit(guest, order.storage or str(sid))
        elif full:
            fmt = order.format or record["format"]
            copy.volume = self.allocate(guest, order.storage or str(sid), size, fmt=fmt)
            await self._transfer(size, f"drive-{key}: " if source.running else "", log)
        else:
            copy.volume = self.allocate(guest, str(sid), size, fmt=record["format"], base=name)
        copy.options["size"] = print_size(size)
        return str(copy)

    async def _transfer(self, size: int, prefix: str, log: Log) -> None:
        """Time passes while a disk is copied; a line for each percent, as qemu-img's progress is logged."""
        for percent in range(101):
            done = size * percent / 100
            log(f"{prefix}transferred {human_size(done)} of {human_size(size)} ({percent:.2f}%)")
            if percent % (100 // COPY_STEPS) == 0 and percent < 100:
                await self.pause(size / COPY_RATE / COPY_STEPS)
