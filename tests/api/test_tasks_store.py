# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Task rows: their states, locks, secrets and events."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pvefleet.db import now
from pvefleet.db.models import Event, Lock, Task, TaskSecret
from pvefleet.services import Services
from pvefleet.tasks import events, store
from sqlalchemy import select, update


def create(services: Services, **changes: Any) -> str:
    given = {
        "operation": "create_server",
        "title": "create server web-01",
        "cluster_id": None,
        "target": "web-01",
        "parameters": {"server_name": "web-01"},
        "sealed": b"sealed",
        "locks": ["server:prod/web-01"],
        "user_id": 1,
        "deadline_seconds": 60,
        **changes,
    }
    with services.db.write() as session:
        return store.create(session, **given).id


def row(services: Services, task_id: str) -> Task:
    with services.db.read() as session:
        return session.get_one(Task, task_id)


def rows(services: Services, model: type[Any]) -> list[Any]:
    with services.db.read() as session:
        return list(session.scalars(select(model)))


def test_a_finished_task_keeps_neither_lock_nor_secret(services: Services) -> None:
    task_id = create(services)
    assert [lock.task_id for lock in rows(services, Lock)] == [task_id]
    assert len(rows(services, TaskSecret)) == 1
    with services.db.write() as session:
        store.start(session, task_id)
    with services.db.write() as session:
        store.finish(session, task_id, store.COMPLETED, result={"changed": True})
    task = row(services, task_id)
    assert (task.status, task.progress, task.result, task.attempts) == ("completed", 100, {"changed": True}, 1)
    assert rows(services, Lock) == rows(services, TaskSecret) == []


def test_a_second_task_on_the_same_resource_is_refused_and_told_who_holds_it(services: Services) -> None:
    holder = create(services)
    with pytest.raises(store.ResourceLocked) as refused:
        create(services)
    assert (refused.value.task_id, refused.value.resource) == (holder, "server:prod/web-01")
    assert [task.id for task in rows(services, Task)] == [holder]


def test_of_two_that_want_the_lock_at_once_one_gets_it(services: Services) -> None:
    barrier, outcomes = threading.Barrier(8), []

    def compete() -> None:
        barrier.wait()
        try:
            outcomes.append(create(services))
        except store.ResourceLocked:
            outcomes.append("refused")

    threads = [threading.Thread(target=compete) for _time in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes).count("refused") == 7
    assert len(rows(services, Task)) == 1


def test_one_key_makes_one_task(services: Services) -> None:
    first = create(services, idempotency_key="k")
    assert create(services, idempotency_key="k") == first
    assert create(services, idempotency_key="k", user_id=2, locks=[]) != first
    with pytest.raises(store.KeyReused):
        create(services, idempotency_key="k", parameters={"server_name": "web-02"})


def test_a_pending_task_is_cancelled_at_once_and_a_finished_one_never(services: Services) -> None:
    task_id = create(services)
    with services.db.write() as session:
        assert store.request_cancel(session, task_id).status == "cancelled"
    with services.db.write() as session:
        assert store.start(session, task_id) is None
        assert store.request_cancel(session, task_id).status == "cancelled"
    other = create(services)
    with services.db.write() as session:
        store.finish(session, other, store.FAILED, error="no")
    with services.db.write() as session, pytest.raises(store.InvalidTransition):
        store.request_cancel(session, other)


def test_a_running_task_is_only_marked_for_cancellation(services: Services) -> None:
    task_id = create(services)
    with services.db.write() as session:
        store.start(session, task_id)
    with services.db.write() as session:
        assert store.request_cancel(session, task_id).status == "running"
    assert row(services, task_id).cancel_requested


def test_only_an_attempt_that_was_not_ours_to_end_counts(services: Services) -> None:
    task_id = create(services)
    for count, attempts in ((False, 0), (True, 1), (False, 1)):
        with services.db.write() as session:
            store.start(session, task_id)
        with services.db.write() as session:
            store.requeue(session, task_id, count_attempt=count)
        assert row(services, task_id).attempts == attempts


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.one_of(st.none(), st.integers(-1000, 1000))))
def test_progress_never_falls_and_never_says_100_before_the_end(services: Services, percents: list[int | None]) -> None:
    task_id = create(services, locks=[])
    with services.db.write() as session:
        store.start(session, task_id)
    seen = [0]
    for percent in percents:
        with services.db.write() as session:
            store.progress(session, task_id, percent, "step")
        seen.append(row(services, task_id).progress)
    assert seen == sorted(seen)
    assert seen[-1] <= 99


def test_every_change_of_a_task_is_an_event_with_the_state_of_that_moment(services: Services) -> None:
    task_id = create(services)
    with services.db.write() as session:
        store.start(session, task_id)
        store.progress(session, task_id, 40, "clone")
        store.log(session, task_id, [("info", "cloned")])
    with services.db.write() as session:
        store.finish(session, task_id, store.FAILED, error="Unable to start web-01: no such bridge")
    told = [(event.kind, event.data.get("status"), event.data.get("progress")) for event in rows(services, Event)]
    assert told == [
        ("status", "pending", 0),
        ("status", "running", 0),
        ("status", "running", 40),
        ("log", None, None),
        ("status", "failed", 40),
    ]
    assert [event.id for event in rows(services, Event)] == [1, 2, 3, 4, 5]


def test_a_rolled_back_change_leaves_no_event_and_no_hole(services: Services) -> None:
    create(services)
    with pytest.raises(store.ResourceLocked):
        create(services)
    create(services, locks=["server:prod/web-02"])
    assert [event.id for event in rows(services, Event)] == [1, 2]


def test_event_ids_follow_the_order_of_the_commits(services: Services) -> None:
    """A reader that has seen an id never finds a lower one later."""
    done, seen, late = threading.Event(), [0], []

    def write(number: int) -> None:
        for step in range(20):
            with services.db.write() as session:
                events.publish(session, "servers", "server", {"writer": number, "step": step})

    def read() -> None:
        while not done.is_set():
            with services.db.read() as session:
                ids = [event.id for event in events.read_after(session, 0, 1000)]
            late.extend(number for number in ids if number <= seen[-1] and number not in seen)
            seen.extend(number for number in ids if number > seen[-1])

    reader = threading.Thread(target=read)
    reader.start()
    writers = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    done.set()
    reader.join()
    assert late == []
    assert [event.id for event in rows(services, Event)] == list(range(1, 81))


def test_what_was_pruned_cannot_be_resumed(services: Services) -> None:
    for _time in range(5):
        with services.db.write() as session:
            events.publish(session, "servers", "server", {})
    with services.db.write() as session:
        session.execute(update(Event).where(Event.id <= 3).values(created_at=now() - timedelta(days=2)))
        events.prune(session, now() - timedelta(days=1))
    with services.db.read() as session:
        assert [event.id for event in events.read_after(session, 0, 100)] == [4, 5]
        assert {number: events.resumable(session, number) for number in (-1, 2, 3, 5, 6)} == {
            -1: False,
            2: False,
            3: True,
            5: True,
            6: False,
        }
    with services.db.write() as session:
        events.prune(session, now() + timedelta(days=1))
    with services.db.read() as session:
        assert {number: events.resumable(session, number) for number in (4, 5, 6)} == {4: False, 5: True, 6: False}


def test_the_usual_time_is_the_median_of_completed_tasks_of_that_kind(services: Services) -> None:
    with services.db.read() as session:
        assert store.usual_seconds(session, "create_server") is None
    moment = now()
    for seconds, status, operation in (
        (10, "completed", "create_server"),
        (20, "completed", "create_server"),
        (90, "completed", "create_server"),
        (1, "failed", "create_server"),
        (1, "completed", "delete_server"),
    ):
        task_id = create(services, locks=[], operation=operation)
        with services.db.write() as session:
            task = session.get_one(Task, task_id)
            task.status, task.created_at, task.finished_at = status, moment, moment + timedelta(seconds=seconds)
    with services.db.read() as session:
        assert store.usual_seconds(session, "create_server") == 20
