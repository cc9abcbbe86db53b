# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps the snapshot of every cluster fresh.

One `cluster/resources` a look. It lags some seconds behind the truth, so it only tells which guests to look at: a
guest's state is read from the guest itself, when its row changed, after a task of ours, and now and then.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from datetime import datetime
from typing import Any

from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import (
    Connection,
    PveClient,
    PveError,
    PveNotFound,
)
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server import observe_guest
from sqlalchemy import select
from sqlalchemy.exc import OperationalError, StatementError
from sqlalchemy.orm import Session

from pvefleet import clusters, inventory, snapshot
from pvefleet.access.vault import VaultError
from pvefleet.db import now, patiently
from pvefleet.db.models import Cluster, Guest, Task
from pvefleet.engine.base import Outcome
from pvefleet.schemas.common import rfc3339
from pvefleet.services import Services
from pvefleet.snapshot import Found, State
from pvefleet.tasks import events

logger = logging.getLogger(__name__)

MEASURE_SECONDS = 30.0
# Guests that are read in one look; the rest of a large change follows in the next ones.
MOST_READS = 100
PARALLEL_READS = 4
# For how long a failing call is repeated: the next look comes soon anyway.
RETRY_SECONDS = 2.0
# How long a cluster is left alone whose answers are none that we understand.
ODD_SECONDS = 30.0
# What an answer of another shape than PVE's leads to, at the latest when it is written to the database.
_ODD = (ArithmeticError, LookupError, TypeError, ValueError, AttributeError, StatementError)


class Observer:
    """A thread for each cluster, so that one that hangs delays no other."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def run(self) -> None:
        """Watch all registered clusters until the service stops."""
        watchers: dict[str, _Watcher] = {}
        stopping = self._services.stopping
        while not stopping.is_set():
            patiently(lambda: self._follow(watchers), stopping)
            stopping.wait(1.0)
        for watcher in watchers.values():
            watcher.ended.set()

    def _follow(self, watchers: dict[str, _Watcher]) -> None:
        with self._services.db.read() as session:
            registered = {cluster.id: cluster for cluster in session.scalars(select(Cluster))}
        for cluster_id, watcher in list(watchers.items()):
            known = registered.get(cluster_id)
            if known is None or not watcher.watches(known) or not watcher.is_alive():
                watcher.ended.set()
                del watchers[cluster_id]
        for cluster_id, cluster in registered.items():
            if cluster_id not in watchers:
                watchers[cluster_id] = _Watcher(self._services, cluster)
                watchers[cluster_id].start()

    def touched(self, task: Task, outcome: Outcome) -> None:
        """Read the truth about what the task has worked on, so that the snapshot shows it before the task is final.

        Raises OperationalError.
        """
        if task.cluster_id is None:
            return
        with self._services.db.read() as session:
            cluster = session.get(Cluster, task.cluster_id)
        if cluster is None:
            return
        try:
            server = (outcome.result or {}).get("server") or {}
            vmid = server.get("vmid") or task.parameters.get("server_vmid")
            client = _client(self._services.connection(cluster))
            _Look(self._services, cluster, client).at_guests([int(vmid)] if vmid else [])
            client.close()
        except OperationalError:
            raise
        except (PveError, VaultError, *_ODD) as error:
            logger.warning("Unable to look at cluster %s after %s: %s", cluster.name, task.id, _reason(error))


def list_now(services: Services, cluster: Cluster) -> None:
    """Put the guests of a new cluster into the snapshot as its listing has them: one call. Raises PveError."""
    client = _client(services.connection(cluster))
    try:
        _Look(services, cluster, client).at_listing()
    finally:
        client.close()


def look_now(services: Services, cluster: Cluster) -> None:
    """Bring the snapshot up to date with the listing, and with the guests that are new in it. Raises PveError."""
    client = _client(services.connection(cluster))
    try:
        _Look(services, cluster, client).at_all()
    finally:
        client.close()


class _Watcher(threading.Thread):
    """Looks at one cluster at each interval."""

    def __init__(self, services: Services, cluster: Cluster) -> None:
        super().__init__(name=f"observer {cluster.name}", daemon=True)
        self._services = services
        self._cluster = cluster
        self._measured = float("-inf")
        self._trouble: str | None = None
        self.ended = threading.Event()

    def watches(self, cluster: Cluster) -> bool:
        """Whether it still reaches the cluster as it is registered."""
        ours = self._cluster
        return (ours.name, ours.api_endpoint, ours.credentials) == (
            cluster.name,
            cluster.api_endpoint,
            cluster.credentials,
        )

    def run(self) -> None:
        try:
            connection = self._services.connection(self._cluster)
            client = _client(connection)
        except (VaultError, PveError) as error:
            logger.error("Unable to watch cluster %s: %s", self._cluster.name, error)
            self.ended.wait(MEASURE_SECONDS)
            return
        while not self.ended.is_set():
            started = time.monotonic()
            pause = self._services.settings.observe_interval
            try:
                trouble = self._look(client)
                if (trouble is None) != (self._trouble is None):
                    self._measured = float("-inf")
                self._measure(connection)
            except _ODD as error:
                trouble = _reason(error)
                if not isinstance(error, OperationalError):
                    pause = ODD_SECONDS
            if trouble is not None and self._trouble is None:
                logger.warning("Unable to look at cluster %s: %s", self._cluster.name, trouble)
            elif trouble is None and self._trouble is not None:
                logger.info("Cluster %s answers again", self._cluster.name)
            self._trouble = trouble
            self.ended.wait(max(started + pause - time.monotonic(), 0.1))
        client.close()

    def _look(self, client: PveClient) -> str | None:
        """Why the cluster did not answer."""
        try:
            _Look(self._services, self._cluster, client).at_all()
        except PveError as error:
            return str(error)
        return None

    def _measure(self, connection: Connection) -> None:
        if time.monotonic() < self._measured + MEASURE_SECONDS or self.ended.is_set():
            return
        self._measured = time.monotonic()
        found = clusters.measure(replace(connection, retry_seconds=RETRY_SECONDS))
        with self._services.db.write() as session:
            cluster = session.get(Cluster, self._cluster.id)
            if cluster is not None:
                clusters.record(cluster, found)


class _Look:
    """One look at a cluster's guests, written to the snapshot."""

    def __init__(self, services: Services, cluster: Cluster, client: PveClient) -> None:
        self._db = services.db
        self._cluster = cluster
        self._client = client

    def at_listing(self) -> None:
        """The whole listing, no guest by itself. Raises PveError."""
        listed, rows = self._listing()
        self._record(rows, {}, listed, ())

    def at_all(self) -> None:
        """The whole listing, and those guests that it says are new or changed. Raises PveError."""
        listed, rows = self._listing()
        with self._db.read() as session:
            known = self._known(session)
        chosen = snapshot.to_read(rows, known, listed, MOST_READS)
        self._record(rows, self._ask(chosen, rows), listed, known.keys())

    def at_guests(self, vmids: Collection[int]) -> None:
        """These guests, whatever the listing says of them, and those that are new to us. Raises PveError."""
        listed, rows = self._listing()
        with self._db.read() as session:
            known = self._known(session)
        fresh = [vmid for vmid in rows if vmid not in vmids and vmid not in known]
        chosen = [*(vmid for vmid in vmids if vmid in rows), *fresh][:MOST_READS]
        self._record(rows, self._ask(chosen, rows), listed, known.keys())

    def _listing(self) -> tuple[datetime, dict[int, dict[str, Any]]]:
        listed = now()
        rows = self._client.get("/cluster/resources", {"type": "vm"})
        return listed, {int(row["vmid"]): snapshot.row_of(row) for row in rows if row["type"] == "qemu"}

    def _known(self, session: Session) -> dict[int, Guest]:
        query = select(Guest).where(Guest.cluster_id == self._cluster.id)
        return {guest.vmid: guest for guest in session.scalars(query)}

    def _ask(self, vmids: Sequence[int], rows: Mapping[int, Mapping[str, Any]]) -> dict[int, Found]:
        """What each guest answers; those that do not are left out."""

        def ask(vmid: int) -> Found | None:
            asked = now()
            try:
                return Found(asked, observe_guest(self._client, rows[vmid]["node"], vmid))
            except PveNotFound:
                return Found(asked, None)
            except (PveError, *_ODD) as error:
                # _ODD: its configuration is none that we understand. That must not hide the others.
                logger.info("Unable to look at guest %d of cluster %s: %s", vmid, self._cluster.name, _reason(error))
                return None

        if not vmids:
            return {}
        with ThreadPoolExecutor(min(PARALLEL_READS, len(vmids))) as pool:
            answers = zip(vmids, pool.map(ask, vmids), strict=True)
            return {vmid: answer for vmid, answer in answers if answer is not None}

    def _record(
        self,
        rows: Mapping[int, Mapping[str, Any]],
        answers: Mapping[int, Found],
        listed: datetime,
        seen: Collection[int],
    ) -> None:
        """seen: the guests that were in the snapshot when this look began."""

        def decide(vmid: int, guest: Guest | None) -> State | None:
            if guest is None and vmid in seen and vmid not in answers:
                # Somebody who asked found it gone since the listing was made.
                return None
            return snapshot.next_state(guest, rows.get(vmid), answers.get(vmid), listed)

        def differs(vmid: int, guest: Guest | None) -> bool:
            return decide(vmid, guest) != (None if guest is None else State.of(guest))

        with self._db.read() as session:
            known = self._known(session)
        changed = [vmid for vmid in sorted({*rows, *known}) if differs(vmid, known.get(vmid))]
        if not changed:
            return
        with self._db.write() as session:
            if session.get(Cluster, self._cluster.id) is None:
                return
            for vmid in changed:
                # Decided anew: somebody may have written since.
                guest = session.get(Guest, (self._cluster.id, vmid))
                self._write(session, vmid, guest, decide(vmid, guest))

    def _write(self, session: Session, vmid: int, guest: Guest | None, state: State | None) -> None:
        before = self._shown(guest)
        name = None if guest is None else inventory.name_of(guest)
        if state is None:
            if guest is not None:
                session.delete(guest)
            guest = None
        else:
            if guest is None:
                moment = now()
                guest = Guest(cluster_id=self._cluster.id, vmid=vmid, first_seen_at=moment, changed_at=moment)
                session.add(guest)
            for field in fields(state):
                setattr(guest, field.name, getattr(state, field.name))
        after = self._shown(guest)
        if before == after:
            return
        if guest is not None:
            guest.changed_at = now()
            name = inventory.name_of(guest)
        change = "created" if before is None else "removed" if after is None else "updated"
        data = {"cluster": self._cluster.name, "name": name, "vmid": vmid, "change": change, "server": after}
        events.publish(session, events.SERVERS, "server", data)

    @staticmethod
    def _shown(guest: Guest | None) -> dict[str, Any] | None:
        """What users see of a guest; templates are no servers."""
        if guest is None or guest.template:
            return None
        shown = inventory.view(guest)
        return {**shown, "created_at": rfc3339(shown["created_at"]), "node": guest.node}


def _reason(error: Exception) -> str:
    if isinstance(error, PveError | VaultError):
        return str(error)
    if isinstance(error, OperationalError):
        return f"the database says: {error.orig}"
    # The statement of a StatementError would only hide what is wrong with its value.
    cause = error.orig if isinstance(error, StatementError) else error
    return f"unexpected answer ({type(cause).__name__}: {cause})"


def _client(connection: Connection) -> PveClient:
    return PveClient(replace(connection, retry_seconds=RETRY_SECONDS))
