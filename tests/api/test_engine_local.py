# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real runs of small playbooks: what reaches them, what they leave, how they are ended."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from ansible_runner import Runner  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st
from pvefleet.engine import processes
from pvefleet.engine.base import End, Event, Job, LogLine, Outcome, Progress
from pvefleet.engine.folder import RunFolder, dump_unsafe
from pvefleet.engine.local import LocalExecutor

PASSWORD = "marked-{{ 1 + 1 }}-password"
# Tests in other processes must not find our processes.
TASK = f"task-{os.getpid()}"


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """A failing test must not make the others fail."""
    yield
    processes.end_run(TASK)


def playbook(folder: Path, *tasks: dict[str, Any]) -> str:
    path = folder / "playbook.yml"
    path.write_text(yaml.safe_dump([{"hosts": "localhost", "gather_facts": False, "tasks": list(tasks)}]))
    return str(path)


class Run:
    """A run in a thread of its own."""

    def __init__(self, folder: Path, *tasks: dict[str, Any], **job: Any) -> None:
        self.runs = folder / "runs of this test"
        self.events: list[Event] = []
        self.stop = threading.Event()
        self.outcome: Outcome | None = None
        self._job = Job(TASK, playbook(folder, *tasks), **{"variables": {}, **job})
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        self.outcome = LocalExecutor(self.runs).run(self._job, self._hear, self.stop)

    def _hear(self, news: Sequence[Event]) -> None:
        self.events.extend(news)

    def ended(self) -> Outcome:
        self._thread.join(60)
        assert self.outcome is not None
        assert processes.of_run(TASK) == []
        assert list(self.runs.iterdir()) == []
        return self.outcome

    @property
    def said(self) -> str:
        return "\n".join(event.message for event in self.events)


def until(condition: Callable[[], Any], seconds: float = 30) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
    return value


def test_the_result_of_a_run_is_what_set_stats_says(tmp_path: Path) -> None:
    stats = {"ansible.builtin.set_stats": {"data": {"pvefleet_result": {"server": {"vmid": 100}, "changed": True}}}}
    run = Run(tmp_path, {"name": "Tell", **stats})
    assert run.ended() == Outcome(End.COMPLETED, result={"server": {"vmid": 100}, "changed": True})
    assert run.events == [LogLine("info", "localhost | Tell | ok")]


def test_a_failure_is_told_in_the_modules_own_sentence(tmp_path: Path) -> None:
    fail = {"name": "Try", "ansible.builtin.fail": {"msg": "Unable to start server web-01: no bridge vmbr9"}}
    ignored = {"name": "Ask", "ansible.builtin.fail": {"msg": "never mind"}, "ignore_errors": True}
    run = Run(tmp_path, ignored, fail)
    assert run.ended() == Outcome(End.FAILED, error="Unable to start server web-01: no bridge vmbr9")
    assert LogLine("warning", "localhost | Ask | failed: never mind") in run.events


def test_a_failing_loop_is_told_in_the_items_sentence(tmp_path: Path) -> None:
    loop = {"name": "Each", "ansible.builtin.fail": {"msg": "Unable to do {{ item }}"}, "loop": ["a"]}
    assert Run(tmp_path, loop).ended().error == "Unable to do a"


def test_what_ansible_itself_refuses_has_a_reason_too(tmp_path: Path) -> None:
    outcome = Run(tmp_path, {"name": "Broken", "no.such.module": {}}).ended()
    assert outcome.end is End.FAILED
    assert "no.such.module" in str(outcome.error)


def test_no_text_of_a_request_is_ever_rendered(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    hostile = f"{{{{ lookup('pipe', 'touch {trap}') }}}} {{% raw %}} \" ' \n# x: y ünï"
    show = {"name": "Show", "ansible.builtin.set_stats": {"data": {"pvefleet_result": {"texts": "{{ texts }}"}}}}
    use = {"name": "Use", "ansible.builtin.debug": {"msg": "{{ secret }} {{ texts.deep[0].text }}"}}
    given = {"deep": [{"text": hostile}], "plain": hostile}
    run = Run(tmp_path, show, use, variables={"texts": given}, secrets={"secret": hostile})
    assert run.ended().result == {"texts": given}
    assert not trap.exists()


KEYS = st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True)
PLAIN = st.one_of(st.none(), st.booleans(), st.integers(), st.text(st.characters(exclude_categories=["Cs"])))


@given(st.recursive(PLAIN, lambda inner: st.one_of(st.lists(inner), st.dictionaries(KEYS, inner)), max_leaves=20))
def test_every_value_survives_the_way_to_ansible(value: Any) -> None:
    class Loader(yaml.SafeLoader):
        pass

    unsafe: list[str] = []

    def text(loader: yaml.SafeLoader, node: yaml.Node) -> str:
        assert isinstance(node, yaml.ScalarNode)
        unsafe.append(loader.construct_scalar(node))
        return unsafe[-1]

    Loader.add_constructor("!unsafe", text)
    loaded = yaml.load(dump_unsafe({"value": value}), Loader)
    assert loaded == {"value": value}

    def texts(part: Any) -> list[str]:
        if isinstance(part, str):
            return [part]
        children = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
        return [item for child in children for item in texts(child)]

    assert sorted(unsafe) == sorted(texts(value))


def test_a_secret_is_in_no_argv_no_environment_and_nothing_that_is_said(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    wait = {"name": "Wait", "ansible.builtin.shell": f"until [ -e {gate} ]; do sleep 0.1; done"}
    show = {"name": "Leak", "ansible.builtin.fail": {"msg": "the password is {{ secret }}"}}
    run = Run(tmp_path, wait, show, secrets={"secret": PASSWORD}, registry=PASSWORD, hidden=frozenset({PASSWORD}))
    until(lambda: any(str(gate) in " ".join(process.cmdline()) for process in processes.of_run(TASK)))
    for process in processes.of_run(TASK):
        with contextlib.suppress(psutil.NoSuchProcess):
            assert PASSWORD not in " ".join(process.cmdline())
            assert PASSWORD not in "".join(process.environ().values())
    kept = [path for path in (run.runs / TASK).rglob("*") if path.is_file()]
    holding = {path.name: path.stat().st_mode & 0o077 for path in kept if PASSWORD.encode() in path.read_bytes()}
    assert holding == {"all.yml": 0, "registry.yml": 0}
    assert (run.runs / TASK).stat().st_mode & 0o077 == 0
    gate.touch()
    assert run.ended().error == "the password is ********"
    assert PASSWORD not in run.said


def test_a_run_sees_nothing_of_our_own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PVEFLEET_SECRET_KEY", "the-services-own-key")
    monkeypatch.setenv("ANSIBLE_STDOUT_CALLBACK", "json")
    ask = {"name": "Ask", "ansible.builtin.command": "env", "register": "env", "changed_when": False}
    tell = {"ansible.builtin.set_stats": {"data": {"pvefleet_result": {"env": "{{ env.stdout_lines }}"}}}}
    result = Run(tmp_path, ask, {"name": "Tell", **tell}).ended().result
    assert result is not None
    inherited = {line.partition("=")[0] for line in result["env"]}
    assert "PVEFLEET_SECRET_KEY" not in inherited
    assert "the-services-own-key" not in "\n".join(result["env"])
    assert f"HOME={tmp_path / 'runs of this test' / TASK}" in result["env"]


def test_progress_of_a_module_arrives_while_it_runs(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    report = 'printf \'{"percent": 40, "message": "clone"}\\n{"percent": nu\' >> "$PVEFLEET_REPORT"'
    say = {"name": "Say", "ansible.builtin.shell": report}
    wait = {"name": "Wait", "ansible.builtin.wait_for": {"path": str(gate), "sleep": 1}}
    run = Run(tmp_path, say, wait)
    until(lambda: Progress(40, "clone") in run.events)
    gate.touch()
    assert run.ended().end is End.COMPLETED


ORPHAN = {
    "name": "Leave something behind",
    "ansible.builtin.shell": "setsid sh -c 'trap \"\" TERM HUP; sleep 300' & setsid sleep 301 & sleep 302",
}


def test_stopping_ends_every_process_of_the_run(tmp_path: Path) -> None:
    run = Run(tmp_path, ORPHAN)
    until(lambda: len([p for p in processes.of_run(TASK) if p.name() == "sleep"]) == 3)
    began = time.monotonic()
    run.stop.set()
    assert run.ended() == Outcome(End.STOPPED)
    assert time.monotonic() - began < 8


def test_a_stop_that_comes_before_the_process_is_there_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spawning, spawn = threading.Event(), Runner.run

    def slowly(runner: Runner) -> Any:
        spawning.set()
        time.sleep(1)  # several rounds of the executor, as on a machine under load
        return spawn(runner)

    monkeypatch.setattr(Runner, "run", slowly)
    trace = tmp_path / "trace"
    touch = {"ansible.builtin.file": {"path": str(trace), "state": "touch"}}
    run = Run(tmp_path, {"ansible.builtin.command": "sleep 3"}, touch)
    assert spawning.wait(20)
    run.stop.set()
    assert run.ended() == Outcome(End.STOPPED)
    assert not trace.exists()


def test_a_run_that_is_stopped_already_is_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[Runner] = []
    monkeypatch.setattr(Runner, "run", begun.append)
    stop = threading.Event()
    stop.set()
    job = Job(TASK, playbook(tmp_path, ORPHAN), {})
    assert LocalExecutor(tmp_path / "runs").run(job, lambda news: None, stop) == Outcome(End.STOPPED)
    assert begun == []


@pytest.mark.parametrize(("fails", "end"), [(False, End.COMPLETED), (True, End.FAILED)])
def test_a_run_that_had_ended_when_it_was_stopped_is_told_as_it_ended(tmp_path: Path, fails: bool, end: End) -> None:
    stop = threading.Event()

    def hear(news: Sequence[Event]) -> None:
        until(lambda: not processes.of_run(TASK))
        stop.set()

    check = {"name": "Check", "ansible.builtin.assert": {"that": not fails}}
    outcome = LocalExecutor(tmp_path / "runs").run(Job(TASK, playbook(tmp_path, check), {}), hear, stop)
    assert outcome.end is end


def test_a_finished_run_leaves_no_process_either(tmp_path: Path) -> None:
    background = {"name": "Leave", "ansible.builtin.shell": "setsid sleep 300 > /dev/null 2>&1 &"}
    assert Run(tmp_path, background).ended().end is End.COMPLETED


def test_a_run_that_is_killed_by_somebody_else_is_not_called_failed(tmp_path: Path) -> None:
    run = Run(tmp_path, {"name": "Sleep", "ansible.builtin.command": "sleep 300"})
    until(lambda: any(process.name() == "sleep" for process in processes.of_run(TASK)))
    marked = {process.pid for process in processes.of_run(TASK)}
    main = next(process for process in processes.of_run(TASK) if process.ppid() not in marked)
    os.kill(main.pid, signal.SIGKILL)
    assert run.ended() == Outcome(End.DIED)


def test_when_nobody_can_take_the_events_the_run_is_ended(tmp_path: Path) -> None:
    def refuse(news: Sequence[Event]) -> None:
        raise OSError("disk full")

    job = Job(TASK, playbook(tmp_path, {"name": "Say", "ansible.builtin.debug": {}}, ORPHAN), {})
    with pytest.raises(OSError, match="disk full"):
        LocalExecutor(tmp_path / "runs").run(job, refuse, threading.Event())
    assert processes.of_run(TASK) == []
    assert list((tmp_path / "runs").iterdir()) == []


def test_what_a_dead_engine_left_behind_is_cleaned(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / TASK)
    folder.write(Job(TASK, "playbook", {}))
    left = psutil.Popen(["sleep", "300"], env=folder.environment(TASK), start_new_session=True)
    other = psutil.Popen(["sleep", "300"], env=folder.environment("another-task"), start_new_session=True)
    try:
        LocalExecutor(tmp_path).clean(TASK)
        assert left.wait(5) < 0
        assert not folder.path.exists()
        assert other.poll() is None
    finally:
        for process in (left, other):
            if process.poll() is None:
                process.kill()
            process.wait()
