# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

"""Power: start, stop, shutdown, reboot, reset, suspend and resume."""

from __future__ import annotations

import time
from typing import Any

from aiohttp import web
from fakepve.model import PveError, TaskError
from fakepve.routing import param_error

from .drives import NIC_KEY, network_options
from .guest import LabGuest
from .tasks import Log


class Power:
    """Mixin: ``/status/{action}``. Everything that can go wrong goes wrong in the task, as on a real node."""

    async def _status_action(self, request: web.Request) -> web.Response:
        actions = {
            "start": self._start,
            "stop": self._stop,
            "shutdown": self._shutdown,
            "reboot": self._reboot,
            "reset": self._reset,
            "suspend": self._suspend,
            "resume": self._resume,
        }
        action = request.match_info["action"]
        if action not in actions:
            raise PveError(501, f"Method 'POST {request.path}' not implemented")
        return await self.checked(request, actions[action])

    # -------------------------------------------------------------- the switch

    async def power_on(self, guest: LabGuest, log: Log) -> None:
        """Start: pending config applies, the cloud-init image is written, then the guest boots."""
        if guest.template:
            raise TaskError("you can't start a vm if it's a template")
        self._check_lock(guest)
        if guest.running:
            raise TaskError(f"VM {guest.vmid} already running")
        self.apply_pending(guest)
        self.generate_cloudinit(guest)
        await self.pause(guest.start_secs)
        if guest.start_error:
            raise TaskError(guest.start_error)
        for key in sorted(key for key in guest.config if NIC_KEY.fullmatch(key)):
            self._check_bridge(guest, key, log)
        self._boot(guest)
        guest.started_at = time.time()
        self.set_status(guest, "running")

    def _check_bridge(self, guest: LabGuest, key: str, log: Log) -> None:
        bridge = network_options(guest.config[key]).get("bridge")
        if bridge and bridge not in self.bridges[guest.node]:
            script = "/usr/libexec/qemu-server/pve-bridge"
            log(f"bridge '{bridge}' does not exist")
            log(
                f"kvm: -netdev type=tap,id={key},ifname=tap{guest.vmid}i{key[3:]},script={script}: "
                f"network script {script} failed with status 512"
            )
            raise TaskError("start failed: QEMU exited with code 1")

    @staticmethod
    def _boot(guest: LabGuest) -> None:
        guest.booted_at = time.monotonic()
        guest.booted_with = dict(guest.generated)

    def power_off(self, guest: LabGuest) -> None:
        """The process is gone: pending config applies."""
        self.set_status(guest, "stopped")
        self.apply_pending(guest)
        guest.name = guest.config.get("name") or f"VM {guest.vmid}"
        self.note(guest)

    def set_status(self, guest: LabGuest, status: str) -> None:
        guest.status = guest.qmpstatus = status
        self.note(guest)

    async def _powerdown(self, guest: LabGuest, timeout: float, force: bool, log: Log) -> None:
        """Ask the guest to power off; without an operating system nobody hears it."""
        heard = guest.acpi and guest.agent is not None and guest.shutdown_secs <= timeout
        await self.pause(guest.shutdown_secs if heard else timeout)
        if not heard and not force:
            raise TaskError("VM quit/powerdown failed - got timeout")
        if not heard:
            log("VM still running - terminating now with SIGTERM")
        self.power_off(guest)

    # ----------------------------------------------------------------- actions

    async def _action(self, values: dict[str, Any], user: str, kind: str, act: Any) -> str:
        """Fork the worker; the VM is looked up there, under its lock."""
        node, vmid = values["node"], int(values["vmid"])
        if values.get("skiplock") and user != "root@pam":
            raise param_error(skiplock="Only root may use this option.")
        self.need_quorum()

        async def body(log: Log) -> None:
            self.find(node, vmid)
            async with self.config_lock(vmid):
                await act(self.find(node, vmid), log)

        return str(await self.worker(node, kind, vmid, user, body))

    async def _start(self, values: dict[str, Any], user: str) -> str:
        return await self._action(values, user, "qmstart", self.power_on)

    async def _stop(self, values: dict[str, Any], user: str) -> str:
        if values.get("overrule-shutdown"):
            for task in list(self.tasklog):
                if task["type"] == "qmshutdown" and task["id"] == str(values["vmid"]) and task["status"] == "running":
                    await self._interrupt(task["upid"])

        async def act(guest: LabGuest, log: Log) -> None:
            if not guest.running:
                return
            if not values.get("skiplock"):
                self._check_lock(guest)
            await self.pause(guest.stop_secs)
            self.power_off(guest)

        return await self._action(values, user, "qmstop", act)

    async def _shutdown(self, values: dict[str, Any], user: str) -> str:
        timeout = values.get("timeout", self.shutdown_default_timeout)

        async def act(guest: LabGuest, log: Log) -> None:
            if not guest.running:
                return
            self._check_lock(guest)
            await self._powerdown(guest, timeout, bool(values.get("forceStop")), log)

        return await self._action(values, user, "qmshutdown", act)

    async def _reboot(self, values: dict[str, Any], user: str) -> str:
        self._need_running(self.find(values["node"], values["vmid"]))
        timeout = values.get("timeout", self.shutdown_default_timeout)

        async def act(guest: LabGuest, log: Log) -> None:
            self._check_lock(guest)
            await self._powerdown(guest, timeout, False, log)
            await self.power_on(guest, log)

        return await self._action(values, user, "qmreboot", act)

    async def _reset(self, values: dict[str, Any], user: str) -> str:
        self._need_running(self.find(values["node"], values["vmid"]))

        async def act(guest: LabGuest, log: Log) -> None:
            self._check_lock(guest)
            self._boot(guest)  # the same process: pending config stays pending

        return await self._action(values, user, "qmreset", act)

    async def _suspend(self, values: dict[str, Any], user: str) -> str:
        self._need_running(self.find(values["node"], values["vmid"]))

        async def act(guest: LabGuest, log: Log) -> None:
            self._check_lock(guest)
            if values.get("todisk"):
                raise TaskError("the lab does not suspend to disk")
            guest.qmpstatus = "paused"

        return await self._action(values, user, "qmsuspend", act)

    async def _resume(self, values: dict[str, Any], user: str) -> str:
        self._need_running(self.find(values["node"], values["vmid"]))

        async def act(guest: LabGuest, log: Log) -> None:
            guest.qmpstatus = "running"

        return await self._action(values, user, "qmresume", act)
