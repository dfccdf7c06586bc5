"""The hash chain, words apart from events, and sign-ins by OpenID Connect.

Events from before are taken into the chain as they are found: it says nothing about what happened
to them earlier.
"""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

from notifier.chain import GENESIS, link
from notifier.sealed import seal, unseal

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_PAGE = 1000
_events = sa.table(
    "events",
    sa.column("id", sa.Integer),
    sa.column("ts", sa.Float),
    sa.column("type", sa.String),
    sa.column("call_id", sa.String),
    sa.column("agent_id", sa.String),
    sa.column("body", sa.Text),
    sa.column("words", sa.Text),
    sa.column("hash", sa.String),
)


def upgrade() -> None:
    with op.batch_alter_table("events") as events:
        events.add_column(sa.Column("words", sa.Text(), nullable=True))
        events.add_column(sa.Column("hash", sa.String(64), nullable=False, server_default=""))
    with op.batch_alter_table("tokens") as tokens:
        tokens.add_column(sa.Column("source", sa.String(8), nullable=False, server_default=""))
        tokens.add_column(
            sa.Column("subject_sha256", sa.String(64), nullable=False, server_default="")
        )
    op.create_index("ix_events_type_id", "events", ["type", "id"])
    there = sa.text("words IS NOT NULL")
    op.create_index("ix_events_words", "events", ["id"], sqlite_where=there, postgresql_where=there)
    op.create_index("ix_tokens_expires_ts", "tokens", ["expires_ts"])
    _chain_what_is_there()


def _chain_what_is_there() -> None:
    connection = op.get_bind()
    update = (
        _events.update()
        .where(_events.c.id == sa.bindparam("at"))
        .values(
            body=sa.bindparam("new_body"),
            words=sa.bindparam("new_words"),
            hash=sa.bindparam("new_hash"),
        )
    )
    previous, last_id = GENESIS, None
    while True:
        page = sa.select(_events).order_by(_events.c.id).limit(_PAGE)
        if last_id is not None:
            page = page.where(_events.c.id > last_id)
        rows = [dict(row) for row in connection.execute(page).mappings()]
        if not rows:
            return
        changes = []
        for row in rows:
            body, words = seal(json.loads(row["body"]))
            if words is not None:
                row["body"] = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
            previous = link(previous, row)
            changes.append(
                {
                    "at": row["id"],
                    "new_body": row["body"],
                    "new_words": words,
                    "new_hash": previous,
                }
            )
        connection.execute(update, changes)
        last_id = rows[-1]["id"]


def downgrade() -> None:
    connection = op.get_bind()
    with_words = sa.select(_events).where(_events.c.words.is_not(None))
    for row in connection.execute(with_words).mappings().all():
        whole = unseal(row["body"], row["words"])
        connection.execute(_events.update().where(_events.c.id == row["id"]).values(body=whole))
    op.drop_index("ix_tokens_expires_ts", "tokens")
    op.drop_index("ix_events_words", "events")
    op.drop_index("ix_events_type_id", "events")
    with op.batch_alter_table("tokens") as tokens:
        tokens.drop_column("subject_sha256")
        tokens.drop_column("source")
    with op.batch_alter_table("events") as events:
        events.drop_column("hash")
        events.drop_column("words")
