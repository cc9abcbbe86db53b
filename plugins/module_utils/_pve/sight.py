# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a login sees everything. PVE leaves out of its lists what one may not see, without a word: to conclude from
them that nothing uses a thing takes the right to see all that could."""

from __future__ import annotations

from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import PveClient, PveForbidden
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.cluster import record


def sees_all(client: PveClient, path: str, privilege: str) -> bool:
    """Whether the login has the privilege on the path, and with it on all below: `VM.Audit` on `/vms`, for instance."""
    rights = record(client, "/access/permissions", {"path": path})
    return any(isinstance(given, dict) and given.get(privilege) for given in rights.values())


def check_sight(client: PveClient, purpose: str, path: str = "/vms", privilege: str = "VM.Audit") -> None:
    """Raises PveForbidden, which says what is needed `to <purpose>`, when the login does not see all of it."""
    if not sees_all(client, path, privilege):
        raise PveForbidden(f"{client.connection.user} needs {privilege} on {path} to {purpose}")
