# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""UPIDs as a language, and the wait for workers: on the lab, and on a server where tasks end oddly."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import unquote

import pytest
from ansible_collections.pvefleet.infra.plugins.module_utils._pve import upid as upid_module
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import (
    PveClient,
    PveForbidden,
    PveTaskFailed,
    PveTaskTimeout,
    TaskProgress,
)
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.upid import (
    TAIL_LINES,
    Upid,
    log_tail,
    percent_of,
    warnings_of,
)
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.conftest import token_client_for
from tests.unit.scripted_https import DROP, Answer, Request, ScriptedServer

Serve = Callable[..., ScriptedServer]
CLONE = "UPID:pve2:0000C0DE:0012ABCD:66E0F000:qmclone:9000:root@pam!fleet:"
LOCKED = "can't lock file '/var/lock/qemu-server/lock-9000.conf' - got timeout"

word = st.text("abcdefghijklmnopqrstuvwxyzABCXYZ0123456789-", min_size=1, max_size=12)
plain = st.text(st.characters(codec="utf-8", exclude_characters=":/", exclude_categories=("Z", "C")), max_size=20)


def digits(least: int, most: int | None = None) -> st.SearchStrategy[str]:
    return st.text("0123456789ABCDEF", min_size=least, max_size=most or least)


@given(word.filter(lambda w: w[0] != "-" and w[-1] != "-"), digits(8), digits(8, 12), digits(8), word, plain, word)
def test_upid_is_read_as_it_was_written(
    node: str, pid: str, pstart: str, start: str, kind: str, ident: str, user: str
) -> None:
    text = f"UPID:{node}:{pid}:{pstart}:{start}:{kind}:{ident}:{user}@pam:"
    upid = Upid.parse(text)
    assert (upid.node, upid.type, upid.id, upid.user) == (node, kind, ident, f"{user}@pam")
    assert upid.starttime == int(start, 16)
    assert str(upid) == text
    assert Upid.fits(text)
    assert unquote(upid.path) == f"/nodes/{node}/tasks/{text}"
    assert upid.path.count("/") == 4


@given(st.text() | st.sampled_from([CLONE[:-1], CLONE + "x", CLONE + "\n", CLONE.replace("pve2", "../pve2")]))
def test_what_is_no_upid_is_refused(text: str) -> None:
    assert not Upid.fits(text)
    with pytest.raises(ValueError, match="is not a UPID"):
        Upid.parse(text)


def test_start_time_of_a_long_lived_host_has_nine_digits() -> None:
    assert Upid.parse(CLONE.replace("0012ABCD", "10012ABCD")).node == "pve2"
    with pytest.raises(ValueError, match="UPID"):
        Upid.parse(CLONE.replace("0012ABCD", "12ABCD"))


@pytest.mark.parametrize("answer", [None, "OK", 7, [], {}])
def test_other_answers_are_no_upid(answer: Any) -> None:
    assert not Upid.fits(answer)


@pytest.mark.parametrize(
    ("exitstatus", "expected"),
    [("OK", 0), ("WARNINGS: 3", 3), ("WARNINGS", None), ("ok", None), ("OK then", None), ("", None)],
)
def test_exit_status(exitstatus: str, expected: int | None) -> None:
    assert warnings_of(exitstatus) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("transferred 512.0 MiB of 10.0 GiB (5.00%)", 5),
        ("drive-scsi0: transferred 1.0 GiB of 2.0 GiB (50.01%) in 3s", 50),
        ("transferred 10.0 GiB of 10.0 GiB (100.00%)", 100),
        ("INFO:  13% (400.0 MiB of 3.0 GiB) in 3s, read: 133.3 MiB/s, write: 0 B/s", 13),
        ("progress 1% (read 33554432 bytes, duration 0 sec)", 1),
        ("create full clone of drive scsi0 (local-lvm:base-9000-disk-0)", None),
        ("INFO: 100 is running", None),
    ],
)
def test_percentages_as_pve_logs_them(line: str, expected: int | None) -> None:
    assert percent_of(line) == expected


@given(st.lists(st.text(max_size=300)), st.text(max_size=20))
def test_tail_is_short_and_telling(lines: list[str], exitstatus: str) -> None:
    tail = log_tail(lines, exitstatus)
    assert len(tail) <= TAIL_LINES
    assert all(line.strip() and len(line) <= 200 for line in tail)
    assert log_tail([*lines, "transferred (5.00%)", "", f"TASK ERROR: {exitstatus}"], exitstatus) == tail


# ---------------------------------------------------------------- on the lab


@pytest.fixture
def client(lab: Any) -> PveClient:
    return PveClient(lab.connection())


def clone(client: PveClient, lab: Any, vmid: int, **params: Any) -> dict[str, Any]:
    return {
        "method": "POST",
        "path": f"/nodes/{lab.nodes[0]}/qemu/{lab.template_vmid}/clone",
        "params": {"newid": vmid, "full": True, **params},
    }


def test_clone_is_done_when_run_returns(client: PveClient, lab: Any) -> None:
    result = client.run(**clone(client, lab, 100), timeout=30)
    assert result is not None
    assert (result.exitstatus, result.upid.type, result.warnings) == ("OK", "qmclone", 0)
    assert "lock" not in client.get(f"/nodes/{lab.nodes[0]}/qemu/100/config")


def test_progress_of_a_clone_is_told(client: PveClient, lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(upid_module.FIRST_POLL, "qmclone", 0.01)
    monkeypatch.setattr(upid_module, "LONGEST_POLL", 0.01)
    told: list[TaskProgress] = []
    client.run(**clone(client, lab, 100), timeout=30, on_progress=told.append)
    percents = [progress.percent for progress in told if progress.percent is not None]
    assert percents
    assert percents == sorted(percents)


def test_log_is_read_only_for_a_listener(client: PveClient, lab: Any) -> None:
    client.run(**clone(client, lab, 100), timeout=30)
    assert not [path for method, path in lab.requests if path.endswith("/log")]


def test_failed_task_says_why(client: PveClient, lab: Any) -> None:
    client.run(**clone(client, lab, 100), timeout=30)
    path = f"/nodes/{lab.nodes[0]}/qemu/100/status/start"
    client.run("POST", path, timeout=30)
    with pytest.raises(PveTaskFailed, match="qmstart on node pve1 failed: VM 100 already running") as caught:
        client.run("POST", path, timeout=30)
    assert caught.value.exitstatus == "VM 100 already running"


def test_call_without_a_worker_gives_none(client: PveClient, lab: Any) -> None:
    client.run(**clone(client, lab, 100), timeout=30)
    assert client.run("PUT", f"/nodes/{lab.nodes[0]}/qemu/100/config", {"memory": 1024}, timeout=30) is None


# ---------------------------------------------------------------- odd ends


def task(status: Callable[[Request], Answer | None], log: Iterable[str] = ()) -> Callable[[Request], Answer | None]:
    """A server with one task: its dispatch, its status, its log."""

    def script(request: Request) -> Answer | None:
        if request.path.endswith("/clone"):
            return Answer(CLONE)
        if request.path.endswith("/log"):
            return Answer([{"n": n, "t": line} for n, line in enumerate(log, 1)])
        assert unquote(request.path) == f"/nodes/pve2/tasks/{CLONE}/status"
        return status(request)

    return script


def stopped(exitstatus: str) -> Answer:
    return Answer({"status": "stopped", "exitstatus": exitstatus})


NO_SUCH_TASK = Answer(status=400, reason="no such task", body=b"")
RUNNING = Answer({"status": "running"})


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(upid_module.FIRST_POLL, "qmclone", 0.01)
    monkeypatch.setattr(upid_module, "LONGEST_POLL", 0.02)


@pytest.mark.usefixtures("quick")
def test_task_that_is_not_known_yet_is_waited_for(serve: Serve) -> None:
    answers = iter([NO_SUCH_TASK, NO_SUCH_TASK, RUNNING, stopped("OK")])
    client = token_client_for(serve(task(lambda request: next(answers))))
    assert client.wait(CLONE, timeout=5).exitstatus == "OK"


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("seen", [True, False])
def test_vanished_task(serve: Serve, monkeypatch: pytest.MonkeyPatch, seen: bool) -> None:
    monkeypatch.setattr(upid_module, "VANISHED_AFTER", 1.0)
    answers = itertools.chain([RUNNING] if seen else [], itertools.repeat(NO_SUCH_TASK))
    server = serve(task(lambda request: next(answers)))
    with pytest.raises(PveTaskFailed, match="vanished") as caught:
        token_client_for(server).wait(CLONE, timeout=5)
    assert caught.value.exitstatus is None
    assert (len(server.requests) == 2) is seen


@pytest.mark.usefixtures("quick")
def test_trouble_on_the_way_is_not_the_task_s(serve: Serve) -> None:
    answers = iter([RUNNING, DROP, Answer(status=595, body=b""), Answer(body=b"no json"), stopped("OK")])
    client = token_client_for(serve(task(lambda request: next(answers))))
    assert client.wait(CLONE, timeout=5).exitstatus == "OK"


@pytest.mark.usefixtures("quick")
def test_warnings_are_success_counted_and_kept(serve: Serve) -> None:
    log = ["copying", "WARN: iothread is only valid with virtio disk", "TASK WARNINGS: 1"]
    client = token_client_for(serve(task(lambda request: stopped("WARNINGS: 1"), log)))
    result = client.run("POST", "/nodes/pve1/qemu/9000/clone", timeout=5)
    assert result is not None
    assert result.warnings == 1
    assert "WARN: iothread is only valid with virtio disk" in result.log_tail


@pytest.mark.usefixtures("quick")
def test_failure_quotes_the_end_of_the_log(serve: Serve) -> None:
    log = [f"step {n}" for n in range(40)]
    log += ["transferred 1 of 2 (50.00%)", "no space left", "TASK ERROR: clone failed"]
    client = token_client_for(serve(task(lambda request: stopped("clone failed"), log)))
    with pytest.raises(PveTaskFailed) as caught:
        client.wait(CLONE, timeout=5)
    assert caught.value.log_tail == [f"step {n}" for n in range(26, 40)] + ["no space left"]
    assert "Task qmclone on node pve2 failed: clone failed; its log ends: step 26" in str(caught.value)
    assert caught.value.upid == CLONE


@pytest.mark.usefixtures("quick")
def test_killed_worker_is_a_failure(serve: Serve) -> None:
    client = token_client_for(serve(task(lambda request: stopped("unexpected status"))))
    with pytest.raises(PveTaskFailed, match="unexpected status: the worker was killed"):
        client.wait(CLONE, timeout=5)


@pytest.mark.usefixtures("quick")
def test_deadline_leaves_the_task_running_and_names_it(serve: Serve) -> None:
    client = token_client_for(serve(task(lambda request: RUNNING)))
    with pytest.raises(PveTaskTimeout, match="goes on") as caught:
        client.wait(CLONE, timeout=0.2)
    assert caught.value.upid == CLONE
    assert CLONE in str(caught.value)


@pytest.mark.usefixtures("quick")
def test_deadline_holds_while_the_node_does_not_answer(serve: Serve) -> None:
    client = token_client_for(serve(task(lambda request: Answer(status=595, body=b""))), retry_seconds=60)
    begin = time.monotonic()
    with pytest.raises(PveTaskTimeout, match="last trouble: the node could not be reached"):
        client.wait(CLONE, timeout=0.3)
    assert time.monotonic() - begin < 5


@pytest.mark.usefixtures("quick")
def test_a_task_of_somebody_else_s_is_forbidden(serve: Serve) -> None:
    refusal = Answer(status=403, reason="Permission check failed", body=b"")
    client = token_client_for(serve(task(lambda request: refusal)))
    with pytest.raises(PveForbidden):
        client.wait(CLONE, timeout=5)


@pytest.mark.usefixtures("quick")
def test_task_that_only_missed_a_lock_is_dispatched_again(serve: Serve) -> None:
    ends = iter([stopped(LOCKED), stopped(LOCKED), stopped("OK")])
    server = serve(task(lambda request: next(ends)))
    result = token_client_for(server).run("POST", "/nodes/pve1/qemu/9000/clone", timeout=10)
    assert result is not None
    assert result.exitstatus == "OK"
    assert server.calls.count("POST /nodes/pve1/qemu/9000/clone") == 3


@pytest.mark.usefixtures("quick")
def test_lock_that_is_never_free_ends_with_the_deadline(serve: Serve) -> None:
    server = serve(task(lambda request: stopped(LOCKED)))
    begin = time.monotonic()
    with pytest.raises(PveTaskFailed, match="can't lock file"):
        token_client_for(server).run("POST", "/nodes/pve1/qemu/9000/clone", timeout=1)
    assert time.monotonic() - begin < 5
    assert server.calls.count("POST /nodes/pve1/qemu/9000/clone") >= 2


@pytest.mark.usefixtures("quick")
def test_polls_grow_apart(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upid_module, "LONGEST_POLL", 2.0)
    server = serve(task(lambda request: RUNNING))
    with pytest.raises(PveTaskTimeout):
        token_client_for(server).wait(CLONE, timeout=1)
    assert len(server.requests) <= 12  # 0.01 s, then half as much again each time
