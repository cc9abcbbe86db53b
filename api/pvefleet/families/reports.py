# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tasks family, /api/v1/tasks: agents make tasks, run them somewhere else, and report here how they go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from flask import Response
from sqlalchemy import func, or_, select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from pvefleet import dialects
from pvefleet.access.guard import current_user, may
from pvefleet.access.limits import limiter, log_limit, report_limit
from pvefleet.access.permissions import ANY_USER, OPEN
from pvefleet.db.models import Task, TaskError, TaskLog, TaskMetric
from pvefleet.errors import ApiError, Kind
from pvefleet.families import Family
from pvefleet.families.tasks import permission_to_cancel, presenter
from pvefleet.idempotency import current_key
from pvefleet.schemas.common import Paging, rfc3339
from pvefleet.schemas.reports import (
    AllMetricsAnswer,
    ErrorBody,
    LogBody,
    MetricsAnswer,
    MetricsBody,
    NewReport,
    ProgressAnswer,
    ProgressBody,
    ReportAnswer,
    ReportErrorAnswer,
    ReportErrorsAnswer,
    ReportList,
    ReportLogAnswer,
    ReportLogsAnswer,
    ReportPath,
    ReportsAnswer,
    StatusAnswer,
    StatusBody,
    TasksHealthAnswer,
    TaskTokenAnswer,
)
from pvefleet.services import services
from pvefleet.tasks import reports, store
from pvefleet.version import VERSION

family = Family("reports", "/api/v1/tasks", dialect=dialects.TASKS)
health = Family("tasks_health", "/api/v1/health", dialect=dialects.TASKS, tag="health")
PERMISSION = "report_tasks"
TOKEN_ENDPOINT = "reports.give_token"  # noqa: S105 - the name of a route


@family.post("", permission=PERMISSION, responses={201: ReportAnswer})
@report_limit
def create_report(body: NewReport) -> Response:
    """A task that an agent will run; the service itself runs nothing of it."""
    given = body.model_dump()
    try:
        with services().db.write() as session:
            task = reports.create(
                session,
                **given,
                user_id=current_user().id,
                silence_seconds=services().settings.report_silence,
                idempotency_key=current_key(),
            )
    except store.KeyReused:
        raise ApiError(Kind.IDEMPOTENCY_MISMATCH, "idempotency_mismatch") from None
    return family.answer(_show(task), 201, {"Location": f"{family.prefix}/{task.id}"})


@family.get("", permission=ANY_USER, responses={200: ReportsAnswer})
@report_limit
def list_reports(query: ReportList) -> Response:
    """The newest first: one's own, with report_tasks all that are reported, with view_all those of the service too."""
    wanted: list[Any] = []
    if not may("view_all"):
        own = Task.user_id == current_user().id
        wanted.append(or_(own, Task.operation == store.REPORT) if may(PERMISSION) else own)
    if query.status is not None:
        wanted.append(Task.status == reports.STATUSES[query.status])
    if query.kind is not None:
        wanted.append(func.coalesce(Task.kind, Task.operation) == query.kind)
    if query.priority is not None:
        wanted.append(func.coalesce(Task.priority, "MEDIUM") == query.priority)
    newest_first = select(Task).where(*wanted).order_by(Task.created_at.desc(), Task.id.desc())
    with services().db.read() as session:
        total = session.execute(select(func.count()).select_from(Task).where(*wanted)).scalar_one()
        rows = session.scalars(newest_first.offset(query.offset).limit(query.per_page)).all()
    return family.answer({"tasks": [_show(task) for task in rows], **_page(query, total)})


@family.get("/<task_id>", permission=ANY_USER, responses={200: ReportAnswer})
@report_limit
def show_report(path: ReportPath) -> Response:
    return family.answer(_show(_visible(path.task_id)))


@family.patch("/<task_id>/status", permission=PERMISSION, responses={200: StatusAnswer})
@report_limit
def report_status(path: ReportPath, body: StatusBody) -> Response:
    """QUEUED to PROCESSING to COMPLETED or FAILED; CANCELLED from either of the first two."""
    task = _change(
        path.task_id,
        lambda session: reports.change_status(
            session,
            path.task_id,
            reports.STATUSES[body.status],
            message=body.message,
            percent=body.progress,
            started=body.startedAt,
            ended=body.completedAt,
        ),
    )
    return family.answer(_part(task, "id", "status", "message", "progress", "updatedAt"))


@family.patch("/<task_id>/progress", permission=PERMISSION, responses={200: ProgressAnswer})
@report_limit
def report_progress(path: ReportPath, body: ProgressBody) -> Response:
    """Of a task that is PROCESSING. The percentage never falls: a lower one is answered with the one that stands."""
    task = _change(
        path.task_id, lambda session: reports.change_progress(session, path.task_id, body.progress, body.message)
    )
    return family.answer(_part(task, "id", "progress", "message", "updatedAt"))


@family.post("/<task_id>/logs", permission=PERMISSION, responses={201: ReportLogAnswer})
@report_limit
@log_limit
def report_logs(path: ReportPath, body: LogBody) -> Response:
    """A line, or several at once. Also of a task that has ended: the last lines often come late."""
    _reported(path.task_id)
    with services().db.write() as session:
        reports.heard(session, path.task_id)
        lines = [
            reports.add_log(
                session, path.task_id, line.level, line.message, moment=line.timestamp, context=line.metadata
            )
            for line in body.lines()
        ]
    return family.answer(_accepted(path, [reports.log_view(line) for line in lines], one=body.logs is None), 201)


@family.get("/<task_id>/logs", permission=ANY_USER, responses={200: ReportLogsAnswer})
@report_limit
def list_report_logs(path: ReportPath, query: Paging) -> Response:
    """In the order in which they came."""
    rows, total = _rows(TaskLog, path, query)
    return family.answer({"logs": [reports.whole_log_view(line) for line in rows], **_page(query, total)})


@family.post("/<task_id>/metrics", permission=PERMISSION, responses={201: MetricsAnswer})
@report_limit
def report_metrics(path: ReportPath, body: MetricsBody) -> Response:
    _reported(path.task_id)
    values = body.model_dump(exclude={"timestamp"}, exclude_none=True)
    with services().db.write() as session:
        reports.heard(session, path.task_id)
        metric = reports.add_metric(session, path.task_id, values, body.timestamp)
    return family.answer(reports.metric_view(metric), 201)


@family.get("/<task_id>/metrics", permission=ANY_USER, responses={200: AllMetricsAnswer})
@report_limit
def list_report_metrics(path: ReportPath, query: Paging) -> Response:
    rows, total = _rows(TaskMetric, path, query)
    return family.answer({"metrics": [reports.metric_view(metric) for metric in rows], **_page(query, total)})


@family.post("/<task_id>/errors", permission=PERMISSION, responses={201: ReportErrorAnswer})
@report_limit
def report_errors(path: ReportPath, body: ErrorBody) -> Response:
    """An error, or several at once."""
    _reported(path.task_id)
    with services().db.write() as session:
        reports.heard(session, path.task_id)
        errors = [
            reports.add_error(
                session,
                path.task_id,
                code=line.errorCode,
                message=line.message,
                details=line.details,
                stack_trace=line.stackTrace,
                moment=line.timestamp,
            )
            for line in body.lines()
        ]
    return family.answer(_accepted(path, [reports.error_view(row) for row in errors], one=body.errors is None), 201)


@family.get("/<task_id>/errors", permission=ANY_USER, responses={200: ReportErrorsAnswer})
@report_limit
def list_report_errors(path: ReportPath, query: Paging) -> Response:
    rows, total = _rows(TaskError, path, query)
    return family.answer({"errors": [reports.whole_error_view(error) for error in rows], **_page(query, total)})


@family.post("/<task_id>/cancel", permission=ANY_USER, responses={200: ReportAnswer, 202: ReportAnswer})
@report_limit
def cancel_report(path: ReportPath) -> Response:
    """200: it is cancelled, and its agent hears of it with its next report. 202: the service still has to stop it."""
    task = _visible(path.task_id)
    permission = permission_to_cancel(task)
    if task.user_id != current_user().id and not may(permission):
        raise ApiError(Kind.PERMISSION_DENIED, "task_not_yours", permission=permission)
    try:
        with services().db.write() as session:
            task = store.request_cancel(session, task.id)
    except store.InvalidTransition as error:
        raise _over(reports.WORDS[error.status]) from None
    done = task.status == store.CANCELLED
    return family.answer(_show(task), 200 if done else 202, message_id="task_cancelled" if done else "task_cancelling")


@family.post("/<task_id>/token", permission=PERMISSION, responses={200: TaskTokenAnswer})
@report_limit
def give_token(path: ReportPath) -> Response:
    """A bearer token for a run that shall report on this task and do nothing else. It ends with its maker's login."""
    task, user, tokens = _reported(path.task_id), current_user(), services().tokens
    given = {"token": tokens.issue(user.login_id, task.id), "expiresIn": int(tokens.task_lifetime.total_seconds())}
    return family.answer(given)


@health.get("", permission=OPEN, responses={200: TasksHealthAnswer})
def show_tasks_health() -> Response:
    """503 when a part that it needs is down: `details` says which. `cache` is where calls are counted."""
    try:
        with services().db.read() as session:
            session.execute(text("SELECT 1"))
        database = "UP"
    except OperationalError:
        database = "DOWN"
    components = {"database": database, "cache": "UP" if limiter.storage.check() else "DOWN"}
    if down := [name for name, state in components.items() if state == "DOWN"]:
        raise ApiError(Kind.SERVICE_UNAVAILABLE, "component_down", details=components, down=", ".join(down))
    moment = rfc3339(datetime.now(UTC))
    return health.answer({"status": "UP", "timestamp": moment, "version": VERSION, "components": components})


def _visible(task_id: str) -> Task:
    """The task; one that the user may not see does not exist for them."""
    with services().db.read() as session:
        task = session.get(Task, task_id)
    if task is not None:
        reported = task.operation == store.REPORT and may(PERMISSION)
        if reported or task.user_id == current_user().id or may("view_all"):
            return task
    raise ApiError(Kind.TASK_NOT_FOUND, "reported_task_not_found", details={"id": task_id}, task_id=task_id)


def _reported(task_id: str) -> Task:
    """The task, if it is one to report on."""
    task = _visible(task_id)
    if task.operation != store.REPORT:
        raise ApiError(Kind.PERMISSION_DENIED, "task_not_reported")
    return task


def _change(task_id: str, change: Callable[[Session], Task]) -> Task:
    _reported(task_id)
    try:
        with services().db.write() as session:
            return change(session)
    except reports.AlreadyOver as error:
        raise _over(error.status) from None
    except reports.NoSuchTransition as error:
        raise ApiError(
            Kind.INVALID_STATUS_TRANSITION, "invalid_status_transition", status=error.status, wanted=error.wanted
        ) from None
    except reports.NotBegun:
        raise ApiError(Kind.INVALID_STATUS_TRANSITION, "task_not_begun") from None


def _over(status: str) -> ApiError:
    return ApiError(Kind.TASK_ALREADY_COMPLETED, "task_already_completed", details={"status": status}, status=status)


def _rows(
    table: type[TaskLog] | type[TaskMetric] | type[TaskError], path: ReportPath, query: Paging
) -> tuple[Sequence[Any], int]:
    """A part of what was reported on a task, and how much there is."""
    task = _visible(path.task_id)
    if not (may("view_logs") or (task.operation == store.REPORT and may(PERMISSION))):
        raise ApiError(Kind.PERMISSION_DENIED, "permission_denied", permission="view_logs")
    mine = table.task_id == path.task_id
    with services().db.read() as session:
        total = session.execute(select(func.count()).select_from(table).where(mine)).scalar_one()
        rows = session.scalars(
            select(table).where(mine).order_by(table.id).offset(query.offset).limit(query.per_page)
        ).all()
    return rows, total


def _show(task: Task) -> dict[str, Any]:
    """With the message that the other view has."""
    return {**reports.view(task), "message": presenter()(store.view(task))["message"]}


def _part(task: Task, *names: str) -> dict[str, Any]:
    shown = _show(task)
    return {name: shown[name] for name in names}


def _accepted(path: ReportPath, shown: list[dict[str, Any]], *, one: bool) -> dict[str, Any]:
    return shown[0] if one else {"taskId": path.task_id, "accepted": len(shown)}


def _page(query: Paging, total: int) -> dict[str, int]:
    return {"page": query.page, "per_page": query.per_page, "total": total}
