# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

"""The simulated cluster: fakepve, and one mixin for each subject in which the lab goes further."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from fakepve.server import FakePve

from .agent import Agent
from .backup import Backup
from .clone import Clone
from .cloudinit import CloudInit
from .config import Config
from .datacenter import Datacenter
from .disks import Disks
from .firewall import Firewall
from .images import Images
from .lifecycle import Lifecycle
from .membership import Membership
from .power import Power
from .resources import Resources
from .restore import Restore
from .rrd import Rrd
from .storages import Storages
from .tasks import Tasks
from .wire import Http

# Real seconds that answers get to finish when the lab is stopped.
STOP_SECONDS = 1.0


class LabPve(
    Http,
    Tasks,
    Backup,
    Restore,
    Rrd,
    Storages,
    Resources,
    Membership,
    Datacenter,
    Agent,
    CloudInit,
    Power,
    Firewall,
    Clone,
    Lifecycle,
    Config,
    Images,
    Disks,
    FakePve,
):
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
        """Stop listening, and end every worker and every answer that is not given yet."""
        await self.stop_workers()
        connections = [handler.transport for handler in self.runner.server.connections] if self.runner else []
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS):
                await super().stop()
        unfinished = asyncio.all_tasks() - {asyncio.current_task()}
        for task in unfinished:
            task.cancel()
        await asyncio.gather(*unfinished, return_exceptions=True)
        for connection in filter(None, connections):
            connection.abort()  # an idle client does not answer TLS's goodbye
        await asyncio.sleep(0)
