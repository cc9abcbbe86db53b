# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Progress lines for whoever listens."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from ansible_collections.pvefleet.infra.plugins.module_utils._report import report


def test_lines_of_many_writers_stay_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "report"
    monkeypatch.setenv("PVEFLEET_REPORT", str(file))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: report(n, f"klonen … {'x' * 500}\n{n}"), range(100)))
    report(None, "done")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert sorted(line["percent"] for line in lines[:-1]) == list(range(100))
    assert lines[-1] == {"percent": None, "message": "done"}


@pytest.mark.parametrize("path", ["", "/nonexistent/folder/report", "/"])
def test_nobody_listens(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setenv("PVEFLEET_REPORT", path)
    report(50, "half")


def test_without_the_variable_nothing_happens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PVEFLEET_REPORT", raising=False)
    monkeypatch.chdir(tmp_path)
    report(50, "half")
    assert list(tmp_path.iterdir()) == []
