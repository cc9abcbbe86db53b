# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""pve_firewall_group and pve_firewall_group_info, against the lab."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import PveClient
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.errors import Unable
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.firewall import Result, converge, read_groups
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.firewall_spec import group_spec

from .conftest import RunModule
from .jobs import add_server

# As the collection's description prints it, but for the cluster.
PRINTED = """
name: web
comment: web servers
rules: [{action: ACCEPT, type: in, proto: tcp, dport: "80", source: 10.0.0.0/8, comment: http}]
members: [web-01, web-02]
"""
HTTP = {"action": "ACCEPT", "proto": "tcp", "dport": "80", "comment": "http"}
SSH = {"action": "ACCEPT", "macro": "SSH", "source": "10.0.0.0/8"}
REST = {"action": "DROP", "log": "info"}
GROUP = "/cluster/firewall/groups/web"
Make = Callable[..., Result]


@pytest.fixture
def client(lab: Any) -> Iterator[PveClient]:
    client = PveClient(lab.connection(retry_seconds=2.0))
    yield client
    client.close()
    assert lab.pve.faults == []  # what was to go wrong did


@pytest.fixture
def make(client: PveClient) -> Make:
    def run(name: str = "web", *, check_mode: bool = False, **options: Any) -> Result:
        return converge(client, group_spec({"name": name, **options}), check_mode=check_mode)

    return run


def access(lab: Any) -> dict[str, Any]:
    return {
        "api_host": lab.api_endpoint,
        "api_user": lab.username,
        "api_password": lab.password,
        "ca_path": lab.ca_file,
    }


def writes(lab: Any, mark: int = 0) -> list[tuple[str, str]]:
    return [(method, path) for method, path in lab.requests[mark:] if method != "GET" and path != "/access/ticket"]


def comments(lab: Any, group: str = "web") -> str:
    rules = lab.pve.firewall_config("cluster")["groups"][group]
    return " ".join(rule.get("comment") or rule.get("macro") or rule["action"] for rule in rules)


def guest_rules(lab: Any, vmid: int) -> list[dict[str, Any]]:
    return [dict(rule) for rule in lab.pve.firewall_config("vm", "pve1", vmid)["rules"]]


def letters(text: str) -> list[dict[str, Any]]:
    return [{"action": "ACCEPT", "comment": letter} for letter in text]


# ------------------------------------------------------------------------------------------------ the modules


def test_as_printed_through_the_modules(run_module: RunModule, lab: Any) -> None:
    add_server(lab, 101, "web-01", running=True)
    add_server(lab, 102, "web-02")
    nic = lab.vm(101).config["net0"]
    wish = {**access(lab), **yaml.safe_load(PRINTED)}
    mark = len(lab.requests)
    foretold = run_module("pve_firewall_group", wish, check=True)
    assert writes(lab, mark) == []
    made = run_module("pve_firewall_group", wish)
    assert made["changed"]
    assert foretold["changed"]
    assert (foretold["diff"], foretold["group"]) == (made["diff"], made["group"])
    assert made["group"] == {
        "name": "web",
        "state": "present",
        "comment": "web servers",
        "rules": [
            {
                "pos": 0,
                "type": "in",
                "action": "ACCEPT",
                "proto": "tcp",
                "source": "10.0.0.0/8",
                "dport": "80",
                "comment": "http",
                "enabled": True,
            }
        ],
        "members": [
            {"vmid": 101, "name": "web-01", "node": "pve1", "pending": []},
            {"vmid": 102, "name": "web-02", "node": "pve1", "pending": []},
        ],
    }
    assert guest_rules(lab, 101) == guest_rules(lab, 102) == [{"type": "group", "action": "web", "enable": 1}]
    assert lab.vm(101).config["net0"] == f"{nic},firewall=1"  # its MAC address, bridge and all
    assert lab.vm(101).pending == {}
    assert lab.vm(101).running
    (warning,) = made["warnings"]
    assert "The firewall of the datacenter is off: no rule has an effect until somebody turns it on" in str(warning)
    assert made["datacenter_firewall"] is False
    assert lab.pve.firewall_config("cluster")["options"] == {}  # it is not ours to turn on
    mark = len(lab.requests)
    again = run_module("pve_firewall_group", wish)
    assert not again["changed"]
    assert again["diff"]["before"] == again["diff"]["after"] == {}
    assert writes(lab, mark) == []

    told = run_module("pve_firewall_group_info", {**access(lab), "name": "web"})
    (group,) = told["groups"]
    assert [member["name"] for member in group["members"]] == ["web-01", "web-02"]
    assert group["rules"] == made["group"]["rules"]
    refused = run_module("pve_firewall_group", {**access(lab), "name": "web", "state": "absent"}, fails=True)
    assert refused["msg"] == (
        "Unable to remove security group web: server web-01, server web-02 use it; detach: true takes it off them"
    )
    gone = run_module("pve_firewall_group", {**access(lab), "name": "web", "state": "absent", "detach": True})
    assert gone["changed"]
    assert "warnings" not in gone
    assert gone["group"]["state"] == "absent"
    assert run_module("pve_firewall_group_info", access(lab))["groups"] == []


def test_wrong_options_are_one_sentence_and_no_call(run_module: RunModule, lab: Any) -> None:
    wish = {**access(lab), "name": "web", "rules": [{**HTTP, "dport": "80-90"}]}
    refused = run_module("pve_firewall_group", wish, fails=True)
    assert refused["msg"].startswith("rules[0].dport: '80-90' is not a port")
    refused = run_module("pve_firewall_group", {**wish, "rules": [{"iface": "net0", **HTTP}]}, fails=True)
    assert "iface" in refused["msg"]
    assert lab.requests == []


# -------------------------------------------------------------------------------------------------- the rules


@pytest.mark.parametrize(
    ("before", "after", "methods"),
    [
        ("", "abc", ["POST", "POST", "POST"]),
        ("abc", "xabc", ["POST"]),
        ("abcde", "abxcde", ["POST", "PUT"]),
        ("abc", "cab", ["PUT"]),
        ("abc", "axc", ["PUT"]),
        ("abc", "ac", ["DELETE"]),
        ("abc", "", ["DELETE", "DELETE", "DELETE"]),
    ],
)
def test_rules_take_the_fewest_calls(lab: Any, make: Make, before: str, after: str, methods: list[str]) -> None:
    make(rules=letters(before))
    mark = len(lab.requests)
    foretold = make(rules=letters(after), check_mode=True)
    assert writes(lab, mark) == []
    made = make(rules=letters(after))
    assert [method for method, _path in writes(lab, mark)] == methods
    assert foretold.plan == made.plan
    assert foretold.group == made.group
    assert comments(lab).replace(" ", "") == after
    assert not make(rules=letters(after)).plan.changed
    mark = len(lab.requests)
    make()  # rules that are not given are not managed
    assert writes(lab, mark) == []


def test_a_rule_is_enabled_changed_and_cleared(lab: Any, make: Make) -> None:
    make(rules=[{**HTTP, "log": "info", "enabled": False}])
    (rule,) = lab.pve.firewall_config("cluster")["groups"]["web"]
    assert (rule["enable"], rule["log"]) == (0, "info")
    mark = len(lab.requests)
    make(rules=[{**HTTP, "dport": "443"}])
    assert writes(lab, mark) == [("PUT", f"{GROUP}/0")]
    (rule,) = lab.pve.firewall_config("cluster")["groups"]["web"]
    assert rule == {"type": "in", "action": "ACCEPT", "proto": "tcp", "dport": "443", "comment": "http", "enable": 1}


def test_comment_and_name(lab: Any, make: Make) -> None:
    add_server(lab, 101, "web-01")
    make(comment="one", rules=[HTTP], members=["web-01"])
    assert not make(comment="one").plan.changed
    assert make(comment="two").plan.diff()["after"] == {"comment": "two"}
    mark = len(lab.requests)
    wish = {"rename_from": "web", "comment": "", "members": ["101"], "rules": [SSH, HTTP]}
    foretold = make("shop", **wish, check_mode=True)
    made = make("shop", **wish)
    assert [method for method, _path in writes(lab, mark)] == ["POST", "POST"]
    assert foretold.plan == made.plan
    assert made.group["comment"] == ""
    assert comments(lab, "shop") == "SSH http"
    assert [rule["action"] for rule in guest_rules(lab, 101)] == ["shop"]
    assert not make("shop", **wish).plan.changed
    make("web")
    with pytest.raises(Unable, match="Unable to rename security group web to shop: there are both"):
        make("shop", rename_from="web")
    with pytest.raises(Unable, match="there is no new nor old"):
        make("new", rename_from="old")
    with pytest.raises(Unable, match="Unable to manage security group other: there is no other"):
        make("other", create=False)


def test_what_rules_name_has_to_be_there(lab: Any, client: PveClient, make: Make) -> None:
    mark = len(lab.requests)
    wrong = [{"action": "ACCEPT", "macro": "Gopher"}, {"action": "ACCEPT", "source": "+nobody", "dest": "nowhere"}]
    complaint = "rules: the datacenter has no macro gopher, no alias nowhere, no IP set nobody"
    with pytest.raises(Unable, match=complaint):
        make(rules=wrong)
    assert writes(lab, mark) == []
    client.post("/cluster/firewall/ipset", {"name": "admins"})
    client.post("/cluster/firewall/aliases", {"name": "Office", "cidr": "10.0.0.0/8"})
    right = [{"action": "ACCEPT", "macro": "ssh", "source": "+admins", "dest": "office"}]
    foretold = make(rules=right, check_mode=True)
    assert make(rules=right).group == foretold.group
    assert not make(rules=right).plan.changed


# ------------------------------------------------------------------------------------------------ the members


def test_members_are_added_and_only_taken_off_when_asked(lab: Any, make: Make) -> None:
    for vmid in (101, 102, 103):
        add_server(lab, vmid, f"web-0{vmid - 100}")
    make(rules=[HTTP], members=["web-01"])
    made = make(members=["102"])
    assert made.plan.diff()["before"]["members"] == []
    assert made.plan.diff()["after"]["members"] == ["web-02"]
    assert guest_rules(lab, 101)
    wish = {"members": ["web-02", "web-03"], "members_exclusive": True}
    foretold = make(**wish, check_mode=True)
    made = make(**wish)
    assert foretold.plan == made.plan
    assert made.plan.diff()["before"]["members"] == ["web-01", "web-02"]
    assert made.plan.diff()["after"]["members"] == ["web-02", "web-03"]
    assert guest_rules(lab, 101) == []
    assert guest_rules(lab, 103)
    assert not make(**wish).plan.changed
    assert make(remove_members=["web-03", "nobody"]).plan.changed
    assert guest_rules(lab, 103) == []
    assert lab.pve.firewall_config("vm", "pve1", 103)["options"]["enable"] == 1  # its firewall stays on
    assert not make(remove_members=["web-03", "nobody"]).plan.changed
    assert make(members=[], members_exclusive=True).plan.changed
    assert guest_rules(lab, 102) == []


def test_a_member_s_rule_is_put_where_it_was_asked_for_and_made_to_work(
    lab: Any, client: PveClient, make: Make
) -> None:
    add_server(lab, 101, "web-01")
    path = "/nodes/pve1/qemu/101"
    client.put(f"{path}/config", {"net1": "virtio,bridge=vmbr0"})
    for comment in ("second", "first"):
        client.post(f"{path}/firewall/rules", {"type": "in", "action": "DROP", "comment": comment})
    make(members=["web-01"], position="bottom", enable_guest_firewall=False)
    assert [rule.get("comment", rule["action"]) for rule in guest_rules(lab, 101)] == ["first", "second", "web"]
    assert "firewall" not in lab.vm(101).config["net0"] + lab.vm(101).config["net1"]
    assert lab.pve.firewall_config("vm", "pve1", 101)["options"] == {}
    client.put(f"{path}/firewall/rules/2", {"enable": 0})
    wish = {"members": ["web-01"], "interface": "net1"}  # top is only for a rule that is new
    foretold = make(**wish, check_mode=True)
    assert make(**wish).plan == foretold.plan
    assert foretold.plan.diff()["after"] == {
        "web-01.rule": {"enable": 1, "iface": "net1"},
        "web-01.firewall": True,
        "web-01.net1.firewall": True,
    }
    assert guest_rules(lab, 101)[2] == {"type": "group", "action": "web", "enable": 1, "iface": "net1"}
    assert "firewall=1" in lab.vm(101).config["net1"]
    assert "firewall" not in lab.vm(101).config["net0"]
    assert not make(**wish).plan.changed
    assert make(members=["web-01"]).plan.diff()["after"] == {"web-01.net0.firewall": True}
    make("db", members=["web-01"])
    assert [rule["action"] for rule in guest_rules(lab, 101)] == ["db", "DROP", "DROP", "web"]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"members": ["nobody"]}, "Unable to assign security group web to nobody: there is no such server"),
        ({"members": ["777"]}, "Unable to assign security group web to 777: there is no such server"),
        ({"members": ["302"]}, "Unable to manage server 302: it is a container"),
        ({"members": ["ct-1"]}, "Unable to assign security group web to ct-1: it is a container"),
        (
            {"members": ["web-01"], "interface": "net7"},
            "Unable to assign security group web to net7 of server web-01: it has no such network device",
        ),
        ({"members": ["web-01"], "remove_members": ["101"]}, "members and remove_members both mean web-01"),
    ],
)
def test_wrong_members(lab: Any, make: Make, options: dict[str, Any], complaint: str) -> None:
    add_server(lab, 101, "web-01")
    lab.do(lab.pve.add_ct, 302, name="ct-1", node="pve1")
    mark = len(lab.requests)
    with pytest.raises(Unable) as error:
        make(rules=[HTTP], **options)
    assert str(error.value) == complaint
    assert writes(lab, mark) == []


# ----------------------------------------------------------------------------------------------------- absent


def test_absent_takes_it_off_whatever_uses_it(lab: Any, client: PveClient, make: Make) -> None:
    add_server(lab, 101, "web-01")
    lab.do(lab.pve.add_ct, 302, name="ct-1", node="pve2")
    make(rules=[HTTP, SSH], members=["web-01"])
    make("db", members=["web-01"])
    for path in ("/cluster/firewall", "/nodes/pve2/firewall", "/nodes/pve2/lxc/302/firewall"):
        client.post(f"{path}/rules", {"type": "group", "action": "web", "enable": 1})
        client.post(f"{path}/rules", {"type": "in", "action": "DROP", "comment": "stays"})
        client.post(f"{path}/rules", {"type": "group", "action": "web"})
    mark = len(lab.requests)
    with pytest.raises(Unable) as error:
        make(state="absent")
    assert str(error.value) == (
        "Unable to remove security group web: the datacenter, node pve2, server web-01, container ct-1 use it; detach:"
        " true takes it off them"
    )
    (_db, web), offline = read_groups(client)
    assert offline == []
    assert web["used_by"] == ["the datacenter", "node pve2"]
    assert [(member["name"], member["type"], member["enabled"]) for member in web["members"]] == [
        ("web-01", "qemu", True),
        ("ct-1", "lxc", True),
    ]
    foretold = make(state="absent", detach=True, check_mode=True)
    assert writes(lab, mark) == []
    assert make(state="absent", detach=True).plan == foretold.plan
    assert list(lab.pve.firewall_config("cluster")["groups"]) == ["db"]
    for path in ("/cluster/firewall", "/nodes/pve2/firewall", "/nodes/pve2/lxc/302/firewall"):
        assert [rule["comment"] for rule in client.get(f"{path}/rules")] == ["stays"]
    assert [rule["action"] for rule in guest_rules(lab, 101)] == ["db"]
    mark = len(lab.requests)
    assert not make(state="absent").plan.changed
    assert writes(lab, mark) == []


def test_who_may_not_see_all_servers_cannot_tell_who_uses_a_group(lab: Any, make: Make) -> None:
    add_server(lab, 101, "web-01")
    make(rules=[HTTP], members=["web-01"])
    lab.do(lab.pve.add_user, "net@pve", "secret-77", ("Sys.Audit", "Sys.Modify"))
    connection = lab.connection(user="net@pve", password="secret-77", token_id=None, token_secret=None)
    blind = PveClient(connection)
    mark = len(lab.requests)
    for wish in ({"state": "absent"}, {"state": "absent", "detach": True}, {"members": [], "members_exclusive": True}):
        with pytest.raises(Unable, match=r"security group web: net@pve needs VM.Audit on /vms"):
            converge(blind, group_spec({"name": "web", **wish}))
    assert writes(lab, mark) == []
    assert converge(blind, group_spec({"name": "web", "rules": [SSH]})).plan.changed
    blind.close()


def test_an_offline_node_leaves_room_for_doubt(lab: Any, client: PveClient, make: Make) -> None:
    add_server(lab, 101, "web-01")
    make(rules=[HTTP])
    lab.do(lab.pve.set_node_offline, "pve2")
    mark = len(lab.requests)
    with pytest.raises(Unable, match="Unable to remove security group web: pve2 is offline, and so it is not known"):
        make(state="absent", detach=True)
    assert writes(lab, mark) == []
    assert make(members=["web-01"]).plan.changed  # nobody else is concerned
    groups, offline = read_groups(client, "web")
    assert [member["name"] for member in groups[0]["members"]] == ["web-01"]
    assert offline == ["pve2"]
    lab.do(lab.pve.set_node_offline, "pve1")
    with pytest.raises(Unable, match="offline"):
        make(members=[], members_exclusive=True)


# ---------------------------------------------------------------------------------- lost answers and strangers


@pytest.mark.parametrize("status", [None, 596])
@pytest.mark.parametrize(
    ("after", "method", "path"),
    [("nabc", "POST", ""), ("cab", "PUT", "/2"), ("xbc", "PUT", "/0"), ("ab", "DELETE", "/2")],
)
def test_a_lost_answer_doubles_nothing(
    lab: Any, make: Make, after: str, method: str, path: str, status: int | None
) -> None:
    make(rules=letters("abc"))
    lab.do(lab.pve.lose_answer, method, f"{GROUP}{path}", status)
    mark = len(lab.requests)
    made = make(rules=letters(after))
    assert writes(lab, mark) == [(method, f"{GROUP}{path}")]
    assert comments(lab).replace(" ", "") == after
    assert "".join(rule["comment"] for rule in made.group["rules"]) == after
    assert not make(rules=letters(after)).plan.changed


@pytest.mark.parametrize("status", [None, 596])
def test_a_lost_answer_to_a_new_name_or_comment(lab: Any, make: Make, status: int | None) -> None:
    make(comment="one")
    for wish in ({"comment": "two"}, {"comment": ""}):
        lab.do(lab.pve.lose_answer, "POST", "/cluster/firewall/groups", status)
        assert make(**wish).group["comment"] == wish["comment"]
    lab.do(lab.pve.lose_answer, "POST", "/cluster/firewall/groups", status)
    assert make("shop", rename_from="web").plan.changed
    assert list(lab.pve.firewall_config("cluster")["groups"]) == ["shop"]
    assert not make("shop", rename_from="web", comment="").plan.changed


@pytest.mark.parametrize(("method", "path"), [("POST", ""), ("PUT", "/1"), ("DELETE", "/2")])
def test_a_write_that_never_arrived_is_repeated(lab: Any, make: Make, method: str, path: str) -> None:
    make(rules=letters("abc"))
    after = {"POST": "nabc", "PUT": "axc", "DELETE": "ab"}[method]
    lab.do(lab.pve.fail, method, f"{GROUP}{path}", 596, "Connection timed out", times=1)
    made = make(rules=letters(after))
    assert made.plan.changed
    assert comments(lab).replace(" ", "") == after


def test_a_stranger_s_change_is_read_once_more(lab: Any, make: Make) -> None:
    make(rules=letters("abc"))
    rules = lab.pve.firewall_config("cluster")["groups"]["web"]
    lab.do(lab.pve.interpose, "PUT", f"{GROUP}/2", lambda: rules[1].update(comment="X"))
    made = make(rules=letters("cab"))
    assert comments(lab) == "c a b"
    assert made.plan.changed
    assert not make(rules=letters("cab")).plan.changed


def test_a_group_that_a_stranger_makes_first(lab: Any, make: Make) -> None:
    rule = {"type": "in", "action": "DROP", "comment": "X", "enable": 1}
    groups = lab.pve.firewall_config("cluster")["groups"]
    lab.do(lab.pve.interpose, "POST", "/cluster/firewall/groups", lambda: groups.update(web=[rule]))
    assert make(rules=letters("ab")).plan.changed
    assert comments(lab) == "a b"


def test_a_stranger_s_rule_beside_a_new_one_is_seen(lab: Any, make: Make) -> None:
    """PVE does not look at the digest when it adds a rule."""
    make(rules=letters("abc"))
    rules = lab.pve.firewall_config("cluster")["groups"]["web"]
    stranger = {"type": "in", "action": "DROP", "comment": "X", "enable": 1}
    lab.do(lab.pve.interpose, "POST", GROUP, lambda: rules.insert(0, stranger))
    made = make(rules=letters("nabc"))
    assert comments(lab) == "n a b c"
    assert made.plan.diff()["before"]["rules"][0]["comment"] == "a"


def test_a_stranger_s_rule_of_a_server_is_never_the_one_that_goes(lab: Any, client: PveClient, make: Make) -> None:
    add_server(lab, 101, "web-01")
    client.post("/nodes/pve1/qemu/101/firewall/rules", {"type": "in", "action": "DROP", "comment": "stays"})
    make(members=["web-01"])
    rules = lab.pve.firewall_config("vm", "pve1", 101)["rules"]
    stranger = {"type": "in", "action": "ACCEPT", "comment": "X", "enable": 1}
    lab.do(lab.pve.interpose, "DELETE", "/qemu/101/firewall/rules/0", lambda: rules.insert(0, stranger))
    assert make(remove_members=["web-01"]).plan.changed
    assert [rule["comment"] for rule in guest_rules(lab, 101)] == ["X", "stays"]


def test_somebody_who_does_not_stop_is_an_error(lab: Any, make: Make) -> None:
    make(rules=letters("abc"))
    rules = lab.pve.firewall_config("cluster")["groups"]["web"]
    for text in "XY":
        lab.do(lab.pve.interpose, "PUT", f"{GROUP}/2", lambda text=text: rules[1].update(log=text))
    with pytest.raises(Unable, match=r"^Unable to manage security group web: detected modified configuration"):
        make(rules=letters("cab"))
    make(rules=letters("cab"))
    assert comments(lab) == "c a b"


@pytest.mark.parametrize("running", [False, True])
def test_a_server_that_was_changed_meanwhile_keeps_that(lab: Any, make: Make, running: bool) -> None:
    add_server(lab, 101, "web-01", running=running)
    config = lab.vm(101).config
    path = "/nodes/pve1/qemu/101/config"
    lab.do(lab.pve.interpose, "PUT", path, lambda: config.update(net0=f"{config['net0']},tag=7"))
    assert make(members=["web-01"]).plan.changed
    assert {"tag=7", "firewall=1"} <= set(config["net0"].split(","))


@pytest.mark.lab(guests=40)
def test_many_members_cost_few_calls(lab: Any, make: Make) -> None:
    names = [str(200 + number) for number in range(40)]
    mark = len(lab.requests)
    make(rules=[HTTP], members=names)
    assert sum(method != "GET" for method, _path in lab.requests[mark:]) == 2 + 3 * 40
    mark = len(lab.requests)
    assert not make(rules=[HTTP], members=names).plan.changed
    # three each, and: the groups, the rules, the cluster, the servers of two nodes, the options of the datacenter
    assert len(lab.requests) - mark == 3 * 40 + 6
    assert writes(lab, mark) == []


def test_a_firewall_that_waits_for_a_restart_is_told_until_it_is_on(
    run_module: RunModule, lab: Any, client: PveClient, make: Make
) -> None:
    add_server(lab, 101, "web-01")
    client.put("/nodes/pve1/qemu/101/config", {"hotplug": "disk,usb"})
    client.run("POST", "/nodes/pve1/qemu/101/status/start", timeout=10)
    wish: dict[str, Any] = {"rules": [HTTP], "members": ["web-01"]}
    foretold = make(**wish, check_mode=True)
    first = run_module("pve_firewall_group", {**access(lab), "name": "web", **wish})
    assert first["group"] == foretold.group
    assert first["group"]["members"] == [{"vmid": 101, "name": "web-01", "node": "pve1", "pending": ["net0"]}]
    assert "net0" in lab.vm(101).pending
    again = run_module("pve_firewall_group", {**access(lab), "name": "web", **wish})
    assert not again["changed"]
    for told in (first, again):
        assert "The firewall of net0 of server web-01 is not on before the server is stopped and" in str(
            told["warnings"]
        )
    client.run("POST", "/nodes/pve1/qemu/101/status/stop", timeout=10)
    client.run("POST", "/nodes/pve1/qemu/101/status/start", timeout=10)
    done = make(**wish)
    assert not done.plan.changed
    assert done.group["members"][0]["pending"] == []


def test_who_may_not_see_all_guests_is_warned_of_it(run_module: RunModule, lab: Any, make: Make) -> None:
    add_server(lab, 101, "web-01")
    make(rules=[HTTP], members=["web-01"])
    lab.do(lab.pve.add_user, "net@pve", "secret-77", ("Sys.Audit",))
    blind = {**access(lab), "api_user": "net@pve", "api_password": "secret-77"}
    told = run_module("pve_firewall_group_info", blind)
    assert [group["members"] for group in told["groups"]] == [[]]
    assert "net@pve needs VM.Audit on /vms to see every guest: the members may not be all" in str(told["warnings"])
    assert "warnings" not in run_module("pve_firewall_group_info", access(lab))
