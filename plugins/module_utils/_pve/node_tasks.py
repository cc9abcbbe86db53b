# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tasks that are under way on a node, whoever has begun them."""

from __future__ import annotations

import contextlib

from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import (
    PveClient,
    PveTaskFailed,
    PveTaskTimeout,
    segment,
)
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.cluster import listing, strange


def wait_for_active(client: PveClient, node: str, timeout: float, **filters: object) -> bool:
    """Until the tasks of this kind that are under way have ended, well or not. Whether there were any.

    timeout: seconds for each. filters: as PVE's own, `vmid` or `typefilter`.
    """
    path = f"/nodes/{segment(node)}/tasks"
    rows = listing(client, path, {"source": "active", **filters})
    upids = [row.get("upid") for row in rows if row.get("endtime") is None]
    for upid in upids:
        if not isinstance(upid, str):
            raise strange(client, path)
        with contextlib.suppress(PveTaskFailed, PveTaskTimeout):
            client.wait(upid, timeout=timeout)
    return bool(upids)
