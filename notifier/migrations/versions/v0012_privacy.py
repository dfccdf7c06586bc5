"""Privacy: what a caller was told, a pseudonym of the number, erasures that wait."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def _text(name: str, length: int) -> sa.Column[str]:
    return sa.Column(name, sa.String(length), nullable=False, server_default="")


def upgrade() -> None:
    told = sa.Column("purposes", sa.Text(), nullable=False, server_default="[]")
    for column in (told, _text("caller_pseudonym", 64), _text("caller_key_id", 8)):
        op.add_column("calls", column)
    op.create_index("ix_calls_caller_pseudonym", "calls", ["caller_pseudonym"])
    op.add_column("callbacks", _text("sealed_number", 160))
    op.create_table(
        "erasures",
        sa.Column("call_id", sa.String(32), nullable=False),
        sa.Column("asked_ts", sa.Float(), nullable=False),
        sa.Column("ref", sa.String(64), nullable=False),
        sa.Column("by_role", sa.String(16), nullable=False),
        sa.Column("by", sa.String(64), nullable=False),
        sa.Column("waits", sa.String(16), nullable=False),
        sa.PrimaryKeyConstraint("call_id", name="pk_erasures"),
    )


def downgrade() -> None:
    op.drop_table("erasures")
    with op.batch_alter_table("callbacks") as table:
        table.drop_column("sealed_number")
    op.drop_index("ix_calls_caller_pseudonym", "calls")
    with op.batch_alter_table("calls") as table:
        for name in ("caller_key_id", "caller_pseudonym", "purposes"):
            table.drop_column(name)
