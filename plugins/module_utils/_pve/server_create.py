# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make a server that is not there: a clone or an empty one, with a vmid that nobody else took."""

from __future__ import annotations

import contextlib
import random
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import (
    PveConflict,
    PveError,
    PveTaskFailed,
    PveTaskTimeout,
    segment,
)
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.cluster import listing
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.guest import MARKER, Guest, without_marker
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.resources import Resources, named
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server import (
    ServerError,
    find,
    observe,
    observe_config,
    server_path,
)
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server_apply import Interrupted, apply, start
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server_checks import (
    check_clone,
    check_node,
    check_placement,
)
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server_plan import (
    ServerPlan,
    cloned,
    empty,
    plan_clone,
    plan_new,
    plan_server,
)
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server_work import Work
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.steps import until

# A vmid is free only "at time of check" (pve-manager's PVE/API2/Cluster.pm): others may take it first.
_VMID_ATTEMPTS = 30
_NOTES_MOST = 8192


@dataclass(frozen=True)
class Creation:
    """What a new server is made of. source: None for an empty one. base: what PVE makes before the plan is applied."""

    node: str
    source: Guest | None
    base: Guest
    plan: ServerPlan


def prepare(work: Work) -> Creation:
    """How the server would be created; whatever can be known to fail is refused here. Changes nothing."""
    spec = work.spec
    if not spec.create or spec.state == "restarted":
        raise ServerError(f"Unable to manage server {spec.label}: there is none")
    if spec.name is None:
        raise ServerError(f"Unable to create server {spec.vmid}: a new server needs a name")
    if not (spec.clone or spec.disks or spec.nics or "memory" in spec.scalars):
        raise ServerError(
            f"Unable to create server {spec.name}: there is none, and nothing says what it should be: "
            "give clone, or the disks, nics or memory of an empty one"
        )
    if spec.clone:
        source = _source(work, spec.clone.template)
        node = spec.node or source.node
        check_node(work, node)
        check_clone(work, source, node)
        creation = Creation(node, source, cloned(spec, source), plan_clone(spec, source, work.placement))
    else:
        node = spec.node or work.client.connection.default_node or _only_node(work)
        check_node(work, node)
        creation = Creation(node, None, empty(spec, node), plan_new(spec, node, work.placement))
    check_placement(work, creation.plan, node, creates=True)
    return creation


def create(work: Work, creation: Creation) -> Guest:
    """The new server; or the one that an earlier run had begun, when that appears meanwhile."""
    if creation.source is None:
        vmid = _new(work, creation)
    else:
        earlier = _clones_under_way(work, creation.source)
        mark = f"{MARKER} ({uuid.uuid4()})"
        vmid = _with_vmid(work, lambda vmid: _clone(work, creation, vmid, mark))
        other = _made_by_earlier(work, vmid, earlier)
        if other is not None:
            _discard(work, creation.node, vmid)
            return other
        try:
            _finish(work, creation, vmid)
        except (PveError, Interrupted) as error:
            raise ServerError(
                f"Unable to finish server {work.spec.label}: {error}; it is there as {vmid}, and a second run goes on"
            ) from error
    return observe(work.client, creation.node, vmid, pool=work.spec.pool, fresh=True)


def _source(work: Work, template: str) -> Guest:
    vmid = int(template) if template.isascii() and template.isdigit() else None
    row = work.resources.guest(vmid) if vmid is not None else None
    if row is not None and row["type"] != "qemu":
        raise ServerError(f"Unable to create server {work.spec.label}: {vmid} is a container")
    source = work.resources.once(
        ("template", template),
        lambda: find(work.client, work.resources, name=template if vmid is None else None, vmid=vmid),
    )
    if source is None:
        raise ServerError(f"Unable to create server {work.spec.label}: there is no template {template}")
    return source


def _only_node(work: Work) -> str:
    online = [node for node, is_online in work.resources.nodes().items() if is_online]
    if len(online) != 1:
        raise ServerError(
            f"Unable to create server {work.spec.label}: give its node, one of {', '.join(sorted(online))}"
        )
    return online[0]


def _with_vmid(work: Work, dispatch: Callable[[int], None]) -> int:
    """Allocate, try, allocate again; returns the vmid that the server got."""
    spec = work.spec
    for attempt in range(_VMID_ATTEMPTS):
        vmid = spec.vmid or work.next_vmid(attempt > 0)
        try:
            dispatch(vmid)
        except (PveConflict, PveTaskFailed) as error:
            if "already exists" not in f"{error.reason} {getattr(error, 'exitstatus', '')}":
                raise
            if spec.vmid is not None:
                raise ServerError(
                    f"Unable to create server {spec.label}: vmid {vmid} is taken ({error.reason})"
                ) from error
            # Spread those who run after the same number.
            time.sleep(random.uniform(0, 0.1) * (attempt + 1))  # noqa: S311 - no secret
        else:
            return vmid
    raise ServerError(
        f"Unable to create server {spec.label}: {_VMID_ATTEMPTS} times the next free vmid was taken by others"
    )


def _clone(work: Work, creation: Creation, vmid: int, mark: str) -> None:
    spec, source = work.spec, creation.source
    if spec.clone is None or source is None:
        raise ValueError("a clone needs a specification with a clone, and a source")
    work.run(
        "POST",
        f"{server_path(source.node, source.vmid)}/clone",
        {
            "newid": vmid,
            "name": spec.name,
            "full": spec.clone.full,
            "storage": spec.clone.storage,
            "format": spec.clone.format,
            "target": creation.node if creation.node != source.node else None,
            "pool": spec.pool or None,
            "description": f"{mark}\n\n{_notes(creation)}".strip()[:_NOTES_MOST],
        },
        landed=lambda: _landed(work, vmid, {source.node, creation.node}, "description", mark),
        percent=(5, 60),
        storages={spec.clone.storage} if spec.clone.storage else source.storages(),
        # A running source is locked by each clone for itself (measured on PVE 9.1).
        alone=source.vmid if source.running else None,
    )


def _notes(creation: Creation) -> str:
    """The notes that the server has in the end."""
    return without_marker(creation.plan.applied_to(creation.base).text("description"))


def _finish(work: Work, creation: Creation, vmid: int) -> None:
    """The rest of the plan, and in the same call the last notes: then nothing is left that is done only once."""
    new, plan = Guest(vmid, creation.node, work.spec.label, {}), creation.plan
    if plan.keeps_volumes or plan.new_volume_storages():
        # Only now have the volumes their names; and a digest keeps a call whose answer is lost from allocating twice.
        new = observe_config(work.client, creation.node, vmid, pool=work.spec.pool)
        plan = plan_server(replace(work.spec, node=None), new, work.placement)
    notes = _notes(creation)
    settings = {**plan.settings, "description": notes}
    delete = tuple(key for key in plan.delete if key != "description")
    if not notes:
        del settings["description"]
        delete += ("description",)
    apply(work, replace(plan, settings=settings, delete=delete, pool=None), new)


def _clones_under_way(work: Work, source: Guest) -> list[str]:
    """The UPIDs of clones of `source` that were begun earlier.

    One may be that of a run which was killed: PVE goes on with it, and gives it its name only at its end.
    """
    if work.spec.vmid is not None or not work.began.being_cloned():
        return []
    params = {"source": "active", "typefilter": "qmclone", "vmid": source.vmid}
    # Asked before this run has begun a clone of the source, even when it makes many.
    rows = work.began.once(
        ("clones", source.vmid), lambda: listing(work.client, f"/nodes/{segment(source.node)}/tasks", params)
    )
    return [row["upid"] for row in rows if row["type"] == "qmclone" and row.get("endtime") is None]


def _made_by_earlier(work: Work, vmid: int, earlier: list[str]) -> Guest | None:
    """Another server with this name that was not to be seen before. They began earlier, so they are waited for last."""
    for upid in earlier:
        with contextlib.suppress(PveTaskFailed, PveTaskTimeout):
            work.began.once(("ended", upid), partial(work.client.wait, upid, timeout=work.spec.timeout))
    if not earlier:
        return None
    pairs = named(work.client, Resources.read(work.client), work.spec.label)
    others = [(other, node) for other, node in pairs if other != vmid]
    return observe(work.client, others[0][1], others[0][0]) if others else None


def _discard(work: Work, node: str, vmid: int) -> None:
    """Remove the clone that this run has made, for it is one too many."""
    path = server_path(node, vmid)
    work.run("DELETE", path, {}, landed=lambda: True if work.config(node, vmid) is None else None, percent=(60, 65))


def _new(work: Work, creation: Creation) -> int:
    spec, plan, node = work.spec, creation.plan, creation.node
    # PVE would make one itself; ours tells, after a lost answer, whose server it is.
    uid = str(uuid.uuid4())
    params = {"name": spec.name, **plan.settings, "pool": spec.pool or None, "smbios1": f"uuid={uid}"}

    def dispatch(vmid: int) -> None:
        work.run(
            "POST",
            f"/nodes/{segment(node)}/qemu",
            {"vmid": vmid, **params},
            landed=lambda: _landed(work, vmid, {node}, "smbios1", f"uuid={uid}"),
            percent=(5, 80),
            storages=plan.new_volume_storages(),
        )

    vmid = _with_vmid(work, dispatch)
    if plan.power == "start":
        start(work, Guest(vmid, node, spec.label, {}))
    return vmid


def _landed(work: Work, vmid: int, nodes: set[str], key: str, mark: str) -> bool | None:
    """After a lost answer: True once our server is there, None without one. Raises PveConflict for another's."""
    locked = None
    for _look in until(work.spec.timeout):
        configs = [work.config(node, vmid) for node in sorted(nodes)]
        config = next((found for found in configs if found is not None), None)
        if config is None:
            return None
        locked = config.get("lock")
        if locked is None:
            if mark in str(config.get(key, "")):
                return True
            raise PveConflict(f"VM {vmid} already exists")
    raise TimeoutError(f"{vmid} is still locked ({locked}) after {work.spec.timeout} s")
