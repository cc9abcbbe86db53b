# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tables. All times are UTC, ids of tasks read `task-…`, ids of clusters are UUIDs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class UtcDateTime(TypeDecorator[datetime]):
    """Aware UTC datetimes on every database; SQLite itself forgets the zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value if value is None or value.tzinfo else value.replace(tzinfo=UTC)


class Base(DeclarativeBase):
    type_annotation_map: ClassVar = {datetime: UtcDateTime(), dict[str, Any]: JSON, list[str]: JSON}


class User(Base):
    __tablename__ = "users"

    id: Mapped[int] = mapped_column(primary_key=True)
    username: Mapped[str] = mapped_column(String(64), unique=True)
    email: Mapped[str | None] = mapped_column(String(254))
    password_hash: Mapped[str] = mapped_column(String(255))
    role: Mapped[str] = mapped_column(String(32))
    permissions: Mapped[list[str]]  # beyond the role's
    is_active: Mapped[bool] = mapped_column(default=True)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class Login(Base):
    """A user who logged in: the session cookie and the bearer tokens name the row, and end with it."""

    __tablename__ = "logins"

    id: Mapped[str] = mapped_column(String(43), primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    refresh_hash: Mapped[str | None] = mapped_column(String(64))  # SHA-256 of the one refresh token that is good
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]


class Cluster(Base):
    __tablename__ = "clusters"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    name: Mapped[str] = mapped_column(String(255), unique=True)
    api_endpoint: Mapped[str] = mapped_column(String(2048))
    # Fernet over the JSON of user, password or token, and TLS trust: see access/vault.py.
    credentials: Mapped[bytes] = mapped_column(LargeBinary)
    is_default: Mapped[bool] = mapped_column(default=False)
    status: Mapped[str] = mapped_column(String(16))
    status_reason: Mapped[str | None] = mapped_column(Text)
    proxmox_version: Mapped[str | None] = mapped_column(String(64))
    node_count: Mapped[int | None]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    checked_at: Mapped[datetime | None]

    __table_args__ = (
        Index(
            "ix_clusters_one_default",
            "is_default",
            unique=True,
            sqlite_where=text("is_default"),
            postgresql_where=text("is_default"),
        ),
    )


class Guest(Base):
    """The inventory snapshot: one row a guest, written by the observer, read by every GET."""

    __tablename__ = "guests"

    cluster_id: Mapped[str] = mapped_column(ForeignKey("clusters.id", ondelete="CASCADE"), primary_key=True)
    vmid: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None] = mapped_column(String(255))
    node: Mapped[str] = mapped_column(String(63))
    status: Mapped[str] = mapped_column(String(16))
    template: Mapped[bool] = mapped_column(default=False)
    resource: Mapped[dict[str, Any]]  # the row of cluster/resources
    detail: Mapped[dict[str, Any]]  # config, addresses; what observe_guest answered, no secrets
    first_seen_at: Mapped[datetime]
    changed_at: Mapped[datetime]
    # The truth was read from the guest itself then; cluster/resources lags behind it for some seconds.
    detailed_at: Mapped[datetime | None]

    __table_args__ = (Index("ix_guests_name", "cluster_id", "name"),)


class Task(Base):
    __tablename__ = "tasks"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    operation: Mapped[str] = mapped_column(String(64))
    title: Mapped[str] = mapped_column(String(255))
    status: Mapped[str] = mapped_column(String(16))  # pending running completed failed cancelled
    progress: Mapped[int] = mapped_column(default=0)
    message: Mapped[str] = mapped_column(Text, default="")
    cluster_id: Mapped[str | None] = mapped_column(String(36))
    target: Mapped[str | None] = mapped_column(String(255))  # what it is about, e.g. the server's name
    parameters: Mapped[dict[str, Any]]  # the playbook's variables, without secrets
    result: Mapped[dict[str, Any] | None]
    error: Mapped[str | None] = mapped_column(Text)
    user_id: Mapped[int | None] = mapped_column(Integer)
    attempts: Mapped[int] = mapped_column(default=0)
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    idempotency_key: Mapped[str | None] = mapped_column(String(255))
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    deadline_seconds: Mapped[int]
    # Of a task that others run and only report here.
    kind: Mapped[str | None] = mapped_column(String(64))
    priority: Mapped[str | None] = mapped_column(String(16))
    description: Mapped[str | None] = mapped_column(Text)

    __table_args__ = (
        UniqueConstraint("user_id", "idempotency_key"),
        Index("ix_tasks_status", "status", "created_at"),
        Index("ix_tasks_operation", "operation", "finished_at"),
    )


class TaskSecret(Base):
    """What a run needs and nobody may read: encrypted, deleted when the task ends."""

    __tablename__ = "task_secrets"

    task_id: Mapped[str] = mapped_column(ForeignKey("tasks.id", ondelete="CASCADE"), primary_key=True)
    data: Mapped[bytes] = mapped_column(LargeBinary)


class Lock(Base):
    """One writer a resource: a row while its task is pending or running."""

    __tablename__ = "locks"

    resource: Mapped[str] = mapped_column(String(600), primary_key=True)  # kind:cluster/name
    task_id: Mapped[str] = mapped_column(ForeignKey("tasks.id", ondelete="CASCADE"), index=True)


class TaskLog(Base):
    __tablename__ = "task_logs"

    id: Mapped[int] = mapped_column(primary_key=True)
    task_id: Mapped[str] = mapped_column(ForeignKey("tasks.id", ondelete="CASCADE"), index=True)
    level: Mapped[str] = mapped_column(String(8))
    message: Mapped[str] = mapped_column(Text)
    timestamp: Mapped[datetime]
    context: Mapped[dict[str, Any] | None]  # what a reporting agent knows about it beside the message


class TaskMetric(Base):
    """What a reporting agent has measured."""

    __tablename__ = "task_metrics"

    id: Mapped[int] = mapped_column(primary_key=True)
    task_id: Mapped[str] = mapped_column(ForeignKey("tasks.id", ondelete="CASCADE"), index=True)
    values: Mapped[dict[str, Any]]
    timestamp: Mapped[datetime]


class TaskError(Base):
    """What a reporting agent has seen going wrong."""

    __tablename__ = "task_errors"

    id: Mapped[int] = mapped_column(primary_key=True)
    task_id: Mapped[str] = mapped_column(ForeignKey("tasks.id", ondelete="CASCADE"), index=True)
    code: Mapped[str] = mapped_column(String(64))
    message: Mapped[str] = mapped_column(Text)
    details: Mapped[str | None] = mapped_column(Text)
    stack_trace: Mapped[str | None] = mapped_column(Text)
    timestamp: Mapped[datetime]


class EventClock(Base):
    """One row whose update hands out event ids: holding it until commit makes ids follow the commits' order."""

    __tablename__ = "event_clock"

    id: Mapped[int] = mapped_column(primary_key=True)
    value: Mapped[int] = mapped_column(BigInteger)


class Event(Base):
    """The outbox that every stream reads."""

    __tablename__ = "events"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    topic: Mapped[str] = mapped_column(String(64))  # "task:<id>", "servers"
    kind: Mapped[str] = mapped_column(String(32))
    data: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]

    __table_args__ = (Index("ix_events_topic", "topic", "id"),)


class IdempotentAnswer(Base):
    """The answer given to an Idempotency-Key; without an answer yet while the first request is being worked on."""

    __tablename__ = "idempotent_answers"

    user_id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))  # keyed digest of method, path and body
    status_code: Mapped[int | None]
    content_type: Mapped[str | None] = mapped_column(String(255))
    location: Mapped[str | None] = mapped_column(String(2048))
    body: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime]
