# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Takes tasks from the queue, watches over their runs, and puts right what an earlier engine left behind."""

from __future__ import annotations

import enum
import logging
import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Protocol

from sqlalchemy import select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from pvefleet.access.vault import VaultError
from pvefleet.db import now, patiently
from pvefleet.db.models import Task
from pvefleet.engine.base import End, Event, Executor, LogLine, Outcome, Progress
from pvefleet.engine.jobs import JobError, prepare
from pvefleet.services import Services
from pvefleet.tasks import events, reports, store

logger = logging.getLogger(__name__)

TICK_SECONDS = 0.2
MOST_ATTEMPTS = 3
PRUNE_SECONDS = 3600.0
SILENCE_SECONDS = 30.0


class Witness(Protocol):
    """Reads the truth about what a task has worked on."""

    def touched(self, task: Task, outcome: Outcome) -> None: ...


class Reason(enum.Enum):
    """Why a run is stopped before its end."""

    CANCELLED = enum.auto()
    DEADLINE = enum.auto()
    SHUTDOWN = enum.auto()


class Engine:
    def __init__(self, services: Services, executor: Executor, witness: Witness) -> None:
        self._services = services
        self._db = services.db
        self._executor = executor
        self._witness = witness
        self._runs: dict[str, _Run] = {}
        self._recovered = False
        self._pruned = float("-inf")
        self._listened = float("-inf")

    def run(self) -> None:
        """Work until `services.stopping` is set; then stop all runs and put them back in the queue."""
        stopping = self._services.stopping
        while not stopping.is_set():
            patiently(self._tick, stopping)
            stopping.wait(TICK_SECONDS)
        for run in self._runs.values():
            run.stop(Reason.SHUTDOWN)
        for run in self._runs.values():
            run.join()
        patiently(self._watch, stopping)

    def recover(self) -> None:
        """End what is left of runs that this engine does not have, and queue their tasks again."""
        with self._db.read() as session:
            orphans = store.unfinished(session, self._runs)
        for task_id in orphans:
            logger.warning("%s is running, but no engine runs it; it is queued again", task_id)
            self._after_death(task_id)

    def _tick(self) -> None:
        if not self._recovered:
            self.recover()
        # Until all of this worked: a claim that failed may have been committed nevertheless.
        self._recovered = False
        self._watch()
        self._claim()
        self._end_silent()
        self._prune()
        self._recovered = True

    def _watch(self) -> None:
        # First what needs no database.
        for run in self._runs.values():
            if time.monotonic() > run.deadline:
                run.stop(Reason.DEADLINE)
        for task_id, run in list(self._runs.items()):
            if run.is_alive():
                continue
            if not run.concluded:
                # Its thread raised, so nobody knows what is left of it.
                self._after_death(task_id)
            del self._runs[task_id]
        if not self._runs:
            return
        with self._db.read() as session:
            cancelled = session.scalars(
                select(Task.id).where(Task.id.in_(self._runs), Task.cancel_requested.is_(True))
            ).all()
        for task_id in cancelled:
            self._runs[task_id].stop(Reason.CANCELLED)

    def _claim(self) -> None:
        free = self._services.settings.max_runs - len(self._runs)
        if free <= 0:
            return
        with self._db.read() as session:
            waiting = store.pending(session, free)
        for task_id in waiting:
            with self._db.write() as session:
                task = store.start(session, task_id)
            if task is not None:
                run = self._runs[task_id] = _Run(self._services, self._executor, self._witness, task)
                run.start()

    def _after_death(self, task_id: str) -> None:
        self._executor.clean(task_id)
        with self._db.write() as session:
            task = session.get_one(Task, task_id)
            if task.status != store.RUNNING:
                return
            if task.cancel_requested:
                store.finish(session, task_id, store.CANCELLED)
            elif task.attempts >= MOST_ATTEMPTS:
                error = f"Unable to finish {task.title}: its run ended unexpectedly {task.attempts} times"
                store.finish(session, task_id, store.FAILED, error=error)
            else:
                store.log(session, task_id, [("warning", "The run ended unexpectedly and is started again")])
                store.requeue(session, task_id, count_attempt=True)

    def _end_silent(self) -> None:
        """Reported tasks whose agents died."""
        if time.monotonic() < self._listened + SILENCE_SECONDS:
            return
        with self._db.read() as session:
            silent = reports.silent(session)
        for task_id in silent:
            with self._db.write() as session:
                reports.end_silent(session, task_id)
        self._listened = time.monotonic()

    def _prune(self) -> None:
        if time.monotonic() < self._pruned + PRUNE_SECONDS:
            return
        settings = self._services.settings
        with self._db.write() as session:
            events.prune(session, now() - timedelta(hours=settings.keep_events_hours))
            store.prune(session, now() - timedelta(days=settings.keep_finished_tasks_days))
        self._pruned = time.monotonic()


class _Run(threading.Thread):
    """One run of one task. `concluded` is set when its row tells how it ended."""

    def __init__(self, services: Services, executor: Executor, witness: Witness, task: Task) -> None:
        super().__init__(name=f"run {task.id}", daemon=True)
        self._services = services
        self._executor = executor
        self._witness = witness
        self._task = task
        self._stop_requested = threading.Event()
        self._reason: Reason | None = None
        self._unwritten: list[Event] = []
        self.deadline = time.monotonic() + task.deadline_seconds
        self.concluded = False

    def stop(self, reason: Reason) -> None:
        """End the run soon. The first reason counts."""
        if self._reason is None:
            self._reason = reason
            self._stop_requested.set()

    def run(self) -> None:
        stopping = self._services.stopping
        try:
            job = patiently(lambda: prepare(self._services, self._task), stopping)
        except (JobError, VaultError) as error:
            self._finish(store.FAILED, error=str(error))
            return
        outcome = Outcome(End.STOPPED) if job is None else self._executor.run(job, self._record, self._stop_requested)
        if outcome.end is End.DIED:
            patiently(self._write_news, stopping)
            return
        if outcome.end is not End.STOPPED or self._reason is not Reason.SHUTDOWN:
            # Before the row is final, so that who sees it finished also sees what it did.
            patiently(lambda: self._witness.touched(self._task, outcome), stopping)
        self._conclude(outcome)

    def _conclude(self, outcome: Outcome) -> None:
        if outcome.end is End.COMPLETED:
            self._finish(store.COMPLETED, result=outcome)
        elif outcome.end is End.FAILED:
            self._finish(store.FAILED, error=outcome.error)
        elif self._reason is Reason.CANCELLED:
            self._finish(store.CANCELLED)
        elif self._reason is Reason.DEADLINE:
            limit = self._task.deadline_seconds
            self._finish(store.FAILED, error=f"Unable to finish {self._task.title}: it took longer than {limit} s")
        else:
            self._end(lambda session: store.requeue(session, self._task.id, count_attempt=False))

    def _finish(self, status: str, *, result: Outcome | None = None, error: str | None = None) -> None:
        value = None if result is None else result.result
        self._end(lambda session: store.finish(session, self._task.id, status, result=value, error=error))

    def _end(self, change: Callable[[Session], None]) -> None:
        def write() -> None:
            self._write_news()
            with self._services.db.write() as session:
                if session.get_one(Task, self._task.id, with_for_update=True).status == store.RUNNING:
                    change(session)
            self.concluded = True

        patiently(write, self._services.stopping)

    def _record(self, news: Sequence[Event]) -> None:
        late = bool(self._unwritten)
        self._unwritten.extend(news)
        try:
            self._write_news()
        except OperationalError as error:
            # No reason to end the run: they are written with the next ones, at the latest with its end.
            if not late:
                logger.warning("Unable to write now what %s says: %s", self._task.id, error.orig)

    def _write_news(self) -> None:
        if not self._unwritten:
            return
        lines = [(item.level, item.message) for item in self._unwritten if isinstance(item, LogLine)]
        reports = [item for item in self._unwritten if isinstance(item, Progress)]
        with self._services.db.write() as session:
            store.log(session, self._task.id, lines)
            if reports:
                # Only what is newest counts, but no percentage is lost to a later line without one.
                percents = [report.percent for report in reports if report.percent is not None]
                store.progress(session, self._task.id, max(percents, default=None), reports[-1].message)
        self._unwritten.clear()
