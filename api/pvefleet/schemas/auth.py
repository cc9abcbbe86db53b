# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Logins and sessions."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Secret = Annotated[str, StringConstraints(min_length=1, max_length=1024)]


class LoginBody(BaseModel):
    # A login form may carry fields of its own (a button's name, for one).
    model_config = ConfigDict(extra="ignore")

    username: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    password: Secret


class RefreshBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    refreshToken: Secret


class LoginAnswer(BaseModel):
    success: bool = True
    message: str = Field(examples=["로그인 성공"])


class SessionUser(BaseModel):
    id: int
    username: str
    role: str
    permissions: list[str]


class SessionAnswer(BaseModel):
    success: bool = True
    user: SessionUser


class TokenAnswer(BaseModel):
    token: str = Field(description="Bearer token, for the Authorization header.")
    refreshToken: str = Field(description="Good for one refresh. Used twice it ends the login.")
    expiresIn: int = Field(description="Seconds until the token ends.")


class LogoutAnswer(BaseModel):
    success: bool = True
    data: dict[str, Any]
    message: str
    timestamp: str
