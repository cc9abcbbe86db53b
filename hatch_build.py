# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Puts the collection into the wheel as ansible_collections/pvefleet/infra, where ansible-core looks for it."""

from __future__ import annotations

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

COLLECTION = ("galaxy.yml", "meta", "plugins", "roles", "playbooks", "LICENSE", "README.md")


class CollectionHook(BuildHookInterface):
    """Not for an editable install: `make setup` links the working tree, where copies would go stale."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        for name in COLLECTION:
            build_data["force_include"][name] = f"ansible_collections/pvefleet/infra/{name}"
