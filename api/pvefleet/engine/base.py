# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the engine needs of whatever runs a playbook: this machine now, a queue or AWX later."""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True)
class Job:
    """One run. variables and secrets: plain JSON values, never templated. registry: the text of a registry file."""

    task_id: str
    playbook: str
    variables: Mapping[str, Any]
    secrets: Mapping[str, Any] = field(default_factory=dict, repr=False)
    registry: str | None = field(default=None, repr=False)
    # What must not be readable in anything that the run says.
    hidden: frozenset[str] = field(default=frozenset(), repr=False)


@dataclass(frozen=True)
class Progress:
    """percent: 0 to 100, None when it is not known."""

    percent: int | None
    message: str


@dataclass(frozen=True)
class LogLine:
    level: str
    message: str


Event = Progress | LogLine


class End(enum.Enum):
    """How a run ended. DIED: its processes vanished without our doing, nobody knows how far it came."""

    COMPLETED = enum.auto()
    FAILED = enum.auto()
    STOPPED = enum.auto()
    DIED = enum.auto()


@dataclass(frozen=True)
class Outcome:
    end: End
    result: dict[str, Any] | None = None
    error: str | None = None


class Executor(Protocol):
    def run(self, job: Job, on_events: Callable[[Sequence[Event]], None], stop: threading.Event) -> Outcome:
        """Run the job to its end; when `stop` is set, end everything that belongs to it first.

        on_events is called in this thread. Nothing of the job runs any more, and nothing of it is on disk, when this
        returns or raises.
        """

    def clean(self, task_id: str) -> None:
        """End and remove what a run left behind whose engine died."""
