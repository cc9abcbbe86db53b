# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m pvefleet.web FD`: the web's process, which `pvefleet serve` starts on a socket that it listens on."""

from __future__ import annotations

import sys
from typing import Any

import gevent  # type: ignore[import-untyped]
from gunicorn.app.base import BaseApplication  # type: ignore[import-untyped]
from gunicorn.workers.ggevent import GeventWorker  # type: ignore[import-untyped]

from pvefleet.config import Settings, load_settings
from pvefleet.logs import configure

# After SIGTERM: streams end at once, other requests have this long.
GRACE_SECONDS = 6
# A worker that does not come round for so long hangs. SQLite alone may wait for its lock for 15 s.
HANGING_SECONDS = 60


class Worker(GeventWorker):  # type: ignore[misc]
    """Tells streams to end when the worker is told to."""

    def handle_exit(self, sig: int, frame: object) -> None:
        super().handle_exit(sig, frame)
        # not in the signal handler itself: it may interrupt whoever holds the event's lock
        gevent.spawn(self.wsgi.extensions["pvefleet"].stopping.set)


class Web(BaseApplication):  # type: ignore[misc]
    def __init__(self, settings: Settings, listener: int) -> None:
        self._settings = settings
        self._listener = listener
        super().__init__()

    def load_config(self) -> None:
        options: dict[str, Any] = {
            "bind": f"fd://{self._listener}",
            "workers": self._settings.workers,
            "worker_class": Worker,
            "worker_connections": 10_000,
            "timeout": HANGING_SECONDS,
            "graceful_timeout": GRACE_SECONDS,
            "loglevel": self._settings.log_level,
            "accesslog": "-" if self._settings.log_level == "debug" else None,
            # X-Forwarded-* is believed by proxy_hops alone, see create_app
            "forwarded_allow_ips": "",
            "proc_name": "pvefleet-web",
            # a socket to control gunicorn by would be one for all that run on this machine
            "control_socket_disable": True,
        }
        for name, value in options.items():
            if name in self.cfg.settings:
                self.cfg.set(name, value)

    def load(self) -> Any:
        # imported late, in the worker: gevent must come before everything that uses sockets
        from pvefleet.app import create_app

        configure(self._settings)
        return create_app(self._settings)


if __name__ == "__main__":
    Web(load_settings(), int(sys.argv[1])).run()
