# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbooks of fleets, run by hand: foretold by --check, done once, refused when their arguments are wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.ansible_run import Ansible

CLUSTER = {"fleet_cluster": "prod"}
CONVERGE = {
    **CLUSTER,
    "fleet_defaults": {"clone": {"template": "debian-12-cloud"}, "memory": 1024, "state": "started"},
    "fleet_servers": [{"name": "f-00"}, {"name": "f-01", "memory": 2048}],
    "fleet_tag": "fleet-f",
    "fleet_prune": True,
}
NAMES = {**CLUSTER, "fleet_names": ["f-00", "f-01"]}


@pytest.fixture
def ansible(tmp_path: Path, lab: Any) -> Ansible:
    return Ansible(tmp_path, lab)


def writes(lab: Any) -> int:
    return sum(method != "GET" and path != "/access/ticket" for method, path in lab.requests)


@pytest.mark.lab(time_scale=0.05)
def test_life_of_a_fleet(ansible: Ansible, lab: Any) -> None:
    """Each playbook: --check foretells a change and makes none, the run makes it, the second run has nothing to do.

    Names are given as a survey or -e gives them, too.
    """
    steps: list[tuple[str, dict[str, Any]]] = [
        ("converge", CONVERGE),
        ("power", {**NAMES, "fleet_names": "f-00,f-01", "fleet_state": "stopped", "fleet_force": True}),
        ("delete", {**NAMES, "fleet_names": "f-00,\nf-01\n"}),
    ]
    for operation, variables in steps:
        before = writes(lab)
        foretold = ansible.playbook(f"pvefleet.infra.fleet_{operation}", "--check", "--diff", **variables)
        assert (foretold.returncode, foretold.changed) == (0, 1), foretold.output
        assert writes(lab) == before
        made = ansible.playbook(f"pvefleet.infra.fleet_{operation}", **variables)
        assert (made.returncode, made.changed) == (0, 1), made.output
        assert writes(lab) > before
        again = ansible.playbook(f"pvefleet.infra.fleet_{operation}", **variables)
        assert (again.returncode, again.changed) == (0, 0), again.output
        if operation == "power":
            servers = [guest for guest in lab.pve.vms if guest.name.startswith("f-")]
            assert [guest.running for guest in servers] == [False, False]
    assert [guest.vmid for guest in lab.pve.vms] == [lab.template_vmid]


@pytest.mark.lab(time_scale=0.05)
def test_one_failure_fails_the_play_and_the_result_tells_of_all(ansible: Ansible, lab: Any) -> None:
    servers = [{"name": "f-00"}, {"name": "f-01", "clone": {"template": "nowhere"}}]
    run = ansible.playbook(
        "pvefleet.infra.fleet_converge", **{**CONVERGE, "fleet_servers": servers, "fleet_prune": False}
    )
    assert run.returncode != 0
    assert "1 of 2 servers failed: Unable to create server f-01: there is no template nowhere" in run.output
    assert [guest.name for guest in lab.pve.vms if guest.vmid != lab.template_vmid] == ["f-00"]


@pytest.mark.parametrize(
    ("operation", "variables", "complaint"),
    [
        ("converge", CLUSTER, "missing required arguments: fleet_servers"),
        ("power", {**NAMES, "fleet_state": "asleep"}, "value of fleet_state must be one of"),
        ("delete", {**CLUSTER}, "missing required arguments: fleet_names"),
    ],
)
def test_wrong_arguments(ansible: Ansible, lab: Any, operation: str, variables: dict[str, Any], complaint: str) -> None:
    run = ansible.playbook(f"pvefleet.infra.fleet_{operation}", **variables)
    assert run.returncode != 0
    assert complaint in run.output
    assert writes(lab) == 0
