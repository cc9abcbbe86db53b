# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Idempotency-Key: the same request again gets the same answer, and is carried out once.

Only successes are kept. A refusal changed nothing, so the key is free again. Answers that hold tokens are never kept.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
from datetime import timedelta

from flask import Flask, Response, g, request
from sqlalchemy import delete, update
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.orm import Session

from pvefleet.access.guard import SAFE_METHODS
from pvefleet.access.users import CurrentUser
from pvefleet.db import now
from pvefleet.db.models import IdempotentAnswer
from pvefleet.errors import ApiError, InvalidFields, Kind, Problem
from pvefleet.services import services

logger = logging.getLogger(__name__)

HEADER = "Idempotency-Key"
REPLAYED = "Idempotent-Replayed"
# A reservation without an answer for so long is one of a process that died.
ABANDONED = timedelta(seconds=60)
KEPT = timedelta(hours=24)


def install(app: Flask, digest_key: bytes, never_kept: frozenset[str]) -> None:
    """To be called after guard.install: keys belong to users. digest_key: bodies can hold passwords, so that their
    plain digest would be one to guess them by. never_kept: endpoints that pay no heed to the header."""

    def reserve() -> Response | None:
        g.reserved_key = None
        user: CurrentUser | None = g.get("user")
        key = request.headers.get(HEADER)
        if key is None or user is None or request.method in SAFE_METHODS or request.endpoint in never_kept:
            return None
        if not (0 < len(key) <= 255 and key.isascii() and key.isprintable()):
            raise InvalidFields(Problem(HEADER, "field.idempotency_key"))
        asked = f"{request.method} {request.full_path}\n".encode() + request.get_data()
        fingerprint = hmac.new(digest_key, asked, hashlib.sha256).hexdigest()
        with services().db.write() as session:
            earlier = _reserve(session, user.id, key, fingerprint)
        if earlier is None:
            g.reserved_key = (user.id, key)
            return None
        response = Response(earlier.body or "", earlier.status_code, content_type=earlier.content_type)
        response.headers[REPLAYED] = "true"
        if earlier.location is not None:
            response.location = earlier.location
        return response

    def keep(response: Response) -> Response:
        if (reserved := g.get("reserved_key")) is not None:
            user_id, key = reserved
            try:
                with services().db.write() as session:
                    _conclude(session, user_id, key, response)
            except OperationalError as error:  # as if this process had died: what was done is done, and said
                logger.warning("Unable to keep the answer for %s: %s", HEADER, error.orig)
        return response

    app.before_request(reserve)
    app.after_request(keep)


def current_key() -> str | None:
    """The key of the current request, for the task that it makes."""
    reserved: tuple[int, str] | None = g.get("reserved_key")
    return None if reserved is None else reserved[1]


def _reserve(session: Session, user_id: int, key: str, fingerprint: str) -> IdempotentAnswer | None:
    """None: this request is to be carried out. Else the answer to give. Raises ApiError."""
    moment = now()
    session.execute(delete(IdempotentAnswer).where(IdempotentAnswer.created_at < moment - KEPT))
    try:
        with session.begin_nested():
            session.add(IdempotentAnswer(user_id=user_id, key=key, fingerprint=fingerprint, created_at=moment))
    except IntegrityError:
        pass
    else:
        return None
    earlier = session.get(IdempotentAnswer, (user_id, key))
    if earlier is None:  # released in between
        raise _in_progress()
    if earlier.fingerprint != fingerprint:
        raise ApiError(Kind.IDEMPOTENCY_MISMATCH, "idempotency_mismatch")
    if earlier.status_code is not None:
        return earlier
    if earlier.created_at > moment - ABANDONED or not _take_over(session, earlier):
        raise _in_progress()
    return None


def _take_over(session: Session, abandoned: IdempotentAnswer) -> bool:
    """False when another request was faster."""
    same = (
        IdempotentAnswer.user_id == abandoned.user_id,
        IdempotentAnswer.key == abandoned.key,
        IdempotentAnswer.created_at == abandoned.created_at,
    )
    taken = update(IdempotentAnswer).where(*same).values(created_at=now()).returning(IdempotentAnswer.key)
    return session.scalar(taken) is not None


def _conclude(session: Session, user_id: int, key: str, response: Response) -> None:
    mine = (IdempotentAnswer.user_id == user_id, IdempotentAnswer.key == key)
    if response.status_code >= 300:
        session.execute(delete(IdempotentAnswer).where(*mine))
        return
    kept = {
        "status_code": response.status_code,
        "content_type": response.content_type,
        "location": response.location,
        "body": response.get_data(as_text=True),
    }
    session.execute(update(IdempotentAnswer).where(*mine).values(**kept))


def _in_progress() -> ApiError:
    return ApiError(Kind.CONFLICT, "idempotency_in_progress", headers={"Retry-After": "1"})
