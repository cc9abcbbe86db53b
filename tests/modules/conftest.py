# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a module as Ansible does: main() in a process of its own, parameters as JSON, the result on standard output."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import pytest
from ansible_collections.pvefleet.infra.plugins.module_utils._pve import client, steps, upid

HURRY = 10


class RunModule(Protocol):
    def __call__(
        self,
        module: str,
        params: Mapping[str, Any],
        *,
        check: bool = False,
        environment: Mapping[str, str] | None = None,
        fails: bool = False,
    ) -> dict[str, Any]: ...


@pytest.fixture(scope="module")
def quick() -> Iterator[None]:
    """The lab's second lasts 10 ms, so that what waits for it looks more often."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(upid, "FIRST_POLL", {})
        patch.setattr(upid, "DEFAULT_FIRST_POLL", 0.01)
        patch.setattr(steps, "POLL_SECONDS", 0.02)
        yield


@pytest.fixture
def hurry(quick: None) -> Iterator[None]:
    """Of all waiting on the client's side, a second lasts a tenth of one."""
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() * HURRY, sleep=lambda secs: time.sleep(secs / HURRY))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(upid, "DEFAULT_FIRST_POLL", 0.1)
        patch.setattr(steps, "POLL_SECONDS", 0.2)
        for module in (client, steps, upid):
            patch.setattr(module, "time", clock)
        yield


@pytest.fixture
def run_module(tmp_path: Path) -> RunModule:
    """run_module("proxmox_cluster", {...}) -> the module's result, diff included.

    environment is added to one without PVEFLEET_* and PROXMOX_*. A failure fails the test unless fails=True, a success
    then does. The whole output is in result["output"].
    """

    def run(
        module: str,
        params: Mapping[str, Any],
        *,
        check: bool = False,
        environment: Mapping[str, str] | None = None,
        fails: bool = False,
    ) -> dict[str, Any]:
        arguments = {**params, "_ansible_check_mode": check, "_ansible_diff": True}
        file = tmp_path / "module-arguments.json"
        file.write_text(json.dumps({"ANSIBLE_MODULE_ARGS": arguments}))
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PVEFLEET_", "PROXMOX_"))}
        done = subprocess.run(
            [sys.executable, "-m", f"ansible_collections.pvefleet.infra.plugins.modules.{module}", str(file)],
            env={**inherited, "HOME": str(tmp_path), **(environment or {})},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.stderr == "", done.stderr
        result: dict[str, Any] = json.loads(done.stdout)
        assert bool(result.get("failed")) is fails, result
        # what was given comes back there; what is sensitive must be masked by then
        result["output"] = done.stdout
        return result

    return run
