# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a fleet should be: proxmox_fleet's options, each server's merged with the defaults, checked before anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ansible_collections.pvefleet.infra.plugins.module_utils._pve import values
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server_spec import (
    SERVER_OPTIONS,
    ServerSpec,
    SpecError,
    server_spec,
)

# More threads than connections that the client keeps would open one for each call.
MOST_WORKERS = 32
# A name or vmid by default would be one for all.
_INDIVIDUAL = ("name", "vmid")


def given_options(options: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Option specifications without defaults and duties: what is None was not given, and may come from elsewhere."""
    plain = {}
    for name, option in options.items():
        plain[name] = {key: value for key, value in option.items() if key not in ("default", "required", "options")}
        if "options" in option:
            plain[name]["options"] = given_options(option["options"])
    return plain


FLEET_OPTIONS: dict[str, dict[str, Any]] = {
    "servers": {"type": "list", "elements": "dict", "required": True, "options": given_options(SERVER_OPTIONS)},
    "defaults": {
        "type": "dict",
        "options": given_options({key: value for key, value in SERVER_OPTIONS.items() if key not in _INDIVIDUAL}),
    },
    "tag": {"type": "str"},
    "prune": {"type": "bool", "default": False},
    "workers": {"type": "int", "default": 16},
    "per_node": {"type": "int", "default": 16},
    "per_storage": {"type": "int", "default": 8},
}


@dataclass(frozen=True)
class FleetSpec:
    """servers: in the order in which they are listed. tag: marks the fleet's own; prune removes those not listed.

    per_node, per_storage: most tasks of PVE at once on each; workers: most servers at once. removal: how servers are
    pruned, but for which.
    """

    servers: tuple[ServerSpec, ...]
    tag: str | None = None
    prune: bool = False
    workers: int = 16
    per_node: int = 16
    per_storage: int = 8
    removal: ServerSpec = field(default_factory=lambda: ServerSpec(state="absent"))


def fleet_spec(options: Mapping[str, Any]) -> FleetSpec:
    """The specification in a module's parameters; raises SpecError for what cannot be."""
    tag, prune = options.get("tag"), bool(options.get("prune"))
    if tag is not None:
        try:
            tag = values.tag(tag)
        except ValueError as error:
            raise SpecError(f"tag: {error}") from error
    if prune and tag is None:
        raise SpecError("prune needs tag, which tells the fleet's servers from all others")
    if prune and not options["servers"]:
        raise SpecError(
            "prune with an empty list of servers would remove the whole fleet; to do that, list them with state: absent"
        )
    defaults = options.get("defaults") or {}
    servers = []
    for number, own in enumerate(options["servers"], 1):
        label = own.get("name") or own.get("vmid") or f"number {number}"
        try:
            spec = server_spec(completed(SERVER_OPTIONS, merged(defaults, own)))
        except SpecError as error:
            raise SpecError(f"server {label}: {error}") from error
        servers.append(spec if spec.state == "absent" else replace(spec, mark=tag))
    for what in _INDIVIDUAL:
        counted = Counter(getattr(spec, what) for spec in servers)
        twice = sorted(str(value) for value, times in counted.items() if value is not None and times > 1)
        if twice:
            raise SpecError(f"servers lists {what} {', '.join(twice)} more than once")
    removal = ServerSpec(
        state="absent",
        purge=bool(defaults.get("purge")),
        timeout=defaults.get("timeout") or ServerSpec.timeout,
    )
    return FleetSpec(
        servers=tuple(servers),
        tag=tag,
        prune=prune,
        workers=_limit("workers", options["workers"], MOST_WORKERS),
        per_node=_limit("per_node", options["per_node"]),
        per_storage=_limit("per_storage", options["per_storage"]),
        removal=removal,
    )


def merged(defaults: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """What the server says over what all say; None says nothing. Mappings merge key by key, all else is replaced."""
    result = {key: value for key, value in defaults.items() if value is not None}
    for key, value in own.items():
        if value is None:
            continue
        below = result.get(key)
        result[key] = merged(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return {key: merged({}, value) if isinstance(value, Mapping) else value for key, value in result.items()}


def completed(options: Mapping[str, Mapping[str, Any]], given: Mapping[str, Any]) -> dict[str, Any]:
    """With the defaults of the options that were not given, None for those without. SpecError for a missing one."""
    result = dict(given)
    for name, option in options.items():
        if result.get(name) is None:
            if option.get("required"):
                raise SpecError(f"{name} is needed")
            result[name] = option.get("default")
        elif "options" in option:
            try:
                result[name] = completed(option["options"], result[name])
            except SpecError as error:
                raise SpecError(f"{name}: {error}") from error
    return result


def _limit(option: str, value: int, most: int | None = None) -> int:
    if value < 1 or (most is not None and value > most):
        raise SpecError(f"{option} must be " + (f"from 1 to {most}" if most else "1 or more") + f", not {value}")
    return value
