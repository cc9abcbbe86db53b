# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A service that was really started: `pvefleet serve` as a process, on a port of its own."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Self

import requests

PVEFLEET = str(Path(sys.executable).with_name("pvefleet"))
STOP_SECONDS = 20
PASSWORD = "a password for tests"


class Served:
    """With `with`, it serves within the block. home and environment may be used again: that is a restart."""

    def __init__(self, home: Path, **environment: str) -> None:
        self.home = home
        self.environment = {
            "PVEFLEET_ADMIN_PASSWORD": PASSWORD,
            "PVEFLEET_OBSERVE_INTERVAL": "0.5",
            **environment,
        }
        self.url = ""
        self.printed: list[str] = []
        self.process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self.home.parent.mkdir(parents=True, exist_ok=True)
        self.log = self.home.with_suffix(".log")
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [PVEFLEET, "serve", "--port", "0", "--home", str(self.home)],
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        self.printed = []
        assert self.process.stdout is not None
        for line in self.process.stdout:  # to its end, when the service does not start
            self.printed.append(line)
            if found := re.search(r"http://\S+", line):
                self.url = found[0]
                return self
        self.stop()
        raise AssertionError(f"the service did not start:\n{self.log.read_text()}")

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_SECONDS)
        finally:
            self.process.kill()
            self.process.wait()

    def login(self, username: str = "admin", password: str = PASSWORD) -> requests.Session:
        """A session as a browser has one. Relative URLs: see `at`."""
        session = requests.Session()
        answer = session.post(f"{self.url}/auth/login", data={"username": username, "password": password}, timeout=30)
        assert answer.status_code == 200, answer.text
        return session

    def at(self, path: str) -> str:
        return f"{self.url}{path}"
