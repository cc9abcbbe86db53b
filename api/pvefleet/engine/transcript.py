# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes sense of what ansible-runner tells about a run: log lines, the result, the reason of a failure."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from pvefleet.engine.base import LogLine, Progress

# The key that a playbook's last task gives to ansible.builtin.set_stats.
RESULT = "pvefleet_result"
HIDDEN = "********"
# A shorter secret would blank out parts of ordinary words; modules hide theirs themselves in any case.
SHORTEST_HIDDEN = 4
_STATES = {
    "runner_on_ok": "ok",
    "runner_on_failed": "failed",
    "runner_on_unreachable": "unreachable",
    "runner_item_on_ok": "ok",
    "runner_item_on_failed": "failed",
}
# What Ansible says by itself, such as that there is no such playbook, comes as plain output.
_SPOKEN = re.compile(r"\[(?P<level>ERROR|WARNING)\]: (?P<text>.+)", re.DOTALL)


class Transcript:
    """Hears a run's events in order. `hidden` texts are blanked out in everything that comes from here."""

    def __init__(self, hidden: frozenset[str] = frozenset()) -> None:
        # The longest first: one may be a part of another.
        self._hidden = sorted((text for text in hidden if len(text) >= SHORTEST_HIDDEN), key=len, reverse=True)
        self._failures: list[str] = []
        self._errors: deque[str] = deque(maxlen=5)
        self.result: dict[str, Any] | None = None

    def hear(self, event: Mapping[str, Any]) -> Iterator[LogLine]:
        """The log lines that an event of ansible-runner is worth."""
        kind, data = event.get("event"), event.get("event_data") or {}
        if kind in _STATES:
            yield from self._task_result(str(kind), data)
        elif kind == "playbook_on_stats":
            result = (data.get("artifact_data") or {}).get(RESULT)
            self.result = self._blank(result) if isinstance(result, dict) else None
        elif spoken := _SPOKEN.match(str(event.get("stdout") or "")):
            level, text = spoken["level"].lower(), self._blank(spoken["text"].strip())
            if level == "error":
                self._errors.append(text)
            yield LogLine(level, text)

    def clean(self, report: Progress) -> Progress:
        return Progress(report.percent, self._blank(report.message))

    def error(self, playbook: str) -> str:
        """Why the run failed: the failing module's own sentence."""
        if self._failures:
            return self._failures[-1]
        cause = " ".join(self._errors) or "Ansible ended without saying why"
        return f"Unable to run {playbook}: {cause}"

    def _task_result(self, kind: str, data: Mapping[str, Any]) -> Iterator[LogLine]:
        result = data.get("res") or {}
        state = _STATES[kind]
        if state == "ok" and result.get("changed"):
            state = "changed"
        for warning in result.get("warnings") or ():
            yield LogLine("warning", self._blank(str(warning)))
        line = f"{data.get('host')} | {data.get('task')} | {state}"
        if state in ("ok", "changed"):
            yield LogLine("info", self._blank(line))
            return
        message = self._blank(str(result.get("msg") or "the module gave no reason"))
        ignored = bool(data.get("ignore_errors"))
        # When a loop fails, the item has already said why.
        if not ignored and not (kind == "runner_on_failed" and "results" in result and self._failures):
            self._failures.append(message)
        yield LogLine("warning" if ignored else "error", f"{self._blank(line)}: {message}")

    def _blank(self, value: Any) -> Any:
        if isinstance(value, str):
            for text in self._hidden:
                value = value.replace(text, HIDDEN)
            return value
        if isinstance(value, Mapping):
            return {key: self._blank(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._blank(item) for item in value]
        return value
