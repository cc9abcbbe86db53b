# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The servers routes on a snapshot of our own: shapes, refusals, and what becomes of a body."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.guest import MARKER
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server_spec import server_spec
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pvefleet.access.users import create_user
from pvefleet.db import now
from pvefleet.db.models import Cluster, Guest, IdempotentAnswer, Task, TaskSecret
from pvefleet.services import Services
from pvefleet.tasks import store
from sqlalchemy import delete, select

from tests.api.served import PASSWORD as LOGIN

URL = "/api/servers"
PASSWORD = "marked-password-of-a-guest"
SSH_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJb5ZOqxyVkVuZ1R7Y4hlqsdQG6A7vPQ0c2bG0R3yK1d ops@example"

# As the document prints it.
DOCUMENTED = {
    "name": "web-server-03",
    "cpu": 4,
    "memory": 8192,
    "role": "web",
    "ip_address": "192.168.1.103",
    "disks": [{"size": 100, "interface": "scsi0", "datastore_id": "local-lvm", "disk_type": "ssd"}],
    "network_devices": [
        {"bridge": "vmbr0", "ip_address": "192.168.1.103", "subnet": "24", "gateway": "192.168.1.1"}
    ],
    "template_vm_id": 9000,
    "vm_username": "rocky",
    "vm_password": PASSWORD,
}


def add_cluster(services: Services, name: str = "prod", *, default: bool = True) -> str:
    """A registered cluster that nobody can reach."""
    moment = now()
    secret = {"user": "root@pam", "password": "none", "token_id": None, "token_secret": None}
    row = Cluster(
        id=str(uuid.uuid4()),
        name=name,
        api_endpoint="https://127.0.0.1:9",
        credentials=services.vault.encrypt({**secret, "tls_fingerprint": None, "ca_pem": None}),
        is_default=default,
        status="healthy",
        created_at=moment,
        updated_at=moment,
    )
    with services.db.write() as session:
        session.add(row)
    return row.id


def add_guest(services: Services, cluster_id: str, vmid: int, name: str | None, **changes: Any) -> None:
    moment = now()
    config = {"name": name, "cores": 2, "memory": "4096", "scsi0": "local:100/disk.raw,size=8G"}
    config |= changes.pop("config", {})
    detail = {"config": config, "tags": ["role-web"], "ip_addresses": ["192.168.1.100"], "pending": []}
    given = {"node": "pve1", "status": "running", "template": False, **changes}
    with services.db.write() as session:
        session.add(
            Guest(
                cluster_id=cluster_id,
                vmid=vmid,
                name=name,
                resource={},
                detail=detail,
                first_seen_at=datetime(2024, 1, 1, tzinfo=UTC),
                changed_at=moment,
                detailed_at=moment,
                **given,
            )
        )


@pytest.fixture
def cluster(services: Services) -> str:
    """A cluster with a template and the document's server."""
    cluster_id = add_cluster(services)
    add_guest(services, cluster_id, 9000, "rocky-9", template=True, status="stopped")
    add_guest(services, cluster_id, 101, "web-server-01")
    return cluster_id


def task_of(services: Services, task_id: str) -> Task:
    with services.db.read() as session:
        return session.get_one(Task, task_id)


def finish(services: Services, task_id: str, status: str = store.COMPLETED) -> None:
    with services.db.write() as session:
        store.start(session, task_id)
        store.finish(session, task_id, status)


def tasks(services: Services) -> list[Task]:
    with services.db.read() as session:
        return list(session.scalars(select(Task)))


def test_the_list_is_what_the_document_prints(admin: FlaskClient, cluster: str) -> None:
    answer = admin.get(URL)
    assert answer.status_code == 200
    assert answer.json == {
        "success": True,
        "servers": {
            "web-server-01": {
                "name": "web-server-01",
                "vmid": 101,
                "status": "running",
                "cpu": 2,
                "memory": 4096,
                "ip_addresses": ["192.168.1.100"],
                "role": "web",
                "created_at": "2024-01-01T00:00:00Z",
            }
        },
        "page": 1,
        "per_page": 20,
        "total": 1,
    }


def test_a_server_was_created_when_proxmox_says_so(admin: FlaskClient, services: Services, cluster: str) -> None:
    add_guest(services, cluster, 102, "db-01", config={"meta": "creation-qemu=9.0.2,ctime=1718000000", "sockets": 2})
    server = admin.get(f"{URL}/db-01").json["server"]
    assert (server["created_at"], server["cpu"]) == ("2024-06-10T06:13:20Z", 4)


def test_pages_hold_every_server_once(admin: FlaskClient, services: Services, cluster: str) -> None:
    for vmid in range(200, 245):
        add_guest(services, cluster, vmid, f"guest-{vmid}")
    pages = [admin.get(f"{URL}?page={page}").json for page in (1, 2, 3, 4)]
    assert [len(page["servers"]) for page in pages] == [20, 20, 6, 0]
    assert {page["total"] for page in pages} == {46}
    assert len({name for page in pages for name in page["servers"]}) == 46
    assert len(admin.get(f"{URL}?per_page=200").json["servers"]) == 46
    assert admin.get(f"{URL}?per_page=201").status_code == 400


def test_servers_of_one_name_are_told_apart(admin: FlaskClient, services: Services, cluster: str) -> None:
    add_guest(services, cluster, 102, "web-server-01", status="stopped")
    add_guest(services, cluster, 103, None)
    listed = admin.get(URL).json["servers"]
    assert {key: server["vmid"] for key, server in listed.items()} == {
        "VM 103": 103,
        "web-server-01 (101)": 101,
        "web-server-01 (102)": 102,
    }
    for key, server in listed.items():
        assert admin.get(f"{URL}/{key}").json["server"]["vmid"] == server["vmid"]
    for refused in (admin.get(f"{URL}/web-server-01"), admin.delete(f"{URL}/web-server-01")):
        assert refused.status_code == 409
        assert refused.json["details"]["servers"] == ["web-server-01 (101)", "web-server-01 (102)"]
    accepted = admin.post(f"{URL}/web-server-01 (102)/start").json
    assert task_of(services, accepted["task_id"]).parameters == {
        "server_cluster": "prod",
        "server_timeout": 3600,
        "server_name": "web-server-01",
        "server_vmid": 102,
        "server_state": "started",
    }


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("get", "/nobody"),
        ("patch", "/nobody"),
        ("delete", "/nobody"),
        ("post", "/nobody/start"),
        ("post", "/nobody/stop"),
        ("post", "/nobody/reboot"),
        ("get", "/rocky-9"),
        ("delete", "/web-server-01 (102)"),
        ("delete", "/other (101)"),
    ],
)
def test_what_is_not_there_is_404(
    admin: FlaskClient, services: Services, cluster: str, method: str, path: str
) -> None:
    body = {"get": None, "patch": {"memory": 512}}.get(method, {})
    answer = admin.open(f"{URL}{path}", method=method, json=body)
    assert (answer.status_code, answer.json["code"]) == (404, "RESOURCE_NOT_FOUND")
    assert tasks(services) == []


def test_which_cluster_is_the_default_one_or_has_to_be_said(
    admin: FlaskClient, services: Services, cluster: str
) -> None:
    other = add_cluster(services, "lab", default=False)
    add_guest(services, other, 101, "elsewhere")
    assert list(admin.get(URL).json["servers"]) == ["web-server-01"]
    assert list(admin.get(f"{URL}?cluster=lab").json["servers"]) == ["elsewhere"]
    assert admin.get(f"{URL}?cluster=nowhere").status_code == 404
    with services.db.write() as session:
        session.get_one(Cluster, cluster).is_default = False
    refused = admin.get(URL)
    assert refused.status_code == 400
    assert refused.json["details"]["clusters"] == ["lab", "prod"]


def test_the_documents_request_becomes_these_variables(admin: FlaskClient, services: Services, cluster: str) -> None:
    answer = admin.post(URL, json=DOCUMENTED)
    assert answer.status_code == 202
    task_id = answer.json["task_id"]
    assert answer.json == {
        "success": True,
        "message": "서버 생성이 시작되었습니다.",
        "task_id": task_id,
        "server": {"name": "web-server-03", "status": "creating", "estimated_time": None},
    }
    assert task_id.startswith("task-")
    assert task_of(services, task_id).parameters == {
        "server_cluster": "prod",
        "server_timeout": 3600,
        "server_name": "web-server-03",
        "server_clone": {"template": "9000", "full": True, "storage": "local-lvm"},
        "server_cores": 4,
        "server_sockets": 1,
        "server_memory": 8192,
        "server_disks": {"scsi0": {"size": "100G", "storage": "local-lvm", "ssd": True}},
        "server_nics": {"net0": {"bridge": "vmbr0"}},
        "server_cloud_init": {"user": "rocky", "ipconfig": {"net0": "ip=192.168.1.103/24,gw=192.168.1.1"}},
        "server_role": "web",
        "server_state": "started",
    }
    with services.db.read() as session:
        sealed = session.get_one(TaskSecret, task_id).data
    assert services.vault.decrypt(sealed) == {"server_cipassword": PASSWORD}


def test_the_password_is_nowhere_in_what_is_kept(admin: FlaskClient, services: Services, cluster: str) -> None:
    admin.post(URL, json=DOCUMENTED, headers={"Idempotency-Key": "k"})
    assert tasks(services)
    for path in services.settings.home.rglob("*"):
        assert not path.is_file() or PASSWORD.encode() not in path.read_bytes(), path


def test_everything_that_can_be_asked_for_becomes_a_variable(
    admin: FlaskClient, services: Services, cluster: str
) -> None:
    body = {
        "name": "app-1",
        "disks": [{"size": 0.5}, {"size": "20G", "interface": "scsi0"}, {"size": "512M", "interface": "virtio1"}],
        "ip_address": "10.0.0.5",
        "network_devices": [
            {"bridge": "vmbr0", "subnet": 16},
            {"bridge": "vmbr1", "ip_address": "fd00::5", "subnet": "64", "gateway": "fd00::1", "vlan": 20},
            {"bridge": "vmbr1", "ip_address": "dhcp", "firewall": True, "model": "e1000", "mac": "BC:24:11:00:00:01"},
        ],
        "ssh_keys": [SSH_KEY],
        "nameservers": ["10.0.0.1"],
        "tags": ["blue"],
        "description": "two\nlines",
        "node": "pve2",
        "full_clone": False,
        "start": False,
    }
    accepted = admin.post(URL, json=body)
    assert accepted.status_code == 202, accepted.json
    assert task_of(services, accepted.json["task_id"]).parameters == {
        "server_cluster": "prod",
        "server_timeout": 3600,
        "server_name": "app-1",
        "server_node": "pve2",
        "server_clone": {"template": "9000", "full": False},
        "server_disks": {"scsi1": {"size": "0.5G"}, "scsi0": {"size": "20G"}, "virtio1": {"size": "512M"}},
        "server_nics": {
            "net0": {"bridge": "vmbr0"},
            "net1": {"bridge": "vmbr1", "vlan": 20},
            "net2": {"bridge": "vmbr1", "model": "e1000", "firewall": True, "mac": "BC:24:11:00:00:01"},
        },
        "server_cloud_init": {
            "ssh_keys": [SSH_KEY],
            "nameservers": ["10.0.0.1"],
            "ipconfig": {"net0": "ip=10.0.0.5/16", "net1": "ip6=fd00::5/64,gw6=fd00::1", "net2": "ip=dhcp"},
        },
        "server_tags": ["blue"],
        "server_description": "two\nlines",
        "server_state": "present",
    }


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": "under_score"}, "name"),
        ({"name": ""}, "name"),
        ({"name": "a" * 300}, "name"),
        ({"name": None}, "name"),
        ({"cpu": 0}, "cpu"),
        ({"cpu": True}, "cpu"),
        ({"cpu": "2"}, "cpu"),
        ({"memory": 8192.5}, "memory"),
        ({"memory": 8}, "memory"),
        ({"no_such_field": 1}, "no_such_field"),
        ({"role": "a b"}, "role"),
        ({"tags": ["a;b"]}, "tags.0"),
        ({"disks": [{"size": 0}]}, "disks.0.size"),
        ({"disks": [{"size": "50X"}]}, "disks.0.size"),
        ({"disks": [{"size": 10**400}]}, "disks.0.size"),
        ({"disks": [{"size": -(10**400)}]}, "disks.0.size"),
        ({"disks": [{"size": True}]}, "disks.0.size"),
        ({"disks": [{"size": 1, "interface": "scsi31"}]}, "disks.0.interface"),
        ({"disks": [{"size": 1, "interface": "virtio0", "disk_type": "ssd"}]}, "disks.0"),
        ({"disks": [{"size": 1, "interface": "scsi1"}, {"size": 1, "interface": "scsi1"}]}, "body"),
        ({"disks": [{"size": 1, "datastore_id": "a,b"}]}, "disks.0.datastore_id"),
        ({"network_devices": [{"bridge": "vmbr0", "ip_address": "10.0.0.5"}]}, "network_devices.0"),
        ({"network_devices": [{"bridge": "vmbr0", "ip_address": "10.0.0.5", "subnet": 33}]}, "network_devices.0"),
        ({"network_devices": [{"bridge": "vmbr0,tag=1"}]}, "network_devices.0.bridge"),
        ({"network_devices": [{"bridge": "vmbr0", "subnet": "255.255.255.0"}]}, "network_devices.0.subnet"),
        ({"network_devices": []}, "body"),
        ({"ip_address": "192.168.1.104"}, "body"),
        ({"ip_address": "not an address"}, "ip_address"),
        ({"vm_username": "a\nb"}, "vm_username"),
        ({"ssh_keys": ["ssh-ed25519 AAAA\nssh-rsa BBBB"]}, "ssh_keys.0"),
        ({"ssh_keys": ["nokey"]}, "body"),
        ({"description": "\x00"}, "description"),
        ({"template_vm_id": 99}, "template_vm_id"),
        ({"wait": True, "start": False}, "body"),
        ({"vm_password": "a\nb"}, "vm_password"),
        ({"vm_password": ""}, "vm_password"),
        ({"description": "\ud800"}, "description"),
        ({"name": "\ud800"}, "name"),
        ({"vm_password": "\ud800"}, "vm_password"),
        ({"tags": ["a"] * 101}, "tags"),
    ],
)
def test_a_wrong_value_is_one_message_at_its_field(
    admin: FlaskClient, services: Services, cluster: str, change: dict[str, Any], field: str
) -> None:
    body = json.dumps({**DOCUMENTED, **change})
    refused = admin.post(URL, data=body, content_type="application/json", headers={"Accept-Language": "en"})
    assert (refused.status_code, refused.json["code"]) == (400, "VALIDATION_ERROR"), refused.json
    assert list(refused.json["details"]) == [field]
    assert refused.json["error"] == refused.json["details"][field]
    assert PASSWORD not in refused.text
    assert tasks(services) == []


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.sampled_from(["{{ 1 }}", "50G"])),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=5,
)


# Whether there is such a template is a question to the cluster, which nobody can reach here.
FIELDS = sorted({*DOCUMENTED, "ssh_keys", "tags", "description", "node"} - {"template_vm_id"})


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=3))
def test_whatever_is_sent_is_accepted_as_the_module_takes_it_or_refused(
    admin: FlaskClient, services: Services, cluster: str, change: dict[str, Any]
) -> None:
    answer = admin.post(URL, data=json.dumps({**DOCUMENTED, **change}), content_type="application/json")
    assert answer.status_code in (202, 400), answer.text
    if answer.status_code == 202:
        parameters = task_of(services, answer.json["task_id"]).parameters
        server_spec({name.removeprefix("server_"): value for name, value in parameters.items()})
        finish(services, answer.json["task_id"])


def test_a_name_that_is_taken_and_a_server_that_is_being_changed_are_conflicts(
    admin: FlaskClient, services: Services, cluster: str
) -> None:
    taken = admin.post(URL, json={**DOCUMENTED, "name": "web-server-01"})
    assert (taken.status_code, taken.json["code"]) == (409, "CONFLICT")
    first = admin.post(URL, json=DOCUMENTED).json["task_id"]
    again = admin.post(URL, json=DOCUMENTED)
    assert (again.status_code, again.json["task_id"]) == (409, first)
    stopping = admin.post(f"{URL}/web-server-01/stop").json["task_id"]
    for refused in (
        admin.post(f"{URL}/web-server-01/start"),
        admin.delete(f"{URL}/web-server-01"),
        admin.patch(f"{URL}/web-server-01", json={"memory": 512}),
    ):
        assert (refused.status_code, refused.json["task_id"]) == (409, stopping)
    assert admin.get(f"{URL}/web-server-01").json["server"]["task_id"] == stopping
    finish(services, stopping)
    assert admin.get(f"{URL}/web-server-01").json["server"]["task_id"] is None
    assert admin.post(f"{URL}/web-server-01/start").status_code == 202


def test_a_server_that_was_left_unfinished_can_be_asked_for_again(
    admin: FlaskClient, services: Services, cluster: str
) -> None:
    add_guest(services, cluster, 103, "web-server-03", config={"description": f"{MARKER} (1234)\n\nnotes"})
    assert admin.get(f"{URL}/web-server-03").json["server"]["description"] == "notes"
    assert admin.post(URL, json=DOCUMENTED).status_code == 202


def test_the_same_key_is_one_task_even_when_its_answer_was_lost(
    admin: FlaskClient, services: Services, cluster: str
) -> None:
    key = {"Idempotency-Key": "create web-server-03"}
    first = admin.post(URL, json=DOCUMENTED, headers=key)
    again = admin.post(URL, json=DOCUMENTED, headers=key)
    assert (again.status_code, again.json, again.headers["Idempotent-Replayed"]) == (202, first.json, "true")
    with services.db.write() as session:
        session.execute(delete(IdempotentAnswer))
    after_a_crash = admin.post(URL, json=DOCUMENTED, headers=key)
    assert (after_a_crash.status_code, after_a_crash.json["task_id"]) == (202, first.json["task_id"])
    finish(services, first.json["task_id"])
    add_guest(services, cluster, 103, "web-server-03")
    with services.db.write() as session:
        session.execute(delete(IdempotentAnswer))
    when_it_is_there = admin.post(URL, json=DOCUMENTED, headers=key)
    assert (when_it_is_there.status_code, when_it_is_there.json["task_id"]) == (202, first.json["task_id"])
    assert admin.post(URL, json={**DOCUMENTED, "cpu": 1}, headers=key).status_code == 422
    assert len(tasks(services)) == 1


def test_a_key_is_free_again_after_a_day(admin: FlaskClient, services: Services, cluster: str) -> None:
    key = {"Idempotency-Key": "k-1"}
    start = admin.post(f"{URL}/web-server-01/start", headers=key)
    finish(services, start.json["task_id"])
    with services.db.write() as session:
        session.execute(delete(IdempotentAnswer))
    for other in ("web-server-01/stop", "web-server-02/start"):
        assert admin.post(f"{URL}/{other}", headers=key).status_code == 422, other
    with services.db.write() as session:
        session.get_one(Task, start.json["task_id"]).created_at -= timedelta(hours=25)
    stop = admin.post(f"{URL}/web-server-01/stop", headers=key)
    assert stop.status_code == 202
    assert stop.json["task_id"] != start.json["task_id"]
    assert task_of(services, stop.json["task_id"]).operation == "stop_server"


def test_without_a_cluster_there_are_no_servers(admin: FlaskClient) -> None:
    listed = admin.get(URL)
    assert (listed.status_code, listed.json["servers"], listed.json["total"]) == (200, {}, 0)
    assert admin.post(URL, json=DOCUMENTED).status_code == 400


def test_the_power_calls_and_their_options(admin: FlaskClient, services: Services, cluster: str) -> None:
    which = {"server_cluster": "prod", "server_name": "web-server-01", "server_vmid": 101, "server_timeout": 3600}
    expected = {
        ("start", None): {"server_state": "started"},
        ("stop", None): {"server_state": "stopped", "server_force": False, "server_shutdown_timeout": 120},
        ("reboot", None): {"server_state": "restarted", "server_force": False, "server_shutdown_timeout": 120},
        ("stop", '{"force": true, "timeout": 5}'): {
            "server_state": "stopped",
            "server_force": True,
            "server_shutdown_timeout": 5,
        },
    }
    for (action, body), variables in expected.items():
        given = {} if body is None else {"data": body, "content_type": "application/json"}
        answer = admin.post(f"{URL}/web-server-01/{action}", **given)
        assert answer.status_code == 202, answer.json
        task = task_of(services, answer.json["task_id"])
        assert (task.operation, task.parameters) == (f"{action}_server", {**which, **variables})
        finish(services, task.id)
    answer = admin.delete(f"{URL}/web-server-01?purge=true")
    assert task_of(services, answer.json["task_id"]).parameters == {**which, "server_purge": True}
    assert answer.json["server"]["status"] == "deleting"


def test_a_change_needs_something_to_change(admin: FlaskClient, services: Services, cluster: str) -> None:
    assert admin.patch(f"{URL}/web-server-01", json={}).status_code == 400
    assert admin.patch(f"{URL}/web-server-01", json={"disks": [{"size": 9}]}).status_code == 400
    body = {"cpu": 3, "disks": [{"interface": "scsi0", "size": 9}], "description": "", "power_cycle": "when_needed"}
    answer = admin.patch(f"{URL}/web-server-01", json=body)
    assert task_of(services, answer.json["task_id"]).parameters == {
        "server_cluster": "prod",
        "server_timeout": 3600,
        "server_name": "web-server-01",
        "server_vmid": 101,
        "server_cores": 3,
        "server_sockets": 1,
        "server_disks": {"scsi0": {"size": "9G"}},
        "server_description": "",
        "server_power_cycle": "when_needed",
    }


def test_the_template_is_the_given_one_the_roles_the_default_or_the_only_one(
    make_app: Callable[..., Flask],
) -> None:
    app = make_app(templates={"web": 9000, "default": 9001}, clusters_api_auth="required")
    services: Services = app.extensions["pvefleet"]
    client = log_in(app, services)
    cluster = add_cluster(services)
    for vmid in (9000, 9001, 9002):
        add_guest(services, cluster, vmid, f"template-{vmid}", template=True, status="stopped")
    chosen = {}
    for name, body in (
        ("given", {"template_vm_id": 9002, "role": "web"}),
        ("role", {"role": "web"}),
        ("other-role", {"role": "db"}),
        ("no-role", {}),
    ):
        answer = client.post(URL, json={"name": name, **body})
        assert answer.status_code == 202, answer.json
        chosen[name] = task_of(services, answer.json["task_id"]).parameters["server_clone"]["template"]
    assert chosen == {"given": "9002", "role": "9000", "other-role": "9001", "no-role": "9001"}


def test_without_a_single_template_it_has_to_be_said_which(app: Flask, services: Services, admin: FlaskClient) -> None:
    cluster = add_cluster(services)
    add_guest(services, cluster, 9000, "rocky-9", template=True, status="stopped")
    assert admin.post(URL, json={"name": "only"}).status_code == 202
    assert tasks(services)[0].parameters["server_clone"]["template"] == "9000"
    assert admin.get(URL).json["total"] == 0


def test_a_template_that_is_not_known_is_looked_for_in_the_cluster(admin: FlaskClient, cluster: str) -> None:
    answer = admin.post(URL, json={**DOCUMENTED, "template_vm_id": 9999})
    assert (answer.status_code, answer.json["code"]) == (502, "UPSTREAM_ERROR")


def log_in(app: Flask, services: Services) -> FlaskClient:
    with services.db.write() as session:
        create_user(session, "somebody", LOGIN, role="admin")
    client = app.test_client()
    assert client.post("/auth/login", json={"username": "somebody", "password": LOGIN}).status_code == 200
    return client


@pytest.mark.parametrize(
    ("seconds", "language", "said"),
    [
        (0.2, "en", "about 1 s"),
        (12.1, "en", "about 13 s"),
        (89.5, "ko", "약 90초"),
        (150, None, "약 2분"),
        (600, "ja", "約10分"),
        (600, "it", "circa 10 min"),
    ],
)
def test_the_estimate_is_how_long_it_usually_takes(
    admin: FlaskClient, services: Services, cluster: str, seconds: float, language: str | None, said: str
) -> None:
    first = admin.post(URL, json=DOCUMENTED).json["task_id"]
    finish(services, first)
    with services.db.write() as session:
        task = session.get_one(Task, first)
        task.finished_at = task.created_at + timedelta(seconds=seconds)
    headers = {} if language is None else {"Accept-Language": language}
    answer = admin.post(URL, json={**DOCUMENTED, "name": "another"}, headers=headers)
    assert answer.json["server"]["estimated_time"] == said


CALLS = {
    ("get", ""): "view_all",
    ("get", "/web-server-01"): "view_all",
    ("post", ""): "create_server",
    ("patch", "/web-server-01"): "create_server",
    ("post", "/web-server-01/start"): "start_server",
    ("post", "/web-server-01/stop"): "stop_server",
    ("post", "/web-server-01/reboot"): "reboot_server",
    ("delete", "/web-server-01"): "delete_server",
    ("get", "/status/stream"): "view_all",
}


@pytest.mark.parametrize(("call", "permission"), CALLS.items())
def test_each_call_needs_its_own_permission(
    app: Flask,
    login: Callable[..., FlaskClient],
    services: Services,
    cluster: str,
    call: tuple[str, str],
    permission: str,
) -> None:
    method, path = call
    # the role agent has none of these
    without = login("agent", "without", permissions=frozenset(CALLS.values()) - {permission})
    with_it = login("agent", "with", permissions=frozenset({permission}))
    bodies = {"": DOCUMENTED, "/web-server-01": {"memory": 512}}
    body = None if method in ("get", "delete") else bodies.get(path, {})
    refused = without.open(f"{URL}{path}", method=method, json=body)
    assert (refused.status_code, refused.json["code"]) == (403, "PERMISSION_DENIED")
    unknown = app.test_client().open(f"{URL}{path}", method=method, json=body)
    assert (unknown.status_code, unknown.json["code"]) == (401, "AUTHENTICATION_REQUIRED")
    assert tasks(services) == []
    allowed = with_it.open(f"{URL}{path}", method=method, json=body)
    assert allowed.status_code == (200 if method == "get" else 202)
    allowed.close()
