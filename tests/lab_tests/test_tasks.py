# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

"""Tasks and locks: asynchronous, observable, stoppable."""

from __future__ import annotations

import pytest

from tests.lab import Lab

from .api import Api, until


def test_a_task_runs_first_and_has_no_exitstatus_until_it_ends(api: Api) -> None:
    upid = api.post(api.vm(9000, "/clone"), newid=100, full=1)
    first = api.task(upid)
    assert (first["status"], "exitstatus" in first) == ("running", False)
    assert upid.startswith("UPID:pve1:")
    assert api.wait(upid) == "OK"
    assert api.task(upid)["status"] == "stopped"
    assert api.log(upid)[-1] == "TASK OK"


def test_the_log_is_read_in_pages(api: Api) -> None:
    upid = api.post(api.vm(9000, "/clone"), newid=100, full=1)
    api.wait(upid)
    whole = api.log(upid)
    page = api.send("GET", f"/nodes/pve1/tasks/{upid}/log", start=2, limit=3).json()
    assert [line["t"] for line in page["data"]] == whole[2:5]
    assert [line["n"] for line in page["data"]] == [3, 4, 5]
    assert page["total"] == len(whole)
    assert len(api.get(f"/nodes/pve1/tasks/{upid}/log")) == 50


def test_an_unknown_task_is_a_400(api: Api) -> None:
    upid = api.post(api.vm(9000, "/status/stop"))
    api.wait(upid)
    gone = upid.replace(":qmstop:", ":qmstart:")
    assert api.refused("GET", f"/nodes/pve1/tasks/{gone}/status")[0::2] == (400, {"upid": "no such task"})
    assert api.refused("GET", f"/nodes/pve2/tasks/{upid}/status")[0::2] == (400, {"upid": "no such task"})
    assert api.refused("GET", "/nodes/pve1/tasks/nonsense/log").errors == {"upid": "unable to parse worker upid"}


@pytest.mark.lab(time_scale=0.1)
def test_a_stopped_clone_leaves_nothing(api: Api) -> None:
    before = api.volumes()
    upid = api.post(api.vm(9000, "/clone"), newid=100, full=1)
    until(lambda: any("%" in line for line in api.log(upid)))
    api.delete(f"/nodes/pve1/tasks/{upid}")
    assert api.wait(upid) == "interrupted by signal"
    assert api.log(upid)[-1] == "TASK ERROR: interrupted by signal"
    assert "does not exist" in api.refused("GET", api.vm(100, "/config")).message
    assert api.volumes() == before


@pytest.mark.lab(time_scale=0.1)
def test_a_killed_task_ends_in_an_unexpected_status(api: Api, lab: Lab) -> None:
    upid = api.post(api.vm(9000, "/clone"), newid=100, full=1)
    lab.do(lab.pve.kill_task, upid)
    assert api.wait(upid) == "unexpected status"


def test_a_task_can_act_and_end_with_warnings(api: Api, lab: Lab) -> None:
    api.clone(100)
    lab.do(lab.pve.end_next_task, "qmstart", "WARNINGS: 1", "WARN: no efidisk configured")
    upid = api.post(api.vm(100, "/status/start"))
    assert api.wait(upid) == "WARNINGS: 1"
    assert api.log(upid)[-2:] == ["WARN: no efidisk configured", "TASK WARNINGS: 1"]
    assert api.get(api.vm(100, "/status/current"))["status"] == "running"


def test_a_held_lock_fails_a_call_with_its_answer_and_a_task_at_its_end(api: Api, lab: Lab) -> None:
    api.clone(100)
    timeout = "can't lock file '/var/lock/qemu-server/lock-100.conf' - got timeout"
    lab.do(lab.pve.hold_config_lock, 100)
    assert api.refused("PUT", api.vm(100, "/config"), cores=1) == (500, timeout, {})
    assert api.run("PUT", api.vm(100, "/resize"), disk="scsi0", size="+1G") == timeout
    assert api.run("POST", api.vm(100, "/status/stop")) == timeout
    lab.do(lab.pve.release_config_lock, 100)
    api.put(api.vm(100, "/config"), cores=1)


def test_a_lock_held_for_a_while_delays(api: Api, lab: Lab) -> None:
    api.clone(100)
    lab.do(lab.pve.hold_config_lock, 100, secs=2)
    api.put(api.vm(100, "/config"), cores=1)
    assert api.config(100)["cores"] == 1


def test_faults_of_fakepve_work_and_are_counted(api: Api, lab: Lab) -> None:
    mark = len(lab.requests)
    lab.do(lab.pve.fail, "GET", "/version", 596, "broken", times=1)
    assert api.refused("GET", "/version").status == 596
    assert api.get("/version")["version"] == "9.1.7"
    assert lab.requests[mark:] == [("GET", "/version")] * 2
    assert lab.count_since(mark, "GET", "/version") == 2
    assert lab.count_since(mark, "POST") == 0


def test_a_catalogue_error_inside_a_worker_is_the_tasks_own(api: Api, lab: Lab) -> None:
    lab.do(lab.pve.fail, "POST", "/nodes/pve1/qemu/9000/status/start", error="already_running")
    assert api.run("POST", api.vm(9000, "/status/start")) == "VM 9000 already running"
