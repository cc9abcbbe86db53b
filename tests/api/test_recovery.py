# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Processes of the service are killed in the middle of a creation; afterwards there is exactly one server."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from pvefleet.engine import processes

from tests.api.fleet import Fleet, documented, register, until
from tests.api.served import Served
from tests.lab import Lab

NAME = "survivor"
# Slow enough that a clone can be met while it runs.
LAB_SECONDS = 0.5


@pytest.fixture
def slow_lab() -> Iterator[Lab]:
    with Lab(time_scale=LAB_SECONDS) as lab:
        yield lab


def kill(victims: list[psutil.Process]) -> None:
    for victim in victims:
        with contextlib.suppress(psutil.NoSuchProcess):
            victim.kill()
    psutil.wait_procs(victims, timeout=10)


def service_processes(served: Served) -> list[psutil.Process]:
    assert served.process is not None
    parent = psutil.Process(served.process.pid)
    return [parent, *parent.children(recursive=True)]


def module_of(process: psutil.Process) -> str:
    command = process.cmdline()
    return command[2] if command[1:2] == ["-m"] else ""


def begin(fleet: Fleet) -> str:
    """A creation whose clone runs."""
    task_id = fleet.accepted("POST", "/api/servers", json=documented(fleet.lab, NAME))
    until(lambda: fleet.task(task_id)["progress"] > 0)
    assert fleet.task(task_id)["status"] == "running"
    return task_id


def check(fleet: Fleet, task_id: str, seen: int) -> None:
    """The task is completed by another attempt, there is one server, and no event is missing or there twice."""
    task = fleet.ended(task_id)
    assert task["status"] == "completed", task
    assert processes.of_run(task_id) == []
    assert list((fleet.served.home / "runs").iterdir()) == []
    assert len(fleet.vmids()) == 1
    server = fleet.servers()[NAME]
    assert [server["vmid"]] == fleet.vmids()
    assert server["status"] == "running"
    path = f"/api/tasks/{task_id}/stream"
    story = list(fleet.events(path))
    statuses = [event["data"]["status"] for event in story if "event" not in event]
    changes = [now for before, now in zip([None, *statuses], statuses, strict=False) if now != before]
    assert changes == ["pending", "running", "pending", "running", "completed"]
    progress = [event["data"]["progress"] for event in story if "event" not in event]
    assert progress == sorted(progress)
    assert list(fleet.events(path, seen)) == [event for event in story if event["id"] > seen]
    again = fleet.call("POST", "/api/servers", json=documented(fleet.lab, NAME))
    assert again.status_code == 409


def last_seen(fleet: Fleet, task_id: str) -> int:
    return int(next(fleet.events(f"/api/tasks/{task_id}/stream"))["id"])


def test_the_engine_is_killed(slow_lab: Lab, tmp_path: Path) -> None:
    with Served(tmp_path / "home") as served:
        fleet = Fleet(served, slow_lab)
        register(served, fleet.session, slow_lab)
        task_id = begin(fleet)
        seen = last_seen(fleet, task_id)
        kill([process for process in service_processes(served) if module_of(process) == "pvefleet.engine"])
        check(fleet, task_id, seen)


def test_everything_is_killed(slow_lab: Lab, tmp_path: Path) -> None:
    with Served(tmp_path / "home") as served:
        fleet = Fleet(served, slow_lab)
        register(served, fleet.session, slow_lab)
        task_id = begin(fleet)
        seen = last_seen(fleet, task_id)
        kill(service_processes(served) + processes.of_run(task_id))
    with Served(tmp_path / "home") as served:
        check(Fleet(served, slow_lab), task_id, seen)


def test_the_parent_alone_is_killed_and_the_service_started_again(slow_lab: Lab, tmp_path: Path) -> None:
    with Served(tmp_path / "home") as served:
        fleet = Fleet(served, slow_lab)
        register(served, fleet.session, slow_lab)
        task_id = begin(fleet)
        seen = last_seen(fleet, task_id)
        parent, *children = service_processes(served)
        kill([parent])
        _gone, alive = psutil.wait_procs(children, timeout=15)
        assert alive == []
        assert processes.of_run(task_id) == []
    with Served(tmp_path / "home") as served:
        check(Fleet(served, slow_lab), task_id, seen)


def test_the_service_is_stopped_and_started_again(slow_lab: Lab, tmp_path: Path) -> None:
    with Served(tmp_path / "home") as served:
        fleet = Fleet(served, slow_lab)
        register(served, fleet.session, slow_lab)
        task_id = begin(fleet)
        seen = last_seen(fleet, task_id)
        assert served.stop() == 0
        assert processes.of_run(task_id) == []
    with Served(tmp_path / "home") as served:
        check(Fleet(served, slow_lab), task_id, seen)
