# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The main job: servers made, watched, changed and deleted over HTTP, by real playbooks, on a simulated cluster."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from pvefleet.engine import processes

from tests.api.fleet import LAB_SECONDS, PASSWORD, Fleet, documented, parse, register, until
from tests.api.served import Served
from tests.lab import Lab


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    home = tmp_path_factory.mktemp("fleet") / "home"
    with Lab(time_scale=LAB_SECONDS) as lab, Served(home, PVEFLEET_LOGIN_RATE="1000/minute") as served:
        made = Fleet(served, lab)
        register(served, made.session, lab)
        yield made


def test_a_server_is_made_watched_stopped_started_and_deleted(fleet: Fleet) -> None:
    changes: list[dict[str, Any]] = []
    listening = threading.Event()

    def watch() -> None:
        with fleet.session.get(fleet.served.at("/api/servers/status/stream"), stream=True, timeout=60) as answer:
            lines = answer.iter_lines(chunk_size=1, decode_unicode=True)
            listening.set()
            for event in parse(lines):
                if event["data"]["name"] == "web-server-03":
                    changes.append(event["data"])
                    if event["data"]["change"] == "removed":
                        return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    assert listening.wait(10)

    task_id = fleet.accepted("POST", "/api/servers", json=documented(fleet.lab, "web-server-03"))
    seen = list(fleet.events(f"/api/tasks/{task_id}/stream"))
    statuses = [event["data"] for event in seen if "event" not in event]
    assert statuses[0]["status"] == "pending"
    assert (statuses[-1]["status"], statuses[-1]["progress"]) == ("completed", 100), statuses[-1]
    assert [data["progress"] for data in statuses] == sorted(data["progress"] for data in statuses)
    assert any(0 < data["progress"] < 100 and data["message"] for data in statuses)
    assert [event["data"]["level"] for event in seen if event.get("event") == "log"]
    ids = [event["id"] for event in seen]
    assert ids == sorted(set(ids))

    server = fleet.servers()["web-server-03"]
    created_at = server.pop("created_at")
    assert created_at.endswith("Z")
    vmid = server.pop("vmid")
    assert "192.168.1.103" in server.pop("ip_addresses")
    assert server == {"name": "web-server-03", "status": "running", "cpu": 4, "memory": 8192, "role": "web"}
    config = fleet.pve(f"/nodes/{statuses[-1]['result']['server']['node']}/qemu/{vmid}/config")
    assert "size=100G" in config["scsi0"]
    assert "ssd=1" in config["scsi0"]
    assert (config["ciuser"], config["ipconfig0"]) == ("rocky", "ip=192.168.1.103/24,gw=192.168.1.1")

    again = fleet.call("POST", "/api/servers", json=documented(fleet.lab, "web-server-03"))
    assert (again.status_code, again.json()["code"]) == (409, "CONFLICT")

    for action, status in (("stop", "stopped"), ("start", "running"), ("reboot", "running")):
        task = fleet.done("POST", f"/api/servers/web-server-03/{action}")
        assert task["result"]["server"]["status"] == status
        assert fleet.servers()["web-server-03"]["status"] == status
    body = {"memory": 4096, "disks": [{"interface": "scsi1", "size": 4}], "power_cycle": "when_needed"}
    fleet.done("PATCH", "/api/servers/web-server-03", json=body)
    shown = fleet.call("GET", "/api/servers/web-server-03").json()["server"]
    assert (shown["memory"], "size=4G" in shown["disks"]["scsi1"], shown["pending"]) == (4096, True, [])
    fleet.done("DELETE", "/api/servers/web-server-03")
    assert "web-server-03" not in fleet.servers()
    assert vmid not in fleet.vmids()
    assert fleet.call("GET", "/api/servers/web-server-03").status_code == 404

    watcher.join(20)
    assert not watcher.is_alive()
    assert changes[0]["change"] == "created"
    assert {change["server"]["status"] for change in changes if change["server"]} == {"running", "stopped"}


def test_a_stream_goes_on_where_it_was_cut_off(fleet: Fleet) -> None:
    task_id = fleet.accepted("POST", "/api/servers", json=documented(fleet.lab, "cut-off", start=False))
    path = f"/api/tasks/{task_id}/stream"
    pieces: list[dict[str, Any]] = []
    while not pieces or pieces[-1]["data"].get("status") != "completed":
        # one event a connection: the worst that a client can do
        pieces.append(next(fleet.events(path, pieces[-1]["id"] if pieces else None)))
    assert pieces == list(fleet.events(path))
    assert fleet.call("GET", path, headers={"Last-Event-ID": str(pieces[-1]["id"])}).status_code == 204
    too_old = list(fleet.events(path, 999_999_999))
    assert [event["data"]["status"] for event in too_old] == ["completed"]


def test_no_template_in_a_request_is_rendered(fleet: Fleet, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    text = f"{{{{ lookup('pipe', 'touch {trap}') }}}} {{% for x in y %}}"
    body = documented(fleet.lab, "injected", description=text, vm_username="{{user}}", start=False)
    result = fleet.done("POST", "/api/servers", json=body)["result"]["server"]
    config = fleet.pve(f"/nodes/{result['node']}/qemu/{result['vmid']}/config")
    assert config["description"].strip() == text
    assert config["ciuser"] == "{{user}}"
    assert fleet.call("GET", "/api/servers/injected").json()["server"]["description"] == text
    assert not trap.exists()


def test_secrets_are_in_no_process_and_nowhere_on_disk_when_all_is_done(fleet: Fleet) -> None:
    task_id = fleet.accepted("POST", "/api/servers", json=documented(fleet.lab, "secretive"))
    secrets = (PASSWORD, fleet.lab.password, fleet.lab.token_secret)
    looked_at = 0
    while fleet.task(task_id)["status"] in ("pending", "running"):
        for process in processes.of_run(task_id):
            try:
                exposed = " ".join(process.cmdline()) + " ".join(process.environ().values())
            except psutil.Error:
                continue
            looked_at += 1
            assert not any(secret in exposed for secret in secrets)
    assert looked_at
    assert fleet.task(task_id)["status"] == "completed"
    log = fleet.call("GET", f"/api/tasks/{task_id}/log").text
    kept = {path: path.read_bytes() for path in fleet.served.home.rglob("*") if path.is_file()}
    kept[fleet.served.log] = fleet.served.log.read_bytes()
    assert kept
    for secret in secrets:
        assert secret not in log
        assert [str(path) for path, content in kept.items() if secret.encode() in content] == []


def test_what_fails_says_why_and_frees_the_server(fleet: Fleet) -> None:
    bridge = [{"bridge": "vmbr9"}]
    body = documented(fleet.lab, "no-bridge", ip_address=None, network_devices=bridge)
    task = fleet.ended(fleet.accepted("POST", "/api/servers", json=body))
    assert task["status"] == "failed"
    assert "vmbr9" in task["error"]
    assert "no-bridge" not in fleet.servers()
    fleet.done("POST", "/api/servers", json=documented(fleet.lab, "no-bridge", start=False))


def test_a_cancelled_creation_ends_all_its_processes(fleet: Fleet) -> None:
    task_id = fleet.accepted("POST", "/api/servers", json=documented(fleet.lab, "cancelled"))
    until(lambda: processes.of_run(task_id))
    assert fleet.call("POST", f"/api/tasks/{task_id}/cancel").status_code in (200, 202)
    assert fleet.ended(task_id)["status"] == "cancelled"
    assert processes.of_run(task_id) == []
    assert not (fleet.served.home / "runs" / task_id).exists()
    # What was begun is finished by the same request, or begun anew.
    fleet.done("POST", "/api/servers", json=documented(fleet.lab, "cancelled"))
    assert fleet.servers()["cancelled"]["status"] == "running"


def test_many_at_once_are_each_made_once(fleet: Fleet) -> None:
    names = [f"bulk-{number}" for number in range(6)]
    ids = [fleet.accepted("POST", "/api/servers", json=documented(fleet.lab, name, start=False)) for name in names]
    assert {fleet.ended(task_id)["status"] for task_id in ids} == {"completed"}
    servers = fleet.servers()
    assert len({servers[name]["vmid"] for name in names}) == 6
