# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A page of another origin cannot write with a browser's cookies."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flask.testing import FlaskClient

from tests.api.served import PASSWORD

# A write that reaches its route answers 400: there is nothing in its body.
URL = "/api/v1/clusters"


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"},
        {"Origin": "https://evil.example.com"},
        {"Origin": "null"},
        {"Origin": "http://localhost:9999"},
        {"Origin": "https://localhost"},
        {"Origin": "http://localhost.evil.example.com"},
        {"Referer": "https://evil.example.com/http://localhost/"},
        {"Referer": "https://evil.example.com"},
        {"Referer": "http://["},
    ],
)
def test_foreign_writes_are_refused(admin: FlaskClient, headers: dict[str, str]) -> None:
    answer = admin.post(URL, json={}, headers=headers)
    assert answer.status_code == 403
    assert answer.get_json()["code"] == "Forbidden"
    assert admin.delete(f"{URL}/x", headers=headers).status_code == 403
    assert admin.post("/auth/logout", headers=headers).status_code == 403
    assert admin.get(URL, headers=headers).status_code == 200, "reading is what same-origin rules protect"
    login = {"username": "admin", "password": PASSWORD}
    for how in ({"json": login}, {"data": login}):
        assert admin.post("/auth/login", headers=headers, **how).status_code == 403, "login CSRF"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "http://localhost"},
        {"Referer": "http://localhost/console"},
        {"Sec-Fetch-Site": "same-origin", "Referer": "https://elsewhere.example.com/"},
    ],
)
def test_own_writes_pass(admin: FlaskClient, headers: dict[str, str]) -> None:
    assert admin.post(URL, json={}, headers=headers).status_code == 400


@pytest.mark.parametrize("mimetype", ["application/x-www-form-urlencoded", "multipart/form-data", "text/plain"])
def test_bodies_that_a_form_can_send_are_refused(admin: FlaskClient, mimetype: str) -> None:
    body = '{"name": "x"}'
    assert admin.post(URL, data=body, headers={"Content-Type": mimetype}).status_code == 403


def test_a_bearer_token_is_not_sent_by_a_page(client: FlaskClient, add_user: Callable[..., str]) -> None:
    login = {"username": add_user(), "password": PASSWORD}
    token = client.post("/api/v1/auth/login", json=login).get_json()["token"]
    headers = {"Authorization": f"Bearer {token}", "Origin": "https://console.example.com"}
    assert client.post(URL, json={}, headers=headers).status_code == 400
