# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Users and their logins."""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from pvefleet.access.permissions import PERMISSIONS, ROLES
from pvefleet.db import now
from pvefleet.db.models import Login, User

PASSWORD_LENGTH = range(8, 1025)
_USERNAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_hasher = PasswordHasher()
# Checked in place of an unknown user's, so that the answer takes as long.
_NOBODYS_HASH = _hasher.hash(secrets.token_urlsafe(32))


class UserError(ValueError):
    """Unable to make or change a user; str() says why in one sentence."""


@dataclass(frozen=True)
class CurrentUser:
    """Who asks, in Flask-Login's terms. id 0: nobody in particular, where the service was told to ask for no login."""

    id: int
    username: str
    role: str
    permissions: frozenset[str]
    login_id: str = ""
    # A run's own token may report on that task, and nothing else.
    task_id: str | None = None

    is_authenticated: ClassVar[bool] = True
    is_active: ClassVar[bool] = True
    is_anonymous: ClassVar[bool] = False

    def get_id(self) -> str:
        return self.login_id

    def may(self, permission: str) -> bool:
        return permission in self.permissions


def create_user(
    session: Session,
    username: str,
    password: str,
    *,
    role: str,
    email: str | None = None,
    permissions: frozenset[str] = frozenset(),
) -> User:
    """Raises UserError when the name is taken, or a value is not allowed."""
    if not _USERNAME.fullmatch(username):
        raise UserError("A user name has 1 to 64 letters, digits and . _ @ -, and begins with a letter or digit")
    if role not in ROLES:
        raise UserError(f"There is no role {role!r}: choose one of {', '.join(ROLES)}")
    if unknown := sorted(permissions - PERMISSIONS):
        raise UserError(f"There is no permission {unknown[0]!r}")
    if find_user(session, username) is not None:
        raise UserError(f"There is a user {username} already")
    moment = now()
    user = User(
        username=username,
        email=email,
        password_hash=_hash(password),
        role=role,
        permissions=sorted(permissions),
        is_active=True,
        created_at=moment,
        updated_at=moment,
    )
    session.add(user)
    session.flush()
    return user


def find_user(session: Session, username: str) -> User | None:
    return session.scalar(select(User).where(User.username == username))


def set_password(session: Session, user: User, password: str) -> None:
    """Ends all the user's sessions and tokens too. Raises UserError."""
    user.password_hash = _hash(password)
    user.updated_at = now()
    session.execute(delete(Login).where(Login.user_id == user.id))


def check_password(session: Session, username: str, password: str) -> User | None:
    """The user; None for an unknown one, a wrong password and an inactive user, after the same work."""
    user = find_user(session, username)
    stored = _NOBODYS_HASH if user is None else user.password_hash
    try:
        _hasher.verify(stored, password)
    except (VerifyMismatchError, VerificationError, InvalidHashError):
        return None
    return user if user is not None and user.is_active else None


def permissions_of(user: User) -> frozenset[str]:
    return ROLES.get(user.role, frozenset()) | (PERMISSIONS & set(user.permissions))


def begin_login(session: Session, user: User, lifetime: timedelta) -> Login:
    """Logins that have ended are swept away on the way."""
    moment = now()
    session.execute(delete(Login).where(Login.expires_at <= moment))
    login = Login(id=secrets.token_urlsafe(24), user_id=user.id, created_at=moment, expires_at=moment + lifetime)
    session.add(login)
    return login


def end_login(session: Session, login_id: str) -> None:
    session.execute(delete(Login).where(Login.id == login_id))


def user_of_login(session: Session, login_id: str) -> CurrentUser | None:
    """None when the login was ended or has expired, or its user is inactive."""
    row = session.execute(
        select(User, Login).join(Login, Login.user_id == User.id).where(Login.id == login_id)
    ).one_or_none()
    if row is None:
        return None
    user, login = row
    if login.expires_at <= now() or not user.is_active:
        return None
    return as_current(user, login)


def as_current(user: User, login: Login) -> CurrentUser:
    return CurrentUser(user.id, user.username, user.role, permissions_of(user), login.id)


def new_refresh_token(login: Login) -> str:
    """Replaces the login's refresh token: only the newest one is good."""
    secret = secrets.token_urlsafe(32)
    login.refresh_hash = _digest(secret)
    return f"{login.id}.{secret}"


def rotate_refresh_token(session: Session, token: str) -> tuple[str, str] | None:
    """The id of the token's login, and its next refresh token. None when the token is not good.

    A token that was good once ends the login: it was copied, and nobody can tell by whom.
    """
    login_id, _dot, secret = token.rpartition(".")
    login = session.get(Login, login_id, with_for_update=True)
    if login is None or login.refresh_hash is None or user_of_login(session, login_id) is None:
        return None
    if not secrets.compare_digest(login.refresh_hash, _digest(secret)):
        session.delete(login)
        return None
    return login_id, new_refresh_token(login)


def _hash(password: str) -> str:
    if len(password) not in PASSWORD_LENGTH:
        raise UserError(f"A password has {PASSWORD_LENGTH.start} to {PASSWORD_LENGTH.stop - 1} characters")
    return _hasher.hash(password)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
