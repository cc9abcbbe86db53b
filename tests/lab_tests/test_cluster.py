# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

"""The cluster as a whole: its late listing, nodes, networks, storages, ids, and faults."""

from __future__ import annotations

import time

import pytest

from tests.lab import Lab

from .api import Api, until


@pytest.mark.lab(time_scale=0.03)
def test_a_new_guest_has_a_row_before_it_has_a_name(api: Api) -> None:
    upid = api.post(api.vm(9000, "/clone"), newid=100, name="web-01")
    row = api.row(100)
    assert (row["status"], row["node"], "name" in row) == ("unknown", "pve1", False)
    assert api.wait(upid) == "OK"
    names = {guest["vmid"]: guest["name"] for guest in api.get("/nodes/pve1/qemu")}
    assert names[100] == "web-01"
    until(lambda: api.row(100).get("name") == "web-01")


@pytest.mark.lab(time_scale=0.03)
def test_power_and_facts_are_seen_late_tags_at_once(api: Api, lab: Lab) -> None:
    api.clone(100, name="web-01")
    lab.do(lab.pve.settle_resources)
    started = time.monotonic()
    api.put(api.vm(100, "/config"), name="web-02", tags="blue", memory=4096)
    api.start(100)
    row = api.row(100)
    assert (row["name"], row["maxmem"], row["tags"], row["status"]) == ("web-01", 2 * 1024**3, "blue", "stopped")
    assert api.get(api.vm(100, "/status/current"))["status"] == "running"
    until(lambda: api.row(100)["status"] == "running")
    assert time.monotonic() - started > 5 * 0.03, "five seconds of PVE's"
    until(lambda: api.row(100)["name"] == "web-02")
    assert time.monotonic() - started > 9 * 0.03, "nine seconds of PVE's"
    assert api.row(100)["maxmem"] == 4 * 1024**3


def test_a_deleted_guest_is_gone_at_once(api: Api, lab: Lab) -> None:
    api.clone(100)
    assert api.run("DELETE", api.vm(100)) == "OK"
    assert api.row(100) is None


def test_lateness_can_be_switched_off(api: Api, lab: Lab) -> None:
    lab.pve.late_resources = False
    api.clone(100, name="web-01")
    assert (api.row(100)["name"], api.row(100)["status"]) == ("web-01", "stopped")


@pytest.mark.lab(guests=1000)
def test_many_guests_are_listed_fast(api: Api) -> None:
    api.row(100)
    began = time.monotonic()
    rows = api.get("/cluster/resources", type="vm")
    assert time.monotonic() - began < 1
    assert len(rows) == 1001
    assert {row["node"] for row in rows} == {"pve1", "pve2"}
    assert {row["status"] for row in rows} == {"running", "stopped"}
    assert len({row["name"] for row in rows}) == 1001


def test_without_a_type_every_kind_of_row_is_listed(api: Api) -> None:
    api.post("/pools", poolid="team")
    rows = api.get("/cluster/resources")
    assert {row["type"] for row in rows} == {"qemu", "node", "storage", "pool", "sdn"}
    assert {row["type"] for row in api.get("/cluster/resources", type="storage")} == {"storage"}


def test_nodes_and_status(api: Api) -> None:
    assert [node["node"] for node in api.get("/nodes")] == ["pve1", "pve2"]
    cluster, *nodes = api.get("/cluster/status")
    assert (cluster["quorate"], cluster["nodes"]) == (1, 2)
    assert [node["online"] for node in nodes] == [1, 1]


def test_bridges(api: Api) -> None:
    for kind in ("bridge", "any_bridge", "any_local_bridge"):
        assert [item["iface"] for item in api.get("/nodes/pve2/network", type=kind)] == ["vmbr0", "vmbr1"]
    assert "eno1" in [item["iface"] for item in api.get("/nodes/pve2/network")]
    assert api.get("/nodes/pve2/network/vmbr0")["cidr"] == "192.0.2.12/24"


def test_storages(api: Api) -> None:
    assert {item["storage"]: item["type"] for item in api.get("/nodes/pve1/storage")} == {
        "local": "dir",
        "local-lvm": "lvmthin",
        "shared": "nfs",
    }
    images = [item["storage"] for item in api.get("/nodes/pve1/storage", content="images")]
    assert images == ["local-lvm", "shared"]


def test_the_range_of_free_ids(api: Api) -> None:
    assert api.get("/cluster/nextid") == "100"
    api.put("/cluster/options", **{"next-id": "lower=9000,upper=9002"})
    assert api.get("/cluster/nextid") == "9001"
    api.clone(9001)
    assert api.refused("GET", "/cluster/nextid").message == "unable to get any free VMID in range [9000, 9002]"
    assert api.get("/cluster/nextid", vmid=100) == "100"


def test_unknown_nodes_and_paths(api: Api) -> None:
    message = "hostname lookup 'nope' failed - failed to get address info for: nope: Name or service not known"
    for path in ("/nodes/nope/qemu", "/nodes/nope/network", "/nodes/nope/qemu/100/config"):
        assert api.refused("GET", path) == (500, message, {})
    assert api.refused("GET", "/nodes/pve1/nope")[:2] == (501, "Method 'GET /nodes/pve1/nope' not implemented")


def test_a_dead_node(api: Api, lab: Lab) -> None:
    lab.do(lab.pve.set_node_offline, "pve2")
    answer = api.send("GET", "/nodes/pve2/qemu")
    assert (answer.status_code, answer.text) == (595, "")
    assert api.get("/nodes/pve1/qemu")
    assert [node["status"] for node in api.get("/nodes")] == ["online", "offline"]


def test_without_quorum_reads_work_and_writes_do_not(api: Api, lab: Lab) -> None:
    lab.do(lab.pve.lose_quorum)
    for method, path, params in (
        ("POST", "/nodes/pve1/qemu", {"vmid": 100}),
        ("POST", api.vm(9000, "/clone"), {"newid": 100}),
        ("PUT", api.vm(9000, "/config"), {"tags": "x"}),
        ("POST", api.vm(9000, "/status/start"), {}),
    ):
        assert api.refused(method, path, **params) == (500, "cluster not ready - no quorum?", {})
    pool = api.refused("POST", "/pools", poolid="team")
    assert pool.message == "create pool failed: cfs-lock 'file-user_cfg' error: no quorum!"
    assert api.config(9000)["name"] == "debian-12-cloud"
    assert api.get("/cluster/status")[0]["quorate"] == 0


def test_the_template(api: Api, lab: Lab) -> None:
    row = api.row(lab.template_vmid)
    assert (row["name"], row["node"], row["template"]) == ("debian-12-cloud", "pve1", 1)
    config = api.config(lab.template_vmid)
    assert config["scsi0"] == "local-lvm:base-9000-disk-0,discard=on,size=3G"
    assert config["ide2"] == "local-lvm:vm-9000-cloudinit,media=cdrom"
    assert (config["cores"], config["memory"]) == (2, "2048")
    assert config["scsihw"] == "virtio-scsi-single"
    assert (config["agent"], config["serial0"], config["vga"]) == ("enabled=1", "socket", "serial0")
