"""Verdicts on alerts, and what is left of each analysed call."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_SCORES = ("effort_score", "word_score")
_VERDICTS = ("agent_verdict", "supervisor_verdict")


def upgrade() -> None:
    with op.batch_alter_table("alerts") as alerts:
        for name in _SCORES:
            alerts.add_column(sa.Column(name, sa.Float(), nullable=False, server_default="0"))
        for name in _VERDICTS:
            alerts.add_column(sa.Column(name, sa.String(16), nullable=False, server_default=""))
    op.create_table(
        "analyses",
        sa.Column("call_id", sa.String(32), nullable=False),
        sa.Column("ts", sa.Float(), nullable=False),
        sa.Column("analysed_s", sa.Float(), nullable=False),
        sa.Column("speech_s", sa.Float(), nullable=False),
        sa.Column("effort_peak", sa.Float(), nullable=False),
        sa.Column("effort_sustained", sa.Float(), nullable=False),
        sa.Column("caution_reached", sa.Float(), nullable=False),
        sa.Column("serious_reached", sa.Float(), nullable=False),
        sa.Column("caution", sa.Float(), nullable=False),
        sa.Column("serious", sa.Float(), nullable=False),
        sa.Column("model", sa.String(12), nullable=False),
        sa.PrimaryKeyConstraint("call_id", name="pk_analyses"),
    )
    op.create_index("ix_analyses_ts", "analyses", ["ts"])


def downgrade() -> None:
    op.drop_table("analyses")
    with op.batch_alter_table("alerts") as alerts:
        for name in (*_SCORES, *_VERDICTS):
            alerts.drop_column(name)
