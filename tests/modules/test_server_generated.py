# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Generated desired states, one after the other, against the lab: what check mode foretold is what was done, once."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

import pytest
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import PveClient
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server import ServerError
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server_converge import Result, converge
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server_spec import ServerSpec, server_spec
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from tests import server_options

STATES = 200
UNITS = {"K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}
SHARED_TEMPLATE = 9001

CREATIONS = st.one_of(
    st.fixed_dictionaries(
        {"clone": st.fixed_dictionaries({"template": st.sampled_from(["debian-12-cloud", "9000", "on-shared"])})}
    ),
    st.fixed_dictionaries({"clone": st.just({"template": "9000", "full": False})}),
    st.fixed_dictionaries({"clone": st.just({"template": "9000", "full": True, "storage": "shared"})}),
    st.fixed_dictionaries(
        {"clone": st.just({"template": "on-shared"}), "node": st.just("pve2")}, optional={"pool": st.just("blue")}
    ),
    st.fixed_dictionaries({"clone": st.just({"template": "on-shared", "full": False}), "node": st.just("pve2")}),
    st.fixed_dictionaries({"node": st.sampled_from(["pve1", "pve2"]), "nics": st.just({"net0": {"bridge": "vmbr0"}})}),
)
POOLS = st.fixed_dictionaries({}, optional={"pool": st.sampled_from(["blue", "green", ""])})
CREATED = st.sampled_from(["present", "started", "started", "stopped"])
AFTERWARDS = st.sampled_from(["present", "present", "started", "started", "stopped", "restarted"])


@pytest.fixture(scope="module")
def world(lab_server: Any, quick: None) -> Iterator[tuple[Any, PveClient]]:
    client = PveClient(lab_server.connection(default_storage="local-lvm"))
    lab_server.add_template(SHARED_TEMPLATE, "on-shared", "pve1", "shared")
    for pool in ("blue", "green"):
        client.post("/pools", {"poolid": pool})
    yield lab_server, client
    client.close()


def test_generated_states(world: tuple[Any, PveClient]) -> None:
    lab, client = world
    done: list[str] = []

    @settings(
        max_examples=70,
        deadline=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def history(data: st.DataObject) -> None:
        name = f"gen-{len(done)}-{len(lab.requests)}"
        create = data.draw(st.tuples(server_options.settings(created=True), CREATIONS, CREATED))
        wish = {"name": name, **create[0], **create[1], "state": create[2]}
        if not step(lab, client, wish):
            return
        done.append("created")
        for options, pool, state in data.draw(
            st.lists(st.tuples(server_options.settings(), POOLS, AFTERWARDS), min_size=3, max_size=5)
        ):
            wish = {"name": name, **options, **pool, "state": state, "create": False}
            if "clone" not in create[1]:
                wish["force"] = True  # from empty disks nothing boots that would hear a clean shutdown
            if step(lab, client, wish):
                done.append(state)
        assert step(lab, client, {"name": name, "state": "absent"})
        done.append("absent")

    history()
    assert len(done) >= STATES
    assert set(done) == {"created", "present", "started", "stopped", "restarted", "absent"}


def step(lab: Any, client: PveClient, wish: dict[str, Any]) -> bool:
    """One desired state, foretold and made; False when it was refused, as it then must be both times alike."""
    note(str(wish))
    spec = server_spec({"shutdown_timeout": 5, **wish})
    mark = len(lab.requests)
    foretold = attempt(client, spec, check_mode=True)
    assert not writes(lab, mark)
    made = attempt(client, spec)
    if isinstance(foretold, str) or isinstance(made, str):
        assert made == foretold
        assert not writes(lab, mark)
        return False
    assert made.plan == foretold.plan
    assert (made.status, made.pending, made.ip_addresses) == (
        foretold.status,
        foretold.pending,
        foretold.ip_addresses,
    )
    if wish["state"] == "absent":
        assert made.guest is None
        assert not any(
            row.get("name") == wish["name"] for node in lab.nodes for row in client.get(f"/nodes/{node}/qemu")
        )
    else:
        check(client, wish, made)
    if wish["state"] != "restarted":
        mark = len(lab.requests)
        again = converge(client, spec)
        assert again.plan.changes == ()
        assert (again.status, again.pending) == (made.status, made.pending)
        assert not writes(lab, mark)
    return True


def attempt(client: PveClient, spec: ServerSpec, *, check_mode: bool = False) -> Result | str:
    """The result, or the refusal's sentence."""
    try:
        return converge(client, spec, check_mode=check_mode)
    except ServerError as refusal:
        return str(refusal)


def writes(lab: Any, mark: int) -> list[tuple[str, str]]:
    return [request for request in lab.requests[mark:] if request[0] != "GET"]


# ---------------------------------------------------------------- what PVE has, read without our own parsers


def check(client: PveClient, wish: Mapping[str, Any], made: Result) -> None:
    assert made.guest is not None
    path = f"/nodes/{made.guest.node}/qemu/{made.guest.vmid}"
    config = client.get(f"{path}/config")
    status = client.get(f"{path}/status/current")["status"]
    assert status == made.status
    if wish["state"] in ("started", "restarted"):
        assert status == "running"
    if wish["state"] == "stopped":
        assert status == "stopped"
    if wish.get("power_cycle") == "when_needed" or status == "stopped":
        assert made.pending == ()
    assert config["name"] == wish["name"]
    assert made.guest.node == wish.get("node", made.guest.node)
    defaults = {"cores": 1, "sockets": 1, "memory": 512, "onboot": 0}
    for key in ("cores", "sockets", "cpu", "memory", "balloon", "onboot", "ostype", "scsihw", "machine"):
        if key in wish:
            wanted = int(wish[key]) if isinstance(wish[key], bool) else wish[key]
            assert str(config.get(key, defaults.get(key))) == str(wanted), key
    for slot, disk in wish.get("disks", {}).items():
        check_disk(config, slot, disk)
    for key, nic in wish.get("nics", {}).items():
        check_nic(config, key, nic)
    check_cloud_init(config, wish.get("cloud_init") or {})
    if "agent" in wish:
        assert (options(config.get("agent", "0"), "enabled")["enabled"] == "1") is wish["agent"]
    if "boot_order" in wish:
        assert config["boot"] == "order=" + ";".join(wish["boot_order"])
    tags = {tag for tag in re.split("[;, ]", config.get("tags", "")) if tag}
    if "tags" in wish:
        assert {tag for tag in tags if not tag.startswith("role-")} == set(wish["tags"])
    if "role" in wish:
        assert {tag for tag in tags if tag.startswith("role-")} == ({f"role-{wish['role']}"} if wish["role"] else set())
    if "description" in wish:
        assert config.get("description", "").strip() == wish["description"]
    assert "being created" not in config.get("description", "")
    if "pool" in wish:
        pools = {pool["poolid"]: pool for pool in client.get("/pools")}
        members = {
            member["vmid"]: name
            for name in pools
            for member in client.get("/pools", {"poolid": name})[0]["members"]
            if "vmid" in member
        }
        assert members.get(made.guest.vmid, "") == wish["pool"]


def options(text: str, first: str) -> dict[str, str]:
    head, *rest = str(text).split(",")
    return {**dict([head.split("=", 1) if "=" in head else (first, head)]), **dict(item.split("=", 1) for item in rest)}


def flag(text: str) -> bool:
    return text in ("1", "on")


def check_disk(config: Mapping[str, Any], slot: str, disk: Mapping[str, Any]) -> None:
    if disk.get("state") == "detached":
        assert slot not in config
        return
    there = options(config[slot], "file")
    assert int(there["size"][:-1]) * UNITS[there["size"][-1]] == int(disk["size"][:-1]) * UNITS[disk["size"][-1]]
    for name, value in disk.items():
        if name == "size":
            continue
        if isinstance(value, bool):
            assert flag(there.get(name, "1" if name == "backup" else "0")) is value, (slot, name)
        elif isinstance(value, (int, float)):
            assert float(there.get(name, 0)) == value, (slot, name)
        else:
            assert there.get(name, "none") == value, (slot, name)


def check_nic(config: Mapping[str, Any], key: str, nic: Mapping[str, Any]) -> None:
    if nic.get("state") == "absent":
        assert key not in config
        return
    there = options(config[key], "model")
    model = next(name for name in ("virtio", "e1000", "vmxnet3") if name in there)
    there |= {"model": model, "mac": there[model]}
    for name, value in nic.items():
        found = there.get({"vlan": "tag"}.get(name, name))
        if name == "mac":
            assert found == value.upper()
        elif isinstance(value, (bool, int, float)):
            assert float(found or 0) == float(value), (key, name)
        else:
            assert found == value, (key, name)


def check_cloud_init(config: Mapping[str, Any], wish: Mapping[str, Any]) -> None:
    for name, key in (("user", "ciuser"), ("searchdomain", "searchdomain"), ("type", "citype")):
        if name in wish:
            assert config.get(key, "") == wish[name]
    if "ssh_keys" in wish:
        assert [line for line in unquote(config.get("sshkeys", "")).split("\n") if line] == wish["ssh_keys"]
    if "nameservers" in wish:
        assert config.get("nameserver", "").split() == wish["nameservers"]
    for name, text in wish.get("ipconfig", {}).items():
        wanted = text if isinstance(text, dict) else options(text, "")
        there = options(config[name.replace("net", "ipconfig")], "")
        assert there.keys() == wanted.keys()
        for key, value in wanted.items():
            same = value in ("dhcp", "auto") or key.startswith("gw")
            assert there[key] == (value if same else ipaddress.ip_interface(value).with_prefixlen)
    if wish:
        assert any("cloudinit" in str(value) for value in config.values())
