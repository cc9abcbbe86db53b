# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

"""``python -m tests.lab``."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import requests

from tests.lab import Lab

from .api import Api, until

CHECKOUT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "tests.lab"]


@contextmanager
def serving(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, object]]]:
    with subprocess.Popen([*COMMAND, *arguments], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process, json.loads(process.stdout.readline())["pve"]
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_tells_how_to_reach_it_and_serves_until_a_signal(number: signal.Signals) -> None:
    with serving("--pve-port", "0", "--nodes", "3", "--guests", "2", "--time-scale", "0.01") as (process, pve):
        assert set(pve) == {
            "api_endpoint",
            "ca_file",
            "fingerprint",
            "username",
            "password",
            "token_id",
            "token_secret",
            "template_vmid",
            "nodes",
        }
        assert pve["nodes"] == ["pve1", "pve2", "pve3"]
        session = requests.Session()
        session.trust_env = False
        rows = session.get(
            f"{pve['api_endpoint']}/api2/json/cluster/resources?type=vm",
            headers={"Authorization": f"PVEAPIToken={pve['token_id']}={pve['token_secret']}"},
            verify=pve["ca_file"],
        ).json()["data"]
        assert {row["vmid"] for row in rows} == {pve["template_vmid"], 200, 201}
        process.send_signal(number)
        assert process.wait(10) == 0
        assert not Path(str(pve["ca_file"])).parent.exists()


def test_a_busy_port_is_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = subprocess.run(
            [*COMMAND, "--pve-port", port], cwd=CHECKOUT, capture_output=True, text=True, timeout=30, check=False
        )
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == f"Unable to serve the lab on 127.0.0.1 port {port}: Address already in use\n"


@pytest.mark.parametrize(
    ("option", "value"), [("--nodes", "0"), ("--pve-port", "70000"), ("--time-scale", "nan"), ("--guests", "-1")]
)
def test_nonsense_is_refused(option: str, value: str) -> None:
    ended = subprocess.run([*COMMAND, option, value], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert f"argument {option}: must be" in ended.stderr


def test_it_ends_while_answers_are_open() -> None:
    """A task's end is waited for by nobody, nor is a client that hangs."""
    lab = Lab(time_scale=1.0).start()
    lab.do(lab.pve.flaky_network, hang_rate=1.0)
    client = threading.Thread(target=_ask, args=(lab,))
    client.start()
    until(lambda: lab.requests)
    began = time.monotonic()
    lab.stop()
    client.join()
    assert time.monotonic() - began < 5


def _ask(lab: Lab) -> None:
    with suppress(requests.ConnectionError):
        Api(lab).send("GET", "/version")
