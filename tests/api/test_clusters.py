# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The clusters family, against a simulated cluster over HTTPS."""

from __future__ import annotations

import json
import re
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from flask import Flask
from flask.testing import FlaskClient
from pvefleet import clusters
from pvefleet.db import now
from pvefleet.db.models import Cluster, Task
from pvefleet.errors import ApiError
from pvefleet.services import Services
from sqlalchemy import select

from tests.api.served import Served
from tests.lab import Lab
from tests.unit.scripted_https import Answer, Request, Script, ScriptedServer

URL = "/api/v1/clusters"
DOCUMENTED = [
    "id",
    "name",
    "api_endpoint",
    "status",
    "proxmox_version",
    "node_count",
    "created_at",
    "updated_at",
]


def body(lab: Lab, name: str = "prod-cluster", **changes: Any) -> dict[str, Any]:
    given = {
        "name": name,
        "api_endpoint": lab.api_endpoint,
        "username": lab.username,
        "password": lab.password,
        "tls_fingerprint": lab.fingerprint,
        **changes,
    }
    return {field: value for field, value in given.items() if value is not None}


def by_token(lab: Lab, **changes: Any) -> dict[str, Any]:
    token = {"username": None, "password": None, "token_id": lab.token_id, "token_secret": lab.token_secret}
    return body(lab, **{**token, **changes})


def register(client: FlaskClient, lab: Lab, name: str = "prod-cluster", **changes: Any) -> dict[str, Any]:
    answer = client.post(URL, json=body(lab, name, **changes))
    assert answer.status_code == 201, answer.text
    return answer.get_json()


@pytest.fixture
def impostor(tmp_path: Path) -> Iterator[ScriptedServer]:
    """Something else than Proxmox VE, until a test gives it another script."""
    server = ScriptedServer(tmp_path / "tls", lambda request: Answer({}))
    yield server
    server.close()


def register_impostor(client: FlaskClient, server: ScriptedServer) -> Any:
    token = {"token_id": "root@pam!x", "token_secret": "s"}
    trusted = {"name": "odd", "api_endpoint": server.url, "tls_fingerprint": server.fingerprint}
    return client.post(URL, json={**token, **trusted})


def like_pve(**others: Any) -> Script:
    """A script with a healthy node, and others by the last part of their path."""
    answers = {"version": {"version": "9.1.7"}, "status": [{"type": "node", "name": "pve1", "online": 1}], **others}

    def script(request: Request) -> Answer:
        return Answer(answers.get(request.path.rpartition("/")[2], []))

    return script


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_register_show_list_remove(admin: FlaskClient, lab_server: Lab) -> None:
    answer = admin.post(URL, json=body(lab_server))
    assert answer.status_code == 201
    cluster = answer.get_json()
    assert list(cluster) == [*DOCUMENTED, "default"]
    assert str(uuid.UUID(cluster["id"])) == cluster["id"]
    assert answer.headers["Location"] == f"{URL}/{cluster['id']}"
    assert cluster["name"] == "prod-cluster"
    assert cluster["api_endpoint"] == lab_server.api_endpoint
    assert cluster["status"] == "healthy"
    assert cluster["node_count"] == 2
    assert re.fullmatch(r"\d+\.\d+.*", cluster["proxmox_version"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", cluster["created_at"])
    assert cluster["updated_at"] == cluster["created_at"]
    assert cluster["default"] is True

    assert admin.get(f"{URL}/{cluster['id']}").get_json() == cluster
    assert admin.get(URL).get_json() == {"clusters": [cluster], "total": 1}
    gone = admin.delete(f"{URL}/{cluster['id']}")
    assert (gone.status_code, gone.data) == (204, b"")
    assert admin.get(URL).get_json() == {"clusters": [], "total": 0}
    for missing in (admin.get(f"{URL}/{cluster['id']}"), admin.delete(f"{URL}/{cluster['id']}")):
        assert missing.status_code == 404
        assert missing.get_json() == {"code": "NotFound", "message": "Cluster not found", "details": None}


@pytest.mark.parametrize(
    ("changes", "details"),
    [
        ({"name": None}, {"name": "Cluster name is required"}),
        ({"password": None}, {"password": "Password is required"}),
        ({"name": ""}, {"name": "Cluster name must be 1 to 255 printable characters, without blanks around"}),
        ({"name": "x" * 256}, {"name": "Cluster name must be 1 to 255 printable characters, without blanks around"}),
        ({"name": "a\nb"}, {"name": "Cluster name must be 1 to 255 printable characters, without blanks around"}),
        ({"name": 7}, {"name": "Cluster name must be a text"}),
        ({"surprise": 1}, {"surprise": "surprise is not known here"}),
        (
            {"api_endpoint": "http://pve:8006"},
            {"api_endpoint": "API endpoint: 'http://pve:8006' must be reached by https, Proxmox VE has nothing else"},
        ),
    ],
)
def test_bodies_are_refused_with_a_message_per_field(
    admin: FlaskClient, lab_server: Lab, changes: dict[str, Any], details: dict[str, str]
) -> None:
    answer = admin.post(URL, json=body(lab_server, **changes))
    assert answer.status_code == 400
    assert answer.get_json() == {"code": "BadRequest", "message": "; ".join(details.values()), "details": details}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"api_endpoint": "https://root:hunter2@pve:8006"}, "api_endpoint"),
        ({"api_endpoint": "https://pve:8006/api2"}, "api_endpoint"),
        ({"api_endpoint": "https://pve:99999"}, "api_endpoint"),
        ({"api_endpoint": "https://"}, "api_endpoint"),
        ({"api_endpoint": "file:///etc/passwd"}, "api_endpoint"),
        ({"username": "root"}, "username"),
        ({"tls_fingerprint": "AA:BB"}, "tls_fingerprint"),
        ({"tls_fingerprint": None, "ca_pem": "no certificate"}, "ca_pem"),
        ({"tls_fingerprint": None, "ca_pem": "\u00e9"}, "ca_pem"),
        ({"token_id": "root@pam!x"}, "token_secret"),
        ({"password": None, "token_id": "x", "token_secret": "y", "username": None}, "username"),
        ({"token_id": "root@pam!x", "token_secret": "y"}, "body"),
        ({"default": "perhaps"}, "default"),
    ],
)
def test_the_field_that_is_wrong_is_named(
    admin: FlaskClient, lab_server: Lab, changes: dict[str, Any], field: str
) -> None:
    answer = admin.post(URL, json=body(lab_server, **changes))
    assert answer.status_code == 400
    assert list(answer.get_json()["details"]) == [field]
    assert lab_server.password not in answer.text
    assert "hunter2" not in answer.text


def test_a_password_that_is_no_text_is_refused(admin: FlaskClient, lab_server: Lab) -> None:
    escaped = json.dumps(body(lab_server, password="\ud800"))  # the test client could not encode it
    answer = admin.post(URL, data=escaped, content_type="application/json")
    assert answer.status_code == 400
    assert list(answer.get_json()["details"]) == ["password"]


def test_an_empty_body_names_every_missing_field(admin: FlaskClient) -> None:
    for answer in (admin.post(URL), admin.post(URL, json={})):
        assert answer.status_code == 400
        assert set(answer.get_json()["details"]) == {"name", "api_endpoint", "username", "password"}


def test_the_order_of_checks(admin: FlaskClient, lab_server: Lab) -> None:
    """Body, name, connection, login: of several things that are wrong the first is told."""
    register(admin, lab_server)
    nowhere = f"https://127.0.0.1:{closed_port()}"
    bad = {"api_endpoint": nowhere, "password": "wrong"}
    assert admin.post(URL, json=body(lab_server, username="root", **bad)).status_code == 400
    taken = admin.post(URL, json=body(lab_server, **bad))
    assert taken.status_code == 409
    assert taken.get_json() == {"code": "Conflict", "message": "Cluster already exists", "details": None}
    nobody_there = admin.post(URL, json=body(lab_server, "other", **bad))
    assert nobody_there.status_code == 502
    assert nobody_there.get_json()["code"] == "BadGateway"
    assert nobody_there.get_json()["message"] == "Failed to connect to Proxmox"
    assert "connection refused" in nobody_there.get_json()["details"]["reason"]
    refused = admin.post(URL, json=body(lab_server, "other", password="wrong"))
    assert refused.status_code == 401
    assert refused.get_json() == {"code": "Unauthorized", "message": "Authentication failed", "details": None}
    assert admin.get(URL).get_json()["total"] == 1


def test_a_certificate_that_is_not_trusted_is_no_connection(admin: FlaskClient, lab_server: Lab) -> None:
    mark = len(lab_server.requests)
    for trust in ({"tls_fingerprint": None}, {"tls_fingerprint": "00" * 32}):
        answer = admin.post(URL, json=body(lab_server, **trust))
        assert answer.status_code == 502
        assert "certificate" in answer.get_json()["details"]["reason"]
    assert lab_server.count_since(mark) == 0, "the password was sent to somebody who is not trusted"


def test_something_else_than_proxmox_is_no_connection(admin: FlaskClient, impostor: ScriptedServer) -> None:
    for script in (impostor.script, like_pve(status=[None]), lambda request: Answer(body=b"[" * 20_000)):
        impostor.script = script
        answer = register_impostor(admin, impostor)
        assert answer.status_code == 502, answer.text
        assert "an answer that is not Proxmox VE's" in answer.get_json()["details"]["reason"]
    assert admin.get(URL).get_json()["total"] == 0


@pytest.mark.parametrize(
    "rows",
    [
        None,
        "x",
        [None],
        [{}],
        [{"type": "qemu"}],
        [{"type": "qemu", "node": "pve1", "vmid": "x", "name": "y"}],
        [{"type": "qemu", "node": ["pve1"], "vmid": 10**30, "name": "y"}],
    ],
)
def test_an_odd_listing_does_not_undo_a_registration(
    admin: FlaskClient, impostor: ScriptedServer, rows: Any, caplog: pytest.LogCaptureFixture
) -> None:
    impostor.script = like_pve(resources=rows)
    answer = register_impostor(admin, impostor)
    assert answer.status_code == 201, answer.text
    assert "Unable to list the servers of cluster odd" in caplog.text
    assert admin.get(URL).get_json()["total"] == 1


def test_odd_rows_are_a_bad_gateway(admin: FlaskClient, impostor: ScriptedServer) -> None:
    impostor.script = like_pve()
    where = f"{URL}/{register_impostor(admin, impostor).get_json()['id']}"
    impostor.script = like_pve(nodes=[{"node": "pve1", "maxcpu": "q"}], resources={"a": 1}, list=[7])
    for part in ("nodes", "resources"):
        assert admin.get(f"{where}/{part}").status_code == 502
    assert "not Proxmox VE's" in admin.get(f"{where}/disks").get_json()["errors"]["pve1"]


def test_trust_by_a_ca(admin: FlaskClient, lab_server: Lab) -> None:
    pem = Path(lab_server.ca_file).read_text()
    assert register(admin, lab_server, tls_fingerprint=None, ca_pem=pem)["status"] == "healthy"


def test_register_by_token(admin: FlaskClient, lab_server: Lab) -> None:
    assert admin.post(URL, json=by_token(lab_server, name="full")).status_code == 201
    bare = by_token(lab_server, name="bare", token_id=lab_server.token_id.partition("!")[2], username="root@pam")
    assert admin.post(URL, json=bare).status_code == 201
    wrong = admin.post(URL, json=by_token(lab_server, name="wrong", token_secret="0" * 32))
    assert wrong.status_code == 401


def test_parallel_registrations_of_one_name(served: Served, lab_server: Lab) -> None:
    admin = served.login()
    cookies = dict(admin.cookies)
    statuses: list[int] = []
    together = threading.Barrier(6)

    def ask() -> None:
        together.wait()
        answer = requests.post(served.at(URL), json=body(lab_server, "race"), cookies=cookies, timeout=60)
        statuses.append(answer.status_code)

    threads = [threading.Thread(target=ask) for _time in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [201, 409, 409, 409, 409, 409]
    found = [row for row in admin.get(served.at(URL), timeout=30).json()["clusters"] if row["name"] == "race"]
    assert len(found) == 1
    assert admin.delete(served.at(f"{URL}/{found[0]['id']}"), timeout=30).status_code == 204


def test_credentials_never_come_back_and_are_encrypted(admin: FlaskClient, services: Services, lab_server: Lab) -> None:
    cluster = register(admin, lab_server)
    where = f"{URL}/{cluster['id']}"
    shown = [admin.get(URL), admin.get(where), admin.post(f"{where}/check"), admin.get(f"{where}/nodes")]
    for answer in shown:
        assert answer.status_code == 200
        assert lab_server.password not in answer.text
        assert "password" not in answer.text
    for file in services.settings.home.iterdir():
        assert lab_server.password.encode() not in file.read_bytes(), file
    with services.db.read() as session:
        assert services.connection(session.scalars(select(Cluster)).one()).password == lab_server.password


def test_the_default_cluster(admin: FlaskClient, lab_server: Lab, services: Services) -> None:
    first, second = register(admin, lab_server, "first"), register(admin, lab_server, "second")
    assert (first["default"], second["default"]) == (True, False)
    third = register(admin, lab_server, "third", default=True)
    assert third["default"] is True
    assert admin.patch(f"{URL}/{second['id']}", json={"default": True}).get_json()["default"] is True
    assert [row["default"] for row in admin.get(URL).get_json()["clusters"]] == [False, True, False]
    with services.db.read() as session:
        assert clusters.choose(session, None).name == "second"
        assert clusters.choose(session, "third").name == "third"
        with pytest.raises(ApiError, match="no_such_cluster"):
            clusters.choose(session, "fourth")
    admin.delete(f"{URL}/{second['id']}")
    with services.db.read() as session, pytest.raises(ApiError, match="which_cluster") as refused:
        clusters.choose(session, None)
    assert refused.value.details == {"clusters": ["first", "third"]}
    admin.delete(f"{URL}/{first['id']}")
    with services.db.read() as session:
        assert clusters.choose(session, None).name == "third"
    admin.delete(f"{URL}/{third['id']}")
    with services.db.read() as session, pytest.raises(ApiError, match="no_cluster"):
        clusters.choose(session, None)


def test_the_list_has_pages(admin: FlaskClient, lab_server: Lab) -> None:
    for name in ("c", "a", "b"):
        register(admin, lab_server, name)
    page = admin.get(f"{URL}?page=2&per_page=2").get_json()
    assert [row["name"] for row in page["clusters"]] == ["c"]
    assert page["total"] == 3
    for query in ("page=0", "per_page=201", "per_page=x", "page=99999999999999999999", "colour=red"):
        assert admin.get(f"{URL}?{query}").status_code == 400


def test_patch_tries_what_it_is_given(admin: FlaskClient, lab_server: Lab, services: Services) -> None:
    cluster = register(admin, lab_server)
    where = f"{URL}/{cluster['id']}"

    def stored() -> Any:
        with services.db.read() as session:
            return services.connection(session.scalars(select(Cluster)).one())

    assert admin.patch(where, json={"password": "wrong"}).status_code == 401
    assert stored().password == lab_server.password
    assert admin.patch(where, json={"api_endpoint": f"https://127.0.0.1:{closed_port()}"}).status_code == 502
    assert stored().endpoints == (lab_server.api_endpoint,)

    token = {"token_id": lab_server.token_id, "token_secret": lab_server.token_secret}
    assert admin.patch(where, json=token).status_code == 200
    assert (stored().password, stored().token_secret) == (None, lab_server.token_secret)
    again = {"username": lab_server.username, "password": lab_server.password}
    assert admin.patch(where, json=again).status_code == 200
    assert (stored().password, stored().token_id, stored().token_secret) == (lab_server.password, None, None)

    pem = Path(lab_server.ca_file).read_text()
    assert admin.patch(where, json={"ca_pem": pem}).status_code == 200
    assert (stored().tls_fingerprint, stored().ca_pem) == (None, pem)
    assert admin.patch(where, json={"ca_pem": None}).status_code == 502, "without trust there is no connection"

    assert admin.patch(where, json={}).status_code == 400
    assert admin.patch(where, json={"name": "other"}).status_code == 400
    assert admin.patch(where, json={"default": False}).status_code == 400
    assert admin.patch(f"{URL}/{uuid.uuid4()}", json={"default": True}).status_code == 404


def test_status_is_measured(admin: FlaskClient, lab: Lab) -> None:
    cluster = register(admin, lab)
    where = f"{URL}/{cluster['id']}"
    lab.do(lab.pve.set_node_offline, lab.nodes[1])
    seen = admin.post(f"{where}/check").get_json()
    assert (seen["status"], seen["node_count"]) == ("degraded", 2)
    assert seen["status_reason"] == f"offline: {lab.nodes[1]}"
    assert admin.get(where).get_json() == seen
    lab.do(lab.pve.lose_quorum)
    assert admin.post(f"{where}/check").get_json()["status"] == "unhealthy"


def test_a_cluster_that_nobody_reaches_is_unknown(admin: FlaskClient) -> None:
    with Lab(time_scale=0.01) as lab:
        cluster = register(admin, lab)
    where = f"{URL}/{cluster['id']}"
    seen = admin.post(f"{where}/check").get_json()
    assert seen["status"] == "unknown"
    assert (seen["proxmox_version"], seen["node_count"]) == (cluster["proxmox_version"], 2)
    for part in ("nodes", "disks", "resources"):
        answer = admin.get(f"{where}/{part}")
        assert answer.status_code == 502
        assert answer.get_json()["code"] == "BadGateway"


def test_updated_at_moves_only_when_something_is_new(services: Services, lab_server: Lab) -> None:
    found = clusters.measure(lab_server.connection())
    row = Cluster(name="x", status="unknown")
    assert clusters.record(row, found) is True
    moved, checked = row.updated_at, row.checked_at
    assert clusters.record(row, found) is False
    assert row.updated_at == moved
    assert row.checked_at is not None
    assert checked is not None
    assert row.checked_at > checked


def test_nodes_disks_resources(admin: FlaskClient, lab_server: Lab) -> None:
    where = f"{URL}/{register(admin, lab_server)['id']}"
    nodes = admin.get(f"{where}/nodes").get_json()
    assert nodes["total"] == 2
    assert [node["name"] for node in nodes["nodes"]] == lab_server.nodes
    assert all(node["status"] == "online" and node["memory"] > 0 and node["cpus"] > 0 for node in nodes["nodes"])
    disks = admin.get(f"{where}/disks").get_json()
    assert disks["total"] == len(disks["disks"])
    assert {disk["node"] for disk in disks["disks"]} | set(disks["errors"]) <= set(lab_server.nodes)
    vms = admin.get(f"{where}/resources?type=vm").get_json()
    assert lab_server.template_vmid in [row["vmid"] for row in vms["resources"]]
    every = admin.get(f"{where}/resources?per_page=200").get_json()
    assert {row["type"] for row in every["resources"]} >= {"qemu", "node", "storage"}
    part = admin.get(f"{where}/resources?page=2&per_page=1").get_json()
    assert part["resources"] == every["resources"][1:2]
    assert part["total"] == every["total"]
    assert admin.get(f"{where}/resources?type=../../access").status_code == 400


def test_a_cluster_with_unfinished_tasks_stays(admin: FlaskClient, lab_server: Lab, services: Services) -> None:
    cluster = register(admin, lab_server)
    moment = now()
    with services.db.write() as session:
        task = Task(
            id="task-1",
            operation="create_server",
            title="x",
            status="running",
            cluster_id=cluster["id"],
            parameters={},
            created_at=moment,
            updated_at=moment,
            deadline_seconds=60,
        )
        session.add(task)
    refused = admin.delete(f"{URL}/{cluster['id']}")
    assert refused.status_code == 409
    assert refused.get_json()["details"] == {"task_id": "task-1"}
    where = f"{URL}/{cluster['id']}"
    elsewhere = {"api_endpoint": lab_server.api_endpoint.replace("127.0.0.1", "localhost")}
    assert admin.patch(where, json=elsewhere).get_json()["message"] == "Cluster has unfinished tasks"
    assert admin.get(where).get_json()["api_endpoint"] == lab_server.api_endpoint
    rotated = {"api_endpoint": lab_server.api_endpoint, "password": lab_server.password}
    assert admin.patch(where, json=rotated).status_code == 200
    with services.db.write() as session:
        session.get_one(Task, "task-1").status = "completed"
    assert admin.patch(where, json=elsewhere).status_code == 200
    assert admin.delete(f"{URL}/{cluster['id']}").status_code == 204


def test_the_answer_is_described(admin: FlaskClient, lab: Lab) -> None:
    lab.do(lab.pve.set_node_offline, lab.nodes[1])
    cluster = register(admin, lab)
    assert (cluster["status"], cluster["status_reason"]) == ("degraded", f"offline: {lab.nodes[1]}")
    described = admin.get("/openapi.json").get_json()["components"]["schemas"]["ClusterAnswer"]["properties"]
    assert list(cluster) == list(described)


def test_permissions(login: Callable[..., FlaskClient], client: FlaskClient, lab_server: Lab) -> None:
    viewer, agent = login("viewer"), login("agent")
    assert viewer.get(URL).status_code == 200
    for refused in (
        viewer.post(URL, json=body(lab_server)),
        viewer.delete(f"{URL}/x"),
        viewer.patch(f"{URL}/x", json={"default": True}),
        viewer.post(f"{URL}/x/check"),
        agent.get(URL),
        agent.get(f"{URL}/x/nodes"),
    ):
        assert refused.status_code == 403
        assert refused.get_json()["code"] == "Forbidden"
    for closed in (client.get(URL), client.post(URL, json=body(lab_server)), client.delete(f"{URL}/x")):
        assert closed.status_code == 401
        assert closed.get_json()["code"] == "Unauthorized"


def test_without_login_where_it_was_asked_for(make_app: Callable[..., Flask], lab_server: Lab) -> None:
    client = make_app(clusters_api_auth="none").test_client()
    cluster = register(client, lab_server)
    assert client.get(URL).get_json()["total"] == 1
    assert client.get("/api/session").status_code == 401, "the other families still ask"
    # A page whose own name was made to mean 127.0.0.1 shares our address, not our name.
    assert client.get(URL, headers={"Host": "rebound.example.com"}).status_code == 401
    foreign = client.delete(f"{URL}/{cluster['id']}", headers={"Origin": "https://evil.example.com"})
    assert foreign.status_code == 403
    assert client.delete(f"{URL}/{cluster['id']}").status_code == 204
