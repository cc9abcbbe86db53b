# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

"""Image files on a storage: uploaded, downloaded, and imported into a VM's disks."""

from __future__ import annotations

import hashlib
import ipaddress
import re
import time
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web
from fakepve.model import PveError, TaskError
from fakepve.routing import die, param_error, split_list
from fakepve.server import USER, ok, params

from .drives import DRIVE_KEY, NEW_DISK, Drive, human_size, print_size, volume_ref
from .guest import LabGuest
from .tasks import Log

# PVE/Storage.pm: what a file may be called in each content type that can be uploaded.
FILE_NAMES = {
    "iso": (re.compile(r"[^/]+\.(?:iso|img)", re.I), "wrong file extension"),
    "vztmpl": (re.compile(r"[^/]+\.tar\.(?:gz|xz|zst|bz2)"), "wrong file extension"),
    "import": (re.compile(r"[a-zA-Z0-9\-.+=_]+\.(?:ova|qcow2|raw|vmdk)"), "invalid filename or wrong extension"),
}
UPLOAD_FIELDS = ("content", "checksum-algorithm", "checksum", "filename")
ALGORITHMS = ("md5", "sha1", "sha224", "sha256", "sha384", "sha512")
QCOW2_MAGIC = b"QFI\xfb"
CHUNK = 1024**2
# Where a request keeps its form once it is read.
FORM = web.RequestKey("form", tuple)


class Contents:
    """What is known of a file once its bytes have gone by."""

    def __init__(self) -> None:
        self.size = 0
        self._head = b""
        self._hashes = {name: hashlib.new(name, usedforsecurity=False) for name in ALGORITHMS}

    def take(self, data: bytes) -> None:
        self.size += len(data)
        self._head = (self._head + data[:32])[:32]
        for one in self._hashes.values():
            one.update(data)

    def hashes(self) -> dict[str, str]:
        return {name: one.hexdigest() for name, one in self._hashes.items()}

    def is_qcow2(self) -> bool:
        return self._head.startswith(QCOW2_MAGIC)

    def virtual(self) -> int:
        """Bytes of the disk in it: a qcow2 file says so in its header, others are taken as raw."""
        return int.from_bytes(self._head[24:32], "big") if self.is_qcow2() else self.size


class Images:
    """Mixin: uploads, download-url, and `import-from`."""

    def add_image(
        self,
        storage: str,
        filename: str,
        *,
        node: str | None = None,
        content: str = "import",
        size: int = 512 * CHUNK,
        virtual: int | None = None,
        hashes: dict[str, str] | None = None,
    ) -> str:
        """Put an image file on a storage, of ``size`` bytes with a disk of ``virtual`` bytes in it. Its volume id.

        ``node``: where it is on a storage that is not shared, the first one unless given.
        """
        store = self.storages[storage]
        store["volumes"][f"{content}/{filename}"] = {
            "content": content,
            "format": "iso" if content == "iso" else filename.rpartition(".")[2],
            "size": size,
            "virtual": size if virtual is None else virtual,
            "hashes": hashes or {},
            "ctime": int(time.time()),
            "node": None if store.get("shared") else node or min(self.nodes),
        }
        return f"{storage}:{content}/{filename}"

    def _target(self, values: dict[str, Any], no_files: str, no_content: str) -> tuple[str, str]:
        """(storage, file name) of a transfer, after the checks that PVE makes before it forks."""
        sid, content, filename = values["storage"], values["content"], values["filename"]
        store = self._active_store(sid, values["node"])
        if "path" not in store:
            raise die(no_files.format(store["type"]))
        pattern, complaint = FILE_NAMES[content]
        if not pattern.fullmatch(filename):
            raise param_error(filename=complaint)
        if content not in split_list(store.get("content")):
            raise die(no_content.format(sid, content))
        return sid, filename

    def _keep(self, values: dict[str, Any], contents: Contents) -> None:
        """The file is complete: from now on it is on the storage."""
        sid = values["storage"]
        total, used = self.space(sid, values["node"])
        if contents.size > total - used:
            raise TaskError("import failed: No space left on device")
        self.add_image(
            sid,
            values["filename"],
            node=values["node"],
            content=values["content"],
            size=contents.size,
            virtual=contents.virtual(),
            hashes=contents.hashes(),
        )

    @staticmethod
    def _check_format(values: dict[str, Any], contents: Contents) -> None:
        if values["filename"].endswith(".qcow2") and not contents.is_qcow2():
            raise TaskError("qemu-img: Could not open the file: Image is not in qcow2 format")

    @staticmethod
    def _check_sum(values: dict[str, Any], hashes: dict[str, str], log: Log, suffix: str = "") -> None:
        expected = values.get("checksum")
        if not expected:
            return
        got = hashes.get(values["checksum-algorithm"], "")
        if got != expected.lower():
            log("")
            raise TaskError(f"checksum mismatch: got '{got}' != expect '{expected}'{suffix}")
        log("calculating checksum...OK, checksum verified")

    # ----------------------------------------------------------------- upload

    async def _read_body(self, request: web.Request) -> bytes:
        """An upload is read as it comes, for it may be larger than memory."""
        if request.content_type != "multipart/form-data" or not request.path.endswith("/upload"):
            return bytes(await super()._read_body(request))
        request[FORM] = await self._read_form(request)
        return b""

    @staticmethod
    async def _read_form(request: web.Request) -> tuple[dict[str, Any], Contents] | None:
        """The fields and the file, None when the fields are not in the order that pveproxy reads them in."""
        values: dict[str, Any] = {}
        contents = Contents()
        order = list(UPLOAD_FIELDS)
        async for part in await request.multipart():
            if not isinstance(part, aiohttp.BodyPartReader) or part.name not in order:
                return None
            del order[: order.index(part.name) + 1]
            if part.name != "filename":
                values[part.name] = await part.text()
                continue
            values["filename"] = part.filename
            while data := await part.read_chunk(CHUNK):
                contents.take(data)
        complete = values.get("filename") and values.get("content") in FILE_NAMES
        return (values, contents) if complete else None

    async def _upload(self, request: web.Request) -> web.StreamResponse:
        user = request[USER]
        self.require(user, "/storage/" + request.match_info["storage"], "Datastore.AllocateTemplate")
        if request.content_length is None:
            raise PveError(501, "chunked transfer encoding not supported")
        form = request.get(FORM)
        if form is None:
            return web.Response(status=400)
        values, contents = {**form[0], **request.match_info}, form[1]
        sid, filename = self._target(
            values, "can't upload to storage type '{}'", "storage '{}' does not support '{}' content"
        )

        async def body(log: Log) -> None:
            log("starting file import from: /var/tmp/pveupload")
            self._check_sum(values, contents.hashes(), log)
            self._check_format(values, contents)
            log(f"target file: {self._volume_path(sid, values['content'] + '/' + filename, values['content'])}")
            log(f"file size is: {contents.size}")
            await self.pause(1)
            self._keep(values, contents)  # a file of this name is overwritten
            log("finished file import successfully")

        return ok(await self.worker(values["node"], "imgcopy", "", user, body))

    # --------------------------------------------------------------- download

    async def _download_url(self, request: web.Request) -> web.Response:
        user = request[USER]
        self.require(user, "/storage/" + request.match_info["storage"], "Datastore.AllocateTemplate")
        self.require(user, "/", "Sys.Audit")
        self.require(user, "/", "Sys.Modify")
        # fakepve's schema does not know the formats of compression
        values = {**self._verify(request, given := await params(request), drop=("compression",)), **request.match_info}
        values["compression"] = given.get("compression")
        sid, filename = self._target(
            values,
            "can't upload to storage type '{}', not a file based storage!",
            "storage '{}' is not configured for content-type '{}'",
        )
        name = f"{values['content']}/{filename}"
        path = self._volume_path(sid, name, values["content"])

        async def body(log: Log) -> None:
            if values.get("compression"):
                if values["content"] != "iso":
                    raise TaskError(f"decompression not supported for {values['content']}")
                raise TaskError("decompression is not simulated by the lab")
            log(f"downloading {values['url']} to {path}")
            present = self.storages[sid]["volumes"].get(name)
            if present is not None:
                if not values.get("checksum"):
                    raise TaskError(f"refusing to override existing file '{path}'")
                self._check_sum(values, present.get("hashes", {}), log, ", aborting")
                log("OK, got correct file already, no need to download")
                return
            contents = Contents()
            await self._fetch(values, contents, log)
            self._check_sum(values, contents.hashes(), log)
            self._check_format(values, contents)
            self._keep(values, contents)
            log(f"download of '{values['url']}' to '{path}' finished")

        return ok(await self.worker(values["node"], "download", filename, user, body))

    async def _fetch(self, values: dict[str, Any], contents: Contents, log: Log) -> None:
        """As wget does, but only from this machine: no test or demo asks anybody else."""
        failed = "download failed: command 'wget --progress=dot:giga' failed: exit code {}"
        if not _is_loopback(values["url"]):
            log("the lab fetches from loopback addresses only")
            raise TaskError(failed.format(4))
        try:
            async with aiohttp.ClientSession() as session, session.get(values["url"], ssl=_trust(values)) as answer:
                if answer.status != 200:
                    log(f"ERROR {answer.status}: {answer.reason}.")
                    raise TaskError(failed.format(8))
                length = answer.content_length
                log(f"Length: {length or 'unspecified'}")
                async for data in _pieces(answer):
                    contents.take(data)
                    percent = contents.size * 100 // length if length else 0
                    log(f"{contents.size // 1024:>6}K ........ ........ ........ ........ {percent:>2}%  100M 0s")
                    await self.pause(0.1)
                if length is not None and contents.size != length:
                    raise TaskError(failed.format(4))
        except aiohttp.ClientConnectorCertificateError as error:
            raise TaskError(failed.format(5)) from error
        except aiohttp.ClientError as error:
            log(f"{type(error).__name__}")
            raise TaskError(failed.format(4)) from error

    # ------------------------------------------------------------ import-from

    async def _content_info(self, values: dict[str, Any], user: str) -> dict[str, Any]:
        """Of an image file PVE tells the size of the disk in it, where the listing tells the file's."""
        info: dict[str, Any] = await super()._content_info(values, user)
        sid, name = self._volume_target(values)[:2]
        return {**info, "size": self.storages[sid]["volumes"].get(name, {}).get("virtual", info["size"])}

    def check_drive(self, user: str, node: str, vmid: int, key: str, value: str, default: str | None = None) -> None:
        drive = Drive(value)
        source = drive.options.get("import-from")
        if source is not None:
            found = NEW_DISK.match(drive.volume)
            if not found or float(found[2]):
                syntax = "use <storage ID>:0,import-from=<source>"
                raise param_error(**{key: f"'import-from' requires special syntax - {syntax}"})
            self._check_source(user, node, key, source)
        super().check_drive(user, node, vmid, key, value, default)

    def _check_source(self, user: str, node: str, key: str, source: str) -> None:
        sid, name = volume_ref(source)
        if sid is None:
            if user != "root@pam":
                raise PveError(403, "Only root can pass arbitrary filesystem paths.")
            return
        store = self._check_enabled(sid, node)
        kind, owner, _format = self._parse_volname(store, name)
        self._check_access(user, sid, kind, owner, source)
        if kind not in ("images", "import"):
            raise param_error(**{key: f"{source} has wrong type '{kind}' - needs to be 'images' or 'import'"})

    def _source(self, source: str, node: str) -> dict[str, Any] | None:
        """The record of a volume or of the file at a path, as the node sees it."""
        for sid, store in self.storages.items():
            for name, record in store["volumes"].items():
                known = (f"{sid}:{name}", self._volume_path(sid, name, record["content"]))
                if source in known and (store.get("shared") or record.get("node") in (None, node)):
                    return dict(record)
        return None

    async def import_disks(self, guest: LabGuest, options: dict[str, Any], default: str | None, log: Log) -> None:
        """Copies what `import-from` names; the drives in ``options`` become those that the config will hold.

        A failure frees what was allocated. A worker that is killed leaves it, in no config.
        """
        made: list[str] = []
        try:
            for key in sorted(filter(DRIVE_KEY.match, options)):
                drive = Drive(str(options[key]))
                source = drive.options.pop("import-from", None)
                if source is None:
                    continue
                record = self._source(source, guest.node)
                if record is None:
                    raise TaskError(f"could not get size of {source}")
                size = int(record.get("virtual") or record["size"])
                sid = drive.storage or str(default)
                total, used = self.space(sid, guest.node)
                if size > total - used:
                    raise TaskError("copy failed: qemu-img: error while writing: No space left on device")
                log(f"importing disk '{source}' to VM {guest.vmid} ...")
                drive.volume = self.allocate(guest, sid, size, fmt=drive.options.pop("format", None))
                made.append(drive.volume)
                await self._transfer(size, "", log)
                drive.options["size"] = print_size(size)
                options[key] = str(drive)
                guest.agent = {}  # whatever is imported is taken for an operating system
                log(f"{key}: successfully created disk '{drive}' ({human_size(size)})")
        except (PveError, TaskError):
            for volume in made:
                self.free(volume)
            raise


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _trust(values: dict[str, Any]) -> bool:
    return bool(values.get("verify-certificates", 1))


async def _pieces(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """At most a hundred pieces, for a line of the log each."""
    step = max((answer.content_length or 0) // 100, 64 * 1024)
    async for data in answer.content.iter_chunked(step):
        yield data
