# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

from __future__ import annotations

import pytest

from tests.lab import Lab

from .api import Api


@pytest.fixture
def api(lab: Lab) -> Api:
    return Api(lab)
