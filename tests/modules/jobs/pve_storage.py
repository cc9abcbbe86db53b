# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""pve_storage under the faults: a definition made, changed, removed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import PveClient
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.storage import converge_storage
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.storage_plan import storage_spec

from tests.modules.jobs import Job, client_of
from tests.storage_options import task

if TYPE_CHECKING:
    from tests.lab import Lab

REMOTE: dict[str, Any] = {
    "name": "remote-poka",
    "type": "nfs",
    "server": "192.168.3.50",
    "export": "/poka",
    "content": ["images", "rootdir"],
    "nodes": ["pve1"],
    "wait_timeout": 3,
}
CHANGED: dict[str, Any] = {**REMOTE, "content": ["backup"], "nodes": []}
GONE: dict[str, Any] = {"name": "remote-poka", "state": "absent"}


def make(client: PveClient, options: dict[str, Any] | None = None) -> bool:
    return converge_storage(client, storage_spec(task(**(options or REMOTE)))).plan.changed


def change(client: PveClient) -> bool:
    return make(client, CHANGED)


def remove(client: PveClient) -> bool:
    return make(client, GONE)


def nothing(lab: Lab) -> None:
    """The lab is as it is when it starts."""


def made(lab: Lab) -> None:
    with client_of(lab) as client:
        make(client)


def is_made(lab: Lab) -> None:
    store = lab.pve.storages["remote-poka"]
    assert {key: store[key] for key in ("type", "server", "export", "content", "nodes")} == {
        "type": "nfs",
        "server": "192.168.3.50",
        "export": "/poka",
        "content": "images,rootdir",
        "nodes": "pve1",
    }


def is_changed(lab: Lab) -> None:
    store = lab.pve.storages["remote-poka"]
    assert (store["content"], store.get("nodes"), store["server"]) == ("backup", None, "192.168.3.50")


def is_gone(lab: Lab) -> None:
    assert sorted(lab.pve.storages) == ["local", "local-lvm", "shared"]


JOBS = (
    Job("pve_storage", nothing, make, is_made, writes=(("POST", "/storage"),)),
    Job("pve_storage changed", made, change, is_changed, writes=(("PUT", "/storage/remote-poka"),)),
    Job("pve_storage absent", made, remove, is_gone, writes=(("DELETE", "/storage/remote-poka"),)),
)
