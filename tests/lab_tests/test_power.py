# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

"""Power, creation, destruction."""

from __future__ import annotations

import pytest

from tests.lab import Lab

from .api import Api


def status(api: Api, vmid: int = 100) -> str:
    return str(api.get(api.vm(vmid, "/status/current"))["status"])


def test_on_and_off(api: Api) -> None:
    api.clone(100)
    api.start(100)
    assert status(api) == "running"
    assert api.run("POST", api.vm(100, "/status/start")) == "VM 100 already running"
    assert api.run("POST", api.vm(100, "/status/shutdown")) == "OK"
    assert status(api) == "stopped"
    assert api.run("POST", api.vm(100, "/status/shutdown")) == "OK", "shutdown of a stopped one"
    assert api.run("POST", api.vm(100, "/status/stop")) == "OK", "stop of a stopped one"
    assert api.refused("POST", api.vm(100, "/status/reboot")).message == "VM 100 not running"


@pytest.mark.parametrize("action", ["start", "stop"])
def test_a_missing_vm_fails_in_its_task(api: Api, action: str) -> None:
    ending = api.run("POST", api.vm(300, f"/status/{action}"))
    assert ending == "Configuration file 'nodes/pve1/qemu-server/300.conf' does not exist"


def test_a_template_does_not_start(api: Api) -> None:
    assert api.run("POST", api.vm(9000, "/status/start")) == "you can't start a vm if it's a template"


def test_a_missing_bridge_is_found_at_start_only(api: Api) -> None:
    api.clone(100)
    api.put(api.vm(100, "/config"), net1="virtio,bridge=vmbr9")
    upid = api.post(api.vm(100, "/status/start"))
    assert api.wait(upid) == "start failed: QEMU exited with code 1"
    assert "bridge 'vmbr9' does not exist" in api.log(upid)
    assert status(api) == "stopped"


def test_a_guest_without_a_system_ignores_shutdown(api: Api) -> None:
    assert api.run("POST", "/nodes/pve1/qemu", vmid=100, name="empty", scsi0="local-lvm:1") == "OK"
    api.start(100)
    assert api.run("POST", api.vm(100, "/status/shutdown"), timeout=2) == "VM quit/powerdown failed - got timeout"
    assert status(api) == "running"
    assert api.run("POST", api.vm(100, "/status/shutdown"), timeout=2, forceStop=1) == "OK"
    assert status(api) == "stopped"


def test_stop_can_overrule_a_shutdown(api: Api) -> None:
    assert api.run("POST", "/nodes/pve1/qemu", vmid=100, scsi0="local-lvm:1") == "OK"
    api.start(100)
    waiting = api.post(api.vm(100, "/status/shutdown"), timeout=1000)
    assert api.task(waiting)["status"] == "running"
    assert "can't lock file" in api.run("POST", api.vm(100, "/status/stop"))
    assert api.run("POST", api.vm(100, "/status/stop"), **{"overrule-shutdown": 1}) == "OK"
    assert api.wait(waiting) == "interrupted by signal"
    assert status(api) == "stopped"


def test_create_empty(api: Api) -> None:
    upid = api.post(
        "/nodes/pve2/qemu",
        vmid=100,
        name="empty",
        memory=1024,
        scsi0="local-lvm:2",
        ide2="local-lvm:cloudinit",
        net0="virtio,bridge=vmbr0",
        tags="b;a",
    )
    assert api.wait(upid) == "OK"
    config = api.get(api.vm(100, "/config", node="pve2"))
    assert config["scsi0"] == "local-lvm:vm-100-disk-0,size=2G"
    assert config["ide2"] == "local-lvm:vm-100-cloudinit,media=cdrom"
    assert config["boot"] == "order=scsi0;ide2;net0"
    assert (config["memory"], config["tags"]) == ("1024", "b;a")
    assert {"vm-100-disk-0", "vm-100-cloudinit"} == api.volumes(node="pve2")
    taken = api.refused("POST", "/nodes/pve1/qemu", vmid=100)
    assert taken.message == "unable to create VM 100 - VM 100 already exists on node 'pve2'"


def test_a_failed_creation_leaves_nothing(api: Api) -> None:
    before = api.volumes()
    ending = api.run("POST", "/nodes/pve1/qemu", vmid=100, scsi0="local-lvm:1", scsi1="local-lvm:vm-7-disk-9")
    assert ending.startswith("unable to create VM 100 - ")
    assert api.volumes() == before
    assert api.row(100) is None


def test_destroy(api: Api) -> None:
    api.clone(100)
    api.put(api.vm(100, "/config"), scsi1="local-lvm:1")
    api.put(api.vm(100, "/config"), delete="scsi1")
    api.start(100)
    assert api.refused("DELETE", api.vm(100)).message == "VM 100 is running - destroy failed"
    assert api.run("POST", api.vm(100, "/status/stop")) == "OK"
    api.put(api.vm(100, "/config"), protection=1)
    assert api.refused("DELETE", api.vm(100)).message == "can't remove VM 100 - protection mode enabled"
    api.put(api.vm(100, "/config"), protection=0)
    assert api.run("DELETE", api.vm(100), purge=1) == "OK"
    assert not [name for name in api.volumes() if "-100-" in name]
    assert "does not exist" in api.refused("DELETE", api.vm(100)).message


def test_unreferenced_disks_go_only_when_asked(api: Api, lab: Lab) -> None:
    for vmid, params, left in ((100, {}, True), (101, {"destroy-unreferenced-disks": 1}, False)):
        api.clone(vmid)
        lab.do(lab.pve.allocate, lab.vm(vmid), "local-lvm", 1024**3)
        assert api.run("DELETE", api.vm(vmid), **params) == "OK"
        assert (f"vm-{vmid}-disk-1" in api.volumes()) is left


def test_converting_to_a_template(api: Api) -> None:
    api.clone(100)
    assert api.run("POST", api.vm(100, "/template")) == "OK"
    config = api.config(100)
    assert (config["template"], config["scsi0"].partition(",")[0]) == (1, "local-lvm:base-100-disk-0")
    api.clone(101, source=100, full=0)
