# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""ansible-inventory and ansible with a source of the plugin fleet, against the lab."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.ansible_run import Ansible
from tests.lab import Lab


class Inventory:
    """A folder with a registry, in which the lab is the cluster prod, and prod.fleet.yml."""

    def __init__(self, folder: Path, lab: Lab) -> None:
        self.ansible = Ansible(folder, lab)
        self.folder = folder
        self.lab = lab
        self.warnings = ""  # of the last run, on one line

    def write(self, **options: Any) -> None:
        document = {"plugin": "pvefleet.infra.fleet", **options}
        (self.folder / "prod.fleet.yml").write_text(yaml.safe_dump(document))

    def add_cluster(self, name: str, **entry: Any) -> None:
        path = self.folder / "clusters.yml"
        document = yaml.safe_load(path.read_text())
        document["clusters"][name] = {**document["clusters"]["prod"], **entry}
        path.write_text(yaml.safe_dump(document))

    def run(self, command: str, *arguments: str, **environment: str) -> str:
        done = subprocess.run(
            [str(Path(sys.executable).parent / command), "-i", "prod.fleet.yml", *arguments],
            cwd=self.folder,
            env={**self.ansible.environment, "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "true", **environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        self.warnings = re.sub(r"\s+", " ", done.stderr)
        return done.stdout

    def list(self, **options: Any) -> dict[str, dict[str, Any]]:
        """The variables of every host, by its name."""
        self.write(**options)
        printed = self.run("ansible-inventory", "--list")
        assert printed, self.warnings
        hosts = json.loads(printed, object_hook=_plain)["_meta"]["hostvars"]
        assert isinstance(hosts, dict)
        return hosts

    def groups(self, **options: Any) -> dict[str, set[str]]:
        self.write(**options)
        printed = json.loads(self.run("ansible-inventory", "--list"))
        return {name: set(group.get("hosts", [])) for name, group in printed.items() if name != "_meta"}

    def refused(self, **options: Any) -> str:
        """Why the source was not used."""
        self.write(**options)
        self.run("ansible-inventory", "--list")
        return self.warnings


def _plain(value: dict[str, Any]) -> Any:
    """ansible-inventory marks every text that must not become a template."""
    return value["__ansible_unsafe"] if set(value) == {"__ansible_unsafe"} else value


@pytest.fixture
def inventory(tmp_path: Path, lab: Lab) -> Inventory:
    return Inventory(tmp_path, lab)


@pytest.fixture
def another_lab() -> Iterator[Callable[..., Lab]]:
    """Starts one more cluster."""
    labs: list[Lab] = []

    def start(**options: Any) -> Lab:
        labs.append(Lab(time_scale=0.01, **options).start())
        return labs[-1]

    yield start
    for lab in labs:
        lab.stop()
