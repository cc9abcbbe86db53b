# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

"""VMs come and go: create, destroy, convert to a template."""

from __future__ import annotations

import time
import uuid
from typing import Any

from fakepve.model import PveError, TaskError
from fakepve.qemu import CREATE_ONLY, QEMU_VERSION, boot_order
from fakepve.routing import die, param_error

from .cloudinit_options import image_values
from .config import check_boot
from .drives import DRIVE_KEY, UNUSED_KEY, Drive, drives, volume_ref
from .guest import LabGuest
from .tasks import Log


class Lifecycle:
    """Mixin: POST and DELETE of a VM, and its conversion to a template."""

    def add_vm(self, *args: Any, **kwargs: Any) -> LabGuest:
        """Put a VM into the cluster (arguments as LabGuest's); its volumes are the caller's business."""
        guest = LabGuest(*args, **kwargs)
        self.vms.append(guest)
        if guest.pool:
            self._pool_join(guest.pool, guest.vmid)
        self.note(guest)
        return guest

    @staticmethod
    def new_uuid() -> str:
        return str(uuid.uuid4())

    # ----------------------------------------------------------------- create

    async def _qm_create(self, values: dict[str, Any], user: str) -> str:
        node, vmid = values["node"], int(values["vmid"])
        pool, default = values.get("pool"), values.get("storage")
        if values.get("archive"):
            raise die(f"unable to restore VM {vmid} - restoring an archive is not supported by the lab")
        self.need_quorum()
        self._qm_check_pool(pool)
        if not (
            self.allowed(user, f"/vms/{vmid}", "VM.Allocate")
            or (pool and self.allowed(user, "/pool/" + pool, "VM.Allocate"))
        ):
            raise PveError(403, "Permission check failed")
        options = {key: value for key, value in values.items() if key not in CREATE_ONLY}
        self.check_config_rights(user, vmid, list(options), pool)
        options = self.accept(user, node, vmid, options, default)
        if "boot" in options:
            check_boot(options)
        self._check_balloon(options)
        other = self.vm(vmid)
        if other is not None:
            raise die(f"unable to create VM {vmid} - VM {vmid} already exists on node '{other.node}'")
        guest = self._reserve(vmid, node, "create")
        guest.agent = None  # its disks are empty: nothing boots from them

        async def body(log: Log) -> None:
            async with self.config_lock(vmid):
                try:
                    await self.import_disks(guest, options, default, log)
                    config = self._new_config(guest, options, default, log)
                except (PveError, TaskError) as error:
                    self._discard(guest)
                    raise TaskError(f"unable to create VM {vmid} - {error}") from error
                self._appear(guest, config, pool)
                if values.get("start"):
                    await self.power_on(guest, log)

        return str(await self.worker(node, "qmcreate", vmid, user, body))

    def _reserve(self, vmid: int, node: str, lock: str) -> LabGuest:
        """The config file exists from now on, so nobody else gets the vmid."""
        guest = LabGuest(vmid, f"VM {vmid}", node=node)
        guest.config = {}
        self._qm_lock(guest, lock)
        self.vms.append(guest)
        self.note(guest)
        return guest

    def _appear(self, guest: LabGuest, config: dict[str, Any], pool: str | None) -> None:
        """The real config replaces the temporary one."""
        guest.config = config
        guest.lock = None
        guest.name = config.get("name") or f"VM {guest.vmid}"
        guest.generated = image_values(config)  # nothing about cloud-init is pending on a new VM
        if pool:
            self._pool_join(pool, guest.vmid)
        self.note(guest)

    def _discard(self, guest: LabGuest) -> None:
        """Undo a creation: every volume of the VM, then the VM."""
        self._free_all(guest)
        self.vms.remove(guest)

    def _free_all(self, guest: LabGuest) -> None:
        for sid, store in self.storages.items():
            for name, volume in list(store.get("volumes", {}).items()):
                if volume.get("vmid") == guest.vmid and volume["content"] == "images":
                    self.free(f"{sid}:{name}")

    def _new_config(self, guest: LabGuest, options: dict[str, Any], default: str | None, log: Log) -> dict[str, Any]:
        config = {key: value for key, value in options.items() if not DRIVE_KEY.match(key) and value != ""}
        for key in sorted(key for key in options if DRIVE_KEY.match(key)):
            config[key], made = self.attach(guest, key, str(options[key]), default)
            if made:
                log(f"{key}: successfully created disk '{config[key]}'")
        config["meta"] = f"creation-qemu={QEMU_VERSION},ctime={int(time.time())}"
        order = config.get("boot") or boot_order(config)
        if order:
            config["boot"] = order
        config.setdefault("smbios1", f"uuid={self.new_uuid()}")
        if str(config.get("vmgenid", "1")) == "1":
            config["vmgenid"] = self.new_uuid()
        return config

    # ---------------------------------------------------------------- destroy

    async def _qm_destroy(self, values: dict[str, Any], user: str) -> str:
        node, vmid = values["node"], int(values["vmid"])
        skiplock = values.get("skiplock")
        if skiplock and user != "root@pam":
            raise param_error(skiplock="Only root may use this option.")
        self.need_quorum()
        self._check_destroy(self.find(node, vmid))

        async def body(log: Log) -> None:
            self.find(node, vmid)
            async with self.config_lock(vmid):
                guest = self.find(node, vmid)
                self._check_destroy(guest)
                if not skiplock:
                    self._check_lock(guest)
                self._check_unused_base(guest)
                self._destroy(guest, bool(values.get("destroy-unreferenced-disks")), log)
                if values.get("purge"):
                    log(f"purging VM {vmid} from related configurations..")

        return str(await self.worker(node, "qmdestroy", vmid, user, body))

    def _check_destroy(self, guest: LabGuest) -> None:
        self._qm_check_protection(guest, f"can't remove VM {guest.vmid}")
        if guest.running:
            raise die(f"VM {guest.vmid} is running - destroy failed")

    def _check_unused_base(self, guest: LabGuest) -> None:
        for drive in drives(guest.config).values():
            sid, name = volume_ref(drive.volume)
            children = self.storages.get(sid, {}).get("volumes", {}).values()
            if any(volume.get("parent") == name for volume in children):
                raise TaskError(f"base volume '{drive.volume}' is still in use by linked cloned")

    def _destroy(self, guest: LabGuest, unreferenced: bool, log: Log) -> None:
        held = [
            drive.volume
            for config in (guest.config, guest.pending, *guest.snapshots.values())
            for drive in drives({k: v for k, v in config.items() if v is not None}).values()
        ]
        held += [Drive(value).volume for key, value in guest.config.items() if UNUSED_KEY.fullmatch(key)]
        for volume in dict.fromkeys(held):
            if self.owned(guest, volume):
                self.free(volume)
                log(f"Removed volume '{volume}'")
        if unreferenced:
            self._free_all(guest)
        self.vms.remove(guest)
        self._pool_leave(guest.vmid)
        self._fw()["guests"].pop(guest.vmid, None)
        for entries in self.acl.values():
            entries[:] = [entry for entry in entries if entry[0] != f"/vms/{guest.vmid}"]

    # --------------------------------------------------------------- template

    async def _qm_template(self, values: dict[str, Any], user: str) -> str:
        guest = self.find(values["node"], values["vmid"])
        self.need_quorum()
        upid = await super()._qm_template(values, user)
        job = self._jobs.get(upid)
        if job is not None:
            job.add_done_callback(lambda _: self.note(guest))
        return str(upid)
