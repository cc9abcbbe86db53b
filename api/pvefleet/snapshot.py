# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the snapshot believes: the listing of a cluster, which lags, and guests that were asked themselves. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pvefleet.db.models import Guest

# What of a guest's row in cluster/resources says that the guest has changed; its load does not.
ROW = ("vmid", "node", "name", "status", "template", "tags", "maxcpu", "maxmem", "maxdisk", "pool", "lock", "hastate")
# For as long the listing may still show what was before (measured: up to 11 s).
LAG = timedelta(seconds=15)
# Every guest is read again after this time, whether its row changed or not.
ROTATION = timedelta(seconds=300)
# A guest that was started has an address only when it is up, which its row does not tell.
SETTLING = timedelta(seconds=300)
# Such guests in one look: an agent that does not answer takes some seconds to say so.
MOST_SETTLING = 8


@dataclass(frozen=True)
class Found:
    """What a guest answered: detail None when it does not exist. asked: that was so at this time or later."""

    asked: datetime
    detail: dict[str, Any] | None


@dataclass(frozen=True)
class State:
    """A guest's row in the snapshot. detailed_at: None when the listing knows something newer than detail."""

    name: str | None
    node: str
    status: str
    template: bool
    resource: dict[str, Any]
    detail: dict[str, Any]
    detailed_at: datetime | None

    @classmethod
    def of(cls, guest: Guest) -> State:
        return cls(
            guest.name, guest.node, guest.status, guest.template, guest.resource, guest.detail, guest.detailed_at
        )


def row_of(resource: Mapping[str, Any]) -> dict[str, Any]:
    return {key: resource[key] for key in ROW if key in resource}


def to_read(
    rows: Mapping[int, Mapping[str, Any]], known: Mapping[int, Guest], moment: datetime, most: int
) -> list[int]:
    """The guests to ask now, at most `most`: new and changed ones, those that have no address yet, old knowledge."""
    changed, settling, old = [], [], []
    for vmid, row in rows.items():
        guest = known.get(vmid)
        if guest is None:
            changed.append(vmid)
        elif row.get("status") == "unknown" and row.get("name"):
            # Its node is offline: asking would only take until the timeout.
            continue
        elif guest.resource != row or guest.detailed_at is None:
            changed.append(vmid)
        elif _waits_for_address(guest) and moment < guest.changed_at + SETTLING:
            settling.append((guest.detailed_at, vmid))
        elif guest.detailed_at < moment - ROTATION:
            old.append((guest.detailed_at, vmid))
    later = [*sorted(settling)[:MOST_SETTLING], *sorted(old)]
    return [*changed, *(vmid for _seen, vmid in later)][:most]


def _waits_for_address(guest: Guest) -> bool:
    return guest.status == "running" and not guest.detail.get("ip_addresses")


def next_state(
    guest: Guest | None, row: Mapping[str, Any] | None, found: Found | None, listed: datetime
) -> State | None:
    """What to believe of a guest now; None: there is none.

    row: what a listing asked for at `listed` says, None when the guest is not in it. found: None when the guest was
    not asked, or did not answer.
    """
    before = None if guest is None else State.of(guest)
    known_from = None if before is None else before.detailed_at
    if found is not None and (known_from is None or found.asked >= known_from):
        return _as_found(before, row, found)
    if before is None:
        # A guest has a name in the listing only some seconds after it is there; which guest it is has to be asked.
        return None if row is None or row.get("name") in (None, f"VM {row['vmid']}") else _as_listed(row, None)
    if row is None:
        # A listing from before the guest was made says nothing about it.
        return before if known_from is not None and known_from > listed else None
    if dict(row) == before.resource or (known_from is not None and listed < known_from + LAG):
        return before
    return _as_listed(row, before)


def _unborn(config: Mapping[str, Any]) -> bool:
    """Whether it is still being made: its name comes last, and before it nobody can tell what it will be."""
    return config.get("lock") in ("clone", "create") and "name" not in config


def _as_found(before: State | None, row: Mapping[str, Any] | None, found: Found) -> State | None:
    detail = found.detail
    if detail is None or _unborn(detail["config"]):
        return None
    resource = dict(row) if row is not None else (before.resource if before is not None else {})
    return State(
        name=detail["name"],
        node=detail["node"],
        status=detail["status"],
        template=detail["template"],
        resource=resource,
        detail=detail,
        detailed_at=found.asked,
    )


def _as_listed(row: Mapping[str, Any], before: State | None) -> State:
    return State(
        name=row.get("name") or (None if before is None else before.name),
        node=row["node"],
        status=str(row.get("status", "unknown")),
        template=bool(row.get("template")),
        resource=dict(row),
        detail={} if before is None else before.detail,
        detailed_at=None,
    )
