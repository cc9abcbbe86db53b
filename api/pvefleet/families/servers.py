# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Servers: read from the snapshot, changed by tasks. /api/servers."""

from __future__ import annotations

import math
from typing import Any

from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import PveError
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server_spec import SpecError
from flask import Response
from pydantic import BaseModel
from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from pvefleet import clusters, dialects, idempotency, inventory, operations, sse
from pvefleet.access.guard import current_user
from pvefleet.db import now
from pvefleet.db.models import Cluster, Event, Guest, Task
from pvefleet.errors import ApiError, InvalidFields, Kind, Problem
from pvefleet.families import Family
from pvefleet.language import text
from pvefleet.observer import look_now
from pvefleet.schemas.common import rfc3339
from pvefleet.schemas.servers import (
    AcceptedAnswer,
    ChangeServer,
    CreateServer,
    DeleteServer,
    ServerAnswer,
    ServerList,
    ServerPath,
    ServersAnswer,
    StopServer,
    WhichCluster,
)
from pvefleet.server_variables import Subject
from pvefleet.services import services
from pvefleet.tasks import events, store
from pvefleet.tasks.streams import Message

family = Family("servers", "/api/servers", dialect=dialects.SERVERS)

# What the answer calls a server that the operation is about to work on.
STATES = {
    "create_server": "creating",
    "update_server": "updating",
    "start_server": "starting",
    "stop_server": "stopping",
    "reboot_server": "rebooting",
    "delete_server": "deleting",
}


@family.get("", permission="view_all", responses={200: ServersAnswer})
def list_servers(query: ServerList) -> Response:
    """A map by name. Servers of one cluster that share a name are listed as `name (vmid)`."""
    with services().db.read() as session:
        if query.cluster is None and session.scalar(select(~exists().select_from(Cluster))):
            found = {}
        else:
            found = inventory.servers(session, clusters.choose(session, query.cluster).id)
    shown = {key: _view(found[key]) for key in query.part(list(found))}
    return family.answer({"servers": shown, "page": query.page, "per_page": query.per_page, "total": len(found)})


@family.get("/<name>", permission="view_all", responses={200: ServerAnswer})
def show_server(path: ServerPath, query: WhichCluster) -> Response:
    with services().db.read() as session:
        cluster = clusters.choose(session, query.cluster)
        guest = _find(session, cluster, path.name)
        working = store.holder(session, operations.server_lock(cluster.name, inventory.name_of(guest)))
    shown = inventory.full_view(guest)
    shown["created_at"] = rfc3339(shown["created_at"])
    return family.answer({"server": {**shown, "cluster": cluster.name, "task_id": working}})


@family.post("", permission="create_server", responses={202: AcceptedAnswer})
def create_server(query: WhichCluster, body: CreateServer) -> Response:
    """Clone a template and make a server of it: hardware, disks, network devices, cloud-init."""
    _know_template(query, body)
    with services().db.write() as session:
        if (earlier := _same_request(session, "create_server", body.name)) is not None:
            return _accepted(session, earlier)
        cluster = clusters.choose(session, query.cluster)
        _refuse_taken(session, cluster, body.name)
        template = _template(session, cluster, body)
        if template is None:
            raise _which_template(session, cluster, body)
        subject = Subject(
            cluster_id=cluster.id,
            cluster=cluster.name,
            name=body.name,
            timeout=services().settings.task_deadline,
            template=template.vmid,
            template_config=template.detail.get("config") or {},
        )
        return _submit(session, "create_server", body, subject)


@family.patch("/<name>", permission="create_server", responses={202: AcceptedAnswer})
def change_server(path: ServerPath, query: WhichCluster, body: ChangeServer) -> Response:
    """Change hardware, tags, role or description. Disks can be added and grow, they never shrink."""
    return _work_on(path.name, query, "update_server", body)


@family.post("/<name>/start", permission="start_server", responses={202: AcceptedAnswer})
def start_server(path: ServerPath, query: WhichCluster) -> Response:
    return _work_on(path.name, query, "start_server", None)


@family.post("/<name>/stop", permission="stop_server", responses={202: AcceptedAnswer})
def stop_server(path: ServerPath, query: WhichCluster, body: StopServer) -> Response:
    """A clean shutdown within `timeout`; with `force` the plug is pulled."""
    return _work_on(path.name, query, "stop_server", body)


@family.post("/<name>/reboot", permission="reboot_server", responses={202: AcceptedAnswer})
def reboot_server(path: ServerPath, query: WhichCluster, body: StopServer) -> Response:
    """Down and up again, so that pending settings take effect; `force` and `timeout` as for stop."""
    return _work_on(path.name, query, "reboot_server", body)


@family.delete("/<name>", permission="delete_server", responses={202: AcceptedAnswer})
def delete_server(path: ServerPath, query: DeleteServer) -> Response:
    """Stop the server and remove it with its disks."""
    return _work_on(path.name, query, "delete_server", query)


@family.get("/status/stream", permission="view_all", responses={200: sse.DESCRIPTION})
def stream_servers(query: WhichCluster) -> Response:
    """Server-sent events: each change of a server, in all clusters or in the given one; no list at the beginning.

    An event named `reset` tells a client whose Last-Event-ID is too old to read the list again.
    """
    seen = sse.last_event_id()
    with services().db.read() as session:
        only = clusters.choose(session, query.cluster).name if query.cluster is not None else None
        position = events.position(session)
        complete = seen is not None and events.resumable(session, seen)
    first: tuple[Message, ...] = ()
    if seen is None:
        first = (Message(position, None),)
    elif not complete:
        first = (Message(position, {}, "reset"),)

    def render(event: Event) -> Message | None:
        return Message(event.id, event.data) if only in (None, event.data["cluster"]) else None

    after = seen if seen is not None and complete else position
    return sse.follow(events.SERVERS, after, first=first, render=render, permission="view_all")


def _work_on(name: str, which: WhichCluster, operation: str, body: BaseModel | None) -> Response:
    with services().db.write() as session:
        if (earlier := _same_request(session, operation, name)) is not None:
            return _accepted(session, earlier)
        cluster = clusters.choose(session, which.cluster)
        guest = _find(session, cluster, name)
        subject = Subject(
            cluster_id=cluster.id,
            cluster=cluster.name,
            name=inventory.name_of(guest),
            timeout=services().settings.task_deadline,
            vmid=guest.vmid,
        )
        return _submit(session, operation, body, subject)


def _submit(session: Session, operation: str, body: BaseModel | None, subject: Subject) -> Response:
    try:
        task = operations.submit(
            session,
            services(),
            operations.OPERATIONS[operation],
            body,
            subject,
            user_id=current_user().id,
            idempotency_key=idempotency.current_key(),
        )
    except SpecError as error:
        raise InvalidFields(Problem("body", "field.refused", {"why": str(error)})) from None
    except store.ResourceLocked as error:
        details = {"task_id": error.task_id, "resource": error.resource}
        raise ApiError(
            Kind.CONFLICT, "server_locked", details=details, task_id=error.task_id, name=subject.name
        ) from None
    except store.KeyReused:
        raise ApiError(Kind.IDEMPOTENCY_MISMATCH, "idempotency_mismatch") from None
    return _accepted(session, task)


def _accepted(session: Session, task: Task) -> Response:
    server = {
        "name": task.target,
        "status": STATES[task.operation],
        "estimated_time": _about(store.usual_seconds(session, task.operation)),
    }
    answer = {"message": text(f"accepted.{task.operation}"), "task_id": task.id, "server": server}
    return family.answer(answer, 202, {"Location": f"/api/tasks/{task.id}"})


def _about(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    if seconds < 90:
        return text("about_seconds", count=max(math.ceil(seconds), 1))
    return text("about_minutes", count=round(seconds / 60))


def _same_request(session: Session, operation: str, name: str) -> Task | None:
    """The task that this request made when it came before, and its process died before it could answer.

    A task outlives its key, which is free for another request then. Raises ApiError when it does something else.
    """
    key = idempotency.current_key()
    task = None if key is None else store.find_by_key(session, current_user().id, key)
    if task is None:
        return None
    if task.created_at < now() - idempotency.KEPT:
        task.idempotency_key = None
        session.flush()
        return None
    # "name (vmid)" is how a request names one of several servers
    if task.operation != operation or task.target not in (name, name.rpartition(" (")[0]):
        raise ApiError(Kind.IDEMPOTENCY_MISMATCH, "idempotency_mismatch")
    return task


def _find(session: Session, cluster: Cluster, name: str) -> Guest:
    try:
        guest = inventory.find(session, cluster.id, name)
    except inventory.AmbiguousName as error:
        details = {"servers": error.keys}
        raise ApiError(Kind.CONFLICT, "server_ambiguous", details=details, name=name, known=str(error)) from None
    if guest is None:
        raise ApiError(Kind.RESOURCE_NOT_FOUND, "server_not_found", name=name, cluster=cluster.name)
    return guest


def _refuse_taken(session: Session, cluster: Cluster, name: str) -> None:
    """A server that an earlier creation has left unfinished takes no name: the same request again finishes it."""
    try:
        guest = inventory.find(session, cluster.id, name)
        taken = guest is not None and not inventory.is_unfinished(guest)
    except inventory.AmbiguousName:
        taken = True
    if taken:
        raise ApiError(Kind.CONFLICT, "server_exists", name=name, cluster=cluster.name)


def _know_template(query: WhichCluster, body: CreateServer) -> None:
    """A template that was made, or a cluster that was registered, a moment ago is not in the snapshot yet: look."""
    with services().db.read() as session:
        cluster = clusters.choose(session, query.cluster)
        template = _template(session, cluster, body)
    if template is not None and template.detail:
        return
    try:
        look_now(services(), cluster)
    except PveError as error:
        raise ApiError(Kind.UPSTREAM_ERROR, "proxmox_unreachable", details={"reason": str(error)}) from None


def _template(session: Session, cluster: Cluster, body: CreateServer) -> Guest | None:
    """The given one, else the one that the settings name for the role or by default, else the cluster's only one."""
    known = {template.vmid: template for template in inventory.templates(session, cluster.id)}
    wanted = _wanted_template(body)
    if wanted is not None:
        return known.get(wanted)
    return next(iter(known.values())) if len(known) == 1 else None


def _wanted_template(body: CreateServer) -> int | None:
    configured = services().settings.templates
    return body.template_vm_id or configured.get(body.role or "default") or configured.get("default")


def _which_template(session: Session, cluster: Cluster, body: CreateServer) -> ApiError:
    known = inventory.templates(session, cluster.id)
    names = ", ".join(f"{template.vmid} {template.name or ''}".rstrip() for template in known) or text("none")
    wanted = _wanted_template(body)
    if wanted is None:
        return ApiError(Kind.VALIDATION_ERROR, "template_needed", cluster=cluster.name, known=names)
    return ApiError(Kind.VALIDATION_ERROR, "template_unknown", vmid=wanted, cluster=cluster.name, known=names)


def _view(guest: Guest) -> dict[str, Any]:
    shown = inventory.view(guest)
    return {**shown, "created_at": rfc3339(shown["created_at"])}
