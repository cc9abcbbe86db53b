# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where backups are: the storages that take them, what is on these, and whose they are."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

from ansible_collections.pvefleet.infra.plugins.module_utils._pve.backup_plan import (
    Backup,
    BackupSpec,
    Selection,
    backup_from,
)
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import PveClient, PveForbidden, segment
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.errors import Unable, unable
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.resources import Resources
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server import find, with_name


@dataclass(frozen=True)
class Place:
    """A storage as a node has it."""

    node: str
    storage: str
    shared: bool
    active: bool
    content: tuple[str, ...]


def places(client: PveClient, node: str) -> list[Place]:
    """The enabled storages of a node; none, too, for a user who may see none."""
    rows = client.get(f"/nodes/{segment(node)}/storage", {"enabled": True})
    return [
        Place(
            node,
            row["storage"],
            bool(int(row.get("shared") or 0)),
            bool(int(row.get("active") or 0)),
            tuple(str(row.get("content") or "").split(",")),
        )
        for row in sorted(rows, key=lambda row: str(row["storage"]))
    ]


def read_backups(client: PveClient, spots: Iterable[Place], vmid: int | None) -> list[Backup]:
    """The backups on these storages, of one guest or of all."""
    found = []
    for spot in spots:
        path = f"/nodes/{segment(spot.node)}/storage/{segment(spot.storage)}/content"
        for row in client.get(path, {"content": "backup", "vmid": vmid}):
            found.append(backup_from(row, node=spot.node, storage=spot.storage, shared=spot.shared))
    return found


@dataclass(frozen=True)
class Survey:
    """The storages with backups, a shared one once, and in words what cannot be looked at now."""

    spots: tuple[Place, ...]
    unseen: tuple[str, ...]

    def complete(self, verb: str) -> tuple[Place, ...]:
        """The storages. Unable when there are others, so that what is not found on these is not there."""
        if self.unseen:
            raise Unable(
                f"Unable to {verb}: {'; '.join(self.unseen)}, so that not all backups can be seen; name the storage or "
                "the node that is meant"
            )
        return self.spots


def survey(client: PveClient, resources: Resources, *, storage: str | None, node: str | None, verb: str) -> Survey:
    """Where backups are. Unable when there is no such node, or when backups are never on `storage`."""
    nodes = resources.nodes()
    if node is not None and node not in nodes:
        raise Unable(f"Unable to {verb}: there is no node {node}, only {', '.join(sorted(nodes))}")
    wanted = [node] if node is not None else sorted(nodes)
    offline = [name for name in wanted if not nodes[name]]
    seen = [spot for name in wanted if nodes[name] for spot in places(client, name)]
    known = [spot for spot in seen if "backup" in spot.content]
    meant = [spot for spot in known if storage in (None, spot.storage)]
    if storage is not None and not meant and not offline:
        raise Unable(f"Unable to {verb}: {no_backups(storage, seen, known)}")
    active: dict[tuple[str, str], Place] = {}
    for spot in meant:
        if spot.active:
            active.setdefault(_identity(spot), spot)
    unseen = [f"storage {spot.storage} is not active on {spot.node}" for spot in meant if _identity(spot) not in active]
    if storage is None or not any(spot.shared for spot in active.values()):
        unseen += [f"node {name} is offline" for name in offline]
    return Survey(tuple(active.values()), tuple(unseen))


def _identity(spot: Place) -> tuple[str, str]:
    """The same for a shared storage on every node."""
    return spot.storage, "" if spot.shared else spot.node


def no_backups(storage: str, seen: Iterable[Place], known: Iterable[Place]) -> str:
    others = ", ".join(sorted({spot.storage for spot in known}))
    if any(spot.storage == storage for spot in seen):
        return f"storage {storage} does not take backups, only {others or 'none'} does"
    return f"there is no storage {storage} for backups, only {others or 'none'}"


def clocks(client: PveClient, backups: Iterable[Backup], chosen: Selection) -> dict[str, int]:
    """The time, Unix seconds, on each node that has some; asked for only when ages matter."""
    nodes = {backup.node for backup in backups} if chosen.needs_clock else set()
    return {node: node_time(client, node) for node in sorted(nodes)}


def node_time(client: PveClient, node: str) -> int:
    try:
        return int(client.get(f"/nodes/{segment(node)}/time")["time"])
    except PveForbidden:
        return int(time.time())  # it takes Sys.Audit on the node; clocks that run together are a fair guess


def vmid_of(
    client: PveClient, resources: Resources, chosen: Selection, what: str, *, besides: int | None = None
) -> int:
    """The vmid whose backups are meant, also of a server that is gone when it is given. Raises Unable.

    besides: the copy that a restore has made of it, which may have the same name.
    """
    if chosen.server is None and chosen.vmid is not None:
        return chosen.vmid
    guest = None
    if besides is not None:
        others = [one for one in with_name(client, resources, chosen.server or "") if one.vmid != besides]
        guest = others[0] if len(others) == 1 else None
    guest = guest or find(client, resources, name=chosen.server, vmid=None)
    if guest is None or guest.vmid is None:
        raise Unable(
            f"Unable to {what}: there is no server {chosen.server}; the backups of one that is gone are found by vmid"
        )
    if chosen.vmid not in (None, guest.vmid):
        raise Unable(f"Unable to {what}: {chosen.server} is {guest.vmid} and not {chosen.vmid}")
    return guest.vmid


def list_backups(client: PveClient, chosen: Selection) -> tuple[list[Backup], list[str]]:
    """The backups that are meant, the newest first, and in words what could not be looked at."""
    with unable("list backups"):
        resources = Resources.read(client)
        vmid = None
        if chosen.server is not None or chosen.vmid is not None:
            vmid = vmid_of(client, resources, chosen, "list backups")
        seen = survey(client, resources, storage=chosen.storage, node=chosen.node, verb="list backups")
        backups = read_backups(client, seen.spots, vmid)
        return chosen.chosen(backups, clocks(client, backups, chosen)), list(seen.unseen)


def find_volume(client: PveClient, resources: Resources, spec: BackupSpec, verb: str) -> Backup | None:
    """The backup that the task names by its volume id."""

    seen = survey(client, resources, storage=spec.storage, node=spec.selection.node, verb=verb)
    found = [backup for backup in read_backups(client, seen.spots, None) if backup.volid == spec.volid]
    if not found:
        seen.complete(verb)
    if len(found) > 1:
        raise Unable(f"Unable to {verb}: {', '.join(backup.node for backup in found)} have it; give the node")
    return found[0] if found else None


def volume_path(backup: Backup) -> str:
    return f"/nodes/{segment(backup.node)}/storage/{segment(backup.storage)}/content/{segment(backup.volid)}"
