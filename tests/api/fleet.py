# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A served application with a simulated cluster, as a program that calls it sees them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import requests
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import PveClient

from tests.api.served import Served
from tests.lab import Lab

PASSWORD = "marked-password-of-a-guest"
LAB_SECONDS = 0.05


def register(served: Served, session: requests.Session, lab: Lab) -> None:
    body = {
        "name": "prod",
        "api_endpoint": lab.api_endpoint,
        "username": lab.username,
        "password": lab.password,
        "tls_fingerprint": lab.fingerprint,
    }
    answer = session.post(served.at("/api/v1/clusters"), json=body, timeout=60)
    assert answer.status_code == 201, answer.text


def documented(lab: Lab, name: str, **changes: Any) -> dict[str, Any]:
    """The document's example."""
    return {
        "name": name,
        "cpu": 4,
        "memory": 8192,
        "role": "web",
        "ip_address": "192.168.1.103",
        "disks": [{"size": 100, "interface": "scsi0", "datastore_id": "local-lvm", "disk_type": "ssd"}],
        "network_devices": [
            {"bridge": "vmbr0", "ip_address": "192.168.1.103", "subnet": "24", "gateway": "192.168.1.1"}
        ],
        "template_vm_id": lab.template_vmid,
        "vm_username": "rocky",
        "vm_password": PASSWORD,
        **changes,
    }


def until(condition: Callable[[], Any], seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
    return value


def parse(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """Server-sent events as a browser reads them; those without data only move the id."""
    event: dict[str, Any] = {}
    for line in lines:
        if not line:
            if "data" in event:
                yield event
            event = {}
        elif not line.startswith(":"):
            key, _colon, value = line.partition(": ")
            event[key] = json.loads(value) if key in ("data", "id") else value


class Fleet:
    """A user of a served application that knows one simulated cluster."""

    def __init__(self, served: Served, lab: Lab) -> None:
        self.served, self.lab = served, lab
        self.session = served.login()

    def call(self, method: str, path: str, **more: Any) -> requests.Response:
        return self.session.request(method, self.served.at(path), timeout=60, **more)

    def accepted(self, method: str, path: str, **more: Any) -> str:
        answer = self.call(method, path, **more)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["task_id"])

    def task(self, task_id: str) -> dict[str, Any]:
        task: dict[str, Any] = self.call("GET", f"/api/tasks/{task_id}").json()["task"]
        return task

    def ended(self, task_id: str) -> dict[str, Any]:
        until(lambda: self.task(task_id)["status"] in ("completed", "failed", "cancelled"))
        return self.task(task_id)

    def done(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        task = self.ended(self.accepted(method, path, **more))
        assert task["status"] == "completed", task
        return task

    def servers(self) -> dict[str, Any]:
        servers: dict[str, Any] = self.call("GET", "/api/servers?per_page=200").json()["servers"]
        return servers

    def events(self, path: str, last_id: int | None = None) -> Iterator[dict[str, Any]]:
        headers = {} if last_id is None else {"Last-Event-ID": str(last_id)}
        with self.session.get(self.served.at(path), headers=headers, stream=True, timeout=60) as answer:
            assert answer.status_code == 200, answer.text
            yield from parse(answer.iter_lines(chunk_size=1, decode_unicode=True))

    def vmids(self) -> list[int]:
        """The cluster's own guests, templates aside."""
        rows = self.pve("/cluster/resources")
        return sorted(row["vmid"] for row in rows if row["type"] == "qemu" and not row.get("template"))

    def pve(self, path: str) -> Any:
        """What the cluster itself says."""
        client = PveClient(self.lab.connection())
        try:
            return client.get(path)
        finally:
            client.close()
