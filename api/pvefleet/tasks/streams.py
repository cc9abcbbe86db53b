# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Server-sent events: one follower of the outbox a process, whatever the number of clients."""

from __future__ import annotations

import json
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from pvefleet.db import Database
from pvefleet.db.models import Event
from pvefleet.tasks import events

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.2
HEARTBEAT_SECONDS = 15.0
BATCH = 500
# A client that is this many events behind is dropped; it comes back and reads on from the table.
QUEUE_EVENTS = 1000
RETRY_MILLISECONDS = 2000


@dataclass(frozen=True)
class Message:
    """An event as it is sent: `name` None is what EventSource calls `message`.

    Without data it is none for the client, who knows then from which id to read on.
    """

    id: int
    data: dict[str, Any] | None
    name: str | None = None

    def encode(self) -> bytes:
        fields = [f"id: {self.id}"]
        if self.name is not None:
            fields.append(f"event: {self.name}")
        if self.data is not None:
            # JSON has no line breaks of its own, so one data field is enough.
            fields.append(f"data: {json.dumps(self.data, ensure_ascii=False, separators=(',', ':'))}")
        return ("\n".join(fields) + "\n\n").encode()


class Subscription:
    """The events of one topic that one client has not been sent yet."""

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.ended = False
        self._queue: queue.Queue[Event | None] = queue.Queue(QUEUE_EVENTS)

    def put(self, event: Event) -> None:
        try:
            self._queue.put_nowait(event)
        except queue.Full:
            self.end()

    def end(self) -> None:
        self.ended = True
        try:
            self._queue.put_nowait(None)
        except queue.Full:
            # The client has something to wake up for already.
            return

    def get(self, timeout: float) -> Event | None:
        """The next event, None when none came in time or the subscription was ended."""
        try:
            return self._queue.get(timeout=timeout)
        except queue.Empty:
            return None


class Broadcaster:
    """Follows the outbox while anybody listens, with one query for all. `stopping` ends every stream."""

    def __init__(self, db: Database, stopping: threading.Event) -> None:
        self._db = db
        self._stopping = stopping
        self._lock = threading.Lock()
        self._subscriptions: set[Subscription] = set()
        self._following = False

    def subscribe(self, topic: str) -> Subscription:
        subscription = Subscription(topic)
        with self._lock:
            if not self._following:
                with self._db.read() as session:
                    start = events.position(session)
                threading.Thread(target=self._follow, args=(start,), name="broadcaster", daemon=True).start()
                self._following = True
            self._subscriptions.add(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        with self._lock:
            self._subscriptions.discard(subscription)

    def _follow(self, last_id: int) -> None:
        try:
            while self._needed():
                with self._db.read() as session:
                    batch = events.read_after(session, last_id, BATCH)
                for event in batch:
                    last_id = event.id
                    for subscription in tuple(self._subscriptions):
                        if subscription.topic == event.topic:
                            subscription.put(event)
                if len(batch) < BATCH and self._stopping.wait(POLL_SECONDS):
                    self._end_all()
        except SQLAlchemyError:
            logger.exception("Unable to read events; all streams are ended, their clients will come back")
            self._end_all()

    def _needed(self) -> bool:
        with self._lock:
            self._following = bool(self._subscriptions)
            return self._following

    def _end_all(self) -> None:
        with self._lock:
            self._following = False
            for subscription in self._subscriptions:
                subscription.end()
            self._subscriptions.clear()


def stream(
    broadcaster: Broadcaster,
    db: Database,
    topic: str,
    after: int,
    *,
    first: Sequence[Message] = (),
    render: Callable[[Event], Message | None],
    is_last: Callable[[Event], bool] = lambda event: False,
    allowed: Callable[[], bool] = lambda: True,
) -> Iterator[bytes]:
    """The body of an SSE answer: the messages in `first`, then every event of the topic with an id above `after`.

    render: None keeps an event from this client. is_last: the event after which the stream ends.
    allowed: asked with every heartbeat whether the client may still read.
    """
    subscription = broadcaster.subscribe(topic)
    try:
        yield f"retry: {RETRY_MILLISECONDS}\n\n".encode()
        for message in first:
            yield message.encode()
        for event in _events(subscription, db, topic, after):
            if event is None:
                if not allowed():
                    return
                yield b":\n\n"
                continue
            message_or_none = render(event)
            if message_or_none is not None:
                yield message_or_none.encode()
            if is_last(event):
                return
    finally:
        broadcaster.unsubscribe(subscription)


def _events(subscription: Subscription, db: Database, topic: str, last_id: int) -> Iterator[Event | None]:
    """The events after last_id without gap or repetition; None each time a heartbeat is due."""
    # Subscribed before reading the table: what is committed in between comes twice, and is dropped once.
    while True:
        with db.read() as session:
            batch = events.read_after(session, last_id, BATCH, topic)
        for kept in batch:
            last_id = kept.id
            yield kept
        if len(batch) < BATCH:
            break
    heartbeat = time.monotonic() + HEARTBEAT_SECONDS
    while not subscription.ended:
        event = subscription.get(max(heartbeat - time.monotonic(), 0.01))
        if time.monotonic() >= heartbeat:
            heartbeat = time.monotonic() + HEARTBEAT_SECONDS
            yield None
        if event is not None and event.id > last_id:
            last_id = event.id
            yield event
