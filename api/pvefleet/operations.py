# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""THE table: what can be asked for, which playbook does it, who may ask, what it locks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel
from sqlalchemy.orm import Session

from pvefleet import server_variables
from pvefleet.db.models import Task
from pvefleet.server_variables import Subject
from pvefleet.services import Services
from pvefleet.tasks import store


@dataclass(frozen=True)
class Playbook:
    """A playbook of the collection, for whoever offers it to people: AWX has a job template for each.

    permissions: of those that it takes one, by what it is asked to do. asks: further options that people want to be
    asked for, with an answer to begin with; its role hands them to a module as they are, a mapping as JSON, takes a
    text with commas or lines for a list, and an empty password for none.
    """

    name: str
    role: str
    entry: str
    title: str
    permissions: tuple[str, ...]
    asks: Mapping[str, str] = field(default_factory=dict)


_POWER = ("start_server", "stop_server", "reboot_server")
_BACKUP = ("backup_management",)
_PLAYBOOKS = (
    Playbook(
        "server_create",
        "server",
        "create",
        "Create a server, or make it what it should be",
        ("create_server",),
        {"server_clone": '{"template": ""}', "server_cipassword": ""},
    ),
    Playbook("server_update", "server", "update", "Change a server", ("create_server",), {"server_cipassword": ""}),
    Playbook("server_power", "server", "power", "Start, stop or restart a server", _POWER),
    Playbook("server_delete", "server", "delete", "Remove a server", ("delete_server",)),
    Playbook("fleet_converge", "fleet", "converge", "Make many servers what they should be", ("create_server",)),
    Playbook("fleet_power", "fleet", "power", "Start, stop or restart many servers", _POWER, {"fleet_names": ""}),
    Playbook("fleet_delete", "fleet", "delete", "Remove many servers", ("delete_server",), {"fleet_names": ""}),
    Playbook(
        "server_backup_create",
        "server_backup",
        "create",
        "Take a backup of a server",
        _BACKUP,
        {"server_backup_server": "", "server_backup_storage": ""},
    ),
    Playbook(
        "server_backup_restore",
        "server_backup",
        "restore",
        "Restore a server from a backup",
        _BACKUP,
        {"server_backup_server": "", "server_backup_volid": ""},
    ),
    Playbook(
        "server_backup_delete",
        "server_backup",
        "delete",
        "Remove a backup of a server",
        _BACKUP,
        {"server_backup_volid": ""},
    ),
    Playbook("server_backup_protect", "server_backup", "protect", "Protect a backup, or end its protection", _BACKUP),
    Playbook(
        "storage_register",
        "storage",
        "register",
        "Define a storage, or make its definition what it should be",
        ("manage_storage",),
        {"storage_type": ""},
    ),
    Playbook("storage_remove", "storage", "remove", "Remove the definition of a storage", ("manage_storage",)),
    Playbook(
        "template_create",
        "template",
        "create",
        "Make a template of an image",
        ("manage_images",),
        {
            "template_image": '{"storage": "local", "file": ""}',
            "template_node": "",
            "template_disk_storage": "",
            "template_cipassword": "",
        },
    ),
    Playbook("template_delete", "template", "delete", "Remove a template", ("manage_images",)),
    Playbook(
        "image_delete",
        "template",
        "image_delete",
        "Remove an image",
        ("manage_images",),
        {"template_image": '{"storage": "local", "file": ""}'},
    ),
    Playbook(
        "firewall_group_present",
        "firewall_group",
        "present",
        "Make a security group what it should be",
        ("manage_firewall_groups",),
    ),
    Playbook(
        "firewall_group_absent", "firewall_group", "absent", "Remove a security group", ("manage_firewall_groups",)
    ),
    Playbook(
        "firewall_group_assign",
        "firewall_group",
        "assign",
        "Let a security group apply to servers",
        ("assign_firewall_groups",),
    ),
    Playbook(
        "firewall_group_unassign",
        "firewall_group",
        "unassign",
        "Take a security group off servers",
        ("assign_firewall_groups",),
    ),
    Playbook("node_join", "pve_node", "join", "Join a node to a cluster", ("manage_nodes",)),
    Playbook("node_remove", "pve_node", "remove", "Remove a node from its cluster", ("manage_nodes",)),
)
PLAYBOOKS: Mapping[str, Playbook] = {playbook.name: playbook for playbook in _PLAYBOOKS}


def _none(body: Any, subject: Subject) -> dict[str, Any]:
    return {}


def server_lock(cluster: str, name: str) -> str:
    """The resource that everything locks which changes the server."""
    return f"server:{cluster}/{name}"


def _the_server(subject: Subject) -> list[str]:
    return [server_lock(subject.cluster, subject.name)]


@dataclass(frozen=True)
class Operation:
    """variables, secrets: make the playbook's variables from a checked body. Secrets are kept apart, encrypted."""

    name: str
    playbook: str
    permission: str
    title: str
    variables: Callable[[Any, Subject], dict[str, Any]]
    secrets: Callable[[Any, Subject], dict[str, Any]] = _none
    locks: Callable[[Subject], list[str]] = _the_server


_ALL = (
    Operation(
        name="create_server",
        playbook="pvefleet.infra.server_create",
        permission="create_server",
        title="create server {name}",
        variables=server_variables.create,
        secrets=server_variables.create_secrets,
    ),
    Operation(
        name="update_server",
        playbook="pvefleet.infra.server_update",
        permission="create_server",
        title="change server {name}",
        variables=server_variables.change,
    ),
    Operation(
        name="start_server",
        playbook="pvefleet.infra.server_power",
        permission="start_server",
        title="start server {name}",
        variables=server_variables.power("started"),
    ),
    Operation(
        name="stop_server",
        playbook="pvefleet.infra.server_power",
        permission="stop_server",
        title="stop server {name}",
        variables=server_variables.power("stopped"),
    ),
    Operation(
        name="reboot_server",
        playbook="pvefleet.infra.server_power",
        permission="reboot_server",
        title="restart server {name}",
        variables=server_variables.power("restarted"),
    ),
    Operation(
        name="delete_server",
        playbook="pvefleet.infra.server_delete",
        permission="delete_server",
        title="delete server {name}",
        variables=server_variables.delete,
    ),
)
OPERATIONS: Mapping[str, Operation] = {operation.name: operation for operation in _ALL}


def submit(
    session: Session,
    services: Services,
    operation: Operation,
    body: BaseModel | None,
    subject: Subject,
    *,
    user_id: int | None,
    idempotency_key: str | None,
) -> Task:
    """Queue the operation in this transaction. Raises ResourceLocked, KeyReused, and SpecError for variables that
    the playbook's module would refuse."""
    variables = operation.variables(body, subject)
    secrets = operation.secrets(body, subject)
    return store.create(
        session,
        operation=operation.name,
        title=operation.title.format(name=subject.name),
        cluster_id=subject.cluster_id,
        target=subject.name,
        parameters=variables,
        sealed=services.vault.encrypt(secrets) if secrets else None,
        locks=operation.locks(subject),
        user_id=user_id,
        deadline_seconds=services.settings.task_deadline,
        idempotency_key=idempotency_key,
    )
