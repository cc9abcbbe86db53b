# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

"""The HTTP side: what every answer has in common, and who is asking."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from fakepve.model import PveError
from fakepve.server import API, FORMATS, USER, error, ok, params

# What PVEAuditor may, as far as the lab has it.
AUDITOR = ("Datastore.Audit", "Mapping.Audit", "Pool.Audit", "SDN.Audit", "Sys.Audit", "VM.Audit")

Handler = Callable[[dict[str, Any], str], Awaitable[Any]]


@dataclass(frozen=True)
class Fault:
    """What happens to the next request of this method whose path ends with suffix."""

    method: str
    suffix: str
    before: Callable[[], Awaitable[None] | None] | None = None
    loses_answer: bool = False
    status: int | None = None
    data: tuple[Any, ...] = ()  # of the answer, in place of the right one


class Http:
    """Mixin: answers in PVE's manner, authentication, and a record of the calls."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # (method, path without /api2/json) of every request, oldest first.
        self.calls: list[tuple[str, str]] = []
        self.faults: list[Fault] = []

    def interpose(self, method: str, suffix: str, action: Callable[[], Awaitable[None] | None]) -> None:
        """Call ``action`` just before the next such request is handled: somebody else's work in between."""
        self.faults.append(Fault(method, suffix, before=action))

    def lose_answer(self, method: str, suffix: str, status: int | None = None) -> None:
        """Do what the next such request asks for, but drop the connection, or answer ``status`` such as 596."""
        self.faults.append(Fault(method, suffix, loses_answer=True, status=status))

    def answer_with(self, method: str, suffix: str, data: Any) -> None:
        """Do what the next such request asks for, but answer ``data``, as what is no PVE might."""
        self.faults.append(Fault(method, suffix, data=(data,)))

    def _take_fault(self, method: str, path: str) -> Fault | None:
        for fault in self.faults:
            if fault.method == method and path.endswith(fault.suffix):
                self.faults.remove(fault)
                return fault
        return None

    async def checked(self, request: web.Request, handler: Handler) -> web.Response:
        """Answer with ``handler(values, user)`` after the checks of PVE's schema: parameters and permissions."""
        match = self.resolve(request, API)
        if match is None or request.method not in match.methods:
            raise PveError(501, f"Method '{request.method} {_api_path(request)}' not implemented")

        async def call(_match: object, values: dict[str, Any]) -> Any:
            return await handler(values, request[USER])

        return ok(await self.answer(request, match, await params(request), request[USER], call))

    @web.middleware
    async def _middleware(self, request: web.Request, handler: Any) -> web.StreamResponse:
        path = _api_path(request)
        self.calls.append((request.method, path))
        if self.latency:
            await asyncio.sleep(self.latency)
        fault = self._take_fault(request.method, path)
        if fault and fault.before and (waiting := fault.before()) is not None:
            await waiting
        try:
            response = await super()._middleware(request, handler)
        except web.HTTPNotFound:
            response = error(501, f"Method '{request.method} {path}' not implemented")
        if fault and fault.loses_answer:
            if fault.status is None and request.transport is not None:
                request.transport.abort()
            response = web.Response(status=fault.status or 500)
        if fault and fault.data:
            response = ok(*fault.data)
        if response.status == 401 and path != "/access/ticket":
            response = web.Response(status=401, reason=response.reason)
        elif response.status == 595:
            await self.pause(self._random.uniform(2, 3))
            response = web.Response(status=595, reason="No route to host")
        response.headers["Server"] = "pve-api-daemon/3.0"
        if response.status >= 400:
            response.force_close()
        return response

    async def _answer(self, request: web.Request, handler: Any, generic: Any, path_node: str | None) -> Any:
        if path_node and path_node not in self.nodes:
            cause = f"failed to get address info for: {path_node}: Name or service not known"
            return error(500, f"hostname lookup '{path_node}' failed - {cause}")
        return await super()._answer(request, handler, generic, path_node)

    def add_user(self, userid: str, password: str, privileges: tuple[str, ...] = AUDITOR, path: str = "/") -> None:
        """A user with these privileges on path (PVEAuditor's on everything unless told)."""
        self.users[userid] = password
        self.grant(userid, path, *privileges)

    def add_token(self, token: str, secret: str) -> None:
        """An API token ``user@realm!name``; it has its user's privileges."""
        self.apitokens[token] = secret

    def check_password(self, user: str, password: str) -> bool:
        """A password, or a ticket of the same user that is still good: PVE renews tickets that way."""
        session = self.tickets.get(password)
        if session is not None and session["user"] == user and session["expires"] > time.time():
            return True
        return bool(super().check_password(user, password))

    async def _ticket(self, request: web.Request) -> web.Response:
        try:
            return await super()._ticket(request)
        except PveError:
            await self.pause(3)  # PVE takes its time over a wrong password
            raise


def _api_path(request: web.Request) -> str:
    for prefix in FORMATS:
        if request.path.startswith(prefix + "/"):
            return str(request.path[len(prefix) :])
    return str(request.path)
