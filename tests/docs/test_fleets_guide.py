# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The examples of the guide to fleets."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.ansible_run import Ansible
from tests.docs.test_examples import page, recaps, states
from tests.lab import Lab


@pytest.mark.lab(time_scale=0.05)
def test_fleets(lab: Lab, tmp_path: Path) -> None:
    guide = page("docs/guides/fleets.md", lab, tmp_path)
    guide.environment["PVEFLEET_REGISTRY"] = Ansible(tmp_path, lab).environment["PVEFLEET_REGISTRY"]
    made, pruned, by_playbook = guide.run()
    assert recaps(made) == [1, 0]
    assert "web-3: running as" in made
    assert recaps(pruned) == [1, 1]
    assert recaps(by_playbook) == [1, 1]
    assert states(lab) == {}
