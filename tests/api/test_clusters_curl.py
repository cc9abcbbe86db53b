# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The clusters document's own curl lines, run as they are printed: only host, credentials and trust are ours.

The document shows no login and no TLS options, so the service is told to ask for no login, and trusts the simulated
cluster's CA the way it would trust a system's.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.api.served import Served
from tests.lab import Lab

REGISTER = r"""
curl -X POST http://localhost:8080/api/v1/clusters \
  -H "Content-Type: application/json" \
  -d '{
    "name": "prod-cluster",
    "api_endpoint": "https://pve.example.com:8006",
    "username": "root@pam",
    "password": "your-password"
  }'
"""
REGISTER_FROM_STDIN = r"""
curl -X POST http://localhost:8080/api/v1/clusters \
  -H "Content-Type: application/json" \
  -d @- <<EOF
{
  "name": "prod-cluster",
  "api_endpoint": "https://pve.example.com:8006",
  "username": "root@pam",
  "password": "password"
}
EOF
"""
WRONG_PASSWORD = r"""
curl -X POST http://localhost:8080/api/v1/clusters \
  -H "Content-Type: application/json" \
  -d '{
    "name": "test-cluster",
    "api_endpoint": "https://pve.example.com:8006",
    "username": "root@pam",
    "password": "wrong-password"
  }'
"""
DUPLICATE = r"""
curl -X POST http://localhost:8080/api/v1/clusters \
  -H "Content-Type: application/json" \
  -d '{
    "name": "prod-cluster",
    "api_endpoint": "https://pve2.example.com:8006",
    "username": "root@pam",
    "password": "password"
  }'
"""
LIST = "curl -X GET http://localhost:8080/api/v1/clusters"
SHOW = "curl -X GET http://localhost:8080/api/v1/clusters/550e8400-e29b-41d4-a716-446655440000"
REMOVE = "curl -X DELETE http://localhost:8080/api/v1/clusters/{id}"
HEALTH = "curl -X GET http://localhost:8080/health"
SHOWN = {
    "id": "550e8400-e29b-41d4-a716-446655440000",
    "name": "prod-cluster",
    "api_endpoint": "https://pve.example.com:8006",
    "status": "healthy",
    "proxmox_version": "7.4-1",
    "node_count": 3,
    "created_at": "2024-01-11T10:30:00Z",
    "updated_at": "2024-01-11T10:30:00Z",
}


class Shell:
    def __init__(self, served: Served, lab: Lab) -> None:
        self.served = served
        self.lab = lab

    def __call__(self, line: str, cluster_id: str = "") -> tuple[int, Any]:
        """Status and body of a line of the document."""
        line = line.replace("http://localhost:8080", self.served.url).replace(
            "curl ", "curl -sS -w '\\n%{http_code}' ", 1
        )
        line = re.sub(r"https://pve2?\.example\.com:8006", self.lab.api_endpoint, line)
        line = re.sub(r'"(your-)?password"\n', f'"{self.lab.password}"\n', line)
        line = line.replace("{id}", cluster_id).replace(SHOWN["id"], cluster_id)
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60, check=True)
        body, _newline, status = done.stdout.rpartition("\n")
        return int(status), json.loads(body) if body else None


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory, lab_server: Lab) -> Iterator[Shell]:
    home = tmp_path_factory.mktemp("curl") / "home"
    with Served(home, PVEFLEET_CLUSTERS_API_AUTH="none", REQUESTS_CA_BUNDLE=lab_server.ca_file) as served:
        yield Shell(served, lab_server)


def test_the_documents_own_session(shell: Shell) -> None:
    assert shell(LIST) == (200, {"clusters": [], "total": 0})
    status, cluster = shell(REGISTER)
    assert status == 201
    documented = {name: cluster[name] for name in SHOWN}
    for name, value in SHOWN.items():
        assert type(documented[name]) is type(value), name
    assert set(cluster) - set(SHOWN) == {"default"}
    assert documented | {"id": "", "proxmox_version": "", "created_at": "", "updated_at": ""} == {
        **SHOWN,
        "api_endpoint": shell.lab.api_endpoint,
        "node_count": 2,
        "id": "",
        "proxmox_version": "",
        "created_at": "",
        "updated_at": "",
    }
    assert shell(SHOW, cluster["id"]) == (200, cluster)
    assert shell(LIST) == (200, {"clusters": [cluster], "total": 1})
    assert shell(DUPLICATE) == (
        409,
        {"code": "Conflict", "message": "Cluster already exists", "details": None},
    )
    assert shell(WRONG_PASSWORD) == (
        401,
        {"code": "Unauthorized", "message": "Authentication failed", "details": None},
    )
    assert shell(REMOVE, cluster["id"]) == (204, None)
    assert shell(SHOW, cluster["id"]) == (
        404,
        {"code": "NotFound", "message": "Cluster not found", "details": None},
    )
    assert shell(REMOVE, cluster["id"]) == (
        404,
        {"code": "NotFound", "message": "Cluster not found", "details": None},
    )
    status, again = shell(REGISTER_FROM_STDIN)
    assert status == 201
    assert shell(REMOVE, again["id"])[0] == 204
    status, health = shell(HEALTH)
    assert (status, health["status"]) == (200, "healthy")
