# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

"""The firewall's configuration: fakepve's, but for the quorum that writing needs and what a clone takes with it."""

from __future__ import annotations

import copy
from typing import Any

from .clone import Order
from .guest import LabGuest
from .tasks import Log


class Firewall:
    """Mixin: rules, options and security groups."""

    async def _need_firewall_lock(self, scope: str, values: dict[str, Any]) -> None:
        """Every write takes a lock of the cluster, one a file."""
        guest = f"vm-{values.get('vmid')}"
        files = {"host": f"host-{values.get('node')}", "vm": guest, "ct": guest}
        await self._without_quorum(f"firewall-{files.get(scope, 'cluster')}", "")

    async def _fw_options_put(self, scope: str, values: dict[str, Any], user: str) -> None:
        await self._need_firewall_lock(scope, values)
        await super()._fw_options_put(scope, values, user)

    async def _fw_rule_create(self, scope: str, values: dict[str, Any], user: str) -> None:
        await self._need_firewall_lock(scope, values)
        await super()._fw_rule_create(scope, values, user)

    async def _fw_rule_update(self, scope: str, values: dict[str, Any], user: str) -> None:
        await self._need_firewall_lock(scope, values)
        await super()._fw_rule_update(scope, values, user)

    async def _fw_rule_delete(self, scope: str, values: dict[str, Any], user: str) -> None:
        await self._need_firewall_lock(scope, values)
        await super()._fw_rule_delete(scope, values, user)

    async def _fw_group_create(self, values: dict[str, Any], user: str) -> None:
        await self._need_firewall_lock("group", values)
        await super()._fw_group_create(values, user)

    async def _fw_group_delete(self, values: dict[str, Any], user: str) -> None:
        await self._need_firewall_lock("group", values)
        await super()._fw_group_delete(values, user)

    async def _copy(self, source: LabGuest, guest: LabGuest, old: dict[str, Any], order: Order, log: Log) -> None:
        await super()._copy(source, guest, old, order, log)
        rules = self._fw()["guests"].get(source.vmid)
        if rules is not None:
            self._fw()["guests"][guest.vmid] = copy.deepcopy(rules)
