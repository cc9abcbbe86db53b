# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tasks that others run and report here: their metrics, their errors, and more about their log lines."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from pvefleet.db.models import UtcDateTime

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("tasks", sa.Column("kind", sa.String(length=64), nullable=True))
    op.add_column("tasks", sa.Column("priority", sa.String(length=16), nullable=True))
    op.add_column("tasks", sa.Column("description", sa.Text(), nullable=True))
    op.add_column("task_logs", sa.Column("context", sa.JSON(), nullable=True))
    op.create_table(
        "task_metrics",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("task_id", sa.String(length=40), nullable=False),
        sa.Column("values", sa.JSON(), nullable=False),
        sa.Column("timestamp", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_task_metrics_task_id", "task_metrics", ["task_id"], unique=False)
    op.create_table(
        "task_errors",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("task_id", sa.String(length=40), nullable=False),
        sa.Column("code", sa.String(length=64), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("details", sa.Text(), nullable=True),
        sa.Column("stack_trace", sa.Text(), nullable=True),
        sa.Column("timestamp", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_task_errors_task_id", "task_errors", ["task_id"], unique=False)


def downgrade() -> None:
    op.drop_table("task_errors")
    op.drop_table("task_metrics")
    op.drop_column("task_logs", "context")
    op.drop_column("tasks", "description")
    op.drop_column("tasks", "priority")
    op.drop_column("tasks", "kind")
