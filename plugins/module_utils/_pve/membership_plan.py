# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wanted of a node's membership, and what has to be done for it. No I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.pvefleet.infra.plugins.module_utils._plan import Change, Plan
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import Connection
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.credentials import (
    ConnectionParamsError,
    endpoint_url,
)
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.errors import Unable
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.transport import colons, fingerprint_hex

ROOT = "root@pam"
# PVE's own limits for a cluster's name: a node's name of at most 15 characters.
_CLUSTER_NAME = re.compile(r"(?=.{1,15}$)[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?")
_LINK = re.compile(r"link[0-7]")
# More than a network's delay; corosync itself does not mind, tickets do.
CLOCK_SECONDS = 10
NAMED_AT_MOST = 10


@dataclass(frozen=True)
class Peer:
    """A node of the cluster. fingerprint: AA:BB:..., None when it is to be read there."""

    host: str
    port: int
    password: str = field(repr=False)
    fingerprint: str | None = None
    accept_fingerprint: bool = False
    ca_path: str | None = None
    links: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class JoinSpec:
    """host: the joining node's address. node: its name, where it is known beforehand. Times in seconds."""

    host: str
    peer: Peer
    cluster_name: str | None = None
    node: str | None = None
    links: Mapping[str, str] = field(default_factory=dict)
    votes: int | None = None
    nodeid: int | None = None
    timeout: int = 600
    quorum_timeout: int = 120

    @property
    def what(self) -> str:
        where = f"cluster {self.cluster_name}" if self.cluster_name else f"the cluster of {self.peer.host}"
        return f"join the node at {self.host} to {where}"


@dataclass(frozen=True)
class RemoveSpec:
    node: str
    force: bool = False
    timeout: int = 600

    @property
    def what(self) -> str:
        return f"remove node {self.node} from its cluster"


@dataclass(frozen=True)
class Node:
    """addresses: all that the cluster knows of it."""

    name: str
    online: bool
    addresses: frozenset[str] = frozenset()


@dataclass(frozen=True)
class View:
    """What a node says of itself and its cluster. cluster: None when it stands alone, and is the only one in nodes."""

    local: str
    version: str
    cluster: str | None
    quorate: bool
    nodes: Mapping[str, Node]

    @property
    def offline(self) -> list[str]:
        return sorted(name for name, node in self.nodes.items() if not node.online)


@dataclass(frozen=True)
class JoinPlan:
    """form: the peer forms its cluster first. join: None when the node is a member. force: an earlier join has left its
    entry, which is taken over."""

    plan: Plan
    form: bool = False
    join: bool = False
    force: bool = False


def only_root(connection: Connection, what: str) -> None:
    """Proxmox VE lets nobody else change a cluster's membership. Raises Unable."""
    who = f"an API token of {connection.user}" if connection.token_id else connection.user
    if connection.token_id or connection.user != ROOT:
        raise Unable(
            f"Unable to {what}: Proxmox VE takes this from {ROOT} with its password only, never from an API token or"
            f" another user; this is {who}"
        )


def join_spec(params: Mapping[str, Any], connection: Connection) -> JoinSpec:
    """The checked options of state=present. Raises Unable naming the option."""
    given = params.get("peer")
    if not given:
        raise Unable("Unable to join a node: peer is missing, a node of the cluster with its address and password")
    if len(connection.endpoints) != 1:
        raise Unable(
            "Unable to join a node: the connection has several addresses, but it must be to the one node that joins"
        )
    if params.get("force"):
        raise Unable("Unable to join a node: force is for state=absent; a node with guests never joins")
    host = urlsplit(connection.endpoints[0]).hostname or ""
    name = params.get("cluster_name")
    if name is not None and _CLUSTER_NAME.fullmatch(name) is None:
        raise Unable(f"Unable to join a node: cluster_name {name!r} must be 1 to 15 letters, digits and inner hyphens")
    for option, low in (("timeout", 1), ("quorum_timeout", 1), ("votes", 0), ("nodeid", 1)):
        value = params.get(option)
        if value is not None and value < low:
            raise Unable(f"Unable to join a node: {option} must be at least {low}")
    spec = JoinSpec(
        host=host,
        peer=_peer(given),
        cluster_name=name,
        node=params.get("node"),
        links=_links(params.get("links"), "links"),
        votes=params.get("votes"),
        nodeid=params.get("nodeid"),
        timeout=params["timeout"],
        quorum_timeout=params["quorum_timeout"],
    )
    only_root(connection, spec.what)
    return spec


def _peer(given: Mapping[str, Any]) -> Peer:
    user = given.get("user") or ROOT
    if user != ROOT:
        raise Unable(
            f"Unable to join a node: peer.user is {user}, but Proxmox VE joins by the password of {ROOT} only, never by"
            " an API token or another user"
        )
    try:
        url = urlsplit(endpoint_url(given["address"]))
    except ConnectionParamsError as error:
        raise Unable(f"Unable to join a node: peer.address: {error}") from None
    if not given.get("password"):
        raise Unable("Unable to join a node: peer.password is missing, the password of root@pam at the peer")
    ways = [way for way in ("fingerprint", "ca_path", "accept_fingerprint") if given.get(way)]
    if len(ways) > 1:
        raise Unable(f"Unable to join a node: {' and '.join(f'peer.{way}' for way in ways)} exclude each other")
    try:
        fingerprint = colons(fingerprint_hex(given["fingerprint"])) if given.get("fingerprint") else None
    except ValueError as error:
        raise Unable(f"Unable to join a node: peer.fingerprint: {error}") from None
    return Peer(
        host=url.hostname or "",
        port=url.port or 0,
        password=given["password"],
        fingerprint=fingerprint,
        accept_fingerprint=bool(given.get("accept_fingerprint")),
        ca_path=given.get("ca_path"),
        links=_links(given.get("links"), "peer.links"),
    )


def _links(given: Mapping[str, Any] | None, option: str) -> dict[str, str]:
    links = dict(given or {})
    for name, address in links.items():
        if _LINK.fullmatch(str(name)) is None:
            raise Unable(f"Unable to join a node: {option}: {name!r} is none of link0 to link7")
        if not isinstance(address, str) or not address:
            raise Unable(f"Unable to join a node: {option}.{name} must be an address")
    return links


def remove_spec(params: Mapping[str, Any], connection: Connection) -> RemoveSpec:
    """The checked options of state=absent. Raises Unable naming the option."""
    if not params.get("node"):
        raise Unable("Unable to remove a node: node is missing, the name of the node to remove")
    for option in ("peer", "cluster_name", "links", "votes", "nodeid"):
        if params.get(option):
            raise Unable(f"Unable to remove node {params['node']}: {option} is for state=present only")
    if params["timeout"] < 1:
        raise Unable(f"Unable to remove node {params['node']}: timeout must be at least 1")
    spec = RemoveSpec(params["node"], bool(params.get("force")), params["timeout"])
    only_root(connection, spec.what)
    return spec


def cluster_of(peer: View, spec: JoinSpec) -> str:
    """The name of the cluster to join, which may have to be formed yet. Raises Unable."""
    if peer.cluster is None and spec.cluster_name is None:
        raise Unable(
            f"Unable to {spec.what}: the peer {peer.local} stands alone; give cluster_name for it to form a cluster"
        )
    if spec.cluster_name is not None and peer.cluster not in (None, spec.cluster_name):
        raise Unable(f"Unable to {spec.what}: the peer {peer.local} is in cluster {peer.cluster}")
    return peer.cluster or spec.cluster_name or ""


def plan_join(
    spec: JoinSpec, peer: View, joining: View, guests: Sequence[str], addresses: frozenset[str], *, same: bool = True
) -> JoinPlan:
    """guests: those of the joining node, as people call them. addresses: where the joining node is reached. same: False
    when both views name the same cluster and are of two. Raises Unable with what stands in the way."""
    cluster = cluster_of(peer, spec)
    name = joining.local
    target = f"node {name}"

    def refused(cause: str) -> Unable:
        return Unable(f"Unable to {spec.what}: {cause}")

    if spec.node not in (None, name):
        raise refused(f"the node there is called {name}, not {spec.node}")
    if joining.cluster is not None:
        if joining.cluster != peer.cluster or name not in peer.nodes or peer.local not in joining.nodes or not same:
            others = f"another cluster that is called {joining.cluster} too"
            raise refused(f"{name} is in {others if joining.cluster == cluster else f'cluster {joining.cluster}'}")
        return JoinPlan(Plan(target))
    if name == peer.local:
        raise refused(f"both nodes are called {name}: the nodes of a cluster need different names")
    if guests:
        raise refused(f"{name} has guests, and joining would destroy their configuration: {_few(guests)}")
    if joining.version.partition(".")[0] != peer.version.partition(".")[0]:
        raise refused(
            f"{name} has Proxmox VE {joining.version} and the peer {peer.version}: a cluster needs one major version"
        )
    listed = peer.nodes.get(name)
    ours = listed is not None and not listed.online and bool(listed.addresses & (addresses | set(spec.links.values())))
    if listed is not None and not ours:
        raise refused(
            f"cluster {cluster} has a node {name} already, at {', '.join(sorted(listed.addresses)) or 'no address'}:"
            " give this one another name, or remove that one first"
        )
    if peer.cluster is not None and not peer.quorate:
        cause = f"cluster {cluster} has no quorum, these nodes are offline: {', '.join(peer.offline) or 'none'}"
        if ours:
            cause += (
                f"; an earlier join has added {name} and was cut off: run `pvecm expected 1` on {peer.local}, then join"
                " again"
            )
        raise refused(cause)
    form = peer.cluster is None
    changes = [Change("cluster", None, {"name": cluster, "formed_on": peer.local})] if form else []
    return JoinPlan(Plan(target, (*changes, Change("member_of", None, cluster))), form=form, join=True, force=ours)


def plan_removal(spec: RemoveSpec, view: View, remains: Sequence[str]) -> Plan:
    """remains: what the cluster still has on the node or refers to it with, as people call it. Raises Unable."""
    target = f"node {spec.node}"

    def refused(cause: str) -> Unable:
        return Unable(f"Unable to {spec.what}: {cause}")

    if spec.node == view.local:
        raise refused("it is the node that was asked; connect to another one of the cluster")
    if view.cluster is None or spec.node not in view.nodes:
        return Plan(target)
    if view.nodes[spec.node].online:
        raise refused(
            "it is online; shut it down for good first, a node that was removed must never start again as it is"
        )
    if not view.quorate:
        raise refused(f"cluster {view.cluster} has no quorum, these nodes are offline: {', '.join(view.offline)}")
    if remains and not spec.force:
        raise refused(f"the cluster still has there: {_few(remains)}; move them away, or give force=true to leave them")
    return Plan(target, (Change("member_of", view.cluster, None),))


def _few(things: Sequence[str]) -> str:
    more = f" and {len(things) - NAMED_AT_MOST} more" if len(things) > NAMED_AT_MOST else ""
    return ", ".join(things[:NAMED_AT_MOST]) + more
