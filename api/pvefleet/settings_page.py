# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""docs/settings.md, from the model itself."""

from __future__ import annotations

from typing import Any

from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from pvefleet.config import PREFIX, Settings

HEAD = """<!-- SPDX-FileCopyrightText: 2026 the PVE Fleet contributors -->
<!-- SPDX-License-Identifier: GPL-3.0-or-later -->
# Settings

Every setting of the service is an environment variable. `pvefleet serve` takes `--host`, `--port` and `--home` too,
which come before the environment. Durations are written as ISO 8601 (`PT12H`) or in seconds. This page is printed by
`pvefleet settings`.

| variable | default | meaning |
|---|---|---|
"""


def render() -> str:
    """The page as Markdown."""
    return HEAD + "".join(_row(name, field) for name, field in Settings.model_fields.items())


def _row(name: str, field: FieldInfo) -> str:
    meaning = (field.description or "").replace("|", "\\|")
    return f"| `{PREFIX}{name.upper()}` | {_default(name, field)} | {meaning} |\n"


def _default(name: str, field: FieldInfo) -> str:
    if name == "home":
        return "`~/.local/state/pvefleet`"
    value: Any = field.get_default(call_default_factory=True)
    return "" if value in (None, "", (), {}) else f"`{to_jsonable_python(value)}`"
