# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The planner of firewall rules against a model of PVE of this file's own, and against every way there is."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.errors import Unable
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.firewall_plan import (
    FIELDS,
    Delete,
    Insert,
    Move,
    Op,
    Update,
    content,
    plan_rules,
    simulate,
)
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.firewall_spec import group_spec, references
from hypothesis import given
from hypothesis import strategies as st

MOST = 4
ALPHABET = "abcd"


def rule(comment: str, **fields: Any) -> dict[str, Any]:
    return {"type": "in", "action": "ACCEPT", "enable": 1, "comment": comment, **fields}


def rules(comments: str) -> list[dict[str, Any]]:
    return [rule(comment) for comment in comments]


def pve(present: list[dict[str, Any]], op: Op) -> list[dict[str, Any]]:
    """What PVE/API2/Firewall/Rules.pm does, written down as it is there."""
    if isinstance(op, Insert):
        return [{"enable": 0, **op.rule}, *present]
    assert 0 <= op.pos < len(present), "no rule at position"
    if isinstance(op, Delete):
        return present[: op.pos] + present[op.pos + 1 :]
    if isinstance(op, Update):
        after = {**present[op.pos], **op.values}
        return [*present[: op.pos], {k: v for k, v in after.items() if k not in op.delete}, *present[op.pos + 1 :]]
    assert op.to != op.pos, "that would be an update without values"
    moved: list[dict[str, Any]] = []
    for index, each in enumerate(present):
        if index == op.pos:
            continue
        if index == op.to:
            moved.append(present[op.pos])
        moved.append(each)
    return [*moved, present[op.pos]] if op.to >= len(present) else moved


def run(present: list[dict[str, Any]], ops: list[Op]) -> list[dict[str, Any]]:
    for op in ops:
        present = pve(present, op)
    return present


def neighbours(now: str) -> Iterator[str]:
    """Every list that one call makes of this one; a letter is what a rule says."""
    for letter in ALPHABET:
        yield letter + now
    for index, each in enumerate(now):
        rest = now[:index] + now[index + 1 :]
        yield rest
        for letter in ALPHABET:
            yield now[:index] + letter + now[index + 1 :]
        for place in range(len(rest) + 1):
            yield rest[:place] + each + rest[place:]


def distances(start: str) -> dict[str, int]:
    """The fewest calls from `start` to every list; one rule more than any list wanted is room enough on the way."""
    found, queue = {start: 0}, deque([start])
    while queue:
        now = queue.popleft()
        for following in neighbours(now):
            if len(following) <= MOST + 1 and following not in found:
                found[following] = found[now] + 1
                queue.append(following)
    return found


# Every list of up to four rules is one of these but for the names of the rules.
STARTS = [
    "".join(letters)
    for size in range(MOST + 1)
    for letters in itertools.product(ALPHABET, repeat=size)
    if [*dict.fromkeys(letters)] == [*ALPHABET[: len(set(letters))]]
]


@pytest.mark.parametrize("start", STARTS)
def test_no_way_takes_fewer_calls(start: str) -> None:
    for wanted, fewest in distances(start).items():
        if len(wanted) <= MOST:
            ops = plan_rules(rules(start), rules(wanted))
            assert run(rules(start), ops) == rules(wanted), (wanted, ops)
            assert len(ops) == fewest, (wanted, ops)


LISTS = st.lists(st.text("abcdefgh", min_size=1, max_size=1), max_size=12).map("".join)


@given(LISTS, LISTS)
def test_longer_lists_come_out_right_and_cheap(present: str, wanted: str) -> None:
    ops = plan_rules(rules(present), rules(wanted))
    assert run(rules(present), ops) == rules(wanted)
    assert len(ops) <= len(present) + len(wanted), "removing all and making all anew"
    assert len(ops) <= max(len(present), len(wanted)) + max(0, len(wanted) - len(present)), "rewriting in place"
    assert bool(ops) == (present != wanted)


VALUES = st.fixed_dictionaries(
    {
        "type": st.sampled_from(["in", "out"]),
        "action": st.sampled_from(["ACCEPT", "DROP"]),
        "enable": st.integers(0, 1),
    },
    optional={
        "proto": st.sampled_from(["tcp", "udp"]),
        "dport": st.sampled_from(["80", "443,80", "80,443"]),
        "source": st.sampled_from(["10.0.0.0/8", "+admins", "office"]),
        "log": st.sampled_from(["nolog", "info"]),
        "comment": st.sampled_from(["one", "two"]),
    },
)


@given(st.lists(VALUES, max_size=5), st.lists(VALUES, max_size=5))
def test_every_field_is_made_changed_or_cleared(present: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> None:
    ops = plan_rules(present, wanted)
    after = run(present, ops)
    assert [content(each) for each in after] == [content(each) for each in wanted]
    assert plan_rules(after, wanted) == []
    told: list[Any] = list(present)
    for op in ops:
        told = simulate(told, op)
    assert told == after


@pytest.mark.parametrize(
    ("present", "wanted", "calls"),
    [
        ("abcdefgh", "hgfedcba", 7),  # all but one are moved
        ("abcdefgh", "abcdexfgh", 2),  # a new rule in the middle is made and moved
        ("abcdefgh", "xyabcdefgh", 2),  # on top it is only made
        ("abcdefgh", "axyzbcdefgh", 4),  # three made above a, which is then moved: not six
        ("abcdefgh", "abxdefgh", 1),  # rewritten
        ("abcdefgh", "bcdefgha", 1),
        ("abcdefgh", "", 8),
    ],
)
def test_known_answers(present: str, wanted: str, calls: int) -> None:
    ops = plan_rules(rules(present), rules(wanted))
    assert run(rules(present), ops) == rules(wanted)
    assert len(ops) == calls


def test_long_lists_do_not_take_long() -> None:
    present = [rule(f"rule {number}") for number in range(150)]
    wanted = [present[number * 37 % 150] for number in range(150)]
    began = time.process_time()
    ops = plan_rules(present, wanted)
    assert run(present, ops) == wanted
    assert len(ops) < 150
    assert time.process_time() - began < 10


@pytest.mark.parametrize("equal_until", [400, 399, 200, 1, 0])
def test_what_is_equal_costs_next_to_nothing(equal_until: int) -> None:
    present = [rule(f"rule {number}") for number in range(400)]
    wanted = [*present[:equal_until], *(rule("another") for _one in present[equal_until : equal_until + 1])]
    wanted += present[equal_until + 1 :]
    began = time.process_time()
    ops = plan_rules(present, wanted)
    assert time.process_time() - began < 0.5
    assert ops == ([Update(equal_until, {"comment": "another"})] if equal_until < 400 else [])


@given(LISTS, LISTS)
def test_a_new_rule_is_moved_at_once_and_what_is_superfluous_goes_last(present: str, wanted: str) -> None:
    ops = plan_rules(rules(present), rules(wanted))
    deleted = [isinstance(op, Delete) for op in ops]
    assert deleted == sorted(deleted)
    line: list[int | None] = [None for _rule in present]  # the number of the call that made a rule
    for number, op in enumerate(ops):
        if isinstance(op, Insert):
            line.insert(0, number)
        elif isinstance(op, Move):
            made = line.pop(op.pos)
            assert made in (None, number - 1)
            line.insert(op.to if op.to <= op.pos else op.to - 1, made)
        elif isinstance(op, Delete):
            assert line.pop(op.pos) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"dport": "80,443"}, {"dport": "443, 80"}),
        ({"source": "10.0.0.1"}, {"source": "10.0.0.1/32"}),
        ({"source": "10.0.0.1,10.0.0.2"}, {"source": "10.0.0.2,10.0.0.1"}),
        ({"source": "Office"}, {"source": "office"}),
        ({"log": "nolog"}, {}),
        ({"macro": "ssh"}, {"macro": "SSH"}),
        ({"enable": "1"}, {"enable": 1}),
        ({"comment": ""}, {}),
    ],
)
def test_what_means_the_same_is_no_change(one: dict[str, Any], other: dict[str, Any]) -> None:
    base = {"type": "in", "action": "ACCEPT"}
    assert plan_rules([{**base, **one}], [{**base, **other}]) == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"source": "+Admins"}, {"source": "+admins"}),
        ({"dport": "80"}, {"dport": "80:81"}),
        ({"enable": 1}, {}),
        ({"type": "group", "action": "accept"}, {"type": "group", "action": "refuse"}),
        *(({name: "1"}, {name: "0"}) for name in FIELDS if name not in ("type", "action")),
    ],
)
def test_what_means_something_else_is_one(one: dict[str, Any], other: dict[str, Any]) -> None:
    base = {"type": "in", "action": "ACCEPT"}
    assert len(plan_rules([{**base, **one}], [{**base, **other}])) == 1


def test_a_changed_and_a_dropped_field_are_one_call() -> None:
    before, after = rule("a", proto="tcp", dport="80", log="info"), rule("b", proto="tcp", dport="443")
    assert plan_rules([before], [after]) == [Update(0, {"dport": "443", "comment": "b"}, ("log",))]


# ------------------------------------------------------------------------------------------------- the options


def spec_of(**given: Any) -> Any:
    return group_spec({"name": "web", "rules": [{"action": "ACCEPT", **given}]})


def test_rules_are_enabled_unless_told() -> None:
    assert spec_of().rules == ({"type": "in", "action": "ACCEPT", "enable": 1},)
    assert spec_of(enabled=False, icmp_type="echo-request", proto="ICMP").rules == (
        {"type": "in", "action": "ACCEPT", "proto": "icmp", "icmp-type": "echo-request", "enable": 0},
    )


GOOD = [
    {"proto": "tcp", "dport": "80, 443,8000:8080"},
    {"proto": "tcp", "dport": "https"},
    {"proto": "17", "sport": "53"},
    {"source": "10.0.0.0/8,192.168.1.1"},
    {"source": "10.0.0.5-10.0.0.9"},
    {"source": "2001:db8::/32", "proto": "ipv6-icmp"},
    {"source": "+dc/admins", "dest": "guest/web"},
    {"source": "+sdn/vnet-all"},
    {"type": "forward", "action": "DROP"},
]


@pytest.mark.parametrize("given_rule", GOOD)
def test_good_rules(given_rule: dict[str, Any]) -> None:
    (made,) = spec_of(**given_rule).rules
    assert all(str(made[name]).replace(" ", "") == str(made[name]) for name in ("source", "dport") if name in made)


BAD = [
    ({"proto": "tpc"}, "rules[0].proto: 'tpc' is not a protocol"),
    ({"proto": "300"}, "rules[0].proto: '300' is not a protocol"),
    ({"dport": "80"}, "rules[0].dport: needs proto tcp, udp"),
    ({"proto": "gre", "sport": "80"}, "rules[0].sport: needs proto tcp, udp"),
    ({"proto": "tcp", "dport": "80-90"}, "rules[0].dport: '80-90' is not a port: write 80, 8000:8080"),
    ({"proto": "tcp", "dport": "90:80"}, "runs backwards, write 80:90"),
    ({"proto": "tcp", "dport": "65536"}, "beyond the last port"),
    ({"proto": "tcp", "dport": "80,,81"}, "'' is not a port"),
    ({"proto": "tcp", "dport": ",".join(map(str, range(16)))}, "no more than 15 ports"),
    ({"source": "10.0.0.1/8"}, "rules[0].source: '10.0.0.1/8' has host bits set, write 10.0.0.0/8"),
    ({"source": "10.0.0.300"}, "rules[0].source: '10.0.0.300' is not an address"),
    ({"source": "10.0.0.9-10.0.0.5"}, "runs backwards"),
    ({"source": "10.0.0.1-2001:db8::1"}, "is not a range"),
    ({"source": "10.0.0.1,2001:db8::1"}, "mixes IPv4 and IPv6"),
    ({"source": "10.0.0.1", "dest": "2001:db8::1"}, "rules[0]: IPv4 and IPv6 in one rule"),
    ({"source": "fe80::1%eth0"}, "is not an address"),
    ({"icmp_type": "echo-request"}, "rules[0].icmp_type: needs proto icmp"),
    ({"proto": "icmp", "icmp_type": "any", "dport": "1"}, "rules[0].icmp_type: excludes dport"),
    ({"type": "forward", "action": "REJECT"}, "rules[0].action: PVE has no REJECT"),
    ({"comment": "one\ntwo"}, "rules[0].comment: PVE has room for one line only"),
]


@pytest.mark.parametrize(("given_rule", "complaint"), BAD)
def test_bad_rules(given_rule: dict[str, Any], complaint: str) -> None:
    with pytest.raises(Unable) as error:
        spec_of(**given_rule)
    assert complaint in str(error.value)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"name": "w"}, "name: 'w' is not a name of a security group"),
        ({"name": "1web"}, "is not a name"),
        ({"name": "a" * 19}, "is not a name"),
        ({"rename_from": "x y"}, "rename_from: 'x y'"),
        ({"rename_from": "old", "state": "absent"}, "rename_from: it has no meaning with state=absent"),
        ({"rules": [], "state": "absent"}, "rules: it has no meaning with state=absent"),
        ({"members": ["web-01"], "state": "absent"}, "members: it has no meaning with state=absent"),
        ({"position": "bottom", "state": "absent"}, "position: it has no meaning with state=absent"),
        ({"detach": True}, "detach: it has no meaning with state=present, only with absent"),
        ({"members_exclusive": True}, "members_exclusive: needs members"),
        ({"members": ["web-01"], "remove_members": ["web-01"]}, "both name web-01"),
        ({"members": [" "]}, "members: one of the servers has no name"),
        ({"interface": "eth0"}, "interface: 'eth0' is not a network device"),
        ({"comment": "a\nb"}, "comment: PVE has room for one line only"),
    ],
)
def test_bad_options(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(Unable) as error:
        group_spec({"name": "web", **options})
    assert complaint in str(error.value)


@given(st.dictionaries(st.sampled_from(["source", "dest", "sport", "dport", "proto", "icmp_type"]), st.text()))
def test_whatever_is_given_is_taken_or_refused_in_a_sentence(given_rule: dict[str, str]) -> None:
    complaint = "rules[0]"
    try:
        spec_of(**given_rule)
    except Unable as error:
        complaint = str(error)
    assert complaint.startswith("rules[0]")


def test_references() -> None:
    given_rules = [
        {"macro": "SSH", "source": "+admins", "dest": "Office"},
        {"source": "+dc/admins", "dest": "dc/lab"},
        {"source": "+guest/own", "dest": "guest/own"},
        {"source": "10.0.0.0/8,10.1.1.1", "dest": "+sdn/all"},
    ]
    assert references(given_rules) == ({"ssh"}, {"office", "lab"}, {"admins"})
