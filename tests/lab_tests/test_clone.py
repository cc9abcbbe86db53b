# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

"""Clones: what is copied, what is new, what is locked."""

from __future__ import annotations

import re

import pytest

from tests.lab import Lab

from .api import Api, until

LINE = re.compile(r"transferred (\d+\.\d) (\S+) of 3\.0 GiB \((\d+\.\d\d)%\)")


def test_a_full_clone_copies_every_drive_and_tells_its_progress(api: Api) -> None:
    upid = api.post(api.vm(9000, "/clone"), newid=100, name="web-01", full=1, description="mine")
    assert api.wait(upid) == "OK"
    percents = [float(found[3]) for line in api.log(upid) if (found := LINE.fullmatch(line))]
    assert percents == sorted(percents)
    assert (percents[0], percents[-1]) == (0.0, 100.0)
    config, template = api.config(100), api.config(9000)
    assert config["scsi0"] == "local-lvm:vm-100-disk-0,discard=on,size=3G"
    assert config["ide2"] == "local-lvm:vm-100-cloudinit,media=cdrom,size=4M"
    assert (config["name"], config["description"]) == ("web-01", "mine")
    assert {"vm-100-disk-0", "vm-100-cloudinit"} <= api.volumes()
    for key in ("net0", "smbios1", "vmgenid"):
        assert config[key] != template[key]
    assert "template" not in config
    assert "lock" not in config


@pytest.mark.lab(time_scale=0.05)
def test_while_it_runs_the_target_has_a_temporary_config(api: Api) -> None:
    upid = api.post(api.vm(9000, "/clone"), newid=100, name="web-01", full=1)
    config = api.config(100)
    assert (config["lock"], config["description"]) == ("clone", "qmclone temporary file\n")
    assert "name" not in config
    assert api.get("/cluster/nextid") == "101"
    assert api.refused("GET", "/cluster/nextid", vmid=100).errors == {"vmid": "VM 100 already exists"}
    refusal = api.refused("POST", api.vm(9000, "/clone"), newid=100)
    assert refusal.message == "unable to create VM 100: config file already exists"
    assert api.wait(upid) == "OK"


def test_writes_to_the_target_wait_for_the_clone(api: Api) -> None:
    upid = api.post(api.vm(9000, "/clone"), newid=100, name="web-01", full=1)
    api.put(api.vm(100, "/config"), cores=7)
    assert api.task(upid)["exitstatus"] == "OK"
    assert (api.config(100)["cores"], api.config(100)["name"]) == (7, "web-01")


def test_the_name_of_the_template_is_passed_on(api: Api) -> None:
    api.clone(100)
    assert api.config(100)["name"] == "Copy-of-VM-debian-12-cloud"


def test_clones_of_a_template_run_side_by_side(api: Api) -> None:
    upids = [api.post(api.vm(9000, "/clone"), newid=vmid, full=1) for vmid in range(100, 106)]
    assert [api.wait(upid) for upid in upids] == ["OK"] * 6


@pytest.mark.lab(time_scale=0.05)
def test_a_running_source_is_cloned_once_at_a_time(api: Api) -> None:
    api.clone(100)
    api.start(100)
    upids = [api.post(api.vm(100, "/clone"), newid=vmid, full=1) for vmid in (101, 102)]
    endings = [api.wait(upid) for upid in upids]
    assert endings == ["OK", "can't lock file '/var/lock/qemu-server/lock-100.conf' - got timeout"]
    assert "does not exist" in api.refused("GET", api.vm(102, "/config")).message


def test_a_linked_clone_keeps_the_template(api: Api) -> None:
    api.clone(100, full=0)
    refusal = "base volume 'local-lvm:base-9000-disk-0' is still in use by linked cloned"
    assert api.run("DELETE", api.vm(9000)) == refusal
    assert api.run("DELETE", api.vm(100)) == "OK"
    assert api.run("DELETE", api.vm(9000)) == "OK"


def test_on_a_file_storage_a_linked_clone_is_qcow2_and_names_its_base(api: Api, lab: Lab) -> None:
    lab.add_template(9001, "debian-12-shared", "pve1", "shared")
    api.clone(100, source=9001, full=0, target="pve2")
    disk = api.get(api.vm(100, "/config", node="pve2"))["scsi0"].partition(",")[0]
    assert disk == "shared:9001/base-9001-disk-0.raw/100/vm-100-disk-0.qcow2"


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"full": 0, "storage": "shared"}, "parameter 'storage' not allowed for linked clones"),
        ({"full": 0, "format": "raw"}, "parameter 'format' not allowed for linked clones"),
        ({"target": "pve2"}, "can't clone VM to node 'pve2' (VM uses local storage)"),
        ({"target": "pve9"}, "no such cluster node 'pve9'"),
        ({"full": 1, "storage": "nope"}, "storage 'nope' does not exist"),
    ],
)
def test_what_cannot_be_cloned_is_refused_at_once(api: Api, params: dict[str, object], message: str) -> None:
    assert api.refused("POST", api.vm(9000, "/clone"), newid=100, **params).message == message
    assert api.row(100) is None


def test_the_target_storage_takes_all_drives(api: Api) -> None:
    api.clone(100, full=1, storage="shared", format="qcow2")
    config = api.config(100)
    assert config["scsi0"].startswith("shared:100/vm-100-disk-0.qcow2,")
    assert config["ide2"].startswith("shared:100/vm-100-cloudinit.qcow2,")


def test_a_pool_gets_its_member(api: Api) -> None:
    api.post("/pools", poolid="team")
    api.clone(100, pool="team")
    assert api.row(100)["pool"] == "team"
    assert [member["vmid"] for member in api.get("/pools", poolid="team")[0]["members"]] == [100]


def test_space_is_taken_and_given_back_on_the_node_of_the_clone(api: Api) -> None:
    def avail(node: str) -> int:
        return int(api.get(f"/nodes/{node}/storage/local-lvm/status")["avail"])

    before = {node: avail(node) for node in ("pve1", "pve2")}
    api.clone(100)
    assert before["pve1"] - avail("pve1") == 3 * 1024**3 + 4 * 1024**2
    assert avail("pve2") == before["pve2"]
    assert api.volumes(node="pve2") == set()
    assert api.run("DELETE", api.vm(100)) == "OK"
    assert avail("pve1") == before["pve1"]


def test_time_depends_on_the_size(lab: Lab, api: Api) -> None:
    """The 3 GiB template takes some six seconds of PVE's; at one hundredth, more than fifty milliseconds."""
    upid = api.post(api.vm(9000, "/clone"), newid=100, full=1)
    seen = set()
    until(lambda: seen.add(len(api.log(upid))) or "exitstatus" in api.task(upid))
    assert len(seen) > 4
