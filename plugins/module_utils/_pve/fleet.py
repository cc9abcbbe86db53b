# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many servers at once: one look at the cluster, one at each server, and work only on those that differ."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ansible_collections.pvefleet.infra.plugins.module_utils import _report
from ansible_collections.pvefleet.infra.plugins.module_utils._plan import Plan
from ansible_collections.pvefleet.infra.plugins.module_utils._pve import values
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.addresses import static_addresses
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import (
    PveAuthFailed,
    PveClient,
    PveError,
    PveNoQuorum,
    PveUnreachable,
)
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.device_plan import Placement, PlanError
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.errors import Unable, unable
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.fleet_spec import FleetSpec
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.resources import Resources
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server import glance
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server_converge import Result, carry_out
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server_plan import plan_server
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server_spec import ServerSpec
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server_work import Limits, Work
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.steps import Report, parallel
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.vmids import Vmids

# How old a look may be that says a server is not there yet: others create servers, too, while a fleet takes minutes.
_LOOK_SECONDS = 10.0


@dataclass(frozen=True)
class Outcome:
    """What became of one server: its result; or the error, and whether something may have been changed before it."""

    spec: ServerSpec
    result: Result | None = None
    error: Unable | None = None
    touched: bool = False

    @property
    def plan(self) -> Plan:
        return self.result.plan if self.result else Plan(f"server {self.spec.label}")

    @property
    def changed(self) -> bool:
        return self.plan.changed or self.touched


def converge_fleet(client: PveClient, fleet: FleetSpec, *, check_mode: bool = False) -> list[Outcome]:
    """Make each server what it should be: an outcome for each in the order listed, then for those that were pruned.

    One that fails does not stop the others, unless none can succeed any more: no login, no quorum, no answer.
    Raises Unable when not even the cluster can be looked at, or when two of the servers turn out to be the same one.
    """
    with unable("look at the cluster of the fleet"):
        began = Resources.read(client)
        seen = _Seen(client, began, fleet)
    _check_distinct(fleet, seen)
    specs = [*fleet.servers, *(_superfluous(fleet, seen) if fleet.prune else ())]
    crew = _Crew(client, fleet, began, seen, len(specs), check_mode)
    return parallel(crew.see_to, specs, fleet.workers) + (_hidden(fleet, began) if fleet.prune else [])


class _Seen:
    """The nodes' own lists of their servers, where names and power are as they are now."""

    def __init__(self, client: PveClient, resources: Resources, fleet: FleetSpec) -> None:
        names = {spec.name for spec in fleet.servers}
        vmids = {spec.vmid for spec in fleet.servers}
        nodes = {
            row["node"]
            for row in resources.machines()
            if row.get("name") in names
            or row["vmid"] in vmids
            or resources.is_nameless(row)
            or (fleet.prune and _is_marked(row, fleet.tag))
        } - resources.offline()
        lists = parallel(lambda node: (node, resources.named_guests(client, node)), sorted(nodes), fleet.workers)
        self.rows = {int(row["vmid"]): {**row, "node": node} for node, rows in lists for row in rows}
        self._vmids: dict[str, list[int]] = {}
        for vmid, row in self.rows.items():
            self._vmids.setdefault(str(row.get("name")), []).append(vmid)

    def row(self, spec: ServerSpec) -> Mapping[str, Any] | None:
        """The one server that is meant; None when there is none, or when it takes a closer look to tell."""
        if spec.vmid is not None:
            row = self.rows.get(spec.vmid)
            return row if row is not None and spec.name in (None, row.get("name")) else None
        found = self._vmids.get(spec.name or "", [])
        return self.rows[found[0]] if len(found) == 1 else None


def _check_distinct(fleet: FleetSpec, seen: _Seen) -> None:
    labels: dict[int, str] = {}
    for spec in fleet.servers:
        row = seen.row(spec)
        if row is None:
            continue
        vmid = int(row["vmid"])
        if vmid in labels:
            raise Unable(f"Unable to manage the fleet: {labels[vmid]} and {spec.label} are the same server")
        labels[vmid] = spec.label


def _superfluous(fleet: FleetSpec, seen: _Seen) -> list[ServerSpec]:
    """The fleet's own servers that are not listed, as what is to be absent. A template is no server."""
    names = {spec.name for spec in fleet.servers}
    vmids = {spec.vmid for spec in fleet.servers}
    return [
        replace(fleet.removal, vmid=vmid, name=row.get("name"), mark=fleet.tag)
        for vmid, row in sorted(seen.rows.items())
        if _is_marked(row, fleet.tag) and vmid not in vmids and row.get("name") not in names and not row.get("template")
    ]


def _hidden(fleet: FleetSpec, began: Resources) -> list[Outcome]:
    """The fleet's own servers of which only the vmid is known, for their nodes are offline. They may be among those
    that are listed by name, and so are never removed, not even when their node comes back meanwhile."""
    offline, vmids = began.offline(), {spec.vmid for spec in fleet.servers}
    return [
        Outcome(
            replace(fleet.removal, vmid=int(row["vmid"])),
            error=Unable(f"Unable to tell whether server {row['vmid']} is listed: its node {row['node']} is offline"),
        )
        for row in began.machines()
        if row["node"] in offline and _is_marked(row, fleet.tag) and int(row["vmid"]) not in vmids
    ]


def _is_marked(row: Mapping[str, Any], tag: str | None) -> bool:
    return tag is not None and values.has_tag(values.parse_tags(str(row.get("tags", ""))), tag)


class _Crew:
    """Works on the servers, and has what they share."""

    def __init__(
        self, client: PveClient, fleet: FleetSpec, began: Resources, seen: _Seen, total: int, check_mode: bool
    ) -> None:
        self._client = client
        self._began = began
        self._seen = seen
        self._check_mode = check_mode
        self._placement = Placement(client.connection.default_storage)
        self._limits = Limits(fleet.per_node, fleet.per_storage)
        self._look = _Look(client, began)
        self._vmids = Vmids(client, began, (spec.vmid for spec in fleet.servers if spec.vmid is not None))
        self._progress = _Progress(total)
        self._hopeless: Unable | None = None

    def see_to(self, spec: ServerSpec) -> Outcome:
        """One server, whatever happens to it."""
        if self._hopeless is not None:
            reason = f"not tried any more ({self._hopeless})"
            return Outcome(spec, error=Unable(f"Unable to manage server {spec.label}: {reason}"))
        result = self._as_it_should_be(spec)
        outcome = Outcome(spec, result) if result else self._converge(spec)
        if outcome.error is not None and _concerns_all(outcome.error.__cause__):
            self._hopeless = outcome.error
        self._progress.of(spec.label)(100, f"{spec.label}: {'failed' if outcome.error else 'done'}")
        return outcome

    def _as_it_should_be(self, spec: ServerSpec) -> Result | None:
        """The result for a server on which there is nothing to do; None when there is, or may be."""
        row = self._seen.row(spec)
        if spec.state in ("absent", "restarted") or row is None or row.get("template") or row.get("lock"):
            return None
        vmid, running = int(row["vmid"]), row.get("status") == "running"
        if running and spec.wait_for_address:
            return None
        pool = (self._began.guest(vmid) or {}).get("pool")
        try:
            guest = glance(self._client, row["node"], vmid, running=running, pool=pool, cloud_init=spec.power_cycle)
            plan = plan_server(spec, guest, self._placement)
        except (PveError, PlanError):
            return None  # whoever works on it finds out, too, and has the words for it
        if plan.changed or guest.lock:
            return None
        status = "running" if running else "stopped"
        return Result(Plan(f"server {spec.label}"), guest, status, plan.pending, tuple(static_addresses(guest.config)))

    def _converge(self, spec: ServerSpec) -> Outcome:
        try:
            with unable(f"manage server {spec.label}"):
                resources = self._look.recent()
        except Unable as error:
            return Outcome(spec, error=error)
        work = Work(
            self._client,
            spec,
            resources=resources,
            began=self._began,
            limits=self._limits,
            next_vmid=self._vmids.take,
            report=self._progress.of(spec.label),
        )
        try:
            return Outcome(spec, carry_out(work, check_mode=self._check_mode))
        except Unable as error:
            return Outcome(spec, error=error, touched=work.touched)


def _concerns_all(cause: BaseException | None) -> bool:
    """Whether no other server can do better: for a node that is down PVE answers, a cluster that is down does not."""
    return isinstance(cause, (PveAuthFailed, PveNoQuorum)) or (
        isinstance(cause, PveUnreachable) and cause.status is None
    )


class _Look:
    """The cluster's listing, read again when it is old and somebody asks."""

    def __init__(self, client: PveClient, resources: Resources) -> None:
        self._client = client
        self._resources = resources
        self._at = time.monotonic()
        self._lock = threading.Lock()

    def recent(self) -> Resources:
        with self._lock:
            if time.monotonic() - self._at > _LOOK_SECONDS:
                self._resources = Resources.read(self._client)
                self._at = time.monotonic()
            return self._resources


class _Progress:
    """The fleet's percentage from those of its servers."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._percents: dict[str, int] = {}
        self._lock = threading.Lock()

    def of(self, label: str) -> Report:
        def tell(percent: int | None, message: str) -> None:
            with self._lock:
                if percent is not None:
                    self._percents[label] = percent
                overall = sum(self._percents.values()) // self._total
                _report.report(overall, message)  # in here, so that it never seems to fall

        return tell
