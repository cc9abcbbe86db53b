# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two servers of a fleet are made, and one that is not listed any more goes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import PveClient
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.fleet import converge_fleet
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.fleet_spec import fleet_spec

from . import Job, add_server, servers, volumes

if TYPE_CHECKING:
    from tests.lab import Lab


def _prepare(lab: Lab) -> None:
    add_server(lab, 300, "f-old")
    lab.do(lambda: lab.vm(300).config.update(tags="fleet-f"))
    lab.do(lab.pve.settle_resources)


def _run(client: PveClient) -> bool:
    defaults = {"clone": {"template": "debian-12-cloud"}, "memory": 1024, "timeout": 10, "state": "started"}
    servers = [{"name": "f-00", "vmid": 100}, {"name": "f-01", "vmid": 101}]
    wish = {"servers": servers, "defaults": defaults, "tag": "fleet-f", "prune": True}
    outcomes = converge_fleet(client, fleet_spec({**wish, "workers": 2, "per_node": 2, "per_storage": 2}))
    for outcome in outcomes:
        if outcome.error:
            raise outcome.error
    return any(outcome.changed for outcome in outcomes)


def _verify(lab: Lab) -> None:
    assert servers(lab) == {100: "f-00", 101: "f-01"}
    for vmid in (100, 101):
        guest = lab.vm(vmid)
        assert guest.running
        assert (int(guest.config["memory"]), guest.config["tags"]) == (1024, "fleet-f")
        assert not {"description", "lock"} & set(guest.config)
        assert volumes(lab, vmid) == [f"vm-{vmid}-cloudinit", f"vm-{vmid}-disk-0"]
    assert volumes(lab, 300) == []


JOBS = (
    Job(
        name="proxmox_fleet",
        prepare=_prepare,
        run=_run,
        verify=_verify,
        writes=(
            ("POST", "/9000/clone"),
            ("PUT", "/100/config"),
            ("PUT", "/101/config"),
            ("POST", "/100/status/start"),
            ("POST", "/101/status/start"),
            ("DELETE", "/qemu/300"),
        ),
        tasks=("qmclone", "qmstart", "qmdestroy"),
        vmid=9000,
        storage="local-lvm",
    ),
)
