# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every file says under which licence it is, and the AGPL stays where fakepve is imported: in tests/."""

from __future__ import annotations

import re
import subprocess
import tomllib
from fnmatch import fnmatch
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
LICENCE = re.compile(r"SPDX-License-Identifier: (\S+)")
FAKEPVE = re.compile(r"^\s*(?:import|from) fakepve\b", re.M)


def files() -> list[Path]:
    """Every file of the project but the licences themselves and what REUSE.toml speaks for."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=CHECKOUT, check=True, capture_output=True, text=True).stdout
    annotations = tomllib.loads((CHECKOUT / "REUSE.toml").read_text())["annotations"]
    named = [pattern for entry in annotations for pattern in entry["path"]]
    spoken_for = {name for name in listed.split("\0") for pattern in named if fnmatch(name, pattern)}
    paths = [CHECKOUT / name for name in listed.split("\0") if name and name not in spoken_for]
    return [path for path in paths if path.is_file() and path.stat().st_size and path.parts[-2:-1] != ("LICENSES",)]


def licence(path: Path) -> str | None:
    head = "\n".join(path.read_text().splitlines()[:10])
    found = LICENCE.search(head)
    return found[1] if found else None


def test_every_file_names_its_licence() -> None:
    allowed = {"GPL-3.0-or-later", "AGPL-3.0-or-later"}
    ours = [path for path in files() if path.name != "LICENSE"]
    assert [str(path.relative_to(CHECKOUT)) for path in ours if licence(path) not in allowed] == []


def test_only_tests_import_fakepve_and_say_so() -> None:
    users = [path for path in files() if path.suffix == ".py" and FAKEPVE.search(path.read_text())]
    assert users, "the lab is gone or imports fakepve in another way"
    assert [str(path) for path in users if path.relative_to(CHECKOUT).parts[0] != "tests"] == []
    assert [str(path) for path in users if licence(path) != "AGPL-3.0-or-later"] == []
