# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The servers document's own requests, sent as they are printed there, and the bodies that it prints for them.

Only the host, the administrator's password and the cookie's value are ours.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.api.fleet import Fleet, register, until
from tests.api.served import PASSWORD, Served
from tests.lab import Lab

LOGIN = """
POST /auth/login
Content-Type: application/x-www-form-urlencoded

username=admin&password=admin123!
"""
LIST = """
GET /api/servers
"""
CREATE = """
POST /api/servers
Content-Type: application/json

{
  "name": "web-server-02",
  "cpu": 2,
  "memory": 4096,
  "role": "web",
  "ip_address": "192.168.1.101",
  "disks": [
    {
      "size": 50,
      "interface": "scsi0",
      "datastore_id": "local-lvm"
    }
  ],
  "network_devices": [
    {
      "bridge": "vmbr0",
      "ip_address": "192.168.1.101",
      "subnet": "24",
      "gateway": "192.168.1.1"
    }
  ]
}
"""
CREATE_WITH_COOKIE = """
POST /api/servers
Content-Type: application/json
Cookie: session=your_session_cookie

{
  "name": "web-server-03",
  "cpu": 4,
  "memory": 8192,
  "role": "web",
  "ip_address": "192.168.1.103",
  "disks": [
    {
      "size": 100,
      "interface": "scsi0",
      "datastore_id": "local-lvm",
      "disk_type": "ssd"
    }
  ],
  "network_devices": [
    {
      "bridge": "vmbr0",
      "ip_address": "192.168.1.103",
      "subnet": "24",
      "gateway": "192.168.1.1"
    }
  ],
  "template_vm_id": 9000,
  "vm_username": "rocky",
  "vm_password": "password123"
}
"""
CONTROL = """
POST /api/servers/{server_name}/start
POST /api/servers/{server_name}/stop
POST /api/servers/{server_name}/reboot
DELETE /api/servers/{server_name}
"""
TASKS = """
GET /api/tasks
"""
TASK = """
GET /api/tasks/{task_id}
"""

PRINTED_SERVER = {
    "name": "web-server-01",
    "vmid": 101,
    "status": "running",
    "cpu": 2,
    "memory": 4096,
    "ip_addresses": ["192.168.1.100"],
    "role": "web",
    "created_at": "2024-01-01T00:00:00Z",
}
PRINTED_TASK = {
    "id": "task_123",
    "type": "create_server",
    "status": "running",
    "message": "서버 생성 중...",
    "progress": 45,
    "created_at": "2024-01-01T12:00:00Z",
    "updated_at": "2024-01-01T12:01:00Z",
}


class Wire:
    """Sends a printed request byte for byte, with the cookie that the login gave."""

    def __init__(self, served: Served) -> None:
        self._host = urlsplit(served.url).netloc
        self.cookie = ""

    def __call__(self, printed: str, **names: str) -> tuple[int, Any]:
        head, _blank, body = printed.strip().partition("\n\n")
        first, *lines = head.split("\n")
        method, path = first.split(" ")
        for name, value in names.items():
            path = path.replace(f"{{{name}}}", value)
        headers = dict(line.split(": ", 1) for line in lines)
        if self.cookie:
            headers["Cookie"] = f"session={self.cookie}"
        connection = http.client.HTTPConnection(self._host, timeout=60)
        connection.request(method, path, body.replace("admin123!", PASSWORD).encode() or None, headers)
        answer = connection.getresponse()
        set_cookie = answer.headers.get("Set-Cookie", "")
        if set_cookie.startswith("session="):
            self.cookie = set_cookie.removeprefix("session=").partition(";")[0]
        text = answer.read()
        connection.close()
        return answer.status, json.loads(text)


def like(answer: dict[str, Any], printed: dict[str, Any]) -> bool:
    """Every printed field is there, with a value of the printed type."""
    return all(type(answer.get(name)) is type(value) for name, value in printed.items())


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    home = tmp_path_factory.mktemp("document") / "home"
    # The observer looks once, at the beginning: what our tasks have done has to be seen without it.
    with Lab(time_scale=0.05) as lab, Served(home, PVEFLEET_OBSERVE_INTERVAL="3600") as served:
        made = Fleet(served, lab)
        register(served, made.session, lab)
        yield made


def test_the_documents_own_requests(fleet: Fleet) -> None:
    send = Wire(fleet.served)
    assert send(LIST) == (
        401,
        {"success": False, "error": "인증이 필요합니다", "code": "AUTHENTICATION_REQUIRED"},
    )
    assert send(LOGIN) == (200, {"success": True, "message": "로그인 성공"})
    assert send.cookie
    for printed, name in ((CREATE, "web-server-02"), (CREATE_WITH_COOKIE, "web-server-03")):
        status, answer = send(printed)
        assert status == 202, answer
        task_id, estimate = answer.pop("task_id"), answer["server"].pop("estimated_time")
        assert answer == {
            "success": True,
            "message": "서버 생성이 시작되었습니다.",
            "server": {"name": name, "status": "creating"},
        }
        assert (estimate is None) == (name == "web-server-02")
        running = until(lambda task_id=task_id: _with_progress(send(TASK, task_id=task_id)[1]["task"]))
        assert like(running, PRINTED_TASK)
        assert fleet.ended(task_id)["status"] == "completed"
        status, tasks = send(TASKS)
        assert (status, tasks["tasks"][0]["id"]) == (200, task_id)
        assert like(tasks["tasks"][0], PRINTED_TASK)
    status, answer = send(LIST)
    assert (status, answer["success"], set(answer["servers"])) == (200, True, {"web-server-02", "web-server-03"})
    for server in answer["servers"].values():
        assert set(server) == set(PRINTED_SERVER)
        assert like(server, PRINTED_SERVER)
    for printed in CONTROL.strip().split("\n"):
        status, answer = send(printed, server_name="web-server-02")
        assert (status, answer["success"], answer["server"]["name"]) == (202, True, "web-server-02")
        assert fleet.ended(answer["task_id"])["status"] == "completed"
    assert set(send(LIST)[1]["servers"]) == {"web-server-03"}


def _with_progress(task: dict[str, Any]) -> dict[str, Any] | None:
    return task if task["progress"] > 0 else None
