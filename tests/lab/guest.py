# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

"""One simulated VM: what fakepve keeps of it, plus the state the lab adds."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from fakepve.model import FakeVm


class LabGuest(FakeVm):
    """A VM.

    ``config`` is what runs now, ``pending`` what the next start will use (None: a pending delete).
    ``agent`` is None for a guest without an operating system: nothing answers ACPI or the guest agent.
    Durations (``start_secs``, ``stop_secs``, ``shutdown_secs``, ``agent_secs``) are PVE seconds.
    """

    def __init__(self, vmid: int, name: str, **kwargs: Any) -> None:
        super().__init__(vmid, name, **kwargs)
        self.agent: dict[str, Any] | None = {}
        self.start_secs = 1.0
        self.stop_secs = 0.5
        self.shutdown_secs = 3.0
        # From power on until the guest agent answers.
        self.agent_secs = 8.0
        # time.monotonic() of the last power on.
        self.booted_at = 0.0
        # Pending deletes that were asked for with force: their volume is destroyed, not kept as unusedN.
        self.forced: set[str] = set()
        # Cloud-init values as the drive's image holds them, and as the guest read them at its last boot.
        self.generated: dict[str, str] = {}
        self.booted_with: dict[str, str] = {}
        # What cluster/resources shows, what it will show and when, and the last truth it was told (resources.py).
        self.shown: dict[str, Any] = {}
        self.waiting: list[tuple[float, dict[str, Any]]] = []
        self.noted: dict[str, Any] = {}

    @property
    def running(self) -> bool:
        return bool(self.status == "running")

    def merged(self) -> dict[str, Any]:
        """The config as the next start will use it."""
        merged = {**self.config, **self.pending}
        return {key: value for key, value in merged.items() if value is not None}

    def digest(self) -> str:
        """PVE's digest covers the whole config file: current, pending and snapshots."""
        blob = json.dumps([self.config, self.pending, self.snapshots], sort_keys=True)
        return hashlib.sha1(blob.encode(), usedforsecurity=False).hexdigest()
