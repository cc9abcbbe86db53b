# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A node that is off is removed. Joining needs more than one node to talk to: its faults are in its own test."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ansible_collections.pvefleet.infra.plugins.module_utils._pve import membership
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import PveClient
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.membership_plan import RemoveSpec

from . import Job

if TYPE_CHECKING:
    from tests.lab import Lab

PASSWORD = "of-root-itself"


def _prepare(lab: Lab) -> None:
    lab.do(lab.pve.set_node_offline, "pve3")


def _run(client: PveClient) -> bool:
    # an API token may not do this
    root = replace(client.connection, password=PASSWORD, token_id=None, token_secret=None)
    return membership.remove(PveClient(root), RemoveSpec("pve3", timeout=10)).plan.changed


def _removed(lab: Lab) -> None:
    assert sorted(lab.pve.nodes) == sorted(lab.pve.corosync) == ["pve1", "pve2"]


JOBS = (
    Job(
        name="pve_node_join absent",
        prepare=_prepare,
        run=_run,
        verify=_removed,
        writes=(("DELETE", "/cluster/config/nodes/pve3"),),
        node="pve2",
        lab={"nodes": 3, "password": PASSWORD},
    ),
)
