# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How often a client may do something."""

from __future__ import annotations

import ipaddress

from flask import Response, request
from flask_limiter import Limiter

from pvefleet.access.guard import current_user
from pvefleet.services import services


def client_address() -> str:
    """The client's address; of IPv6 the /64, which is what one host gets to choose from.

    Proxies may add a port, or send a word such as `unknown` instead, which then counts as one client.
    """
    text = request.remote_addr or "unknown"
    if text.startswith("["):
        bare = text[1:].partition("]")[0]
    else:
        bare = text.partition(":")[0] if text.count(":") == 1 else text
    try:
        address = ipaddress.ip_address(bare.partition("%")[0])
    except ValueError:
        return text
    if address.version == 6:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


def _refused(response: Response) -> bool:
    return response.status_code == 401


limiter = Limiter(client_address, headers_enabled=True)
# One count for all the ways to log in; a login that works costs nothing.
login_limit = limiter.shared_limit(lambda: services().settings.login_rate, scope="login", deduct_when=_refused)


def _agent() -> str:
    """The run, where it has a token of its own: many of them report under one user's name. Else a user at an address.

    Reports of an end are counted for themselves, so that a run that has said too much can still say that it is over.
    """
    user = current_user()
    agent = user.task_id or f"{user.id} at {client_address()}"
    return f"{agent}, ends" if _ends() else agent


def _ends() -> bool:
    return request.method == "PATCH" and request.get_json().get("status") in ("COMPLETED", "FAILED", "CANCELLED")


def _log_lines() -> int:
    return len(request.get_json().get("logs") or "1")


report_limit = limiter.shared_limit(lambda: services().settings.report_rate, scope="tasks", key_func=_agent)
log_limit = limiter.shared_limit(
    lambda: services().settings.log_rate, scope="log lines", key_func=_agent, cost=_log_lines
)
