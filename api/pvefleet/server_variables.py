# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a request about a server to the variables of the role `pvefleet.infra.server`. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server_spec import server_spec

from pvefleet.schemas.servers import ChangeServer, CreateServer, DeleteServer, Disk, NetworkDevice, StopServer

MOST_SCSI = 31


@dataclass(frozen=True)
class Subject:
    """Which server. vmid: None before it exists. template: the vmid to clone a new one from, with its configuration.

    timeout: seconds that a single task of Proxmox VE may take.
    """

    cluster_id: str
    cluster: str
    name: str
    timeout: int
    vmid: int | None = None
    template: int | None = None
    template_config: Mapping[str, Any] | None = None


def create(body: CreateServer, subject: Subject) -> dict[str, Any]:
    """Raises SpecError when proxmox_server would refuse them."""
    named = with_slots(body.disks)
    devices = body.devices()
    storage = _clone_storage(body, named, subject)
    clone = {"template": str(subject.template), "full": body.full_clone, "storage": storage}
    cloud_init = {
        "user": body.vm_username,
        "ssh_keys": body.ssh_keys,
        "nameservers": body.nameservers,
        "ipconfig": {f"net{index}": text for index, device in enumerate(devices) if (text := ipconfig(device))} or None,
    }
    variables = _given(
        **_which(subject),
        server_node=body.node,
        server_clone=_given(**clone),
        server_cores=body.cpu,
        server_sockets=None if body.cpu is None else 1,
        server_memory=body.memory,
        server_disks={slot: _disk(disk) for slot, disk in named.items()} or None,
        server_nics={f"net{index}": _nic(device) for index, device in enumerate(devices)} or None,
        server_cloud_init=_given(**cloud_init) or None,
        server_tags=body.tags,
        server_role=body.role,
        server_description=body.description,
        server_state="started" if body.start else "present",
        server_wait_for_address=body.wait or None,
    )
    _check(variables)
    return variables


def create_secrets(body: CreateServer, subject: Subject) -> dict[str, Any]:
    if body.vm_password is None:
        return {}
    return {"server_cipassword": body.vm_password.get_secret_value()}


def change(body: ChangeServer, subject: Subject) -> dict[str, Any]:
    """Raises SpecError when proxmox_server would refuse them."""
    variables = _given(
        **_which(subject),
        server_cores=body.cpu,
        server_sockets=None if body.cpu is None else 1,
        server_memory=body.memory,
        server_disks=None if body.disks is None else {disk.interface: _disk(disk) for disk in body.disks},
        server_tags=body.tags,
        server_role=body.role,
        server_description=body.description,
        server_power_cycle=body.power_cycle,
    )
    _check({"server_state": "present", **variables})
    return variables


def power(state: str) -> Callable[[StopServer | None, Subject], dict[str, Any]]:
    def variables(body: StopServer | None, subject: Subject) -> dict[str, Any]:
        return _given(
            **_which(subject),
            server_state=state,
            server_force=None if body is None else body.force,
            server_shutdown_timeout=None if body is None else body.timeout,
        )

    return variables


def delete(query: DeleteServer, subject: Subject) -> dict[str, Any]:
    return _given(**_which(subject), server_purge=query.purge)


def with_slots(disks: Sequence[Disk]) -> dict[str, Disk]:
    """Each disk by its slot: the given one, else the next free scsi slot. There is one for as many as are allowed."""
    taken = {disk.interface for disk in disks}
    free = (slot for slot in (f"scsi{number}" for number in range(MOST_SCSI)) if slot not in taken)
    return {disk.interface or next(free): disk for disk in disks}


def ipconfig(device: NetworkDevice) -> str | None:
    """cloud-init's setting for the device in Proxmox VE's notation, None when nothing is given."""
    if device.ip_address is None:
        return None
    if device.ip_address == "dhcp":
        return "ip=dhcp"
    suffix = "6" if ipaddress.ip_address(device.ip_address).version == 6 else ""
    text = f"ip{suffix}={device.ip_address}/{device.subnet}"
    return text if device.gateway is None else f"{text},gw{suffix}={device.gateway}"


def _check(variables: Mapping[str, Any]) -> None:
    """The module's own check, before anything is accepted: the variables are its options by longer names."""
    server_spec({name.removeprefix("server_"): value for name, value in variables.items()})


def _which(subject: Subject) -> dict[str, Any]:
    # Name and vmid: a server that was replaced by another of its name since the request is not touched.
    return {
        "server_cluster": subject.cluster,
        "server_name": subject.name,
        "server_vmid": subject.vmid,
        "server_timeout": subject.timeout,
    }


def _clone_storage(body: CreateServer, named: Mapping[str, Disk], subject: Subject) -> str | None:
    """Where the template's own disks go: to the datastore that the request names for the first of them."""
    if not body.full_clone:
        return None
    copied = (disk.datastore_id for slot, disk in named.items() if slot in (subject.template_config or {}))
    return next((storage for storage in copied if storage is not None), None)


def _disk(disk: Disk) -> dict[str, Any]:
    virtio = disk.interface is not None and disk.interface.startswith("virtio")
    ssd = None if disk.disk_type is None or virtio else disk.disk_type == "ssd"
    return _given(size=disk.size, storage=disk.datastore_id, ssd=ssd)


def _nic(device: NetworkDevice) -> dict[str, Any]:
    return _given(
        bridge=device.bridge, model=device.model, vlan=device.vlan, firewall=device.firewall, mac=device.mac
    )


def _given(**options: Any) -> dict[str, Any]:
    """Without what was not given: that stays as it is."""
    return {name: value for name, value in options.items() if value is not None}
