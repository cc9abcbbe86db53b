# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""`make bench`: the same servers by proxmox_fleet, by a loop of proxmox_server, and by one of community.proxmox's
proxmox_kvm, each in a fresh lab; and the inventory of many guests."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import PveClient
from rich.console import Console
from rich.table import Table

from benchmarks import CHECKOUT, VENV
from benchmarks.inventory import measure_inventory
from tests.lab import Lab
from tests.lab.seed import add_template

# All run on the same Python and ansible-core, those of the package `ansible`, which has community.proxmox.
PACKAGES = ("ansible>=12", "proxmoxer>=2.3", "requests>=2.32")
# Small, so that what is measured is the modules and not the copying of disks.
TEMPLATE, TEMPLATE_BYTES = "bench-template", 64 * 1024**2
PLAYBOOKS = {
    "proxmox_fleet": "pvefleet.infra",
    "proxmox_server": "pvefleet.infra",
    "proxmox_kvm": "community.proxmox",
}


@dataclass(frozen=True)
class Measured:
    seconds: float
    calls: int


def prepare() -> None:
    """The virtual environment with community.proxmox in it; made once."""
    if (VENV / "ready").exists():
        return
    subprocess.run([sys.executable, "-m", "venv", "--clear", VENV], check=True)
    subprocess.run([VENV / "bin/python", "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
    (VENV / "ready").touch()


def measure(
    playbook: str, servers: int, time_scale: float, latency: float, *, venv: Path = VENV, runs: int = 1
) -> list[Measured]:
    """Seconds and API calls of each of so many runs of a playbook, one after the other in the same lab.

    AssertionError when the servers are not as they should be.
    """
    found = []
    with Lab(time_scale=time_scale, latency=latency) as lab:
        lab.do(add_template, lab.pve, 9100, TEMPLATE, lab.nodes[0], "local-lvm", TEMPLATE_BYTES)
        lab.do(lab.pve.settle_resources)
        environment = {
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(CHECKOUT / ".venv/collections"),
            "ANSIBLE_HOME": str(CHECKOUT / ".cache/ansible"),
            "PROXMOX_HOST": "127.0.0.1",
            "PROXMOX_PORT": str(lab.port),
            "PROXMOX_USER": lab.username,
            "PROXMOX_PASSWORD": lab.password,
            "PROXMOX_CA_PATH": lab.ca_file,
            "REQUESTS_CA_BUNDLE": lab.ca_file,
        }
        fleet = [
            {"name": f"bench-{number}", "cloud_init": {"ipconfig": {"net0": f"ip=10.0.0.{number}/24,gw=10.0.0.254"}}}
            for number in range(1, servers + 1)
        ]
        variables = {"servers": servers, "fleet": fleet, "template_name": TEMPLATE, "template_node": lab.nodes[0]}
        # Without an inventory, localhost runs modules with the Python of ansible-playbook itself.
        argv = [venv / "bin/ansible-playbook", "-e", json.dumps(variables), f"benchmarks/{playbook}.yml"]
        for _run in range(runs):
            begin, before = time.monotonic(), len(lab.requests)
            done = subprocess.run(argv, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False)
            found.append(Measured(time.monotonic() - begin, len(lab.requests) - before))
            assert done.returncode == 0, f"{playbook} failed:\n{done.stdout[-3000:]}\n{done.stderr[-2000:]}"
        check(lab, servers)
    return found


def check(lab: Lab, servers: int) -> None:
    """That the servers run, and are what both playbooks say."""
    client = PveClient(lab.connection())
    node = f"/nodes/{lab.nodes[0]}/qemu"
    guests = {guest["name"]: guest for guest in client.get(node)}
    for number in range(1, servers + 1):
        guest = guests[f"bench-{number}"]
        assert guest["status"] == "running", guest
        config = client.get(f"{node}/{guest['vmid']}/config", {"current": True})
        wanted = {
            "cores": 2,
            "memory": "2048",
            "ciuser": "ops",
            "ipconfig0": f"ip=10.0.0.{number}/24,gw=10.0.0.254",
        }
        assert {key: config.get(key) for key in wanted} == wanted, config
        assert "bridge=vmbr0" in config["net0"], config


def version(collection: str) -> str:
    argv = [VENV / "bin/ansible-galaxy", "collection", "list", "--format", "json", collection]
    environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(CHECKOUT / ".venv/collections")}
    listed = subprocess.run(argv, env=environment, capture_output=True, text=True, check=True).stdout
    return str(next(iter(json.loads(listed).values()))[collection]["version"])


def core_version() -> str:
    argv = [VENV / "bin/python", "-c", "import ansible.release; print(ansible.release.__version__)"]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--servers", type=int, default=100)
    parser.add_argument("--guests", type=int, default=1000)
    parser.add_argument("--latency", type=float, default=0.02, help="seconds for each answer (default: %(default)s)")
    parser.add_argument("--time-scale", type=float, default=1.0, help="of the lab; 1 is PVE's own times")
    arguments = parser.parse_args()
    prepare()
    console = Console(width=100)
    console.print(servers_table(arguments.servers, arguments.time_scale, arguments.latency))
    console.print(inventory_table(arguments.guests, arguments.latency))
    machine = f"{os.cpu_count()} cores, Python {platform.python_version()}, ansible-core {core_version()}"
    console.print(f"latency {arguments.latency} s, time scale {arguments.time_scale}, {machine}", highlight=False)
    return 0


def servers_table(servers: int, time_scale: float, latency: float) -> Table:
    table = _table(
        f"{servers} servers cloned, configured and started",
        ("module", "collection", "seconds", "API calls", "calls a server"),
    )
    for playbook, collection in PLAYBOOKS.items():
        runs = 2 if playbook == "proxmox_fleet" else 1
        for number, found in enumerate(measure(playbook, servers, time_scale, latency, runs=runs)):
            table.add_row(
                playbook + (" again" if number else ""),
                f"{collection} {version(collection)}",
                f"{found.seconds:.1f}",
                str(found.calls),
                f"{found.calls / servers:.1f}",
            )
    return table


def inventory_table(guests: int, latency: float) -> Table:
    table = _table(f"Inventory of {guests} guests", ("wanted", "plugin", "seconds", "API calls"))
    for found in measure_inventory(guests, latency):
        table.add_row(found.wanted, found.plugin, f"{found.seconds:.1f}", str(found.calls))
    return table


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, no_wrap=True)
    return table


if __name__ == "__main__":
    sys.exit(main())
