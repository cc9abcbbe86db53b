# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The addresses of a server: as its guest agent tells them, or as cloud-init was told to set them."""

from __future__ import annotations

import ipaddress
import re
import time
from collections.abc import Mapping
from typing import Any

from ansible_collections.pvefleet.infra.plugins.module_utils._pve import values
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import PveClient, PveError, segment
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.errors import Outcome

# The agent answers only once the guest has booted that far; PVE says so with a 500.
_NOT_YET = re.compile(r"guest agent is not running|got timeout|got no response", re.IGNORECASE)
_POLL_SECONDS = 1.5


def agent_enabled(config: Mapping[str, Any]) -> bool:
    try:
        return values.parse_bool(values.parse_properties(str(config.get("agent", "0")), "enabled").get("enabled", "0"))
    except ValueError:
        return False


def agent_addresses(client: PveClient, node: str, vmid: int) -> list[str] | None:
    """Addresses that others can reach, in the order of the guest's interfaces; None while the agent does not answer."""
    try:
        answer = client.get(f"/nodes/{segment(node)}/qemu/{vmid}/agent/network-get-interfaces", retry_seconds=0)
    except PveError as error:
        if _NOT_YET.search(error.reason) or error.outcome is not Outcome.REFUSED:
            return None
        raise
    return addresses_in(answer)


def addresses_in(answer: Any) -> list[str]:
    """Those of the agent's answer to network-get-interfaces. It is the guest's own, and may be anything."""
    result = answer.get("result") if isinstance(answer, Mapping) else None
    interfaces = [one for one in result if isinstance(one, Mapping)] if isinstance(result, list) else []
    lists = [one.get("ip-addresses") for one in interfaces]
    items = [item for items in lists if isinstance(items, list) for item in items if isinstance(item, Mapping)]
    texts = [str(item.get("ip-address", "")) for item in items]
    return [text for text in texts if reachable(text)]


def wait_for_addresses(client: PveClient, node: str, vmid: int, timeout: float) -> list[str]:
    """As agent_addresses, waiting for the first one; TimeoutError when there is none within `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not (found := agent_addresses(client, node, vmid)):
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"its guest agent told no address within {timeout:g} s")
        time.sleep(min(_POLL_SECONDS, left))
    return found


def static_addresses(config: Mapping[str, Any]) -> list[str]:
    """The static addresses of ipconfig0, ipconfig1 and so on, without their prefix lengths."""
    found = []
    for index in range(values.MAX_NICS):
        try:
            ipconfig = values.parse_ipconfig(str(config.get(f"ipconfig{index}", "")))
        except ValueError:
            continue  # none, or one that somebody wrote by hand
        found += [address.partition("/")[0] for address in (ipconfig.ip, ipconfig.ip6) if address and "/" in address]
    return found


def reachable(text: str) -> bool:
    """Whether it is an address at which others may reach the guest."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return not (address.is_loopback or address.is_link_local or address.is_unspecified)
