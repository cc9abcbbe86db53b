# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Logging in and out: a session cookie under /auth, bearer tokens under /api/v1/auth."""

from __future__ import annotations

from flask import Response, jsonify, request
from pydantic import ValidationError

from pvefleet import dialects
from pvefleet.access import guard, users
from pvefleet.access.limits import login_limit
from pvefleet.access.permissions import ANY_USER, OPEN
from pvefleet.errors import ApiError, Kind
from pvefleet.families import Family
from pvefleet.language import text
from pvefleet.schemas.auth import (
    LoginAnswer,
    LoginBody,
    LogoutAnswer,
    RefreshBody,
    SessionAnswer,
    SessionUser,
    TokenAnswer,
)
from pvefleet.services import services
from pvefleet.validation import invalid

sessions = Family("auth", "/auth", dialect=dialects.SERVERS)
me = Family("session", "/api/session", dialect=dialects.SERVERS, tag="auth")
tokens = Family("tokens", "/api/v1/auth", dialect=dialects.TASKS, tag="auth")

_LOGIN_CONTENT = {
    "requestBody": {
        "required": True,
        "content": {
            mimetype: {"schema": LoginBody.model_json_schema()}
            for mimetype in ("application/x-www-form-urlencoded", "application/json")
        },
    }
}


@sessions.post("/login", permission=OPEN, form=True, responses={200: LoginAnswer}, openapi_extensions=_LOGIN_CONTENT)
@login_limit
def login() -> Response:
    """Log a browser in: a session cookie."""
    given = request.form.to_dict() if request.mimetype in guard.FORM_TYPES else request.get_json()
    try:
        body = LoginBody.model_validate(given)
    except ValidationError as error:
        raise invalid(error) from None
    user = _log_in(body, refreshable=False)[0]
    guard.start_session(user)
    return sessions.answer({"message": text("login_successful")})


@sessions.post("/logout", permission=ANY_USER, form=True, responses={200: LoginAnswer})
def logout() -> Response:
    """End the login that this request came with."""
    _log_out()
    return sessions.answer({"message": text("logged_out")})


@me.get("", permission=ANY_USER, responses={200: SessionAnswer})
def show_session() -> Response:
    """Who am I, and what may I do."""
    user = guard.current_user()
    shown = SessionUser(id=user.id, username=user.username, role=user.role, permissions=sorted(user.permissions))
    return me.answer({"user": shown.model_dump()})


@tokens.post("/login", permission=OPEN, responses={200: TokenAnswer})
@login_limit
def token_login(body: LoginBody) -> Response:
    """Log a program in: a bearer token."""
    user, refresh_token = _log_in(body, refreshable=True)
    return _tokens(user.login_id, refresh_token)


@tokens.post("/refresh", permission=OPEN, responses={200: TokenAnswer})
@login_limit
def refresh(body: RefreshBody) -> Response:
    """A new bearer token, and the refresh token that comes after this one."""
    with services().db.write() as session:
        rotated = users.rotate_refresh_token(session, body.refreshToken)
    if rotated is None:
        raise ApiError(Kind.AUTHENTICATION_REQUIRED, "refresh_refused")
    login_id, refresh_token = rotated
    return _tokens(login_id, refresh_token)


@tokens.post("/logout", permission=ANY_USER, responses={200: LogoutAnswer})
def token_logout() -> Response:
    """End the login that this request came with: its tokens and its refresh token."""
    _log_out()
    return tokens.answer({})


def _log_in(body: LoginBody, *, refreshable: bool) -> tuple[users.CurrentUser, str]:
    """The user and, when it shall be refreshable, a refresh token. The password is checked outside of the write."""
    settings = services().settings
    with services().db.read() as session:
        user = users.check_password(session, body.username, body.password)
    if user is None:
        raise ApiError(Kind.AUTHENTICATION_REQUIRED, "login_refused")
    with services().db.write() as session:
        lifetime = settings.refresh_lifetime if refreshable else settings.session_lifetime
        login = users.begin_login(session, user, lifetime)
        refresh_token = users.new_refresh_token(login) if refreshable else ""
    return users.as_current(user, login), refresh_token


def _log_out() -> None:
    with services().db.write() as session:
        users.end_login(session, guard.current_user().login_id)
    guard.end_session()


def _tokens(login_id: str, refresh_token: str) -> Response:
    given = services().tokens
    answer = TokenAnswer(
        token=given.issue(login_id), refreshToken=refresh_token, expiresIn=int(given.lifetime.total_seconds())
    )
    return jsonify(answer.model_dump())
