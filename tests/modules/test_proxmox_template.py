# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""proxmox_template: through Ansible as users run it, and its function in all its variants, against the lab."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
import yaml
from ansible_collections.pvefleet.infra.plugins.module_utils._pve import image as images
from ansible_collections.pvefleet.infra.plugins.module_utils._pve import steps
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import PveClient, PveForbidden
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.errors import Unable
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server_converge import converge as converge_server
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server_spec import (
    ServerSpec,
    SpecError,
    server_spec,
)
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server_work import Work
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.template_plan import (
    TEMPLATE_MARKER,
    ImageSpec,
    Record,
    has_changed,
    join_notes,
    split_notes,
)
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.upid import percent_of
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.upload import BLOCK, Form, UploadFile
from hypothesis import given
from hypothesis import strategies as st

from tests.ansible_run import Ansible

from .conftest import RunModule
from .jobs import add_server, volumes
from .jobs.proxmox_template import GIB, IMAGE, VOLID, make

pytestmark = pytest.mark.usefixtures("quick")

# As the collection's description prints it.
PRINTED = """
- pvefleet.infra.proxmox_template:
    {cluster: prod, node: pve1, vmid: 9000, name: rocky-9, image: {storage: local, file: upload.img}, disk_storage: local-lvm}
"""  # noqa: E501
BASE = {"name": "rocky-9", "vmid": 9001, "node": "pve1", "image": IMAGE, "disk_storage": "local-lvm"}


def qcow2(virtual: int, filling: bytes = b"\0") -> bytes:
    """A file with the header of one."""
    return b"QFI\xfb" + (3).to_bytes(4, "big") + bytes(16) + virtual.to_bytes(8, "big") + filling * 200_000


class Mirror:
    """A web server of this test's own."""

    def __init__(self) -> None:
        files = self.files = dict[str, bytes]()
        before = self.before = list[Callable[[], None]]()  # called before the next answer
        self.asked = list[str]()
        asked = self.asked

        class Files(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path)
                if before:
                    before.pop()()
                found = files.get(self.path)
                self.send_response(404 if found is None else 200)
                self.send_header("Content-Length", str(len(found or b"")))
                self.end_headers()
                self.wfile.write(found or b"")

            def log_message(self, format: str, *args: Any) -> None:
                """Says nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Files)

    def image(self, **options: Any) -> dict[str, Any]:
        """The option `image` for /rocky-9.qcow2 as it is now, with its checksum."""
        checksum = hashlib.sha256(self.files["/rocky-9.qcow2"]).hexdigest()
        return {"storage": "local", "url": self.url("/rocky-9.qcow2"), "checksum": checksum, **options}

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server.server_port}{path}"


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    found = Mirror()
    found.files["/rocky-9.qcow2"] = qcow2(2 * GIB)
    with found.server as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield found
        server.shutdown()
        thread.join()


@pytest.fixture
def client(lab: Any) -> Iterator[PveClient]:
    with closing(PveClient(lab.connection(default_storage="local-lvm"))) as found:
        yield found


@pytest.fixture
def image(lab: Any) -> str:
    """An image that was put on its storage before."""
    volid: str = lab.do(lab.pve.add_image, "local", "rocky-9.qcow2", virtual=2 * GIB)
    return volid


@pytest.fixture
def module_params(lab: Any) -> dict[str, Any]:
    """How run_module logs in to the lab."""
    return {
        "api_host": lab.api_endpoint,
        "api_user": lab.username,
        "api_token_id": "fleet",
        "api_token_secret": lab.token_secret,
        "ca_path": lab.ca_file,
    }


@pytest.fixture
def ansible(tmp_path: Path, lab: Any) -> Ansible:
    return Ansible(tmp_path, lab)


def writes(lab: Any, mark: int = 0) -> list[tuple[str, str]]:
    return [(method, path) for method, path in lab.requests[mark:] if method != "GET" and path != "/access/ticket"]


def made_as_foretold(lab: Any, client: PveClient, **options: Any) -> Any:
    """Check mode writes nothing and foretells the change that is made; a second run has nothing to do."""
    mark = len(lab.requests)
    foretold = make(client, check_mode=True, **options)
    assert writes(lab, mark) == []
    result = make(client, **options)
    assert result.plan.changed
    assert foretold.plan == result.plan
    mark = len(lab.requests)
    again = make(client, **options)
    assert not again.plan.changed
    assert writes(lab, mark) == []
    return result


def refused(lab: Any, client: PveClient, **options: Any) -> str:
    """The sentence of a run that changes nothing."""
    mark = len(lab.requests)
    with pytest.raises((Unable, SpecError)) as info:
        make(client, **options)
    assert writes(lab, mark) == []
    return str(info.value)


# ---------------------------------------------------------------- as users run it


def test_example_as_printed(ansible: Ansible, lab: Any) -> None:
    lab.do(lab.pve.vms.clear)
    lab.do(lab.pve.storages["local-lvm"]["volumes"].clear)
    lab.do(lab.pve.add_image, "local", "upload.img", content="iso", size=GIB)
    (example,) = yaml.safe_load(PRINTED)
    foretold, made, again = ansible.tasks([{**example, "check_mode": True}, example, example], "--diff")
    assert not made.get("failed"), made
    assert foretold["diff"] == made["diff"]
    assert foretold["template"] == made["template"]
    assert not again["changed"]
    assert again["template"] == {
        "vmid": 9000,
        "name": "rocky-9",
        "node": "pve1",
        "status": "present",
        "image": "local:iso/upload.img",
        "fingerprint": made["template"]["fingerprint"],
        "outdated": False,
    }
    config = lab.vm(9000).config
    assert config["scsi0"] == "local-lvm:base-9000-disk-0,size=1G"
    assert (config["scsihw"], config["boot"], config["template"]) == ("virtio-scsi-single", "order=scsi0", 1)


def test_whole_life_by_tasks(ansible: Ansible, lab: Any, mirror: Mirror) -> None:
    task = {"name": "rocky-9", "node": "pve1", "disk_storage": "local-lvm"}
    mirror.files["/new.qcow2"] = qcow2(2 * GIB, b"n")
    other = {"storage": "local", "url": mirror.url("/new.qcow2")}
    made, outdated, removed, image_removed, wrong = ansible.tasks(
        [
            {"pvefleet.infra.proxmox_template": {**task, "image": mirror.image()}},
            {"pvefleet.infra.proxmox_template": {**task, "image": other}},
            {"pvefleet.infra.proxmox_template": {"name": "rocky-9", "state": "absent"}},
            {"pvefleet.infra.proxmox_template": {"image": IMAGE, "state": "image_absent"}},
            {"pvefleet.infra.proxmox_template": {**task, "image": {"storage": "local", "url": "a", "path": "b"}}},
        ]
    )
    assert made["template"]["fingerprint"] == f"sha256:{mirror.image()['checksum']}"
    assert (outdated["changed"], outdated["template"]["outdated"]) == (False, True)
    assert "is made of another image" in outdated["warnings"][0]
    assert (removed["changed"], removed["template"]["status"]) == (True, "absent")
    assert image_removed["changed"]
    assert "mutually exclusive: url|path" in wrong["msg"]
    assert [guest.vmid for guest in lab.pve.vms] == [lab.template_vmid]
    assert not lab.pve.storages["local"]["volumes"]


def test_nobody_reads_the_password_in_a_url(
    run_module: RunModule, lab: Any, mirror: Mirror, tmp_path: Path, module_params: dict[str, Any]
) -> None:
    url = mirror.url("/rocky-9.qcow2?sig=t0psignature").replace("//", "//bob:s3cretpw@")
    mirror.files["/rocky-9.qcow2?sig=t0psignature"] = mirror.files["/rocky-9.qcow2"]
    report = tmp_path / "report"
    options = {**module_params, **BASE, "image": {"storage": "local", "url": url}}

    def run(**more: Any) -> dict[str, Any]:
        fails = more.pop("fails", False)
        check = more.pop("check", False)
        environment = {"PVEFLEET_REPORT": str(report)}
        found = run_module("proxmox_template", {**options, **more}, check=check, environment=environment, fails=fails)
        told = found["output"] + (report.read_text() if report.exists() else "")
        assert not re.search("bob|s3cretpw|t0psignature", told), told
        return found

    foretold = run(check=True)
    shown = f"{VOLID} from {mirror.url('/rocky-9.qcow2')}"
    assert shown in str(foretold["diff"])
    run(name="not a name", fails=True)
    run(image={"storage": "local", "url": "http://bob:s3cretpw/@[/x.qcow2?t0psignature"}, fails=True)
    found = mirror.files.pop("/rocky-9.qcow2?sig=t0psignature")

    def is_told() -> None:
        for _look in steps.until(10):
            if report.exists() and "downloading http" in report.read_text():
                return

    mirror.before.append(is_told)
    assert "exit code 8" in run(fails=True)["msg"]
    mirror.files["/rocky-9.qcow2?sig=t0psignature"] = found
    assert run()["diff"] == foretold["diff"]
    assert f"downloading {mirror.url('/rocky-9.qcow2')} to" in report.read_text()


# ------------------------------------------------------------------------ sources


def test_of_an_image_that_is_there(lab: Any, client: PveClient, image: str) -> None:
    result = made_as_foretold(
        lab,
        client,
        **BASE,
        disk_size="8G",
        disk_options={"discard": True, "ssd": True},
        cores=2,
        memory=2048,
        cpu="host",
        ostype="l26",
        agent=True,
        protection=True,
        tags=["blue"],
        description="for all\nof us",
        nics={"net0": {"bridge": "vmbr0"}},
        cloud_init={"user": "ops", "password": "unforgettable-7"},
    )
    config = lab.vm(9001).config
    assert config["scsi0"] == "local-lvm:base-9001-disk-0,discard=on,size=8G,ssd=1"
    assert config["ide2"] == "local-lvm:vm-9001-cloudinit,media=cdrom"
    assert (config["ciuser"], config["tags"], config["protection"]) == ("ops", "blue", 1)
    assert config["description"] == f"for all\nof us\n\npvefleet: made from {VOLID} ({result.record.fingerprint})"
    assert "unforgettable" not in str(result)


def test_of_a_download(lab: Any, client: PveClient, mirror: Mirror) -> None:
    made_as_foretold(lab, client, **{**BASE, "image": mirror.image()})
    assert mirror.asked == ["/rocky-9.qcow2"]
    assert "size=2G" in lab.vm(9001).config["scsi0"]
    assert make(client, vmid=9001, state="absent").plan.changed
    # The file is there still: PVE checks it and fetches nothing.
    made_as_foretold(lab, client, **{**BASE, "image": mirror.image()})
    assert mirror.asked == ["/rocky-9.qcow2"]


def test_a_download_that_fails_leaves_nothing(lab: Any, client: PveClient, mirror: Mirror) -> None:
    for image, cause in [
        (mirror.image(checksum="0" * 64), "checksum mismatch: got"),
        (mirror.image(url=mirror.url("/none.qcow2")), "exit code 8"),
    ]:
        with pytest.raises(Unable, match=r"Unable to download local:import/\w[\w.-]+ from http://127.*" + cause):
            make(client, **{**BASE, "image": image})
    assert [guest.vmid for guest in lab.pve.vms] == [lab.template_vmid]
    assert not lab.pve.storages["local"]["volumes"]


def test_of_another_file_with_the_name_of_the_download(lab: Any, client: PveClient, mirror: Mirror, image: str) -> None:
    with pytest.raises(Unable, match="another file has that name"):
        make(client, **{**BASE, "image": mirror.image()})
    assert image.partition(":")[2] in lab.pve.storages["local"]["volumes"]


@pytest.mark.parametrize("lost", [None, 596])
def test_of_a_file_of_this_machine(
    lab: Any, client: PveClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: int | None
) -> None:
    report = tmp_path / "report"
    monkeypatch.setenv("PVEFLEET_REPORT", str(report))
    path = tmp_path / "cloud.img"
    path.write_bytes(qcow2(GIB) * 8)
    lab.do(lab.pve.lose_answer, "POST", "/upload", lost)
    result = made_as_foretold(lab, client, **{**BASE, "image": {"storage": "local", "path": str(path)}})
    assert result.record == Record(
        "local:import/cloud.qcow2", f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    )
    assert lab.count_since(0, "POST", "/upload") == 1
    told = [json.loads(line) for line in report.read_text().splitlines()]
    assert sum("sending cloud.qcow2 (" in line["message"] for line in told) > 10
    assert any("transferred" in line["message"] for line in told)
    percents = [line["percent"] for line in told]
    assert percents == sorted(percents)


@pytest.mark.parametrize(
    ("data", "options", "complaint"),
    [
        (b"\xfd7zXZ\x00", {}, "is compressed with xz"),
        (b"raw", {"file": "cloud.qcow2"}, "is raw, which cloud.qcow2 does not say"),
        (b"raw", {"checksum": "0" * 64}, "has the sha256 checksum"),
        (None, {}, "cannot be read: No such file or directory"),
    ],
)
def test_of_a_file_that_is_no_image(
    lab: Any, client: PveClient, tmp_path: Path, data: bytes | None, options: dict[str, str], complaint: str
) -> None:
    path = tmp_path / "cloud.img"
    if data is not None:
        path.write_bytes(data)
    assert complaint in refused(lab, client, **{**BASE, "image": {"storage": "local", "path": str(path), **options}})


def test_of_a_volume(lab: Any, client: PveClient) -> None:
    add_server(lab)
    result = made_as_foretold(lab, client, name="golden", node="pve1", volume="local-lvm:vm-100-disk-0")
    assert (result.guest.vmid, result.outdated) == (101, False)
    assert lab.vm(101).config["scsi0"] == "local-lvm:base-101-disk-0,size=3G"
    assert volumes(lab, 100) == ["vm-100-cloudinit", "vm-100-disk-0"]


def test_of_an_iso_image_by_token(lab: Any, client: PveClient) -> None:
    lab.do(lab.pve.add_image, "local", "upload.img", content="iso")
    complaint = refused(lab, client, **{**BASE, "image": {"storage": "local", "file": "upload.img"}})
    assert "only root@pam with its password may import" in complaint


def test_a_declared_checksum_needs_no_look_at_the_file(lab: Any, client: PveClient, tmp_path: Path) -> None:
    path = tmp_path / "cloud.img"
    path.write_bytes(b"raw")
    image = {"storage": "local", "path": str(path), "checksum": hashlib.sha256(b"raw").hexdigest()}
    make(client, **{**BASE, "image": image})
    path.unlink()
    result = make(client, **{**BASE, "image": image}, replace="when_changed")
    assert (result.plan.changed, result.outdated) == (False, False)


def test_a_form_is_read_as_it_is_sent(tmp_path: Path) -> None:
    path = tmp_path / "image.raw"
    path.write_bytes(bytes(range(256)) * 1000)
    told = list[int]()
    form = Form({"content": "import", "filename": UploadFile(str(path), "image.raw", told.append)})
    pieces = list(form)
    assert sum(map(len, pieces)) == len(form)
    assert max(map(len, pieces)) <= BLOCK
    assert path.read_bytes() in b"".join(pieces)
    assert (told[-1], told) == (100, sorted(set(told)))


# ----------------------------------------------------------------- what is there


def test_an_existing_template_is_converged(lab: Any, client: PveClient, image: str) -> None:
    make(client, **BASE, description="old", tags=["a"])
    record = split_notes(lab.vm(9001).config["description"])[1]
    changes = {"cores": 4, "memory": 4096, "tags": ["b"], "description": "new", "disk_options": {"discard": True}}
    made_as_foretold(lab, client, **BASE, **changes)
    config = lab.vm(9001).config
    assert (config["cores"], str(config["memory"]), config["tags"]) == (4, "4096", "b")
    assert config["description"] == join_notes("new", record)
    assert "discard=on" in config["scsi0"]
    made_as_foretold(lab, client, **{**BASE, "name": "rocky-9.1"}, rename=True)
    made_as_foretold(lab, client, **{**BASE, "name": "rocky-9.1"}, description="")
    assert lab.vm(9001).config["description"] == join_notes("", record)


def test_a_template_that_somebody_made_by_hand(lab: Any, client: PveClient, image: str) -> None:
    """It is converged like any other, and never replaced, for nothing tells what it is made of."""
    options = {"name": lab.template_name, "image": IMAGE, "replace": "when_changed"}
    assert make(client, **options).outdated is None
    made_as_foretold(lab, client, **options, memory=1024)
    assert lab.vm(9000).config["scsi0"].startswith("local-lvm:base-9000-disk-0")


def test_an_existing_template_needs_its_image_no_more(lab: Any, client: PveClient, image: str) -> None:
    make(client, **BASE)
    assert make(client, image=IMAGE, state="image_absent").plan.changed
    result = make(client, **BASE, replace="when_changed")
    assert (result.plan.changed, result.outdated) == (False, None)


@pytest.mark.parametrize("by", ["checksum", "file"])
def test_another_image(lab: Any, client: PveClient, mirror: Mirror, by: str) -> None:
    """Replaced under its id when that was asked; notes, tags and pool stay."""
    client.post("/pools", {"poolid": "golden"})
    first = mirror.image() if by == "checksum" else IMAGE
    if by == "file":
        lab.do(lab.pve.add_image, "local", "rocky-9.qcow2", virtual=2 * GIB)
    make(client, **{**BASE, "image": first}, description="mine", tags=["a"], pool="golden")
    uuid = lab.vm(9001).config["smbios1"]
    if by == "checksum":
        mirror.files["/rocky-9.qcow2"] = qcow2(3 * GIB, b"x")
        second = mirror.image()
    else:
        lab.do(lab.pve.add_image, "local", "rocky-9.qcow2", size=77, virtual=3 * GIB)
        second = IMAGE
    assert make(client, **{**BASE, "image": second}).outdated is True
    assert lab.vm(9001).config["smbios1"] == uuid
    made_as_foretold(lab, client, **{**BASE, "image": second}, replace="when_changed")
    config = lab.vm(9001).config
    assert config["smbios1"] != uuid
    assert (config["tags"], split_notes(config["description"])[0]) == ("a", "mine")
    assert lab.vm(9001).pool == "golden"
    assert "size=3G" in config["scsi0"]
    assert volumes(lab, 9001) == ["base-9001-disk-0"]


# --------------------------------------------------------------- runs that were cut off

MAKING = [
    ("POST", "/qemu"),
    ("POST", "/9001/config"),
    ("PUT", "/resize"),
    ("POST", "/template"),
    ("PUT", "/9001/config"),
]


@pytest.mark.parametrize(("method", "suffix"), [("DELETE", "rocky-9.qcow2"), ("POST", "/download-url"), *MAKING])
def test_a_replacement_that_was_cut_off(lab: Any, client: PveClient, mirror: Mirror, method: str, suffix: str) -> None:
    make(client, **{**BASE, "image": mirror.image()})
    mirror.files["/rocky-9.qcow2"] = qcow2(3 * GIB, b"x")
    options = {**BASE, "image": mirror.image(), "disk_size": "5G", "replace": "when_changed"}
    lab.do(lab.pve.fail, method, suffix, 500, "power cut", times=1)
    with pytest.raises(Unable, match="power cut"):
        make(client, **options)
    foretold = make(client, check_mode=True, **options)
    result = make(client, **options)
    assert foretold.plan == result.plan
    assert not make(client, **options).plan.changed
    assert lab.vm(9001).config["scsi0"] == "local-lvm:base-9001-disk-0,size=5G"
    assert TEMPLATE_MARKER not in lab.vm(9001).config["description"]
    assert volumes(lab, 9001) == ["base-9001-disk-0"]


def test_a_failed_replacement_tells_what_the_old_template_had(
    lab: Any, client: PveClient, image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And so does its progress beforehand, for a run that is killed tells nothing any more."""
    client.post("/pools", {"poolid": "golden"})
    make(client, **BASE, description="mine\ntoo", tags=["b", "a"], pool="golden")
    lab.do(lab.pve.add_image, "local", "rocky-9.qcow2", size=77, virtual=2 * GIB)
    options = {**BASE, "name": None, "replace": "when_changed"}
    report = tmp_path / "report"
    monkeypatch.setenv("PVEFLEET_REPORT", str(report))
    lab.do(lab.pve.fail, "POST", "/qemu", 500, "power cut", times=1)
    kept = '{"vmid": 9001, "name": "rocky-9", "tags": ["a", "b"], "pool": "golden", "description": "mine\\ntoo"}'
    with pytest.raises(Unable, match=re.escape(f"the new one when it is given {kept}")):
        make(client, **options)
    assert any(kept in json.loads(line)["message"] for line in report.read_text().splitlines())
    assert "give its name, tags, pool and description again" in refused(lab, client, **options)
    make(client, **{**options, **json.loads(kept)})
    config = lab.vm(9001).config
    assert (config["tags"], split_notes(config["description"])[0]) == ("a;b", "mine\ntoo")
    assert lab.vm(9001).pool == "golden"


def test_another_run_is_left_to_finish(
    lab: Any, client: PveClient, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No task of PVE's is under way while it goes from one step to the next: what it has made is not dead."""
    monkeypatch.setattr(steps, "POLL_SECONDS", 0.1)
    begun, seen = Event(), Event()

    async def between_two_steps() -> None:
        begun.set()
        await asyncio.to_thread(seen.wait, 10)

    lab.do(lab.pve.interpose, "POST", "/9001/config", between_two_steps)
    with ThreadPoolExecutor(2) as pool, closing(PveClient(lab.connection())) as other:
        first = pool.submit(make, client, **BASE)
        assert begun.wait(10)
        mark = len(lab.requests)
        second = pool.submit(make, other, **BASE)
        while lab.count_since(mark, "GET", "/pve1/tasks") < 2 and not second.done():
            time.sleep(0.01)
        seen.set()
        assert first.result().plan.changed
        assert not second.result().plan.changed
    assert volumes(lab, 9001) == ["base-9001-disk-0"]


def test_somebody_removes_what_is_being_made(lab: Any, client: PveClient, image: str) -> None:
    def remove() -> None:
        lab.pve.vms[:] = [guest for guest in lab.pve.vms if guest.vmid != 9001]

    lab.do(lab.pve.interpose, "POST", "/9001/config", remove)
    with pytest.raises(Unable, match="rocky-9: somebody else removed 9001 while it was being made; another run makes"):
        make(client, **BASE)
    made_as_foretold(lab, client, **BASE)


@pytest.mark.lab(time_scale=0.05)
def test_an_import_that_goes_on_after_its_run_was_killed(lab: Any, client: PveClient, image: str) -> None:
    """PVE does not know that nobody waits any more: the next run waits for it, and imports nothing again."""
    lab.do(lab.pve.fail, "POST", "/9001/config", 500, "killed", times=1)
    with pytest.raises(Unable, match="a second run goes on"):
        make(client, **BASE)
    client.post("/nodes/pve1/qemu/9001/config", {"scsi0": f"local-lvm:0,import-from={VOLID}", "boot": "order=scsi0"})
    result = make(client, **BASE)
    assert [change.item for change in result.plan.changes] == ["creation"]
    assert lab.vm(9001).template
    assert volumes(lab, 9001) == ["base-9001-disk-0"]


def test_an_import_that_was_killed_leaves_no_volume_behind(lab: Any, client: PveClient) -> None:
    lab.do(lab.pve.add_image, "local", "rocky-9.qcow2", virtual=500 * GIB)
    lab.do(lab.pve.fail, "POST", "/9001/config", 500, "power cut", times=1)
    with pytest.raises(Unable, match="power cut"):
        make(client, **BASE)
    upid = client.post("/nodes/pve1/qemu/9001/config", {"scsi0": f"local-lvm:0,import-from={VOLID}"})
    lab.do(lab.pve.kill_task, upid)
    assert volumes(lab, 9001) == ["vm-9001-disk-0"]
    lab.do(lab.pve.storages["local"]["volumes"]["import/rocky-9.qcow2"].update, virtual=GIB)
    made_as_foretold(lab, client, **BASE)
    assert volumes(lab, 9001) == ["base-9001-disk-0"]


def test_a_half_made_template_can_be_removed(lab: Any, client: PveClient, image: str) -> None:
    lab.do(lab.pve.fail, "POST", "/template", 500, "killed", times=1)
    with pytest.raises(Unable, match="killed"):
        make(client, **BASE)
    assert make(client, name="rocky-9", state="absent").plan.changed
    assert not volumes(lab, 9001)


# --------------------------------------------------------------------- refusals

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"image": None}, "image or volume is needed"),
    ({"volume": "local-lvm:vm-100-disk-0"}, "and not both"),
    ({"image": None, "volume": "local-:vm-7-disk-0"}, "is not the volume of a disk"),
    ({"image": None, "volume": "local:iso/a.iso"}, "volume: 'local:iso/a.iso' is not the volume of a disk"),
    ({"image": None, "volume": "local-lvm:vm-7-disk-0"}, "vm-7-disk-0"),
    (
        {"image": {"storage": "local", "file": "none.raw"}},
        f"there is no image local:import/none.raw on pve1, only {VOLID}",
    ),
    ({"image": {"storage": "local", "file": "a.qcow2.xz"}}, "image.file: PVE does not import"),
    ({"image": {"storage": "local", "file": "../a.raw"}}, "image.file: PVE does not import"),
    ({"image": {"storage": "local", "file": "a b.img"}}, "image.file: PVE does not import"),
    ({"image": {"storage": "local", "url": "ftp://x/a.raw"}}, "image.url: "),
    ({"image": {"storage": "local", "url": "http://[bad/a.raw"}}, "image.url: "),
    ({"image": {"storage": "local", "url": "http://x:port/a.raw"}}, "image.url: "),
    ({"image": {"storage": "local", "path": "/x/we ird;$(x)é.img"}}, "from a file named 'we ird;$(x)é.img': give"),
    (
        {"image": {"storage": "local", "url": "http://x/a.img"}},
        "image.file: PVE does not import from a file named 'a.img'",
    ),
    ({"image": {"storage": "l/o", "file": "a.raw"}}, "image.storage: "),
    ({"image": {**IMAGE, "checksum": "0" * 64}}, "image.checksum goes with url or path"),
    ({"image": {"storage": "local", "url": "http://x/a.raw", "checksum": "0"}}, "is not a sha256 checksum"),
    ({"image": {"storage": "nope", "file": "a.raw"}}, "node pve1 has no storage nope, only local, local-lvm, shared"),
    ({"image": {"storage": "shared", "file": "a.raw"}}, "`pvesm set shared --content images,import`"),
    ({"disk_storage": "local"}, "it does not take disk images"),
    ({"disk_storage": "nope"}, "node pve1 has only"),
    ({"disk_size": "1G"}, "holds a disk of 2G, more than disk_size with its 1G"),
    ({"disk_size": "8"}, "disk_size: '8' has no unit"),
    ({"disk": "sd0"}, "disk: 'sd0' is not a disk"),
    ({"disk_options": {"fast": True}}, "disk_options: unknown option fast"),
    ({"disk_options": {"size": "4G"}, "disk_size": None}, "disk_options: unknown option size"),
    ({"name": "not a name"}, "name: "),
    ({"name": None}, "Unable to make template 9001: there is none, and a new template needs a name"),
    ({"node": "pve9"}, "there is no node pve9"),
    ({"nics": {"net0": {"bridge": "vmbr9"}}}, "vmbr9"),
    ({"pool": "nope"}, "nope"),
    ({"vmid": 100}, "Unable to manage template rocky-9: 100 is a server (web-01) and no template"),
    ({"vmid": 9000}, "9000 is named debian-12-cloud"),
    ({"vmid": None, "name": "web-01"}, "is a server (web-01) and no template"),
    ({"name": "debian-12-cloud"}, "that is the name of 9000"),
    ({"description": "pvefleet: made from nothing"}, "description: "),
    ({"description": "pvefleet: being created"}, "description: "),
    ({"vmid": 9000, "name": None, "disk_storage": "shared"}, "Unable to move scsi0 of template 9000 from local-lvm"),
    ({"vmid": 9000, "name": None, "disk_size": "9G"}, "Unable to resize scsi0 of template 9000 from 3G to 9G"),
    ({"vmid": 9000, "name": None, "disk": "scsi4"}, "template 9000: it has no disk scsi4"),
    ({"vmid": 9000, "name": None, "node": "pve2"}, "Unable to move template 9000 from pve1 to pve2"),
]


def test_what_cannot_be_is_refused_before_anything_is_changed(lab: Any, client: PveClient, image: str) -> None:
    add_server(lab)
    for options, complaint in WRONG:
        said = refused(lab, client, **{**BASE, **options})
        assert complaint in said, (options, said)
        assert "\n" not in said


def test_linked_clones_keep_their_template(lab: Any, client: PveClient, image: str) -> None:
    """On a storage of files they are named; on LVM-thin PVE itself refuses."""
    make(client, **{**BASE, "disk_storage": "shared"})
    clone = {"name": "web-01", "clone": {"template": "rocky-9", "full": False}, "state": "present"}
    converge_server(client, server_spec({**clone, "node": "pve1"}))
    lab.do(lab.pve.settle_resources)
    for options in (
        {"name": "rocky-9", "state": "absent"},
        {**BASE, "disk_storage": "shared", "image": {**IMAGE, "file": "new.raw"}, "replace": "when_changed"},
    ):
        assert "web-01 (100) is a linked clone of it" in refused(lab, client, **options)
    converge_server(client, server_spec({"name": "web-02", "state": "present", **LINKED}))
    with pytest.raises(Unable, match="Unable to remove template 9000: linked clones need its disks"):
        make(client, vmid=9000, state="absent")
    assert lab.vm(9000).template


LINKED = {"clone": {"template": "debian-12-cloud", "full": False}}


def test_protection_and_servers_are_respected(lab: Any, client: PveClient, image: str) -> None:
    make(client, **BASE, protection=True)
    add_server(lab)
    assert "its protection is on" in refused(lab, client, name="rocky-9", state="absent")
    assert "is a server (web-01) and no template" in refused(lab, client, name="web-01", state="absent")
    assert "9000 is named" in refused(lab, client, name="web-09", vmid=9000, state="absent")


def test_an_image_in_use_stays(lab: Any, client: PveClient) -> None:
    lab.do(lab.pve.add_image, "local", "tools.iso", content="iso")
    lab.do(lab.pve.add_image, "local", "rocky-9.qcow2", virtual=2 * GIB)
    add_server(lab)
    path = "/nodes/pve1/qemu/100/config"
    client.put(path, {"ide0": "local:iso/tools.iso,media=cdrom"})
    tools = {"image": {"storage": "local", "file": "tools.iso"}, "state": "image_absent"}
    assert refused(lab, client, **tools) == "Unable to remove image local:iso/tools.iso: web-01 (100) uses it"
    client.put(path, {"delete": "ide0"})
    assert make(client, **tools).plan.changed
    lab.do(lab.pve.fail, "POST", "/9001/config", 500, "killed", times=1)
    with pytest.raises(Unable, match="killed"):
        make(client, **BASE)
    assert "rocky-9 (9001) uses it" in refused(lab, client, image=IMAGE, state="image_absent")


def test_who_does_not_see_all_servers_removes_no_image(lab: Any, image: str, tmp_path: Path) -> None:
    """PVE leaves out of its lists what one may not see: web-01 may use it."""
    add_server(lab)
    lab.do(lab.pve.add_user, "i@pve", "pw", ("Datastore.Audit", "Datastore.AllocateTemplate"), "/storage")
    lab.do(lab.pve.grant, "i@pve", "/nodes", "Sys.Audit")
    lab.do(lab.pve.grant, "i@pve", "/vms/9001", "VM.Audit", "VM.Allocate", "VM.Config.Disk")
    login = {"user": "i@pve", "password": "pw", "token_id": None, "token_secret": None}
    path = tmp_path / "rocky-9.qcow2"
    path.write_bytes(qcow2(GIB))
    with closing(PveClient(lab.connection(**login))) as client:
        complaint = "image local:rocky-9.qcow2: i@pve needs VM.Audit on /vms to know that nothing uses it"
        assert complaint in refused(lab, client, image=IMAGE, state="image_absent")
        work = Work(client, ServerSpec(name="rocky-9", node="pve1", timeout=10))
        with pytest.raises(PveForbidden, match=r"needs VM\.Audit on /vms"):
            images.plan_fetch(work, ImageSpec("local", "rocky-9.qcow2", path=str(path)), "pve1")


def test_an_image_on_several_nodes(lab: Any, client: PveClient) -> None:
    """The lab keeps one entry for `local` of all nodes; a storage that is not shared may have one on each."""
    lab.do(lab.pve.storages["local"]["volumes"].clear)
    lab.do(lab.pve.add_image, "local", "rocky-9.qcow2", node="pve2")
    assert not make(client, image=IMAGE, node="pve1", state="image_absent").plan.changed
    lab.do(lab.pve.storages["local"]["volumes"]["import/rocky-9.qcow2"].update, node=None)
    assert "pve1, pve2 each have one; give the node" in refused(lab, client, image=IMAGE, state="image_absent")
    assert make(client, image=IMAGE, node="pve2", state="image_absent").plan.changed
    lab.do(lab.pve.set_node_offline, "pve2")
    assert "node pve2 is offline" in refused(lab, client, image=IMAGE, node="pve2", state="image_absent")


# ------------------------------------------------------------------------- pure

RECORDS = st.builds(
    Record,
    st.from_regex(r"[a-z][a-z0-9-]*[a-z0-9]:[a-z0-9./=+-]+", fullmatch=True),
    st.none() | st.from_regex(r"sha256:[0-9a-f]{64}|\d+ bytes, ctime \d+", fullmatch=True),
)


def test_a_download_tells_how_far_it_is() -> None:
    line = " 32768K ........ ........ ........ ........ ........ ........ 37%  101M 6s"
    assert percent_of(line) == 37


@given(st.text(), RECORDS)
def test_notes_keep_the_users_and_the_record_apart(notes: str, record: Record) -> None:
    kept = split_notes(join_notes(notes, record))
    assert kept[1] == record
    if split_notes(notes)[1] is None and not notes.startswith("pvefleet: "):
        assert kept[0] == notes.strip()
    assert split_notes(f"{TEMPLATE_MARKER}\n\n{join_notes(notes, record)}")[1] == record


@given(st.none() | RECORDS, RECORDS)
def test_what_has_changed(record: Record | None, wanted: Record) -> None:
    if record is None:
        assert has_changed(record, wanted) is None
        return
    assert has_changed(record, record) is False
    changed = has_changed(record, wanted)
    if record.volid == wanted.volid and wanted.fingerprint is None and record.fingerprint:
        assert changed is None
    else:
        assert changed is not None
    one, other = record.fingerprint or "", wanted.fingerprint or ""
    if one.startswith("sha256:") and other.startswith("sha256:"):
        assert changed == (one != other)
