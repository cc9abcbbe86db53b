# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The examples of the guide about reporting, against a service of its own."""

from __future__ import annotations

from pathlib import Path

from tests.api.served import PASSWORD, Served
from tests.docs.test_examples import page, pytestmark, recaps
from tests.lab import Lab

__all__ = ["pytestmark"]  # skipped where those are


def test_reporting(lab: Lab, tmp_path: Path) -> None:
    folder = tmp_path / "page"
    folder.mkdir()
    with Served(tmp_path / "home") as served:
        guide = page("docs/guides/reporting.md", lab, folder, **{"http://127.0.0.1:8080": served.url})
        guide.environment |= {"AGENT_PASSWORD": PASSWORD, "PVEFLEET_HOME": str(served.home)}
        printed = guide.run()
        statuses = [task["status"] for task in served.login().get(served.at("/api/tasks"), timeout=30).json()["tasks"]]
    assert recaps(printed[1]) == [0]
    assert printed[4].splitlines()[0] == '"QUEUED"'
    assert statuses == ["failed", "completed", "completed"]
