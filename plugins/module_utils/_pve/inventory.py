# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an inventory makes of clusters: which guests it takes, what their hosts and groups are called. Pure.

Facts are plain values: `cluster`, `type` (`qemu`, `lxc` or `node`), `node`, `name`, `status` of each host, and for
guests `vmid`, `tags`, `role`, `pool`, `template`, sizes and what was read of them. Nothing in them is to be trusted:
whoever may edit a guest chooses its name, tags and notes, and whoever is root in it chooses what its agent tells.
"""

from __future__ import annotations

import fnmatch
import ipaddress
import re
import socket
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TypeAlias

from ansible_collections.pvefleet.infra.plugins.module_utils._pve import values
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.errors import Unable
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server_spec import ROLE_PREFIX

Facts = Mapping[str, Any]
Network: TypeAlias = "ipaddress.IPv4Network | ipaddress.IPv6Network"

GROUPS = ("type", "cluster", "node", "status", "pool", "tag", "role")
# A host of one of these names would become every host for plays that mean those.
RESERVED = frozenset({"all", "ungrouped"})
# What resolvers and hosts files take for the machine that they are on.
_CONTROLLER = re.compile(r"(?i)(.*\.)?localhost\.?|localhost[46]?(\.localdomain[46]?)?\.?|ip6-(localhost|loopback)\.?")
_MOST_NAMED = 5  # in one warning


@dataclass(frozen=True)
class Filter:
    """Conditions on guests; an empty one says nothing. nodes: of the nodes themselves, too."""

    nodes: tuple[str, ...] = ()
    vmids: tuple[range, ...] = ()
    types: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    pools: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    status: tuple[str, ...] = ()

    def verdicts(self, facts: Facts) -> dict[str, bool]:
        """Condition -> whether the guest or node meets it; only the conditions that were given, and are known by now.

        A name that is None and a status that is unknown may still be looked up.
        """
        found: dict[str, bool] = {}
        if self.nodes:
            found["nodes"] = facts["node"] in self.nodes
        if facts["type"] == "node":
            return found
        if self.vmids:
            found["vmids"] = any(facts["vmid"] in span for span in self.vmids)
        if self.types:
            found["types"] = facts["type"] in self.types
        if self.tags:
            has = {tag.lower() for tag in facts["tags"]}
            found["tags"] = any(tag.lower() in has for tag in self.tags)
        if self.pools:
            found["pools"] = facts["pool"] in self.pools
        if self.names and facts["name"] is not None:
            found["names"] = any(fnmatch.fnmatchcase(facts["name"], pattern) for pattern in self.names)
        if self.status:
            found["status"] = facts["status"] in self.status
        return found


@dataclass(frozen=True)
class Wish:
    """What the inventory shall have. addresses: `none`, `cloud_init`, `agent` or `both`."""

    guests: bool = True
    nodes: bool = True
    templates: bool = False
    only: Filter = field(default_factory=Filter)
    exclude: Filter = field(default_factory=Filter)
    addresses: str = "none"
    config: bool = False

    def takes(self, facts: Facts, *, final: bool = True) -> bool:
        """Whether it becomes a host. Not final: its name, status and whether it is a template are not settled yet."""
        if facts["type"] == "node":
            if not self.nodes:
                return False
        elif not self.guests or (final and facts["template"] and not self.templates):
            return False
        wanted, unwanted = self.only.verdicts(facts), self.exclude.verdicts(facts)
        if not final:
            for verdicts in (wanted, unwanted):
                verdicts.pop("status", None)
        elif facts["type"] != "node" and facts["name"] is None and self.only.names:
            return False  # what nobody can tell the name of is not what was asked for
        return all(wanted.values()) and not any(unwanted.values())

    @property
    def reads_config(self) -> bool:
        return self.config or self.addresses in ("cloud_init", "both")

    @property
    def reads_agent(self) -> bool:
        return self.addresses in ("agent", "both")


def filter_from(option: str, given: Any) -> Filter:
    """The option `only` or `exclude`. Raises Unable when it is no filter."""
    known = [entry.name for entry in fields(Filter)]
    if not isinstance(given, Mapping):
        raise Unable(f"Unable to use {option}: it must be a mapping with some of {', '.join(known)}")
    made: dict[str, tuple[Any, ...]] = {}
    for name, value in given.items():
        if name not in known:
            raise Unable(f"Unable to use {option}: {name} is unknown (known: {', '.join(known)})")
        items = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        if not all(isinstance(item, str | int) and not isinstance(item, bool) for item in items):
            raise Unable(f"Unable to use {option}.{name}: it must be a list of texts")
        made[name] = tuple(_span(f"{option}.{name}", item) if name == "vmids" else str(item) for item in items)
    unknown = set(made.get("types", ())) - {"qemu", "lxc"}
    if unknown:
        raise Unable(f"Unable to use {option}.types: {', '.join(sorted(unknown))} is neither qemu nor lxc")
    return Filter(**made)


def _span(option: str, given: str | int) -> range:
    """`100` or `100-199`, both ends included."""
    match = re.fullmatch(r"\s*([0-9]{1,9})\s*(?:-\s*([0-9]{1,9})\s*)?", str(given))
    if match is None:
        raise Unable(f"Unable to use {option}: {given!r} is neither a vmid nor a range such as 100-199")
    return range(int(match[1]), int(match[2] or match[1]) + 1)


def networks_from(given: Iterable[Any]) -> tuple[Network, ...]:
    """The option `networks`. Raises Unable when one of them is none."""
    try:
        return tuple(ipaddress.ip_network(str(text), strict=False) for text in given)
    except ValueError as error:
        raise Unable(f"Unable to use networks: {error}") from None


def guest_facts(cluster: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """A guest's row of the cluster's listing. name: None as long as the listing has none."""
    name = row.get("name")
    return {
        "cluster": cluster,
        "type": row["type"],
        "node": str(row["node"]),
        "vmid": int(row["vmid"]),
        # what pvestatd calls a guest that it has not looked at yet
        "name": None if name in (None, "", f"VM {row['vmid']}", f"CT{row['vmid']}") else str(name),
        "status": str(row.get("status", "unknown")),
        "template": str(row.get("template", "")) == "1",
        "pool": row.get("pool"),
        "lock": row.get("lock"),
        "maxcpu": row.get("maxcpu"),
        "maxmem": row.get("maxmem"),
        "maxdisk": row.get("maxdisk"),
        **tag_facts(str(row.get("tags", ""))),
    }


def tag_facts(text: str) -> dict[str, Any]:
    """The tags, sorted, and the role that one of them tells."""
    tags = sorted(values.parse_tags(text))
    roles = [tag[len(ROLE_PREFIX) :] for tag in tags if tag.lower().startswith(ROLE_PREFIX)]
    return {"tags": tags, "role": roles[0] if roles else None}


def node_facts(cluster: str, row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "cluster": cluster,
        "type": "node",
        "node": str(row["node"]),
        "name": str(row["node"]),
        "status": str(row.get("status", "unknown")),
    }


def group_names(facts: Facts, prefix: str, kinds: Collection[str] = GROUPS) -> list[str]:
    """The groups of a host, all of them valid names in Ansible."""
    guest = facts["type"] != "node"
    having: dict[str, Iterable[Any]] = {
        "type": ("guests", facts["type"]) if guest else ("nodes",),
        "cluster": (f"cluster_{facts['cluster']}",),
        "node": (f"node_{facts['node']}",) if guest else (),
        "status": (f"status_{facts['status']}",),
        "pool": (f"pool_{facts['pool']}",) if guest and facts["pool"] else (),
        "tag": (f"tag_{tag}" for tag in facts["tags"]) if guest else (),
        "role": (f"role_{facts['role']}",) if guest and facts["role"] else (),
    }
    return [safe(f"{prefix}{name}") for kind in GROUPS if kind in kinds for name in having[kind]]


def safe(text: str) -> str:
    """A group's name in Ansible: letters, digits and underscores, no digit first."""
    return re.sub(r"^(?=\d)", "_", re.sub(r"[^A-Za-z0-9_]", "_", text)) or "_"


def host_names(hosts: Sequence[Facts]) -> tuple[list[str], list[str]]:
    """A name for each host, no two alike whatever the clusters say, and warnings about those that are not as in PVE.

    A guest or node is called what PVE calls it. What shares its name with another, has none, or has one that is no
    host name or means something else in Ansible, is called CLUSTER-NAME-VMID. So that nobody who names a guest decides
    what another host is called, a node never yields to a guest, and no guest has a name that reads like another's long
    one, whether that is in use or not.
    """
    plain = [_plain_name(facts) for facts in hosts]
    is_node = [facts["type"] == "node" for facts in hosts]
    long_ones = _LongNames(facts for facts in hosts if facts["type"] != "node")
    names: dict[int, str] = {}
    twins: dict[str, list[str]] = {}
    strangers: list[str] = []
    taken: set[str] = set()
    for nodes in (True, False):
        mine = [index for index, node in enumerate(is_node) if node is nodes]
        count = Counter(name.lower() for index in mine if (name := plain[index]) is not None)
        shared = {name for name in count if count[name] > 1 or name in taken}
        others = []
        for index in mine:
            name = plain[index]
            if name is None or name.lower() in shared or (not nodes and long_ones.have(name, hosts[index])):
                others.append(index)
            else:
                names[index] = name
        taken |= {names[index].lower() for index in mine if index in names}
        for index in others:
            name = plain[index]
            names[index] = _long_name(hosts[index], name, taken)
            taken.add(names[index].lower())
            if name is not None and name.lower() in shared:
                twins.setdefault(name, []).append(names[index])
            else:
                strangers.append(names[index])
    warnings: list[str] = []
    if twins:
        told = [f"{name} ({', '.join(twins[name][:_MOST_NAMED])})" for name in sorted(twins)]
        warnings.append(f"Names that are not unique, and what their hosts are called instead: {_few(told, '; ')}")
    if strangers:
        warnings.append(f"Guests whose name is not known or can be no host's: {_few(strangers)}")
    return [names[index] for index in range(len(hosts))], warnings


class _LongNames:
    """Tells names that some guest could have as its long name, whatever it is called: CLUSTER-...-VMID."""

    def __init__(self, guests: Iterable[Facts]) -> None:
        self._clusters: dict[str, set[str]] = {}  # by vmid
        for facts in guests:
            self._clusters.setdefault(str(facts["vmid"]), set()).add(_part(facts["cluster"]).lower())

    def have(self, name: str, facts: Facts) -> bool:
        """Whether name is one of them, for another guest than that of the facts."""
        head, _dash, vmid = name.lower().rpartition("-")
        own = _part(facts["cluster"]).lower() if vmid == str(facts["vmid"]) else None
        return any(f"{head}-".startswith(f"{cluster}-") for cluster in self._clusters.get(vmid, ()) if cluster != own)


def is_reserved(name: str) -> bool:
    """Whether a host of this name would be another one: the controller, every host, or whoever has that address."""
    if name.lower() in RESERVED or _CONTROLLER.fullmatch(name):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        pass
    else:
        return True
    try:
        socket.inet_aton(name)  # as ssh does: 127.1 and 2130706433 are addresses, too
    except (OSError, ValueError):  # ValueError: of what is not ASCII
        return False
    return True


def _plain_name(facts: Facts) -> str | None:
    """The name by which PVE knows it, if a host of Ansible can have it."""
    name = facts["name"]
    if name is None or is_reserved(name):
        return None
    try:
        return values.server_name(name)
    except ValueError:
        return None


def _long_name(facts: Facts, name: str | None, taken: Collection[str]) -> str:
    """taken: names in lower case."""
    if facts["type"] == "node":
        name = facts["node"].replace(".", "-")
    wanted = "-".join(_part(part) for part in (facts["cluster"], name, facts.get("vmid")) if part is not None)
    found, number = wanted, 1
    while found.lower() in taken or is_reserved(found):
        number += 1
        found = f"{wanted}-{number}"
    return found


def _part(text: Any) -> str:
    """A part of a long name."""
    return re.sub(r"[^A-Za-z0-9.-]", "-", str(text))


def _few(items: Sequence[str], separator: str = ", ") -> str:
    more = f" and {len(items) - _MOST_NAMED} more" if len(items) > _MOST_NAMED else ""
    return separator.join(items[:_MOST_NAMED]) + more


def preferred(addresses: Iterable[str], networks: Sequence[Network]) -> str | None:
    """The address to reach a host at: the first one in the first network that has any. Without networks, the first
    IPv4 address, else the first."""
    valid = []
    for text in addresses:
        try:
            valid.append(ipaddress.ip_address(values.ip_address(text)))
        except ValueError:
            continue  # a guest tells what it likes
    for network in networks or (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")):
        for address in valid:
            if address in network:
                return str(address)
    return None


def variables(facts: Facts, networks: Sequence[Network]) -> dict[str, Any]:
    """The variables of a host: the facts as `pve_*`, and ansible_host when an address is known."""
    found = {f"pve_{name}": value for name, value in facts.items()}
    address = preferred(facts.get("ip_addresses", ()), networks)
    return found if address is None else {**found, "ansible_host": address}
