# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A cluster's health as it is measured now."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import (
    PveClient,
    PveError,
    PveUnreachable,
)

Status = Literal["healthy", "degraded", "unhealthy", "unknown"]
_NODE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,252}")


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
    about = client.get("/version")
    version, release = (about.get("version"), about.get("release", "")) if isinstance(about, dict) else (None, "")
    if not (version and isinstance(version, str) and isinstance(release, str)):
        raise strange(client, "/version")
    rows = listing(client, "/cluster/status")
    try:
        whole = next((row for row in rows if row.get("type") == "cluster"), None)
        nodes = tuple(sorted((_node(row) for row in rows if row.get("type") == "node"), key=lambda node: node.name))
        quorate = None if whole is None else _flag(whole, "quorate")
        facts = ClusterFacts(
            name=None if whole is None else _text(whole, "name"),
            version=version,
            release=release,
            quorate=quorate,
            nodes=nodes,
            status=measure(quorate, nodes),
        )
    except ValueError:
        raise strange(client, "/cluster/status") from None
    if not nodes:  # a standalone node lists itself
        raise strange(client, "/cluster/status")
    return facts


def listing(client: PveClient, path: str, params: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """The rows that a path lists. Raises PveError."""
    rows = client.get(path, params)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise strange(client, path)
    return rows


def record(client: PveClient, path: str, params: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The properties that a path has. Raises PveError."""
    found = client.get(path, params)
    if not isinstance(found, dict):
        raise strange(client, path)
    return found


def strange(client: PveClient, path: str) -> PveUnreachable:
    """For an answer of a shape that Proxmox VE's API does not give: something else answers there."""
    where = ", ".join(client.connection.endpoints)
    return PveUnreachable(f"{where} gave an answer that is not Proxmox VE's to {path}")


def _node(row: Mapping[str, Any]) -> NodeFacts:
    name = _text(row, "name")
    if name is None or not _NODE_NAME.fullmatch(name):
        raise ValueError
    return NodeFacts(name, _text(row, "ip"), _flag(row, "online"))


def _text(row: Mapping[str, Any], key: str) -> str | None:
    value = row.get(key)
    if value is not None and not isinstance(value, str):
        raise ValueError
    return value


def _flag(row: Mapping[str, Any], key: str) -> bool:
    value = row.get(key)
    if value not in (None, 0, 1, "0", "1"):
        raise ValueError
    return value in (1, "1")


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
