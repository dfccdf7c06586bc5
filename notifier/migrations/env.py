"""Alembic's entry: runs on the connection that :mod:`notifier.database` gives."""

from __future__ import annotations

from alembic import context

from notifier.schema import metadata

connection = context.config.attributes["connection"]
# Batch mode: SQLite alters tables by copying them.
context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
