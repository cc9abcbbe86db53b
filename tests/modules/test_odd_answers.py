# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every module while one read is answered in a shape that is not PVE's: it converges or says why not."""

from __future__ import annotations

import re
import traceback
from contextlib import closing
from typing import Any

import pytest
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import PveClient, PveError
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.errors import Unable

from .jobs import Job, all_jobs, client_of
from .test_faults import lab_of

pytestmark = pytest.mark.usefixtures("hurry")

SHAPES: tuple[Any, ...] = (None, {}, [], "x")
JOBS = all_jobs()


def reads_of(job: Job) -> list[str]:
    """The paths that an undisturbed run reads; of a task, whose id is another each time, only the end."""
    with lab_of(job) as lab:
        job.prepare(lab)
        mark = len(lab.requests)
        with client_of(lab) as client:
            job.run(client)
        paths = [path for method, path in lab.requests[mark:] if method == "GET"]
    return sorted({re.sub(r".*/UPID:[^/]*", "", path) for path in paths})


def bug_of(job: Job, path: str, data: Any) -> str | None:
    """What breaks, and where, when the next such read is answered with data; None when the job knows how to take it."""
    with lab_of(job) as lab:
        job.prepare(lab)
        lab.do(lab.pve.answer_with, "GET", path, data)
        with closing(PveClient(lab.connection(default_storage="local-lvm", retry_seconds=1.0))) as client:
            try:
                job.run(client)
            except (Unable, PveError):
                pass
            except (AttributeError, LookupError, TypeError, ValueError) as error:
                frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/_pve/" in frame.filename]
                return f"GET {path} -> {data!r}: {error!r} at {frames[-1].filename}:{frames[-1].lineno}"
        assert lab.pve.faults == [], f"nobody has read {path}"
    return None


@pytest.mark.parametrize("job", JOBS, ids=[job.name for job in JOBS])
def test_answers_of_an_odd_shape(job: Job) -> None:
    bugs = [bug for path in reads_of(job) for data in SHAPES if (bug := bug_of(job, path, data))]
    assert not bugs, "\n".join(bugs)
