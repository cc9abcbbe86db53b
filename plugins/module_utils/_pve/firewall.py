# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Security groups: their rules in order, and the servers they apply to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

from ansible_collections.pvefleet.infra.plugins.module_utils._plan import Change, Plan
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import (
    PveBadRequest,
    PveClient,
    PveConflict,
    segment,
)
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.cluster import listing, record, strange
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.errors import Unable, unable
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.firewall_members import (
    Journal,
    Member,
    MemberSteps,
    RuleTable,
    Use,
    apply_member,
    find_server,
    guests_tables,
    is_enabled,
    look_and_plan,
    observe_member,
    other_tables,
)
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.firewall_plan import (
    FIELDS,
    Delete,
    Op,
    Rule,
    plan_rules,
    simulate,
)
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.firewall_spec import GroupSpec, references
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.resources import Resources
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.sight import check_sight
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.steps import parallel
from ansible_collections.pvefleet.infra.plugins.module_utils._report import report

GROUPS = "/cluster/firewall/groups"
# Somebody's rules, and the calls that take the group out of them.
Detached = tuple[RuleTable, Sequence[Op]]


@dataclass(frozen=True)
class Result:
    """group: what it is now, or would be. datacenter_enabled: whether the cluster's firewall is on at all."""

    plan: Plan
    group: dict[str, Any]
    datacenter_enabled: bool


@dataclass(frozen=True)
class _Group:
    """A group as it is. name: the one it has now, which a wish may change. digest: of the list of all groups."""

    name: str
    comment: str
    digest: str | None
    table: RuleTable


@dataclass(frozen=True)
class _Work:
    """Everything that is to be done, in this order, and what it changes."""

    plan: Plan
    group: _Group | None
    members: Sequence[tuple[Member, MemberSteps]] = ()
    detached: Sequence[Detached] = ()
    rules: Sequence[Op] = ()


def converge(client: PveClient, spec: GroupSpec, *, check_mode: bool = False) -> Result:
    """Makes a group what `spec` says. Raises Unable."""
    observe = _observe_present if spec.state == "present" else _observe_absent
    apply = _apply_present if spec.state == "present" else _apply_absent
    verb = "manage" if spec.state == "present" else "remove"
    with unable(f"{verb} security group {spec.name}"):
        earlier = Plan(f"security group {spec.name}")
        for last in (False, True):
            journal = Journal(client)
            work = observe(client, spec)
            plan = _together(earlier, work.plan)
            if check_mode or not work.plan.changed:
                break
            try:
                apply(journal, spec, work)
                work = observe(client, spec)
                if work.plan.changed:
                    raise PveConflict("somebody else changes it at the same time")
                break
            except PveConflict:
                if last:
                    raise
                # Once more, from what there is now. What was done before stays done, and is told.
                earlier = plan if journal.wrote else earlier
        enabled = str(record(client, "/cluster/firewall/options").get("enable", 0)) not in ("0", "")
    return Result(plan, _describe(spec, work), enabled)


def read_groups(client: PveClient, name: str | None = None) -> tuple[list[dict[str, Any]], list[str]]:
    """Groups with their rules and users, and the nodes that are offline, whose use of them is not known."""
    with unable("read the security groups"):
        rows = {group: row for group, row in _rows(client).items() if name in (None, group)}
        if not rows:
            return [], []
        resources = Resources.read(client)
        uses, _unread = guests_tables(client, resources)
        uses += other_tables(client, resources)
        groups = []
        for group, row in sorted(rows.items()):
            table = RuleTable(client, _path(group), group)
            using = [use for use in uses if use.table.uses([group])]
            groups.append(
                {
                    "name": group,
                    "comment": _comment(row),
                    "rules": describe_rules(table.rules),
                    "digest": table.digest,
                    "members": [_guest(client, resources, use, group) for use in using if use.row],
                    "used_by": [use.table.label for use in using if not use.row],
                }
            )
    return groups, sorted(resources.offline())


def describe_rules(rules: Sequence[Rule]) -> list[dict[str, Any]]:
    """Rules as the module's options have them, with their positions."""
    found = []
    for pos, rule in enumerate(rules):
        texts = {name.replace("-", "_"): str(rule[name]) for name in FIELDS if rule.get(name) and name != "enable"}
        found.append({"pos": pos, **texts, "enabled": is_enabled(rule)})
    return found


def _guest(client: PveClient, resources: Resources, use: Use, group: str) -> dict[str, Any]:
    row, rules = use.row, use.table.rules
    names = {}
    if row["type"] == "qemu" and resources.nodes().get(row["node"]):
        names = {int(named["vmid"]): named.get("name") for named in resources.named_guests(client, row["node"])}
    return {
        "vmid": int(row["vmid"]),
        "name": names.get(int(row["vmid"]), row.get("name")),
        "node": row["node"],
        "type": row["type"],
        "enabled": any(is_enabled(rules[pos]) for pos in use.table.uses([group])),
    }


def _path(name: str) -> str:
    return f"{GROUPS}/{segment(name)}"


def _together(first: Plan, second: Plan) -> Plan:
    """What both change: from what was before the first to what is after the second."""
    before = {change.item: change.before for change in first.changes}
    again = {change.item for change in second.changes}
    kept = [change for change in first.changes if change.item not in again]
    return Plan(
        second.target,
        (*kept, *(Change(each.item, before.get(each.item, each.before), each.after) for each in second.changes)),
    )


def _find(client: PveClient, spec: GroupSpec) -> _Group | None:
    """The group by its name, or by the one that it is to be renamed from."""
    rows = _rows(client)
    name = spec.name
    if spec.rename_from in rows and spec.rename_from != name:
        if name in rows:
            raise Unable(
                f"Unable to rename security group {spec.rename_from} to {name}: there are both; remove one of them"
            )
        name = str(spec.rename_from)
    if name not in rows:
        return None
    row = rows[name]
    return _Group(
        name,
        _comment(row),
        row.get("digest"),
        RuleTable(client, _path(name), f"security group {name}"),
    )


# ---------------------------------------------------------------------------------------------------- present


def _observe_present(client: PveClient, spec: GroupSpec) -> _Work:
    group = _find(client, spec)
    if group is None and (spec.rename_from is not None or not spec.create):
        named = f"{spec.name} nor {spec.rename_from}" if spec.rename_from else spec.name
        raise Unable(f"Unable to manage security group {spec.name}: there is no {named}")
    changes: list[Change] = []
    if group is None:
        changes.append(Change("name", None, spec.name))
    elif group.name != spec.name:
        changes.append(Change("name", group.name, spec.name))
    comment = group.comment if group else ""
    if spec.comment is not None and spec.comment != comment:
        changes.append(Change("comment", comment, spec.comment))
    present = group.table.rules if group else []
    rules: list[Op] = []
    if spec.rules is not None and plan_rules(present, spec.rules):
        wanted = _referring(client, spec.rules)
        rules = plan_rules(present, wanted)
        changes.append(Change("rules", describe_rules(present), describe_rules(wanted)))
    names = {spec.name, group.name if group else spec.name}
    members, detached, more = _observe_members(client, spec, names)
    plan = Plan(f"security group {spec.name}", (*changes, *more))
    return _Work(plan, group, members, detached, rules)


def _referring(client: PveClient, rules: Sequence[Rule]) -> list[Rule]:
    """The rules with macros as PVE spells them. What they name has to be there: PVE would only say so in the middle of
    the work."""
    macros, aliases, ipsets = references(rules)
    missing = []
    known: dict[str, str] = {}
    if macros:
        rows = listing(client, "/cluster/firewall/macros")
        known = {str(row.get("macro")).lower(): str(row.get("macro")) for row in rows}
        missing += [f"macro {name}" for name in sorted(macros - known.keys())]
    if aliases or ipsets:
        rows = listing(client, "/cluster/firewall/refs")
        missing += [f"alias {name}" for name in sorted(aliases - _names(rows, "alias"))]
        missing += [f"IP set {name}" for name in sorted(ipsets - _names(rows, "ipset"))]
    if missing:
        raise Unable(f"rules: the datacenter has no {', no '.join(missing)}")
    return [{**rule, "macro": known[str(rule["macro"]).lower()]} if "macro" in rule else rule for rule in rules]


def _names(rows: Sequence[Mapping[str, Any]], kind: str) -> set[str]:
    names = {str(row.get("name")) for row in rows if row.get("type") == kind}
    return {name.lower() for name in names} if kind == "alias" else names


def _observe_members(
    client: PveClient, spec: GroupSpec, names: set[str]
) -> tuple[list[tuple[Member, MemberSteps]], list[Detached], list[Change]]:
    """What is to be done to the servers that are named, and to those that are not when that was asked for."""
    if not spec.members and not spec.remove_members and not spec.members_exclusive:
        return [], [], []
    resources = Resources.read(client)
    doing = f"assign security group {spec.name} to"

    def member(text: str) -> Member:
        guest = find_server(client, resources, text, doing)
        if guest is None:
            raise Unable(f"Unable to {doing} {text}: there is no such server")
        return observe_member(client, guest)

    def leaving(text: str) -> Member | None:
        guest = find_server(client, resources, text, f"take security group {spec.name} off")
        return None if guest is None else observe_member(client, guest)

    named = {found.guest.vmid: found for found in parallel(member, spec.members or ())}
    gone = {found.guest.vmid: found for found in parallel(leaving, spec.remove_members) if found is not None}
    twice = sorted(named[vmid].guest.name for vmid in named.keys() & gone.keys())
    if twice:
        raise Unable(f"members and remove_members both mean {', '.join(twice)}")
    others = [(found.guest.name, found.table) for found in gone.values()]
    if spec.members_exclusive:
        check_sight(client, "see every server that may use it")
        uses, unread = guests_tables(client, resources)
        if unread:
            raise Unable(
                f"Unable to tell which other servers security group {spec.name} applies to:"
                f" {', '.join(sorted(unread))} is offline"
            )
        known = named.keys() | gone.keys()
        others += [(use.name, use.table) for use in uses if int(use.row["vmid"]) not in known]
    members = parallel(lambda found: look_and_plan(client, found, spec, names), named.values())
    detached: list[Detached] = [(table, table.without(names)) for _name, table in others if table.uses(names)]
    left = [name for name, table in others if table.uses(names)]
    before = [found.guest.name for found in named.values() if found.table.uses(names)]
    changes = [change for found, steps in members for change in steps.changes(found)]
    if left or len(before) < len(named):
        after = sorted(found.guest.name for found in named.values())
        changes.insert(0, Change("members", sorted(before + left), after))
    return members, detached, changes


def _apply_present(journal: Journal, spec: GroupSpec, work: _Work) -> None:
    client, group = journal.client, work.group
    table = group.table if group else None
    if group is None:
        params = {"group": spec.name, "comment": spec.comment or None}
        try:
            journal.write("POST", GROUPS, params, lambda: True if _row(client, spec.name) is not None else None)
        except PveBadRequest as error:
            if _row(client, spec.name) is None:
                raise
            raise PveConflict("somebody else has just made it") from error
    elif group.name != spec.name or spec.comment not in (None, group.comment):
        # PVE also rewrites the rules that refer to a group when it is renamed.
        # An empty parameter is none to PVE; a blank is, and is trimmed when the file is read again.
        comment = " " if spec.comment == "" else spec.comment
        params = {"group": spec.name, "rename": group.name, "comment": comment, "digest": group.digest}

        def landed() -> bool | None:
            row = _row(client, spec.name)
            if row is None or (group.name != spec.name and _row(client, group.name) is not None):
                return None
            return True if spec.comment in (None, _comment(row)) else None

        journal.write("POST", GROUPS, params, landed)
    if table is None or table.path != _path(spec.name):
        table = RuleTable(client, _path(spec.name), f"security group {spec.name}")
        if work.rules and group is None and table.rules:
            raise PveConflict("somebody else has just made rules for it")
    if work.rules:
        report(None, f"{table.label}: {len(work.rules)} calls for its rules")
    table.apply(journal, work.rules)
    if group is not None and group.name != spec.name:
        for written in (*(member.table for member, _steps in work.members), *(table for table, _ops in work.detached)):
            written.read()
    parallel(lambda each: apply_member(journal, *each), [each for each in work.members if each[1].any])
    parallel(lambda each: each[0].apply(journal, each[1]), work.detached)


def _comment(row: Mapping[str, Any]) -> str:
    return str(row.get("comment", "")).strip()


def _row(client: PveClient, name: str) -> Mapping[str, Any] | None:
    return _rows(client).get(name)


def _rows(client: PveClient) -> dict[str, Mapping[str, Any]]:
    """The groups by name, without their rules."""
    rows = listing(client, GROUPS)
    if not all(isinstance(row.get("group"), str) for row in rows):
        raise strange(client, GROUPS)
    return {row["group"]: row for row in rows}


# ----------------------------------------------------------------------------------------------------- absent


def _observe_absent(client: PveClient, spec: GroupSpec) -> _Work:
    target = f"security group {spec.name}"
    group = _find(client, spec)
    if group is None:
        return _Work(Plan(target), None)
    resources = Resources.read(client)
    offline = sorted(resources.offline())
    if offline:
        raise Unable(
            f"Unable to remove {target}: {', '.join(offline)} is offline, and so it is not known whether something"
            " there uses it"
        )
    check_sight(client, "see every server that may use it")
    uses, _unread = guests_tables(client, resources)
    using = [use.table for use in (*other_tables(client, resources), *uses) if use.table.uses([spec.name])]
    labels = [table.label for table in using]
    if using and not spec.detach:
        raise Unable(f"Unable to remove {target}: {', '.join(labels)} use it; detach: true takes it off them")
    changes = [Change("name", spec.name, None)]
    if group.table.rules:
        changes.append(Change("rules", describe_rules(group.table.rules), None))
    if labels:
        changes.append(Change("used_by", labels, None))
    # From the bottom, so that the positions of the others stay.
    rules = [Delete(pos) for pos in reversed(range(len(group.table.rules)))]
    detached = [(table, table.without([spec.name])) for table in using]
    return _Work(Plan(target, tuple(changes)), group, (), detached, rules)


def _apply_absent(journal: Journal, spec: GroupSpec, work: _Work) -> None:
    if work.group is None:
        return
    parallel(lambda each: each[0].apply(journal, each[1]), work.detached)
    work.group.table.apply(journal, work.rules)
    client = journal.client
    journal.write("DELETE", _path(spec.name), {}, lambda: True if _row(client, spec.name) is None else None)


def _describe(spec: GroupSpec, work: _Work) -> dict[str, Any]:
    """The group as it will be when `work` is done."""
    group = work.group
    if spec.state == "absent":
        return {"name": spec.name, "state": "absent", "comment": "", "rules": [], "members": []}
    comment = group.comment if group else ""
    return {
        "name": spec.name,
        "state": "present",
        "comment": comment if spec.comment is None else spec.comment,
        "rules": describe_rules(reduce(simulate, work.rules, group.table.rules if group else [])),
        "members": [{**member.describe(), "pending": list(steps.waiting)} for member, steps in work.members],
    }
