# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What PVE itself would find out only half way: nodes, storages, bridges, pools. Raises ServerError."""

from __future__ import annotations

from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import PveForbidden, segment
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.cluster import listing
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.guest import Guest, bridges_of
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server import ServerError
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server_plan import ServerPlan
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server_work import Work


def check_node(work: Work, node: str) -> None:
    nodes = work.resources.nodes()
    if node not in nodes:
        raise ServerError(
            f"Unable to create server {work.spec.label}: there is no node {node}, only {', '.join(sorted(nodes))}"
        )
    if not nodes[node]:
        raise ServerError(f"Unable to create server {work.spec.label}: node {node} is offline")


def check_clone(work: Work, source: Guest, node: str) -> None:
    """Whether PVE can clone `source` to `node`: only shared storages are reached from another node."""
    wanted = work.spec.clone.storage if work.spec.clone else None
    if wanted:
        _check_storage(work, wanted, node)
    if node == source.node:
        return
    used = source.storages() | ({wanted} if wanted else set())
    storages = work.resources.storages(source.node)
    local = sorted(name for name in used if name in storages and not storages[name].get("shared"))
    if local:
        raise ServerError(
            f"Unable to create server {work.spec.label} on {node} from {source.name} on {source.node}: "
            f"{', '.join(local)} is not shared"
        )
    # What is not changed comes along from the source's node, where these bridges are.
    _check_bridges(work, source.bridges(), node)


def check_placement(work: Work, plan: ServerPlan, node: str, *, creates: bool = False) -> None:
    for storage in sorted(plan.new_volume_storages()):
        _check_storage(work, storage, node)
    _check_bridges(work, bridges_of(plan.settings), node)
    pool = work.spec.pool if creates else plan.pool
    pools = work.resources.pools()
    if pool and pool not in pools:
        if pools:
            raise ServerError(
                f"Unable to put server {work.spec.label} into pool {pool}: there is only {', '.join(sorted(pools))}"
            )
        # There is none, or this user may see none. PVE says it with a PveError.
        work.client.get("/pools", {"poolid": pool})


def _check_storage(work: Work, storage: str, node: str) -> None:
    storages = work.resources.storages(node)
    if not storages:
        return  # a token may not be allowed to see any; PVE will say
    row = storages.get(storage)
    if row is None:
        raise ServerError(
            f"Unable to put a disk of server {work.spec.label} on {storage}: node {node} has only "
            f"{', '.join(sorted(storages))}"
        )
    if "content" in row and "images" not in str(row["content"]).split(","):
        raise ServerError(
            f"Unable to put a disk of server {work.spec.label} on {storage}: it does not take disk images"
        )


def _check_bridges(work: Work, bridges: set[str], node: str) -> None:
    if not bridges:
        return
    try:
        rows = work.resources.once(
            ("bridges", node), lambda: listing(work.client, f"/nodes/{segment(node)}/network", {"type": "any_bridge"})
        )
    except PveForbidden:
        return  # PVE will say, at the start
    known = {row["iface"] for row in rows}
    missing = sorted(bridges - known) if known else []
    if missing:
        raise ServerError(
            f"Unable to connect server {work.spec.label} to {', '.join(missing)}: node {node} has only the bridges "
            f"{', '.join(sorted(known))}"
        )
