# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every module's examples are run as they are printed, in order, in one play: none of their tasks may fail."""

from __future__ import annotations

import functools
import hashlib
import http.server
import importlib
import re
import threading
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.pvefleet.infra.plugins.module_utils._pve import membership
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import PveClient
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.membership_plan import join_spec

from tests.ansible_run import CHECKOUT, Ansible
from tests.conftest import TIME_SCALE
from tests.lab import Lab, standalone_nodes
from tests.modules.jobs import add_server, client_of

MODULES = sorted(path.stem for path in (CHECKOUT / "plugins/modules").glob("[!_]*.py"))
# The header of a qcow2 file with a disk of 1 GiB, which is all that the lab reads of one.
IMAGE = b"QFI\xfb\x00\x00\x00\x03".ljust(24, b"\0") + (1024**3).to_bytes(8, "big") + bytes(1000)


@dataclass
class World:
    """Where the examples of one module are run."""

    lab: Lab
    folder: Path
    stack: ExitStack
    variables: dict[str, Any] = field(default_factory=dict)  # the variables that the examples use
    environment: dict[str, str] = field(default_factory=dict)
    instead: dict[str, str] = field(default_factory=dict)  # what stands there -> what there is here


def nothing(world: World) -> None:
    """The lab with its template is all they need."""


def one_server(world: World) -> None:
    add_server(world.lab)


def two_servers(world: World) -> None:
    add_server(world.lab)
    add_server(world.lab, 101, "web-02")
    with client_of(world.lab) as client:
        client.put("/cluster/firewall/options", {"enable": 1})


def two_backups(world: World) -> None:
    add_server(world.lab)
    for days in (1, 40):
        world.lab.do(world.lab.pve.add_backup, 100, age=days * 86400)


def group_of_two(world: World) -> None:
    two_servers(world)
    with client_of(world.lab) as client:
        client.post("/cluster/firewall/groups", {"group": "web"})
        client.post("/nodes/pve1/qemu/100/firewall/rules", {"type": "group", "action": "web", "enable": 1})


def running_backup(world: World) -> None:
    add_server(world.lab)
    world.variables["backup_upid"] = world.lab.do(world.lab.pve.backup, 100, secs=200)


def address_and_secrets(world: World) -> None:
    lab = world.lab
    world.instead = {
        "- pve1.example.com": f"- {lab.api_endpoint}",
        "- pve2.example.com": f"- {lab.api_endpoint}/",
        "automation@pve!fleet": lab.token_id,
        "/etc/ssl/pve-prod.pem": lab.ca_file,
        "192.0.2.10": lab.api_endpoint,
    }
    world.variables = {
        "fleet_token": lab.token_secret,
        "lab_password": lab.password,
        "lab_fingerprint": lab.fingerprint,
    }


def backup_server(world: World) -> None:
    world.environment["PBS_PASSWORD"] = "one of another machine"


def images(world: World) -> None:
    """One to download, one that was uploaded before, and one beside the playbook."""
    served = world.folder / "served"
    served.mkdir()
    (served / "debian-13-genericcloud-amd64.qcow2").write_bytes(IMAGE)
    handler = functools.partial(_Quiet, directory=str(served))
    server = world.stack.enter_context(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler))
    world.stack.callback(server.shutdown)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    world.instead = {
        "https://cloud.debian.org/images/cloud/trixie/latest": f"http://127.0.0.1:{server.server_address[1]}"
    }
    world.variables = {"debian_sha512": hashlib.sha512(IMAGE).hexdigest()}
    world.lab.do(world.lab.pve.add_image, "local", "rocky-9.qcow2")
    files = world.folder / "files"
    files.mkdir()
    (files / "appliance.img").write_bytes(IMAGE)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Not among the test's output."""


def standalone_and_dead_nodes(world: World) -> None:
    """pve1, pve3 and pve4 are a cluster, pve3 is switched off, pve2 stands alone."""
    patch = world.stack.enter_context(pytest.MonkeyPatch.context())
    patch.setenv("XDG_CACHE_HOME", str(world.folder))  # where joins wait for each other
    site = standalone_nodes(4, time_scale=TIME_SCALE)
    world.stack.callback(site.stop)
    peer = site["pve1"]
    address = f"{peer.host}:{peer.port}"
    trusted = {"address": address, "user": peer.username, "password": peer.password, "fingerprint": peer.fingerprint}
    for name in ("pve3", "pve4"):
        connection = site[name].connection()
        wish = {"peer": trusted, "cluster_name": "lab", "timeout": 60, "quorum_timeout": 60}
        with closing(PveClient(connection)) as client:
            membership.join(client, join_spec(wish, connection))
    site.power_off("pve3")
    world.instead = {"192.168.3.10": site["pve2"].api_endpoint, "192.168.3.5": address}
    world.variables = {
        "new_node_password": site["pve2"].password,
        "new_node_fingerprint": site["pve2"].fingerprint,
        "peer_password": peer.password,
        "peer_fingerprint": peer.fingerprint,
    }


PREPARE: dict[str, Callable[[World], None]] = {
    "proxmox_cluster": address_and_secrets,
    "proxmox_cluster_info": nothing,
    "proxmox_fleet": nothing,
    "proxmox_server": nothing,
    "proxmox_server_info": one_server,
    "proxmox_template": images,
    "pve_backup": one_server,
    "pve_backup_info": two_backups,
    "pve_firewall_group": two_servers,
    "pve_firewall_group_info": group_of_two,
    "pve_node_join": standalone_and_dead_nodes,
    "pve_storage": backup_server,
    "pve_storage_info": nothing,
    "pve_task_info": running_backup,
}


def test_every_module_has_a_world() -> None:
    assert sorted(PREPARE) == MODULES


@pytest.mark.parametrize("module", MODULES)
def test_examples(module: str, lab: Lab, tmp_path: Path) -> None:
    examples = importlib.import_module(f"ansible_collections.pvefleet.infra.plugins.modules.{module}").EXAMPLES
    with ExitStack() as stack:
        world = World(lab, tmp_path, stack)
        PREPARE[module](world)
        for printed, real in world.instead.items():
            assert printed in examples
            examples = examples.replace(printed, real)
        tasks = yaml.safe_load(examples)
        assert any(f"pvefleet.infra.{module}" in task for task in tasks)
        play = {"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": tasks}
        book = tmp_path / "examples.yml"
        book.write_text(yaml.safe_dump([play], sort_keys=False))
        ansible = Ansible(tmp_path, lab)
        ansible.environment |= world.environment
        run = ansible.playbook(str(book), **world.variables)
    assert run.returncode == 0, run.output
    recap = dict(re.findall(r"(\w+)=(\d+)", run.output.partition("PLAY RECAP")[2]))
    assert (int(recap["ok"]) + int(recap["skipped"]), recap["ignored"]) == (len(tasks), "0"), run.output
    assert "[WARNING]" not in run.output, run.output
