# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every module under every fault: it converges or says in one sentence why not, and a second run finishes the job."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path

import pytest
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import PveClient, PveError
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.errors import Unable

from tests.lab import Lab

from .faults import Fault, faults_of, heal
from .jobs import Job, all_jobs, client_of

CHECKOUT = Path(__file__).parents[2]
# A second of PVE.
TIME_SCALE = 0.004
NO_JOB = {"proxmox_cluster": "writes the registry's file and nothing of a cluster"}

pytestmark = pytest.mark.usefixtures("hurry")

JOBS = all_jobs()
MATRIX = [(job, fault) for job in JOBS for fault in faults_of(job)]


def lab_of(job: Job) -> Lab:
    return Lab(**{"time_scale": TIME_SCALE, **job.lab})


def writes_since(lab: Lab, mark: int) -> list[tuple[str, str]]:
    return [(method, path) for method, path in lab.requests[mark:] if method != "GET" and path != "/access/ticket"]


def run_under_fault(lab: Lab, job: Job, fault: Fault) -> str | None:
    """The complaint of a run that fails; None when it has converged."""
    connection = lab.connection(default_storage="local-lvm", retry_seconds=4.0, read_timeout=fault.read_timeout)
    with closing(PveClient(connection)) as client:
        try:
            assert job.run(client)
        except (Unable, PveError) as error:
            return str(error)
    return None


@pytest.mark.parametrize("job", JOBS, ids=[job.name for job in JOBS])
def test_job_without_a_fault(job: Job) -> None:
    """Its writes and tasks are those that it names, so that every fault has something to strike."""
    with lab_of(job) as lab:
        job.prepare(lab)
        mark, begun = len(lab.requests), len(lab.pve.tasklog)
        with client_of(lab) as client:
            assert job.run(client)
            job.verify(lab)
            sent = writes_since(lab, mark)
            assert {task["type"] for task in lab.pve.tasklog[begun:]} == set(job.tasks)
            unnamed = [call for call in sent if not any(_is(call, named) for named in job.writes)]
            unsent = [named for named in job.writes if not any(_is(call, named) for call in sent)]
            assert (unnamed, unsent) == ([], [])
            assert not job.run(client)
            assert writes_since(lab, mark) == sent


def _is(call: tuple[str, str], named: tuple[str, str]) -> bool:
    return call[0] == named[0] and call[1].endswith(named[1])


@pytest.mark.parametrize(("job", "fault"), MATRIX, ids=[f"{job.name}: {fault.name}" for job, fault in MATRIX])
def test_fault(job: Job, fault: Fault) -> None:
    with lab_of(job) as lab:
        job.prepare(lab)
        fault.strike(lab)
        complaint = run_under_fault(lab, job, fault)
        assert fault.struck(lab), "what was to go wrong did not"
        if complaint is None:
            assert not fault.fails, "a success that cannot be"
            job.verify(lab)
        else:
            assert not fault.succeeds, complaint
            assert re.fullmatch(r"Unable to \S.*", complaint), complaint
            assert "Traceback" not in complaint
        heal(lab, job)
        with client_of(lab) as client:
            finished = job.run(client)
            assert complaint is not None or not finished, "what had converged was changed again"
            job.verify(lab)
            mark = len(lab.requests)
            assert not job.run(client)
            assert writes_since(lab, mark) == []
            job.verify(lab)


def test_every_module_that_changes_a_cluster_has_a_job() -> None:
    sources = {path.stem: path.read_text() for path in (CHECKOUT / "plugins/modules").glob("*.py")}
    changing = {
        name
        for name, text in sources.items()
        if "connection_argument_spec" in text and "supports_check_mode=True" in text and not name.endswith("_info")
    }
    assert changing - set(NO_JOB) == {job.module for job in JOBS}
    assert len({job.name for job in JOBS}) == len(JOBS)
