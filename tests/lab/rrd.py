# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

"""Metrics over time, as `rrddata` answers them: made up, the same for the same thing and time, and plausible."""

from __future__ import annotations

import math
import time
import zlib
from typing import Any

from .datacenter import NODE_STATS
from .guest import LabGuest

# Timeframe -> (seconds a point, points), as PVE 9 keeps them.
TIMEFRAMES = {
    "hour": (60, 60),
    "day": (60, 1440),
    "week": (1800, 336),
    "month": (1800, 1440),
    "year": (21600, 1440),
    "decade": (604800, 570),
}
MIB = 1024**2


def wave(name: str, at: int) -> float:
    """Between 0 and 1, moving through the hour and the day, another curve for every name."""
    seed = zlib.crc32(name.encode()) / 2**32
    slow = math.sin(2 * math.pi * (at / 86400 + seed))
    fast = math.sin(2 * math.pi * (at / 3600 + 7 * seed))
    noise = zlib.crc32(f"{name}:{at}".encode()) / 2**32
    return min(max(0.45 + 0.25 * slow + 0.15 * fast + 0.15 * (noise - 0.5), 0.0), 1.0)


def times(timeframe: str, now: float) -> list[int]:
    """The points of a timeframe, oldest first; the last one is complete."""
    step, count = TIMEFRAMES[timeframe]
    last = int(now) // step * step
    return [last - step * back for back in reversed(range(count))]


class Rrd:
    """Mixin: the metrics of nodes, guests and storages. A point from a time without data has only its time."""

    def _routes_rrd(self) -> list[tuple[str, str, Any]]:
        return [
            ("GET", "/nodes/{node}/rrddata", self._rrd_node),
            ("GET", "/nodes/{node}/qemu/{vmid}/rrddata", self._rrd_guest),
            ("GET", "/nodes/{node}/storage/{storage}/rrddata", self._rrd_storage),
        ]

    async def _rrd_node(self, values: dict[str, Any], user: str) -> list[dict[str, Any]]:
        node = values["node"]
        began = time.time() - NODE_STATS["uptime"]
        return [
            {"time": at} if at < began else {"time": at, **self._node_point(node, at)}
            for at in times(values["timeframe"], time.time())
        ]

    @staticmethod
    def _node_point(node: str, at: int) -> dict[str, float]:
        load = wave(node, at)
        total = NODE_STATS["maxmem"]
        used = int(total * (0.2 + 0.5 * wave(f"{node}/mem", at)))
        return {
            "cpu": load / 2,
            "maxcpu": NODE_STATS["maxcpu"],
            "iowait": load / 50,
            "loadavg": load * NODE_STATS["maxcpu"] / 2,
            "memtotal": total,
            "memused": used,
            "memavailable": total - used,
            "swaptotal": 8 * 1024 * MIB,
            "swapused": 0,
            "roottotal": NODE_STATS["maxdisk"],
            "rootused": NODE_STATS["disk"],
            "netin": 40 * MIB * wave(f"{node}/in", at),
            "netout": 25 * MIB * wave(f"{node}/out", at),
        }

    async def _rrd_guest(self, values: dict[str, Any], user: str) -> list[dict[str, Any]]:
        guest = self.find(values["node"], int(values["vmid"]))
        return [self._guest_point(guest, at) for at in times(values["timeframe"], time.time())]

    def _guest_point(self, guest: LabGuest, at: int) -> dict[str, Any]:
        began = guest.started_at if guest.running else None
        if began is None or at < began:
            return {"time": at}
        name = f"vm/{guest.vmid}"
        cores = int(guest.config.get("cores", 1)) * int(guest.config.get("sockets", 1))
        memory = int(str(guest.config.get("memory", 512)).rpartition("=")[2]) * MIB
        used = int(memory * (0.3 + 0.6 * wave(f"{name}/mem", at)))
        return {
            "time": at,
            "cpu": wave(name, at),
            "maxcpu": cores,
            "mem": used,
            "maxmem": memory,
            "memhost": used + 64 * MIB,
            "disk": 0,  # PVE does not look into a VM's file systems
            "maxdisk": self._vm_maxdisk(guest),
            "diskread": 4 * MIB * wave(f"{name}/read", at),
            "diskwrite": 2 * MIB * wave(f"{name}/write", at),
            "netin": 3 * MIB * wave(f"{name}/in", at),
            "netout": MIB * wave(f"{name}/out", at),
        }

    async def _rrd_storage(self, values: dict[str, Any], user: str) -> list[dict[str, Any]]:
        name, node = values["storage"], values["node"]
        self._store(name)
        points: list[dict[str, Any]] = [{"time": at} for at in times(values["timeframe"], time.time())]
        if self._status_item(name, node)["active"]:
            total, used = self.space(name, node)
            for point in points:
                # It has filled up over the time shown, to what is there now.
                age = (points[-1]["time"] - point["time"]) / (10 * 365 * 86400)
                point.update(total=total, used=int(used * max(1 - age, 0)))
        return points
