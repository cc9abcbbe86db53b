# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What requests and answers of all families share."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer

T = TypeVar("T")


class Strict(BaseModel):
    """A request: unknown fields are errors."""

    model_config = ConfigDict(extra="forbid")


def rfc3339(moment: datetime) -> str:
    """2024-01-11T10:30:00Z"""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


Timestamp = Annotated[datetime, PlainSerializer(rfc3339, return_type=str)]


class Paging(Strict):
    """The part of a list that is asked for."""

    page: int = Field(default=1, ge=1, le=1_000_000, description="Counted from 1.")
    per_page: int = Field(default=20, ge=1, le=200)

    @property
    def offset(self) -> int:
        return (self.page - 1) * self.per_page

    def part(self, items: Sequence[T]) -> list[T]:
        return list(items[self.offset : self.offset + self.per_page])


class HealthAnswer(BaseModel):
    status: str = Field(examples=["healthy"])
    version: str


class ServersError(BaseModel):
    """An error of the servers family."""

    success: bool = Field(examples=[False])
    error: str
    code: str = Field(examples=["VALIDATION_ERROR"])
    details: dict[str, Any] | None = Field(default=None, description="Only there when there is more to say.")
    task_id: str | None = Field(default=None, description="Of a 409: the task that is in the way.")


class ClustersError(BaseModel):
    """An error of the clusters family."""

    code: str = Field(examples=["BadRequest"])
    message: str
    details: dict[str, Any] | None


class TasksErrorBody(BaseModel):
    code: str = Field(examples=["TASK_NOT_FOUND"])
    message: str
    details: str | None


class TasksError(BaseModel):
    """An error of the tasks family."""

    success: bool = Field(examples=[False])
    error: TasksErrorBody
    timestamp: str
