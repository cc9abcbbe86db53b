# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Streams: nothing is missing, nothing comes twice, and nobody who stopped reading holds up the others."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient
from pvefleet.access import users
from pvefleet.db.models import Event
from pvefleet.services import Services
from pvefleet.tasks import events, store, streams
from pvefleet.tasks.streams import Broadcaster, Message, stream
from sqlalchemy import delete

from tests.api.test_servers import add_cluster
from tests.api.test_tasks_routes import add_task


def publish(services: Services, number: int, topic: str = "servers", kind: str = "server") -> None:
    with services.db.write() as session:
        events.publish(session, topic, kind, {"number": number, "cluster": "prod"})


def show(event: Event) -> Message:
    return Message(event.id, event.data)


def last(event: Event) -> bool:
    return event.data["number"] < 0


def parse(chunk: bytes) -> dict[str, Any] | None:
    """The fields of one event; None for a comment or a hint."""
    lines = dict(line.split(": ", 1) for line in chunk.decode().strip().split("\n") if not line.startswith(":"))
    if "id" not in lines:
        return None
    return {**lines, "id": int(lines["id"]), "data": json.loads(lines["data"]) if "data" in lines else None}


def told(body: Iterator[bytes]) -> list[dict[str, Any]]:
    return [event for chunk in body if (event := parse(chunk)) is not None]


def until(condition: Callable[[], Any], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def test_readers_that_come_at_any_time_get_every_event_once_and_in_order(services: Services) -> None:
    broadcaster, total, readers = services.broadcaster, 120, 12
    heard: dict[int, list[int]] = {}

    def read(number: int) -> None:
        body = stream(broadcaster, services.db, "servers", 0, render=show, is_last=last)
        heard[number] = [event["data"]["number"] for event in told(body)]

    threads = [threading.Thread(target=read, args=(number,)) for number in range(readers)]
    for number in range(1, total + 1):
        if number % 10 == 0:
            threads[number // 10 - 1].start()
        publish(services, number)
        publish(services, number, topic="elsewhere")
    publish(services, -1)
    for thread in threads:
        thread.join(30)
    assert heard == {number: [*range(1, total + 1), -1] for number in range(readers)}


def test_a_reader_that_is_cut_off_again_and_again_misses_nothing(services: Services) -> None:
    done = threading.Event()

    def write() -> None:
        for number in range(1, 101):
            publish(services, number)
        publish(services, -1)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    heard: list[dict[str, Any]] = []
    while not heard or heard[-1]["data"]["number"] > 0:
        after = heard[-1]["id"] if heard else 0
        body = stream(services.broadcaster, services.db, "servers", after, render=show, is_last=last)
        for chunk in body:
            if (event := parse(chunk)) is not None:
                heard.append(event)
                if len(heard) % 7 == 0:
                    break
        body.close()  # type: ignore[attr-defined]
    writer.join()
    assert [event["data"]["number"] for event in heard] == [*range(1, 101), -1]


def test_who_does_not_read_is_dropped_and_holds_up_nobody(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "QUEUE_EVENTS", 5)
    slow = stream(services.broadcaster, services.db, "servers", 0, render=show, is_last=last)
    assert next(slow).startswith(b"retry:")
    publish(services, 1)
    assert parse(next(slow)) is not None  # subscribed, and reads no more
    for number in range(2, 50):
        publish(services, number)
    publish(services, -1)
    fast = stream(services.broadcaster, services.db, "servers", 0, render=show, is_last=last)
    assert len(told(fast)) == 50
    rest = told(slow)
    assert rest == sorted(rest, key=lambda event: event["id"])
    after = rest[-1]["id"] if rest else 1
    resumed = told(stream(services.broadcaster, services.db, "servers", after, render=show, is_last=last))
    assert [event["id"] for event in [*rest, *resumed]] == list(range(2, 51))


def test_nobody_polls_the_database_when_nobody_listens(services: Services) -> None:
    publish(services, -1)
    told(stream(services.broadcaster, services.db, "servers", 0, render=show, is_last=last))
    until(lambda: not any(thread.name == "broadcaster" for thread in threading.enumerate()))


def test_a_quiet_stream_has_a_heartbeat_and_ends_when_its_reader_may_not_read_any_more(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "HEARTBEAT_SECONDS", 0.1)
    answers = iter([True, True, False])
    body = stream(services.broadcaster, services.db, "servers", 0, render=show, allowed=lambda: next(answers))
    assert list(body) == [b"retry: 2000\n\n", b":\n\n", b":\n\n"]


def test_a_stop_ends_all_streams_at_once(services: Services) -> None:
    ended = []

    def read() -> None:
        told(stream(services.broadcaster, services.db, "servers", 0, render=show))
        ended.append(time.monotonic())

    threads = [threading.Thread(target=read) for _reader in range(5)]
    for thread in threads:
        thread.start()
    until(lambda: len(services.broadcaster._subscriptions) == 5)
    began = time.monotonic()
    services.stopping.set()
    for thread in threads:
        thread.join(5)
    assert len(ended) == 5
    assert max(ended) - began < 2


def test_a_database_that_fails_ends_the_streams_and_the_next_reader_starts_anew(services: Services) -> None:
    broadcaster = Broadcaster(services.db, services.stopping)
    body = stream(broadcaster, services.db, "servers", 0, render=show, is_last=last)
    next(body)
    publish(services, 1)
    next(body)
    with services.db.write() as session:
        session.connection().exec_driver_sql("ALTER TABLE events RENAME TO elsewhere")
    assert told(body) == []
    with services.db.write() as session:
        session.connection().exec_driver_sql("ALTER TABLE elsewhere RENAME TO events")
    publish(services, -1)
    again = told(stream(broadcaster, services.db, "servers", 1, render=show, is_last=last))
    assert [event["data"]["number"] for event in again] == [-1]


SERVERS = "/api/servers/status/stream"


def first_events(client: FlaskClient, path: str, count: int, **headers: str) -> list[dict[str, Any]]:
    answer = client.get(path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    assert answer.status_code == 200
    assert answer.mimetype == "text/event-stream"
    heard: list[dict[str, Any]] = []
    for chunk in answer.response:
        assert isinstance(chunk, bytes)
        if (event := parse(chunk)) is not None:
            heard.append(event)
        if len(heard) == count:
            break
    answer.close()
    return heard


def test_the_servers_stream_begins_now_and_says_where_now_is(admin: FlaskClient, services: Services) -> None:
    add_cluster(services)
    publish(services, 1)
    assert first_events(admin, SERVERS, 1) == [{"id": 1, "data": None}]
    publish(services, 2)
    (resumed,) = first_events(admin, SERVERS, 1, Last_Event_ID="1")
    assert (resumed["id"], resumed["data"]["number"]) == (2, 2)
    assert "event" not in resumed


@pytest.mark.parametrize("last_id", ["0", "99", "no id", "9" * 30, "-1"])
def test_a_client_that_was_away_too_long_is_told_to_read_the_list_again(
    admin: FlaskClient, services: Services, last_id: str
) -> None:
    publish(services, 1)
    publish(services, 2)
    with services.db.write() as session:
        session.execute(delete(Event).where(Event.id == 1))
    assert first_events(admin, SERVERS, 1, Last_Event_ID=last_id) == [{"id": 2, "event": "reset", "data": {}}]


def test_only_the_cluster_that_was_asked_for(admin: FlaskClient, services: Services) -> None:
    add_cluster(services)
    add_cluster(services, "lab", default=False)
    publish(services, 1)
    with services.db.write() as session:
        events.publish(session, "servers", "server", {"number": 2, "cluster": "lab"})
    publish(services, 3)
    heard = first_events(admin, f"{SERVERS}?cluster=lab", 1, Last_Event_ID="0")
    assert [event["data"]["number"] for event in heard] == [2]
    assert admin.get(f"{SERVERS}?cluster=nowhere").status_code == 404


def test_a_stream_of_a_login_that_ended_ends(
    admin: FlaskClient, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "HEARTBEAT_SECONDS", 0.1)
    body = iter(admin.get(SERVERS).response)
    assert next(body) == b"retry: 2000\n\n"
    assert parse(next(body)) is not None  # type: ignore[arg-type]
    assert next(body) == b":\n\n"
    with services.db.write() as session:
        user = users.find_user(session, "admin")
        assert user is not None
        users.set_password(session, user, "another password of theirs")
    assert len(list(body)) <= 1


def test_log_lines_are_for_those_who_may_read_logs(
    login: Callable[..., FlaskClient], services: Services
) -> None:
    viewer, operator = login("viewer"), login("operator")
    task_id = add_task(services, "operator", "stop_server")
    with services.db.write() as session:
        store.log(session, task_id, [("info", "a line")])
        store.finish(session, task_id, store.FAILED, error="no")
    path = f"/api/tasks/{task_id}/stream"
    assert [event.get("event") for event in told(iter(operator.get(path).response))] == [None, "log", None]  # type: ignore[arg-type]
    assert [event.get("event") for event in told(iter(viewer.get(path).response))] == [None, None]  # type: ignore[arg-type]


def test_the_words_of_a_stream_are_in_the_language_that_was_asked_for(
    admin: FlaskClient, services: Services
) -> None:
    task_id = add_task(services, "admin")
    path = f"/api/tasks/{task_id}/stream"
    said = {
        language: first_events(admin, path, 1, Accept_Language=language)[0]["data"]["message"]
        for language in ("ko", "en", "ja", "it")
    }
    assert len(set(said.values())) == 4
    assert said["ko"] == "서버 생성 대기 중"


def test_a_finished_task_whose_events_are_gone_is_told_once(admin: FlaskClient, services: Services) -> None:
    task_id = add_task(services, "admin")
    with services.db.write() as session:
        store.finish(session, task_id, store.FAILED, error="no")
        session.flush()
        session.execute(delete(Event))
    heard = told(iter(admin.get(f"/api/tasks/{task_id}/stream").response))  # type: ignore[arg-type]
    assert [event["data"]["status"] for event in heard] == ["failed"]
    again = admin.get(f"/api/tasks/{task_id}/stream", headers={"Last-Event-ID": str(heard[0]["id"])})
    assert again.status_code == 204
