# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""pve_backup and pve_backup_info as users run them, and their parts against the lab and against generated input."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.backup import Result, converge
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.backup_look import list_backups
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.backup_plan import (
    Backup,
    backup_spec,
    duration,
    plan_absent,
    plan_present,
    prune_string,
    selection,
)
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import PveClient
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.errors import Unable
from hypothesis import given
from hypothesis import strategies as st

from tests.ansible_run import Ansible

from .jobs import add_server, servers

# As the collection's description prints it.
PRINTED = """
- pvefleet.infra.pve_backup:
    {cluster: prod, server: web-01, storage: local, mode: snapshot, compress: zstd, notes: nightly, max_age: 1d, state: present}
"""  # noqa: E501
DAY = 86400
Make = Callable[..., Result]
Login = Callable[..., PveClient]
SPACE = ("Datastore.AllocateSpace",)
NOBODY = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def client(lab: Any, quick: None) -> Iterator[PveClient]:
    add_server(lab)
    client = PveClient(lab.connection(retry_seconds=3.0))
    yield client
    client.close()
    assert lab.pve.faults == []  # what was to go wrong did


@pytest.fixture
def make(client: PveClient) -> Make:
    def run(*, check_mode: bool = False, **options: Any) -> Result:
        wish = {"timeout": 20, **({} if "volid" in options or "vmid" in options else {"server": "web-01"}), **options}
        return converge(client, backup_spec(wish), check_mode=check_mode)

    return run


def writes(lab: Any, mark: int = 0) -> list[tuple[str, str]]:
    return [(method, path) for method, path in lab.requests[mark:] if method != "GET" and path != "/access/ticket"]


def backups(lab: Any, storage: str = "local") -> dict[str, dict[str, Any]]:
    volumes = lab.pve.storages[storage]["volumes"].items()
    return {f"{storage}:{name}": volume for name, volume in volumes if volume["content"] == "backup"}


def add(lab: Any, vmid: int = 100, **options: Any) -> str:
    return str(lab.do(lab.pve.add_backup, vmid, **options))


def add_containers(lab: Any, vmid: int) -> str:
    """A container's backup, of an hour ago."""
    record = {"content": "backup", "format": "tar.zst", "size": 1, "vmid": vmid, "node": "pve1", "notes": "nightly"}
    name = f"backup/vzdump-lxc-{vmid}-2026_01_01-00_00_00.tar.zst"
    lab.do(lab.pve.storages["local"]["volumes"].update, {name: {**record, "ctime": int(time.time()) - 3600}})
    return f"local:{name}"


@pytest.fixture
def login(lab: Any, quick: None) -> Iterator[Login]:
    """A user who has certain privileges on certain paths."""
    clients: list[PveClient] = []

    def create(user: str, *rights: tuple[str, ...]) -> PveClient:
        (path, *privileges), *others = rights
        lab.do(lab.pve.add_user, user, "few rights", tuple(privileges), path)
        for path, *privileges in others:
            lab.do(lab.pve.grant, user, path, *privileges)
        secrets = {"password": "few rights", "token_id": None, "token_secret": None}
        clients.append(PveClient(lab.connection(user=user, **secrets)))
        return clients[-1]

    yield create
    for one in clients:
        one.close()


def foretold_and_made(lab: Any, make: Make, **wish: Any) -> Result:
    """Check mode writes nothing and says the same as the run, which writes only when it changes something."""
    mark = len(lab.requests)
    foretold = make(check_mode=True, **wish)
    assert writes(lab, mark) == []
    made = make(**wish)
    assert foretold.plan == made.plan
    assert bool(writes(lab, mark)) is made.plan.changed
    return made


def unchanged(lab: Any, make: Make, **wish: Any) -> Result:
    mark = len(lab.requests)
    again = make(**wish)
    assert (again.plan.changed, writes(lab, mark)) == (False, [])
    return again


# ------------------------------------------------------------- as users run it


def test_example_as_printed(tmp_path: Path, lab: Any) -> None:
    add_server(lab, running=True)
    (example,) = yaml.safe_load(PRINTED)
    info = {"pvefleet.infra.pve_backup_info": {"vmid": 100, "max_age": "1h"}}
    foretold, made, again, shown = Ansible(tmp_path, lab).tasks(
        [{**example, "check_mode": True}, example, example, info], "--diff"
    )
    assert (foretold["changed"], foretold["diff"]) == (made["changed"], made["diff"]), foretold
    assert (foretold["backup"], made["removed"], again["changed"]) == (None, [], False)
    (volid,) = backups(lab)
    assert volid.endswith(".vma.zst")
    assert made["backup"] == again["backup"] == shown["backups"][0]
    backup = made["backup"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", backup.pop("ctime"))
    assert backup.pop("size") > 0
    assert backup == {
        "volid": volid,
        "node": "pve1",
        "storage": "local",
        "vmid": 100,
        "notes": "nightly",
        "protected": False,
        "format": "vma.zst",
    }


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"server": "web-09"}, "there is no server web-09"),
    ({"vmid": 999}, "there is no server 999"),
    ({"server": "web-01", "vmid": 101}, "web-01 is 100 and not 101"),
    ({"server": "100", "vmid": 101}, "vmid: 101 is not the server 100"),
    ({"server": " "}, "server: it is empty"),
    ({"vmid": 7}, "vmid: 7 is not between"),
    ({"storage": ".."}, "storage: '..' is not a storage id"),
    ({"storage": "nowhere"}, "there is no storage nowhere for backups, only local"),
    ({"storage": "local-lvm"}, "storage local-lvm does not take backups, only local does"),
    ({"node": "pve2"}, "it is on node pve1 and not on pve2"),
    ({"max_age": "a day"}, "max_age: 'a day' is not a duration"),
    ({"max_age": "-1d"}, "max_age: '-1d' is not a duration"),
    ({"notes": "two\nlines"}, "notes: they must be one line"),
    ({"notes": "of {{guestname}}"}, "notes: PVE would replace"),
    ({"notes": " "}, "notes: they are empty"),
    ({"notes": "x" * 1025}, "notes: they are longer than"),
    ({"node": "pve1", "storage": "nowhere", "older_than": "1d", "state": "absent"}, "only local"),
    ({"prune_backups": {"keep_last": 0}}, "prune_backups: it keeps nothing"),
    ({"prune_backups": {"keep_last": -1}}, "prune_backups: keep_last is negative"),
    ({"prune_backups": {"keep_all": True, "keep_last": 1}}, "prune_backups: keep_all and"),
    ({"older_than": "1d"}, "older_than: it has no meaning with state=present"),
    ({"force": True}, "force: it has no meaning with state=present"),
    ({"timeout": 0}, "timeout: 0 is not a positive number"),
    ({"state": "absent"}, "state: absent needs volid, notes or older_than"),
    ({"state": "absent", "older_than": "1d", "protected": False}, "protected: it has no meaning with state=absent"),
    ({"state": "absent", "older_than": "1d", "storage": "nowhere"}, "there is no storage nowhere"),
    ({"state": "absent", "older_than": "1d", "node": "pve9"}, "there is no node pve9, only pve1, pve2"),
    ({"state": "restored", "notes": "none has them"}, "there is none that fits, only 1 others"),
    ({"state": "restored"}, "100 is server web-01; set force: true"),
    ({"state": "restored", "target_vmid": 9000, "force": True}, "9000 is the template debian-12-cloud"),
    ({"state": "restored", "target_vmid": 50}, "target_vmid: 50 is not between"),
    ({"state": "restored", "target_vmid": 150, "target_name": "a b"}, "target_name: 'a b' is not a server name"),
    ({"state": "restored", "target_vmid": 150, "target_storage": "local"}, "node pve1 has for disks only local-lvm"),
    ({"volid": "local:iso/debian.iso"}, "volid: 'local:iso/debian.iso' is not the volume id of a backup"),
    ({"volid": "local:backup/vzdump-qemu-1-x.vma"}, "there is no such backup"),
    ({"volid": "local:backup/vzdump-qemu-1-x.vma", "server": "web-01"}, "server: it has no meaning beside volid"),
    ({"volid": "local:backup/vzdump-qemu-1-x.vma", "storage": "shared"}, "storage: shared is not the storage of"),
    ({"volid": "local:backup/vzdump-qemu-1-x.vma", "state": "restored"}, "there is no such backup"),
]


def test_wrong_options_are_refused_before_anything_is_changed(lab: Any, make: Make) -> None:
    add(lab, age=DAY)
    mark = len(lab.requests)
    for options, complaint in WRONG:
        for check_mode in (True, False):
            with pytest.raises(Unable) as refused:
                make(check_mode=check_mode, **options)
            assert complaint in str(refused.value)
            assert "\n" not in str(refused.value)
    assert writes(lab, mark) == []


def test_module_fails_with_that_sentence(lab: Any, run_module: Any) -> None:
    where = {"api_host": lab.api_endpoint, "api_user": lab.username, "api_password": lab.password}
    failed = run_module("pve_backup", {**where, "ca_path": lab.ca_file, "server": "web-09"}, fails=True)
    assert failed["msg"].startswith("Unable to take a backup of server web-09: there is no server web-09")
    missing = run_module("pve_backup", where, fails=True)
    assert missing["msg"] == "one of the following is required: server, vmid, volid"


# --------------------------------------------------------------------- present


def test_age_is_that_of_the_nodes_clock(lab: Any, make: Make) -> None:
    lab.pve.clock_ahead["pve1"] = 30 * DAY
    add(lab, age=2 * 3600)
    unchanged(lab, make, max_age="3h")
    assert foretold_and_made(lab, make, max_age="90m").plan.changed
    unchanged(lab, make, max_age="90m")
    assert len(backups(lab)) == 2
    lab.pve.clock_ahead["pve1"] += DAY
    assert foretold_and_made(lab, make, max_age="90m").plan.changed
    # Who may not read the node's clock has only that of this machine, 31 days behind.
    lab.do(lab.pve.fail, "GET", "/nodes/pve1/time", 403, "Permission check failed")
    lab.pve.clock_ahead["pve1"] += DAY
    unchanged(lab, make, max_age="90m")


def test_notes_tell_backups_apart(lab: Any, make: Make) -> None:
    add(lab, age=30 * DAY, notes=r"C:\temp")
    unchanged(lab, make, notes=r"C:\temp")
    made = foretold_and_made(lab, make, notes=r"D:\new", protected=True)
    assert made.backup is not None
    assert (made.backup.notes, made.backup.protected) == (r"D:\new", True)
    unchanged(lab, make, notes=r"D:\new", protected=True)
    assert foretold_and_made(lab, make, notes=r"C:\temp", max_age="1d").plan.changed


def test_nothing_to_recognise_it_by_is_a_backup_each_time(lab: Any, make: Make) -> None:
    for wish in ({}, {"max_age": "0"}):
        assert foretold_and_made(lab, make, **wish).plan.changed
    assert len(backups(lab)) == 2


def test_protection_and_notes_of_one(lab: Any, make: Make) -> None:
    volid = add(lab, notes="old")
    for wish in ({"protected": True}, {"notes": "new", "protected": True}, {"notes": "", "protected": False}):
        made = foretold_and_made(lab, make, volid=volid, **wish)
        assert made.plan.changed
        unchanged(lab, make, volid=volid, **wish)
    assert not {"notes", "protected"} & backups(lab)[volid].keys()


def test_all_that_is_asked_of_vzdump_arrives(lab: Any, make: Make) -> None:
    old = add(lab, age=DAY)
    made = make(mode="stop", compress="1", prune_backups={"keep_last": 1, "keep_daily": 0}, max_age="0")
    assert [backup.volid for backup in made.removed] == [old]
    (volid,) = backups(lab)
    assert volid.endswith(".vma.lzo")
    (task,) = [task for task in lab.pve.tasklog if task["type"] == "vzdump"]
    assert "--compress 1 --lockwait 1 --mode stop --prune-backups keep-last=1,keep-daily=0" in task["log"][0]


def test_a_shared_storage_and_a_server_on_another_node(lab: Any, make: Make, client: PveClient) -> None:
    lab.do(lab.pve.storages["shared"].update, content="images,backup")
    with pytest.raises(Unable, match="give its storage; local, shared of node pve1 can take it"):
        make()
    lab.add_template(9001, "far", "pve2", "shared")
    made = foretold_and_made(lab, make, server="far", storage="shared", notes="once")
    assert made.backup is not None
    assert made.backup.node == "pve2"
    found, offline = list_backups(client, selection({"server": "far"}))
    assert ([backup.volid for backup in found], offline) == ([made.backup.volid], [])
    lab.do(lab.pve.storages["shared"].update, active=0)
    with pytest.raises(Unable, match="storage shared is not active on node pve1"):
        make(storage="shared")


@pytest.mark.lab(time_scale=0.03)
def test_two_runs_at_once_take_one_backup(lab: Any, make: Make) -> None:
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(make, max_age="1d")
        while lab.vm(100).lock != "backup":
            time.sleep(0.002)
        second = pool.submit(make, max_age="1d")
        assert [first.result().plan.changed, second.result().plan.changed] == [True, False]
    assert len(backups(lab)) == 1


def test_a_lock_is_waited_for_and_told(lab: Any, make: Make) -> None:
    lab.do(lab.pve.snapshot_lock, 100, "snapshot")
    with pytest.raises(Unable, match=r"VM is locked \(snapshot\), still after 1 s; .* `qm unlock 100` on node pve1"):
        make(max_age="1d", timeout=1)
    lab.do(lab.pve.snapshot_lock, 100, "suspended")
    with pytest.raises(Unable, match="it is suspended to disk"):
        make(max_age="1d")
    lab.do(lab.pve.snapshot_lock, 100, "snapshot")
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(make, max_age="1d")
        mark = len(lab.requests)
        while not lab.count_since(mark, "GET", "/qemu/100/config"):
            time.sleep(0.002)
        lab.do(lab.pve.unlock, 100)
        assert running.result().plan.changed
    assert len(backups(lab)) == 1


def test_a_lock_that_comes_in_between_is_waited_for(lab: Any, make: Make) -> None:
    def lock_for_a_moment() -> None:
        lab.pve.snapshot_lock(100, "snapshot")
        asyncio.get_running_loop().call_later(0.2, lab.pve.unlock, 100)

    lab.do(lab.pve.interpose, "POST", "/vzdump", lock_for_a_moment)
    assert make(max_age="1d").plan.changed
    assert len(backups(lab)) == 1


def test_a_server_that_moves_in_between_is_followed(lab: Any, make: Make) -> None:
    def move() -> None:
        lab.vm(100).node = "pve2"

    lab.do(lab.pve.interpose, "POST", "/nodes/pve1/vzdump", move)
    made = make(max_age="1d")
    assert made.backup is not None
    assert (made.backup.node, len(backups(lab))) == ("pve2", 1)


def test_warnings_of_the_task_are_passed_on(lab: Any, make: Make) -> None:
    lab.do(lab.pve.end_next_task, "vzdump", "WARNINGS: 1", "WARN: the guest agent is silent")
    assert "WARN: the guest agent is silent" in make(max_age="1d").warnings


@pytest.mark.lab(time_scale=0.05)
def test_progress_of_the_task_is_reported(
    lab: Any, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PVEFLEET_REPORT", str(tmp_path / "report"))
    make(max_age="1d")
    reports = [json.loads(line) for line in (tmp_path / "report").read_text().splitlines()]
    percents = [report["percent"] for report in reports]
    assert percents == sorted(percents)
    assert any(0 < percent < 95 for percent in percents)
    assert any(re.match(r"web-01: INFO: +\d+% \(", report["message"]) for report in reports)


# ---------------------------------------------------------------------- absent


def test_old_ones_go_and_protected_ones_stay(lab: Any, make: Make) -> None:
    young, old, kept = add(lab, age=DAY), add(lab, age=9 * DAY), add(lab, age=10 * DAY, protected=True)
    made = foretold_and_made(lab, make, older_than="1w", state="absent")
    assert [backup.volid for backup in made.removed] == [old]
    assert backups(lab).keys() == {young, kept}
    unchanged(lab, make, older_than="1w", state="absent")
    with pytest.raises(Unable, match="it is protected; set protected: false first"):
        make(volid=kept, state="absent")
    assert foretold_and_made(lab, make, volid=young, state="absent").plan.changed
    unchanged(lab, make, volid=young, state="absent")


def test_what_cannot_be_seen_is_not_called_absent(lab: Any, make: Make, client: PveClient) -> None:
    volid = add(lab)
    lab.do(lab.pve.set_node_offline, "pve2")
    with pytest.raises(Unable, match="node pve2 is offline, so that not all backups can be seen; name the storage"):
        make(vmid=100, older_than="1w", state="absent")
    unchanged(lab, make, vmid=100, node="pve1", older_than="1w", state="absent")
    unchanged(lab, make, volid=volid, notes="")
    with pytest.raises(Unable, match="pve2 is offline"):
        make(volid=f"{volid}.gz", state="absent")
    found, offline = list_backups(client, selection({}))
    assert ([backup.volid for backup in found], offline) == ([volid], ["node pve2 is offline"])
    lab.do(lab.pve.set_node_offline, "pve2", offline=False)
    lab.do(lab.pve.storages["shared"].update, content="backup", active=0)
    for storage in (None, "shared"):
        with pytest.raises(Unable, match="storage shared is not active on pve1; storage shared is not active on pve2"):
            make(vmid=100, storage=storage, older_than="1w", state="absent")
    unchanged(lab, make, vmid=100, storage="local", older_than="1w", state="absent")


HIDDEN = [
    ((("/vms", "VM.Audit"), ("/storage", "Datastore.Audit", "Datastore.AllocateSpace")), "VM.Backup on /vms/100"),
    ((("/vms", "VM.Audit", "VM.Backup"), ("/storage", "Datastore.Audit")), "Datastore.AllocateSpace on /storage/local"),
    ((("/vms", "VM.Audit", "VM.Backup"),), "may see no storage of node pve1"),
]


@pytest.mark.parametrize(("rights", "lacking"), HIDDEN)
def test_what_one_may_not_see_is_not_called_absent(lab: Any, login: Login, rights: Any, lacking: str) -> None:
    add_server(lab)
    volid = add(lab, notes="nightly", age=DAY)
    client = login("few@pve", *rights)
    for wish in ({"vmid": 100, "notes": "nightly"}, {"vmid": 100, "storage": "local", "notes": "nightly"}):
        for state in ("absent", "restored"):
            with pytest.raises(Unable, match=f"few@pve .*{lacking}"):
                converge(client, backup_spec({**wish, "state": state}))
        found, unseen = list_backups(client, selection(wish))
        assert (found, any(lacking in line for line in unseen)) == ([], True)
    with pytest.raises(Unable, match=f"few@pve .*{lacking}"):
        converge(client, backup_spec({"volid": volid, "state": "absent"}))


def test_a_storage_that_is_hidden_is_not_said_to_be_missing(lab: Any, login: Login) -> None:
    add_server(lab)
    client = login("few@pve", ("/vms", "VM.Audit", "VM.Backup"), ("/storage/shared", "Datastore.Audit", *SPACE))
    with pytest.raises(Unable, match=r"few@pve may not see a storage local; that takes Datastore.Audit on it"):
        converge(client, backup_spec({"vmid": 100, "storage": "local", "notes": "x", "state": "absent"}))


def test_a_node_in_trouble_hides_only_what_is_on_it(lab: Any, make: Make, client: PveClient) -> None:
    volid = add(lab)
    for suffix in ("/nodes/pve2/storage", "/nodes/pve2/storage/local/content"):
        lab.do(lab.pve.fail, "GET", suffix, 500, "some trouble", times=1)
        found, unseen = list_backups(client, selection({"vmid": 100}))
        assert [backup.volid for backup in found] == [volid]
        assert ["pve2: some trouble" in line for line in unseen] == [True]
        lab.do(lab.pve.fail, "GET", suffix, 500, "some trouble", times=1)
        with pytest.raises(Unable, match=r"some trouble .*, so that not all backups can be seen; name the node"):
            make(vmid=100, storage="local", older_than="1w", state="absent")
    lab.do(lab.pve.fail, "GET", "/nodes/pve1/storage", 500, "some trouble", times=1)
    with pytest.raises(Unable, match=r"so that not all backups can be seen$"):  # nothing is left to be named
        make(vmid=100, storage="local", node="pve1", older_than="1w", state="absent")


@pytest.mark.lab(nodes=24, latency=0.05)
def test_nodes_are_looked_at_side_by_side(lab: Any, client: PveClient) -> None:
    began = time.monotonic()
    mark = len(lab.requests)
    list_backups(client, selection({"vmid": 100}))
    assert time.monotonic() - began < 0.5 * 0.05 * (len(lab.requests) - mark)


# -------------------------------------------------------------------- restored


def test_restored_beside_the_original(lab: Any, make: Make) -> None:
    volid = add(lab, age=DAY)
    lab.do(lab.vm(100).config.update, cores=8)
    wish = {"state": "restored", "target_vmid": 150, "unique": True, "target_storage": "shared"}
    made = foretold_and_made(lab, make, **wish)
    assert made.server == {"vmid": 150, "node": "pve1", "status": "stopped"}
    config = lab.vm(150).config
    assert (config["name"], config["cores"]) == ("web-01", 2)
    assert config["scsi0"].startswith("shared:150/")
    assert config["net0"] != lab.vm(100).config["net0"]
    unchanged(lab, make, **wish)  # though both have the name now
    assert [change.item for change in foretold_and_made(lab, make, **wish, start=True).plan.changes] == ["power"]
    unchanged(lab, make, **wish, start=True)
    add(lab)
    with pytest.raises(Unable, match="150 is server web-01; set force: true"):  # the newest one is another now
        make(**wish)
    unchanged(lab, make, volid=volid, state="restored", target_vmid=150, unique=True)


def test_restored_over_a_running_server_when_that_was_said(lab: Any, make: Make, client: PveClient) -> None:
    add(lab)
    lab.do(lab.vm(100).config.update, cores=8)
    client.run("POST", "/nodes/pve1/qemu/100/status/start", timeout=20)
    made = foretold_and_made(lab, make, state="restored", force=True)
    assert [change.item for change in made.plan.changes] == ["server", "power"]
    assert (lab.vm(100).config["cores"], lab.vm(100).running) == (2, False)
    made = foretold_and_made(lab, make, state="restored", force=True, start=True)
    assert [change.item for change in made.plan.changes] == ["server", "power"]
    made = foretold_and_made(lab, make, state="restored", force=True, start=True)
    assert [change.item for change in made.plan.changes] == ["server"]
    assert lab.vm(100).running
    lab.do(lab.vm(100).config.update, protection=1)
    with pytest.raises(Unable, match=r"the protection of server web-01 \(100\) is on"):
        make(state="restored", force=True)


def test_a_server_that_is_gone(lab: Any, make: Make, client: PveClient) -> None:
    add(lab)
    client.run("DELETE", "/nodes/pve1/qemu/100", timeout=20)
    with pytest.raises(Unable, match="the backups of one that is gone are found by vmid"):
        make(state="restored")
    assert foretold_and_made(lab, make, vmid=100, state="restored", start=True).plan.changed
    assert servers(lab) == {100: "web-01"}
    unchanged(lab, make, vmid=100, state="restored", start=True)
    # Made anew by other means, it is not what was restored.
    client.run("POST", "/nodes/pve1/qemu/100/status/stop", timeout=20)
    client.run("DELETE", "/nodes/pve1/qemu/100", timeout=20)
    add_server(lab)
    with pytest.raises(Unable, match="100 is server web-01; set force: true"):
        make(vmid=100, state="restored")


def test_what_a_failed_restore_left_is_finished(lab: Any, make: Make) -> None:
    add(lab)
    lab.do(lab.pve.cut_next_task, "qmrestore", "command 'zstd' failed: exit code 1")
    wish = {"state": "restored", "target_vmid": 150}
    with pytest.raises(Unable, match="exit code 1"):
        make(**wish)
    assert lab.vm(150).config == {}
    assert foretold_and_made(lab, make, **wish).plan.changed
    unchanged(lab, make, **wish)


def test_a_restore_that_did_not_get_the_lock_is_repeated(lab: Any, make: Make) -> None:
    add(lab)
    lab.do(lab.pve.hold_config_lock, 150, secs=10)
    assert make(state="restored", target_vmid=150).plan.changed
    assert [task["exitstatus"] == "OK" for task in lab.pve.tasklog if task["type"] == "qmrestore"] == [False, True]
    assert lab.vm(150).config["name"] == "web-01"


def test_a_backup_of_another_node_is_not_within_reach(lab: Any, make: Make, client: PveClient) -> None:
    add(lab)
    lab.add_template(9001, "far", "pve2", "shared")
    client.run("POST", "/nodes/pve2/qemu/9001/clone", {"newid": 150, "name": "web-02"}, timeout=20)
    with pytest.raises(Unable, match="local of pve1 can be read only there, and server 150 is on pve2"):
        make(state="restored", target_vmid=150, force=True)


def test_a_containers_backup_is_refused(lab: Any, make: Make) -> None:
    with pytest.raises(Unable, match="is a container's"):
        make(volid=add_containers(lab, 300), state="restored")


def test_backups_of_a_container_that_had_the_vmid_are_not_the_servers(lab: Any, make: Make, client: PveClient) -> None:
    volid = add_containers(lab, 100)
    assert foretold_and_made(lab, make, notes="nightly", max_age="1d").plan.changed
    unchanged(lab, make, notes="nightly", older_than="30m", state="absent")
    (own,) = backups(lab).keys() - {volid}
    found, _unseen = list_backups(client, selection({"server": "web-01"}))
    assert [backup.volid for backup in found] == [own]
    made = make(state="restored", target_vmid=150)
    assert made.backup is not None
    assert made.backup.volid == own


def test_what_came_by_other_means_is_not_what_was_restored(lab: Any, make: Make) -> None:
    """Though the task log of this node says so: it was removed, and made anew, elsewhere."""
    add(lab)
    for vmid, unique, other in ((150, False, {"smbios1": f"uuid={NOBODY}"}), (151, True, {"name": "payroll-db"})):
        wish = {"vmid": 100, "state": "restored", "target_vmid": vmid, "unique": unique}
        assert make(**wish).plan.changed
        unchanged(lab, make, **wish)
        with pytest.raises(Unable, match=f"{vmid} is server web-01; set force"):
            make(**{**wish, "unique": not unique})
        lab.do(lab.vm(vmid).config.update, other)
        with pytest.raises(Unable, match=f"{vmid} is server .*; set force: true to overwrite it"):
            make(**wish)


def test_who_does_not_see_all_tasks_does_not_take_it_for_restored(lab: Any, login: Login) -> None:
    add_server(lab)
    add(lab)
    rights = [("/vms", "VM.Audit", "VM.Backup", "VM.Allocate"), ("/storage", "Datastore.Audit", *SPACE)]
    client = login("few@pve", *rights)
    spec = backup_spec({"vmid": 100, "state": "restored", "target_vmid": 150})
    assert converge(client, spec).plan.changed
    with pytest.raises(Unable, match=r"set force: true .*; few@pve needs Sys.Audit on /nodes/pve1 to tell whether"):
        converge(client, spec)
    seeing = login("seeing@pve", *rights, ("/nodes", "Sys.Audit"))
    assert not converge(seeing, spec).plan.changed


def test_a_failed_restore_says_what_was_done_before(lab: Any, make: Make, client: PveClient, run_module: Any) -> None:
    add(lab)
    client.run("POST", "/nodes/pve1/qemu/100/status/start", timeout=20)
    lab.do(lab.pve.fail, "POST", "/nodes/pve1/qemu", 500, "some refusal", times=1)
    where = {"api_host": lab.api_endpoint, "api_user": lab.username, "api_password": lab.password}
    wish = {"server": "web-01", "force": True, "state": "restored"}
    failed = run_module("pve_backup", {**where, "ca_path": lab.ca_file, **wish}, fails=True)
    assert failed["msg"].endswith("some refusal (POST /nodes/pve1/qemu: 500); web-01 was stopped for it")
    assert failed["changed"] is True
    lab.do(lab.pve.fail, "POST", "/nodes/pve1/qemu/100/status/start", 500, "some refusal", times=1)
    with pytest.raises(Unable, match=r"some refusal .*; server 100 was restored$"):
        make(state="restored", force=True, start=True)


def test_a_server_of_the_ha_manager_is_waited_for(
    lab: Any, make: Make, client: PveClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its tasks end at once, having told the manager; it stops and starts when the manager gets round to it."""
    add(lab)
    client.run("POST", "/nodes/pve1/qemu/100/status/start", timeout=20)

    def by_the_manager(action: str) -> Callable[..., Any]:
        async def manage(log: Any) -> None:
            await lab.pve.pause(20)
            if action == "start":
                await lab.pve.power_on(lab.vm(100), log)
            else:
                lab.pve.power_off(lab.vm(100))

        async def request(log: Any) -> None:
            log(f"Requesting HA {action} for VM 100")

        async def tell(values: dict[str, Any], user: str) -> str:
            await lab.pve.worker("pve1", f"qm{action}", 100, "root@pam", manage)
            return str(await lab.pve.worker("pve1", f"ha{action}", 100, user, request))

        return tell

    monkeypatch.setattr(lab.pve, "_start", by_the_manager("start"))
    monkeypatch.setattr(lab.pve, "_stop", by_the_manager("stop"))
    assert make(state="restored", force=True, start=True).plan.changed
    assert lab.vm(100).running


# ----------------------------------------------------------------------- plans

UNITS = {"s": 1, "m": 60, "h": 3600, "d": DAY, "w": 7 * DAY}
TEXTS = st.text() | st.from_regex(r"\d{0,12}[smhdwxX]?", fullmatch=True)
NOTES = st.sampled_from(["", "nightly", "weekly"])
BACKUPS = st.lists(
    st.builds(
        Backup,
        volid=st.integers(0, 10**6).map(lambda number: f"local:backup/vzdump-qemu-100-{number}.vma"),
        node=st.sampled_from(["pve1", "pve2"]),
        storage=st.just("local"),
        shared=st.just(False),
        vmid=st.just(100),
        ctime=st.integers(0, 10**6),
        size=st.just(1),
        format=st.just("vma"),
        notes=NOTES,
        protected=st.booleans(),
    ),
    unique_by=lambda backup: backup.volid,
    max_size=6,
)
NOW = {"pve1": 10**6, "pve2": 10**6 - 5000}


@given(TEXTS)
def test_durations(text: str) -> None:
    stripped = text.strip()
    found = re.fullmatch(r"([0-9]{1,9})([smhdw])", stripped)
    if stripped == "0" or found:
        assert duration("max_age", text) == (int(found[1]) * UNITS[found[2]] if found else 0)
        return
    with pytest.raises(Unable, match=r"^max_age: "):
        duration("max_age", text)


@given(BACKUPS, NOTES, st.none() | st.integers(0, 9), st.none() | st.booleans())
def test_plan_of_present(found: list[Backup], notes: str, weeks: int | None, protected: bool | None) -> None:
    """One is taken exactly when none fits; applied, the plan has nothing left to do."""
    age = None if weeks is None else f"{weeks}d"
    spec = backup_spec({"vmid": 100, "notes": notes or None, "max_age": age, "protected": protected})
    planned = plan_present(spec, found, NOW, target="server web-01 (100) on local")
    fits = [
        one
        for one in found
        if (not notes or one.notes == notes) and (weeks is None or NOW[one.node] - one.ctime < weeks * DAY)
    ]
    if not fits or (not notes and weeks is None):
        assert (planned.found, planned.plan.changed, planned.settings) == (None, True, {})
        return
    assert planned.found in fits
    assert planned.plan.changed is bool(planned.settings)
    assert planned.plan.changed is (protected is not None and all(one.protected != protected for one in fits))


@given(BACKUPS, NOTES, st.none() | st.integers(0, 9))
def test_plan_of_absent(found: list[Backup], notes: str, weeks: int | None) -> None:
    if not notes and weeks is None:
        weeks = 1
    age = None if weeks is None else f"{weeks}d"
    spec = backup_spec({"vmid": 100, "notes": notes or None, "older_than": age, "state": "absent"})
    plan, doomed = plan_absent(spec, found, NOW)
    assert [change.item for change in plan.changes] == [one.volid for one in doomed]
    assert {one.volid for one in doomed} == {
        one.volid
        for one in found
        if not one.protected
        and (not notes or one.notes == notes)
        and (weeks is None or NOW[one.node] - one.ctime > weeks * DAY)
    }
    left = [one for one in found if one not in doomed]
    assert not plan_absent(spec, left, NOW)[0].changed


@given(st.dictionaries(st.sampled_from(["keep_last", "keep_daily", "keep_yearly"]), st.integers(-1, 9) | st.none()))
def test_retention_as_pve_writes_it(options: dict[str, int | None]) -> None:
    numbers = {name: number for name, number in options.items() if number is not None}
    if any(number < 0 for number in numbers.values()) or not any(numbers.values()):
        with pytest.raises(Unable, match=r"^prune_backups: "):
            prune_string(options)
        return
    written = dict(part.split("=") for part in (prune_string(options) or "").split(","))
    assert written == {name.replace("_", "-"): str(number) for name, number in numbers.items()}
