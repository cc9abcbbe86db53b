# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

"""Several nodes that begin on their own, each with an address, a certificate and a root password of its own."""

from __future__ import annotations

import errno
import random
import secrets
import ssl
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiohttp import web
from fakepve.model import TaskError

from .certificates import Certificates, make_certificates
from .cluster import LabPve
from .loop import LoopThread
from .membership import NODE, Member
from .tasks import Log

ADDRESSES_TRIED = 20


class LabNode:
    """One machine. ``pve`` is its own state while it stands alone, and the cluster's once it has joined one."""

    def __init__(self, site: LabSite, name: str, host: str, folder: Path) -> None:
        self.site, self.name, self.host, self.folder = site, name, host, folder
        folder.mkdir()
        self.username, self.password = "root@pam", secrets.token_urlsafe(16)
        self.certificates = make_certificates(folder, host)
        self.pve = self._fresh()
        # (method, path below /api2/json) of every request to this node, oldest first.
        self.requests: list[tuple[str, str]] = []
        self._runner: web.AppRunner | None = None

    def _fresh(self) -> LabPve:
        site = self.site
        pve = LabPve(password=self.password, host=self.host, nodes=0, time_scale=site.time_scale, latency=site.latency)
        pve.add_node(self.name)
        pve.corosync[self.name] = Member(1, self.host, self.certificates.fingerprint)
        pve.standalone = pve.counts_votes = True
        return pve

    # ------------------------------------------------------------ for its users

    @property
    def port(self) -> int:
        return self.site.port

    @property
    def api_endpoint(self) -> str:
        return f"https://{self.host}:{self.port}"

    @property
    def ca_file(self) -> str:
        return str(self.certificates.ca_file)

    @property
    def fingerprint(self) -> str:
        """Of the certificate that it shows now; another one after a join."""
        return self.certificates.fingerprint

    @property
    def answers(self) -> bool:
        return self._runner is not None

    def connection(self, **changes: Any) -> Any:
        """A Connection of the collection's client: root@pam by password, with the certificate of now pinned."""
        from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import Connection

        settings: dict[str, Any] = {
            "endpoints": (self.api_endpoint,),
            "user": self.username,
            "password": self.password,
            "tls_fingerprint": self.fingerprint,
        }
        return Connection(**{**settings, **changes})

    # ---------------------------------------------------------- on the site's loop

    async def listen(self) -> None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.certificates.certificate_file, self.certificates.key_file)
        app = self.pve._build_app()
        app[NODE] = self
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, self.host, self.site.port, ssl_context=context).start()
        except OSError:
            await runner.cleanup()
            raise
        self._runner = runner
        if not self.site.port:
            self.site.port = runner.addresses[0][1]

    async def hang_up(self) -> None:
        """Answer nobody any more, and drop whoever is connected."""
        runner, self._runner = self._runner, None
        if runner is None:
            return
        for connection in list(runner.server.connections if runner.server else []):
            if connection.transport is not None:
                connection.transport.abort()
        await runner.cleanup()

    def new_certificate(self, authority: Certificates) -> None:
        """One that this authority has signed."""
        self.certificates = make_certificates(self.folder, self.host, authority)

    async def reinstall(self) -> None:
        """A new, standalone node in its place."""
        await self.hang_up()
        self.certificates = make_certificates(self.folder, self.host)
        self.pve = self._fresh()
        await self.listen()


class LabSite:
    """``nodes`` standalone nodes, pve1 and so on, on loopback addresses of their own and one port for all.

    PVE joins by port 8006 always; here it is ``site.port``. ``time_scale`` and ``latency`` are as a Lab's.
    """

    def __init__(self, nodes: int = 2, *, time_scale: float = 1.0, latency: float = 0.0) -> None:
        self.time_scale, self.latency = time_scale, latency
        self.port = 0
        # Holds back the quorum of nodes that join, until it is False again.
        self.withholds_quorum = False
        # Called with each stage of a join, "added", "stopped" and "quorate"; a TaskError that it raises ends the join.
        self.at_stage: Callable[[str], None] = lambda stage: None
        self._directory = tempfile.TemporaryDirectory(prefix="pvefleet-site-")
        self._count = nodes
        self._thread = LoopThread()
        self.nodes: dict[str, LabNode] = {}

    def __getitem__(self, name: str) -> LabNode:
        return self.nodes[name]

    # -------------------------------------------------------------- life cycle

    def start(self) -> Self:
        """Serve. OSError when no free addresses were found."""
        self._thread.start()
        for attempt in range(ADDRESSES_TRIED):
            try:
                self.do(self._listen, attempt)
            except OSError as error:
                if error.errno != errno.EADDRINUSE or attempt + 1 == ADDRESSES_TRIED:
                    self.stop()
                    raise
            else:
                break
        return self

    async def _listen(self, attempt: int) -> None:
        """All nodes on a network of their own, or none of them."""
        # Anything but 127.0.0.x, where other programs live; which one is no secret.
        network = f"127.{random.randint(100, 250)}.{random.randint(0, 250)}"
        folder = Path(self._directory.name)
        names = [f"pve{number}" for number in range(1, self._count + 1)]
        self.port = 0
        self.nodes = {
            name: LabNode(self, name, f"{network}.{number}", folder / f"{name}-{attempt}")
            for number, name in enumerate(names, 1)
        }
        try:
            for node in self.nodes.values():
                await node.listen()
        except OSError:
            await self._close()
            raise

    def stop(self) -> None:
        self.do(self._close)
        self._thread.stop()
        self._directory.cleanup()

    async def _close(self) -> None:
        for node in self.nodes.values():
            await node.pve.stop_workers()
            await node.hang_up()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def do(self, action: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call ``action`` on the site's loop, await it if need be, and return its result."""
        return self._thread.do(action, *args, **kwargs)

    # ------------------------------------------------------------------- power

    def power_off(self, name: str) -> None:
        """The node stops answering, and its cluster counts the votes that are left."""
        self.do(self._power, name, False)

    def power_on(self, name: str) -> None:
        self.do(self._power, name, True)

    async def _power(self, name: str, on: bool) -> None:
        node = self.nodes[name]
        if on != node.answers:
            await (node.listen() if on else node.hang_up())
        node.pve.nodes[name]["online"] = on
        if not node.pve.standalone:
            node.pve.count_votes()

    def reinstall(self, name: str) -> None:
        """The node is new: standalone, with another certificate."""
        self.do(self.nodes[name].reinstall)

    # ------------------------------------------------------ joining, on the loop

    def at(self, host: str) -> LabNode:
        return next(node for node in self.nodes.values() if node.host == host)

    def share_task(self, upid: str, node: LabNode, peer: str) -> None:
        """Task logs are the node's own, and outlive what it was before."""
        cluster, record = self.at(peer).pve, node.pve.tasks[upid]
        cluster.tasks[upid] = record
        cluster.tasklog.append(record)

    async def finish_join(self, node: LabNode, peer: str, write: Log) -> None:
        """What the joining node does after the peer has added it."""
        old, cluster = node.pve, self.at(peer).pve
        self.at_stage("added")
        write("stopping pve-cluster service")
        old.revoke_tickets()
        old.without_pmxcfs, old.garbled_answers = True, 1
        await old.pause(1)
        self.at_stage("stopped")
        write("waiting for quorum...")
        await old.pause(2)
        while self.withholds_quorum:
            await old.pause(0.5)
        cluster.nodes[node.name]["online"] = True
        cluster.count_votes()
        write("OK")
        self.at_stage("quorate")
        write("(re)generate node files")
        await old.pause(0.5)
        node.new_certificate(self.at(peer).certificates)
        cluster.corosync[node.name].fingerprint = node.fingerprint
        write("generated new node certificate, restart pveproxy and pvedaemon services")
        await node.hang_up()
        await old.pause(1)
        node.pve = cluster
        await node.listen()
        write(f"successfully added node '{node.name}' to cluster.")

    @staticmethod
    def task_error(text: str) -> Exception:
        """For at_stage to raise: the join's task ends with this."""
        return TaskError(text)

    async def cast_out(self, name: str) -> None:
        """A node that was removed while it ran has a configuration that nobody shares; here it falls silent."""
        node = self.nodes.get(name)
        if node is not None:
            await node.hang_up()


def standalone_nodes(count: int, **options: Any) -> LabSite:
    """A site of that many standalone nodes, serving; stop() ends it."""
    return LabSite(count, **options).start()
