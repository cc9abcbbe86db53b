# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How errors are wrapped, in which language, and what the OpenAPI file says."""

from __future__ import annotations

import json
import socket
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from string import Formatter
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from flask import Flask
from flask.testing import FlaskClient
from pvefleet.messages import LANGUAGES, Catalogue
from sqlalchemy.exc import OperationalError

from tests.api.served import Served

# A path of each family that does not exist, and the way to its code.
FAMILIES: list[tuple[str, Callable[[Any], str]]] = [
    ("/api/nothing", lambda answer: answer["code"]),
    ("/auth/nothing", lambda answer: answer["code"]),
    ("/", lambda answer: answer["code"]),
    ("/api/v1/clusters/x/nothing", lambda answer: answer["code"]),
    ("/api/v1/auth/nothing", lambda answer: answer["error"]["code"]),
]


@pytest.mark.parametrize(("path", "code"), FAMILIES)
def test_unknown_paths(client: FlaskClient, path: str, code: Callable[[Any], str]) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert code(answer.get_json()) in ("RESOURCE_NOT_FOUND", "NotFound")


def test_the_shape_of_each_family(client: FlaskClient) -> None:
    assert client.get("/api/session").get_json() == {
        "success": False,
        "error": "인증이 필요합니다",
        "code": "AUTHENTICATION_REQUIRED",
    }
    assert list(client.get("/api/v1/clusters").get_json()) == ["code", "message", "details"]
    tasks = client.post("/api/v1/auth/login", json={"username": "x", "password": "y"}).get_json()
    assert list(tasks) == ["success", "error", "timestamp"]
    assert list(tasks["error"]) == ["code", "message", "details"]


def test_a_family_ends_at_its_prefix(client: FlaskClient) -> None:
    assert client.get("/api/v1/clustersX").get_json()["code"] == "RESOURCE_NOT_FOUND"


def test_a_wrong_method(client: FlaskClient) -> None:
    answer = client.put("/api/v1/clusters", json={})
    assert (answer.status_code, answer.get_json()["code"]) == (405, "MethodNotAllowed")
    assert {"GET", "POST"} <= set(answer.headers["Allow"].split(", "))


def test_no_redirects(client: FlaskClient, admin: FlaskClient) -> None:
    assert admin.get("/api/v1/clusters/").status_code == 200
    assert client.get("/api/v1//clusters").status_code == 404
    assert client.get("/api/v1/clusters/").status_code == 401


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"{", 400),
        (b"[]", 400),
        (b"7", 400),
        (b"null", 400),
        (b'"{}"', 400),
        (b"\xff\xfe", 400),
        (b"[" * 100_000, 400),
        (b'{"a":' * 100_000, 400),
        (b'{"name": ' + b"9" * 5000 + b"}", 400),
        (b'{"name": "\\ud800"}', 400),
        (b'{"\\ud800": 1}', 400),
        (b'{"name": NaN}', 400),
    ],
)
def test_hostile_bodies(admin: FlaskClient, raw: bytes, status: int) -> None:
    answer = admin.post("/api/v1/clusters", data=raw, headers={"Content-Type": "application/json"})
    assert answer.status_code == status
    assert answer.get_json()["code"] == "BadRequest"


@pytest.mark.parametrize("path", ["/auth/login", "/api/v1/auth/login", "/api/v1/auth/refresh", "/api/v1/clusters"])
@pytest.mark.parametrize("text", [b"\\ud800", b"a\\u0000b", b"\xed\xa0\x80"])
def test_texts_that_cannot_be_written(admin: FlaskClient, path: str, text: bytes) -> None:
    raw = b'{"username": "%s", "password": "%s", "refreshToken": "%s", "more": [{"x": "%s"}]}' % ((text,) * 4)
    answer = admin.post(path, data=raw, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400


def test_a_database_that_is_locked(admin: FlaskClient, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "home/pvefleet.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        answer = admin.delete("/api/v1/clusters/x")
        assert time.monotonic() - began < 10, "the worker was held up"
        assert (answer.status_code, answer.get_json()["code"]) == (503, "ServiceUnavailable")
        assert answer.headers["Retry-After"] == "2"
        kept = admin.post("/api/v1/auth/logout", headers={"Idempotency-Key": "k"})
        assert (kept.status_code, kept.get_json()["error"]["code"]) == (503, "SERVICE_UNAVAILABLE")
    assert admin.delete("/api/v1/clusters/x").status_code == 404


@pytest.mark.parametrize(
    ("chunks", "status"),
    [(b"zz\r\n", 400), (b"2\r\n{}xx", 400), (b"10000\r\n" + b"x" * 65536 + b"\r\n", 413)],
)
def test_bodies_in_chunks(served: Served, chunks: bytes, status: int) -> None:
    url = urlsplit(served.url)
    kind = "Content-Type: application/json\r\nTransfer-Encoding: chunked"
    head = f"POST /auth/login HTTP/1.1\r\nHost: x\r\n{kind}\r\n\r\n"
    with socket.create_connection((url.hostname, url.port), timeout=20) as connection:
        connection.sendall(head.encode())
        with suppress(ConnectionError):  # refused before the end
            connection.sendall(chunks * (40 if status == 413 else 1))
        assert connection.recv(12) == f"HTTP/1.1 {status}".encode()


def test_bodies_of_another_type(admin: FlaskClient) -> None:
    answer = admin.post("/api/v1/clusters", data=b"<x/>", headers={"Content-Type": "application/xml"})
    assert (answer.status_code, answer.get_json()["code"]) == (415, "UnsupportedMediaType")
    answer = admin.post("/api/v1/clusters", data=b"{}")
    assert answer.status_code == 415


def test_bodies_that_are_too_large(make_app: Callable[..., Flask]) -> None:
    client = make_app(clusters_api_auth="none", body_limit=2048).test_client()
    fits = client.post("/api/v1/clusters", json={"name": "x" * 1000})
    assert fits.status_code == 400
    for path in ("/api/v1/clusters", "/auth/login"):
        answer = client.post(path, json={"name": "x" * 4000})
        assert answer.status_code == 413
    form = client.post("/auth/login", data={"username": "x" * 4000})
    assert (form.status_code, form.get_json()["code"]) == (413, "BODY_TOO_LARGE")


def test_what_nobody_expected(make_app: Callable[..., Flask], monkeypatch: pytest.MonkeyPatch) -> None:
    app = make_app(clusters_api_auth="none")

    def broken(*_: object) -> None:
        raise ZeroDivisionError("secret of the inside")

    monkeypatch.setattr("pvefleet.clusters.find", broken)
    answer = app.test_client().get("/api/v1/clusters/x")
    assert answer.status_code == 500
    assert answer.get_json() == {"code": "InternalServerError", "message": "Internal server error", "details": None}


def test_health_without_a_database(app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    assert client.get("/health").get_json()["status"] == "healthy"

    def broken(*_: object) -> None:
        raise OperationalError("SELECT 1", {}, Exception("gone"))

    monkeypatch.setattr(app.extensions["pvefleet"].db, "read", broken)
    answer = client.get("/health")
    assert (answer.status_code, answer.get_json()["code"]) == (503, "ServiceUnavailable")


def test_answers_are_not_kept_by_caches(client: FlaskClient) -> None:
    answer = client.get("/health")
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


# ------------------------------------------------------------------ languages


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        (None, "인증이 필요합니다"),
        ("en", "Log in first, or send a bearer token"),
        ("it-IT,it;q=0.9,en;q=0.5", "Accedi prima, o invia un token bearer"),
        ("ja;q=0.2, en-US;q=0.1", "ログインするか、Bearerトークンを送信してください"),
        ("*", "인증이 필요합니다"),
        ("fr", "인증이 필요합니다"),
        (";;;,,q=x", "인증이 필요합니다"),
    ],
)
def test_accept_language(client: FlaskClient, asked: str | None, text: str) -> None:
    headers = {} if asked is None else {"Accept-Language": asked}
    answer = client.get("/api/session", headers=headers).get_json()
    assert (answer["error"], answer["code"]) == (text, "AUTHENTICATION_REQUIRED")


def test_the_four_catalogues_say_the_same() -> None:
    texts = Catalogue.load().texts
    assert set(texts) == set(LANGUAGES) == {"en", "ja", "ko", "it"}
    for language, catalogue in texts.items():
        assert catalogue.keys() == texts["en"].keys(), language
        for message_id, text in catalogue.items():
            assert _fields(text) == _fields(texts["en"][message_id]), (language, message_id)
            assert text.strip(), (language, message_id)


def _fields(text: str) -> set[str]:
    names = {name for _text, name, _format, _conversion in Formatter().parse(text) if name is not None}
    assert all(name.isidentifier() for name in names), text
    return names


# ------------------------------------------------------------------ OpenAPI


def test_the_openapi_file(served: Served) -> None:
    answer = requests.get(served.at("/openapi.json"), timeout=30)
    assert answer.status_code == 200
    document = answer.json()
    assert document["openapi"].startswith("3.")
    assert "http://" not in json.dumps(document.get("servers", ""))
    clusters = document["paths"]["/api/v1/clusters"]
    assert set(clusters) == {"get", "post"}
    assert set(clusters["post"]["responses"]) >= {"201", "400", "default"}
    assert clusters["post"]["security"] == [{"session": []}, {"bearer": []}]
    assert "security" not in document["paths"]["/health"]["get"]
    login = document["paths"]["/auth/login"]["post"]["requestBody"]["content"]
    assert set(login) == {"application/x-www-form-urlencoded", "application/json"}


def test_the_openapi_file_names_the_refusals(client: FlaskClient) -> None:
    described = client.get("/openapi.json").get_json()
    create = described["paths"]["/api/servers"]["post"]["responses"]
    assert {"202", "400", "401", "403", "409", "422", "default"} == set(create)
    assert {"401", "403", "404"} <= set(described["paths"]["/api/servers/{name}"]["get"]["responses"])
    assert {"401", "429"} <= set(described["paths"]["/api/v1/auth/login"]["post"]["responses"])
    assert not {"401", "403"} & set(described["paths"]["/health"]["get"]["responses"])
    assert "task_id" in described["components"]["schemas"]["ServersError"]["properties"]


def test_every_reference_of_the_openapi_file_leads_somewhere(client: FlaskClient) -> None:
    document = client.get("/openapi.json").get_json()
    for reference in set(_references(document)):
        kind, name = reference.removeprefix("#/components/").split("/")
        assert name in document["components"][kind], reference


def _references(part: Any) -> list[str]:
    if isinstance(part, dict):
        own = [part["$ref"]] if isinstance(part.get("$ref"), str) else []
        return own + [reference for value in part.values() for reference in _references(value)]
    return [reference for value in part for reference in _references(value)] if isinstance(part, list) else []
