"""Several nodes in one PostgreSQL database: a schema for each, one for what they share.

Each node has all its tables in a schema of its own, ``callshield_NAME``: its events have numbers
and a hash chain of their own, it is their one writer, and a node of the next version brings its
own tables up to date while the others go on with theirs (a rolling upgrade). What all of them must
agree on, the tokens, lies in the schema ``callshield``; in a node's own schema ``tokens`` is a view
of it, through which rows are read and written as in the table (PostgreSQL: updatable views).

Rule for migrations: what a version changes in ``tokens`` may only add columns that have a default,
since the version before goes on reading and writing it until its node is upgraded too.
"""

from __future__ import annotations

from collections.abc import Callable

from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, text

SHARED = "callshield"
#: The node's own table of tokens, empty, under the view; migrations of its schema go on with it.
_HIDDEN = "tokens_of_this_node"

Upgrade = Callable[[Connection], None]


def schema_of(node: str) -> str:
    """The schema of a node's tables."""
    return f"{SHARED}_{node}"


def quoted(name: str) -> str:
    """An identifier of PostgreSQL."""
    return '"' + name.replace('"', '""') + '"'


def upgrade_schemas(
    connection: Connection, schema: str, script: ScriptDirectory, upgrade: Upgrade
) -> None:
    """Make or bring up to date the shared schema, then the node's own; nothing to do is quick and
    changes nothing.

    Args:
        connection: in a transaction, with the migration lock held.
        schema: the node's own.
        script: the migrations.
        upgrade: runs them on the schema that is first in the search path.
    """
    _enter(connection, SHARED)
    revision = MigrationContext.configure(connection).get_current_revision()
    if _is_older(script, revision):
        _make(connection, SHARED)
        upgrade(connection)
    _enter(connection, schema)
    revision = MigrationContext.configure(connection).get_current_revision()
    if revision == script.get_current_head() and _is_shared(connection, schema):
        return
    _make(connection, schema)
    unshare(connection, schema)
    upgrade(connection)
    share(connection, schema)


def _is_older(script: ScriptDirectory, revision: str | None) -> bool:
    """Whether the shared tables must be brought up to date; those of a newer version, which an
    upgraded node has made, serve this one too."""
    if revision is None:
        return True
    try:
        script.get_revision(revision)
    except CommandError:
        return False
    return revision != script.get_current_head()


def _enter(connection: Connection, schema: str) -> None:
    # That one alone: Alembic would take another schema's note of its version for this one's.
    connection.execute(text(f"SET LOCAL search_path TO {quoted(schema)}"))


def _make(connection: Connection, schema: str) -> None:
    connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {quoted(schema)}"))


def _kind(connection: Connection, schema: str, table: str) -> str:
    """``r`` for a table, ``v`` for a view, empty for nothing."""
    found = connection.scalar(
        text(
            "SELECT c.relkind::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE n.nspname = :schema AND c.relname = :table"
        ),
        {"schema": schema, "table": table},
    )
    return str(found or "")


def _is_shared(connection: Connection, schema: str) -> bool:
    return _kind(connection, schema, "tokens") == "v"


def unshare(connection: Connection, schema: str) -> None:
    """Put the node's own table of tokens back in its place, for what works on whole tables."""
    if _kind(connection, schema, "tokens") == "v":
        connection.execute(text(f"DROP VIEW {quoted(schema)}.tokens"))
    if _kind(connection, schema, _HIDDEN) == "r":
        connection.execute(text(f"ALTER TABLE {quoted(schema)}.{_HIDDEN} RENAME TO tokens"))


def share(connection: Connection, schema: str) -> None:
    """Move the node's tokens to the shared ones, and let it see those."""
    here, shared = f"{quoted(schema)}.tokens", f"{quoted(SHARED)}.tokens"
    names = connection.scalars(
        text(
            "SELECT column_name FROM information_schema.columns "
            "WHERE table_schema = :schema AND table_name = 'tokens' ORDER BY ordinal_position"
        ),
        {"schema": schema},
    )
    columns = ", ".join(quoted(name) for name in names)
    # Every name in these is quoted, or ours.
    for statement in (
        f"INSERT INTO {shared} ({columns}) SELECT {columns} FROM {here} ON CONFLICT DO NOTHING",  # noqa: S608
        f"DELETE FROM {here}",  # noqa: S608
        f"ALTER TABLE {here} RENAME TO {_HIDDEN}",
        f"CREATE VIEW {here} AS SELECT {columns} FROM {shared}",  # noqa: S608
    ):
        connection.execute(text(statement))
