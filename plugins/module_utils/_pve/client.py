# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one way to call Proxmox VE: login, endpoints, retries and errors, with proxmoxer underneath."""

from __future__ import annotations

import json
import logging
import random
import re
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from ansible_collections.pvefleet.infra.plugins.module_utils._pve import transport
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.errors import (
    Outcome,
    PveAmbiguous,
    PveAuthFailed,
    PveBadRequest,
    PveConflict,
    PveError,
    PveForbidden,
    PveLocked,
    PveNoQuorum,
    PveNotFound,
    PveTaskFailed,
    PveTaskTimeout,
    PveTlsError,
    PveUnreachable,
    from_answer,
    is_lock_timeout,
)
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.upid import (
    TaskProgress,
    TaskResult,
    Upid,
    wait_for,
)
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.upload import Form, has_file

try:
    from proxmoxer.core import ProxmoxResource, ResourceException  # type: ignore[import-untyped]

    MISSING: ImportError | None = transport.MISSING
    # At level INFO proxmoxer would log every parameter, passwords among them.
    logging.getLogger("proxmoxer.core").addFilter(lambda record: record.levelno >= logging.WARNING)
except ImportError as error:
    MISSING = error

__all__ = [
    "Connection",
    "PveAmbiguous",
    "PveAuthFailed",
    "PveBadRequest",
    "PveClient",
    "PveConflict",
    "PveError",
    "PveForbidden",
    "PveLocked",
    "PveNoQuorum",
    "PveNotFound",
    "PveTaskFailed",
    "PveTaskTimeout",
    "PveTlsError",
    "PveUnreachable",
    "TaskProgress",
    "TaskResult",
    "segment",
]

# A ticket lives for 2 h.
TICKET_SECONDS = 90 * 60
# Parameters whose values must not come back in a message of PVE's.
SECRET_PARAMS = frozenset(
    {"password", "cipassword", "ticket", "new-password", "confirmation-password", "otp", "keyring", "encryption-key"}
)


@dataclass(frozen=True)
class Connection:
    """How to reach one cluster, and as whom.

    endpoints: "https://host:port", tried in turn. user: "name@realm". token_id: the bare token name.
    Trust is one of: tls_fingerprint (SHA-256, in place of CA and host name), ca_path or ca_pem, the system's CAs;
    none only with validate_certs=False. Timeouts and retry_seconds (for how long passing failures are repeated) are
    in seconds; read_timeout is longer than the 30 s that pveproxy gives a request.
    """

    endpoints: tuple[str, ...]
    user: str
    password: str | None = field(default=None, repr=False)
    token_id: str | None = None
    token_secret: str | None = field(default=None, repr=False)
    validate_certs: bool = True
    ca_path: str | None = None
    ca_pem: str | None = None
    tls_fingerprint: str | None = None
    connect_timeout: float = 5.0
    read_timeout: float = 40.0
    retry_seconds: float = 30.0
    name: str | None = None
    default_node: str | None = None
    default_storage: str | None = None


@dataclass(frozen=True)
class _Ticket:
    cookie: str
    csrf: str
    obtained: float

    @property
    def old(self) -> bool:
        return time.monotonic() - self.obtained > TICKET_SECONDS


class _NotPve(Exception):
    """A successful answer that Proxmox VE's API would not give."""


class _Json:
    """proxmoxer's serializer: an answer without `data` is an error, and an error's own words are kept."""

    def loads(self, response: Any) -> Any:
        try:
            return _parsed(response.content)["data"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise _NotPve("an answer that is not Proxmox VE's") from None

    def loads_errors(self, response: Any) -> dict[str, Any]:
        try:
            body = _parsed(response.content)
        except (ValueError, RecursionError):
            return {}
        return body if isinstance(body, dict) else {}


def _parsed(content: bytes) -> Any:
    """JSON; half a surrogate pair, which nothing could print or store, becomes "?". ValueError, RecursionError."""
    text = content.decode()
    body = json.loads(text)
    if re.search(r"\\u[dD][89a-fA-F]", text):
        body = json.loads(json.dumps(body, ensure_ascii=False).encode(errors="replace"))
    return body


class _Session:
    """What proxmoxer calls: the transport with one request's credentials."""

    def __init__(self, wire: transport.Transport, headers: dict[str, str]) -> None:
        self._wire = wire
        self._headers = headers

    def request(self, method: str, url: str, data: Any = None, params: Any = None) -> Any:
        headers = self._headers
        if has_file(data):
            data = Form(data)
            headers = {**headers, "Content-Type": data.content_type}
        response = self._wire.request(method, url, data=data, params=params, headers=headers)
        if 300 <= response.status_code < 400:
            raise _NotPve(f"a redirect ({response.status_code})")  # proxmoxer would take it for success
        return response


class _Retry:
    """Spaces the repetitions of one call: jittered, growing from 0.2 s to 5 s, for as long as its budget lasts.

    The budget counts from the first failure, so that a call that failed slowly is repeated as well.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._end: float | None = None
        self._pause = 0.2

    def wait(self) -> bool:
        """Sleeps; False, at once, when the budget is spent."""
        now = time.monotonic()
        if self._end is None:
            self._end = now + self._seconds
        if now >= self._end:
            return False
        # spread, so that many callers that failed together do not come back together
        pause = min(self._pause * random.uniform(0.5, 1.0), self._end - now)  # noqa: S311 - no secret
        time.sleep(pause)
        self._pause = min(self._pause * 2, 5.0)
        return True


class PveClient:
    """A cluster's API. Nothing is sent before the first call; safe to share between threads."""

    def __init__(self, connection: Connection) -> None:
        """Raises PveError when a Python package is missing, PveTlsError when the CA cannot be read."""
        if MISSING is not None:
            raise PveError(
                f"Unable to use the Proxmox VE API: the Python packages proxmoxer and requests are needed by"
                f" {sys.executable} ({MISSING})"
            )
        self.connection = connection
        self._lock = threading.RLock()
        self._current = 0
        self._ticket: _Ticket | None = None
        pin = connection.tls_fingerprint
        try:
            context = transport.tls_context(
                validate_certs=connection.validate_certs,
                ca_path=connection.ca_path,
                ca_pem=connection.ca_pem,
                tls_fingerprint=pin,
            )
            self._wire = transport.Transport(
                context,
                transport.fingerprint_hex(pin) if pin else None,
                (connection.connect_timeout, connection.read_timeout),
            )
        except ValueError as error:
            raise PveTlsError(str(error)) from None

    @property
    def calls(self) -> int:
        """HTTP requests sent so far, logins and repetitions included."""
        return self._wire.calls

    def close(self) -> None:
        """Closes idle connections. The client can still be used."""
        self._wire.close()

    def get(self, path: str, params: Mapping[str, Any] | None = None, *, retry_seconds: float | None = None) -> Any:
        """The `data` of the answer. retry_seconds: another budget than the connection's."""
        return self._repeat("GET", path, params, None, retry_seconds)

    def post(
        self, path: str, params: Mapping[str, Any] | None = None, *, landed: Callable[[], Any] | None = None
    ) -> Any:
        """A write. landed is asked after its answer was lost: not None is the result, None means repeat the write.
        Without landed a lost answer is PveAmbiguous. put and delete are the same. The last parameter may be an
        UploadFile."""
        return self._repeat("POST", path, params, landed)

    def put(
        self, path: str, params: Mapping[str, Any] | None = None, *, landed: Callable[[], Any] | None = None
    ) -> Any:
        return self._repeat("PUT", path, params, landed)

    def delete(
        self, path: str, params: Mapping[str, Any] | None = None, *, landed: Callable[[], Any] | None = None
    ) -> Any:
        return self._repeat("DELETE", path, params, landed)

    def run(
        self,
        method: str,
        path: str,
        params: Mapping[str, Any] | None = None,
        *,
        timeout: float,
        landed: Callable[[], Any] | None = None,
        on_progress: Callable[[TaskProgress], None] | None = None,
    ) -> TaskResult | None:
        """A call that starts a worker, and the wait for its end; None when the answer names no worker.

        timeout: seconds for all of it. A task that failed because it did not get a lock did nothing: it is
        dispatched again until then. PveTaskFailed, PveTaskTimeout, and what post() raises.
        """
        deadline = time.monotonic() + timeout
        retry: _Retry | None = None
        while True:
            answer = self._repeat(method, path, params, landed)
            if not Upid.fits(answer):
                return None
            try:
                return self.wait(answer, timeout=max(deadline - time.monotonic(), 0), on_progress=on_progress)
            except PveTaskFailed as failed:
                retry = retry or _Retry(deadline - time.monotonic())
                if not is_lock_timeout(failed.exitstatus) or not retry.wait():
                    raise

    def wait(
        self, upid: str, *, timeout: float, on_progress: Callable[[TaskProgress], None] | None = None
    ) -> TaskResult:
        """See upid.wait_for."""
        return wait_for(self, upid, timeout=timeout, on_progress=on_progress)

    def _repeat(
        self,
        method: str,
        path: str,
        params: Mapping[str, Any] | None,
        landed: Callable[[], Any] | None,
        retry_seconds: float | None = None,
    ) -> Any:
        """Sends a call until it has an answer that stands, by the outcome of each failure."""
        retry = _Retry(self.connection.retry_seconds if retry_seconds is None else retry_seconds)
        lost: PveError | None = None
        while True:
            try:
                return self._authorized(method, path, params)
            except PveError as error:
                failure = error
            if failure.outcome is Outcome.UNKNOWN and method != "GET":
                lost = failure
                if landed is None:
                    raise _ambiguous(failure)
            go_on = failure.outcome is not Outcome.REFUSED and retry.wait()
            # also after a refusal: "already exists" may be what an earlier try has made meanwhile
            if lost is not None and landed is not None:
                try:
                    result = landed()
                except PveUnreachable as error:
                    raise _ambiguous(lost) from error
                if result is not None:
                    return result
            if not go_on:
                raise _ambiguous(failure) if failure is lost else failure

    def _authorized(self, method: str, path: str, params: Mapping[str, Any] | None) -> Any:
        connection = self.connection
        if connection.token_id:
            token = f"PVEAPIToken={connection.user}!{connection.token_id}={connection.token_secret}"
            return self._exchange(method, path, params, {"Authorization": token})
        ticket = self._fresh_ticket(None)
        try:
            return self._exchange(method, path, params, _cookie(ticket, method))
        except PveAuthFailed:
            # Tickets die early when a node joins or the clock jumps. A 401 did nothing: any call may be repeated.
            return self._exchange(method, path, params, _cookie(self._fresh_ticket(ticket), method))

    def _fresh_ticket(self, refused: _Ticket | None) -> _Ticket:
        """A ticket that is neither old nor the refused one; logs in at most once for all threads that ask."""
        with self._lock:
            if self._ticket is None or self._ticket.old or self._ticket is refused:
                self._ticket = None
                self._ticket = self._login()
            return self._ticket

    def _login(self) -> _Ticket:
        connection = self.connection
        params = {"username": connection.user, "password": connection.password}
        try:
            answer = self._exchange("POST", "/access/ticket", params, {})
        except PveAuthFailed as error:
            raise PveAuthFailed(
                f"Proxmox VE does not accept the login of {connection.user}: {error.reason}", status=error.status
            ) from None
        except PveNotFound:
            raise PveUnreachable(
                f"{connection.endpoints[self._current]} has no login: it is not the API of Proxmox VE"
            ) from None
        except PveError as error:
            if error.outcome is Outcome.UNKNOWN:
                error.outcome = Outcome.PASSING  # a lost login did no harm: the call that needs it may be repeated
            raise
        parts = [answer.get("ticket"), answer.get("CSRFPreventionToken")] if isinstance(answer, dict) else [None]
        # they become headers
        if not all(isinstance(part, str) and part.isascii() and part.isprintable() for part in parts):
            raise PveUnreachable(f"{self.connection.endpoints[self._current]} answers a login as Proxmox VE never does")
        if answer.get("NeedTFA"):
            raise PveAuthFailed(
                f"The login of {connection.user} needs a second factor, which is not supported: use an API token"
            )
        return _Ticket(answer["ticket"], answer["CSRFPreventionToken"], time.monotonic())

    def _exchange(
        self, method: str, path: str, params: Mapping[str, Any] | None, headers: dict[str, str]
    ) -> Any:
        """One request to the first endpoint that takes it, beginning with the one that answered last."""
        endpoints = self.connection.endpoints
        unsent: dict[str, transport.NotSent] = {}
        for turn in range(len(endpoints)):
            index = (self._current + turn) % len(endpoints)
            try:
                answer = self._send(endpoints[index], method, path, params, headers)
            except transport.NotSent as failure:
                unsent[endpoints[index]] = failure
                continue
            except transport.AnswerLost as failure:
                # this endpoint may hang: the next call asks the next one
                self._current = (index + 1) % len(endpoints)
                raise PveUnreachable(
                    f"{endpoints[index]}: {failure}", method=method, path=path, outcome=Outcome.UNKNOWN
                ) from None
            except PveError:
                self._current = index
                raise
            self._current = index
            return answer
        raise _unreachable(unsent)

    def _send(
        self, endpoint: str, method: str, path: str, params: Mapping[str, Any] | None, headers: dict[str, str]
    ) -> Any:
        resource = ProxmoxResource(
            base_url=f"{endpoint}/api2/json", session=_Session(self._wire, headers), serializer=_Json()
        )
        call = getattr(resource(path), method.lower())
        try:
            answer = call(**{name: _form(value) for name, value in (params or {}).items() if value is not None})
        except ResourceException as error:
            body = error.errors if isinstance(error.errors, dict) else {}
            fields = body.get("errors")
            clean = self._scrubber(params)
            failure = from_answer(
                error.status_code,
                clean(str(body.get("message") or error.content or "")),
                {name: clean(str(text)) for name, text in fields.items()} if isinstance(fields, dict) else None,
                method=method,
                path=path,
            )
        except _NotPve as error:
            # seen while a node joins, and when the address belongs to something else
            failure = PveUnreachable(f"{endpoint} gave {error}", method=method, path=path, outcome=Outcome.UNKNOWN)
        else:
            return answer
        raise failure

    def _scrubber(self, params: Mapping[str, Any] | None) -> Callable[[str], str]:
        secrets = [self.connection.password, self.connection.token_secret]
        secrets += [str(value) for name, value in (params or {}).items() if name in SECRET_PARAMS]

        def clean(text: str) -> str:
            for secret in secrets:
                if secret:
                    text = text.replace(secret, "********")
            return text

        return clean


def segment(value: object) -> str:
    """One segment of a URL path, quoted. ValueError for what would change the path: an empty one, "." and ".."."""
    text = str(value)
    if text in ("", ".", ".."):
        raise ValueError(f"{text!r} cannot be part of a path")
    return quote(text, safe=":@!")


def _cookie(ticket: _Ticket, method: str) -> dict[str, str]:
    headers = {"Cookie": f"PVEAuthCookie={ticket.cookie}"}
    if method != "GET":
        headers["CSRFPreventionToken"] = ticket.csrf
    return headers


def _form(value: Any) -> Any:
    """A value as PVE's forms have it: booleans as 1 and 0, a list as a repeated parameter."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, list | tuple):
        return [_form(item) for item in value]
    return value


def _unreachable(unsent: Mapping[str, transport.NotSent]) -> PveUnreachable:
    kind = PveTlsError if all(failure.certificate for failure in unsent.values()) else PveUnreachable
    lasting = all(failure.lasting for failure in unsent.values())
    return kind(
        "; ".join(f"{endpoint}: {failure}" for endpoint, failure in unsent.items()),
        outcome=Outcome.REFUSED if lasting else Outcome.PASSING,
    )


def _ambiguous(failure: PveError) -> PveAmbiguous:
    return PveAmbiguous(
        f"It is not known whether this was carried out, its answer was lost: {failure.reason}",
        status=failure.status,
        method=failure.method,
        path=failure.path,
        outcome=Outcome.UNKNOWN,
    )
