# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which addresses the service may connect to on a user's word."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# Where clouds answer their guests' questions for credentials, beyond the link-local 169.254.169.254.
METADATA = frozenset(
    ipaddress.ip_address(address) for address in ("fd00:ec2::254", "100.100.100.200", "192.0.0.192", "168.63.129.16")
)
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class AddressRefused(ValueError):
    """str() is the address."""


def check_endpoint(url: str, allowed: Iterable[Network]) -> None:
    """Resolves the URL's host and looks at every address of it. Raises AddressRefused.

    A name that cannot be resolved passes, unless there are networks to lie in: connecting fails with its own words.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    networks = tuple(allowed)
    try:
        found = socket.getaddrinfo(host, parts.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        if networks:
            raise AddressRefused(host) from None
        return
    for *_more, sockaddr in found:
        check_address(str(sockaddr[0]), networks)


def check_address(text: str, networks: tuple[Network, ...]) -> None:
    """Raises AddressRefused for a link-local, metadata, multicast or unspecified address, and outside of networks."""
    address = _unwrap(ipaddress.ip_address(text.partition("%")[0]))
    forbidden = address.is_link_local or address.is_multicast or address.is_unspecified or address in METADATA
    outside = networks and not any(address in network for network in networks)
    if forbidden or outside:
        raise AddressRefused(str(address))


def _unwrap(address: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for, where it stands for one."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address
