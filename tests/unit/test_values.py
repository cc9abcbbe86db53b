# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""PVE's notations: what is printed is read back as it was, and no text makes a parser fail otherwise than it should."""

from __future__ import annotations

import base64
import contextlib
import ipaddress
import string
from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.pvefleet.infra.plugins.module_utils._pve import values
from hypothesis import example, given
from hypothesis import strategies as st

KEYS = st.text(string.ascii_lowercase + string.digits + "_", min_size=1, max_size=12).filter(
    lambda key: key not in {*values.NIC_MODELS, "model", "macaddr", "file"}
)
WORDS = st.text(st.characters(exclude_characters=",", exclude_categories=("Cs",)), min_size=1, max_size=30)
MACS = st.binary(min_size=6, max_size=6).map(lambda raw: bytes([raw[0] & 0xFE, *raw[1:]]).hex(":").upper())
SLOTS = st.sampled_from([f"{bus}{number}" for bus, last in values.DISK_BUSES.items() for number in range(last + 1)])
VOLUMES = st.builds("{}:{}".format, st.from_regex(r"[a-z][a-z0-9-]{1,8}", fullmatch=True), KEYS)
IPV4 = st.builds(lambda address, prefix: f"{address}/{prefix}", st.ip_addresses(v=4), st.integers(0, 32))
IPV6 = st.builds(lambda address, prefix: f"{address}/{prefix}", st.ip_addresses(v=6), st.integers(0, 128))


def public_key(kind: str, secret: bytes, comment: str) -> str:
    blob = len(kind).to_bytes(4, "big") + kind.encode() + secret
    return f"{kind} {base64.b64encode(blob).decode()} {comment}".strip()


SSH_KEYS = st.builds(
    public_key,
    st.sampled_from(["ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256", "sk-ssh-ed25519@openssh.com"]),
    st.binary(min_size=1, max_size=60),
    st.text(string.printable.replace("\n", "").replace("\r", "").replace("\x0b", "").replace("\x0c", ""), max_size=20),
)


@st.composite
def ipconfigs(draw: st.DrawFn) -> values.IpConfig:
    ip = draw(st.one_of(st.none(), st.just("dhcp"), IPV4))
    ip6 = draw(st.one_of(st.none(), st.sampled_from(["dhcp", "auto"]), IPV6))
    if ip is None and ip6 is None:
        ip = "dhcp"
    gw = draw(st.one_of(st.none(), st.ip_addresses(v=4).map(str))) if ip and "/" in ip else None
    gw6 = draw(st.one_of(st.none(), st.ip_addresses(v=6).map(str))) if ip6 and "/" in ip6 else None
    return values.IpConfig(ip, gw, ip6, gw6)


# ---------------------------------------------------------------- what is printed is read back


@given(st.integers(0, 10**18 - 1))
@example(0)
@example(1024)
@example(50 * 1024**3)
def test_sizes_come_back(size: int) -> None:
    assert values.parse_size(values.print_size(size)) == size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("50G", 53687091200),
        ("104858K", 107374592),
        ("1.5T", 1649267441664),
        ("512M", 2**29),
        ("7", 7),
        ("0.1G", 107374182),
    ],
)
def test_sizes_are_pves(text: str, size: int) -> None:
    assert values.parse_size(text) == size


@given(st.dictionaries(KEYS, WORDS, min_size=1), st.one_of(st.none(), KEYS))
def test_properties_come_back(properties: dict[str, str], default_key: str | None) -> None:
    assert values.parse_properties(values.print_properties(properties, default_key), default_key) == properties


@given(st.dictionaries(KEYS, WORDS.map(str), min_size=1), KEYS)
def test_default_key_comes_first_and_bare(properties: dict[str, str], key: str) -> None:
    text = values.print_properties({**properties, key: "value"}, key)
    assert text.split(",", maxsplit=1)[0] == "value"


@given(VOLUMES, st.dictionaries(KEYS, WORDS))
def test_drives_come_back(volume: str, options: dict[str, str]) -> None:
    drive = values.Drive(volume, options)
    assert values.parse_drive(values.print_drive(drive)) == drive


@given(st.sampled_from(values.NIC_MODELS), st.one_of(st.none(), MACS), st.dictionaries(KEYS, WORDS))
def test_nics_come_back(model: str, mac: str | None, options: dict[str, str]) -> None:
    nic = values.Nic(model, mac, options)
    assert values.parse_nic(values.print_nic(nic)) == nic


def test_nic_in_the_long_notation() -> None:
    nic = values.parse_nic("model=e1000,macaddr=bc:24:11:00:00:01,bridge=vmbr0")
    assert nic == values.Nic("e1000", "BC:24:11:00:00:01", {"bridge": "vmbr0"})
    with pytest.raises(ValueError, match="virtio"):
        values.print_nic(values.Nic("e1000", None, {"virtio": "x"}))


@given(ipconfigs())
def test_ipconfigs_come_back(config: values.IpConfig) -> None:
    assert values.parse_ipconfig(values.print_ipconfig(config)) == config


@given(st.frozensets(st.from_regex(r"[a-zA-Z0-9_][a-zA-Z0-9_+.-]{0,10}", fullmatch=True)))
def test_tags_come_back(tags: frozenset[str]) -> None:
    assert values.parse_tags(values.print_tags(tags)) == tags


def test_tags_are_read_as_pve_separates_them() -> None:
    assert values.parse_tags("b;a, c d;;") == {"a", "b", "c", "d"}
    assert values.same_tags(["Web", "a"], ["a", "web"])
    assert not values.same_tags(["web"], ["web", "a"])


@given(st.lists(SLOTS, min_size=1, unique=True))
def test_boot_orders_come_back(devices: list[str]) -> None:
    assert values.parse_boot(values.print_boot(devices)) == tuple(devices)


@pytest.mark.parametrize("text", ["", "cdn", "c", "legacy=cdn", "order=", "order=;"])
def test_boot_orders_without_devices(text: str) -> None:
    assert values.parse_boot(text) == ()


def test_an_empty_boot_order_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="order"):
        values.print_boot([])


@given(st.lists(SSH_KEYS))
def test_ssh_keys_come_back(keys: list[str]) -> None:
    text = values.print_ssh_keys(keys)
    assert values.parse_ssh_keys(text) == tuple(keys)
    assert not set(text) - set(string.ascii_letters + string.digits + "%_.-~")


def test_ssh_key_after_options() -> None:
    key = public_key("ssh-ed25519", bytes(36), "ops@example.com")
    assert values.ssh_key(f'command="ssh-agent sh -c x",no-pty {key}\n').endswith("example.com")


@pytest.mark.parametrize(
    "text",
    ["...", "ssh-ed25519", "ssh-ed25519 AAAA ops", "ssh-ed25519 not/base64!", "hello world", "# a comment",
     public_key("ssh-rsa", b"x", "") + "\n" + public_key("ssh-rsa", b"y", ""),
     public_key("ssh-rsa", b"x", "").replace("ssh-rsa", "ssh-dss")],
)  # fmt: skip
def test_what_ssh_keygen_would_refuse(text: str) -> None:
    with pytest.raises(ValueError, match="is not a public key"):
        values.ssh_key(text)


# ---------------------------------------------------------------- single values


@given(SLOTS)
def test_disk_keys(slot: str) -> None:
    assert values.disk_key(slot) == slot


@pytest.mark.parametrize(
    "text", ["scsi31", "ide4", "sata6", "virtio16", "scsi01", "scsi", "unused0", "scsi٣", "scsi0\n"]
)
def test_other_keys_are_no_disks(text: str) -> None:
    with pytest.raises(ValueError, match="is not a disk: use ide0 to ide3"):
        values.disk_key(text)


@pytest.mark.parametrize("text", ["net32", "net", "net01", "net٣", "net-1", "Net0"])
def test_other_keys_are_no_nics(text: str) -> None:
    with pytest.raises(ValueError, match="use net0 to net31"):
        values.nic_key(text)


@pytest.mark.parametrize(
    "text", ["web_01", "-web", "web-", "a..b", ".a", "", "a" * 64, "wêb", "a b", "web\n", "x." * 130]
)
def test_names_that_pve_refuses(text: str) -> None:
    with pytest.raises(ValueError, match="is not a server name"):
        values.server_name(text)


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (values.parse_size, "10 G"),
        (values.parse_size, "10GB"),
        (values.parse_size, "-1G"),
        (values.parse_size, "1e3"),
        (values.parse_size, "٣G"),
        (values.parse_properties, "a=1,a=2"),
        (values.parse_properties, "a=1,,b=2"),
        (values.parse_drive, "size=3G"),
        (values.parse_nic, "bridge=vmbr0"),
        (values.parse_nic, "virtio=01:00:00:00:00:01"),
        (values.parse_ipconfig, "ip=10.0.0.5"),
        (values.parse_ipconfig, "ip=10.0.0.5/33"),
        (values.parse_ipconfig, "ip=fd00::1/64"),
        (values.parse_ipconfig, "ip6=fe80::1%eth0/64"),
        (values.parse_ipconfig, "gw=10.0.0.1"),
        (values.parse_ipconfig, "ip=dhcp,gw=10.0.0.1"),
        (values.parse_ipconfig, "ip=10.0.0.5/24,gw=fd00::1"),
        (values.parse_ipconfig, "ip=dhcp,mtu=9000"),
        (values.ip_address, "fe80::1%eth0"),
        (values.ip_address, "10.0.0.1/24"),
        (values.mac_address, "BC:24:11:00:00"),
        (values.parse_bool, "maybe"),
        (values.tag, "a;b"),
        (values.tag, ""),
        (values.boot_device, "scsi0;net0"),
    ],
)
def test_refused(parse: Callable[[str], Any], text: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        parse(text)


PARSERS: list[Callable[[str], Any]] = [
    values.parse_size,
    values.parse_properties,
    lambda text: values.parse_properties(text, "file"),
    values.parse_bool,
    values.disk_key,
    values.nic_key,
    values.server_name,
    values.storage_id,
    values.parse_drive,
    lambda text: values.parse_drive(text).size,
    values.parse_nic,
    values.mac_address,
    values.parse_ipconfig,
    values.ip_address,
    values.parse_tags,
    values.tag,
    values.boot_device,
    values.parse_boot,
    values.ssh_key,
    values.parse_ssh_keys,
    values.is_cloud_init_drive,
]
# Texts that look like PVE's, so that the fuzzing gets past the first character.
NEARLY = st.lists(
    st.sampled_from(
        ["net0", "scsi", "virtio=", "ip=", "gw=", "order=", "size=", "10G", "/24", "10.0.0.1", "::", "%", "ssh-rsa ",
         "A", ",", ";", "=", "\n", "\0", "٣", "²", " ", "none", "local:cloudinit", "BC:24:11:00:00:01", "e+1", "9" * 30]
    ),
    max_size=8,
).map("".join)  # fmt: skip


@given(st.one_of(st.text(), NEARLY))
@example("9" * 10_000 + "G")
def test_no_text_makes_a_parser_fail_otherwise(text: str) -> None:
    for parse in PARSERS:
        with contextlib.suppress(ValueError):
            parse(text)


@given(st.one_of(st.text(), NEARLY))
def test_what_is_read_is_canonical(text: str) -> None:
    """Printing what was read and reading it again changes nothing: a comparison of read values is enough."""
    for parse, show in (
        (values.parse_size, values.print_size),
        (values.parse_drive, values.print_drive),
        (values.parse_nic, values.print_nic),
        (values.parse_ipconfig, values.print_ipconfig),
        (values.parse_boot, values.print_boot),
    ):
        try:
            read = parse(text)
            printed = show(read)  # type: ignore[operator]
        except ValueError:
            continue
        assert parse(printed) == read


@given(st.ip_addresses())
def test_addresses_are_canonical(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    assert values.ip_address(address.exploded) == str(address)


@pytest.mark.parametrize(
    ("text", "storage", "cdrom", "cloud_init"),
    [
        ("local-lvm:vm-100-disk-0,size=32G", "local-lvm", False, False),
        ("none,media=cdrom", None, True, False),
        ("cdrom", None, True, False),
        ("/dev/disk/by-id/ata-x,size=1T", None, False, False),
        ("local-lvm:vm-100-cloudinit,media=cdrom", "local-lvm", True, True),
        ("nfs:100/vm-100-cloudinit.qcow2,media=cdrom,size=4M", "nfs", True, True),
        ("local:iso/cloudinit.iso,media=cdrom", "local", True, False),
        ("local:100/base-9000-disk-0.qcow2/101/vm-101-disk-0.qcow2,size=3G", "local", False, False),
    ],
)
def test_drives_of_configs(text: str, storage: str | None, cdrom: bool, cloud_init: bool) -> None:
    drive = values.parse_drive(text)
    assert (drive.storage, drive.is_cdrom, drive.is_cloudinit) == (storage, cdrom, cloud_init)


@pytest.mark.parametrize(("text", "fits"), [
    ("local-lvm", True), ("L2", True), ("a.b_c-9", True), ("a", False), ("1st", False), ("-a", False), ("nfs-", False),
    ("a:b", False), ("..", False), ("", False), ("nfs1\n", False), ("lägga", False),
])  # fmt: skip
def test_ids_of_storages(text: str, fits: bool) -> None:
    with contextlib.nullcontext() if fits else pytest.raises(ValueError, match="is not a storage id: use letters"):
        assert values.storage_id(text) == text
