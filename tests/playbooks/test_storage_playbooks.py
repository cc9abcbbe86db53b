# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbooks of storages, run by hand: foretold by --check, done once, refused when their arguments are wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.ansible_run import Ansible

NAME = {"storage_cluster": "prod", "storage_name": "remote-poka"}
REGISTER = {
    **NAME,
    "storage_type": "nfs",
    "storage_server": "192.168.3.50",
    "storage_export": "/poka",
    "storage_content": ["images", "rootdir"],
    "storage_nodes": ["pve2"],
    "storage_prune_backups": {"keep-last": 3},
}


@pytest.fixture
def ansible(tmp_path: Path, lab: Any) -> Ansible:
    return Ansible(tmp_path, lab)


def writes(lab: Any) -> int:
    return sum(method != "GET" and path != "/access/ticket" for method, path in lab.requests)


def test_life_of_a_storage(ansible: Ansible, lab: Any) -> None:
    for playbook, variables in (("storage_register", REGISTER), ("storage_remove", NAME)):
        before = writes(lab)
        foretold = ansible.playbook(f"pvefleet.infra.{playbook}", "--check", "--diff", **variables)
        assert (foretold.returncode, foretold.changed) == (0, 1), foretold.output
        assert writes(lab) == before
        made = ansible.playbook(f"pvefleet.infra.{playbook}", **variables)
        assert (made.returncode, made.changed) == (0, 1), made.output
        assert writes(lab) == before + 1
        again = ansible.playbook(f"pvefleet.infra.{playbook}", **variables)
        assert (again.returncode, again.changed) == (0, 0), again.output
        assert writes(lab) == before + 1
        assert ("remote-poka" in lab.pve.storages) is (playbook == "storage_register")


@pytest.mark.parametrize(
    ("playbook", "variables", "complaint"),
    [
        ("storage_register", {}, "missing required arguments: storage_name"),
        ("storage_remove", {"storage_name": "local-lvm"}, "the configuration of debian-12-cloud (9000) refers to it"),
    ],
)
def test_refusals(ansible: Ansible, lab: Any, playbook: str, variables: dict[str, Any], complaint: str) -> None:
    run = ansible.playbook(f"pvefleet.infra.{playbook}", **variables)
    assert run.returncode != 0
    assert complaint in run.output
    assert writes(lab) == 0
