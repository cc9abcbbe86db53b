# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The outbox: every event is a row that is committed with the change it tells of, in the order of the commits."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from pvefleet.db import now
from pvefleet.db.models import Event, EventClock

SERVERS = "servers"


def task_topic(task_id: str) -> str:
    return f"task:{task_id}"


def publish(session: Session, topic: str, kind: str, data: dict[str, Any]) -> int:
    """Add an event to the transaction and return its id.

    The clock's row stays locked until the commit, so nobody can see an id before a lower one.
    """
    tick = update(EventClock).where(EventClock.id == 1).values(value=EventClock.value + 1).returning(EventClock.value)
    number = session.execute(tick).scalar_one()
    session.add(Event(id=number, topic=topic, kind=kind, data=data, created_at=now()))
    return number


def read_after(session: Session, last_id: int, limit: int, topic: str | None = None) -> Sequence[Event]:
    """Up to `limit` events with an id above `last_id`, in order; of one topic, or of all."""
    query = select(Event).where(Event.id > last_id).order_by(Event.id).limit(limit)
    return session.scalars(query if topic is None else query.where(Event.topic == topic)).all()


def position(session: Session) -> int:
    """The newest event's id, 0 when there never was one."""
    return session.execute(select(EventClock.value).where(EventClock.id == 1)).scalar_one()


def resumable(session: Session, last_id: int) -> bool:
    """Whether everything after `last_id` is still kept. False for an id that was never given, too."""
    newest = position(session)
    oldest = session.execute(select(func.min(Event.id))).scalar_one()
    return (newest if oldest is None else oldest - 1) <= last_id <= newest


def newest_of(session: Session, topic: str) -> int | None:
    """The id of the topic's newest event that is kept."""
    return session.execute(select(func.max(Event.id)).where(Event.topic == topic)).scalar_one()


def prune(session: Session, before: datetime) -> None:
    """Delete the events up to the last one older than `before`: always the oldest ones, without a hole."""
    last = session.execute(select(func.max(Event.id)).where(Event.created_at < before)).scalar_one()
    if last is not None:
        session.execute(delete(Event).where(Event.id <= last))
