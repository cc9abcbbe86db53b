# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Servers restored from backups: into a free vmid, or over an existing server when that was said."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Any

from ansible_collections.pvefleet.infra.plugins.module_utils._plan import Change, Plan
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.backup_look import (
    clocks,
    find_volume,
    look,
    places,
    privileges,
    servers_own,
    vmid_of,
)
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.backup_plan import (
    Backup,
    BackupSpec,
    archived_config,
    system_uuid,
)
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.backup_take import (
    LOCKED,
    ROUNDS,
    Result,
    began,
    newer_task,
    own_tasks,
    wait_unlocked,
)
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import (
    PveClient,
    PveConflict,
    PveError,
    PveForbidden,
    PveTaskFailed,
    segment,
)
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.cluster import listing, record, strange
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.errors import Unable, unable
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.guest import Guest
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.resources import Resources
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server import find, server_path
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server_apply import start, stop_hard
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server_spec import ServerSpec
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server_work import Work
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.steps import step

# What PVE logs when the disks of a restored server are complete and its config is written.
_COMPLETE = "rescan volumes"
_LOG_LINES = 5000


class Halfway(Unable):
    """A restore that failed after something was done, which its sentence tells."""


@dataclass(frozen=True)
class _Target:
    """Where a backup goes. done: the server there is this very backup, restored. empty: there is only its vmid yet."""

    node: str
    vmid: int
    guest: Guest | None
    done: bool = False
    empty: bool = False

    @property
    def overwrites(self) -> bool:
        return self.guest is not None and not self.done


def restored(client: PveClient, spec: BackupSpec, *, check_mode: bool = False) -> Result:
    """The server is restored, and runs if that is wanted."""
    verb = f"restore {spec.what}"
    with unable(verb):
        resources = Resources.read(client)
        source = _source(client, resources, spec, verb)
        deadline = time.monotonic() + spec.timeout
        target = _target(client, resources, spec, source, verb, deadline, waits=not check_mode)
        plan = _plan(spec, source, target)
        if check_mode or not plan.changed:
            return _result(plan, source, target, spec)
    done: list[str] = []
    try:
        with unable(verb):
            warnings = _apply(client, resources, spec, source, target, verb, deadline, done)
    except Unable as error:
        raise Halfway(f"{error}; {' and '.join(done)}") if done else error from error.__cause__
    return _result(plan, source, target, spec, warnings)


def _result(plan: Plan, source: Backup, target: _Target, spec: BackupSpec, warnings: tuple[str, ...] = ()) -> Result:
    on = spec.start or (target.done and target.guest is not None and target.guest.running)
    server = {"vmid": target.vmid, "node": target.node, "status": "running" if on else "stopped"}
    return Result(plan, source, server=server, warnings=warnings)


def _plan(spec: BackupSpec, source: Backup, target: _Target) -> Plan:
    guest = target.guest
    changes: list[Change] = []
    if not target.done:
        before = f"{guest.name} ({target.vmid})" if guest is not None and not target.empty else None
        changes.append(Change("server", before, f"{target.vmid} on {target.node} from {source.volid}"))
    on = guest is not None and guest.running
    if spec.start and not on:
        changes.append(Change("power", "stopped", "running"))
    elif on and not spec.start and not target.done:
        changes.append(Change("power", "running", "stopped"))
    return Plan(f"server {target.vmid}", tuple(changes))


# ------------------------------------------------------------------------- look


def _source(client: PveClient, resources: Resources, spec: BackupSpec, verb: str) -> Backup:
    """The backup that the task names, or else the newest that fits."""
    chosen = spec.selection
    if spec.volid is not None:
        named = find_volume(client, resources, spec, verb)
        if named is None:
            raise Unable(f"Unable to {verb}: there is no such backup")
        backup = named
    else:
        vmid = vmid_of(client, resources, chosen, verb, besides=spec.target_vmid)
        seen = look(client, resources, storage=chosen.storage, node=chosen.node, vmid=vmid, verb=verb)
        backups = servers_own(seen.complete(verb))
        fitting = chosen.chosen(backups, clocks(client, backups, chosen))
        if not fitting:
            some = f", only {len(backups)} others" if backups else ""
            raise Unable(f"Unable to {verb}: there is none that fits{some}")
        backup = fitting[0]
    if backup.is_container:
        raise Unable(f"Unable to {verb}: {backup.volid} is a container's")
    return backup


def _target(
    client: PveClient,
    resources: Resources,
    spec: BackupSpec,
    source: Backup,
    verb: str,
    deadline: float,
    *,
    waits: bool,
) -> _Target:
    """Where it goes, after everything is refused that can be known to fail."""
    vmid = spec.target_vmid or source.vmid
    if vmid is None:
        raise Unable(f"Unable to {verb}: the backup does not say whose it is; give target_vmid")
    guest = find(client, resources, name=None, vmid=vmid)
    if guest is not None and guest.lock and waits:
        wait_unlocked(client, guest, vmid, deadline, f"Unable to {verb} into {vmid}", spec.timeout)
        guest = find(client, resources, name=None, vmid=vmid)
    node = guest.node if guest else spec.selection.node or source.node
    if not source.shared and source.node != node:
        there = f"server {vmid} is on {node}" if guest else f"{node} was asked for"
        raise Unable(f"Unable to {verb}: {source.storage} of {source.node} can be read only there, and {there}")
    target = _Target(node, vmid, guest)
    if guest is not None:
        target = _existing(client, spec, source, target, guest, verb)
    if not target.done:
        _check_storages(client, spec, source, node, verb)
    return target


def _existing(client: PveClient, spec: BackupSpec, source: Backup, target: _Target, guest: Guest, verb: str) -> _Target:
    """What is to be made of the server that has the vmid."""
    if not guest.config.keys() - {"lock"}:
        # A restore that failed leaves a config with nothing in it, and keeps the vmid with that.
        return _Target(target.node, target.vmid, guest, empty=True)
    if not spec.force:
        # Without it PVE shows only this user's own tasks, and not what others have made of the vmid since.
        blind = "Sys.Audit" not in privileges(client, f"/nodes/{target.node}")
        if not blind and _came_from(client, target, source) and _is_same(client, spec, source, guest):
            return _Target(target.node, target.vmid, guest, done=True)
        user = client.connection.user
        why = f"; {user} needs Sys.Audit on /nodes/{target.node} to tell whether it is this backup restored"
        raise Unable(
            f"Unable to {verb}: {target.vmid} is server {guest.name}; set force: true to overwrite it, or give "
            f"another target_vmid{why if blind else ''}"
        )
    if guest.is_template:
        raise Unable(f"Unable to {verb}: {target.vmid} is the template {guest.name}")
    if guest.is_protected:
        raise Unable(f"Unable to {verb}: the protection of server {guest.name} ({target.vmid}) is on")
    return target


def _came_from(client: PveClient, target: _Target, source: Backup) -> bool:
    """Whether the last restore into this vmid was of this backup and was complete, and nobody removed it since."""
    try:
        made = own_tasks(client, target.node, target.vmid, "qmrestore", anyones=True)
        removed = own_tasks(client, target.node, target.vmid, "qmdestroy", anyones=True)
        ended = {upid: row for upid, row in made.items() if row.get("endtime")}
        if not ended:
            return False
        last, row = next(iter(ended.items()))
        if any(began(other) > began(row) for other in removed.values()):
            return False
        path = f"/nodes/{segment(target.node)}/tasks/{segment(last)}/log"
        log = [str(line.get("t", "")) for line in listing(client, path, {"limit": _LOG_LINES})]
    except PveForbidden:
        return False
    named = re.compile(rf"{re.escape(source.archive)}(?![\w.])")
    return any(line.startswith(_COMPLETE) for line in log) and any(named.search(line) for line in log)


def _is_same(client: PveClient, spec: BackupSpec, source: Backup, guest: Guest) -> bool:
    """Whether a server can be what the backup makes: a log tells what once came into a vmid, not what is there now."""
    path = f"/nodes/{segment(source.node)}/vzdump/extractconfig"
    try:
        text = client.get(path, {"volume": source.volid})
    except PveForbidden:
        return False
    if not isinstance(text, str):
        raise strange(client, path)
    config = archived_config(text)
    was, now = system_uuid(config.get("smbios1", "")), system_uuid(guest.text("smbios1"))
    if was is not None and (was == now) is spec.unique:  # `unique` makes a new one
        return False
    known_by_name = was is None or spec.unique
    return guest.name == (spec.target_name or (config.get("name", guest.name) if known_by_name else guest.name))


def _check_storages(client: PveClient, spec: BackupSpec, source: Backup, node: str, verb: str) -> None:
    spots = {spot.storage: spot for spot in places(client, node)}
    if not spots:
        return  # this user may see none; PVE will say
    if source.storage not in spots or not spots[source.storage].active:
        raise Unable(f"Unable to {verb}: storage {source.storage} is not active on node {node}")
    wanted = spec.target_storage
    if wanted is None:
        return
    takers = ", ".join(name for name, spot in spots.items() if "images" in spot.content) or "none"
    if wanted not in spots or "images" not in spots[wanted].content:
        raise Unable(f"Unable to {verb} to {wanted}: node {node} has for disks only {takers}")
    if not spots[wanted].active:
        raise Unable(f"Unable to {verb} to {wanted}: that storage is not active on node {node}")


# ------------------------------------------------------------------------ change


def _apply(
    client: PveClient,
    resources: Resources,
    spec: BackupSpec,
    source: Backup,
    target: _Target,
    verb: str,
    deadline: float,
    done: list[str],
) -> tuple[str, ...]:
    """Stop, restore, start, as it takes; the restore's warnings. done: gets what was done, for whoever tells of a
    failure of the rest."""
    work = Work(client, ServerSpec(vmid=target.vmid, timeout=int(spec.timeout)), resources=resources)
    guest, warnings = target.guest, tuple[str, ...]()
    if not target.done:
        if guest is not None and guest.running:
            stop_hard(work, guest, (0, 5))
            done.append(f"{guest.name} was stopped for it")
        warnings = _restore(client, spec, source, target, verb, deadline)
        done.append(f"server {target.vmid} was restored")
    if spec.start:
        start(work, guest or Guest(target.vmid, target.node, str(target.vmid), {}))
    return warnings


def _restore(
    client: PveClient, spec: BackupSpec, source: Backup, target: _Target, verb: str, deadline: float
) -> tuple[str, ...]:
    """The restore itself; its warnings. Repeated when it only did not get a lock."""
    overwrite = target.overwrites
    rounds = iter(range(ROUNDS))
    while True:
        earlier = own_tasks(client, target.node, target.vmid, "qmrestore")
        params: dict[str, Any] = {
            "vmid": target.vmid,
            "archive": source.volid,
            "storage": spec.target_storage,
            "name": spec.target_name,
            "force": True if overwrite else None,
            "unique": True if spec.unique else None,
        }
        try:
            done = step(
                client,
                "POST",
                f"/nodes/{segment(target.node)}/qemu",
                params,
                label=f"server {target.vmid}",
                timeout=max(deadline - time.monotonic(), 1),
                percent=(5, 85),
                landed=newer_task(client, target.node, target.vmid, "qmrestore", earlier),
            )
        except (PveTaskFailed, PveConflict) as error:
            # What did not get a lock did nothing but take the vmid, with a config that has nothing in it.
            if next(rounds, None) is None or not _only_locked(error) or not _is_empty(client, target):
                raise
            overwrite = True
            continue
        if _config(client, target).get("lock"):
            raise Unable(f"Unable to {verb}: its task ended well, but server {target.vmid} is still locked")
        return tuple(done.log_tail) if done else ()


def _only_locked(error: PveError) -> bool:
    return isinstance(error, PveConflict) or LOCKED.search(str(error)) is not None


def _is_empty(client: PveClient, target: _Target) -> bool:
    return not _config(client, target).keys() - {"digest"}


def _config(client: PveClient, target: _Target) -> dict[str, Any]:
    return record(client, f"{server_path(target.node, target.vmid)}/config")
