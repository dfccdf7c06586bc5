"""Marks, what agents said of their calls, breaks that calls ate, and call-backs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "marks",
        sa.Column("call_id", sa.String(32), nullable=False),
        sa.Column("agent_id", sa.String(64), nullable=False),
        sa.Column("pbx_call_id", sa.String(256), nullable=False),
        sa.Column("ts", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("call_id", name="pk_marks"),
    )
    op.create_index("ix_marks_ts", "marks", ["ts"])
    op.create_table(
        "said",
        sa.Column("request_id", sa.String(32), nullable=False),
        sa.Column("call_id", sa.String(32), nullable=False),
        sa.Column("agent_id", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("ts", sa.Float(), nullable=False),
        sa.Column("choice", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("request_id", name="pk_said"),
    )
    op.create_index("ix_said_agent_id_ts", "said", ["agent_id", "ts"])
    op.create_index("ix_said_ts", "said", ["ts"])
    op.create_table(
        "eaten_breaks",
        sa.Column("agent_id", sa.String(64), nullable=False),
        sa.Column("call_id", sa.String(32), nullable=False),
        sa.Column("break_ts", sa.Float(), nullable=False),
        sa.Column("length_s", sa.Float(), nullable=False),
        sa.Column("busy_from_ts", sa.Float(), nullable=False),
        sa.Column("eaten_s", sa.Float(), nullable=False),
        sa.Column("moved_to_ts", sa.Float(), nullable=True),
        sa.Column("paid_s", sa.Float(), nullable=False),
        sa.Column("bad", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("agent_id", "call_id", "break_ts", name="pk_eaten_breaks"),
    )
    op.create_index("ix_eaten_breaks_break_ts", "eaten_breaks", ["break_ts"])
    op.create_table(
        "callbacks",
        sa.Column("callback_id", sa.String(32), nullable=False),
        sa.Column("call_id", sa.String(32), nullable=False),
        sa.Column("agent_id", sa.String(64), nullable=False),
        sa.Column("pbx_call_id", sa.String(256), nullable=False),
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("promised_ts", sa.Float(), nullable=False),
        sa.Column("due_ts", sa.Float(), nullable=False),
        sa.Column("spoken_ts", sa.Float(), nullable=True),
        sa.Column("overdue_ts", sa.Float(), nullable=True),
        sa.Column("done_ts", sa.Float(), nullable=True),
        sa.Column("done_by", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("callback_id", name="pk_callbacks"),
    )
    op.create_index("ix_callbacks_done_ts", "callbacks", ["done_ts"])


def downgrade() -> None:
    for name in ("callbacks", "eaten_breaks", "said", "marks"):
        op.drop_table(name)
