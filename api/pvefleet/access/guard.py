# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lets a request in, or not: who asks, whether they may, and whether a foreign web page made their browser ask."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from urllib.parse import urlsplit

import flask_login  # type: ignore[import-untyped]
from flask import Flask, Request, g, request, session
from flask.sessions import SecureCookieSessionInterface

from pvefleet.access.permissions import ANY_USER, OPEN
from pvefleet.access.users import CurrentUser, user_of_login
from pvefleet.config import is_loopback
from pvefleet.errors import ApiError, Kind
from pvefleet.services import services

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
# What a <form> can send to another site without the browser asking that site first.
FORM_TYPES = frozenset({"application/x-www-form-urlencoded", "multipart/form-data", "text/plain"})


class CookieSessions(SecureCookieSessionInterface):
    """Flask's own, with a cookie that is Secure when it was asked for by https."""

    def get_cookie_secure(self, app: Flask) -> bool:
        return request.is_secure


def install(
    app: Flask,
    permissions: Mapping[str, str],
    forms: frozenset[str],
    without_login: frozenset[str],
    of_a_task: frozenset[str],
) -> None:
    """Guards every route of app. To be called before other before_request functions are registered.

    permissions: what each endpoint declares. forms: endpoints that take form bodies. without_login: endpoints that
    anybody on this machine may use. of_a_task: endpoints that a run's own token opens for its task.
    """
    app.session_interface = CookieSessions()
    manager = flask_login.LoginManager(app, add_context_processor=False)
    manager.user_loader(_user_of_session)
    manager.request_loader(_user_of_bearer)

    def admit() -> None:
        endpoint = request.endpoint
        if endpoint is None:  # no such path or method: the answer to that gives nothing away
            return
        if request.method not in SAFE_METHODS and "Authorization" not in request.headers:
            refuse_foreign_pages(request, form_allowed=endpoint in forms)
        required = permissions[endpoint]
        user: CurrentUser | None = flask_login.current_user._get_current_object()
        if not isinstance(user, CurrentUser):
            # The name asked for must be this machine's too: a foreign page can make its own name mean 127.0.0.1.
            local = is_loopback(urlsplit(request.host_url).hostname or "")
            user = nobody() if endpoint in without_login and local else None
        g.user = user
        if required == OPEN:
            return
        if user is None:
            raise unauthenticated()
        if user.task_id is not None and (endpoint not in of_a_task or _task_asked_for() != user.task_id):
            raise ApiError(Kind.PERMISSION_DENIED, "token_of_a_task", task_id=user.task_id)
        if required != ANY_USER and not user.may(required):
            raise ApiError(Kind.PERMISSION_DENIED, "permission_denied", permission=required)

    app.before_request(admit)


def current_user() -> CurrentUser:
    """Who asks. Raises ApiError on an open route when nobody is logged in."""
    user: CurrentUser | None = g.get("user")
    if user is None:
        raise unauthenticated()
    return user


def may(permission: str) -> bool:
    """Whether the current user has a permission beyond the one that the route declares."""
    return current_user().may(permission)


def start_session(user: CurrentUser) -> None:
    """Gives the browser a fresh session for the user's login."""
    session.clear()
    session.permanent = True
    flask_login.login_user(user)


def end_session() -> None:
    flask_login.logout_user()
    session.clear()


def unauthenticated() -> ApiError:
    headers = {"WWW-Authenticate": 'Bearer realm="pvefleet"'}
    return ApiError(Kind.AUTHENTICATION_REQUIRED, "authentication_required", headers=headers)


def refuse_foreign_pages(request: Request, *, form_allowed: bool) -> None:
    """Raises ApiError for a write that a page of another origin makes a browser send with its cookies.

    Every browser names the origin of such a write; what names none is no browser. A body of a form's type would reach
    us without the browser asking first, so it is refused where no form is expected.
    """
    site = request.headers.get("Sec-Fetch-Site")
    origin = request.headers.get("Origin") or _origin_of(request.headers.get("Referer"))
    if site is not None:
        foreign = site not in ("same-origin", "none")
    else:
        foreign = origin is not None and origin != request.host_url.rstrip("/")
    if foreign or (request.mimetype in FORM_TYPES and not form_allowed):
        raise ApiError(Kind.PERMISSION_DENIED, "foreign_page")


def _origin_of(url: str | None) -> str | None:
    if not url:
        return None
    try:
        parts = urlsplit(url)
    except ValueError:
        return "null"  # as browsers call an origin that is nobody's
    return f"{parts.scheme}://{parts.netloc}"


def _user_of_session(login_id: str) -> CurrentUser | None:
    if "Authorization" in request.headers:  # who sends a token means that token
        return None
    return _user_of_login(login_id)


def _user_of_bearer(request: Request) -> CurrentUser | None:
    credentials = request.authorization
    if credentials is None or credentials.type != "bearer" or not credentials.token:
        return None
    claims = services().tokens.read(credentials.token)
    user = None if claims is None else _user_of_login(claims.login_id)
    if user is None or claims is None or claims.task_id is None:
        return user
    return dataclasses.replace(user, permissions=user.permissions & {"report_tasks"}, task_id=claims.task_id)


def _task_asked_for() -> str | None:
    return (request.view_args or {}).get("task_id")


def _user_of_login(login_id: str) -> CurrentUser | None:
    with services().db.read() as session:
        return user_of_login(session, login_id)


def nobody() -> CurrentUser:
    """The user of the clusters family where it asks for no login."""
    return CurrentUser(0, "anonymous", "anonymous", frozenset({"view_all", "manage_clusters"}))
