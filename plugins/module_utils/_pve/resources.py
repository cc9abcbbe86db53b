# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One look at the whole cluster: guests, nodes, storages and pools from a single `cluster/resources`.

The listing shows what pvestatd saw last. Name and status of a guest lag by up to 11 s behind the truth, its node, tags
and existence by 0.1 s (measured on PVE 9.1), so nothing here decides whether a guest runs or what its name is not.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import PveClient, segment
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.cluster import listing

T = TypeVar("T")


class Resources:
    """Safe to share between threads."""

    def __init__(self, rows: Iterable[Mapping[str, Any]]) -> None:
        self._rows = list(rows)
        self._by_vmid = {int(row["vmid"]): row for row in self.guests()}
        self._answers: dict[Hashable, Any] = {}
        self._locks: dict[Hashable, threading.Lock] = {}
        self._guard = threading.Lock()

    @classmethod
    def read(cls, client: PveClient) -> Resources:
        return cls(listing(client, "/cluster/resources"))

    def guests(self) -> list[Mapping[str, Any]]:
        """The rows of virtual machines and containers, templates included."""
        return [row for row in self._rows if row.get("type") in ("qemu", "lxc")]

    def machines(self) -> list[Mapping[str, Any]]:
        """The rows of virtual machines, templates included."""
        return [row for row in self.guests() if row["type"] == "qemu"]

    def guest(self, vmid: int) -> Mapping[str, Any] | None:
        return self._by_vmid.get(vmid)

    def once(self, question: Hashable, ask: Callable[[], T]) -> T:
        """The answer to a question that is asked at most once in this look, whoever else wants to know it."""
        with self._guard:
            lock = self._locks.setdefault(question, threading.Lock())
        with lock:
            if question not in self._answers:
                self._answers[question] = ask()
            answer: T = self._answers[question]
            return answer

    def named_guests(self, client: PveClient, node: str) -> Sequence[Mapping[str, Any]]:
        """The node's own list of its virtual machines, which knows a new name before the cluster's; asked for once."""
        return self.once(("guests", node), lambda: listing(client, f"/nodes/{segment(node)}/qemu"))

    def nodes(self) -> dict[str, bool]:
        """Node -> online."""
        return {row["node"]: row.get("status") == "online" for row in self._rows if row.get("type") == "node"}

    def offline(self) -> set[str]:
        return {node for node, online in self.nodes().items() if not online}

    def unseen(self) -> list[Mapping[str, Any]]:
        """The rows of virtual machines on nodes that are offline: PVE does not tell their names."""
        offline = self.offline()
        return [row for row in self.machines() if row["node"] in offline and self.is_nameless(row)]

    def being_cloned(self) -> bool:
        """Whether a clone is under way somewhere; it has no name before it is finished."""
        return any(row.get("lock") == "clone" and self.is_nameless(row) for row in self.guests())

    def storages(self, node: str) -> dict[str, Mapping[str, Any]]:
        """The storages of a node; empty, too, for a user who may not see any."""
        return {row["storage"]: row for row in self._rows if row.get("type") == "storage" and row.get("node") == node}

    def pools(self) -> set[str]:
        """The pools that the user may see."""
        return {row["pool"] for row in self._rows if row.get("type") == "pool"}

    @staticmethod
    def is_nameless(row: Mapping[str, Any]) -> bool:
        """pvestatd calls a guest `VM 101` as long as its config has no name, and until it looks again."""
        return row.get("name") in (None, "", f"VM {row['vmid']}")


def named(client: PveClient, resources: Resources, name: str) -> list[tuple[int, str]]:
    """vmid and node of every virtual machine that the listing calls `name`, or that has no name in it yet and is."""
    machines = resources.machines()
    found = {(int(row["vmid"]), row["node"]) for row in machines if row.get("name") == name}
    offline = resources.offline()
    for node in sorted({row["node"] for row in machines if resources.is_nameless(row)} - offline):
        for row in resources.named_guests(client, node):
            if row.get("name") == name:
                found.add((int(row["vmid"]), node))
    return sorted(found)
