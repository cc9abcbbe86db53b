# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A cluster's health as it is measured now."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import (
    PveClient,
    PveError,
    PveUnreachable,
)

Status = Literal["healthy", "degraded", "unhealthy", "unknown"]


@dataclass(frozen=True)
class NodeFacts:
    """A node. ip: its address in the cluster's network, None when the cluster does not say."""

    name: str
    ip: str | None
    online: bool


@dataclass(frozen=True)
class ClusterFacts:
    """name: of the corosync cluster, None for a standalone node. version: "8.4.1", release: "8.4".

    quorate: None for a standalone node, which needs no quorum. status: see measure().
    """

    name: str | None
    version: str
    release: str
    quorate: bool | None
    nodes: tuple[NodeFacts, ...]
    status: Status

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for a module's result or a JSON body."""
        return {**asdict(self), "nodes": [asdict(node) for node in self.nodes]}


def probe(client: PveClient) -> ClusterFacts:
    """Version, quorum and nodes, in two calls and a login. Needs Sys.Audit on /. Raises PveError."""
    version = client.get("/version")
    rows = client.get("/cluster/status")
    whole = next((row for row in rows if row.get("type") == "cluster"), None)
    nodes = tuple(
        NodeFacts(str(row["name"]), row.get("ip"), bool(int(row.get("online") or 0)))
        for row in sorted(rows, key=lambda row: str(row.get("name")))
        if row.get("type") == "node"
    )
    quorate = None if whole is None else bool(int(whole.get("quorate") or 0))
    return ClusterFacts(
        name=None if whole is None else whole.get("name"),
        version=str(version.get("version", "")),
        release=str(version.get("release", "")),
        quorate=quorate,
        nodes=nodes,
        status=measure(quorate, nodes),
    )


def measure(quorate: bool | None, nodes: tuple[NodeFacts, ...]) -> Status:
    """healthy: quorate and all nodes online. degraded: quorate, a node offline. unhealthy: no quorum.

    A standalone node (quorate None) has nothing to be out of quorum with.
    """
    if quorate is False:
        return "unhealthy"
    return "healthy" if all(node.online for node in nodes) else "degraded"


def status_after(error: PveError) -> Status:
    """What a failed probe says of the cluster: unknown when nobody answered, unhealthy when it refused."""
    return "unknown" if isinstance(error, PveUnreachable) else "unhealthy"
