# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A node's membership: forming a cluster, joining it, leaving it.

Joining replaces the joining node's /etc/pve: its tickets die, its pveproxy restarts with another certificate, and what
it answers meanwhile means nothing. So whether it is a member is asked at the peer, whose certificate stays.
"""

from __future__ import annotations

import fcntl
import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.pvefleet.infra.plugins.module_utils import _report
from ansible_collections.pvefleet.infra.plugins.module_utils._plan import Plan
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import (
    PveAuthFailed,
    PveClient,
    PveConflict,
    PveError,
    PveTaskFailed,
    PveUnreachable,
    segment,
)
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.credentials import make_connection
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.errors import Unable, is_lock_timeout, unable
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.membership_plan import (
    CLOCK_SECONDS,
    ROOT,
    JoinPlan,
    JoinSpec,
    RemoveSpec,
    View,
    cluster_of,
    plan_join,
    plan_removal,
)
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.membership_view import (
    address_of,
    called,
    fingerprints,
    observe,
    read_fingerprint,
    remains,
    resolved,
)
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.resources import Resources
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.steps import step, until
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.upid import Upid

# How long a joined node may take to show its new certificate; nothing depends on it but the next call to that node.
RESTART_SECONDS = 30


@dataclass(frozen=True)
class Membership:
    """node: name, address, fingerprint and status (online, offline, absent). cluster: name, quorate and nodes, None for
    none. peer_fingerprint: what the peer was trusted by."""

    plan: Plan
    node: dict[str, Any]
    cluster: dict[str, Any] | None
    peer_fingerprint: str | None = None
    warnings: tuple[str, ...] = ()


def join(client: PveClient, spec: JoinSpec, *, check_mode: bool = False) -> Membership:
    """Makes the node that `client` is connected to a member of the peer's cluster. Raises Unable."""
    pin = _trusted(spec)
    connection = client.connection
    peer = PveClient(
        make_connection(
            endpoints=[_endpoint(spec.peer.host, spec.peer.port)],
            user=ROOT,
            password=spec.peer.password,
            tls_fingerprint=pin,
            connect_timeout=connection.connect_timeout,
            read_timeout=connection.read_timeout,
        )
    )
    with unable(f"ask the peer {spec.peer.host}"):
        cluster = cluster_of(observe(peer), spec)
    # others may have formed the cluster or changed it until it is our turn: everything is looked at behind the lock
    with nullcontext() if check_mode else _one_at_a_time(cluster, spec):
        return _Join(client, peer, pin, spec).run(check_mode=check_mode)


def _endpoint(host: str, port: int) -> str:
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


def _trusted(spec: JoinSpec) -> str:
    """The fingerprint to trust the peer by. Raises Unable, also with the one that nobody has confirmed yet."""
    peer = spec.peer
    if peer.fingerprint:
        return peer.fingerprint
    try:
        found = read_fingerprint(peer.host, peer.port, 10, peer.ca_path)
    except ssl.SSLCertVerificationError as error:
        raise Unable(f"Unable to trust the peer {peer.host} by {peer.ca_path}: {error.verify_message}") from None
    except (OSError, ValueError) as error:
        cause = getattr(error, "strerror", None) or error
        raise Unable(f"Unable to read the certificate of the peer {peer.host} port {peer.port}: {cause}") from None
    if not (peer.ca_path or peer.accept_fingerprint):
        raise Unable(
            f"Unable to {spec.what}: the peer is not trusted yet, its certificate has the fingerprint {found}; compare"
            " that with what `pvenode cert info` prints there and give it as peer.fingerprint, or give peer.ca_path or"
            " peer.accept_fingerprint=true"
        )
    return found


@contextmanager
def _one_at_a_time(cluster: str, spec: JoinSpec) -> Iterator[None]:
    """Joins to one cluster, from this controller, wait for each other; between controllers PVE's own lock does that."""
    folder = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "pvefleet")
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        lock = os.open(os.path.join(folder, f"join-{cluster}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Unable(f"Unable to {spec.what}: no lock file can be made in {folder}: {error.strerror}") from None
    try:
        for _look in until(spec.timeout):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                _report.report(0, f"another node joins cluster {cluster}, waiting")
        else:
            raise Unable(
                f"Unable to {spec.what}: another join to cluster {cluster} is still under way after {spec.timeout} s"
            )
        yield
    finally:
        os.close(lock)


class _Join:
    def __init__(self, client: PveClient, peer: PveClient, pin: str, spec: JoinSpec) -> None:
        self.client = client
        self.peer = peer
        self.pin = pin
        self.spec = spec
        self.warnings: list[str] = []
        self.trouble: str = ""  # why the joining node itself could not be asked
        self.last: PveError | None = None  # why the peer could not be asked

    def run(self, *, check_mode: bool) -> Membership:
        with unable(f"ask the peer {self.spec.peer.host}"):
            view = observe(self.peer)
        todo, name = self._planned(view)
        if todo.join and not check_mode:
            cluster = cluster_of(view, self.spec)
            with unable(self.spec.what):
                if todo.form:
                    self._form(cluster, view.local)
                view = self._enter(name, todo.force)
                self._restarted(name)
        elif not check_mode:
            with unable(self.spec.what):
                view = self._settled(name, None)
        return self._membership(todo, view, name, planned=todo.join and check_mode)

    # ---------------------------------------------------------------- observing

    def _planned(self, peer: View) -> tuple[JoinPlan, str]:
        addresses = resolved(self.spec.host)
        try:
            joining = observe(self.client)
        except (PveUnreachable, PveAuthFailed) as error:
            name = self._member(peer, addresses)
            if name is None:
                known = f"cluster {peer.cluster} has no member with this address" if peer.cluster else "it is no member"
                raise Unable(f"Unable to ask the joining node {self.spec.host}, and {known}: {error}") from error
            # It has joined before, or does so now: by that its certificate becomes another one than the task says.
            self.trouble = str(error)
            return JoinPlan(Plan(f"node {name}")), name
        except PveError as error:
            raise Unable(f"Unable to ask the joining node {self.spec.host}: {error}") from error
        with unable(f"ask the joining node {self.spec.host}"):
            same = joining.cluster != peer.cluster or joining.cluster is None or self._same(peer)
            guests = self._guests(joining.local) if joining.cluster is None else []
        todo = plan_join(self.spec, peer, joining, guests, addresses, same=same)
        if todo.join:
            self._compare_clocks(joining.local, peer.local)
        return todo, joining.local

    def _member(self, peer: View, addresses: frozenset[str]) -> str | None:
        if peer.cluster is None:
            return None
        if self.spec.node is not None:
            return self.spec.node if self.spec.node in peer.nodes else None
        return next((name for name, node in sorted(peer.nodes.items()) if node.addresses & addresses), None)

    def _same(self, peer: View) -> bool:
        """Whether both nodes have one idea of the peer's certificate: names alone could be the same in two clusters."""
        return fingerprints(self.client).get(peer.local) == fingerprints(self.peer).get(peer.local)

    def _guests(self, node: str) -> list[str]:
        return [called(row) for row in Resources.read(self.client).guests() if row.get("node") == node]

    def _compare_clocks(self, joining: str, peer: str) -> None:
        try:
            theirs = self.peer.get(f"/nodes/{segment(peer)}/time")["time"]
            ours = self.client.get(f"/nodes/{segment(joining)}/time")["time"]
        except PveError:
            return  # a comparison that nothing depends on
        if abs(theirs - ours) > CLOCK_SECONDS:
            self.warnings.append(f"The clocks of {joining} and {peer} differ by {abs(theirs - ours)} s.")

    def _look(self) -> View | None:
        """The peer's view; None while it cannot be asked, as when its cluster filesystem restarts."""
        try:
            view = observe(self.peer)
        except PveError as error:
            self.last = error
            return None
        self.last = None
        return view

    # ------------------------------------------------------------------- forming

    def _form(self, cluster: str, node: str) -> None:
        workers = self._workers(self.peer, node, "clustercreate")
        params = {"clustername": cluster, **self.spec.peer.links}

        def landed() -> Any:
            return self._new_worker(self.peer, node, "clustercreate", workers)

        try:
            step(
                self.peer,
                "POST",
                "/cluster/config",
                params,
                label=f"cluster {cluster}",
                timeout=self.spec.timeout,
                percent=(0, 20),
                landed=landed,
            )
        except (PveTaskFailed, PveConflict):
            view = self._look()
            if view is None or view.cluster != cluster:  # else somebody else has formed it meanwhile
                raise
        except (PveUnreachable, PveAuthFailed):
            pass  # the cluster filesystem restarts under it: look whether it is there
        for _look in until(self.spec.quorum_timeout):
            view = self._look()
            if view is not None and view.cluster == cluster and view.quorate:
                return
        raise TimeoutError(
            f"the peer {node} has formed no cluster with a quorum within {self.spec.quorum_timeout} s{self._why()}"
        )

    # ------------------------------------------------------------------- joining

    def _enter(self, name: str, force: bool) -> View:
        params = {
            "hostname": self.spec.peer.host,
            "password": self.spec.peer.password,
            "fingerprint": self.pin,
            "force": force or None,
            "votes": self.spec.votes,
            "nodeid": self.spec.nodeid,
            **self.spec.links,
        }
        problem: PveTaskFailed | None = None
        for _look in until(self.spec.timeout):
            _report.report(20, f"node {name}: join")
            upid = self._post(name, params)
            try:
                return self._settled(name, upid)
            except PveTaskFailed as failed:
                if not self._passes(failed):
                    raise
                problem = failed
        raise TimeoutError(f"others changed the cluster for more than {self.spec.timeout} s: {problem}")

    def _post(self, name: str, params: dict[str, Any]) -> str | None:
        """The worker's UPID; None when it is not known, but the peer has the node on its list."""
        workers = self._workers(self.client, name, "clusterjoin")

        def landed() -> Any:
            return self._new_worker(self.client, name, "clusterjoin", workers)

        try:
            upid = self.client.post("/cluster/config/join", params, landed=landed)
        except (PveUnreachable, PveAuthFailed):
            view = self._look()
            if view is None or name not in view.nodes:
                raise
            return None
        return str(upid) if Upid.fits(upid) else None

    def _settled(self, name: str, upid: str | None) -> View:
        """Waits until the cluster has the node online, and a quorum. PveTaskFailed, TimeoutError."""
        view = self._listed(name, upid) if upid else None
        for _look in until(self.spec.quorum_timeout):
            view = self._look() or view
            if view is not None and view.quorate and name in view.nodes and view.nodes[name].online:
                return view
            self._check(upid)
            _report.report(60, f"node {name}: waiting for quorum")
        cause = "its peer could not be asked"
        if view is not None:
            cause = f"{name} is a member, but " + (
                f"the cluster has no quorum, these nodes are offline: {', '.join(view.offline)}"
                if not view.quorate
                else "offline"
            )
        node = f"; the node itself: {self.trouble}" if self.trouble else ""
        task = f"; the task goes on: {upid}" if upid else ""
        raise TimeoutError(f"after {self.spec.quorum_timeout} s {cause}{self._why()}{node}{task}")

    def _listed(self, name: str, upid: str) -> View:
        for _look in until(self.spec.timeout):
            view = self._look()
            if view is not None and name in view.nodes:
                return view
            self._check(upid)
        raise TimeoutError(f"the join was still under way after {self.spec.timeout} s and goes on: {upid}{self._why()}")

    def _check(self, upid: str | None) -> None:
        """Raises PveTaskFailed when the worker is known to have failed."""
        if upid is None:
            return
        try:
            self.client.wait(upid, timeout=0)
        except PveTaskFailed as failed:
            if failed.exitstatus is not None:
                raise
        except PveError:
            pass  # it runs; or the node restarts, has lost its tickets, or shows its new certificate

    def _passes(self, failed: PveTaskFailed) -> bool:
        """Whether somebody else's change of the cluster was in the way, which is soon over."""
        said = [failed.exitstatus or "", *failed.log_tail]
        if any(is_lock_timeout(line) for line in said):
            return True
        if not any("no quorum" in line for line in said):
            return False
        for _look in until(self.spec.quorum_timeout):  # while another node joins, there may be none for some seconds
            view = self._look()
            if view is not None and view.quorate:
                return True
        return False

    def _restarted(self, name: str) -> None:
        """Waits until the node answers with the certificate that the cluster has for it."""
        where = urlsplit(self.client.connection.endpoints[0])
        for _look in until(RESTART_SECONDS):
            _report.report(90, f"node {name}: waiting for its API")
            try:
                shown = read_fingerprint(where.hostname or "", where.port or 0, 5)
                if fingerprints(self.peer).get(name) == shown:
                    return
            except (OSError, PveError):
                continue
        self.warnings.append(f"The API of {name} does not answer yet with the certificate that the cluster has for it.")

    # ------------------------------------------------------------------- helpers

    @staticmethod
    def _workers(client: PveClient, node: str, kind: str) -> frozenset[str]:
        rows = client.get(f"/nodes/{segment(node)}/tasks", {"source": "all", "typefilter": kind})
        return frozenset(row["upid"] for row in rows or [] if row.get("type") == kind)

    def _new_worker(self, client: PveClient, node: str, kind: str, known: frozenset[str]) -> str | None:
        return next(iter(sorted(self._workers(client, node, kind) - known)), None)

    def _why(self) -> str:
        return f" (last trouble: {self.last.reason})" if self.last is not None else ""

    def _membership(self, todo: JoinPlan, view: View, name: str, *, planned: bool) -> Membership:
        try:
            fingerprint = None if planned else fingerprints(self.peer).get(name)
        except PveError as error:
            fingerprint = None
            self.warnings.append(f"The new fingerprint of {name} could not be read: {error}.")
        node = view.nodes.get(name)
        cluster = cluster_of(view, self.spec)
        return Membership(
            plan=todo.plan,
            node={
                "name": name,
                "address": address_of(node) or self.spec.host,
                "fingerprint": fingerprint,
                "status": "online" if planned or (node is not None and node.online) else "offline",
            },
            cluster={"name": cluster, "quorate": view.quorate, "nodes": sorted({*view.nodes, name})},
            peer_fingerprint=self.pin,
            warnings=tuple(self.warnings),
        )


def remove(client: PveClient, spec: RemoveSpec, *, check_mode: bool = False) -> Membership:
    """Takes an offline node out of the cluster that `client` is connected to. Raises Unable."""
    with unable(spec.what):
        view = observe(client)
        listed = view.cluster is not None and spec.node in view.nodes
        plan = plan_removal(spec, view, remains(client, spec.node) if listed else [])
        if plan.changed and not check_mode:
            view = _take_out(client, spec)
    nodes = sorted(set(view.nodes) - {spec.node})
    address = address_of(view.nodes.get(spec.node))
    return Membership(
        plan=plan,
        node={"name": spec.node, "address": address, "fingerprint": None, "status": "absent"},
        cluster={"name": view.cluster, "quorate": view.quorate, "nodes": nodes} if view.cluster else None,
    )


def _take_out(client: PveClient, spec: RemoveSpec) -> View:
    def landed() -> Any:
        return True if spec.node not in observe(client).nodes else None

    _report.report(20, f"node {spec.node}: remove")
    try:
        client.delete(f"/cluster/config/nodes/{segment(spec.node)}", landed=landed)
    except PveError:
        # It is said to fail although it is done, when corosync cannot be told to drop a node that is not there.
        if spec.node in observe(client).nodes:
            raise
    for _look in until(spec.timeout):
        view = observe(client)
        if spec.node not in view.nodes:
            return view
    raise TimeoutError(f"the cluster still had it after {spec.timeout} s")
