# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bearer tokens: signed, short-lived, each of one login."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import jwt

from pvefleet.access.vault import Keys

ALGORITHM = "HS256"
ISSUER = "pvefleet"


@dataclass(frozen=True)
class Claims:
    """login_id: the login that the token is of. task_id: the one task that it may report on; None: it is as good as
    the login."""

    login_id: str
    task_id: str | None


class Tokens:
    def __init__(self, keys: Keys, lifetime: timedelta, task_lifetime: timedelta) -> None:
        """task_lifetime: of tokens for one task, which nobody refreshes while it runs."""
        self._keys = keys.derive("bearer tokens")
        self.lifetime = lifetime
        self.task_lifetime = task_lifetime

    def issue(self, login_id: str, task_id: str | None = None) -> str:
        """A token that ends with its lifetime, or earlier with its login. task_id: see Claims."""
        now = datetime.now(UTC)
        lifetime = self.lifetime if task_id is None else self.task_lifetime
        claims = {"iss": ISSUER, "sid": login_id, "iat": now, "exp": now + lifetime}
        if task_id is not None:
            claims["task"] = task_id
        return jwt.encode(claims, self._keys[0], algorithm=ALGORITHM)

    def read(self, token: str) -> Claims | None:
        """None when the token is not ours or has ended."""
        for key in self._keys:
            try:
                claims = jwt.decode(
                    token, key, algorithms=[ALGORITHM], issuer=ISSUER, options={"require": ["exp", "iss", "sid"]}
                )
            except jwt.InvalidTokenError:
                continue
            return Claims(str(claims["sid"]), str(claims["task"]) if "task" in claims else None)
        return None
