"""Teams: whom a supervisor's token stands for, how an alert was accepted, how far one has got."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("tokens") as tokens:
        tokens.add_column(
            sa.Column("supervisor_id", sa.String(64), nullable=False, server_default="")
        )
    with op.batch_alter_table("alerts") as alerts:
        alerts.add_column(sa.Column("how", sa.String(16), nullable=False, server_default=""))
        alerts.add_column(
            sa.Column("supervisor_id", sa.String(64), nullable=False, server_default="")
        )
    op.create_table(
        "escalations",
        sa.Column("alert_id", sa.String(32), nullable=False),
        sa.Column("call_id", sa.String(32), nullable=False),
        sa.Column("agent_id", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("team", sa.String(64), nullable=False),
        sa.Column("raised_ts", sa.Float(), nullable=False),
        sa.Column("stage", sa.String(16), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("turn", sa.Integer(), nullable=False),
        sa.Column("since_ts", sa.Float(), nullable=False),
        sa.Column("asked", sa.Text(), nullable=False),
        sa.Column("told", sa.Text(), nullable=False),
        sa.Column("refusals", sa.Text(), nullable=False),
        sa.Column("unanswered_ts", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("alert_id", name="pk_escalations"),
    )
    op.create_index("ix_escalations_since_ts", "escalations", ["since_ts"])


def downgrade() -> None:
    op.drop_table("escalations")
    with op.batch_alter_table("alerts") as alerts:
        alerts.drop_column("supervisor_id")
        alerts.drop_column("how")
    with op.batch_alter_table("tokens") as tokens:
        tokens.drop_column("supervisor_id")
