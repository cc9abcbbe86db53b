# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Proxmox VE's refusals mean: one exception class a kind, and the table that tells them apart."""

from __future__ import annotations

import enum
import http.client
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass


class Outcome(enum.Enum):
    """What a failed call leaves behind, and so what may be done about it."""

    REFUSED = "refused"  # a definite answer: repeating the call gets the same one
    PASSING = "passing"  # nothing was done and the cause passes: any call may be repeated
    UNKNOWN = "unknown"  # it may have been done: a read may be repeated, a write only after a look


class PveError(Exception):
    """A call to Proxmox VE that failed. str() is one sentence for the person who reads it, without secrets.

    reason: the cause alone, in PVE's words where PVE spoke. status: the HTTP status, None without an answer.
    errors: PVE's message per parameter.
    """

    def __init__(
        self,
        reason: str,
        *,
        status: int | None = None,
        method: str | None = None,
        path: str | None = None,
        errors: Mapping[str, str] | None = None,
        outcome: Outcome = Outcome.REFUSED,
    ) -> None:
        self.reason = reason
        self.status = status
        self.method = method
        self.path = path
        self.errors = dict(errors or {})
        self.outcome = outcome
        super().__init__(reason)

    def __str__(self) -> str:
        fields = "; ".join(f"{name}: {text}" for name, text in self.errors.items())
        text = f"{self.reason.rstrip('.')}: {fields}" if fields else self.reason
        if self.method is None:
            return text
        answered = f": {self.status}" if self.status else ""
        return f"{text} ({self.method} {self.path}{answered})"


class PveUnreachable(PveError):
    """No endpoint gave an answer of Proxmox VE's API: connection, TLS, timeout."""


class PveTlsError(PveUnreachable):
    """The server's certificate is not the trusted one. Nothing secret was sent."""


class PveAmbiguous(PveUnreachable):
    """A write whose answer was lost: it may have been carried out."""


class PveAuthFailed(PveError):
    """401: the credentials were not accepted."""


class PveForbidden(PveError):
    """403: the user or token lacks a permission."""


class PveNotFound(PveError):
    """What the path names does not exist: a 404, or a 500 that says so."""


class PveBadRequest(PveError):
    """400: a parameter was refused; errors has PVE's message for each."""


class PveConflict(PveError):
    """Somebody else changed it since it was read, or the name is taken."""


class PveLocked(PveError):
    """A lock was held for longer than PVE waits for it."""


class PveNoQuorum(PveError):
    """The cluster has no quorum: its configuration is read-only until it has."""


class PveTaskFailed(PveError):
    """A worker ended with something else than OK or WARNINGS.

    upid: the task. exitstatus: PVE's words, None when the task vanished. log_tail: its last lines that matter.
    """

    def __init__(self, reason: str, *, upid: str, exitstatus: str | None, log_tail: list[str]) -> None:
        super().__init__(reason)
        self.upid = upid
        self.exitstatus = exitstatus
        self.log_tail = log_tail


class PveTaskTimeout(PveError):
    """The deadline passed while the task, upid, was still running. It goes on."""

    def __init__(self, reason: str, *, upid: str) -> None:
        super().__init__(reason)
        self.upid = upid


class Unable(Exception):
    """What could not be done to which thing, and why: one sentence for the person who reads it."""


@contextmanager
def unable(what: str) -> Iterator[None]:
    """A call or a wait that fails in here becomes `Unable to <what>: <cause>`."""
    try:
        yield
    except (PveError, TimeoutError) as error:
        raise Unable(f"Unable to {what}: {error}") from error


@dataclass(frozen=True)
class Rule:
    """One line of the table: an answer with one of statuses, whose message matches text, means error and outcome."""

    error: type[PveError]
    outcome: Outcome
    statuses: frozenset[int] | None = None
    text: re.Pattern[str] | None = None

    def fits(self, status: int, message: str) -> bool:
        return (self.statuses is None or status in self.statuses) and (
            self.text is None or self.text.search(message) is not None
        )


def _rule(error: type[PveError], outcome: Outcome, *statuses: int, text: str | None = None) -> Rule:
    return Rule(error, outcome, frozenset(statuses) or None, re.compile(text) if text else None)


# A flock of PVE's that was not got: nothing was done, in an answer as in a task's exit status.
LOCK_TIMEOUT = r"can't lock file '[^']*' - got timeout|got lock request timeout"

# The first rule that fits decides. The texts are PVE's own, in their case: a broader pattern would take a
# passing trouble for a definite answer ("qmp command failed - got timeout" is no lock).
ANSWERS = (
    _rule(PveAuthFailed, Outcome.REFUSED, 401),
    _rule(PveForbidden, Outcome.REFUSED, 403),
    _rule(PveNotFound, Outcome.REFUSED, 404),
    _rule(PveNotFound, Outcome.REFUSED, 400, text=r"^no such task"),
    _rule(PveBadRequest, Outcome.REFUSED, 400),
    # Quorum comes back when nodes do, which no retry of seconds waits for.
    _rule(PveNoQuorum, Outcome.REFUSED, text=r"cluster not ready - no quorum\?|no quorum!"),
    _rule(PveLocked, Outcome.PASSING, text=LOCK_TIMEOUT),
    _rule(PveLocked, Outcome.PASSING, text=r"^(VM|CT) is locked"),
    _rule(PveError, Outcome.PASSING, text=r"got no worker upid"),
    _rule(PveConflict, Outcome.REFUSED, text=r"checksum mismatch \(file change by other user\?\)"),
    _rule(PveConflict, Outcome.REFUSED, text=r"detected modified configuration - file changed by other user\?"),
    _rule(PveConflict, Outcome.REFUSED, text=r"already (exists|defined)"),
    _rule(PveNotFound, Outcome.REFUSED, 500, text=r"does not exist"),
    # PVE always says why: a bare 500 comes from a daemon that died or restarts.
    _rule(PveError, Outcome.UNKNOWN, 500, text=r"^$"),
    # Gateways on the way, and pveproxy's own words for a node that it could not ask (AnyEvent::HTTP).
    _rule(PveUnreachable, Outcome.UNKNOWN, 502, 503, 504, 595, 596, 597, 598, 599),
)

_NO_MESSAGE = {
    401: "the credentials were not accepted",
    403: "permission denied",
    404: "no such path",
    595: "the node could not be reached",
    596: "the node did not answer in time",
    597: "the node's answer was cut off",
}


def from_answer(
    status: int, message: str, errors: Mapping[str, str] | None = None, *, method: str, path: str
) -> PveError:
    """The exception for an answer of 300 or more.

    message: PVE's words, from the body or the status line. errors: its message per parameter.
    """
    text = _one_line(message)
    if text == http.client.responses.get(status):
        text = ""  # HTTP's own word for the number, not PVE's
    fields = {name: _one_line(said) for name, said in (errors or {}).items()}
    rule = next((rule for rule in ANSWERS if rule.fits(status, text)), Rule(PveError, Outcome.REFUSED))
    reason = text or _NO_MESSAGE.get(status, f"Proxmox VE answered {status} without saying why")
    return rule.error(reason, status=status, method=method, path=path, errors=fields, outcome=rule.outcome)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def is_lock_timeout(exitstatus: str | None) -> bool:
    """True when a task failed only because it did not get a lock, before it did anything."""
    return exitstatus is not None and re.search(LOCK_TIMEOUT, exitstatus) is not None
