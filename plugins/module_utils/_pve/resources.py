# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One look at the whole cluster: guests, nodes, storages and pools from a single `cluster/resources`.

The listing shows what pvestatd saw last. Name and status of a guest lag by up to 11 s behind the truth, its node, tags
and existence by 0.1 s (measured on PVE 9.1), so nothing here decides whether a guest runs or what its name is not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import PveClient, segment


class Resources:
    def __init__(self, rows: Iterable[Mapping[str, Any]]) -> None:
        self._rows = list(rows)

    @classmethod
    def read(cls, client: PveClient) -> Resources:
        return cls(client.get("/cluster/resources"))

    def guests(self) -> list[Mapping[str, Any]]:
        """The rows of virtual machines and containers, templates included."""
        return [row for row in self._rows if row.get("type") in ("qemu", "lxc")]

    def guest(self, vmid: int) -> Mapping[str, Any] | None:
        return next((row for row in self.guests() if row["vmid"] == vmid), None)

    def nodes(self) -> dict[str, bool]:
        """Node -> online."""
        return {row["node"]: row.get("status") == "online" for row in self._rows if row.get("type") == "node"}

    def storages(self, node: str) -> dict[str, Mapping[str, Any]]:
        """The storages of a node; empty, too, for a user who may not see any."""
        return {row["storage"]: row for row in self._rows if row.get("type") == "storage" and row.get("node") == node}

    def pools(self) -> set[str]:
        """The pools that the user may see."""
        return {row["pool"] for row in self._rows if row.get("type") == "pool"}


def named(client: PveClient, resources: Resources, name: str) -> list[tuple[int, str]]:
    """vmid and node of every virtual machine that the listing calls `name`, or that has no name in it yet and is."""
    found = {
        (row["vmid"], row["node"]) for row in resources.guests() if row["type"] == "qemu" and row.get("name") == name
    }
    fresh_nodes = {row["node"] for row in resources.guests() if row["type"] == "qemu" and not row.get("name")}
    for node in sorted(fresh_nodes):
        for row in client.get(f"/nodes/{segment(node)}/qemu"):
            if row.get("name") == name:
                found.add((int(row["vmid"]), node))
    return sorted(found)
