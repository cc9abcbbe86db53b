# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A security group that is made for a server, and one that is removed from everything that uses it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import PveClient
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.firewall import converge
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.firewall_spec import group_spec

from . import Job, add_server, client_of

if TYPE_CHECKING:
    from tests.lab import Lab

WEB: dict[str, Any] = {
    "name": "web",
    "comment": "web servers",
    "rules": [
        {"action": "ACCEPT", "proto": "tcp", "dport": "80", "comment": "http"},
        {"action": "ACCEPT", "macro": "SSH", "source": "10.0.0.0/8"},
    ],
    "members": ["100"],
}
GONE = {"name": "web", "state": "absent", "detach": True}


def _run(client: PveClient, wish: dict[str, Any]) -> bool:
    return converge(client, group_spec(wish)).plan.changed


def _rules(lab: Lab) -> list[str]:
    return [rule.get("dport") or rule["macro"] for rule in lab.pve.firewall_config("cluster")["groups"]["web"]]


def _verify_made(lab: Lab) -> None:
    assert _rules(lab) == ["80", "SSH"]
    assert all(rule["enable"] for rule in lab.pve.firewall_config("cluster")["groups"]["web"])
    firewall = lab.pve.firewall_config("vm", "pve1", 100)
    assert firewall["rules"] == [{"type": "group", "action": "web", "enable": 1}]
    assert firewall["options"]["enable"] == 1
    assert "firewall=1" in lab.vm(100).config["net0"].split(",")


def _prepare_used(lab: Lab) -> None:
    add_server(lab)
    with client_of(lab) as client:
        _run(client, {**WEB, "rules": WEB["rules"][:1]})


def _verify_gone(lab: Lab) -> None:
    assert lab.pve.firewall_config("cluster")["groups"] == {}
    assert lab.pve.firewall_config("vm", "pve1", 100)["rules"] == []


JOBS = (
    Job(
        name="pve_firewall_group",
        prepare=add_server,
        run=lambda client: _run(client, WEB),
        verify=_verify_made,
        writes=(
            ("POST", "/cluster/firewall/groups"),
            ("POST", "/cluster/firewall/groups/web"),
            ("POST", "/qemu/100/firewall/rules"),
            ("PUT", "/qemu/100/firewall/options"),
            ("PUT", "/qemu/100/config"),
        ),
        vmid=100,
    ),
    Job(
        name="pve_firewall_group absent",
        prepare=_prepare_used,
        run=lambda client: _run(client, GONE),
        verify=_verify_gone,
        writes=(
            ("DELETE", "/qemu/100/firewall/rules/0"),
            ("DELETE", "/cluster/firewall/groups/web/0"),
            ("DELETE", "/cluster/firewall/groups/web"),
        ),
    ),
)
