# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plugin fleet in real runs of ansible-inventory and ansible."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.pvefleet.infra.plugins.module_utils._pve import inventory_read
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.errors import Unable
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.inventory import (
    Wish,
    group_names,
    host_names,
    variables,
)

from tests.docs.test_examples import page
from tests.inventory.conftest import Inventory
from tests.lab import Lab

EVIL = "{{ lookup('pipe', 'touch pwned') }}"


def reads(lab: Lab, mark: int = 0) -> list[str]:
    return [path for method, path in lab.requests[mark:] if path != "/access/ticket"]


@pytest.mark.lab(guests=6)
def test_one_listing_is_all(inventory: Inventory, lab: Lab) -> None:
    hosts = inventory.list()
    assert reads(lab) == ["/cluster/resources"]
    assert sorted(hosts) == ["app-002", "build-005", "cache-004", "db-003", "pve1", "pve2", "web-001", "web-006"]
    assert hosts["web-001"] == {
        "pve_cluster": "prod",
        "pve_type": "qemu",
        "pve_node": "pve1",
        "pve_vmid": 200,
        "pve_name": "web-001",
        "pve_status": "running",
        "pve_template": False,
        "pve_tags": ["role-web", "site-a"],
        "pve_role": "web",
        "pve_pool": None,
        "pve_lock": None,
        "pve_maxcpu": 1,
        "pve_maxmem": 1024**3,
        "pve_maxdisk": 8 * 1024**3,
    }
    assert hosts["pve1"] == {
        "pve_cluster": "prod",
        "pve_type": "node",
        "pve_node": "pve1",
        "pve_name": "pve1",
        "pve_status": "online",
    }
    assert inventory.warnings == ""


@pytest.mark.lab(guests=6)
def test_groups_of_all_kinds(inventory: Inventory, lab: Lab) -> None:
    groups = inventory.groups(
        keyed_groups=[{"key": "pve_tags | select('match', 'site-')", "separator": ""}],
        groups={"small": "pve_maxcpu is defined and pve_maxcpu == 1"},
        compose={"who": "pve_name ~ '@' ~ pve_cluster"},
    )
    assert groups["pve_nodes"] == {"pve1", "pve2"}
    assert groups["pve_node_pve1"] == {"web-001", "db-003", "build-005"}
    assert groups["pve_role_web"] == groups["pve_tag_role_web"] == {"web-001", "web-006"}
    assert groups["pve_status_stopped"] == {"db-003", "web-006"}
    assert groups["site_a"] == {"web-001", "db-003", "build-005"}
    assert groups["small"] == {"web-001", "build-005"}
    assert inventory.list(compose={"who": "pve_name ~ '@' ~ pve_cluster"})["web-001"]["who"] == "web-001@prod"


@pytest.mark.lab(guests=6)
def test_addresses_cost_a_read_each(inventory: Inventory, lab: Lab) -> None:
    hosts = inventory.list(addresses="cloud_init", only={"nodes": ["pve1"]}, include=["guests"])
    configs = [f"/nodes/pve1/qemu/{vmid}/config" for vmid in (200, 202, 204)]
    assert sorted(reads(lab)) == ["/cluster/resources", *configs]
    assert {name: host["ansible_host"] for name, host in hosts.items()} == {
        "web-001": "10.0.0.10",
        "db-003": "10.0.0.12",
        "build-005": "10.0.0.14",
    }
    mark = len(lab.requests)
    hosts = inventory.list(addresses="agent", include=["guests"], networks=["10.64.0.0/16"])
    agents = [path for path in reads(lab, mark) if path.endswith("/agent/network-get-interfaces")]
    assert len(agents) == len(reads(lab, mark)) - 1 == 4  # only of those that run
    assert "ansible_host" not in hosts["web-001"]  # its own address is in no network of these
    assert hosts["web-001"]["pve_ip_addresses"] == ["10.0.0.10"]
    assert hosts["app-002"]["ansible_host"] == "10.64.0.203"
    assert "ansible_host" not in hosts["db-003"]
    mark = len(lab.requests)
    hosts = inventory.list(addresses="both", config=True)
    assert len(reads(lab, mark)) == 1 + 1 + 6 + 4
    assert hosts["db-003"]["ansible_host"] == "10.0.0.12"
    assert hosts["db-003"]["pve_config"]["agent"] == "enabled=1"
    assert hosts["pve1"]["ansible_host"]


@pytest.mark.lab(guests=3)
def test_filters_come_before_reads_and_conditions_after(inventory: Inventory, lab: Lab) -> None:
    hosts = inventory.list(
        include=["guests"], config=True, exclude={"tags": ["role-db"]}, filters=["pve_config.memory | int > 1024"]
    )
    assert list(hosts) == ["app-002"]
    assert sorted(reads(lab)) == [
        "/cluster/resources",
        "/nodes/pve1/qemu/200/config",
        "/nodes/pve2/qemu/201/config",
    ]
    hosts = inventory.list(filters=["pve_vmid >= 201"])  # nodes have none
    assert sorted(hosts) == ["app-002", "db-003"]
    assert "2 hosts are left out, pve1 for one: Unable to evaluate the filter pve_vmid >= 201" in inventory.warnings
    assert "Unable to evaluate the filter" in inventory.refused(filters=["pve_vmid >= 201"], strict=True)
    hosts = inventory.list(filters=["pve_type != 'node' and pve_vmid >= 201"])
    assert sorted(hosts) == ["app-002", "db-003"]
    assert "left out" not in inventory.warnings


def test_a_guest_too_new_for_the_listing_has_its_name(inventory: Inventory, lab: Lab) -> None:
    lab.do(lab.pve.add_vm, 150, "newborn", node="pve2")
    lab.vm(150).config["name"] = "newborn"
    lab.vm(150).waiting.clear()
    lab.pve.time_scale = 1000.0  # it takes its time to be seen
    hosts = inventory.list(include=["guests"])
    assert {name: host["pve_status"] for name, host in hosts.items()} == {"newborn": "stopped"}
    assert reads(lab) == ["/cluster/resources", "/nodes/pve2/qemu"]
    hosts = inventory.list(include=["guests"], only={"names": ["old-*"]})
    assert hosts == {}


def test_containers(inventory: Inventory, lab: Lab) -> None:
    lab.do(
        lab.pve.add_ct,
        300,
        "box",
        node="pve1",
        status="running",
        config={"hostname": "box", "tags": "role-db", "net0": "name=eth0,bridge=vmbr0,ip=10.1.0.9/24,ip6=auto"},
    )
    for source in ("cloud_init", "agent", "both"):
        host = inventory.list(addresses=source, include=["guests"])["box"]
        assert (host["pve_type"], host["pve_role"], host["ansible_host"]) == ("lxc", "db", "10.1.0.9"), source
    assert "box" not in inventory.list(only={"types": ["qemu"]})


def test_templates_are_no_hosts_unless_asked_for(inventory: Inventory, lab: Lab) -> None:
    assert "debian-12-cloud" not in inventory.list()
    assert inventory.list(templates=True)["debian-12-cloud"]["pve_template"] is True


@pytest.mark.lab(guests=2)
def test_an_offline_node(inventory: Inventory, lab: Lab) -> None:
    lab.do(lab.pve.set_node_offline, "pve2")
    hosts = inventory.list(addresses="both", config=True)
    assert hosts["pve2"]["pve_status"] == "offline"
    assert hosts["prod-201"]["pve_status"] == "unknown"
    assert hosts["web-001"]["ansible_host"] == "10.0.0.10"
    assert not any("pve2" in path for path in reads(lab))
    assert "Node pve2 of cluster prod is offline: of its 1 guests little is known" in inventory.warnings
    assert "Guests whose name is not known or can be no host's: prod-201" in inventory.warnings


@pytest.mark.lab(guests=2)
def test_two_clusters(inventory: Inventory, lab: Lab, another_lab: Callable[..., Lab]) -> None:
    second = another_lab(guests=1)
    credentials = {"user": second.username, "password": second.password, "ca_path": second.ca_file}
    inventory.add_cluster("lab", endpoints=[second.api_endpoint], **credentials)
    hosts = inventory.list(clusters=["*"])
    assert sorted(hosts) == [
        "app-002", "lab-pve1", "lab-pve2", "lab-web-001-200", "prod-pve1", "prod-pve2", "prod-web-001-200"
    ]  # fmt: skip
    assert "Names that are not unique" in inventory.warnings
    assert "web-001 (lab-web-001-200, prod-web-001-200)" in inventory.warnings
    groups = inventory.groups(clusters=["prod", "lab"], include=["guests"])
    assert groups["pve_cluster_lab"] == {"lab-web-001-200"}
    assert groups["pve_cluster_prod"] == {"app-002", "prod-web-001-200"}
    assert reads(second) == ["/cluster/resources"] * 2


@pytest.mark.lab(guests=1)
def test_a_cluster_that_does_not_answer(inventory: Inventory, lab: Lab) -> None:
    inventory.add_cluster("gone", endpoints=["https://127.0.0.1:1"])
    assert "web-001" in inventory.list(clusters=["prod", "gone"], on_unreachable="warn")
    assert "The cluster gone is left out: https://127.0.0.1:1" in inventory.warnings
    gone = lab.connection(name="gone", endpoints=("https://127.0.0.1:1",), retry_seconds=0)
    with pytest.raises(Unable, match=r"^Unable to list cluster gone: https://127\.0\.0\.1:1"):
        inventory_read.read([lab.connection(), gone], Wish(), workers=4)


@pytest.mark.lab(guests=4)
def test_the_cache_saves_every_call(inventory: Inventory, lab: Lab) -> None:
    options: dict[str, Any] = {
        "addresses": "both",
        "config": True,
        "cache": True,
        "cache_plugin": "ansible.builtin.jsonfile",
        "cache_connection": str(inventory.folder / "cache"),
    }
    lab.vm(200).config["description"] = EVIL
    lab.vm(200).config["cipassword"] = "$5$something"
    first = inventory.list(**options)
    mark = len(lab.requests)
    assert inventory.list(**options) == first
    assert lab.requests[mark:] == []
    assert not (inventory.folder / "pwned").exists()
    kept = "".join(path.read_text() for path in (inventory.folder / "cache").iterdir())
    assert lab.password not in kept
    assert "cipassword" not in kept
    inventory.run("ansible-inventory", "--list", "--flush-cache")
    assert len(lab.requests) > mark
    mark = len(lab.requests)
    inventory.list(**{**options, "config": False})  # another question has another answer
    assert "/cluster/resources" in reads(lab, mark)
    mark = len(lab.requests)
    # what is taken out of the cache is not trusted more than what came from PVE
    inventory.write(**options)
    inventory.run("ansible-inventory", "--list")
    inventory.run("ansible", "web-001", "-c", "local", "-m", "debug", "-a", "msg={{ pve_config.description }}")
    assert not (inventory.folder / "pwned").exists()


def test_nothing_of_a_guest_is_a_template(inventory: Inventory, lab: Lab) -> None:
    def harm() -> None:
        guest = lab.pve.add_vm(666, EVIL, node="pve1")
        guest.config.update({"name": EVIL, "tags": "{{lookup('pipe','touch${IFS}pwned')}}", "description": EVIL})
        lab.pve.settle_resources()

    lab.do(harm)
    hosts = inventory.list(config=True, keyed_groups=[{"key": "pve_tags", "prefix": "x"}], compose={"copy": "pve_name"})
    assert hosts["prod-666"]["pve_name"] == hosts["prod-666"]["copy"] == EVIL
    assert hosts["prod-666"]["pve_config"]["description"] == EVIL
    shown = "{{ [pve_name, pve_tags, pve_config.description, copy, group_names] }}"
    printed = inventory.run("ansible", "prod-666", "-c", "local", "-m", "debug", "-a", f"msg={shown}")
    assert "SUCCESS" in printed
    assert json.dumps(EVIL) in printed
    groups = inventory.groups(config=True, keyed_groups=[{"key": "pve_tags", "prefix": "x"}])
    assert all(name.replace("_", "").isalnum() for name in groups)
    assert any(name.startswith("x___lookup__pipe") for name in groups)
    conditional = inventory.run("ansible", "all", "-c", "local", "-m", "debug", "-a", "var=pve_config.description")
    assert "SUCCESS" in conditional
    assert not (inventory.folder / "pwned").exists()


def test_a_guest_cannot_be_the_controller(inventory: Inventory, lab: Lab) -> None:
    def pretend() -> None:
        lab.pve.add_vm(667, "localhost", node="pve1").config["name"] = "localhost"
        lab.pve.settle_resources()

    lab.do(pretend)
    assert "localhost" not in inventory.list()
    assert inventory.list()["prod-667"]["pve_name"] == "localhost"


@pytest.mark.lab(guests=1)
def test_without_a_registry_and_with_a_looked_up_secret(inventory: Inventory, lab: Lab) -> None:
    (inventory.folder / "secret").write_text(lab.token_secret)
    hosts = inventory.list(
        api_host=lab.api_endpoint,
        api_token_id=lab.token_id,
        api_token_secret="{{ lookup('ansible.builtin.file', 'secret') }}",
        ca_path=lab.ca_file,
    )
    assert hosts["web-001"]["pve_cluster"] == "127.0.0.1"
    assert lab.requests == [("GET", "/cluster/resources")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clusters": ["moon"]}, "it has no cluster moon (it has: prod)"),
        ({"clusters": ["prod"], "cluster": "prod"}, "clusters names them all: there is no place for cluster"),
        ({"only": {"tag": "web"}}, "Unable to use only: tag is unknown"),
        ({"networks": ["10.0.0.5/99"]}, "Unable to use networks: '10.0.0.5/99'"),
        ({"workers": 0}, "Unable to use workers: 0 is not between 1 and 64"),
        ({"addresses": "magic"}, "magic"),
    ],
)
def test_wrong_options(inventory: Inventory, lab: Lab, options: dict[str, Any], message: str) -> None:
    assert message in inventory.refused(**options)
    assert lab.requests == []


def test_wrong_credentials(inventory: Inventory, lab: Lab) -> None:
    inventory.add_cluster("prod", password="guessed-wrong")
    refused = inventory.refused(on_unreachable="warn")
    assert f"Unable to list cluster prod: Proxmox VE does not accept the login of {lab.username}" in refused
    assert "guessed-wrong" not in refused


@pytest.mark.lab(guests=30)
def test_a_node_that_dies_meanwhile_is_told_once(lab: Lab) -> None:
    """Its guests keep what the listing has of them, and nobody asks for each of them in vain."""
    for vmid in range(201, 230, 2):
        lab.do(lab.pve.fail, "GET", f"/nodes/pve2/qemu/{vmid}/config", 595, "no route to host")
    began = time.monotonic()
    reading = inventory_read.read([lab.connection(retry_seconds=0)], Wish(config=True), workers=4)
    assert time.monotonic() - began < 5
    assert (len(reading.hosts), reading.whole) == (32, False)
    assert [("config" in host) for host in reading.hosts if host["node"] == "pve1"] == [False] + 15 * [True]
    assert len(reading.warnings) == 1
    assert reading.warnings[0].startswith("Unable to read 15 guests of node pve2 of cluster")
    assert lab.count_since(0, "GET", "/nodes/pve2/qemu") <= 4


@pytest.mark.lab(guests=2)
def test_a_guest_that_may_not_be_read_is_an_error(lab: Lab) -> None:
    lab.do(lab.pve.fail, "GET", "/nodes/pve1/qemu/200/config", 403, "Permission check failed")
    with pytest.raises(Unable, match=r"^Unable to read guest web-001 of cluster 127\.0\.0\.1: Permission check failed"):
        inventory_read.read([lab.connection()], Wish(config=True), workers=4)


NODE = {"type": "node", "node": "pve1", "status": "online"}
GUEST = {"type": "qemu", "vmid": 100, "node": "pve1", "name": "web-01", "status": "running"}
NO_ROWS = [None, {}, [], "x", 7, [None], ["x"], [{}]]
ODD_ANSWERS: dict[str, list[Any]] = {
    "/cluster/resources": [
        *NO_ROWS,
        *([NODE | {"node": odd}] for odd in (None, 7, {})),
        *([NODE, GUEST | {key: odd}] for key in ("name", "node", "vmid", "tags", "pool") for odd in (None, 7, [], {})),
    ],
    "/cluster/status": [*NO_ROWS, [{"name": [], "ip": "10.0.0.1"}], [{"name": "pve1", "ip": 7}]],
    "/nodes/pve1/qemu": [*NO_ROWS, [{"vmid": [150], "name": "x"}], [{"vmid": 150, "name": {}}]],
    "/qemu/150/config": [*NO_ROWS, {"name": [], "tags": 7, "agent": {}, "ipconfig0": 7}],
    "/lxc/300/config": [*NO_ROWS, {"hostname": 7, "tags": {}, "net0": []}],
    "/lxc/300/interfaces": [*NO_ROWS, [{"inet": {}, "inet6": None}]],
    "/agent/network-get-interfaces": [
        *NO_ROWS,
        *({"result": odd} for odd in NO_ROWS),
        *({"result": [{"ip-addresses": odd}]} for odd in ("x", [None], [{"ip-address": []}])),
    ],
}


@pytest.mark.lab(guests=1)
@pytest.mark.parametrize("path", ODD_ANSWERS)
def test_answers_of_an_odd_shape(lab: Lab, path: str) -> None:
    """Whatever it is, hosts come out that Ansible can have, or a sentence."""

    def populate() -> None:
        lab.pve.add_ct(300, "box", node="pve1", status="running", config={"hostname": "box"})
        lab.pve.add_vm(150, "newborn", node="pve1")

    lab.do(populate)
    wish = Wish(addresses="both", config=True)
    for data in ODD_ANSWERS[path]:
        if path == "/nodes/pve1/qemu":  # which is read for the guests that the listing has no name of
            lab.do(lab.pve.answer_with, "GET", "/cluster/resources", [NODE, GUEST | {"vmid": 150, "name": None}])
        lab.do(lab.pve.answer_with, "GET", path, data)
        complaint, hosts = "Unable to list cluster 127.0.0.1: ", []
        try:
            hosts = inventory_read.read([lab.connection(retry_seconds=0)], wish, workers=2).hosts
        except Unable as refused:
            complaint = str(refused)
        assert complaint.startswith("Unable to list cluster 127.0.0.1: "), data
        assert all(isinstance(host["name"], str | None) for host in hosts), data
        assert all(group_names(host, "") and variables(host, ()) for host in hosts), data
        assert len(host_names(hosts)[0]) == len(hosts)
        assert lab.pve.faults == [], data


@pytest.mark.lab(guests=40, latency=0.05)
def test_reads_are_made_in_parallel(lab: Lab) -> None:
    began = time.monotonic()
    reading = inventory_read.read([lab.connection()], Wish(config=True), workers=20)
    assert len(reading.hosts) == 42
    assert time.monotonic() - began < 1  # one after another takes two seconds at least


@pytest.mark.lab(guests=1000)
def test_a_thousand_guests(inventory: Inventory, lab: Lab) -> None:
    inventory.write(include=["guests"])
    began = time.monotonic()
    hosts = json.loads(inventory.run("ansible-inventory", "--list"))["_meta"]["hostvars"]
    assert (len(hosts), reads(lab)) == (1000, ["/cluster/resources"])
    assert time.monotonic() - began < 10


def test_only_files_of_its_name(inventory: Inventory, lab: Lab, tmp_path: Path) -> None:
    inventory.write()
    (tmp_path / "prod.fleet.yml").rename(tmp_path / "prod.yml")
    inventory.run("ansible-inventory", "-i", "prod.yml", "--list")
    assert lab.requests == []


def test_the_examples_of_the_folder(inventory: Inventory, lab: Lab) -> None:
    for path in sorted((Path(__file__).parents[2] / "inventory").glob("*.yml")):
        (inventory.folder / "prod.fleet.yml").write_text(path.read_text())
        assert "pve_nodes" in inventory.run("ansible-inventory", "--graph"), (path, inventory.warnings)


@pytest.mark.lab(guests=6)
def test_the_guide(lab: Lab, tmp_path: Path) -> None:
    guide = page("docs/guides/inventory.md", lab, tmp_path)
    first, second, third = guide.run()
    assert "@pve_role_web" in first
    assert "ansible_host: 10.0.0.10" in second
    assert '"ansible_host": "10.0.0.10"' in second
    assert third.count("@pve_nodes") == 3
    # one login and listing for each run that was not answered by the cache: graph, list, debug, first and last
    assert lab.count_since(0, "GET", "/cluster/resources") == 5
