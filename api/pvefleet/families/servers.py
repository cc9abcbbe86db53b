# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filled by its owner."""

from __future__ import annotations

from pvefleet import dialects
from pvefleet.families import Family

family = Family("servers", "/api/servers", dialect=dialects.SERVERS)
