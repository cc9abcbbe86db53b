# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pvefleet command: users, and a service that keeps running."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import requests
from click.testing import CliRunner
from pvefleet.cli import main
from pvefleet.serve import listen

from tests.api.served import PASSWORD, PVEFLEET, Served


def run(*arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PVEFLEET, *arguments],
        input=stdin,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def children(served: Served) -> dict[str, psutil.Process]:
    """The web's and the engine's process, by module."""
    assert served.process is not None
    found = {}
    for child in psutil.Process(served.process.pid).children():
        with contextlib.suppress(psutil.Error):  # it may end while it is looked at
            line = child.cmdline()
            if "-m" in line:
                found[line[line.index("-m") + 1]] = child
    return found


def alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


# ------------------------------------------------------------------ users


def in_process(*arguments: str, stdin: str = "") -> tuple[int, str]:
    """Exit status and output."""
    done = CliRunner().invoke(main, arguments, input=stdin)
    return done.exit_code, done.output


def test_users(tmp_path: Path) -> None:
    home = ["--home", str(tmp_path / "home")]
    assert in_process("user", "add", "eve", "--role", "operator", *home, stdin="a password\n") == (0, "")
    assert in_process("user", "list", *home) == (0, "eve\toperator\tactive\n")
    again = in_process("user", "add", "eve", *home, stdin="a password\n")
    assert again == (1, "Error: There is a user eve already\n")
    short = in_process("user", "add", "bob", *home, stdin="short\n")
    assert short == (1, "Error: A password has 8 to 1024 characters\n")
    assert in_process("user", "passwd", "eve", *home, stdin="another password\n") == (0, "")
    unknown = in_process("user", "passwd", "bob", *home, stdin="another password\n")
    assert unknown == (1, "Error: There is no user bob\n")


def test_a_password_cannot_be_an_argument(tmp_path: Path) -> None:
    for command in (["user", "add", "eve"], ["user", "passwd", "eve"]):
        for argument in ("a password", "--password=a password"):
            assert in_process(*command, argument, "--home", str(tmp_path))[0] == 2


def test_a_new_password_ends_sessions_while_the_service_runs(served: Served) -> None:
    home = ["--home", str(served.home)]
    assert run("user", "add", "temp", *home, stdin="a password\n").returncode == 0
    session = served.login("temp", "a password")
    assert session.get(served.at("/api/session"), timeout=30).status_code == 200
    assert run("user", "passwd", "temp", *home, stdin="another password\n").returncode == 0
    assert session.get(served.at("/api/session"), timeout=30).status_code == 401
    served.login("temp", "another password")


# ------------------------------------------------------------------ serving


def test_a_busy_port_is_one_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        home = tmp_path / "home"
        refused = run("serve", "--port", str(port), "--home", str(home))
    assert refused.returncode == 1
    assert refused.stderr == f"Error: Unable to listen on 127.0.0.1:{port}: Address already in use\n"
    assert refused.stdout == ""
    assert not home.exists(), "something was started before the port was looked at"


def test_answers_are_not_held_back() -> None:
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        connection, _address = listener.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"PVEFLEET_HOST": "0.0.0.0", "PVEFLEET_CLUSTERS_API_AUTH": "none"}, "PVEFLEET_CLUSTERS_API_AUTH=none needs"),
        ({"PVEFLEET_HOST": "no.such.host.invalid"}, "Unable to listen on no.such.host.invalid:0: "),
        ({"PVEFLEET_DATABASE_URL": "sqlite:////nonexistent/x.db"}, "Unable to open the database: "),
        ({"PVEFLEET_SECRET_KEY": "nonsense"}, "PVEFLEET_SECRET_KEY must hold Fernet keys"),
        ({"PVEFLEET_ADMIN_PASSWORD": "short"}, "A password has 8 to 1024 characters"),
        ({"PVEFLEET_TEMPLATES": "{x"}, "PVEFLEET_TEMPLATES: Not JSON: "),
        ({"PVEFLEET_HOME": "/proc/nowhere"}, "Unable to make the directory /proc/nowhere: "),
    ],
)
def test_what_cannot_be_served_is_told(tmp_path: Path, environment: dict[str, str], sentence: str) -> None:
    refused = run("serve", "--port", "0", **{"PVEFLEET_HOME": str(tmp_path / "home"), **environment})
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"Error: {sentence}")
    assert "Traceback" not in refused.stderr


def test_nothing_in_the_home_is_for_others(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(0o755)  # as systemd makes it; others see names, and no more
    with Served(home, PVEFLEET_MAX_RUN="2") as running:
        running.login()
        until((home / "engine.lock").exists)
        assert {path.name for path in home.iterdir() if path.stat().st_mode & 0o077} == set()
        assert "PVEFLEET_MAX_RUN is set, but there is no such setting" in running.log.read_text()


def test_the_admin_is_made_once(tmp_path: Path) -> None:
    first = Served(tmp_path / "home")
    del first.environment["PVEFLEET_ADMIN_PASSWORD"]
    with first:
        found = re.search(r"password: (\S+)", "".join(first.printed))
        assert found is not None
        first.login("admin", found[1])
    assert found[1] not in first.log.read_text()
    assert first.home.stat().st_mode & 0o777 == 0o700
    with first:
        assert "password" not in "".join(first.printed)
        first.login("admin", found[1])
    with Served(tmp_path / "home") as third:
        third.login("admin", found[1])
        answer = requests.post(third.at("/auth/login"), data={"username": "admin", "password": PASSWORD}, timeout=30)
        assert answer.status_code == 401, "the setting changed an existing user"


def test_one_service_a_home(served: Served) -> None:
    refused = run("serve", "--port", "0", "--home", str(served.home))
    assert refused.returncode == 1
    assert refused.stderr == f"Error: Unable to serve {served.home}: another pvefleet serve does already\n"


def test_sigterm_ends_everything(tmp_path: Path) -> None:
    with Served(tmp_path / "home") as service:
        until(lambda: len(children(service)) == 2)
        service.login()
        assert service.process is not None
        processes = psutil.Process(service.process.pid).children(recursive=True)
        start = time.monotonic()
        assert service.stop() == 0
        assert time.monotonic() - start < 12
        assert [process for process in processes if alive(process)] == []


def test_sigterm_lets_a_request_finish(tmp_path: Path) -> None:
    """A registration waits for a cluster that does not speak until the service was told to end."""
    arrived, told = threading.Event(), threading.Event()

    def hang_up_late(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _address = listener.accept()
                arrived.set()
                told.wait()
                connection.close()

    answers: list[requests.Response] = []
    with Served(tmp_path / "home") as service, socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=hang_up_late, args=[listener], daemon=True).start()
        session = service.login()
        body = {
            "name": "slow",
            "api_endpoint": f"https://127.0.0.1:{listener.getsockname()[1]}",
            "username": "root@pam",
            "password": "x",
        }

        def ask() -> None:
            answers.append(session.post(service.at("/api/v1/clusters"), json=body, timeout=30))

        asking = threading.Thread(target=ask)
        asking.start()
        assert arrived.wait(30)
        assert service.process is not None
        service.process.terminate()
        until(lambda: "Handling signal: term" in service.log.read_text())
        told.set()
        asking.join()
        assert answers[0].status_code == 502
        assert answers[0].json()["code"] == "BadGateway"
        assert service.process.wait(15) == 0


def test_forwarded_headers_of_anybody_are_not_believed(served: Served) -> None:
    answer = requests.post(
        served.at("/auth/login"),
        data={"username": "admin", "password": PASSWORD},
        headers={"X-Forwarded-Proto": "https", "X-Forwarded-Ssl": "on", "X-Forwarded-Protocol": "ssl"},
        timeout=30,
    )
    assert answer.status_code == 200
    assert "Secure" not in answer.headers["Set-Cookie"]


@pytest.mark.parametrize("module", ["pvefleet.web", "pvefleet.engine"])
def test_a_child_that_dies_is_started_again(tmp_path: Path, module: str) -> None:
    with Served(tmp_path / "home") as service:
        session = service.login()
        until(lambda: module in children(service))
        killed = children(service)[module]
        killed.kill()
        until(lambda: children(service).get(module, killed) != killed)
        # The socket stayed: who asks meanwhile waits, and the session is still good.
        assert session.get(service.at("/api/session"), timeout=30).status_code == 200
        assert f"The {module.removeprefix('pvefleet.')} ended with status -9" in service.log.read_text()


def test_children_end_with_a_killed_parent(tmp_path: Path) -> None:
    with Served(tmp_path / "home") as service:
        until(lambda: len(children(service)) == 2)
        service.login()
        assert service.process is not None
        processes = psutil.Process(service.process.pid).children(recursive=True)
        service.process.send_signal(signal.SIGKILL)
        until(lambda: not any(alive(process) for process in processes))
    with Served(tmp_path / "home") as service:
        service.login()
