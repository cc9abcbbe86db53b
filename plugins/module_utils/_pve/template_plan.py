# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a template should be, what it is made of, and what is left to do to it. Pure: no I/O."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote, urlsplit

from ansible_collections.pvefleet.infra.plugins.module_utils._pve import values
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.device_plan import PlanError
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.guest import MARKER, Guest, without_marker
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server_spec import (
    SERVER_OPTIONS,
    DiskSpec,
    ServerSpec,
    SpecError,
    server_spec,
)

# The first line of the notes of a template that is not finished yet; see docs/decisions/0004.
TEMPLATE_MARKER = f"{MARKER} as a template"
# The last line of a template's notes: what its disk was made of.
_RECORD = re.compile(r"pvefleet: made from (\S+)(?: \(([^()\n]+)\))?")
# PVE/Storage.pm: what it imports from, and what a file there may be called.
_IMPORT_FILE = re.compile(r"[a-zA-Z0-9\-.+=_]+\.(qcow2|raw|vmdk)")
_IMPORT_NAME = re.compile(r"[a-zA-Z0-9\-.+=_]+")
_ISO_FILE = re.compile(r"[^/\\\"\s:]+\.(iso|img)", re.IGNORECASE)
_NO_DISK = re.compile(r"[^:]+:(iso|vztmpl|backup|snippets)/")
CHECKSUM_DIGITS = {"md5": 32, "sha1": 40, "sha224": 56, "sha256": 64, "sha384": 96, "sha512": 128}

_MACHINE = (
    "cores",
    "sockets",
    "cpu",
    "memory",
    "balloon",
    "protection",
    "ostype",
    "scsihw",
    "bios",
    "machine",
    "agent",
)
_SHARED_OPTIONS = (
    *("name", "vmid", "node", "rename", "nics", "cloud_init", "tags", "pool", "description", "timeout"),
    *_MACHINE,
)
# The options of one template, as proxmox_template takes them.
TEMPLATE_OPTIONS: dict[str, dict[str, Any]] = {
    **{name: SERVER_OPTIONS[name] for name in _SHARED_OPTIONS},
    "image": {
        "type": "dict",
        "options": {
            "storage": {"type": "str", "required": True},
            "file": {"type": "str"},
            "url": {"type": "str"},
            "path": {"type": "path"},
            "checksum": {"type": "str"},
            "checksum_algorithm": {"type": "str", "choices": list(CHECKSUM_DIGITS), "default": "sha256"},
            "verify_certificates": {"type": "bool", "default": True},
        },
        "mutually_exclusive": [("url", "path")],
        "required_one_of": [("file", "url", "path")],
    },
    "volume": {"type": "str"},
    "disk": {"type": "str", "default": "scsi0"},
    "disk_storage": {"type": "str"},
    "disk_size": {"type": "str"},
    "disk_options": {"type": "dict"},
    "replace": {"type": "str", "choices": ["never", "when_changed"], "default": "never"},
    "state": {"type": "str", "choices": ["present", "absent", "image_absent"], "default": "present"},
}
_SOME_SIZE = 1024**3
# A shorter password would be masked in words that have nothing to do with it.
_PASSWORD_LEAST = 6
# How a complaint about a server's options names those of a template.
_NAMES = {"size": "disk_size", "storage": "disk_storage"}


@dataclass(frozen=True)
class Record:
    """What a disk was made of. fingerprint: `sha256:...` where a checksum was checked, else size and ctime of the file;
    None for a volume, which has neither."""

    volid: str
    fingerprint: str | None = None

    def __str__(self) -> str:
        suffix = f" ({self.fingerprint})" if self.fingerprint else ""
        return f"{self.volid}{suffix}"

    @property
    def line(self) -> str:
        return f"pvefleet: made from {self}"


@dataclass(frozen=True)
class ImageSpec:
    """An image file on a storage: there already, or fetched from a URL by the node, or sent from this machine.

    file: its name there; None as long as only the file at `path` tells its format.
    """

    storage: str
    file: str | None = None
    url: str | None = None
    path: str | None = None
    checksum: str | None = None  # hex digits
    algorithm: str = "sha256"
    verify_certificates: bool = True

    @property
    def content(self) -> str:
        """PVE keeps an .img file as an ISO image only."""
        return "iso" if self.file and _ISO_FILE.fullmatch(self.file) else "import"

    @property
    def volid(self) -> str:
        return f"{self.storage}:{self.content}/{self.file}"

    @property
    def origin(self) -> str | None:
        """Where it comes from, for people to read: without what may let one in there."""
        if self.url is None:
            return self.path
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    @property
    def secrets(self) -> frozenset[str]:
        return url_secrets(self.url or "")

    def without_secrets(self, text: str) -> str:
        """The text with the URL as `origin` shows it."""
        if self.url is not None:
            text = text.replace(self.url, str(self.origin))
        for secret in sorted(self.secrets, key=len, reverse=True):
            text = text.replace(secret, "********")
        return text

    @property
    def checked(self) -> str | None:
        """The fingerprint, where PVE checks it as the file arrives."""
        return f"{self.algorithm}:{self.checksum}" if self.checksum else None


@dataclass(frozen=True)
class TemplateSpec:
    """`server` is the machine without its first disk; its `disks` has the options of that one."""

    server: ServerSpec
    state: str = "present"
    image: ImageSpec | None = None
    volume: str | None = None
    disk: str = "scsi0"
    disk_storage: str | None = None
    disk_size: int | None = None  # bytes
    replace: bool = False

    @property
    def label(self) -> str:
        return self.server.label


def template_spec(options: Mapping[str, Any]) -> TemplateSpec:
    """The specification in the module's parameters; SpecError names the option that cannot be."""
    state, image, volume = options["state"], options.get("image"), options.get("volume")
    if state == "image_absent":
        if image is None or image.get("url") or image.get("path") or not image.get("file"):
            raise SpecError("image: state: image_absent needs image.storage and image.file, and nothing else of it")
        label = f"{image['storage']}:{image['file']}"
        server = ServerSpec(name=label, node=options.get("node"), timeout=options["timeout"])
        return TemplateSpec(server, state, image=_image(image))
    if state == "present" and (image is None) == (volume is None):
        raise SpecError("image or volume is needed to say what the template is made of, and not both")
    if volume is not None and not _is_disk(volume):
        raise SpecError(f"volume: {volume!r} is not the volume of a disk, such as local-lvm:vm-100-disk-0")
    slot = options["disk"]
    elsewhere = sorted({"size", "storage", "state"} & set(options.get("disk_options") or {}))
    if elsewhere:
        raise SpecError(f"disk_options: unknown option {', '.join(elsewhere)}; disk_size and disk_storage are options")
    disk = {**(options.get("disk_options") or {}), "size": options.get("disk_size")}
    given: dict[str, Any] = {name: options.get(name) for name in _SHARED_OPTIONS}
    given |= {"disks": {slot: {**disk, "storage": options.get("disk_storage")}}, "create": False, "state": "present"}
    try:
        server = server_spec(given)
    except SpecError as error:
        raise SpecError(_renamed(str(error), slot)) from None
    if server.description is not None and "pvefleet: made from" in server.description:
        raise SpecError("description: 'pvefleet: made from' is where the module keeps what the template is made of")
    first = server.disks[slot]
    return TemplateSpec(
        server=replace(server, template=True, disks={slot: first}, cloud_init=_with_storage(server, first.storage)),
        state=state,
        image=None if image is None else _image(image),
        volume=volume,
        disk=slot,
        disk_storage=first.storage,
        disk_size=first.size,
        replace=options["replace"] == "when_changed",
    )


def _is_disk(volume: str) -> bool:
    storage, _colon, name = volume.partition(":")
    try:
        values.storage_id(storage)
    except ValueError:
        return False
    return re.fullmatch(r"\S+", name) is not None and not _NO_DISK.match(volume)


def _with_storage(server: ServerSpec, storage: str | None) -> Any:
    """The cloud-init drive goes where the disk goes."""
    if server.cloud_init is None or server.cloud_init.storage:
        return server.cloud_init
    return replace(server.cloud_init, storage=storage)


def _renamed(complaint: str, slot: str) -> str:
    for name, option in _NAMES.items():
        complaint = complaint.replace(f"disks.{slot}.{name}:", f"{option}:")
    return complaint.replace(f"disks.{slot}", "disk_options").replace("disks:", "disk:")


def _image(given: Mapping[str, Any]) -> ImageSpec:
    storage, file, url, path = (given.get(name) for name in ("storage", "file", "url", "path"))
    try:
        values.storage_id(str(storage))
    except ValueError as error:
        raise SpecError(f"image.storage: {error}") from None
    if url is not None:
        file = file or _file_of(url)
    if path is not None and file is None and not _IMPORT_NAME.fullmatch(os.path.basename(path)):
        raise SpecError(
            f"image.path: PVE does not import from a file named {os.path.basename(path)!r}: give it a name of letters, "
            "digits and -.+=_ with image.file"
        )
    checksum, algorithm = given.get("checksum"), given.get("checksum_algorithm") or "sha256"
    if checksum is not None:
        if url is None and path is None:
            raise SpecError("image.checksum goes with url or path: PVE checks a file as it arrives, and never later")
        if not re.fullmatch(rf"[0-9a-fA-F]{{{CHECKSUM_DIGITS[algorithm]}}}", checksum):
            raise SpecError(f"image.checksum: {checksum!r} is not a {algorithm} checksum in hex digits")
        checksum = checksum.lower()
    image = ImageSpec(
        storage=str(storage),
        file=file,
        url=url,
        path=path,
        checksum=checksum,
        algorithm=algorithm,
        verify_certificates=given.get("verify_certificates") is not False,
    )
    stays = url is None and path is None and file is not None and _ISO_FILE.fullmatch(file)
    if file is not None and not _IMPORT_FILE.fullmatch(file) and not stays:
        raise SpecError(
            f"image.file: PVE does not import from a file named {file!r}: give it a name of letters, digits and -.+=_ "
            "that ends in .qcow2, .raw or .vmdk, as its format is"
        )
    return image


def url_secrets(url: str) -> frozenset[str]:
    """The parts of a URL that may let one in, and that nobody is to read; all of it when it is not one."""
    try:
        parts = urlsplit(url)
        _port = parts.port
    except ValueError:
        return frozenset({url})
    user_info = parts.netloc.rpartition("@")[0]
    found = {f"//{user_info}@"} if user_info else set()
    if parts.query:
        found.add(f"?{parts.query}")
    password = user_info.partition(":")[2] or user_info
    found |= {text for text in (password, unquote(password)) if len(text) >= _PASSWORD_LEAST}
    return frozenset(found | {unquote(text) for text in found})


def _file_of(url: str) -> str:
    """The last part of a URL. SpecError, which does not repeat it, for it may hold a password."""
    complaint = SpecError("image.url: it is not a URL of a file that begins with http:// or https://")
    if not re.fullmatch(r"https?://[^/\s]+/\S*", url):
        raise complaint
    try:
        parts = urlsplit(url)
        if not parts.hostname or parts.port == 0:
            raise complaint
    except ValueError:  # a port that is no number, half an IPv6 address
        raise complaint from None
    return unquote(parts.path.rpartition("/")[2])


def split_notes(description: str) -> tuple[str, Record | None]:
    """A template's notes without what the module keeps there, and that."""
    lines = without_marker(description).split("\n")
    found = _RECORD.fullmatch(lines[-1].strip())
    if found is None:
        return "\n".join(lines).strip(), None
    return "\n".join(lines[:-1]).strip(), Record(found[1], found[2])


def join_notes(notes: str, record: Record | None) -> str:
    parts = [notes.strip(), record.line if record else ""]
    return "\n\n".join(part for part in parts if part)


def has_changed(record: Record | None, wanted: Record) -> bool | None:
    """Whether a template is made of something else than what is wanted; None when that cannot be told.

    A checksum decides, whatever the file is called. Size and ctime decide where neither has one.
    """
    if record is None:
        return None
    if record.fingerprint and wanted.fingerprint and ":" in record.fingerprint and ":" in wanted.fingerprint:
        return record.fingerprint != wanted.fingerprint
    if record.volid != wanted.volid:
        return True
    if wanted.fingerprint is None:
        return None if record.fingerprint else False
    return record.fingerprint != wanted.fingerprint


def is_half_made(guest: Guest) -> bool:
    """Whether an earlier run was cut off while it made this template."""
    return guest.text("description").startswith(TEMPLATE_MARKER)


def existing(spec: TemplateSpec, guest: Guest) -> ServerSpec:
    """What an existing template is converged to: all but its disk's size and storage.

    Raises PlanError when another size or storage is wanted, for PVE does not change those of a template.
    """
    server, first = spec.server, spec.server.disks[spec.disk]
    drive = guest.drive(spec.disk)
    if drive is None:
        raise PlanError(f"Unable to manage template {spec.label}: it has no disk {spec.disk}")
    if spec.disk_storage is not None and drive.storage != spec.disk_storage:
        raise PlanError(
            f"Unable to move {spec.disk} of template {spec.label} from {drive.storage} to {spec.disk_storage}: "
            "remove the template first"
        )
    if spec.disk_size is not None and drive.size is not None and drive.size < spec.disk_size:
        raise PlanError(
            f"Unable to resize {spec.disk} of template {spec.label} from {values.print_size(drive.size)} to "
            f"{values.print_size(spec.disk_size)}: a template's disk stays as it is; remove the template first"
        )
    description = server.description
    if description is not None:
        description = join_notes(description, split_notes(guest.text("description"))[1])
    disk = DiskSpec(options=first.options)
    return replace(server, disks={spec.disk: disk} if first.options else {}, description=description)


def new(spec: TemplateSpec, old: Guest | None) -> ServerSpec:
    """What a template is created as. old: the one that it replaces, whose name, notes, tags and pool it keeps."""
    server = spec.server
    scalars = dict(server.scalars)
    if spec.disk.startswith("scsi"):
        scalars.setdefault("scsihw", "virtio-scsi-single")
    kept: dict[str, Any] = {}
    if old is not None:
        kept["vmid"], kept["node"] = old.vmid, old.node
        if server.name is None:
            kept["name"] = old.name
        if server.tags is None:
            kept["tags"] = values.parse_tags(old.text("tags"))
        if server.description is None:
            kept["description"] = split_notes(old.text("description"))[0]
        if server.pool is None:
            kept["pool"] = old.pool
    # The image has a size of its own; a plan wants to know one.
    disk = replace(server.disks[spec.disk], size=spec.disk_size or _SOME_SIZE)
    return replace(server, create=True, scalars=scalars, disks={spec.disk: disk}, boot_order=(spec.disk,), **kept)


def remaining(spec: TemplateSpec, guest: Guest) -> tuple[str, ...]:
    """What is left to do to a template that is being made, in this order: import, resize, convert, finish."""
    drive = guest.drive(spec.disk)
    steps = []
    if drive is None:
        steps.append("import")
    if spec.disk_size is not None and (drive is None or (drive.size or 0) < spec.disk_size):
        steps.append("resize")
    if drive is None or not guest.is_template or not is_base(drive):
        steps.append("convert")
    return (*steps, "finish")


def is_base(drive: values.Drive) -> bool:
    """Whether a volume is one that can be cloned from: PVE names it so."""
    return drive.volume.partition(":")[2].rpartition("/")[2].startswith(("base-", "basevol-"))
