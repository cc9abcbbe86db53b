# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the modules are put to while things go wrong: test_faults.py runs each of these jobs under each fault.

A module has its jobs in `jobs/<module>.py`, as `JOBS: tuple[Job, ...]`; they are found by themselves. For each job and
each fault that can befall it:

1. a lab of its own with `job.lab` as its options, and `job.prepare(lab)`;
2. the fault strikes, and `job.run(client)` either converges or raises Unable or PveError with one sentence;
3. the fault is over, `job.run(client)` succeeds whatever the first run has left, and `job.verify(lab)` holds;
4. `job.run(client)` returns False and sends no write.

So `run` must be the whole of what the module does, begin with nothing in hand, and be content with what it finds: it is
called three times in a row. Its `timeout` is 10 s, of which the clock of the matrix makes one; a second of PVE lasts
4 ms there. Every fault costs a run of its own, so a job should do its work once and be small.

`writes` and `tasks` are exactly those of an undisturbed run: a test compares them.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import PveClient

if TYPE_CHECKING:
    from tests.lab import Lab


@dataclass(frozen=True)
class Job:
    """One thing that a module makes of a lab, for the faults to befall."""

    name: str  # "pve_backup", or "pve_backup restored" when a module has several jobs
    prepare: Callable[[Lab], None]  # makes the lab ready before the first run (guests, files, ...)
    run: Callable[[PveClient], bool]  # through the collection's own function; returns `changed`; Unable, PveError
    verify: Callable[[Lab], None]  # asserts that the world is exactly as wanted: nothing half-made or double left
    writes: tuple[tuple[str, str], ...]  # (method, path suffix) of the writes it makes
    tasks: tuple[str, ...] = ()  # types of the PVE tasks it starts ("vzdump")
    vmid: int | None = None  # the guest whose locks matter
    storage: str | None = None  # the storage that may be full; None: it needs no space
    node: str = "pve1"  # the node that may be offline
    lab: dict[str, Any] = field(default_factory=dict)  # options of the Lab

    @property
    def module(self) -> str:
        """The module that it is a job of."""
        return self.name.partition(" ")[0]


@contextmanager
def client_of(lab: Lab) -> Iterator[PveClient]:
    """A client without faults, for `prepare` and `verify`."""
    client = PveClient(lab.connection(default_storage="local-lvm"))
    try:
        yield client
    finally:
        client.close()


def add_server(lab: Lab, vmid: int = 100, name: str = "web-01", *, running: bool = False) -> None:
    """A server cloned from the lab's template, on its node, shown in `cluster/resources`."""
    with client_of(lab) as client:
        source = f"/nodes/{lab.nodes[0]}/qemu/{lab.template_vmid}/clone"
        client.run("POST", source, {"newid": vmid, "name": name, "full": True}, timeout=60)
        if running:
            client.run("POST", f"/nodes/{lab.nodes[0]}/qemu/{vmid}/status/start", timeout=60)
    lab.do(lab.pve.settle_resources)


def servers(lab: Lab) -> dict[int, str]:
    """vmid -> name of every guest beside the lab's own template."""
    return {guest.vmid: str(guest.config.get("name")) for guest in lab.pve.vms if guest.vmid != lab.template_vmid}


def volumes(lab: Lab, vmid: int) -> list[str]:
    """The volumes of a guest on all storages."""
    stores = lab.pve.storages.values()
    return sorted(name for store in stores for name, volume in store["volumes"].items() if volume.get("vmid") == vmid)


def all_jobs() -> list[Job]:
    """The jobs of every module, by name."""
    modules = [importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)]
    return sorted((job for module in modules for job in module.JOBS), key=lambda job: job.name)
