# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps child processes running until it is told to stop. Linux only, as Proxmox VE's own tools are."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

logger = logging.getLogger(__name__)

STOP = (signal.SIGTERM, signal.SIGINT)
WATCHED = frozenset({*STOP, signal.SIGCHLD})
# Between the request to stop and the kill.
GRACE_SECONDS = 9.0
# A child that dies soon again is started later and later.
FIRST_DELAY, LONGEST_DELAY = 0.5, 30.0
# What ran for so long did not die of its start.
STEADY_SECONDS = 60.0

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


class Child:
    def __init__(self, name: str, module: str, arguments: Sequence[str] = (), descriptors: Sequence[int] = ()) -> None:
        """name: for the log. module: what python -m runs. descriptors: the open files that it inherits."""
        self.name = name
        self.argv = [sys.executable, "-m", module, *arguments]
        self.descriptors = tuple(descriptors)
        self.process: subprocess.Popen[bytes] | None = None
        self.start_at = 0.0
        self._started = 0.0
        self._delay = FIRST_DELAY

    def start(self, environment: Mapping[str, str], mask: set[signal.Signals]) -> None:
        parent = os.getpid()

        def prepare() -> None:
            # the kernel ends the child when this process is gone, however it went
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:
                os.kill(os.getpid(), signal.SIGTERM)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

        self._started = time.monotonic()
        self.process = subprocess.Popen(  # noqa: S603 - our own modules
            self.argv,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            pass_fds=self.descriptors,
            # Ctrl-C is for the parent, which ends its children in order
            start_new_session=True,
            preexec_fn=prepare,
        )

    def ended(self) -> int | None:
        """The exit status, once, when the child has died; it is due to be started again then."""
        if self.process is None or (status := self.process.poll()) is None:
            return None
        self.process = None
        if time.monotonic() - self._started >= STEADY_SECONDS:
            self._delay = FIRST_DELAY
        self.start_at = time.monotonic() + self._delay
        self._delay = min(self._delay * 2, LONGEST_DELAY)
        return status


def supervise(children: Sequence[Child], environment: Mapping[str, str]) -> None:
    """Runs the children until SIGTERM or SIGINT, and ends them. To be called from the only thread."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
    try:
        _run(children, environment, {signal.Signals(number) for number in mask})
    finally:
        _end([child.process for child in children if child.process is not None])
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _run(children: Sequence[Child], environment: Mapping[str, str], mask: set[signal.Signals]) -> None:
    while True:
        for child in children:
            if child.process is None and child.start_at <= time.monotonic():
                child.start(environment, mask)
        waiting = [child.start_at - time.monotonic() for child in children if child.process is None]
        received = signal.sigtimedwait(WATCHED, max(min(waiting, default=3600.0), 0.0))
        if received is not None and received.si_signo in STOP:
            return
        for child in children:
            if (status := child.ended()) is not None:
                pause = child.start_at - time.monotonic()
                logger.error("The %s ended with status %d; it is started again in %.1f s", child.name, status, pause)


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + GRACE_SECONDS
    while any(process.poll() is None for process in processes):
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            logger.error("Not everything ended within %.0f s and is killed", GRACE_SECONDS)
            for process in processes:
                process.kill()
                process.wait()
            return
        signal.sigtimedwait({signal.SIGCHLD}, remaining)
