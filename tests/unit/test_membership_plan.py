# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is planned for a node's membership, for generated clusters and options."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import Connection
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.errors import Unable
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.membership_plan import (
    JoinSpec,
    Node,
    Peer,
    RemoveSpec,
    View,
    join_spec,
    plan_join,
    plan_removal,
)
from hypothesis import given
from hypothesis import strategies as st

NAMES = st.sampled_from(["pve1", "pve2", "pve3"])
CLUSTERS = st.sampled_from([None, "lab", "other"])
ADDRESSES = st.frozensets(st.sampled_from(["10.0.0.1", "10.0.0.2", "10.0.0.3"]), max_size=2)
VERSIONS = st.sampled_from(["8.4.1", "9.0.3", "9.1.7"])
PASSWORD = "correct-horse"


@st.composite
def views(draw: st.DrawFn) -> View:
    local, cluster = draw(NAMES), draw(CLUSTERS)
    others = draw(st.sets(NAMES)) if cluster else set()
    nodes = {name: Node(name, draw(st.booleans()), draw(ADDRESSES)) for name in sorted(others | {local})}
    nodes[local] = replace(nodes[local], online=True)
    return View(local, draw(VERSIONS), cluster, cluster is None or draw(st.booleans()), nodes)


SPECS = st.builds(
    JoinSpec,
    host=st.just("10.0.0.2"),
    peer=st.just(Peer("10.0.0.1", 8006, PASSWORD)),
    cluster_name=CLUSTERS,
    node=st.none() | NAMES,
    links=st.dictionaries(st.just("link0"), st.sampled_from(["10.0.0.2", "10.9.0.2"])),
)


def outcome(function: Callable[[], Any]) -> tuple[Any, str]:
    """What it returns, or the sentence that it refuses with."""
    try:
        return function(), ""
    except Unable as refused:
        return None, str(refused)


@given(SPECS, views(), views(), st.lists(st.just("server 100 (web-01)")), ADDRESSES, st.booleans())
def test_a_join_is_safe_or_refused(
    spec: JoinSpec, peer: View, joining: View, guests: list[str], addresses: frozenset[str], same: bool
) -> None:
    todo, refusal = outcome(lambda: plan_join(spec, peer, joining, guests, addresses, same=same))
    if todo is None:
        assert refusal.startswith("Unable to join the node at 10.0.0.2 to ")
        assert PASSWORD not in refusal
        return
    cluster = peer.cluster or spec.cluster_name
    assert todo.join == todo.plan.changed
    assert spec.cluster_name in (None, cluster)
    if not todo.join:
        assert joining.cluster == peer.cluster
        assert joining.local in peer.nodes
        assert same
        return
    assert joining.cluster is None
    assert joining.local != peer.local
    assert not guests
    assert peer.quorate
    assert todo.form == (peer.cluster is None)
    assert todo.plan.diff()["after"]["member_of"] == cluster
    listed = peer.nodes.get(joining.local)
    assert todo.force == (listed is not None)
    assert listed is None or not listed.online
    # and then there is nothing to do
    nodes = {**peer.nodes, joining.local: Node(joining.local, True, addresses)}
    members = [replace(view, cluster=cluster, quorate=True, nodes=nodes) for view in (peer, joining)]
    assert not plan_join(spec, *members, [], addresses).plan.changed


@given(st.builds(RemoveSpec, NAMES, st.booleans()), views(), st.lists(st.just("server 100")))
def test_a_removal_is_safe_or_refused(spec: RemoveSpec, view: View, remains: list[str]) -> None:
    plan, refusal = outcome(lambda: plan_removal(spec, view, remains))
    if plan is None:
        assert refusal.startswith(f"Unable to remove node {spec.node} from its cluster: ")
        return
    assert spec.node != view.local
    assert plan.changed == (view.cluster is not None and spec.node in view.nodes)
    if plan.changed:
        assert not view.nodes[spec.node].online
        assert view.quorate
        assert spec.force or not remains
        nodes = {name: node for name, node in view.nodes.items() if name != spec.node}
        assert not plan_removal(spec, replace(view, nodes=nodes), []).changed


ODD = st.none() | st.text(max_size=20)


@given(
    peer=st.none()
    | st.fixed_dictionaries(
        {"address": st.text(max_size=20) | st.sampled_from(["10.0.0.5", "pve1:8006", "[::1]"]), "password": st.text()},
        optional={
            "user": ODD,
            "fingerprint": ODD,
            "accept_fingerprint": st.booleans(),
            "ca_path": ODD,
            "links": st.none() | st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5)),
        },
    ),
    options=st.fixed_dictionaries(
        {"timeout": st.integers(), "quorum_timeout": st.integers()},
        optional={
            "cluster_name": ODD,
            "node": ODD,
            "links": st.none() | st.dictionaries(st.text(max_size=5), st.text(max_size=5)),
            "votes": st.none() | st.integers(),
            "nodeid": st.none() | st.integers(),
            "force": st.booleans(),
        },
    ),
    user=st.sampled_from(["root@pam", "ops@pve"]),
    token=st.none() | st.just("fleet"),
)
def test_odd_options_are_a_sentence(
    peer: dict[str, Any] | None, options: dict[str, Any], user: str, token: str | None
) -> None:
    connection = Connection(("https://10.0.0.10:8006",), user, password=PASSWORD, token_id=token)
    spec, refusal = outcome(lambda: join_spec({"peer": peer, **options}, connection))
    if spec is None:
        assert refusal.startswith("Unable to join ")
    else:
        assert (user, token) == ("root@pam", None)
        assert spec.timeout >= 1
        assert spec.peer.port >= 1
        assert spec.peer.password not in repr(spec) or len(spec.peer.password) < 8


def test_a_long_list_is_cut() -> None:
    view = View("pve1", "9.1.7", "lab", True, {"pve1": Node("pve1", True), "pve2": Node("pve2", False)})
    guests = [f"server {number}" for number in range(100, 115)]
    with pytest.raises(Unable, match="server 109 and 5 more; move them away"):
        plan_removal(RemoveSpec("pve2"), view, guests)
