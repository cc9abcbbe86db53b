# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: task_report
type: notification
short_description: Reports a playbook run to the PVE Fleet API as a task
version_added: 0.2.0
author:
  - the PVE Fleet contributors (@pvefleet)
description:
  - The run becomes a task of the API. Its status, its progress, a log line for each result of a task, errors, and
    at the end metrics are sent while it runs.
  - An API that is slow, refuses or cannot be reached never breaks the run and does not slow it down. All of it is
    sent by one thread in the background, which has at most four seconds at the end of the run. What could not be
    delivered is counted and said in one warning.
  - The progress is the number of tasks that are done, of those that are known. Tasks of included files become known
    when they begin. It never falls, and is 100 only when the run has ended well.
  - Of a result the host, the name and action of the task, the outcome and the duration are sent, and of a failure
    its message. A failure that is ignored or rescued is a line of level C(WARN) and no error. When more than 400 lines
    wait, failures are sent first, and C(ok) and C(skipped) results of a task become one line.
  - Arguments, output and results are never sent. Of a task with C(no_log) its action is sent in place of its name, and
    no message.
  - In names and messages the secrets that are known are replaced by asterisks. Known are values of at least four
    characters that are encrypted by Vault, come from a file that is, or are under a name with C(pass), C(secret),
    C(token), C(credential), C(private), C(pwd) or C(key) in it, and private prompts. They are looked for in extra
    variables, in the variables of the first 500 hosts of a play when it begins, in those of each task and its role, and
    in what C(set_fact) and C(include_vars) have set.
  - Not known are values that a template makes, such as of a lookup, what modules find out and register, and secrets
    that are written in the task itself. Use C(no_log) for these.
  - When Ansible is interrupted the task becomes C(CANCELLED). When it is killed, also by SIGTERM or SIGHUP, nobody is
    left to report that; the service ends the task after a time of silence.
requirements:
  - The permission C(report_tasks) for the user of the token; the role C(agent) has it.
notes:
  - Proxies and C(.netrc) are not used. Redirects are not followed.
  - Certificates are always verified.
options:
  api_url:
    description: Address of the API, with or without the trailing C(/api/v1).
    type: str
    env:
      - name: KERUTA_API_URL
    ini:
      - section: callback_task_report
        key: api_url
  api_token:
    description: Bearer token. Best one that is for the task given by O(task_id) alone.
    type: str
    env:
      - name: KERUTA_API_TOKEN
    ini:
      - section: callback_task_report
        key: api_token
  task_id:
    description: The task to report on. Without it the run makes one.
    type: str
    env:
      - name: KERUTA_TASK_ID
    ini:
      - section: callback_task_report
        key: task_id
  ca_path:
    description: File with the CA certificates to trust instead of the system's.
    type: path
    env:
      - name: KERUTA_API_CA
    ini:
      - section: callback_task_report
        key: ca_path
"""

EXAMPLES = r"""
# ansible.cfg
#   [defaults]
#   callbacks_enabled = pvefleet.infra.task_report
#   [callback_task_report]
#   api_url = https://fleet.example.com:8080
#
# and then
#   KERUTA_API_TOKEN=... ansible-playbook site.yml
"""

import atexit
import os
import re
import resource
import signal
import time
from collections.abc import Iterator, Mapping

from ansible import context
from ansible._internal._datatag._tags import Origin, VaultedValue
from ansible.errors import AnsibleError
from ansible.parsing.vault import EncryptedString, is_encrypted_file
from ansible.playbook.block import Block
from ansible.plugins.callback import CallbackBase
from ansible_collections.pvefleet.infra.plugins.module_utils._task_report import (
    Api,
    Counter,
    Masker,
    Reporter,
    ReportError,
    clean,
)

SECRET_NAME = re.compile("pass|secret|token|credential|private|pwd|key", re.IGNORECASE)
# Found by Ansible itself about itself and the hosts; some of their names look like those of secrets.
FOUND = frozenset({"hostvars", "groups", "vars", "ansible_facts", "ansible_local"})
FOUND_PREFIX = "ansible_ssh_host_key_"
SETTING_ACTIONS = ("set_fact", "include_vars")
MOST_HOSTS = 500
MOST_ITEMS = 3
SLOWEST = 5
STATS = ("ok", "changed", "failures", "unreachable", "skipped", "rescued", "ignored")


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "pvefleet.infra.task_report"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._reporter = None
        self._counter = Counter({})
        self._masker = Masker([])
        self._finder = _Finder()
        self._play = None
        self._private_prompts = set()
        self._began = time.monotonic()
        self._began_tasks = {}
        self._slowest = []
        self._books_left = 0
        self._playing = False
        self._last_errors = {}
        self._end = ("", "")
        self._hosts = {}

    # ------------------------------------------------------------------ the run

    def v2_playbook_on_start(self, playbook):
        self._playing = True
        self._counter = Counter({play._uuid: _tasks_of(play) for play in playbook.get_plays()})
        if self._reporter is not None:  # a second playbook of the same command
            return
        url, token = self.get_option("api_url"), self.get_option("api_token")
        if not url or not token:
            missing = "KERUTA_API_URL" if not url else "KERUTA_API_TOKEN"
            self._give_up(f"{missing} is not set")
            return
        try:
            api = Api(url, token, self.get_option("ca_path"))
        except ReportError as error:
            self._give_up(str(error))
            return
        self._masker.add([token])
        books = [os.path.basename(book) for book in context.CLIARGS.get("args", ())]
        self._books_left = len(books)
        name = ", ".join(books) or os.path.basename(playbook._file_name)
        check = bool(context.CLIARGS.get("check"))
        noun = f"{name} (check mode)" if check else name
        new_task = {
            "title": clean(noun)[:255],
            "description": "ansible-playbook, as the callback pvefleet.infra.task_report saw it",
            "kind": "ansible-playbook",
            "parameters": {"playbooks": [clean(book) for book in books], "check": check},
        }
        self._reporter = Reporter(api, new_task, self.get_option("task_id") or None, f"{noun} begins")
        self._reporter.start()
        atexit.register(self._at_exit, os.getpid())

    def v2_playbook_on_vars_prompt(self, varname, private=True, *args, **kwargs):
        if private:
            self._private_prompts.add(varname)

    def v2_playbook_on_play_start(self, play):
        self._counter.play(play._uuid)
        if self._reporter is None:
            return
        self._play = play
        self._masker.add(self._finder.texts([play.vars.get(name) for name in self._private_prompts]))
        manager = play.get_variable_manager()
        self._masker.add(self._finder.secrets(manager.extra_vars))
        for host in manager._inventory.get_hosts(play.hosts)[:MOST_HOSTS]:
            self._learn(host)

    def v2_playbook_on_task_start(self, task, is_conditional):
        if self._reporter is not None:
            self._learn_from(task)
            self._counter.task(task._uuid)
            self._reporter.progress(self._counter.percent, self._name_of(task, task.get_name()))

    def v2_playbook_on_handler_task_start(self, task):
        self.v2_playbook_on_task_start(task, False)

    def v2_runner_on_start(self, host, task):
        self._began_tasks[host.name, task._uuid] = time.monotonic()

    def v2_runner_on_ok(self, result):
        if self._reporter is not None and str(result.task.action).rpartition(".")[2] in SETTING_ACTIONS:
            self._learn(result.host)
        self._tell(result, "INFO", "changed" if result.is_changed() else "ok")

    def v2_runner_on_skipped(self, result):
        self._tell(result, "DEBUG", "skipped")

    def v2_runner_on_failed(self, result, ignore_errors=False):
        self._tell_failure(result, "TASK_FAILED", "failed", ignore_errors)

    def v2_runner_on_unreachable(self, result):
        self._tell_failure(result, "HOST_UNREACHABLE", "unreachable", bool(result.task.ignore_unreachable))

    def v2_runner_retry(self, result):
        self._tell(result, "WARN", "failed, is tried again", ends=False)

    def v2_playbook_on_no_hosts_matched(self):
        if self._reporter is not None:
            self._reporter.log("WARN", "no hosts matched", {})

    def v2_playbook_on_stats(self, stats):
        self._playing = False
        self._books_left -= 1
        hosts = {host: stats.summarize(host) for host in sorted(stats.processed)}
        self._hosts = {host: {name: counts[name] for name in STATS} for host, counts in hosts.items()}
        bad = [host for host, counts in self._hosts.items() if counts["failures"] or counts["unreachable"]]
        sums = " ".join(f"{name}={sum(counts[name] for counts in hosts.values())}" for name in STATS)
        summary = f"{len(hosts)} {'host' if len(hosts) == 1 else 'hosts'}: {sums}"
        if bad:
            errors = [error for host, error in self._last_errors.items() if host in bad]
            self._end = ("FAILED", "; ".join([f"{len(bad)} of {summary}", *errors[-1:]]))
        else:
            self._end = ("COMPLETED", summary)
        if bad or self._books_left <= 0:
            self._finish()

    # ------------------------------------------------------------------ what is sent

    def _tell(self, result, level, outcome, message="", ends=True):
        if self._reporter is None:
            return
        host, task = result.host.get_name(), self._name_of(result.task, result.task_name)
        metadata = {"host": host, "task": clean(task), "action": str(result.task.action), "outcome": outcome}
        if ends and (began := self._began_tasks.pop((host, result.task._uuid), None)) is not None:
            metadata["duration"] = round(time.monotonic() - began, 3)
            self._slowest.append((metadata["duration"], clean(task), host))
            self._slowest = sorted(self._slowest, reverse=True)[:SLOWEST]
        said = f"{host} | {task} | {outcome}"
        self._reporter.log(level, f"{said}: {message}" if message else said, metadata)

    def _tell_failure(self, result, code, outcome, ignored):
        if self._reporter is None:
            return
        message = self._masker(_message_of(result.result))
        if ignored:
            self._tell(result, "WARN", f"{outcome}, ignored", message)
            return
        if code == "TASK_FAILED" and _is_rescued(result.task):
            self._tell(result, "WARN", f"{outcome}, rescued", message)
            return
        self._tell(result, "ERROR", outcome, message)
        host, task = result.host.get_name(), self._name_of(result.task, result.task_name)
        self._last_errors.pop(host, None)  # the newest last
        self._last_errors[host] = error = f"{host} | {task}: {message}"
        self._reporter.error(code, error, f"host: {host}\ntask: {task}\naction: {result.task.action}")

    def _name_of(self, task, name):
        return str(task.action) if task.no_log else self._masker(name)

    def _learn(self, host):
        """The secrets among the variables that a host has in this play."""
        manager = self._play.get_variable_manager()
        try:
            variables = manager.get_vars(play=self._play, host=host, include_hostvars=False)
        except AnsibleError:  # the run says that itself when it comes to it
            return
        self._masker.add(self._finder.secrets(variables))

    def _learn_from(self, task):
        """The secrets among the variables of a task, the blocks that it is in, and its role."""
        self._masker.add(self._finder.secrets(task.get_vars()))
        if task._role is not None:
            chain = task.get_dep_chain()
            self._masker.add(self._finder.secrets(task._role.get_default_vars(dep_chain=chain)))
            self._masker.add(self._finder.secrets(task._role.get_vars(chain)))

    def _finish(self):
        reporter, self._reporter = self._reporter, None
        if reporter is None:
            return
        metrics = {
            "executionTime": round(time.monotonic() - self._began, 3),
            "memoryUsage": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            "values": {
                "tasks": self._counter.started,
                "hosts": self._hosts,
                "slowest": [{"task": task, "host": host, "seconds": took} for took, task, host in self._slowest],
            },
        }
        shortfall = reporter.finish(*self._end, metrics)
        if shortfall:
            self._display.warning(self._masker(shortfall))

    def _at_exit(self, pid):
        """An end without statistics: an interruption, or an error that ended Ansible."""
        if os.getpid() != pid:
            return
        if self._playing:
            # Ansible takes its handler away when the signal comes.
            interrupted = signal.getsignal(signal.SIGINT) is signal.SIG_DFL
            self._end = ("CANCELLED", "interrupted") if interrupted else ("FAILED", "Ansible ended with an error")
        self._finish()

    def _give_up(self, why):
        self.disabled = True
        self._display.warning(f"Unable to report this run: {why}")


def _tasks_of(play) -> Iterator[str]:
    """The ids of the tasks that are known before the play begins; what includes bring is not."""
    for block in play.compile():
        yield from _tasks_in(block)


def _tasks_in(block) -> Iterator[str]:
    # The rescue part runs only when something fails.
    for item in [*block.block, *block.always]:
        if isinstance(item, Block):
            yield from _tasks_in(item)
        elif not item.implicit:
            yield item._uuid


def _message_of(result) -> str:
    """Why it failed. Ansible has taken everything out of a result with no_log."""
    if "censored" in result or result.get("_ansible_no_log"):
        return "(censored due to no_log)"
    message = str(result.get("msg") or result.get("reason") or "no message")
    if isinstance(result.get("rc"), int):
        message = f"{message} (rc {result['rc']})"
    items = [item for item in result.get("results") or [] if isinstance(item, dict) and item.get("failed")]
    return "; ".join([message, *(_message_of(item) for item in items[:MOST_ITEMS])])


def _is_rescued(task) -> bool:
    """Whether a rescue part waits for the failure of the task."""
    inner, block = task, task._parent
    while block is not None:
        if isinstance(block, Block) and block.rescue and any(item._uuid == inner._uuid for item in block.block):
            return True
        inner, block = block, block._parent
    return False


class _Finder:
    """Finds secrets among variables."""

    def __init__(self):
        self._encrypted_files = {}

    def secrets(self, value, secret=False) -> Iterator[str]:
        """The texts that are secret by the name that they are under, or because they were encrypted."""
        if isinstance(value, EncryptedString):
            try:
                yield str(value)
            except AnsibleError:  # nobody can decrypt it, so nobody can print it
                return
        elif isinstance(value, Mapping):
            for name, item in value.items():
                if name not in FOUND and not str(name).startswith(FOUND_PREFIX):
                    yield from self.secrets(item, secret or bool(SECRET_NAME.search(str(name))))
        elif isinstance(value, (list, tuple)):
            for item in value:
                yield from self.secrets(item, secret)
        elif isinstance(value, bool) or not isinstance(value, (str, int)):
            return
        elif secret or VaultedValue.is_tagged_on(value) or self._is_of_encrypted_file(value):
            yield str(value)

    def texts(self, value) -> Iterator[str]:
        return self.secrets(value, secret=True)

    def _is_of_encrypted_file(self, value) -> bool:
        """Ansible itself marks the whole of such a file, and forgets it when it merges variables."""
        origin = Origin.get_tag(value)
        path = origin.path if origin is not None else None
        if not path:
            return False
        if path not in self._encrypted_files:
            try:
                with open(path, "rb") as file:
                    self._encrypted_files[path] = is_encrypted_file(file)
            except OSError:
                self._encrypted_files[path] = False
        return self._encrypted_files[path]
