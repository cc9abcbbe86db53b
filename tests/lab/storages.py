# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

"""Storages: activated when they are defined, seen late by pvestatd, out of reach or full when a test says so."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from fakepve.model import TaskError
from fakepve.routing import die, param_error
from fakepve.storage import _is_file

# PVE seconds until cluster/resources shows a new storage as available (its row is there at once).
AVAILABLE = 6.0
# On these every byte is taken when a volume is made; on the others when the guest writes it.
THICK = ("lvm", "zfspool")


class Storages:
    """Mixin: what becomes of a storage's definition on each node, and whether there is room on it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Storage -> when cluster/resources begins to show it as available.
        self._available: dict[str, float] = {}
        # Storage, defined or not yet -> the nodes that cannot reach it.
        self._unreachable: dict[str, set[str]] = {}
        # (storage, node) without room.
        self._full: set[tuple[str, str]] = set()
        super().__init__(*args, **kwargs)

    # ------------------------------------------------------------ for its users

    def set_storage_unreachable(self, name: str, nodes: Iterable[str] | None = None) -> None:
        """The storage, which may be defined later, cannot be activated on these nodes (all unless told)."""
        self._unreachable[name] = set(self.nodes if nodes is None else nodes)

    def set_storage_reachable(self, name: str) -> None:
        """The end of set_storage_unreachable()."""
        self._unreachable.pop(name, None)

    def fill_storage(self, name: str, node: str | None = None) -> None:
        """There is no room on the storage any more, as seen from this node (from all unless told)."""
        self._full |= {(name, each) for each in self.nodes if node in (None, each)}

    def empty_storage(self, name: str, node: str | None = None) -> None:
        """The end of fill_storage(): what was on the storage before still is."""
        self._full -= {(name, each) for each in self.nodes if node in (None, each)}

    # -------------------------------------------------------------------- room

    def has_room(self, name: str, node: str, size: int) -> bool:
        """Whether `size` more bytes can be allocated. What is thin takes anything until the storage is full."""
        if (name, node) in self._full:
            return False
        store = self.storages[name]
        if store["type"] not in THICK or store.get("sparse"):
            return True
        total, used = self.space(name, node)
        return bool(used + size <= total)

    def need_room(self, name: str, node: str, volume: str, size: int) -> None:
        """Refuse to allocate a volume, in the words of the storage's plugin."""
        self.need_reachable(name, node)
        if self.has_room(name, node, size):
            return
        store = self.storages[name]
        kind = store["type"]
        if _is_file(store):
            path = self._volume_path(name, volume, "images")
            raise die(f"unable to create image: qemu-img: {path}: No space left on device")
        if kind == "zfspool":
            raise die(f"zfs error: cannot create '{store['pool']}/{volume}': out of space")
        if kind == "lvmthin":
            pool = f"{store['vgname']}/{store['thinpool']}"
            raise die(
                f"lvcreate '{store['vgname']}/{volume}' error:   Cannot create new thin volume,"
                f" free space in thin pool {pool} reached threshold."
            )
        total, used = self.space(name, node)
        raise die(f"not enough free space ({(total - used) // 1024} < {size // 1024})")

    def space(self, name: str, node: str) -> tuple[int, int]:
        total, used = super().space(name, node)
        return total, total if (name, node) in self._full else used

    def store_file(self, storage: str, name: str, size: int, content: str = "iso") -> None:
        if any(full == storage for full, _node in self._full):
            raise TaskError("import failed: No space left on device")
        super().store_file(storage, name, size, content)

    # -------------------------------------------------------------- activation

    def need_reachable(self, name: str, node: str) -> None:
        if node in self._unreachable.get(name, ()):
            raise die(f"storage '{name}' is not online")

    def _active_store(self, name: str, node: str) -> dict[str, Any]:
        store: dict[str, Any] = super()._active_store(name, node)
        self.need_reachable(name, node)
        return store

    async def _sc_create(self, values: dict[str, Any], user: str) -> Any:
        """The node that answers activates the storage before the definition is written, if it is one of its own."""
        name = values["storage"]
        known = name in self.storages
        made = await super()._sc_create(values, user)
        store = self.storages[name]
        if store["type"] in ("nfs", "cifs", "cephfs"):
            store["shared"] = 1  # PVE adds it for what cannot be anything else
        here = sorted(self.nodes)[0]
        if not known and self._storage_enabled(name, here) and here in self._unreachable.get(name, ()):
            del self.storages[name]
            raise die(f"create storage failed: storage '{name}' is not online")
        self._available[name] = time.monotonic() + AVAILABLE * self.time_scale
        return made

    async def _sc_update(self, values: dict[str, Any], user: str) -> Any:
        answer = await super()._sc_update(values, user)
        # An empty list of nodes is none: the storage is for all.
        store = self.storages[values["storage"]]
        if not store.get("nodes"):
            store.pop("nodes", None)
        return answer

    def _status_item(self, name: str, node: str, formats: bool = False) -> dict[str, Any]:
        item: dict[str, Any] = super()._status_item(name, node, formats)
        if node in self._unreachable.get(name, ()):
            item.update(active=0, total=0, used=0, avail=0)
        return item

    def _storage_resource(self, node: str, name: str) -> dict[str, Any] | None:
        item: dict[str, Any] | None = super()._storage_resource(node, name)
        if item is None:
            return None
        late = self.late_resources and time.monotonic() < self._available.get(name, 0)
        if late or node in self._unreachable.get(name, ()) or not self.nodes[node]["online"]:
            item.update(status="unknown", disk=0, maxdisk=0)
        return item

    def settle_resources(self) -> None:
        """Also every storage is seen as it is."""
        self._available.clear()
        super().settle_resources()

    async def _ns_status(self, values: dict[str, Any], user: str) -> Any:
        name = values["storage"]
        if name in self.storages and not self._can_audit(user, name):
            raise param_error(storage="No such storage.")
        return await super()._ns_status(values, user)
