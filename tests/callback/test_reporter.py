# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the callback sends, in which pieces, how often, and what it does when it cannot."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from ansible_collections.pvefleet.infra.plugins.module_utils import _task_report
from ansible_collections.pvefleet.infra.plugins.module_utils._task_report import (
    HIDDEN,
    LINES_A_REQUEST,
    LONGEST_TEXT,
    MOST_LINES,
    Api,
    Counter,
    Masker,
    Outbox,
    Reporter,
    ReportError,
    clean,
)
from hypothesis import given
from hypothesis import strategies as st

from tests.api.fleet import until
from tests.lab import Lab

# An answer: its status and headers; None drops the connection after the request was read.
Reply = tuple[int, dict[str, str]] | None
FINE: Reply = (200, {})


class Service:
    """The far end: keeps what it was asked, answers as it is told."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any, str]] = []
        self.reply: Callable[[str], Reply] = lambda path: FINE
        self.url = ""
        self.task_id = "task-1"

    def bodies(self, path: str) -> list[Any]:
        return [body for asked, body, _key in self.asked if asked.endswith(path)]

    def lines(self) -> list[str]:
        return [line["message"] for body in self.bodies("/logs") for line in body["logs"]]


@pytest.fixture
def service() -> Iterator[Service]:
    told = Service()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            reply = told.reply(self.path)
            told.asked.append((self.path, body, self.headers["Idempotency-Key"]))
            if reply is None:
                return
            self.send_response(reply[0])
            for name, value in reply[1].items():
                self.send_header(name, value)
            answer = json.dumps({"success": True, "data": {"id": told.task_id}}).encode()
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_PATCH = do_POST

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        told.url = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield told
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def reporting(service: Service, task_id: str | None = None) -> Iterator[Reporter]:
    reporter = Reporter(Api(service.url, "token"), {"title": "x"}, task_id, "begins")
    reporter.start()
    yield reporter
    assert not reporter._thread.is_alive()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_task_report, "INTERVAL_SECONDS", 0.05)
    monkeypatch.setattr(_task_report, "RETRY_SECONDS", 0.05)


def test_what_is_sent_in_which_order(service: Service) -> None:
    with reporting(service) as reporter:
        until(lambda: len(service.asked) == 3)
        reporter.log("INFO", "a line", {"host": "web-01"})
        reporter.error("TASK_FAILED", "no", "details")
        assert reporter.finish("FAILED", "over", {"executionTime": 1}) == ""
    paths = [path.removeprefix("/api/v1/tasks") for path, _body, _key in service.asked]
    mine = "/task-1"
    begin, work = ["", f"{mine}/token", f"{mine}/status"], [f"{mine}/errors", f"{mine}/logs"]
    assert paths == [*begin, *work, f"{mine}/metrics", f"{mine}/status"]
    assert [body["status"] for body in service.bodies("/status")] == ["PROCESSING", "FAILED"]
    assert len({key for _path, _body, key in service.asked}) == len(service.asked)


@pytest.mark.usefixtures("quick")
def test_progress_is_sent_when_it_is_new_and_never_falls(service: Service) -> None:
    with reporting(service, "task-7") as reporter:
        for percent, message in ((10, "a"), (5, "b"), (40, "c")):
            reporter.progress(percent, message)
            until(lambda wanted=message: wanted in [body["message"] for body in service.bodies("/progress")])
        count = len(service.asked)
        time.sleep(0.2)
        assert len(service.asked) == count, "nothing was new"
        reporter.finish("COMPLETED", "", {})
    assert [body["progress"] for body in service.bodies("/progress")] == [10, 10, 40]
    assert service.bodies("/tasks") == []


def test_a_burst_of_lines_is_sent_in_few_requests(service: Service) -> None:
    with reporting(service) as reporter:
        for number in range(1000):
            reporter.log("INFO", f"line {number}", {})
        assert reporter.finish("COMPLETED", "", {}) == ""
    assert service.lines() == [f"line {number}" for number in range(1000)]
    assert len(service.bodies("/logs")) <= 1000 // LINES_A_REQUEST + 2


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("reply", [None, (503, {}), (429, {"Retry-After": "1"})])
def test_what_was_not_answered_is_sent_again_under_the_same_key(service: Service, reply: Reply) -> None:
    def once(path: str) -> Reply:
        return reply if path.endswith("/logs") and not service.bodies("/logs") else FINE

    service.reply = once
    with reporting(service) as reporter:
        reporter.log("INFO", "a line", {})
        until(lambda: service.bodies("/logs"))
        assert reporter.finish("COMPLETED", "", {}) == ""
    keys = [key for path, _body, key in service.asked if path.endswith("/logs")]
    assert len(keys) == 2
    assert len(set(keys)) == 1
    assert service.bodies("/status")[-1]["status"] == "COMPLETED"


def test_the_end_is_sent_although_the_lines_are_too_many(service: Service) -> None:
    service.reply = lambda path: (429, {"Retry-After": "60"}) if path.endswith("/logs") else FINE
    with reporting(service) as reporter:
        until(lambda: service.bodies("/status"))
        reporter.log("INFO", "a line", {})
        shortfall = reporter.finish("COMPLETED", "over", {})
    assert service.bodies("/status")[-1]["status"] == "COMPLETED"
    assert shortfall == f"Unable to report to {service.url}: it answered 429. Not delivered: 1 of 1 log lines"


def test_a_batch_that_is_refused_is_counted_and_not_repeated(service: Service) -> None:
    service.reply = lambda path: (400, {}) if path.endswith("/logs") else FINE
    with reporting(service) as reporter:
        reporter.log("INFO", "a line", {})
        shortfall = reporter.finish("COMPLETED", "", {})
    assert len(service.bodies("/logs")) == 1
    assert shortfall.endswith("it answered 400 to logs. Not delivered: 1 of 1 log lines")


def test_the_circuit_opens(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_task_report, "MOST_FAILURES", 1)
    service.reply = lambda path: (500, {})
    with reporting(service) as reporter:
        until(lambda: service.asked)
        time.sleep(0.3)
        began = time.monotonic()
        assert "it answered 500" in reporter.finish("COMPLETED", "", {})
    assert len(service.asked) == 2, "the first, and one at the end"
    assert time.monotonic() - began < 1


def test_retry_after_is_heeded_within_bounds(service: Service) -> None:
    service.reply = lambda path: (429, {"Retry-After": "86400"})
    with reporting(service) as reporter:
        until(lambda: reporter._pause)
        assert reporter._pause == _task_report.LONGEST_PAUSE
        reporter.finish("COMPLETED", "", {})


def test_a_queue_that_is_full_loses_lines_and_says_how_many(service: Service) -> None:
    reporter = Reporter(Api(service.url, "token"), {}, "task-1", "")
    for _line in range(MOST_LINES + 7):
        reporter.log("INFO", "x", {})
    reporter.start()
    assert reporter.finish("COMPLETED", "", {}).endswith(f"7 of {MOST_LINES + 7} log lines")


def test_failures_go_first_and_what_went_alike_is_one_line(service: Service) -> None:
    gate = threading.Event()

    def slow(path: str) -> Reply:
        gate.wait(10)
        return FINE

    service.reply = slow
    with reporting(service) as reporter:
        for host in range(2 * MOST_LINES):
            reporter.log("INFO", f"{host} | a | ok", {"host": host, "task": "a", "action": "x", "outcome": "ok"})
            if not host % 100:
                metadata = {"host": host, "task": "a", "action": "x", "outcome": "changed"}
                reporter.log("INFO", f"{host} | a | changed", metadata)
        reporter.log("ERROR", "last | a | failed", {"host": "last", "task": "a", "action": "x", "outcome": "failed"})
        gate.set()
        reporter.finish("FAILED", "", {})
    lines = service.lines()
    assert lines[0] == "last | a | failed", "there was room for it although the queue was full"
    assert sum(line.endswith("| changed") for line in lines) == len(lines) - 2
    assert next(line for line in lines if line.endswith("| a | ok")).split(" | ")[0].endswith(" results")


def test_the_end_is_tried_until_the_time_is_over(service: Service) -> None:
    service.reply = lambda path: (429, {}) if path.endswith("/status") and len(service.bodies("/status")) < 5 else FINE
    reporter = Reporter(Api(service.url, "token"), {}, "task-1", "")
    reporter._begun = reporter._has_own_token = True
    reporter.start()
    assert reporter.finish("COMPLETED", "", {}) == ""
    assert len(service.bodies("/status")) == 6


@pytest.mark.parametrize("task_id", ["", "../x", "a/b", "\ud800", "x" * 65, ".."])
def test_ids_that_are_none_are_refused(service: Service, task_id: str) -> None:
    service.task_id = task_id
    reporter = Reporter(Api(service.url, "token"), {}, None, "")
    reporter.start()
    shortfall = reporter.finish("COMPLETED", "", {})
    assert "itself" not in shortfall
    assert [path for path, _body, _key in service.asked] in (["/api/v1/tasks"], ["/api/v1/tasks"] * 2)


@pytest.mark.usefixtures("quick")
def test_a_run_that_has_nothing_new_says_that_it_lives(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_task_report, "HEARTBEAT_SECONDS", 0.1)
    with reporting(service) as reporter:
        reporter.progress(10, "a")
        until(lambda: len(service.bodies("/progress")) == 3)
        reporter.finish("COMPLETED", "", {})


def test_an_error_of_our_own_is_said_and_does_no_harm(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("of our own")

    monkeypatch.setattr(Api, "call", broken)
    with reporting(service) as reporter:
        assert "ZeroDivisionError('of our own')" in reporter.finish("COMPLETED", "", {})


def test_certificates_are_verified(lab: Lab) -> None:
    def shortfall(ca_path: str | None) -> str:
        reporter = Reporter(Api(lab.api_endpoint, "token", ca_path), {}, "task-1", "")
        reporter.start()
        return reporter.finish("COMPLETED", "", {})

    assert "its certificate is not trusted" in shortfall(None)
    assert "it answered " in shortfall(str(lab.ca_file))


@pytest.mark.parametrize(
    "url", ["", "fleet", "ftp://x", "https://", "https://x?y=1", "https://me:secret@x", "https://x:port"]
)
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(ReportError) as raised:
        Api(url, "token")
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("token", ["", " ", "a\nb", "tökën"])
def test_tokens_that_are_none(token: str) -> None:
    with pytest.raises(ReportError, match="the token"):
        Api("https://x", token)


@pytest.mark.parametrize("url", ["{}", "{}/", "{}/api/v1", "{}/api/v1/"])
def test_the_url_with_or_without_its_end(service: Service, url: str) -> None:
    answer = Api(url.format(service.url), "token").call("POST", "/tasks", {}, "key")
    assert answer.good
    assert service.asked[0][0] == "/api/v1/tasks"


# ------------------------------------------------------------------ the plain parts


@given(st.lists(st.lists(st.integers(0, 20), max_size=8), max_size=4), st.data())
def test_the_percentage_is_one_whatever_comes(plays: list[list[int]], data: st.DataObject) -> None:
    counter = Counter({str(number): [str(task) for task in tasks] for number, tasks in enumerate(plays)})
    for number in range(len(plays)):
        counter.play(str(number))
        for task in data.draw(st.lists(st.integers(0, 20), max_size=12)):
            counter.task(str(task))
            assert 0 <= counter.percent <= 99


def test_the_percentage_counts_what_is_known_and_what_turns_up() -> None:
    counter = Counter({"first": "ab", "second": "cd"})
    seen = []
    for play, tasks in (("first", "ax"), ("second", "cd")):
        counter.play(play)
        for task in tasks:
            counter.task(task)
            seen.append(counter.percent)
    # b was left out, x had not been known
    assert seen == [0, 20, 50, 75]


# Without asterisks: a mask is made of them.
@given(st.text(), st.text(st.characters(exclude_characters="*"), min_size=4))
def test_secrets_are_masked_wherever_they_are(text: str, secret: str) -> None:
    masked = Masker([secret])(f"{text}{secret}{text}")
    assert secret not in masked


def test_longer_secrets_go_first_and_short_ones_are_no_secrets() -> None:
    masker = Masker(["pass", "password-1", "a", "-----BEGIN-----\nMIIEvQ\n-----END-----"])
    assert masker("password-1 and pass at a MIIEvQ") == f"{HIDDEN} and {HIDDEN} at a {HIDDEN}"


@given(st.text(alphabet=st.characters(codec=None), max_size=3 * LONGEST_TEXT // 1000))
def test_every_text_can_be_written(text: str) -> None:
    cleaned = clean(text * 1000)
    assert len(cleaned) <= LONGEST_TEXT
    assert "\0" not in cleaned
    cleaned.encode()


@given(st.lists(st.text(max_size=50), max_size=60), st.integers(1, 7), st.integers(0, 40))
def test_an_outbox_loses_nothing_that_it_had_room_for(texts: list[str], batch_size: int, room: int) -> None:
    outbox = Outbox("logs", "logs", batch_size, room)
    for text in texts:
        outbox.put({"message": text})
    sent: list[str] = []
    while batch := outbox.next_batch():
        assert outbox.next_batch() is batch, "the same until it has arrived"
        assert len(batch) <= batch_size
        sent += [item["message"] for item in batch]
        outbox.done(arrived=True)
    assert sent == texts[:room]
    assert (outbox.given, outbox.sent) == (len(texts), len(sent))
