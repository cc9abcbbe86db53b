# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make one server what it should be: plan, apply, look again, until nothing is left to do."""

from __future__ import annotations

import random
import re
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from ansible_collections.pvefleet.infra.plugins.module_utils import _report
from ansible_collections.pvefleet.infra.plugins.module_utils._plan import Change, Plan
from ansible_collections.pvefleet.infra.plugins.module_utils._pve import server_plan
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.addresses import (
    agent_enabled,
    static_addresses,
    wait_for_addresses,
)
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import (
    PveClient,
    PveConflict,
    PveError,
    PveForbidden,
    PveNotFound,
    PveTaskFailed,
    TaskProgress,
    segment,
)
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.resources import Resources
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server import (
    ServerError,
    find,
    observe,
    server_path,
)
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server_plan import (
    MARKER,
    Guest,
    Placement,
    PlanError,
    ServerPlan,
    plan_server,
)
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server_spec import ServerSpec
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.values import parse_drive, parse_nic, print_size

# How often a plan is made anew: somebody else changed the server meanwhile, or PVE kept something pending.
_ROUNDS = 4
# A vmid is free only "at time of check" (pve-manager's PVE/API2/Cluster.pm): others may take it first.
_VMID_ATTEMPTS = 30
# `cluster/resources` shows a new name after 9 to 11 s (measured); until then a search by that name would find nothing.
_RENAME_SECONDS = 30.0
_POLL_SECONDS = 1.0


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
    try:
        return _Convergence(client, spec, check_mode).run()
    except PlanError as error:
        raise ServerError(str(error)) from error
    except (PveError, TimeoutError) as error:
        verb = "remove" if spec.state == "absent" else "manage"
        raise ServerError(f"Unable to {verb} server {spec.label}: {error}") from error


class _Convergence:
    """One server on its way from what it is to what it should be."""

    def __init__(self, client: PveClient, spec: ServerSpec, check_mode: bool) -> None:
        self.client = client
        self.spec = spec
        self.check_mode = check_mode
        self.placement = Placement(client.connection.default_storage)
        self.resources = Resources.read(client)
        self.changes: list[Change] = []

    def run(self) -> Result:
        guest = self._find()
        if self.spec.state == "absent":
            return self._remove(guest)
        spec = self.spec
        if guest is None:
            guest = self._create()
            if self.check_mode:
                return self._result(guest, guest.running)
            spec = _settled(spec)
        for _ in range(_ROUNDS):
            plan = plan_server(spec, guest, self.placement)
            self.changes += plan.changes
            if self.check_mode:
                return self._result(guest, _running_after(plan, guest), plan.pending)
            if not plan.changed:
                return self._result(guest, guest.running, plan.pending)
            self._check_placement(plan, guest.node)
            self._wait_unlocked(guest)
            try:
                self._apply(plan, guest)
            except PveConflict:
                # Its digest moved: somebody else wrote. Nothing of ours but a stop has happened.
                kept = [change for change in plan.changes if plan.power == "stop" and change.item == "power"]
                self.changes[-len(plan.changes) :] = kept
            else:
                spec = _settled(spec)
            guest = observe(self.client, guest.node, _vmid(guest), pool=self._pool_of(guest, plan))
        left = ", ".join(change.item for change in plan_server(spec, guest, self.placement).changes)
        raise ServerError(f"Unable to manage server {spec.label}: after {_ROUNDS} attempts these still differ: {left}")

    def _find(self) -> Guest | None:
        spec = self.spec
        guest = find(self.client, self.resources, name=spec.name, vmid=spec.vmid)
        if spec.vmid is not None and spec.name is not None and (guest is None or guest.name != spec.name):
            other = find(self.client, self.resources, name=spec.name, vmid=None)
            if other is not None:
                raise ServerError(f"Unable to give {spec.vmid} the name {spec.name}: server {other.vmid} has that name")
        return guest

    def _result(self, guest: Guest, running: bool, pending: tuple[str, ...] = ()) -> Result:
        addresses = static_addresses(guest.config)
        if self.spec.wait_for_address and running and not self.check_mode:
            addresses = self._wait_for_addresses(guest)
        status = "running" if running else "stopped"
        return Result(Plan(f"server {self.spec.label}", tuple(self.changes)), guest, status, pending, tuple(addresses))

    def _wait_for_addresses(self, guest: Guest) -> list[str]:
        if not agent_enabled(guest.config):
            raise ServerError(
                f"Unable to wait for the address of server {self.spec.label}: its guest agent is off; set agent: true"
            )
        _report.report(95, f"{self.spec.label}: waiting for its address")
        return wait_for_addresses(self.client, guest.node, _vmid(guest), self.spec.address_timeout)

    # ---------------------------------------------------------------- create

    def _create(self) -> Guest:
        """The new server; in check mode, what it would be."""
        spec = self.spec
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
            source = self._source(spec.clone.template)
            node = spec.node or source.node
            plan = server_plan.plan_clone(spec, source, self.placement)
            base = server_plan.cloned(spec, source)
        else:
            source = None
            node = spec.node or self.client.connection.default_node or self._only_node()
            plan = server_plan.plan_new(spec, node, self.placement)
            base = Guest(None, node, spec.name, {})
        self._check_node(node)
        self._check_clone(source, node)
        self._check_placement(plan, node)
        self.changes += plan.changes
        if self.check_mode:
            return replace(base, running=plan.power == "start")
        if source is not None:
            self._clone(source, node, plan)
        else:
            self._new(node, plan)
        return observe(self.client, self._created.node, _vmid(self._created), pool=spec.pool, settled=True)

    def _source(self, template: str) -> Guest:
        vmid = int(template) if template.isdigit() else None
        source = find(self.client, self.resources, name=None if vmid else template, vmid=vmid)
        if source is None:
            raise ServerError(f"Unable to create server {self.spec.label}: there is no template {template}")
        return source

    def _only_node(self) -> str:
        online = [node for node, is_online in self.resources.nodes().items() if is_online]
        if len(online) != 1:
            raise ServerError(
                f"Unable to create server {self.spec.label}: give its node, one of {', '.join(sorted(online))}"
            )
        return online[0]

    def _clone(self, source: Guest, node: str, plan: ServerPlan) -> None:
        spec = self.spec
        if spec.clone is None:
            raise ValueError("a clone needs a specification with a clone")
        notes = spec.description if spec.description is not None else str(source.config.get("description", ""))
        mark = f"{MARKER} ({uuid.uuid4()})"
        params = {
            "name": spec.name,
            "full": spec.clone.full,
            "storage": spec.clone.storage,
            "format": spec.clone.format,
            "target": node if node != source.node else None,
            "pool": spec.pool or None,
            "description": f"{mark}\n\n{notes}".strip(),
        }

        def dispatch(vmid: int) -> None:
            self._call(
                "POST",
                f"{server_path(source.node, source.vmid)}/clone",
                {"newid": vmid, **params},
                landed=lambda: self._landed_clone(vmid, {source.node, node}, mark),
                percent=(5, 60),
            )

        vmid = self._with_vmid(dispatch)
        steps = plan
        if server_plan.needs_config_of_clone(plan):
            steps = plan_server(
                replace(spec, node=None), observe(self.client, node, vmid, settled=True), self.placement
            )
        wanted = server_plan.without_marker(f"{MARKER}\n{notes}")
        final = {"description": wanted} if wanted else {}
        settings = {key: value for key, value in steps.settings.items() if key != "description"} | final
        delete = tuple(key for key in steps.delete if key != "description") + (() if wanted else ("description",))
        self._created = Guest(vmid, node, spec.label, {})
        try:
            self._apply(replace(steps, settings=settings, delete=delete, pool=None), self._created)
        except PveError as error:
            raise ServerError(
                f"Unable to finish server {spec.label}: {error}; it is there as {vmid}, and a second run goes on"
            ) from error

    def _landed_clone(self, vmid: int, nodes: set[str], mark: str) -> bool | None:
        """After a lost answer: True once our clone is there, None without one. Raises PveConflict for another's."""
        deadline = time.monotonic() + self.spec.timeout
        while True:
            config = next((found for node in sorted(nodes) if (found := self._config(node, vmid)) is not None), None)
            if config is None:
                return None
            if "lock" not in config:
                if str(config.get("description", "")).startswith(mark):
                    return True
                raise PveConflict(f"VM {vmid} already exists")
            if time.monotonic() > deadline:
                raise TimeoutError(f"{vmid} is still locked ({config['lock']}) after {self.spec.timeout} s")
            time.sleep(_POLL_SECONDS)

    def _config(self, node: str, vmid: int) -> dict[str, object] | None:
        try:
            config: dict[str, object] = self.client.get(f"{server_path(node, vmid)}/config")
        except PveNotFound:
            return None
        return config

    def _new(self, node: str, plan: ServerPlan) -> None:
        spec = self.spec
        # PVE would make one itself; ours tells, after a lost answer, whose server it is.
        uid = str(uuid.uuid4())
        params = {"name": spec.name, **plan.settings, "pool": spec.pool or None, "smbios1": f"uuid={uid}"}

        def landed(vmid: int) -> bool | None:
            config = self._config(node, vmid)
            if config is None or config.get("lock") == "create":
                return None
            if uid in str(config.get("smbios1", "")):
                return True
            raise PveConflict(f"VM {vmid} already exists")

        def dispatch(vmid: int) -> None:
            self._call(
                "POST",
                f"/nodes/{segment(node)}/qemu",
                {"vmid": vmid, **params},
                landed=lambda: landed(vmid),
                percent=(5, 70),
            )

        vmid = self._with_vmid(dispatch)
        self._created = Guest(vmid, node, spec.label, {})
        self._power(plan.power, self._created)

    def _with_vmid(self, dispatch: Callable[[int], None]) -> int:
        """Allocate, try, allocate again; returns the vmid that the server got."""
        for attempt in range(_VMID_ATTEMPTS):
            vmid = self.spec.vmid or int(self.client.get("/cluster/nextid"))
            try:
                dispatch(vmid)
            except (PveConflict, PveTaskFailed) as error:
                if "already exists" not in f"{error.reason} {getattr(error, 'exitstatus', '')}":
                    raise
                if self.spec.vmid is not None:
                    raise ServerError(f"Unable to create server {self.spec.label}: vmid {vmid} is taken") from error
                # Spread those who run after the same number.
                time.sleep(random.uniform(0, 0.1) * (attempt + 1))  # noqa: S311 - no secret
            else:
                return vmid
        raise ServerError(
            f"Unable to create server {self.spec.label}: {_VMID_ATTEMPTS} times the next free vmid was taken by others"
        )

    # ---------------------------------------------------------------- checks before a change

    def _check_node(self, node: str) -> None:
        nodes = self.resources.nodes()
        if node not in nodes:
            raise ServerError(
                f"Unable to create server {self.spec.label}: there is no node {node}, only {', '.join(sorted(nodes))}"
            )
        if not nodes[node]:
            raise ServerError(f"Unable to create server {self.spec.label}: node {node} is offline")

    def _check_clone(self, source: Guest | None, node: str) -> None:
        clone = self.spec.clone
        if clone is None or source is None:
            return
        if clone.storage:
            self._check_storage(clone.storage, node)
        if node == source.node:
            return
        storages = self.resources.storages(source.node)
        local = sorted(
            {
                drive.storage
                for drive in source.disks().values()
                if drive.storage in storages and not storages[drive.storage].get("shared")
            }
        )
        if local:
            raise ServerError(
                f"Unable to create server {self.spec.label} on {node}: the disks of {source.name} are on "
                f"{', '.join(local)} of {source.node}, which is not shared"
            )

    def _check_placement(self, plan: ServerPlan, node: str) -> None:
        """What PVE itself would find out only half way: storages, bridges, the pool."""
        for storage in sorted(server_plan.new_volume_storages(plan)):
            self._check_storage(storage, node)
        bridges = {
            parse_nic(value).options.get("bridge")
            for key, value in plan.settings.items()
            if re.fullmatch(r"net\d+", key)
        }
        if bridges:
            self._check_bridges({bridge for bridge in bridges if bridge}, node)
        pools = self.resources.pools()
        if self.spec.pool and pools and self.spec.pool not in pools:
            raise ServerError(
                f"Unable to put server {self.spec.label} into pool {self.spec.pool}: there is only "
                f"{', '.join(sorted(pools))}"
            )

    def _check_storage(self, storage: str, node: str) -> None:
        storages = self.resources.storages(node)
        if not storages:
            return  # a token may not be allowed to see any; PVE will say
        row = storages.get(storage)
        if row is None:
            raise ServerError(
                f"Unable to put a disk of server {self.spec.label} on {storage}: node {node} has only "
                f"{', '.join(sorted(storages))}"
            )
        if "content" in row and "images" not in str(row["content"]).split(","):
            raise ServerError(
                f"Unable to put a disk of server {self.spec.label} on {storage}: it does not take disk images"
            )

    def _check_bridges(self, bridges: set[str], node: str) -> None:
        try:
            rows = self.client.get(f"/nodes/{segment(node)}/network", {"type": "any_bridge"})
        except PveForbidden:
            return  # PVE will say, at the start
        known = {row["iface"] for row in rows}
        missing = sorted(bridges - known) if known else []
        if missing:
            raise ServerError(
                f"Unable to connect server {self.spec.label} to {', '.join(missing)}: node {node} has only the bridges "
                f"{', '.join(sorted(known))}"
            )

    def _wait_unlocked(self, guest: Guest) -> None:
        """A clone, backup or migration that is under way is waited for, never overridden."""
        lock = guest.config.get("lock")
        deadline = time.monotonic() + self.spec.timeout
        while lock:
            if time.monotonic() > deadline:
                raise ServerError(
                    f"Unable to change server {self.spec.label}: still locked ({lock}) after {self.spec.timeout} s"
                )
            time.sleep(_POLL_SECONDS)
            lock = (self._config(guest.node, _vmid(guest)) or {}).get("lock")

    # ---------------------------------------------------------------- apply

    def _apply(self, plan: ServerPlan, guest: Guest) -> None:
        if plan.power == "stop":
            self._power("stop", guest)
        if plan.reconfigures:
            self._configure(plan, guest)
        path = server_path(guest.node, guest.vmid)
        for disk, size in plan.resizes.items():
            self._call(
                "PUT",
                f"{path}/resize",
                {"disk": disk, "size": print_size(size)},
                landed=partial(self._landed_resize, guest, disk, size),
                percent=(75, 80),
            )
        if plan.pool is not None:
            self._move_to_pool(plan.pool, guest)
        if "name" in plan.settings:
            self._wait_renamed(_vmid(guest), plan.settings["name"])
        if plan.power in ("start", "reboot"):
            self._power(plan.power, guest)

    def _configure(self, plan: ServerPlan, guest: Guest) -> None:
        params = {**plan.settings, "digest": guest.digest}
        if plan.delete:
            params["delete"] = ",".join(plan.delete)
        spec = _settled(self.spec)

        def landed() -> bool | None:
            now = observe(self.client, guest.node, _vmid(guest), pool=guest.pool)
            return None if plan_server(replace(spec, node=None), now, self.placement).reconfigures else True

        # POST is the form that works in the background: allocating a volume may outlast pveproxy's 30 s.
        method = "POST" if server_plan.new_volume_storages(plan) else "PUT"
        try:
            self._call(method, f"{server_path(guest.node, guest.vmid)}/config", params, landed=landed, percent=(60, 75))
        except PveTaskFailed as error:
            if "file change by other user" in (error.exitstatus or ""):
                raise PveConflict(error.reason) from error
            raise

    def _landed_resize(self, guest: Guest, disk: str, size: int) -> bool | None:
        config = self._config(guest.node, _vmid(guest)) or {}
        return True if (parse_drive(str(config[disk])).size or 0) >= size else None

    def _move_to_pool(self, pool: str, guest: Guest) -> None:
        """`allow-move` takes it out of its present pool; an empty name only takes it out."""
        if pool:
            params = {"vms": guest.vmid, "allow-move": True}
        else:
            pool = guest.pool or ""
            params = {"vms": guest.vmid, "delete": True}
        self.client.put("/pools", {"poolid": pool, **params}, landed=lambda: None)

    def _wait_renamed(self, vmid: int, name: str) -> None:
        deadline = time.monotonic() + _RENAME_SECONDS
        while time.monotonic() < deadline:
            row = Resources.read(self.client).guest(vmid)
            if row is None or row.get("name") == name:
                return
            time.sleep(_POLL_SECONDS)

    def _power(self, action: str | None, guest: Guest) -> None:
        if action == "start":
            self._start(guest)
        elif action == "stop":
            self._stop(guest)
        elif action == "reboot":
            self._reboot(guest)

    def _start(self, guest: Guest) -> None:
        try:
            self._status_call("start", {}, guest, running=True, percent=(85, 95))
        except PveTaskFailed as error:
            if not re.search(r"already running", error.exitstatus or ""):
                raise

    def _stop(self, guest: Guest) -> None:
        seconds = self.spec.shutdown_timeout
        if self.spec.force:
            self._status_call("stop", {}, guest, running=False, percent=(20, 90))
            return
        try:
            self._status_call("shutdown", {"timeout": seconds}, guest, running=False, percent=(20, 90))
        except PveTaskFailed as error:
            raise ServerError(
                f"Unable to stop server {self.spec.label}: it did not shut down within {seconds} s "
                f"({error.exitstatus}); force: true stops it hard"
            ) from error

    def _reboot(self, guest: Guest) -> None:
        """Through PVE's API, for a reboot from inside would not apply what is pending."""
        if self.spec.force:
            self._status_call("stop", {}, guest, running=False, percent=(20, 50))
            self._start(guest)
            return
        seconds = self.spec.shutdown_timeout
        try:
            self._status_call("reboot", {"timeout": seconds}, guest, running=None, percent=(20, 90))
        except PveTaskFailed as error:
            raise ServerError(
                f"Unable to restart server {self.spec.label}: it did not shut down within {seconds} s "
                f"({error.exitstatus}); force: true stops it hard"
            ) from error

    def _status_call(
        self, action: str, params: dict[str, int], guest: Guest, *, running: bool | None, percent: tuple[int, int]
    ) -> None:
        """`running` is how to recognise, after a lost answer, that it was done; None when that cannot be told."""
        path = f"{server_path(guest.node, guest.vmid)}/status"

        def landed() -> bool | None:
            status = self.client.get(f"{path}/current")["status"]
            return True if (status == "running") == running else None

        self._call("POST", f"{path}/{action}", params, landed=None if running is None else landed, percent=percent)

    def _remove(self, guest: Guest | None) -> Result:
        spec = self.spec
        target = f"server {spec.label}"
        if guest is None:
            return Result(Plan(target), None, "absent")
        if spec.name is not None and guest.name != spec.name:
            raise ServerError(f"Unable to remove server {spec.name}: {guest.vmid} is named {guest.name}")
        if guest.is_template:
            raise ServerError(f"Unable to remove server {spec.label}: {guest.vmid} is a template")
        if str(guest.config.get("protection", "0")) == "1":
            raise ServerError(f"Unable to remove server {spec.label}: its protection is on")
        plan = Plan(target, (Change("server", f"{guest.name} ({guest.vmid}) on {guest.node}", None),))
        if self.check_mode:
            return Result(plan, None, "absent")
        self._wait_unlocked(guest)
        path = server_path(guest.node, guest.vmid)
        if guest.running:
            # Its disks go next, so that waiting for a clean shutdown would save nothing.
            self._status_call("stop", {}, guest, running=False, percent=(10, 50))
        self._call(
            "DELETE",
            path,
            {"purge": True if spec.purge else None},
            landed=lambda: True if self._config(guest.node, _vmid(guest)) is None else None,
            percent=(50, 95),
        )
        if self._config(guest.node, _vmid(guest)) is not None:
            raise ServerError(f"Unable to remove server {spec.label}: it is still there")
        return Result(plan, None, "absent")

    def _call(
        self,
        method: str,
        path: str,
        params: Mapping[str, object],
        *,
        landed: Callable[[], bool | None] | None,
        percent: tuple[int, int],
    ) -> None:
        """One step of the work; its share of the whole is `percent`, from and to."""
        low, high = percent
        action = path.rsplit("/", 1)[1]
        _report.report(low, f"{self.spec.label}: {action}")

        def tell(progress: TaskProgress) -> None:
            share = 0 if progress.percent is None else progress.percent * (high - low) // 100
            _report.report(low + share, f"{self.spec.label}: {progress.message}")

        # Following a task's log costs a call each time; nobody pays for what nobody reads.
        listener = tell if _report.listening() else None
        self.client.run(method, path, params, timeout=self.spec.timeout, landed=landed, on_progress=listener)

    def _pool_of(self, guest: Guest, plan: ServerPlan) -> str | None:
        return guest.pool if plan.pool is None else plan.pool or None


def _settled(spec: ServerSpec) -> ServerSpec:
    """What must still be true afterwards: once restarted it is running, and a password cannot be read back."""
    cloud_init = replace(spec.cloud_init, password=None) if spec.cloud_init else None
    return replace(spec, state="started" if spec.state == "restarted" else spec.state, cloud_init=cloud_init, node=None)


def _running_after(plan: ServerPlan, guest: Guest) -> bool:
    return guest.running if plan.power is None else plan.power != "stop"


def _vmid(guest: Guest) -> int:
    if guest.vmid is None:
        raise ValueError(f"server {guest.name} is only planned")
    return guest.vmid
