# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Registered clusters: their rows, their credentials, their measured health."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import Connection, PveClient, PveError
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.cluster import ClusterFacts, probe, status_after
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.credentials import make_connection
from sqlalchemy import exists, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from pvefleet.access.vault import Vault
from pvefleet.db import now
from pvefleet.db.models import Cluster, Task
from pvefleet.errors import ApiError, Kind

# The parts of a Connection that are kept encrypted.
CREDENTIALS = ("user", "password", "token_id", "token_secret", "tls_fingerprint", "ca_pem")


@dataclass(frozen=True)
class Measurement:
    """What a look at a cluster found. reason: why it is not healthy. version, node_count: None when nobody answered."""

    status: str
    reason: str | None
    version: str | None
    node_count: int | None


def credentials_of(connection: Connection) -> dict[str, Any]:
    return {name: getattr(connection, name) for name in CREDENTIALS}


def connection(vault: Vault, cluster: Cluster) -> Connection:
    """How to reach a registered cluster. Raises VaultError."""
    return make_connection(endpoints=[cluster.api_endpoint], name=cluster.name, **vault.decrypt(cluster.credentials))


def find(session: Session, cluster_id: str) -> Cluster:
    """Raises ApiError."""
    cluster = session.get(Cluster, cluster_id)
    if cluster is None:
        raise ApiError(Kind.RESOURCE_NOT_FOUND, "cluster_not_found")
    return cluster


def choose(session: Session, name: str | None) -> Cluster:
    """The cluster of that name; without a name the default one, or the only one. Raises ApiError."""
    known = list(session.scalars(select(Cluster).order_by(Cluster.name)))
    names = ", ".join(cluster.name for cluster in known)
    if not known:
        raise ApiError(Kind.VALIDATION_ERROR, "no_cluster")
    if name is not None:
        for cluster in known:
            if cluster.name == name:
                return cluster
        raise ApiError(Kind.RESOURCE_NOT_FOUND, "no_such_cluster", name=name, known=names)
    chosen = known if len(known) == 1 else [cluster for cluster in known if cluster.is_default]
    if not chosen:
        raise ApiError(
            Kind.VALIDATION_ERROR, "which_cluster", known=names, details={"clusters": [row.name for row in known]}
        )
    return chosen[0]


def refuse_taken(session: Session, name: str) -> None:
    """Raises ApiError when there is a cluster of that name."""
    if session.scalar(select(exists().where(Cluster.name == name))):
        raise ApiError(Kind.CONFLICT, "cluster_exists")


def add(session: Session, vault: Vault, name: str, where: Connection, facts: ClusterFacts, *, default: bool) -> Cluster:
    """The new row. The first cluster is the default one. Raises ApiError when the name was taken meanwhile."""
    moment = now()
    cluster = Cluster(
        id=str(uuid.uuid4()),
        name=name,
        api_endpoint=where.endpoints[0],
        credentials=vault.encrypt(credentials_of(where)),
        is_default=False,
        created_at=moment,
        updated_at=moment,
    )
    record(cluster, of(facts))
    cluster.updated_at = moment
    try:
        session.add(cluster)
        session.flush()
    except IntegrityError:
        raise ApiError(Kind.CONFLICT, "cluster_exists") from None
    if default or not session.scalar(select(exists().where(Cluster.id != cluster.id))):
        make_default(session, cluster)
    return cluster


def change(session: Session, vault: Vault, cluster: Cluster, where: Connection, found: Measurement) -> None:
    """Another endpoint, other credentials. Raises ApiError when unfinished tasks would go to another endpoint."""
    if where.endpoints[0] != cluster.api_endpoint:
        _refuse_busy(session, cluster)
    cluster.api_endpoint = where.endpoints[0]
    cluster.credentials = vault.encrypt(credentials_of(where))
    record(cluster, found)
    cluster.updated_at = now()


def make_default(session: Session, cluster: Cluster) -> None:
    session.execute(update(Cluster).where(Cluster.is_default).values(is_default=False))
    session.execute(update(Cluster).where(Cluster.id == cluster.id).values(is_default=True))
    cluster.is_default = True


def remove(session: Session, cluster: Cluster) -> None:
    """The row and its snapshot. Raises ApiError while tasks of it are unfinished."""
    _refuse_busy(session, cluster)
    session.delete(cluster)


def _refuse_busy(session: Session, cluster: Cluster) -> None:
    unfinished = session.scalar(
        select(Task.id).where(Task.cluster_id == cluster.id, Task.status.in_(("pending", "running"))).limit(1)
    )
    if unfinished is not None:
        raise ApiError(Kind.CONFLICT, "cluster_busy", details={"task_id": unfinished})


def measure(where: Connection) -> Measurement:
    """A look at the cluster now: two calls and a login. What fails is a finding too."""
    try:
        return of(probe(PveClient(where)))
    except PveError as error:
        return Measurement(status_after(error), error.reason, None, None)


def of(facts: ClusterFacts) -> Measurement:
    offline = [node.name for node in facts.nodes if not node.online]
    reason = None
    if facts.quorate is False:
        reason = "the cluster has no quorum"
    elif offline:
        reason = f"offline: {', '.join(offline)}"
    return Measurement(facts.status, reason, facts.version, len(facts.nodes))


def record(cluster: Cluster, found: Measurement) -> bool:
    """Puts a measurement into the row; True, and updated_at moves, when it says something new."""
    before = (cluster.status, cluster.status_reason, cluster.proxmox_version, cluster.node_count)
    after = (
        found.status,
        found.reason,
        found.version or cluster.proxmox_version,
        cluster.node_count if found.node_count is None else found.node_count,
    )
    cluster.checked_at = now()
    if after == before:
        return False
    cluster.status, cluster.status_reason, cluster.proxmox_version, cluster.node_count = after
    cluster.updated_at = cluster.checked_at
    return True
