# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Logins, sessions and tokens."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from statistics import median

import pytest
from flask import Flask
from flask.testing import FlaskClient
from pvefleet.access import users
from pvefleet.db.models import Login, User
from pvefleet.services import Services
from sqlalchemy import select

from tests.api.served import PASSWORD

REFUSED = {
    "success": False,
    "error": "사용자 이름 또는 비밀번호가 올바르지 않습니다",
    "code": "AUTHENTICATION_REQUIRED",
}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def tokens(client: FlaskClient, username: str) -> dict[str, str]:
    answer = client.post("/api/v1/auth/login", json={"username": username, "password": PASSWORD})
    assert answer.status_code == 200
    return answer.get_json()


@pytest.mark.parametrize("body", ["data", "json"])
def test_login_as_documented(client: FlaskClient, add_user: Callable[..., str], body: str) -> None:
    add_user("developer")
    answer = client.post("/auth/login", **{body: {"username": "developer", "password": PASSWORD}})
    assert (answer.status_code, answer.get_json()) == (200, {"success": True, "message": "로그인 성공"})
    cookie = answer.headers["Set-Cookie"]
    assert cookie.startswith("session=")
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert "Secure" not in cookie
    shown = client.get("/api/session").get_json()
    assert shown["success"] is True
    assert shown["user"]["username"] == "developer"
    assert shown["user"]["role"] == "developer"
    assert "create_server" in shown["user"]["permissions"]
    assert "manage_users" not in shown["user"]["permissions"]


def test_the_cookie_is_secure_over_https(client: FlaskClient, add_user: Callable[..., str]) -> None:
    body = {"username": add_user(), "password": PASSWORD}
    answer = client.post("/auth/login", json=body, base_url="https://localhost")
    assert "Secure" in answer.headers["Set-Cookie"]


def test_who_is_refused_does_not_learn_why(
    app: Flask, client: FlaskClient, services: Services, add_user: Callable[..., str]
) -> None:
    add_user("viewer")
    add_user("viewer", "gone")
    with services.db.write() as session:
        found = users.find_user(session, "gone")
        assert found is not None
        found.is_active = False
    cases = {"unknown": ("nobody", PASSWORD), "wrong": ("viewer", "wrong"), "inactive": ("gone", PASSWORD)}
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    with services.db.read() as session:
        for _time in range(5):
            for name, (username, password) in cases.items():
                start = time.perf_counter()
                assert users.check_password(session, username, password) is None
                seconds[name].append(time.perf_counter() - start)
    for username, password in cases.values():
        answer = client.post("/auth/login", json={"username": username, "password": password})
        assert (answer.status_code, answer.get_json()) == (401, REFUSED)
        assert "Location" not in answer.headers
    # The work of a hash, each time: without it the answer comes hundreds of times sooner.
    times = {name: median(values) for name, values in seconds.items()}
    assert max(times.values()) < 5 * min(times.values()), times


def test_failed_logins_are_limited_and_good_ones_are_not(client: FlaskClient, add_user: Callable[..., str]) -> None:
    good = {"username": add_user(), "password": PASSWORD}
    for _time in range(12):
        assert client.post("/auth/login", json=good).status_code == 200
    statuses = [client.post("/auth/login", json={**good, "password": "wrong"}).status_code for _time in range(11)]
    assert statuses == [401] * 10 + [429]
    answer = client.post("/api/v1/auth/login", json=good)
    assert answer.status_code == 429, "both ways to log in are one count"
    assert answer.get_json()["error"]["code"] == "RATE_LIMIT_EXCEEDED"
    assert 0 < int(answer.headers["Retry-After"]) <= 60


def test_a_copied_cookie_ends_with_the_logout(app: Flask, admin: FlaskClient) -> None:
    cookie = admin.get_cookie("session")
    assert cookie is not None
    assert admin.post("/auth/logout").status_code == 200
    assert admin.get("/api/session").status_code == 401
    copy = app.test_client()
    copy.set_cookie("session", cookie.value)
    assert copy.get("/api/session").status_code == 401


def test_sessions_and_tokens_end_with_the_password(admin: FlaskClient, client: FlaskClient, services: Services) -> None:
    token = tokens(client, "admin")["token"]
    assert client.get("/api/session", headers=bearer(token)).status_code == 200
    with services.db.write() as session:
        found = users.find_user(session, "admin")
        assert found is not None
        users.set_password(session, found, "another password")
    assert admin.get("/api/session").status_code == 401
    assert client.get("/api/session", headers=bearer(token)).status_code == 401


def test_an_inactive_user_is_out_at_once(admin: FlaskClient, services: Services) -> None:
    with services.db.write() as session:
        session.scalars(select(User)).one().is_active = False
    assert admin.get("/api/session").status_code == 401


def test_a_session_ends_with_its_lifetime(make_app: Callable[..., Flask]) -> None:
    app = make_app(session_lifetime=timedelta(hours=1))
    services: Services = app.extensions["pvefleet"]
    with services.db.write() as session:
        users.create_user(session, "admin", PASSWORD, role="admin")
    client = app.test_client()
    client.post("/auth/login", json={"username": "admin", "password": PASSWORD})
    with services.db.write() as session:
        row = session.scalars(select(Login)).one()
        assert row.expires_at - row.created_at == timedelta(hours=1)
        row.expires_at = row.created_at
    assert client.get("/api/session").status_code == 401


def test_bearer_tokens_as_documented(client: FlaskClient, add_user: Callable[..., str]) -> None:
    given = tokens(client, add_user("agent"))
    assert set(given) == {"token", "refreshToken", "expiresIn"}
    assert given["expiresIn"] == 3600
    assert client.get_cookie("session") is None
    assert client.get("/api/session", headers=bearer(given["token"])).get_json()["user"]["role"] == "agent"


def test_a_bearer_token_that_is_not_good_is_not_helped_by_a_cookie(admin: FlaskClient) -> None:
    for value in ("Bearer nonsense", "Bearer ", "Basic YWRtaW46YWRtaW4=", "Bearer a.b.c"):
        assert admin.get("/api/session", headers={"Authorization": value}).status_code == 401


def test_tokens_of_another_key_or_algorithm_are_refused(client: FlaskClient, add_user: Callable[..., str]) -> None:
    header, payload, _signature = tokens(client, add_user())["token"].split(".")
    unsigned = f"eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{payload}."
    assert client.get("/api/session", headers=bearer(unsigned)).status_code == 401
    assert client.get("/api/session", headers=bearer(f"{header}.{payload}.AAAA")).status_code == 401


def test_refresh_rotates_and_a_second_use_ends_the_login(client: FlaskClient, add_user: Callable[..., str]) -> None:
    first = tokens(client, add_user())
    second = client.post("/api/v1/auth/refresh", json={"refreshToken": first["refreshToken"]}).get_json()
    assert second["refreshToken"] != first["refreshToken"]
    assert client.get("/api/session", headers=bearer(second["token"])).status_code == 200
    stolen = client.post("/api/v1/auth/refresh", json={"refreshToken": first["refreshToken"]})
    assert stolen.status_code == 401
    assert stolen.get_json()["error"]["code"] == "UNAUTHORIZED"
    assert client.get("/api/session", headers=bearer(second["token"])).status_code == 401
    again = client.post("/api/v1/auth/refresh", json={"refreshToken": second["refreshToken"]})
    assert again.status_code == 401


def test_token_logout_ends_token_and_refresh(client: FlaskClient, add_user: Callable[..., str]) -> None:
    given = tokens(client, add_user())
    answer = client.post("/api/v1/auth/logout", headers=bearer(given["token"]))
    assert answer.status_code == 200
    assert answer.get_json()["success"] is True
    assert client.get("/api/session", headers=bearer(given["token"])).status_code == 401
    refreshed = client.post("/api/v1/auth/refresh", json={"refreshToken": given["refreshToken"]})
    assert refreshed.status_code == 401


def test_a_login_gets_a_session_of_its_own(app: Flask, add_user: Callable[..., str]) -> None:
    """Nobody can choose the session that somebody else will log in to."""
    body = {"username": add_user(), "password": PASSWORD}
    client = app.test_client()
    client.post("/auth/login", json=body)
    first = client.get_cookie("session")
    client.post("/auth/login", json=body)
    second = client.get_cookie("session")
    assert first is not None
    assert second is not None
    assert first.value != second.value
