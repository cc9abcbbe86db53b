# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tasks family takes and gives. Names and shapes are the document's."""

from __future__ import annotations

import math
from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    Field,
    StringConstraints,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from pvefleet.schemas.common import Paging, Strict
from pvefleet.tasks.reports import LONGEST_TEXT

Word = Literal["QUEUED", "PROCESSING", "COMPLETED", "FAILED", "CANCELLED"]
Priority = Literal["LOW", "MEDIUM", "HIGH", "CRITICAL"]
Level = Literal["TRACE", "DEBUG", "INFO", "WARN", "WARNING", "ERROR", "CRITICAL", "FATAL"]
# What every client can hold in a number, JavaScript's too.
LARGEST = 2**53
MOST_LINES = 200
MOST_ERRORS = 50
DEEPEST = 32


def _moment(value: Any, handler: ValidatorFunctionWrapHandler) -> datetime:
    """RFC 3339 alone: neither numbers nor times without a zone."""
    if isinstance(value, str):
        with suppress(ValidationError, OverflowError):
            moment: datetime = handler(value)
            return moment.astimezone(UTC)
    raise PydanticCustomError("a_moment", "not a time of UTC")


def _amount(value: Any) -> Any:
    """Before pydantic, which would name both types that it may be of."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not -math.inf < value < math.inf:
        raise PydanticCustomError("finite_number", "not a number")
    if value < 0:
        raise PydanticCustomError("greater_than_equal", "too small", {"ge": 0})
    if value > LARGEST:
        raise PydanticCustomError("less_than_equal", "too large", {"le": LARGEST})
    return value


def _upper(value: Any) -> Any:
    return value.upper() if isinstance(value, str) else value


def _plain(value: Any, room: int = DEEPEST) -> Any:
    """JSON has no infinite numbers, and no NaN; Python reads them nevertheless. What is nested too deeply could not be
    shown again."""
    if isinstance(value, float) and not math.isfinite(value):
        raise PydanticCustomError("finite_number", "not a number")
    if isinstance(value, (dict, list)) and room == 0:
        raise PydanticCustomError("too_deep", "nested too deeply", {"deepest": DEEPEST})
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _plain(item, room - 1)
    return value


def _either(body: Any, one: str, many: str) -> None:
    if (getattr(body, one) is None) == (getattr(body, many) is None):
        raise PydanticCustomError("one_or_many", "either one or many", {"one": one, "many": many})


Moment = Annotated[AwareDatetime, WrapValidator(_moment)]
Text = Annotated[str, StringConstraints(max_length=LONGEST_TEXT)]
Percent = Annotated[int, Field(strict=True, ge=0, le=100)]
Amount = Annotated[int | float, Field(ge=0, le=LARGEST), BeforeValidator(_amount)]
Object = Annotated[dict[str, Any], AfterValidator(_plain)]
Name = StringConstraints(min_length=1, max_length=64, strip_whitespace=True)
AutoFix = Annotated[bool, Field(strict=True, description="Taken, and of no effect yet.")]


class ReportPath(BaseModel):
    task_id: str


class ReportList(Paging):
    status: Word | None = None
    kind: str | None = Field(default=None, max_length=64)
    priority: Priority | None = None


class NewReport(Strict):
    title: Annotated[str, StringConstraints(min_length=1, max_length=255, strip_whitespace=True)]
    description: Text = ""
    priority: Priority = "MEDIUM"
    kind: Annotated[str, Name] = "task"
    parameters: Object = Field(default_factory=dict, description="Anyone who may see the task sees them: no secrets.")


class StatusBody(Strict):
    status: Word
    message: Text | None = None
    progress: Percent | None = None
    startedAt: Moment | None = Field(default=None, description="Taken when it is within the last day.")
    completedAt: Moment | None = Field(default=None, description="Taken when it is within the last day.")


class ProgressBody(Strict):
    progress: Percent
    message: Text | None = None
    estimatedTimeRemaining: Amount | None = Field(default=None, description="Seconds.")


class LogLine(Strict):
    level: Annotated[Level, BeforeValidator(_upper)] = "INFO"
    message: Text
    timestamp: Moment | None = None
    metadata: Object | None = None


class LogBody(Strict):
    """One line as the document has it, or `logs` with several."""

    level: Annotated[Level, BeforeValidator(_upper)] = "INFO"
    message: Text | None = None
    timestamp: Moment | None = None
    metadata: Object | None = None
    logs: Annotated[list[LogLine], Field(min_length=1, max_length=MOST_LINES)] | None = None

    @model_validator(mode="after")
    def _one_or_many(self) -> Self:
        _either(self, "message", "logs")
        return self

    def lines(self) -> list[LogLine]:
        if self.logs is not None:
            return self.logs
        return [LogLine.model_construct(**self.model_dump(exclude={"logs"}))]


class MetricsBody(Strict):
    """What a run used: seconds, MiB, per cent; `values` takes what the document has no name for."""

    executionTime: Amount | None = None
    memoryUsage: Amount | None = None
    cpuUsage: Amount | None = None
    diskUsage: Amount | None = None
    networkUsage: Amount | None = None
    values: Object | None = None
    timestamp: Moment | None = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.model_dump(exclude={"timestamp"}, exclude_none=True) in ({}, {"values": {}}):
            raise PydanticCustomError("no_value", "nothing measured")
        return self


class ErrorLine(Strict):
    errorCode: Annotated[str, Name]
    message: Text
    details: Text | None = None
    stackTrace: Text | None = None
    timestamp: Moment | None = None
    autoFixRequested: AutoFix = False


class ErrorBody(Strict):
    """One error as the document has it, or `errors` with several."""

    errorCode: Annotated[str, Name] | None = None
    message: Text | None = None
    details: Text | None = None
    stackTrace: Text | None = None
    timestamp: Moment | None = None
    autoFixRequested: AutoFix = False
    errors: Annotated[list[ErrorLine], Field(min_length=1, max_length=MOST_ERRORS)] | None = None

    @model_validator(mode="after")
    def _one_or_many(self) -> Self:
        _either(self, "errorCode", "errors")
        if self.errors is None and self.message is None:
            raise PydanticCustomError("one_or_many", "no message", {"one": "message", "many": "errors"})
        return self

    def lines(self) -> list[ErrorLine]:
        if self.errors is not None:
            return self.errors
        return [ErrorLine.model_construct(**self.model_dump(exclude={"errors"}))]


class Envelope(BaseModel):
    """A success of the tasks family."""

    success: bool = True
    message: str
    timestamp: str


class ReportView(BaseModel):
    id: str
    title: str
    description: str
    priority: Priority
    kind: str
    parameters: dict[str, Any]
    status: Word
    progress: int = Field(description="Per cent; never falls.")
    message: str
    createdAt: str
    updatedAt: str
    startedAt: str | None
    completedAt: str | None
    result: dict[str, Any] | None
    error: str | None


class ReportAnswer(Envelope):
    data: ReportView


class ReportPage(BaseModel):
    tasks: list[ReportView]
    page: int
    per_page: int
    total: int


class ReportsAnswer(Envelope):
    data: ReportPage


class StatusView(BaseModel):
    id: str
    status: Word
    message: str
    progress: int
    updatedAt: str


class StatusAnswer(Envelope):
    data: StatusView


class ProgressView(BaseModel):
    id: str
    progress: int
    message: str
    updatedAt: str


class ProgressAnswer(Envelope):
    data: ProgressView


class ReportLogView(BaseModel):
    id: str
    taskId: str
    level: Level
    message: str
    timestamp: str


class Accepted(BaseModel):
    taskId: str
    accepted: int


class ReportLogAnswer(Envelope):
    data: ReportLogView | Accepted


class WholeLogView(ReportLogView):
    metadata: dict[str, Any] | None


class ReportLogPage(BaseModel):
    logs: list[WholeLogView]
    page: int
    per_page: int
    total: int


class ReportLogsAnswer(Envelope):
    data: ReportLogPage


class MetricsView(BaseModel):
    id: str
    taskId: str
    executionTime: Amount | None = None
    memoryUsage: Amount | None = None
    cpuUsage: Amount | None = None
    diskUsage: Amount | None = None
    networkUsage: Amount | None = None
    values: dict[str, Any] | None = None
    timestamp: str


class MetricsAnswer(Envelope):
    data: MetricsView


class MetricsPage(BaseModel):
    metrics: list[MetricsView]
    page: int
    per_page: int
    total: int


class AllMetricsAnswer(Envelope):
    data: MetricsPage


class ReportErrorView(BaseModel):
    id: str
    taskId: str
    errorCode: str
    message: str
    timestamp: str


class ReportErrorAnswer(Envelope):
    data: ReportErrorView | Accepted


class WholeErrorView(ReportErrorView):
    details: str | None
    stackTrace: str | None


class ReportErrorPage(BaseModel):
    errors: list[WholeErrorView]
    page: int
    per_page: int
    total: int


class ReportErrorsAnswer(Envelope):
    data: ReportErrorPage


class TaskToken(BaseModel):
    token: str = Field(description="Bearer token for reports on this task, and for nothing else.")
    expiresIn: int = Field(description="Seconds until the token ends.")


class TaskTokenAnswer(Envelope):
    data: TaskToken


class Health(BaseModel):
    status: Literal["UP"]
    timestamp: str
    version: str
    components: dict[str, Literal["UP"]] = Field(examples=[{"database": "UP", "cache": "UP"}])


class TasksHealthAnswer(Envelope):
    data: Health
