# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

"""Who may come in, and through which certificate."""

from __future__ import annotations

import hashlib
import ssl
from typing import Any

import pytest
import requests

from tests.lab import Lab

from .api import Api


@pytest.fixture
def login(lab: Lab) -> Any:
    def ticket(username: str, password: str) -> requests.Response:
        session = requests.Session()
        session.trust_env = False
        credentials = {"username": username, "password": password}
        return session.post(f"{lab.api_endpoint}/api2/json/access/ticket", data=credentials, verify=lab.ca_file)

    return ticket


@pytest.fixture
def plain(lab: Lab) -> requests.Session:
    session = requests.Session()
    session.trust_env = False
    session.verify = lab.ca_file
    return session


def test_a_ticket_writes_only_with_its_csrf_token(lab: Lab, login: Any, plain: requests.Session) -> None:
    data = login(lab.username, lab.password).json()["data"]
    plain.cookies.set("PVEAuthCookie", data["ticket"])
    where = f"{lab.api_endpoint}/api2/json"
    assert plain.get(f"{where}/version").status_code == 200
    assert plain.post(f"{where}/pools", json={"poolid": "a"}).status_code == 401
    plain.headers["CSRFPreventionToken"] = data["CSRFPreventionToken"]
    assert plain.post(f"{where}/pools", json={"poolid": "a"}).status_code == 200
    lab.do(lab.pve.revoke_tickets)
    assert plain.get(f"{where}/version").status_code == 401


def test_a_ticket_is_renewed_by_itself(lab: Lab, login: Any) -> None:
    ticket = login(lab.username, lab.password).json()["data"]["ticket"]
    assert login(lab.username, ticket).status_code == 200
    assert login(lab.auditor, ticket).status_code == 401


def test_wrong_credentials(lab: Lab, login: Any, plain: requests.Session) -> None:
    refused = login(lab.username, "wrong")
    assert (refused.status_code, refused.json()["message"]) == (401, "authentication failure\n")
    for headers in ({}, {"Authorization": f"PVEAPIToken={lab.token_id}=wrong"}):
        answer = plain.get(f"{lab.api_endpoint}/api2/json/version", headers=headers)
        assert (answer.status_code, answer.content) == (401, b"")
        assert answer.headers["Connection"] == "close"


def test_an_auditor_reads_and_does_not_write(lab: Lab, login: Any, api: Api) -> None:
    data = login(lab.auditor, lab.auditor_password).json()["data"]
    del api.session.headers["Authorization"]
    api.session.cookies.set("PVEAuthCookie", data["ticket"])
    api.session.headers["CSRFPreventionToken"] = data["CSRFPreventionToken"]
    assert api.row(9000)["name"] == "debian-12-cloud"
    assert api.config(9000)["cores"] == 2
    for method, path, params in (
        ("PUT", api.vm(9000, "/config"), {"cores": 1}),
        ("POST", api.vm(9000, "/clone"), {"newid": 100}),
        ("POST", "/nodes/pve1/qemu", {"vmid": 100}),
        ("POST", api.vm(9000, "/status/start"), {}),
        ("PUT", api.vm(9000, "/resize"), {"disk": "scsi0", "size": "+1G"}),
        ("DELETE", api.vm(9000), {}),
    ):
        assert api.refused(method, path, **params).status == 403, path


@pytest.mark.lab(users={"nobody@pve": "secret"})
def test_a_user_without_rights_sees_nothing(lab: Lab, api: Api) -> None:
    lab.do(lab.pve.acl.pop, "nobody@pve")
    lab.do(lab.pve.add_token, "nobody@pve!t", "s")
    api.session.headers["Authorization"] = "PVEAPIToken=nobody@pve!t=s"
    assert api.get("/cluster/resources", type="vm") == []
    assert api.get("/storage") == []


def test_the_fingerprint_is_the_servers_not_the_cas(lab: Lab) -> None:
    pem = ssl.get_server_certificate(("127.0.0.1", lab.port))
    digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest().upper()
    assert lab.fingerprint == ":".join(digest[i : i + 2] for i in range(0, 64, 2))
    with open(lab.ca_file) as ca:
        assert ca.read() != pem


def test_the_collections_own_client_gets_in(lab: Lab) -> None:
    from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import PveClient

    assert PveClient(lab.connection()).get("/version")["version"] == "9.1.7"
    by_password = lab.connection(
        token_id=None, token_secret=None, password=lab.password, ca_path=None, tls_fingerprint=lab.fingerprint
    )
    assert PveClient(by_password).get("/version")["version"] == "9.1.7"
