# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the application reads requests, and renders errors in the dialect and language that were asked for."""

from __future__ import annotations

import logging
import math
from http import HTTPStatus
from typing import Any

from flask import Flask, Request, Response, jsonify
from flask_limiter.errors import RateLimitExceeded
from gunicorn.http.errors import (  # type: ignore[import-untyped]
    ChunkMissingTerminator,
    InvalidChunkExtension,
    InvalidChunkSize,
    NoMoreData,
)
from sqlalchemy.exc import OperationalError
from werkzeug.exceptions import HTTPException, InternalServerError, RequestEntityTooLarge

from pvefleet import language
from pvefleet.access.vault import VaultError
from pvefleet.errors import ApiError, InvalidFields, InvalidSchema, Kind, Problem
from pvefleet.services import services
from pvefleet.validation import refuse_unwritable

logger = logging.getLogger(__name__)

# What Werkzeug and Flask raise by themselves, as a kind and a text of ours.
_HTTP = {
    HTTPStatus.BAD_REQUEST: (Kind.VALIDATION_ERROR, "bad_request"),
    HTTPStatus.NOT_FOUND: (Kind.RESOURCE_NOT_FOUND, "no_such_path"),
    HTTPStatus.METHOD_NOT_ALLOWED: (Kind.METHOD_NOT_ALLOWED, "method_not_allowed"),
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: (Kind.BODY_TOO_LARGE, "body_too_large"),
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: (Kind.UNSUPPORTED_MEDIA_TYPE, "json_expected"),
    HTTPStatus.TOO_MANY_REQUESTS: (Kind.RATE_LIMIT_EXCEEDED, "rate_limit_exceeded"),
}


class JsonRequest(Request):
    """A body is a JSON object or nothing: flask-openapi3 asks for it silently, and would take a wrong one for none."""

    def get_json(self, force: bool = False, silent: bool = False, cache: bool = True) -> Any:
        body = self.get_data(cache=True)
        if not body:
            return {}
        # Werkzeug cuts a body that does not announce its length off at the limit
        if self.content_length is None and len(body) >= (self.max_content_length or math.inf):
            raise RequestEntityTooLarge
        if not self.is_json:
            raise ApiError(Kind.UNSUPPORTED_MEDIA_TYPE, "json_expected")
        try:
            value = super().get_json(force=True, silent=False, cache=cache)
            refuse_unwritable(value)
        except RecursionError:
            raise ApiError(Kind.VALIDATION_ERROR, "json_broken") from None
        if not isinstance(value, dict):
            raise ApiError(Kind.VALIDATION_ERROR, "object_expected")
        return value

    def on_json_loading_failure(self, e: ValueError | None) -> Any:
        raise ApiError(Kind.VALIDATION_ERROR, "json_broken")


def install(app: Flask) -> None:
    app.request_class = JsonRequest
    app.register_error_handler(ApiError, _api_error)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(VaultError, _vault_error)
    app.register_error_handler(OperationalError, _database_error)
    for broken_body in (ChunkMissingTerminator, InvalidChunkExtension, InvalidChunkSize, NoMoreData):
        app.register_error_handler(broken_body, _broken_body)
    app.after_request(_headers)


def render(error: ApiError) -> Response:
    """The error as its family shows it."""
    details: dict[str, Any] | None = None if error.details is None else dict(error.details)
    if isinstance(error, InvalidFields):
        details = {problem.field: _sentence(problem) for problem in error.problems}
        message = "; ".join(details.values())
    else:
        message = language.text(error.message_id, **error.fields)
    dialect = language.dialect()
    response = jsonify(dialect.error(error.kind, message, details))
    response.status_code = dialect.schema_status if isinstance(error, InvalidSchema) else error.kind.status
    response.headers.update(error.headers)
    return response


def _sentence(problem: Problem) -> str:
    catalogue = services().catalogue
    known = catalogue.has(problem.message_id)
    label = language.text(problem.label_id) if catalogue.has(problem.label_id) else problem.field
    return language.text(problem.message_id if known else "field.other", **{**problem.fields, "field": label})


def _api_error(error: ApiError) -> Response:
    return render(error)


def _vault_error(error: VaultError) -> Response:
    logger.error("%s", error)
    return render(ApiError(Kind.INTERNAL_ERROR, "credentials_unreadable"))


def _database_error(error: OperationalError) -> Response:
    """Locked for too long, full or gone: nothing was written."""
    logger.error("Unable to use the database: %s", error.orig)
    return render(ApiError(Kind.SERVICE_UNAVAILABLE, "database_unreachable", headers={"Retry-After": "2"}))


def _broken_body(_error: Exception) -> Response:
    response = render(ApiError(Kind.VALIDATION_ERROR, "bad_request"))
    response.headers["Connection"] = "close"  # nobody knows where the next request begins
    return response


def _http_error(error: HTTPException) -> Response | HTTPException:
    if error.response is not None or error.code is None or error.code < 400:
        return error
    if isinstance(error, InternalServerError):
        kind, message_id = Kind.INTERNAL_ERROR, "internal_error"
    else:
        kind, message_id = _HTTP.get(HTTPStatus(error.code), _HTTP[HTTPStatus.BAD_REQUEST])
    response = render(ApiError(kind, message_id))
    for name, value in error.get_headers():
        if name not in ("Content-Type", "Content-Length"):
            response.headers[name] = value
    if isinstance(error, RateLimitExceeded) and "Retry-After" not in response.headers:
        response.headers["Retry-After"] = str(error.limit.limit.get_expiry())
    return response


def _headers(response: Response) -> Response:
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    return response
