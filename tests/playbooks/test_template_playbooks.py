# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbooks of templates, run by hand: foretold by --check, done once, refused when their arguments are wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.ansible_run import Ansible

IMAGE = {"storage": "local", "file": "rocky-9.qcow2"}
NAME = {"template_cluster": "prod", "template_name": "rocky-9"}
CREATE = {
    **NAME,
    "template_node": "pve1",
    "template_image": IMAGE,
    "template_disk_storage": "local-lvm",
    "template_disk_size": "4G",
    "template_cores": 2,
    "template_nics": {"net0": {"bridge": "vmbr0"}},
    "template_cipassword": "unforgettable-7",
    "template_tags": ["golden"],
    "template_replace": "when_changed",
}


@pytest.fixture
def ansible(tmp_path: Path, lab: Any) -> Ansible:
    return Ansible(tmp_path, lab)


def writes(lab: Any) -> int:
    return sum(method != "GET" and path != "/access/ticket" for method, path in lab.requests)


def test_life_of_a_template(ansible: Ansible, lab: Any) -> None:
    """Each playbook: --check foretells a change and makes none, the run makes it, the second run has nothing to do."""
    lab.do(lab.pve.add_image, "local", "rocky-9.qcow2", virtual=2 * 1024**3)
    steps: list[tuple[str, dict[str, Any]]] = [
        ("template_create", CREATE),
        ("template_delete", NAME),
        ("image_delete", {"template_cluster": "prod", "template_image": IMAGE}),
    ]
    for playbook, variables in steps:
        before = writes(lab)
        foretold = ansible.playbook(f"pvefleet.infra.{playbook}", "--check", "--diff", **variables)
        assert (foretold.returncode, foretold.changed) == (0, 1), foretold.output
        assert writes(lab) == before
        made = ansible.playbook(f"pvefleet.infra.{playbook}", "--diff", **variables)
        assert (made.returncode, made.changed) == (0, 1), made.output
        again = ansible.playbook(f"pvefleet.infra.{playbook}", **variables)
        assert (again.returncode, again.changed) == (0, 0), again.output
        assert not any("unforgettable" in run.output for run in (foretold, made, again))
        if playbook == "template_create":
            config = lab.vm(100).config
            assert config["cipassword"].startswith("$5$")
            assert config["scsi0"] == "local-lvm:base-100-disk-0,size=4G"
    assert [guest.vmid for guest in lab.pve.vms] == [lab.template_vmid]
    assert not lab.pve.storages["local"]["volumes"]


@pytest.mark.parametrize(
    ("playbook", "variables", "complaint"),
    [
        ("template_create", {}, "missing required arguments: template_name"),
        ("template_create", {**CREATE, "template_replace": "often"}, "value of template_replace must be one of"),
        (
            "template_delete",
            {"template_name": "debian-12-cloud", "template_vmid": 9001},
            "Unable to take template 9001",
        ),
        ("image_delete", {"template_image": {"storage": "local"}}, "missing required arguments: file"),
    ],
)
def test_wrong_arguments(ansible: Ansible, lab: Any, playbook: str, variables: dict[str, Any], complaint: str) -> None:
    run = ansible.playbook(f"pvefleet.infra.{playbook}", **variables)
    assert run.returncode != 0
    assert complaint in run.output
    assert writes(lab) == 0
