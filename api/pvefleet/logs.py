# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the service's processes log: standard error, one line an event."""

from __future__ import annotations

import logging

from pvefleet.config import Settings


def configure(settings: Settings) -> None:
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s[%(process)d]: %(message)s"
    )
    logging.getLogger("alembic").setLevel(logging.WARNING)
