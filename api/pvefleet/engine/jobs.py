# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a task's row to what an executor runs: its playbook, its variables, its secrets, its cluster."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from ansible_collections.pvefleet.infra.plugins.module_utils._pve import registry
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import Connection

from pvefleet.db.models import Cluster, Task, TaskSecret
from pvefleet.engine.base import Job
from pvefleet.operations import OPERATIONS
from pvefleet.services import Services


class JobError(Exception):
    """The task cannot be run; str() says why in one sentence."""


def prepare(services: Services, task: Task) -> Job:
    """Raises JobError, VaultError."""
    with services.db.read() as session:
        row = session.get(TaskSecret, task.id)
        cluster = session.get(Cluster, task.cluster_id) if task.cluster_id is not None else None
    secrets = services.vault.decrypt(row.data) if row is not None else {}
    hidden = set(_texts(secrets))
    text = None
    if task.cluster_id is not None:
        if cluster is None:
            raise JobError(f"Unable to run {task.id}: its cluster is not registered any more")
        connection = services.connection(cluster)
        hidden |= {secret for secret in (connection.password, connection.token_secret) if secret}
        text = registry_text(cluster.name, connection)
    operation = OPERATIONS[task.operation]
    return Job(task.id, operation.playbook, task.parameters, secrets, text, frozenset(hidden))


def registry_text(name: str, connection: Connection) -> str:
    """A registry file with one cluster."""
    entry: dict[str, Any] = {}
    for field in fields(connection):
        value = getattr(connection, field.name)
        if field.name in registry.KEYS and value is not None:
            entry[field.name] = list(value) if isinstance(value, tuple) else value
    return registry.dump(registry.Registry("registry.yml", {name: entry}, default=name))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
