# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

"""The simulated cluster: fakepve, and one mixin for each subject in which the lab goes further."""

from __future__ import annotations

from typing import Any

from fakepve.server import FakePve

from .agent import Agent
from .clone import Clone
from .cloudinit import CloudInit
from .config import Config
from .datacenter import Datacenter
from .disks import Disks
from .lifecycle import Lifecycle
from .power import Power
from .resources import Resources
from .tasks import Tasks
from .wire import Http


class LabPve(Http, Tasks, Resources, Datacenter, Agent, CloudInit, Power, Clone, Lifecycle, Config, Disks, FakePve):
    """A cluster of ``nodes`` nodes, pve1 and so on, without guests.

    Faults are fakepve's: ``fail()``, ``lose_quorum()``, ``set_node_offline()``, ``flaky_network()``,
    ``slow_network()``, ``hold_config_lock()``; the lab adds ``end_next_task()`` and ``kill_task()``.
    """

    def __init__(self, *, nodes: int = 2, time_scale: float = 1.0, latency: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.latency = latency
        self.cluster_name = "lab"
        self.time_scale = time_scale
        self.acl: dict[str, list[Any]] = {}  # rights are checked from the start
        self.nodes.clear()
        for number in range(1, nodes + 1):
            self.add_node(f"pve{number}")

    async def stop(self) -> None:
        """Stop listening, and end every worker."""
        await self.stop_workers()
        await super().stop()
