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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pvefleet.config import SettingsError, load_settings
from pvefleet.engine.local import LocalExecutor
from pvefleet.engine.loop import Engine
from pvefleet.logs import configure
from pvefleet.observer import Observer
from pvefleet.services import Services

logger = logging.getLogger("pvefleet.engine")


WAIT_SECONDS = 0.5


def main() -> int:
    """0 after SIGTERM or SIGINT, 1 when the settings are wrong."""
    try:
        settings = load_settings()
        services = Services.build(settings)
    except SettingsError as error:
        logger.error("%s", error)
        return 1
    configure(settings)
    for number in (signal.SIGTERM, signal.SIGINT):
        # In a thread: the handler may interrupt whoever holds the event's lock.
        signal.signal(number, lambda *_: threading.Thread(target=services.stopping.set).start())
    with alone(settings.home, services.stopping):
        if not services.stopping.is_set():
            observer = Observer(services)
            threading.Thread(target=observer.run, name="observer", daemon=True).start()
            Engine(services, LocalExecutor(settings.home / "runs"), observer).run()
    return 0


@contextmanager
def alone(home: Path, stopping: threading.Event) -> Iterator[None]:
    """Hold the home's only engine lock; wait while another engine, which may be about to end, still has it."""
    lock = os.open(home / "engine.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        waiting = False
        while not stopping.is_set():
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not waiting:
                    logger.warning("Another engine works on %s; waiting until it has ended", home)
                waiting = True
                stopping.wait(WAIT_SECONDS)
        yield
    finally:
        os.close(lock)


if __name__ == "__main__":
    sys.exit(main())
