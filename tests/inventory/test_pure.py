# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names, groups, filters and addresses of an inventory, with the odd things that PVE and guests may say."""

from __future__ import annotations

import re
from typing import Any

import pytest
from ansible.inventory.group import to_safe_group_name
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.errors import Unable
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.inventory import (
    GROUPS,
    Filter,
    Wish,
    filter_from,
    group_names,
    guest_facts,
    host_names,
    is_reserved,
    networks_from,
    node_facts,
    preferred,
    variables,
)
from hypothesis import given
from hypothesis import strategies as st

ROW = {
    "type": "qemu",
    "vmid": 101,
    "node": "pve1",
    "name": "web-01",
    "status": "running",
    "tags": "role-web;Blue",
    "pool": "shop",
}
names = st.one_of(
    st.none(), st.text(max_size=12), st.sampled_from(["web", "a-b", "a", "b", "prod-web-1", "localhost", "::1"])
)


def guest(cluster: str = "prod", **changes: Any) -> dict[str, Any]:
    return guest_facts(cluster, {**ROW, **changes})


def test_groups() -> None:
    assert group_names(guest(), "pve_") == [
        "pve_guests",
        "pve_qemu",
        "pve_cluster_prod",
        "pve_node_pve1",
        "pve_status_running",
        "pve_pool_shop",
        "pve_tag_Blue",
        "pve_tag_role_web",
        "pve_role_web",
    ]
    assert group_names(node_facts("prod", {"node": "pve-1", "status": "online"}), "pve_") == [
        "pve_nodes",
        "pve_cluster_prod",
        "pve_status_online",
    ]
    assert group_names(guest(), "x-", ["role"]) == ["x_role_web"]


@given(st.text(), st.text(), st.text(), st.text(), st.text())
def test_every_group_has_a_name_that_ansible_takes_as_it_is(a: str, b: str, c: str, d: str, prefix: str) -> None:
    for name in group_names(guest(cluster=a, tags=b, pool=c, status=d), prefix):
        assert re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name)
        assert to_safe_group_name(name, force=True, silent=True) == name


def test_hosts_are_called_what_pve_calls_them() -> None:
    hosts = [guest(), guest("lab", vmid=7, name="db.example.com"), node_facts("prod", {"node": "pve1"})]
    assert host_names(hosts) == (["web-01", "db.example.com", "pve1"], [])


def test_names_that_are_not_unique_are_nobodys() -> None:
    hosts = [guest(), guest("lab", vmid=100), guest(vmid=102), guest(vmid=103, name="db")]
    found, warnings = host_names(hosts)
    assert found == ["prod-web-01-101", "lab-web-01-100", "prod-web-01-102", "db"]
    assert warnings == [
        "Names that are not unique, and what their hosts are called instead:"
        " web-01 (prod-web-01-101, lab-web-01-100, prod-web-01-102)"
    ]


@pytest.mark.parametrize(
    "name", ["{{ lookup('pipe', 'id') }}", "a b", "all", "LOCALHOST", "10.0.0.1", "", "VM 101", "x,y"]
)
def test_a_name_that_no_host_should_have(name: str) -> None:
    found, warnings = host_names([guest(name=name)])
    assert found == ["prod-101"]
    assert warnings == ["Guests whose name is not known or can be no host's: prod-101"]


@given(st.lists(st.tuples(st.sampled_from(["prod", "a", "a-b"]), names, st.integers(1, 3)), max_size=12))
def test_no_two_hosts_share_a_name(wanted: list[tuple[str, str | None, int]]) -> None:
    hosts = [guest(cluster, name=name, vmid=vmid) for cluster, name, vmid in wanted]
    found, _warnings = host_names(hosts)
    assert len(set(found)) == len(found) == len(hosts)
    assert all(re.fullmatch(r"[A-Za-z0-9.-]+", name) for name in found)
    assert not any(is_reserved(name) for name in found)
    assert len({name.lower() for name in found}) == len(found)
    assert host_names(hosts)[0] == found


@pytest.mark.parametrize(
    "name",
    [
        *("127.1", "2130706433", "0x7f000001", "0", "017700000001", "10.1"),
        *("localhost.localdomain", "localhost4.localdomain4", "Localhost6", "ip6-localhost", "IP6-loopback"),
        *("x.localhost", "a.b.LocalHost"),
    ],
)
def test_a_name_that_leads_to_the_controller(name: str) -> None:
    assert host_names([guest(name=name)])[0] == ["prod-101"]


def test_a_node_never_yields_to_a_guest() -> None:
    nodes = [node_facts(cluster, {"node": "pve1"}) for cluster in ("prod", "lab")]
    assert host_names([guest(name="prod-pve1"), *nodes])[0] == ["prod-prod-pve1-101", "prod-pve1", "lab-pve1"]
    assert host_names([guest(name="PVE1"), nodes[0]])[0] == ["prod-PVE1-101", "pve1"]
    assert host_names([node_facts("prod", {"node": "localhost"})])[0] == ["prod-localhost"]


def test_a_long_name_cannot_be_taken_beforehand() -> None:
    """Whether web-01 is unique or not: another guest's long name is nobody's, and one's own is a name like any."""
    squatter = guest(vmid=105, name="prod-web-01-101")
    found, warnings = host_names([guest(), squatter])
    assert found == ["web-01", "prod-prod-web-01-101-105"]
    assert warnings == ["Guests whose name is not known or can be no host's: prod-prod-web-01-101-105"]
    assert host_names([guest(), squatter, guest(vmid=102)])[0][:2] == ["prod-web-01-101", "prod-prod-web-01-101-105"]
    assert host_names([guest(vmid=105, name="prod-105"), guest(vmid=101, name="prod-x-102")])[1] == []


squats = st.sampled_from(
    [
        *("web", "WEB", "a", "pve1", "prod-pve1", "lab-pve1", "prod-pve1-2", "localhost", "127.1", "prod", "lab-x"),
        *("prod-100", "lab-100", "prod-web-100", "prod-web-101", "lab-web-100", "prod-a-101", "prod-web-100-2"),
    ]
)


@given(st.lists(squats, min_size=6, max_size=6), squats, st.integers(0, 5), st.sets(st.sampled_from(["prod", "lab"])))
def test_nobody_decides_what_others_are_called(chosen: list[str], new: str, who: int, with_node: set[str]) -> None:
    """A guest's name changes what another guest is called only when they share it, and what a node is called never."""
    places = [(cluster, vmid) for cluster in ("prod", "lab") for vmid in (100, 101, 102)]
    nodes = [node_facts(cluster, {"node": name}) for cluster in sorted(with_node) for name in ("pve1", f"{cluster}-x")]

    def called(names: list[str]) -> list[str]:
        guests = [guest(cluster, vmid=vmid, name=name) for (cluster, vmid), name in zip(places, names, strict=True)]
        return host_names([*guests, *nodes])[0]

    renamed = [*chosen[:who], new, *chosen[who + 1 :]]
    before, after = called(chosen), called(renamed)
    assert before[6:] == after[6:] == host_names(nodes)[0]
    for index, name in enumerate(chosen):
        alone = sum(name.lower() == other.lower() for other in [*chosen, new]) == 1
        if index != who and alone:
            assert before[index] == after[index]


@pytest.mark.parametrize(
    ("option", "all_fit", "one_fits"),
    [
        ({"nodes": ["pve1"]}, True, True),
        ({"nodes": ["pve2"]}, False, False),
        ({"vmids": [100, "101-110"]}, True, True),
        ({"vmids": 102}, False, False),
        ({"types": ["lxc"]}, False, False),
        ({"tags": ["nothing", "BLUE"]}, True, True),
        ({"tags": ["role"]}, False, False),
        ({"pools": ["shop"], "names": ["web-*"]}, True, True),
        ({"pools": ["shop"], "names": ["db-*"]}, False, True),
        ({"status": ["stopped"]}, False, False),
        ({}, True, False),
    ],
)
def test_only_and_exclude(option: dict[str, Any], all_fit: bool, one_fits: bool) -> None:
    conditions = filter_from("only", option)
    assert Wish(only=conditions).takes(guest()) is all_fit
    assert Wish(exclude=conditions).takes(guest()) is not one_fits


def test_what_is_not_settled_is_not_decided() -> None:
    wish = Wish(only=Filter(names=("web-*",), status=("running",)))
    new = guest(name=None, status="unknown")
    assert wish.takes(new, final=False)
    assert not wish.takes(new)
    assert not Wish().takes(guest(template=1))
    assert Wish(templates=True).takes(guest(template=1))


def test_nodes_are_only_filtered_by_nodes() -> None:
    node = node_facts("prod", {"node": "pve1", "status": "online"})
    assert Wish(only=Filter(tags=("web",), names=("db-*",), status=("running",))).takes(node)
    assert not Wish(only=Filter(nodes=("pve2",))).takes(node)
    assert not Wish(nodes=False).takes(node)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("web", "Unable to use only: it must be a mapping with some of nodes, vmids"),
        ({"tag": ["web"]}, "Unable to use only: tag is unknown (known: nodes, vmids"),
        ({"tags": [["web"]]}, "Unable to use only.tags: it must be a list of texts"),
        ({"vmids": ["1-2-3"]}, "Unable to use only.vmids: '1-2-3' is neither a vmid nor a range such as 100-199"),
        ({"types": ["kvm"]}, "Unable to use only.types: kvm is neither qemu nor lxc"),
    ],
)
def test_wrong_filters(option: Any, message: str) -> None:
    with pytest.raises(Unable) as refused:
        filter_from("only", option)
    assert str(refused.value).startswith(message)


TOLD = ["fe80::2", "2001:db8::5", "172.17.0.1", "10.0.0.5", "junk", "2001:db8::6%eth0"]


@pytest.mark.parametrize(
    ("networks", "address"),
    [
        ([], "172.17.0.1"),
        (["10.0.0.0/8"], "10.0.0.5"),
        (["192.168.0.0/16", "2001:db8::/32", "10.0.0.0/8"], "2001:db8::5"),
        (["192.168.0.0/16"], None),
    ],
)
def test_which_address(networks: list[str], address: str | None) -> None:
    assert preferred(TOLD, networks_from(networks)) == address


def test_networks_must_be_networks() -> None:
    with pytest.raises(Unable, match=r"^Unable to use networks: '10\.0\.0\.0/33'"):
        networks_from(["10.0.0.0/33"])


@given(st.lists(st.text()))
def test_whatever_a_guest_tells_only_an_address_is_one(told: list[str]) -> None:
    address = preferred(told, ())
    assert address is None or re.fullmatch(r"[0-9a-f.:]+", address)


@given(st.dictionaries(st.sampled_from(["name", "tags", "pool", "status", "template"]), st.text() | st.integers()))
def test_facts_of_any_row(odd: dict[str, Any]) -> None:
    found = variables(guest(**odd), ())
    assert all(name.startswith("pve_") for name in found)
    assert group_names(guest(**odd), "pve_", GROUPS)
