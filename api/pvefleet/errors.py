# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one exception that routes raise, and what each kind of it means over HTTP."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import Any


class Kind(enum.Enum):
    """A kind of refusal: its HTTP status, and the word that the clusters document has for it.

    The member's name is the code that the other families show.
    """

    VALIDATION_ERROR = (400, "BadRequest")
    AUTHENTICATION_REQUIRED = (401, "Unauthorized")
    PERMISSION_DENIED = (403, "Forbidden")
    RESOURCE_NOT_FOUND = (404, "NotFound")
    METHOD_NOT_ALLOWED = (405, "MethodNotAllowed")
    CONFLICT = (409, "Conflict")
    # The tasks family's own.
    TASK_NOT_FOUND = (404, "TaskNotFound")
    TASK_ALREADY_COMPLETED = (409, "TaskAlreadyCompleted")
    INVALID_STATUS_TRANSITION = (422, "InvalidStatusTransition")
    BODY_TOO_LARGE = (413, "ContentTooLarge")
    UNSUPPORTED_MEDIA_TYPE = (415, "UnsupportedMediaType")
    IDEMPOTENCY_MISMATCH = (422, "UnprocessableContent")
    RATE_LIMIT_EXCEEDED = (429, "TooManyRequests")
    INTERNAL_ERROR = (500, "InternalServerError")
    UPSTREAM_ERROR = (502, "BadGateway")
    SERVICE_UNAVAILABLE = (503, "ServiceUnavailable")

    @property
    def status(self) -> int:
        return self.value[0]

    @property
    def word(self) -> str:
        return self.value[1]


class ApiError(Exception):
    """A refusal. The dialect of the family that was asked renders it, in the language that was asked for.

    message_id and its fields name a text of the catalogue. details: more for programs, plain JSON values.
    """

    def __init__(
        self,
        kind: Kind,
        message_id: str,
        *,
        details: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        **fields: object,
    ) -> None:
        super().__init__(message_id)
        self.kind = kind
        self.message_id = message_id
        self.details = details
        self.headers = dict(headers or {})
        self.fields = fields


@dataclasses.dataclass(frozen=True)
class Problem:
    """A value that was refused. field: where it is, "disks.0.size". label_id: the text that names the field to people,
    if there is one. message_id, fields: the text that says what is wrong; it names the field as {field}."""

    field: str
    message_id: str
    fields: Mapping[str, object] = dataclasses.field(default_factory=dict)
    label_id: str = ""


class InvalidFields(ApiError):
    """A request with values that were refused."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__(Kind.VALIDATION_ERROR, "invalid_fields")
        self.problems = problems


class InvalidSchema(InvalidFields):
    """A request that can be read, but does not have the shape that it must have."""
