# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What all work on one server shares: whom to ask, what is wanted, what the cluster looked like at the beginning."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from ansible_collections.pvefleet.infra.plugins.module_utils import _report
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import PveClient, PveNotFound, TaskResult
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.cluster import record
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.device_plan import Placement
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.guest import Guest
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.resources import Resources
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server import server_path
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server_spec import ServerSpec
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.steps import Report, step
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.vmids import free_vmid


class Limits:
    """How many tasks of PVE may be under way at once on each node and each storage; None: any number."""

    def __init__(self, per_node: int | None = None, per_storage: int | None = None) -> None:
        self._most = {"node": per_node, "storage": per_storage, "source": 1}
        self._slots: dict[tuple[str, str], threading.Semaphore] = {}
        self._guard = threading.Lock()

    @contextmanager
    def held(self, node: str, storages: Iterable[str], source: int | None = None) -> Iterator[None]:
        """Waits for a place on each. source: a guest of which only one copy can be made at a time."""
        # Everybody takes them in one order, so that nobody waits for somebody who waits for them.
        wanted = [] if source is None else [("source", str(source))]
        wanted += [("storage", name) for name in sorted(storages)] + [("node", node)]
        with ExitStack() as places:
            for kind, name in wanted:
                most = self._most[kind]
                if most is not None:
                    with self._guard:
                        slot = self._slots.setdefault((kind, name), threading.Semaphore(most))
                    places.enter_context(slot)
            yield


class Work:
    """began: the look at the cluster from before this run created anything. next_vmid: gives a vmid that was free at
    the time of asking, and is told whether it asks again. report: is told percent and message."""

    def __init__(
        self,
        client: PveClient,
        spec: ServerSpec,
        *,
        resources: Resources | None = None,
        began: Resources | None = None,
        limits: Limits | None = None,
        next_vmid: Callable[[bool], int] | None = None,
        report: Report = _report.report,
    ) -> None:
        self.client = client
        self.spec = spec
        self.placement = Placement(client.connection.default_storage)
        self.resources = resources or Resources.read(client)
        self.began = began or self.resources
        self.next_vmid = next_vmid or (lambda again: free_vmid(client))
        self.report = report
        self.touched = False  # whether a change was asked for, done or not
        self._limits = limits or Limits()

    def config(self, node: str, vmid: int) -> dict[str, Any] | None:
        """A server's config as it is now; None when there is no such server on the node."""
        try:
            return record(self.client, f"{server_path(node, vmid)}/config")
        except PveNotFound:
            return None

    def is_running(self, guest: Guest) -> bool:
        status = record(self.client, f"{server_path(guest.node, guest.vmid)}/status/current")
        return status.get("status") == "running"

    def run(
        self,
        method: str,
        path: str,
        params: Mapping[str, object],
        *,
        percent: tuple[int, int],
        landed: Callable[[], bool | None] | None,
        timeout: float | None = None,
        storages: Collection[str] = (),
        alone: int | None = None,
    ) -> TaskResult | None:
        """One step on a node; `percent` is its share of the whole, from and to. As PveClient.run otherwise.

        storages: on which it makes volumes. alone: the guest that it copies, when that can be done only once at a time.
        """
        self.touched = True
        node = path.split("/")[2]
        known = self.resources.storages(node)
        places = {name if known.get(name, {}).get("shared") else f"{node}:{name}" for name in storages}
        with self._limits.held(node, places, alone):
            return step(
                self.client,
                method,
                path,
                params,
                label=self.spec.label,
                timeout=self.spec.timeout if timeout is None else timeout,
                percent=percent,
                landed=landed,
                report=self.report,
            )


def vmid_of(guest: Guest) -> int:
    if guest.vmid is None:
        raise ValueError(f"server {guest.name} is only planned")
    return guest.vmid
