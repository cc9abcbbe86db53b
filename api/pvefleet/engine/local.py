# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs playbooks on this machine, with ansible-runner."""

from __future__ import annotations

import os
import queue
import shlex
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ansible_runner import Runner, RunnerConfig  # type: ignore[import-untyped]

from pvefleet.engine import processes
from pvefleet.engine.base import End, Event, Job, Outcome
from pvefleet.engine.folder import RunFolder
from pvefleet.engine.transcript import Transcript

TICK_SECONDS = 0.2


class LocalExecutor:
    """One ansible-playbook a job, each in a folder of its own below `runs`."""

    def __init__(self, runs: Path) -> None:
        self._runs = runs

    def run(self, job: Job, on_events: Callable[[Sequence[Event]], None], stop: threading.Event) -> Outcome:
        folder = RunFolder(self._runs / job.task_id)
        try:
            folder.write(job)
            return self._play(job, folder, on_events, stop)
        finally:
            folder.remove()

    def clean(self, task_id: str) -> None:
        processes.end_run(task_id)
        RunFolder(self._runs / task_id).remove()

    def _play(
        self, job: Job, folder: RunFolder, on_events: Callable[[Sequence[Event]], None], stop: threading.Event
    ) -> Outcome:
        spoken: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        transcript = Transcript(job.hidden)
        runner = Runner(_config(job, folder), event_handler=_enqueue(spoken))
        if stop.is_set():
            return Outcome(End.STOPPED)
        thread = threading.Thread(target=runner.run, name=f"runner {job.task_id}", daemon=True)
        thread.start()
        try:
            while True:
                thread.join(TICK_SECONDS)
                alive = thread.is_alive()
                news: list[Event] = [transcript.clean(report) for report in folder.new_reports()]
                while not spoken.empty():
                    news.extend(transcript.hear(spoken.get()))
                if news:
                    on_events(news)
                if not alive:
                    break
                if stop.is_set():
                    # In every round: there may have been no process yet the last time.
                    processes.end_run(job.task_id)
        finally:
            # Everything when on_events raised, and what a module left in the background.
            while thread.is_alive():
                processes.end_run(job.task_id)
                thread.join(TICK_SECONDS)
            processes.end_run(job.task_id)
        # A run that came to its own end did so, whatever was wished meanwhile.
        if runner.rc == 0:
            return Outcome(End.COMPLETED, result=transcript.result)
        if runner.rc is not None:
            return Outcome(End.FAILED, error=transcript.error(job.playbook))
        # Ended by a signal, ours or somebody else's, or the thread that reads it died.
        return Outcome(End.STOPPED if stop.is_set() else End.DIED)


def _enqueue(spoken: queue.SimpleQueue[dict[str, Any]]) -> Callable[[dict[str, Any]], bool]:
    def handler(event: dict[str, Any]) -> bool:
        # An exception or a delay here would stall the run, so this does nothing else. False: nothing is kept on disk.
        spoken.put(event)
        return False

    return handler


def _config(job: Job, folder: RunFolder) -> RunnerConfig:
    environment = folder.environment(job.task_id)
    config = RunnerConfig(
        private_data_dir=str(folder.path),
        playbook=job.playbook,
        inventory=str(folder.inventory),
        cmdline=f"-e {shlex.quote(f'@{folder.variables}')}",
        envvars=environment,
        ident="run",
    )
    config.prepare()
    # The runner also takes over our own whole environment, which has no business in a run.
    config.env = {
        name: value
        for name, value in config.env.items()
        if name in environment or os.environ.get(name) != value
    }
    return config
