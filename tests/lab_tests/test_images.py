# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

"""Image files: uploaded, downloaded, imported into disks, deleted."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from .api import Api, Refusal

GIB = 1024**3
QCOW2 = b"QFI\xfb" + (3).to_bytes(4, "big") + bytes(16) + (2 * GIB).to_bytes(8, "big") + bytes(300_000)
SHA256 = hashlib.sha256(QCOW2).hexdigest()
CONTENT = "/nodes/pve1/storage/local/content"


@pytest.fixture
def address() -> Iterator[str]:
    """A web server of this test's own, which has image.qcow2."""

    class Files(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = self.path == "/image.qcow2"
            self.send_response(200 if found else 404)
            self.send_header("Content-Length", str(len(QCOW2) if found else 0))
            self.end_headers()
            if found:
                self.wfile.write(QCOW2)

        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Files) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def upload(api: Api, fields: Sequence[tuple[str, Any]], storage: str = "local") -> Any:
    where = f"{api.lab.api_endpoint}/api2/json/nodes/pve1/storage/{storage}/upload"
    return api.session.post(where, files=list(fields))


def form(**values: str) -> list[tuple[str, Any]]:
    return [(name.replace("_", "-"), (None, value)) for name, value in values.items()]


def file(name: str = "image.qcow2", data: bytes = QCOW2) -> tuple[str, Any]:
    return ("filename", (name, data))


def listing(api: Api) -> dict[str, dict[str, Any]]:
    return {item["volid"]: item for item in api.get(CONTENT, content="import")}


def test_an_upload_is_on_the_storage_when_its_task_has_ended(api: Api) -> None:
    answer = upload(api, [*form(content="import", checksum_algorithm="sha256", checksum=SHA256), file()])
    assert answer.status_code == 200, answer.text
    upid = answer.json()["data"]
    assert upid.split(":")[5] == "imgcopy"
    assert api.wait(upid) == "OK"
    item = listing(api)["local:import/image.qcow2"]
    assert (item["content"], item["format"], item["size"]) == ("import", "qcow2", len(QCOW2))
    assert api.get(f"{CONTENT}/local:import%2Fimage.qcow2")["size"] == 2 * GIB


def test_the_forms_fields_have_an_order(api: Api) -> None:
    wrong = [file(), *form(content="import")]
    swapped = [*form(checksum=SHA256, checksum_algorithm="sha256", content="import"), file()]
    for fields in (wrong, swapped, form(content="import")):
        answer = upload(api, fields)
        assert (answer.status_code, answer.content) == (400, b"")
    assert not listing(api)


@pytest.mark.parametrize(
    ("fields", "ending"),
    [
        (
            [*form(content="import", checksum_algorithm="md5", checksum="0" * 32), file()],
            f"checksum mismatch: got '{hashlib.md5(QCOW2, usedforsecurity=False).hexdigest()}' != expect '{'0' * 32}'",
        ),
        ([*form(content="import"), file(data=b"no disk")], "Image is not in qcow2 format"),
    ],
)
def test_a_bad_upload_fails_in_its_task(api: Api, fields: list[tuple[str, Any]], ending: str) -> None:
    assert api.wait(upload(api, fields).json()["data"]).endswith(ending)
    assert not listing(api)


def test_an_upload_is_refused_at_once(api: Api) -> None:
    answer = upload(api, [*form(content="import"), file("image.img")])
    assert answer.json()["errors"] == {"filename": "invalid filename or wrong extension"}
    assert "does not support 'import' content" in upload(api, [*form(content="import"), file()], "shared").text
    assert "can't upload to storage type 'lvmthin'" in upload(api, [*form(content="import"), file()], "local-lvm").text


def download(api: Api, url: str, **options: Any) -> str:
    where = "/nodes/pve1/storage/local/download-url"
    upid = api.post(where, **{"url": url, "content": "import", "filename": "image.qcow2", **options})
    assert upid.split(":")[5] == "download"
    return api.wait(upid)


def test_a_download_is_really_fetched_and_never_overwrites(api: Api, address: str) -> None:
    url = f"{address}/image.qcow2"
    good = {"checksum": SHA256.upper(), "checksum-algorithm": "sha256"}
    bad = {"checksum": "0" * 64, "checksum-algorithm": "sha256"}
    assert download(api, url, **bad) == f"checksum mismatch: got '{SHA256}' != expect '{'0' * 64}'"
    assert download(api, url, compression="gz").startswith("decompression not supported for import")
    assert download(api, f"{address}/none.qcow2").endswith("exit code 8")
    assert download(api, "http://192.0.2.1/image.qcow2").endswith("exit code 4")
    assert not listing(api)
    assert download(api, url, **good) == "OK"
    assert listing(api)["local:import/image.qcow2"]["size"] == len(QCOW2)
    assert download(api, url, **good) == "OK"
    assert download(api, url, **bad).endswith("aborting")
    assert download(api, url).startswith("refusing to override existing file")


def test_an_image_becomes_a_disk_of_a_new_vm(api: Api) -> None:
    api.lab.do(api.lab.pve.add_image, "local", "image.qcow2", virtual=2 * GIB)
    volid = "local:import/image.qcow2"
    upid = api.post("/nodes/pve1/qemu", vmid=100, scsi0=f"local-lvm:0,import-from={volid},discard=on")
    assert api.wait(upid) == "OK"
    assert any(line.startswith("transferred 1.0 GiB of 2.0 GiB (50.00%)") for line in api.log(upid))
    assert api.config(100)["scsi0"] == "local-lvm:vm-100-disk-0,discard=on,size=2G"


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_an_image_becomes_a_disk_of_a_vm_that_is_there(api: Api, method: str) -> None:
    api.lab.do(api.lab.pve.add_image, "local", "image.raw", size=GIB)
    assert api.run("POST", "/nodes/pve1/qemu", vmid=100) == "OK"
    answer = api.send(method, api.vm(100, "/config"), scsi0="shared:0,import-from=local:import/image.raw,format=qcow2")
    assert answer.status_code == 200, answer.text
    if method == "POST":
        assert api.wait(answer.json()["data"]) == "OK"
    assert api.config(100)["scsi0"] == "shared:100/vm-100-disk-0.qcow2,size=1G"


def test_what_cannot_be_imported(api: Api) -> None:
    pve = api.lab.pve
    api.lab.do(pve.add_image, "local", "disk.img", content="iso")
    api.lab.do(pve.add_image, "local", "huge.raw", size=5000 * GIB)
    api.lab.do(pve.add_image, "local", "there.raw", node="pve2")
    assert api.run("POST", "/nodes/pve1/qemu", vmid=100) == "OK"

    def refused(value: str) -> Refusal:
        return api.refused("POST", api.vm(100, "/config"), scsi0=value)

    wrong_type = "local:iso/disk.img has wrong type 'iso' - needs to be 'images' or 'import'"
    assert refused("local-lvm:0,import-from=local:iso/disk.img").errors == {"scsi0": wrong_type}
    assert "requires special syntax" in refused("local-lvm:4,import-from=local:import/huge.raw").errors["scsi0"]
    assert "does not support vm images" in str(refused("local:0,import-from=local:import/huge.raw").errors)
    assert refused("local-lvm:0,import-from=/var/lib/vz/x.raw").message.startswith("Only root can pass")
    for name, ending in [
        ("none.raw", "could not get size of"),
        ("there.raw", "could not"),
        ("huge.raw", "copy failed"),
    ]:
        ended = api.run("POST", api.vm(100, "/config"), scsi0=f"local-lvm:0,import-from=local:import/{name}")
        assert ended.startswith(ending)
    assert "scsi0" not in api.config(100)
    assert not api.get("/nodes/pve1/storage/local-lvm/content", vmid=100)


def test_a_killed_import_leaves_its_volume_and_no_disk(api: Api) -> None:
    api.lab.do(api.lab.pve.add_image, "local", "image.raw", size=500 * GIB)
    assert api.run("POST", "/nodes/pve1/qemu", vmid=100) == "OK"
    upid = api.post(api.vm(100, "/config"), scsi0="local-lvm:0,import-from=local:import/image.raw")
    api.lab.do(api.lab.pve.kill_task, upid)
    assert api.wait(upid) == "unexpected status"
    assert "scsi0" not in api.config(100)
    assert api.get("/nodes/pve1/storage/local-lvm/content", vmid=100)
    assert api.run("DELETE", api.vm(100), **{"destroy-unreferenced-disks": 1}) == "OK"
    assert not api.get("/nodes/pve1/storage/local-lvm/content", vmid=100)


def test_an_image_is_deleted_in_a_task(api: Api) -> None:
    api.lab.do(api.lab.pve.add_image, "local", "image.raw")
    assert api.run("DELETE", f"{CONTENT}/local:import%2Fimage.raw") == "OK"
    assert not listing(api)


def test_the_images_of_a_storage_that_is_not_shared_are_seen_on_their_node(api: Api) -> None:
    api.lab.do(api.lab.pve.add_image, "local", "image.raw", node="pve2")
    assert not listing(api)
    assert api.get("/nodes/pve2/storage/local/content", content="import")
