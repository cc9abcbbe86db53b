# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbooks of security groups, run by hand: foretold by --check, done once, refused when arguments are wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.ansible_run import Ansible
from tests.modules.jobs import add_server

NAME = {"firewall_group_cluster": "prod", "firewall_group_name": "web"}


@pytest.fixture
def ansible(tmp_path: Path, lab: Any) -> Ansible:
    return Ansible(tmp_path, lab)


def writes(lab: Any) -> int:
    return sum(method != "GET" and path != "/access/ticket" for method, path in lab.requests)


def members(lab: Any) -> list[int]:
    return [vmid for vmid in (101, 102) if lab.pve.firewall_config("vm", "pve1", vmid)["rules"]]


def test_life_of_a_group(ansible: Ansible, lab: Any) -> None:
    """Each playbook: the run makes a change, which --check foretells, and the second run has nothing to do."""
    add_server(lab, 101, "web-01")
    add_server(lab, 102, "web-02")
    rules = [{"action": "ACCEPT", "proto": "tcp", "dport": "80,443"}, {"action": "DROP", "enabled": False}]
    steps: list[tuple[str, dict[str, Any], list[int]]] = [
        ("present", {"firewall_group_rules": rules, "firewall_group_members": ["web-01"]}, [101]),
        ("assign", {"firewall_group_members": ["102"], "firewall_group_interface": "net0"}, [101, 102]),
        ("unassign", {"firewall_group_members": ["web-01"]}, [102]),
        ("absent", {"firewall_group_detach": True}, []),
    ]
    for playbook, variables, after in steps:
        wish = {**NAME, **variables}
        if playbook in ("present", "absent"):
            before = writes(lab)
            foretold = ansible.playbook(f"pvefleet.infra.firewall_group_{playbook}", "--check", "--diff", **wish)
            assert (foretold.returncode, foretold.changed) == (0, 1), foretold.output
            assert writes(lab) == before
        made = ansible.playbook(f"pvefleet.infra.firewall_group_{playbook}", **wish)
        assert (made.returncode, made.changed) == (0, 1), made.output
        assert members(lab) == after
        again = ansible.playbook(f"pvefleet.infra.firewall_group_{playbook}", **wish)
        if playbook != "absent":
            assert [rule["enable"] for rule in lab.pve.firewall_config("cluster")["groups"]["web"]] == [1, 0]
        assert (again.returncode, again.changed) == (0, 0), again.output
    assert lab.pve.firewall_config("cluster")["groups"] == {}


@pytest.mark.parametrize(
    ("playbook", "variables", "complaint"),
    [
        ("assign", NAME, "missing required arguments: firewall_group_members"),
        ("assign", {**NAME, "firewall_group_members": ["web-01"]}, "there is no web"),
        ("present", {**NAME, "firewall_group_rules": [{"action": "ALLOW"}]}, "ACCEPT, DROP, REJECT"),
    ],
)
def test_wrong_arguments(ansible: Ansible, lab: Any, playbook: str, variables: dict[str, Any], complaint: str) -> None:
    run = ansible.playbook(f"pvefleet.infra.firewall_group_{playbook}", **variables)
    assert run.returncode != 0
    assert complaint in run.output
    assert writes(lab) == 0
