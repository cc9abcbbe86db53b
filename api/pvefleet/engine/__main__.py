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
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pvefleet.config import Settings, SettingsError, load_settings
from pvefleet.db import Database
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
    with ExitStack() as held:
        for path in locks(settings, services.db):
            held.enter_context(alone(path, services.stopping))
        if not services.stopping.is_set():
            observer = Observer(services)
            threading.Thread(target=observer.run, name="observer", daemon=True).start()
            Engine(services, LocalExecutor(settings.home / "runs"), observer).run()
    return 0


def locks(settings: Settings, db: Database) -> list[Path]:
    """Of the home, and of a SQLite file elsewhere, which the service of another home may use too."""
    paths = [settings.home / "engine.lock"]
    if settings.database_url and db.is_sqlite and (file := db.engine.url.database):
        paths.append(Path(f"{Path(file).resolve()}.engine.lock"))
    return paths


@contextmanager
def alone(path: Path, stopping: threading.Event) -> Iterator[None]:
    """Hold that lock; wait while another engine, which may be about to end, still has it."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        waiting = False
        while not stopping.is_set():
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not waiting:
                    logger.warning("Another engine holds %s; waiting until it has ended", path)
                waiting = True
                stopping.wait(WAIT_SECONDS)
        yield
    finally:
        os.close(lock)


if __name__ == "__main__":
    sys.exit(main())
