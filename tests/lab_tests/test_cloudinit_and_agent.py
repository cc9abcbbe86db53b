# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

"""What the guest is told, and what it tells."""

from __future__ import annotations

from typing import Any

import pytest

from tests.lab import Lab

from .api import Api, until

PATH = "/agent/network-get-interfaces"


def addresses(api: Api, vmid: int = 100) -> dict[str, list[str]] | None:
    answer = api.send("GET", api.vm(vmid, PATH))
    if answer.status_code != 200:
        assert answer.json()["message"] == "QEMU guest agent is not running\n"
        return None
    return {
        nic["name"]: [entry["ip-address"] for entry in nic["ip-addresses"]] for nic in answer.json()["data"]["result"]
    }


def cloudinit(api: Api) -> dict[str, Any]:
    return {item["key"]: item for item in api.get(api.vm(100, "/cloudinit"))}


@pytest.mark.lab(time_scale=0.03)
def test_the_agent_answers_once_the_guest_has_booted(api: Api) -> None:
    api.clone(100)
    api.put(
        api.vm(100, "/config"),
        ipconfig0="ip=10.0.0.5/24,gw=10.0.0.1,ip6=fd00::5/64",
        net1="virtio,bridge=vmbr1",
        ipconfig1="ip=dhcp",
    )
    assert api.refused("GET", api.vm(100, PATH)).message == "VM 100 is not running"
    api.start(100)
    assert api.refused("POST", api.vm(100, "/agent/ping")).message == "QEMU guest agent is not running"
    found = until(lambda: addresses(api))
    assert found["lo"] == ["127.0.0.1", "::1"]
    assert found["eth0"][:2] == ["10.0.0.5", "fd00::5"]
    assert found["eth1"][0].startswith("10.65.")
    assert all(nic[-1].startswith("fe80::") for name, nic in found.items() if name != "lo")
    assert api.post(api.vm(100, "/agent/ping")) == {"result": {}}
    macs = {nic["hardware-address"] for nic in api.get(api.vm(100, PATH))["result"]}
    assert api.config(100)["net0"].partition("=")[2].partition(",")[0].lower() in macs


@pytest.mark.parametrize("agent", ["0", "enabled=0"])
def test_without_the_option_there_is_no_agent(api: Api, agent: str) -> None:
    api.clone(100)
    api.put(api.vm(100, "/config"), agent=agent)
    api.start(100)
    assert api.refused("GET", api.vm(100, PATH)) == (500, "No QEMU guest agent configured", {})


def test_a_new_address_needs_the_image_and_a_boot(api: Api) -> None:
    api.clone(100)
    api.put(api.vm(100, "/config"), ipconfig0="ip=10.0.0.5/24")
    assert cloudinit(api)["ipconfig0"] == {"key": "ipconfig0", "pending": "ip=10.0.0.5/24"}
    api.start(100)
    assert cloudinit(api)["ipconfig0"] == {"key": "ipconfig0", "value": "ip=10.0.0.5/24"}
    api.put(api.vm(100, "/config"), ipconfig0="ip=10.0.0.6/24")
    assert api.pending(100) == {}
    assert cloudinit(api)["ipconfig0"]["pending"] == "ip=10.0.0.6/24"
    api.put(api.vm(100, "/cloudinit"))
    assert "pending" not in cloudinit(api)["ipconfig0"]
    assert until(lambda: addresses(api))["eth0"][0] == "10.0.0.5", "the guest has not read it yet"
    assert api.run("POST", api.vm(100, "/status/reboot")) == "OK"
    assert until(lambda: addresses(api))["eth0"][0] == "10.0.0.6"


def test_without_a_cloudinit_drive_the_guest_learns_nothing(api: Api) -> None:
    api.clone(100)
    api.put(api.vm(100, "/config"), delete="ide2", ipconfig0="ip=10.0.0.5/24")
    api.start(100)
    assert until(lambda: addresses(api))["eth0"][0].startswith("10.64.")


def test_a_deleted_option_is_pending_in_the_image(api: Api) -> None:
    api.clone(100)
    api.put(api.vm(100, "/config"), ciuser="ops", cipassword="secret")
    api.start(100)
    assert cloudinit(api)["cipassword"]["value"] == "**********"
    api.put(api.vm(100, "/config"), delete="ciuser")
    assert cloudinit(api)["ciuser"] == {"key": "ciuser", "value": "ops", "delete": 1}
    assert "#cloud-config" in api.get(api.vm(100, "/cloudinit/dump"), type="user")


def test_an_agent_can_hang(api: Api, lab: Lab) -> None:
    api.clone(100)
    api.start(100)
    until(lambda: addresses(api))
    lab.vm(100).agent_hangs = True
    assert "got timeout" in api.refused("GET", api.vm(100, PATH)).message
