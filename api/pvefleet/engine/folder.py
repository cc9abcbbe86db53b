# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A run's folder: what Ansible reads of it and writes for it, for its owner's eyes, gone with the run."""

from __future__ import annotations

import json
import os
import shutil
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from pvefleet.engine.base import Job, Progress
from pvefleet.engine.processes import MARK

# What a run inherits of our environment: where certificates and time zones are, nothing that could be a secret.
INHERITED = ("LC_ALL", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")


class RunFolder:
    """The private data directory of one run of ansible-runner."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.inventory = path / "inventory"
        self.variables = path / "variables.yml"
        self.registry = path / "registry.yml"
        self.report = path / "report"
        self._report_offset = 0

    def write(self, job: Job) -> None:
        """Make the folder anew, with all that the job needs."""
        self.remove()
        self.path.mkdir(mode=0o700, parents=True)
        hosts = {"localhost": {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}}
        self._write(self.inventory / "hosts.yml", yaml.safe_dump({"all": {"hosts": hosts}}))
        # Group variables are neither in argv nor in the environment, and no playbook shows them.
        self._write(self.inventory / "group_vars" / "all.yml", dump_unsafe(job.secrets))
        self._write(self.variables, dump_unsafe(job.variables))
        if job.registry is not None:
            self._write(self.registry, job.registry)
        # An empty file of our own keeps this machine's ansible.cfg out.
        self._write(self.path / "ansible.cfg", "")
        self._write(self.path / "env" / "settings", json.dumps({"pexpect_timeout": 1, "suppress_ansible_output": True}))
        (self.path / "tmp").mkdir(mode=0o700)

    def environment(self, task_id: str) -> dict[str, str]:
        """The whole environment of the run."""
        temporary = str(self.path / "tmp")
        return {
            **{name: os.environ[name] for name in INHERITED if name in os.environ},
            "PATH": os.pathsep.join((sysconfig.get_path("scripts"), os.defpath)),
            "HOME": str(self.path),
            "LANG": "C.UTF-8",
            "TMPDIR": temporary,
            "ANSIBLE_CONFIG": str(self.path / "ansible.cfg"),
            "ANSIBLE_HOME": str(self.path / "ansible"),
            "ANSIBLE_LOCAL_TEMP": temporary,
            "ANSIBLE_REMOTE_TEMP": temporary,
            "ANSIBLE_STDOUT_CALLBACK": "default",
            "ANSIBLE_CALLBACK_PLUGINS": "",
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_NOCOWS": "1",
            # Module arguments go through a pipe instead of a file.
            "ANSIBLE_PIPELINING": "1",
            "PVEFLEET_REPORT": str(self.report),
            "PVEFLEET_REGISTRY": str(self.registry),
            MARK: task_id,
        }

    def new_reports(self) -> list[Progress]:
        """What the modules have reported since the last time."""
        try:
            with self.report.open("rb") as file:
                file.seek(self._report_offset)
                # A line that is still being written is read the next time.
                text, _newline, _unfinished = file.read().rpartition(b"\n")
        except FileNotFoundError:
            return []
        if not text:
            return []
        self._report_offset += len(text) + 1
        lines = [json.loads(line) for line in text.splitlines()]
        return [Progress(line["percent"], line["message"]) for line in lines]

    def remove(self) -> None:
        if self.path.exists():
            shutil.rmtree(self.path)

    @staticmethod
    def _write(path: Path, text: str) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)


class _Unsafe(str):
    """A text that Ansible must not render, whatever braces are in it."""


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_representer(_Unsafe, lambda dumper, text: dumper.represent_scalar("!unsafe", str(text), style='"'))


def dump_unsafe(variables: Mapping[str, Any]) -> str:
    """YAML in which every text below the variables' names is marked as no template."""
    return yaml.dump({name: _unsafe(value) for name, value in variables.items()}, Dumper=_Dumper, allow_unicode=False)


def _unsafe(value: Any) -> Any:
    if isinstance(value, str):
        return _Unsafe(value)
    if isinstance(value, Mapping):
        return {key: _unsafe(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_unsafe(item) for item in value]
    return value
