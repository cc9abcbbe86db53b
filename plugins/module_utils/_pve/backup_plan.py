# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups as they are and as they are wanted: options checked, backups chosen, changes planned. No I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from ansible_collections.pvefleet.infra.plugins.module_utils._plan import Change, Plan
from ansible_collections.pvefleet.infra.plugins.module_utils._pve import values
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.errors import Unable

KEEP = ("keep_all", "keep_last", "keep_hourly", "keep_daily", "keep_weekly", "keep_monthly", "keep_yearly")
# The options by which backups are chosen; the same in both modules.
SELECTION_OPTIONS: dict[str, dict[str, Any]] = {
    "server": {"type": "str"},
    "vmid": {"type": "int"},
    "storage": {"type": "str"},
    "node": {"type": "str"},
    "notes": {"type": "str"},
    "max_age": {"type": "str"},
    "older_than": {"type": "str"},
}
BACKUP_OPTIONS: dict[str, dict[str, Any]] = {
    **SELECTION_OPTIONS,
    "volid": {"type": "str"},
    "mode": {"type": "str", "choices": ["snapshot", "suspend", "stop"]},
    "compress": {"type": "str", "choices": ["0", "1", "gzip", "lzo", "zstd"]},
    "prune_backups": {
        "type": "dict",
        "options": {name: {"type": "bool" if name == "keep_all" else "int"} for name in KEEP},
    },
    "protected": {"type": "bool"},
    "target_vmid": {"type": "int"},
    "target_name": {"type": "str"},
    "target_storage": {"type": "str"},
    "start": {"type": "bool", "default": False},
    "force": {"type": "bool", "default": False},
    "unique": {"type": "bool", "default": False},
    "timeout": {"type": "int", "default": 3600},
    "state": {"type": "str", "choices": ["present", "restored", "absent"], "default": "present"},
}
# Options that are off unless given.
_SWITCHES = ("start", "force", "unique")
# Which options mean something in which state; an option that would be silently ignored is an error.
_MEANING = {
    "mode": ("present",),
    "compress": ("present",),
    "prune_backups": ("present",),
    "protected": ("present",),
    "max_age": ("present", "restored"),
    "older_than": ("absent",),
    "target_vmid": ("restored",),
    "target_name": ("restored",),
    "target_storage": ("restored",),
    "start": ("restored",),
    "force": ("restored",),
    "unique": ("restored",),
}
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_DURATION = re.compile(r"([0-9]{1,9})([smhdw])")
_VOLID = re.compile(r"([A-Za-z][A-Za-z0-9._-]*):(backup/\S+)")
_OWNER = re.compile(r":backup/(?:vzdump-(?:qemu|lxc|openvz)-|vm/|ct/)([1-9][0-9]{2,8})[-/]")
_CONFIG_LINE = re.compile(r"^([a-z][a-z0-9_-]*): *(.*)$", re.MULTILINE)
_UUID = re.compile(r"(?:^|,)uuid=([0-9A-Fa-f-]{36})(?:,|$)")
# PVE's own limit of `notes-template`, escapes included.
_NOTES_LENGTH = 1024


@dataclass(frozen=True)
class Backup:
    """A backup on a storage. node: where it can be read. ctime: Unix seconds by the clock of its node. size: bytes."""

    volid: str
    node: str
    storage: str
    shared: bool
    vmid: int | None
    ctime: int
    size: int
    format: str
    notes: str = ""
    protected: bool = False
    subtype: str | None = None
    verification: Mapping[str, Any] | None = None

    @property
    def is_container(self) -> bool:
        return self.subtype == "lxc" or "/vzdump-lxc-" in self.volid or "/ct/" in self.volid

    @property
    def archive(self) -> str:
        """The part of the volume id by which logs name it."""
        return self.volid.partition(":backup/")[2]

    def describe(self) -> dict[str, Any]:
        """The backup in plain values, as the modules return it."""
        shown: dict[str, Any] = {
            "volid": self.volid,
            "node": self.node,
            "storage": self.storage,
            "vmid": self.vmid,
            "ctime": datetime.fromtimestamp(self.ctime, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "size": self.size,
            "notes": self.notes,
            "protected": self.protected,
            "format": self.format,
        }
        return {**shown, "verification": dict(self.verification)} if self.verification else shown


def backup_from(row: Mapping[str, Any], *, node: str, storage: str, shared: bool) -> Backup:
    """A row of a storage's content."""
    vmid = row.get("vmid")
    return Backup(
        volid=str(row["volid"]),
        node=node,
        storage=storage,
        shared=shared,
        vmid=None if vmid is None else int(vmid),
        ctime=int(row.get("ctime") or 0),
        size=int(row.get("size") or 0),
        format=str(row.get("format") or ""),
        notes=str(row.get("notes") or "").strip(),
        protected=bool(int(row.get("protected") or 0)),
        subtype=row.get("subtype"),
        verification=row.get("verification"),
    )


@dataclass(frozen=True)
class Selection:
    """Which backups are meant. Ages are seconds; None and empty: any."""

    server: str | None = None
    vmid: int | None = None
    storage: str | None = None
    node: str | None = None
    notes: str | None = None
    max_age: int | None = None
    older_than: int | None = None

    @property
    def needs_clock(self) -> bool:
        return self.max_age is not None or self.older_than is not None

    @property
    def label(self) -> str:
        return self.server or str(self.vmid)

    def chosen(self, backups: Iterable[Backup], now: Mapping[str, int]) -> list[Backup]:
        """Those of a server's backups that are meant, the newest first. now: Unix seconds by node."""
        fitting = [
            backup
            for backup in backups
            if (self.notes is None or backup.notes == self.notes)
            and (self.max_age is None or now[backup.node] - backup.ctime < self.max_age)
            and (self.older_than is None or now[backup.node] - backup.ctime > self.older_than)
        ]
        return newest_first(fitting)


@dataclass(frozen=True)
class BackupSpec:
    """What a task says. prune: PVE's own property string, None when nothing is said of it. timeout: seconds."""

    selection: Selection
    state: str = "present"
    volid: str | None = None
    notes: str | None = None
    mode: str | None = None
    compress: str | None = None
    prune: str | None = None
    protected: bool | None = None
    target_vmid: int | None = None
    target_name: str | None = None
    target_storage: str | None = None
    start: bool = False
    force: bool = False
    unique: bool = False
    timeout: float = 3600

    @property
    def what(self) -> str:
        """What the task is about, for sentences."""
        if self.volid:
            return f"backup {self.volid}"
        one = "the backups" if self.state == "absent" else "a backup"
        return f"{one} of server {self.selection.label}"

    @property
    def storage(self) -> str | None:
        return self.volid.partition(":")[0] if self.volid else self.selection.storage


def backup_spec(params: Mapping[str, Any]) -> BackupSpec:
    """The options of pve_backup, checked. Unable with one sentence that names the option."""
    state = params.get("state") or "present"
    for name, states in _MEANING.items():
        given = params.get(name) is not None and (name not in _SWITCHES or params[name])
        if given and state not in states:
            raise Unable(f"{name}: it has no meaning with state={state}, only with {' and '.join(states)}")
    volid = params.get("volid")
    if volid is not None:
        _check_volid(params, volid, state)
    elif params.get("server") is None and params.get("vmid") is None:
        raise Unable("server: give server, vmid or volid")
    if state == "absent" and volid is None and params.get("notes") is None and params.get("older_than") is None:
        raise Unable("state: absent needs volid, notes or older_than, for it does not remove all backups of a server")
    notes = params.get("notes")
    if notes is not None:
        notes = _checked_notes(notes, may_be_empty=volid is not None)
    target = params.get("target_vmid")
    if target is not None and not 100 <= target <= 999999999:
        raise Unable(f"target_vmid: {target} is not between 100 and 999999999")
    check_storage("target_storage", params.get("target_storage"))
    new_name = params.get("target_name")
    if new_name is not None:
        try:
            values.server_name(new_name)
        except ValueError as error:
            raise Unable(f"target_name: {error}") from error
    timeout = params.get("timeout", 3600)
    if timeout < 1:
        raise Unable(f"timeout: {timeout} is not a positive number of seconds")
    return BackupSpec(
        selection=selection(params),
        state=state,
        volid=volid,
        notes=notes,
        mode=params.get("mode"),
        compress=params.get("compress"),
        prune=prune_string(params.get("prune_backups")),
        protected=params.get("protected"),
        target_vmid=target,
        target_name=new_name,
        target_storage=params.get("target_storage"),
        start=bool(params.get("start")),
        force=bool(params.get("force")),
        unique=bool(params.get("unique")),
        timeout=timeout,
    )


def selection(params: Mapping[str, Any]) -> Selection:
    """The options that choose backups, checked. Digits as `server` are a vmid."""
    server, vmid = params.get("server"), params.get("vmid")
    if server is not None and not server.strip():
        raise Unable("server: it is empty")
    if server is not None and re.fullmatch(r"[0-9]{1,9}", server):
        number = int(server)
        if vmid not in (None, number):
            raise Unable(f"vmid: {vmid} is not the server {server}")
        server, vmid = None, number
    if vmid is not None and not 100 <= vmid <= 999999999:
        raise Unable(f"vmid: {vmid} is not between 100 and 999999999")
    check_storage("storage", params.get("storage"))
    notes = params.get("notes")
    return Selection(
        server=server,
        vmid=vmid,
        storage=params.get("storage"),
        node=params.get("node"),
        notes=None if notes is None else notes.strip(),
        max_age=duration("max_age", params.get("max_age")),
        older_than=duration("older_than", params.get("older_than")),
    )


def check_storage(option: str, name: str | None) -> None:
    try:
        if name is not None:
            values.storage_id(name)
    except ValueError as error:
        raise Unable(f"{option}: {error}") from error


def duration(option: str, text: str | None) -> int | None:
    """Seconds of `90m`, `12h`, `1d`, `2w`, or `0`."""
    if text is None:
        return None
    found = _DURATION.fullmatch(text.strip())
    if text.strip() == "0":
        return 0
    if found is None:
        raise Unable(f"{option}: {text!r} is not a duration such as 90m, 12h, 1d or 2w")
    return int(found[1]) * _SECONDS[found[2]]


def prune_string(options: Mapping[str, Any] | None) -> str | None:
    """PVE's `prune-backups` of the option's mapping."""
    if options is None:
        return None
    given = {name: options[name] for name in KEEP if options.get(name) is not None}
    numbers = {name: value for name, value in given.items() if name != "keep_all"}
    negative = [name for name, value in numbers.items() if value < 0]
    if negative:
        raise Unable(f"prune_backups: {negative[0]} is negative")
    if given.get("keep_all") and any(numbers.values()):
        raise Unable("prune_backups: keep_all and the other numbers exclude each other")
    if not given.get("keep_all") and not any(numbers.values()):
        raise Unable("prune_backups: it keeps nothing; give one of keep_last, keep_daily and the like, or keep_all")
    if given.get("keep_all"):
        return "keep-all=1"
    return ",".join(f"{name.replace('_', '-')}={value}" for name, value in numbers.items())


def owner_of(volid: str) -> int | None:
    """The vmid in the name that PVE, or a Proxmox Backup Server, gives a backup; None in any other name."""
    found = _OWNER.search(volid)
    return int(found[1]) if found else None


def archived_config(text: str) -> dict[str, str]:
    """A guest's config as an archive has it: `key: value` lines, comments, and sections for what is not in force."""
    return dict(_CONFIG_LINE.findall(f"\n{text}".partition("\n[")[0]))


def system_uuid(smbios: str) -> str | None:
    """What tells a server from all others, of its `smbios1`."""
    found = _UUID.search(smbios)
    return found[1].lower() if found else None


def notes_template(notes: str) -> str:
    """Notes as vzdump takes them literally."""
    return notes.replace("\\", "\\\\")


def _check_volid(params: Mapping[str, Any], volid: str, state: str) -> None:
    found = _VOLID.fullmatch(volid)
    if found is None:
        raise Unable(f"volid: {volid!r} is not the volume id of a backup, as in local:backup/vzdump-qemu-100-...")
    storage = params.get("storage")
    if storage is not None and storage != found[1]:
        raise Unable(f"storage: {storage} is not the storage of {volid}")
    others = [name for name in ("server", "vmid", "max_age", "older_than") if params.get(name) is not None]
    others += [name for name in ("mode", "compress", "prune_backups") if params.get(name) is not None]
    if state != "present" and params.get("notes") is not None:
        others.append("notes")
    if others:
        raise Unable(f"{others[0]}: it has no meaning beside volid, which says which backup is meant")


def _checked_notes(notes: str, *, may_be_empty: bool) -> str:
    notes = notes.strip()
    if not notes and not may_be_empty:
        raise Unable("notes: they are empty, and so no backup can be recognised by them")
    if not notes.isprintable():
        raise Unable("notes: they must be one line of text, for PVE lists only the first one")
    if "{{" in notes:
        raise Unable("notes: PVE would replace what stands in {{ }}, and the backup could not be recognised by them")
    if len(notes_template(notes)) > _NOTES_LENGTH:
        raise Unable(f"notes: they are longer than {_NOTES_LENGTH} characters")
    return notes


# ------------------------------------------------------------------------ plans


def newest_first(backups: Iterable[Backup]) -> list[Backup]:
    return sorted(backups, key=lambda backup: (-backup.ctime, backup.volid, backup.node))


@dataclass(frozen=True)
class BackupPlan:
    """found: the backup that is there, None when one has to be taken. settings: what PVE is to change of it."""

    plan: Plan
    found: Backup | None = None
    settings: Mapping[str, object] = field(default_factory=dict)


def plan_present(spec: BackupSpec, backups: Iterable[Backup], now: Mapping[str, int], *, target: str) -> BackupPlan:
    """One of a server's backups is kept, or a new one is taken. target: `server web-01 (100) on local`.

    Without volid, notes and max_age nothing tells the wanted one from others: it is taken each time.
    """
    chosen = spec.selection
    recognisable = spec.volid is not None or chosen.notes is not None or chosen.max_age is not None
    found = chosen.chosen(backups, now) if spec.volid is None else list(backups)
    if not recognisable or not found:
        changes = [Change("backup", None, f"of {target}")]
        changes += [Change("notes", None, spec.notes)] if spec.notes else []
        changes += [Change("protected", None, True)] if spec.protected else []
        return BackupPlan(Plan(f"backup of {target}", tuple(changes)))
    # Of several that will do, one that needs no change is the best.
    plans = [plan_settings(spec, backup) for backup in found]
    return next((plan for plan in plans if not plan.plan.changed), plans[0])


def plan_settings(spec: BackupSpec, backup: Backup) -> BackupPlan:
    """Notes and protection of one backup."""
    changes, settings = [], dict[str, object]()
    if spec.volid is not None and spec.notes is not None and spec.notes != backup.notes:
        changes.append(Change("notes", backup.notes, spec.notes))
        settings["notes"] = spec.notes
    if spec.protected is not None and spec.protected != backup.protected:
        changes.append(Change("protected", backup.protected, spec.protected))
        settings["protected"] = spec.protected
    return BackupPlan(Plan(f"backup {backup.volid}", tuple(changes)), backup, settings)


def plan_absent(spec: BackupSpec, backups: Iterable[Backup], now: Mapping[str, int]) -> tuple[Plan, list[Backup]]:
    """What is removed, the oldest first. A protected backup is left, or refused where the task names it."""
    chosen = list(backups) if spec.volid else spec.selection.chosen(backups, now)
    if spec.volid and any(backup.protected for backup in chosen):
        raise Unable(f"Unable to remove backup {spec.volid}: it is protected; set protected: false first")
    doomed = [backup for backup in reversed(newest_first(chosen)) if not backup.protected]
    return Plan(spec.what, tuple(Change(backup.volid, f"on {backup.node}", None) for backup in doomed)), doomed
