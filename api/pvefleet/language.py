# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which family a request belongs to, and in which language it is answered."""

from __future__ import annotations

from flask import current_app, request

from pvefleet.dialects import SERVERS, Dialect
from pvefleet.messages import LANGUAGES
from pvefleet.services import services


def dialect() -> Dialect:
    """The dialect of the family under whose prefix the request's path lies; the servers family's elsewhere."""
    prefixes: dict[str, Dialect] = current_app.extensions["pvefleet_dialects"]
    mine = [prefix for prefix in prefixes if (request.path + "/").startswith(prefix + "/")]
    return prefixes[max(mine, key=len)] if mine else SERVERS


def language() -> str:
    """What Accept-Language asks for among ours; without it the language of the family's document."""
    own = dialect().language
    choices = [own, *(other for other in LANGUAGES if other != own)]  # "*" takes the first
    return request.accept_languages.best_match(choices) or own


def text(message_id: str, **fields: object) -> str:
    """The text in the request's language."""
    return services().catalogue.text(message_id, language(), **fields)
