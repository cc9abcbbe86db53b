# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what a server is and what it should be to what has to be done. Pure: no I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from ansible_collections.pvefleet.infra.plugins.module_utils._plan import Change, Plan
from ansible_collections.pvefleet.infra.plugins.module_utils._pve import values
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server_spec import (
    ROLE_PREFIX,
    CloudInitSpec,
    DiskSpec,
    NicSpec,
    ServerSpec,
)

# The first line of the notes of a server that is not finished yet. It tells a second run that what is done once, on
# creation, is still to be done; and with its id, after a lost answer, whose clone it is.
MARKER = "pvefleet: being created"

HIDDEN = "********"

# What PVE takes when the config does not say, from qemu-server's PVE/QemuServer.pm.
_DEFAULTS = {"cores": "1", "sockets": "1", "memory": "512", "onboot": "0", "protection": "0", "bios": "seabios"}
_DRIVE_DEFAULTS = {
    "ssd": "0",
    "discard": "ignore",
    "iothread": "0",
    "backup": "1",
    "replicate": "1",
    "ro": "0",
    "cache": "none",
} | dict.fromkeys(("iops_rd", "iops_wr", "mbps_rd", "mbps_wr"), "0")
_NIC_DEFAULTS = {"firewall": "0", "link_down": "0", "tag": "0", "queues": "0", "rate": "0"}

# vmconfig_hotplug_pending's $fast_plug_option: never pending on a running guest.
_FAST = {"name", "description", "tags", "onboot", "protection"}
_ONLINE_DRIVE_OPTIONS = {"backup", "replicate", "iops_rd", "iops_wr", "mbps_rd", "mbps_wr"}
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

# LVM and ZFS round a volume up to their own unit; as much more than asked for is no shrinking.
ROUNDING = 4 * 1024**2


class PlanError(ValueError):
    """What is asked for cannot be done to this server; nothing was changed."""


@dataclass(frozen=True)
class Guest:
    """A server as it is. `config` is what its next start will use; `pending` the keys whose running value differs."""

    vmid: int | None  # None while it is only planned
    node: str
    name: str
    config: Mapping[str, Any]
    running: bool = False
    digest: str | None = None
    pending: frozenset[str] = frozenset()
    pool: str | None = None

    @property
    def unfinished(self) -> bool:
        return str(self.config.get("description", "")).startswith(MARKER)

    @property
    def is_template(self) -> bool:
        return str(self.config.get("template", "0")) == "1"

    def drive(self, key: str) -> values.Drive | None:
        text = self.config.get(key)
        return None if text is None else values.parse_drive(str(text))

    def disks(self) -> dict[str, values.Drive]:
        """Its disks by slot, without CD-ROMs and the cloud-init drive."""
        return {key: drive for key, drive in self._drives() if not drive.is_cdrom and not drive.is_cloudinit}

    def cloud_init_drive(self) -> str | None:
        return next((key for key, drive in self._drives() if drive.is_cloudinit), None)

    def _drives(self) -> Iterable[tuple[str, values.Drive]]:
        for key in sorted(self.config):
            if re.fullmatch(r"(ide|sata|scsi|virtio)\d+", key):
                yield key, values.parse_drive(str(self.config[key]))


@dataclass(frozen=True)
class Placement:
    """Where new volumes go when the options do not say."""

    default_storage: str | None = None


@dataclass(frozen=True)
class ServerPlan(Plan):
    """What is done, in this order: stop, settings and delete in one call, resizes, pool, power."""

    settings: Mapping[str, str] = field(default_factory=dict)  # PVE key -> new value
    delete: tuple[str, ...] = ()
    resizes: Mapping[str, int] = field(default_factory=dict)  # disk -> bytes
    pool: str | None = None  # "" leaves its pool
    power: str | None = None  # start, stop, reboot
    pending: tuple[str, ...] = ()  # what a running server takes only when it is power-cycled

    @property
    def reconfigures(self) -> bool:
        return bool(self.settings or self.delete)


class _Draft:
    """Collects a plan's parts."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.settings: dict[str, str] = {}
        self.delete: list[str] = []
        self.resizes: dict[str, int] = {}

    def set(self, key: str, value: str, *, item: str, before: Any, after: Any) -> None:
        self.settings[key] = value
        self.changes.append(Change(item, before, after))

    def unset(self, key: str, *, item: str, before: Any) -> None:
        self.delete.append(key)
        self.changes.append(Change(item, before, None))


def plan_server(spec: ServerSpec, guest: Guest, placement: Placement = Placement()) -> ServerPlan:
    """What makes an existing server what it should be. Raises PlanError when that cannot be."""
    target = f"server {spec.label}"
    if guest.is_template:
        raise PlanError(f"Unable to manage server {spec.label}: {guest.vmid} is a template")
    if spec.node is not None and spec.node != guest.node:
        raise PlanError(
            f"Unable to move server {spec.label} from {guest.node} to {spec.node}: migration is not done here"
        )
    draft = _Draft()
    _plan_name(spec, guest, draft)
    for key, value in spec.scalars.items():
        _plan_scalar(key, value, guest, draft)
    for key, disk in spec.disks.items():
        _plan_disk(spec, key, disk, guest, placement, draft)
    for key, nic in spec.nics.items():
        _plan_nic(spec, key, nic, guest, draft)
    if spec.cloud_init is not None:
        _plan_cloud_init(spec, spec.cloud_init, guest, placement, draft)
    _plan_agent(spec, guest, draft)
    _plan_boot_order(spec, guest, draft)
    _plan_tags(spec, guest, draft)
    _plan_description(spec, guest, draft)
    pool = None
    if spec.pool is not None and spec.pool != (guest.pool or ""):
        pool = spec.pool
        draft.changes.append(Change("pool", guest.pool, spec.pool or None))

    stays_up = guest.running and spec.state != "stopped"
    waiting = [
        key for key in (*draft.settings, *draft.delete) if not takes_effect_at_once(key, draft.settings.get(key), guest)
    ]
    waiting += sorted(guest.pending & _managed_keys(spec) - set(waiting))
    power = _plan_power(spec, guest, bool(waiting))
    if power:
        before = "running" if guest.running else "stopped"
        after = {"start": "running", "stop": "stopped", "reboot": "restarted"}[power]
        draft.changes.append(Change("power", before, after))
    return ServerPlan(
        target,
        tuple(draft.changes),
        draft.settings,
        tuple(draft.delete),
        draft.resizes,
        pool,
        power,
        tuple(waiting) if stays_up and power != "reboot" else (),
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
    plan = plan_server(replace(spec, node=None), Guest(None, node, spec.name or "", {"name": spec.name}), placement)
    return replace(plan, changes=(Change("server", None, f"empty server on {node}"), *plan.changes))


def cloned(spec: ServerSpec, source: Guest) -> Guest:
    """The server that PVE makes of `source`, before anything of it is changed."""
    config = {
        key: value
        for key, value in source.config.items()
        if key not in _NOT_CLONED and not re.fullmatch(r"unused\d+", key)
    }
    for key in [key for key in config if re.fullmatch(r"net\d+", key)]:
        # A clone's network devices get addresses of their own.
        config[key] = values.print_nic(replace(values.parse_nic(str(config[key])), mac=None))
    storage = spec.clone.storage if spec.clone else None
    if storage:
        for key, drive in source.disks().items():
            config[key] = values.print_drive(replace(drive, volume=f"{storage}:{drive.volume.partition(':')[2]}"))
    config["name"] = spec.name
    return Guest(None, spec.node or source.node, spec.name or "", config, pool=spec.pool)


def needs_config_of_clone(plan: ServerPlan) -> bool:
    """True when a setting keeps a volume whose name only PVE knows once the clone is there."""
    return any(
        re.fullmatch(r"(ide|sata|scsi|virtio)\d+", key) and not _is_new_volume(value)
        for key, value in plan.settings.items()
    )


def new_volume_storages(plan: ServerPlan) -> set[str]:
    """The storages on which the plan's settings allocate volumes."""
    drives = [
        values.parse_drive(value)
        for key, value in plan.settings.items()
        if re.fullmatch(r"(ide|sata|scsi|virtio)\d+", key) and _is_new_volume(value)
    ]
    return {drive.storage for drive in drives if drive.storage}


def takes_effect_at_once(key: str, value: str | None, guest: Guest) -> bool:
    """Whether a running guest takes a new value (None: removal) of a config key without a power cycle.

    Follows vmconfig_hotplug_pending of qemu-server's PVE/QemuServer.pm. After the change PVE's own pending list counts.
    """
    if not guest.running or key in _FAST:
        return True
    hotplug = _hotplug(guest)
    if key.startswith("net"):
        return "network" in hotplug
    if re.fullmatch(r"(scsi|virtio)\d+", key):
        before = guest.drive(key)
        if before is not None and value is not None:
            after = values.parse_drive(value)
            changed = {
                name
                for name in {**before.options, **after.options}
                if before.options.get(name) != after.options.get(name)
            }
            return changed <= _ONLINE_DRIVE_OPTIONS
        return "disk" in hotplug
    if key == "memory":
        return "memory" in hotplug
    if key == "balloon":
        # Switching the device itself on or off is not hot; its target is, when ballooning is manual (shares=0).
        return (
            str(guest.config.get("shares", "")) == "0" and value != "0" and str(guest.config.get("balloon", "")) != "0"
        )
    return False


def _hotplug(guest: Guest) -> set[str]:
    text = str(guest.config.get("hotplug", "1"))
    if text == "1":
        return {"network", "disk", "usb"}
    return set() if text == "0" else set(text.split(","))


def _managed_keys(spec: ServerSpec) -> set[str]:
    keys = set(spec.scalars) | set(spec.disks) | set(spec.nics)
    if spec.cloud_init is not None:
        keys |= _CLOUD_INIT_KEYS | set(spec.cloud_init.ipconfig)
    if spec.agent is not None:
        keys.add("agent")
    if spec.boot_order is not None:
        keys.add("boot")
    return keys


def _plan_name(spec: ServerSpec, guest: Guest, draft: _Draft) -> None:
    if spec.name is None or spec.name == guest.name:
        return
    if not spec.rename:
        raise PlanError(
            f"Unable to manage server {spec.name}: {guest.vmid} is named {guest.name}; "
            "say rename: true if that server shall get the new name"
        )
    draft.set("name", spec.name, item="name", before=guest.name, after=spec.name)


def _plan_scalar(key: str, value: str, guest: Guest, draft: _Draft) -> None:
    raw = guest.config.get(key, _DEFAULTS.get(key))
    before = None if raw is None else str(raw)
    if key == "memory" and before is not None:
        before = values.parse_properties(before, "current")["current"]
    if key == "cpu" and before is not None and _same_properties(before, value, "cputype"):
        return
    if before != value:
        draft.set(key, value, item=key, before=_typed(before), after=_typed(value))


def _plan_disk(spec: ServerSpec, key: str, disk: DiskSpec, guest: Guest, placement: Placement, draft: _Draft) -> None:
    present = guest.drive(key)
    if disk.detached:
        _plan_detach(spec, key, present, guest, draft)
    elif present is None:
        _plan_new_disk(spec, key, disk, guest, placement, draft)
    elif present.is_cdrom or present.is_cloudinit:
        raise PlanError(f"Unable to manage disk {key} of server {spec.label}: it is a CD-ROM or cloud-init drive")
    else:
        _plan_present_disk(spec, key, disk, present, draft)


def _plan_detach(spec: ServerSpec, key: str, present: values.Drive | None, guest: Guest, draft: _Draft) -> None:
    if present is None:
        return
    if guest.running and spec.state != "stopped" and key in values.parse_boot(str(guest.config.get("boot", ""))):
        raise PlanError(
            f"Unable to detach {key} of server {spec.label}: it boots from it and is running; stop it first"
        )
    draft.unset(key, item=key, before=values.print_drive(present))


def _plan_new_disk(
    spec: ServerSpec, key: str, disk: DiskSpec, guest: Guest, placement: Placement, draft: _Draft
) -> None:
    if disk.size is None:
        raise PlanError(f"Unable to create disk {key} of server {spec.label}: it has no size")
    storage = disk.storage or _storage_for(spec, guest, placement)
    if storage is None:
        raise PlanError(
            f"Unable to create disk {key} of server {spec.label}: no storage is given, and there is no default"
        )
    options = _without_defaults(disk.options, _DRIVE_DEFAULTS)
    if disk.format:
        options["format"] = disk.format
    value = values.print_drive(values.Drive(f"{storage}:{_gibibytes(disk.size)}", options))
    shown = values.print_drive(values.Drive(storage, {"size": values.print_size(disk.size), **options}))
    draft.set(key, value, item=key, before=None, after=shown)


def _plan_present_disk(spec: ServerSpec, key: str, disk: DiskSpec, present: values.Drive, draft: _Draft) -> None:
    if disk.storage and disk.storage != present.storage:
        raise PlanError(
            f"Unable to move {key} of server {spec.label} from {present.storage} to {disk.storage}: "
            "disks are not moved here"
        )
    merged = _without_defaults({**present.options, **disk.options}, _DRIVE_DEFAULTS)
    for name in disk.options:
        before, after = (present.options.get(name, _DRIVE_DEFAULTS.get(name)), disk.options[name])
        if before != after:
            draft.settings[key] = values.print_drive(values.Drive(present.volume, merged))
            draft.changes.append(Change(f"{key}.{name}", before, after))
    if disk.size is None:
        return
    if present.size is None:
        raise PlanError(f"Unable to resize {key} of server {spec.label}: PVE does not say how large it is")
    if disk.size > present.size:
        draft.resizes[key] = disk.size
        draft.changes.append(Change(f"{key}.size", values.print_size(present.size), values.print_size(disk.size)))
    elif present.size - disk.size >= ROUNDING:
        raise PlanError(
            f"Unable to resize {key} of server {spec.label} from {values.print_size(present.size)} "
            f"to {values.print_size(disk.size)}: PVE disks cannot shrink"
        )


def _plan_nic(spec: ServerSpec, key: str, nic: NicSpec, guest: Guest, draft: _Draft) -> None:
    text = guest.config.get(key)
    present = None if text is None else values.parse_nic(str(text))
    if nic.absent:
        if present is not None:
            draft.unset(key, item=key, before=values.print_nic(present))
        return
    if present is None and "bridge" not in nic.options:
        raise PlanError(f"Unable to create network device {key} of server {spec.label}: it has no bridge")
    base = present or values.Nic("virtio")
    merged = values.Nic(
        nic.model or base.model,
        nic.mac or base.mac,
        _without_defaults({**base.options, **nic.options}, _NIC_DEFAULTS),
    )
    if present is None or replace(present, options=_without_defaults(present.options, _NIC_DEFAULTS)) != merged:
        draft.set(
            key,
            values.print_nic(merged),
            item=key,
            before=None if present is None else values.print_nic(present),
            after=values.print_nic(merged),
        )


def _plan_cloud_init(
    spec: ServerSpec, wanted: CloudInitSpec, guest: Guest, placement: Placement, draft: _Draft
) -> None:
    if guest.cloud_init_drive() is None:
        taken = set(guest.config) | set(spec.disks)
        slot = next((slot for slot in _CLOUD_INIT_SLOTS if slot not in taken), None)
        storage = wanted.storage or _storage_for(spec, guest, placement)
        if slot is None or storage is None:
            missing = "slot" if slot is None else "storage"
            raise PlanError(f"Unable to add a cloud-init drive to server {spec.label}: there is no {missing} for it")
        draft.set(slot, f"{storage}:cloudinit", item=slot, before=None, after=f"{storage}:cloudinit")
    for key, value in (("ciuser", wanted.user), ("citype", wanted.type), ("searchdomain", wanted.searchdomain)):
        if value is not None:
            _plan_text(key, value, guest, draft)
    if wanted.password is not None and (wanted.update_password or guest.vmid is None or guest.unfinished):
        # PVE keeps only a hash, and shows not even that.
        draft.set("cipassword", wanted.password, item="cipassword", before=None, after=HIDDEN)
    if wanted.ssh_keys is not None:
        before_keys = values.parse_ssh_keys(str(guest.config.get("sshkeys", "")))
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
        text = guest.config.get(key)
        if text is None or values.parse_ipconfig(str(text)) != config:
            draft.set(key, values.print_ipconfig(config), item=key, before=text, after=values.print_ipconfig(config))
    if wanted.nameservers is not None:
        before_servers = tuple(re.split(r"[\s,;]+", str(guest.config.get("nameserver", "")).strip()))
        if tuple(server for server in before_servers if server) != wanted.nameservers:
            _plan_text("nameserver", " ".join(wanted.nameservers), guest, draft)


def _plan_text(key: str, value: str, guest: Guest, draft: _Draft) -> None:
    """A free text that is removed by being empty."""
    before = guest.config.get(key)
    if (before or "") == value:
        return
    if value:
        draft.set(key, value, item=key, before=before, after=value)
    else:
        draft.unset(key, item=key, before=before)


def _plan_agent(spec: ServerSpec, guest: Guest, draft: _Draft) -> None:
    if spec.agent is None:
        return
    properties = values.parse_properties(str(guest.config["agent"]), "enabled") if "agent" in guest.config else {}
    before = values.parse_bool(properties.get("enabled", "0"))
    if before != spec.agent:
        properties["enabled"] = "1" if spec.agent else "0"
        draft.set(
            "agent", values.print_properties(properties, "enabled"), item="agent", before=before, after=spec.agent
        )


def _plan_boot_order(spec: ServerSpec, guest: Guest, draft: _Draft) -> None:
    if spec.boot_order is None:
        return
    before = values.parse_boot(str(guest.config["boot"])) if "boot" in guest.config else ()
    if before == spec.boot_order:
        return
    there = (set(guest.config) | set(draft.settings)) - set(draft.delete)
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


def _plan_tags(spec: ServerSpec, guest: Guest, draft: _Draft) -> None:
    """`tags` are all tags but the role's; `role` is the tag role-…, which a list of tags leaves alone."""
    if spec.tags is None and spec.role is None:
        return
    before = values.parse_tags(str(guest.config.get("tags", "")))
    roles = {tag for tag in before if tag.lower().startswith(ROLE_PREFIX)}
    after = set(before - roles if spec.tags is None else spec.tags)
    after |= roles if spec.role is None else {ROLE_PREFIX + spec.role}
    if values.same_tags(before, after):
        return
    if after:
        draft.set("tags", values.print_tags(after), item="tags", before=sorted(before) or None, after=sorted(after))
    else:
        draft.unset("tags", item="tags", before=sorted(before))


def _plan_description(spec: ServerSpec, guest: Guest, draft: _Draft) -> None:
    raw = str(guest.config.get("description", ""))
    before = without_marker(raw)
    wanted = before if spec.description is None else spec.description.strip()
    if guest.unfinished:
        draft.changes.append(Change("creation", "interrupted", "finished"))
    if wanted != before:
        draft.changes.append(Change("description", before or None, wanted or None))
    if wanted != raw.strip():
        if wanted:
            draft.settings["description"] = wanted
        else:
            draft.delete.append("description")


def without_marker(description: str) -> str:
    """The notes that a server has, or will have once it is finished."""
    if not description.startswith(MARKER):
        return description.strip()
    return description.partition("\n")[2].strip()


def _plan_power(spec: ServerSpec, guest: Guest, waiting: bool) -> str | None:
    if spec.state == "stopped":
        return "stop" if guest.running else None
    if guest.running:
        return "reboot" if spec.state == "restarted" or (waiting and spec.power_cycle) else None
    return "start" if spec.state in ("started", "restarted") else None


def _storage_for(spec: ServerSpec, guest: Guest, placement: Placement) -> str | None:
    """A new volume goes to the clone's storage, the cluster's default, or beside the first disk, in this order."""
    if spec.clone and spec.clone.storage:
        return spec.clone.storage
    return placement.default_storage or next((drive.storage for drive in guest.disks().values() if drive.storage), None)


def _gibibytes(size: int) -> str:
    """PVE takes the size of a new volume in GiB, fractions allowed; exact for whole KiB."""
    return format((Decimal(size) / 1024**3).normalize(), "f")


def _is_new_volume(value: str) -> bool:
    volume = values.parse_drive(value).volume
    return volume.endswith(":cloudinit") or bool(re.fullmatch(r"[^/:\s]+:\d+(\.\d+)?", volume))


def _without_defaults(options: Mapping[str, str], defaults: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in options.items() if defaults.get(key) != value}


def _same_properties(one: str, other: str, default_key: str) -> bool:
    return values.parse_properties(one, default_key) == values.parse_properties(other, default_key)


def _typed(value: str | None) -> Any:
    return int(value) if value is not None and value.isdigit() else value
