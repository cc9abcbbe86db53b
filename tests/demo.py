# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""`make demo`: a simulated cluster and the service, started here and shown at work through the HTTP API."""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import requests
from rich.console import Console
from rich.panel import Panel
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

CHECKOUT = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
START_SECONDS = 60
STOP_SECONDS = 20
NEWLINE = "\n"
SIGNALS = (signal.SIGINT, signal.SIGTERM)

SERVER = {
    "name": "web-01",
    "cpu": 2,
    "memory": 2048,
    "role": "web",
    "disks": [
        {"interface": "scsi0", "size": 10, "datastore_id": "local-lvm"},
        {"interface": "scsi1", "size": 4, "datastore_id": "local-lvm", "disk_type": "ssd"},
    ],
    "network_devices": [
        {"bridge": "vmbr0", "ip_address": "10.0.0.11", "subnet": "24", "gateway": "10.0.0.1"},
        {"bridge": "vmbr1", "ip_address": "10.0.1.11", "subnet": "24"},
    ],
    "vm_username": "ops",
}

console = Console()


class DemoError(Exception):
    """A step went wrong; the text says which and why."""


class Interrupted(BaseException):
    """SIGINT or SIGTERM: everything is to be ended. No Exception, so that no handler of a step takes it for its own."""


def interrupt(_signum: int, _frame: FrameType | None) -> None:
    # A second Ctrl-C must not cut off the ending of the processes.
    for signum in SIGNALS:
        signal.signal(signum, signal.SIG_IGN)
    raise Interrupted


# ------------------------------------------------------------------ processes


def free_port(wanted: int, variable: str) -> int:
    """`wanted`, or a free port for 0. DemoError when somebody listens there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, wanted))
        except OSError as error:
            hint = f"make demo {variable}=<another port>, where 0 takes any free one"
            raise DemoError(f"Unable to listen on {HOST}:{wanted}: {error.strerror}. Try: {hint}.") from None
        return int(probe.getsockname()[1])


@contextmanager
def child(name: str, argv: list[str], log: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a session of its own (Ctrl-C reaches us alone, and we end it), all that it says in `log`."""
    # Settings of another service, which this shell may hold, are none of the demo's.
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("PVEFLEET_")}
    with log.open("w") as output:
        process = subprocess.Popen(
            argv,
            cwd=CHECKOUT,
            env={**inherited, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            console.print(f"[yellow]{name} did not stop within {STOP_SECONDS} seconds and is killed.")
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_until(ready: Callable[[], bool], process: subprocess.Popen[bytes], what: str, log: Path) -> None:
    """Returns once `ready`. DemoError with the end of its log when the process ends or is not ready in time."""
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        if ready():
            return
        time.sleep(0.1)
    said = log.read_text(errors="replace").strip().splitlines()[-15:]
    raise DemoError(f"Unable to start {what}: {NEWLINE.join(said) or 'it says nothing'}")


def start_lab(stack: ExitStack, port: int, time_scale: float, home: Path) -> dict[str, Any]:
    """The simulated cluster's own description of itself, once it serves."""
    log = home / "lab.log"
    argv = [sys.executable, "-m", "tests.lab", "--host", HOST, "--pve-port", str(port), "--nodes", "2", "--guests", "4"]
    lab = stack.enter_context(child("The lab", [*argv, "--time-scale", str(time_scale)], log))
    # Its first line, when it is whole, is the description.
    wait_until(lambda: log.read_text().startswith("{") and NEWLINE in log.read_text(), lab, "the lab", log)
    description: dict[str, Any] = json.loads(log.read_text().splitlines()[0])["pve"]
    return description


def start_service(stack: ExitStack, port: int, password: str, home: Path) -> Api:
    """The service, when GET /health answers."""
    log = home / "service.log"
    pvefleet = str(Path(sys.executable).with_name("pvefleet"))
    argv = [pvefleet, "serve", "--host", HOST, "--port", str(port), "--home", str(home / "service")]
    settings = {"PVEFLEET_ADMIN_PASSWORD": password, "PVEFLEET_OBSERVE_INTERVAL": "1"}
    service = stack.enter_context(child("The service", argv, log, **settings))

    api = Api(f"http://{HOST}:{port}")
    wait_until(api.is_healthy, service, "the service", log)
    return api


# ---------------------------------------------------------------------- steps


class Api:
    """The service as a logged-in user sees it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._session = requests.Session()
        # Nothing of this machine's settings (proxies, .netrc) belongs to a service on loopback.
        self._session.trust_env = False
        self._session.headers["Accept-Language"] = "en"

    def is_healthy(self) -> bool:
        try:
            return self._session.get(f"{self.url}/health", timeout=2).ok
        except (requests.ConnectionError, requests.Timeout):
            return False

    def call(self, step: str, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The answer's JSON. DemoError "Unable to <step>: ..." on any refusal."""
        try:
            answer = self._session.request(method, self.url + path, json=body, timeout=60)
            data: dict[str, Any] = answer.json()
        except requests.RequestException as error:
            raise DemoError(f"Unable to {step}: {error}") from error
        if not answer.ok:
            raise DemoError(f"Unable to {step}: {answer.status_code} {data.get('error') or data.get('message')}")
        return data

    def events(self, path: str) -> Iterator[dict[str, Any]]:
        """The data of each server-sent event until the stream ends."""
        try:
            with self._session.get(self.url + path, stream=True, timeout=(5, 60)) as answer:
                answer.raise_for_status()
                for line in answer.iter_lines(decode_unicode=True):
                    if line.startswith("data:"):
                        yield json.loads(line.removeprefix("data:"))
        except requests.RequestException as error:
            raise DemoError(f"Unable to follow {path}: {error}") from error

    def follow(self, step: str, task_id: str) -> None:
        """Show a task's progress until it has ended. DemoError unless it is completed."""
        columns = (
            TextColumn("  {task.fields[status]:<9}"),
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
        )
        with Progress(*columns, console=console) as progress:
            shown = progress.add_task("", total=100, status="pending")
            for event in self.events(f"/api/tasks/{task_id}/stream"):
                if "status" in event:
                    news = {"completed": event["progress"], "description": event["message"]}
                    progress.update(shown, status=event["status"], **news)
                    if not console.is_terminal:  # where no bar can move
                        console.print(Text(f"  {event['status']} {event['progress']}% {event['message']}"))
                else:
                    console.print(Text(f"  {event['message']}", style="dim"))
        task = self.call(step, "GET", f"/api/tasks/{task_id}")["task"]
        if task["status"] != "completed":
            raise DemoError(f"Unable to {step}: {task['status']}: {task.get('error') or task['message']}")


def show_servers(api: Api, title: str) -> None:
    table = Table(title=title, title_justify="left")
    for column in ("name", "vmid", "status", "cpu", "memory", "addresses", "role"):
        table.add_column(column)
    for server in api.call("list the servers", "GET", "/api/servers")["servers"].values():
        addresses = ", ".join(server["ip_addresses"])
        values = (server[key] for key in ("name", "vmid", "status", "cpu", "memory"))
        table.add_row(*(str(value) for value in values), addresses, server["role"] or "")
    console.print(table)


def tour(api: Api, password: str, pve: Mapping[str, Any]) -> None:
    """The life of one server, every step through the HTTP API."""
    console.rule("log in")
    api.call("log in", "POST", "/auth/login", {"username": "admin", "password": password})
    console.rule("register the cluster")
    cluster = {
        "name": "lab",
        "api_endpoint": pve["api_endpoint"],
        "token_id": pve["token_id"],
        "token_secret": pve["token_secret"],
        "tls_fingerprint": pve["fingerprint"],
    }
    known = api.call("register the cluster", "POST", "/api/v1/clusters", cluster)
    version, nodes = known["proxmox_version"], known["node_count"]
    console.print(f"  {known['name']}: Proxmox VE {version}, {nodes} nodes, {known['status']}")
    name = SERVER["name"]
    create = {**SERVER, "template_vm_id": pve["template_vmid"], "vm_password": secrets.token_urlsafe(12)}
    steps = (
        (f"create {name}", "POST", "/api/servers", create),
        (f"stop {name}", "POST", f"/api/servers/{name}/stop", None),
        (f"start {name}", "POST", f"/api/servers/{name}/start", None),
        (f"delete {name}", "DELETE", f"/api/servers/{name}", None),
    )
    for step, method, path, body in steps:
        console.rule(step)
        api.follow(step, api.call(step, method, path, body)["task_id"])
        if step.startswith("create"):
            server = api.call(f"look at {name}", "GET", f"/api/servers/{name}")["server"]
            for device, value in {**server["disks"], **server["network_devices"]}.items():
                console.print(Text(f"  {device}: {value}"), soft_wrap=True)
        show_servers(api, f"after: {step}")


# ----------------------------------------------------------------------- main


def run(port: int, pve_port: int, time_scale: float, once: bool) -> None:
    with ExitStack() as stack:
        port, pve_port = free_port(port, "PORT"), free_port(pve_port, "PVE_PORT")
        home = stack.enter_context(own_folder(CHECKOUT / ".demo"))
        password = secrets.token_urlsafe(12)
        with console.status("starting the lab and the service ..."):
            pve = start_lab(stack, pve_port, time_scale, home)
            api = start_service(stack, port, password, home)
        tour(api, password, pve)
        console.print(Panel(f"{api.url}   user admin   password {password}", title="PVE Fleet", expand=False))
        if not once:
            with suppress(Interrupted):
                console.print("It serves until Ctrl-C.")
                signal.pause()


@contextmanager
def own_folder(parent: Path) -> Iterator[Path]:
    """A new folder below `parent` for one demo, removed afterwards."""
    home = parent / f"{os.getpid()}"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True, mode=0o700)
    try:
        yield home
    finally:
        shutil.rmtree(home)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.demo", description=__doc__)
    parser.add_argument("--port", type=int, default=8080, help="the service's, 0 for a free one (default: %(default)s)")
    parser.add_argument("--pve-port", type=int, default=8006, help="the lab's, 0 for a free one (default: %(default)s)")
    parser.add_argument("--time-scale", type=float, default=1.0, help="real seconds for each second of the lab's PVE")
    parser.add_argument("--once", action="store_true", help="end after the tour instead of serving on")
    arguments = parser.parse_args()
    for signum in SIGNALS:
        signal.signal(signum, interrupt)
    try:
        run(arguments.port, arguments.pve_port, arguments.time_scale, arguments.once)
    except DemoError as error:
        console.print(Text(str(error), style="red"), soft_wrap=True)
        return 1
    except Interrupted:
        console.print("[red]Interrupted. Everything is down.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
