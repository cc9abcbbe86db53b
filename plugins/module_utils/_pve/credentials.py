# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Connection out of what people write: the same checks for registry files, module parameters and the service."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from urllib.parse import urlsplit

from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import Connection
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.transport import fingerprint_hex

DEFAULT_PORT = 8006
_HOST_NAME = re.compile(r"(?=.{1,253}\.?$)[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?\.?")


class ConnectionParamsError(ValueError):
    """What was given does not describe a connection. str() is one sentence, without secrets."""


def endpoint_url(text: str, port: int = DEFAULT_PORT) -> str:
    """A host name, an address or a URL as "https://host:port".

    port is used where text has none. ConnectionParamsError for plain http, a path, credentials in the URL, or no host.
    """
    given = text.strip()
    # a bare IPv6 address has colons but no port
    url = given if "://" in given else f"https://[{_ipv6(given)}]" if _ipv6(given) else f"https://{given}"
    try:
        parts = urlsplit(url)
        host, own_port = parts.hostname or "", parts.port
    except ValueError:
        raise ConnectionParamsError(f"{given!r} is not the address of a Proxmox VE API") from None
    if parts.scheme != "https":
        raise ConnectionParamsError(f"{given!r} must be reached by https, Proxmox VE has nothing else")
    if "@" in parts.netloc:
        raise ConnectionParamsError("user and password do not belong into the address of an API")
    if parts.path not in ("", "/") or parts.query or parts.fragment or "?" in given or "#" in given:
        raise ConnectionParamsError(f"{given!r} has more than host and port")
    if not _ipv6(host) and _HOST_NAME.fullmatch(host) is None:
        raise ConnectionParamsError(f"{given!r} has no valid host name or address")
    number = port if own_port is None else own_port
    if not 1 <= number <= 65535:
        raise ConnectionParamsError(f"port {number} is not between 1 and 65535")
    return f"https://[{host}]:{number}" if _ipv6(host) else f"https://{host}:{number}"


def _ipv6(text: str) -> str | None:
    """An IPv6 address without its brackets, None for anything else."""
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        return str(ipaddress.IPv6Address(bare)) if "%" not in bare else None
    except ValueError:
        return None


def make_connection(
    *,
    endpoints: Iterable[str],
    user: str | None = None,
    password: str | None = None,
    token_id: str | None = None,
    token_secret: str | None = None,
    validate_certs: bool = True,
    ca_path: str | None = None,
    ca_pem: str | None = None,
    tls_fingerprint: str | None = None,
    connect_timeout: float = 5.0,
    read_timeout: float = 40.0,
    name: str | None = None,
    default_node: str | None = None,
    default_storage: str | None = None,
) -> Connection:
    """A Connection that can be used as it is.

    token_id may be the full "user@realm!name", which then gives the user. ConnectionParamsError when something is
    missing or contradicts something else.
    """
    urls = tuple(endpoint_url(endpoint) for endpoint in endpoints)
    if not urls:
        raise ConnectionParamsError("an address of the Proxmox VE API is missing")
    if token_id and "!" in token_id:
        owner, token_id = token_id.split("!", 1)
        if user and user != owner:
            raise ConnectionParamsError(f"the token belongs to {owner}, but the user is {user}")
        user = owner
    if not user:
        raise ConnectionParamsError("the user is missing, as in root@pam")
    if re.fullmatch(r"[^\s:/!@]+(?:@[^\s:/!@]+)*@[A-Za-z][A-Za-z0-9._-]*", user) is None:
        raise ConnectionParamsError(f"the user {user!r} must be name@realm, as in root@pam")
    if token_id and not re.fullmatch(r"[A-Za-z][A-Za-z0-9._-]*", token_id):
        raise ConnectionParamsError(f"{token_id!r} is not the name of an API token")
    if bool(token_id) != bool(token_secret):
        raise ConnectionParamsError("an API token needs both its id and its secret")
    if bool(token_id) == bool(password):
        raise ConnectionParamsError(
            "give either a password or an API token, not both" if password else "a password or an API token is missing"
        )
    if token_secret and not (token_secret.isascii() and token_secret.isprintable()):
        raise ConnectionParamsError("the secret of an API token has only printable ASCII characters")
    try:
        (password or "").encode()
    except UnicodeEncodeError:
        raise ConnectionParamsError("the password has half a surrogate pair, which is no character") from None
    trust = {"ca_path": ca_path, "ca_pem": ca_pem, "tls_fingerprint": tls_fingerprint}
    given = [option for option, value in trust.items() if value]
    if len(given) > 1:
        raise ConnectionParamsError(f"{' and '.join(given)} exclude each other: say once whom to trust")
    if given and not validate_certs:
        raise ConnectionParamsError(f"{given[0]} and validate_certs=false contradict each other")
    if tls_fingerprint:
        try:
            fingerprint_hex(tls_fingerprint)
        except ValueError as error:
            raise ConnectionParamsError(f"tls_fingerprint: {error}") from None
    for option, seconds in (("connect_timeout", connect_timeout), ("read_timeout", read_timeout)):
        if not 0 < seconds <= 3600:
            raise ConnectionParamsError(f"{option} must be more than 0 and at most 3600 seconds")
    return Connection(
        endpoints=urls,
        user=user,
        password=password or None,
        token_id=token_id or None,
        token_secret=token_secret or None,
        validate_certs=validate_certs,
        ca_path=ca_path or None,
        ca_pem=ca_pem or None,
        tls_fingerprint=tls_fingerprint or None,
        connect_timeout=connect_timeout,
        read_timeout=read_timeout,
        name=name,
        default_node=default_node or None,
        default_storage=default_storage or None,
    )
