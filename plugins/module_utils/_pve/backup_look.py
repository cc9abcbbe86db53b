# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where backups are: the storages that take them, what is on these, and whose they are."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from ansible_collections.pvefleet.infra.plugins.module_utils._pve.backup_plan import (
    Backup,
    BackupSpec,
    Selection,
    backup_from,
    owner_of,
)
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import (
    PveClient,
    PveError,
    PveForbidden,
    segment,
)
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.cluster import listing, record
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.errors import Unable, unable
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.resources import Resources
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server import find, with_name
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.steps import parallel

T = TypeVar("T")


@dataclass(frozen=True)
class Place:
    """A storage as a node has it."""

    node: str
    storage: str
    shared: bool
    active: bool
    content: tuple[str, ...]


def places(client: PveClient, node: str, content: str | None = None) -> list[Place]:
    """The enabled storages of a node; none, too, for a user who may see none.

    content: only those that take it, for PVE measures the space of each that it lists.
    """
    rows = listing(client, f"/nodes/{segment(node)}/storage", {"enabled": True, "content": content})
    return [
        Place(
            node,
            str(row["storage"]),
            bool(int(row.get("shared") or 0)),
            bool(int(row.get("active") or 0)),
            tuple(str(row.get("content") or "").split(",")),
        )
        for row in sorted(rows, key=lambda row: str(row["storage"]))
    ]


def read_backups(client: PveClient, spot: Place, vmid: int | None) -> list[Backup]:
    """The backups on this storage, of one guest or of all."""
    path = f"/nodes/{segment(spot.node)}/storage/{segment(spot.storage)}/content"
    rows = listing(client, path, {"content": "backup", "vmid": vmid})
    return [backup_from(row, node=spot.node, storage=spot.storage, shared=spot.shared) for row in rows]


def servers_own(backups: Iterable[Backup]) -> list[Backup]:
    """Without those of a container that had the server's vmid before."""
    return [backup for backup in backups if not backup.is_container]


@dataclass(frozen=True)
class Seen:
    """What was found on the storages with backups, a shared one looked at once.

    unseen: in words, what cannot be looked at now. hidden: why backups could be there that this user is not shown.
    advice: which option would say that the rest does not matter.
    """

    backups: tuple[Backup, ...]
    unseen: tuple[str, ...]
    hidden: tuple[str, ...] = ()
    advice: str = ""

    def complete(self, verb: str) -> tuple[Backup, ...]:
        """The backups. Unable when there may be others, so that what is not among these is not there."""
        if self.hidden:
            raise Unable(f"Unable to {verb}: {'; '.join(self.hidden)}")
        if self.unseen:
            raise Unable(
                f"Unable to {verb}: {'; '.join(self.unseen)}, so that not all backups can be seen{self.advice}"
            )
        return self.backups


def look(
    client: PveClient, resources: Resources, *, storage: str | None, node: str | None, vmid: int | None, verb: str
) -> Seen:
    """The backups of one guest or of all. Unable when there is no such node, or when backups are never on `storage`."""
    spots, unseen, hidden = _survey(client, resources, storage, node, verb)
    read = parallel(lambda spot: _or_error(lambda: read_backups(client, spot, vmid)), spots)
    found = list(zip(spots, read, strict=True))
    unseen += [f"storage {spot.storage} of {spot.node}: {rows}" for spot, rows in found if isinstance(rows, str)]
    doubtful = {spot.storage for spot in spots}
    if vmid is not None:  # where PVE shows one backup of a guest, it shows all
        doubtful -= {spot.storage for spot, rows in found if rows}
    hidden += _hidden(client, sorted(doubtful), vmid)
    either = [what for what, given in (("storage", storage), ("node", node)) if given is None]
    return Seen(
        tuple(backup for rows in read if not isinstance(rows, str) for backup in rows),
        tuple(unseen),
        tuple(hidden),
        f"; name the {' or the '.join(either)} that is meant" if either else "",
    )


def _survey(
    client: PveClient, resources: Resources, storage: str | None, node: str | None, verb: str
) -> tuple[list[Place], list[str], list[str]]:
    """The storages with backups, a shared one once; and what is unseen and hidden, as Seen has it."""
    nodes = resources.nodes()
    if node is not None and node not in nodes:
        raise Unable(f"Unable to {verb}: there is no node {node}, only {', '.join(sorted(nodes))}")
    wanted = [node] if node is not None else sorted(nodes)
    online = [name for name in wanted if nodes[name]]
    listed = dict(zip(online, parallel(lambda name: _or_error(lambda: _places_of(client, name)), online), strict=True))
    away = [f"node {name} is offline" for name in wanted if not nodes[name]]
    away += [f"node {name}: {error}" for name, error in listed.items() if isinstance(error, str)]
    user = client.connection.user
    hidden = [f"{user} may see no storage of node {name}" for name, found in listed.items() if not found]
    visible = [spot for found in listed.values() if not isinstance(found, str) for spot in found]
    meant = [spot for spot in visible if "backup" in spot.content and storage in (None, spot.storage)]
    if storage is not None and not meant and not away and not hidden:
        everything = [spot for name in online for spot in places(client, name)]
        raise Unable(f"Unable to {verb}: {no_backups(client, storage, everything)}")
    active: dict[tuple[str, str], Place] = {}
    for spot in meant:
        if spot.active:
            active.setdefault(_identity(spot), spot)
    unseen = [f"storage {spot.storage} is not active on {spot.node}" for spot in meant if _identity(spot) not in active]
    if storage is None or not any(spot.shared for spot in active.values()):
        unseen += away
    return list(active.values()), unseen, hidden


def _places_of(client: PveClient, node: str) -> list[Place]:
    """The storages of a node that take backups, or all that it shows when there are none of these."""
    return places(client, node, "backup") or places(client, node)


def _or_error(read: Callable[[], list[T]]) -> list[T] | str:
    """What was read, or why that failed: one node or storage in trouble does not hide what is on the others."""
    try:
        return read()
    except PveError as error:
        return str(error)


def _hidden(client: PveClient, storages: Iterable[str], vmid: int | None) -> list[str]:
    """The rights without which PVE leaves backups of a guest (None: of any) out of its listing, without a word."""
    guests = "/vms" if vmid is None else f"/vms/{vmid}"
    lacking: list[str] = []
    for storage in storages:
        path = f"/storage/{storage}"
        held = privileges(client, path)
        if "Datastore.Allocate" in held:
            continue
        if "Datastore.AllocateSpace" not in held:
            lacking.append(f"Datastore.AllocateSpace on {path}")
        elif "VM.Backup" not in privileges(client, guests):
            lacking.append(f"VM.Backup on {guests}")
    return [f"{client.connection.user} needs {what} to see the backups" for what in dict.fromkeys(lacking)]


def privileges(client: PveClient, path: str) -> set[str]:
    """What the login may do at a path of PVE's permissions."""
    held = record(client, "/access/permissions", {"path": path})
    return {name for given in held.values() if isinstance(given, dict) for name in given}


def _identity(spot: Place) -> tuple[str, str]:
    """The same for a shared storage on every node."""
    return spot.storage, "" if spot.shared else spot.node


def no_backups(client: PveClient, storage: str, visible: Iterable[Place]) -> str:
    """Why a storage is not one for backups. visible: the storages that this user may see where it was looked for."""
    others = ", ".join(sorted({spot.storage for spot in visible if "backup" in spot.content})) or "none"
    if any(spot.storage == storage for spot in visible):
        return f"storage {storage} does not take backups, only {others} does"
    if not privileges(client, f"/storage/{storage}") & {"Datastore.Audit", "Datastore.AllocateSpace"}:
        return f"{client.connection.user} may not see a storage {storage}; that takes Datastore.Audit on it"
    return f"there is no storage {storage} for backups, only {others}"


def clocks(client: PveClient, backups: Iterable[Backup], chosen: Selection) -> dict[str, int]:
    """The time, Unix seconds, on each node that has some; asked for only when ages matter."""
    nodes = {backup.node for backup in backups} if chosen.needs_clock else set()
    return {node: node_time(client, node) for node in sorted(nodes)}


def node_time(client: PveClient, node: str) -> int:
    try:
        return int(record(client, f"/nodes/{segment(node)}/time")["time"])
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
        seen = look(client, resources, storage=chosen.storage, node=chosen.node, vmid=vmid, verb="list backups")
        # What is named is a server; a vmid alone may be a container's.
        backups = seen.backups if chosen.server is None else servers_own(seen.backups)
        return chosen.chosen(backups, clocks(client, backups, chosen)), [*seen.unseen, *seen.hidden]


def find_volume(client: PveClient, resources: Resources, spec: BackupSpec, verb: str) -> Backup | None:
    """The backup that the task names by its volume id."""
    owner = owner_of(spec.volid or "")
    seen = look(client, resources, storage=spec.storage, node=spec.selection.node, vmid=owner, verb=verb)
    found = [backup for backup in seen.backups if backup.volid == spec.volid]
    if not found:
        seen.complete(verb)
    if len(found) > 1:
        raise Unable(f"Unable to {verb}: {', '.join(backup.node for backup in found)} have it; give the node")
    return found[0] if found else None


def volume_path(backup: Backup) -> str:
    return f"/nodes/{segment(backup.node)}/storage/{segment(backup.storage)}/content/{segment(backup.volid)}"
