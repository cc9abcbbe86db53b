# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

"""A running lab, in this process: its cluster on an event loop of its own, in a thread."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from .certificates import make_certificates
from .cluster import LabPve
from .guest import LabGuest
from .loop import LoopThread
from .seed import TEMPLATE_NAME, TEMPLATE_VMID, add_guests, add_template

TOKEN_NAME = "fleet"


class Lab:
    """A simulated cluster that serves until ``stop()``.

    Its state may be touched only on its own loop: ``lab.do(lab.pve.lose_quorum)``,
    ``lab.do(lab.pve.hold_config_lock, 100, secs=5)``. Plain reads of attributes need no ``do``.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        nodes: int = 2,
        guests: int = 0,
        time_scale: float = 1.0,
        latency: float = 0.0,
        late_resources: bool = True,
        username: str = "root@pam",
        password: str | None = None,
        users: dict[str, str] | None = None,
    ) -> None:
        """``time_scale``: real seconds a second of PVE lasts; ``latency``: real seconds added to every answer;
        ``users``: passwords of further users, who get PVEAuditor's rights.
        """
        self.username = username
        self.password = password or secrets.token_urlsafe(16)
        self.token_id = f"{username}!{TOKEN_NAME}"
        self.token_secret = secrets.token_hex(16)
        self.auditor, self.auditor_password = "auditor@pve", secrets.token_urlsafe(16)
        self.template_vmid, self.template_name = TEMPLATE_VMID, TEMPLATE_NAME
        self._directory = tempfile.TemporaryDirectory(prefix="pvefleet-lab-")
        self._certificates = make_certificates(Path(self._directory.name), host)
        self.ca_file = str(self._certificates.ca_file)
        self.fingerprint = self._certificates.fingerprint
        self.pve = LabPve(
            user=username,
            password=self.password,
            host=host,
            port=port,
            nodes=nodes,
            time_scale=time_scale,
            latency=latency,
        )
        self.pve.late_resources = late_resources
        self.pve.add_token(self.token_id, self.token_secret)
        for user, secret in {self.auditor: self.auditor_password, **(users or {})}.items():
            self.pve.add_user(user, secret)
        self.nodes = sorted(self.pve.nodes)
        add_template(self.pve, TEMPLATE_VMID, TEMPLATE_NAME, self.nodes[0])
        add_guests(self.pve, guests)
        self.pve.settle_resources()
        self._thread = LoopThread()

    # -------------------------------------------------------------- life cycle

    def start(self) -> Self:
        """Serve. OSError when the port is taken."""
        self._thread.start()
        try:
            self.do(self.pve.start, str(self._certificates.certificate_file), str(self._certificates.key_file))
        except OSError:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End every worker and connection, and remove the certificates."""
        self.do(self.pve.stop)
        self._thread.stop()
        self._directory.cleanup()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # ------------------------------------------------------------ for its users

    @property
    def port(self) -> int:
        return int(self.pve.port)

    @property
    def api_endpoint(self) -> str:
        return f"https://{self.pve.host}:{self.pve.port}"

    def description(self) -> dict[str, Any]:
        """What a client needs, as the command line prints it."""
        names = "api_endpoint ca_file fingerprint username password token_id token_secret template_vmid nodes"
        return {name: getattr(self, name) for name in names.split()}

    def connection(self, **changes: Any) -> Any:
        """A Connection of the collection's own client: by token, verified by the lab's CA, unless told otherwise."""
        from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import Connection

        settings: dict[str, Any] = {
            "endpoints": (self.api_endpoint,),
            "user": self.username,
            "password": None,
            "token_id": TOKEN_NAME,
            "token_secret": self.token_secret,
            "ca_path": self.ca_file,
        }
        return Connection(**{**settings, **changes})

    def do(self, action: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call ``action`` on the lab's loop, await it if need be, and return its result."""
        return self._thread.do(action, *args, **kwargs)

    def vm(self, vmid: int) -> LabGuest:
        """The guest, to look at or, within ``do``, to change. KeyError when it is not there."""
        guest: LabGuest | None = self.pve.vm(vmid)
        if guest is None:
            raise KeyError(vmid)
        return guest

    def add_template(self, vmid: int, name: str, node: str, storage: str = "local-lvm") -> LabGuest:
        """One more template, on shared storage for instance, from where every node can be reached."""

        def add() -> LabGuest:
            guest = add_template(self.pve, vmid, name, node, storage)
            self.pve.settle_resources()
            return guest

        guest: LabGuest = self.do(add)
        return guest

    @property
    def requests(self) -> list[tuple[str, str]]:
        """(method, path below /api2/json) of every request so far, oldest first."""
        return list(self.pve.calls)

    def count_since(self, mark: int = 0, method: str | None = None, path: str = "") -> int:
        """Requests after ``mark``, which is an earlier ``len(lab.requests)``; only of this method, with path in it."""
        return sum(method in (None, used) and path in where for used, where in self.requests[mark:])
