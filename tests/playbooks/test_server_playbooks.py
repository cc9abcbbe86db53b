# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbooks of servers, run by hand: foretold by --check, done once, refused when their arguments are wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.ansible_run import Ansible
from tests.server_options import KEY

NAME = {"server_cluster": "prod", "server_name": "web-01"}
CREATE = {
    **NAME,
    "server_clone": {"template": "debian-12-cloud"},
    "server_cores": 2,
    "server_memory": 1024,
    "server_disks": {"scsi0": {"size": "5G"}, "scsi1": {"size": "1G"}},
    "server_nics": {"net0": {"bridge": "vmbr0"}, "net1": {"bridge": "vmbr1", "vlan": 7}},
    "server_cloud_init": {"user": "ops", "ssh_keys": [KEY], "ipconfig": {"net0": "ip=10.0.0.5/24,gw=10.0.0.1"}},
    "server_cipassword": "unforgettable-7",
    "server_tags": ["blue"],
    "server_role": "web",
}


@pytest.fixture
def ansible(tmp_path: Path, lab: Any) -> Ansible:
    return Ansible(tmp_path, lab)


def writes(lab: Any) -> int:
    return sum(method != "GET" and path != "/access/ticket" for method, path in lab.requests)


def test_life_of_a_server(ansible: Ansible, lab: Any) -> None:
    """Each playbook: --check foretells a change and makes none, the run makes it, the second run has nothing to do."""
    steps: list[tuple[str, dict[str, Any]]] = [
        ("server_create", CREATE),
        ("server_update", {**NAME, "server_memory": 2048, "server_power_cycle": "when_needed", "server_role": "db"}),
        ("server_power", {**NAME, "server_state": "stopped"}),
        ("server_delete", NAME),
    ]
    for playbook, variables in steps:
        before = writes(lab)
        foretold = ansible.playbook(f"pvefleet.infra.{playbook}", "--check", "--diff", **variables)
        assert (foretold.returncode, foretold.changed) == (0, 1), foretold.output
        assert writes(lab) == before
        made = ansible.playbook(f"pvefleet.infra.{playbook}", **variables)
        assert (made.returncode, made.changed) == (0, 1), made.output
        assert writes(lab) > before
        again = ansible.playbook(f"pvefleet.infra.{playbook}", **variables)
        assert (again.returncode, again.changed) == (0, 0), again.output
        assert not any("unforgettable" in run.output for run in (foretold, made, again))
        if playbook == "server_update":
            guest = lab.vm(100)
            assert (guest.config["tags"], guest.running) == ("blue;role-db", True)
            assert guest.config["cipassword"].startswith("$5$")
    assert [guest.vmid for guest in lab.pve.vms] == [lab.template_vmid]


@pytest.mark.parametrize(
    ("playbook", "variables", "complaint"),
    [
        ("server_create", {}, "missing required arguments: server_name"),
        ("server_create", {**CREATE, "server_memory": "lots"}, "'lots'"),
        ("server_power", {**NAME, "server_state": "asleep"}, "value of server_state must be one of"),
        ("server_update", {**NAME, "server_memory": 1024}, "Unable to manage server web-01: there is none"),
    ],
)
def test_wrong_arguments(ansible: Ansible, lab: Any, playbook: str, variables: dict[str, Any], complaint: str) -> None:
    run = ansible.playbook(f"pvefleet.infra.{playbook}", **variables)
    assert run.returncode != 0
    assert complaint in run.output
    assert writes(lab) == 0
