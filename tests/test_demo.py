# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""`make demo`: it shows what it says, ends what it started, and says in a sentence why it could not."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

CHECKOUT = Path(__file__).resolve().parent.parent
PROGRAM = ("-m", "tests.demo")
OPTIONS = ("--port", "0", "--pve-port", "0", "--time-scale", "0.02")


@contextmanager
def demo(
    *options: str, program: Sequence[str] = PROGRAM, **environment: str
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A running demo, and the mark that all processes started by it have in their environment."""
    mark = uuid.uuid4().hex
    env = {**os.environ, "DEMO_MARK": mark, "COLUMNS": "200", "PYTHONUNBUFFERED": "1", **environment}
    argv = [sys.executable, *program, *OPTIONS, *options]
    with subprocess.Popen(argv, cwd=CHECKOUT, env=env, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process, mark
        finally:
            process.kill()
            for left in marked(mark):
                left.kill()


def marked(mark: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            if process.environ().get("DEMO_MARK") == mark:
                found.append(process)
    return found


def test_once_shows_a_servers_life_and_takes_everything_down() -> None:
    with demo("--once", PVEFLEET_TEMPLATES="not for the demo") as (process, mark):
        output, _unused = process.communicate(timeout=200)
        assert process.returncode == 0, output
        assert marked(mark) == []
    for step in ("create web-01", "stop web-01", "start web-01", "delete web-01"):
        assert re.search(rf"─ {step} ─", output), output
    assert output.count("completed 100%") == 4, output
    assert re.search(r"scsi0: local-lvm:\S+size=10G", output), output
    assert re.search(r"scsi1: local-lvm:\S+size=4G", output), output
    assert re.search(r"net0: \S+bridge=vmbr0", output), output
    assert re.search(r"net1: \S+bridge=vmbr1", output), output
    tables = output.split("after: ")[1:]
    rows = [next((line for line in table.splitlines() if "web-01" in line[1:10]), "") for table in tables]
    assert ["running" in rows[0], "stopped" in rows[1], "running" in rows[2], rows[3]] == [True, True, True, ""], output
    assert re.search(r"http://127\.0\.0\.1:\d+ +user admin +password \S{12,}", output), output
    assert not (CHECKOUT / ".demo" / str(process.pid)).exists()


def test_it_serves_until_ctrl_c() -> None:
    with demo() as (process, mark):
        assert process.stdout is not None
        lines = list(iter(process.stdout.readline, "It serves until Ctrl-C.\n"))
        assert process.poll() is None, "".join(lines)
        assert len(marked(mark)) >= 3, "the demo, the lab and the service"
        process.send_signal(signal.SIGINT)
        assert process.wait(40) == 0
        assert marked(mark) == []


def test_sigterm_on_the_way_ends_everything() -> None:
    with demo() as (process, mark):
        assert process.stdout is not None
        for line in process.stdout:
            if "create web-01" in line:
                break
        process.terminate()
        assert process.wait(40) == 1
        assert marked(mark) == []


def test_a_busy_port_is_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        begin = time.monotonic()
        with demo("--port", str(port)) as (process, _mark):
            output, _unused = process.communicate(timeout=30)
    assert process.returncode == 1
    assert output.splitlines() == [
        f"Unable to listen on 127.0.0.1:{port}: Address already in use."
        " Try: make demo PORT=<another port>, where 0 takes any free one."
    ]
    assert time.monotonic() - begin < 10, "nothing may be started first"


def test_a_refused_step_is_a_sentence_and_everything_is_down() -> None:
    unwilling = "from tests import demo; demo.SERVER['cpu'] = 0; raise SystemExit(demo.main())"
    with demo("--once", program=("-c", unwilling)) as (process, mark):
        output, _unused = process.communicate(timeout=100)
        assert process.returncode == 1
        assert "Unable to create web-01: 400 " in output
        assert "Traceback" not in output
        assert marked(mark) == []


def test_make_hands_over_its_variables() -> None:
    argv = ["make", "--dry-run", "demo", "DEMO_ONCE=1", "PORT=9000", "PVE_PORT=0"]
    planned = subprocess.run(argv, cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout
    assert "-m tests.demo --port 9000 --pve-port 0 --once" in planned
