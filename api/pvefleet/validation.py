# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""From pydantic's errors to one readable message per field."""

from __future__ import annotations

import re
from typing import Any

from pydantic import ValidationError

from pvefleet.errors import InvalidFields, InvalidSchema, Problem

# More of them tell nobody anything new.
MOST = 20
_UNWRITABLE = re.compile("[\0\ud800-\udfff]")


def invalid(error: ValidationError) -> InvalidSchema:
    """Message ids are "field." and pydantic's type of the error, or a PydanticCustomError's own type."""
    problems = []
    for item in error.errors(include_url=False, include_input=False)[:MOST]:
        path = _path(item["loc"])
        fields = {**item.get("ctx", {}), "reason": item["msg"]}
        problems.append(Problem(path, f"field.{item['type']}", fields, f"label.{error.title}.{path}"))
    return InvalidSchema(*problems)


def refuse_unwritable(value: Any, *location: int | str) -> None:
    """Raises InvalidFields for a text in a JSON value that not every database, file and process can take: one with a
    NUL character or half of a surrogate pair. RecursionError for a value that is nested too deeply."""
    if isinstance(value, str) and _UNWRITABLE.search(value):
        raise InvalidFields(Problem(_path(location), "field.refused", {"why": "it has control characters"}))
    if isinstance(value, dict):
        for name, item in value.items():
            refuse_unwritable(name, *location, name)
            refuse_unwritable(item, *location, name)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            refuse_unwritable(item, *location, index)


def _path(location: tuple[int | str, ...]) -> str:
    # a field's name can be anything that JSON can hold: keep it short, and printable in any answer
    path = ".".join(str(part) for part in location) or "body"
    return path[:100].encode("utf-8", "replace").decode()
