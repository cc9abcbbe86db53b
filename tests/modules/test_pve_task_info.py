# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""pve_task_info: any task by its UPID, waited for, looked at, stopped."""

from __future__ import annotations

import re
from typing import Any

import pytest
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import PveClient
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.errors import Unable
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.task import TaskSpec, task_info

from .conftest import RunModule

NONE = "UPID:pve2:0002A5F1:01C9C4A2:6926D1F0:vzdump:101:root@pam:"
RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def client(lab: Any) -> PveClient:
    return PveClient(lab.connection())


def clone(client: PveClient, vmid: int = 100) -> str:
    upid: str = client.post("/nodes/pve1/qemu/9000/clone", {"newid": vmid, "full": True})
    return upid


def writes(lab: Any) -> list[str]:
    return [method for method, _path in lab.requests if method not in ("GET", "POST")]


def test_as_ansible_runs_it(run_module: RunModule, lab: Any, client: PveClient) -> None:
    upid = clone(client)
    params = {
        "api_host": lab.api_endpoint,
        "api_token_id": lab.token_id,
        "api_token_secret": lab.token_secret,
        "ca_path": lab.ca_file,
    }
    result = run_module("pve_task_info", {**params, "upid": upid, "log_lines": 2})
    task = result["task"]
    assert not result["changed"]
    assert task == {
        "upid": upid,
        "node": "pve1",
        "type": "qmclone",
        "id": "9000",
        "user": lab.token_id,
        "status": "ok",
        "exitstatus": "OK",
        "warnings": 0,
        "starttime": task["starttime"],
        "endtime": task["endtime"],
        "log": ["transferred 4.0 MiB of 4.0 MiB (100.00%)", "TASK OK"] if "4.0" in task["log"][0] else task["log"],
    }
    assert task["log"][-1] == "TASK OK"
    assert RFC3339.fullmatch(task["starttime"])
    assert RFC3339.fullmatch(task["endtime"])
    assert task["starttime"] <= task["endtime"]
    bad = run_module("pve_task_info", {**params, "upid": "UPID:nonsense"}, fails=True)
    assert bad["msg"] == "Unable to look at a task: 'UPID:nonsense' is not a UPID"


def test_ends_are_told_apart(client: PveClient, lab: Any) -> None:
    lab.do(lab.pve.end_next_task, "qmclone", "WARNINGS: 2", "WARN: one", "WARN: two")
    warned = task_info(client, TaskSpec(clone(client))).task
    assert (warned["status"], warned["warnings"], warned["exitstatus"]) == ("warnings", 2, "WARNINGS: 2")
    assert "WARN: two" in warned["log"]
    lab.do(lab.pve.end_next_task, "qmclone", "clone failed: no luck")
    failed = task_info(client, TaskSpec(clone(client, 101))).task
    assert (failed["status"], failed["exitstatus"], failed["warnings"]) == ("error", "clone failed: no luck", 0)
    assert failed["log"][-1] == "TASK ERROR: clone failed: no luck"


@pytest.mark.lab(time_scale=0.5)
def test_running_stopped_in_check_mode_and_for_real(client: PveClient, lab: Any) -> None:
    upid = clone(client)
    running = task_info(client, TaskSpec(upid, wait=False, log_lines=0)).task
    assert (running["status"], running["exitstatus"], running["endtime"], running["log"]) == ("running", None, None, [])
    with pytest.raises(Unable) as late:
        task_info(client, TaskSpec(upid, timeout=0))
    assert str(late.value).startswith(f"Unable to wait for task {upid}: Task qmclone on node pve1 was still running")
    foretold = task_info(client, TaskSpec(upid, stop=True), check_mode=True)
    assert foretold.plan.diff()["after"] == {"status": "stopped"}
    assert foretold.task["status"] == "running"
    assert writes(lab) == []
    stopped = task_info(client, TaskSpec(upid, stop=True))
    assert stopped.plan == foretold.plan
    assert (stopped.task["status"], stopped.task["exitstatus"]) == ("error", "interrupted by signal")
    again = task_info(client, TaskSpec(upid, stop=True))
    assert (again.plan.changed, again.task) == (False, stopped.task)
    assert writes(lab) == ["DELETE"]


@pytest.mark.lab(time_scale=0.5)
def test_the_answer_to_the_stop_is_lost(client: PveClient, lab: Any) -> None:
    upid = clone(client)
    lab.do(lab.pve.lose_answer, "DELETE", upid)
    assert task_info(client, TaskSpec(upid, stop=True)).plan.changed
    assert writes(lab) == ["DELETE"]


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        (TaskSpec("UPID"), "Unable to look at a task: 'UPID' is not a UPID"),
        (TaskSpec(NONE), f"Unable to look at task {NONE}: node pve2 has no such task"),
        (TaskSpec(NONE, stop=True), f"Unable to look at task {NONE}: node pve2 has no such task"),
        (TaskSpec(NONE, log_lines=-1), f"Unable to look at task {NONE}: log_lines and timeout cannot be negative"),
        (TaskSpec(NONE.replace("pve2", "pve9")), "hostname lookup 'pve9' failed"),
    ],
)
def test_wrong_input_is_one_sentence(client: PveClient, lab: Any, spec: TaskSpec, complaint: str) -> None:
    with pytest.raises(Unable) as refused:
        task_info(client, spec)
    assert complaint in str(refused.value)
    assert "\n" not in str(refused.value)
    assert writes(lab) == []


def test_long_logs_are_read_to_their_end(client: PveClient, lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    upid = clone(client)
    task_info(client, TaskSpec(upid))
    whole = list(lab.pve.tasks[upid]["log"])
    assert len(whole) > 50
    monkeypatch.setattr("ansible_collections.pvefleet.infra.plugins.module_utils._pve.task.LOG_LINES", 50)
    assert task_info(client, TaskSpec(upid, log_lines=70)).task["log"] == whole[-70:]
