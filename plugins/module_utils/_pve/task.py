# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A worker of Proxmox VE, known by its UPID alone: how it is, how it ended, its log, its end if that is wanted."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ansible_collections.pvefleet.infra.plugins.module_utils import _report
from ansible_collections.pvefleet.infra.plugins.module_utils._plan import Change, Plan
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import (
    PveBadRequest,
    PveClient,
    PveNotFound,
    PveTaskFailed,
    TaskProgress,
    segment,
)
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.cluster import listing, record, strange
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.errors import Unable, unable
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.upid import LOG_LINES, Upid, warnings_of


@dataclass(frozen=True)
class TaskSpec:
    """upid: which worker. timeout: seconds to wait for its end. log_lines: how many of the last lines to return."""

    upid: str
    wait: bool = True
    stop: bool = False
    timeout: float = 600
    log_lines: int = 20


@dataclass(frozen=True)
class Result:
    """plan: whether the task is or would be stopped. task: see describe()."""

    plan: Plan
    task: dict[str, Any]


def task_info(client: PveClient, spec: TaskSpec, *, check_mode: bool = False) -> Result:
    """Looks at the task, stops it if asked, waits for its end if asked. A task that failed is a result, not an error.

    Raises Unable: no UPID, no such task, still running at the deadline.
    """
    try:
        task = Upid.parse(spec.upid)
    except ValueError as error:
        raise Unable(f"Unable to look at a task: {error}") from None
    if spec.log_lines < 0 or spec.timeout < 0:
        raise Unable(f"Unable to look at task {task}: log_lines and timeout cannot be negative")
    status = _status(client, task)
    stopping = spec.stop and status["status"] == "running"
    plan = Plan(f"task {task}", (Change("status", "running", "stopped"),) if stopping else ())
    waits = spec.wait and status["status"] == "running"
    if stopping and check_mode:
        waits = False
    elif stopping:
        with unable(f"stop task {task}"):
            client.delete(task.path, landed=lambda: True if _status(client, task)["status"] == "stopped" else None)
    if waits:
        _wait(client, task, spec.timeout)
    if stopping or waits:
        status = _status(client, task)
    return Result(plan, describe(client, task, status, spec.log_lines))


def describe(client: PveClient, task: Upid, status: Mapping[str, Any], log_lines: int) -> dict[str, Any]:
    """The task in plain values, with the end of its log."""
    running = status["status"] == "running"
    exitstatus = None if running else str(status.get("exitstatus", ""))
    warnings = 0 if exitstatus is None else warnings_of(exitstatus)
    state = "running" if running else "error" if warnings is None else "warnings" if warnings else "ok"
    with unable(f"read the end of task {task}"):
        ended = None if running else _ended(client, task)
        log = _log(client, task, log_lines) if log_lines else []
    return {
        "upid": task.text,
        "node": task.node,
        "type": task.type,
        "id": task.id,
        "user": task.user,
        "status": state,
        "exitstatus": exitstatus,
        "warnings": warnings or 0,
        "starttime": _rfc3339(task.starttime),
        "endtime": None if ended is None else _rfc3339(ended),
        "log": log,
    }


def _status(client: PveClient, task: Upid) -> dict[str, Any]:
    with unable(f"look at task {task}"):
        try:
            status = record(client, f"{task.path}/status")
            if "status" not in status:
                raise strange(client, f"{task.path}/status")
        except PveNotFound as error:
            raise Unable(f"Unable to look at task {task}: node {task.node} has no such task") from error
        except PveBadRequest as error:
            if "no such task" not in error.errors.get("upid", ""):
                raise
            raise Unable(f"Unable to look at task {task}: node {task.node} has no such task") from error
    return status


def _wait(client: PveClient, task: Upid, seconds: float) -> None:
    def tell(progress: TaskProgress) -> None:
        _report.report(progress.percent, f"{task.type}: {progress.message}")

    try:
        with unable(f"wait for task {task}"):
            client.wait(task.text, timeout=seconds, on_progress=tell if _report.listening() else None)
    except Unable as error:
        # how it ended is what its status says
        if not isinstance(error.__cause__, PveTaskFailed):
            raise


def _ended(client: PveClient, task: Upid) -> int | None:
    """When it ended, in Unix seconds: only the node's list of tasks tells. None when that does not have it any more."""
    about = {"source": "all", "since": task.starttime, "until": task.starttime, "typefilter": task.type, "limit": 1000}
    for row in listing(client, f"/nodes/{segment(task.node)}/tasks", about):
        if row.get("upid") == task.text and row.get("endtime") is not None:
            return int(row["endtime"])
    return None


def _log(client: PveClient, task: Upid, lines: int) -> list[str]:
    """The last lines of the log."""
    last: deque[str] = deque(maxlen=lines)
    start = 0
    while True:
        rows = listing(client, f"{task.path}/log", {"start": start, "limit": LOG_LINES})
        # PVE answers a log without lines with the one line "no content"
        last.extend(str(row.get("t", "")) for row in rows if row.get("t") != "no content")
        start += len(rows)
        if len(rows) < LOG_LINES:
            return list(last)


def _rfc3339(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
