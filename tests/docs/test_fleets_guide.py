# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The examples of the guide to fleets."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.docs.test_examples import page, recaps, states
from tests.lab import Lab


@pytest.mark.lab(time_scale=0.05)
def test_fleets(lab: Lab, tmp_path: Path) -> None:
    guide = page("docs/guides/fleets.md", lab, tmp_path)
    registry = tmp_path / "clusters.yml"
    entry = {
        "endpoints": [lab.api_endpoint],
        "user": lab.username,
        "password": lab.password,
        "ca_path": lab.ca_file,
        "default_storage": "local-lvm",
    }
    registry.write_text(yaml.safe_dump({"clusters": {"prod": entry}}))
    registry.chmod(0o600)
    guide.environment["PVEFLEET_REGISTRY"] = str(registry)
    made, pruned, by_playbook = guide.run()
    assert recaps(made) == [1, 0]
    assert "web-3: running as" in made
    assert recaps(pruned) == [1, 1]
    assert recaps(by_playbook) == [1, 1]
    assert states(lab) == {}
