# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Storage definitions of a cluster: looked at, made what they should be, waited for on each node."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ansible_collections.pvefleet.infra.plugins.module_utils._plan import Plan
from ansible_collections.pvefleet.infra.plugins.module_utils._pve import steps
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import (
    PveBadRequest,
    PveClient,
    PveConflict,
    PveError,
    PveNotFound,
    segment,
)
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.cluster import listing, record, strange
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.errors import Outcome, Unable, unable
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.resources import Resources
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.sight import check_sight
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.storage_plan import (
    BOOLEANS,
    StorageSpec,
    additions,
    create_params,
    plan,
    properties,
    split,
    update_params,
)

# The keys of a guest's config that name a volume.
_VOLUME_KEY = re.compile(r"(?:efidisk|ide|mp|sata|scsi|tpmstate|unused|virtio)\d+|rootfs|vmstate|hookscript|cicustom")


@dataclass(frozen=True)
class Result:
    """storage: see describe(); None when there is none, or shall be none."""

    plan: Plan
    storage: dict[str, Any] | None


def converge_storage(client: PveClient, spec: StorageSpec, *, check_mode: bool = False) -> Result:
    """Makes the definition what the spec says and waits until the storage is active where it should be.

    Raises Unable for what cannot be, before anything is changed where it can be known; PveError for a failed look.
    """
    current = observe(client, spec.name)
    if spec.state == "absent":
        return _remove(client, spec, current, check_mode)
    online = _online(client)
    _check_nodes(spec, online)
    # One clean repetition: the digest is that of all definitions, and somebody may change another one meanwhile.
    for last in (False, True):
        planned = plan(current, spec)
        if current is not None and not spec.force:
            _check_still_used(client, current, planned, online)
        if check_mode:
            return Result(planned, describe(_foretold(current, planned, spec), []))
        if not planned.changed:
            break
        try:
            _write(client, spec, current, planned)
            break
        except PveConflict as error:
            if last:
                raise Unable(f"Unable to change storage {spec.name}: {error}") from error
            current = observe(client, spec.name)
    config = observe(client, spec.name)
    if config is None:
        raise Unable(f"Unable to define storage {spec.name}: somebody else removed it at the same time")
    status = _wait(client, spec, config, online) if spec.wait else []
    return Result(planned, describe(config, status))


def observe(client: PveClient, name: str) -> dict[str, Any] | None:
    """The definition as PVE tells it, None when there is none. Needs Datastore.Allocate on it."""
    try:
        found = record(client, f"/storage/{segment(name)}")
    except PveNotFound:
        return None
    if not found.keys() >= {"storage", "type"}:
        raise strange(client, f"/storage/{segment(name)}")
    return found


def describe(config: Mapping[str, Any], status: list[dict[str, Any]]) -> dict[str, Any]:
    """A storage in plain values. status: what each node that was asked has of it, see look()."""
    told = properties(config)
    apart = {"content", "nodes", "disable", "shared"}
    rest = {key: text == "1" if key in BOOLEANS else text for key, text in told.items() if key not in apart}
    return {
        "name": config["storage"],
        "type": config["type"],
        "content": split(told.get("content", "")),
        "nodes": split(told.get("nodes", "")),
        "enabled": told.get("disable") != "1",
        "shared": told.get("shared") == "1",
        "settings": rest,
        "status": status,
    }


def list_storages(
    client: PveClient,
    *,
    name: str | None = None,
    kind: str | None = None,
    content: str | None = None,
    node: str | None = None,
) -> list[dict[str, Any]]:
    """The storages that the user may see and that fit, with what each node has of them, in one call a node.

    node: only those that are for this node, and their state there. Raises Unable for an unknown node, PveError.
    """
    online = _online(client)
    if node is not None:
        _check_known([node], online, f"look at the storages of node {node}")
    configs = [
        config
        for config in _keyed(client, "/storage", "storage", {"type": kind})
        if name in (None, config["storage"])
        and (content is None or content in split(str(config.get("content", ""))))
        and (node is None or node in (split(str(config.get("nodes", ""))) or [node]))
    ]
    if not configs:
        return []
    wanted = {"storage": configs[0]["storage"]} if len(configs) == 1 else None
    asked = [each for each in ([node] if node else sorted(online)) if online[each]]
    rows = dict(zip(asked, steps.parallel(lambda each: _rows(client, each, wanted), asked), strict=True))
    storages = []
    for config in sorted(configs, key=lambda config: str(config["storage"])):
        its_own = [each for each in _for_nodes(config, online) if node in (None, each)]
        status = [_status(each, rows.get(each, {}).get(config["storage"])) for each in its_own]
        storages.append(describe(config, status))
    return storages


def _rows(client: PveClient, node: str, params: Mapping[str, Any] | None) -> dict[str, Mapping[str, Any]]:
    """What a node says of its storages; nothing when it does not answer in time, as one with a dead NFS server."""
    try:
        rows = _keyed(client, f"/nodes/{segment(node)}/storage", "storage", params)
        return {row["storage"]: row for row in rows}
    except PveError as error:
        if error.outcome is Outcome.REFUSED:
            raise
        return {}


def look(client: PveClient, name: str, node: str) -> dict[str, Any]:
    """What a node has of a storage: node, state (active, inactive, disabled, unknown), total, used, available bytes.

    The look itself makes the node activate the storage. A node that does not answer in time knows nothing.
    """
    path = f"/nodes/{segment(node)}/storage/{segment(name)}/status"
    try:
        row = client.get(path, retry_seconds=0)
        if not isinstance(row, dict):
            raise strange(client, path)
    except (PveBadRequest, PveNotFound):
        row = None  # the node has not heard of the definition yet
    except PveError as error:
        if error.outcome is Outcome.REFUSED:
            raise
        row = None  # an NFS server that does not answer holds up the node's answer as well
    return _status(node, row)


def _status(node: str, row: Mapping[str, Any] | None) -> dict[str, Any]:
    if row is None:
        return {"node": node, "state": "unknown", "total": None, "used": None, "available": None}
    state = "disabled" if not row.get("enabled", 1) else "active" if row.get("active") else "inactive"
    numbers = (row.get(key) if state == "active" else None for key in ("total", "used", "avail"))
    return {"node": node, "state": state, **dict(zip(("total", "used", "available"), numbers, strict=True))}


def _online(client: PveClient) -> dict[str, bool]:
    """Node -> online."""
    return {row["node"]: row.get("status") == "online" for row in _keyed(client, "/nodes", "node")}


def _keyed(client: PveClient, path: str, key: str, params: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """A listing whose rows are told apart by this key."""
    rows = listing(client, path, params)
    if not all(isinstance(row.get(key), str) for row in rows):
        raise strange(client, path)
    return rows


def _for_nodes(config: Mapping[str, Any], online: Iterable[str]) -> list[str]:
    """The nodes that a definition is for."""
    named = split(str(config.get("nodes") or ""))
    return sorted(node for node in online if node in (named or [node]))


def _check_known(nodes: Iterable[str], online: Mapping[str, bool], what: str) -> None:
    for node in nodes:
        if node not in online:
            raise Unable(f"Unable to {what}: there is no node {node}, only {', '.join(sorted(online))}")


def _check_nodes(spec: StorageSpec, online: Mapping[str, bool]) -> None:
    what = f"define storage {spec.name}"
    _check_known(spec.nodes, online, what)
    offline = [node for node in spec.nodes if not online[node]]
    if offline and spec.wait and spec.wanted.get("disable") != "1":
        raise Unable(
            f"Unable to {what}: node {', '.join(offline)} is offline, so that it cannot become active there; leave it"
            " out, or do not wait"
        )


def _foretold(current: Mapping[str, Any] | None, planned: Plan, spec: StorageSpec) -> dict[str, Any]:
    """The definition as it would be, with what PVE adds to a new one."""
    config = {"storage": spec.name, **(additions(spec) if current is None else current)}
    for change in planned.changes:
        if change.item in spec.secrets:
            continue
        if change.after is None:
            config.pop(change.item, None)
        else:
            config[change.item] = change.after
    return config


def _write(client: PveClient, spec: StorageSpec, current: Mapping[str, Any] | None, planned: Plan) -> None:
    """Raises PveConflict when somebody else has written since the definition was read, Unable otherwise."""
    shown = replace(spec, renew_secrets=False)  # secrets cannot be read back

    def landed() -> bool | None:
        now = observe(client, spec.name)
        return True if now is not None and not plan(now, shown).changed else None

    verb = "define" if current is None else "change"
    try:
        if current is None:
            client.post("/storage", create_params(spec), landed=landed)
            return
        params = {**update_params(planned.changes, spec), "digest": current.get("digest")}
        renewing = any(change.item in spec.secrets for change in planned.changes)
        client.put(f"/storage/{segment(spec.name)}", params, landed=(lambda: None) if renewing else landed)
    except PveConflict:
        raise
    except PveError as error:
        raise Unable(f"Unable to {verb} storage {spec.name}: {error}") from error


def _wait(
    client: PveClient, spec: StorageSpec, config: Mapping[str, Any], online: Mapping[str, bool]
) -> list[dict[str, Any]]:
    """What the nodes have of the storage, once it is active on all that are meant and online."""
    if properties(config).get("disable") == "1":
        return []
    nodes = [node for node in spec.nodes or _for_nodes(config, online) if online[node]]
    seen: dict[str, dict[str, Any]] = {}
    with unable(f"look at storage {spec.name}"):
        for _look in steps.until(spec.wait_timeout):
            missing = [node for node in nodes if seen.get(node, {}).get("state") != "active"]
            looks = steps.parallel(lambda node: look(client, spec.name, node), missing)
            seen.update(zip(missing, looks, strict=True))
            if all(status["state"] == "active" for status in seen.values()):
                return [seen[node] for node in nodes]
    has = ", ".join(f"{seen[node]['state']} on {node}" for node in nodes)
    raise Unable(
        f"Unable to activate storage {spec.name}: it is defined, but after {spec.wait_timeout} s it is {has}; the"
        " node's system log says why"
    )


def _remove(client: PveClient, spec: StorageSpec, current: Mapping[str, Any] | None, check_mode: bool) -> Result:
    planned = plan(current, spec)
    if current is None:
        return Result(planned, None)
    if not spec.force:
        _check_unused(client, spec.name, "remove")
    if not check_mode:
        with unable(f"remove storage {spec.name}"):
            client.delete(
                f"/storage/{segment(spec.name)}", landed=lambda: True if observe(client, spec.name) is None else None
            )
    return Result(planned, None)


def _check_still_used(client: PveClient, current: Mapping[str, Any], planned: Plan, online: Mapping[str, bool]) -> None:
    """Raises Unable when the changes take the storage away from a guest that uses it, or when that cannot be known."""
    name = current["storage"]
    after = {change.item: change.after for change in planned.changes}
    if after.get("disable") == "1":
        _check_unused(client, name, "disable")
    elif "nodes" in after:
        left = set(_for_nodes(current, online)) - set(_for_nodes(after, online))
        if left:
            _check_unused(client, name, f"take node {', '.join(sorted(left))} off", left)


def _check_unused(client: PveClient, name: str, verb: str, nodes: Container[str] | None = None) -> None:
    """Raises Unable when the config of a guest, on these nodes or on any, refers to the storage, or when that cannot be
    known."""
    what = f"{verb} storage {name}"
    with unable(what):
        check_sight(client, "see every guest that may use it")
        resources = Resources.read(client)
        guests = [row for row in resources.guests() if nodes is None or row["node"] in nodes]
        offline = resources.offline()
        unseen = [row for row in guests if row["node"] in offline]
        looks = steps.parallel(lambda row: _uses(client, row, name), (row for row in guests if row not in unseen))
        users = sorted(user for user in looks if user is not None)
    if users:
        raise Unable(
            f"Unable to {what}: the configuration of {', '.join(users)} refers to it; move the disks away first, or use"
            " force, which leaves them where they are"
        )
    if unseen:
        vmids = ", ".join(str(vmid) for vmid in sorted(int(row["vmid"]) for row in unseen))
        where = ", ".join(sorted({row["node"] for row in unseen}))
        raise Unable(
            f"Unable to {what}: whether {vmids} use it is not known, for {where} is offline; use force to do it all the"
            " same"
        )


def _uses(client: PveClient, row: Mapping[str, Any], name: str) -> str | None:
    """The guest's name and vmid, if its config as it is or as it is pending refers to the storage."""
    path = f"/nodes/{segment(row['node'])}/{row['type']}/{row['vmid']}/pending"
    try:
        options = _keyed(client, path, "key")
    except PveNotFound:
        return None
    on_it = re.compile(rf"(?:^|[=,]){re.escape(name)}:")
    config = {option["key"]: (option.get("value"), option.get("pending")) for option in options}
    for key, values in config.items():
        if _VOLUME_KEY.fullmatch(key) and any(on_it.search(str(value)) for value in values if value is not None):
            called = next((config[key][0] for key in ("name", "hostname") if key in config), None)
            return f"{called} ({row['vmid']})" if called else str(row["vmid"])
    return None
