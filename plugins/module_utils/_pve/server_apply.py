# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Do what a plan says to a server that is there."""

from __future__ import annotations

import re
from dataclasses import replace

from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import (
    PveConflict,
    PveTaskFailed,
    TaskResult,
)
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.guest import Guest
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.resources import Resources
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server import (
    ServerError,
    observe,
    observe_config,
    server_path,
)
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server_plan import ServerPlan, plan_server, settled
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server_work import Work, vmid_of
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.steps import until
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.values import parse_drive, print_size

# `cluster/resources` shows a new name after 9 to 11 s (measured); until then a search by that name would find nothing.
_RENAME_SECONDS = 30.0
# After a reboot's shutdown it is qmeventd that starts the server again, when the task has ended already.
_COME_BACK_SECONDS = 60.0
# PVE's own deadline comes first, so that it is PVE that says what happened.
_MARGIN_SECONDS = 30.0
# The changes that are not made by writing the config.
_OTHERS = {"server", "pool", "power"}


class Interrupted(Exception):
    """Somebody else changed or locked the server meanwhile. `done`: the items of the plan that were changed before."""

    def __init__(self, reason: str, done: set[str]) -> None:
        super().__init__(reason)
        self.done = done


def apply(work: Work, plan: ServerPlan, guest: Guest) -> None:
    """Makes the changes of `plan`. Raises Interrupted, ServerError and what PveClient.run raises."""
    done: set[str] = set()
    try:
        _apply(work, plan, guest, done)
    except PveConflict as error:
        raise Interrupted(error.reason, done) from error
    except PveTaskFailed as error:
        if not re.search(r"file change by other user|^VM is locked", error.exitstatus or ""):
            raise
        raise Interrupted(error.reason, done) from error


def start(work: Work, guest: Guest) -> None:
    try:
        _status_call(work, "start", {}, guest, running=True, percent=(85, 95))
    except PveTaskFailed as error:
        if not re.search(r"already running", error.exitstatus or ""):
            raise


def stop_hard(work: Work, guest: Guest, percent: tuple[int, int]) -> None:
    _status_call(work, "stop", {}, guest, running=False, percent=percent)


def _apply(work: Work, plan: ServerPlan, guest: Guest, done: set[str]) -> None:
    if plan.power == "stop":
        _stop(work, guest)
        done.add("power")
    for disk, size in plan.resizes.items():
        _resize(work, guest, disk, size)
        done.add(f"{disk}.size")
    if plan.reconfigures:
        # A new clone that nobody has read yet has no digest to keep up with.
        _configure(work, plan, _grown(work, guest, plan) if plan.resizes and guest.digest else guest)
        done.update({change.item for change in plan.changes} - {f"{disk}.size" for disk in plan.resizes} - _OTHERS)
    if plan.pool is not None:
        _move_to_pool(work, plan.pool, guest)
        done.add("pool")
    if "name" in plan.settings:
        _wait_renamed(work, guest, plan.settings["name"])
    if plan.power == "start":
        start(work, guest)
    elif plan.power == "reboot":
        _reboot(work, guest)


def _resize(work: Work, guest: Guest, disk: str, size: int) -> None:
    def landed() -> bool | None:
        text = (work.config(guest.node, vmid_of(guest)) or {}).get(disk)
        return True if text is not None and (parse_drive(str(text)).size or 0) >= size else None

    path = f"{server_path(guest.node, guest.vmid)}/resize"
    work.run("PUT", path, {"disk": disk, "size": print_size(size)}, landed=landed, percent=(60, 65))


def _grown(work: Work, guest: Guest, plan: ServerPlan) -> Guest:
    """The server after its disks grew, with a new digest; PveConflict when somebody else changed it meanwhile."""
    now = observe_config(work.client, guest.node, vmid_of(guest), pool=guest.pool)
    for key in guest.config.keys() | now.config.keys():
        before, after = guest.text(key), now.text(key)
        if key in plan.resizes and before and after:
            before, after = _without_size(before), _without_size(after)
        if before != after:
            raise PveConflict(f"{key} was changed by somebody else")
    return now


def _without_size(text: str) -> str:
    return ",".join(item for item in text.split(",") if not item.startswith("size="))


def _configure(work: Work, plan: ServerPlan, guest: Guest) -> None:
    params: dict[str, object] = {**plan.settings, "digest": guest.digest}
    if plan.delete:
        params["delete"] = ",".join(plan.delete)
    wanted = replace(settled(work.spec), state="present")

    def landed() -> bool | None:
        """A written password cannot be seen, so that it is the digest that tells; a new clone's password is written
        together with its notes."""
        now = observe(work.client, guest.node, vmid_of(guest), pool=guest.pool)
        if now.digest == guest.digest:
            return None
        return None if plan_server(wanted, now, work.placement).reconfigures else True

    # POST is the form that works in the background: allocating a volume may outlast pveproxy's 30 s.
    method = "POST" if plan.new_volume_storages() else "PUT"
    path = f"{server_path(guest.node, guest.vmid)}/config"
    work.run(method, path, params, landed=landed, percent=(65, 80), storages=plan.new_volume_storages())


def _move_to_pool(work: Work, pool: str, guest: Guest) -> None:
    """`allow-move` takes it out of its present pool; an empty name only takes it out."""
    if pool:
        params = {"poolid": pool, "vms": guest.vmid, "allow-move": True}
    else:
        params = {"poolid": guest.pool or "", "vms": guest.vmid, "delete": True}

    def landed() -> bool | None:
        row = Resources.read(work.client).guest(vmid_of(guest)) or {}
        return True if (row.get("pool") or "") == pool else None

    work.touched = True
    work.client.put("/pools", params, landed=landed)


def _wait_renamed(work: Work, guest: Guest, name: str) -> None:
    for _look in until(_RENAME_SECONDS):
        row = Resources.read(work.client).guest(vmid_of(guest))
        if row is None or row.get("name") == name:
            return


def _stop(work: Work, guest: Guest) -> None:
    if work.spec.force:
        stop_hard(work, guest, (20, 55))
    else:
        _shut_down(work, guest, "shutdown", "stop", running=False)


def _reboot(work: Work, guest: Guest) -> None:
    """Through PVE's API, for a reboot from inside would not apply what is pending."""
    if work.spec.force:
        stop_hard(work, guest, (80, 85))
    else:
        _shut_down(work, guest, "reboot", "restart", running=None)
        for _look in until(_COME_BACK_SECONDS):
            if work.is_running(guest):
                return
    start(work, guest)


def _shut_down(work: Work, guest: Guest, action: str, verb: str, *, running: bool | None) -> None:
    seconds = work.spec.shutdown_timeout
    try:
        _status_call(work, action, {"timeout": seconds}, guest, running=running, percent=(20, 55), lasts=seconds)
    except PveTaskFailed as error:
        if "timeout" not in (error.exitstatus or ""):
            raise
        raise ServerError(
            f"Unable to {verb} server {work.spec.label}: it did not shut down within {seconds} s "
            f"({error.exitstatus}); force: true stops it hard"
        ) from error


def _status_call(
    work: Work,
    action: str,
    params: dict[str, int],
    guest: Guest,
    *,
    running: bool | None,
    percent: tuple[int, int],
    lasts: float = 0,
) -> None:
    """`running` is how to recognise, after a lost answer, that it was done; None when that cannot be told.

    lasts: seconds that PVE itself may wait.
    """

    def landed() -> bool | None:
        return True if work.is_running(guest) == running else None

    result: TaskResult | None = work.run(
        "POST",
        f"{server_path(guest.node, guest.vmid)}/status/{action}",
        params,
        landed=None if running is None else landed,
        percent=percent,
        timeout=max(work.spec.timeout, lasts + _MARGIN_SECONDS),
    )
    if result is not None and running is not None and result.upid.type.startswith("ha"):
        _wait_for_ha(work, guest, running)


def _wait_for_ha(work: Work, guest: Guest, running: bool) -> None:
    """The task has only told the HA manager, which acts when it gets round to it."""
    for _look in until(work.spec.timeout):
        if work.is_running(guest) == running:
            return
    wanted = "start" if running else "stop"
    raise ServerError(
        f"Unable to {wanted} server {work.spec.label}: the HA manager did not do so within {work.spec.timeout} s"
    )
