# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

"""The lock file of a guest's config: exclusive or shared, with a deadline."""

from __future__ import annotations

import asyncio


class FileLock:
    """What flock() gives PVE on ``/var/lock/qemu-server/lock-<vmid>.conf``."""

    def __init__(self) -> None:
        self._readers = 0
        self._writer = False
        self._freed = asyncio.Event()

    def _free(self, shared: bool) -> bool:
        return not self._writer and (shared or not self._readers)

    async def take(self, *, shared: bool, seconds: float) -> bool:
        """Take the lock within this many real seconds; False when somebody else kept it."""
        try:
            async with asyncio.timeout(seconds):
                while not self._free(shared):
                    await self._freed.wait()
        except TimeoutError:
            return False
        if shared:
            self._readers += 1
        else:
            self._writer = True
        return True

    def drop(self, *, shared: bool) -> None:
        if shared:
            self._readers -= 1
        else:
            self._writer = False
        self._freed.set()
        self._freed = asyncio.Event()
