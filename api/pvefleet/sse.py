# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Streams as answers of a route."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from flask import Response, request

from pvefleet.access.guard import current_user
from pvefleet.access.users import user_of_login
from pvefleet.db.models import Event
from pvefleet.services import services
from pvefleet.tasks.streams import Message, stream

MIMETYPE = "text/event-stream"
# For the OpenAPI file.
DESCRIPTION: dict[str, Any] = {"description": "Events", "content": {MIMETYPE: {"schema": {"type": "string"}}}}
# An id of SQLite's and PostgreSQL's largest integer has as many digits.
LONGEST_ID = 19
NEVER_GIVEN = -1


def last_event_id() -> int | None:
    """The Last-Event-ID of the request; NEVER_GIVEN when it is none of ours."""
    value = request.headers.get("Last-Event-ID")
    if value is None:
        return None
    return int(value) if value.isascii() and value.isdecimal() and len(value) < LONGEST_ID else NEVER_GIVEN


def follow(
    topic: str,
    after: int,
    *,
    first: Sequence[Message] = (),
    render: Callable[[Event], Message | None],
    is_last: Callable[[Event], bool] = lambda event: False,
    permission: str | None = None,
) -> Response:
    """The stream for the current user, for as long as their login lasts and they have the permission."""
    built, login_id = services(), current_user().login_id

    def allowed() -> bool:
        if login_id is None:
            return True
        with built.db.read() as session:
            user = user_of_login(session, login_id)
        return user is not None and (permission is None or user.may(permission))

    return answer(
        stream(
            built.broadcaster, built.db, topic, after, first=first, render=render, is_last=is_last, allowed=allowed
        )
    )


def answer(body: Iterable[bytes]) -> Response:
    # no-transform and X-Accel-Buffering: proxies must pass every event on at once.
    headers = {"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"}
    return Response(body, mimetype=MIMETYPE, headers=headers)
