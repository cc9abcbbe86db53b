# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tasks that others run and report here. They are rows of the one store; the engine leaves them alone.

Every function that changes something belongs into one write transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from pvefleet.db import now
from pvefleet.db.models import Task, TaskError, TaskLog, TaskMetric
from pvefleet.schemas.common import rfc3339
from pvefleet.tasks import store

# The family's words for the states of a task.
WORDS = {
    store.PENDING: "QUEUED",
    store.RUNNING: "PROCESSING",
    store.COMPLETED: "COMPLETED",
    store.FAILED: "FAILED",
    store.CANCELLED: "CANCELLED",
}
STATUSES = {word: status for status, word in WORDS.items()}
_FROM = {
    store.PENDING: frozenset[str](),
    store.RUNNING: frozenset({store.PENDING}),
    store.COMPLETED: frozenset({store.RUNNING}),
    store.FAILED: frozenset({store.RUNNING}),
    store.CANCELLED: frozenset({store.PENDING, store.RUNNING}),
}
# What is sent may be as long; what is kept ends with a sign that there was more.
LONGEST_TEXT = 100_000
CUT = "…"
# An agent's own clock is believed as far: a time of another day is a clock that is wrong, or Go's year 1.
BELIEVED = timedelta(days=1)


class AlreadyOver(Exception):
    """The task has ended; `status` says how, in the family's words."""

    def __init__(self, task: Task) -> None:
        super().__init__(f"{task.id} is {WORDS[task.status]}")
        self.status = WORDS[task.status]


class NoSuchTransition(Exception):
    """From `status` there is no way to `wanted`, both in the family's words."""

    def __init__(self, task: Task, wanted: str) -> None:
        super().__init__(f"{task.id} is {WORDS[task.status]} and cannot become {WORDS[wanted]}")
        self.status, self.wanted = WORDS[task.status], WORDS[wanted]


class NotBegun(Exception):
    """The task is still QUEUED."""


def create(
    session: Session,
    *,
    title: str,
    description: str,
    priority: str,
    kind: str,
    parameters: dict[str, Any],
    user_id: int,
    silence_seconds: int,
    idempotency_key: str | None,
) -> Task:
    """A queued task that waits for an agent. silence_seconds: how long one that runs may say nothing before it is taken
    for dead. Raises store.KeyReused."""
    return store.create(
        session,
        operation=store.REPORT,
        title=title,
        cluster_id=None,
        target=title,
        parameters=parameters,
        sealed=None,
        locks=(),
        user_id=user_id,
        deadline_seconds=silence_seconds,
        idempotency_key=idempotency_key,
        kind=kind,
        priority=priority,
        description=shorten(description),
    )


def change_status(
    session: Session,
    task_id: str,
    status: str,
    *,
    message: str | None,
    percent: int | None,
    started: datetime | None,
    ended: datetime | None,
) -> Task:
    """Where its agent says it is; saying it again is harmless. Raises AlreadyOver, NoSuchTransition."""
    task = session.get_one(Task, task_id, with_for_update=True)
    moment = now()
    if task.status == status:
        if status == store.RUNNING:
            _advance(session, task, percent, message)
        return task
    if task.status in store.FINAL:
        raise AlreadyOver(task)
    if task.status not in _FROM[status]:
        raise NoSuchTransition(task, status)
    said = shorten(message or "")
    if status == store.RUNNING:
        store.start(session, task_id, message=said, percent=percent or 0, moment=_believed(started, moment))
        return task
    if percent is not None and status != store.COMPLETED:
        task.progress = max(task.progress, percent)
    if started is not None and task.started_at is None:
        task.started_at = _believed(started, moment)
    error = said if status == store.FAILED and said else None
    store.finish(session, task_id, status, error=error, message=said, moment=_believed(ended, moment))
    return task


def change_progress(session: Session, task_id: str, percent: int, message: str | None) -> Task:
    """A percentage below the present one changes nothing but the message. Raises AlreadyOver, NotBegun."""
    task = session.get_one(Task, task_id, with_for_update=True)
    if task.status in store.FINAL:
        raise AlreadyOver(task)
    if task.status != store.RUNNING:
        raise NotBegun(task.id)
    _advance(session, task, percent, message)
    return task


def heard(session: Session, task_id: str) -> None:
    """Its agent lives."""
    task = session.get_one(Task, task_id, with_for_update=True)
    if task.status == store.RUNNING:
        task.updated_at = now()


def silent(session: Session) -> Sequence[str]:
    """The ids of the tasks whose agents have said nothing for too long."""
    running = select(Task).where(Task.status == store.RUNNING, Task.operation == store.REPORT)
    return [task.id for task in session.scalars(running) if _is_silent(task)]


def end_silent(session: Session, task_id: str) -> None:
    """The task fails, unless something was heard of it by now."""
    task = session.get_one(Task, task_id, with_for_update=True)
    if task.status == store.RUNNING and _is_silent(task):
        error = f"Unable to finish {task.title}: nothing was heard of it for {task.deadline_seconds} s"
        store.finish(session, task_id, store.FAILED, error=error)


def _is_silent(task: Task) -> bool:
    return now() - task.updated_at > timedelta(seconds=task.deadline_seconds)


def add_log(
    session: Session, task_id: str, level: str, message: str, *, moment: datetime | None, context: dict[str, Any] | None
) -> TaskLog:
    """level: in upper case, as it is shown again."""
    line = store.log_line(session, task_id, level.lower(), shorten(message), moment=moment or now(), context=context)
    session.flush()
    return line


def add_metric(session: Session, task_id: str, values: dict[str, Any], moment: datetime | None) -> TaskMetric:
    """values: by the names that they are shown under."""
    metric = TaskMetric(task_id=task_id, values=values, timestamp=moment or now())
    session.add(metric)
    session.flush()
    return metric


def add_error(
    session: Session,
    task_id: str,
    *,
    code: str,
    message: str,
    details: str | None,
    stack_trace: str | None,
    moment: datetime | None,
) -> TaskError:
    error = TaskError(
        task_id=task_id,
        code=code,
        message=shorten(message),
        details=None if details is None else shorten(details),
        stack_trace=None if stack_trace is None else shorten(stack_trace, 5 * store.LONGEST_MESSAGE),
        timestamp=moment or now(),
    )
    session.add(error)
    session.flush()
    return error


def shorten(text: str, longest: int = store.LONGEST_MESSAGE) -> str:
    return text if len(text) <= longest else text[: longest - len(CUT)] + CUT


def view(task: Task) -> dict[str, Any]:
    """Any task, also one that the service runs, in the family's words."""
    return {
        "id": task.id,
        "title": task.title,
        "description": task.description or "",
        "priority": task.priority or "MEDIUM",
        "kind": task.kind or task.operation,
        "parameters": task.parameters,
        "status": WORDS[task.status],
        "progress": task.progress,
        "message": task.message,
        "createdAt": rfc3339(task.created_at),
        "updatedAt": rfc3339(task.updated_at),
        "startedAt": None if task.started_at is None else rfc3339(task.started_at),
        "completedAt": None if task.finished_at is None else rfc3339(task.finished_at),
        "result": task.result,
        "error": task.error,
    }


def log_view(line: TaskLog) -> dict[str, Any]:
    return {
        "id": f"log-{line.id}",
        "taskId": line.task_id,
        "level": line.level.upper(),
        "message": line.message,
        "timestamp": rfc3339(line.timestamp),
    }


def whole_log_view(line: TaskLog) -> dict[str, Any]:
    return {**log_view(line), "metadata": line.context}


def metric_view(metric: TaskMetric) -> dict[str, Any]:
    return {
        "id": f"metric-{metric.id}",
        "taskId": metric.task_id,
        **metric.values,
        "timestamp": rfc3339(metric.timestamp),
    }


def error_view(error: TaskError) -> dict[str, Any]:
    return {
        "id": f"error-{error.id}",
        "taskId": error.task_id,
        "errorCode": error.code,
        "message": error.message,
        "timestamp": rfc3339(error.timestamp),
    }


def whole_error_view(error: TaskError) -> dict[str, Any]:
    return {**error_view(error), "details": error.details, "stackTrace": error.stack_trace}


def _advance(session: Session, task: Task, percent: int | None, message: str | None) -> None:
    store.progress(session, task.id, percent, task.message if message is None else shorten(message), most=100)
    task.updated_at = now()


def _believed(claim: datetime | None, moment: datetime) -> datetime | None:
    return claim if claim is not None and moment - BELIEVED <= claim <= moment else None
