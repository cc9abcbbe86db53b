# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

"""The firewall behaves as it was measured on PVE 9.1.7, for what is built on it cannot be tested otherwise."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.lab import Lab

from .api import Api

GROUP = "/cluster/firewall/groups/web"


@pytest.fixture
def group(api: Api) -> str:
    """A group with the rules a, b, c."""
    api.post("/cluster/firewall/groups", group="web", comment="web servers")
    for comment in "cba":
        api.post(GROUP, type="in", action="ACCEPT", comment=comment)
    return GROUP


def order(api: Api, path: str = GROUP) -> str:
    return "".join(rule["comment"] for rule in api.get(path))


def digest(api: Api, path: str = GROUP) -> str:
    (found,) = {rule["digest"] for rule in api.get(path)}
    return str(found)


def test_a_new_rule_goes_to_the_top_and_is_off(api: Api, group: str) -> None:
    api.post(group, type="in", action="DROP", comment="d", pos=2)
    assert order(api) == "dabc"
    assert [rule["enable"] for rule in api.get(group)] == [0, 0, 0, 0]
    assert [rule["pos"] for rule in api.get(group)] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("pos", "moveto", "after"),
    [(0, 1, "abc"), (0, 2, "bac"), (0, 3, "bca"), (2, 0, "cab"), (2, 1, "acb"), (1, 99, "acb")],
)
def test_moveto_is_in_front_of_what_was_there(api: Api, group: str, pos: int, moveto: int, after: str) -> None:
    api.put(f"{group}/{pos}", moveto=moveto, comment="is not changed by a move")
    assert order(api) == after


def test_fields_are_changed_and_cleared_in_one_call(api: Api, group: str) -> None:
    api.put(f"{group}/1", proto="tcp", dport="80", delete="comment", digest=digest(api))
    rule = api.get(f"{group}/1")
    assert (rule["proto"], rule["dport"], "comment" in rule) == ("tcp", "80", False)


@pytest.mark.parametrize(("method", "params"), [("PUT", {"comment": "x"}), ("PUT", {"moveto": 2}), ("DELETE", {})])
def test_the_digest_is_the_whole_list_s(api: Api, group: str, method: str, params: dict[str, Any]) -> None:
    old = digest(api)
    api.put(f"{group}/2", comment="C")
    refusal = api.refused(method, f"{group}/0", digest=old, **params)
    assert refusal.message.startswith("detected modified configuration - file changed by other user?")
    api.post(group, type="in", action="DROP", comment="d", digest=old)  # a new rule is not guarded
    assert order(api) == "dabC"


def test_only_a_group_with_rules_is_refused_deletion(api: Api, group: str) -> None:
    api.clone(100)
    api.post(api.vm(100, "/firewall/rules"), type="group", action="web", enable=1)
    assert api.refused("DELETE", group).message == "Security group 'web' is not empty"
    for _rule in range(3):
        api.delete(f"{group}/0")
    api.delete(group)
    assert [rule["action"] for rule in api.get(api.vm(100, "/firewall/rules"))] == ["web"]


def test_a_guest_s_rule_may_name_a_group_that_is_not_there(api: Api) -> None:
    api.clone(100)
    api.post(api.vm(100, "/firewall/rules"), type="group", action="nothing", enable=1)
    assert len(api.get(api.vm(100, "/firewall/rules"))) == 1


def test_a_renamed_group_is_renamed_in_rules(api: Api, group: str) -> None:
    api.clone(100)
    api.post(api.vm(100, "/firewall/rules"), type="group", action="web", enable=1)
    (row,) = api.get("/cluster/firewall/groups")
    api.post("/cluster/firewall/groups", group="shop", rename="web", digest=row["digest"])
    assert [(row["group"], row["comment"]) for row in api.get("/cluster/firewall/groups")] == [("shop", "web servers")]
    assert [rule["action"] for rule in api.get(api.vm(100, "/firewall/rules"))] == ["shop"]


def test_a_clone_takes_the_rules_along_and_removal_forgets_them(api: Api) -> None:
    api.clone(100)
    api.post(api.vm(100, "/firewall/rules"), type="in", action="DROP", comment="d")
    assert api.run("POST", api.vm(100, "/clone"), newid=101, full=1) == "OK"
    assert order(api, api.vm(101, "/firewall/rules")) == "d"
    assert api.run("DELETE", api.vm(101)) == "OK"
    api.clone(101)
    assert api.get(api.vm(101, "/firewall/rules")) == []


@pytest.mark.parametrize(
    ("method", "path", "params", "lock"),
    [
        ("POST", "/cluster/firewall/groups", {"group": "db"}, "cluster"),
        ("POST", GROUP, {"type": "in", "action": "DROP"}, "cluster"),
        ("PUT", f"{GROUP}/0", {"comment": "x"}, "cluster"),
        ("DELETE", f"{GROUP}/0", {}, "cluster"),
        ("DELETE", GROUP, {}, "cluster"),
        ("PUT", "/nodes/pve1/qemu/9000/firewall/options", {"enable": 1}, "vm-9000"),
        ("POST", "/nodes/pve1/firewall/rules", {"type": "in", "action": "DROP"}, "host-pve1"),
    ],
)
def test_without_quorum_nothing_is_written(
    api: Api, lab: Lab, group: str, method: str, path: str, params: dict[str, Any], lock: str
) -> None:
    lab.do(lab.pve.lose_quorum)
    began = time.monotonic()
    assert api.refused(method, path, **params).message == f"cfs-lock 'firewall-{lock}' error: no quorum!"
    assert time.monotonic() - began >= 10 * lab.pve.time_scale
    assert order(api) == "abc"
