# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a server should be: a module's options, checked and in PVE's notation."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.pvefleet.infra.plugins.module_utils._pve import values
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.guest import MARKER

ROLE_PREFIX = "role-"
DISK_CACHES = ("none", "writethrough", "writeback", "unsafe", "directsync")
DISK_AIO = ("native", "threads", "io_uring")
DISK_FORMATS = ("raw", "qcow2", "vmdk")
# The options of a drive that not every bus has, from PVE/QemuServer/Drive.pm.
_BUSES_WITH = {"ssd": ("ide", "sata", "scsi"), "iothread": ("scsi", "virtio"), "ro": ("scsi", "virtio")}

# Options that are one PVE key with one plain value. `type` is Ansible's.
_SCALARS: dict[str, dict[str, Any]] = {
    "cores": {"type": "int"},
    "sockets": {"type": "int"},
    "cpu": {"type": "str"},
    "memory": {"type": "int"},
    "balloon": {"type": "int"},
    "onboot": {"type": "bool"},
    "protection": {"type": "bool"},
    "ostype": {"type": "str"},
    "scsihw": {"type": "str"},
    "bios": {"type": "str", "choices": ["seabios", "ovmf"]},
    "machine": {"type": "str"},
}
# Those that are property strings, with their default key.
_PROPERTY_STRINGS = {"cpu": "cputype", "machine": "type"}

# The options of one server, as proxmox_server and everything that is built on it take them.
SERVER_OPTIONS: dict[str, dict[str, Any]] = {
    "name": {"type": "str"},
    "vmid": {"type": "int"},
    "node": {"type": "str"},
    "create": {"type": "bool", "default": True},
    "rename": {"type": "bool", "default": False},
    "clone": {
        "type": "dict",
        "options": {
            "template": {"type": "str", "required": True},
            "full": {"type": "bool", "default": True},
            "storage": {"type": "str"},
            "format": {"type": "str", "choices": list(DISK_FORMATS)},
        },
    },
    **_SCALARS,
    "disks": {"type": "dict"},
    "nics": {"type": "dict"},
    "cloud_init": {
        "type": "dict",
        "options": {
            "user": {"type": "str"},
            "password": {"type": "str", "no_log": True},
            "update_password": {
                "type": "str",
                "choices": ["on_create", "always"],
                "default": "on_create",
                "no_log": False,
            },
            "ssh_keys": {"type": "list", "elements": "str", "no_log": False},
            "ipconfig": {"type": "dict"},
            "nameservers": {"type": "list", "elements": "str"},
            "searchdomain": {"type": "str"},
            "type": {"type": "str", "choices": ["nocloud", "configdrive2", "opennebula"]},
            "storage": {"type": "str"},
        },
    },
    "agent": {"type": "bool"},
    "boot_order": {"type": "list", "elements": "str"},
    "tags": {"type": "list", "elements": "str"},
    "role": {"type": "str"},
    "pool": {"type": "str"},
    "description": {"type": "str"},
    "power_cycle": {"type": "str", "choices": ["never", "when_needed"], "default": "never"},
    "force": {"type": "bool", "default": False},
    "purge": {"type": "bool", "default": False},
    "shutdown_timeout": {"type": "int", "default": 120},
    "timeout": {"type": "int", "default": 600},
    "wait_for_address": {"type": "bool", "default": False},
    "address_timeout": {"type": "int", "default": 300},
    "state": {
        "type": "str",
        "choices": ["present", "started", "stopped", "restarted", "absent"],
        "default": "present",
    },
}


class SpecError(ValueError):
    """An option that cannot be: the message names the option and says what would be right."""


@dataclass(frozen=True)
class CloneSpec:
    template: str  # a name, or a vmid in digits
    full: bool
    storage: str | None = None
    format: str | None = None


@dataclass(frozen=True)
class DiskSpec:
    size: int | None = None  # bytes
    storage: str | None = None
    format: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)  # in PVE's notation
    detached: bool = False


@dataclass(frozen=True)
class NicSpec:
    model: str | None = None
    mac: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)  # in PVE's notation
    absent: bool = False


@dataclass(frozen=True)
class CloudInitSpec:
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    update_password: bool = False
    ssh_keys: tuple[str, ...] | None = None
    ipconfig: Mapping[str, values.IpConfig] = field(default_factory=dict)  # by "ipconfig0"
    nameservers: tuple[str, ...] | None = None
    searchdomain: str | None = None
    type: str | None = None
    storage: str | None = None


@dataclass(frozen=True)
class ServerSpec:
    """None, or an empty mapping, is "not managed" everywhere."""

    state: str = "present"
    name: str | None = None
    vmid: int | None = None
    node: str | None = None
    create: bool = True
    rename: bool = False
    template: bool = False  # whether it is a template that is managed
    clone: CloneSpec | None = None
    scalars: Mapping[str, str] = field(default_factory=dict)  # PVE key -> PVE value
    disks: Mapping[str, DiskSpec] = field(default_factory=dict)
    nics: Mapping[str, NicSpec] = field(default_factory=dict)
    cloud_init: CloudInitSpec | None = None
    agent: bool | None = None
    boot_order: tuple[str, ...] | None = None
    tags: frozenset[str] | None = None
    role: str | None = None
    mark: str | None = None  # one more tag, whatever the others are: that of the fleet
    pool: str | None = None
    description: str | None = None
    power_cycle: bool = False
    force: bool = False
    purge: bool = False
    shutdown_timeout: int = 120  # seconds
    timeout: int = 600  # seconds a task of PVE may take
    wait_for_address: bool = False
    address_timeout: int = 300  # seconds

    @property
    def label(self) -> str:
        """What messages call it."""
        return self.name if self.name is not None else str(self.vmid)


def server_spec(options: Mapping[str, Any]) -> ServerSpec:
    """The specification in a module's parameters; raises SpecError for what cannot be."""
    if options.get("name") is None and options.get("vmid") is None:
        raise SpecError("name or vmid is needed to say which server is meant")
    clone = options.get("clone")
    spec = ServerSpec(
        state=options["state"],
        name=_checked("name", options.get("name"), values.server_name),
        vmid=_checked("vmid", options.get("vmid"), _in_range(100, 999_999_999)),
        node=_checked("node", options.get("node"), _node_name),
        create=bool(options.get("create", True)),
        rename=bool(options.get("rename")),
        clone=None if clone is None else _clone(clone),
        scalars=_scalars(options),
        disks={str(key): _disk(str(key), item) for key, item in (options.get("disks") or {}).items()},
        nics={str(key): _nic(str(key), item) for key, item in (options.get("nics") or {}).items()},
        cloud_init=_cloud_init(options.get("cloud_init")),
        agent=options.get("agent"),
        boot_order=_checked("boot_order", options.get("boot_order"), _boot_order),
        tags=_checked("tags", options.get("tags"), lambda tags: frozenset(values.tag(str(tag)) for tag in tags)),
        role=_checked("role", options.get("role"), _role),
        pool=options.get("pool"),
        description=_checked("description", options.get("description"), _description),
        power_cycle=options.get("power_cycle") == "when_needed",
        force=bool(options.get("force")),
        purge=bool(options.get("purge")),
        shutdown_timeout=_checked("shutdown_timeout", options.get("shutdown_timeout", 120), _in_range(1, 86_400)),
        timeout=_checked("timeout", options.get("timeout", 600), _in_range(1, 604_800)),
        wait_for_address=bool(options.get("wait_for_address")),
        address_timeout=_checked("address_timeout", options.get("address_timeout", 300), _in_range(1, 86_400)),
    )
    if spec.clone and not spec.clone.full and (spec.clone.storage or spec.clone.format):
        raise SpecError("clone.storage and clone.format need full: true, a linked clone stays with its template")
    if spec.role is not None and any(tag.lower().startswith(ROLE_PREFIX) for tag in spec.tags or ()):
        raise SpecError(f"tags: the tag that begins with {ROLE_PREFIX} is given by role")
    if spec.wait_for_address and spec.state not in ("present", "started", "restarted"):
        raise SpecError(f"wait_for_address does not go with state: {spec.state}")
    return spec


def _clone(given: Mapping[str, Any]) -> CloneSpec:
    return CloneSpec(
        template=str(given["template"]),
        full=bool(given.get("full", True)),
        storage=_checked("clone.storage", given.get("storage"), _storage_name),
        format=given.get("format"),
    )


def _scalars(options: Mapping[str, Any]) -> dict[str, str]:
    limits = {"cores": (1, 8192), "sockets": (1, 4), "memory": (16, 4_178_944), "balloon": (0, 4_178_944)}
    found = {}
    for key in _SCALARS:
        value = options.get(key)
        if value is None:
            continue
        if key in limits:
            value = _checked(key, value, _in_range(*limits[key]))
        if key in _PROPERTY_STRINGS:
            value = _checked(key, value, _properties(_PROPERTY_STRINGS[key]))
        found[key] = _flag(value) if isinstance(value, bool) else _checked(key, value, _word)
    if "balloon" in found and "memory" in found and int(found["balloon"]) > int(found["memory"]):
        raise SpecError(f"balloon is {found['balloon']} MiB, more than memory with its {found['memory']} MiB")
    return found


def _disk(key: str, item: Any) -> DiskSpec:
    _checked("disks", key, values.disk_key)
    where = f"disks.{key}"
    given = _mapping(where, item, ("size", "storage", "format", "state", *_DISK_OPTIONS))
    state = _choice(f"{where}.state", given.pop("state", "present"), ("present", "detached"))
    if state == "detached" and given:
        raise SpecError(f"{where}: state: detached goes with no other option")
    size, storage, disk_format = given.pop("size", None), given.pop("storage", None), given.pop("format", None)
    for name, buses in _BUSES_WITH.items():
        if name in given and not key.startswith(buses):
            raise SpecError(f"{where}: {name} is only for the disks of {', '.join(buses)}")
    return DiskSpec(
        size=None if size is None else _checked(f"{where}.size", size, _disk_size),
        storage=_checked(f"{where}.storage", storage, _storage_name),
        format=None if disk_format is None else _choice(f"{where}.format", disk_format, DISK_FORMATS),
        options={name: _checked(f"{where}.{name}", value, _DISK_OPTIONS[name]) for name, value in given.items()},
        detached=state == "detached",
    )


def _nic(key: str, item: Any) -> NicSpec:
    _checked("nics", key, values.nic_key)
    where = f"nics.{key}"
    given = _mapping(where, item, ("model", "mac", "vlan", "state", *_NIC_OPTIONS))
    state = _choice(f"{where}.state", given.pop("state", "present"), ("present", "absent"))
    if state == "absent" and given:
        raise SpecError(f"{where}: state: absent goes with no other option")
    model, mac = given.pop("model", None), given.pop("mac", None)
    options = {}
    if "vlan" in given:
        options["tag"] = str(_checked(f"{where}.vlan", given.pop("vlan"), _in_range(0, 4094)))
    options |= {name: _checked(f"{where}.{name}", value, _NIC_OPTIONS[name]) for name, value in given.items()}
    return NicSpec(
        model=None if model is None else _choice(f"{where}.model", model, values.NIC_MODELS),
        mac=None if mac is None else _checked(f"{where}.mac", str(mac), values.mac_address),
        options=options,
        absent=state == "absent",
    )


def _cloud_init(given: Mapping[str, Any] | None) -> CloudInitSpec | None:
    if given is None:
        return None
    ipconfig = {}
    for key, text in (given.get("ipconfig") or {}).items():
        key = str(key)
        where = f"cloud_init.ipconfig.{key}"
        _checked("cloud_init.ipconfig", key, values.nic_key)
        # A mapping is as good as PVE's own notation.
        if isinstance(text, Mapping):
            text = ",".join(f"{name}={value}" for name, value in text.items())
        ipconfig[key.replace("net", "ipconfig")] = _checked(where, str(text), values.parse_ipconfig)
    return CloudInitSpec(
        user=_checked("cloud_init.user", given.get("user"), _line),
        password=_checked("cloud_init.password", given.get("password"), _secret),
        update_password=given.get("update_password") == "always",
        ssh_keys=_checked("cloud_init.ssh_keys", given.get("ssh_keys"), _ssh_keys),
        ipconfig=ipconfig,
        nameservers=_checked("cloud_init.nameservers", given.get("nameservers"), _nameservers),
        searchdomain=_checked("cloud_init.searchdomain", given.get("searchdomain"), _line),
        type=given.get("type"),
        storage=_checked("cloud_init.storage", given.get("storage"), _storage_name),
    )


def _checked(where: str, value: Any, check: Callable[[Any], Any]) -> Any:
    """The checked value, None as it is; the check's ValueError gets the option's name."""
    if value is None:
        return None
    try:
        return check(value)
    except ValueError as error:
        raise SpecError(f"{where}: {error}") from None


def _mapping(where: str, item: Any, known: Sequence[str]) -> dict[str, Any]:
    if not isinstance(item, Mapping):
        raise SpecError(f"{where}: a mapping is expected, such as {{{known[0]}: ...}}")
    unknown = sorted(str(key) for key in item if key not in known)
    if unknown:
        raise SpecError(f"{where}: unknown option {', '.join(unknown)}; known are {', '.join(known)}")
    return {key: value for key, value in item.items() if value is not None}


def _choice(where: str, value: Any, choices: Sequence[str]) -> str:
    if value not in choices:
        raise SpecError(f"{where}: {value!r} is not one of {', '.join(choices)}")
    return str(value)


def _in_range(low: int, high: int) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        try:
            number = int(str(value))
        except ValueError:
            raise ValueError(f"{value!r} is not a whole number") from None
        if not low <= number <= high:
            raise ValueError(f"{number} is not between {low} and {high}")
        return number

    return check


def _flag(value: Any) -> str:
    return "1" if values.parse_bool(str(value)) else "0"


def _word(value: Any) -> str:
    """A value that stands in a config: no white space, not empty."""
    text = str(value)
    if not text or any(character.isspace() or not character.isprintable() for character in text):
        raise ValueError(f"{text!r} has white space, or is empty")
    return text


def _property(value: Any) -> str:
    """A value that stands in a property string, where a comma would begin the next one."""
    if "," in str(value):
        raise ValueError(f"{value!r} has a comma")
    return _word(value)


def _properties(default_key: str) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        return values.print_properties(values.parse_properties(str(value), default_key), default_key)

    return check


def _line(value: Any) -> str:
    """Free text, empty to remove it; a config has one line for it."""
    text = str(value)
    if not text.isprintable():
        raise ValueError(f"{text!r} has more than one line, or characters that cannot be printed")
    return text


def _secret(value: Any) -> str:
    """As _line, and PVE takes no empty one; the message must not repeat it."""
    if not value or not str(value).isprintable():
        raise ValueError("it is empty, or has more than one line or characters that cannot be printed")
    return str(value)


def _storage_name(value: Any) -> str:
    return values.storage_id(str(value))


def _node_name(value: Any) -> str:
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?", str(value)):
        raise ValueError(f"{value!r} is not the name of a node")
    return str(value)


def _role(value: Any) -> str:
    """An empty role is none."""
    return values.tag(f"{ROLE_PREFIX}{value}").removeprefix(ROLE_PREFIX)


def _description(value: Any) -> str:
    if str(value).startswith(MARKER):
        raise ValueError(f"it begins with {MARKER!r}, which marks a server that is not finished")
    return str(value)


def _boot_order(devices: Sequence[Any]) -> tuple[str, ...]:
    order = tuple(str(device) for device in devices)
    values.print_boot(order)
    if len(set(order)) < len(order):
        raise ValueError("a device is named twice")
    return order


def _trunks(value: Any) -> str:
    if not re.fullmatch(r"[0-9]+(-[0-9]+)?(;[0-9]+(-[0-9]+)?)*", str(value)):
        raise ValueError(f"{value!r} are not VLANs, such as 10;20-30")
    return str(value)


def _one_of(choices: Sequence[str]) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if value not in choices:
            raise ValueError(f"{value!r} is not one of {', '.join(choices)}")
        return str(value)

    return check


def _number(low: int, high: int) -> Callable[[Any], str]:
    check = _in_range(low, high)
    return lambda value: str(check(value))


def _rate(value: Any) -> str:
    try:
        number = float(str(value))
    except ValueError:
        raise ValueError(f"{value!r} is not a number") from None
    if not 0 <= number <= 1_000_000:
        raise ValueError(f"{value} is not between 0 and 1000000")
    return f"{number:g}"


def _disk_size(value: Any) -> int:
    size = values.parse_size(str(value))
    if str(value)[-1] not in "KMGT":
        raise ValueError(f"{value!r} has no unit: write {value}G for GiB")
    if size == 0:
        raise ValueError("a disk of size 0 cannot be")
    # PVE allocates in KiB.
    return -(-size // 1024) * 1024


def _ssh_keys(keys: Sequence[str]) -> tuple[str, ...]:
    """A text may have several lines, as a whole authorized_keys file has, with its comments."""
    lines = [line.strip() for key in keys for line in str(key).splitlines()]
    return tuple(values.ssh_key(line) for line in lines if line and not line.startswith("#"))


def _nameservers(servers: Sequence[str]) -> tuple[str, ...]:
    return tuple(values.ip_address(str(server)) for server in servers)


_DISK_OPTIONS: dict[str, Callable[[Any], str]] = {
    "ssd": _flag,
    "discard": lambda value: "on" if _flag({"ignore": "0"}.get(str(value), value)) == "1" else "ignore",
    "iothread": _flag,
    "backup": _flag,
    "replicate": _flag,
    "ro": _flag,
    "cache": _one_of(DISK_CACHES),
    "aio": _one_of(DISK_AIO),
    "serial": _property,
    "iops_rd": _number(0, 1_000_000_000),
    "iops_wr": _number(0, 1_000_000_000),
    "mbps_rd": _rate,
    "mbps_wr": _rate,
}
_NIC_OPTIONS: dict[str, Callable[[Any], str]] = {
    "bridge": _property,
    "firewall": _flag,
    "mtu": _number(1, 65520),
    "rate": _rate,
    "link_down": _flag,
    "queues": _number(0, 64),
    "trunks": _trunks,
}
