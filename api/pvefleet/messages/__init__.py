# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the service says to people, in four languages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files

LANGUAGES = ("en", "ja", "ko", "it")


class Catalogue:
    """Texts by language and id. Each directory here is a language, each file in it a part of the catalogue."""

    def __init__(self, texts: Mapping[str, Mapping[str, str]]) -> None:
        self.texts = texts

    @classmethod
    def load(cls) -> Catalogue:
        """Raises ValueError when two files have the same id."""
        return cls({language: _read(language) for language in LANGUAGES})

    def text(self, message_id: str, language: str, **fields: object) -> str:
        """The text with its {fields} filled in. KeyError for an unknown id."""
        return self.texts[language][message_id].format_map(fields)

    def has(self, message_id: str) -> bool:
        return message_id in self.texts[LANGUAGES[0]]


def _read(language: str) -> dict[str, str]:
    texts: dict[str, str] = {}
    for file in sorted(files(__name__).joinpath(language).iterdir(), key=lambda entry: entry.name):
        part: dict[str, str] = json.loads(file.read_text(encoding="utf-8"))
        if twice := texts.keys() & part.keys():
            raise ValueError(f"{language}/{file.name} repeats {', '.join(sorted(twice))}")
        texts |= part
    return texts
