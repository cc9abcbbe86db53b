# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What everything that takes its time does: a call with a worker, with progress; looking until something is so."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

from ansible_collections.pvefleet.infra.plugins.module_utils import _report
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import PveClient, TaskProgress, TaskResult

POLL_SECONDS = 1.0
# How many reads are made at a time, where nobody says.
WORKERS = 8

T = TypeVar("T")
R = TypeVar("R")


class Report(Protocol):
    """Whoever is told how far something is: percent (None when unknown) and message."""

    def __call__(self, percent: int | None, message: str, /) -> None: ...


def step(
    client: PveClient,
    method: str,
    path: str,
    params: Mapping[str, object],
    *,
    label: str,
    timeout: float,
    percent: tuple[int, int] = (0, 100),
    landed: Callable[[], Any] | None = None,
    report: Report = _report.report,
) -> TaskResult | None:
    """One call and the wait for its worker, reported as `label: ...`. As PveClient.run otherwise.

    percent: the step's share of the whole work, from and to. timeout: seconds.
    """
    low, high = percent
    report(low, f"{label}: {path.rsplit('/', 1)[1]}")

    def tell(progress: TaskProgress) -> None:
        share = 0 if progress.percent is None else progress.percent * (high - low) // 100
        report(low + share, f"{label}: {progress.message}")

    # Following a task's log costs a call each time; nobody pays for what nobody reads.
    listener = tell if _report.listening() else None
    return client.run(method, path, params, timeout=timeout, landed=landed, on_progress=listener)


def parallel(work: Callable[[T], R], items: Iterable[T], workers: int = WORKERS) -> list[R]:
    """work(item) of each, in their order, some at a time. The first failure is raised when all of them are through."""
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(work, items))


def until(seconds: float) -> Iterator[None]:
    """Yields at once, then after each pause, as long as the time is not over."""
    deadline = time.monotonic() + seconds
    yield
    while (left := deadline - time.monotonic()) > 0:
        time.sleep(min(POLL_SECONDS, left))
        yield
