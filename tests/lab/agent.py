# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

"""The guest agent: silent until the guest has booted, then it tells the guest's addresses."""

from __future__ import annotations

import ipaddress
import time
from typing import Any

from fakepve import agent as fake_agent
from fakepve.model import PveError

from .drives import NIC_KEY, mac_of
from .guest import LabGuest

LOOPBACK = {
    "name": "lo",
    "hardware-address": "00:00:00:00:00:00",
    "ip-addresses": [
        {"ip-address": "127.0.0.1", "ip-address-type": "ipv4", "prefix": 8},
        {"ip-address": "::1", "ip-address-type": "ipv6", "prefix": 128},
    ],
}


class Agent:
    """Mixin: ``/agent/{command}``."""

    async def _agent_call(self, match: Any, values: dict[str, Any]) -> Any:
        guest = self.find(values["node"], values["vmid"])
        command = match.template.rsplit("/", 1)[1]
        if not agent_enabled(guest.config):
            raise PveError(500, "No QEMU guest agent configured")
        if not guest.running:
            raise PveError(500, f"VM {guest.vmid} is not running")
        if not self.agent_up(guest):
            raise PveError(500, "QEMU guest agent is not running")
        if guest.agent_hangs:
            await self.pause(10)
            raise PveError(500, f"VM {guest.vmid} qmp command 'guest-ping' failed - got timeout")
        fake_agent.record(guest, command, values)
        if command == "network-get-interfaces" and "interfaces" not in guest.agent:
            return {"result": interfaces(guest)}
        return fake_agent.result(guest, command, values)

    def agent_up(self, guest: LabGuest) -> bool:
        """Whether the guest has an agent and has had the time to start it."""
        up_after = guest.agent_secs * self.time_scale
        return guest.agent is not None and time.monotonic() - guest.booted_at >= up_after


def agent_enabled(config: dict[str, Any]) -> bool:
    parts = dict(part.partition("=")[::2] for part in str(config.get("agent", "0")).split(","))
    enabled = parts.get("enabled") or next(iter(parts))
    return enabled in ("1", "true", "yes", "on")


def interfaces(guest: LabGuest) -> list[dict[str, Any]]:
    """What ``guest-network-get-interfaces`` answers: lo, then a NIC each, as cloud-init set them up at boot."""
    nics = sorted((key for key in guest.config if NIC_KEY.fullmatch(key)), key=lambda key: int(key[3:]))
    return [LOOPBACK, *(_interface(guest, number, key) for number, key in enumerate(nics))]


def _interface(guest: LabGuest, number: int, key: str) -> dict[str, Any]:
    settings = guest.booted_with.get("ipconfig" + key[3:], "")
    wanted = dict(part.partition("=")[::2] for part in settings.split(",") if part)
    mac = mac_of(guest.config[key]).lower()
    addresses = [wanted.get("ip", "dhcp"), wanted.get("ip6", "")]
    if addresses[0] == "dhcp":
        # One lease for each NIC of each VM: 10.64+nic.x.y.
        addresses[0] = f"10.{64 + number}.{guest.vmid // 250 % 250}.{guest.vmid % 250 + 2}/16"
    static = [address for address in addresses if "/" in address]
    return {
        "name": f"eth{number}",
        "hardware-address": mac,
        "ip-addresses": [_address(address) for address in (*static, _link_local(mac))],
        "statistics": dict.fromkeys(
            (f"{way}-{what}" for way in ("rx", "tx") for what in ("bytes", "packets", "errs", "dropped")), 0
        ),
    }


def _address(text: str) -> dict[str, Any]:
    address = ipaddress.ip_interface(text)
    return {
        "ip-address": str(address.ip),
        "ip-address-type": f"ipv{address.version}",
        "prefix": address.network.prefixlen,
    }


def _link_local(mac: str) -> str:
    """The IPv6 address every NIC has by itself (EUI-64)."""
    octets = [int(part, 16) for part in mac.split(":")]
    octets[0] ^= 2
    octets[3:3] = [0xFF, 0xFE]
    return f"{ipaddress.IPv6Address(bytes([0xFE, 0x80, *[0] * 6, *octets]))}/64"
