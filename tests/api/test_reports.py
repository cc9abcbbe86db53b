# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tasks family: what agents report, as its document has it."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pvefleet.access.users import create_user, set_password
from pvefleet.db import now
from pvefleet.db.models import Task, TaskError, TaskLog, TaskMetric, User
from pvefleet.engine.local import LocalExecutor
from pvefleet.engine.loop import Engine
from pvefleet.messages import LANGUAGES, Catalogue
from pvefleet.observer import Observer
from pvefleet.schemas.common import rfc3339
from pvefleet.schemas.reports import (
    ErrorBody,
    LogBody,
    MetricsBody,
    NewReport,
    ProgressBody,
    ReportList,
    StatusBody,
)
from pvefleet.services import Services
from pvefleet.tasks import events, store
from pydantic import BaseModel, ValidationError
from sqlalchemy import func, select, update
from sqlalchemy.exc import OperationalError
from werkzeug.test import TestResponse

from tests.api.served import PASSWORD

URL = "/api/v1/tasks"
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
FAST = {"report_rate": "100000/minute", "log_rate": "100000/minute"}


@pytest.fixture
def app(make_app: Callable[..., Flask], request: pytest.FixtureRequest) -> Flask:
    return make_app(**getattr(request, "param", FAST))


def nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _level in range(levels - 1):
        value = {"a": value}
    return value


class Agent:
    """A program with a bearer token."""

    def __init__(self, client: FlaskClient, token: str) -> None:
        self.client = client
        self.headers = {"Authorization": f"Bearer {token}", "Accept-Language": "en"}

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> TestResponse:
        more = {} if body is None else {"json": body}
        return self.client.open(f"{URL}{path}", method=method, headers={**self.headers, **headers}, **more)

    def made(self, **more: Any) -> str:
        answer = self.call("POST", "", {"title": "nightly", **more})
        assert answer.status_code == 201, answer.text
        return str(answer.json["data"]["id"])

    def status(self, task_id: str, status: str, **more: Any) -> TestResponse:
        return self.call("PATCH", f"/{task_id}/status", {"status": status, **more})

    def task(self, task_id: str) -> Any:
        return self.call("GET", f"/{task_id}").json["data"]


def token_of(client: FlaskClient, username: str) -> str:
    answer = client.post("/api/v1/auth/login", json={"username": username, "password": PASSWORD})
    return str(answer.json["token"])


@pytest.fixture
def agent(client: FlaskClient, add_user: Callable[..., str]) -> Agent:
    return Agent(client, token_of(client, add_user("agent")))


def of_the_service(services: Services, status: str = store.PENDING) -> str:
    """A task that the engine runs."""
    with services.db.write() as session:
        task = store.create(
            session,
            operation="create_server",
            title="create server web-01",
            cluster_id=None,
            target="web-01",
            parameters={},
            sealed=None,
            locks=[],
            user_id=None,
            deadline_seconds=60,
        )
        if status == store.RUNNING:
            store.start(session, task.id)
        return task.id


# ------------------------------------------------------------------ the document's calls


def test_a_run_as_the_document_tells_it(agent: Agent) -> None:
    created = agent.call("POST", "", {"title": "nightly", "priority": "HIGH", "kind": "backup", "parameters": {"a": 1}})
    assert (created.status_code, list(created.json)) == (201, ["success", "data", "message", "timestamp"])
    task_id = created.json["data"]["id"]
    assert created.headers["Location"] == f"{URL}/{task_id}"
    assert MOMENT.fullmatch(created.json["timestamp"])
    expected = {
        "title": "nightly",
        "description": "",
        "priority": "HIGH",
        "kind": "backup",
        "parameters": {"a": 1},
        "status": "QUEUED",
        "progress": 0,
    }
    assert {name: created.json["data"][name] for name in expected} == expected

    began = agent.status(task_id, "PROCESSING", message="begins", progress=0)
    assert began.status_code == 200
    assert list(began.json["data"]) == ["id", "status", "message", "progress", "updatedAt"]
    assert (began.json["data"]["status"], began.json["data"]["message"]) == ("PROCESSING", "begins")

    half = agent.call("PATCH", f"/{task_id}/progress", {"progress": 50, "message": "x", "estimatedTimeRemaining": 300})
    assert {name: half.json["data"][name] for name in ("id", "progress", "message")} == {
        "id": task_id,
        "progress": 50,
        "message": "x",
    }
    assert list(half.json["data"]) == ["id", "progress", "message", "updatedAt"]

    line = {"level": "INFO", "message": "query", "timestamp": "2024-01-01T10:00:00Z"}
    logged = agent.call("POST", f"/{task_id}/logs", {**line, "metadata": {"source": "keruta-agent"}})
    assert logged.status_code == 201
    assert {**logged.json["data"], "id": "log-1"} == {"id": "log-1", "taskId": task_id, **line}

    used = {"executionTime": 3600, "memoryUsage": 512, "cpuUsage": 25.5, "diskUsage": 1024, "networkUsage": 2048}
    measured = agent.call("POST", f"/{task_id}/metrics", {**used, "timestamp": "2024-01-01T11:00:00Z"})
    assert measured.status_code == 201
    assert measured.json["data"] == {
        "id": "metric-1",
        "taskId": task_id,
        **used,
        "timestamp": "2024-01-01T11:00:00Z",
    }
    assert '"executionTime":3600,' in measured.text  # a Go client reads it into an integer

    seen = {"errorCode": "DB_CONNECTION_ERROR", "message": "no", "timestamp": "2024-01-01T10:30:00Z"}
    more = {"details": "after 30 seconds", "stackTrace": "java.sql..."}
    failed = agent.call("POST", f"/{task_id}/errors", {**seen, **more, "autoFixRequested": True})
    assert failed.status_code == 201
    assert failed.json["data"] == {"id": "error-1", "taskId": task_id, **seen}

    over = agent.status(task_id, "COMPLETED", message="done", progress=100)
    assert (over.json["data"]["progress"], over.json["data"]["message"]) == (100, "done")
    task = agent.task(task_id)
    assert task["startedAt"] is not None
    assert task["completedAt"] is not None

    assert agent.call("GET", f"/{task_id}/logs").json["data"]["logs"][0]["metadata"] == {"source": "keruta-agent"}
    assert agent.call("GET", f"/{task_id}/metrics").json["data"]["metrics"] == [measured.json["data"]]
    assert agent.call("GET", f"/{task_id}/errors").json["data"]["errors"] == [{**failed.json["data"], **more}]


def test_what_the_go_example_of_the_document_sends(agent: Agent) -> None:
    task_id = agent.made()
    zero, mine = "0001-01-01T00:00:00Z", "2026-01-01T10:00:00.123456789+09:00"
    began = agent.status(task_id, "PROCESSING", message="", progress=0, startedAt=mine, completedAt=zero)
    assert began.status_code == 200
    before_year_one = agent.status(task_id, "PROCESSING", completedAt="0001-01-01T00:00:00+09:00")
    assert before_year_one.status_code == 422
    assert "2024-01-01T10:00:00Z" in before_year_one.json["error"]["message"]


def test_the_agents_own_times_of_today_are_taken(agent: Agent) -> None:
    task_id = agent.made()
    began, ended = (rfc3339(now() - timedelta(minutes=minutes)) for minutes in (60, 30))
    agent.status(task_id, "PROCESSING", startedAt=began)
    agent.status(task_id, "COMPLETED", completedAt=ended)
    task = agent.task(task_id)
    assert (task["startedAt"], task["completedAt"]) == (began, ended)


def test_errors_are_the_documents(agent: Agent, client: FlaskClient) -> None:
    unknown = client.patch(
        f"{URL}/invalid-id/status", json={"status": "PROCESSING"}, headers=agent.headers | {"Accept-Language": "ja"}
    )
    assert unknown.status_code == 404
    assert list(unknown.json) == ["success", "error", "timestamp"]
    assert unknown.json["error"] == {
        "code": "TASK_NOT_FOUND",
        "message": "指定されたタスクが見つかりません: invalid-id",
        "details": "id: invalid-id",
    }
    nobody = client.get(URL)
    assert (nobody.status_code, nobody.json["error"]["code"]) == (401, "UNAUTHORIZED")
    wrong = agent.call("POST", "", {"title": ""})
    assert (wrong.status_code, wrong.json["error"]["code"]) == (422, "VALIDATION_ERROR")
    broken = client.post(URL, data=b"{", headers=agent.headers | {"Content-Type": "application/json"})
    assert (broken.status_code, broken.json["error"]["code"]) == (400, "VALIDATION_ERROR")
    assert isinstance(wrong.json["error"]["details"], str)


def test_health(app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = client.get("/api/v1/health")
    assert answer.status_code == 200
    assert answer.json["data"]["status"] == "UP"
    assert answer.json["data"]["components"] == {"database": "UP", "cache": "UP"}

    def broken(*_: object) -> None:
        raise OperationalError("SELECT 1", {}, Exception("gone"))

    monkeypatch.setattr(app.extensions["pvefleet"].db, "read", broken)
    down = client.get("/api/v1/health", headers={"Accept-Language": "en"})
    assert (down.status_code, down.json["error"]["code"]) == (503, "SERVICE_UNAVAILABLE")
    assert down.json["error"]["message"].endswith("database")
    assert down.json["error"]["details"] == "database: DOWN; cache: UP"


# ------------------------------------------------------------------ transitions, progress

WAYS = {
    "QUEUED": {"PROCESSING", "CANCELLED"},
    "PROCESSING": {"COMPLETED", "FAILED", "CANCELLED"},
}


@pytest.mark.parametrize("present", ["QUEUED", "PROCESSING", "COMPLETED", "FAILED", "CANCELLED"])
def test_every_transition(agent: Agent, present: str) -> None:
    for wanted in ("QUEUED", "PROCESSING", "COMPLETED", "FAILED", "CANCELLED"):
        task_id = agent.made()
        if present != "QUEUED":
            agent.status(task_id, "PROCESSING")
            agent.status(task_id, present)
        answer = agent.status(task_id, wanted)
        if wanted == present or wanted in WAYS.get(present, set()):
            assert (answer.status_code, answer.json["data"]["status"]) == (200, wanted)
        elif present in WAYS:
            assert (answer.status_code, answer.json["error"]["code"]) == (422, "INVALID_STATUS_TRANSITION")
        else:
            assert (answer.status_code, answer.json["error"]["code"]) == (409, "TASK_ALREADY_COMPLETED")
        if answer.status_code != 200:
            assert agent.task(task_id)["status"] == present


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.integers(0, 100), max_size=8))
def test_progress_never_falls(agent: Agent, steps: list[int]) -> None:
    task_id = agent.made()
    agent.status(task_id, "PROCESSING")
    reached = 0
    for percent in steps:
        reached = max(reached, percent)
        answer = agent.call("PATCH", f"/{task_id}/progress", {"progress": percent})
        assert (answer.status_code, answer.json["data"]["progress"]) == (200, reached)


@pytest.mark.parametrize("percent", [-1, 101, "half", "50", True, None, 1.5])
def test_progress_is_a_percentage(agent: Agent, percent: Any) -> None:
    task_id = agent.made()
    agent.status(task_id, "PROCESSING")
    assert agent.call("PATCH", f"/{task_id}/progress", {"progress": percent}).status_code == 422


def test_progress_belongs_to_a_task_that_is_processed(agent: Agent) -> None:
    task_id = agent.made()
    early = agent.call("PATCH", f"/{task_id}/progress", {"progress": 1})
    assert (early.status_code, early.json["error"]["code"]) == (422, "INVALID_STATUS_TRANSITION")
    assert early.json["error"]["message"].startswith("A task that is QUEUED has no progress yet")
    agent.status(task_id, "PROCESSING", progress=40)
    agent.status(task_id, "FAILED", message="the disk is full")
    late = agent.call("PATCH", f"/{task_id}/progress", {"progress": 90})
    assert (late.status_code, late.json["error"]["code"]) == (409, "TASK_ALREADY_COMPLETED")
    task = agent.task(task_id)
    assert (task["progress"], task["error"], task["message"]) == (40, "the disk is full", "the disk is full")


# ------------------------------------------------------------------ several at once, what is refused


def test_lines_and_errors_in_batches(agent: Agent) -> None:
    task_id = agent.made()
    lines = [{"level": "warn", "message": f"line {number}"} for number in range(150)]
    answer = agent.call("POST", f"/{task_id}/logs", {"logs": lines})
    assert (answer.status_code, answer.json["data"]) == (201, {"taskId": task_id, "accepted": 150})
    errors = [{"errorCode": "E", "message": f"error {number}"} for number in range(3)]
    assert agent.call("POST", f"/{task_id}/errors", {"errors": errors}).json["data"]["accepted"] == 3
    page = agent.call("GET", f"/{task_id}/logs?per_page=200").json["data"]
    assert [line["message"] for line in page["logs"]] == [line["message"] for line in lines]
    assert ({line["level"] for line in page["logs"]}, page["total"]) == ({"WARN"}, 150)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("logs", {}),
        ("logs", {"message": "x", "logs": [{"message": "y"}]}),
        ("logs", {"logs": []}),
        ("logs", {"logs": [{"message": "y"}] * 201}),
        ("logs", {"message": "x", "level": "LOUD"}),
        ("logs", {"message": "x", "timestamp": "yesterday"}),
        ("logs", {"message": "x", "timestamp": "2024-01-01T10:00:00"}),
        ("logs", {"message": "x", "metadata": {"deep": [float("nan")]}}),
        ("errors", {"message": "x"}),
        ("errors", {"errorCode": "E"}),
        ("errors", {"errors": [{"errorCode": "E", "message": "x"}] * 51}),
        ("metrics", {"cpuUsage": -1}),
        ("metrics", {"cpuUsage": float("inf")}),
        ("metrics", {"executionTime": 10**400}),
        ("metrics", {"temperature": 40}),
        ("metrics", {"cpuUsage": True}),
        ("metrics", {"cpuUsage": "40"}),
        ("metrics", {}),
        ("metrics", {"timestamp": "2024-01-01T10:00:00Z", "values": {}}),
        ("logs", {"message": "x", "timestamp": 1704103200}),
        ("logs", {"message": "x", "metadata": nested(33)}),
        ("errors", {"errorCode": " ", "message": "x"}),
        ("errors", {"errorCode": "E", "message": "x", "autoFixRequested": "yes"}),
    ],
)
def test_what_cannot_be_taken(agent: Agent, services: Services, path: str, body: Any) -> None:
    answer = agent.call("POST", f"/{agent.made()}/{path}", body)
    assert (answer.status_code, answer.json["error"]["code"]) == (422, "VALIDATION_ERROR")
    with services.db.read() as session:
        for table in (TaskLog, TaskError, TaskMetric):
            assert session.scalar(select(func.count()).select_from(table)) == 0


@pytest.mark.parametrize("body", [{"title": " \t "}, {"title": 7}, {"title": "x", "parameters": nested(40)}])
def test_tasks_that_cannot_be_made(agent: Agent, body: Any) -> None:
    assert agent.call("POST", "", body).status_code == 422


@pytest.mark.parametrize("levels", [500, 800, 900, 930, 945, 960, 2000])
def test_what_is_nested_without_end_is_no_error_of_ours(agent: Agent, levels: int) -> None:
    # 400 where Python itself cannot read it any more
    raw = '{"message": "x", "metadata": ' + '{"a": ' * levels + "{}" + "}" * levels + "}"
    headers = {**agent.headers, "Content-Type": "application/json"}
    answer = agent.client.post(f"{URL}/{agent.made()}/logs", data=raw, headers=headers)
    assert (answer.status_code, answer.json["error"]["code"]) in [(400, "VALIDATION_ERROR"), (422, "VALIDATION_ERROR")]


def test_what_may_just_be_nested_so_deeply_comes_back(agent: Agent) -> None:
    task_id = agent.made(parameters=nested(32))
    assert agent.task(task_id)["parameters"] == nested(32)


WRONG: list[Any] = [
    *(None, True, 1, -1, 1.5, 2**60, 10**400, float("nan"), float("inf")),
    *("", "x", "x" * 200_000, "2024-01-01", "2024-13-01T00:00:00Z", "2024-01-01T10:00:00"),
    *("0001-01-01T00:00:00+09:00", [], [1], [{}], [{}] * 300, {}, {"a": 1}, {1: 2}, nested(40), {"x": float("nan")}),
]


def refusals(schema: type[BaseModel], body: Any) -> list[str]:
    """The types of pydantic's errors."""
    try:
        schema.model_validate(body)
    except ValidationError as error:
        return [item["type"] for item in error.errors()]
    return []


@pytest.mark.parametrize("schema", [NewReport, StatusBody, ProgressBody, LogBody, MetricsBody, ErrorBody, ReportList])
def test_whatever_is_wrong_there_is_a_text_in_every_language(schema: type[BaseModel]) -> None:
    texts, seen = Catalogue.load().texts, set()
    names = [*schema.model_fields, "unknown"]
    for body in ({}, *({name: value} for name in names for value in WRONG)):
        seen |= {f"field.{kind}" for kind in refusals(schema, body)}
    assert len(seen) > 2
    for language in LANGUAGES:
        assert seen <= texts[language].keys(), language


def test_a_refusal_names_its_field_once_and_in_the_language_asked_for(agent: Agent) -> None:
    answer = agent.call("POST", f"/{agent.made()}/logs", {"logs": []}, **{"Accept-Language": "it"})
    assert answer.json["error"]["message"] == "logs richiede almeno 1 elemento/i"


def test_what_is_too_long_is_cut_and_shows_it(agent: Agent) -> None:
    task_id = agent.made()
    agent.call("POST", f"/{task_id}/logs", {"message": "x" * 9000})
    message = agent.call("GET", f"/{task_id}/logs").json["data"]["logs"][0]["message"]
    assert (len(message), message[-1]) == (store.LONGEST_MESSAGE, "…")


@pytest.mark.parametrize("app", [{"report_rate": "20/minute", "log_rate": "30/minute"}], indirect=True)
def test_limits(agent: Agent) -> None:
    task_id = agent.made()
    path = f"/{task_id}/logs"
    assert agent.call("POST", path, {"logs": [{"message": "x"}] * 30}).status_code == 201
    refused = agent.call("POST", path, {"message": "x"})
    assert (refused.status_code, refused.json["error"]["code"]) == (429, "RATE_LIMIT_EXCEEDED")
    assert 0 < int(refused.headers["Retry-After"]) <= 60
    statuses = [agent.call("GET", f"/{task_id}").status_code for _time in range(20)]
    assert (statuses[:18], statuses[18:]) == ([200] * 18, [429] * 2)


@pytest.mark.parametrize("app", [{"report_rate": "30/minute", "log_rate": "30/minute"}], indirect=True)
def test_many_runs_of_one_user_all_tell_their_end(agent: Agent, app: Flask) -> None:
    runs = {}
    for _run in range(10):
        task_id = agent.made()
        token = agent.call("POST", f"/{task_id}/token").json["data"]["token"]
        runs[task_id] = Agent(app.test_client(), token)
    assert {run.status(task_id, "PROCESSING").status_code for task_id, run in runs.items()} == {200}
    for task_id, run in runs.items():
        statuses = [run.call("POST", f"/{task_id}/logs", {"message": "x"}).status_code for _line in range(31)]
        assert (statuses[0], statuses[-1]) == (201, 429)
        assert run.status(task_id, "PROCESSING").status_code == 429
        assert run.status(task_id, "COMPLETED").status_code == 200, "a run that has said too much can still end"


@pytest.mark.parametrize("app", [{"report_rate": "5/minute", "log_rate": "30/minute"}], indirect=True)
def test_an_end_is_taken_from_a_user_at_the_limit_and_has_one_of_its_own(agent: Agent) -> None:
    task_id = agent.made()
    agent.status(task_id, "PROCESSING")
    assert [agent.call("GET", f"/{task_id}").status_code for _time in range(4)] == [200, 200, 200, 429]
    assert [agent.status(task_id, "COMPLETED").status_code for _time in range(6)] == [200] * 5 + [429]


def test_the_documented_limits_are_the_defaults(make_app: Callable[..., Flask]) -> None:
    made = make_app().extensions["pvefleet"].settings
    assert (made.report_rate, made.log_rate) == ("100/minute", "1000/minute")


def test_a_repeated_report_is_taken_once(agent: Agent) -> None:
    task_id = agent.made()
    body, key = {"message": "once"}, {"Idempotency-Key": "one"}
    first, second = (agent.call("POST", f"/{task_id}/logs", body, **key) for _time in range(2))
    assert first.json == second.json
    assert agent.call("GET", f"/{task_id}/logs").json["data"]["total"] == 1
    made = [agent.call("POST", "", {"title": "x"}, **{"Idempotency-Key": "two"}).json["data"]["id"] for _time in "ab"]
    assert made[0] == made[1]
    assert agent.call("POST", "", {"title": "y"}, **{"Idempotency-Key": "two"}).status_code == 422


# ------------------------------------------------------------------ who may


def test_reporting_takes_its_permission(login: Callable[..., FlaskClient], agent: Agent) -> None:
    task_id = agent.made()
    viewer = login("viewer")
    writes = [("PATCH", "status", {"status": "PROCESSING"}), ("PATCH", "progress", {"progress": 1})]
    writes += [("POST", "logs", {"message": "x"}), ("POST", "metrics", {}), ("POST", "token", {})]
    writes += [("POST", "errors", {"errorCode": "E", "message": "x"}), ("POST", "cancel", {})]
    for method, path, body in writes:
        refused = viewer.open(f"{URL}/{task_id}/{path}", method=method, json=body)
        assert (refused.status_code, refused.json["error"]["code"]) == (403, "FORBIDDEN"), path
    assert viewer.post(URL, json={"title": "x"}).status_code == 403
    assert viewer.get(f"{URL}/{task_id}").status_code == 200
    assert viewer.get(f"{URL}/{task_id}/logs").status_code == 403
    assert login("operator").get(f"{URL}/{task_id}/logs").status_code == 200


def test_an_agent_takes_a_task_that_somebody_else_has_made(
    admin: FlaskClient, agent: Agent, login: Callable[..., FlaskClient]
) -> None:
    made = admin.post(URL, json={"title": "for any agent"}).json["data"]["id"]
    queued = agent.call("GET", "?status=QUEUED").json["data"]
    assert [task["id"] for task in queued["tasks"]] == [made]
    assert agent.status(made, "PROCESSING").status_code == 200
    stranger = login("viewer", "stranger")
    assert stranger.get(f"{URL}/{made}").status_code == 200


def test_the_services_own_tasks_are_shown_and_not_reported_on(
    admin: FlaskClient, agent: Agent, services: Services
) -> None:
    task_id = of_the_service(services)
    assert agent.call("GET", f"/{task_id}").status_code == 404
    assert agent.status(task_id, "PROCESSING").status_code == 404
    shown = admin.get(f"{URL}/{task_id}", headers={"Accept-Language": "en"}).json["data"]
    wanted = {"kind": "create_server", "status": "QUEUED", "message": "Creating the server: waiting"}
    assert {name: shown[name] for name in wanted} == wanted
    for path, body in (("logs", {"message": "x"}), ("metrics", {"cpuUsage": 1}), ("token", {})):
        assert admin.post(f"{URL}/{task_id}/{path}", json=body).status_code == 403
    assert admin.patch(f"{URL}/{task_id}/status", json={"status": "PROCESSING"}).status_code == 403
    assert admin.post(f"{URL}/{task_id}/cancel").json["data"]["status"] == "CANCELLED"
    running = of_the_service(services, store.RUNNING)
    assert admin.post(f"{URL}/{running}/cancel").status_code == 202


def test_the_list_can_be_filtered(admin: FlaskClient, agent: Agent, services: Services) -> None:
    first = agent.made(kind="backup", priority="HIGH")
    agent.made(kind="backup", priority="LOW")
    own = of_the_service(services)

    def found(query: str) -> list[str]:
        return [task["id"] for task in admin.get(f"{URL}?{query}").json["data"]["tasks"]]

    assert found("kind=backup&priority=HIGH") == [first]
    assert found("kind=create_server") == found("priority=MEDIUM") == [own]
    assert len(found("status=QUEUED")) == 3
    assert admin.get(f"{URL}?status=queued").status_code == 422
    assert admin.get(f"{URL}?per_page=2").json["data"]["total"] == 3


def test_a_runs_own_token_opens_that_task_alone(agent: Agent, app: Flask, services: Services) -> None:
    mine, other = agent.made(), agent.made()
    given = agent.call("POST", f"/{mine}/token", **{"Idempotency-Key": "kept?"})
    assert "Idempotent-Replayed" not in agent.call("POST", f"/{mine}/token", **{"Idempotency-Key": "kept?"}).headers
    run = Agent(app.test_client(), given.json["data"]["token"])
    assert run.status(mine, "PROCESSING").status_code == 200
    assert run.call("POST", f"/{mine}/logs", {"message": "x"}).status_code == 201
    assert run.call("GET", f"/{mine}/logs").status_code == 200
    refused = [run.status(other, "PROCESSING"), run.call("GET", ""), run.call("POST", "", {"title": "x"})]
    for path in ("/api/session", "/api/tasks", f"/api/tasks/{mine}", "/api/servers"):
        refused.append(run.client.get(path, headers=run.headers))
    refused.append(run.client.post("/api/v1/auth/logout", headers=run.headers))
    assert {answer.status_code for answer in refused} == {403}
    with services.db.write() as session:
        user = session.scalars(select(User).where(User.username == "agent")).one()
        set_password(session, user, "another password")
    assert run.call("GET", f"/{mine}").status_code == 401


def test_a_runs_own_token_is_worth_no_more_than_its_user(app: Flask, services: Services, client: FlaskClient) -> None:
    with services.db.write() as session:
        create_user(session, "chief", PASSWORD, role="admin")
    chief = Agent(client, token_of(client, "chief"))
    task_id = chief.made()
    run = Agent(app.test_client(), chief.call("POST", f"/{task_id}/token").json["data"]["token"])
    assert run.status(task_id, "PROCESSING").status_code == 200
    with services.db.write() as session:
        session.scalars(select(User).where(User.username == "chief")).one().role = "viewer"
    assert run.status(task_id, "COMPLETED").status_code == 403


# ------------------------------------------------------------------ one store


def test_both_views_and_the_events_show_the_same_task(admin: FlaskClient, agent: Agent, services: Services) -> None:
    task_id = agent.made()
    agent.status(task_id, "PROCESSING", message="begins")
    agent.call("PATCH", f"/{task_id}/progress", {"progress": 50})
    agent.call("POST", f"/{task_id}/logs", {"message": "a line"})
    other = admin.get(f"/api/tasks/{task_id}").json["task"]
    assert (other["type"], other["status"], other["progress"], other["message"]) == ("report", "running", 50, "begins")
    assert admin.get(f"/api/tasks/{task_id}/log").json["log"][0]["message"] == "a line"
    agent.status(task_id, "COMPLETED", message="done")
    streamed = admin.get(f"/api/tasks/{task_id}/stream").get_data(as_text=True)
    assert "event: log" in streamed
    assert streamed.rstrip().splitlines()[-1].count('"status":"completed"') == 1
    with services.db.read() as session:
        kinds = [event.kind for event in events.read_after(session, 0, 100, events.task_topic(task_id))]
    assert kinds == ["status", "status", "status", "log", "status"]


def test_a_reported_task_can_be_cancelled_from_either_view(admin: FlaskClient, agent: Agent) -> None:
    for url in ("/api/tasks", URL):
        task_id = agent.made()
        agent.status(task_id, "PROCESSING")
        assert admin.post(f"{url}/{task_id}/cancel").status_code == 200
        heard = agent.call("PATCH", f"/{task_id}/progress", {"progress": 1})
        assert (heard.status_code, heard.json["error"]["code"]) == (409, "TASK_ALREADY_COMPLETED")
        assert admin.post(f"{url}/{task_id}/cancel").status_code == 200
    finished = agent.made()
    agent.status(finished, "PROCESSING")
    agent.status(finished, "FAILED")
    assert agent.call("POST", f"/{finished}/cancel").status_code == 409


def test_a_second_attempt_keeps_the_progress_of_the_first(services: Services) -> None:
    task_id = of_the_service(services, store.RUNNING)
    with services.db.write() as session:
        store.progress(session, task_id, 40, "")
        store.requeue(session, task_id, count_attempt=True)
        again = store.start(session, task_id)
        assert again is not None
        assert again.progress == 40


def test_the_engine_leaves_reported_tasks_alone(agent: Agent, services: Services) -> None:
    queued, processing = agent.made(), agent.made()
    agent.status(processing, "PROCESSING")
    own = of_the_service(services), of_the_service(services, store.RUNNING)
    with services.db.read() as session:
        assert list(store.pending(session, 10)) == [own[0]]
        assert list(store.unfinished(session, ())) == [own[1]]
        assert session.get_one(Task, queued).status == store.PENDING


@pytest.mark.parametrize("app", [{**FAST, "report_silence": 3600}], indirect=True)
def test_a_run_that_falls_silent_fails(agent: Agent, services: Services) -> None:
    dead, queued, *alive = (agent.made() for _task in range(6))
    for task_id in (dead, *alive):
        agent.status(task_id, "PROCESSING", progress=10)
    with services.db.write() as session:
        session.execute(update(Task).values(updated_at=now() - timedelta(seconds=3700)))
    agent.status(alive[0], "PROCESSING")
    agent.call("PATCH", f"/{alive[1]}/progress", {"progress": 10})
    agent.call("POST", f"/{alive[2]}/logs", {"message": "x"})
    agent.call("POST", f"/{alive[3]}/metrics", {"cpuUsage": 1})
    engine = Engine(services, LocalExecutor(services.settings.home / "runs"), Observer(services))
    engine._tick()
    statuses = {task_id: agent.task(task_id)["status"] for task_id in (dead, queued, *alive)}
    assert statuses == {dead: "FAILED", queued: "QUEUED", **dict.fromkeys(alive, "PROCESSING")}
    assert agent.task(dead)["error"] == "Unable to finish nightly: nothing was heard of it for 3600 s"
    assert agent.status(dead, "COMPLETED").json["error"]["code"] == "TASK_ALREADY_COMPLETED"
