# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A storage definition as a task wants it, and what has to change for it. Pure: no call is made here.

Properties have PVE's own names and are texts in one canonical form, so that two that mean the same are equal.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.pvefleet.infra.plugins.module_utils._plan import Change, Plan
from ansible_collections.pvefleet.infra.plugins.module_utils._pve import values
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.errors import Unable

_NODE = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?", re.I)
_FILES = ("images", "rootdir", "vztmpl", "iso", "backup", "snippets", "import")
_YES = ("1", "true", "yes", "on")
_NO = ("0", "false", "no", "off")


@dataclass(frozen=True)
class Backend:
    """A storage type of PVE. content: what it can hold; default: what it holds when it is not told.

    required: what its definition cannot be without. accepts: further module options that it knows, None for all.
    """

    content: tuple[str, ...]
    default: tuple[str, ...]
    required: tuple[str, ...] = ()
    accepts: frozenset[str] | None = None


def _known(*options: str) -> frozenset[str]:
    return frozenset(("content", "nodes", "disable", *options))


BACKENDS: Mapping[str, Backend] = {
    "dir": Backend(
        (*_FILES, "none"),
        ("images", "rootdir"),
        ("path",),
        _known("path", "shared", "mkdir", "is_mountpoint", "preallocation", "prune-backups"),
    ),
    "nfs": Backend(
        _FILES,
        ("images",),
        ("server", "export"),
        _known("server", "export", "path", "options", "mkdir", "preallocation", "prune-backups"),
    ),
    "lvm": Backend(("images", "rootdir"), ("images",), ("vgname",), _known("vgname", "shared")),
    "lvmthin": Backend(
        ("images", "rootdir"), ("images", "rootdir"), ("vgname", "thinpool"), _known("vgname", "thinpool")
    ),
    "zfspool": Backend(("images", "rootdir"), ("images", "rootdir"), ("pool",), _known("pool", "sparse", "blocksize")),
    # Reached by `settings`: only what can be checked for sure.
    "btrfs": Backend((*_FILES, "none"), ("images", "rootdir"), ("path",)),
    "cifs": Backend(_FILES, ("images",), ("server", "share")),
    "cephfs": Backend(("vztmpl", "iso", "backup", "snippets", "import"), ("backup",)),
    "rbd": Backend(("images", "rootdir"), ("images",)),
    "iscsi": Backend(("images", "none"), ("images",), ("portal", "target")),
    "iscsidirect": Backend(("images", "none"), ("images",), ("portal", "target")),
    "zfs": Backend(("images",), ("images",), ("portal", "target", "pool", "blocksize", "iscsiprovider")),
    "pbs": Backend(("backup", "none"), ("backup",), ("server", "datastore")),
}

# Properties that PVE never changes in a definition: of every type that has them, and of some types only.
_FIXED = frozenset(
    {
        *("authsupported", "base", "datastore", "export", "iscsiprovider", "mountpoint", "path", "portal", "share"),
        *("target", "thinpool", "vgname"),
    }
)
_CHAINED = "snapshot-as-volume-chain"
_FIXED_OF: Mapping[str, frozenset[str]] = {
    "btrfs": frozenset({_CHAINED}),
    "cifs": frozenset({"server", _CHAINED}),
    "dir": frozenset({_CHAINED}),
    "nfs": frozenset({"server", _CHAINED}),
    "pbs": frozenset({"server"}),
    "zfs": frozenset({"pool", "blocksize"}),
    "zfspool": frozenset({"pool"}),
}
# Kept apart from storage.cfg by PVE, which never shows them again.
SECRETS = ("encryption-key", "keyring", "master-pubkey", "password")
BOOLEANS = frozenset(
    {
        *(
            "create-base-path",
            "create-subdirs",
            "disable",
            "fuse",
            "krbd",
            "mkdir",
            "nocow",
            "nowritecache",
            "saferemove",
        ),
        *("shared", "skip-cert-verification", "sparse", "tagged_only", _CHAINED),
    }
)
# What is meant when a definition does not say.
_ABSENT = {
    **dict.fromkeys(BOOLEANS, "0"),
    **dict.fromkeys(("create-base-path", "create-subdirs", "mkdir"), "1"),
    "is_mountpoint": "no",
}
_LISTS = frozenset({"content", "nodes"})
_KEEP = frozenset(f"keep-{span}" for span in ("all", "last", "hourly", "daily", "weekly", "monthly", "yearly"))
# Module options under PVE's own names; the rest of a definition comes from `settings`.
OPTIONS: Mapping[str, str] = {
    "pool": "pool",
    "vgname": "vgname",
    "thinpool": "thinpool",
    "server": "server",
    "export": "export",
    "path": "path",
    "options": "options",
    "content": "content",
    "nodes": "nodes",
    "shared": "shared",
    "disable": "disable",
    "preallocation": "preallocation",
    "mkdir": "mkdir",
    "is_mountpoint": "is_mountpoint",
    "sparse": "sparse",
    "blocksize": "blocksize",
    "prune_backups": "prune-backups",
}


@dataclass(frozen=True)
class StorageSpec:
    """What a storage shall be. type: None leaves it as it is. wanted: property -> canonical text, "" for none.

    secrets: sent when the storage is defined, and on every run with renew_secrets. wait_timeout: seconds.
    """

    name: str
    state: str = "present"
    type: str | None = None
    wanted: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    renew_secrets: bool = False
    wait: bool = True
    wait_timeout: int = 60
    force: bool = False

    @property
    def nodes(self) -> tuple[str, ...]:
        """The nodes that the task names, if it does."""
        return tuple(split(self.wanted.get("nodes", "")))


def storage_spec(params: Mapping[str, Any]) -> StorageSpec:
    """The spec that a task's parameters add up to; what they do not have is as the module's defaults.

    Raises Unable, naming the option.
    """
    name = params["name"]
    try:
        try:
            values.storage_id(name)
        except ValueError as error:
            raise ValueError(f"name: {error}") from None
        wanted = _wanted(params)
        secrets = {str(key): value for key, value in (params.get("secrets") or {}).items()}
        for key, value in secrets.items():
            if key not in SECRETS:
                raise ValueError(f"secrets: unknown secret {key}; known are {', '.join(SECRETS)}")
            if not isinstance(value, str) or not value:
                raise ValueError(f"secrets.{key}: must be a text that is not empty")
        kind = params.get("type")
        if params.get("state", "present") == "present" and kind is not None:
            _check(kind, wanted)
        if params.get("wait_timeout", 0) < 0:
            raise ValueError("wait_timeout: cannot be negative")
    except ValueError as error:
        raise Unable(f"Unable to manage storage {name}: {error}") from None
    return StorageSpec(
        name=name,
        type=kind,
        wanted=wanted,
        secrets=secrets,
        renew_secrets=params.get("update_secrets") == "always",
        **{key: params[key] for key in ("state", "wait", "wait_timeout", "force") if key in params},
    )


def _wanted(params: Mapping[str, Any]) -> dict[str, str]:
    wanted = {key: canonical(key, params[option]) for option, key in OPTIONS.items() if params.get(option) is not None}
    for setting, value in (params.get("settings") or {}).items():
        key = str(setting)
        option = next((option for option, name in OPTIONS.items() if key in (option, name)), None)
        if option or key in ("storage", "type"):
            raise ValueError(f"settings.{key}: is the module's option {option or {'storage': 'name'}.get(key, key)}")
        if key in SECRETS:
            raise ValueError(f"settings.{key}: belongs into secrets, whose values are never shown")
        if key in ("delete", "digest"):
            raise ValueError(f"settings.{key}: is no property of a storage")
        wanted[key] = canonical(key, "" if value is None else value)
    for node in split(wanted.get("nodes", "")):
        if not _NODE.fullmatch(node):
            raise ValueError(f"nodes: {node!r} is not the name of a node")
    return wanted


def _check(kind: str, wanted: Mapping[str, str]) -> None:
    """What can be said of a type's definition without looking. ValueError."""
    backend = BACKENDS.get(kind)
    if backend is None:
        if wanted.get("content") == "":
            raise ValueError(f"content: what storages of type {kind} hold by default is not known; name it")
        return
    if backend.accepts is not None:
        names = {key: option for option, key in OPTIONS.items()}
        for key in wanted:
            if key in names and key not in backend.accepts:
                known = ", ".join(sorted(names[name] for name in backend.accepts))
                raise ValueError(f"{names[key]}: does not go with type {kind}, which takes {known}")
    content = split(wanted.get("content", ""))
    for item in content:
        if item not in backend.content:
            raise ValueError(f"content: type {kind} does not hold {item}, only {', '.join(sorted(backend.content))}")
    if "none" in content and len(content) > 1:
        raise ValueError("content: none stands alone")


def canonical(key: str, value: Any) -> str:
    """One text for everything that means the same. ValueError for what the property cannot be."""
    if isinstance(value, Mapping) and key != "prune-backups":
        raise ValueError(f"{key}: must be a text, a number, a boolean or a list")
    if key in _LISTS:
        items = split(value) if isinstance(value, str) else [str(item).strip() for item in value]
        crowded = next((item for item in items if len(split(item)) > 1), None)
        if crowded is not None:
            raise ValueError(f"{key}: {crowded!r} is more than one item")
        return ",".join(sorted({item for item in items if item}))
    if key == "prune-backups":
        return _keep(value)
    if isinstance(value, bool):
        text = "1" if value else "0"
    elif isinstance(value, list | tuple):
        text = ",".join(str(item) for item in value).strip()
    else:
        text = str(value).strip()
    if key in BOOLEANS and text:
        if text.lower() not in (*_YES, *_NO):
            raise ValueError(f"{key}: {text!r} is neither true nor false")
        return "1" if text.lower() in _YES else "0"
    if key == "is_mountpoint":  # yes, no, or a path
        return "yes" if text.lower() in _YES else "no" if text.lower() in _NO else text
    if key in ("path", "export") and text.startswith("/"):
        return text.rstrip("/") or "/"
    return text


def _keep(value: Any) -> str:
    parts = dict(value) if isinstance(value, Mapping) else dict(part.partition("=")[::2] for part in split(value))
    rules: dict[str, str] = {}
    for spelled, count in parts.items():
        key = str(spelled).replace("_", "-")  # as the options of pve_backup are spelled
        if key in rules:
            raise ValueError(f"prune-backups: {key} is given twice")
        if key not in _KEEP:
            raise ValueError(f"prune-backups: unknown rule {key}; known are {', '.join(sorted(_KEEP))}")
        if key == "keep-all":
            rules[key] = canonical("disable", count)  # a boolean, too
        elif not re.fullmatch(r"\d{1,9}", str(count)) or isinstance(count, bool):
            raise ValueError(f"prune-backups: {key} must be a number")
        else:
            rules[key] = str(int(count))
    if rules.get("keep-all") == "1" and len(rules) > 1:
        raise ValueError("prune-backups: keep-all stands alone")
    return ",".join(f"{key}={rules[key]}" for key in sorted(rules))


def split(text: str) -> list[str]:
    """The items of one of PVE's lists."""
    return [item for item in re.split(r"[\s,;]+", text) if item]


def properties(config: Mapping[str, Any]) -> dict[str, str]:
    """A definition as PVE tells it, in canonical form, without what is no property."""
    told = {}
    for key, value in config.items():
        if key in ("storage", "digest", "type") or value is None:
            continue
        try:
            told[key] = canonical(key, value)
        except ValueError:
            told[key] = str(value)  # written by a newer PVE, or by hand
    return told


def fixed(kind: str) -> frozenset[str]:
    """The properties that a definition of this type keeps for good."""
    return _FIXED | _FIXED_OF.get(kind, frozenset())


def plan(current: Mapping[str, Any] | None, spec: StorageSpec) -> Plan:
    """What has to change. current: the definition as PVE tells it, None when there is none.

    Raises Unable for what PVE would refuse.
    """
    target = f"storage {spec.name}"
    if spec.state == "absent":
        if current is None:
            return Plan(target)
        shown = {"type": str(current["type"]), **properties(current)}
        return Plan(target, tuple(Change(key, value, None) for key, value in shown.items()))
    if current is None:
        return Plan(target, _created(spec))
    return Plan(target, _changed(current, spec))


def _created(spec: StorageSpec) -> tuple[Change, ...]:
    if spec.type is None:
        raise Unable(f"Unable to define storage {spec.name}: there is none, and a new one needs a type")
    backend = BACKENDS.get(spec.type)
    missing = [key for key in (backend.required if backend else ()) if not spec.wanted.get(key)]
    if missing:
        raise Unable(f"Unable to define storage {spec.name}: type {spec.type} needs {' and '.join(missing)}")
    given = {"type": spec.type, **{key: value for key, value in spec.wanted.items() if value != ""}}
    return (
        *(Change(key, None, value) for key, value in given.items()),
        *(Change(key, None, "(secret)") for key in spec.secrets),
    )


def _changed(current: Mapping[str, Any], spec: StorageSpec) -> tuple[Change, ...]:
    kind = str(current["type"])
    if spec.type not in (None, kind):
        raise _refusal(spec, "type", kind, str(spec.type))
    if spec.type is None:
        try:
            _check(kind, spec.wanted)
        except ValueError as error:
            raise Unable(f"Unable to change storage {spec.name}: {error}") from None
    has = properties(current)
    changes = []
    for key, wanted in spec.wanted.items():
        before, after = has.get(key), wanted
        if key == "content" and wanted == "":
            after = ",".join(sorted(BACKENDS[kind].default))
        if same(key, before, after):
            continue
        if key in fixed(kind):
            raise _refusal(spec, key, before, wanted)
        changes.append(Change(key, before, after or None))
    if spec.renew_secrets:
        changes += [Change(key, "(unknown)", "(secret)") for key in spec.secrets]
    return tuple(changes)


def same(key: str, before: str | None, after: str) -> bool:
    """Whether a property is what is wanted; what a definition does not say is PVE's default."""
    if after == "":
        return before in (None, "")
    return (before if before not in (None, "") else _ABSENT.get(key)) == after


def _refusal(spec: StorageSpec, key: str, before: str | None, after: str) -> Unable:
    return Unable(
        f"Unable to change storage {spec.name}: its {key} is {before or 'not set'} and not {after or 'empty'}, which"
        " cannot be changed; remove the definition and make it anew"
    )


def additions(spec: StorageSpec) -> dict[str, str]:
    """What PVE adds to a new definition that does not have it."""
    kind = str(spec.type)
    content = {"content": ",".join(sorted(BACKENDS[kind].default))} if kind in BACKENDS else {}
    mounted = {"path": f"/mnt/pve/{spec.name}", "shared": "1"} if kind in ("cephfs", "cifs", "nfs") else {}
    return {**content, **mounted}


def create_params(spec: StorageSpec) -> dict[str, str]:
    """The parameters of the call that defines the storage."""
    wanted = {key: value for key, value in spec.wanted.items() if value != ""}
    return {"storage": spec.name, "type": str(spec.type), **wanted, **spec.secrets}


def update_params(changes: Iterable[Change], spec: StorageSpec) -> dict[str, str]:
    """The parameters of the call that makes these changes."""
    keys = [change.item for change in changes]
    cleared = [key for key in keys if key not in spec.secrets and spec.wanted[key] == ""]
    params = {key: spec.secrets.get(key) or spec.wanted[key] for key in keys if key not in cleared}
    return {**params, **({"delete": ",".join(cleared)} if cleared else {})}
