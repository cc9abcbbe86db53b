# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

"""Resize."""

from __future__ import annotations

import pytest

from .api import Api


@pytest.mark.parametrize(
    ("size", "result"), [("5G", "5G"), ("+2G", "5G"), ("3G", "3G"), ("3584M", "3584M"), ("+0", "3G")]
)
def test_a_disk_grows(api: Api, size: str, result: str) -> None:
    api.clone(100)
    assert api.run("PUT", api.vm(100, "/resize"), disk="scsi0", size=size) == "OK"
    assert api.config(100)["scsi0"] == f"local-lvm:vm-100-disk-0,discard=on,size={result}"
    volumes = {item["volid"]: item["size"] for item in api.get("/nodes/pve1/storage/local-lvm/content", vmid=100)}
    unit = {"G": 1024**3, "M": 1024**2}[result[-1]]
    assert volumes["local-lvm:vm-100-disk-0"] == int(result[:-1]) * unit


@pytest.mark.parametrize(
    ("params", "ending"),
    [
        ({"disk": "scsi0", "size": "2G"}, "shrinking disks is not supported"),
        ({"disk": "scsi5", "size": "2G"}, "disk 'scsi5' does not exist"),
        ({"disk": "ide2", "size": "2G"}, "you can't resize a cdrom"),
        ({"disk": "scsi0", "size": "9G", "digest": "0" * 40}, "checksum mismatch (file change by other user?)"),
    ],
)
def test_what_cannot_be_resized_fails_in_its_task(api: Api, params: dict[str, str], ending: str) -> None:
    api.clone(100)
    before = api.config(100)
    assert api.run("PUT", api.vm(100, "/resize"), **params) == ending
    assert api.config(100) == before


def test_a_size_that_is_none_is_refused_at_once(api: Api) -> None:
    assert "size" in api.refused("PUT", api.vm(9000, "/resize"), disk="scsi0", size="big").errors


def test_a_pending_line_of_the_disk_undoes_the_size_in_the_config(api: Api) -> None:
    api.clone(100)
    api.start(100)
    api.put(api.vm(100, "/config"), scsi0="local-lvm:vm-100-disk-0,discard=on,ssd=1")
    assert api.run("PUT", api.vm(100, "/resize"), disk="scsi0", size="5G") == "OK"
    assert "size=5G" in api.config(100, current=1)["scsi0"]
    assert "size=3G" in api.config(100)["scsi0"]
