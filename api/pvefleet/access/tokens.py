# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bearer tokens: signed, short-lived, each of one login."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import jwt

from pvefleet.access.vault import Keys

ALGORITHM = "HS256"
ISSUER = "pvefleet"


class Tokens:
    def __init__(self, keys: Keys, lifetime: timedelta) -> None:
        self._keys = keys.derive("bearer tokens")
        self.lifetime = lifetime

    def issue(self, login_id: str) -> str:
        """A token that ends with its lifetime, or earlier with its login."""
        now = datetime.now(UTC)
        claims = {"iss": ISSUER, "sid": login_id, "iat": now, "exp": now + self.lifetime}
        return jwt.encode(claims, self._keys[0], algorithm=ALGORITHM)

    def login_id(self, token: str) -> str | None:
        """The id of the token's login; None when it is not ours or has ended."""
        for key in self._keys:
            try:
                claims = jwt.decode(
                    token, key, algorithms=[ALGORITHM], issuer=ISSUER, options={"require": ["exp", "iss", "sid"]}
                )
            except jwt.InvalidTokenError:
                continue
            return str(claims["sid"])
        return None
