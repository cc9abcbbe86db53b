# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A served API with a user of the role agent, and ansible-playbook with the callback enabled."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from tests.api.served import PASSWORD, PVEFLEET, Served

BIN = Path(sys.executable).parent
QUICK = {"PVEFLEET_REPORT_RATE": "10000/minute", "PVEFLEET_LOG_RATE": "100000/minute"}


@dataclass(frozen=True)
class Run:
    returncode: int
    output: str  # standard output and standard error
    seconds: float


class Api:
    """What an agent sees of the served API."""

    def __init__(self, served: Served) -> None:
        self.url = served.url
        body = {"username": "agent", "password": PASSWORD}
        answer = requests.post(f"{self.url}/api/v1/auth/login", json=body, timeout=30)
        assert answer.status_code == 200, answer.text
        self.token = str(answer.json()["token"])

    def call(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"Authorization": f"Bearer {self.token}", "Accept-Language": "en"}
        answer = requests.request(method, f"{self.url}/api/v1/tasks{path}", json=body, headers=headers, timeout=30)
        assert answer.ok, answer.text
        return answer.json()["data"]

    def ids(self) -> set[str]:
        return {task["id"] for task in self.call("GET", "?per_page=200")["tasks"]}

    def everything(self, task_id: str) -> str:
        """All that is known of a task, as text."""
        parts = ("", "/logs?per_page=200", "/metrics", "/errors")
        return json.dumps([self.call("GET", f"/{task_id}{part}") for part in parts], ensure_ascii=False)


class Playbook:
    """ansible-playbook in a folder of its own, as its user runs it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "KERUTA_"))}
        self.environment = {
            **kept,
            "HOME": str(folder),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_LOCALHOST_WARNING": "false",
            "ANSIBLE_INVENTORY_UNPARSED_WARNING": "false",
            "ANSIBLE_CALLBACKS_ENABLED": "pvefleet.infra.task_report",
        }

    def start(self, plays: list[Any], *options: str, **environment: str) -> subprocess.Popen[str]:
        for play in plays:
            play.setdefault("gather_facts", False)
        book = self.folder / "site.yml"
        book.write_text(yaml.safe_dump(plays, sort_keys=False))
        hosts = {name: {"ansible_connection": "local"} for name in ("web-01", "web-02")}
        variables = {"ansible_python_interpreter": "{{ ansible_playbook_python }}"}
        inventory = self.folder / "hosts.yml"
        inventory.write_text(yaml.safe_dump({"all": {"hosts": hosts, "vars": variables}}))
        return subprocess.Popen(
            [str(BIN / "ansible-playbook"), "-i", str(inventory), *options, str(book)],
            cwd=self.folder,
            env={name: value for name, value in (self.environment | environment).items() if value},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, plays: list[Any], *options: str, **environment: str) -> Run:
        began = time.monotonic()
        process = self.start(plays, *options, **environment)
        output = process.communicate(timeout=120)[0]
        assert "Traceback" not in output, output
        return Run(process.returncode, output, time.monotonic() - began)


@contextmanager
def serving(home: Path, **settings: str) -> Iterator[Served]:
    """A service with the user agent."""
    with Served(home, **QUICK, **settings) as served:
        command = [PVEFLEET, "user", "add", "agent", "--role", "agent", "--home", str(served.home)]
        subprocess.run(command, input=f"{PASSWORD}\n", text=True, check=True, timeout=60)
        yield served


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with serving(tmp_path_factory.mktemp("served") / "home") as served:
        yield Api(served)


@pytest.fixture
def playbook(tmp_path: Path) -> Playbook:
    return Playbook(tmp_path)
