# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Free vmids for many servers that are created at the same time."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from ansible_collections.pvefleet.infra.plugins.module_utils._pve import values
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import PveClient, PveForbidden
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.cluster import record, strange
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.errors import Unable
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.resources import Resources

_HIGHEST = 999_999_999


def free_vmid(client: PveClient) -> int:
    """A vmid that was free at the time of asking, and is everybody's until somebody uses it. Raises PveError."""
    answer = str(client.get("/cluster/nextid"))
    if not (answer.isascii() and answer.isdigit()):
        raise strange(client, "/cluster/nextid")
    return int(answer)


class Vmids:
    """Gives each that asks a number of its own. PVE's own nextid gives all of them the same until one has used it.

    Others may still take a number first, and a user may not see every guest: who is refused asks for another.
    """

    def __init__(self, client: PveClient, resources: Resources, reserved: Iterable[int]) -> None:
        """reserved: numbers that are not to be given, because servers will be created with them."""
        self._client = client
        self._taken = {int(row["vmid"]) for row in resources.guests()} | set(reserved)
        self._next = 0
        self._highest = _HIGHEST
        self._lock = threading.Lock()

    def take(self, again: bool = False) -> int:
        """A number that is free as far as is known. again: the last one was not. Raises Unable, PveError."""
        with self._lock:
            if not self._next or again:
                if not self._next:
                    self._highest = self._read_highest()
                self._next = max(self._next, free_vmid(self._client))
            while self._next in self._taken:
                self._next += 1
            if self._next > self._highest:
                raise Unable(f"there is no free vmid up to {self._highest}")
            self._taken.add(self._next)
            return self._next

    def _read_highest(self) -> int:
        """The upper end, not included, of the range that the datacenter's options set for automatic numbers."""
        try:
            given = record(self._client, "/cluster/options").get("next-id") or {}
        except PveForbidden:
            return _HIGHEST
        if isinstance(given, str):
            given = values.parse_properties(given)
        return int(given["upper"]) - 1 if given.get("upper") else _HIGHEST
