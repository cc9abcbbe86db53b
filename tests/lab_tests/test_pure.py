# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

"""Sizes, drives and hotplug rules, without a cluster."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.lab import Lab
from tests.lab.drives import Drive, human_size, parse_size, print_size
from tests.lab.hotplug import hotplug_features, takes_effect

from .api import Api

DEFAULT = hotplug_features({})


@given(st.integers(min_value=1, max_value=2**50), st.booleans())
def test_a_printed_size_reads_back(size: int, relative: bool) -> None:
    assert parse_size("+" * relative + print_size(size)) == (relative, size)


@pytest.mark.parametrize(
    ("size", "text"), [(104858 * 1024, "104858K"), (3 * 1024**3, "3G"), (3584 * 1024**2, "3584M"), (1000, "1000")]
)
def test_sizes_are_printed_in_the_largest_unit_that_divides_them(size: int, text: str) -> None:
    assert print_size(size) == text


def test_sizes_in_progress_lines() -> None:
    assert [human_size(n) for n in (0, 512 * 1024**2, 10 * 1024**3)] == ["0.0 B", "512.0 MiB", "10.0 GiB"]


NAMES = st.from_regex(r"[a-z]{1,8}", fullmatch=True).filter(lambda name: name not in ("file", "media"))


@given(st.dictionaries(NAMES, st.from_regex(r"[a-z0-9.]{1,6}", fullmatch=True)))
def test_a_drive_reads_back(options: dict[str, str]) -> None:
    drive = Drive("local-lvm:vm-100-disk-0")
    drive.options = options
    again = Drive(str(drive))
    assert (again.volume, again.options, again.storage) == ("local-lvm:vm-100-disk-0", options, "local-lvm")


@pytest.mark.parametrize(
    ("key", "old", "new", "now"),
    [
        ("name", "a", "b", True),
        ("tags", None, "b", True),
        ("ipconfig0", None, "ip=dhcp", True),
        ("cores", 1, 2, False),
        ("memory", "512", "1024", False),
        ("agent", None, "1", False),
        ("boot", "order=scsi0", "order=net0", False),
        ("net0", None, "virtio,bridge=vmbr0", True),
        ("scsi1", None, "s:vm-1-disk-1", True),
        ("virtio1", "s:vm-1-disk-1", None, True),
        ("ide0", None, "s:vm-1-disk-1", False),
        ("sata0", "s:vm-1-disk-1", None, False),
        ("ide2", "s:iso/a.iso,media=cdrom", "none,media=cdrom", True),
        ("ide2", None, "s:vm-1-cloudinit,media=cdrom", False),
        ("scsi0", "s:vm-1-disk-1", "s:vm-1-disk-1,mbps_rd=5", True),
        ("scsi0", "s:vm-1-disk-1", "s:vm-1-disk-1,iothread=1", False),
        ("scsi0", "s:vm-1-disk-1,size=1G", "s:vm-1-disk-1,size=2G", True),
        ("efidisk0", None, "s:vm-1-disk-1", False),
    ],
)
def test_what_a_running_vm_takes_at_once(key: str, old: object, new: object, now: bool) -> None:
    assert takes_effect(key, old, new, DEFAULT) is now


@pytest.mark.parametrize(
    ("config", "features"),
    [
        ({}, {"network", "disk", "usb"}),
        ({"hotplug": 1}, {"network", "disk", "usb"}),
        ({"hotplug": "0"}, set()),
        ({"hotplug": "disk,cpu"}, {"disk", "cpu"}),
    ],
)
def test_hotplug_features(config: dict[str, object], features: set[str]) -> None:
    assert hotplug_features(config) == features


@pytest.mark.lab(time_scale=0)
def test_at_time_scale_0_a_task_is_over_when_its_call_is_answered(lab: Lab, api: Api) -> None:
    upid = api.post(api.vm(9000, "/clone"), newid=100, full=1, name="web-01")
    assert api.task(upid)["exitstatus"] == "OK"
    assert api.row(100)["name"] == "web-01"
