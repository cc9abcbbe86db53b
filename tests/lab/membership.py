# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

"""Which nodes a cluster has: standalone nodes, forming, joining, quorum by votes, removal."""

from __future__ import annotations

import asyncio
import json
from contextvars import ContextVar
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp import web
from fakepve import schema as pve_schema
from fakepve.model import PveError, TaskError
from fakepve.routing import die
from fakepve.server import API, USER, ok, params

from .locks import FileLock
from .tasks import Log

if TYPE_CHECKING:
    from .site import LabNode

# The node whose endpoint was asked; None in a Lab, which has one endpoint for all its nodes.
ASKED: ContextVar[LabNode | None] = ContextVar("ASKED", default=None)
NODE: web.AppKey[LabNode] = web.AppKey("node")
NO_FINGERPRINT = ":".join(["00"] * 32)
CONFIG = "/etc/pve/corosync.conf"


@dataclass
class Member:
    """A node in corosync.conf."""

    nodeid: int
    address: str
    fingerprint: str = NO_FINGERPRINT
    votes: int = 1
    links: dict[str, str] = field(default_factory=dict)


class Membership:
    """Mixin: corosync.conf and everything that reads or writes it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # True: no corosync.conf, the one node is on its own.
        self.standalone = False
        self.corosync: dict[str, Member] = {}
        # Whether quorum follows from the nodes that are online; else it is what lose_quorum() says.
        self.counts_votes = False
        # Set while a joining node has no /etc/pve: nobody can log in.
        self.without_pmxcfs = False
        self.garbled_answers = 0
        self.replication: list[dict[str, Any]] = []
        self.ha_rules: list[dict[str, Any]] = []
        self.ceph_services: dict[str, Any] = {}
        self._corosync_lock = FileLock()
        super().__init__(*args, **kwargs)

    def add_node(self, name: str, online: bool = True) -> None:
        super().add_node(name, online)
        number = len(self.corosync) + 1
        self.corosync[name] = Member(number, f"192.0.2.{10 + number}")

    def count_votes(self) -> None:
        """Quorum is more than half of all votes."""
        online = sum(member.votes for name, member in self.corosync.items() if self.nodes[name]["online"])
        self.quorate = online * 2 > sum(member.votes for member in self.corosync.values())

    def local_node(self) -> str:
        asked = ASKED.get()
        return asked.name if asked is not None else sorted(self.nodes)[0]

    async def hold_corosync_lock(self, secs: float) -> None:
        """Somebody else changes corosync.conf for secs PVE seconds."""
        await self._corosync_lock.take(shared=False, seconds=0)
        asyncio.get_running_loop().call_later(secs * self.time_scale, lambda: self._corosync_lock.drop(shared=False))

    # ------------------------------------------------------------------- HTTP

    def _register_stateful(self, router: Any, prefixes: Any) -> None:
        # By another name than {node}: these nodes need not be there.
        for prefix in prefixes:
            router.add_post(prefix + "/cluster/config/nodes/{member}", self._member_add)
            router.add_delete(prefix + "/cluster/config/nodes/{member}", self._member_remove)
        super()._register_stateful(router, prefixes)

    def _routes_membership(self) -> list[tuple[str, str, Any]]:
        return [
            ("POST", "/cluster/config", self._cluster_create),
            ("GET", "/cluster/config/join", self._join_info),
            ("POST", "/cluster/config/join", self._join),
            ("GET", "/cluster/config/nodes", self._member_list),
            ("GET", "/cluster/config/totem", self._totem),
            ("GET", "/cluster/replication", self._replication_list),
            ("GET", "/cluster/ha/rules", self._ha_rule_list),
            ("GET", "/cluster/ceph/metadata", self._ceph_metadata),
        ]

    @web.middleware
    async def _middleware(self, request: web.Request, handler: Any) -> web.StreamResponse:
        asked = request.app.get(NODE)
        ASKED.set(asked)
        if asked is not None:
            asked.requests.append((request.method, request.path.removeprefix(API)))
        if self.garbled_answers:
            self.garbled_answers -= 1
            return web.Response(text="")
        response: web.StreamResponse = await super()._middleware(request, handler)
        return response

    def _authenticate(self, request: web.Request) -> Any:
        if self.without_pmxcfs:
            raise PveError(401, "permission denied - invalid PVE ticket")
        return super()._authenticate(request)

    def check_password(self, user: str, password: str) -> bool:
        """The password of root@pam is the node's own, not the cluster's."""
        asked = ASKED.get()
        if asked is not None and user == "root@pam":
            return password == asked.password
        return bool(super().check_password(user, password))

    @staticmethod
    def _only_root(user: str) -> None:
        """For methods without permissions: an API token is not root@pam, not even its own."""
        if user != "root@pam":
            raise PveError(403, "Permission check failed (user != root@pam)")

    # ---------------------------------------------------------------- reading

    async def _cluster_status(self, request: web.Request) -> web.Response:
        local = self.local_node()
        if self.standalone:
            return ok([{**self._status_row(local, local), "nodeid": 0}])
        online = sum(bool(state["online"]) for state in self.nodes.values())
        whole = {
            "type": "cluster",
            "id": "cluster",
            "name": self.cluster_name,
            "nodes": len(self.nodes),
            "online": online,
            "quorate": int(self.quorate),
            "version": len(self.corosync),
        }
        return ok([whole, *(self._status_row(name, local) for name in sorted(self.nodes))])

    def _status_row(self, name: str, local: str) -> dict[str, Any]:
        member = self.corosync.get(name) or Member(0, "192.0.2.1")
        return {
            "type": "node",
            "id": f"node/{name}",
            "name": name,
            "nodeid": member.nodeid,
            "ip": member.address,
            "level": "",
            "local": int(name == local),
            "online": int(bool(self.nodes[name]["online"])),
        }

    async def _join_info(self, values: dict[str, Any], user: str) -> dict[str, Any]:
        if self.standalone:
            raise PveError(424, "node is not in a cluster, no join info available!")
        node = values.get("node", self.local_node())
        if node not in self.corosync:
            raise die(f"unknown node '{node}'")
        rows = [
            {**row, "pve_addr": self.corosync[row["name"]].address, "pve_fp": self.corosync[row["name"]].fingerprint}
            for row in self._member_rows()
        ]
        digest = sha256(json.dumps(rows).encode()).hexdigest()[:40]
        return {"preferred_node": node, "nodelist": rows, "totem": self._totem_section(), "config_digest": digest}

    def _member_rows(self) -> list[dict[str, Any]]:
        return [
            {
                "name": name,
                "nodeid": str(member.nodeid),
                "quorum_votes": str(member.votes),
                "ring0_addr": member.links.get("link0", member.address),
            }
            for name, member in sorted(self.corosync.items())
        ]

    async def _member_list(self, values: dict[str, Any], user: str) -> list[dict[str, Any]]:
        return [] if self.standalone else [{**row, "node": row["name"]} for row in self._member_rows()]

    async def _totem(self, values: dict[str, Any], user: str) -> dict[str, Any] | None:
        return None if self.standalone else self._totem_section()

    def _totem_section(self) -> dict[str, Any]:
        return {
            "version": "2",
            "cluster_name": self.cluster_name,
            "config_version": str(len(self.corosync)),
            "ip_version": "ipv4-6",
            "link_mode": "passive",
            "secauth": "on",
            "interface": {"0": {"linknumber": "0"}},
        }

    async def _replication_list(self, values: dict[str, Any], user: str) -> list[dict[str, Any]]:
        return self.replication

    async def _ha_rule_list(self, values: dict[str, Any], user: str) -> list[dict[str, Any]]:
        return self.ha_rules

    async def _ceph_metadata(self, values: dict[str, Any], user: str) -> dict[str, Any]:
        if not self.ceph_services:
            raise die("binary not installed: /usr/bin/ceph-mon")
        return self.ceph_services

    # ---------------------------------------------------------------- forming

    async def _cluster_create(self, values: dict[str, Any], user: str) -> str:
        self._only_root(user)
        if not self.standalone:
            raise die(f"cluster config '{CONFIG}' already exists")
        node, name = self.local_node(), values["clustername"]

        async def body(write: Log) -> None:
            write("Corosync Cluster Engine Authentication key generator.")
            await self.pause(1)
            member = self.corosync[node]
            member.nodeid, member.votes = values.get("nodeid", 1), values.get("votes", 1)
            member.links = _links(values)
            write(f"Writing corosync config to {CONFIG}")
            write("Restart corosync and cluster filesystem")
            self.cluster_name, self.standalone, self.quorate = name, False, False
            await self.pause(1)
            self.count_votes()

        upid: str = await self.worker(node, "clustercreate", name, user, body)
        return upid

    # ---------------------------------------------------------------- joining

    async def _join(self, values: dict[str, Any], user: str) -> str:
        self._only_root(user)
        asked = ASKED.get()

        async def body(write: Log) -> None:
            self._assert_joinable(write, bool(values.get("force")))
            assert asked is not None
            await self._join_peer(asked, values, write)
            asked.site.share_task(upid, asked, values["hostname"])
            await asked.site.finish_join(asked, values["hostname"], write)

        upid: str = await self.worker(self.local_node(), "clusterjoin", "", user, body)
        return upid

    def _assert_joinable(self, write: Log, force: bool) -> None:
        problems = []
        if not self.standalone:
            problems.append(f"* cluster config '{CONFIG}' already exists")
        if self.vms or self.cts:
            problems.append("* this host already contains virtual guests")
        if problems:
            for line in ("detected the following error(s):", *problems):
                write(line)
            # A member of a cluster has no endpoint of its own here, so force cannot help it either.
            if not (force and self.standalone):
                raise TaskError("Check if node may join a cluster failed!")

    async def _join_peer(self, node: LabNode, values: dict[str, Any], write: Log) -> None:
        """Log in at the peer and have it add this node, as PVE's own client does."""
        hostname = values["hostname"]
        pin = aiohttp.Fingerprint(bytes.fromhex(values["fingerprint"].replace(":", "")))
        write(f"Establishing API connection with host '{hostname}'")
        # Port 8006 in life; all nodes of a site have the same one.
        base = f"https://{hostname}:{node.port}/api2/json"
        login = {"username": "root@pam", "password": values["password"]}
        request = {name: str(values[name]) for name in ("nodeid", "votes") if name in values}
        request |= {"new_node_ip": node.host, "force": str(int(bool(values.get("force")))), **_links(values)}
        try:
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=pin)) as http:
                async with http.post(f"{base}/access/ticket", data=login) as answer:
                    if answer.status == 401:
                        raise TaskError("401 authentication failure")
                    ticket = (await answer.json())["data"]
                write("Login succeeded.")
                write("check cluster join API version")
                write("Request addition of this node")
                headers = {
                    "Cookie": f"PVEAuthCookie={ticket['ticket']}",
                    "CSRFPreventionToken": ticket["CSRFPreventionToken"],
                }
                where = f"{base}/cluster/config/nodes/{node.name}"
                async with http.post(where, data=request, headers=headers) as answer:
                    if answer.status != 200:
                        write(f"An error occurred on the cluster node: {answer.reason}")
                        raise TaskError("Cluster join aborted!")
        except aiohttp.ServerFingerprintMismatch:
            raise TaskError(f"500 Can't connect to {hostname}:{node.port} (hostname verification failed)") from None
        except aiohttp.ClientConnectionError:
            raise TaskError(f"500 Can't connect to {hostname}:{node.port} (Connection refused)") from None
        write("Join request OK, finishing setup locally")

    async def _member_add(self, request: web.Request) -> web.Response:
        """The peer's part of a join."""
        name, values = await self._member_request(request)
        if self.standalone:
            raise die(f"unable to open file '{CONFIG}' - No such file or directory")
        self.need_quorum()
        await self._lock_corosync()
        try:
            await self.pause(0.5)
            known = self.corosync.get(name)
            if known is not None and not values.get("force"):
                raise die(f"can't add existing node '{name}'")
            nodeid = known.nodeid if known else values.get("nodeid")
            taken = {member.nodeid for member in self.corosync.values() if member is not known}
            if nodeid in taken:
                raise die(f"Node ID {nodeid} is already in use")
            self.add_node(name, online=False)
            self.corosync[name] = Member(
                nodeid or max(taken) + 1,
                values["new_node_ip"],
                votes=known.votes if known else values.get("votes", 1),
                links=_links(values),
            )
            if self.counts_votes:
                self.count_votes()
        finally:
            self._corosync_lock.drop(shared=False)
        return ok({"corosync_authkey": "", "corosync_conf": "", "warnings": []})

    async def _lock_corosync(self) -> None:
        if not await self._corosync_lock.take(shared=False, seconds=10 * self.time_scale):
            raise die("cfs-lock 'file-corosync_conf' error: got lock request timeout")

    async def _member_request(self, request: web.Request) -> tuple[str, dict[str, Any]]:
        self._only_root(request[USER])
        match = self.resolve(request, API)
        given = {**await params(request), "node": request.match_info["member"]}
        values, errors = pve_schema.validate(match.methods[request.method].get("parameters"), given)
        if errors:
            raise PveError(400, "Parameter verification failed.", errors)
        return request.match_info["member"], values

    # ---------------------------------------------------------------- removal

    async def _member_remove(self, request: web.Request) -> web.Response:
        name, _values = await self._member_request(request)
        if name == self.local_node():
            raise die("Cannot delete myself from cluster!")
        self.need_quorum()
        if self.standalone or name not in self.corosync:
            raise die(f"Node/IP: {name} is not a known host of the cluster.")
        await self._lock_corosync()
        try:
            nodeid, online = self.corosync.pop(name).nodeid, self.nodes.pop(name)["online"]
        finally:
            self._corosync_lock.drop(shared=False)
        if self.counts_votes:
            self.count_votes()
        asked = ASKED.get()
        if asked is not None:
            await asked.site.cast_out(name)
        if not online:
            # Done all the same: corosync cannot be told to drop a node that is not there.
            raise die(f"command 'corosync-cfgtool -k {nodeid}' failed: exit code 1")
        return ok()


def _links(values: dict[str, Any]) -> dict[str, str]:
    return {name: str(value).partition(",")[0] for name, value in values.items() if name.startswith("link")}
