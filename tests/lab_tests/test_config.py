# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

"""Config: what is written, read back, pending, refused."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from tests.lab import Lab

from .api import Api

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHVwb24gdGhlIGh5cG90aGVzaXMgdGhhdCB3 ops@example.org"


@pytest.fixture
def stopped(api: Api) -> int:
    return api.clone(100, name="web-01")


@pytest.fixture
def running(api: Api, stopped: int) -> int:
    api.start(stopped)
    return stopped


def test_values_read_back_typed(api: Api, stopped: int) -> None:
    api.put(api.vm(100, "/config"), cores="3", memory=4096, onboot="yes", tags="b;a", balloon=1024, cpulimit="1.5")
    config = api.config(100)
    values = {key: config[key] for key in ("cores", "memory", "onboot", "tags", "balloon", "cpulimit")}
    assert values == {"cores": 3, "memory": "4096", "onboot": 1, "tags": "b;a", "balloon": 1024, "cpulimit": 1.5}


def test_secrets_and_keys(api: Api, stopped: int) -> None:
    before = api.config(100)["digest"]
    api.put(api.vm(100, "/config"), cipassword="hunter2", sshkeys=quote(KEY, safe=""))
    first = api.config(100)
    assert (first["cipassword"], first["sshkeys"]) == ("**********", quote(KEY, safe=""))
    api.put(api.vm(100, "/config"), cipassword="hunter2")
    assert len({before, first["digest"], api.config(100)["digest"]}) == 3, "a hash is salted: never the same"
    assert api.refused("PUT", api.vm(100, "/config"), sshkeys=quote("no key", safe="")).message == (
        "SSH public key validation error"
    )
    assert "sshkeys" in api.refused("PUT", api.vm(100, "/config"), sshkeys="ssh-rsa not encoded").errors


def test_a_disk_is_allocated_and_its_size_normalised(api: Api, stopped: int) -> None:
    api.put(api.vm(100, "/config"), scsi1="local-lvm:4,ssd=1,iothread=1", scsi2="shared:0.1,format=raw")
    config = api.config(100)
    assert config["scsi1"] == "local-lvm:vm-100-disk-1,iothread=1,size=4G,ssd=1"
    assert config["scsi2"] == "shared:100/vm-100-disk-0.raw,size=104858K"
    assert "vm-100-disk-1" in api.volumes()


def test_a_second_cloudinit_drive_of_the_same_name_is_refused(api: Api, stopped: int) -> None:
    assert "already exists" in api.refused("PUT", api.vm(100, "/config"), ide0="local-lvm:cloudinit").message
    api.put(api.vm(100, "/config"), delete="ide2")
    assert "vm-100-cloudinit" not in api.volumes()
    api.put(api.vm(100, "/config"), ide0="local-lvm:cloudinit")
    assert api.config(100)["ide0"] == "local-lvm:vm-100-cloudinit,media=cdrom"


def test_a_detached_disk_is_unused_until_it_is_attached_or_deleted(api: Api, stopped: int) -> None:
    api.put(api.vm(100, "/config"), scsi1="local-lvm:4")
    api.put(api.vm(100, "/config"), delete="scsi1")
    assert api.config(100)["unused0"] == "local-lvm:vm-100-disk-1"
    api.put(api.vm(100, "/config"), scsi3="local-lvm:vm-100-disk-1,ssd=1")
    config = api.config(100)
    assert (config["scsi3"], "unused0" in config) == ("local-lvm:vm-100-disk-1,size=4G,ssd=1", False)
    api.put(api.vm(100, "/config"), delete="scsi3")
    api.put(api.vm(100, "/config"), delete="unused0")
    assert "vm-100-disk-1" not in api.volumes()
    api.put(api.vm(100, "/config"), scsi1="local-lvm:1")
    api.put(api.vm(100, "/config"), delete="scsi1", force=1)
    assert "unused0" not in api.config(100)


def test_a_nic_without_a_mac_gets_a_new_one(api: Api, stopped: int) -> None:
    old = api.config(100)["net0"]
    api.put(api.vm(100, "/config"), net0="virtio,bridge=vmbr1", net1="e1000=BC:24:11:00:00:07,tag=20,bridge=vmbr0")
    config = api.config(100)
    assert config["net0"].startswith("virtio=BC:24:11:")
    assert config["net0"].partition(",")[0] != old.partition(",")[0]
    assert config["net1"] == "e1000=BC:24:11:00:00:07,bridge=vmbr0,tag=20"


def test_an_empty_description_is_removed(api: Api, stopped: int) -> None:
    api.put(api.vm(100, "/config"), description="hello")
    api.put(api.vm(100, "/config"), description="")
    assert "description" not in api.config(100)


@pytest.mark.parametrize(
    ("params", "status", "message", "errors"),
    [
        ({}, 500, "no options specified", {}),
        ({"digest": "0" * 40}, 500, "no options specified", {}),
        ({"cores": 1, "digest": "0" * 40}, 500, "checksum mismatch (file change by other user?)", {}),
        ({"delete": "nonsense"}, 400, None, {"delete": "unknown option 'nonsense'"}),
        ({"revert": "nonsense"}, 400, None, {"revert": "unknown option 'nonsense'"}),
        (
            {"cores": 1, "delete": "cores"},
            400,
            None,
            {"delete": "you can't use '-cores' and -delete cores' at the same time"},
        ),
        ({"boot": "order=scsi0;scsi9"}, 400, None, {"boot": "invalid bootorder: device 'scsi9' does not exist'"}),
        ({"balloon": 4096}, 500, "balloon value too large (must be smaller than assigned memory)", {}),
        ({"scsi1": "nope:4"}, 500, "storage 'nope' does not exist", {}),
        ({"scsi1": "local:4"}, 400, None, {"storage": "storage 'local' does not support vm images"}),
        ({"scsi1": "local-lvm:vm-100-disk-7"}, 500, "volume local-lvm:vm-100-disk-7 does not exist", {}),
        ({"args": "-s"}, 500, "only root can set 'args' config", {}),
        ({"cores": 1, "skiplock": 1}, 400, None, {"skiplock": "Only root may use this option."}),
    ],
)
def test_what_is_refused_changes_nothing(
    api: Api, stopped: int, params: dict[str, Any], status: int, message: str | None, errors: dict[str, str]
) -> None:
    before = api.config(100), api.volumes()
    expected = (status, message or "Parameter verification failed.", errors)
    assert api.refused("PUT", api.vm(100, "/config"), **params) == expected
    assert (api.config(100), api.volumes()) == before


def test_unknown_options_are_refused(api: Api, stopped: int) -> None:
    for params in ({"coers": 2}, {"net99": "virtio"}, {"scsi31": "local-lvm:1"}):
        assert api.refused("PUT", api.vm(100, "/config"), **params)[0::2] == (
            400,
            {
                next(
                    iter(params)
                ): "property is not defined in schema and the schema does not allow additional properties"
            },
        )


def test_a_digest_that_is_right_lets_the_write_through(api: Api, stopped: int) -> None:
    api.put(api.vm(100, "/config"), cores=2, digest=api.config(100)["digest"])


def test_the_asynchronous_form_is_a_task(api: Api, stopped: int) -> None:
    assert api.run("POST", api.vm(100, "/config"), cores=5) == "OK"
    assert api.config(100)["cores"] == 5
    assert api.run("POST", api.vm(100, "/config"), boot="order=scsi9") == "Parameter verification failed."


def test_a_lock_in_the_config_refuses_writes(api: Api, lab: Lab, stopped: int) -> None:
    lab.do(lab.pve.snapshot_lock, 100, "backup")
    assert api.refused("PUT", api.vm(100, "/config"), cores=1).message == "VM is locked (backup)"
    assert api.run("POST", api.vm(100, "/status/start")) == "VM is locked (backup)"
    assert api.run("DELETE", api.vm(100)) == "VM is locked (backup)"
    lab.do(lab.pve.unlock, 100)
    api.put(api.vm(100, "/config"), cores=1)


# --------------------------------------------------------------------- running


def test_a_running_vm_takes_some_changes_at_once(api: Api, running: int) -> None:
    api.put(
        api.vm(100, "/config"),
        name="web-02",
        tags="blue",
        description="d",
        onboot=1,
        net0="virtio,bridge=vmbr1",
        net1="virtio,bridge=vmbr0",
        scsi1="local-lvm:1",
        ciuser="ops",
        cpulimit=1,
    )
    assert api.pending(100) == {}
    assert api.config(100, current=1)["scsi1"].startswith("local-lvm:vm-100-disk-1,")
    api.put(api.vm(100, "/config"), delete="scsi1,net1")
    assert api.config(100, current=1)["unused0"] == "local-lvm:vm-100-disk-1"
    assert api.pending(100) == {}


@pytest.mark.parametrize("how", ["reboot", "stop", "shutdown"])
def test_the_rest_is_pending_until_the_vm_has_been_off(api: Api, running: int, how: str) -> None:
    api.put(api.vm(100, "/config"), cores=8, memory=8192, cpu="host", agent="0", ide0="local-lvm:1")
    assert set(api.pending(100)) == {"cores", "memory", "cpu", "agent", "ide0"}
    assert (api.config(100)["cores"], api.config(100, current=1)["cores"]) == (8, 2)
    assert api.run("POST", api.vm(100, f"/status/{how}")) == "OK"
    assert api.pending(100) == {}
    assert api.config(100, current=1)["cores"] == 8


def test_a_reset_does_not_apply_pending_changes(api: Api, running: int) -> None:
    api.put(api.vm(100, "/config"), cores=8)
    assert api.run("POST", api.vm(100, "/status/reset")) == "OK"
    assert api.pending(100) == {"cores": 8}


def test_a_change_taken_back_is_no_longer_pending(api: Api, running: int) -> None:
    api.put(api.vm(100, "/config"), cores=8)
    api.put(api.vm(100, "/config"), cores=2)
    assert api.pending(100) == {}
    api.put(api.vm(100, "/config"), cores=8, ide0="local-lvm:1")
    api.put(api.vm(100, "/config"), revert="cores,ide0")
    assert api.pending(100) == {}
    assert api.config(100)["unused0"] == "local-lvm:vm-100-disk-1"


def test_the_boot_disk_stays_and_its_removal_stays_pending(api: Api, running: int) -> None:
    refusal = api.refused("PUT", api.vm(100, "/config"), delete="scsi0")
    assert refusal.status == 400
    assert refusal.errors["scsi0"].startswith("hotplug problem - can't unplug bootdisk")
    assert api.pending(100)["scsi0"] is None
    assert "scsi0" in api.config(100, current=1)
    api.put(api.vm(100, "/config"), revert="scsi0,boot")
    assert api.pending(100) == {}


def test_options_of_a_disk_in_use(api: Api, running: int) -> None:
    disk = "local-lvm:vm-100-disk-0,discard=on"
    api.put(api.vm(100, "/config"), scsi0=disk + ",backup=0")
    assert api.pending(100) == {}
    api.put(api.vm(100, "/config"), scsi0=disk + ",backup=0,ssd=1")
    assert api.pending(100) == {"scsi0": disk.replace(",", ",backup=0,") + ",size=3G,ssd=1"}


def test_without_hotplug_everything_waits(api: Api, stopped: int) -> None:
    api.put(api.vm(100, "/config"), hotplug="0")
    api.start(100)
    api.put(api.vm(100, "/config"), net1="virtio,bridge=vmbr0", scsi1="local-lvm:1", tags="x")
    assert set(api.pending(100)) == {"net1", "scsi1"}


def test_a_balloon_moves_but_is_not_plugged(api: Api, running: int) -> None:
    api.put(api.vm(100, "/config"), balloon=1024)
    assert api.pending(100) == {}
    api.put(api.vm(100, "/config"), balloon=0)
    assert api.pending(100) == {"balloon": 0}
