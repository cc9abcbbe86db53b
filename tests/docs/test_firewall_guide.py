# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The guide to security groups, run as it is printed."""

from __future__ import annotations

from pathlib import Path

from tests.ansible_run import Ansible
from tests.lab import Lab
from tests.modules.jobs import add_server

from .test_examples import page, recaps


def test_firewall_guide(lab: Lab, tmp_path: Path) -> None:
    add_server(lab, 101, "web-01")
    add_server(lab, 102, "web-02")
    guide = page("docs/guides/firewall.md", lab, tmp_path)
    guide.environment["PVEFLEET_REGISTRY"] = Ansible(tmp_path, lab).environment["PVEFLEET_REGISTRY"]
    made, less, users, gone = guide.run()
    assert [recaps(printed) for printed in (made, less, users, gone)] == [[1, 1, 0], [1], [0], [1]]
    assert '"msg": "web-01"' in users
    assert lab.pve.firewall_config("cluster")["groups"] == {}
