# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the options of `pve_firewall_group` ask for, checked as far as that goes without asking PVE."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.pvefleet.infra.plugins.module_utils._pve import values
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.errors import Unable
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.firewall_plan import Rule

LOG_LEVELS = ("emerg", "alert", "crit", "err", "warning", "notice", "info", "debug", "nolog")
RULE_OPTIONS: dict[str, dict[str, Any]] = {
    "action": {"type": "str", "required": True, "choices": ["ACCEPT", "DROP", "REJECT"]},
    "type": {"type": "str", "default": "in", "choices": ["in", "out", "forward"]},
    "macro": {"type": "str"},
    "proto": {"type": "str"},
    "source": {"type": "str"},
    "dest": {"type": "str"},
    "sport": {"type": "str"},
    "dport": {"type": "str"},
    "icmp_type": {"type": "str"},
    "log": {"type": "str", "choices": list(LOG_LEVELS)},
    "comment": {"type": "str"},
    "enabled": {"type": "bool", "default": True},
}
GROUP_OPTIONS: dict[str, dict[str, Any]] = {
    "name": {"type": "str", "required": True},
    "rename_from": {"type": "str"},
    "create": {"type": "bool", "default": True},
    "comment": {"type": "str"},
    "rules": {"type": "list", "elements": "dict", "options": RULE_OPTIONS},
    "members": {"type": "list", "elements": "str"},
    "members_exclusive": {"type": "bool", "default": False},
    "remove_members": {"type": "list", "elements": "str"},
    "interface": {"type": "str"},
    "position": {"type": "str", "choices": ["top", "bottom"], "default": "top"},
    "enable_guest_firewall": {"type": "bool", "default": True},
    "detach": {"type": "bool", "default": False},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
}

# An option that would be silently ignored is an error.
_ONLY_WITH = {
    **dict.fromkeys(("rename_from", "create", "comment", "rules", "members", "members_exclusive"), "present"),
    **dict.fromkeys(("remove_members", "interface", "position", "enable_guest_firewall"), "present"),
    "detach": "absent",
}

# What /etc/protocols of a node has; PVE also takes the numbers, and icmpv6.
PROTOCOLS = frozenset(
    [
        "ip", "icmp", "igmp", "ggp", "ipencap", "st", "tcp", "egp", "igp", "pup", "udp", "hmp", "xns-idp",
        "rdp", "iso-tp4", "dccp", "xtp", "ddp", "idpr-cmtp", "ipv6", "ipv6-route", "ipv6-frag", "idrp", "rsvp",
        "gre", "esp", "ah", "skip", "ipv6-icmp", "ipv6-nonxt", "ipv6-opts", "rspf", "vmtp", "eigrp", "ospf",
        "ax.25", "ipip", "etherip", "encap", "pim", "ipcomp", "vrrp", "l2tp", "isis", "sctp", "fc",
        "mobility-header", "udplite", "mpls-in-ip", "manet", "hip", "shim6", "wesp", "rohc", "ethernet",
        "icmpv6",
    ]
)  # fmt: skip
WITH_PORTS = ("tcp", "udp", "udplite", "sctp", "dccp", "6", "17", "136", "132", "33")
ICMP = {"icmp": 4, "1": 4, "icmpv6": 6, "ipv6-icmp": 6, "58": 6}
MOST_PORTS = 15
ADDRESSES = ("source", "dest")

_GROUP_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{1,17}")
_REFERENCE = re.compile(r"(?:dc/|guest/)?[A-Za-z][A-Za-z0-9_-]+")
_IPSET = re.compile(r"\+(?:dc/|guest/|sdn/)?[A-Za-z][A-Za-z0-9_-]+")
_SERVICE = re.compile(r"[a-z][a-z0-9.+-]*", re.I)


@dataclass(frozen=True)
class GroupSpec:
    """rules in PVE's notation, None when they are not managed; so are comment and members."""

    name: str
    rename_from: str | None = None
    create: bool = True
    comment: str | None = None
    rules: tuple[Rule, ...] | None = None
    members: tuple[str, ...] | None = None
    members_exclusive: bool = False
    remove_members: tuple[str, ...] = ()
    interface: str | None = None
    position: str = "top"
    enable_guest_firewall: bool = True
    detach: bool = False
    state: str = "present"


def group_spec(params: Mapping[str, Any]) -> GroupSpec:
    """The wish that checked module parameters express. Raises Unable, which names the option."""
    state = params.get("state", "present")
    for option, only in _ONLY_WITH.items():
        if state != only and params.get(option) not in (None, GROUP_OPTIONS[option].get("default")):
            raise Unable(f"{option}: it has no meaning with state={state}, only with {only}")
    members, removed = _servers(params, "members"), _servers(params, "remove_members")
    both = sorted(set(members or ()) & set(removed or ()))
    if both:
        raise Unable(f"members and remove_members both name {', '.join(both)}")
    if params.get("members_exclusive") and members is None:
        raise Unable("members_exclusive: needs members, for without them nobody could be meant")
    interface = params.get("interface")
    if interface is not None:
        try:
            values.nic_key(interface)
        except ValueError as error:
            raise Unable(f"interface: {error}") from None
    rules = params.get("rules")
    rename_from = params.get("rename_from")
    return GroupSpec(
        name=group_name(params["name"], "name"),
        rename_from=None if rename_from is None else group_name(rename_from, "rename_from"),
        create=params.get("create", True),
        comment=None if params.get("comment") is None else _comment(params["comment"], "comment"),
        rules=None if rules is None else tuple(_rule(rule, f"rules[{index}]") for index, rule in enumerate(rules)),
        members=members,
        members_exclusive=params.get("members_exclusive", False),
        remove_members=removed or (),
        interface=interface,
        position=params.get("position", "top"),
        enable_guest_firewall=params.get("enable_guest_firewall", True),
        detach=params.get("detach", False),
        state=state,
    )


def group_name(text: str, option: str) -> str:
    if not _GROUP_NAME.fullmatch(text):
        raise Unable(
            f"{option}: {text!r} is not a name of a security group: use 2 to 18 letters, digits, hyphens and"
            " underscores, a letter first"
        )
    return text


def _servers(params: Mapping[str, Any], option: str) -> tuple[str, ...] | None:
    given = params.get(option)
    if given is None:
        return None
    if not all(name.strip() for name in given):
        raise Unable(f"{option}: one of the servers has no name")
    return tuple(dict.fromkeys(name.strip() for name in given))


def _comment(text: str, option: str) -> str:
    if len(text.splitlines()) > 1:
        raise Unable(f"{option}: PVE has room for one line only")
    return text.strip()


def _rule(given: Mapping[str, Any], where: str) -> Rule:
    """One rule as PVE takes it, without what is empty."""
    texts = {name: str(given.get(name) or "").strip() for name in RULE_OPTIONS if name != "enabled"}
    texts["proto"] = texts["proto"].lower()
    for name in ("source", "dest", "sport", "dport"):
        texts[name] = re.sub(r"\s*,\s*", ",", texts[name])
    texts["comment"] = _comment(texts["comment"], f"{where}.comment")
    _check_action(texts, where)
    _check_ports(texts, where)
    versions = {ICMP.get(texts["proto"]), *(_address_version(texts[name], f"{where}.{name}") for name in ADDRESSES)}
    if len(versions - {None}) > 1:
        raise Unable(f"{where}: IPv4 and IPv6 in one rule match nothing")
    rule: dict[str, Any] = {"type": texts["type"] or "in", "action": texts["action"]}
    rule.update((name.replace("_", "-"), text) for name, text in texts.items() if text)
    rule["enable"] = 1 if given.get("enabled", True) else 0
    return rule


def _check_action(texts: Mapping[str, str], where: str) -> None:
    if texts["type"] == "forward" and texts["action"] == "REJECT":
        raise Unable(f"{where}.action: PVE has no REJECT for forwarded traffic, use DROP")
    proto = texts["proto"]
    if proto and proto not in PROTOCOLS and not (re.fullmatch(r"[0-9]{1,3}", proto) and int(proto) < 256):
        raise Unable(f"{where}.proto: {proto!r} is not a protocol, such as tcp, udp, icmp or a number up to 255")
    if texts["icmp_type"] and proto not in ICMP:
        raise Unable(f"{where}.icmp_type: needs proto icmp or ipv6-icmp")
    if texts["icmp_type"] and texts["dport"]:
        raise Unable(f"{where}.icmp_type: excludes dport")


def _check_ports(texts: Mapping[str, str], where: str) -> None:
    for name in ("sport", "dport"):
        option, proto = f"{where}.{name}", texts["proto"]
        if not texts[name]:
            continue
        if proto not in WITH_PORTS and not (name == "dport" and proto in ICMP):
            raise Unable(f"{option}: needs proto tcp, udp or another protocol that has ports")
        counted = 0
        for item in texts[name].split(","):
            counted += _port(item, option)
        if counted > MOST_PORTS:
            raise Unable(f"{option}: PVE takes no more than {MOST_PORTS} ports, a range counts as two")


def _port(item: str, option: str) -> int:
    """How many of the ports PVE has room for it takes."""
    numbers = item.split(":") if re.fullmatch(r"[0-9]+(:[0-9]+)?", item) else []
    if not numbers and not _SERVICE.fullmatch(item):
        raise Unable(f"{option}: {item!r} is not a port: write 80, 8000:8080 or a name such as https")
    if any(len(number) > 5 or int(number) > 65535 for number in numbers):
        raise Unable(f"{option}: {item!r} is beyond the last port, 65535")
    if len(numbers) == 2 and int(numbers[0]) > int(numbers[1]):
        raise Unable(f"{option}: {item!r} runs backwards, write {numbers[1]}:{numbers[0]}")
    return len(numbers)


def _address_version(text: str, option: str) -> int | None:
    """4 or 6; None for names and for nothing."""
    if not text or _IPSET.fullmatch(text) or _REFERENCE.fullmatch(text):
        return None
    first, dash, last = text.partition("-")
    if dash:
        ends = [_address(first, option), _address(last, option)]
        if "/" in text or ends[0].version != ends[1].version:
            raise Unable(f"{option}: {text!r} is not a range of addresses, such as 10.0.0.5-10.0.0.9")
        if int(ends[0].network_address) > int(ends[1].network_address):
            raise Unable(f"{option}: {text!r} runs backwards")
        return ends[0].version
    versions = {_address(item, option).version for item in text.split(",")}
    if len(versions) > 1:
        raise Unable(f"{option}: {text!r} mixes IPv4 and IPv6, which PVE refuses")
    return versions.pop()


def _address(text: str, option: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        network = None
    if network is None or "%" in text or re.search(r"/.*[.:]", text):
        raise Unable(
            f"{option}: {text!r} is not an address, a network such as 10.0.0.0/8, a range, an alias or an IP set such"
            " as +office"
        )
    if "/" in text and str(network.network_address) != str(ipaddress.ip_address(text.partition("/")[0])):
        raise Unable(f"{option}: {text!r} has host bits set, write {network}")
    return network


def references(rules: Sequence[Rule]) -> tuple[set[str], set[str], set[str]]:
    """The macros, aliases and IP sets of the datacenter that rules name; aliases and macros in lower case."""
    macros = {str(rule["macro"]).lower() for rule in rules if rule.get("macro")}
    aliases: set[str] = set()
    ipsets: set[str] = set()
    for text in (str(rule[name]) for rule in rules for name in ADDRESSES if rule.get(name)):
        name = text.removeprefix("+").removeprefix("dc/")
        if "/" in name or not _REFERENCE.fullmatch(name):
            continue  # an address, or what is a guest's or a virtual network's own
        if text.startswith("+"):
            ipsets.add(name)
        else:
            aliases.add(name.lower())
    return macros, aliases, ipsets
