# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The database: its schema, and transactions that do not get in each other's way."""

from __future__ import annotations

import inspect
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from pvefleet.db import Database, DatabaseError, now
from pvefleet.db.models import Base, Lock, Task, TaskLog, User
from sqlalchemy import func, select, text
from sqlalchemy.exc import IntegrityError


@pytest.fixture
def db(tmp_path: Path) -> Database:
    database = Database(f"sqlite:///{tmp_path}/test.db")
    database.migrate()
    return database


def user(name: str) -> User:
    moment = now()
    return User(username=name, password_hash="x", role="viewer", permissions=[], created_at=moment, updated_at=moment)


def test_migrations_make_what_the_models_describe(db: Database) -> None:
    with db.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []


OLD_ROWS = (
    "INSERT INTO users (id, username, password_hash, role, permissions, is_active, created_at, updated_at)"
    " VALUES (1, 'eve', 'x', 'viewer', '[]', 1, :moment, :moment)",
    "INSERT INTO tasks (id, operation, title, status, progress, message, parameters, user_id, attempts,"
    " cancel_requested, created_at, updated_at, deadline_seconds)"
    " VALUES ('task-1', 'create_server', 'x', 'pending', 0, '', '[7]', 1, 0, 0, :moment, :moment, 60)",
    "INSERT INTO task_logs (task_id, timestamp, level, message) VALUES ('task-1', :moment, 'info', 'a line')",
)


def test_what_the_first_version_has_written_can_be_read(tmp_path: Path) -> None:
    db = Database(f"sqlite:///{tmp_path}/old.db")
    config = Config()
    config.set_main_option("script_location", str(Path(inspect.getfile(Database)).parent / "migrations"))
    with db.engine.connect().execution_options(pvefleet_writes=True) as connection, connection.begin():
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        for row in OLD_ROWS:
            connection.execute(text(row), {"moment": "2026-01-02 03:04:05.000000"})
    db.migrate()
    with db.read() as session:
        assert session.scalars(select(User.username)).all() == ["eve"]
        task = session.scalars(select(Task)).one()
        assert (task.id, task.parameters, task.user_id, task.kind, task.priority) == ("task-1", [7], 1, None, None)
        assert task.created_at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        line = session.scalars(select(TaskLog)).one()
        assert (line.task_id, line.message, line.context) == ("task-1", "a line", None)
    db.dispose()


def test_migrating_again_changes_nothing(db: Database) -> None:
    with db.write() as session:
        session.add(user("eve"))
    db.migrate()
    with db.read() as session:
        assert session.scalar(select(func.count()).select_from(User)) == 1


def test_a_database_of_a_newer_version_is_left_alone(db: Database) -> None:
    with db.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(DatabaseError, match="newer version"):
        db.migrate()


def test_a_failed_write_leaves_nothing(db: Database) -> None:
    def fail() -> None:
        with db.write() as session:
            session.add(user("eve"))
            session.flush()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with db.read() as session:
        assert session.scalar(select(func.count()).select_from(User)) == 0


def test_a_reader_sees_one_moment(db: Database) -> None:
    with db.read() as reading:
        assert reading.scalar(select(func.count()).select_from(User)) == 0
        with db.write() as writing:
            writing.add(user("eve"))
        assert reading.scalar(select(func.count()).select_from(User)) == 0
    with db.read() as reading:
        assert reading.scalar(select(func.count()).select_from(User)) == 1


def test_writers_that_read_first_wait_for_each_other(db: Database) -> None:
    with db.write() as session:
        session.add(user("counter"))

    def count_up() -> None:
        for _time in range(20):
            with db.write() as session:
                row = session.scalars(select(User)).one()
                row.role = str(int(row.role) + 1) if row.role.isdigit() else "1"

    threads = [threading.Thread(target=count_up) for _time in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with db.read() as session:
        assert session.scalars(select(User)).one().role == "80"


def test_foreign_keys_hold(db: Database) -> None:
    with pytest.raises(IntegrityError), db.write() as session:
        session.add(Lock(resource="server:x", task_id="task-none"))


def test_times_come_back_in_utc(db: Database) -> None:
    moment = now()
    with db.write() as session:
        task = Task(
            id="task-1",
            operation="x",
            title="x",
            status="pending",
            parameters={},
            created_at=moment,
            updated_at=moment,
            deadline_seconds=1,
        )
        session.add(task)
    with db.read() as session:
        assert session.get_one(Task, "task-1").created_at == moment
