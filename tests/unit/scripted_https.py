# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""An HTTPS server that answers as a test tells it to, for what the lab cannot do: drops, hangs, odd answers."""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import json
import ssl
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Request:
    """One request as it arrived, path without /api2/json."""

    method: str
    path: str
    headers: dict[str, str]
    form: dict[str, list[str]]
    connection: int


@dataclass(frozen=True)
class Answer:
    """data is wrapped as PVE does it; body is sent as it is. reason is the status line's text."""

    data: Any = None
    status: int = 200
    reason: str = ""
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)


# Instead of an answer: the connection is closed without one.
DROP = None
TICKET = {"ticket": "PVE:root@pam:TICKET", "CSRFPreventionToken": "CSRF-TOKEN", "username": "root@pam"}

Script = Callable[[Request], Answer | None]


def in_turn(*answers: Answer | None) -> Script:
    """A script that gives each answer once, in order; a login is answered apart."""
    left = iter(answers)
    lock = threading.Lock()

    def script(request: Request) -> Answer | None:
        if request.path == "/access/ticket":
            return Answer(TICKET)
        with lock:
            return next(left)

    return script


class ScriptedServer:
    """Serves script over TLS, with a certificate for names, on a port of 127.0.0.1."""

    def __init__(self, folder: Path, script: Script, names: Iterable[str] = ("127.0.0.1",)) -> None:
        self.requests: list[Request] = []
        self.connections = 0
        # so many connections are closed before the TLS handshake
        self.refuse_handshakes = 0
        self.script = script
        self.ca_file, self.fingerprint, context = _certificate(folder, names)
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                server.connections += 1
                self.number = server.connections
                if server.refuse_handshakes:
                    server.refuse_handshakes -= 1
                    raise ConnectionAbortedError
                self.request = context.wrap_socket(self.request, server_side=True)
                super().setup()

            def answer(self) -> None:
                url = urlsplit(self.path)
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
                form = parse_qs(body or url.query, keep_blank_values=True)
                path = url.path.removeprefix("/api2/json")
                request = Request(self.command, path, dict(self.headers.items()), form, self.number)
                server.requests.append(request)
                reply = server.script(request)
                if reply is DROP:
                    self.close_connection = True
                    return
                payload = json.dumps({"data": reply.data}).encode() if reply.body is None else reply.body
                self.send_response(reply.status, reply.reason or None)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            do_GET = do_POST = do_PUT = do_DELETE = answer

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # broken connections are what these tests are about

        self._http = Server(("127.0.0.1", 0), Handler)
        self.url = f"https://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    @property
    def calls(self) -> list[str]:
        """The requests so far, as "GET /version"."""
        return [f"{request.method} {request.path}" for request in self.requests]

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


def _certificate(folder: Path, names: Iterable[str]) -> tuple[str, str, ssl.SSLContext]:
    key = ec.generate_private_key(ec.SECP256R1())
    # a name of its own: two issuers of one name would be mistaken for each other
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"scripted {x509.random_serial_number()}"[:64])])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([_name(name) for name in names]), critical=False)
        # no key usage extension, as in the CA that PVE makes for itself
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder.mkdir(parents=True, exist_ok=True)
    ca_file, key_file = folder / "ca.pem", folder / "key.pem"
    ca_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(ca_file, key_file)
    digest = hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).hexdigest()
    return str(ca_file), digest, context


def _name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
