# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups of servers: take one, change or remove some."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ansible_collections.pvefleet.infra.plugins.module_utils._plan import Plan
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.backup_look import (
    Place,
    clocks,
    find_volume,
    look,
    no_backups,
    places,
    read_backups,
    servers_own,
    vmid_of,
    volume_path,
)
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.backup_plan import (
    Backup,
    BackupPlan,
    BackupSpec,
    newest_first,
    notes_template,
    plan_absent,
    plan_present,
    plan_settings,
)
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import (
    PveClient,
    PveNotFound,
    PveTaskFailed,
    TaskResult,
    segment,
)
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.cluster import listing, record
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.errors import LOCK_TIMEOUT, Unable, unable
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.guest import Guest
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.resources import Resources
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server import find, server_path
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.steps import step, until
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.upid import Upid

# How often a lock or a move that came in between is waited for.
ROUNDS = 4
# In the log of a task that did nothing because somebody else was at the guest.
LOCKED = re.compile(rf"VM is locked|{LOCK_TIMEOUT}")


@dataclass(frozen=True)
class Result:
    """backup: the one that is there, or was taken; None while one is only planned. server: what a restore made."""

    plan: Plan
    backup: Backup | None = None
    removed: tuple[Backup, ...] = ()
    server: Mapping[str, Any] | None = None
    warnings: tuple[str, ...] = ()


# ---------------------------------------------------------------------- present


def present(client: PveClient, spec: BackupSpec, *, check_mode: bool = False) -> Result:
    """A backup is there, taken now if need be, with the notes and the protection that the task says."""
    verb = f"change {spec.what}" if spec.volid else f"take {spec.what}"
    with unable(verb):
        if spec.volid is not None:
            resources = Resources.read(client)
            named = find_volume(client, resources, spec, verb)
            if named is None:
                raise Unable(f"Unable to {verb}: there is no such backup, and a new one gets its volid from PVE")
            return _settle(client, spec, plan_settings(spec, named), named, check_mode)
        return _present_of_server(client, spec, verb, check_mode)


def _present_of_server(client: PveClient, spec: BackupSpec, verb: str, check_mode: bool) -> Result:
    deadline = time.monotonic() + spec.timeout
    trouble = ""
    for _round in range(ROUNDS):
        guest, vmid = _guest(client, spec, verb)
        place = _place_to_write(client, spec, guest.node, verb)
        before = servers_own(read_backups(client, place, vmid))
        now = clocks(client, before, spec.selection)
        planned = plan_present(spec, before, now, target=f"server {guest.name} ({vmid}) on {place.storage}")
        if planned.found is not None:
            return _settle(client, spec, planned, planned.found, check_mode)
        if check_mode:
            return Result(planned.plan)
        earlier = own_tasks(client, guest.node, vmid, "vzdump")
        if _wait_for_others(client, guest, vmid, earlier, deadline, spec, verb):
            continue  # there may be a backup now that will do
        try:
            done = _vzdump(client, spec, guest, vmid, place, earlier, deadline)
        except PveTaskFailed as failed:
            trouble = f": {failed}"
            if not any(LOCKED.search(line) for line in failed.log_tail):
                raise
            continue
        if done is None:
            trouble = f": it has left node {guest.node}"
            continue
        return _taken(client, spec, place, vmid, before, planned, done, verb)
    raise Unable(f"Unable to {verb}: {ROUNDS} attempts came to nothing{trouble}")


def _guest(client: PveClient, spec: BackupSpec, verb: str) -> tuple[Guest, int]:
    chosen = spec.selection
    resources = Resources.read(client)
    vmid = vmid_of(client, resources, chosen, verb)
    guest = find(client, resources, name=None, vmid=vmid)
    if guest is None:
        raise Unable(f"Unable to {verb}: there is no server {vmid}")
    if chosen.node not in (None, guest.node):
        raise Unable(f"Unable to {verb}: it is on node {guest.node} and not on {chosen.node}")
    return guest, vmid


def _place_to_write(client: PveClient, spec: BackupSpec, node: str, verb: str) -> Place:
    spots = places(client, node)
    takers = [spot for spot in spots if "backup" in spot.content]
    storage = spec.storage
    if storage is None:
        active = [spot for spot in takers if spot.active]
        if len(active) != 1:
            names = ", ".join(spot.storage for spot in active) or "no storage"
            raise Unable(f"Unable to {verb}: give its storage; {names} of node {node} can take it")
        return active[0]
    if not spots:
        return Place(node, storage, False, True, ("backup",))  # this user may see none; PVE will say
    place = next((spot for spot in takers if spot.storage == storage), None)
    if place is None:
        raise Unable(f"Unable to {verb} on node {node}: {no_backups(client, storage, spots)}")
    if not place.active:
        raise Unable(f"Unable to {verb}: storage {storage} is not active on node {node}")
    return place


def own_tasks(
    client: PveClient, node: str, vmid: int, kind: str, *, anyones: bool = False
) -> dict[str, Mapping[str, Any]]:
    """The tasks of this kind on a guest that this client's user started, by UPID, the newest first."""
    connection = client.connection
    user = f"{connection.user}!{connection.token_id}" if connection.token_id else connection.user
    rows = listing(client, f"/nodes/{segment(node)}/tasks", {"vmid": vmid, "typefilter": kind, "source": "all"})
    own = [row for row in rows if row["type"] == kind and (anyones or Upid.parse(row["upid"]).user == user)]
    return {str(row["upid"]): row for row in sorted(own, key=began, reverse=True)}


def began(row: Mapping[str, Any]) -> tuple[int, int]:
    """When a task of a node began, to be compared: the second, and within it the clock ticks of its process."""
    return int(row["starttime"]), int(str(row["upid"]).split(":")[3], 16)


def newer_task(client: PveClient, node: str, vmid: int, kind: str, earlier: Collection[str]) -> Callable[[], Any]:
    """What tells after a lost answer whether the worker was started: its UPID, or None."""

    def landed() -> str | None:
        return next((upid for upid in own_tasks(client, node, vmid, kind) if upid not in earlier), None)

    return landed


def running(tasks: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [upid for upid, row in tasks.items() if not row.get("endtime")]


def _wait_for_others(
    client: PveClient,
    guest: Guest,
    vmid: int,
    tasks: Mapping[str, Mapping[str, Any]],
    deadline: float,
    spec: BackupSpec,
    verb: str,
) -> bool:
    """True when something was at the guest and is done now: a backup that an earlier run began, or a lock."""
    own = running(tasks)
    for upid in own:
        try:
            client.wait(upid, timeout=max(deadline - time.monotonic(), 0))
        except PveTaskFailed:
            continue  # its run was told; this one tries anew
    return bool(own) or wait_unlocked(client, guest, vmid, deadline, f"Unable to {verb}", spec.timeout)


def wait_unlocked(client: PveClient, guest: Guest, vmid: int, deadline: float, complaint: str, timeout: float) -> bool:
    """True when the guest was locked and is not any more. Unable when it is so still at the deadline."""
    lock = guest.lock
    if lock is None:
        return False
    if lock == "suspended":
        raise Unable(f"{complaint}: it is suspended to disk, which ends only when it is started")
    for _look in until(max(deadline - time.monotonic(), 0)):
        try:
            lock = record(client, f"{server_path(guest.node, vmid)}/config").get("lock")
        except PveNotFound:
            lock = None
        if lock is None:
            return True
    raise Unable(
        f"{complaint}: VM is locked ({lock}), still after {timeout:g} s; if nothing works on it any more, `qm unlock "
        f"{vmid}` on node {guest.node} frees it"
    )


def _vzdump(
    client: PveClient,
    spec: BackupSpec,
    guest: Guest,
    vmid: int,
    place: Place,
    earlier: Collection[str],
    deadline: float,
) -> TaskResult | None:
    left = max(deadline - time.monotonic(), 1)
    params = {
        "vmid": vmid,
        "storage": place.storage,
        "mode": spec.mode,
        "compress": spec.compress,
        "notes-template": notes_template(spec.notes) if spec.notes else None,
        "protected": True if spec.protected else None,
        "prune-backups": spec.prune,
        # Minutes: a vzdump that waits for another one of its node gives up not long after we do.
        "lockwait": int(left // 60) + 1,
    }
    return step(
        client,
        "POST",
        f"/nodes/{segment(guest.node)}/vzdump",
        params,
        label=guest.name,
        timeout=left,
        percent=(0, 95),
        landed=newer_task(client, guest.node, vmid, "vzdump", earlier),
    )


def _taken(
    client: PveClient,
    spec: BackupSpec,
    place: Place,
    vmid: int,
    before: Iterable[Backup],
    planned: BackupPlan,
    done: TaskResult,
    verb: str,
) -> Result:
    """What the vzdump has left: the new backup, and those that its retention has removed."""
    after = servers_own(read_backups(client, place, vmid))
    old, now = {backup.volid for backup in before}, {backup.volid for backup in after}
    new = [b for b in newest_first(after) if b.volid not in old and spec.notes in (None, b.notes)]
    if not new:
        raise Unable(f"Unable to {verb}: its task ended well, but there is no new backup on {place.storage}")
    removed = tuple(backup for backup in before if backup.volid not in now)
    return Result(planned.plan, new[0], removed, warnings=tuple(done.log_tail))


def _settle(client: PveClient, spec: BackupSpec, planned: BackupPlan, found: Backup, check_mode: bool) -> Result:
    """Writes what differs of a backup's notes and protection."""
    if not planned.settings or check_mode:
        return Result(planned.plan, found)

    def now() -> Backup | None:
        spot = Place(found.node, found.storage, found.shared, True, ("backup",))
        return next((b for b in read_backups(client, spot, found.vmid) if b.volid == found.volid), None)

    def landed() -> bool | None:
        seen = now()
        return True if seen is not None and not plan_settings(spec, seen).settings else None

    client.put(volume_path(found), planned.settings, landed=landed)
    settled = now()
    if settled is None or plan_settings(spec, settled).settings:
        raise Unable(f"Unable to change backup {found.volid}: Proxmox VE took the change, and it is not there")
    return Result(planned.plan, settled)


# ----------------------------------------------------------------------- absent


def absent(client: PveClient, spec: BackupSpec, *, check_mode: bool = False) -> Result:
    """The backups that are meant are gone; protected ones are left."""
    verb = f"remove {spec.what}"
    with unable(verb):
        resources = Resources.read(client)
        if spec.volid is not None:
            named = find_volume(client, resources, spec, verb)
            plan, doomed = plan_absent(spec, [named] if named else [], {})
        else:
            chosen = spec.selection
            vmid = vmid_of(client, resources, chosen, verb)
            seen = look(client, resources, storage=chosen.storage, node=chosen.node, vmid=vmid, verb=verb)
            backups = servers_own(seen.complete(verb))
            plan, doomed = plan_absent(spec, backups, clocks(client, backups, chosen))
        if not check_mode:
            for number, backup in enumerate(doomed):
                _remove(client, spec, backup, (100 * number // len(doomed), 100 * (number + 1) // len(doomed)))
        return Result(plan, None, tuple(doomed))


def _remove(client: PveClient, spec: BackupSpec, backup: Backup, percent: tuple[int, int]) -> None:
    spot = Place(backup.node, backup.storage, backup.shared, True, ("backup",))

    def gone() -> bool | None:
        volids = {other.volid for other in read_backups(client, spot, backup.vmid)}
        return True if backup.volid not in volids else None

    label = backup.volid
    with suppress(PveNotFound):  # somebody else was faster
        step(client, "DELETE", volume_path(backup), {}, label=label, timeout=spec.timeout, percent=percent, landed=gone)
    if not gone():
        raise Unable(f"Unable to remove backup {backup.volid}: it is still there")
