# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The inventory of a large cluster by our plugin and by community.proxmox's, with what both are asked for alike."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks import CHECKOUT, VENV
from tests.lab import Lab

# What is asked for: nothing but hosts and groups; or the configuration of every guest and its agent's addresses.
# community.proxmox reads status, snapshots and agent with the configuration, there is no option for less.
WANTED: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "hosts and groups": {
        "pvefleet.infra.fleet": {},
        "community.proxmox.proxmox": {},
    },
    "configuration and addresses": {
        "pvefleet.infra.fleet": {"config": True, "addresses": "both"},
        "community.proxmox.proxmox": {"want_facts": True},
    },
}
FILES = {"pvefleet.infra.fleet": "bench.fleet.yml", "community.proxmox.proxmox": "bench.proxmox.yml"}


@dataclass(frozen=True)
class Inventoried:
    """seconds: of one run of ansible-inventory. calls: of the API."""

    wanted: str
    plugin: str
    seconds: float
    calls: int


def measure_inventory(guests: int, latency: float, venv: Path = VENV) -> list[Inventoried]:
    """One run each. latency: seconds for each answer. AssertionError when an inventory is not complete."""
    return [
        measure(wanted, plugin, options, guests, latency, venv)
        for wanted, plugins in WANTED.items()
        for plugin, options in plugins.items()
    ]


def measure(
    wanted: str, plugin: str, options: Mapping[str, Any], guests: int, latency: float, venv: Path = VENV
) -> Inventoried:
    with Lab(guests=guests, latency=latency) as lab, tempfile.TemporaryDirectory() as folder:
        source = Path(folder, FILES[plugin])
        source.write_text(yaml.safe_dump({"plugin": plugin, **options}))
        environment = {
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(CHECKOUT / ".venv/collections"),
            "ANSIBLE_HOME": str(CHECKOUT / ".cache/ansible"),
            "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "true",
            "PROXMOX_URL": lab.api_endpoint,
            "PROXMOX_HOST": lab.api_endpoint,
            "PROXMOX_USER": lab.username,
            "PROXMOX_PASSWORD": lab.password,
            "PROXMOX_CA_PATH": lab.ca_file,
            "REQUESTS_CA_BUNDLE": lab.ca_file,
        }
        argv = [venv / "bin/ansible-inventory", "-i", source, "--list"]
        begin = time.monotonic()
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
        seconds = time.monotonic() - begin
        assert done.returncode == 0, f"{plugin} failed:\n{done.stderr[-3000:]}"
        check(plugin, json.loads(done.stdout), guests, bool(options))
        return Inventoried(wanted, plugin, seconds, len(lab.requests))


def check(plugin: str, printed: Mapping[str, Any], guests: int, details: bool) -> None:
    """That every guest and both nodes are there, and what was asked for of the guests."""
    hosts = [name for group in printed.values() for name in group.get("hosts", [])]
    assert len(set(hosts)) == guests + 2, f"{plugin}: {len(set(hosts))} hosts"
    if details:
        known = printed["_meta"]["hostvars"].values()
        key, agent = {
            "pvefleet.infra.fleet": ("pve_config", "pve_ip_addresses"),
            "community.proxmox.proxmox": ("proxmox_memory", "proxmox_agent_interfaces"),
        }[plugin]
        assert sum(key in host for host in known) == guests
        assert sum(bool(host.get(agent)) for host in known) >= guests * 2 // 3
