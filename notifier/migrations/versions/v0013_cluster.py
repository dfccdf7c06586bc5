"""Several nodes: how far this one has told the others, and heard from them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "cluster_own",
        sa.Column("key", sa.String(8), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("sent_id", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_cluster_own"),
    )
    op.create_table(
        "cluster_peers",
        sa.Column("node", sa.String(64), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("event_id", sa.Integer(), nullable=False),
        sa.Column("boot", sa.String(16), nullable=False, server_default=""),
        sa.PrimaryKeyConstraint("node", name="pk_cluster_peers"),
    )
    op.create_table(
        "cluster_position",
        sa.Column("stream", sa.String(64), nullable=False),
        sa.Column("created", sa.String(64), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("stream", name="pk_cluster_position"),
    )


def downgrade() -> None:
    for name in ("cluster_position", "cluster_peers", "cluster_own"):
        op.drop_table(name)
