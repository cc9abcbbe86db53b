# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The guests that a security group applies to: who they are, and what makes it take effect on one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ansible_collections.pvefleet.infra.plugins.module_utils._plan import Change
from ansible_collections.pvefleet.infra.plugins.module_utils._pve import values
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import (
    PveClient,
    PveConflict,
    PveUnreachable,
    segment,
)
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.cluster import record, strange
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.errors import Unable
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.firewall_plan import (
    Delete,
    Insert,
    Move,
    Op,
    Rule,
    Update,
    content,
    simulate,
)
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.firewall_spec import GroupSpec
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.guest import Guest, is_nic
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.hotplug import takes_effect_at_once
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.resources import Resources
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server import find, observe, server_path
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.steps import parallel
from ansible_collections.pvefleet.infra.plugins.module_utils._report import report

# What a listing adds to a rule.
_NOT_OF_THE_RULE = ("pos", "digest", "ipversion", "errors")


class Journal:
    """Writes, and knows afterwards whether there were any."""

    def __init__(self, client: PveClient) -> None:
        self.client = client
        self.wrote = False

    def write(self, method: str, path: str, params: Mapping[str, Any], landed: Callable[[], Any]) -> None:
        call = {"POST": self.client.post, "PUT": self.client.put, "DELETE": self.client.delete}[method]
        call(path, params, landed=landed)
        self.wrote = True


class RuleTable:
    """One list of rules, as PVE has it. label: whose it is."""

    def __init__(self, client: PveClient, path: str, label: str, *, retry_seconds: float | None = None) -> None:
        self.client = client
        self.path = path
        self.label = label
        self.rules: list[Rule] = []
        self.digest: str | None = None
        self.read(retry_seconds)

    def read(self, retry_seconds: float | None = None) -> None:
        rows = self.client.get(self.path, retry_seconds=retry_seconds)
        try:
            rows = sorted(rows, key=lambda row: int(row["pos"]))
        except (KeyError, TypeError, ValueError):
            raise strange(self.client, self.path) from None
        self.digest = rows[0].get("digest") if rows else None
        self.rules = [{key: value for key, value in row.items() if key not in _NOT_OF_THE_RULE} for row in rows]

    def apply(self, journal: Journal, ops: Iterable[Op]) -> None:
        """Raises PveConflict as soon as the list is not what these calls make of it."""
        for op in ops:
            before = [content(rule) for rule in self.rules]
            expected = [content(rule) for rule in simulate(self.rules, op)]

            def landed(before: object = before) -> bool | None:
                self.read()
                return None if [content(rule) for rule in self.rules] == before else True

            journal.write(*self._call(op), landed)
            # The next call needs the new digest; and PVE does not look at the digest when it adds a rule.
            self.read()
            if [content(rule) for rule in self.rules] != expected:
                raise PveConflict(f"the rules of {self.label} were changed by somebody else at the same time")

    def _call(self, op: Op) -> tuple[str, str, dict[str, Any]]:
        guard = {"digest": self.digest}
        match op:
            case Insert(rule):
                return "POST", self.path, {**rule, **guard}
            case Move(pos, to):
                return "PUT", f"{self.path}/{pos}", {"moveto": to, **guard}
            case Update(pos, changed, delete):
                return "PUT", f"{self.path}/{pos}", {**changed, "delete": ",".join(delete) or None, **guard}
            case Delete(pos):
                return "DELETE", f"{self.path}/{pos}", guard

    def uses(self, groups: Iterable[str]) -> list[int]:
        """The positions of the rules that apply one of these groups."""
        names = set(groups)
        found = enumerate(self.rules)
        return [pos for pos, rule in found if rule.get("type") == "group" and rule.get("action") in names]

    def without(self, groups: Iterable[str]) -> list[Op]:
        return [Delete(pos) for pos in reversed(self.uses(groups))]


def is_enabled(rule: Rule) -> bool:
    return str(rule.get("enable", 0)) != "0"


@dataclass(frozen=True)
class Use:
    """Whose rules they are: those of a guest (with its row of the listing), a node or the datacenter."""

    table: RuleTable
    row: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """A guest's name, as the listing has it."""
        return str(self.row.get("name") or self.row["vmid"])


def guests_tables(client: PveClient, resources: Resources) -> tuple[list[Use], set[str]]:
    """The rules of every guest, and the nodes that are offline and do not let theirs be known."""
    unread: set[str] = set()
    offline = resources.offline()

    def read(row: Mapping[str, Any]) -> Use | None:
        node = row["node"]
        if node in unread:
            return None
        kind = "server" if row["type"] == "qemu" else "container"
        path = f"/nodes/{segment(node)}/{row['type']}/{row['vmid']}/firewall/rules"
        try:
            # They are files of the cluster, which another node may know. Trying for long is of no use.
            table = RuleTable(
                client,
                path,
                f"{kind} {row.get('name') or row['vmid']}",
                retry_seconds=0 if node in offline else None,
            )
        except PveUnreachable:
            if node not in offline:
                raise
            unread.add(node)
            return None
        return Use(table, row)

    return [use for use in parallel(read, resources.guests()) if use is not None], unread


def other_tables(client: PveClient, resources: Resources) -> list[Use]:
    """The rules of the datacenter and of the nodes that are online."""
    nodes = [node for node, online in sorted(resources.nodes().items()) if online]
    places = [("/cluster/firewall/rules", "the datacenter")]
    places += [(f"/nodes/{segment(node)}/firewall/rules", f"node {node}") for node in nodes]
    return parallel(lambda place: Use(RuleTable(client, *place)), places)


def find_server(client: PveClient, resources: Resources, text: str, doing: str) -> Guest | None:
    """The server that an entry of a list of servers means, a name or a vmid. Unable when it is a container."""
    vmid = int(text) if text.isascii() and text.isdecimal() else None
    guest = find(client, resources, name=None if vmid is not None else text, vmid=vmid, glancing=True)
    if guest is None and any(row["type"] == "lxc" and row.get("name") == text for row in resources.guests()):
        raise Unable(f"Unable to {doing} {text}: it is a container")
    return guest


@dataclass(frozen=True)
class Member:
    """A server that the group shall apply to. options: those of its firewall."""

    guest: Guest
    table: RuleTable
    options: Mapping[str, Any]

    def describe(self) -> dict[str, Any]:
        return {"vmid": self.guest.vmid, "name": self.guest.name, "node": self.guest.node}


@dataclass(frozen=True)
class MemberSteps:
    """What makes the group take effect on a server; nics: the values of the devices that change.

    waiting: the devices whose firewall the running server gets at its next start only.
    """

    rules: tuple[Op, ...] = ()
    enable: bool = False
    nics: Mapping[str, str] = field(default_factory=dict)
    waiting: tuple[str, ...] = ()

    @property
    def any(self) -> bool:
        return bool(self.rules or self.enable or self.nics)

    def changes(self, member: Member) -> list[Change]:
        """Without that of the list of members."""
        found = []
        for op in self.rules:
            if isinstance(op, Update):
                before = member.table.rules[op.pos]
                found.append(
                    Change(
                        f"{member.guest.name}.rule",
                        {name: before.get(name) for name in op.values},
                        dict(op.values),
                    )
                )
        if self.enable:
            found.append(Change(f"{member.guest.name}.firewall", False, True))
        found += [Change(f"{member.guest.name}.{nic}.firewall", False, True) for nic in self.nics]
        return found


def observe_member(client: PveClient, guest: Guest) -> Member:
    path = f"{server_path(guest.node, guest.vmid)}/firewall"
    return Member(guest, RuleTable(client, f"{path}/rules", f"server {guest.name}"), record(client, f"{path}/options"))


def look_and_plan(
    client: PveClient, member: Member, spec: GroupSpec, groups: Iterable[str]
) -> tuple[Member, MemberSteps]:
    """As plan_member, with the digest that a change of the devices needs and a glance does not have."""
    steps = plan_member(member, spec, groups)
    if not steps.nics or member.guest.digest is not None:
        return member, steps
    guest = member.guest
    observed = replace(member, guest=observe(client, guest.node, int(guest.vmid or 0), pool=guest.pool))
    return observed, plan_member(observed, spec, groups)


def plan_member(member: Member, spec: GroupSpec, groups: Iterable[str]) -> MemberSteps:
    """Raises Unable when the server has not got the device."""
    nics: dict[str, str] = {}
    waiting: tuple[str, ...] = ()
    if spec.interface is not None and spec.interface not in member.guest.config:
        raise Unable(
            f"Unable to assign security group {spec.name} to {spec.interface} of server {member.guest.name}: it has no"
            " such network device"
        )
    if spec.enable_guest_firewall:
        devices = [spec.interface] if spec.interface else sorted(filter(is_nic, member.guest.config))
        nics = {nic: text for nic in devices if (text := _filtered(member.guest, nic)) is not None}
        waiting = tuple(nic for nic in devices if _waits(member.guest, nic, nics.get(nic)))
    enable = spec.enable_guest_firewall and str(member.options.get("enable", 0)) != "1"
    return MemberSteps(tuple(_plan_rule(member.table, spec, groups)), enable, nics, waiting)


def _plan_rule(table: RuleTable, spec: GroupSpec, groups: Iterable[str]) -> list[Op]:
    uses = table.uses(groups)
    if not uses:
        rule: dict[str, Any] = {"type": "group", "action": spec.name, "enable": 1}
        if spec.interface:
            rule["iface"] = spec.interface
        bottom = spec.position == "bottom" and table.rules
        return [Insert(rule), *([Move(0, len(table.rules) + 1)] if bottom else [])]

    def differing(pos: int) -> dict[str, Any]:
        rule = table.rules[pos]
        changed: dict[str, Any] = {} if is_enabled(rule) else {"enable": 1}
        if spec.interface and rule.get("iface") != spec.interface:
            changed["iface"] = spec.interface
        return changed

    best = min(uses, key=lambda pos: ("iface" in differing(pos), len(differing(pos))))
    return [Update(best, differing(best))] if differing(best) else []


def _waits(guest: Guest, nic: str, value: str | None) -> bool:
    """Whether the device goes on without its firewall until the next start. value: what it is going to be, if that."""
    if value is not None:
        return not takes_effect_at_once(nic, value, guest)
    running = guest.pending.get(nic)
    return running is not None and _filtered(replace(guest, config={nic: running}), nic) is not None


def _filtered(guest: Guest, nic: str) -> str | None:
    """The device's value with its firewall on; None when it is."""
    try:
        device = values.parse_nic(guest.text(nic))
        if values.parse_bool(device.options.get("firewall", "0")):
            return None
        return values.print_nic(replace(device, options={**device.options, "firewall": "1"}))
    except ValueError as error:
        raise Unable(f"Unable to turn on the firewall of {nic} of server {guest.name}: {error}") from None


def apply_member(journal: Journal, member: Member, steps: MemberSteps) -> None:
    """The rule comes first: a firewall that is turned on without it would refuse what the group lets through."""
    client, guest = journal.client, member.guest
    report(None, f"{member.table.label}: the security group")
    member.table.apply(journal, steps.rules)
    path = server_path(guest.node, guest.vmid)
    if steps.enable:
        options = f"{path}/firewall/options"
        journal.write(
            "PUT",
            options,
            {"enable": True, "digest": member.options.get("digest")},
            lambda: True if str(record(client, options).get("enable", 0)) == "1" else None,
        )
    if steps.nics:

        def landed() -> bool | None:
            now = replace(guest, config=record(client, f"{path}/config"))
            return True if all(_filtered(now, nic) is None for nic in steps.nics) else None

        journal.write("PUT", f"{path}/config", {**steps.nics, "digest": guest.digest}, landed)
