"""Whether a level rests on words, and callers in danger."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_NEW = ("acoustic_only", "words_confirmed", "may_trigger")


def upgrade() -> None:
    for name in _NEW:
        op.add_column(
            "calls", sa.Column(name, sa.Boolean(), nullable=False, server_default=sa.false())
        )
    op.add_column("calls", sa.Column("crisis_ts", sa.Float(), nullable=True))


def downgrade() -> None:
    for name in (*_NEW, "crisis_ts"):
        op.drop_column("calls", name)
