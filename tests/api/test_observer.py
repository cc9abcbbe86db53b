# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The snapshot: what it believes when the listing lags, and that it follows a simulated cluster."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import PveClient
from flask import Flask
from hypothesis import assume, given
from hypothesis import strategies as st
from pvefleet import clusters, inventory
from pvefleet.db.models import Cluster, Event, Guest, Task
from pvefleet.engine.base import End, Outcome
from pvefleet.observer import MOST_READS, Observer, list_now, look_now
from pvefleet.services import Services
from pvefleet.snapshot import LAG, ROTATION, Found, State, next_state, row_of, to_read
from sqlalchemy import select, text

from tests.api.test_servers import add_cluster
from tests.conftest import TIME_SCALE
from tests.lab import Lab

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def row(**changes: Any) -> dict[str, Any]:
    return {"vmid": 100, "node": "pve1", "name": "web-01", "status": "running", "template": 0, **changes}


def detail(**changes: Any) -> dict[str, Any]:
    return {
        "name": "web-01",
        "node": "pve1",
        "status": "running",
        "template": False,
        "config": {},
        "ip_addresses": ["10.0.0.5"],
        **changes,
    }


def guest(**changes: Any) -> Guest:
    given = {
        "cluster_id": "c",
        "vmid": 100,
        "name": "web-01",
        "node": "pve1",
        "status": "running",
        "template": False,
        "resource": row(),
        "detail": detail(),
        "first_seen_at": NOON,
        "changed_at": NOON,
        "detailed_at": NOON,
    }
    return Guest(**{**given, **changes})


def status(state: State | None) -> str | None:
    return None if state is None else state.status


def test_what_the_guest_itself_said_beats_the_lagging_listing() -> None:
    stopped = guest(status="stopped", detail=detail(status="stopped"), resource=row())
    for seconds in (1, 8, 14):
        listed = NOON + timedelta(seconds=seconds)
        assert status(next_state(stopped, row(), None, listed)) == "stopped"
        assert status(next_state(stopped, row(maxmem=1), None, listed)) == "stopped"
    assert status(next_state(stopped, row(maxmem=1), None, NOON + LAG)) == "running"


def test_a_listing_from_before_a_guest_was_made_does_not_remove_it() -> None:
    assert next_state(guest(), None, None, NOON - timedelta(seconds=1)) is not None
    assert next_state(guest(), None, None, NOON + timedelta(seconds=1)) is None


def test_an_answer_from_before_the_present_knowledge_is_not_believed() -> None:
    old = Found(NOON - timedelta(seconds=1), detail(status="stopped"))
    assert status(next_state(guest(), row(), old, NOON)) == "running"
    new = Found(NOON + timedelta(seconds=1), detail(status="stopped"))
    assert status(next_state(guest(), row(), new, NOON)) == "stopped"
    assert next_state(guest(), row(), Found(NOON + timedelta(seconds=1), None), NOON) is None


def test_a_guest_that_is_still_being_made_is_none_yet() -> None:
    assert next_state(None, row(name=None, status="unknown"), None, NOON) is None
    assert next_state(None, row(name="VM 100", lock="clone"), None, NOON) is None
    making = Found(NOON, detail(name="VM 100", config={"lock": "clone"}))
    assert next_state(None, row(name=None), making, NOON) is None
    without_a_name = Found(NOON, detail(name="VM 100", config={}))
    assert next_state(None, row(name=None), without_a_name, NOON) is not None


def test_a_guest_whose_node_is_offline_is_unknown_and_is_not_asked() -> None:
    offline = row(status="unknown")
    listed = NOON + timedelta(minutes=1)
    assert to_read({100: offline}, {100: guest()}, listed, 10) == []
    state = next_state(guest(), offline, None, listed)
    assert status(state) == "unknown"
    assert state is not None
    assert state.detail == detail()
    back = guest(**{name: getattr(state, name) for name in ("status", "resource", "detail", "detailed_at")})
    assert to_read({100: row()}, {100: back}, listed, 10) == [100]


def test_new_and_changed_guests_are_asked_first_and_old_knowledge_last() -> None:
    known = {
        1: guest(vmid=1, detailed_at=NOON - ROTATION),
        2: guest(vmid=2, detailed_at=NOON - ROTATION - timedelta(seconds=1)),
        3: guest(vmid=3),
        4: guest(vmid=4, resource=row(maxmem=1)),
        5: guest(vmid=5, detail=detail(ip_addresses=[])),
        6: guest(vmid=6, detailed_at=None),
    }
    rows = {number: row() for number in range(1, 8)}
    moment = NOON + timedelta(seconds=1)
    assert to_read(rows, known, moment, 10) == [4, 6, 7, 5, 2, 1]
    assert to_read(rows, known, moment, 4) == [4, 6, 7, 5]


ROWS = st.one_of(
    st.none(),
    st.builds(
        row,
        name=st.sampled_from([None, "web-01", "web-02", "VM 100"]),
        status=st.sampled_from(["running", "stopped", "unknown"]),
        lock=st.sampled_from([None, "clone", "backup"]),
    ),
)
TIMES = st.integers(-60, 60).map(lambda seconds: NOON + timedelta(seconds=seconds))
FOUND = st.one_of(
    st.none(),
    st.builds(Found, TIMES, st.one_of(st.none(), st.builds(detail, status=st.sampled_from(["running", "stopped"])))),
)


@given(ROWS, FOUND, TIMES)
def test_the_same_news_twice_changes_nothing_more(
    listed: dict[str, Any] | None, found: Found | None, moment: datetime
) -> None:
    assume(found is None or found.asked >= moment)  # guests are asked when the listing is there
    first = next_state(guest(), listed, found, moment)
    if first is not None:
        believed = guest(**{name: getattr(first, name) for name in State.__dataclass_fields__})
        assert next_state(believed, listed, found, moment) == first


@given(ROWS, TIMES, st.sampled_from(["running", "stopped"]))
def test_a_fresh_answer_always_counts(listed: dict[str, Any] | None, moment: datetime, said: str) -> None:
    found = Found(NOON + timedelta(seconds=61), detail(status=said))
    assert status(next_state(guest(), listed, found, moment)) == said


def test_load_is_no_change() -> None:
    busy = {**row(), "cpu": 0.9, "mem": 1, "uptime": 5, "netin": 1, "diskread": 2}
    assert row_of(busy) == row()


# With a simulated cluster.


def register(services: Services, lab: Lab, name: str = "prod") -> Cluster:
    connection = lab.connection(ca_path=None, tls_fingerprint=lab.fingerprint)
    facts = clusters.probe(PveClient(connection))
    with services.db.write() as session:
        return clusters.add(session, services.vault, name, connection, facts, default=False)


def known(services: Services, cluster_id: str) -> dict[str, dict[str, Any]]:
    with services.db.read() as session:
        found = inventory.servers(session, cluster_id)
        return {key: inventory.view(value) for key, value in found.items()}


def told(services: Services) -> list[tuple[str, str, str | None]]:
    with services.db.read() as session:
        rows = session.scalars(select(Event).where(Event.topic == "servers").order_by(Event.id)).all()
    return [
        (event.data["change"], event.data["name"], event.data["server"] and event.data["server"]["status"])
        for event in rows
    ]


def until(condition: Callable[[], Any], seconds: float = 30) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
    return value


@pytest.fixture
def services(make_app: Callable[..., Flask]) -> Services:
    made: Services = make_app(observe_interval=0.2).extensions["pvefleet"]
    return made


@pytest.fixture
def observer(services: Services) -> Iterator[Observer]:
    made = Observer(services)
    thread = threading.Thread(target=made.run)
    thread.start()
    yield made
    services.stopping.set()
    thread.join(20)
    assert not thread.is_alive()


@pytest.mark.lab(guests=3)
def test_changes_that_others_make_are_seen_and_told(services: Services, observer: Observer, lab: Lab) -> None:
    cluster = register(services, lab)
    names = until(lambda: sorted(known(services, cluster.id)) if len(known(services, cluster.id)) == 3 else None)
    assert sorted(change for change, _name, _state in told(services)) == ["created"] * 3
    client = PveClient(lab.connection())
    vmid = known(services, cluster.id)[names[0]]["vmid"]
    node = next(item["node"] for item in client.get("/cluster/resources") if item.get("vmid") == vmid)
    assert known(services, cluster.id)[names[0]]["status"] == "running"
    client.run("POST", f"/nodes/{node}/qemu/{vmid}/status/stop", timeout=60)
    until(lambda: known(services, cluster.id)[names[0]]["status"] == "stopped")
    client.run("POST", f"/nodes/{node}/qemu/{vmid}/status/start", timeout=60)
    until(lambda: known(services, cluster.id)[names[0]]["status"] == "running")
    client.run("POST", f"/nodes/{node}/qemu/{vmid}/status/stop", timeout=60)
    client.run("DELETE", f"/nodes/{node}/qemu/{vmid}", timeout=60)
    until(lambda: names[0] not in known(services, cluster.id))
    changes = [(change, state) for change, name, state in told(services) if name == names[0]]
    assert (changes[0], changes[-1]) == (("created", "running"), ("removed", None))
    assert ("updated", "stopped") in changes


@pytest.mark.lab(guests=2)
def test_a_quiet_cluster_costs_one_call_a_look_and_no_event(services: Services, lab: Lab) -> None:
    cluster = register(services, lab)
    look_now(services, cluster)
    before, mark = told(services), len(lab.requests)
    for _time in range(3):
        look_now(services, cluster)
    assert told(services) == before
    assert lab.requests[mark:] == [("GET", "/cluster/resources")] * 3


@pytest.mark.lab(guests=3)
def test_a_new_cluster_is_listed_with_one_call(services: Services, lab: Lab) -> None:
    cluster = register(services, lab)
    mark = len(lab.requests)
    list_now(services, cluster)
    assert len(lab.requests) - mark == 1
    assert len(known(services, cluster.id)) == 3


@pytest.mark.lab(guests=1, time_scale=1.0)
def test_what_our_task_has_done_is_seen_before_the_listing_knows(services: Services, lab: Lab) -> None:
    cluster = register(services, lab)
    look_now(services, cluster)
    (name,) = known(services, cluster.id)
    vmid = known(services, cluster.id)[name]["vmid"]
    client = PveClient(lab.connection())
    node = next(item["node"] for item in client.get("/cluster/resources") if item.get("vmid") == vmid)
    client.run("POST", f"/nodes/{node}/qemu/{vmid}/status/stop", timeout=60)
    task = Task(id="task-x", operation="stop_server", cluster_id=cluster.id, parameters={})
    Observer(services).touched(task, Outcome(End.COMPLETED, {"server": {"vmid": vmid}}))
    listed = next(item for item in client.get("/cluster/resources") if item.get("vmid") == vmid)
    assert listed["status"] == "running"  # the listing lags, as a real one does
    assert known(services, cluster.id)[name]["status"] == "stopped"
    look_now(services, cluster)
    assert known(services, cluster.id)[name]["status"] == "stopped"


@pytest.mark.lab(guests=1)
def test_a_cluster_that_hangs_delays_no_other(services: Services, observer: Observer, lab: Lab) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hanging = add_cluster(services, "hanging", default=False)
        with services.db.write() as session:
            session.get_one(Cluster, hanging).api_endpoint = f"https://127.0.0.1:{silent.getsockname()[1]}"
        cluster = register(services, lab)
        until(lambda: known(services, cluster.id), seconds=8)


def test_a_clusters_status_is_measured_and_updated_at_moves_when_it_changes(
    services: Services, observer: Observer
) -> None:
    with Lab(time_scale=TIME_SCALE) as lab:
        cluster = register(services, lab)
        with services.db.write() as session:
            row = session.get_one(Cluster, cluster.id)
            row.status, row.updated_at = "unknown", NOON
        measured = until(lambda: _healthy(services, cluster.id))
        assert measured.updated_at > NOON
    until(lambda: _cluster(services, cluster.id).status == "unknown", seconds=60)


def _cluster(services: Services, cluster_id: str) -> Cluster:
    with services.db.read() as session:
        return session.get_one(Cluster, cluster_id)


def _healthy(services: Services, cluster_id: str) -> Cluster | None:
    cluster = _cluster(services, cluster_id)
    return cluster if cluster.status == "healthy" else None


def test_a_cluster_that_is_forgotten_is_not_looked_at_any_more(
    services: Services, observer: Observer, lab: Lab
) -> None:
    cluster = register(services, lab)
    until(lambda: lab.count_since(0, "GET", "/cluster/resources") > 2)
    with services.db.write() as session:
        clusters.remove(session, session.get_one(Cluster, cluster.id))
    until(lambda: not any(thread.name == "observer prod" for thread in threading.enumerate()))
    mark = len(lab.requests)
    time.sleep(1)  # time for several looks
    assert lab.requests[mark:] == []
    assert known(services, cluster.id) == {}


@pytest.mark.lab(guests=150)
def test_a_large_cluster_is_known_at_once_and_read_in_parts(services: Services, lab: Lab) -> None:
    cluster = register(services, lab)
    list_now(services, cluster)
    assert len(known(services, cluster.id)) == 150
    mark = len(lab.requests)
    look_now(services, cluster)
    asked = {path for method, path in lab.requests[mark:] if path.endswith("/config")}
    assert len(asked) == MOST_READS
    look_now(services, cluster)
    with services.db.read() as session:
        unread = session.scalars(select(Guest.vmid).where(Guest.detailed_at.is_(None))).all()
    assert unread == []


@pytest.mark.parametrize(
    ("config", "memory", "created"),
    [
        ({"memory": "current=2048"}, 2048, None),
        ({"memory": 1024}, 1024, None),
        ({}, 512, None),
        ({"meta": "creation-qemu=9.0.2,ctime=1718000000"}, 512, "2024-06-10T06:13:20+00:00"),
        ({"meta": "ctime=", "memory": "odd"}, None, None),
        ({"meta": "garbage"}, 512, None),
    ],
)
def test_an_odd_configuration_does_not_hide_the_list(
    config: dict[str, Any], memory: int | None, created: str | None
) -> None:
    shown = inventory.full_view(guest(detail=detail(config={"name": "web-01", **config})))
    assert shown["memory"] == memory
    assert shown["created_at"].isoformat() == (created or NOON.isoformat())


@pytest.mark.lab(guests=2)
def test_an_answer_that_nobody_understands_is_told_once_and_the_cluster_left_alone_for_a_while(
    services: Services,
    observer: Observer,
    lab: Lab,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("pvefleet.observer.ODD_SECONDS", 1.0)
    caplog.set_level("INFO", "pvefleet.observer")
    cluster = register(services, lab)
    until(lambda: len(known(services, cluster.id)) == 2)
    (watcher,) = (thread for thread in threading.enumerate() if thread.name == "observer prod")
    shown = lab.vm(next(iter(known(services, cluster.id).values()))["vmid"]).shown
    lab.do(shown.update, {"vmid": None})
    until(lambda: "unexpected answer" in caplog.text)
    mark = len(lab.requests)
    time.sleep(2.2)  # eleven looks without a pause
    assert 1 <= lab.count_since(mark, "GET", "/cluster/resources") <= 3
    lab.do(shown.pop, "vmid")
    until(lambda: "Cluster prod answers again" in caplog.text)
    assert caplog.text.count("Unable to look at cluster prod") == 1
    assert watcher.is_alive()


@pytest.mark.lab(guests=1)
def test_an_odd_result_does_not_disturb_the_look_after_a_task(services: Services, lab: Lab) -> None:
    cluster = register(services, lab)
    task = Task(id="task-x", operation="stop_server", cluster_id=cluster.id, parameters={})
    Observer(services).touched(task, Outcome(End.COMPLETED, {"server": "odd"}))


def test_the_observer_outlives_an_error_of_the_database(
    services: Services, lab: Lab, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    with services.db.engine.begin() as connection:
        connection.execute(text("ALTER TABLE clusters RENAME TO elsewhere"))
    request.getfixturevalue("observer")
    until(lambda: "Unable to use the database" in caplog.text)
    with services.db.engine.begin() as connection:
        connection.execute(text("ALTER TABLE elsewhere RENAME TO clusters"))
    register(services, lab)
    until(lambda: any(thread.name == "observer prod" for thread in threading.enumerate()))
