# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Servers as they are: find one, look at it, describe it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from ansible_collections.pvefleet.infra.plugins.module_utils._pve import values
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.addresses import (
    agent_addresses,
    agent_enabled,
    static_addresses,
)
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import PveClient, PveNotFound, segment
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.cluster import listing, record
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.errors import Unable
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.guest import Guest
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.resources import Resources, named

_CLOUD_INIT_OPTION = re.compile(r"ci\w+|sshkeys|nameserver|searchdomain|ipconfig\d+")


class ServerError(Unable):
    """What could not be done to a server, and why."""


def observe(client: PveClient, node: str, vmid: int, *, pool: str | None = None, fresh: bool = False) -> Guest:
    """A server as it is now; `fresh`: it has just been started, so that nothing waits. Raises PveNotFound."""
    guest = observe_config(client, node, vmid, pool=pool)
    path = server_path(node, vmid)
    # A template never runs.
    if guest.is_template or record(client, f"{path}/status/current").get("status") != "running":
        return guest
    if fresh:
        return replace(guest, running=True)
    rows = listing(client, f"{path}/pending") + _cloud_init_rows(client, guest)
    return replace(guest, running=True, pending=_pending(rows))


def glance(client: PveClient, node: str, vmid: int, *, running: bool, pool: str | None, cloud_init: bool) -> Guest:
    """A server by one call, where `running` is known from its node's listing. Raises PveNotFound.

    cloud_init: whether to ask, too, for what its cloud-init image lags behind. There is no digest: who wants to change
    the server observes it.
    """
    if not running:
        return observe_config(client, node, vmid, pool=pool)
    path = server_path(node, vmid)
    rows = listing(client, f"{path}/pending")
    config = {row["key"]: row.get("pending", row.get("value")) for row in rows if not row.get("delete")}
    config.pop("digest", None)
    guest = Guest(vmid, node, str(config.get("name", f"VM {vmid}")), config, running=True, pool=pool)
    if cloud_init:
        rows = rows + _cloud_init_rows(client, guest)
    return replace(guest, pending=_pending(rows))


def _cloud_init_rows(client: PveClient, guest: Guest) -> list[dict[str, Any]]:
    """Cloud-init's options are never pending in the config; its image is what lags behind."""
    if guest.cloud_init_drive() is None:
        return []
    # It also has the name and the network devices, which are no options of cloud-init.
    rows = listing(client, f"{server_path(guest.node, guest.vmid)}/cloudinit")
    return [row for row in rows if _CLOUD_INIT_OPTION.fullmatch(row["key"])]


def _pending(rows: Iterable[Mapping[str, Any]]) -> dict[str, str | None]:
    """The running value of each key that another one is pending for."""
    return {
        row["key"]: None if row.get("value") is None else str(row["value"])
        for row in rows
        if "pending" in row or row.get("delete")
    }


def observe_config(client: PveClient, node: str, vmid: int, *, pool: str | None = None) -> Guest:
    """A server that is known not to run. Raises PveNotFound."""
    config = record(client, f"{server_path(node, vmid)}/config")
    digest = config.pop("digest", None)
    return Guest(vmid, node, str(config.get("name", f"VM {vmid}")), config, digest=digest, pool=pool)


def observe_guest(client: PveClient, node: str, vmid: int) -> dict[str, Any]:
    """A server for a snapshot: plain values, no secrets. Raises PveNotFound."""
    guest = observe(client, node, vmid)
    return describe(guest, ip_addresses(client, guest))


def describe(guest: Guest, addresses: list[str]) -> dict[str, Any]:
    """A server in plain values: what `proxmox_server_info` returns of each."""
    config = guest.config
    return {
        "vmid": guest.vmid,
        "name": guest.name,
        "node": guest.node,
        "status": "running" if guest.running else "stopped",
        "template": guest.is_template,
        "config": {key: value for key, value in config.items() if key != "cipassword"},
        "pending": sorted(guest.pending),
        "pool": guest.pool,
        "tags": sorted(values.parse_tags(str(config.get("tags", "")))),
        "ip_addresses": addresses,
    }


def list_servers(resources: Resources) -> list[dict[str, Any]]:
    """Every virtual machine as the listing has it: name and status lag, see resources.py."""
    return [
        {
            "vmid": row["vmid"],
            "name": row.get("name"),
            "node": row["node"],
            "status": row.get("status", "unknown"),
            "template": bool(row.get("template")),
            "pool": row.get("pool"),
            "tags": sorted(values.parse_tags(str(row.get("tags", "")))),
        }
        for row in sorted(resources.guests(), key=lambda row: int(row["vmid"]))
        if row["type"] == "qemu"
    ]


def ip_addresses(client: PveClient, guest: Guest) -> list[str]:
    """What the guest agent tells, else what cloud-init was told."""
    found: list[str] | None = None
    if guest.vmid is not None and guest.running and agent_enabled(guest.config):
        found = agent_addresses(client, guest.node, guest.vmid)
    return found or static_addresses(guest.config)


def find(
    client: PveClient, resources: Resources, *, name: str | None, vmid: int | None, glancing: bool = False
) -> Guest | None:
    """The server with this vmid, or else with this name. Raises ServerError when the name is not unique.

    glancing: by as few calls as there can be, see glance().
    """
    if vmid is not None:
        row = resources.guest(vmid)
        if row is None:
            return None
        if row["type"] != "qemu":
            raise ServerError(f"Unable to manage server {vmid}: it is a container")
        return _look(client, vmid, row["node"], resources, glancing)
    found = with_name(client, resources, name or "", glancing)
    unseen = resources.unseen()
    if not found and unseen:
        vmids = ", ".join(str(row["vmid"]) for row in unseen)
        nodes = ", ".join(sorted({row["node"] for row in unseen}))
        raise ServerError(
            f"Unable to tell whether there is a server {name}: {nodes} is offline, and so the names of {vmids} are not "
            "known; give the vmid"
        )
    if len(found) > 1:
        vmids = ", ".join(str(guest.vmid) for guest in found)
        raise ServerError(f"Unable to tell which server {name} is meant: {vmids} have that name; give the vmid")
    return found[0] if found else None


def with_name(client: PveClient, resources: Resources, name: str, glancing: bool = False) -> list[Guest]:
    """Every server that has this name, on the nodes that are online."""
    # The listing may still show the name of a server that is gone or renamed.
    looked = (_look(client, vmid, node, resources, glancing) for vmid, node in named(client, resources, name))
    return [guest for guest in looked if guest is not None and guest.name == name]


def _look(client: PveClient, vmid: int, node: str, resources: Resources, glancing: bool) -> Guest | None:
    if resources.nodes().get(node) is False:
        raise ServerError(f"Unable to look at server {vmid}: its node {node} is offline")
    row = resources.guest(vmid) or {}
    statuses = {}
    if glancing:
        statuses = {int(each["vmid"]): each.get("status") for each in resources.named_guests(client, node)}
    try:
        if vmid in statuses:
            running = statuses[vmid] == "running"
            return glance(client, node, vmid, running=running, pool=row.get("pool"), cloud_init=False)
        return observe(client, node, vmid, pool=row.get("pool"))
    except PveNotFound:
        return None


def server_path(node: str, vmid: int | None) -> str:
    return f"/nodes/{segment(node)}/qemu/{vmid}"
