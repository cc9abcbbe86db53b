# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the servers family's task routes take and give."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from pvefleet.schemas.common import Paging

TaskStatus = Literal["pending", "running", "completed", "failed", "cancelled"]


class TaskList(Paging):
    status: TaskStatus | None = None
    type: str | None = Field(default=None, max_length=64)


class TaskPath(BaseModel):
    task_id: str


class TaskView(BaseModel):
    id: str
    type: str
    status: TaskStatus
    message: str
    progress: int = Field(description="Per cent; never falls.")
    target: str | None = Field(description="What it is about, such as the server's name.")
    created_at: str
    updated_at: str
    result: dict[str, Any] | None
    error: str | None


class TasksAnswer(BaseModel):
    success: bool = True
    tasks: list[TaskView]
    page: int
    per_page: int
    total: int


class TaskAnswer(BaseModel):
    """status, progress and message stand beside the task too, as in the document's other answer about a state."""

    success: bool = True
    status: TaskStatus
    progress: int
    message: str
    task: TaskView


class LogEntry(BaseModel):
    timestamp: str
    level: str
    message: str


class LogAnswer(BaseModel):
    success: bool = True
    log: list[LogEntry]
    page: int
    per_page: int
    total: int


class CancelAnswer(BaseModel):
    success: bool = True
    message: str
    task: TaskView
