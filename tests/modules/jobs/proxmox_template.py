# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""An image is sent and a template made of it, changed, removed; an image is removed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import PveClient
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.template import converge
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.template_plan import TEMPLATE_OPTIONS, template_spec

from . import Job, servers, volumes

if TYPE_CHECKING:
    from tests.lab import Lab

GIB = 1024**3
IMAGE = {"storage": "local", "file": "rocky-9.qcow2"}
VOLID = "local:import/rocky-9.qcow2"


def make(client: PveClient, *, check_mode: bool = False, **options: Any) -> Any:
    """converge() with the module's defaults."""
    defaults = {name: option.get("default") for name, option in TEMPLATE_OPTIONS.items()}
    return converge(client, template_spec({**defaults, "timeout": 10, **options}), check_mode=check_mode)


def _make(client: PveClient) -> bool:
    changed: bool = make(
        client,
        name="rocky-9",
        vmid=9001,
        node="pve1",
        timeout=10,
        # Whatever file is at hand is an image in the raw format.
        image={"storage": "local", "path": __file__, "file": "rocky-9.raw"},
        disk_size="3G",
        cores=2,
        description="for all",
        cloud_init={},
        nics={"net0": {"bridge": "vmbr0"}},
    ).plan.changed
    return changed


def _change(client: PveClient) -> bool:
    changed: bool = make(
        client, name="debian-12-cloud", image={**IMAGE, "file": "debian.raw"}, memory=4096, tags=["blue"]
    ).plan.changed
    return changed


def _remove(client: PveClient) -> bool:
    changed: bool = make(client, vmid=9000, state="absent").plan.changed
    return changed


def _remove_image(client: PveClient) -> bool:
    changed: bool = make(client, image=IMAGE, node="pve1", state="image_absent").plan.changed
    return changed


def _add_image(lab: Lab) -> None:
    lab.do(lab.pve.add_image, "local", "rocky-9.qcow2", virtual=2 * GIB)


def _is_made(lab: Lab) -> None:
    assert servers(lab) == {9001: "rocky-9"}
    guest = lab.vm(9001)
    assert guest.template
    assert guest.config["scsi0"] == "local-lvm:base-9001-disk-0,size=3G"
    assert guest.config["boot"] == "order=scsi0"
    assert guest.config["description"].startswith("for all\n\npvefleet: made from local:import/rocky-9.raw (sha256:")
    assert volumes(lab, 9001) == ["base-9001-disk-0", "vm-9001-cloudinit"]
    assert list(lab.pve.storages["local"]["volumes"]) == ["import/rocky-9.raw"]


def _is_changed(lab: Lab) -> None:
    config = lab.vm(9000).config
    assert (str(config["memory"]), config["tags"], config["template"]) == ("4096", "blue", 1)


def _is_removed(lab: Lab) -> None:
    assert not lab.pve.vms
    assert not volumes(lab, 9000)


def _has_no_image(lab: Lab) -> None:
    assert not lab.pve.storages["local"]["volumes"]


JOBS = (
    Job(
        "proxmox_template made",
        lambda lab: None,
        _make,
        _is_made,
        writes=(
            ("POST", "/upload"),
            ("POST", "/qemu"),
            ("POST", "/9001/config"),
            ("PUT", "/resize"),
            ("POST", "/template"),
            ("PUT", "/9001/config"),
        ),
        tasks=("imgcopy", "qmcreate", "qmconfig", "resize", "qmtemplate"),
        storage="local-lvm",
    ),
    Job(
        "proxmox_template changed",
        lambda lab: None,
        _change,
        _is_changed,
        writes=(("PUT", "/9000/config"),),
        vmid=9000,
    ),
    Job(
        "proxmox_template removed",
        lambda lab: None,
        _remove,
        _is_removed,
        writes=(("DELETE", "/qemu/9000"),),
        tasks=("qmdestroy",),
        vmid=9000,
    ),
    Job(
        "proxmox_template image removed",
        _add_image,
        _remove_image,
        _has_no_image,
        writes=(("DELETE", "rocky-9.qcow2"),),
        tasks=("imgdel",),
    ),
)
