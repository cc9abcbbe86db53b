# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Planning is pure: from a config and a wish to what has to be done, against a small model of what PVE makes of it."""

from __future__ import annotations

import copy
import re
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.pvefleet.infra.plugins.module_utils._plan import Change
from ansible_collections.pvefleet.infra.plugins.module_utils._pve import values
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.device_plan import PlanError, is_new_volume
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.guest import MARKER, Guest, is_drive, is_nic
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.hotplug import takes_effect_at_once
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server_plan import (
    Placement,
    ServerPlan,
    plan_clone,
    plan_new,
    plan_server,
    settled,
)
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server_spec import ServerSpec, server_spec
from hypothesis import assume, given
from hypothesis import strategies as st

from tests import server_options

CONFIG: dict[str, Any] = {
    "name": "web-01",
    "cores": 2,
    "memory": "2048",
    "ostype": "l26",
    "scsihw": "virtio-scsi-single",
    "scsi0": "local-lvm:vm-100-disk-0,discard=on,size=3G",
    "ide2": "local-lvm:vm-100-cloudinit,media=cdrom,size=4M",
    "net0": "virtio=BC:24:11:00:00:09,bridge=vmbr0,firewall=0",
    "boot": "order=scsi0",
    "agent": "enabled=1,fstrim_cloned_disks=1",
}
# What a config may hold that is not managed, or not as we would write it.
ODDITIES: dict[str, Any] = {
    "sata5": "none,media=cdrom",
    "ide3": "cdrom",
    "sata4": "not a drive at all,,",
    "efidisk0": "local-lvm:vm-100-disk-9,efitype=4m,size=4M",
    "tpmstate0": "local-lvm:vm-100-disk-8,size=4M",
    "unused0": "local-lvm:vm-100-disk-7",
    "hostpci0": "0000:01:00.0,pcie=1",
    "net7": "virtio-of-the-future=BC:24:11:00:00:07,bridge=vmbr9,shine=1",
    "net8": "bridge=vmbr0",
    "ipconfig7": "ip=somewhere",
    "ipconfig8": "",
    "boot": "cdn",
    "numa0": "cpus=0-1,hostnodes=0,memory=1024",
    "vmgenid": "1",
    "lots": None,
}


def spec(**options: Any) -> ServerSpec:
    return server_spec({"name": "web-01", "state": "present", **options})


def guest(config: dict[str, Any] | None = None, **facts: Any) -> Guest:
    return Guest(100, "pve1", "web-01", {**CONFIG, **(config or {})}, **facts)


def by_pve(plan: ServerPlan, before: Guest) -> Guest:
    """The server after PVE did what the plan says: volumes are named, NICs get an address, sizes are noted."""
    after = plan.applied_to(before)
    config = dict(after.config)
    for key in plan.settings.keys() & config.keys():
        if is_drive(key) and is_new_volume(config[key]):
            drive = values.parse_drive(config[key])
            storage, _colon, what = drive.volume.partition(":")
            if what == "cloudinit":
                config[key] = f"{storage}:vm-100-cloudinit,media=cdrom,size=4M"
            else:
                options = {name: value for name, value in drive.options.items() if name != "format"}
                size = values.print_size(round(float(what) * 1024**2) * 1024)
                config[key] = values.print_drive(values.Drive(f"{storage}:vm-100-{key}", {**options, "size": size}))
        elif is_nic(key):
            nic = values.parse_nic(config[key])
            config[key] = values.print_nic(replace(nic, mac=nic.mac or "BC:24:11:99:99:99"))
        elif key == "cipassword":
            config[key] = "**********"
    for key, size in plan.resizes.items():
        drive = values.parse_drive(config[key])
        config[key] = values.print_drive(replace(drive, options={**drive.options, "size": values.print_size(size)}))
    pending = dict(before.pending)
    if plan.power is None and before.running:
        for key in (*plan.settings, *plan.delete):
            if takes_effect_at_once(key, plan.settings.get(key), before):
                pending.pop(key, None)
            else:
                pending.setdefault(key, before.text(key) or None)
    else:
        pending = {}
    return replace(after, config=config, pending=pending)


SPECS = st.builds(
    lambda options, state: server_spec({"name": "web-01", **options, "state": state}),
    server_options.settings(),
    st.sampled_from(["present", "started", "stopped"]),
)
GUESTS = st.builds(
    lambda odd, running, own: guest({key: ODDITIES[key] for key in odd} | own, running=running),
    st.sets(st.sampled_from(sorted(ODDITIES))),
    st.booleans(),
    st.fixed_dictionaries(
        {},
        optional={
            "scsi1": st.just("shared:100/vm-100-disk-1.qcow2,backup=1,size=3G"),
            "net1": st.just("e1000=BC:24:11:00:00:02,bridge=vmbr1,tag=7,trunks=1;2"),
            "tags": st.sampled_from(["blue;role-web", "x, y", "BLUE"]),
            "description": st.sampled_from(["", "notes\n", f"{MARKER} (x)\n\nnotes"]),
            "balloon": st.sampled_from([0, 512]),
            "hotplug": st.sampled_from(["0", "1", "network", "disk,memory"]),
            "sshkeys": st.just("ssh-rsa%20old"),
            "nameserver": st.just("10.0.0.1, fd00::53"),
        },
    ),
)


def planned(wish: ServerSpec, there: Guest) -> ServerPlan:
    try:
        return plan_server(wish, there, Placement("local-lvm"))
    except PlanError:
        # A boot disk of a running server, a balloon larger than the memory: refusals have tests of their own.
        assume(False)
        raise


# ---------------------------------------------------------------- properties


@given(SPECS, GUESTS)
def test_planned_twice_is_done_once(wish: ServerSpec, there: Guest) -> None:
    after = by_pve(planned(wish, there), there)
    again = plan_server(settled(wish), after, Placement("local-lvm"))
    assert replace(again, pending=()) == ServerPlan("server web-01")


@given(SPECS, GUESTS)
def test_what_is_not_listed_is_not_touched(wish: ServerSpec, there: Guest) -> None:
    plan = planned(wish, there)
    managed = {*wish.scalars, *wish.disks, *wish.nics, "description"}
    if wish.cloud_init:
        managed |= {
            "ciuser",
            "cipassword",
            "sshkeys",
            "nameserver",
            "searchdomain",
            "citype",
            *wish.cloud_init.ipconfig,
        }
        managed |= {"ide2"} - there.config.keys()
    managed |= {"agent"} if wish.agent is not None else set()
    managed |= {"boot"} if wish.boot_order is not None else set()
    managed |= {"tags"} if wish.tags is not None or wish.role is not None else set()
    assert {*plan.settings, *plan.delete, *plan.resizes} <= managed
    # Notes are touched for the marker alone when nobody wants other notes.
    assert wish.description is not None or there.unfinished or "description" not in {*plan.settings, *plan.delete}


@given(SPECS, GUESTS)
def test_options_that_are_not_given_stay(wish: ServerSpec, there: Guest) -> None:
    plan = planned(wish, there)
    for key, value in plan.settings.items():
        if key in wish.disks and key in there.config:
            kept, now = there.drive(key), values.parse_drive(value)
            assert kept is not None
            assert now.volume == kept.volume
            assert kept.options.items() - now.options.items() <= {
                item for item in kept.options.items() if item[0] in wish.disks[key].options
            }
        if key in wish.nics and key in there.config:
            old, new = values.parse_nic(there.text(key)), values.parse_nic(value)
            given_ = wish.nics[key].options
            assert {k: v for k, v in old.options.items() if k not in given_} == {
                k: v for k, v in new.options.items() if k not in given_
            }
            assert new.mac == (wish.nics[key].mac or old.mac)


@given(SPECS, GUESTS)
def test_nothing_shrinks(wish: ServerSpec, there: Guest) -> None:
    for key, size in planned(wish, there).resizes.items():
        drive = there.drive(key)
        assert drive is not None
        assert size > (drive.size or 0)


@given(SPECS, GUESTS)
def test_planning_changes_nothing_and_says_the_same_again(wish: ServerSpec, there: Guest) -> None:
    before = copy.deepcopy(there)
    plan = planned(wish, there)
    assert there == before
    assert planned(wish, there) == plan
    assert bool(plan.settings or plan.delete or plan.resizes or plan.power) == plan.changed


@given(SPECS, GUESTS)
def test_every_setting_is_told_and_no_password(wish: ServerSpec, there: Guest) -> None:
    plan = planned(wish, there)
    told = {change.item.partition(".")[0] for change in plan.changes}
    told |= {"boot"} if "boot_order" in told else set()
    told |= {"description"} if "creation" in told else set()
    assert {*plan.settings, *plan.delete, *plan.resizes} <= told
    if wish.cloud_init and wish.cloud_init.password:
        assert not any(wish.cloud_init.password in str(change.after) for change in plan.changes)


@given(server_options.settings(created=True), st.booleans())
def test_clones_and_empty_servers_are_planned_whole(options: dict[str, Any], full: bool) -> None:
    source = Guest(9000, "pve1", "tpl", {**CONFIG, "template": 1, "name": "tpl", "description": "of the template"})
    wish = spec(**options, clone={"template": "tpl", "full": full}, pool="prod")
    try:
        plan = plan_clone(wish, source, Placement())
    except PlanError:
        return
    assert plan.changes[0] == Change("server", None, f"{'full' if full else 'linked'} clone of tpl (9000) on pve1")
    assert (plan.power, plan.pool, plan.pending) == (None, None, ())
    try:
        empty = plan_new(wish, "pve2", Placement("local-lvm"))
    except PlanError:
        return
    assert empty.changes[0] == Change("server", None, "empty server on pve2")
    assert not empty.delete
    assert not empty.resizes


# ---------------------------------------------------------------- single promises


@pytest.mark.parametrize(
    ("wish", "config", "changes"),
    [
        ({"memory": 2048}, {}, []),
        ({"memory": 2048}, {"memory": "current=2048"}, []),
        ({"memory": 4096}, {"memory": "current=2048"}, [("memory", 2048, 4096)]),
        ({"cores": 1, "sockets": 1, "onboot": False, "bios": "seabios"}, {"cores": None} | {"onboot": 0}, []),
        ({"cpu": "kvm64,flags=+aes"}, {"cpu": "cputype=kvm64,flags=+aes"}, []),
        ({"cpu": "host"}, {"cpu": "kvm64,flags=+aes"}, [("cpu", "kvm64,flags=+aes", "host")]),
        ({"machine": "q35"}, {"machine": "pc-q35-9.2+pve1", "ostype": "win11"}, []),
        ({"machine": "q35"}, {"machine": "pc-q35-9.2"}, [("machine", "pc-q35-9.2", "q35")]),
        ({"agent": True}, {}, []),
        ({"agent": True}, {"agent": "1"}, []),
        ({"agent": False}, {}, [("agent", True, False)]),
        ({"disks": {"scsi0": {"discard": True, "ssd": False, "size": "3G"}}}, {}, []),
        ({"disks": {"scsi0": {"size": "3072M"}}}, {}, []),
        ({"disks": {"scsi0": {"size": "3143680K"}}}, {}, []),
        ({"disks": {"scsi0": {"size": "4G", "ssd": True}}}, {}, [("scsi0.ssd", "0", "1"), ("scsi0.size", "3G", "4G")]),
        ({"disks": {"scsi5": {"state": "detached"}}}, {}, []),
        ({"nics": {"net0": {"bridge": "vmbr0", "firewall": False, "vlan": 0}}}, {}, []),
        ({"nics": {"net5": {"state": "absent"}}}, {}, []),
        ({"cloud_init": {"password": "x"}}, {}, []),
        ({"cloud_init": {"password": "x", "update_password": "always"}}, {}, [("cipassword", None, "********")]),
        ({"cloud_init": {"ipconfig": {"net0": "ip6=fd00:0::5/64"}}}, {"ipconfig0": "ip6=fd00::5/64"}, []),
        ({"cloud_init": {"nameservers": ["10.0.0.1", "10.0.0.2"]}}, {"nameserver": "10.0.0.1,10.0.0.2"}, []),
        ({"cloud_init": {"nameservers": []}}, {"nameserver": "10.0.0.1"}, [("nameserver", "10.0.0.1", None)]),
        ({"tags": ["web", "Blue"]}, {"tags": "blue;web"}, []),
        ({"tags": ["web"]}, {"tags": "web;role-db"}, []),
        ({"tags": []}, {"tags": "web;role-db"}, [("tags", ["role-db", "web"], ["role-db"])]),
        ({"role": "web"}, {"tags": "x;role-db"}, [("tags", ["role-db", "x"], ["role-web", "x"])]),
        ({"role": ""}, {"tags": "role-db"}, [("tags", ["role-db"], None)]),
        ({"description": "a\nb"}, {"description": "a\nb\n"}, []),
        ({"description": ""}, {"description": "a"}, [("description", "a", None)]),
        ({"boot_order": ["scsi0"]}, {}, []),
        ({"boot_order": ["net0", "scsi0"]}, {"boot": "cdn"}, [("boot_order", None, ["net0", "scsi0"])]),
        ({"pool": ""}, {}, []),
    ],
)
def test_comparison(wish: dict[str, Any], config: dict[str, Any], changes: list[tuple[str, Any, Any]]) -> None:
    there = {key: value for key, value in {**CONFIG, **config}.items() if value is not None}
    plan = plan_server(spec(**wish), Guest(100, "pve1", "web-01", there))
    assert [(change.item, change.before, change.after) for change in plan.changes] == changes


@pytest.mark.parametrize(
    ("wish", "facts", "complaint"),
    [
        (
            {"disks": {"scsi0": {"size": "2G"}}},
            {},
            "Unable to resize scsi0 of server web-01 from 3G to 2G: PVE disks cannot",
        ),
        (
            {"disks": {"scsi0": {"storage": "shared"}}},
            {},
            "Unable to move scsi0 of server web-01 from local-lvm to shared",
        ),
        ({"disks": {"scsi1": {"ssd": True}}}, {}, "Unable to create disk scsi1 of server web-01: it has no size"),
        ({"disks": {"ide2": {"size": "1G"}}}, {}, "it is a CD-ROM or cloud-init drive"),
        ({"disks": {"scsi0": {"state": "detached"}}}, {"running": True}, "it boots from it and is running"),
        ({"disks": {"scsi0": {"state": "detached"}}}, {"config": {"protection": 1}}, "its protection is on"),
        (
            {"nics": {"net1": {"vlan": 5}}},
            {},
            "Unable to create network device net1 of server web-01: it has no bridge",
        ),
        ({"nics": {"net7": {"vlan": 5}}}, {"config": ODDITIES}, "names no model of a network device"),
        ({"memory": 512}, {"config": {"balloon": 1024}}, "its balloon of 1024 MiB is more than its memory of 512 MiB"),
        ({"balloon": 4096}, {}, "its balloon of 4096 MiB is more than its memory of 2048 MiB"),
        ({"boot_order": ["scsi5"]}, {}, "Unable to boot server web-01 from scsi5: it has no such device"),
        ({"node": "pve2"}, {}, "Unable to move server web-01 from pve1 to pve2"),
        ({"name": "web-02"}, {}, "100 is named web-01; say rename: true"),
        ({}, {"config": {"template": 1}}, "100 is a template"),
    ],
)
def test_what_cannot_be_done(wish: dict[str, Any], facts: dict[str, Any], complaint: str) -> None:
    there = guest(facts.get("config"), running=facts.get("running", False))
    with pytest.raises(PlanError) as caught:
        plan_server(spec(**wish), there)
    assert complaint in str(caught.value)
    assert str(caught.value).startswith("Unable to ")


def test_a_bootdisk_of_old_is_a_boot_disk() -> None:
    there = guest({"boot": "c", "bootdisk": "scsi0"}, running=True)
    with pytest.raises(PlanError, match="it boots from it"):
        plan_server(spec(disks={"scsi0": {"state": "detached"}}), there)
    assert plan_server(spec(disks={"scsi0": {"state": "detached"}}, state="stopped"), there).delete == ("scsi0",)


def test_unfinished_server_is_finished_by_who_may_create() -> None:
    there = guest({"description": f"{MARKER} (1-2)\n\nnotes"})
    wish = {"cloud_init": {"password": "x"}}
    plan = plan_server(spec(**wish), there)
    assert plan.settings == {"cipassword": "x", "description": "notes"}
    assert [change.item for change in plan.changes] == ["cipassword", "creation"]
    assert not plan_server(spec(**wish, create=False), there).changed
    other = plan_server(spec(create=False, description="new"), there)
    assert other.settings == {"description": f"{MARKER} (1-2)\n\nnew"}
    assert other.changes == (Change("description", "notes", "new"),)


@pytest.mark.parametrize(
    ("state", "running", "waits", "power_cycle", "power"),
    [
        ("present", False, True, "when_needed", None),
        ("present", True, True, "never", None),
        ("present", True, True, "when_needed", "reboot"),
        ("present", True, False, "when_needed", None),
        ("started", False, True, "never", "start"),
        ("started", True, True, "when_needed", "reboot"),
        ("stopped", True, True, "when_needed", "stop"),
        ("stopped", False, True, "when_needed", None),
        ("restarted", True, False, "never", "reboot"),
        ("restarted", False, False, "never", "start"),
    ],
)
def test_power(state: str, running: bool, waits: bool, power_cycle: str, power: str | None) -> None:
    wish = spec(state=state, power_cycle=power_cycle, **({"memory": 4096} if waits else {"tags": ["x"]}))
    plan = plan_server(wish, guest(running=running))
    assert plan.power == power
    assert plan.pending == (("memory",) if waits and running and power is None else ())


def test_what_waits_already_counts_when_it_is_managed() -> None:
    there = guest(running=True, pending={"memory": "1024", "cores": "1"})
    assert plan_server(spec(memory=2048), there).pending == ("memory",)
    assert not plan_server(spec(memory=2048), there).changed
    assert plan_server(spec(memory=2048, power_cycle="when_needed"), there).power == "reboot"
    assert plan_server(spec(tags=[]), there).pending == ()


def test_back_to_what_runs_leaves_nothing_waiting() -> None:
    there = guest(running=True, pending={"memory": "1024"})
    plan = plan_server(spec(memory=1024, power_cycle="when_needed"), there)
    assert plan.settings == {"memory": "1024"}
    assert (plan.pending, plan.power) == ((), None)


def test_growing_a_disk_with_something_pending_writes_the_pending_line_again() -> None:
    line = "local-lvm:vm-100-disk-0,discard=on,size=3G,ssd=1"
    there = guest({"scsi0": line}, running=True, pending={"scsi0": CONFIG["scsi0"]})
    plan = plan_server(spec(disks={"scsi0": {"size": "5G"}}), there)
    assert plan.resizes == {"scsi0": 5 * 1024**3}
    assert values.parse_drive(plan.settings["scsi0"]) == values.parse_drive(line)


@pytest.mark.parametrize(
    ("key", "value", "config", "at_once"),
    [
        ("memory", "4096", {}, False),
        ("memory", "4096", {"hotplug": "memory,disk"}, True),
        ("cores", "4", {"hotplug": "cpu"}, False),
        ("tags", "x", {"hotplug": "0"}, True),
        ("net1", "virtio,bridge=vmbr0", {}, True),
        ("net1", "virtio,bridge=vmbr0", {"hotplug": "0"}, False),
        ("scsi1", "local-lvm:4", {}, True),
        ("sata1", "local-lvm:4", {}, False),
        ("scsi1", "local-lvm:4", {"hotplug": "network"}, False),
        ("scsi0", "local-lvm:vm-100-disk-0,discard=on,size=3G,ssd=1", {}, False),
        ("scsi0", "local-lvm:vm-100-disk-0,backup=0,discard=on,size=3G", {}, True),
        ("sata1", "local-lvm:v,backup=0", {"sata1": "local-lvm:v"}, True),
        ("balloon", "0", {}, False),
        ("balloon", "512", {"balloon": "1024"}, True),
        ("ciuser", "ops", {}, False),
    ],
)
def test_hotplug(key: str, value: str, config: dict[str, Any], at_once: bool) -> None:
    assert takes_effect_at_once(key, value, guest(config, running=True)) is at_once
    assert takes_effect_at_once(key, value, guest(config, running=False))


def test_kib_are_exact_in_gib() -> None:
    for size in ("1K", "104858K", "3G", "1.5T", "7340033K"):
        plan = plan_server(spec(disks={"scsi1": {"size": size}}), guest())
        gib = re.fullmatch(r"local-lvm:([0-9.]+)", plan.settings["scsi1"])
        assert gib
        assert int(float(gib[1]) * 1024**2 + 0.5) * 1024 == values.parse_size(size)


def test_diff_has_what_differs() -> None:
    plan = plan_server(spec(memory=4096, tags=["x"]), guest())
    assert plan.diff() == {
        "before_header": "server web-01",
        "after_header": "server web-01",
        "before": {"memory": 2048},
        "after": {"memory": 4096, "tags": ["x"]},
    }
