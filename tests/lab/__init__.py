# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

"""A simulated Proxmox VE cluster, for the demo and the tests. See README.md."""

from __future__ import annotations

from .server import Lab
from .site import LabSite, standalone_nodes

__all__ = ["Lab", "LabSite", "standalone_nodes"]
