# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may do what: permissions by name, and the roles that bundle them."""

from __future__ import annotations

PERMISSIONS = frozenset(
    {
        "create_server",
        "delete_server",
        "start_server",
        "stop_server",
        "reboot_server",
        "backup_management",
        "manage_firewall_groups",
        "assign_firewall_groups",
        "manage_users",
        "manage_roles",
        "view_all",
        "view_logs",
        "manage_clusters",
        "manage_nodes",
        "manage_storage",
        "manage_images",
        "manage_tenants",
        "report_tasks",
    }
)

_VIEWER = frozenset({"view_all"})
_OPERATOR = _VIEWER | {"view_logs", "start_server", "stop_server", "reboot_server", "backup_management"}
_DEVELOPER = _OPERATOR | {"create_server", "delete_server", "assign_firewall_groups"}

ROLES = {
    "admin": PERMISSIONS,
    "developer": _DEVELOPER,
    "operator": _OPERATOR,
    "viewer": _VIEWER,
    "agent": frozenset({"report_tasks"}),
}

# What a route can declare instead of a permission.
ANY_USER = "any_user"
OPEN = "open"
DECLARABLE = PERMISSIONS | {ANY_USER, OPEN}
