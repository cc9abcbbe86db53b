# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The service in this process, for most tests, and a really served one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from pvefleet.access.users import create_user
from pvefleet.app import create_app
from pvefleet.config import Settings
from pvefleet.services import Services

from tests.api.served import PASSWORD, Served


@pytest.fixture
def make_app(tmp_path: Path) -> Iterator[Callable[..., Flask]]:
    """Makes an application with its tables; settings other than the defaults are given by name."""
    made: list[Services] = []

    def make(**changes: Any) -> Flask:
        app = create_app(Settings(**{"home": tmp_path / "home", **changes}))
        services: Services = app.extensions["pvefleet"]
        services.db.migrate()
        made.append(services)
        return app

    yield make
    for services in made:
        services.stopping.set()
        services.db.dispose()


@pytest.fixture
def app(make_app: Callable[..., Flask]) -> Flask:
    return make_app()


@pytest.fixture
def services(app: Flask) -> Services:
    made: Services = app.extensions["pvefleet"]
    return made


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """Nobody in particular."""
    return app.test_client()


@pytest.fixture
def add_user(services: Services) -> Callable[..., str]:
    """Makes a user with the tests' password; their name."""

    def add(role: str = "admin", name: str | None = None, **more: Any) -> str:
        with services.db.write() as session:
            return create_user(session, name or role, PASSWORD, role=role, **more).username

    return add


@pytest.fixture
def login(app: Flask, add_user: Callable[..., str]) -> Callable[..., FlaskClient]:
    """A browser with a session of a new user of that role."""

    def log_in(role: str = "admin", name: str | None = None, **more: Any) -> FlaskClient:
        client = app.test_client()
        username = add_user(role, name, **more)
        answer = client.post("/auth/login", json={"username": username, "password": PASSWORD})
        assert answer.status_code == 200, answer.text
        return client

    return log_in


@pytest.fixture
def admin(login: Callable[..., FlaskClient]) -> FlaskClient:
    return login("admin")


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One served application for all tests of a worker; its user is admin."""
    with Served(tmp_path_factory.mktemp("served") / "home", PVEFLEET_LOGIN_RATE="1000/minute") as running:
        yield running
