# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

"""Backups as measured: what vzdump does and refuses, what is listed, what a restore makes."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.lab.backup import keep_marks

from .api import Api, until

VZDUMP = "/nodes/pve1/vzdump"
CONTENT = "/nodes/pve1/storage/local/content"
LINE = re.compile(r"INFO: +(\d+)% \(\d+\.\d \w+ of 3\.0 GiB\) in \d+s, read: .+, write: .+")


def backups(api: Api, node: str = "pve1", storage: str = "local") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = api.get(f"/nodes/{node}/storage/{storage}/content", content="backup")
    return found


def take(api: Api, vmid: int = 100, **params: Any) -> str:
    """A backup's volume id."""
    old = {row["volid"] for row in backups(api)}
    assert api.run("POST", VZDUMP, vmid=str(vmid), storage="local", **params) == "OK"
    (volid,) = {row["volid"] for row in backups(api)} - old
    return str(volid)


def restore(api: Api, volid: str, vmid: int, **params: Any) -> str:
    return api.run("POST", "/nodes/pve1/qemu", vmid=vmid, archive=volid, **params)


def test_what_a_backup_is_listed_with(api: Api) -> None:
    api.clone(100)
    upid = api.post(VZDUMP, vmid="100", storage="local", compress="zstd")
    assert api.wait(upid) == "OK"
    percents = [int(found[1]) for line in api.log(upid) if (found := LINE.fullmatch(line))]
    assert percents == sorted(percents)
    assert percents[-1] == 100
    (row,) = backups(api)
    assert row.keys() == {"content", "ctime", "format", "size", "subtype", "vmid", "volid"}
    assert re.fullmatch(r"local:backup/vzdump-qemu-100-\d{4}(_\d\d){2}-(\d\d_){2}\d\d\.vma\.zst", row["volid"])
    assert (row["content"], row["format"], row["subtype"], row["vmid"]) == ("backup", "vma.zst", "qemu", 100)
    assert abs(row["ctime"] - api.get("/nodes/pve1/time")["time"]) < 10
    assert backups(api, "pve2") == []


@pytest.mark.parametrize(
    ("compress", "ending"), [("0", ".vma"), ("1", ".vma.lzo"), ("lzo", ".vma.lzo"), ("gzip", ".vma.gz")]
)
def test_every_compression(api: Api, compress: str, ending: str) -> None:
    api.clone(100)
    assert take(api, compress=compress).endswith(ending)


def test_notes_and_protection(api: Api) -> None:
    api.clone(100, name="web-01")
    template = r"{{guestname}} on {{node}}\nsecond\\line"
    volid = take(api, **{"notes-template": template, "protected": 1})
    assert (backups(api)[0]["notes"], backups(api)[0]["protected"]) == ("web-01 on pve1", 1)
    assert api.get(f"{CONTENT}/{volid}")["notes"] == "web-01 on pve1\nsecond\\line"
    upid = api.delete(f"{CONTENT}/{volid}")
    assert api.wait(upid).startswith("cannot remove protected volume")
    api.put(f"{CONTENT}/{volid}", protected=0, notes="")
    assert not {"notes", "protected"} & backups(api)[0].keys()
    assert api.run("DELETE", f"{CONTENT}/{volid}") == "OK"
    assert backups(api) == []
    assert api.run("DELETE", f"{CONTENT}/{volid}") == "OK"
    refusal = api.refused("POST", VZDUMP, vmid="100", storage="local", **{"notes-template": "{{who}}"})
    assert refusal.errors == {"notes-template": "unexpected variable 'who' in notes template"}


def test_on_a_node_without_the_guest_nothing_happens(api: Api) -> None:
    api.clone(100)
    assert api.post("/nodes/pve2/vzdump", vmid="100", storage="local") == "OK"
    assert (backups(api), backups(api, "pve2")) == ([], [])


def test_what_cannot_be_backed_up_fails_in_the_task(api: Api) -> None:
    api.clone(100)
    assert api.run("POST", VZDUMP, vmid="999", storage="local") == "job errors"
    assert "can't use storage 'local-lvm' for backups" in api.run("POST", VZDUMP, vmid="100", storage="local-lvm")
    assert api.refused("POST", VZDUMP, storage="local").errors == {"vmid": "property is missing"}


@pytest.mark.lab(time_scale=0.05)
def test_while_it_runs_the_guest_is_locked(api: Api) -> None:
    api.clone(100)
    api.start(100)
    upid = api.post(VZDUMP, vmid="100", storage="local")
    until(lambda: api.config(100).get("lock") == "backup")
    assert api.run("POST", api.vm(100, "/status/stop")) == "VM is locked (backup)"
    assert api.run("POST", VZDUMP, vmid="9000", storage="local", lockwait=0) == "unexpected status"
    waiting = api.post(VZDUMP, vmid="9000", storage="local")
    until(lambda: "INFO: trying to get global lock - waiting..." in api.log(waiting))
    assert (api.wait(upid), api.wait(waiting)) == ("OK", "OK")
    assert "lock" not in api.config(100)
    assert [row["vmid"] for row in backups(api)] == [100, 9000]


def test_a_locked_guest_is_not_backed_up(api: Api) -> None:
    api.clone(100)
    api.lab.do(api.lab.pve.snapshot_lock, 100, "snapshot")
    upid = api.post(VZDUMP, vmid="100", storage="local")
    assert api.wait(upid) == "job errors"
    assert "ERROR: Backup of VM 100 failed - VM is locked (snapshot)" in api.log(upid)
    assert api.config(100)["lock"] == "snapshot"


def test_a_stopped_backup_leaves_nothing(api: Api) -> None:
    api.lab.pve.time_scale = 1
    upid = api.post(VZDUMP, vmid="9000", storage="local")
    until(lambda: api.config(9000).get("lock"))
    api.delete(f"/nodes/pve1/tasks/{upid}")
    assert api.wait(upid) == "interrupted by signal"
    assert "lock" not in api.config(9000)
    assert backups(api) == []


def test_a_restored_guest_is_as_it_was_when_it_was_backed_up(api: Api) -> None:
    api.clone(100, full=1, name="web-01")
    api.put(api.vm(100, "/config"), cores=3, description="then")
    volid = take(api)
    api.put(api.vm(100, "/config"), cores=8, description="now")
    upid = api.post("/nodes/pve1/qemu", vmid=150, archive=volid, unique=1, name="copy")
    assert api.wait(upid) == "OK"
    percents = [
        line for line in api.log(upid) if re.fullmatch(r"progress \d+% \(read \d+ bytes, duration \d+ sec\)", line)
    ]
    assert len(percents) == 100
    now, copy = api.config(100), api.config(150)
    assert (copy["cores"], copy["description"], copy["name"]) == (3, "then", "copy")
    assert copy["scsi0"].startswith("local-lvm:vm-150-disk-0,")
    assert now["net0"] != copy["net0"]
    assert {"vm-150-disk-0", "vm-150-cloudinit"} <= api.volumes()
    assert api.run("POST", "/nodes/pve1/qemu", vmid=151, archive=volid, storage="shared", start=1) == "OK"
    assert api.config(151)["scsi0"].startswith("shared:151/vm-151-disk-0.")
    assert api.get(api.vm(151, "/status/current"))["status"] == "running"


def test_a_restore_over_a_guest_takes_force_and_a_guest_that_does_not_run(api: Api) -> None:
    api.clone(100, full=1)
    volid = take(api)
    refusal = api.refused("POST", "/nodes/pve1/qemu", vmid=100, archive=volid)
    assert refusal.message == "unable to restore VM 100 - VM 100 already exists on node 'pve1'"
    api.start(100)
    assert restore(api, volid, 100, force=1) == "unable to restore VM 100 - vm is running"
    assert "lock" not in api.config(100)
    assert api.run("POST", api.vm(100, "/status/stop")) == "OK"
    api.put(api.vm(100, "/config"), cores=7)
    assert restore(api, volid, 100, force=1) == "OK"
    assert api.config(100)["cores"] == 2
    refusal = api.refused("POST", "/nodes/pve2/qemu", vmid=100, archive=volid, force=1)
    assert refusal.message == f"can't find file '{volid}'"


def test_a_restore_that_fails_leaves_a_config_with_nothing_in_it(api: Api) -> None:
    api.clone(100, full=1)
    volid = take(api)
    assert "does not exist" in restore(api, volid, 150, storage="nowhere")
    assert api.config(150).keys() == {"digest"}
    assert restore(api, volid, 150, force=1) == "OK"
    assert api.config(150)["scsi0"].startswith("local-lvm:vm-150-disk-0,")


def test_shared_storages_keep_backups_for_all_nodes(api: Api) -> None:
    api.put("/storage/shared", content="images,backup")
    api.clone(100)
    assert api.run("POST", VZDUMP, vmid="100", storage="shared") == "OK"
    assert len(backups(api, "pve1", "shared")) == len(backups(api, "pve2", "shared")) == 1


def test_retention(api: Api) -> None:
    api.clone(100)
    kept = api.lab.do(api.lab.pve.add_backup, 100, age=5 * 86400, protected=True)
    old = [api.lab.do(api.lab.pve.add_backup, 100, age=age * 86400) for age in (1, 2, 3)]
    volid = take(api, **{"prune-backups": "keep-last=2"})
    assert {row["volid"] for row in backups(api)} == {volid, old[0], kept}


def test_retention_keeps_the_newest_of_each_period() -> None:
    day = 86400
    ctimes = {f"{number}": 20000 * day + number * day // 2 for number in range(8)}
    assert keep_marks(ctimes, {"keep-last": "1"}) == {"7"}
    assert keep_marks(ctimes, {"keep-daily": "2"}) == {"7", "5"}
    assert keep_marks(ctimes, {"keep-last": "1", "keep-daily": "1"}) == {"7", "5"}
    assert keep_marks(ctimes, {}) == set()
