# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""THE table: what can be asked for, which playbook does it, who may ask, what it locks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from sqlalchemy.orm import Session

from pvefleet import server_variables
from pvefleet.db.models import Task
from pvefleet.server_variables import Subject
from pvefleet.services import Services
from pvefleet.tasks import store


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
