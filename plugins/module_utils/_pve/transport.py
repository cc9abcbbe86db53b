# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How bytes reach Proxmox VE: TLS with its three ways of trust, timeouts, proxies, and whether a request was sent."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import ssl
import threading
import time
from typing import Any
from urllib.parse import urlsplit

try:
    import requests
    import urllib3
    from requests.adapters import HTTPAdapter
    from requests.utils import get_environ_proxies
    from urllib3.connection import HTTPSConnection
    from urllib3.connectionpool import HTTPSConnectionPool
    from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

    MISSING: ImportError | None = None
except ImportError as error:
    MISSING = error
    HTTPAdapter = HTTPSConnection = HTTPSConnectionPool = object  # type: ignore[assignment,misc]

# pveproxy closes a connection that was idle for 5 s. A write that meets the closing has an unknown outcome,
# so connections are dropped before that.
IDLE_SECONDS = 4.0

_wire = threading.local()


class NotSent(Exception):
    """The request did not leave: no connection, no handshake, no trust. certificate: trust was the reason."""

    def __init__(self, reason: str, *, certificate: bool = False, lasting: bool = False) -> None:
        super().__init__(reason)
        self.certificate = certificate
        self.lasting = lasting or certificate


class AnswerLost(Exception):
    """The request was sent and no complete answer came."""


def fingerprint_hex(fingerprint: str) -> str:
    """A SHA-256 fingerprint, with or without colons, as 64 lower-case hex digits. ValueError for anything else."""
    digits = fingerprint.replace(":", "").strip().lower()
    if re.fullmatch(r"[0-9a-f]{64}", digits) is None:
        raise ValueError("a SHA-256 fingerprint has 32 pairs of hex digits, as in AA:BB:...")
    return digits


def tls_context(
    *, validate_certs: bool, ca_path: str | None, ca_pem: str | None, tls_fingerprint: str | None
) -> ssl.SSLContext:
    """The trust of a connection: a pinned fingerprint (checked by the adapter), a CA file or directory, PEM text,
    or the system's CAs. ValueError when the CA cannot be read.

    The system's CAs follow SSL_CERT_FILE, REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE; an explicit CA or pin never does.
    """
    if not validate_certs:
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)  # asked for by name: no news on stderr
    if not validate_certs or tls_fingerprint:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    if ca_pem and not ca_pem.isascii():
        raise ValueError("Unable to read the CA certificate given as text: it has characters that are not ASCII")
    bundle = ca_path or (None if ca_pem else os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE"))
    try:
        directory = bundle if bundle and os.path.isdir(bundle) else None
        context = ssl.create_default_context(
            cafile=None if directory else bundle or None, capath=directory, cadata=ca_pem
        )
    except (OSError, ssl.SSLError) as error:
        what = f"the CA file {bundle}" if bundle else "the CA certificate given as text"
        raise ValueError(f"Unable to read {what}: {error.strerror or error}") from None
    # Python 3.13 is strict by default, and a PVE cluster's own CA certificate has no key usage extension.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    # As Python 3.13 does: a node's certificate may be given in place of its CA's.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


class _Connection(HTTPSConnection):
    def request(self, *args: Any, **kwargs: Any) -> None:
        _wire.sent = True  # the handshake is over and trusted: from here on bytes may leave
        super().request(*args, **kwargs)


class _Pool(HTTPSConnectionPool):
    ConnectionCls = _Connection


class _Adapter(HTTPAdapter):
    """Trusts by our TLS context alone: what requests would choose by itself (certifi, the environment) is left out."""

    def __init__(self, context: ssl.SSLContext, fingerprint: str | None) -> None:
        self._trust: dict[str, Any] = {"ssl_context": context, "cert_reqs": context.verify_mode}
        if fingerprint:
            self._trust["assert_fingerprint"] = fingerprint
        super().__init__(pool_maxsize=32)

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **kwargs: Any) -> None:
        super().init_poolmanager(connections, maxsize, block=block, **self._trust, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"https": _Pool}

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **self._trust, **kwargs)
        manager.pool_classes_by_scheme = {**manager.pool_classes_by_scheme, "https": _Pool}
        return manager

    def build_connection_pool_key_attributes(self, request: Any, verify: Any, cert: Any = None) -> Any:
        url = urlsplit(request.url)
        return {"scheme": url.scheme, "host": url.hostname, "port": url.port}, {}

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """The context has it all."""


class Transport:
    """The session that proxmoxer sends through.

    Carries no credentials of its own: authorize adds them to each request, after TLS and endpoint are settled.
    """

    def __init__(self, context: ssl.SSLContext, fingerprint: str | None, timeouts: tuple[float, float]) -> None:
        self._http = requests.Session()
        self._http.trust_env = False  # no .netrc over our headers, no CA from the environment; proxies: see below
        self._http.mount("https://", _Adapter(context, fingerprint))
        self._timeouts = timeouts
        self._proxies: dict[str, dict[str, str]] = {}
        self._used = time.monotonic()
        self._lock = threading.Lock()
        self.calls = 0

    def request(
        self, method: str, url: str, data: Any = None, params: Any = None, headers: dict[str, str] | None = None
    ) -> Any:
        """One HTTP request; never a redirect, never a repetition. NotSent or AnswerLost without a complete answer."""
        now = time.monotonic()
        if now - self._used > IDLE_SECONDS:
            self._http.close()
        _wire.sent = False
        try:
            return self._http.request(
                method,
                url,
                data=data,
                params=params,
                headers={"Accept": "application/json", **(headers or {})},
                timeout=self._timeouts,
                allow_redirects=False,
                proxies=self._proxies_for(url),
            )
        except requests.RequestException as error:
            if _wire.sent:
                raise AnswerLost(self._lost(error)) from None
            raise self._unsent(error) from None
        finally:
            self._used = time.monotonic()
            if _wire.sent:
                with self._lock:
                    self.calls += 1

    def close(self) -> None:
        self._http.close()

    def _proxies_for(self, url: str) -> dict[str, str]:
        endpoint = urlsplit(url)
        if endpoint.netloc not in self._proxies:
            self._proxies[endpoint.netloc] = proxies_for(url)
        return self._proxies[endpoint.netloc]

    def _lost(self, error: Exception) -> str:
        if isinstance(error, requests.Timeout) or "timed out" in str(error):
            return f"no answer within {self._timeouts[1]:g} s"
        return "the connection was lost before an answer"

    def _unsent(self, error: Exception) -> NotSent:
        cause = _innermost(error)
        text = str(cause)
        if isinstance(cause, ssl.SSLCertVerificationError):
            return NotSent(f"its certificate is not trusted: {cause.verify_message or text}", certificate=True)
        if text.startswith("Fingerprints did not match"):
            return NotSent(f"its certificate is not the pinned one: {_fingerprints(text)}", certificate=True)
        if isinstance(cause, NameResolutionError | socket.gaierror):
            return NotSent("the name cannot be resolved", lasting=True)
        if isinstance(cause, NewConnectionError):
            cause = cause.__cause__ or cause
        elif isinstance(cause, ConnectTimeoutError) or isinstance(error, requests.Timeout):
            return NotSent(f"no connection within {self._timeouts[0]:g} s")
        if isinstance(cause, ssl.SSLError):
            return NotSent(f"TLS handshake failed: {cause.reason or text}")
        if isinstance(cause, OSError) and cause.strerror:
            return NotSent(cause.strerror.lower())
        return NotSent(f"no connection: {text}")


def _innermost(error: BaseException) -> BaseException:
    """The error that began a chain of urllib3's and requests' wrappers."""
    while True:
        inner = getattr(error, "reason", None)
        if not isinstance(inner, BaseException):
            inner = next((arg for arg in error.args if isinstance(arg, BaseException)), None)
        if not isinstance(inner, BaseException):
            return error
        error = inner


def _fingerprints(text: str) -> str:
    found = re.findall(r"[0-9a-f]{64}", text.lower())
    return f"it has {colons(found[-1])}" if len(found) == 2 else text


def colons(digits: str) -> str:
    """Hex digits as AA:BB:..., the way PVE shows a fingerprint."""
    return ":".join(digits[i : i + 2] for i in range(0, len(digits), 2)).upper()


def proxies_for(url: str) -> dict[str, str]:
    """The proxy for an endpoint: HTTPS_PROXY and NO_PROXY of the environment, but never for an address of this
    machine or a private network, where most PVE nodes live and no outward proxy leads."""
    found = get_environ_proxies(url)
    proxy = found.get("https") or found.get("all")
    if not proxy or _is_internal(urlsplit(url).hostname or ""):
        return {}
    return {"https": proxy}


def _is_internal(host: str) -> bool:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return False  # only the proxy may know the name
    addresses = [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
    return all(address.is_private for address in addresses)
