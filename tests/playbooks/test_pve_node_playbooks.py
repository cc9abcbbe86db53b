# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbooks of nodes, run by hand: foretold by --check, done once, refused when their arguments are wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.pvefleet.infra.plugins.module_utils._pve import membership
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import PveClient
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.membership_plan import JoinSpec, Peer

from tests.ansible_run import Ansible
from tests.lab import LabSite, standalone_nodes


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LabSite]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    running = standalone_nodes(3, time_scale=0.02)
    yield running
    running.stop()


def reached(site: LabSite, name: str) -> dict[str, Any]:
    node = site[name]
    return {
        "pve_node_api_host": node.host,
        "pve_node_api_port": node.port,
        "pve_node_api_password": node.password,
        "pve_node_tls_fingerprint": node.fingerprint,
    }


def writes(site: LabSite) -> int:
    requests = [request for node in site.nodes.values() for request in node.requests]
    return sum(method != "GET" and path != "/access/ticket" for method, path in requests)


def test_life_of_a_member(site: LabSite, tmp_path: Path) -> None:
    """Each playbook: --check foretells a change and makes none, the run makes it, the second run has nothing to do."""
    ansible = Ansible(tmp_path, site["pve1"])
    peer = {"address": site["pve1"].api_endpoint, "fingerprint": site["pve1"].fingerprint}
    to_lab = {"pve_node_peer": peer, "pve_node_peer_password": site["pve1"].password, "pve_node_cluster_name": "lab"}
    first = Peer(site["pve1"].host, site["pve1"].port, site["pve1"].password, site["pve1"].fingerprint)
    membership.join(PveClient(site["pve2"].connection()), JoinSpec(site["pve2"].host, first, "lab"))
    steps: list[tuple[str, dict[str, Any]]] = [
        ("node_join", {**reached(site, "pve3"), **to_lab, "pve_node_name": "pve3"}),
        ("node_remove", {"pve_node_cluster": "prod", "pve_node_name": "pve3"}),
    ]
    for playbook, variables in steps:
        if playbook == "node_remove":
            site.power_off("pve3")
        before = writes(site)
        foretold = ansible.playbook(f"pvefleet.infra.{playbook}", "--check", "--diff", **variables)
        assert (foretold.returncode, foretold.changed) == (0, 1), foretold.output
        assert writes(site) == before
        made = ansible.playbook(f"pvefleet.infra.{playbook}", **variables)
        assert (made.returncode, made.changed) == (0, 1), made.output
        done = writes(site)
        assert done > before
        again = ansible.playbook(f"pvefleet.infra.{playbook}", **variables)
        assert (again.returncode, again.changed) == (0, 0), again.output
        assert writes(site) == done
        outputs = "".join(run.output for run in (foretold, made, again))
        assert not any(node.password in outputs for node in site.nodes.values())
    assert sorted(site["pve1"].pve.nodes) == ["pve1", "pve2"]


@pytest.mark.parametrize(
    ("playbook", "variables", "complaint"),
    [
        ("node_join", {"pve_node_peer_password": "x"}, "missing required arguments: pve_node_peer"),
        ("node_remove", {"pve_node_cluster": "prod"}, "missing required arguments: pve_node_name"),
        (
            "node_remove",
            {"pve_node_cluster": "prod", "pve_node_name": "pve1"},
            "Unable to remove node pve1 from its cluster: it is the node that was asked",
        ),
    ],
)
def test_wrong_arguments(
    site: LabSite, tmp_path: Path, playbook: str, variables: dict[str, Any], complaint: str
) -> None:
    run = Ansible(tmp_path, site["pve1"]).playbook(f"pvefleet.infra.{playbook}", **variables)
    assert run.returncode != 0
    assert complaint in run.output
    assert writes(site) == 0
