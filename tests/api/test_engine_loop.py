# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine: what it takes from the queue, and how it ends it, with real runs of small playbooks."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from flask import Flask
from pvefleet.config import Settings
from pvefleet.db import Database
from pvefleet.db.models import Lock, Task, TaskLog
from pvefleet.engine import processes
from pvefleet.engine.__main__ import alone, locks
from pvefleet.engine.local import LocalExecutor
from pvefleet.engine.loop import Engine
from pvefleet.observer import Observer
from pvefleet.operations import OPERATIONS, Operation
from pvefleet.services import Services
from pvefleet.tasks import store
from sqlalchemy import select
from sqlalchemy.event import listen


def until(condition: Callable[[], Any], seconds: float = 40) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
    return value


class Bench:
    """A service whose engine can be switched on and off, and an operation that waits for a file."""

    def __init__(self, services: Services, folder: Path) -> None:
        self.services = services
        self.gate = folder / "gate"
        self.started = folder / "started"
        self.started.mkdir()
        self._thread: threading.Thread | None = None

    def submit(self, name: str, **changes: Any) -> str:
        parameters = {"name": name, "gate": str(self.gate), "started": str(self.started)}
        given = {"parameters": parameters, "sealed": None, "user_id": None, "deadline_seconds": 60, **changes}
        with self.services.db.write() as session:
            return store.create(
                session, operation="wait", title=f"wait for {name}", cluster_id=None, target=name, locks=[name], **given
            ).id

    def engine(self) -> Engine:
        executor = LocalExecutor(self.services.settings.home / "runs")
        return Engine(self.services, executor, Observer(self.services))

    def switch_on(self) -> None:
        self.services.stopping.clear()
        self._thread = threading.Thread(target=self.engine().run)
        self._thread.start()

    def switch_off(self) -> None:
        self.services.stopping.set()
        if self._thread is not None:
            self._thread.join(20)
            assert not self._thread.is_alive()

    def task(self, task_id: str) -> Task:
        with self.services.db.read() as session:
            return session.get_one(Task, task_id)

    def ended(self, task_id: str) -> Task:
        until(lambda: self.task(task_id).status in store.FINAL)
        assert processes.of_run(task_id) == []
        return self.task(task_id)

    def waits(self, task_id: str) -> bool:
        return (self.started / task_id).exists()


@pytest.fixture
def bench(
    make_app: Callable[..., Flask], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Bench]:
    wait = {
        "name": "Wait",
        "ansible.builtin.shell": 'touch {{ started }}/$PVEFLEET_RUN; until [ -e {{ gate }} ]; do sleep 0.1; done',
    }
    tell = {"name": "Tell", "ansible.builtin.set_stats": {"data": {"pvefleet_result": {"waited": "{{ name }}"}}}}
    path = tmp_path / "wait.yml"
    path.write_text(yaml.safe_dump([{"hosts": "localhost", "gather_facts": False, "tasks": [wait, tell]}]))
    operation = Operation("wait", str(path), "create_server", "wait for {name}", lambda body, subject: {})
    monkeypatch.setitem(OPERATIONS, "wait", operation)  # type: ignore[arg-type]
    services: Services = make_app(max_runs=2).extensions["pvefleet"]
    made = Bench(services, tmp_path)
    yield made
    made.gate.touch()
    made.switch_off()


def test_tasks_run_in_order_and_never_more_at_once_than_allowed(bench: Bench) -> None:
    ids = [bench.submit(name) for name in ("a", "b", "c", "d")]
    bench.switch_on()
    until(lambda: bench.waits(ids[0]) and bench.waits(ids[1]))
    time.sleep(1)  # time in which a third one would start
    assert [bench.task(task_id).status for task_id in ids] == ["running", "running", "pending", "pending"]
    bench.gate.touch()
    tasks = [bench.ended(task_id) for task_id in ids]
    assert [(task.status, task.result) for task in tasks] == [("completed", {"waited": name}) for name in "abcd"]
    starts = [task.started_at for task in tasks if task.started_at is not None]
    assert starts == sorted(starts)


def test_a_cancelled_task_is_cancelled_only_when_nothing_of_it_runs(bench: Bench) -> None:
    task_id = bench.submit("a")
    bench.switch_on()
    until(lambda: bench.waits(task_id))
    assert processes.of_run(task_id)
    with bench.services.db.write() as session:
        store.request_cancel(session, task_id)
    assert bench.ended(task_id).status == "cancelled"
    bench.submit("a")  # the lock is free again


def test_a_task_that_takes_too_long_fails_and_says_so(bench: Bench) -> None:
    task_id = bench.submit("a", deadline_seconds=2)
    bench.switch_on()
    task = bench.ended(task_id)
    assert (task.status, task.error) == ("failed", "Unable to finish wait for a: it took longer than 2 s")


def test_a_shutdown_puts_runs_back_without_counting_and_the_next_start_finishes_them(bench: Bench) -> None:
    task_id = bench.submit("a")
    bench.switch_on()
    until(lambda: bench.waits(task_id))
    began = time.monotonic()
    bench.switch_off()
    assert time.monotonic() - began < 8
    assert processes.of_run(task_id) == []
    task = bench.task(task_id)
    assert (task.status, task.attempts) == ("pending", 0)
    with bench.services.db.read() as session:
        assert session.scalars(select(Lock.task_id)).all() == [task_id]
    bench.gate.touch()
    bench.switch_on()
    task = bench.ended(task_id)
    assert (task.status, task.attempts) == ("completed", 1)


def test_a_task_that_is_cancelled_during_a_shutdown_is_not_run_again(bench: Bench) -> None:
    task_id = bench.submit("a")
    with bench.services.db.write() as session:
        store.start(session, task_id)
        store.request_cancel(session, task_id)
        store.requeue(session, task_id, count_attempt=False)
    assert bench.task(task_id).status == "cancelled"
    bench.submit("a")  # the lock is free again


@contextlib.contextmanager
def locked(services: Services) -> Iterator[None]:
    """Somebody else holds the database's write lock, and whoever wants it is refused at once."""
    listen(services.db.engine, "connect", lambda connection, _record: connection.execute("PRAGMA busy_timeout = 0"))
    services.db.dispose()  # connections that are open would wait
    with contextlib.closing(sqlite3.connect(services.settings.home / "pvefleet.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "database is locked" in record.getMessage()]


def test_a_database_that_is_locked_while_a_task_runs_costs_nothing(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    task_id = bench.submit("a")
    bench.switch_on()
    until(lambda: bench.waits(task_id))
    with locked(bench.services):
        bench.gate.touch()
        until(lambda: any("until it works" in line for line in complaints(caplog)))
        time.sleep(2)  # time for several attempts to write the end
        assert bench.task(task_id).status == "running"
    task = bench.ended(task_id)
    assert (task.status, task.attempts, task.result) == ("completed", 1, {"waited": "a"})
    with bench.services.db.read() as session:
        lines = session.scalars(select(TaskLog.message).where(TaskLog.task_id == task_id)).all()
    told = [line for line in lines if line.startswith("localhost")]
    assert told == ["localhost | Wait | changed", "localhost | Tell | ok"]
    # Once for what it said, once for its end.
    assert len(complaints(caplog)) == 2


def test_a_database_that_is_locked_when_a_task_is_taken_does_not_end_the_engine(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    task_id = bench.submit("a")
    bench.gate.touch()
    with locked(bench.services):
        bench.switch_on()
        until(lambda: complaints(caplog))
    task = bench.ended(task_id)
    assert (task.status, task.attempts) == ("completed", 1)


def test_a_service_ends_though_its_database_is_locked(bench: Bench) -> None:
    task_id = bench.submit("a")
    bench.switch_on()
    until(lambda: bench.waits(task_id))
    with locked(bench.services):
        bench.switch_off()
    assert processes.of_run(task_id) == []
    bench.gate.touch()
    bench.switch_on()
    assert bench.ended(task_id).status == "completed"


def die(bench: Bench, task_id: str) -> subprocess.Popen[bytes]:
    """What the database and the machine look like after the engine was killed in the middle of a run."""
    with bench.services.db.write() as session:
        assert store.start(session, task_id) is not None
    return subprocess.Popen(["sleep", "300"], env={processes.MARK: task_id}, start_new_session=True)


def test_a_run_whose_engine_died_is_ended_and_run_again(bench: Bench) -> None:
    task_id = bench.submit("a")
    orphan = die(bench, task_id)
    bench.gate.touch()
    bench.switch_on()
    task = bench.ended(task_id)
    assert orphan.wait(5) < 0
    assert (task.status, task.attempts) == ("completed", 2)
    with bench.services.db.read() as session:
        lines = session.scalars(select(TaskLog.message).where(TaskLog.task_id == task_id)).all()
    assert lines[0] == "The run ended unexpectedly and is started again"


def test_a_task_whose_run_dies_for_the_third_time_fails_with_the_reason(bench: Bench) -> None:
    task_id = bench.submit("a")
    for _time in range(3):
        orphan = die(bench, task_id)
        bench.engine().recover()
        orphan.wait(5)
    task = bench.task(task_id)
    assert (task.status, task.error) == ("failed", "Unable to finish wait for a: its run ended unexpectedly 3 times")


def test_a_run_that_was_to_be_cancelled_when_its_engine_died_is_not_run_again(bench: Bench) -> None:
    task_id = bench.submit("a")
    orphan = die(bench, task_id)
    with bench.services.db.write() as session:
        store.request_cancel(session, task_id)
    bench.engine().recover()
    orphan.wait(5)
    assert bench.task(task_id).status == "cancelled"


def test_a_run_that_is_killed_under_a_living_engine_is_run_again(bench: Bench) -> None:
    task_id = bench.submit("a")
    bench.switch_on()
    until(lambda: bench.waits(task_id))
    for process in processes.of_run(task_id):
        process.kill()
    bench.gate.touch()
    task = bench.ended(task_id)
    assert (task.status, task.attempts) == ("completed", 2)


def test_a_task_without_its_cluster_fails_with_the_reason(bench: Bench) -> None:
    task_id = bench.submit("a")
    with bench.services.db.write() as session:
        session.get_one(Task, task_id).cluster_id = "gone"
    bench.switch_on()
    assert bench.ended(task_id).error == f"Unable to run {task_id}: its cluster is not registered any more"


def test_a_second_engine_on_one_home_waits_for_the_first(tmp_path: Path) -> None:
    first_ends, second_ends, got = threading.Event(), threading.Event(), threading.Event()

    def second() -> None:
        with alone(tmp_path / "engine.lock", second_ends):
            got.set()

    with alone(tmp_path / "engine.lock", first_ends):
        thread = threading.Thread(target=second)
        thread.start()
        assert not got.wait(1.2)
    assert got.wait(5)
    thread.join()


def test_an_engine_that_waits_can_be_stopped(tmp_path: Path) -> None:
    stopped = threading.Event()
    stopped.set()
    path = tmp_path / "engine.lock"
    with alone(path, threading.Event()), alone(path, stopped):
        pass


def test_engines_of_two_homes_on_one_sqlite_file_have_a_lock_in_common(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    one, two = (locks(Settings(home=tmp_path / name, database_url=url), Database(url)) for name in ("one", "two"))
    assert set(one) & set(two) == {tmp_path.resolve() / "shared.db.engine.lock"}
