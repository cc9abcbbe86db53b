# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A family of the contract: routes under a prefix, each with the permission that it needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from flask import Response, jsonify
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from pydantic import BaseModel

from pvefleet.access.permissions import ANY_USER, DECLARABLE, OPEN
from pvefleet.dialects import Dialect
from pvefleet.language import text

View = TypeVar("View", bound=Callable[..., Response])


class Family:
    """Collects routes at import. create_app registers the blueprint, and guards it by `permissions`.

    permissions: endpoint to declared permission. forms: endpoints that take a form as well as JSON.
    """

    def __init__(self, name: str, prefix: str, *, dialect: Dialect, tag: str | None = None) -> None:
        self.name = name
        self.prefix = prefix
        self.dialect = dialect
        self.permissions: dict[str, str] = {}
        self.forms: set[str] = set()
        self.blueprint = APIBlueprint(name, __name__, url_prefix=prefix, abp_tags=[Tag(name=tag or name)])
        # flask-openapi3 would describe errors of its own where a route describes none
        for status in ("400", str(dialect.schema_status), "default"):
            self.blueprint.abp_responses[status] = dialect.error_model

    def get(self, rule: str, *, permission: str, **options: Any) -> Callable[[View], View]:
        return self._route("get", rule, permission, options)

    def post(self, rule: str, *, permission: str, form: bool = False, **options: Any) -> Callable[[View], View]:
        return self._route("post", rule, permission, options, form)

    def put(self, rule: str, *, permission: str, **options: Any) -> Callable[[View], View]:
        return self._route("put", rule, permission, options)

    def patch(self, rule: str, *, permission: str, **options: Any) -> Callable[[View], View]:
        return self._route("patch", rule, permission, options)

    def delete(self, rule: str, *, permission: str, **options: Any) -> Callable[[View], View]:
        return self._route("delete", rule, permission, options)

    def answer(
        self,
        data: BaseModel | Mapping[str, Any],
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        message_id: str = "succeeded",
    ) -> Response:
        """A success in the family's dialect."""
        plain = data.model_dump(mode="json") if isinstance(data, BaseModel) else data
        response = jsonify(self.dialect.success(plain, text(message_id)))
        response.status_code = status
        response.headers.update(headers or {})
        return response

    def _route(
        self, method: str, rule: str, permission: str, options: dict[str, Any], form: bool = False
    ) -> Callable[[View], View]:
        """permission: one of access.permissions, "any_user" or "open". options: flask-openapi3's, as responses."""
        if permission not in DECLARABLE:
            raise ValueError(f"{method.upper()} {self.prefix}{rule}: there is no permission {permission!r}")

        def register(view: View) -> View:
            endpoint = f"{self.name}.{view.__name__}"
            self.permissions[endpoint] = permission
            if form:
                self.forms.add(endpoint)
            security: list[dict[str, list[Any]]] = [] if permission == OPEN else [{"session": []}, {"bearer": []}]
            responses = dict.fromkeys(_refusals(method, rule, permission), self.dialect.error_model)
            described = {**options, "responses": {**responses, **options.get("responses", {})}}
            getattr(self.blueprint, method)(rule, security=security, **described)(view)
            return view

        return register


def _refusals(method: str, rule: str, permission: str) -> list[int]:
    """The statuses of the errors that a route shares with all of its kind, for its description."""
    found = {401, 403}
    if method == "get":
        found -= {OPEN: {401, 403}, ANY_USER: {403}}.get(permission, set())
    elif permission == OPEN:  # a way to log in
        found.add(429)
    elif permission != ANY_USER:  # something is changed, and an Idempotency-Key is heeded
        found |= {409, 422}
    if "<" in rule:
        found.add(404)
    return sorted(found)
