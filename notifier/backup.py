"""``callshield backup`` and ``restore``: one file for SQLite and PostgreSQL alike.

A logical dump: gzipped lines of JSON, a header, then each table's name and columns and its rows,
and at the end how many there were and SHA-256 over every line before. It is taken of one moment
while the node runs, moves between the two databases, and is checked whole before a restore touches
anything. A dump of an older version is restored into that version's tables, which are then brought
up to date like any other store.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa
from alembic import command
from alembic.migration import MigrationContext
from alembic.util import CommandError
from sqlalchemy import Connection, MetaData, select
from sqlalchemy.exc import SQLAlchemyError

from callshield import __version__
from callshield.errors import CallshieldError, SetupError
from notifier.audit import begin_snapshot, read
from notifier.database import Place, alembic_config, migrate, reason_of, transact
from notifier.node_schema import share, unshare
from notifier.schema import metadata

FORMAT = 1
_PAGE = 1000
_MAX_LINE_BYTES = 16 * 1024 * 1024


class BackupError(CallshieldError):
    """A backup file is not one, is damaged, or must not be put where it was to go."""


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """First line."""

    callshield_backup: int
    """Version of this format."""
    schema: str
    """Version of the tables."""
    version: str
    """Of Callshield."""
    created_ts: float
    source: str
    """``sqlite`` or ``postgresql``."""


class _Table(msgspec.Struct, frozen=True, kw_only=True):
    table: str
    columns: list[str]


class _End(msgspec.Struct, frozen=True, kw_only=True):
    rows: dict[str, int]
    sha256: str


@dataclass(frozen=True, slots=True)
class Backup:
    """What a file holds."""

    header: Header
    rows: dict[str, int]
    sha256: str


class _Writer:
    def __init__(self, file: gzip.GzipFile) -> None:
        self._file = file
        self._sum = hashlib.sha256()

    def line(self, value: Any) -> None:
        data = msgspec.json.encode(value) + b"\n"
        self._sum.update(data)
        self._file.write(data)

    def end(self, rows: dict[str, int]) -> str:
        digest = self._sum.hexdigest()
        self._file.write(msgspec.json.encode(_End(rows=rows, sha256=digest)) + b"\n")
        return digest


def write_backup(place: Place, path: Path, *, overwrite: bool = False) -> Backup:
    """Write all of a store to a file, as of one moment; the node may be running.

    Raises:
        BackupError: the file is there already, or cannot be written.
        SetupError: there is no database, or it cannot be read.
    """
    if path.exists() and not overwrite:
        raise BackupError(f"{path} is there already: name another file, or give --overwrite")
    if place.path is not None and not place.path.is_file():
        raise SetupError(f"there is no database {place.path}: start the node once")
    migrate(place)
    fresh = path.with_name(path.name + ".part")
    try:
        # It holds words and hashes of tokens: for its owner alone, whatever the umask says.
        descriptor = os.open(fresh, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as raw:
            with gzip.GzipFile(fileobj=raw, mode="wb", mtime=0) as packed:
                backup = read(place, lambda connection: _dump(connection, packed))
            raw.flush()
            os.fsync(raw.fileno())
        os.replace(fresh, path)
    except OSError as error:
        raise BackupError(f"{path} cannot be written: {error.strerror}") from None
    finally:
        with contextlib.suppress(FileNotFoundError):
            fresh.unlink()
    return backup


def _dump(connection: Connection, file: gzip.GzipFile) -> Backup:
    begin_snapshot(connection)
    schema = MigrationContext.configure(connection).get_current_revision()
    assert schema is not None, "migrated just before"
    header = Header(
        callshield_backup=FORMAT,
        schema=schema,
        version=__version__,
        created_ts=time.time(),
        source=connection.dialect.name,
    )
    writer = _Writer(file)
    writer.line(header)
    rows: Counter[str] = Counter()
    for table in metadata.sorted_tables:
        writer.line(_Table(table=str(table.name), columns=[str(column.name) for column in table.c]))
        rows[str(table.name)] = 0
        for row in _rows_of(connection, table):
            writer.line(list(row))
            rows[str(table.name)] += 1
    return Backup(header, dict(rows), writer.end(dict(rows)))


def _rows_of(connection: Connection, table: sa.Table) -> Iterator[Any]:
    """Every row by its key, a page at a time: nothing is held in memory or on the server."""
    keys = list(table.primary_key)
    after: tuple[Any, ...] | None = None
    while True:
        query = select(table).order_by(*keys).limit(_PAGE)
        if after is not None:
            query = query.where(sa.tuple_(*keys) > sa.tuple_(*map(sa.literal, after)))
        page = connection.execute(query).all()
        yield from page
        if len(page) < _PAGE:
            return
        after = tuple(page[-1]._mapping[key] for key in keys)


def check_backup(path: Path) -> Backup:
    """Read a file from end to end and see that it is whole.

    Raises:
        BackupError: it is not.
    """
    try:
        return _check(path)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise BackupError(f"{path} is not as it was written: a line cannot be read") from None


def _check(path: Path) -> Backup:
    header: Header | None = None
    end: _End | None = None
    digest, counted, current = hashlib.sha256(), Counter[str](), ""
    for line in _lines(path):
        if header is None:
            header = _header(path, line)
        elif end is not None:
            raise BackupError(f"{path} goes on after its end: it is damaged")
        elif line.startswith(b'{"rows"'):
            end = msgspec.json.decode(line, type=_End)
            continue
        elif line.startswith(b"{"):
            current = msgspec.json.decode(line, type=_Table).table
            counted[current] = 0
        else:
            counted[current] += 1
        digest.update(line)
    if header is None or end is None:
        raise BackupError(f"{path} has no end: it was cut off")
    if digest.hexdigest() != end.sha256 or dict(counted) != end.rows:
        raise BackupError(f"{path} is not as it was written: its hash is another one")
    return Backup(header, end.rows, end.sha256)


def _header(path: Path, line: bytes) -> Header:
    try:
        header = msgspec.json.decode(line, type=Header)
    except msgspec.MsgspecError:
        raise BackupError(f"{path} is no backup of Callshield") from None
    if header.callshield_backup != FORMAT:
        raise BackupError(
            f"{path} has format {header.callshield_backup}, and this version reads {FORMAT}: "
            f"restore it with Callshield {header.version}"
        )
    return header


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with gzip.open(path, "rb") as file:
            while line := file.readline(_MAX_LINE_BYTES):
                if not line.endswith(b"\n"):
                    raise BackupError(f"{path} has no end: it was cut off")
                yield line
    except FileNotFoundError:
        raise BackupError(f"there is no file {path}") from None
    except (OSError, EOFError, zlib.error) as error:
        raise BackupError(f"{path} cannot be read ({error}): it is damaged or no backup") from None


def read_backup(place: Place, path: Path, *, force: bool = False) -> Backup:
    """Put a backup into an empty store; all of it or nothing.

    Args:
        place: the database; no notifier may be running.
        path: the file; :func:`check_backup` is made first.
        force: replace what is there.

    Raises:
        BackupError: the file is damaged or of an unknown version, or the store is not empty.
        SetupError: the database cannot be used.
    """
    backup = check_backup(path)
    migrate(place)

    def work(connection: Connection) -> None:
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        if place.schema:
            # Tokens are all nodes': those of the file are added to them, and none is deleted.
            unshare(connection, place.schema)
        there = MetaData()
        there.reflect(connection)
        if not force:
            _see_that_it_is_empty(connection, there, place)
        there.drop_all(connection)
        config = alembic_config(connection)
        try:
            command.upgrade(config, backup.header.schema)
        except CommandError:
            raise BackupError(
                f"{path} was written by Callshield {backup.header.version}, whose tables "
                f"(version {backup.header.schema}) this one does not know: use that version"
            ) from None
        _load(connection, path)
        command.upgrade(config, "head")
        if place.schema:
            share(connection, place.schema)

    try:
        transact(place, work)
    except SQLAlchemyError as error:
        raise SetupError(f"{place} cannot be used ({reason_of(error)})") from None
    return backup


def _see_that_it_is_empty(connection: Connection, there: MetaData, place: Place) -> None:
    for table in there.sorted_tables:
        if table.name == "alembic_version":
            continue
        if connection.execute(select(sa.literal(1)).select_from(table).limit(1)).first():
            raise BackupError(
                f"{place} is not empty (table {table.name}): --force replaces all that is there"
            )


def _load(connection: Connection, path: Path) -> None:
    known = MetaData()
    known.reflect(connection)
    table: sa.Table | None = None
    columns: list[str] = []
    waiting: list[dict[str, Any]] = []

    def flush() -> None:
        if table is not None and waiting:
            connection.execute(table.insert(), waiting)
            waiting.clear()

    for number, line in enumerate(_lines(path)):
        if number == 0:
            continue
        if line.startswith(b'{"rows"'):
            break
        if line.startswith(b"{"):
            flush()
            begun = msgspec.json.decode(line, type=_Table)
            table, columns = known.tables.get(begun.table), begun.columns
            if table is None:
                raise BackupError(f"{path} has a table {begun.table} that its version has not")
            continue
        waiting.append(dict(zip(columns, msgspec.json.decode(line), strict=True)))
        if len(waiting) >= _PAGE:
            flush()
    flush()
