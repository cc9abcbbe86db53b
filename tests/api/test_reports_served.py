# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reported tasks on a service that was really started: its streams, its limits, and its death."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import requests
from pvefleet.db import Database
from pvefleet.db.models import Task
from pvefleet.tasks import store

from tests.api.fleet import parse, until
from tests.api.served import Served
from tests.api.test_recovery import kill, service_processes

TASKS = "/api/v1/tasks"


def call(served: Served, session: requests.Session, method: str, path: str, body: Any = None) -> Any:
    answer = session.request(method, served.at(f"{TASKS}{path}"), json=body, timeout=30)
    assert answer.ok, answer.text
    return answer.json()["data"]


def made(served: Served, session: requests.Session, **status: Any) -> str:
    task_id = str(call(served, session, "POST", "", {"title": "nightly"})["id"])
    if status:
        call(served, session, "PATCH", f"/{task_id}/status", status)
    return task_id


def test_a_stream_follows_what_is_reported(served: Served) -> None:
    session = served.login()
    task_id = made(served, session, status="PROCESSING", message="begins")
    with session.get(served.at(f"/api/tasks/{task_id}/stream"), stream=True, timeout=30) as answer:
        story = parse(answer.iter_lines(chunk_size=1, decode_unicode=True))
        assert [next(story)["data"]["status"] for _event in range(2)] == ["pending", "running"]
        call(served, session, "PATCH", f"/{task_id}/progress", {"progress": 30})
        assert next(story)["data"]["progress"] == 30
        call(served, session, "POST", f"/{task_id}/logs", {"level": "WARN", "message": "a line"})
        line = next(story)
        assert (line["event"], line["data"]["level"], line["data"]["message"]) == ("log", "warn", "a line")
        call(served, session, "PATCH", f"/{task_id}/status", {"status": "COMPLETED", "message": "done"})
        assert [event["data"]["message"] for event in story] == ["done"], "and it ends"


def test_the_documented_limit(tmp_path: Path) -> None:
    with Served(tmp_path / "home") as served:
        session = served.login()
        answers = [session.get(served.at(TASKS), timeout=30) for _time in range(101)]
        assert [answer.status_code for answer in answers] == [200] * 100 + [429]
        assert answers[-1].json()["error"]["code"] == "RATE_LIMIT_EXCEEDED"
        assert 0 < int(answers[-1].headers["Retry-After"]) <= 60
        assert session.get(served.at("/api/tasks"), timeout=30).status_code == 200


def test_an_engine_that_comes_back_neither_runs_nor_fails_them(tmp_path: Path) -> None:
    served = Served(tmp_path / "home")
    with served:
        session = served.login()
        queued, processing = made(served, session), made(served, session, status="PROCESSING", progress=40)
        kill(service_processes(served))
    with served:
        # A task of the engine's own, younger than the others, which it cannot run: when it is through with that, it
        # has seen the others.
        db = Database(f"sqlite:///{served.home / 'pvefleet.db'}")
        with db.write() as writing:
            own = store.create(
                writing,
                operation="create_server",
                title="create server",
                cluster_id="gone",
                target="x",
                parameters={},
                sealed=None,
                locks=[],
                user_id=None,
                deadline_seconds=60,
            ).id

        def over() -> bool:
            with db.read() as reading:
                return reading.get_one(Task, own).status == store.FAILED

        until(over)
        db.dispose()
        session = served.login()
        tasks = {task["id"]: task for task in call(served, session, "GET", "?kind=task")["tasks"]}
        assert (tasks[queued]["status"], tasks[queued]["startedAt"]) == ("QUEUED", None)
        assert (tasks[processing]["status"], tasks[processing]["progress"]) == ("PROCESSING", 40)
        assert call(served, session, "GET", f"/{processing}/logs")["total"] == 0
        call(served, session, "PATCH", f"/{processing}/status", {"status": "COMPLETED"})
