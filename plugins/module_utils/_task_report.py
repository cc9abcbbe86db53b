# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reports a run to the service as a task, from one background thread that never holds the run up.

Only the standard library: http.client has a timeout for each step, follows no redirect with the token, and knows no
.netrc that would replace it.
"""

from __future__ import annotations

import http.client
import json
import re
import secrets
import ssl
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

CONNECT_SECONDS = 2.0
READ_SECONDS = 5.0
# 100 requests a minute are allowed: some are left for others under the same name.
INTERVAL_SECONDS = 3.0
# How long the end of a run waits for what is left to be sent; where nothing has ever been answered, and at the end
# how much of it is kept for the task's last status.
FLUSH_SECONDS = 4.0
FLUSH_SECONDS_DEAD = 2.0
RESERVED_SECONDS = 1.0
RETRY_SECONDS = 0.5
# The circuit is open after so many failures in a row: one try each BREAK_SECONDS, and none to repeat it at the end.
MOST_FAILURES = 3
BREAK_SECONDS = 30.0
# Progress that stays the same is said again: the service takes a run that says nothing for long for dead.
HEARTBEAT_SECONDS = 600.0
LONGEST_PAUSE = 120.0
# What waits to be sent; the room for lines of failures begins where that for others ends.
MOST_LINES = 5000
MOST_URGENT_LINES = 1000
# From so many lines on those of the hosts for which a task went alike become one.
MOST_UNFOLDED = 400
URGENT = frozenset({"WARN", "ERROR"})
FOLDED = frozenset({"ok", "skipped"})
MOST_ERRORS = 500
# What the service takes in one request.
LINES_A_REQUEST = 200
ERRORS_A_REQUEST = 50
BYTES_A_REQUEST = 400_000
LARGEST_ANSWER = 1_000_000
LONGEST_TEXT = 2000
HIDDEN = "********"
SHORTEST_SECRET = 4
TASK_ID = re.compile("[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")


class ReportError(ValueError):
    """The settings cannot be used; str() says why in one sentence."""


class Unreachable(Exception):
    """No answer; str() says why."""


class Refused(Exception):
    """An answer after which there is no sense in going on; str() says why."""


@dataclass(frozen=True)
class Answer:
    status: int
    body: Mapping[str, Any]
    retry_after: float | None = None

    @property
    def good(self) -> bool:
        return 200 <= self.status < 300

    @property
    def code(self) -> str:
        error = self.body.get("error")
        return str(error.get("code", "")) if isinstance(error, dict) else ""

    def __str__(self) -> str:
        return f"it answered {self.status} {self.code}".rstrip()


class Api:
    """The tasks family of the service at a URL."""

    def __init__(self, url: str, token: str, ca_path: str | None = None) -> None:
        """url: with or without the trailing /api/v1. Raises ReportError."""
        try:
            parts = urlsplit(url.strip())
            host, port = parts.hostname, parts.port
        except ValueError:
            raise ReportError("the URL of the API cannot be understood") from None
        if parts.scheme not in ("http", "https") or not host or parts.query or parts.username or parts.password:
            raise ReportError("the URL of the API must be like https://fleet.example.com:8080")
        self.url = f"{parts.scheme}://{parts.netloc}"
        self._address = (host, port or (443 if parts.scheme == "https" else 80))
        self._host = parts.netloc
        path = parts.path.rstrip("/")
        self._path = path if path.endswith("/api/v1") else f"{path}/api/v1"
        self._headers = {
            "Content-Type": "application/json",
            "Accept-Language": "en",
            "User-Agent": "pvefleet-task-report",
            "Connection": "close",
        }
        self.use(token)
        self._tls: ssl.SSLContext | None = None
        if parts.scheme == "https":
            try:
                self._tls = ssl.create_default_context(cafile=ca_path or None)
            except OSError as error:
                raise ReportError(f"the CA file {ca_path} cannot be used: {error.strerror}") from None
        # Loaded now: the thread must not be importing while Ansible forks.
        "x".encode("idna")

    def use(self, token: str) -> None:
        """Raises ReportError when it can be no token."""
        token = token.strip()
        if not token or not token.isascii() or not token.isprintable():
            raise ReportError("the token of the API is none")
        self._headers["Authorization"] = f"Bearer {token}"

    def call(self, method: str, path: str, body: Mapping[str, Any], key: str) -> Answer:
        """key: the same for a repetition of the same request, which is carried out once then. Raises Unreachable."""
        host, port = self._address
        connection = http.client.HTTPConnection(host, port, timeout=CONNECT_SECONDS)
        try:
            connection.connect()
            if self._tls is not None:
                connection.sock = self._tls.wrap_socket(connection.sock, server_hostname=host)
            connection.sock.settimeout(READ_SECONDS)
            headers = {**self._headers, "Host": self._host, "Idempotency-Key": key}
            connection.request(method, self._path + path, json.dumps(body).encode(), headers)
            response = connection.getresponse()
            text = response.read(LARGEST_ANSWER)
            return Answer(response.status, _object(text), _seconds(response.getheader("Retry-After")))
        except TimeoutError:
            raise Unreachable("it does not answer in time") from None
        except ssl.SSLCertVerificationError as error:
            raise Unreachable(f"its certificate is not trusted: {error.verify_message}") from None
        except OSError as error:
            raise Unreachable((error.strerror or str(error) or type(error).__name__).lower()) from None
        except http.client.HTTPException as error:
            raise Unreachable(f"it does not speak HTTP: {type(error).__name__}") from None
        finally:
            connection.close()


@dataclass
class Outbox:
    """What waits to be sent under one path. A batch keeps its key until it is known to have arrived."""

    path: str
    name: str
    batch_size: int
    room: int
    waiting: deque[dict[str, Any]] = field(default_factory=deque)
    batch: list[dict[str, Any]] = field(default_factory=list)
    key: str = ""
    given: int = 0
    sent: int = 0
    folded: int = 0

    @property
    def lost(self) -> int:
        return self.given - self.folded - self.sent

    def put(self, item: dict[str, Any], more_room: int = 0) -> None:
        """Never waits: what there is no room for is lost, and counted as such."""
        self.given += 1
        if len(self.waiting) < self.room + more_room:
            self.waiting.append(item)

    def shorten(self) -> None:
        """When much waits, failures go first, and what went alike on many hosts becomes one line."""
        if len(self.waiting) <= MOST_UNFOLDED:
            return
        # The run goes on adding at the other end.
        lines = [self.waiting.popleft() for _line in range(len(self.waiting))]
        short = folded(lines)
        self.folded += len(lines) - len(short)
        short.sort(key=lambda line: line["level"] not in URGENT)
        short.reverse()
        self.waiting.extendleft(short)

    def next_batch(self) -> list[dict[str, Any]] | None:
        size = sum(len(json.dumps(item)) for item in self.batch)
        if not self.batch:
            self.key = secrets.token_hex(16)
            while self.waiting and len(self.batch) < self.batch_size and size < BYTES_A_REQUEST:
                self.batch.append(self.waiting.popleft())
                size += len(json.dumps(self.batch[-1]))
        return self.batch or None

    def done(self, *, arrived: bool) -> None:
        self.sent += len(self.batch) if arrived else 0
        self.batch = []


class Caught:
    """Keeps what a thread raised, for whoever waits for it to tell."""

    error: BaseException | None = None

    def __enter__(self) -> Caught:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self.error = error
        return isinstance(error, Exception)


class Reporter:
    """One run as one task. All but `start` and `finish` only put something down, and return at once."""

    def __init__(self, api: Api, new_task: Mapping[str, Any], task_id: str | None, message: str) -> None:
        """new_task: the body that makes the task where no task_id is given. message: of its beginning."""
        self._api = api
        self._new_task = new_task
        self._task_id = task_id
        self._message = message
        self._started_at = timestamp()
        self._has_own_token = False
        self._begun = False
        self._ever_answered = False
        self._lines = Outbox("logs", "logs", LINES_A_REQUEST, MOST_LINES)
        self._errors = Outbox("errors", "errors", ERRORS_A_REQUEST, MOST_ERRORS)
        self._progress: tuple[int, str] = (0, "")
        self._told: tuple[int, str] = (0, "")
        self._told_at = time.monotonic()
        self._metrics: Mapping[str, Any] | None = None
        self._end: tuple[str, str] = ("", "")
        self._ended = False
        self._closing = threading.Event()
        self._deadline = 0.0
        self._failures = 0
        self._pause = 0.0
        self._problem = ""
        self._keys = {name: secrets.token_hex(16) for name in ("task", "token", "begin", "metrics", "end")}
        self._caught = Caught()
        self._thread = threading.Thread(target=self._run, name="task_report", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def log(self, level: str, message: str, metadata: Mapping[str, Any]) -> None:
        line = {"level": level, "message": clean(message), "timestamp": timestamp(), "metadata": dict(metadata)}
        self._lines.put(line, MOST_URGENT_LINES if level in URGENT else 0)

    def error(self, code: str, message: str, details: str) -> None:
        self._errors.put(
            {"errorCode": code, "message": clean(message), "details": clean(details), "timestamp": timestamp()}
        )

    def progress(self, percent: int, message: str) -> None:
        """Only the newest is sent. It never falls."""
        self._progress = (max(percent, self._progress[0]), clean(message))

    def finish(self, status: str, message: str, metrics: Mapping[str, Any]) -> str:
        """Waits a few seconds at most for what is left to be sent. What was not delivered and why, or nothing."""
        self._end, self._metrics = (status, clean(message)), metrics
        dead = self._failures > 0 and not self._ever_answered
        seconds = FLUSH_SECONDS_DEAD if dead else FLUSH_SECONDS
        self._deadline = time.monotonic() + seconds
        self._closing.set()
        self._thread.join(seconds)
        return self._shortfall()

    def _shortfall(self) -> str:
        lost = [
            f"{outbox.lost} of {outbox.given - outbox.folded} {what}"
            for outbox, what in ((self._lines, "log lines"), (self._errors, "errors"))
            if outbox.lost
        ]
        if not self._ended:
            lost.append("the end of the run")
        if not lost:
            return ""
        problem = self._problem or "there was not enough time"
        if self._caught.error is not None:
            problem = f"an error in the callback itself, {self._caught.error!r}"
        return f"Unable to report to {self._api.url}: {problem}. Not delivered: {', '.join(lost)}"

    # ------------------------------------------------------------------ in the thread

    def _run(self) -> None:
        with self._caught:
            try:
                while not self._closing.is_set():
                    self._flush()
                    self._closing.wait(self._pause or INTERVAL_SECONDS)
                self._finish()
            except Refused as error:
                self._problem = str(error)

    def _flush(self) -> None:
        """All that waits, for as long as it works and the run goes on."""
        self._pause = 0.0
        try:
            if not self._begin():
                return
            self._lines.shorten()
            for outbox in (self._errors, self._lines):
                while outbox.next_batch() and not self._closing.is_set():
                    if not self._send_batch(outbox):
                        return
            self._send_progress()
        except Unreachable as error:
            self._failed(str(error), None)

    def _finish(self) -> None:
        again = self._failures < MOST_FAILURES
        try:
            self._send_the_rest()
        except Unreachable as error:
            self._failed(str(error), None)
        while again and not self._ended and time.monotonic() < self._deadline - RETRY_SECONDS:
            time.sleep(RETRY_SECONDS)
            try:
                self._send_the_rest()
            except Unreachable as error:
                self._failed(str(error), None)

    def _send_the_rest(self) -> None:
        if not self._begin():
            return
        self._lines.shorten()
        for outbox in (self._errors, self._lines):
            while time.monotonic() < self._deadline - RESERVED_SECONDS and outbox.next_batch():
                if not self._send_batch(outbox):
                    break
        if self._metrics is not None and self._send("POST", "metrics", self._metrics, self._keys["metrics"]):
            self._metrics = None
        status, message = self._end
        body = {"status": status, "message": message, "completedAt": timestamp()}
        self._ended = self._send("PATCH", "status", body, self._keys["end"])

    def _begin(self) -> bool:
        if self._task_id is None:
            answer = self._call("POST", "/tasks", self._new_task, self._keys["task"])
            data = answer.body.get("data") if answer is not None and answer.good else None
            if not isinstance(data, dict) or not data.get("id"):
                if answer is not None:
                    raise Refused(f"{answer} to a new task")
                return False
            self._task_id = str(data["id"])
        if not TASK_ID.fullmatch(self._task_id):
            raise Refused("the id of the task is none")
        if not self._has_own_token and not self._take_own_token():
            return False
        if not self._begun:
            body = {"status": "PROCESSING", "message": clean(self._message), "startedAt": self._started_at}
            self._begun = self._send("PATCH", "status", body, self._keys["begin"])
        return self._begun

    def _take_own_token(self) -> bool:
        """One for this task alone, which lasts as long as the login: the given one may end before the run does.

        False when it has to wait. Who has such a token already gets no other, and goes on with it; so does who asks a
        service that gives none.
        """
        answer = self._call("POST", self._path("token"), {}, self._keys["token"], without=(403, 404))
        if answer is None:
            return False
        data = answer.body.get("data")
        if answer.good and isinstance(data, dict) and isinstance(data.get("token"), str):
            self._api.use(data["token"])
        self._has_own_token = True
        return True

    def _send_batch(self, outbox: Outbox) -> bool:
        """False when it has to wait."""
        answer = self._call("POST", self._path(outbox.path), {outbox.name: outbox.batch}, outbox.key)
        if answer is None:
            return False
        if not answer.good:
            self._problem = f"{answer} to {outbox.name}"
        outbox.done(arrived=answer.good)
        return True

    def _path(self, part: str) -> str:
        return f"/tasks/{self._task_id}/{part}"

    def _send_progress(self) -> None:
        percent, message = self._progress
        if (percent, message) == self._told and time.monotonic() < self._told_at + HEARTBEAT_SECONDS:
            return
        if self._send("PATCH", "progress", {"progress": percent, "message": message}, secrets.token_hex(16)):
            self._told, self._told_at = (percent, message), time.monotonic()

    def _send(self, method: str, path: str, body: Mapping[str, Any], key: str) -> bool:
        """False when it has to wait, or was not taken."""
        answer = self._call(method, self._path(path), body, key)
        if answer is not None and not answer.good:
            self._problem = f"{answer} to {path}"
        return answer is not None and answer.good

    def _call(
        self, method: str, path: str, body: Mapping[str, Any], key: str, *, without: Sequence[int] = ()
    ) -> Answer | None:
        """None when the service asks to come again later. Raises Unreachable, Refused; not for the statuses of answers
        that the run can do without."""
        answer = self._api.call(method, path, body, key)
        self._ever_answered = True
        if answer.status in (408, 425, 429) or answer.status >= 500 or answer.code == "CONFLICT":
            self._failed(str(answer), answer.retry_after)
            return None
        self._failures = 0
        if answer.status in without:
            return answer
        if answer.status in (401, 403, 404) or 300 <= answer.status < 400:
            raise Refused(str(answer))
        if answer.code == "TASK_ALREADY_COMPLETED":
            raise Refused("the task was ended by somebody else")
        return answer

    def _failed(self, problem: str, retry_after: float | None) -> None:
        self._failures += 1
        self._problem = problem
        wait = BREAK_SECONDS if self._failures >= MOST_FAILURES else 2.0**self._failures
        self._pause = min(wait if retry_after is None else max(retry_after, 1.0), LONGEST_PAUSE)


class Masker:
    """Takes secrets out of texts."""

    def __init__(self, known: Iterable[str]) -> None:
        self._secrets: set[str] = set()
        self._longest_first: list[str] = []
        self.add(known)

    def add(self, known: Iterable[str]) -> None:
        """A text of several lines is masked line by line too: it may be printed in parts."""
        for secret in known:
            parts = {secret, secret.strip(), *secret.splitlines()}
            self._secrets |= {part for part in parts if len(part) >= SHORTEST_SECRET}
        if len(self._secrets) != len(self._longest_first):
            self._longest_first = sorted(self._secrets, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        for secret in self._longest_first:
            text = text.replace(secret, HIDDEN)
        return text


class Counter:
    """How far a run is, by its tasks: what is known ahead of it, and what turns up on the way."""

    def __init__(self, plays: Mapping[str, Iterable[str]]) -> None:
        """plays: the ids of the tasks of each play, by the play's id."""
        self._ahead = {play: set(tasks) for play, tasks in plays.items()}
        self._left: set[str] = set()
        self._total = sum(len(tasks) for tasks in self._ahead.values())
        self.started = 0

    def play(self, play_id: str) -> None:
        """What the former play has left out, by tags or because its hosts failed, will not come any more."""
        self._total -= len(self._left)
        self._left = self._ahead.pop(play_id, set())

    def task(self, task_id: str) -> None:
        """One that was not known, as of an included file, adds to the whole."""
        if task_id in self._left:
            self._left.remove(task_id)
        else:
            self._total += 1
        self.started += 1

    @property
    def percent(self) -> int:
        """Of the tasks that have begun all but the last are done; 100 is for the end alone."""
        return min(99, 100 * max(self.started - 1, 0) // max(self._total, 1))


def folded(lines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """One line for all results of a task that are ok, and one for all that are skipped; the others as they are."""
    kept: list[dict[str, Any]] = []
    firsts: dict[tuple[str, str], dict[str, Any]] = {}
    for line in lines:
        about = line["metadata"]
        if about.get("outcome") not in FOLDED:
            kept.append(line)
            continue
        first = firsts.setdefault((about["task"], about["outcome"]), line)
        if first is line:
            kept.append(line)
            continue
        metadata = first["metadata"]
        count = metadata.get("results", 1) + about.get("results", 1)
        first["metadata"] = {name: metadata[name] for name in ("task", "action", "outcome")} | {"results": count}
        first["message"] = clean(f"{count} results | {about['task']} | {about['outcome']}")
    return kept


def timestamp() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def clean(text: str) -> str:
    """What the service can write down: no NUL, no half of a surrogate pair, and not longer than LONGEST_TEXT."""
    text = text.replace("\0", "").encode("utf-8", "replace").decode()
    return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1] + "…"


def _object(text: bytes) -> Mapping[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _seconds(value: str | None) -> float | None:
    return float(value) if value is not None and value.isascii() and value.isdecimal() and len(value) < 10 else None
