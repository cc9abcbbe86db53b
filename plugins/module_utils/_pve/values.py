# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PVE's own notations: one parser and one printer for each.

Every parser raises ValueError with a sentence, for any text. For everything that a printer takes,
`parse(print(x)) == x`; what would not come back as it was, it refuses with a ValueError.
The formats are those of pve-common's PVE/JSONSchema.pm and qemu-server's PVE/QemuServer/Drive.pm.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, unquote

NIC_MODELS = (
    "e1000",
    "e1000-82540em",
    "e1000-82544gc",
    "e1000-82545em",
    "e1000e",
    "i82551",
    "i82557b",
    "i82559er",
    "ne2k_isa",
    "ne2k_pci",
    "pcnet",
    "rtl8139",
    "virtio",
    "vmxnet3",
)
# The highest index of each bus, from PVE/QemuServer/Drive.pm.
DISK_BUSES = {"ide": 3, "sata": 5, "scsi": 30, "virtio": 15}
MAX_NICS = 32

_SIZE = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,18})?)([KMGT]?)")
_UNITS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}
_DISK_KEY = re.compile(r"(ide|sata|scsi|virtio)(0|[1-9][0-9]?)")
_NIC_KEY = re.compile(r"net(0|[1-9][0-9]?)")
_MAC = re.compile(r"[0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){5}")
# What may start a device's slot in a boot order.
_BOOT_DEVICE = re.compile(r"(ide|sata|scsi|virtio|net|usb|hostpci)(0|[1-9][0-9]?)")
_SSH_KEY = re.compile(r"(?:^|\s)((?:ssh|ecdsa|sk)-[a-z0-9@.-]+)\s+([A-Za-z0-9+/]+=*)(?:\s|$)")
_STORAGE_ID = re.compile(r"[A-Za-z][A-Za-z0-9\-_.]*[A-Za-z0-9]")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9_+.-]*")
_NAME = re.compile(
    r"(?=.{1,253}$)[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)*"
)


def parse_size(text: str) -> int:
    """Bytes of a size such as `50G`, `512M`, `1.5T` or plain bytes."""
    match = _SIZE.fullmatch(text)
    if not match:
        raise ValueError(f"{text!r} is not a size: write a number with K, M, G or T, such as 50G")
    number, unit = match.groups()
    whole, _point, fraction = number.partition(".")
    # Integers all the way: a float loses bytes of a large disk.
    return int(whole) * _UNITS[unit] + (int(fraction) * _UNITS[unit] // 10 ** len(fraction) if fraction else 0)


def print_size(size: int) -> str:
    """The shortest exact form, as PVE writes it: 53687091200 is `50G`, 1 is `1`."""
    if not 0 <= size < 10**18:
        raise ValueError(f"{size} bytes are not the size of a disk")
    for unit in ("T", "G", "M", "K"):
        if size and size % _UNITS[unit] == 0:
            return f"{size // _UNITS[unit]}{unit}"
    return str(size)


def parse_properties(text: str, default_key: str | None = None) -> dict[str, str]:
    """`a=1,b=2` as a mapping; one item without `=` is the value of `default_key`."""
    found: dict[str, str] = {}
    for item in text.split(","):
        key, separator, value = item.partition("=")
        if not separator:
            if default_key is None or not item:
                raise ValueError(f"{item!r} in {text!r} is not KEY=VALUE")
            key, value = default_key, item
        if not key or not value:
            raise ValueError(f"{item!r} in {text!r} is not KEY=VALUE")
        if key in found:
            raise ValueError(f"{key} is given twice in {text!r}")
        found[key] = value
    return found


def print_properties(properties: Mapping[str, str], default_key: str | None = None) -> str:
    """The property string, the default key's value first and bare."""
    if not properties:
        raise ValueError("there is no property to write")
    for key, value in properties.items():
        if not key or not value or "," in value or "," in key or "=" in key:
            raise ValueError(f"{key}={value!r} cannot be written as a property")
    first = [properties[default_key]] if default_key is not None and default_key in properties else []
    if first and "=" in first[0]:
        first = [f"{default_key}={first[0]}"]
    return ",".join(first + [f"{key}={value}" for key, value in properties.items() if key != default_key])


def parse_bool(text: str) -> bool:
    """PVE's booleans: 1, on, yes, true and their opposites."""
    lowered = text.lower()
    if lowered in ("1", "on", "yes", "true"):
        return True
    if lowered in ("0", "off", "no", "false"):
        return False
    raise ValueError(f"{text!r} is not a boolean")


def disk_key(text: str) -> str:
    """A name of a disk slot, `scsi0`; ValueError says what is allowed."""
    match = _DISK_KEY.fullmatch(text)
    if not match or int(match.group(2)) > DISK_BUSES[match.group(1)]:
        slots = ", ".join(f"{bus}0 to {bus}{last}" for bus, last in DISK_BUSES.items())
        raise ValueError(f"{text!r} is not a disk: use {slots}")
    return text


def nic_key(text: str) -> str:
    """A name of a network device, `net0` to `net31`."""
    match = _NIC_KEY.fullmatch(text)
    if not match or int(match.group(1)) >= MAX_NICS:
        raise ValueError(f"{text!r} is not a network device: use net0 to net{MAX_NICS - 1}")
    return text


def server_name(text: str) -> str:
    """A name that PVE accepts: a DNS name."""
    if not _NAME.fullmatch(text):
        raise ValueError(f"{text!r} is not a server name: use letters, digits, hyphens and dots as in a DNS name")
    return text


def storage_id(text: str) -> str:
    """An id that PVE accepts for a storage."""
    if not _STORAGE_ID.fullmatch(text):
        raise ValueError(
            f"{text!r} is not a storage id: use letters, digits, '-', '_' and '.', at least two, a letter first, a"
            " letter or digit last"
        )
    return text


@dataclass(frozen=True)
class Drive:
    """`local-lvm:vm-100-disk-0,size=32G,ssd=1`: the volume and its options as PVE writes them."""

    volume: str
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def storage(self) -> str | None:
        """The storage's name; None for `none`, `cdrom` and absolute paths."""
        return self.volume.split(":", 1)[0] if ":" in self.volume and not self.volume.startswith("/") else None

    @property
    def size(self) -> int | None:
        return parse_size(self.options["size"]) if "size" in self.options else None

    @property
    def is_cdrom(self) -> bool:
        return self.options.get("media") == "cdrom" or self.volume == "cdrom"

    @property
    def is_cloudinit(self) -> bool:
        return is_cloud_init_drive(self.volume)


def is_cloud_init_drive(text: str) -> bool:
    """Asked for as `local:cloudinit`; PVE names the volume vm-<id>-cloudinit, with an ending on file storages."""
    return bool(re.match(r"[^,:/\s]+:(\d+/)?(vm-\d+-)?cloudinit(\.\w+)?(,|$)", text))


def parse_drive(text: str) -> Drive:
    properties = parse_properties(text, "file")
    if "file" not in properties:
        raise ValueError(f"{text!r} names no volume")
    return Drive(properties.pop("file"), properties)


def print_drive(drive: Drive) -> str:
    return print_properties({"file": drive.volume, **drive.options}, "file")


@dataclass(frozen=True)
class Nic:
    """`virtio=BC:24:11:00:00:01,bridge=vmbr0,tag=20`; without a MAC address PVE makes one."""

    model: str
    mac: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)


def parse_nic(text: str) -> Nic:
    model: str | None = None
    mac: str | None = None
    options: dict[str, str] = {}
    for key, value in parse_properties(text, "model").items():
        if key in NIC_MODELS:
            model, mac = key, mac_address(value)
        elif key == "model":
            model = value
        elif key == "macaddr":
            mac = mac_address(value)
        else:
            options[key] = value
    if model is None:
        raise ValueError(f"{text!r} names no model of a network device")
    if model not in NIC_MODELS:
        raise ValueError(f"{model!r} is not a model of a network device: use one of {', '.join(NIC_MODELS)}")
    return Nic(model, mac, options)


def print_nic(nic: Nic) -> str:
    taken = sorted({*NIC_MODELS, "model", "macaddr"} & nic.options.keys())
    if taken:
        raise ValueError(f"{', '.join(taken)} cannot be an option of a network device")
    first = f"{nic.model}={nic.mac}" if nic.mac else nic.model
    return ",".join([first, print_properties(nic.options)] if nic.options else [first])


def mac_address(text: str) -> str:
    """A unicast MAC address in capitals, as PVE writes it."""
    if not _MAC.fullmatch(text):
        raise ValueError(f"{text!r} is not a MAC address: write BC:24:11:00:00:01")
    if int(text[:2], 16) & 1:
        raise ValueError(f"{text!r} is a multicast address, which no network device can have")
    return text.upper()


@dataclass(frozen=True)
class IpConfig:
    """`ip=10.0.0.5/24,gw=10.0.0.1,ip6=auto`: the addresses cloud-init gives one network device."""

    ip: str | None = None
    gw: str | None = None
    ip6: str | None = None
    gw6: str | None = None


def parse_ipconfig(text: str) -> IpConfig:
    properties = parse_properties(text)
    unknown = sorted(set(properties) - {"ip", "gw", "ip6", "gw6"})
    if unknown:
        raise ValueError(f"{', '.join(unknown)} in {text!r}: an ipconfig has only ip, gw, ip6 and gw6")
    config = IpConfig(
        ip=_address(properties.get("ip"), 4, ("dhcp",)),
        gw=_gateway(properties.get("gw"), 4),
        ip6=_address(properties.get("ip6"), 6, ("dhcp", "auto")),
        gw6=_gateway(properties.get("gw6"), 6),
    )
    for gateway, address, name in ((config.gw, config.ip, "ip"), (config.gw6, config.ip6, "ip6")):
        if gateway and (address is None or "/" not in address):
            raise ValueError(f"a gateway in {text!r} needs a static {name} beside it")
    return config


def print_ipconfig(config: IpConfig) -> str:
    values = {"ip": config.ip, "gw": config.gw, "ip6": config.ip6, "gw6": config.gw6}
    return print_properties({key: value for key, value in values.items() if value})


def _address(text: str | None, version: int, words: tuple[str, ...]) -> str | None:
    if text is None or text in words:
        return text
    try:
        interface = ipaddress.ip_interface(text)
    except ValueError:
        interface = None
    # A zone (fe80::1%eth0) means something only on the machine that has the interface.
    if interface is None or interface.version != version or "/" not in text or "%" in text:
        raise ValueError(f"{text!r} is not an IPv{version} address with its prefix length, nor {' or '.join(words)}")
    return interface.with_prefixlen


def _gateway(text: str | None, version: int) -> str | None:
    if text is None:
        return None
    if ipaddress.ip_address(ip_address(text)).version != version:
        raise ValueError(f"{text!r} is not an IPv{version} address")
    return ip_address(text)


def ip_address(text: str) -> str:
    """An IPv4 or IPv6 address in its canonical form, without a zone."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        address = None
    if address is None or "%" in text:
        raise ValueError(f"{text!r} is not an IP address")
    return str(address)


def parse_tags(text: str) -> frozenset[str]:
    """The tags of a config or a listing, whatever PVE let in.

    It separates them by semicolons, commas or white space, and keeps their order as sent: compare them as a set.
    """
    return frozenset(item for item in re.split(r"[;,\s\0]+", text) if item)


def print_tags(tags: Iterable[str]) -> str:
    return ";".join(sorted({tag(item) for item in tags}))


def tag(text: str) -> str:
    if not _TAG.fullmatch(text):
        raise ValueError(f"{text!r} is not a tag: use letters, digits and _ + . -")
    return text


def same_tags(one: Iterable[str], other: Iterable[str]) -> bool:
    """PVE folds the case of tags unless a datacenter option says otherwise, so case alone is no difference."""
    return {item.lower() for item in one} == {item.lower() for item in other}


def has_tag(tags: Iterable[str], wanted: str) -> bool:
    """Compared as in same_tags."""
    return wanted.lower() in {item.lower() for item in tags}


def boot_device(text: str) -> str:
    """A device that a boot order may name: a disk, CD-ROM, network device, USB or PCI device."""
    if not _BOOT_DEVICE.fullmatch(text):
        raise ValueError(f"{text!r} is not a device to boot from, such as scsi0 or net0")
    return text


def parse_boot(text: str) -> tuple[str, ...]:
    """The devices of `order=scsi0;net0`; the letters of old configs (`cdn`) name no device."""
    orders = [item.removeprefix("order=") for item in text.split(",") if item.startswith("order=")]
    return tuple(device for order in orders for device in order.split(";") if device)


def print_boot(devices: Iterable[str]) -> str:
    """Raises ValueError without a device: PVE has no notation for a server that boots from nothing."""
    return print_properties({"order": ";".join(boot_device(device) for device in devices)})


def ssh_key(text: str) -> str:
    """One public key as in an authorized_keys file; PVE has ssh-keygen read each, which refuses what this does."""
    key = text.strip()
    if len(key.splitlines()) != 1 or not any(_is_key(*found.groups()) for found in _SSH_KEY.finditer(key)):
        raise ValueError(f"{key[:40]!r} is not a public key as in an authorized_keys file")
    return key


def _is_key(kind: str, encoded: str) -> bool:
    """The key begins with the name of its own type, after four bytes of length."""
    try:
        blob = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        return False
    return blob[4 : 4 + len(kind)] == kind.encode()


def parse_ssh_keys(text: str) -> tuple[str, ...]:
    """PVE keeps `sshkeys` URL-encoded in the config and sends it that way."""
    return tuple(line.strip() for line in unquote(text).splitlines() if line.strip())


def print_ssh_keys(keys: Iterable[str]) -> str:
    return quote("\n".join(ssh_key(key) for key in keys), safe="")
