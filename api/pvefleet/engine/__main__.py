# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m pvefleet.engine`: the engine's process, which `pvefleet serve` starts."""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import sys
import threading

from pvefleet.config import SettingsError, load_settings
from pvefleet.engine.local import LocalExecutor
from pvefleet.engine.loop import Engine
from pvefleet.logs import configure
from pvefleet.observer import Observer
from pvefleet.services import Services

logger = logging.getLogger("pvefleet.engine")


def main() -> int:
    """0 after SIGTERM or SIGINT, 1 when the settings are wrong or this home has an engine already."""
    try:
        settings = load_settings()
        services = Services.build(settings)
    except SettingsError as error:
        logger.error("%s", error)
        return 1
    configure(settings)
    lock = os.open(settings.home / "engine.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        logger.error("Unable to start the engine: another one works on %s", settings.home)
        return 1
    for number in (signal.SIGTERM, signal.SIGINT):
        # In a thread: the handler may interrupt whoever holds the event's lock.
        signal.signal(number, lambda *_: threading.Thread(target=services.stopping.set).start())
    observer = Observer(services)
    watching = threading.Thread(target=observer.run, name="observer", daemon=True)
    watching.start()
    Engine(services, LocalExecutor(settings.home / "runs"), observer).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
