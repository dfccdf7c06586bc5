"""Fairness: draws and scores, openings of recordings, marks, verdicts of calls, reports."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "quality_months",
        sa.Column("month", sa.String(7), nullable=False),
        sa.Column("secret", sa.String(64), nullable=False),
        sa.Column("time_zone", sa.String(64), nullable=False),
        sa.Column("begin_ts", sa.Float(), nullable=False),
        sa.Column("end_ts", sa.Float(), nullable=False),
        sa.Column("per_agent", sa.Integer(), nullable=False),
        sa.Column("min_call_s", sa.Float(), nullable=False),
        sa.Column("recorded_only", sa.Boolean(), nullable=False),
        sa.Column("drawn_ts", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("month", name="pk_quality_months"),
    )
    op.create_table(
        "quality_pool",
        sa.Column("call_id", sa.String(32), nullable=False),
        sa.Column("month", sa.String(7), nullable=False),
        sa.Column("agent_id", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("call_id", name="pk_quality_pool"),
    )
    op.create_index("ix_quality_pool_month", "quality_pool", ["month"])
    op.create_table(
        "quality_draws",
        sa.Column("draw_id", sa.String(32), nullable=False),
        sa.Column("month", sa.String(7), nullable=False),
        sa.Column("call_id", sa.String(32), nullable=False),
        sa.Column("agent_id", sa.String(64), nullable=False),
        sa.Column("told", sa.Boolean(), nullable=False),
        sa.Column("contested_ts", sa.Float(), nullable=True),
        sa.Column("due_ts", sa.Float(), nullable=True),
        sa.Column("void_ts", sa.Float(), nullable=True),
        sa.Column("void_reason", sa.String(24), nullable=False),
        sa.PrimaryKeyConstraint("draw_id", name="pk_quality_draws"),
        sa.UniqueConstraint("call_id", name="uq_quality_draws_call_id"),
    )
    op.create_index("ix_quality_draws_agent_id", "quality_draws", ["agent_id"])
    op.create_table(
        "quality_scores",
        sa.Column("draw_id", sa.String(32), nullable=False),
        sa.Column("review", sa.Integer(), nullable=False),
        sa.Column("reviewer", sa.String(64), nullable=False),
        sa.Column("points", sa.Text(), nullable=False),
        sa.Column("ts", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("draw_id", "review", name="pk_quality_scores"),
    )
    op.create_table(
        "openings",
        sa.Column("opening_id", sa.String(32), nullable=False),
        sa.Column("ts", sa.Float(), nullable=False),
        sa.Column("call_id", sa.String(32), nullable=False),
        sa.Column("agent_id", sa.String(64), nullable=False),
        sa.Column("by_role", sa.String(16), nullable=False),
        sa.Column("by", sa.String(64), nullable=False),
        sa.Column("why", sa.String(16), nullable=False),
        sa.Column("ref", sa.String(64), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("opening_id", name="pk_openings"),
    )
    op.create_index("ix_openings_agent_id", "openings", ["agent_id"])
    op.create_table(
        "ringback_marks",
        sa.Column("mark", sa.String(64), nullable=False),
        sa.Column("key_id", sa.String(8), nullable=False),
        sa.Column("mark_id", sa.String(12), nullable=False),
        sa.Column("category", sa.String(32), nullable=False),
        sa.Column("ended_ts", sa.Float(), nullable=False),
        sa.Column("until_ts", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("mark", name="pk_ringback_marks"),
        sa.UniqueConstraint("mark_id", name="uq_ringback_marks_mark_id"),
    )
    op.create_table(
        "call_verdicts",
        sa.Column("call_id", sa.String(32), nullable=False),
        sa.Column("ts", sa.Float(), nullable=False),
        sa.Column("agent_verdict", sa.String(16), nullable=False),
        sa.Column("supervisor_verdict", sa.String(16), nullable=False),
        sa.PrimaryKeyConstraint("call_id", name="pk_call_verdicts"),
    )
    op.create_index("ix_call_verdicts_ts", "call_verdicts", ["ts"])
    op.create_table(
        "withheld_alerts",
        sa.Column("alert_id", sa.String(32), nullable=False),
        sa.Column("ts", sa.Float(), nullable=False),
        sa.Column("call_id", sa.String(32), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("level", sa.Integer(), nullable=False),
        sa.Column("categories", sa.Text(), nullable=False),
        sa.Column("rules", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("alert_id", name="pk_withheld_alerts"),
    )
    op.create_index("ix_withheld_alerts_ts", "withheld_alerts", ["ts"])
    op.create_table(
        "weekly_reports",
        sa.Column("week", sa.String(8), nullable=False),
        sa.Column("made_ts", sa.Float(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("week", name="pk_weekly_reports"),
    )


def downgrade() -> None:
    for table in (
        "weekly_reports",
        "withheld_alerts",
        "call_verdicts",
        "ringback_marks",
        "openings",
        "quality_scores",
        "quality_draws",
        "quality_pool",
        "quality_months",
    ):
        op.drop_table(table)
