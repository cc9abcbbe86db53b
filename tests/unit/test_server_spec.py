# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A module's options: checked whole, refused with the option's name, and never with anything but a SpecError."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server_spec import (
    SERVER_OPTIONS,
    ServerSpec,
    SpecError,
    server_spec,
)
from hypothesis import given
from hypothesis import strategies as st

from tests import server_options


def spec(**options: Any) -> ServerSpec:
    return server_spec({"name": "web-01", "state": "present", **options})


@given(server_options.settings())
def test_what_is_asked_sensibly_is_taken(options: dict[str, Any]) -> None:
    made = spec(**options)
    assert set(made.disks) == set(options.get("disks", {}))
    assert set(made.nics) == set(options.get("nics", {}))
    assert made.scalars.get("cores") == (str(options["cores"]) if "cores" in options else None)


def test_options_become_pves_notation() -> None:
    made = spec(
        cores="2",
        onboot=True,
        disks={"scsi1": {"size": "1.5G", "ssd": True, "discard": "on", "backup": "no", "mbps_rd": "10.50"}},
        nics={"net1": {"bridge": "vmbr0", "vlan": 20, "mac": "bc:24:11:00:00:01", "firewall": "yes"}},
        cloud_init={"ipconfig": {"net1": {"ip": "10.0.0.5/24", "gw": "10.0.0.1"}}, "nameservers": ["FD00:0::1"]},
        tags=["web", "web"],
        role="db",
    )
    assert made.scalars == {"cores": "2", "onboot": "1"}
    assert made.disks["scsi1"].size == 1610612736
    assert made.disks["scsi1"].options == {"ssd": "1", "discard": "on", "backup": "0", "mbps_rd": "10.5"}
    assert made.nics["net1"].options == {"tag": "20", "bridge": "vmbr0", "firewall": "1"}
    assert made.nics["net1"].mac == "BC:24:11:00:00:01"
    assert made.cloud_init is not None
    assert made.cloud_init.ipconfig["ipconfig1"].gw == "10.0.0.1"
    assert made.cloud_init.nameservers == ("fd00::1",)
    assert (made.tags, made.role) == ({"web"}, "db")


def test_not_given_is_not_managed() -> None:
    made = spec()
    assert made == ServerSpec(name="web-01")


def test_a_whole_file_of_keys() -> None:
    made = spec(cloud_init={"ssh_keys": [f"# ours\n{server_options.KEY} a\n\n{server_options.KEY} b\n"]})
    assert made.cloud_init is not None
    assert made.cloud_init.ssh_keys == (f"{server_options.KEY} a", f"{server_options.KEY} b")


def test_secrets_do_not_show() -> None:
    assert "hunter2" not in repr(spec(cloud_init={"password": "hunter2"}))
    with pytest.raises(SpecError) as caught:
        spec(cloud_init={"password": "hunter2\n"})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"name": None}, "name or vmid is needed"),
        ({"name": "web_01"}, "name: 'web_01' is not a server name"),
        ({"vmid": 99}, "vmid: 99 is not between 100 and 999999999"),
        ({"node": ".."}, "node: '..' is not the name of a node"),
        ({"clone": {"template": "x", "full": False, "storage": "local"}}, "a linked clone stays with its template"),
        ({"clone": {"template": "x", "storage": "a:b"}}, "clone.storage: 'a:b' is not a storage id"),
        ({"cores": 0}, "cores: 0 is not between"),
        ({"memory": 8}, "memory: 8 is not between 16"),
        ({"memory": 512, "balloon": 1024}, "balloon is 1024 MiB, more than memory"),
        ({"cpu": "host,kvm64"}, "cpu: cputype is given twice"),
        ({"cpu": "host, flags=+aes"}, "white space"),
        ({"ostype": ""}, "ostype: '' has white space, or is empty"),
        ({"disks": {"scsi0": {"sice": "10G"}}}, "disks.scsi0: unknown option sice; known are size, storage"),
        ({"disks": {"scsi0": None}}, "disks.scsi0: a mapping is expected"),
        ({"disks": {"scsi99": {"size": "1G"}}}, "disks: 'scsi99' is not a disk: use ide0 to ide3"),
        ({"disks": {0: {"size": "1G"}}}, "disks: '0' is not a disk"),
        ({"disks": {"scsi0": {"size": "10"}}}, "disks.scsi0.size: '10' has no unit: write 10G"),
        ({"disks": {"scsi0": {"size": 1.5}}}, "disks.scsi0.size: 1.5 has no unit"),
        ({"disks": {"scsi0": {"size": "0G"}}}, "a disk of size 0 cannot be"),
        ({"disks": {"scsi0": {"size": "ten"}}}, "disks.scsi0.size: 'ten' is not a size"),
        ({"disks": {"scsi0": {"ssd": "maybe"}}}, "disks.scsi0.ssd: 'maybe' is not a boolean"),
        ({"disks": {"virtio0": {"size": "1G", "ssd": True}}}, "disks.virtio0: ssd is only for the disks of ide"),
        ({"disks": {"sata0": {"size": "1G", "iothread": True}}}, "iothread is only for the disks of scsi, virtio"),
        ({"disks": {"scsi0": {"discard": [1]}}}, "disks.scsi0.discard"),
        ({"disks": {"scsi0": {"cache": "fast"}}}, "disks.scsi0.cache: 'fast' is not one of none"),
        ({"disks": {"scsi0": {"format": "vhd"}}}, "disks.scsi0.format: 'vhd' is not one of raw"),
        ({"disks": {"scsi0": {"storage": "a,b"}}}, "disks.scsi0.storage"),
        ({"disks": {"scsi0": {"serial": "a,ssd=1"}}}, "disks.scsi0.serial: 'a,ssd=1' has a comma"),
        ({"disks": {"scsi0": {"mbps_rd": "nan"}}}, "disks.scsi0.mbps_rd"),
        ({"disks": {"scsi0": {"state": "detached", "size": "1G"}}}, "state: detached goes with no other option"),
        ({"nics": {"net0": {"bridge": "vmbr0", "vlan": 4095}}}, "nics.net0.vlan: 4095 is not between 0 and 4094"),
        ({"nics": {"net0": {"tag": 5}}}, "nics.net0: unknown option tag; known are model, mac, vlan"),
        ({"nics": {"net0": {"bridge": "a,tag=5"}}}, "nics.net0.bridge: 'a,tag=5' has a comma"),
        ({"nics": {"net0": {"mac": "01:00:00:00:00:00"}}}, "nics.net0.mac: '01:00:00:00:00:00' is a multicast"),
        ({"nics": {"net0": {"model": "fast"}}}, "nics.net0.model: 'fast' is not one of e1000"),
        ({"nics": {"net0": {"trunks": "all"}}}, "nics.net0.trunks"),
        ({"nics": {"eth0": {"bridge": "vmbr0"}}}, "nics: 'eth0' is not a network device"),
        ({"nics": {"net0": {"state": "absent", "bridge": "x"}}}, "state: absent goes with no other option"),
        ({"cloud_init": {"ipconfig": {"net0": "ip=10.0.0.5"}}}, "cloud_init.ipconfig.net0: '10.0.0.5' is not an IPv4"),
        ({"cloud_init": {"ipconfig": {"eth0": "ip=dhcp"}}}, "cloud_init.ipconfig: 'eth0' is not a network device"),
        ({"cloud_init": {"ssh_keys": ["..."]}}, "cloud_init.ssh_keys: '...' is not a public key"),
        ({"cloud_init": {"nameservers": ["ns1"]}}, "cloud_init.nameservers: 'ns1' is not an IP address"),
        ({"cloud_init": {"user": "a\nb"}}, "cloud_init.user"),
        ({"boot_order": []}, "boot_order"),
        ({"boot_order": ["scsi0", "scsi0"]}, "boot_order: a device is named twice"),
        ({"boot_order": ["c"]}, "boot_order: 'c' is not a device to boot from"),
        ({"tags": ["a b"]}, "tags: 'a b' is not a tag"),
        ({"tags": ["role-db"], "role": "web"}, "tags: the tag that begins with role- is given by role"),
        ({"description": "pvefleet: being created, by me"}, "description: it begins with"),
        ({"state": "stopped", "wait_for_address": True}, "wait_for_address does not go with state: stopped"),
        ({"timeout": 0}, "timeout: 0 is not between"),
    ],
)
def test_what_cannot_be_is_refused_by_name(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(SpecError) as caught:
        spec(**options)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=12))
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
)
MAPPINGS = st.dictionaries(
    st.sampled_from(["scsi0", "net0", "net1", "x"]),
    st.one_of(
        ANYTHING,
        st.dictionaries(
            st.sampled_from(
                ["size", "storage", "format", "state", "ssd", "discard", "serial", "bridge", "vlan", "mac"]
            ),
            ANYTHING,
        ),
    ),
)


@given(
    MAPPINGS,
    MAPPINGS,
    st.dictionaries(st.sampled_from(["scsi0", "net0", "net1", "x"]), ANYTHING),
    st.lists(SCALARS, max_size=3),
    st.dictionaries(st.sampled_from(["cores", "memory", "balloon", "cpu", "machine", "role", "description"]), SCALARS),
)
def test_nothing_but_a_spec_error(
    disks: dict[str, Any], nics: dict[str, Any], ipconfig: dict[str, Any], items: list[Any], scalars: dict[str, Any]
) -> None:
    """Mappings and lists are what Ansible hands over unchecked."""
    for options in (
        {"disks": disks},
        {"nics": nics},
        {"cloud_init": {"ipconfig": ipconfig}},
        {"cloud_init": {"ssh_keys": items, "nameservers": items}},
        {"tags": items},
        {"boot_order": items},
        scalars,
    ):
        with contextlib.suppress(SpecError):
            spec(**options)


def test_every_option_is_documented() -> None:
    import yaml
    from ansible_collections.pvefleet.infra.plugins.doc_fragments.server import ModuleDocFragment

    documented = yaml.safe_load(ModuleDocFragment.DOCUMENTATION)["options"]
    assert documented.keys() == SERVER_OPTIONS.keys()
