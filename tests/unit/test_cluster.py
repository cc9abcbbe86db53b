# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A cluster's health, from a simulated cluster and from servers that answer what no cluster would."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import PveClient, PveUnreachable
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.cluster import probe, status_after

from tests.lab import Lab
from tests.unit.conftest import token_client_for
from tests.unit.scripted_https import Answer, ScriptedServer

VERSION = {"version": "9.1.7", "release": "9.1"}
NODE = {"type": "node", "name": "pve1", "online": 1}


def test_node_offline_is_degraded(lab: Lab) -> None:
    lab.do(lab.pve.set_node_offline, lab.nodes[1])
    facts = probe(PveClient(lab.connection()))
    assert (facts.status, facts.quorate) == ("degraded", True)
    assert {node.name: node.online for node in facts.nodes} == {lab.nodes[0]: True, lab.nodes[1]: False}


def test_no_quorum_is_unhealthy(lab: Lab) -> None:
    assert probe(PveClient(lab.connection())).status == "healthy"
    lab.do(lab.pve.lose_quorum)
    facts = probe(PveClient(lab.connection()))
    assert (facts.status, facts.quorate) == ("unhealthy", False)


def test_nobody_there_is_unknown() -> None:
    with Lab(time_scale=0.01) as lab:
        client = PveClient(lab.connection(retry_seconds=0.0))
    with pytest.raises(PveUnreachable) as error:
        probe(client)
    assert status_after(error.value) == "unknown"


def test_a_standalone_node_needs_no_quorum(serve: Callable[..., ScriptedServer]) -> None:
    server = serve(lambda request: Answer(VERSION if request.path == "/version" else [NODE]))
    facts = probe(token_client_for(server))
    assert (facts.name, facts.quorate, facts.status) == (None, None, "healthy")
    assert [node.name for node in facts.nodes] == ["pve1"]


@pytest.mark.parametrize(
    ("version", "status"),
    [
        *[(odd, [NODE]) for odd in (None, [], "x", [1], {}, {"version": 1}, {"version": ""}, {"version": None})],
        *[(VERSION, odd) for odd in (None, {}, [], "x", [1], [None], [{}], [{"type": "node"}])],
        (VERSION, [{**NODE, "name": "\ud800"}]),
        (VERSION, [{**NODE, "name": ".."}]),
        (VERSION, [{**NODE, "ip": 5}]),
        (VERSION, [{**NODE, "online": "x"}]),
        (VERSION, [NODE, {"type": "cluster", "name": "c", "quorate": []}]),
        (VERSION, [NODE, {"type": "cluster", "name": {}, "quorate": 1}]),
    ],
)
def test_what_is_no_cluster_is_an_error(serve: Callable[..., ScriptedServer], version: Any, status: Any) -> None:
    server = serve(lambda request: Answer(version if request.path == "/version" else status))
    with pytest.raises(PveUnreachable, match="gave an answer that is not Proxmox VE's"):
        probe(token_client_for(server))
