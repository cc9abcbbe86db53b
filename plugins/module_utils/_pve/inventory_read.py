# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads what an inventory is made of: one listing a cluster, and of each guest only what was asked for, in parallel."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.pvefleet.infra.plugins.module_utils._pve import cluster, values
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.addresses import (
    addresses_in,
    agent_enabled,
    reachable,
    static_addresses,
)
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import (
    Connection,
    PveAuthFailed,
    PveClient,
    PveError,
    PveForbidden,
    PveUnreachable,
    segment,
)
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.errors import Unable
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.inventory import (
    Wish,
    guest_facts,
    node_facts,
    tag_facts,
)

# For how long a read is repeated. Everybody waits for an inventory, and in vain for what has just died.
_RETRY_SECONDS = 5.0


@dataclass
class Reading:
    """hosts: facts of every host. warnings: what is missing, and why. whole: nothing is."""

    hosts: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    whole: bool = True

    def miss(self, warning: str) -> None:
        self.warnings.append(warning)
        self.whole = False


@dataclass
class _Cluster:
    name: str
    client: PveClient
    guests: list[dict[str, Any]] = field(default_factory=list)
    nodes: list[dict[str, Any]] = field(default_factory=list)
    offline: set[str] = field(default_factory=set)
    failed: dict[str, tuple[PveError, list[str]]] = field(default_factory=dict)  # by node, with the guests not read


def label(connection: Connection) -> str:
    """What a cluster is called: its name in the registry, or else the host that is asked."""
    return connection.name or urlsplit(connection.endpoints[0]).hostname or connection.endpoints[0]


def read(connections: Sequence[Connection], wish: Wish, *, workers: int, skip_unreachable: bool = False) -> Reading:
    """The hosts of all clusters. workers: calls at the same time, over all of them.

    Raises Unable, naming the cluster, when one cannot be read; skip_unreachable: one that does not answer is left out.
    """
    reading = Reading()
    clients = [_Cluster(label(connection), _client(connection)) for connection in connections]
    try:
        with ThreadPoolExecutor(max_workers=workers) as pool:
            found = list(zip(clients, pool.map(lambda one: _attempt(lambda: _list(one, wish)), clients), strict=True))
            reached = [one for one, error in found if error is None]
            for one, error in found:
                if isinstance(error, PveUnreachable) and skip_unreachable:
                    reading.miss(f"The cluster {one.name} is left out: {error}")
                elif error is not None:
                    raise Unable(f"Unable to list cluster {one.name}: {error}") from error
            guests = [(one, facts) for one in reached for facts in one.guests if facts["node"] not in one.offline]
            if wish.reads_config or wish.reads_agent:
                for _none in pool.map(lambda pair: _look(pair[0], pair[1], wish), guests):
                    pass
    finally:
        for one in clients:
            one.client.close()
    for one in reached:
        # what was read may be newer than the listing by which it was chosen
        reading.hosts += [*one.nodes, *(facts for facts in one.guests if wish.takes(facts))]
        _tell(one, reading)
    return reading


def _client(connection: Connection) -> PveClient:
    try:
        return PveClient(replace(connection, retry_seconds=min(connection.retry_seconds, _RETRY_SECONDS)))
    except PveError as error:
        raise Unable(f"Unable to use cluster {label(connection)}: {error}") from error


def _attempt(call: Callable[[], None]) -> PveError | None:
    try:
        call()
    except PveError as error:
        return error
    return None


def _list(one: _Cluster, wish: Wish) -> None:
    """The cluster's listing, cut down to what is wanted before anything else is read."""
    rows = cluster.listing(one.client, "/cluster/resources")
    try:
        nodes = [node_facts(one.name, row) for row in rows if row.get("type") == "node"]
        guests = [guest_facts(one.name, row) for row in rows if row.get("type") in ("qemu", "lxc")]
    except (KeyError, TypeError, ValueError):
        raise cluster.strange(one.client, "/cluster/resources") from None
    one.offline = {facts["node"] for facts in nodes if facts["status"] != "online"}
    one.nodes = sorted((facts for facts in nodes if wish.takes(facts)), key=lambda facts: facts["node"])
    if wish.addresses != "none" and one.nodes:
        rows = cluster.listing(one.client, "/cluster/status")
        told = {str(row.get("name")): str(row["ip"]) for row in rows if row.get("ip")}
        for facts in one.nodes:
            facts["ip_addresses"] = [told[facts["node"]]] if facts["node"] in told else []
    guests = [facts for facts in guests if wish.takes(facts, final=False)]
    _settle(one, guests)
    one.guests = sorted((facts for facts in guests if wish.takes(facts)), key=lambda facts: int(facts["vmid"]))


def _settle(one: _Cluster, guests: Sequence[dict[str, Any]]) -> None:
    """Gives guests that are too new for the listing what their nodes know of them, in one call a node and type."""
    new = [facts for facts in guests if facts["name"] is None and facts["node"] not in one.offline]
    for node, kind in sorted({(facts["node"], facts["type"]) for facts in new}):
        known = {str(row.get("vmid")): row for row in cluster.listing(one.client, f"/nodes/{segment(node)}/{kind}")}
        for facts in new:
            row = known.get(str(facts["vmid"]))
            if row is not None and (facts["node"], facts["type"]) == (node, kind):
                fresh = guest_facts(one.name, {**row, "node": node, "type": kind})
                facts.update({key: fresh[key] for key in ("name", "status", "template") if fresh[key] is not None})


def _look(one: _Cluster, facts: dict[str, Any], wish: Wish) -> None:
    """Reads one guest. What fails is noted by its node; what was not allowed is an error of the whole."""
    node = facts["node"]
    try:
        if node in one.failed and _is_gone(one.failed[node][0]):
            raise one.failed[node][0]  # it will not answer for this guest either
        facts.update(_details(one.client, facts, wish))
    except (PveForbidden, PveAuthFailed) as error:
        what = facts["name"] or facts["vmid"]
        raise Unable(f"Unable to read guest {what} of cluster {one.name}: {error}") from error
    except PveError as error:
        one.failed.setdefault(node, (error, []))[1].append(str(facts["name"] or facts["vmid"]))


def _is_gone(error: PveError) -> bool:
    """Whether nothing of the node answers, and not only one guest."""
    return isinstance(error, PveUnreachable) and error.status in (None, 595)


def _details(client: PveClient, facts: Mapping[str, Any], wish: Wish) -> dict[str, Any]:
    kind, path = facts["type"], f"/nodes/{segment(facts['node'])}/{facts['type']}/{facts['vmid']}"
    config: Mapping[str, Any] | None = None
    found: dict[str, Any] = {}
    if wish.reads_config:
        config = cluster.record(client, f"{path}/config")
        # the listing's tags are as fresh, but its name may be that of before a rename
        name = config.get("name" if kind == "qemu" else "hostname")
        found |= {"name": str(name)} if name else {}
        found |= tag_facts(str(config.get("tags", "")))
    if wish.config and config is not None:
        # PVE masks the password; nobody has a use for the asterisks
        found["config"] = {key: value for key, value in config.items() if key not in ("cipassword", "digest")}
    if wish.addresses != "none":
        told: list[str] = []
        # the listing's "stopped" may be ten seconds old; a guest's system takes as long to tell anything
        if wish.reads_agent and facts["status"] != "stopped" and not facts["template"]:
            told = _told(client, kind, path, config)
        if not told and config is not None:
            told = static_addresses(config) if kind == "qemu" else _container_addresses(config)
        found["ip_addresses"] = told
    return found


def _told(client: PveClient, kind: str, path: str, config: Mapping[str, Any] | None) -> list[str]:
    """What the guest itself says; PVE looks into a container without an agent."""
    if kind == "lxc":
        interfaces = client.get(f"{path}/interfaces")
        rows = [row for row in interfaces if isinstance(row, Mapping)] if isinstance(interfaces, list) else []
        texts = [str(row.get(key, "")).partition("/")[0] for row in rows for key in ("inet", "inet6")]
        return [text for text in texts if reachable(text)]
    if config is not None and not agent_enabled(config):
        return []
    try:
        return addresses_in(client.get(f"{path}/agent/network-get-interfaces", retry_seconds=0))
    except (PveAuthFailed, PveForbidden, PveUnreachable):
        raise
    except PveError:
        return []  # no agent, one that does not run yet, or a guest that does not: all quite ordinary


def _container_addresses(config: Mapping[str, Any]) -> list[str]:
    """The static addresses of net0, net1 and so on of a container."""
    found = []
    for index in range(values.MAX_NICS):
        try:
            options = values.parse_properties(str(config.get(f"net{index}", "")))
        except ValueError:
            continue
        found += [options[key].partition("/")[0] for key in ("ip", "ip6") if "/" in options.get(key, "")]
    return found


def _tell(one: _Cluster, reading: Reading) -> None:
    for node, (error, names) in sorted(one.failed.items()):
        few = ", ".join(sorted(names)[:5]) + (" and more" if len(names) > 5 else "")
        reading.miss(f"Unable to read {len(names)} guests of node {node} of cluster {one.name} ({few}): {error}")
    unread: dict[str, int] = defaultdict(int)
    for facts in one.guests:
        if facts["node"] in one.offline:
            unread[facts["node"]] += 1
    for node, count in sorted(unread.items()):
        reading.warnings.append(f"Node {node} of cluster {one.name} is offline: of its {count} guests little is known")
