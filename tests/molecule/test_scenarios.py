# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Molecule's scenarios: each role converges on a lab of its own, is idempotent, and the cluster says that it is so."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.ansible_run import CHECKOUT

BIN = Path(sys.executable).parent
SCENARIOS = sorted(path.parent.name for path in (CHECKOUT / "molecule").glob("*/molecule.yml"))
# Roles that work on hosts, which the lab is not.
NO_SCENARIO: set[str] = set()


def test_every_role_has_a_scenario() -> None:
    roles = {path.name for path in (CHECKOUT / "roles").iterdir()}
    assert roles - NO_SCENARIO == set(SCENARIOS)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenario(scenario: str, tmp_path: Path) -> None:
    """With an empty home and without a network; at its end nothing is left running."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "PVEFLEET_"))}
    ephemeral = tmp_path / "ephemeral"
    done = subprocess.run(
        [BIN / "molecule", "test", "--scenario-name", scenario],
        cwd=CHECKOUT,
        env={
            **kept,
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(tmp_path),
            "ANSIBLE_HOME": str(tmp_path / "ansible"),
            "MOLECULE_EPHEMERAL_DIRECTORY": str(ephemeral),
            "NO_COLOR": "1",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    for step in ("create", "converge", "idempotence", "verify", "destroy"):
        assert re.search(rf"^{scenario} \S+ {step}: Executed: Successful$", done.stdout, re.M), done.stdout
    assert re.search(rf"^{scenario} .*disabled=0 +skipped=0 +missing=0 +failed=0$", done.stdout, re.M), done.stdout
    assert [found for found in psutil.process_iter(["environ"]) if _belongs(found, ephemeral)] == []


def _belongs(found: psutil.Process, ephemeral: Path) -> bool:
    environment = found.info["environ"] or {}
    return environment.get("MOLECULE_EPHEMERAL_DIRECTORY") == str(ephemeral)
