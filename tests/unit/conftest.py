# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import Connection, PveClient

from tests.unit.scripted_https import Script, ScriptedServer


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., ScriptedServer]]:
    """Starts scripted servers: serve(script, names=...)."""
    running: list[ScriptedServer] = []

    def start(script: Script, **options: Any) -> ScriptedServer:
        server = ScriptedServer(tmp_path / f"tls{len(running)}", script, **options)
        running.append(server)
        return server

    yield start
    for server in running:
        server.close()


def client_for(*servers: ScriptedServer, **changes: Any) -> PveClient:
    """A client by password that trusts the first server's certificate, and does not wait long."""
    settings: dict[str, Any] = {
        "endpoints": tuple(server.url for server in servers),
        "user": "root@pam",
        "password": "s3cret-pass",
        "retry_seconds": 5.0,
        "connect_timeout": 2.0,
        "read_timeout": 2.0,
    }
    if not {"ca_path", "ca_pem", "tls_fingerprint", "validate_certs"} & changes.keys():
        settings["ca_path"] = servers[0].ca_file
    return PveClient(Connection(**{**settings, **changes}))


def token_client_for(*servers: ScriptedServer, **changes: Any) -> PveClient:
    """The same by API token: no login among the requests."""
    return client_for(*servers, password=None, token_id="fleet", token_secret="t0ken-s3cret", **changes)
