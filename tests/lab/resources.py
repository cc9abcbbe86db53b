# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

"""``/cluster/resources``: what pvestatd saw last, so it is late."""

from __future__ import annotations

import time
from typing import Any

from aiohttp import web

from .guest import LabGuest

# PVE seconds until a change is seen, measured on a real node. The row itself, tags, node, pool and lock are
# read from the config and are there at once; a deleted row is gone at once.
NEW_GUEST = (7.0, 9.0)
POWER = (5.0, 10.0)
FACTS = (9.0, 11.0)


class Resources:
    """Mixin: the cluster's listing, with its lateness."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # False: every change is seen at once.
        self.late_resources = True
        super().__init__(*args, **kwargs)

    # --------------------------------------------------------------- lateness

    def note(self, guest: LabGuest) -> None:
        """Tell the listing what is true now; it shows it when pvestatd would have seen it."""
        truth = {
            "status": guest.status,
            "name": guest.name,
            "template": 1 if guest.template else 0,
            "maxcpu": int(guest.config.get("cores", 1)) * int(guest.config.get("sockets", 1)),
            "maxmem": int(str(guest.config.get("memory", 512)).rpartition("=")[2]) * 1024**2,
            "maxdisk": self._vm_maxdisk(guest),
        }
        changed = {key: value for key, value in truth.items() if guest.noted.get(key) != value}
        if not changed:
            return
        if not guest.noted:
            self._show_later(guest, changed, NEW_GUEST)
        else:
            power = {key: changed.pop(key) for key in ("status",) if key in changed}
            self._show_later(guest, power, POWER)
            self._show_later(guest, changed, FACTS)
        guest.noted = truth

    def _show_later(self, guest: LabGuest, values: dict[str, Any], delay: tuple[float, float]) -> None:
        if not values:
            return
        due = time.monotonic() + self._random.uniform(*delay) * self.time_scale
        # Never out of order: a status seen earlier is shown earlier.
        due = max([due, *(earlier for earlier, _change in guest.waiting)])
        guest.waiting.append((due, values))

    def _seen(self, guest: LabGuest) -> dict[str, Any]:
        """What the listing shows of the guest by now."""
        now = time.monotonic()
        while guest.waiting and (not self.late_resources or guest.waiting[0][0] <= now):
            guest.shown.update(guest.waiting.pop(0)[1])
        return guest.shown

    def settle_resources(self) -> None:
        """Show everything as it is now, as if nothing had changed for a while."""
        for guest in self.vms:
            self.note(guest)
            guest.waiting.clear()
            guest.shown = dict(guest.noted)

    # ---------------------------------------------------------------- listing

    async def _resources(self, request: web.Request) -> web.Response:
        return await self.checked(request, self._list_resources)

    async def _list_resources(self, values: dict[str, Any], user: str) -> list[dict[str, Any]]:
        kind = values.get("type")
        rows: list[dict[str, Any]] = []
        if kind in (None, "vm"):
            rows += [self._guest_row(g) for g in self.vms if self.allowed(user, f"/vms/{g.vmid}", "VM.Audit")]
            rows += self.ct_resources(user, kind)
        if kind is None:
            rows += [
                {"id": f"/pool/{name}", "type": "pool", "pool": name}
                for name in sorted(self.pools)
                if self.allowed(user, "/pool/" + name, "Pool.Audit")
            ]
        for node in sorted(self.nodes):
            if kind in (None, "node"):
                rows.append(self._node_row(node))
            if kind in (None, "storage"):
                rows += filter(
                    None,
                    (
                        self._storage_resource(node, name)
                        for name in sorted(self.storages)
                        if self._can_audit(user, name)
                    ),
                )
            if kind in (None, "sdn") and self.allowed(user, "/sdn/zones/localnetwork", "SDN.Audit"):
                rows.append(
                    {
                        "id": f"sdn/{node}/localnetwork",
                        "type": "sdn",
                        "node": node,
                        "sdn": "localnetwork",
                        "status": "ok",
                    }
                )
        return rows

    def _guest_row(self, guest: LabGuest) -> dict[str, Any]:
        self.note(guest)  # a test may have changed the guest behind the API
        seen = self._seen(guest)
        row = {"id": guest.guest, "type": "qemu", "node": guest.node, "vmid": guest.vmid, "status": "unknown"}
        if seen and self.nodes.get(guest.node, {}).get("online"):
            running = seen["status"] == "running"
            uptime = int(time.time() - guest.started_at) if running and guest.started_at else 0
            row.update(
                seen,
                cpu=0.02 if running else 0,
                mem=seen["maxmem"] // 2 if running else 0,
                uptime=uptime,
                disk=0,
                diskread=0,
                diskwrite=0,
                netin=0,
                netout=0,
            )
        if guest.config.get("tags"):
            row["tags"] = guest.config["tags"]
        if guest.lock:
            row["lock"] = guest.lock
        if guest.pool:
            row["pool"] = guest.pool
        return row

    def _node_row(self, node: str) -> dict[str, Any]:
        online = self.nodes[node]["online"]
        return {
            "id": "node/" + node,
            "type": "node",
            "node": node,
            "level": "",
            "status": "online" if online else "offline",
            **self._node_stats(online),
        }
