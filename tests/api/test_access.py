# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who gets in, what is kept secret, and where the service may connect to."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from flask import Flask, Response, request
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st
from pvefleet import app as application
from pvefleet import dialects
from pvefleet.access import network, users
from pvefleet.access.limits import client_address
from pvefleet.access.permissions import PERMISSIONS, ROLES
from pvefleet.access.vault import Keys, Vault, VaultError, load_keys
from pvefleet.config import Settings, SettingsError
from pvefleet.families import Family
from pvefleet.services import Services

from tests.api.test_clusters import URL, body, register
from tests.lab import Lab

OPEN_PATHS = {"/auth/login", "/api/v1/auth/login", "/api/v1/auth/refresh", "/health", "/api/v1/health", "/openapi.json"}


# ------------------------------------------------------------------ routes


def test_every_route_but_the_open_ones_wants_a_login(app: Flask, client: FlaskClient) -> None:
    seen = set()
    for rule in app.url_map.iter_rules():
        path = rule.rule.replace("<", "").replace(">", "")
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
            seen.add(path)
            status = client.open(path, method=method).status_code
            assert (status == 401) == (path not in OPEN_PATHS), (method, path, status)
    assert seen >= OPEN_PATHS


def test_a_route_without_a_permission_cannot_be_registered() -> None:
    family = Family("x", "/x", dialect=dialects.SERVERS)

    def view() -> Response:
        return family.answer({})

    with pytest.raises(TypeError, match="permission"):
        family.get("/y")(view)  # type: ignore[call-arg]  # pylint: disable=missing-kwoa
    with pytest.raises(ValueError, match="no permission 'fly'"):
        family.get("/y", permission="fly")(view)


def test_an_application_with_an_undeclared_route_is_not_made(
    make_app: Callable[..., Flask], monkeypatch: pytest.MonkeyPatch
) -> None:
    family = Family("x", "/x", dialect=dialects.SERVERS)
    family.get("", permission="view_all")(lambda_view)
    family.permissions.clear()
    monkeypatch.setattr(application, "FAMILIES", (*application.FAMILIES, family))
    with pytest.raises(RuntimeError, match=r"without a declared permission: x\.lambda_view"):
        make_app()


def lambda_view() -> Response:
    return Response()


def test_roles_are_the_contracts() -> None:
    assert set(ROLES) == {"admin", "developer", "operator", "viewer", "agent"}
    assert ROLES["admin"] == PERMISSIONS
    assert ROLES["agent"] == {"report_tasks"}
    assert all(permissions <= PERMISSIONS for permissions in ROLES.values())


def test_permissions_of_ones_own_come_on_top(login: Callable[..., FlaskClient], lab_server: Lab) -> None:
    client = login("viewer", permissions=frozenset({"manage_clusters"}))
    assert client.post(URL, json=body(lab_server)).status_code == 201


# ------------------------------------------------------------------ users


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"username": "a b"}, "letters, digits"),
        ({"username": ""}, "letters, digits"),
        ({"username": "../x"}, "letters, digits"),
        ({"password": "short"}, "8 to 1024"),
        ({"password": "x" * 1025}, "8 to 1024"),
        ({"role": "god"}, "no role 'god'"),
        ({"permissions": frozenset({"fly"})}, "no permission 'fly'"),
        ({"username": "taken"}, "a user taken already"),
    ],
)
def test_users_that_cannot_be(services: Services, changes: dict[str, Any], message: str) -> None:
    with services.db.write() as session:
        users.create_user(session, "taken", "a password", role="viewer")
    values = {"username": "new", "password": "a password", "role": "viewer", **changes}
    with services.db.write() as session, pytest.raises(users.UserError, match=message):
        users.create_user(session, values.pop("username"), values.pop("password"), **values)


# ------------------------------------------------------------------ vault


@given(st.dictionaries(st.text(max_size=20), st.none() | st.text(max_size=50), max_size=5))
def test_what_is_encrypted_comes_back(secret: dict[str, Any]) -> None:
    old, new = Fernet.generate_key(), Fernet.generate_key()
    sealed = Vault(Keys([old])).encrypt(secret)
    assert Vault(Keys([new, old])).decrypt(sealed) == secret
    with pytest.raises(VaultError):
        Vault(Keys([new])).decrypt(sealed)


def test_the_key_file(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    load_keys(settings)
    assert settings.key_file.stat().st_mode & 0o777 == 0o600
    first = settings.key_file.read_text()
    load_keys(settings)
    assert settings.key_file.read_text() == first
    assert os.listdir(tmp_path) == ["secret.key"]

    settings.key_file.chmod(0o644)
    with pytest.raises(SettingsError, match="chmod 600"):
        load_keys(settings)
    settings.key_file.chmod(0o600)
    for broken in ("", "# only a comment\n", "nonsense\n", first + "nonsense\n"):
        settings.key_file.write_text(broken)
        with pytest.raises(SettingsError, match="must hold Fernet keys"):
            load_keys(settings)
    # whose file is this? Nobody should make it unreadable for others
    settings.key_file.write_bytes(b"root:x:0:0\n\xff\n")
    settings.key_file.chmod(0o644)
    with pytest.raises(SettingsError, match="must hold Fernet keys"):
        load_keys(settings)


def test_a_new_key_before_the_old_one_keeps_sessions_and_credentials(
    make_app: Callable[..., Flask], tmp_path: Path, lab_server: Lab
) -> None:
    home = tmp_path / "rotated"
    app = make_app(home=home)
    services: Services = app.extensions["pvefleet"]
    with services.db.write() as session:
        users.create_user(session, "admin", "a password", role="admin")
    client = app.test_client()
    client.post("/auth/login", json={"username": "admin", "password": "a password"})
    cluster = register(client, lab_server)
    cookie = client.get_cookie("session")
    assert cookie is not None

    key_file = home / "secret.key"
    old = key_file.read_text()
    key_file.write_text(Fernet.generate_key().decode() + "\n" + old)
    rotated = make_app(home=home).test_client()
    rotated.set_cookie("session", cookie.value)
    assert rotated.get("/api/session").status_code == 200
    assert rotated.post(f"{URL}/{cluster['id']}/check").get_json()["status"] == "healthy"

    key_file.write_text(Fernet.generate_key().decode() + "\n")
    changed = make_app(home=home).test_client()
    changed.set_cookie("session", cookie.value)
    assert changed.get("/api/session").status_code == 401
    changed.post("/auth/login", json={"username": "admin", "password": "a password"})
    lost = changed.post(f"{URL}/{cluster['id']}/check")
    assert lost.status_code == 500
    assert lost.get_json()["message"] == "Stored credentials cannot be read: the service's key was changed"


# ------------------------------------------------------------------ network

FORBIDDEN = [
    "169.254.169.254",
    "169.254.0.1",
    "fe80::1",
    "fe80::1%eth0",
    "fd00:ec2::254",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::1",
    "100.100.100.200",
    "192.0.0.192",
    "168.63.129.16",
    "0.0.0.0",
    "::",
    "224.0.0.1",
    "ff02::1",
]


@pytest.mark.parametrize("address", FORBIDDEN)
def test_addresses_that_are_never_connected_to(address: str) -> None:
    with pytest.raises(network.AddressRefused):
        network.check_address(address, ())


@pytest.mark.parametrize(
    "address", ["10.0.0.5", "192.168.1.10", "127.0.0.1", "::1", "8.8.8.8", "fd12::5", "2001:db8::1"]
)
def test_addresses_of_clusters(address: str) -> None:
    network.check_address(address, ())


@given(st.ip_addresses())
def test_only_allowed_networks_when_there_are_some(address: network.Address) -> None:
    allowed = (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd12::/16"))
    inside = any(address in net for net in allowed)
    try:
        network.check_address(str(address), allowed)
    except network.AddressRefused:
        assert not inside
    else:
        assert inside


@pytest.mark.parametrize(
    "endpoint",
    [
        "https://169.254.169.254",
        "https://[fe80::1]:8006",
        "https://[fd00:ec2::254]:8006",
        "https://2852039166:8006",
        "https://0xa9fea9fe",
        "https://0251.0376.0251.0376",
        "https://[::ffff:169.254.169.254]",
    ],
)
def test_no_spelling_of_a_metadata_address_is_registered(admin: FlaskClient, lab_server: Lab, endpoint: str) -> None:
    answer = admin.post(URL, json=body(lab_server, api_endpoint=endpoint))
    assert answer.status_code == 400
    assert "is not an allowed address" in answer.get_json()["details"]["api_endpoint"]


def test_a_cluster_cannot_move_there_either(admin: FlaskClient, lab_server: Lab) -> None:
    cluster = register(admin, lab_server)
    answer = admin.patch(f"{URL}/{cluster['id']}", json={"api_endpoint": "https://169.254.169.254"})
    assert answer.status_code == 400


def test_the_allow_list(make_app: Callable[..., Flask], lab_server: Lab) -> None:
    def status(networks: str) -> int:
        client = make_app(clusters_api_auth="none", allowed_networks=networks).test_client()
        return client.post(URL, json=body(lab_server)).status_code

    assert status("10.0.0.0/8, fd12::/16") == 400
    assert status("10.0.0.0/8,127.0.0.0/8") == 201


# ------------------------------------------------------------------ limits


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::1", "::/64"),
        ("198.51.100.7:5678", "198.51.100.7"),
        ("[2001:db8::1]:80", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("unknown", "unknown"),
        ("_hidden", "_hidden"),
    ],
)
def test_clients_are_told_apart_by_what_they_cannot_choose(app: Flask, address: str, counted: str) -> None:
    with app.test_request_context(environ_base={"REMOTE_ADDR": address}):
        assert client_address() == counted


@pytest.mark.parametrize(("hops", "seen"), [(0, "127.0.0.1"), (1, "203.0.113.9"), (2, "198.51.100.1")])
def test_only_declared_proxies_are_believed(make_app: Callable[..., Flask], hops: int, seen: str) -> None:
    app = make_app(proxy_hops=hops)
    addresses = []
    app.before_request_funcs.setdefault(None, []).insert(0, lambda: addresses.append(request.remote_addr))
    app.test_client().get("/health", "/api/v1/health", headers={"X-Forwarded-For": "198.51.100.1, 203.0.113.9"})
    assert addresses == [seen]
