# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is the service there, and can it reach its database."""

from __future__ import annotations

from flask import Response
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from pvefleet import dialects
from pvefleet.access.permissions import OPEN
from pvefleet.errors import ApiError, Kind
from pvefleet.families import Family
from pvefleet.schemas.common import HealthAnswer
from pvefleet.services import services
from pvefleet.version import VERSION

health = Family("health", "/health", dialect=dialects.CLUSTERS)


@health.get("", permission=OPEN, responses={200: HealthAnswer})
def show_health() -> Response:
    """200 while the service can answer, 503 when its database cannot be reached."""
    try:
        with services().db.read() as session:
            session.execute(text("SELECT 1"))
    except OperationalError:
        raise ApiError(Kind.SERVICE_UNAVAILABLE, "database_unreachable") from None
    return health.answer(HealthAnswer(status="healthy", version=VERSION))
