# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

"""The datacenter: nodes, networks, storages, free ids, options."""

from __future__ import annotations

from typing import Any

from fakepve.model import PveError
from fakepve.routing import die, param_error, split_list

GIB = 1024**3
NODE_STATS = {
    "cpu": 0.02,
    "maxcpu": 32,
    "mem": 16 * GIB,
    "maxmem": 256 * GIB,
    "disk": 8 * GIB,
    "maxdisk": 94 * GIB,
    "uptime": 864000,
}
STORAGES: dict[str, dict[str, Any]] = {
    "local": {
        "type": "dir",
        "content": "iso,vztmpl,import,snippets,backup",
        "path": "/var/lib/vz",
        "total": 94 * GIB,
    },
    "local-lvm": {
        "type": "lvmthin",
        "content": "images,rootdir",
        "vgname": "pve",
        "thinpool": "data",
        "total": 4096 * GIB,
    },
    "shared": {
        "type": "nfs",
        "content": "images",
        "path": "/mnt/pve/shared",
        "server": "192.0.2.9",
        "export": "/srv/shared",
        "shared": 1,
        "total": 8192 * GIB,
    },
}
NEXT_ID = {"lower": "100", "upper": "1000000"}


class Datacenter:
    """Mixin: what a cluster has besides guests."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.version, self.release_version = "9.1.7", "9.1"
        self.options: dict[str, Any] = {"keyboard": "en-us", "mac_prefix": "BC:24:11"}
        self.storages = {
            name: {**store, "active": 1, "files": set(), "volumes": {}} for name, store in STORAGES.items()
        }
        # Node -> the bridges that are there.
        self.bridges: dict[str, set[str]] = {}

    def add_node(self, name: str, online: bool = True) -> None:
        """A node with the bridges vmbr0 and vmbr1."""
        self.nodes[name] = {"online": online}
        self.bridges[name] = {"vmbr0", "vmbr1"}

    def _routes_datacenter(self) -> list[tuple[str, str, Any]]:
        return [
            ("GET", "/cluster/nextid", self._nextid),
            ("GET", "/cluster/options", self._options_get),
            ("PUT", "/cluster/options", self._options_put),
            ("GET", "/nodes/{node}/network", self._network_list),
            ("GET", "/nodes/{node}/network/{iface}", self._network_read),
        ]

    @staticmethod
    def _node_stats(online: bool) -> dict[str, Any]:
        return dict(NODE_STATS) if online else {}

    # -------------------------------------------------------- options, nextid

    async def _nextid(self, values: dict[str, Any], user: str) -> str:
        """Free at the time of the check; nothing is reserved."""
        taken = {guest.vmid for guest in self._guests()}
        if values.get("vmid") is not None:
            if values["vmid"] in taken:
                raise param_error(vmid=f"VM {values['vmid']} already exists")
            return str(values["vmid"])
        limits = {**NEXT_ID, **self.options.get("next-id", {})}
        lower, upper = int(limits["lower"]), int(limits["upper"])
        for vmid in range(lower, upper):
            if vmid not in taken:
                return str(vmid)
        raise die(f"unable to get any free VMID in range [{lower}, {upper}]")

    async def _options_get(self, values: dict[str, Any], user: str) -> dict[str, Any]:
        return self.options

    async def _options_put(self, values: dict[str, Any], user: str) -> None:
        self.need_quorum()
        for key in split_list(values.pop("delete", "")):
            self.options.pop(key, None)
        if "next-id" in values:
            values["next-id"] = dict(part.partition("=")[::2] for part in values["next-id"].split(","))
        self.options.update(values)

    # ---------------------------------------------------------------- network

    def _interfaces(self, node: str) -> list[dict[str, Any]]:
        number = sorted(self.nodes).index(node) + 1
        common = {"active": 1, "autostart": 1, "families": ["inet"], "method6": "manual"}
        nic = {**common, "iface": "eno1", "type": "eth", "exists": 1, "method": "manual", "priority": 3}
        bridges = []
        for priority, name in enumerate(sorted(self.bridges[node]), 4):
            bridge: dict[str, Any] = {
                **common,
                "iface": name,
                "type": "bridge",
                "method": "manual",
                "bridge_ports": "",
                "bridge_stp": "off",
                "bridge_fd": "0",
                "bridge_vlan_aware": 1,
                "priority": priority,
            }
            if name == "vmbr0":
                address = f"192.0.2.{10 + number}"
                bridge.update(
                    method="static",
                    bridge_ports="eno1",
                    address=address,
                    netmask="24",
                    cidr=f"{address}/24",
                    gateway="192.0.2.1",
                )
            bridges.append(bridge)
        return [nic, *bridges]

    async def _network_list(self, values: dict[str, Any], user: str) -> list[dict[str, Any]]:
        kind = values.get("type")
        wanted = {"any_bridge": "bridge", "any_local_bridge": "bridge"}.get(kind, kind)
        return [item for item in self._interfaces(values["node"]) if wanted in (None, item["type"])]

    async def _network_read(self, values: dict[str, Any], user: str) -> dict[str, Any]:
        for item in self._interfaces(values["node"]):
            if item["iface"] == values["iface"]:
                return {key: value for key, value in item.items() if key != "iface"}
        raise param_error(iface="interface does not exist")

    # --------------------------------------------------------------- storages

    def space(self, name: str, node: str) -> tuple[int, int]:
        """(total, used) bytes of a storage as a node sees it; a disk counts in full, thin or not."""
        store = self.storages[name]
        used = sum(
            int(volume.get("size") or 0)
            for volume in store.get("volumes", {}).values()
            if store.get("shared") or volume.get("node") in (None, node)
        )
        return int(store.get("total", 100 * GIB)), used

    def _status_item(self, name: str, node: str, formats: bool = False) -> dict[str, Any]:
        item: dict[str, Any] = super()._status_item(name, node, formats)
        if item["active"]:
            total, used = self.space(name, node)
            item.update(total=total, used=used, avail=max(total - used, 0))
        return item

    def _storage_resource(self, node: str, name: str) -> dict[str, Any] | None:
        item: dict[str, Any] | None = super()._storage_resource(node, name)
        if item is not None and item["status"] == "available":
            item["maxdisk"], item["disk"] = self.space(name, node)
        return item

    async def _content_list(self, values: dict[str, Any], user: str) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = await super()._content_list(values, user)
        store = self.storages[values["storage"]]
        elsewhere = {
            f"{values['storage']}:{name}"
            for name, volume in store["volumes"].items()
            if not store.get("shared") and volume.get("node") not in (None, values["node"])
        }
        return [item for item in items if item["volid"] not in elsewhere]

    # ------------------------------------------------------------------ quorum

    async def _without_quorum(self, lock: str, prefix: str) -> None:
        """A write to a cluster-wide file waits ten seconds for its lock, then gives up."""
        if not self.quorate:
            await self.pause(10)
            raise PveError(500, f"{prefix}cfs-lock '{lock}' error: no quorum!")

    async def _pool_create(self, values: dict[str, Any], user: str) -> None:
        await self._without_quorum("file-user_cfg", "create pool failed: ")
        await super()._pool_create(values, user)

    async def _pool_update(self, values: dict[str, Any], user: str) -> None:
        await self._without_quorum("file-user_cfg", "update pools failed: ")
        await super()._pool_update(values, user)

    async def _pool_delete(self, values: dict[str, Any], user: str) -> None:
        await self._without_quorum("file-user_cfg", "delete pool failed: ")
        await super()._pool_delete(values, user)

    async def _sc_create(self, values: dict[str, Any], user: str) -> Any:
        await self._without_quorum("file-storage_cfg", "create storage failed: ")
        return await super()._sc_create(values, user)

    async def _sc_update(self, values: dict[str, Any], user: str) -> Any:
        await self._without_quorum("file-storage_cfg", "update storage failed: ")
        return await super()._sc_update(values, user)

    async def _sc_delete(self, values: dict[str, Any], user: str) -> Any:
        await self._without_quorum("file-storage_cfg", "delete storage failed: ")
        return await super()._sc_delete(values, user)
