# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a family wraps its successes and errors, as its document shows them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar, Protocol

from pydantic import BaseModel

from pvefleet.errors import Kind
from pvefleet.schemas.common import ClustersError, ServersError, TasksError, rfc3339


class Dialect(Protocol):
    """language: the one that the family answers in when the request does not say. schema_status: the status for a
    request that can be read, but does not have the shape that it must have."""

    @property
    def language(self) -> str: ...

    @property
    def schema_status(self) -> int: ...

    @property
    def error_model(self) -> type[BaseModel]: ...

    def success(self, data: Mapping[str, Any], message: str) -> dict[str, Any]:
        """message: for families whose successes have one."""

    def error(self, kind: Kind, message: str, details: Mapping[str, Any] | None) -> dict[str, Any]: ...


@dataclass(frozen=True)
class ServersDialect:
    """{"success", ...}; details only when there are some, and the id of the task in the way beside them."""

    language: str = "ko"
    schema_status: int = 400
    error_model: type[BaseModel] = ServersError

    def success(self, data: Mapping[str, Any], message: str) -> dict[str, Any]:
        return {"success": True, **data}

    def error(self, kind: Kind, message: str, details: Mapping[str, Any] | None) -> dict[str, Any]:
        body: dict[str, Any] = {"success": False, "error": message, "code": kind.name}
        if details:
            body["details"] = dict(details)
            if "task_id" in details:
                body["task_id"] = details["task_id"]
        return body


@dataclass(frozen=True)
class ClustersDialect:
    """Bare objects; the document is Korean, the messages that it shows are English."""

    language: str = "en"
    schema_status: int = 400
    error_model: type[BaseModel] = ClustersError

    def success(self, data: Mapping[str, Any], message: str) -> dict[str, Any]:
        return dict(data)

    def error(self, kind: Kind, message: str, details: Mapping[str, Any] | None) -> dict[str, Any]:
        return {"code": kind.word, "message": message, "details": dict(details) if details else None}


@dataclass(frozen=True)
class TasksDialect:
    """{"success", "data", "message", "timestamp"}, {"success", "error": {"code", "message", "details"}, "timestamp"};
    details are a text."""

    language: str = "ja"
    schema_status: int = 422
    error_model: type[BaseModel] = TasksError

    _CODES: ClassVar = {Kind.AUTHENTICATION_REQUIRED: "UNAUTHORIZED", Kind.PERMISSION_DENIED: "FORBIDDEN"}

    def success(self, data: Mapping[str, Any], message: str) -> dict[str, Any]:
        return {"success": True, "data": dict(data), "message": message, "timestamp": rfc3339(datetime.now(UTC))}

    def error(self, kind: Kind, message: str, details: Mapping[str, Any] | None) -> dict[str, Any]:
        more = "; ".join(f"{name}: {value}" for name, value in details.items()) if details else None
        error = {"code": self._CODES.get(kind, kind.name), "message": message, "details": more}
        return {"success": False, "error": error, "timestamp": rfc3339(datetime.now(UTC))}


SERVERS = ServersDialect()
CLUSTERS = ClustersDialect()
TASKS = TasksDialect()
