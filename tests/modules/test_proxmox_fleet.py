# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""proxmox_fleet: many servers by few calls, each by itself, nobody else's touched."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.pvefleet.infra.plugins.module_utils._pve import fleet
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import PveClient
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.errors import Unable
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.fleet import Outcome, converge_fleet
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.fleet_spec import fleet_spec
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server_work import Limits

from tests.modules.conftest import RunModule

CLONE = {"template": "debian-12-cloud", "full": True, "storage": "local-lvm"}
DEFAULTS = {"clone": CLONE, "cores": 2, "memory": 1024, "state": "started"}
Make = Callable[..., list[Outcome]]


@pytest.fixture
def client(lab: Any, quick: None) -> Iterator[PveClient]:
    client = PveClient(lab.connection(default_storage="local-lvm", retry_seconds=3.0))
    yield client
    client.close()
    assert lab.pve.faults == []  # what was to go wrong did


@pytest.fixture
def make(client: PveClient) -> Make:
    def run(servers: list[dict[str, Any]], *, check_mode: bool = False, **options: Any) -> list[Outcome]:
        wish = {"workers": 8, "per_node": 8, "per_storage": 8, "defaults": DEFAULTS, "servers": servers, **options}
        return converge_fleet(client, fleet_spec(wish), check_mode=check_mode)

    return run


def names(count: int) -> list[dict[str, Any]]:
    return [{"name": f"f-{number:02}"} for number in range(count)]


def guests(lab: Any) -> dict[str, Any]:
    """The servers by name; a name that two have fails."""
    found = [guest for guest in lab.pve.vms if guest.vmid != lab.template_vmid]
    assert len({guest.name for guest in found}) == len(found)
    return {guest.name: guest for guest in found}


def writes(lab: Any, mark: int) -> list[tuple[str, str]]:
    return [(method, path) for method, path in lab.requests[mark:] if method != "GET" and path != "/access/ticket"]


def errors(outcomes: list[Outcome]) -> list[str]:
    return [str(outcome.error) for outcome in outcomes if outcome.error]


# ------------------------------------------------------------------------------------------------ the module


def module_params(lab: Any, **options: Any) -> dict[str, Any]:
    connection = {"api_host": lab.api_endpoint, "api_user": lab.username, "api_password": lab.password}
    return {**connection, "ca_path": lab.ca_file, **options}


@pytest.mark.lab(time_scale=0.01)
def test_the_fleet_of_the_documentation(run_module: RunModule, lab: Any) -> None:
    """As printed: foretold, made, and then nothing left to do."""
    servers = [{"name": "f-00"}, {"name": "f-01", "memory": 2048}]
    wish = module_params(lab, defaults=DEFAULTS, servers=servers, workers=8)
    foretold = run_module("proxmox_fleet", wish, check=True)
    assert writes(lab, 0) == []
    made = run_module("proxmox_fleet", wish)
    assert made["changed"] is foretold["changed"] is True
    assert [server["name"] for server in made["servers"]] == ["f-00", "f-01"]
    assert all(server["status"] == "running" and not server["failed"] for server in made["servers"])
    assert [diff["before_header"] for diff in made["diff"]] == ["server f-00", "server f-01"]
    assert made["diff"] == foretold["diff"]
    assert {name: int(guest.config["memory"]) for name, guest in guests(lab).items()} == {"f-00": 1024, "f-01": 2048}
    mark = len(lab.requests)
    again = run_module("proxmox_fleet", wish)
    assert (again["changed"], again["diff"], writes(lab, mark)) == (False, [], [])


@pytest.mark.lab(time_scale=0.01)
def test_failures_are_told_and_secrets_are_not(run_module: RunModule, lab: Any) -> None:
    secret = "unforgettable-7"
    servers = [
        {"name": "f-00", "cloud_init": {"password": secret}},
        {"name": "f-01", "clone": {"template": "nowhere"}},
    ]
    result = run_module("proxmox_fleet", module_params(lab, defaults=DEFAULTS, servers=servers), fails=True)
    assert result["msg"] == (
        "1 of 2 servers failed: Unable to create server f-01: there is no template nowhere"
    )
    assert [server["failed"] for server in result["servers"]] == [False, True]
    assert result["changed"] is True
    assert list(guests(lab)) == ["f-00"]
    assert secret not in result["output"]
    assert lab.password not in result["output"]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"servers": [{"memory": 1024}]}, "server number 1: name or vmid is needed"),
        ({"servers": [{"name": "f 1"}]}, "server f 1: name: 'f 1'"),
        ({"servers": [{"name": "f-1"}, {"name": "f-1"}]}, "servers lists name f-1 more than once"),
        ({"servers": [{"vmid": 300, "name": "a"}, {"vmid": 300, "name": "b"}]}, "servers lists vmid 300 more than"),
        ({"servers": [{"name": "f-1", "clone": {"full": False}}]}, "server f-1: clone: template is needed"),
        ({"servers": [{"name": "f-1", "disks": {"scsi77": {}}}]}, "server f-1: disks: 'scsi77' is not a disk"),
        ({"servers": [], "prune": True}, "prune needs tag"),
        ({"servers": [], "prune": True, "tag": "f"}, "would remove the whole fleet"),
        ({"servers": [{"name": "f-1"}], "tag": "f f"}, "tag: 'f f' is not a tag"),
        ({"servers": [{"name": "f-1"}], "workers": 0}, "workers must be from 1 to 32, not 0"),
        ({"servers": [{"name": "f-1"}], "per_node": 0}, "per_node must be 1 or more, not 0"),
    ],
)
def test_refused_before_anything(lab: Any, make: Make, options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        make(**{"defaults": {}, **options})
    assert lab.requests == []


# ------------------------------------------------------------------------------------------------ few calls


@pytest.mark.lab(time_scale=0.01)
def test_calls(lab: Any, client: PveClient, make: Make) -> None:
    """Five a server to make it, besides asking for its tasks; N + 5 at most when nothing is to do."""
    count = 12
    made = make(names(count), tag="fleet-f", prune=True)
    assert errors(made) == []
    assert len([path for _method, path in lab.requests if "/tasks/" not in path]) <= 5 * count + 5
    mark = len(lab.requests)
    again = make(names(count), tag="fleet-f", prune=True)
    assert [outcome.changed for outcome in again] == [False] * count
    assert len(lab.requests) - mark <= count + 5
    assert writes(lab, mark) == []


@pytest.mark.lab(time_scale=0.01)
def test_freshly_made_servers_are_not_made_twice(lab: Any, make: Make) -> None:
    """The listing does not know the names of servers for some seconds (the lab is late as PVE is)."""
    for _run in range(3):
        assert errors(make(names(4))) == []
    assert len(guests(lab)) == 4


def test_power_is_what_the_node_says_and_not_the_listing(lab: Any, make: Make, client: PveClient) -> None:
    make(names(1), defaults={**DEFAULTS, "state": "stopped"})
    lab.do(lab.pve.settle_resources)
    vmid = guests(lab)["f-00"].vmid
    client.run("POST", f"/nodes/pve1/qemu/{vmid}/status/start", {}, timeout=10)
    stopped = make(names(1), defaults={"state": "stopped", "force": True})
    assert [change.item for change in stopped[0].plan.changes] == ["power"]
    assert not guests(lab)["f-00"].running


# ------------------------------------------------------------------------------------------------ limits


@pytest.fixture
def under_way(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """The most tasks that were under way at once, of all and of each node."""
    most: dict[str, int] = {}
    now: dict[str, int] = {}
    held = Limits.held
    guard = threading.Lock()

    def count(key: str, step: int) -> None:
        with guard:
            now[key] = now.get(key, 0) + step
            most[key] = max(most.get(key, 0), now[key])

    @contextlib.contextmanager
    def counted(self: Limits, node: str, storages: Any, source: int | None = None) -> Iterator[None]:
        keys = ["all", node, *storages]
        with held(self, node, storages, source):
            for key in keys:
                count(key, 1)
            try:
                yield
            finally:
                for key in keys:
                    count(key, -1)

    monkeypatch.setattr(Limits, "held", counted)
    return most


@pytest.mark.lab(time_scale=0.05)
@pytest.mark.parametrize(
    ("limits", "key", "most"),
    [
        ({"workers": 3}, "all", 3),
        ({"per_node": 2}, "pve1", 2),
        ({"per_storage": 2}, "pve1:local-lvm", 2),
    ],
)
def test_limits(lab: Any, make: Make, under_way: dict[str, int], limits: dict[str, int], key: str, most: int) -> None:
    assert errors(make(names(8), **limits)) == []
    assert under_way[key] == most


@pytest.mark.lab(time_scale=0.05)
def test_a_running_source_is_copied_one_at_a_time(lab: Any, make: Make) -> None:
    """PVE refuses the others with a lock timeout after a second."""
    assert errors(make([{"name": "base"}])) == []
    made = make(names(4), defaults={**DEFAULTS, "clone": {"template": "base"}})
    assert errors(made) == []
    clones = [task for task in lab.pve.tasks.values() if task["type"] == "qmclone"]
    assert [task["exitstatus"] for task in clones] == ["OK"] * 5


# ------------------------------------------------------------------------------------------------ each by itself


@pytest.mark.lab(time_scale=0.01)
def test_one_fails_and_the_others_do_not(lab: Any, make: Make) -> None:
    servers = [*names(3), {"name": "f-90", "memory": 1024, "nics": {"net0": {"bridge": "vmbr77"}}}]
    made = make(servers)
    assert errors(made) == [
        "Unable to connect server f-90 to vmbr77: node pve1 has only the bridges vmbr0, vmbr1"
    ]
    assert [outcome.changed for outcome in made] == [True, True, True, False]
    assert sorted(guests(lab)) == ["f-00", "f-01", "f-02"]


@pytest.mark.lab(time_scale=0.01)
def test_without_quorum_the_rest_is_not_tried(lab: Any, make: Make) -> None:
    lab.do(lab.pve.lose_quorum)
    made = make(names(6), workers=1)
    assert len(errors(made)) == 6
    assert "no quorum" in errors(made)[0]
    assert all("not tried any more" in error for error in errors(made)[1:])
    assert len([path for _method, path in writes(lab, 0) if path.endswith("/clone")]) == 1


def test_nobody_answers(lab: Any, quick: None) -> None:
    client = PveClient(lab.connection(endpoints=("https://127.0.0.1:1",), retry_seconds=0.1))
    with pytest.raises(Unable, match=r"Unable to look at the cluster of the fleet: .*127\.0\.0\.1:1"):
        converge_fleet(client, fleet_spec({"servers": names(3), "workers": 8, "per_node": 8, "per_storage": 8}))


@pytest.mark.lab(time_scale=0.01)
def test_thief_of_vmids(lab: Any, make: Make) -> None:
    """Somebody else creates guests while the fleet does: each number is used once, and theirs stay theirs."""
    strangers = iter((100, 102, 104))

    def steal() -> None:
        vmid = next(strangers)
        if lab.pve.vm(vmid) is None:
            lab.pve.add_vm(vmid, f"stranger-{vmid}", node="pve1").config["description"] = "not yours"

    for _time in range(3):
        lab.do(lab.pve.interpose, "POST", "/9000/clone", steal)
    made = make([*names(5), {"name": "f-50", "vmid": 101}])
    assert errors(made) == []
    ours = {outcome.result.guest.vmid for outcome in made if outcome.result and outcome.result.guest}
    assert len(ours) == 6
    assert guests(lab)["f-50"].vmid == 101
    theirs = [guest for guest in guests(lab).values() if guest.name.startswith("stranger")]
    assert theirs
    assert not ours & {guest.vmid for guest in theirs}
    assert all(guest.config["description"] == "not yours" for guest in theirs)


# ------------------------------------------------------------------------------------------------ the fleet's own


@pytest.mark.lab(time_scale=0.01)
def test_prune_takes_the_fleets_own_and_nothing_else(lab: Any, make: Make, client: PveClient) -> None:
    make([*names(3), {"name": "f-09", "tags": ["blue"]}], tag="fleet-f")
    make([{"name": "other-1"}], tag="fleet-other")
    make([{"name": "plain", "tags": ["blue"]}])
    assert guests(lab)["f-09"].config["tags"] == "blue;fleet-f"

    foretold = make(names(2), tag="fleet-f", prune=True, check_mode=True)
    assert errors(foretold) == []
    assert {outcome.spec.label for outcome in foretold if outcome.changed} == {"f-02", "f-09"}
    assert len(guests(lab)) == 6
    made = make(names(2), tag="fleet-f", prune=True)
    assert [outcome.plan for outcome in made] == [outcome.plan for outcome in foretold]
    assert sorted(guests(lab)) == ["f-00", "f-01", "other-1", "plain"]
    assert not any(outcome.changed for outcome in make(names(2), tag="fleet-f", prune=True))


@pytest.mark.lab(time_scale=0.01)
def test_prune_leaves_what_lost_its_tag_meanwhile(lab: Any, make: Make, client: PveClient) -> None:
    make(names(2), tag="fleet-f")
    vmid = guests(lab)["f-01"].vmid

    def untag() -> None:
        lab.vm(vmid).config.pop("tags")

    lab.do(lab.pve.interpose, "GET", f"/qemu/{vmid}/config", untag)
    made = make(names(1), tag="fleet-f", prune=True)
    assert errors(made) == ["Unable to remove server f-01: it has not got the tag fleet-f any more"]
    assert sorted(guests(lab)) == ["f-00", "f-01"]


@pytest.mark.lab(time_scale=0.01)
def test_a_template_with_the_tag_is_no_server_of_the_fleet(lab: Any, make: Make) -> None:
    def mark() -> None:
        lab.vm(lab.template_vmid).config["tags"] = "fleet-f"

    lab.do(mark)
    assert errors(make(names(1), tag="fleet-f", prune=True)) == []
    assert lab.vm(lab.template_vmid)


@pytest.mark.lab(time_scale=0.01)
def test_the_fleets_own_on_a_node_that_is_offline_are_told(lab: Any, make: Make) -> None:
    lab.add_template(9001, "on-shared", "pve1", "shared")
    elsewhere = {"name": "f-01", "clone": {"template": "on-shared", "storage": "shared"}, "node": "pve2"}
    assert errors(make([{"name": "f-00", "vmid": 100}, {**elsewhere, "vmid": 101}], tag="fleet-f")) == []
    lab.do(lab.pve.settle_resources)
    lab.do(lab.pve.set_node_offline, "pve2")
    for check_mode in (True, False):
        made = make(names(1), tag="fleet-f", prune=True, check_mode=check_mode)
        assert [(outcome.spec.label, outcome.changed) for outcome in made] == [("f-00", False), ("101", False)]
        assert errors(made) == ["Unable to tell whether server 101 is listed: its node pve2 is offline"]


@pytest.mark.lab(time_scale=0.01)
def test_a_listed_server_whose_node_comes_back_meanwhile_is_not_removed(
    lab: Any, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.add_template(9001, "on-shared", "pve1", "shared")
    clone = {"template": "on-shared", "storage": "shared"}
    servers = [{"name": "f-00", "vmid": 100}, {"name": "f-01", "vmid": 101, "clone": clone, "node": "pve2"}]
    assert errors(make(servers, tag="fleet-f")) == []
    lab.do(lab.pve.settle_resources)
    lab.do(lab.pve.set_node_offline, "pve2")
    monkeypatch.setattr(fleet, "_LOOK_SECONDS", 0.0)
    # f-00 is looked at before anything is worked on
    lab.do(lab.pve.interpose, "GET", "/100/pending", lambda: lab.pve.set_node_offline("pve2", False))
    make([{"name": "f-00"}, {"name": "f-01"}], tag="fleet-f", prune=True, workers=1)
    assert "f-01" in guests(lab)


@pytest.mark.lab(time_scale=0.01)
def test_one_server_by_two_names_is_refused(lab: Any, make: Make) -> None:
    make(names(1))
    mark = len(lab.requests)
    with pytest.raises(Unable, match="Unable to manage the fleet: f-00 and 100 are the same server"):
        make([{"name": "f-00", "cores": 1}, {"vmid": 100, "cores": 2}])
    assert writes(lab, mark) == []


@pytest.mark.lab(time_scale=0.01)
def test_absent_and_renamed(lab: Any, make: Make) -> None:
    make(names(3))
    vmid = guests(lab)["f-00"].vmid
    made = make([{"name": "g-00", "vmid": vmid, "rename": True}, {"name": "f-01", "state": "absent"}, {"name": "f-02"}])
    assert errors(made) == []
    assert [outcome.changed for outcome in made] == [True, True, False]
    assert sorted(guests(lab)) == ["f-02", "g-00"]


@pytest.mark.lab(time_scale=0.01)
def test_what_waits_for_a_restart_is_told_and_not_done(lab: Any, make: Make) -> None:
    make(names(1))
    changed = make(names(1), defaults={"cpu": "host"})
    again = make(names(1), defaults={"cpu": "host"})
    assert [outcome.result.pending for outcome in (*changed, *again) if outcome.result] == [("cpu",), ("cpu",)]
    assert [outcome.changed for outcome in (*changed, *again)] == [True, False]
    restarted = make(names(1), defaults={"cpu": "host", "power_cycle": "when_needed"})
    assert [change.item for change in restarted[0].plan.changes] == ["power"]


@pytest.mark.lab(time_scale=0.01)
def test_progress_never_falls_and_ends_at_a_hundred(
    lab: Any, make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "report"
    monkeypatch.setenv("PVEFLEET_REPORT", str(file))
    make(names(4))
    percents = [json.loads(line)["percent"] for line in file.read_text().splitlines()]
    assert percents == sorted(percents)
    assert percents[-1] == 100
    assert len(set(percents)) > 4


# ------------------------------------------------------------------------------------------------ killed in the middle


@pytest.mark.lab(time_scale=0.1)
@pytest.mark.parametrize("where", [("POST", "/9000/clone"), ("PUT", "/config"), ("POST", "/status/start")])
def test_killed_and_run_again(lab: Any, tmp_path: Path, make: Make, where: tuple[str, str]) -> None:
    """SIGKILL while some servers are being copied, configured or started: PVE goes on with what it was told."""
    wish = module_params(lab, defaults=DEFAULTS, servers=names(10), workers=5, tag="fleet-f")
    file = tmp_path / "arguments.json"
    file.write_text(json.dumps({"ANSIBLE_MODULE_ARGS": wish}))
    module = subprocess.Popen(
        [sys.executable, "-m", "ansible_collections.pvefleet.infra.plugins.modules.proxmox_fleet", str(file)],
        env={**os.environ, "HOME": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
    )
    for action in (lambda: None, lambda: None, lambda: os.kill(module.pid, signal.SIGKILL)):
        lab.do(lab.pve.interpose, *where, action)
    assert module.wait(timeout=60) == -signal.SIGKILL
    assert errors(make(names(10), tag="fleet-f")) == []
    assert sorted(guests(lab)) == [server["name"] for server in names(10)]
    assert all(guest.running and "lock" not in guest.config for guest in guests(lab).values())
    assert not any(outcome.changed for outcome in make(names(10), tag="fleet-f"))
