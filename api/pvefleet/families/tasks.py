# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tasks as the servers family shows them: /api/tasks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Response
from sqlalchemy import func, select

from pvefleet import dialects, sse
from pvefleet.access.guard import current_user, may
from pvefleet.access.permissions import ANY_USER
from pvefleet.db.models import Event, Task, TaskLog
from pvefleet.errors import ApiError, Kind
from pvefleet.families import Family
from pvefleet.language import language, text
from pvefleet.operations import OPERATIONS
from pvefleet.schemas.common import Paging
from pvefleet.schemas.tasks import CancelAnswer, LogAnswer, TaskAnswer, TaskList, TaskPath, TasksAnswer
from pvefleet.services import services
from pvefleet.tasks import events, store
from pvefleet.tasks.streams import Message

family = Family("tasks", "/api/tasks", dialect=dialects.SERVERS)


@family.get("", permission=ANY_USER, responses={200: TasksAnswer})
def list_tasks(query: TaskList) -> Response:
    """The newest first: all of them with the permission view_all, else one's own."""
    wanted = []
    if not may("view_all"):
        wanted.append(Task.user_id == current_user().id)
    if query.status is not None:
        wanted.append(Task.status == query.status)
    if query.type is not None:
        wanted.append(Task.operation == query.type)
    newest_first = select(Task).where(*wanted).order_by(Task.created_at.desc(), Task.id.desc())
    with services().db.read() as session:
        total = session.execute(select(func.count()).select_from(Task).where(*wanted)).scalar_one()
        rows = session.scalars(newest_first.offset(query.offset).limit(query.per_page)).all()
    show = presenter()
    page = {"page": query.page, "per_page": query.per_page, "total": total}
    return family.answer({"tasks": [show(store.view(task)) for task in rows], **page})


@family.get("/<task_id>", permission=ANY_USER, responses={200: TaskAnswer})
def show_task(path: TaskPath) -> Response:
    task = presenter()(store.view(_visible(path.task_id)))
    return family.answer({**{name: task[name] for name in ("status", "progress", "message")}, "task": task})


@family.get("/<task_id>/log", permission="view_logs", responses={200: LogAnswer})
def show_task_log(path: TaskPath, query: Paging) -> Response:
    """What its run did, line by line."""
    _visible(path.task_id)
    mine = TaskLog.task_id == path.task_id
    lines = select(TaskLog).where(mine).order_by(TaskLog.id).offset(query.offset).limit(query.per_page)
    with services().db.read() as session:
        total = session.execute(select(func.count()).select_from(TaskLog).where(mine)).scalar_one()
        rows = session.scalars(lines).all()
    page = {"page": query.page, "per_page": query.per_page, "total": total}
    return family.answer({"log": [store.log_view(line) for line in rows], **page})


@family.post("/<task_id>/cancel", permission=ANY_USER, responses={200: CancelAnswer, 202: CancelAnswer})
def cancel_task(path: TaskPath) -> Response:
    """200: it is cancelled. 202: it will be, as soon as all its processes have ended."""
    task = _visible(path.task_id)
    permission = permission_to_cancel(task)
    if task.user_id != current_user().id and not may(permission):
        raise ApiError(Kind.PERMISSION_DENIED, "task_not_yours", permission=permission)
    try:
        with services().db.write() as session:
            task = store.request_cancel(session, task.id)
    except store.InvalidTransition as error:
        raise ApiError(Kind.CONFLICT, "task_finished", status=error.status) from None
    done = task.status == store.CANCELLED
    answer = {"message": text("task_cancelled" if done else "task_cancelling"), "task": presenter()(store.view(task))}
    return family.answer(answer, 200 if done else 202)


@family.get("/<task_id>/stream", permission=ANY_USER, responses={200: sse.DESCRIPTION, 204: None})
def stream_task(path: TaskPath) -> Response:
    """Server-sent events: the task at each change, from its beginning on; its log as events named `log`.

    The stream ends with the task. 204: there is nothing more to come, which also tells an EventSource to stop.
    """
    task = _visible(path.task_id)
    show = presenter()
    logs = may("view_logs")
    topic = events.task_topic(task.id)
    seen = sse.last_event_id()
    with services().db.read() as session:
        newest = events.newest_of(session, topic)
        position = events.position(session)
        complete = newest is not None if seen is None else events.resumable(session, seen)
        task = session.get_one(Task, task.id)
    over = task.status in store.FINAL
    if over and complete and seen is not None and (newest is None or seen >= newest):
        return Response(status=204)
    first = () if complete else (Message(position, show(store.view(task))),)
    if over and not complete:
        return sse.answer(message.encode() for message in first)

    def render(event: Event) -> Message | None:
        if event.kind == "log":
            return Message(event.id, event.data, "log") if logs else None
        return Message(event.id, show(event.data))

    def is_last(event: Event) -> bool:
        return event.kind == "status" and event.data["status"] in store.FINAL

    after = (seen or 0) if complete else position
    return sse.follow(topic, after, first=first, render=render, is_last=is_last)


def permission_to_cancel(task: Task) -> str:
    """What it takes to cancel a task of somebody else."""
    return "report_tasks" if task.operation == store.REPORT else OPERATIONS[task.operation].permission


def presenter() -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Fills in the message of a task whose run has not said anything itself, in the request's language."""
    catalogue, spoken = services().catalogue, language()

    def show(view: dict[str, Any]) -> dict[str, Any]:
        if view["message"]:
            return view
        operation = catalogue.text(f"operation.{view['type']}", spoken)
        return {**view, "message": catalogue.text(f"task.{view['status']}", spoken, operation=operation)}

    return show


def _visible(task_id: str) -> Task:
    """The task; one that the user may not see does not exist for them."""
    with services().db.read() as session:
        task = session.get(Task, task_id)
    if task is None or (task.user_id != current_user().id and not may("view_all")):
        raise ApiError(Kind.RESOURCE_NOT_FOUND, "task_not_found")
    return task
