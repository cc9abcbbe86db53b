# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Task rows and their one state machine: pending -> running -> completed | failed | cancelled.

Every function belongs into one write transaction: the row, its events, its locks and its secrets change together.
"""

from __future__ import annotations

import secrets as random
from collections.abc import Iterable, Sequence
from datetime import datetime
from statistics import median
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from pvefleet.db import now
from pvefleet.db.models import Lock, Task, TaskLog, TaskSecret
from pvefleet.schemas.common import rfc3339
from pvefleet.tasks import events

PENDING, RUNNING, COMPLETED, FAILED, CANCELLED = "pending", "running", "completed", "failed", "cancelled"
FINAL = frozenset({COMPLETED, FAILED, CANCELLED})
# The operation of tasks that others run and only report here: the engine leaves them alone.
REPORT = "report"
_FROM = {
    RUNNING: frozenset({PENDING}),
    PENDING: frozenset({RUNNING}),
    COMPLETED: frozenset({RUNNING}),
    FAILED: frozenset({PENDING, RUNNING}),
    CANCELLED: frozenset({PENDING, RUNNING}),
}
LONGEST_MESSAGE = 4000
# How many earlier tasks an estimate looks at.
HISTORY = 20


class ResourceLocked(Exception):
    """Another unfinished task changes the resource."""

    def __init__(self, resource: str, task_id: str) -> None:
        super().__init__(f"{resource} is being changed by {task_id}")
        self.resource = resource
        self.task_id = task_id


class InvalidTransition(Exception):
    """The task is not in a state from which it can get there."""

    def __init__(self, task: Task, status: str) -> None:
        super().__init__(f"{task.id} is {task.status} and cannot become {status}")
        self.status = task.status


class KeyReused(Exception):
    """The idempotency key belongs to a task that does something else."""


def create(
    session: Session,
    *,
    operation: str,
    title: str,
    cluster_id: str | None,
    target: str | None,
    parameters: dict[str, Any],
    sealed: bytes | None,
    locks: Sequence[str],
    user_id: int | None,
    deadline_seconds: int,
    idempotency_key: str | None = None,
    kind: str | None = None,
    priority: str | None = None,
    description: str | None = None,
) -> Task:
    """A new pending task that holds its locks. `sealed`: its secrets, encrypted. kind, priority, description: of a
    reported task.

    With an idempotency key that this user has used for the same work already, that earlier task.
    Raises ResourceLocked, KeyReused.
    """
    if idempotency_key is not None:
        earlier = find_by_key(session, user_id, idempotency_key)
        if earlier is not None:
            if (earlier.operation, earlier.parameters) != (operation, parameters):
                raise KeyReused(idempotency_key)
            return earlier
    moment = now()
    task = Task(
        id=f"task-{random.token_hex(10)}",
        operation=operation,
        title=title,
        status=PENDING,
        progress=0,
        message="",
        cluster_id=cluster_id,
        target=target,
        parameters=parameters,
        user_id=user_id,
        attempts=0,
        cancel_requested=False,
        idempotency_key=idempotency_key,
        created_at=moment,
        updated_at=moment,
        deadline_seconds=deadline_seconds,
        kind=kind,
        priority=priority,
        description=description,
    )
    session.add(task)
    session.flush()
    for resource in sorted(set(locks)):
        _lock(session, resource, task.id)
    if sealed is not None:
        session.add(TaskSecret(task_id=task.id, data=sealed))
    _tell(session, task)
    return task


def find_by_key(session: Session, user_id: int | None, key: str) -> Task | None:
    """The task that this user's idempotency key started."""
    return session.scalars(select(Task).where(Task.user_id == user_id, Task.idempotency_key == key)).one_or_none()


def holder(session: Session, resource: str) -> str | None:
    """The id of the task that holds the resource."""
    return session.execute(select(Lock.task_id).where(Lock.resource == resource)).scalar_one_or_none()


def start(
    session: Session, task_id: str, *, message: str = "", percent: int = 0, moment: datetime | None = None
) -> Task | None:
    """Make the pending task a running one, and count the attempt; None when it is not pending any more.

    moment: when it began, if that was not now.
    """
    task = _row(session, task_id)
    if task.status != PENDING:
        return None
    _enter(task, RUNNING, message)
    # What an earlier attempt has reached stays.
    task.progress = max(task.progress, percent)
    task.started_at = moment or task.updated_at
    task.attempts += 1
    _tell(session, task)
    return task


def requeue(session: Session, task_id: str, *, count_attempt: bool) -> None:
    """Put a running task back in the queue; `count_attempt=False` when the attempt was ended by our own shutdown.

    One that was to be cancelled is cancelled instead.
    """
    task = _row(session, task_id)
    if task.cancel_requested:
        finish(session, task_id, CANCELLED)
        return
    _enter(task, PENDING)
    task.started_at = None
    if not count_attempt:
        task.attempts -= 1
    _tell(session, task)


def finish(
    session: Session,
    task_id: str,
    status: str,
    *,
    result: dict[str, Any] | None = None,
    error: str | None = None,
    message: str = "",
    moment: datetime | None = None,
) -> None:
    """End the task: release its locks, delete its secrets. moment: when it ended, if that was not now.

    Raises InvalidTransition.
    """
    task = _row(session, task_id)
    _enter(task, status, message)
    task.finished_at = moment or task.updated_at
    task.result = result
    if status == COMPLETED:
        task.progress = 100
    if error is not None:
        task.error = task.message = error[:LONGEST_MESSAGE]
    session.execute(delete(Lock).where(Lock.task_id == task_id))
    session.execute(delete(TaskSecret).where(TaskSecret.task_id == task_id))
    _tell(session, task)


def request_cancel(session: Session, task_id: str) -> Task:
    """Cancel a pending or reported task now, a running one as soon as the engine has ended its processes.

    Repeating it is harmless; a completed or failed task raises InvalidTransition.
    """
    task = _row(session, task_id)
    if task.status == PENDING or (task.status == RUNNING and task.operation == REPORT):
        finish(session, task_id, CANCELLED)
    elif task.status == RUNNING:
        task.cancel_requested = True
    elif task.status != CANCELLED:
        raise InvalidTransition(task, CANCELLED)
    return task


def progress(session: Session, task_id: str, percent: int | None, message: str, *, most: int = 99) -> None:
    """What a running task does now. The percentage never falls, and is 100 only when the task is completed, or whoever
    runs it says so."""
    task = _row(session, task_id)
    if task.status != RUNNING:
        return
    reached = task.progress if percent is None else max(task.progress, min(percent, most))
    message = message[:LONGEST_MESSAGE]
    if (reached, message) != (task.progress, task.message):
        task.progress, task.message, task.updated_at = reached, message, now()
        _tell(session, task)


def log(session: Session, task_id: str, lines: Iterable[tuple[str, str]]) -> None:
    """Add (level, message) lines to the task's log."""
    for level, message in lines:
        log_line(session, task_id, level, message, moment=now())


def log_line(
    session: Session, task_id: str, level: str, message: str, *, moment: datetime, context: dict[str, Any] | None = None
) -> TaskLog:
    """Add a line to the task's log. context: what a reporting agent knows about it beside its message."""
    line = TaskLog(task_id=task_id, level=level, message=message[:LONGEST_MESSAGE], timestamp=moment, context=context)
    session.add(line)
    events.publish(session, events.task_topic(task_id), "log", log_view(line))
    return line


def pending(session: Session, limit: int) -> Sequence[str]:
    """The ids of the tasks that wait for the engine, the oldest first."""
    waiting = (Task.status == PENDING, Task.operation != REPORT)
    return session.scalars(select(Task.id).where(*waiting).order_by(Task.created_at, Task.id).limit(limit)).all()


def unfinished(session: Session, but: Iterable[str]) -> Sequence[str]:
    """The ids of the tasks that the engine runs, or some engine has run, other than those."""
    running = (Task.status == RUNNING, Task.operation != REPORT, Task.id.not_in(but))
    return session.scalars(select(Task.id).where(*running)).all()


def usual_seconds(session: Session, operation: str) -> float | None:
    """How long completed tasks of this kind took from acceptance to end, the median of the last ones; None without."""
    rows = session.execute(
        select(Task.created_at, Task.finished_at)
        .where(Task.operation == operation, Task.status == COMPLETED)
        .order_by(Task.finished_at.desc())
        .limit(HISTORY)
    ).all()
    spans = [(finished - created).total_seconds() for created, finished in rows if finished is not None]
    return median(spans) if spans else None


def prune(session: Session, before: datetime) -> None:
    """Delete tasks that ended before that time, with their logs."""
    session.execute(delete(Task).where(Task.status.in_(FINAL), Task.finished_at < before))


def view(task: Task) -> dict[str, Any]:
    """The task as events and answers show it. `message` is empty unless the run itself said something."""
    return {
        "id": task.id,
        "type": task.operation,
        "status": task.status,
        "message": task.message,
        "progress": task.progress,
        "target": task.target,
        "created_at": rfc3339(task.created_at),
        "updated_at": rfc3339(task.updated_at),
        "result": task.result,
        "error": task.error,
    }


def log_view(line: TaskLog) -> dict[str, Any]:
    return {"timestamp": rfc3339(line.timestamp), "level": line.level, "message": line.message}


def _row(session: Session, task_id: str) -> Task:
    # SQLite's write lock is already taken; elsewhere the row is locked against a second writer.
    return session.scalars(select(Task).where(Task.id == task_id).with_for_update()).one()


def _enter(task: Task, status: str, message: str = "") -> None:
    if task.status not in _FROM[status]:
        raise InvalidTransition(task, status)
    task.status, task.message, task.updated_at = status, message[:LONGEST_MESSAGE], now()


def _tell(session: Session, task: Task) -> None:
    events.publish(session, events.task_topic(task.id), "status", view(task))


def _lock(session: Session, resource: str, task_id: str) -> None:
    held_by = holder(session, resource)
    if held_by is None:
        try:
            with session.begin_nested():
                session.add(Lock(resource=resource, task_id=task_id))
            return
        except IntegrityError:
            # Somebody was faster, on a database that lets two write at once.
            held_by = holder(session, resource)
    raise ResourceLocked(resource, held_by or "another task")
