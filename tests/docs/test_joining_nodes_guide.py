# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The guide to joining nodes, run as it is printed."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.pvefleet.infra.plugins.module_utils._pve import membership
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import PveClient
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.membership_plan import JoinSpec, Peer

from tests.lab import Lab, standalone_nodes

from .test_examples import page, recaps


def test_joining_nodes_guide(lab: Lab, tmp_path: Path) -> None:
    site = standalone_nodes(4, time_scale=0.02)
    try:
        first, new, dead = site["pve1"], site["pve2"], site["pve3"]
        peer = Peer(first.host, first.port, first.password, first.fingerprint)
        for node in (dead, site["pve4"]):
            membership.join(PveClient(node.connection()), JoinSpec(node.host, peer, "lab"))
        site.power_off("pve3")
        here = {"192.168.3.5": f"{first.host}:{first.port}", "192.168.3.10": f"{new.host}:{new.port}"}
        guide = page("docs/guides/joining-nodes.md", lab, tmp_path, **here)
        guide.environment |= {
            "PEER_PASSWORD": first.password,
            "PEER_FINGERPRINT": first.fingerprint,
            "NEW_NODE_PASSWORD": new.password,
            "NEW_NODE_FINGERPRINT": new.fingerprint,
        }
        joined, removed = guide.run()
        assert recaps(joined) == recaps(removed) == [1, 1, 0]
        assert joined.count(f"pve2 has {new.fingerprint}") == 2
        assert sorted(first.pve.nodes) == ["pve1", "pve2", "pve4"]
    finally:
        site.stop()
