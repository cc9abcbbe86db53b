# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

"""What is in the lab when it starts: a cloud-init template, and guests if asked for."""

from __future__ import annotations

import time
from itertools import islice
from typing import Any

from .cluster import LabPve
from .drives import print_size, with_mac
from .guest import LabGuest

GIB = 1024**3
TEMPLATE_VMID = 9000
TEMPLATE_NAME = "debian-12-cloud"
FIRST_GUEST = 200
ROLES = ("web", "app", "db", "cache", "build")


def add_template(
    pve: LabPve, vmid: int, name: str, node: str, storage: str = "local-lvm", size: int = 3 * GIB
) -> LabGuest:
    """A template with one disk and a cloud-init drive on this storage."""
    guest = _add(pve, vmid, name, node, storage, size, cores=2, memory=2048)
    guest.template = True
    guest.config["template"] = 1
    disk, _comma, options = guest.config["scsi0"].partition(",")
    guest.config["scsi0"] = f"{pve._qm_rename_volume(disk)},{options}"
    return guest


def add_guests(pve: LabPve, count: int) -> None:
    """Guests of several kinds, spread over the nodes, two of three running, some with a static address."""
    nodes = sorted(pve.nodes)
    vmids = (vmid for vmid in range(FIRST_GUEST, 10**6) if vmid != TEMPLATE_VMID)
    for number, vmid in enumerate(islice(vmids, count)):
        role = ROLES[number % len(ROLES)]
        node = nodes[number % len(nodes)]
        size = (8 + number % 4 * 8) * GIB
        guest = _add(
            pve,
            vmid,
            f"{role}-{number + 1:03}",
            node,
            "local-lvm",
            size,
            cores=1 + number % 4,
            memory=1024 * (1 + number % 8),
        )
        guest.config["tags"] = f"role-{role};site-{'ab'[number % 2]}"
        if number % 2 == 0:
            host = f"10.0.{number // 200}.{number % 200 + 10}"
            guest.config["ipconfig0"] = f"ip={host}/16,gw=10.0.0.1"
        if number % 3 != 2:
            pve.generate_cloudinit(guest)
            pve._boot(guest)
            guest.booted_at -= 3600
            guest.started_at = time.time() - 3600
            pve.set_status(guest, "running")


def _add(pve: LabPve, vmid: int, name: str, node: str, storage: str, size: int, **options: Any) -> LabGuest:
    guest = pve.add_vm(vmid, name, node=node)
    disk = pve.allocate(guest, storage, size)
    guest.config = {
        "name": name,
        "ostype": "l26",
        "cpu": "x86-64-v2-AES",
        "scsihw": "virtio-scsi-single",
        "scsi0": f"{disk},discard=on,size={print_size(size)}",
        "ide2": f"{pve.allocate_cloudinit(guest, storage)},media=cdrom",
        "net0": with_mac("virtio,bridge=vmbr0"),
        "agent": "enabled=1",
        "serial0": "socket",
        "vga": "serial0",
        "boot": "order=scsi0",
        "smbios1": f"uuid={pve.new_uuid()}",
        "vmgenid": pve.new_uuid(),
        **options,
    }
    return guest
