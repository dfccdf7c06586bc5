"""Requests for evidence are seen by somebody: when, and through which token, one was settled."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("said", sa.Column("done_ts", sa.Float(), nullable=True))
    op.add_column("said", sa.Column("done_by", sa.String(64), nullable=False, server_default=""))


def downgrade() -> None:
    with op.batch_alter_table("said") as table:
        table.drop_column("done_by")
        table.drop_column("done_ts")
