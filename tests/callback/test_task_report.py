# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real runs of ansible-playbook with the callback, against the served API and against what an API should not be."""

from __future__ import annotations

import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.api.fleet import until
from tests.callback.conftest import BIN, Api, Playbook, Run, serving

SECRET = "marked-secret-0815"
COMMAND = "ansible.builtin.command"
SOURCES = ("extra", "varsfile", "included", "inline", "play", "task")
# How much longer a run may take with a dead API than without the callback; the busy machine of a test adds to both.
ADDED_SECONDS = 6.5


def ok(name: str = "fine") -> dict[str, Any]:
    return {"name": name, COMMAND: "true", "changed_when": False}


def report(api: Api, playbook: Playbook, plays: list[Any], *options: str, **environment: str) -> tuple[Run, str]:
    """The run, and the id of the task that it made."""
    before = api.ids()
    run = playbook.run(plays, *options, KERUTA_API_URL=api.url, KERUTA_API_TOKEN=api.token, **environment)
    made = api.ids() - before
    assert len(made) == 1, run.output
    return run, made.pop()


def test_a_run_becomes_a_task(api: Api, playbook: Playbook) -> None:
    included = playbook.folder / "more.yml"
    included.write_text(yaml.safe_dump([ok("included")]))
    changes = {"name": "changes", COMMAND: "true", "notify": "handler"}
    skips = {"name": "skips", COMMAND: "true", "when": False}
    ignored = {"name": "ignored", COMMAND: "false", "ignore_errors": True}
    block = {"block": [{"name": "breaks", COMMAND: "false"}], "rescue": [ok("rescues")]}
    tasks = [ok(), changes, skips, ignored, block, {"ansible.builtin.include_tasks": "more.yml"}]
    handlers = [{"name": "handler", COMMAND: "true", "changed_when": False}]
    run, task_id = report(api, playbook, [{"hosts": "all", "tasks": tasks, "handlers": handlers}])
    assert run.returncode == 0, run.output
    assert "WARNING" not in run.output, run.output

    task = api.call("GET", f"/{task_id}")
    assert (task["title"], task["kind"], task["status"], task["progress"]) == (
        "site.yml",
        "ansible-playbook",
        "COMPLETED",
        100,
    )
    assert task["parameters"] == {"playbooks": ["site.yml"], "check": False}
    assert task["message"].startswith("2 hosts: ok=")

    page = api.call("GET", f"/{task_id}/logs?per_page=200")
    by_task = {line["metadata"]["task"]: line for line in page["logs"] if line["metadata"]["host"] == "web-01"}
    levels = {name: (line["level"], line["metadata"]["outcome"]) for name, line in by_task.items()}
    assert levels == {
        "fine": ("INFO", "ok"),
        "changes": ("INFO", "changed"),
        "skips": ("DEBUG", "skipped"),
        "ignored": ("WARN", "failed, ignored"),
        "breaks": ("WARN", "failed, rescued"),
        "rescues": ("INFO", "ok"),
        "ansible.builtin.include_tasks": ("INFO", "ok"),
        "included": ("INFO", "ok"),
        "handler": ("INFO", "ok"),
    }
    assert page["total"] == 2 * len(levels)
    assert by_task["fine"]["message"] == "web-01 | fine | ok"
    assert 0 < by_task["fine"]["metadata"]["duration"] < 60
    assert by_task["fine"]["metadata"]["action"] == COMMAND

    assert api.call("GET", f"/{task_id}/errors")["total"] == 0, "a rescued failure is no error"
    metric = api.call("GET", f"/{task_id}/metrics")["metrics"][0]
    counts = {"ok": 7, "changed": 1, "failures": 0, "unreachable": 0, "skipped": 1, "rescued": 1, "ignored": 1}
    assert {name: metric["values"]["hosts"]["web-02"][name] for name in ("failures", "rescued", "ignored")} == {
        name: counts[name] for name in ("failures", "rescued", "ignored")
    }
    assert 0 < metric["executionTime"] <= run.seconds
    assert metric["memoryUsage"] > 10
    assert metric["values"]["tasks"] == len(levels)
    assert len(metric["values"]["slowest"]) == 5


def test_a_failing_run(api: Api, playbook: Playbook) -> None:
    away = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}
    fails = {"name": "check the disk", "ansible.builtin.fail": {"msg": "the disk is full"}, "when": "me == 'web-01'"}
    unreachable = {"name": "go there", "ansible.builtin.ping": None, "vars": away, "when": "me == 'web-02'"}
    play = {"hosts": "all", "vars": {"me": "{{ inventory_hostname }}"}, "tasks": [ok(), fails, unreachable]}
    run, task_id = report(api, playbook, [play])
    assert run.returncode not in (0, 1), run.output
    task = api.call("GET", f"/{task_id}")
    assert (task["status"], task["message"]) == ("FAILED", task["error"])
    assert task["error"].startswith("2 of 2 hosts: ")
    assert task["progress"] < 100
    errors = api.call("GET", f"/{task_id}/errors")["errors"]
    assert [error["errorCode"] for error in errors] == ["TASK_FAILED", "HOST_UNREACHABLE"]
    assert errors[0]["message"] == "web-01 | check the disk: the disk is full"
    assert errors[0]["details"] == "host: web-01\ntask: check the disk\naction: ansible.builtin.fail"


def test_a_task_that_is_there_already_with_a_token_for_it_alone(api: Api, playbook: Playbook) -> None:
    task_id = api.call("POST", "", {"title": "nightly", "kind": "backup"})["id"]
    token = api.call("POST", f"/{task_id}/token")["token"]
    (playbook.folder / "ansible.cfg").write_text(
        f"[defaults]\ncallbacks_enabled = pvefleet.infra.task_report\n"
        f"[callback_task_report]\napi_url = {api.url}/api/v1/\ntask_id = {task_id}\n"
    )
    before = api.ids()
    run = playbook.run([{"hosts": "all", "tasks": [ok()]}], "--check", KERUTA_API_TOKEN=token)
    assert run.returncode == 0, run.output
    assert "WARNING" not in run.output, run.output
    assert api.ids() == before
    task = api.call("GET", f"/{task_id}")
    assert (task["status"], task["title"], task["kind"]) == ("COMPLETED", "nightly", "backup")


def test_a_run_outlives_the_token_it_was_given(tmp_path: Path, playbook: Playbook) -> None:
    with serving(tmp_path / "home", PVEFLEET_TOKEN_LIFETIME="PT5S") as served:
        api = Api(served)
        refused = {
            "url": f"{api.url}/api/v1/tasks",
            "headers": {"Authorization": f"Bearer {api.token}"},
            "status_code": 401,
        }
        wait = {"name": "wait until the token has ended", "ansible.builtin.uri": refused, "no_log": True}
        wait |= {"register": "answer", "until": "answer.status == 401", "retries": 30, "delay": 1}
        plays = [{"hosts": "web-01", "tasks": [wait, ok("afterwards")]}]
        run = playbook.run(plays, KERUTA_API_URL=api.url, KERUTA_API_TOKEN=api.token)
        assert run.returncode == 0, run.output
        assert "WARNING" not in run.output, run.output
        (task,) = Api(served).call("GET", "")["tasks"]
    assert task["status"] == "COMPLETED"


def test_check_mode_is_said(api: Api, playbook: Playbook) -> None:
    _run, task_id = report(api, playbook, [{"hosts": "web-01", "tasks": [ok()]}], "--check")
    task = api.call("GET", f"/{task_id}")
    assert (task["title"], task["parameters"]["check"]) == ("site.yml (check mode)", True)


def test_secrets_never_arrive(api: Api, playbook: Playbook) -> None:
    say = {"ansible.builtin.debug": {"msg": SECRET}}
    tasks = [
        {"name": "no_log", **say, "no_log": True},
        {"name": "fails with no_log", "ansible.builtin.fail": {"msg": SECRET}, "no_log": True, "ignore_errors": True},
        {"name": "prints it", **say},
        {"name": "an argument", COMMAND: f"echo {SECRET}", "changed_when": False},
        {"name": "an extra variable", "ansible.builtin.fail": {"msg": "no {{ db.password }}!"}, "ignore_errors": True},
        {"name": "named {{ api_token }}", **say},
        {
            "name": "in a loop",
            "ansible.builtin.fail": {"msg": "{{ item }}"},
            "loop": ["{{ db.password }}"],
            "ignore_errors": True,
        },
        {"name": "fails at last", "ansible.builtin.fail": {"msg": "not {{ db.password }}, nor {{ api_token }}"}},
    ]
    variables = {"db": {"password": SECRET}, "api_token": f"tok-{SECRET}"}
    file = playbook.folder / "variables.yml"
    file.write_text(yaml.safe_dump(variables))
    run, task_id = report(api, playbook, [{"hosts": "web-01", "tasks": tasks}], "-e", f"@{file}")
    assert run.returncode == 2, run.output
    assert SECRET in run.output  # Ansible itself prints it
    everything = api.everything(task_id)
    assert SECRET not in everything
    assert api.token not in everything
    assert "no ********!" in everything
    assert "(censored due to no_log)" in everything
    assert "not ********, nor ********" in everything


def test_what_vault_keeps_never_arrives(api: Api, playbook: Playbook) -> None:
    password = playbook.folder / "vault"
    password.write_text("of the vault")
    vault = [str(BIN / "ansible-vault"), "encrypt_string", "--vault-password-file", str(password), SECRET, "-n", "word"]
    encrypted = subprocess.run(vault, capture_output=True, text=True, check=True, env=playbook.environment, timeout=60)
    file = playbook.folder / "variables.yml"
    file.write_text(encrypted.stdout)
    tasks = [{"name": "says {{ word }}", "ansible.builtin.fail": {"msg": "not {{ word }}"}}]
    options = ("-e", f"@{file}", "--vault-password-file", str(password))
    run, task_id = report(api, playbook, [{"hosts": "web-01", "tasks": tasks}], *options)
    assert SECRET in run.output
    everything = api.everything(task_id)
    assert SECRET not in everything
    assert "web-01 | says ********: not ********" in everything


def test_secrets_of_every_kind_of_variable_never_arrive(api: Api, playbook: Playbook) -> None:
    folder, marks = playbook.folder, {name: f"{name}-{SECRET}" for name in SOURCES}
    (folder / "vault").write_text("of the vault")

    def vault(*arguments: str) -> str:
        command = [str(BIN / "ansible-vault"), *arguments, "--vault-password-file", str(folder / "vault")]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=playbook.environment, timeout=60)
        return done.stdout

    for name in ("extra", "varsfile", "included"):
        (folder / f"{name}.yml").write_text(f"{name}: {marks[name]}\n")
        vault("encrypt", str(folder / f"{name}.yml"))
    (folder / "group_vars").mkdir()
    (folder / "group_vars" / "all.yml").write_text(vault("encrypt_string", marks["inline"], "-n", "inline"))
    names = ("extra", "varsfile", "included", "inline", "db_password", "new_token", "my_secret")
    say = " ".join(f"{{{{ {name} }}}}" for name in names)
    says = {"name": f"says {say}", "ansible.builtin.fail": {"msg": say}, "vars": {"my_secret": marks["task"]}}
    tasks = [
        {"ansible.builtin.include_vars": "included.yml"},
        {"ansible.builtin.set_fact": {"new_token": f"{{{{ 'found-' ~ '{SECRET}' }}}}"}},
        {**says, "ignore_errors": True},
        {"name": f"hidden {SECRET}", COMMAND: "true", "no_log": True, "changed_when": False},
    ]
    play = {"hosts": "web-01", "vars_files": ["varsfile.yml"], "vars": {"db_password": marks["play"]}, "tasks": tasks}
    options = ("-e", f"@{folder}/extra.yml", "--vault-password-file", str(folder / "vault"))
    run, task_id = report(api, playbook, [play], *options)
    assert run.returncode == 0, run.output
    assert all(mark in run.output for mark in marks.values())
    everything = api.everything(task_id)
    assert SECRET not in everything
    hidden = api.call("GET", f"/{task_id}/logs")["logs"][-1]
    assert hidden["message"] == f"web-01 | {COMMAND} | ok"
    assert "failed, ignored: " + " ".join(["********"] * 7) in everything


def test_a_failed_run_is_not_blamed_on_what_was_rescued(api: Api, playbook: Playbook) -> None:
    fail = {
        "name": "breaks",
        "ansible.builtin.fail": {"msg": "the real cause"},
        "when": "inventory_hostname == 'web-02'",
    }
    rescued = {
        "name": "tries",
        "ansible.builtin.fail": {"msg": "was rescued"},
        "when": "inventory_hostname == 'web-01'",
    }
    (playbook.folder / "inner.yml").write_text(yaml.safe_dump([rescued]))
    block = {"block": [{"ansible.builtin.include_tasks": "inner.yml"}], "rescue": [ok("rescues")]}
    run, task_id = report(api, playbook, [{"hosts": "all", "tasks": [fail, block]}])
    assert run.returncode == 2, run.output
    assert api.call("GET", f"/{task_id}")["error"].endswith("; web-02 | breaks: the real cause")
    assert [row["message"] for row in api.call("GET", f"/{task_id}/errors")["errors"]] == [
        "web-02 | breaks: the real cause"
    ]


def test_a_rescue_that_fails_is_an_error(api: Api, playbook: Playbook) -> None:
    fail = {"ansible.builtin.fail": {"msg": "no"}}
    block = {"block": [{"name": "tries", **fail}], "rescue": [{"name": "rescues", **fail}]}
    _run, task_id = report(api, playbook, [{"hosts": "web-01", "tasks": [block]}])
    assert api.call("GET", f"/{task_id}")["error"].endswith("; web-01 | rescues: no")
    assert [row["message"] for row in api.call("GET", f"/{task_id}/errors")["errors"]] == ["web-01 | rescues: no"]


def test_an_interrupted_run_is_cancelled(api: Api, playbook: Playbook) -> None:
    before = api.ids()
    plays = [{"hosts": "web-01", "tasks": [ok(), {"name": "long", COMMAND: "sleep 60"}]}]
    process = playbook.start(plays, KERUTA_API_URL=api.url, KERUTA_API_TOKEN=api.token)
    try:
        until(lambda: api.ids() - before)
        task_id = (api.ids() - before).pop()
        until(lambda: api.call("GET", f"/{task_id}")["message"] == "long")
        process.send_signal(signal.SIGINT)
        output = process.communicate(timeout=30)[0]
    finally:
        process.kill()
    assert "Traceback" not in output
    task = api.call("GET", f"/{task_id}")
    assert (task["status"], task["message"], task["progress"]) == ("CANCELLED", "interrupted", 50)


def test_an_error_that_ends_ansible_is_a_failure(api: Api, playbook: Playbook) -> None:
    plays = [{"hosts": "web-01", "tasks": [ok()]}, {"hosts": "{{ nothing }}", "tasks": [ok()]}]
    run, task_id = report(api, playbook, plays)
    assert run.returncode != 0
    task = api.call("GET", f"/{task_id}")
    assert (task["status"], task["error"]) == ("FAILED", "Ansible ended with an error")


def test_two_playbooks_of_one_command_are_one_task(api: Api, playbook: Playbook) -> None:
    first = playbook.folder / "first.yml"
    first.write_text(yaml.safe_dump([{"hosts": "all", "gather_facts": False, "tasks": [ok("in the first")]}]))
    _run, task_id = report(api, playbook, [{"hosts": "all", "tasks": [ok("in the second")]}], str(first))
    task = api.call("GET", f"/{task_id}")
    assert (task["title"], task["status"]) == ("first.yml, site.yml", "COMPLETED")
    assert api.call("GET", f"/{task_id}/logs")["total"] == 4


def test_a_task_cancelled_by_somebody_else(api: Api, playbook: Playbook) -> None:
    task_id = api.call("POST", "", {"title": "unwanted"})["id"]
    api.call("POST", f"/{task_id}/cancel")
    environment = {"KERUTA_API_URL": api.url, "KERUTA_API_TOKEN": api.token, "KERUTA_TASK_ID": task_id}
    run = playbook.run([{"hosts": "web-01", "tasks": [ok()]}], **environment)
    assert run.returncode == 0, run.output
    assert warnings(run) == 1
    assert "was ended by somebody else" in " ".join(run.output.split())
    assert api.call("GET", f"/{task_id}")["status"] == "CANCELLED"


# ------------------------------------------------------------------ what an API should not be


@contextmanager
def refusing() -> Iterator[str]:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{probe.getsockname()[1]}"


@contextmanager
def silent() -> Iterator[str]:
    """Takes connections, and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def answering(status: int, **headers: str) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"[]")

        do_PATCH = do_POST

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def nowhere() -> Iterator[str]:
    yield "http://no-such-host.invalid"


def warnings(run: Run) -> int:
    return run.output.count("[WARNING]")


BROKEN = [
    pytest.param(refusing, "connection refused", id="closed port"),
    pytest.param(silent, "", id="never answers"),
    pytest.param(nowhere, "", id="no such host"),
    pytest.param(lambda: answering(500), "it answered 500", id="500"),
    pytest.param(lambda: answering(401), "it answered 401", id="401"),
    pytest.param(lambda: answering(302, Location="http://127.0.0.1:1/"), "it answered 302", id="redirect"),
    pytest.param(lambda: answering(200), "to a new task", id="not json"),
    pytest.param(lambda: answering(429, Retry_After="3600"), "it answered 429", id="429"),
]


@pytest.fixture(scope="module")
def usual_seconds(tmp_path_factory: pytest.TempPathFactory) -> float:
    """How long the run takes without the callback."""
    playbook = Playbook(tmp_path_factory.mktemp("usual"))
    return playbook.run([{"hosts": "all", "tasks": [ok()]}], ANSIBLE_CALLBACKS_ENABLED="").seconds


@pytest.mark.parametrize(("kind", "why"), BROKEN)
def test_a_dead_api_neither_breaks_nor_slows_a_run(
    playbook: Playbook, usual_seconds: float, kind: Any, why: str
) -> None:
    with kind() as url:
        run = playbook.run([{"hosts": "all", "tasks": [ok()]}], KERUTA_API_URL=url, KERUTA_API_TOKEN=SECRET)
    assert run.returncode == 0, run.output
    assert "failed=0" in run.output
    said = " ".join(run.output.split())
    assert warnings(run) == 1, run.output
    assert f"Unable to report to {url}: " in said
    assert why in said
    assert "Not delivered: 2 of 2 log lines, the end of the run" in said
    assert SECRET not in run.output
    assert run.seconds - usual_seconds < ADDED_SECONDS


@pytest.mark.parametrize(
    ("environment", "why"),
    [
        ({"KERUTA_API_TOKEN": "x"}, "KERUTA_API_URL is not set"),
        ({"KERUTA_API_URL": "http://127.0.0.1:1"}, "KERUTA_API_TOKEN is not set"),
        ({"KERUTA_API_URL": "127.0.0.1:1", "KERUTA_API_TOKEN": "x"}, "must be like https://"),
        ({"KERUTA_API_URL": "http://[", "KERUTA_API_TOKEN": "x"}, "cannot be understood"),
        ({"KERUTA_API_URL": "https://x", "KERUTA_API_TOKEN": "x", "KERUTA_API_CA": "/none"}, "the CA file /none"),
    ],
)
def test_settings_that_cannot_be_used_are_said(playbook: Playbook, environment: dict[str, str], why: str) -> None:
    run = playbook.run([{"hosts": "web-01", "tasks": [ok()]}], **environment)
    assert run.returncode == 0, run.output
    assert warnings(run) == 1
    assert why in " ".join(run.output.split())


def test_it_does_nothing_unless_it_is_enabled(api: Api, playbook: Playbook) -> None:
    before = api.ids()
    environment = {"KERUTA_API_URL": api.url, "KERUTA_API_TOKEN": api.token, "ANSIBLE_CALLBACKS_ENABLED": ""}
    assert playbook.run([{"hosts": "web-01", "tasks": [ok()]}], **environment).returncode == 0
    assert api.ids() == before
