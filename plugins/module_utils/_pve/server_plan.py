# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what a server is and what it should be to what has to be done. Pure: no I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ansible_collections.pvefleet.infra.plugins.module_utils._plan import Change, Plan
from ansible_collections.pvefleet.infra.plugins.module_utils._pve import device_plan, values
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.device_plan import (
    NO_DEFAULTS,
    Draft,
    Placement,
    PlanError,
)
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.guest import (
    Guest,
    is_drive,
    is_nic,
    without_marker,
)
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.hotplug import takes_effect_at_once
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server_spec import (
    ROLE_PREFIX,
    CloudInitSpec,
    ServerSpec,
)

HIDDEN = "********"

# What PVE takes when the config does not say, from qemu-server's PVE/QemuServer.pm.
_DEFAULTS = {"cores": "1", "sockets": "1", "memory": "512", "onboot": "0", "protection": "0", "bios": "seabios"}
_DEFAULT_KEYS = {"cpu": "cputype", "machine": "type", "memory": "current"}

_CLOUD_INIT_KEYS = {"ciuser", "cipassword", "sshkeys", "nameserver", "searchdomain", "citype"}
_CLOUD_INIT_SLOTS = ("ide2", "ide0", "ide1", "ide3", "scsi30")

# Keys of the source's config that a clone does not get (PVE/API2/Qemu.pm clone_vm), or that name the source itself.
_NOT_CLONED = {
    "template",
    "name",
    "lock",
    "parent",
    "snapshots",
    "snaptime",
    "vmstate",
    "snapstate",
    "vmgenid",
    "digest",
    "meta",
}


@dataclass(frozen=True)
class ServerPlan(Plan):
    """What is done, in this order: stop, resizes, settings and delete in one call, pool, power."""

    settings: Mapping[str, str] = field(default_factory=dict)  # PVE key -> new value
    delete: tuple[str, ...] = ()
    resizes: Mapping[str, int] = field(default_factory=dict)  # disk -> bytes
    pool: str | None = None  # "" leaves its pool
    power: str | None = None  # start, stop, reboot
    pending: tuple[str, ...] = ()  # what a running server takes only when it is power-cycled

    @property
    def reconfigures(self) -> bool:
        return bool(self.settings or self.delete)

    @property
    def keeps_volumes(self) -> bool:
        """Whether a setting names a volume that is there already."""
        return any(is_drive(key) and not device_plan.is_new_volume(value) for key, value in self.settings.items())

    def new_volume_storages(self) -> set[str]:
        """The storages on which the settings allocate volumes."""
        drives = [
            values.parse_drive(value)
            for key, value in self.settings.items()
            if is_drive(key) and device_plan.is_new_volume(value)
        ]
        return {drive.storage for drive in drives if drive.storage}

    def applied_to(self, guest: Guest) -> Guest:
        """The server once all of it is done, but for what only PVE decides, such as MAC addresses and volume names."""
        config = {key: value for key, value in {**guest.config, **self.settings}.items() if key not in self.delete}
        return replace(
            guest,
            name=str(config.get("name", guest.name)),
            config=config,
            running=guest.running if self.power is None else self.power != "stop",
            pool=guest.pool if self.pool is None else self.pool or None,
        )


def plan_server(spec: ServerSpec, guest: Guest, placement: Placement = NO_DEFAULTS) -> ServerPlan:
    """What makes an existing server what it should be. Raises PlanError when that cannot be."""
    if guest.is_template and not spec.template:
        raise PlanError(f"Unable to manage server {spec.label}: {guest.vmid} is a template")
    if spec.node is not None and spec.node != guest.node:
        raise PlanError(
            f"Unable to move server {spec.label} from {guest.node} to {spec.node}: migration is not done here"
        )
    draft = Draft()
    try:
        _plan_config(spec, guest, placement, draft)
        pool = None
        if spec.pool is not None and spec.pool != (guest.pool or ""):
            pool = spec.pool
            draft.changes.append(Change("pool", guest.pool, spec.pool or None))
        waiting = _waiting(spec, guest, draft)
    except PlanError:
        raise
    except ValueError as error:
        # What is managed has a value that PVE itself would not have written; to guess would be to lose a part of it.
        raise PlanError(f"Unable to manage server {spec.label}: {error}") from error
    power = _plan_power(spec, guest, bool(waiting))
    if power:
        before = "running" if guest.running else "stopped"
        after = {"start": "running", "stop": "stopped", "reboot": "restarted"}[power]
        draft.changes.append(Change("power", before, after))
    stays_up = guest.running and power is None
    return ServerPlan(
        f"server {spec.label}",
        tuple(draft.changes),
        draft.settings,
        tuple(draft.delete),
        draft.resizes,
        pool,
        power,
        tuple(sorted(waiting)) if stays_up else (),
    )


def plan_clone(spec: ServerSpec, source: Guest, placement: Placement) -> ServerPlan:
    """What has to be done to a clone of `source` once it is there; the first change is the clone itself."""
    if spec.clone is None:
        raise ValueError("plan_clone needs a specification with a clone")
    if not spec.clone.full and not source.is_template:
        raise PlanError(
            f"Unable to create server {spec.label}: {source.name} is not a template, only full: true can clone it"
        )
    plan = plan_server(replace(spec, node=None), cloned(spec, source), placement)
    kind = "full" if spec.clone.full else "linked"
    first = Change("server", None, f"{kind} clone of {source.name} ({source.vmid}) on {spec.node or source.node}")
    return replace(plan, changes=(first, *plan.changes))


def plan_new(spec: ServerSpec, node: str, placement: Placement) -> ServerPlan:
    """What an empty server is created with."""
    plan = plan_server(replace(spec, node=None), empty(spec, node), placement)
    return replace(plan, changes=(Change("server", None, f"empty server on {node}"), *plan.changes))


def empty(spec: ServerSpec, node: str) -> Guest:
    """The server that PVE creates when it is told nothing but a name and a pool."""
    return Guest(None, node, spec.label, {"name": spec.label}, pool=spec.pool)


def cloned(spec: ServerSpec, source: Guest) -> Guest:
    """The server that PVE makes of `source`, before anything of it is changed."""
    config = {
        key: value
        for key, value in source.config.items()
        if key not in _NOT_CLONED and not re.fullmatch(r"unused\d+", key)
    }
    for key in filter(is_nic, source.config):
        # A clone's network devices get addresses of their own.
        try:
            config[key] = values.print_nic(replace(values.parse_nic(source.text(key)), mac=None))
        except ValueError:
            continue
    storage = spec.clone.storage if spec.clone else None
    if storage:
        for key, drive in source.disks().items():
            config[key] = values.print_drive(replace(drive, volume=f"{storage}:{drive.volume.partition(':')[2]}"))
    config["name"] = spec.label
    return Guest(None, spec.node or source.node, spec.label, config, pool=spec.pool)


def settled(spec: ServerSpec) -> ServerSpec:
    """What must still be true once it was done: a restarted server runs, and a password cannot be read back."""
    cloud_init = replace(spec.cloud_init, password=None) if spec.cloud_init else None
    return replace(spec, state="started" if spec.state == "restarted" else spec.state, cloud_init=cloud_init, node=None)


def _plan_config(spec: ServerSpec, guest: Guest, placement: Placement, draft: Draft) -> None:
    _plan_name(spec, guest, draft)
    for key, value in spec.scalars.items():
        _plan_scalar(spec, key, value, guest, draft)
    _check_balloon(spec, guest)
    for key, disk in spec.disks.items():
        device_plan.plan_disk(spec, key, disk, guest, placement, draft)
    for key, nic in spec.nics.items():
        device_plan.plan_nic(spec, key, nic, guest, draft)
    if spec.cloud_init is not None:
        _plan_cloud_init(spec, spec.cloud_init, guest, placement, draft)
    _plan_agent(spec, guest, draft)
    _plan_boot_order(spec, guest, draft)
    _plan_tags(spec, guest, draft)
    _plan_description(spec, guest, draft)


def _waiting(spec: ServerSpec, guest: Guest, draft: Draft) -> set[str]:
    """The config keys that are managed, and that a server which runs on would not take before it is power-cycled."""
    touched = draft.settings.keys() | draft.delete
    waiting = {key for key in touched if not takes_effect_at_once(key, draft.settings.get(key), guest)}
    return waiting | (guest.pending.keys() & _managed_keys(spec)) - touched


def _managed_keys(spec: ServerSpec) -> set[str]:
    keys = set(spec.scalars) | set(spec.disks) | set(spec.nics)
    if spec.cloud_init is not None:
        keys |= _CLOUD_INIT_KEYS | set(spec.cloud_init.ipconfig)
    if spec.agent is not None:
        keys.add("agent")
    if spec.boot_order is not None:
        keys.add("boot")
    return keys


def _plan_name(spec: ServerSpec, guest: Guest, draft: Draft) -> None:
    if spec.name is None or spec.name == guest.name:
        return
    if not spec.rename:
        raise PlanError(
            f"Unable to manage server {spec.name}: {guest.vmid} is named {guest.name}; "
            "say rename: true if that server shall get the new name"
        )
    draft.set("name", spec.name, item="name", before=guest.name, after=spec.name)


def _plan_scalar(spec: ServerSpec, key: str, value: str, guest: Guest, draft: Draft) -> None:
    before = guest.text(key) or _DEFAULTS.get(key)
    if before is not None and key in _DEFAULT_KEYS:
        default_key = _DEFAULT_KEYS[key]
        present, wanted = values.parse_properties(before, default_key), values.parse_properties(value, default_key)
        if key == "memory":
            before = present.get(default_key)
        elif present == wanted or (key == "machine" and _pinned(spec, guest, present, wanted)):
            return
    if before != value:
        draft.set(key, value, item=key, before=_typed(before), after=_typed(value))


def _pinned(spec: ServerSpec, guest: Guest, present: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """PVE gives a Windows guest the machine's present version instead of the alias, and keeps it (Machine.pm)."""
    family = {"pc": "pc-i440fx-", "q35": "pc-q35-"}.get(wanted.get("type", ""))
    ostype = spec.scalars.get("ostype") or guest.text("ostype")
    if family is None or not ostype.startswith("w"):
        return False
    return present.get("type", "").startswith(family) and {**present, "type": ""} == {**wanted, "type": ""}


def _check_balloon(spec: ServerSpec, guest: Guest) -> None:
    """PVE refuses the pair, whichever of the two is given now."""
    if not {"memory", "balloon"} & spec.scalars.keys():
        return
    balloon = spec.scalars.get("balloon") or guest.text("balloon") or "0"
    memory = spec.scalars.get("memory") or guest.text("memory") or _DEFAULTS["memory"]
    size = values.parse_properties(memory, "current").get("current", _DEFAULTS["memory"])
    if int(balloon) > int(size):
        raise PlanError(
            f"Unable to manage server {spec.label}: its balloon of {balloon} MiB is more than its memory of {size} MiB"
        )


def _plan_cloud_init(spec: ServerSpec, wanted: CloudInitSpec, guest: Guest, placement: Placement, draft: Draft) -> None:
    if guest.cloud_init_drive() is None:
        taken = guest.config.keys() | spec.disks.keys()
        slot = next((slot for slot in _CLOUD_INIT_SLOTS if slot not in taken), None)
        storage = wanted.storage or device_plan.storage_for(spec, guest, placement)
        if slot is None or storage is None:
            missing = "slot" if slot is None else "storage"
            raise PlanError(f"Unable to add a cloud-init drive to server {spec.label}: there is no {missing} for it")
        draft.set(slot, f"{storage}:cloudinit", item=slot, before=None, after=f"{storage}:cloudinit")
    for key, value in (("ciuser", wanted.user), ("citype", wanted.type), ("searchdomain", wanted.searchdomain)):
        if value is not None:
            _plan_text(key, value, guest, draft)
    if wanted.password is not None and (wanted.update_password or guest.vmid is None or _finishes(spec, guest)):
        # PVE keeps only a hash, and shows not even that.
        draft.set("cipassword", wanted.password, item="cipassword", before=None, after=HIDDEN)
    if wanted.ssh_keys is not None:
        before_keys = values.parse_ssh_keys(guest.text("sshkeys"))
        if before_keys != wanted.ssh_keys:
            if wanted.ssh_keys:
                draft.set(
                    "sshkeys",
                    values.print_ssh_keys(wanted.ssh_keys),
                    item="sshkeys",
                    before=list(before_keys) or None,
                    after=list(wanted.ssh_keys),
                )
            else:
                draft.unset("sshkeys", item="sshkeys", before=list(before_keys))
    for key, config in wanted.ipconfig.items():
        if _ipconfig(guest.text(key)) != config:
            after = values.print_ipconfig(config)
            draft.set(key, after, item=key, before=guest.text(key) or None, after=after)
    if wanted.nameservers is not None:
        before_servers = re.split(r"[\s,;]+", guest.text("nameserver"))
        if tuple(server for server in before_servers if server) != wanted.nameservers:
            _plan_text("nameserver", " ".join(wanted.nameservers), guest, draft)


def _ipconfig(text: str) -> values.IpConfig | None:
    """None for what is not understood: all of it is managed, so it is written anew."""
    try:
        return values.parse_ipconfig(text)
    except ValueError:
        return None


def _plan_text(key: str, value: str, guest: Guest, draft: Draft) -> None:
    """A free text that is removed by being empty."""
    before = guest.text(key)
    if before == value:
        return
    if value:
        draft.set(key, value, item=key, before=before or None, after=value)
    else:
        draft.unset(key, item=key, before=before)


def _plan_agent(spec: ServerSpec, guest: Guest, draft: Draft) -> None:
    if spec.agent is None:
        return
    properties = values.parse_properties(guest.text("agent") or "0", "enabled")
    before = values.parse_bool(properties.get("enabled", "0"))
    if before != spec.agent:
        properties["enabled"] = "1" if spec.agent else "0"
        draft.set(
            "agent", values.print_properties(properties, "enabled"), item="agent", before=before, after=spec.agent
        )


def _plan_boot_order(spec: ServerSpec, guest: Guest, draft: Draft) -> None:
    if spec.boot_order is None:
        return
    before = values.parse_boot(guest.text("boot"))
    if before == spec.boot_order:
        return
    there = (guest.config.keys() | draft.settings.keys()) - set(draft.delete)
    missing = [device for device in spec.boot_order if device not in there]
    if missing:
        raise PlanError(f"Unable to boot server {spec.label} from {', '.join(missing)}: it has no such device")
    draft.set(
        "boot",
        values.print_boot(spec.boot_order),
        item="boot_order",
        before=list(before) or None,
        after=list(spec.boot_order),
    )


def _plan_tags(spec: ServerSpec, guest: Guest, draft: Draft) -> None:
    """`tags` are all tags but the role's; `role` is the tag role-…, which a list of tags leaves alone."""
    if spec.tags is None and spec.role is None and spec.mark is None:
        return
    before = values.parse_tags(guest.text("tags"))
    roles = {tag for tag in before if tag.lower().startswith(ROLE_PREFIX)}
    after = set(before - roles if spec.tags is None else spec.tags)
    if spec.role is None:
        after |= roles
    elif spec.role:
        after.add(ROLE_PREFIX + spec.role)
    if spec.mark is not None and not values.has_tag(after, spec.mark):
        after.add(spec.mark)
    if values.same_tags(before, after):
        return
    if after:
        draft.set("tags", values.print_tags(after), item="tags", before=sorted(before) or None, after=sorted(after))
    else:
        draft.unset("tags", item="tags", before=sorted(before))


def _finishes(spec: ServerSpec, guest: Guest) -> bool:
    """Only who may create knows what is done once on creation, the password; others leave the server unfinished."""
    return guest.unfinished and spec.create


def _plan_description(spec: ServerSpec, guest: Guest, draft: Draft) -> None:
    raw = guest.text("description")
    before = without_marker(raw)
    wanted = notes = before if spec.description is None else spec.description.strip()
    if _finishes(spec, guest):
        draft.changes.append(Change("creation", "interrupted", "finished"))
    elif guest.unfinished:
        wanted = f"{raw.partition(chr(10))[0]}\n\n{notes}".strip()
    if notes != before:
        draft.changes.append(Change("description", before or None, notes or None))
    if wanted != raw.strip():
        if wanted:
            draft.settings["description"] = wanted
        else:
            draft.delete.append("description")


def _plan_power(spec: ServerSpec, guest: Guest, waiting: bool) -> str | None:
    if spec.state == "stopped":
        return "stop" if guest.running else None
    if guest.running:
        return "reboot" if spec.state == "restarted" or (waiting and spec.power_cycle) else None
    return "start" if spec.state in ("started", "restarted") else None


def _typed(value: str | None) -> Any:
    return int(value) if value is not None and value.isascii() and value.isdigit() else value
