# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The task routes: who sees which, their log, their cancellation, their words."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flask.testing import FlaskClient
from pvefleet.db.models import Task, User
from pvefleet.services import Services
from pvefleet.tasks import store
from sqlalchemy import select

URL = "/api/tasks"


def add_task(services: Services, username: str, operation: str = "create_server", target: str = "web-01") -> str:
    with services.db.write() as session:
        user_id = session.scalars(select(User.id).where(User.username == username)).one()
        return store.create(
            session,
            operation=operation,
            title=f"{operation} {target}",
            cluster_id=None,
            target=target,
            parameters={},
            sealed=None,
            locks=[],
            user_id=user_id,
            deadline_seconds=60,
        ).id


def test_a_task_is_shown_as_the_document_prints_it(admin: FlaskClient, services: Services) -> None:
    task_id = add_task(services, "admin")
    with services.db.write() as session:
        store.start(session, task_id)
        store.progress(session, task_id, 45, "")
    shown = admin.get(f"{URL}/{task_id}").json["task"]
    documented = {key: shown[key] for key in ("id", "type", "status", "message", "progress")}
    assert documented == {
        "id": task_id,
        "type": "create_server",
        "status": "running",
        "message": "서버 생성 중...",
        "progress": 45,
    }
    assert shown["created_at"].endswith("Z")
    assert shown["updated_at"].endswith("Z")
    assert admin.get(URL).json["tasks"] == [shown]


def test_the_message_is_the_runs_own_where_it_has_one(admin: FlaskClient, services: Services) -> None:
    task_id = add_task(services, "admin")
    with services.db.write() as session:
        store.start(session, task_id)
        store.progress(session, task_id, 45, "web-01: clone")
    answer = admin.get(f"{URL}/{task_id}").json
    assert answer["message"] == answer["task"]["message"] == "web-01: clone"
    assert (answer["status"], answer["progress"]) == (answer["task"]["status"], answer["task"]["progress"])
    with services.db.write() as session:
        store.finish(session, task_id, store.FAILED, error="Unable to start web-01: no bridge vmbr9")
    failed = admin.get(f"{URL}/{task_id}").json["task"]
    assert failed["message"] == failed["error"] == "Unable to start web-01: no bridge vmbr9"


def test_users_see_their_own_tasks_and_with_view_all_everybodys(
    login: Callable[..., FlaskClient], services: Services
) -> None:
    mine, other, viewer = login("agent", "mine"), login("agent", "other"), login("viewer", "viewer")
    task_id = add_task(services, "mine")
    add_task(services, "other")
    assert [task["id"] for task in mine.get(URL).json["tasks"]] == [task_id]
    assert viewer.get(URL).json["total"] == 2
    assert {client.get(f"{URL}/{task_id}").status_code for client in (mine, viewer)} == {200}
    hidden = other.get(f"{URL}/{task_id}")
    unknown = other.get(f"{URL}/task-nothing")
    assert (hidden.status_code, hidden.json) == (404, unknown.json)
    assert other.get(f"{URL}/{task_id}/stream").status_code == 404
    assert other.post(f"{URL}/{task_id}/cancel").status_code == 404


def test_to_see_a_task_is_not_to_be_allowed_to_cancel_it(
    login: Callable[..., FlaskClient], services: Services
) -> None:
    owner, viewer, developer = login("operator", "owner"), login("viewer"), login("developer")
    task_id = add_task(services, "owner", "stop_server")
    assert viewer.post(f"{URL}/{task_id}/cancel").status_code == 403
    assert developer.post(f"{URL}/{task_id}/cancel").json["task"]["status"] == "cancelled"
    own = add_task(services, "owner", "delete_server")
    assert owner.post(f"{URL}/{own}/cancel").status_code == 200
    assert owner.post(f"{URL}/{own}/cancel").status_code == 200


def test_a_running_task_is_cancelled_later_and_a_finished_one_not_at_all(
    admin: FlaskClient, services: Services
) -> None:
    task_id = add_task(services, "admin")
    with services.db.write() as session:
        store.start(session, task_id)
    answer = admin.post(f"{URL}/{task_id}/cancel")
    assert (answer.status_code, answer.json["task"]["status"]) == (202, "running")
    with services.db.read() as session:
        assert session.get_one(Task, task_id).cancel_requested
    with services.db.write() as session:
        store.finish(session, task_id, store.COMPLETED)
    assert admin.post(f"{URL}/{task_id}/cancel").status_code == 409


def test_the_log_has_every_line_in_order_for_who_may_read_logs(
    admin: FlaskClient, login: Callable[..., FlaskClient], services: Services
) -> None:
    task_id = add_task(services, "admin")
    with services.db.write() as session:
        store.log(session, task_id, [("info", f"line {number}") for number in range(30)])
    first, second = (admin.get(f"{URL}/{task_id}/log?page={page}").json for page in (1, 2))
    assert [line["message"] for line in first["log"] + second["log"]] == [f"line {number}" for number in range(30)]
    assert first["total"] == 30
    assert login("viewer").get(f"{URL}/{task_id}/log").status_code == 403


@pytest.mark.parametrize(("query", "found"), [("status=pending", 1), ("type=stop_server", 1), ("status=running", 0)])
def test_the_list_can_be_filtered(admin: FlaskClient, services: Services, query: str, found: int) -> None:
    add_task(services, "admin", "stop_server")
    other = add_task(services, "admin", "start_server")
    with services.db.write() as session:
        store.finish(session, other, store.FAILED, error="no")
    assert admin.get(f"{URL}?{query}").json["total"] == found


def test_an_unknown_filter_is_refused(admin: FlaskClient) -> None:
    assert admin.get(f"{URL}?status=done").status_code == 400
    assert admin.get(f"{URL}?order=asc").status_code == 400
