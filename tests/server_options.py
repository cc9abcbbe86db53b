# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Generated options of proxmox_server: what a user might ask of a server in the lab."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

BRIDGES = ("vmbr0", "vmbr1")
STORAGES = ("local-lvm", "shared")
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0kLTaLUO0yuy6vd0Mqdz9DB9aHg5Zc6zTbkTqg4qPe"
TAGS = st.sampled_from(["blue", "web", "a.b", "x+y", "Prod", "_1"])

DISK_OPTIONS = {
    "scsi": ("ssd", "discard", "iothread", "backup", "ro", "cache", "aio", "serial", "iops_rd", "mbps_wr"),
    "virtio": ("discard", "iothread", "backup", "ro", "cache", "serial", "iops_rd"),
    "sata": ("ssd", "discard", "backup", "cache", "serial"),
}
_DISK_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "cache": st.sampled_from(["none", "writeback", "unsafe"]),
    "aio": st.sampled_from(["native", "threads", "io_uring"]),
    "serial": st.sampled_from(["abc", "d-1"]),
    "iops_rd": st.integers(0, 3).map(lambda number: number * 100),
    "mbps_wr": st.sampled_from([0, 1.5, 20]),
}
_NIC_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "bridge": st.sampled_from(BRIDGES),
    "model": st.sampled_from(["virtio", "e1000", "vmxnet3"]),
    "mac": st.sampled_from(["BC:24:11:00:00:01", "bc:24:11:aa:bb:cc"]),
    "vlan": st.sampled_from([0, 1, 20, 4094]),
    "firewall": st.booleans(),
    "link_down": st.booleans(),
    "mtu": st.sampled_from([1, 1400]),
    "rate": st.sampled_from([0, 12.5]),
    "trunks": st.sampled_from(["10;20-30", "7"]),
}


def disks(slots: tuple[str, ...], *, created: bool) -> st.SearchStrategy[dict[str, Any]]:
    """Disks in some of these slots, of 3 GiB or more, which is what the template's disk has."""

    def disk(slot: str) -> st.SearchStrategy[dict[str, Any]]:
        bus = slot.rstrip("0123456789")
        options = {name: _DISK_VALUES.get(name, st.booleans()) for name in DISK_OPTIONS[bus]}
        present = st.fixed_dictionaries({"size": st.sampled_from(["3G", "4G", "5120M", "8G"])}, optional=options)
        detached = st.just({"state": "detached"})
        return present if created or slot == slots[0] else st.one_of(present, present, detached)

    return st.fixed_dictionaries({}, optional={slot: disk(slot) for slot in slots})


def nics(*, created: bool) -> st.SearchStrategy[dict[str, Any]]:
    def nic(name: str) -> st.SearchStrategy[dict[str, Any]]:
        # net0 comes from the template, so that it needs no bridge of its own.
        needs = {"bridge"} if created or name != "net0" else set()
        present = st.fixed_dictionaries(
            {key: value for key, value in _NIC_VALUES.items() if key in needs},
            optional={key: value for key, value in _NIC_VALUES.items() if key not in needs},
        )
        return st.one_of(present, present, st.just({"state": "absent"}))

    return st.fixed_dictionaries({}, optional={name: nic(name) for name in ("net0", "net1", "net3")})


CLOUD_INIT = st.fixed_dictionaries(
    {},
    optional={
        "user": st.sampled_from(["ops", "admin", ""]),
        "password": st.sampled_from(["pass-1", "two, with=signs"]),
        "ssh_keys": st.lists(st.sampled_from([KEY, f"{KEY} ops@example.com"]), max_size=2, unique=True),
        "ipconfig": st.fixed_dictionaries(
            {},
            optional={
                "net0": st.sampled_from(["ip=dhcp", "ip=10.0.0.5/24,gw=10.0.0.1", "ip=10.0.0.6/24,ip6=auto"]),
                "net1": st.sampled_from([{"ip": "10.1.0.5/16"}, {"ip6": "fd00:0::5/64", "gw6": "fd00::1"}]),
            },
        ),
        "nameservers": st.lists(st.sampled_from(["10.0.0.1", "fd00::53"]), max_size=2, unique=True),
        "searchdomain": st.sampled_from(["example.com", ""]),
        "type": st.sampled_from(["nocloud", "configdrive2"]),
    },
)


def settings(slots: tuple[str, ...] = ("scsi0", "scsi1", "virtio0", "sata1"), *, created: bool = False) -> Any:
    """Everything about a server but how it comes to be, what it is called and whether it runs."""
    return st.fixed_dictionaries(
        {},
        optional={
            "cores": st.integers(1, 4),
            "sockets": st.integers(1, 2),
            "cpu": st.sampled_from(["host", "x86-64-v2-AES", "kvm64,flags=+aes"]),
            "memory": st.sampled_from([1024, 2048, 4096]),
            "balloon": st.sampled_from([0, 512, 1024]),
            "onboot": st.booleans(),
            "ostype": st.sampled_from(["l26", "other"]),
            "scsihw": st.sampled_from(["virtio-scsi-single", "virtio-scsi-pci"]),
            "machine": st.sampled_from(["q35", "pc"]),
            "disks": disks(slots, created=created),
            "nics": nics(created=created),
            "cloud_init": CLOUD_INIT,
            "agent": st.booleans(),
            "boot_order": st.sampled_from([["scsi0"]]),
            "tags": st.lists(TAGS, unique=True),
            "role": st.sampled_from(["web", "db", ""]),
            "description": st.sampled_from(["", "one line", "two\nlines: ü"]),
            "power_cycle": st.sampled_from(["never", "when_needed"]),
            "force": st.booleans(),
        },
    )
