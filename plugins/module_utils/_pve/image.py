# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Image files on storages: looked for, fetched by the node, sent from here, removed."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ansible_collections.pvefleet.infra.plugins.module_utils._plan import Change
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import (
    PveClient,
    PveNotFound,
    PveTaskFailed,
    segment,
)
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.cluster import listing, record, strange
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.errors import Unable
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.node_tasks import wait_for_active
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server import server_path
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server_work import Work
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.sight import check_sight
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.template_plan import (
    TEMPLATE_MARKER,
    ImageSpec,
    Record,
    split_notes,
)
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.upload import UploadFile

# What a file begins with that no import understands, and how it is undone.
_COMPRESSED = {b"\x1f\x8b": "gzip", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2"}
_MAGIC = {b"QFI\xfb": "qcow2", b"KDMV": "vmdk"}
_NAMED_MOST = 10


@dataclass(frozen=True)
class Fetch:
    """How an image comes to be on the storage of a node. `image` is complete; `row` is the file that is there already,
    as PVE lists it; `overwrites`: it makes way for the new one."""

    image: ImageSpec
    node: str
    row: Mapping[str, Any] | None
    overwrites: bool = False

    @property
    def changes(self) -> tuple[Change, ...]:
        if self.row is not None and not self.overwrites:
            return ()
        before = str(Record(self.image.volid, fingerprint(self.row))) if self.row else None
        return (Change("image", before, f"{self.image.volid} from {self.image.origin}"),)


def fingerprint(row: Mapping[str, Any]) -> str | None:
    """What tells one state of a file from another, where there is no checksum; None where PVE does not say it."""
    size, ctime = row.get("size"), row.get("ctime")
    return None if size is None or ctime is None else f"{size} bytes, ctime {ctime}"


def complete(image: ImageSpec, label: str) -> ImageSpec:
    """The image with the name and checksum of its file on this machine, which is read for that. Raises Unable."""
    if image.path is None:
        return image
    try:
        head, checksum = _read(image.path, image.algorithm)
    except OSError as error:
        raise Unable(f"Unable to make template {label}: {image.path} cannot be read: {error.strerror}") from error
    packed = next((name for magic, name in _COMPRESSED.items() if head.startswith(magic)), None)
    if packed is not None:
        raise Unable(
            f"Unable to make template {label}: {image.path} is compressed with {packed}, and PVE imports no compressed "
            "image; decompress it first"
        )
    form = next((form for magic, form in _MAGIC.items() if head.startswith(magic)), "raw")
    stem, ending = os.path.splitext(os.path.basename(image.path))
    name = image.file or f"{stem if ending in ('.img', f'.{form}') else stem + ending}.{form}"
    if not name.endswith(f".{form}"):
        raise Unable(
            f"Unable to make template {label}: {image.path} is {form}, which {name} does not say: end it in .{form}"
        )
    if image.checksum is not None and image.checksum != checksum:
        raise Unable(
            f"Unable to make template {label}: {image.path} has the {image.algorithm} checksum {checksum}, "
            f"not {image.checksum}"
        )
    return replace(image, file=name, checksum=checksum)


def _read(path: str, algorithm: str) -> tuple[bytes, str]:
    """The first bytes of a file, and its checksum."""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    head = b""
    with open(path, "rb") as handle:
        while block := handle.read(1024**2):
            head = head or block[:16]
            digest.update(block)
    return head, digest.hexdigest()


def find_file(client: PveClient, image: ImageSpec, node: str) -> Mapping[str, Any] | None:
    """The file as PVE lists it, with volid, size and ctime; None without one."""
    return next((row for row in _files(client, image, node) if row.get("volid") == image.volid), None)


def _files(client: PveClient, image: ImageSpec, node: str) -> list[dict[str, Any]]:
    path = f"{_storage_path(image, node)}/content"
    return [row for row in listing(client, path, {"content": image.content}) if "volid" in row]


def wanted(client: PveClient, image: ImageSpec, node: str) -> Record:
    """What a template would be made of now; without a fingerprint where the file is not there any more."""
    if image.checked:
        return Record(image.volid, image.checked)
    try:
        row = find_file(client, image, node)
    except PveNotFound:
        row = None  # the whole storage is gone
    return Record(image.volid, fingerprint(row) if row else None)


def check_storage(work: Work, image: ImageSpec, node: str) -> None:
    """Whether the storage is there and takes such files. Raises Unable."""
    storages = work.resources.storages(node)
    if not storages:
        return  # a token may not be allowed to see any; PVE will say
    row = storages.get(image.storage)
    if row is None:
        raise Unable(
            f"Unable to use image {image.volid}: node {node} has no storage {image.storage}, only "
            f"{', '.join(sorted(storages))}"
        )
    content = str(row.get("content", image.content))
    if image.content not in content.split(","):
        raise Unable(
            f"Unable to use image {image.volid}: the content of storage {image.storage} is {content}, without "
            f"{image.content}; add it with `pvesm set {image.storage} --content {content},{image.content}`, which only "
            "a storage of files takes, and no Proxmox VE that is too old to import images through its API"
        )


def plan_fetch(
    work: Work, image: ImageSpec, node: str, *, replaced: int | None = None, made_before: Record | None = None
) -> Fetch:
    """What has to be done to have the image. replaced: the template that it is for, made_before: what that was made of.

    Raises Unable when the image is not there, or when a file is in its way that must stay.
    """
    check_storage(work, image, node)
    row = find_file(work.client, image, node)
    if row is None and image.url is None and image.path is None:
        there = sorted(str(file["volid"]) for file in _files(work.client, image, node))
        known = ", ".join(there[:_NAMED_MOST]) or "none"
        raise Unable(
            f"Unable to make template {work.spec.label}: there is no image {image.volid} on {node}, only {known}"
        )
    overwrites = row is not None and (image.path is not None or _is_stale(image, made_before))
    if overwrites:
        refuse_used(work, image, node, "replace", but=replaced)
    return Fetch(image, node, row, overwrites)


def _is_stale(image: ImageSpec, made_before: Record | None) -> bool:
    """Whether the file of that name is what the old template was made of, and makes way for the new one. A file that
    is not is checked by PVE, and stays."""
    if image.url is None or image.checked is None or made_before is None:
        return False
    return made_before.volid == image.volid and made_before.fingerprint != image.checked


def fetch(work: Work, plan: Fetch) -> Record:
    """The image is on its storage, and checked where a checksum is known. What a template is made of then."""
    image = plan.image
    if image.path is not None:
        _upload(work, plan, image.path)
    elif image.url is not None:
        if plan.overwrites:
            delete(work, image, plan.node)
        if plan.row is None or plan.overwrites or image.checksum:
            _download(work, plan, image.url)
    row = find_file(work.client, image, plan.node)
    if row is None:
        raise Unable(f"Unable to make template {work.spec.label}: {image.volid} is not on {plan.node} any more")
    return Record(image.volid, image.checked or fingerprint(row))


def import_source(client: PveClient, image: ImageSpec, node: str, label: str) -> str:
    """What `import-from` is given. Raises Unable for an ISO image, unless root@pam itself asks."""
    if image.content == "import":
        return image.volid
    if client.connection.user != "root@pam" or client.connection.token_id:
        raise Unable(
            f"Unable to make template {label}: {image.volid} is kept as an ISO image, which only root@pam with its "
            "password may import; put it on the storage as .qcow2 or .raw instead, with the content import"
        )
    path = _file_path(image, node)
    found = record(client, path).get("path")
    if not isinstance(found, str):
        raise strange(client, path)
    return found


def disk_size(client: PveClient, volid: str, node: str) -> int | None:
    """Bytes of the disk in an image, or of a volume; None when PVE does not tell."""
    storage = volid.partition(":")[0]
    path = f"/nodes/{segment(node)}/storage/{segment(storage)}/content/{segment(volid)}"
    size = record(client, path).get("size")
    return int(size) if size and str(size).isdigit() else None


def refuse_used(work: Work, image: ImageSpec, node: str, verb: str, but: int | None = None) -> None:
    """but: the vmid of one that may use it. Raises Unable, or PveForbidden for a login that cannot know."""
    used_by = users(work, image, node, but)
    if used_by:
        raise Unable(f"Unable to {verb} image {image.volid}: {', '.join(used_by)} uses it")
    check_sight(work.client, "know that nothing uses it")


def users(work: Work, image: ImageSpec, node: str, but: int | None = None) -> list[str]:
    """The virtual machines whose config refers to the file, or that are being made of it: one call for each machine
    that can see the storage."""
    shared = (work.resources.storages(node).get(image.storage) or {}).get("shared")
    found = []
    for row in work.resources.machines():
        if (not shared and row["node"] != node) or row["vmid"] == but:
            continue
        if work.resources.nodes().get(row["node"]) is False:
            raise Unable(f"Unable to tell whether {row['vmid']} uses {image.volid}: its node {row['node']} is offline")
        try:
            config = listing(work.client, f"{server_path(row['node'], row['vmid'])}/pending")
        except PveNotFound:
            continue
        if any(_refers(item, image.volid) for item in config):
            name = next((item.get("value") for item in config if item.get("key") == "name"), "a server without a name")
            found.append(f"{name} ({row['vmid']})")
    return found


def _refers(item: Mapping[str, Any], volid: str) -> bool:
    """Whether one line of a config, as it is or as it will be, needs the file."""
    texts = [str(item[name]) for name in ("value", "pending") if item.get(name) is not None]
    if item.get("key") == "description":
        return any(_being_made_of(text, volid) for text in texts)
    return any(text.split(",")[0] == volid for text in texts)


def _being_made_of(description: str, volid: str) -> bool:
    record = split_notes(description)[1]
    return description.startswith(TEMPLATE_MARKER) and record is not None and record.volid == volid


def delete(work: Work, image: ImageSpec, node: str) -> None:
    def gone() -> bool | None:
        return True if find_file(work.client, image, node) is None else None

    work.run("DELETE", _file_path(image, node), {}, landed=gone, percent=(0, 5))
    if not gone():
        raise Unable(f"Unable to remove image {image.volid}: it is still there")


def _download(work: Work, plan: Fetch, url: str) -> None:
    image, node = plan.image, plan.node
    params = {
        "url": url,
        "content": image.content,
        "filename": image.file,
        "checksum": image.checksum,
        "checksum-algorithm": image.algorithm if image.checksum else None,
        "verify-certificates": None if image.verify_certificates else False,
    }

    def landed() -> bool | None:
        wait_for_active(work.client, node, work.spec.timeout, typefilter="download")
        # PVE checks a file that is there already, and fetches nothing when it is the right one.
        return True if not image.checksum and find_file(work.client, image, node) else None

    with _transfer(f"download {image.volid} from {image.origin}"):
        path = f"{_storage_path(image, node)}/download-url"
        work.run("POST", path, params, landed=landed, percent=(5, 40))


def _upload(work: Work, plan: Fetch, path: str) -> None:
    image, node = plan.image, plan.node
    label = work.spec.label

    def tell(percent: int) -> None:
        work.report(percent * 35 // 100, f"{label}: sending {image.file} ({percent}%)")

    def landed() -> bool | None:
        wait_for_active(work.client, node, work.spec.timeout, typefilter="imgcopy")
        row = find_file(work.client, image, node)
        return True if row is not None and row != plan.row and row.get("size") == os.path.getsize(path) else None

    # pveproxy reads the fields in this order only.
    params: dict[str, object] = {
        "content": image.content,
        "checksum-algorithm": image.algorithm,
        "checksum": image.checksum,
        "filename": UploadFile(path, str(image.file), tell),
    }
    try:
        with _transfer(f"upload {path} to {image.volid}"):
            work.run("POST", f"{_storage_path(image, node)}/upload", params, landed=landed, percent=(0, 40))
    except OSError as error:
        raise Unable(f"Unable to upload {path} to {image.volid}: {error.strerror or error}") from error


@contextlib.contextmanager
def _transfer(what: str) -> Iterator[None]:
    try:
        yield
    except PveTaskFailed as error:
        hint = ""
        if "aborting" in (error.exitstatus or ""):
            hint = "; another file has that name: remove it with state: image_absent, or give another image.file"
        raise Unable(f"Unable to {what}: {error}{hint}") from error


def _storage_path(image: ImageSpec, node: str) -> str:
    return f"/nodes/{segment(node)}/storage/{segment(image.storage)}"


def _file_path(image: ImageSpec, node: str) -> str:
    return f"{_storage_path(image, node)}/content/{segment(image.volid)}"
