# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Workers of Proxmox VE: the UPID that names one, and the wait for its end."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import quote

from ansible_collections.pvefleet.infra.plugins.module_utils._pve.errors import (
    Outcome,
    PveError,
    PveNotFound,
    PveTaskFailed,
    PveTaskTimeout,
)

_UPID = re.compile(
    r"UPID:(?P<node>[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)"
    r":(?P<pid>[0-9A-Fa-f]{8}):(?P<pstart>[0-9A-Fa-f]{8,16}):(?P<starttime>[0-9A-Fa-f]{8})"
    r":(?P<type>[^:\s/]+):(?P<id>[^:\s/]*):(?P<user>[^:\s/]+):"
)

# Seconds until the first look, by worker type: a little more than a small guest takes on a real node. A look too early
# is an API call for nothing and waits half as long again, one too late is waiting for nothing.
FIRST_POLL = {
    "qmclone": 0.4,
    "qmconfig": 0.1,
    "qmcreate": 0.2,
    "qmdestroy": 0.2,
    "qmreboot": 1.0,
    "qmshutdown": 1.0,
    "qmstart": 1.1,
    "qmstop": 0.7,
    "qmtemplate": 0.2,
    "resize": 0.1,
    "vzdump": 1.0,
}
DEFAULT_FIRST_POLL = 0.2
LONGEST_POLL = 2.0
# A status may not exist yet when the UPID is handed out.
VANISHED_AFTER = 5.0
# More lines than the log of any failing task seen; PVE gives 50 unless told.
LOG_LINES = 50_000
TAIL_LINES = 15
TAIL_WIDTH = 200

# "transferred 512.0 MiB of 10.0 GiB (5.00%)", "INFO:  13% (400.0 MiB of 3.0 GiB) in 3s", "progress 1% (read ..."
# Of qemu-img, vzdump and restore, and wget.
_PERCENT = re.compile(r"\((\d{1,3})(?:\.\d+)?%\)|^(?:INFO:\s+|progress )(\d{1,3})%|^\s*\d+K[ .]+\s(\d{1,3})%")


class Api(Protocol):
    """The part of the client that waiting needs."""

    def get(self, path: str, params: Any = None, *, retry_seconds: float | None = None) -> Any: ...


@dataclass(frozen=True)
class Upid:
    """A worker's name. node: where it runs, which may not be where it was asked for. starttime: Unix seconds."""

    text: str
    node: str
    type: str
    id: str
    user: str
    starttime: int

    @classmethod
    def parse(cls, text: str) -> Upid:
        """ValueError when text is no UPID."""
        found = _UPID.fullmatch(text)
        if found is None:
            raise ValueError(f"{text!r} is not a UPID")
        return cls(text, found["node"], found["type"], found["id"], found["user"], int(found["starttime"], 16))

    @staticmethod
    def fits(answer: object) -> bool:
        """True when an API answer is a UPID. PVE answers null, or "OK", when it started no worker."""
        return isinstance(answer, str) and _UPID.fullmatch(answer) is not None

    @property
    def path(self) -> str:
        """The task's place in the API."""
        return f"/nodes/{self.node}/tasks/{quote(self.text, safe=':@!')}"

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class TaskProgress:
    """percent: 0 to 100 of the present step as PVE logs it, None when the line has none. message: the log line."""

    percent: int | None
    message: str


@dataclass(frozen=True)
class TaskResult:
    """A worker that ended well. warnings: how many it counted; log_tail is read only when there are some."""

    upid: Upid
    exitstatus: str
    warnings: int = 0
    log_tail: list[str] = field(default_factory=list)


def warnings_of(exitstatus: str) -> int | None:
    """How many warnings a worker ended with: 0 for OK, n for `WARNINGS: n`, None when it failed."""
    if exitstatus == "OK":
        return 0
    found = re.fullmatch(r"WARNINGS: (\d+)", exitstatus)
    return int(found[1]) if found else None


def percent_of(line: str) -> int | None:
    """The percentage in a line of a clone's, backup's, restore's or download's log."""
    found = _PERCENT.search(line)
    return min(int(found[1] or found[2] or found[3]), 100) if found else None


def log_tail(lines: Iterable[str], exitstatus: str | None = None) -> list[str]:
    """The last lines that say something: no progress, no blanks, no `TASK ERROR` that repeats the exit status."""
    repetition = f"TASK ERROR: {exitstatus}".strip()
    telling = (
        line.strip()[:TAIL_WIDTH]
        for line in lines
        if line.strip() not in ("", repetition) and percent_of(line) is None
    )
    return list(telling)[-TAIL_LINES:]


def wait_for(
    client: Api,
    upid: str,
    *,
    timeout: float,
    on_progress: Callable[[TaskProgress], None] | None = None,
) -> TaskResult:
    """Waits, at most timeout seconds, until the worker upid has ended well.

    on_progress is told each percentage, or else the last line, when the log has grown; the log is read for it alone.
    ValueError for no UPID, PveTaskFailed when it failed or vanished, PveTaskTimeout; refusals such as 403 pass through.
    """
    task = Upid.parse(upid)
    begin = time.monotonic()
    deadline = begin + timeout
    pause = FIRST_POLL.get(task.type, DEFAULT_FIRST_POLL)
    log = _Log(client, task, on_progress) if on_progress else None
    known = False
    trouble = ""
    while True:
        time.sleep(max(min(pause, deadline - time.monotonic()), 0))
        pause = min(pause * 1.5, LONGEST_POLL)
        try:
            status = client.get(f"{task.path}/status", retry_seconds=0)
        except PveNotFound as error:
            if known or time.monotonic() - begin > VANISHED_AFTER:
                raise PveTaskFailed(
                    f"Task {task.type} on node {task.node} vanished, nobody knows how it ended: {upid}",
                    upid=upid,
                    exitstatus=None,
                    log_tail=[],
                ) from error
        except PveError as error:
            # the worker goes on while its node does not answer
            if error.outcome is Outcome.REFUSED:
                raise
            trouble = f" (last trouble: {error.reason})"
        else:
            known, trouble = True, ""
            if not isinstance(status, dict):
                status, trouble = {}, " (last trouble: an answer that is not Proxmox VE's)"
            if status.get("status") == "stopped":
                return _ended(client, task, str(status.get("exitstatus", "")))
            if log:
                log.tell()
        if time.monotonic() >= deadline:
            raise PveTaskTimeout(
                f"Task {task.type} on node {task.node} was still running at its deadline and goes on: {upid}{trouble}",
                upid=upid,
            )


class _Log:
    """Reads on in a running task's log and tells what is new."""

    def __init__(self, client: Api, task: Upid, on_progress: Callable[[TaskProgress], None]) -> None:
        self._client = client
        self._task = task
        self._on_progress = on_progress
        self._read = 0
        self._told: TaskProgress | None = None

    def tell(self) -> None:
        lines = _read_log(self._client, self._task, self._read)
        self._read += len(lines)
        news = [TaskProgress(percent_of(line), line.strip()) for line in lines if line.strip()]
        if not news:
            return
        latest = next((item for item in reversed(news) if item.percent is not None), news[-1])
        if latest != self._told:
            self._told = latest
            self._on_progress(latest)


def _ended(client: Api, task: Upid, exitstatus: str) -> TaskResult:
    warnings = warnings_of(exitstatus)
    if warnings == 0:
        return TaskResult(task, exitstatus)
    tail = log_tail(_read_log(client, task, 0), exitstatus)
    if warnings is not None:
        return TaskResult(task, exitstatus, warnings, tail)
    cause = exitstatus
    if exitstatus in ("", "unexpected status"):
        cause = f"{exitstatus or 'no exit status'}: the worker was killed, or its end was not recorded"
    context = f"; its log ends: {' | '.join(tail)}" if tail else ""
    raise PveTaskFailed(
        f"Task {task.type} on node {task.node} failed: {cause}{context}",
        upid=task.text,
        exitstatus=exitstatus,
        log_tail=tail,
    )


def _read_log(client: Api, task: Upid, start: int) -> list[str]:
    """The log's lines from start on; none when it cannot be read now: a log is never worth the task's result."""
    try:
        rows = client.get(f"{task.path}/log", {"start": start, "limit": LOG_LINES}, retry_seconds=0)
    except PveError:
        return []
    if not isinstance(rows, list):
        return []
    # PVE answers a log without lines with the one line "no content"
    return [str(row.get("t", "")) for row in rows if isinstance(row, dict) and row.get("t") != "no content"]
