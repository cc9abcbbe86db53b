# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The guide to backups, run as it is printed."""

from __future__ import annotations

from pathlib import Path

from tests.ansible_run import Ansible
from tests.lab import Lab
from tests.modules.jobs import add_server, servers

from .test_examples import page, recaps


def test_backups_guide(lab: Lab, tmp_path: Path) -> None:
    add_server(lab)
    guide = page("docs/guides/backups.md", lab, tmp_path)
    guide.environment["PVEFLEET_REGISTRY"] = Ansible(tmp_path, lab).environment["PVEFLEET_REGISTRY"]
    printed = guide.run()
    assert [recaps(one) for one in printed] == [[1, 1, 0], [1], [1, 0], [0], [0]]
    assert '"before the upgrade",\n        "nightly"\n' in printed[3]
    assert servers(lab) == {100: "web-01", 150: "web-01-copy"}
