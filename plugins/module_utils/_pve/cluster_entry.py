# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A registry's entry: what it becomes by a task's parameters, what that changes, and how it is shown."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from ansible_collections.pvefleet.infra.plugins.module_utils._plan import Change, Plan
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import Connection, PveClient, PveError
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.cluster import ClusterFacts, probe, status_after
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.credentials import endpoint_url
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.registry import (
    BOOKKEEPING,
    KEYS,
    SECRETS,
    Registry,
    RegistryError,
)

MASK = "********"
# A parameter's name where it is not the entry's.
_PARAMS = {
    "api_user": "user",
    "api_password": "password",
    "api_token_id": "token_id",
    "api_token_secret": "token_secret",
}
_TRUST = ("ca_path", "ca_pem", "tls_fingerprint", "validate_certs")
# Who registers a cluster waits for the answer: long repetitions are for runs.
PROBE_RETRY_SECONDS = 2.0


def merged(registry: Registry, name: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """The entry as the parameters want it; what they leave out stays.

    A password replaces a token and the other way round, one way of trust another. A secret that is given and is what
    the entry's variable, file or vault has already stays a reference.
    """
    before = registry.clusters.get(name, {})
    given = {_PARAMS.get(key, key): value for key, value in params.items() if value is not None}
    given = {key: value for key, value in given.items() if key in KEYS and key not in BOOKKEEPING}
    if params.get("api_host"):
        given["endpoints"] = [endpoint_url(params["api_host"], params.get("api_port") or 8006)]
    if "ca_path" in given:
        given["ca_path"] = os.path.abspath(given["ca_path"])  # the registry's own relative paths start elsewhere
    entry = {key: value for key, value in before.items() if key not in _replaced_by(given)}
    for key, value in given.items():
        if not _same(registry, name, key, value):
            entry[key] = value
    if entry.get("validate_certs") is True:
        del entry["validate_certs"]
    return {key: entry[key] for key in KEYS if key in entry}


def _replaced_by(given: Mapping[str, Any]) -> set[str]:
    """The keys that cannot stay beside what is given."""
    gone: set[str] = set()
    if "password" in given:
        gone |= {"token_id", "token_secret"}
    if "token_id" in given or "token_secret" in given:
        gone |= {"password"}
    if "!" in given.get("token_id", ""):
        gone |= {"user"}
    if given.get("validate_certs") is False or any(key in given for key in _TRUST[:3]):
        gone |= set(_TRUST)
    return gone - given.keys()


def _same(registry: Registry, name: str, key: str, value: Any) -> bool:
    before: dict[str, Any] = registry.clusters.get(name, {})
    if key not in before:
        return False
    if key == "endpoints":
        return [endpoint_url(url) for url in before[key]] == [endpoint_url(url) for url in value]
    if key in SECRETS:
        try:
            return registry.secret(name, key) == str(value)
        except RegistryError:
            return False  # a reference that leads nowhere is replaced by what is given
    return bool(before[key] == value)


def planned(registry: Registry, name: str, after: Mapping[str, Any] | None, default: bool | None) -> Plan:
    """What changes when name becomes after (None: it is removed), and the default with it. Secrets are masked."""
    before = registry.clusters.get(name)
    changes = []
    for key in KEYS:
        old, new = (before or {}).get(key), (after or {}).get(key)
        if key in BOOKKEEPING or old == new:
            continue
        if key in SECRETS:
            old, new = _masked(old), _masked(new)
            new = f"{new} (changed)" if old == new else new
        changes.append(Change(key, old, new))
    was, becomes = registry.default, registry.default
    if after is None or default is False:
        becomes = None if was == name else was
    elif default:
        becomes = name
    if was != becomes:
        changes.append(Change("default", was == name, becomes == name))
    return Plan(f"cluster {name} in {registry.path}", tuple(changes))


def _masked(secret: Any) -> Any:
    """References are no secrets; ciphertext is none either, but nobody wants to read it."""
    return MASK if isinstance(secret, str) else secret


def applied(registry: Registry, name: str, after: dict[str, Any] | None, default: bool | None) -> None:
    """Changes the registry as planned() says it."""
    if after is None:
        registry.clusters.pop(name, None)
        if registry.default == name:
            registry.default = None
        return
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    registry.clusters[name] = {"id": str(uuid.uuid4()), "created_at": now, **after, "updated_at": now}
    if default:
        registry.default = name
    elif default is False and registry.default == name:
        registry.default = None


def measured(connection: Connection) -> tuple[ClusterFacts | None, str, str | None]:
    """The cluster's facts, its status, and the error when there are no facts."""
    try:
        client = PveClient(replace(connection, retry_seconds=PROBE_RETRY_SECONDS))
        facts = probe(client)
    except PveError as error:
        return None, status_after(error), str(error)
    client.close()
    return facts, facts.status, None


def document(
    name: str | None, entry: Mapping[str, Any], facts: ClusterFacts | None, status: str, default: bool
) -> dict[str, Any]:
    """The cluster as the HTTP interface shows it, and what was measured beyond that. Never a secret."""
    endpoints = [endpoint_url(url) for url in entry["endpoints"]]
    return {
        "id": entry.get("id"),
        "name": name,
        "api_endpoint": endpoints[0],
        "endpoints": endpoints,
        "status": status,
        "proxmox_version": facts.version if facts else None,
        "node_count": len(facts.nodes) if facts else None,
        "quorate": facts.quorate if facts else None,
        "nodes": facts.as_dict()["nodes"] if facts else [],
        "default": default,
        "default_node": entry.get("default_node"),
        "default_storage": entry.get("default_storage"),
        "created_at": entry.get("created_at"),
        "updated_at": entry.get("updated_at"),
    }
