# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

"""Storages and metrics: seen late, out of reach, without room; rrddata that moves and fits."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

import pytest

from tests.lab import Lab
from tests.lab.rrd import TIMEFRAMES

from .api import Api, until

NFS = {"storage": "remote", "type": "nfs", "server": "192.0.2.50", "export": "/srv/x"}
GIB = 1024**3


def rows(api: Api, name: str) -> dict[str, str]:
    listed = api.get("/cluster/resources", type="storage")
    return {row["node"]: row["status"] for row in listed if row["storage"] == name}


@pytest.mark.lab(time_scale=0.03)
def test_a_new_storage_is_listed_as_unknown_and_is_active(api: Api) -> None:
    api.post("/storage", **NFS)
    began = time.monotonic()
    assert rows(api, "remote") == {"pve1": "unknown", "pve2": "unknown"}
    assert api.get("/nodes/pve1/storage/remote/status")["active"] == 1
    until(lambda: rows(api, "remote") == {"pve1": "available", "pve2": "available"})
    assert time.monotonic() - began > 5 * 0.03
    shown = api.get("/storage/remote")
    assert (shown["path"], shown["shared"], shown["content"]) == ("/mnt/pve/remote", 1, "images")


def test_a_storage_is_for_its_nodes(api: Api) -> None:
    api.post("/storage", **NFS, nodes="pve2")
    assert list(rows(api, "remote")) == ["pve2"]
    states = [api.get(f"/nodes/{node}/storage/remote/status") for node in ("pve1", "pve2")]
    assert [(state["enabled"], state["active"]) for state in states] == [(0, 0), (1, 1)]
    digest = api.get("/storage/remote")["digest"]
    api.put("/storage/remote", delete="nodes", digest=digest)
    assert sorted(rows(api, "remote")) == ["pve1", "pve2"]
    stale = api.refused("PUT", "/storage/remote", content="backup", digest=digest)
    assert "detected modified configuration - file changed by other user?" in stale.message


def test_a_storage_out_of_reach(api: Api, lab: Lab) -> None:
    """The node that is asked activates a new storage of its own; others find out by themselves."""
    lab.do(lab.pve.set_storage_unreachable, "remote")
    assert api.refused("POST", "/storage", **NFS).message == "create storage failed: storage 'remote' is not online"
    assert "storage 'remote' does not exist" in api.refused("GET", "/storage/remote").message
    api.post("/storage", **NFS, nodes="pve2")
    assert api.get("/nodes/pve2/storage/remote/status")["active"] == 0
    assert api.refused("GET", "/nodes/pve2/storage/remote/content").message == "storage 'remote' is not online"
    lab.do(lab.pve.set_storage_reachable, "remote")
    assert api.get("/nodes/pve2/storage/remote/status")["active"] == 1


FULL: list[tuple[dict[str, Any], str]] = [
    (
        {"type": "nfs", "server": "192.0.2.50", "export": "/srv/x"},
        "unable to create image: qemu-img: /mnt/pve/target/images/100/vm-100-disk-0.raw: No space left on device",
    ),
    ({"type": "zfspool", "pool": "tank"}, "zfs error: cannot create 'tank/vm-100-disk-0': out of space"),
    ({"type": "lvm", "vgname": "vg"}, "not enough free space (0 < 1048576)"),
    (
        {"type": "lvmthin", "vgname": "vg", "thinpool": "data"},
        "lvcreate 'vg/vm-100-disk-0' error:   Cannot create new thin volume, free space in thin pool vg/data reached"
        " threshold.",
    ),
]


@pytest.mark.parametrize(("options", "words"), FULL, ids=[str(options["type"]) for options, _words in FULL])
def test_a_full_storage_refuses_in_its_own_words(api: Api, lab: Lab, options: dict[str, Any], words: str) -> None:
    api.post("/storage", storage="target", **options)
    api.post("/nodes/pve1/qemu", vmid=100)
    until(lambda: lab.pve.vm(100) is not None)
    lab.do(lab.pve.fill_storage, "target", "pve1")
    state = api.get("/nodes/pve1/storage/target/status")
    assert (state["avail"], state["used"]) == (0, state["total"])
    assert api.refused("PUT", "/nodes/pve1/qemu/100/config", scsi0="target:1").message == words
    lab.do(lab.pve.empty_storage, "target")
    api.put("/nodes/pve1/qemu/100/config", scsi0="target:1")
    assert api.get("/nodes/pve1/storage/target/status")["used"] == GIB


def test_what_is_thick_ends_with_the_space(api: Api, lab: Lab) -> None:
    api.post("/storage", storage="tank", type="zfspool", pool="tank")
    upid = api.post("/nodes/pve1/qemu", vmid=100, scsi0="tank:70")
    assert api.wait(upid) == "OK"
    upid = api.post("/nodes/pve1/qemu", vmid=101, scsi0="tank:70")
    assert "out of space" in api.wait(upid)
    assert lab.pve.vm(101) is None
    grow = api.put("/nodes/pve1/qemu/100/resize", disk="scsi0", size="+70G")
    assert "out of space" in api.wait(grow)
    api.put("/storage/tank", sparse=1)
    assert api.wait(api.post("/nodes/pve1/qemu", vmid=101, scsi0="tank:70")) == "OK"


def test_clones_fail_in_their_task_and_leave_nothing(api: Api, lab: Lab) -> None:
    lab.do(lab.pve.fill_storage, "local-lvm")
    before = set(lab.pve.storages["local-lvm"]["volumes"])
    assert "reached threshold" in api.wait(api.post(api.vm(9000, "/clone"), newid=100, full=1))
    assert lab.pve.vm(100) is None
    assert set(lab.pve.storages["local-lvm"]["volumes"]) == before


@pytest.mark.lab(guests=1)
def test_metrics_move_and_fit(api: Api, lab: Lab) -> None:
    for path in ("/nodes/pve1", "/nodes/pve1/qemu/200", "/nodes/pve1/storage/local-lvm"):
        for frame in ("hour", "day", "week", "month", "year"):
            points = api.get(f"{path}/rrddata", timeframe=frame)
            step, count = TIMEFRAMES[frame]
            assert [after["time"] - before["time"] for before, after in pairwise(points)] == [step] * (count - 1)
            assert time.time() - 2 * step < points[-1]["time"] <= time.time()
    hour = api.get("/nodes/pve1/qemu/200/rrddata", timeframe="hour")
    full = [point for point in hour if len(point) > 1]
    assert len({point["cpu"] for point in full}) > 10
    assert all(0 <= point["cpu"] <= 1 and 0 < point["mem"] < point["maxmem"] for point in full)
    assert {point["maxcpu"] for point in full} == {lab.vm(200).config["cores"]}
    assert any(list(point) == ["time"] for point in api.get("/nodes/pve1/qemu/200/rrddata", timeframe="day"))
    assert all(list(point) == ["time"] for point in api.get("/nodes/pve1/qemu/9000/rrddata", timeframe="hour"))
    space = api.get("/nodes/pve1/storage/local-lvm/rrddata", timeframe="year")
    assert space[0]["used"] < space[-1]["used"] <= space[-1]["total"]
