# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The processes of a run: every one of them inherits a mark in its environment, whoever its parent is by now."""

from __future__ import annotations

import time

import psutil

MARK = "PVEFLEET_RUN"
TERM_SECONDS = 3.0


def of_run(task_id: str) -> list[psutil.Process]:
    """The living processes of the run, Ansible's workers and what they started included."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == task_id:
                found.append(process)
        except psutil.Error:
            # Gone meanwhile, a zombie, or another user's: none of the run's.
            continue
    return found


def end_run(task_id: str) -> None:
    """End all processes of the run: Ansible's own first and politely, then whatever is left. Returns when none is."""
    processes = of_run(task_id)
    ours = {process.pid for process in processes}
    mains = [process for process in processes if _parent(process) not in ours]
    for process in mains:
        _signal(process, kill=False)
    # No waitpid here: the exit status belongs to the thread that started the run.
    patience = time.monotonic() + TERM_SECONDS
    while time.monotonic() < patience and {process.pid for process in of_run(task_id)} & {main.pid for main in mains}:
        time.sleep(0.05)
    while processes := of_run(task_id):
        for process in processes:
            _signal(process, kill=True)
        time.sleep(0.05)


def _parent(process: psutil.Process) -> int | None:
    try:
        return process.ppid()
    except psutil.Error:
        return None


def _signal(process: psutil.Process, *, kill: bool) -> None:
    try:
        if kill:
            process.kill()
        else:
            process.terminate()
    except psutil.NoSuchProcess:
        return
