# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The guide to templates, run as it is printed, against the lab."""

from __future__ import annotations

from pathlib import Path

from tests.ansible_run import Ansible
from tests.lab import Lab

from .test_examples import page, recaps


def test_templates(lab: Lab, tmp_path: Path) -> None:
    guide = page("docs/guides/templates.md", lab, tmp_path)
    guide.environment["PVEFLEET_REGISTRY"] = Ansible(tmp_path, lab).environment["PVEFLEET_REGISTRY"]
    printed = guide.run()
    assert [recaps(out) for out in printed] == [[], [1, 0], [1], [1, 1]]
    assert [vm.vmid for vm in lab.pve.vms] == [lab.template_vmid]
    assert not lab.pve.storages["local"]["volumes"]
