# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Registering clusters and looking at them: /api/v1/clusters.

Proxmox VE is asked in process, and never while a transaction of ours is open.
"""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Literal

from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import (
    Connection,
    PveAuthFailed,
    PveClient,
    PveError,
    PveForbidden,
    PveUnreachable,
    segment,
)
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.cluster import (
    ClusterFacts,
    NodeFacts,
    listing,
    probe,
    strange,
)
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.credentials import (
    ConnectionParamsError,
    make_connection,
)
from flask import Response
from pydantic import Field, SecretStr, ValidationError
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from pvefleet import clusters, dialects
from pvefleet.access import network
from pvefleet.db.models import Cluster
from pvefleet.errors import ApiError, InvalidFields, Kind, Problem
from pvefleet.families import Family
from pvefleet.observer import list_now
from pvefleet.schemas.clusters import (
    ClusterAnswer,
    ClusterBody,
    ClusterList,
    ClusterPatch,
    ClusterPath,
    DiskList,
    NodeAnswer,
    NodeList,
    ResourceList,
)
from pvefleet.schemas.common import Paging
from pvefleet.services import services

logger = logging.getLogger(__name__)
family = Family("clusters", "/api/v1/clusters", dialect=dialects.CLUSTERS)

# Nodes of one cluster that are asked at the same time.
PARALLEL = 8


class ResourceQuery(Paging):
    type: Literal["vm", "node", "storage", "pool", "sdn"] | None = Field(default=None)


@family.post("", permission="manage_clusters", responses={201: ClusterAnswer})
def register_cluster(body: ClusterBody) -> Response:
    """Register a cluster: it is connected to and logged in to first."""
    with services().db.read() as session:
        clusters.refuse_taken(session, body.name)
    where = _connection(
        api_endpoint=body.api_endpoint,
        user=body.username,
        password=_plain(body.password),
        token_id=body.token_id,
        token_secret=_plain(body.token_secret),
        tls_fingerprint=body.tls_fingerprint,
        ca_pem=body.ca_pem,
    )
    facts = _probe(where)
    with services().db.write() as session:
        cluster = clusters.add(session, services().vault, body.name, where, facts, default=body.default)
    _list(cluster)
    return family.answer(_shown(cluster), 201, {"Location": f"{family.prefix}/{cluster.id}"})


@family.get("", permission="view_all", responses={200: ClusterList})
def list_clusters(query: Paging) -> Response:
    """All clusters, by name."""
    with services().db.read() as session:
        total = session.scalar(select(func.count()).select_from(Cluster)) or 0
        rows = session.scalars(select(Cluster).order_by(Cluster.name).offset(query.offset).limit(query.per_page))
        shown = [_shown(row) for row in rows]
    return family.answer(ClusterList(clusters=shown, total=total))


@family.get("/<id>", permission="view_all", responses={200: ClusterAnswer})
def show_cluster(path: ClusterPath) -> Response:
    """One cluster, as it was measured last."""
    return family.answer(_shown(_find(path.id)))


@family.patch("/<id>", permission="manage_clusters", responses={200: ClusterAnswer})
def change_cluster(path: ClusterPath, body: ClusterPatch) -> Response:
    """Change endpoint, credentials or trust, which are tried first; or make the cluster the default one."""
    if not body.model_fields_set:
        raise InvalidFields(Problem("body", "field.nothing_to_change"))
    cluster = _find(path.id)
    where, found = None, None
    if body.model_fields_set != {"default"}:
        where = _changed(cluster, body)
        found = clusters.of(_probe(where))
    with services().db.write() as session:
        cluster = clusters.find(session, path.id)
        if where is not None and found is not None:
            clusters.change(session, services().vault, cluster, where, found)
        if body.default:
            clusters.make_default(session, cluster)
    return family.answer(_shown(cluster))


@family.delete("/<id>", permission="manage_clusters", responses={204: None})
def deregister_cluster(path: ClusterPath) -> Response:
    """Forget a cluster, its credentials and its snapshot. The cluster itself is not touched."""
    with services().db.write() as session:
        clusters.remove(session, clusters.find(session, path.id))
    return Response(status=204)


@family.post("/<id>/check", permission="manage_clusters", responses={200: ClusterAnswer})
def check_cluster(path: ClusterPath) -> Response:
    """Measure the cluster's status now."""
    found = clusters.measure(_of(_find(path.id)))
    with services().db.write() as session:
        cluster = clusters.find(session, path.id)
        clusters.record(cluster, found)
    return family.answer(_shown(cluster))


@family.get("/<id>/nodes", permission="view_all", responses={200: NodeList})
def list_nodes(path: ClusterPath, query: Paging) -> Response:
    """The cluster's nodes, as they are now."""
    client = PveClient(_of(_find(path.id)))
    try:
        facts = probe(client)
        rows = {str(row.get("node")): row for row in listing(client, "/nodes")}
        nodes = [_node(node, rows.get(node.name, {})) for node in query.part(facts.nodes)]
    except PveError as error:
        raise _upstream(error) from None
    except ValidationError:
        raise _upstream(strange(client, "/nodes")) from None
    return family.answer(NodeList(nodes=nodes, total=len(facts.nodes)))


@family.get("/<id>/disks", permission="view_all", responses={200: DiskList})
def list_disks(path: ClusterPath, query: Paging) -> Response:
    """The physical disks of all nodes, as they are now."""
    client = PveClient(_of(_find(path.id)))
    try:
        facts = probe(client)
    except PveError as error:
        raise _upstream(error) from None

    disks: list[dict[str, Any]] = []
    errors = {node.name: "offline" for node in facts.nodes if not node.online}
    online = [node.name for node in facts.nodes if node.online]
    with ThreadPoolExecutor(PARALLEL) as pool:
        answers = {name: pool.submit(listing, client, f"/nodes/{segment(name)}/disks/list") for name in online}
    for name, answer in answers.items():
        try:
            disks += [{"node": name, **disk} for disk in answer.result()]
        except PveError as error:
            errors[name] = error.reason
    return family.answer(DiskList(disks=query.part(disks), total=len(disks), errors=errors))


@family.get("/<id>/resources", permission="view_all", responses={200: ResourceList})
def list_resources(path: ClusterPath, query: ResourceQuery) -> Response:
    """Guests, nodes, storages and pools, the way Proxmox VE lists them: some seconds late."""
    client = PveClient(_of(_find(path.id)))
    try:
        rows = listing(client, "/cluster/resources", {"type": query.type})
    except PveError as error:
        raise _upstream(error) from None
    return family.answer(ResourceList(resources=query.part(rows), total=len(rows)))


def _list(cluster: Cluster) -> None:
    """Its servers are listed at once. The cluster is registered already: what fails here the observer does later."""
    try:
        list_now(services(), cluster)
    except (PveError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError, SQLAlchemyError) as error:
        # Beside PveError: a listing of another shape than Proxmox VE's, or a database that is busy.
        reason = str(error) if isinstance(error, PveError) else type(error).__name__
        logger.warning("Unable to list the servers of cluster %s: %s", cluster.name, reason)


def _find(cluster_id: str) -> Cluster:
    with services().db.read() as session:
        return clusters.find(session, cluster_id)


def _of(cluster: Cluster) -> Connection:
    """For somebody who waits for the answer: passing failures are repeated, but not for long."""
    return replace(services().connection(cluster), retry_seconds=2.0)


def _shown(cluster: Cluster) -> ClusterAnswer:
    return ClusterAnswer(
        id=cluster.id,
        name=cluster.name,
        api_endpoint=cluster.api_endpoint,
        status=cluster.status,  # type: ignore[arg-type]  # checked by pydantic
        proxmox_version=cluster.proxmox_version or "",
        node_count=cluster.node_count or 0,
        created_at=cluster.created_at,
        updated_at=cluster.updated_at,
        default=cluster.is_default,
        status_reason=cluster.status_reason,
    )


def _node(node: NodeFacts, row: dict[str, Any]) -> NodeAnswer:
    return NodeAnswer(
        name=node.name,
        ip_address=node.ip,
        status="online" if node.online else "offline",
        cpus=row.get("maxcpu"),
        cpu=row.get("cpu"),
        memory=row.get("maxmem"),
        memory_used=row.get("mem"),
        uptime=row.get("uptime"),
    )


def _connection(api_endpoint: str, **credentials: str | None) -> Connection:
    """Raises ApiError when the parts contradict each other."""
    try:
        where = make_connection(endpoints=[api_endpoint], **credentials)  # type: ignore[arg-type]
    except ConnectionParamsError as error:
        raise InvalidFields(Problem("body", "field.connection", {"problem": str(error)})) from None
    return replace(where, retry_seconds=2.0)


def _changed(cluster: Cluster, body: ClusterPatch) -> Connection:
    """The connection with the patch applied. Raises ApiError."""
    merged = services().vault.decrypt(cluster.credentials)
    given = body.model_fields_set
    if body.password is not None:
        merged |= {"password": _plain(body.password), "token_id": None, "token_secret": None}
    if body.token_id is not None or body.token_secret is not None:
        merged |= {"password": _plain(body.password)}
        merged |= {"token_id": body.token_id or merged["token_id"]}
        merged |= {"token_secret": _plain(body.token_secret) or merged["token_secret"]}
    if body.username is not None:
        merged["user"] = body.username
    elif body.token_id is not None and "!" in body.token_id:
        merged["user"] = None  # the token names its owner
    if "tls_fingerprint" in given or "ca_pem" in given:
        merged |= {"tls_fingerprint": body.tls_fingerprint, "ca_pem": body.ca_pem}
    return _connection(body.api_endpoint or cluster.api_endpoint, **merged)


def _probe(where: Connection) -> ClusterFacts:
    """Raises ApiError: 400 for an address that is not allowed, 502 without a connection, 401 without a login."""
    try:
        network.check_endpoint(where.endpoints[0], services().settings.allowed_networks)
    except network.AddressRefused as error:
        raise InvalidFields(Problem("api_endpoint", "field.address_refused", {"address": str(error)})) from None
    try:
        return probe(PveClient(where))
    except PveAuthFailed:
        raise ApiError(Kind.AUTHENTICATION_REQUIRED, "proxmox_login_refused") from None
    except PveForbidden as error:
        raise ApiError(
            Kind.AUTHENTICATION_REQUIRED, "proxmox_login_refused", details={"reason": error.reason}
        ) from None
    except PveError as error:
        raise _upstream(error) from None


def _upstream(error: PveError) -> ApiError:
    message_id = "proxmox_unreachable" if isinstance(error, PveUnreachable) else "proxmox_refused"
    return ApiError(Kind.UPSTREAM_ERROR, message_id, details={"reason": error.reason})


def _plain(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()
