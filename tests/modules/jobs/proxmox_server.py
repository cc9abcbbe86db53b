# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A server is created from a template and started, changed, removed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import PveClient
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server_converge import converge
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server_spec import server_spec

from . import Job, add_server, servers, volumes

if TYPE_CHECKING:
    from tests.lab import Lab

DISKS = ["vm-100-cloudinit", "vm-100-disk-0", "vm-100-disk-1"]


def _make(client: PveClient, **options: Any) -> bool:
    return converge(client, server_spec({"name": "web-01", "timeout": 10, **options})).plan.changed


def _create(client: PveClient) -> bool:
    return _make(
        client,
        clone={"template": "debian-12-cloud"},
        memory=1024,
        disks={"scsi0": {"size": "5G"}, "scsi1": {"size": "1G"}},
        cloud_init={"user": "ops"},
        tags=["web"],
        state="started",
    )


def _created(lab: Lab) -> None:
    assert servers(lab) == {100: "web-01"}
    guest = lab.vm(100)
    config = guest.config
    assert guest.running
    assert (int(config["memory"]), config["ciuser"], config["tags"]) == (1024, "ops", "web")
    assert "size=5G" in config["scsi0"]
    assert not {"description", "lock"} & set(config)
    assert volumes(lab, 100) == DISKS


def _update(client: PveClient) -> bool:
    disks = {"scsi0": {"size": "5G"}, "scsi1": {"size": "1G"}}
    return _make(client, memory=1024, tags=["web"], disks=disks, state="started")


def _updated(lab: Lab) -> None:
    assert servers(lab) == {100: "web-01"}
    config = lab.vm(100).config
    assert lab.vm(100).running
    assert (int(config["memory"]), config["tags"]) == (1024, "web")
    assert "size=5G" in config["scsi0"]
    assert not [key for key in config if key.startswith("unused")]
    assert volumes(lab, 100) == DISKS


def _absent(client: PveClient) -> bool:
    return _make(client, state="absent")


def _gone(lab: Lab) -> None:
    assert servers(lab) == {}
    assert volumes(lab, 100) == []


JOBS = (
    Job(
        name="proxmox_server created",
        prepare=lambda lab: None,
        run=_create,
        verify=_created,
        writes=(
            ("POST", "/9000/clone"),
            ("POST", "/100/config"),
            ("PUT", "/100/resize"),
            ("POST", "/100/status/start"),
        ),
        tasks=("qmclone", "qmconfig", "resize", "qmstart"),
        vmid=9000,
        storage="local-lvm",
    ),
    Job(
        name="proxmox_server updated",
        prepare=add_server,
        run=_update,
        verify=_updated,
        writes=(("POST", "/100/config"), ("PUT", "/100/resize"), ("POST", "/100/status/start")),
        tasks=("qmconfig", "resize", "qmstart"),
        vmid=100,
        storage="local-lvm",
    ),
    Job(
        name="proxmox_server absent",
        prepare=lambda lab: add_server(lab, running=True),
        run=_absent,
        verify=_gone,
        writes=(("POST", "/100/status/stop"), ("DELETE", "/qemu/100")),
        tasks=("qmstop", "qmdestroy"),
        vmid=100,
    ),
)
