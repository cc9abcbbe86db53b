# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of operations fits the playbooks, the role, the permissions and the catalogue."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pvefleet.access.permissions import PERMISSIONS
from pvefleet.families.servers import STATES
from pvefleet.messages import LANGUAGES, Catalogue
from pvefleet.operations import OPERATIONS
from pvefleet.schemas.servers import ChangeServer, CreateServer, DeleteServer, StopServer
from pvefleet.server_variables import Subject
from pydantic import BaseModel

ROOT = Path(__file__).parents[2]
SPECS = yaml.safe_load((ROOT / "roles/server/meta/argument_specs.yml").read_text())["argument_specs"]
SSH_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJb5ZOqxyVkVuZ1R7Y4hlqsdQG6A7vPQ0c2bG0R3yK1d"

DISK = {"size": 4, "interface": "scsi1", "datastore_id": "local", "disk_type": "ssd"}
NIC = {"bridge": "vmbr0", "ip_address": "10.0.0.5", "subnet": 24, "gateway": "10.0.0.1", "vlan": 5, "firewall": True}
# Every field of every body has a value here.
FULL: dict[str, BaseModel | None] = {
    "create_server": CreateServer.model_validate(
        {
            "name": "app-1",
            "cpu": 2,
            "memory": 512,
            "role": "app",
            "ip_address": "10.0.0.5",
            "disks": [DISK],
            "network_devices": [{**NIC, "model": "virtio", "mac": "BC:24:11:00:00:01"}],
            "template_vm_id": 9000,
            "vm_username": "ops",
            "vm_password": "secret",
            "ssh_keys": [SSH_KEY],
            "nameservers": ["10.0.0.1"],
            "tags": ["a"],
            "description": "d",
            "node": "pve1",
            "full_clone": True,
            "start": True,
            "wait": True,
        }
    ),
    "update_server": ChangeServer.model_validate(
        {
            "cpu": 2,
            "memory": 512,
            "disks": [DISK],
            "tags": ["a"],
            "role": "app",
            "description": "d",
            "power_cycle": "never",
        }
    ),
    "start_server": None,
    "stop_server": StopServer(force=True, timeout=1),
    "reboot_server": StopServer(force=True, timeout=1),
    "delete_server": DeleteServer(cluster="prod", purge=True),
}
SUBJECT = Subject("id", "prod", "app-1", timeout=60, vmid=100, template=9000, template_config={"scsi1": "local:1"})


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_role_knows_every_variable_and_gets_all_it_needs(name: str) -> None:
    operation, body = OPERATIONS[name], FULL[name]
    part = operation.playbook.removeprefix("pvefleet.infra.server_")
    playbook = yaml.safe_load((ROOT / "playbooks" / f"server_{part}.yml").read_text())
    assert f"'tasks_from': '{part}'" in str(playbook)
    options: dict[str, Any] = SPECS[part]["options"]
    given = {**operation.variables(body, SUBJECT), **operation.secrets(body, SUBJECT)}
    assert set(given) <= set(options)
    assert {option for option, about in options.items() if about.get("required")} <= set(given)
    assert operation.locks(SUBJECT) == ["server:prod/app-1"]
    assert operation.permission in PERMISSIONS


@pytest.mark.parametrize("name", OPERATIONS)
def test_no_field_of_a_request_is_dropped_silently(name: str) -> None:
    operation, body = OPERATIONS[name], FULL[name]
    if body is None:
        return
    full = {**operation.variables(body, SUBJECT), **operation.secrets(body, SUBJECT)}
    # Said by the path, by the subject, or only a way to choose the subject.
    elsewhere = {"name", "cluster", "template_vm_id", "ip_address"}
    for field in set(type(body).model_fields) - elsewhere:
        less = body.model_copy(update={field: type(body).model_fields[field].get_default(call_default_factory=True)})
        if getattr(less, field) == getattr(body, field):
            less = body.model_copy(update={field: {"never": "when_needed", True: False}[getattr(body, field)]})
        assert {**operation.variables(less, SUBJECT), **operation.secrets(less, SUBJECT)} != full, field


def test_every_operation_has_its_words_in_every_language() -> None:
    catalogue = Catalogue.load()
    assert set(STATES) == set(OPERATIONS) == set(FULL)
    for language in LANGUAGES:
        for name in OPERATIONS:
            assert catalogue.text(f"operation.{name}", language)
            assert catalogue.text(f"accepted.{name}", language)
