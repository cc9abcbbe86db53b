# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What all work on one server shares: whom to ask, what is wanted, what the cluster looked like at the beginning."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ansible_collections.pvefleet.infra.plugins.module_utils import _report
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import (
    PveClient,
    PveNotFound,
    TaskProgress,
    TaskResult,
)
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.device_plan import Placement
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.guest import Guest
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.resources import Resources
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server import server_path
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server_spec import ServerSpec

POLL_SECONDS = 1.0


class Work:
    def __init__(self, client: PveClient, spec: ServerSpec) -> None:
        self.client = client
        self.spec = spec
        self.placement = Placement(client.connection.default_storage)
        self.resources = Resources.read(client)

    def config(self, node: str, vmid: int) -> dict[str, Any] | None:
        """A server's config as it is now; None when there is no such server on the node."""
        try:
            config: dict[str, Any] = self.client.get(f"{server_path(node, vmid)}/config")
        except PveNotFound:
            return None
        return config

    def is_running(self, guest: Guest) -> bool:
        status = self.client.get(f"{server_path(guest.node, guest.vmid)}/status/current")["status"]
        return bool(status == "running")

    def run(
        self,
        method: str,
        path: str,
        params: Mapping[str, object],
        *,
        percent: tuple[int, int],
        landed: Callable[[], bool | None] | None,
        timeout: float | None = None,
    ) -> TaskResult | None:
        """One step; `percent` is its share of the whole, from and to. As PveClient.run otherwise."""
        low, high = percent
        action = path.rsplit("/", 1)[1]
        _report.report(low, f"{self.spec.label}: {action}")

        def tell(progress: TaskProgress) -> None:
            share = 0 if progress.percent is None else progress.percent * (high - low) // 100
            _report.report(low + share, f"{self.spec.label}: {progress.message}")

        # Following a task's log costs a call each time; nobody pays for what nobody reads.
        listener = tell if _report.listening() else None
        seconds = self.spec.timeout if timeout is None else timeout
        return self.client.run(method, path, params, timeout=seconds, landed=landed, on_progress=listener)


def until(seconds: float) -> Iterator[None]:
    """Yields at once, then after each pause, as long as the time is not over."""
    deadline = time.monotonic() + seconds
    yield
    while (left := deadline - time.monotonic()) > 0:
        time.sleep(min(POLL_SECONDS, left))
        yield


def vmid_of(guest: Guest) -> int:
    if guest.vmid is None:
        raise ValueError(f"server {guest.name} is only planned")
    return guest.vmid
