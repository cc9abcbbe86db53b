# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The database: one engine a process, short transactions."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, create_engine, event
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import Session

logger = logging.getLogger(__name__)

SQLITE_BUSY_SECONDS = 15
RETRY_SECONDS = 1.0
_WRITES = {"pvefleet_writes": True}


T = TypeVar("T")


def now() -> datetime:
    return datetime.now(UTC)


def patiently(call: Callable[[], T], stopping: threading.Event) -> T | None:
    """What call() returns; it is repeated for as long as the database is locked, full or away.

    None when it does not work and `stopping` is set. A transaction may have been committed although it failed: call()
    has to look.
    """
    failed = False
    while True:
        try:
            value = call()
        except OperationalError as error:
            if stopping.is_set():
                logger.error("Unable to use the database: %s; giving up, as the service ends", error.orig)
                return None
            if not failed:
                logger.warning("Unable to use the database: %s; trying again until it works", error.orig)
            failed = True
            stopping.wait(RETRY_SECONDS)
        else:
            if failed:
                logger.info("The database works again")
            return value


class DatabaseError(RuntimeError):
    """str() says in one sentence why the database cannot be used."""


class Database:
    """read() and write() give a session that ends with the block; write() commits, or rolls back on an exception."""

    def __init__(self, url: str, busy_seconds: int = SQLITE_BUSY_SECONDS) -> None:
        """busy_seconds: how long a statement waits for another process that writes to the same SQLite file."""
        self.engine = create_engine(url, pool_pre_ping=True)
        self.is_sqlite = self.engine.dialect.name == "sqlite"
        if self.is_sqlite:
            event.listen(self.engine, "connect", partial(_configure_sqlite, busy_seconds))
            event.listen(self.engine, "begin", _begin_sqlite)

    @contextmanager
    def read(self) -> Iterator[Session]:
        with Session(self.engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        with Session(self.engine, expire_on_commit=False) as session, session.begin():
            session.connection(execution_options=_WRITES)
            yield session

    def migrate(self) -> None:
        """Bring the schema to the newest revision. Raises DatabaseError when the database cannot be used."""
        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        try:
            with self.engine.connect().execution_options(**_WRITES) as connection, connection.begin():
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
        except DBAPIError as error:
            raise DatabaseError(f"Unable to open the database: {error.orig}") from None
        except CommandError as error:  # a revision that this version does not know
            raise DatabaseError(f"Unable to use the database: {error}. Was it made by a newer version?") from None

    def dispose(self) -> None:
        self.engine.dispose()


def _configure_sqlite(busy_seconds: int, connection: Any, _record: Any) -> None:
    # Transactions begin in _begin_sqlite: the driver's own BEGIN comes late, and not for DDL.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute(f"PRAGMA busy_timeout = {busy_seconds * 1000}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that turns from reading to writing is refused at once when another one wrote meanwhile: a writer
    # takes the lock first, and waits for it.
    writes = connection.get_execution_options().get("pvefleet_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
