# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes wrong while a job runs: locks, lost answers, hangs, nodes, quorum, space, tasks that end badly."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .jobs import Job

if TYPE_CHECKING:
    from tests.lab import Lab

# Real seconds until a hanging connection is closed, and until the client has given it up, before that.
HANG = 0.25
IMPATIENT = 0.15


@dataclass(frozen=True)
class Fault:
    """strike comes before the job's first run; what is left of every fault is ended by heal()."""

    name: str
    strike: Callable[[Lab], object]
    succeeds: bool = False  # the first run has to succeed nevertheless
    fails: bool = False  # the first run cannot succeed
    read_timeout: float = 10.0  # of the first run's client
    struck: Callable[[Lab], bool] = lambda lab: True  # whether what was to go wrong did


def faults_of(job: Job) -> Iterator[Fault]:
    """Every fault that can befall this job."""
    yield from _of_the_network()
    for method, suffix in job.writes:
        yield from _of_a_write(method, suffix)
    for kind in job.tasks:
        yield from _of_a_task(kind)
    if job.vmid is not None:
        yield from _of_a_guest(job.vmid)
    yield Fault("node offline", lambda lab: lab.do(lab.pve.set_node_offline, job.node))
    yield Fault("no quorum", lambda lab: lab.do(lab.pve.lose_quorum))
    if job.storage is not None:
        storage = job.storage
        yield Fault("storage full", lambda lab: lab.do(lab.pve.fill_storage, storage), fails=True)


def heal(lab: Lab, job: Job) -> None:
    """The end of whatever was wrong."""

    def end() -> None:
        pve = lab.pve
        pve.faults.clear()
        pve.failures.clear()
        pve.endings.clear()
        pve.cuts.clear()
        pve.flaky_network()
        pve.set_node_offline(job.node, offline=False)
        pve.regain_quorum()
        if job.storage is not None:
            pve.empty_storage(job.storage)
        if job.vmid is not None and pve.guest(job.vmid) is not None:
            pve.unlock(job.vmid)

    lab.do(end)


def _of_the_network() -> Iterator[Fault]:
    def unreachable(lab: Lab) -> None:
        lab.do(lab.pve.fail, "GET", "", 595, "No route to host", times=3)

    yield Fault("reads answered 595", unreachable, succeeds=True, struck=_no_failures)
    yield Fault("connections dropped", lambda lab: lab.do(lab.pve.flaky_network, drop_rate=0.15, seed=7))


def _of_a_write(method: str, suffix: str) -> Iterator[Fault]:
    call = f"{method} {suffix}"

    def lose(status: int | None) -> Callable[[Lab], None]:
        return lambda lab: lab.do(lab.pve.lose_answer, method, suffix, status)

    def refuse(status: int, times: int | None) -> Callable[[Lab], None]:
        return lambda lab: lab.do(lab.pve.fail, method, suffix, status, "", times=times)

    async def never() -> None:
        await asyncio.sleep(HANG)
        raise ConnectionResetError

    def hang(lab: Lab) -> None:
        lab.do(lab.pve.interpose, method, suffix, never)

    yield Fault(f"{call} done, its answer dropped", lose(None), struck=_no_faults)
    for status in (595, 596):
        yield Fault(f"{call} done, answered {status}", lose(status), struck=_no_faults)
        yield Fault(f"{call} not done, answered {status}", refuse(status, 1), struck=_no_failures)
    yield Fault(f"{call} never done", refuse(596, None), fails=True)
    yield Fault(f"{call} hangs", hang, read_timeout=IMPATIENT, struck=_no_faults)


def _of_a_task(kind: str) -> Iterator[Fault]:
    def end(status: str) -> Callable[[Lab], None]:
        return lambda lab: lab.do(lab.pve.end_next_task, kind, status, "something is the matter")

    def cut(status: str) -> Callable[[Lab], None]:
        return lambda lab: lab.do(lab.pve.cut_next_task, kind, status)

    yield Fault(f"{kind} with a warning", end("WARNINGS: 1"), succeeds=True, struck=_no_endings)
    yield Fault(f"{kind} done, ended in an error", end("something failed at its end"), struck=_no_endings)
    yield Fault(f"{kind} not done, ended in an error", cut("something failed"), struck=_no_endings)
    yield Fault(f"{kind} killed", cut("unexpected status"), struck=_no_endings)


def _of_a_guest(vmid: int) -> Iterator[Fault]:
    yield Fault("config lock held for a while", lambda lab: lab.do(lab.pve.hold_config_lock, vmid, secs=15))
    yield Fault("locked by a backup", lambda lab: lab.do(lab.pve.snapshot_lock, vmid, "backup"), fails=True)


def _no_faults(lab: Lab) -> bool:
    return not lab.pve.faults


def _no_failures(lab: Lab) -> bool:
    return not lab.pve.failures


def _no_endings(lab: Lab) -> bool:
    return not (lab.pve.endings or lab.pve.cuts)
