# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbooks of backups, run by hand: foretold by --check, done once, refused when their arguments are wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.ansible_run import Ansible
from tests.modules.jobs import add_server, servers

SERVER = {"server_backup_cluster": "prod", "server_backup_server": "web-01"}


@pytest.fixture
def ansible(tmp_path: Path, lab: Any) -> Ansible:
    add_server(lab)
    return Ansible(tmp_path, lab)


def writes(lab: Any) -> int:
    return sum(method != "GET" and path != "/access/ticket" for method, path in lab.requests)


def backups(lab: Any) -> dict[str, dict[str, Any]]:
    volumes = lab.pve.storages["local"]["volumes"].items()
    return {f"local:{name}": volume for name, volume in volumes if volume["content"] == "backup"}


def test_life_of_a_backup(ansible: Ansible, lab: Any) -> None:
    """Each playbook: --check foretells a change and makes none, the run makes it, the second run has nothing to do."""
    for playbook, variables in (
        ("create", {**SERVER, "server_backup_notes": "nightly", "server_backup_protected": True}),
        ("restore", {**SERVER, "server_backup_target_vmid": 150, "server_backup_target_name": "web-02"}),
        ("protect", {"server_backup_protected": False}),
        ("delete", {**SERVER, "server_backup_notes": "nightly"}),
    ):
        if playbook == "protect":
            variables = {**variables, "server_backup_cluster": "prod", "server_backup_volid": next(iter(backups(lab)))}
        before = writes(lab)
        foretold = ansible.playbook(f"pvefleet.infra.server_backup_{playbook}", "--check", "--diff", **variables)
        assert (foretold.returncode, foretold.changed) == (0, 1), foretold.output
        assert writes(lab) == before
        made = ansible.playbook(f"pvefleet.infra.server_backup_{playbook}", **variables)
        assert (made.returncode, made.changed) == (0, 1), made.output
        again = ansible.playbook(f"pvefleet.infra.server_backup_{playbook}", **variables)
        assert (again.returncode, again.changed) == (0, 0), again.output
        if playbook == "create":
            assert [one["notes"] for one in backups(lab).values()] == ["nightly"]
    assert servers(lab) == {100: "web-01", 150: "web-02"}
    assert backups(lab) == {}


@pytest.mark.parametrize(
    ("playbook", "variables", "complaint"),
    [
        ("create", {**SERVER, "server_backup_mode": "asleep"}, "value of server_backup_mode must be one of"),
        ("protect", SERVER, "missing required arguments: server_backup_volid"),
        ("delete", SERVER, "state: absent needs volid, notes or older_than"),
    ],
)
def test_wrong_arguments(ansible: Ansible, lab: Any, playbook: str, variables: dict[str, Any], complaint: str) -> None:
    before = writes(lab)
    run = ansible.playbook(f"pvefleet.infra.server_backup_{playbook}", **variables)
    assert run.returncode != 0
    assert complaint in run.output
    assert writes(lab) == before
