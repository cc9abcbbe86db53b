# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The snapshot of every cluster's servers: how one is found in it by name, and what it says of one."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from ansible_collections.pvefleet.infra.plugins.module_utils._pve.guest import MARKER, without_marker
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server_spec import ROLE_PREFIX
from sqlalchemy import select
from sqlalchemy.orm import Session

from pvefleet.db.models import Guest

MEBIBYTE = 1024**2
_DISK = re.compile(r"(ide|sata|scsi|virtio)\d+")
_NIC = re.compile(r"net\d+")
_SEPARATOR = re.compile(r"[;, ]+")
_MEMORY = re.compile(r"^(current=)?(?P<size>\d+)\b")
_CTIME = re.compile(r"(^|,)ctime=(?P<seconds>\d{1,10})(,|$)")


class AmbiguousName(Exception):
    """Several servers have the name. keys: what each of them is called here."""

    def __init__(self, keys: list[str]) -> None:
        super().__init__(", ".join(keys))
        self.keys = keys


def servers(session: Session, cluster_id: str) -> dict[str, Guest]:
    """The cluster's servers by name, sorted. Those that share a name are all called `name (vmid)`."""
    query = select(Guest).where(Guest.cluster_id == cluster_id, Guest.template.is_(False))
    return _by_key(session.scalars(query))


def templates(session: Session, cluster_id: str) -> list[Guest]:
    query = select(Guest).where(Guest.cluster_id == cluster_id, Guest.template.is_(True)).order_by(Guest.vmid)
    return list(session.scalars(query))


def find(session: Session, cluster_id: str, key: str) -> Guest | None:
    """The server called so in `servers`. Raises AmbiguousName for a name that several have."""
    called = re.fullmatch(r"(?P<name>.*) \((?P<vmid>\d{1,9})\)", key)
    if called:
        guest = session.get(Guest, (cluster_id, int(called["vmid"])))
        return guest if guest is not None and not guest.template and name_of(guest) == called["name"] else None
    nameless = re.fullmatch(r"VM (?P<vmid>\d{1,9})", key)
    if nameless:
        guest = session.get(Guest, (cluster_id, int(nameless["vmid"])))
        return guest if guest is not None and not guest.template and name_of(guest) == key else None
    found = _by_key(
        session.scalars(
            select(Guest).where(Guest.cluster_id == cluster_id, Guest.name == key, Guest.template.is_(False))
        )
    )
    if len(found) > 1:
        raise AmbiguousName(list(found))
    return next(iter(found.values()), None)


def name_of(guest: Guest) -> str:
    """A server without a name is called by its vmid, as Proxmox VE does it."""
    return guest.name or f"VM {guest.vmid}"


def is_unfinished(guest: Guest) -> bool:
    """Whether its creation was interrupted."""
    config = guest.detail.get("config") or {}
    return str(config.get("description", "")).startswith(MARKER)


def view(guest: Guest) -> dict[str, Any]:
    """What the document shows of a server."""
    config = guest.detail.get("config") or {}
    tags = _tags(guest)
    return {
        "name": name_of(guest),
        "vmid": guest.vmid,
        "status": guest.status,
        "cpu": _cpu(config) if config else guest.resource.get("maxcpu"),
        "memory": _memory(config) if config else _mebibytes(guest.resource.get("maxmem")),
        "ip_addresses": guest.detail.get("ip_addresses") or [],
        "role": next((tag.removeprefix(ROLE_PREFIX) for tag in tags if tag.startswith(ROLE_PREFIX)), None),
        "created_at": _created(config) or guest.first_seen_at,
    }


def full_view(guest: Guest) -> dict[str, Any]:
    """All that the snapshot knows of a server and users ask for."""
    config = guest.detail.get("config") or {}
    return {
        **view(guest),
        "node": guest.node,
        "tags": _tags(guest),
        "description": without_marker(str(config.get("description", ""))) or None,
        "disks": {key: str(config[key]) for key in sorted(config) if _DISK.fullmatch(key)},
        "network_devices": {key: str(config[key]) for key in sorted(config) if _NIC.fullmatch(key)},
        "pending": guest.detail.get("pending") or [],
    }


def _by_key(guests: Iterable[Guest]) -> dict[str, Guest]:
    rows = sorted(guests, key=lambda guest: (name_of(guest), guest.vmid))
    count = Counter(name_of(guest) for guest in rows)
    return {_key(guest, alone=count[name_of(guest)] == 1): guest for guest in rows}


def _key(guest: Guest, *, alone: bool) -> str:
    return name_of(guest) if alone else f"{name_of(guest)} ({guest.vmid})"


def _tags(guest: Guest) -> list[str]:
    known = guest.detail.get("tags")
    if known is not None:
        return list(known)
    return sorted(tag for tag in _SEPARATOR.split(guest.resource.get("tags") or "") if tag)


def _cpu(config: dict[str, Any]) -> int:
    return int(config.get("sockets", 1)) * int(config.get("cores", 1))


def _memory(config: dict[str, Any]) -> int | None:
    # "2048", or "current=2048" since PVE 8.1; without it PVE gives 512
    found = _MEMORY.search(str(config.get("memory", "512")))
    return None if found is None else int(found["size"])


def _mebibytes(size: int | None) -> int | None:
    return None if size is None else size // MEBIBYTE


def _created(config: dict[str, Any]) -> datetime | None:
    """From `meta: creation-qemu=9.0.2,ctime=1718000000`, which configs have since PVE 7."""
    found = _CTIME.search(str(config.get("meta", "")))
    return None if found is None else datetime.fromtimestamp(int(found["seconds"]), UTC)
