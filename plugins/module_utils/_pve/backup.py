# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups of servers. Taking and removing is in backup_take.py, restoring in backup_restore.py."""

from __future__ import annotations

from ansible_collections.pvefleet.infra.plugins.module_utils._pve.backup_plan import BackupSpec
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.backup_restore import restored
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.backup_take import Result, absent, present
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import PveClient


def converge(client: PveClient, spec: BackupSpec, *, check_mode: bool = False) -> Result:
    """Do what a task of pve_backup says; in check mode, tell what that would change. Raises Unable."""
    act = {"present": present, "restored": restored, "absent": absent}[spec.state]
    return act(client, spec, check_mode=check_mode)
