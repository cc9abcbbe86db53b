# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nodes join a cluster and leave it: foretold by check mode, done once, and whatever goes wrong is one sentence."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.pvefleet.infra.plugins.module_utils._pve import membership
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import PveClient
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.errors import Unable
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.membership import Membership
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.membership_plan import (
    JoinSpec,
    Peer,
    RemoveSpec,
    join_spec,
    remove_spec,
)

from tests.lab import LabSite, standalone_nodes
from tests.modules.conftest import RunModule

pytestmark = pytest.mark.usefixtures("quick")
TIME_SCALE = 0.02


@pytest.fixture(autouse=True)
def cache(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def site() -> Iterator[LabSite]:
    running = standalone_nodes(3, time_scale=TIME_SCALE)
    yield running
    running.stop()


def options(site: LabSite, name: str = "pve2", peer: str = "pve1", **changes: Any) -> dict[str, Any]:
    """The issue's shape."""
    node, other = site[name], site[peer]
    return {
        "api_host": node.host,
        "api_port": node.port,
        "api_user": "root@pam",
        "api_password": node.password,
        "tls_fingerprint": node.fingerprint,
        "peer": {
            "address": f"{other.host}:{other.port}",
            "password": other.password,
            "fingerprint": other.fingerprint,
        },
        "cluster_name": "lab",
        **changes,
    }


def removal(site: LabSite, name: str, at: str = "pve1", **changes: Any) -> dict[str, Any]:
    node = site[at]
    return {
        "api_host": node.api_endpoint,
        "api_user": "root@pam",
        "api_password": node.password,
        "tls_fingerprint": node.fingerprint,
        "node": name,
        "state": "absent",
        **changes,
    }


def spec(site: LabSite, name: str = "pve2", peer: str = "pve1", **changes: Any) -> JoinSpec:
    node, other = site[name], site[peer]
    given = {"cluster_name": "lab", "timeout": 5, "quorum_timeout": 3, **changes}
    return JoinSpec(node.host, Peer(other.host, other.port, other.password, other.fingerprint), **given)


def join(site: LabSite, name: str = "pve2", peer: str = "pve1", **changes: Any) -> Membership:
    client = PveClient(site[name].connection(retry_seconds=2))
    return membership.join(client, spec(site, name, peer, **changes))


def remove(site: LabSite, name: str, at: str = "pve1", *, force: bool = False, check: bool = False) -> Membership:
    client = PveClient(site[at].connection(retry_seconds=1))
    return membership.remove(client, RemoveSpec(name, force, timeout=3), check_mode=check)


def writes(site: LabSite) -> list[tuple[str, str]]:
    return [
        (name, path)
        for name, node in site.nodes.items()
        for method, path in node.requests
        if method != "GET" and path != "/access/ticket"
    ]


def members(site: LabSite, at: str = "pve1") -> dict[str, bool]:
    pve = site[at].pve
    return {} if pve.standalone else {name: state["online"] for name, state in pve.nodes.items()}


# ------------------------------------------------------------------- as a user does


def test_a_cluster_is_formed_and_joined(site: LabSite, run_module: RunModule) -> None:
    wanted = options(site)
    old = site["pve2"].fingerprint
    foretold = run_module("pve_node_join", wanted, check=True)
    assert writes(site) == []
    made = run_module("pve_node_join", wanted)
    assert (foretold["changed"], made["changed"]) == (True, True)
    assert foretold["diff"] == made["diff"]
    assert made["diff"]["after"] == {"cluster": {"name": "lab", "formed_on": "pve1"}, "member_of": "lab"}
    assert made["diff"]["before"] == {}
    assert made["cluster"] == foretold["cluster"] == {"name": "lab", "quorate": True, "nodes": ["pve1", "pve2"]}
    assert made["node"] == {
        "name": "pve2",
        "address": site["pve2"].host,
        "fingerprint": site["pve2"].fingerprint,
        "status": "online",
    }
    assert foretold["node"] == {**made["node"], "fingerprint": None}
    assert site["pve2"].fingerprint != old
    assert made["peer_fingerprint"] == site["pve1"].fingerprint
    done = writes(site)
    assert done == [
        ("pve1", "/cluster/config"),
        ("pve1", "/cluster/config/nodes/pve2"),
        ("pve2", "/cluster/config/join"),
    ]
    # the task's own fingerprint is the old one, and is so no reason to fail
    again = run_module("pve_node_join", wanted)
    assert not again["changed"]
    assert (again["node"], again["cluster"]) == (made["node"], made["cluster"])
    # with the new one it is the node itself that says so
    known = run_module("pve_node_join", {**wanted, "tls_fingerprint": made["node"]["fingerprint"]}, check=True)
    assert (known["changed"], known["node"]) == (False, made["node"])
    assert writes(site) == done
    assert not any(
        site[name].password in result["output"] for name in site.nodes for result in (foretold, made, again, known)
    )


def test_a_node_leaves(site: LabSite, run_module: RunModule) -> None:
    for name in ("pve2", "pve3"):
        join(site, name)
    wanted = removal(site, "pve3")
    before = writes(site)
    online = run_module("pve_node_join", wanted, fails=True)
    assert online["msg"] == (
        "Unable to remove node pve3 from its cluster: it is online; shut it down for good first, a node that was"
        " removed must never start again as it is"
    )
    site.power_off("pve3")
    foretold = run_module("pve_node_join", wanted, check=True)
    assert writes(site) == before
    made = run_module("pve_node_join", wanted)
    assert (foretold["changed"], made["changed"]) == (True, True)
    assert foretold["diff"] == made["diff"]
    assert (made["diff"]["before"], made["diff"]["after"]) == ({"member_of": "lab"}, {})
    assert made["cluster"] == foretold["cluster"] == {"name": "lab", "quorate": True, "nodes": ["pve1", "pve2"]}
    assert made["node"]["status"] == "absent"
    assert members(site) == {"pve1": True, "pve2": True}
    after = writes(site)
    again = run_module("pve_node_join", wanted)
    assert (again["changed"], again["node"]["status"]) == (False, "absent")
    assert writes(site) == after


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"api_password": None, "api_token_id": "root@pam!fleet", "api_token_secret": "s"}, "this is an API token of"),
        ({"api_user": "ops@pve"}, "never from an API token or another user; this is ops@pve"),
        ({"peer": None}, "peer is missing"),
        ({"peer": {"address": "10.0.0.5", "password": "x", "user": "ops@pve"}}, "peer.user is ops@pve, but"),
        ({"peer": {"address": "10.0.0.5", "password": "x", "fingerprint": "AA:BB"}}, "peer.fingerprint: a SHA-256"),
        ({"peer": {"address": "http://10.0.0.5", "password": "x"}}, "peer.address: 'http://10.0.0.5' must be"),
        ({"cluster_name": "much-too-long-a-name"}, "cluster_name 'much-too-long-a-name' must be 1 to 15"),
        ({"links": {"ring0": "10.0.0.1"}}, "links: 'ring0' is none of link0 to link7"),
        ({"force": True}, "force is for state=absent"),
        ({"votes": -1}, "votes must be at least 0"),
        ({"quorum_timeout": 0}, "quorum_timeout must be at least 1"),
        ({"state": "absent", "node": "pve3"}, "peer is for state=present only"),
        ({"state": "absent", "peer": None, "cluster_name": None}, "node is missing"),
    ],
)
def test_wrong_options(changes: dict[str, Any], complaint: str) -> None:
    params: dict[str, Any] = {
        "peer": {"address": "10.0.0.5", "password": "hidden-1", "fingerprint": "AA:" * 31 + "AA"},
        "cluster_name": "lab",
        "state": "present",
        "timeout": 600,
        "quorum_timeout": 120,
        **changes,
    }
    connection = membership.make_connection(
        endpoints=["10.0.0.10"],
        user=params.get("api_user", "root@pam") if "api_token_id" not in params else None,
        password=params.get("api_password", "hidden-2"),
        token_id=params.get("api_token_id"),
        token_secret=params.get("api_token_secret"),
    )
    make = join_spec if params["state"] == "present" else remove_spec
    with pytest.raises(Unable) as raised:
        make(params, connection)
    assert complaint in str(raised.value)
    assert str(raised.value).startswith("Unable to ")
    assert "hidden" not in str(raised.value)


def test_a_token_is_refused_before_anything_is_asked(site: LabSite, run_module: RunModule) -> None:
    token = {"api_password": None, "api_user": None, "api_token_id": "root@pam!fleet", "api_token_secret": "1-2-3"}
    for wanted in (options(site, **token), removal(site, "pve3", **token)):
        failed = run_module("pve_node_join", wanted, fails=True)
        assert "Proxmox VE takes this from root@pam with its password only, never from an API token" in failed["msg"]
    assert all(node.requests == [] for node in site.nodes.values())


# ------------------------------------------------------------------------- refusals


def test_several_addresses_are_no_joining_node(site: LabSite) -> None:
    connection = replace(site["pve2"].connection(), endpoints=("https://a:8006", "https://b:8006"))
    with pytest.raises(Unable, match="must be to the one node that joins"):
        join_spec({"peer": {"address": "a", "password": "b"}, "timeout": 1, "quorum_timeout": 1}, connection)


def test_an_unknown_peer_is_shown_and_not_trusted(site: LabSite) -> None:
    client = PveClient(site["pve2"].connection())
    known = spec(site)
    unknown = replace(known, peer=replace(known.peer, fingerprint=None))
    with pytest.raises(Unable) as refused:
        membership.join(client, unknown)
    assert (
        f"the peer is not trusted yet, its certificate has the fingerprint {site['pve1'].fingerprint}; compare"
        in str(refused.value)
    )
    assert all(node.requests == [] for node in site.nodes.values())
    for trust in ({"accept_fingerprint": True}, {"ca_path": site["pve1"].ca_file}):
        peer = replace(unknown.peer, **trust)
        found = membership.join(client, replace(unknown, peer=peer), check_mode=True)
        assert (found.plan.changed, found.peer_fingerprint) == (True, site["pve1"].fingerprint)
    with pytest.raises(Unable, match="Unable to trust the peer"):
        membership.join(client, replace(unknown, peer=replace(unknown.peer, ca_path=site["pve2"].ca_file)))


def test_wrong_credentials_of_the_peer(site: LabSite) -> None:
    client = PveClient(site["pve2"].connection())
    right = spec(site)
    with pytest.raises(Unable) as refused:
        membership.join(client, replace(right, peer=replace(right.peer, password="guessed-1")))
    assert str(refused.value) == (
        f"Unable to ask the peer {site['pve1'].host}: Proxmox VE does not accept the login of root@pam: authentication"
        " failure"
    )
    with pytest.raises(Unable) as refused:
        membership.join(client, replace(right, peer=replace(right.peer, fingerprint=site["pve3"].fingerprint)))
    assert str(refused.value).endswith(f"its certificate is not the pinned one: it has {site['pve1'].fingerprint}")
    assert writes(site) == []


def test_a_changed_certificate_of_a_stranger_is_an_error(site: LabSite) -> None:
    client = PveClient(site["pve2"].connection(tls_fingerprint=site["pve3"].fingerprint))
    with pytest.raises(Unable, match=r"Unable to ask the joining node .* it is no member: .* not the pinned one"):
        membership.join(client, spec(site))
    join(site, "pve3")
    with pytest.raises(Unable, match=r"cluster lab has no member with this address: .* not the pinned one"):
        membership.join(client, spec(site))


def test_a_node_with_guests_stays_out(site: LabSite) -> None:
    site.do(site["pve2"].pve.add_vm, 100, "web-01", node="pve2")
    site.do(site["pve2"].pve.settle_resources)
    with pytest.raises(Unable, match=r"pve2 has guests, .*: server 100 \(web-01\)$"):
        join(site)
    assert writes(site) == []


def test_a_member_of_another_cluster_stays_there(site: LabSite) -> None:
    client = PveClient(site["pve3"].connection())
    client.run("POST", "/cluster/config", {"clustername": "other"}, timeout=10)
    with pytest.raises(Unable, match=r"pve3 is in cluster other$"):
        join(site, "pve3")
    with pytest.raises(Unable, match=r"the peer pve3 is in cluster other$"):
        join(site, "pve2", "pve3")
    assert members(site) == {}


def test_another_cluster_of_the_same_name(site: LabSite) -> None:
    for name in ("pve1", "pve3"):
        PveClient(site[name].connection()).run("POST", "/cluster/config", {"clustername": "lab"}, timeout=10)
    with pytest.raises(Unable, match=r"pve3 is in another cluster that is called lab too$"):
        join(site, "pve3")


def test_another_cluster_with_nodes_of_the_same_names(site: LabSite) -> None:
    join(site)
    with LabSite(2, time_scale=TIME_SCALE) as elsewhere:
        join(elsewhere)
        client = PveClient(elsewhere["pve2"].connection())
        with pytest.raises(Unable, match=r"pve2 is in another cluster that is called lab too$"):
            membership.join(client, spec(site))


def test_a_standalone_peer_needs_a_name_for_its_cluster(site: LabSite) -> None:
    with pytest.raises(Unable, match="the peer pve1 stands alone; give cluster_name"):
        join(site, cluster_name=None)


def test_other_versions_and_clocks(site: LabSite) -> None:
    pve = site["pve2"].pve
    pve.version = "8.4.1"
    with pytest.raises(Unable, match=r"pve2 has Proxmox VE 8\.4\.1 and the peer 9\.1\.7: a cluster needs one major"):
        join(site)
    pve.version = "9.0.3"
    pve.fail("GET", "/nodes/pve2/time", 500, "no time", times=1)
    assert membership.join(PveClient(site["pve2"].connection()), spec(site), check_mode=True).warnings == ()
    pve.clock_ahead["pve2"] = 300
    found = membership.join(PveClient(site["pve2"].connection()), spec(site), check_mode=True)
    assert found.plan.changed
    assert found.warnings[0].startswith("The clocks of pve2 and pve1 differ by 30")


def test_an_expected_name(site: LabSite) -> None:
    with pytest.raises(Unable, match="the node there is called pve2, not pve7"):
        join(site, node="pve7")


def test_a_peer_without_quorum(site: LabSite) -> None:
    join(site, "pve3")
    site.power_off("pve3")
    before = writes(site)
    with pytest.raises(Unable, match=r"cluster lab has no quorum, these nodes are offline: pve3$"):
        join(site)
    assert writes(site) == before
    site.power_on("pve3")
    assert join(site).plan.changed
    assert members(site) == {"pve1": True, "pve2": True, "pve3": True}


# --------------------------------------------------------------------------- faults


def settle(site: LabSite, name: str = "pve2") -> None:
    """Until a join that nobody waits for is over."""
    deadline = time.monotonic() + 10
    while not (site[name].pve is site["pve1"].pve and site[name].answers):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def finished(site: LabSite, **changes: Any) -> None:
    """The next run has nothing to do and writes nothing."""
    assert members(site) == {"pve1": True, "pve2": True}
    before = writes(site)
    assert not join(site, **changes).plan.changed
    assert writes(site) == before


@pytest.mark.parametrize("status", [None, 595, 596])
@pytest.mark.parametrize(("node", "path"), [("pve1", "/cluster/config"), ("pve2", "/cluster/config/join")])
def test_a_lost_answer(site: LabSite, node: str, path: str, status: int | None) -> None:
    site.do(site[node].pve.lose_answer, "POST", path, status)
    assert join(site).plan.changed
    assert sorted(writes(site)) == [
        ("pve1", "/cluster/config"),
        ("pve1", "/cluster/config/nodes/pve2"),
        ("pve2", "/cluster/config/join"),
    ]
    finished(site)


def test_it_is_over_when_the_node_answers_again(site: LabSite) -> None:
    site["pve2"].pve.time_scale = 0.3  # its new certificate and its restart take a while
    made = join(site)
    assert (made.node["fingerprint"], made.warnings) == (site["pve2"].fingerprint, ())
    PveClient(site["pve2"].connection()).get("/version", retry_seconds=0)


def test_a_join_task_that_fails(site: LabSite) -> None:
    site.do(site["pve1"].pve.fail, "POST", "/cluster/config/nodes/pve2", 500, "invalid corosync.conf", times=1)
    with pytest.raises(Unable) as failed:
        join(site)
    assert str(failed.value).startswith(
        f"Unable to join the node at {site['pve2'].host} to cluster lab: Task clusterjoin"
    )
    assert "An error occurred on the cluster node: invalid corosync.conf" in str(failed.value)
    assert join(site).plan.changed
    finished(site)


def test_a_join_that_is_cut_off_is_finished_by_the_next(site: LabSite) -> None:
    """The cluster has the node on its list, and the node knows nothing of it."""
    join(site, "pve3")
    stages: list[str] = []

    def cut(stage: str) -> None:
        stages.append(stage)
        if stages == ["added"]:
            raise site.task_error("unexpected end")

    site.at_stage = cut
    # three votes expected, two there
    with pytest.raises(Unable, match="unexpected end"):
        join(site)
    assert members(site) == {"pve1": True, "pve2": False, "pve3": True}
    assert join(site).plan.changed
    assert members(site) == {"pve1": True, "pve2": True, "pve3": True}
    assert not join(site).plan.changed


def test_a_cut_off_join_that_took_the_quorum_away(site: LabSite) -> None:
    def cut(stage: str) -> None:
        raise site.task_error("unexpected end")

    site.at_stage = cut
    with pytest.raises(Unable, match="unexpected end"):
        join(site)
    with pytest.raises(Unable, match="an earlier join has added pve2 and was cut off: run `pvecm expected 1` on pve1"):
        join(site)
    site.at_stage = lambda stage: None
    site.do(site["pve1"].pve.regain_quorum)
    assert join(site).plan.changed
    finished(site)


def test_quorum_that_never_comes(site: LabSite) -> None:
    site.withholds_quorum = True
    with pytest.raises(Unable) as failed:
        join(site, quorum_timeout=1)
    assert "after 1 s pve2 is a member, but the cluster has no quorum, these nodes are offline: pve2" in str(
        failed.value
    )
    assert "; the task goes on: UPID:pve2:" in str(failed.value)
    again = writes(site)
    with pytest.raises(Unable, match="after 1 s pve2 is a member, but the cluster has no quorum"):
        join(site, quorum_timeout=1)
    assert writes(site) == again
    site.withholds_quorum = False
    assert not join(site).plan.changed
    settle(site)
    finished(site)


@pytest.mark.parametrize("stage", ["added", "stopped", "quorate"])
def test_a_peer_that_drops_connections_meanwhile(site: LabSite, stage: str) -> None:
    def drop(reached: str) -> None:
        if reached == stage:
            for _time in range(2):
                site["pve1"].pve.lose_answer("GET", "/cluster/status")

    site.at_stage = drop
    assert join(site).plan.changed
    finished(site)


def test_a_bad_network(site: LabSite) -> None:
    """Whatever the first run makes of it, in one sentence, the second finishes it."""
    client = PveClient(site["pve2"].connection(retry_seconds=2))
    for name in ("pve1", "pve2"):
        site.do(site[name].pve.flaky_network, drop_rate=0.25)
        site.do(site[name].pve._random.seed, 5)
    try:
        membership.join(client, spec(site))
    except Unable as failed:
        sentence = str(failed)
        assert sentence.startswith("Unable to ")
    for name in ("pve1", "pve2"):
        site.do(site[name].pve.flaky_network, drop_rate=0)
    join(site)
    settle(site)
    finished(site)


def test_somebody_else_changes_the_cluster(site: LabSite) -> None:
    join(site, "pve3")
    site.do(site["pve1"].pve.hold_corosync_lock, 15)
    assert join(site).plan.changed
    joins = [path for name, path in writes(site) if name == "pve2"]
    assert joins == ["/cluster/config/join"] * len(joins)
    assert len(joins) >= 2
    assert members(site) == {"pve1": True, "pve2": True, "pve3": True}


def test_joins_at_the_same_time_come_one_after_the_other(site: LabSite) -> None:
    results: dict[str, Membership] = {}
    threads = [
        threading.Thread(target=lambda name=name: results.update({name: join(site, name)})) for name in ("pve2", "pve3")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {name: result.plan.changed for name, result in results.items()} == {"pve2": True, "pve3": True}
    assert members(site) == {"pve1": True, "pve2": True, "pve3": True}
    assert writes(site).count(("pve1", "/cluster/config")) == 1
    # one after the other: none of them met the other's lack of quorum
    assert len(writes(site)) == 5


def test_a_lock_that_is_never_free(site: LabSite) -> None:
    with (
        membership._one_at_a_time("lab", spec(site)),
        pytest.raises(Unable, match="another join to cluster lab is still under way after 1 s"),
    ):
        join(site, timeout=1)


# -------------------------------------------------------------------------- removal


def test_what_stays_behind_is_named(site: LabSite) -> None:
    for name in ("pve2", "pve3"):
        join(site, name)
    pve = site["pve1"].pve

    def fill() -> None:
        pve.add_vm(100, "web-01", node="pve3")
        pve.replication = [{"id": "101-0", "type": "local", "target": "pve3", "guest": 101}]
        pve.ha_rules = [{"rule": "near-disks", "type": "node-affinity", "nodes": "pve2:2,pve3"}]
        pve.ceph_services = {"mon": {"pve3": {"hostname": "pve3"}}, "osd": [{"id": 4, "hostname": "pve3"}]}
        pve.settle_resources()

    site.do(fill)
    site.power_off("pve3")
    before = writes(site)
    with pytest.raises(Unable) as refused:
        remove(site, "pve3")
    assert str(refused.value).endswith(
        "the cluster still has there: server 100, replication job 101-0, HA rule near-disks, Ceph mon, Ceph"
        " osd.4; move them away, or give force=true to leave them"
    )
    assert writes(site) == before
    assert remove(site, "pve3", force=True).plan.changed
    assert members(site) == {"pve1": True, "pve2": True}


def test_removals_that_are_refused(site: LabSite) -> None:
    with pytest.raises(Unable, match="it is the node that was asked"):
        remove(site, "pve1")
    assert not remove(site, "pve2").plan.changed
    join(site)
    with pytest.raises(Unable, match="it is the node that was asked"):
        remove(site, "pve1")
    assert not remove(site, "pve9").plan.changed
    site.power_off("pve2")
    with pytest.raises(Unable, match=r"cluster lab has no quorum, these nodes are offline: pve2$"):
        remove(site, "pve2")
    assert members(site) == {"pve1": True, "pve2": False}


@pytest.mark.parametrize("status", [None, 596])
def test_a_removal_whose_answer_is_lost(site: LabSite, status: int | None) -> None:
    for name in ("pve2", "pve3"):
        join(site, name)
    site.power_off("pve3")
    site.do(site["pve1"].pve.lose_answer, "DELETE", "/cluster/config/nodes/pve3", status)
    assert remove(site, "pve3").plan.changed
    assert members(site) == {"pve1": True, "pve2": True}
    assert not remove(site, "pve3").plan.changed


def test_a_removed_node_comes_back_as_a_new_one(site: LabSite) -> None:
    for name in ("pve2", "pve3"):
        join(site, name)
    site.power_off("pve3")
    remove(site, "pve3")
    site.reinstall("pve3")
    assert join(site, "pve3").plan.changed
    assert members(site) == {"pve1": True, "pve2": True, "pve3": True}
