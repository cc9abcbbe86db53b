# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs ansible-playbook as a user does, with the lab as the cluster `prod` of its registry."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

CHECKOUT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Run:
    returncode: int
    output: str  # standard output and standard error

    @property
    def changed(self) -> int:
        """How many tasks changed something, from the recap."""
        found = re.search(r"changed=(\d+)", self.output)
        assert found, self.output
        return int(found[1])


class Ansible:
    """ansible-playbook with a home, a registry and an environment of its own."""

    def __init__(self, folder: Path, lab: Any) -> None:
        self.folder = folder
        registry = folder / "clusters.yml"
        entry = {
            "endpoints": [lab.api_endpoint],
            "user": lab.username,
            "password": lab.password,
            "ca_path": lab.ca_file,
            "default_storage": "local-lvm",
        }
        registry.write_text(yaml.safe_dump({"default": "prod", "clusters": {"prod": entry}}))
        registry.chmod(0o600)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "PVEFLEET_"))}
        self.environment = {
            **kept,
            "HOME": str(folder),
            "PVEFLEET_REGISTRY": str(registry),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_LOCALHOST_WARNING": "false",
            "ANSIBLE_INVENTORY_UNPARSED_WARNING": "false",
        }

    def playbook(self, name: str, *options: str, **variables: Any) -> Run:
        """A playbook by its path, or by its name in the collection."""
        file = self.folder / "variables.json"
        file.write_text(json.dumps({"ansible_python_interpreter": "{{ ansible_playbook_python }}", **variables}))
        done = subprocess.run(
            [str(Path(sys.executable).parent / "ansible-playbook"), "-e", f"@{file}", *options, name],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        assert "Traceback" not in done.stdout, done.stdout
        return Run(done.returncode, done.stdout)

    def tasks(self, tasks: list[Mapping[str, Any]], *options: str, **variables: Any) -> list[dict[str, Any]]:
        """The results of these tasks, in one run of one play; a task that fails does not end it."""
        results = [f"result_{number}" for number in range(len(tasks))]
        play = {
            "hosts": "localhost",
            "connection": "local",
            "gather_facts": False,
            "module_defaults": {"group/pvefleet.infra.proxmox": {"cluster": "prod"}},
            "tasks": [
                *({**task, "register": name, "ignore_errors": True} for task, name in zip(tasks, results, strict=True)),
                {
                    "ansible.builtin.copy": {
                        "content": "{{ [" + ", ".join(results) + "] | to_json }}",
                        "dest": str(self.folder / "results.json"),
                        "mode": "0600",
                    },
                    "check_mode": False,
                },
            ],
        }
        book = self.folder / "book.yml"
        book.write_text(yaml.safe_dump([play], sort_keys=False))
        run = self.playbook(str(book), *options, **variables)
        assert run.returncode == 0, run.output
        loaded: list[dict[str, Any]] = json.loads((self.folder / "results.json").read_text())
        return loaded
