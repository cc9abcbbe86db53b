# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make one server what it should be: plan, apply, look again, until nothing is left to do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ansible_collections.pvefleet.infra.plugins.module_utils._plan import Change, Plan
from ansible_collections.pvefleet.infra.plugins.module_utils._pve import values
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.addresses import (
    agent_enabled,
    static_addresses,
    wait_for_addresses,
)
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import PveClient, PveError, PveNotFound
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.device_plan import PlanError
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.guest import Guest
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server import (
    ServerError,
    find,
    observe,
    server_path,
    with_name,
)
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server_apply import Interrupted, apply, stop_hard
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server_checks import check_placement
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server_create import create, prepare
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server_plan import ServerPlan, plan_server, settled
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server_spec import ServerSpec
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server_work import Work, vmid_of
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.steps import until

# How often a plan is made anew: somebody else changed the server meanwhile, or PVE kept something pending.
_ROUNDS = 4


@dataclass(frozen=True)
class Result:
    """What a server was made into. `guest` is None once it is gone; its vmid is None while it is only planned."""

    plan: Plan
    guest: Guest | None
    status: str  # running, stopped, absent
    pending: tuple[str, ...] = ()
    ip_addresses: tuple[str, ...] = ()


def converge(client: PveClient, spec: ServerSpec, *, check_mode: bool = False) -> Result:
    """Make the server what `spec` says; in check mode, tell what that would change.

    Raises ServerError; whatever can be known beforehand is refused before anything is changed.
    """
    with _sentences(spec):
        return carry_out(Work(client, spec), check_mode=check_mode)


def carry_out(work: Work, *, check_mode: bool = False) -> Result:
    """As converge, with a look at the cluster that others share."""
    spec = work.spec
    with _sentences(spec):
        guest = _find(work)
        if spec.state == "absent":
            return _remove(work, guest, check_mode)
        return _foretell(work, guest) if check_mode else _make(work, guest)


@contextmanager
def _sentences(spec: ServerSpec) -> Iterator[None]:
    verb = "remove" if spec.state == "absent" else "manage"
    try:
        yield
    except PlanError as error:
        raise ServerError(str(error)) from error
    except (PveError, TimeoutError) as error:
        raise ServerError(f"Unable to {verb} server {spec.label}: {error}") from error


def _find(work: Work) -> Guest | None:
    spec = work.spec
    guest = find(work.client, work.resources, name=spec.name, vmid=spec.vmid)
    if guest is not None and guest.lock in ("clone", "create"):
        # Before that is finished it has neither its name nor its disks.
        _wait_unlocked(work, guest)
        guest = observe(work.client, guest.node, vmid_of(guest), pool=guest.pool)
    if spec.vmid is not None and spec.name is not None and (guest is None or guest.name != spec.name):
        others = ", ".join(str(other.vmid) for other in with_name(work.client, work.resources, spec.name))
        if others:
            raise ServerError(f"Unable to take server {spec.vmid} for {spec.name}: that is the name of {others}")
    return guest


def _foretell(work: Work, guest: Guest | None) -> Result:
    """What _make would do and return, without a write."""
    if guest is None:
        creation = prepare(work)
        plan, guest = creation.plan, creation.base
    else:
        plan = plan_server(work.spec, guest, work.placement)
        check_placement(work, plan, guest.node)
    after = plan.applied_to(guest)
    return _result(work, plan.changes, after, plan.pending, static_addresses(after.config))


def _make(work: Work, guest: Guest | None) -> Result:
    spec, changes = work.spec, list[Change]()
    if guest is None:
        creation = prepare(work)
        guest = create(work, creation)
        changes += creation.plan.changes
        # One that an earlier run had begun still needs what is done once.
        spec = spec if guest.unfinished else settled(spec)
    trouble = ""
    for _round in range(_ROUNDS):
        plan = plan_server(spec, guest, work.placement)
        if not plan.changed:
            return _result(work, changes, guest, plan.pending, _addresses(work, guest))
        check_placement(work, plan, guest.node)
        if guest.lock:
            _wait_unlocked(work, guest, plan)
        pool = guest.pool if plan.pool is None else plan.pool or None
        try:
            apply(work, plan, guest)
        except Interrupted as error:
            changes += [change for change in plan.changes if change.item in error.done]
            pool = pool if "pool" in error.done else guest.pool
            trouble = f" ({error})"
        else:
            changes += plan.changes
            spec = settled(spec)
        guest = observe(work.client, guest.node, vmid_of(guest), pool=pool)
    left = ", ".join(change.item for change in plan_server(spec, guest, work.placement).changes)
    raise ServerError(
        f"Unable to manage server {spec.label}: after {_ROUNDS} attempts these still differ: {left}{trouble}"
    )


def _result(
    work: Work, changes: Iterable[Change], guest: Guest, pending: tuple[str, ...], addresses: list[str]
) -> Result:
    plan = Plan(f"server {work.spec.label}", tuple(changes))
    return Result(plan, guest, "running" if guest.running else "stopped", pending, tuple(addresses))


def _addresses(work: Work, guest: Guest) -> list[str]:
    if not (work.spec.wait_for_address and guest.running):
        return static_addresses(guest.config)
    if not agent_enabled(guest.config):
        raise ServerError(
            f"Unable to wait for the address of server {work.spec.label}: its guest agent is off; set agent: true"
        )
    work.report(95, f"{work.spec.label}: waiting for its address")
    return wait_for_addresses(work.client, guest.node, vmid_of(guest), work.spec.address_timeout)


def _wait_unlocked(work: Work, guest: Guest, plan: ServerPlan | None = None) -> None:
    """A clone, backup or migration that is under way is waited for, never overridden."""
    if guest.lock == "suspended":
        # It never ends by itself; a start is what ends it.
        if plan is not None and plan.power == "start" and not (plan.reconfigures or plan.resizes):
            return
        raise ServerError(f"Unable to change server {work.spec.label}: it is suspended to disk; start it first")
    lock = guest.lock
    for _look in until(work.spec.timeout):
        lock = (work.config(guest.node, vmid_of(guest)) or {}).get("lock")
        if lock is None:
            return
    raise ServerError(f"Unable to change server {work.spec.label}: still locked ({lock}) after {work.spec.timeout} s")


def _remove(work: Work, guest: Guest | None, check_mode: bool) -> Result:
    spec = work.spec
    target = f"server {spec.label}"
    if guest is None:
        return Result(Plan(target), None, "absent")
    if spec.name is not None and guest.name != spec.name:
        raise ServerError(f"Unable to remove server {spec.name}: {guest.vmid} is named {guest.name}")
    if guest.is_template:
        raise ServerError(f"Unable to remove server {spec.label}: {guest.vmid} is a template")
    if guest.is_protected:
        raise ServerError(f"Unable to remove server {spec.label}: its protection is on")
    if spec.mark is not None and not values.has_tag(values.parse_tags(guest.text("tags")), spec.mark):
        raise ServerError(f"Unable to remove server {spec.label}: it has not got the tag {spec.mark} any more")
    plan = Plan(target, (Change("server", f"{guest.name} ({guest.vmid}) on {guest.node}", None),))
    if check_mode:
        return Result(plan, None, "absent")
    if guest.lock:
        _wait_unlocked(work, guest)
    vmid = vmid_of(guest)

    def gone() -> bool | None:
        return True if work.config(guest.node, vmid) is None else None

    try:
        if guest.running:
            # Its disks go next, so that waiting for a clean shutdown would save nothing.
            stop_hard(work, guest, (10, 50))
        params = {"purge": True if spec.purge else None}
        work.run("DELETE", server_path(guest.node, vmid), params, landed=gone, percent=(50, 95))
    except PveNotFound:
        pass  # somebody else was faster
    if not gone():
        raise ServerError(f"Unable to remove server {spec.label}: it is still there")
    return Result(plan, None, "absent")
