# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of pve_storage as Ansible hands them over, with its own defaults for what is not given."""

from __future__ import annotations

from typing import Any

from ansible_collections.pvefleet.infra.plugins.modules.pve_storage import OPTIONS


def task(**options: Any) -> dict[str, Any]:
    unknown = options.keys() - OPTIONS.keys()
    assert not unknown, unknown
    return {**{name: option.get("default") for name, option in OPTIONS.items()}, **options}
