# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What all work on one server shares: whom to ask, what is wanted, what the cluster looked like at the beginning."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import PveClient, PveNotFound, TaskResult
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.device_plan import Placement
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.guest import Guest
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.resources import Resources
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server import server_path
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server_spec import ServerSpec
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.steps import step


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
        seconds = self.spec.timeout if timeout is None else timeout
        return step(
            self.client, method, path, params, label=self.spec.label, timeout=seconds, percent=percent, landed=landed
        )


def vmid_of(guest: Guest) -> int:
    if guest.vmid is None:
        raise ValueError(f"server {guest.name} is only planned")
    return guest.vmid
