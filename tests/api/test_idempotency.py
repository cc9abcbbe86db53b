# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Idempotency-Key: one run and one answer."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from flask.testing import FlaskClient
from pvefleet.db import now
from pvefleet.db.models import IdempotentAnswer
from pvefleet.services import Services
from sqlalchemy import select

from tests.api.served import PASSWORD, Served
from tests.api.test_clusters import URL, body
from tests.lab import Lab

KEY = {"Idempotency-Key": "order-66"}


def test_the_same_again_is_answered_and_not_done(admin: FlaskClient, lab_server: Lab) -> None:
    first = admin.post(URL, json=body(lab_server), headers=KEY)
    assert first.status_code == 201
    assert "Idempotent-Replayed" not in first.headers
    mark = len(lab_server.requests)
    again = admin.post(URL, json=body(lab_server), headers=KEY)
    assert (again.status_code, again.data) == (201, first.data)
    assert (again.content_type, again.location) == (first.content_type, first.location)
    assert first.location is not None
    assert again.headers["Idempotent-Replayed"] == "true"
    assert lab_server.count_since(mark) == 0
    assert admin.get(URL).get_json()["total"] == 1


def test_another_request_with_the_key_is_refused(admin: FlaskClient, lab_server: Lab) -> None:
    assert admin.post(URL, json=body(lab_server), headers=KEY).status_code == 201
    other = admin.post(URL, json=body(lab_server, "other"), headers=KEY)
    assert other.status_code == 422
    assert other.get_json()["code"] == "UnprocessableContent"
    assert admin.delete(f"{URL}/x", headers=KEY).status_code == 422
    assert admin.get(URL).get_json()["total"] == 1


def test_keys_belong_to_their_users(login: Callable[..., FlaskClient], lab_server: Lab) -> None:
    one, two = login("admin", "one"), login("admin", "two")
    assert one.post(URL, json=body(lab_server), headers=KEY).status_code == 201
    assert two.post(URL, json=body(lab_server, "other"), headers=KEY).status_code == 201


def test_a_refusal_leaves_the_key_free(admin: FlaskClient, lab_server: Lab) -> None:
    wrong = admin.post(URL, json=body(lab_server, password="wrong"), headers=KEY)
    assert wrong.status_code == 401
    assert admin.post(URL, json=body(lab_server), headers=KEY).status_code == 201


def test_an_answer_without_body_is_replayed(admin: FlaskClient, lab_server: Lab) -> None:
    cluster = admin.post(URL, json=body(lab_server)).get_json()
    for replayed in (None, "true"):
        answer = admin.delete(f"{URL}/{cluster['id']}", headers=KEY)
        assert (answer.status_code, answer.data) == (204, b"")
        assert answer.headers.get("Idempotent-Replayed") == replayed
    assert admin.delete(f"{URL}/{cluster['id']}").status_code == 404


@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb", "é"])
def test_keys_that_are_none(admin: FlaskClient, key: str) -> None:
    answer = admin.post(URL, json={}, headers={"Idempotency-Key": key})
    assert answer.status_code == 400
    assert list(answer.get_json()["details"]) == ["Idempotency-Key"]


def reserved(services: Services, **changes: Any) -> None:
    with services.db.write() as session:
        for row in session.scalars(select(IdempotentAnswer)):
            for name, value in changes.items():
                setattr(row, name, value)


def test_a_reservation_of_a_process_that_died(admin: FlaskClient, services: Services, lab_server: Lab) -> None:
    cluster = admin.post(URL, json=body(lab_server), headers=KEY).get_json()
    assert admin.delete(f"{URL}/{cluster['id']}").status_code == 204
    reserved(services, status_code=None, body=None, content_type=None)
    waiting = admin.post(URL, json=body(lab_server), headers=KEY)
    assert waiting.status_code == 409
    assert waiting.headers["Retry-After"] == "1"
    reserved(services, created_at=now() - timedelta(seconds=61))
    assert admin.post(URL, json=body(lab_server), headers=KEY).status_code == 201


def test_answers_are_forgotten_after_a_day(admin: FlaskClient, services: Services, lab_server: Lab) -> None:
    assert admin.post(URL, json=body(lab_server), headers=KEY).status_code == 201
    reserved(services, created_at=now() - timedelta(hours=25))
    assert admin.post(URL, json=body(lab_server), headers=KEY).status_code == 409, (
        "carried out again: the name is taken"
    )


def test_tokens_are_not_kept(admin: FlaskClient, tmp_path: Path) -> None:
    given = {"username": "admin", "password": PASSWORD}
    first = admin.post("/api/v1/auth/login", json=given, headers=KEY).get_json()
    renewed = {"refreshToken": first["refreshToken"]}
    second = admin.post("/api/v1/auth/refresh", json=renewed, headers=KEY).get_json()
    written = b"".join(file.read_bytes() for file in (tmp_path / "home").glob("pvefleet.db*"))
    for answer in (first, second):
        for secret in (answer["token"], answer["refreshToken"]):
            assert secret.encode() not in written
    assert b"argon2" in written, "this is where it would be"


def test_no_password_can_be_guessed_from_what_is_kept(admin: FlaskClient, services: Services, lab_server: Lab) -> None:
    raw = json.dumps(body(lab_server)).encode()
    headers = {**KEY, "Content-Type": "application/json"}
    assert admin.post(URL, data=raw, headers=headers).status_code == 201
    with services.db.read() as session:
        kept = session.scalars(select(IdempotentAnswer)).one()
    assert kept.fingerprint != hashlib.sha256(f"POST {URL}?\n".encode() + raw).hexdigest()
    assert lab_server.password not in (kept.body or "")


def test_together(served: Served, lab_server: Lab) -> None:
    """Of many at once one is carried out; the others are told to wait, or get its answer."""
    admin = served.login()
    cookies = dict(admin.cookies)
    answers: list[requests.Response] = []
    together = threading.Barrier(6)

    def ask() -> None:
        together.wait()
        answers.append(
            requests.post(served.at(URL), json=body(lab_server, "together"), headers=KEY, cookies=cookies, timeout=60)
        )

    threads = [threading.Thread(target=ask) for _time in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    done = [answer for answer in answers if answer.status_code == 201]
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert len({answer.content for answer in done}) == 1
    assert [answer.headers.get("Idempotent-Replayed") for answer in done].count(None) == 1
    assert admin.delete(served.at(f"{URL}/{done[0].json()['id']}"), timeout=30).status_code == 204
