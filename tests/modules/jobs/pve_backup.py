# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A backup is taken, protected, restored into another vmid, removed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ansible_collections.pvefleet.infra.plugins.module_utils._pve.backup import converge
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.backup_plan import backup_spec
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import PveClient

from . import Job, add_server, servers, volumes

if TYPE_CHECKING:
    from tests.lab import Lab

DISKS = ["vm-150-cloudinit", "vm-150-disk-0"]


def _make(client: PveClient, **options: Any) -> bool:
    spec = {"server": "web-01", "storage": "local", "notes": "nightly", "timeout": 10, **options}
    return converge(client, backup_spec(spec)).plan.changed


def _backups(lab: Lab) -> list[tuple[int, str, bool]]:
    """vmid, notes and protection of every backup."""
    found = [one for one in lab.pve.storages["local"]["volumes"].values() if one["content"] == "backup"]
    return [(one["vmid"], one["notes"], bool(one.get("protected"))) for one in found]


def _with_backup(lab: Lab) -> None:
    add_server(lab)
    lab.do(lab.pve.add_backup, 100, notes="nightly", age=600)


def _take(client: PveClient) -> bool:
    return _make(client, max_age="1d", mode="snapshot", compress="zstd")


def _taken(lab: Lab) -> None:
    assert _backups(lab) == [(100, "nightly", False)]
    assert lab.vm(100).lock is None


def _protect(client: PveClient) -> bool:
    return _make(client, protected=True)


def _protected(lab: Lab) -> None:
    assert _backups(lab) == [(100, "nightly", True)]


def _restore(client: PveClient) -> bool:
    return _make(client, state="restored", target_vmid=150, target_name="web-02", start=True)


def _restored(lab: Lab) -> None:
    assert servers(lab) == {100: "web-01", 150: "web-02"}
    assert (lab.vm(150).running, lab.vm(150).lock) == (True, None)
    assert lab.vm(150).config["scsi0"].startswith("local-lvm:vm-150-disk-0,")
    assert volumes(lab, 150) == DISKS
    assert len(_backups(lab)) == 1


def _absent(client: PveClient) -> bool:
    return _make(client, state="absent")


def _gone(lab: Lab) -> None:
    assert _backups(lab) == []
    assert servers(lab) == {100: "web-01"}


JOBS = (
    Job(
        name="pve_backup taken",
        prepare=lambda lab: add_server(lab, running=True),
        run=_take,
        verify=_taken,
        writes=(("POST", "/vzdump"),),
        tasks=("vzdump",),
        vmid=100,
        storage="local",
    ),
    Job(
        name="pve_backup protected",
        prepare=_with_backup,
        run=_protect,
        verify=_protected,
        writes=(("PUT", ".vma.zst"),),
    ),
    Job(
        name="pve_backup restored",
        prepare=_with_backup,
        run=_restore,
        verify=_restored,
        writes=(("POST", "/pve1/qemu"), ("POST", "/150/status/start")),
        tasks=("qmrestore", "qmstart"),
        storage="local-lvm",
    ),
    Job(
        name="pve_backup absent",
        prepare=_with_backup,
        run=_absent,
        verify=_gone,
        writes=(("DELETE", ".vma.zst"),),
        tasks=("imgdel",),
    ),
)
