"""The database: where it is, how it is opened, how it gets its tables.

SQLite by default, with a write-ahead log and ``synchronous=FULL``. With NORMAL a power cut may
take back the last transactions although their events were already on a screen; after the restart
their numbers would be given a second time, and a console that asks for "everything after 4711"
would miss the new 4711. FULL costs one fsync a commit, and commits are grouped
(:mod:`notifier.journal`).

PostgreSQL by ``[store] url``, through asyncpg; its own ``synchronous_commit`` must stay on for the
same reason. Whatever goes wrong with either reaches the caller as
:class:`sqlalchemy.exc.SQLAlchemyError`, a server that is away included.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import ipaddress
import os
import sqlite3
import ssl
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, create_engine, event, text
from sqlalchemy.engine import Engine
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from callshield.errors import SetupError
from callshield.private_file import read_private
from callshield.settings import Settings
from notifier.node_schema import quoted, schema_of, upgrade_schemas

#: How long one statement waits for another process (``callshield token create``) to finish.
BUSY_TIMEOUT_S = 1.0
#: How long PostgreSQL may take to accept a connection, and to answer a statement.
CONNECT_TIMEOUT_S = 3.0
ANSWER_TIMEOUT_S = 10.0
#: How long a program waits while another one brings the tables up to date.
MIGRATION_WAIT_S = 300.0
#: Goes before ``store.password_file``.
PASSWORD_VARIABLE = "CALLSHIELD_STORE_PASSWORD"  # noqa: S105 # the variable's name
#: Of the advisory locks: "callshield" has ten letters, eight fit.
MIGRATION_LOCK = int.from_bytes(b"callshie")
_NOTIFIER_LOCK = MIGRATION_LOCK + 1
_MIGRATIONS = Path(__file__).parent / "migrations"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Place:
    """Where the database is."""

    state_dir: Path
    """Lock and chain head lie here."""
    path: Path | None = None
    """The SQLite file; ``None`` for PostgreSQL."""
    server: dict[str, Any] = field(default_factory=dict, repr=False)
    """Arguments of :func:`asyncpg.connect`, the password among them."""
    shown: str = ""
    """The place as a sentence may name it."""
    schema: str = ""
    """Of several nodes in one PostgreSQL, this one's (:mod:`notifier.node_schema`); empty: the
    database is this node's alone."""

    def __str__(self) -> str:
        return self.shown

    @property
    def notifier_lock(self) -> int:
        """Key of the advisory lock that one notifier holds: one for each schema."""
        if not self.schema:
            return _NOTIFIER_LOCK
        return int.from_bytes(hashlib.sha256(self.schema.encode()).digest()[:8], signed=True)

    @property
    def lock_path(self) -> Path:
        return self.state_dir / (self.path.stem + ".lock" if self.path else "callshield.lock")

    @property
    def head_path(self) -> Path:
        """File that says how far the hash chain goes (:mod:`notifier.anchor`)."""
        return self.state_dir / (self.path.stem + ".head" if self.path else "callshield.head")


def sqlite_place(path: Path) -> Place:
    """A SQLite file."""
    return Place(path.parent, path, shown=f"the database {path}")


def place_of(settings: Settings) -> Place:
    """Where a node keeps its store.

    Raises:
        SetupError: the password of the PostgreSQL user, or a certificate, cannot be read.
    """
    store = settings.store
    if not store.url:
        return sqlite_place(settings.database_path)
    parts = urlsplit(store.url)
    query = parse_qs(parts.query)
    host = query.get("host", [parts.hostname or ""])[0]
    database = parts.path.removeprefix("/")
    server: dict[str, Any] = {
        "host": host or "127.0.0.1",
        "port": parts.port or 5432,
        "user": parts.username,
        "database": database,
    }
    password = os.environ.get(PASSWORD_VARIABLE, "")
    if not password and store.password_file is not None:
        password = read_private(store.password_file, "store.password_file", SetupError).strip()
    if password:
        server["password"] = password
    checked = store.tls == "verify" or (store.tls == "auto" and not _is_here(server["host"]))
    if checked:
        try:
            server["ssl"] = ssl.create_default_context(cafile=store.ca_file)
        except OSError as error:
            raise SetupError(f"store.ca_file {store.ca_file} cannot be used: {error}") from None
    else:
        server["ssl"] = False
    shown = f"the database {database} of PostgreSQL on {server['host']}"
    if not settings.cluster.enabled:
        return Place(settings.node.state_dir, None, server, shown)
    schema = schema_of(settings.node.name)
    shown = f"the schema {schema} in {shown}"
    return Place(settings.node.state_dir, None, server, shown, schema)


def _is_here(host: str) -> bool:
    if host.startswith("/") or host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


def as_place(where: Place | Path) -> Place:
    """A path is a SQLite file."""
    return sqlite_place(where) if isinstance(where, Path) else where


def _prepare(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    # What is deleted or emptied is overwritten, not left in the file until its room is needed.
    cursor.execute("PRAGMA secure_delete=ON")
    cursor.close()


def connector(place: Place) -> Callable[[], Any]:
    """Makes connections to PostgreSQL, for :mod:`sqlalchemy`."""

    # Only who has a PostgreSQL needs its client.
    import asyncpg

    async def connect() -> Any:
        try:
            return await asyncpg.connect(
                **place.server,
                timeout=CONNECT_TIMEOUT_S,
                command_timeout=ANSWER_TIMEOUT_S,
                server_settings={
                    "application_name": "callshield",
                    **({"search_path": quoted(place.schema)} if place.schema else {}),
                },
            )
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise OperationalError("connect", {}, _first_line(error)) from None

    return connect


def _first_line(error: BaseException) -> Exception:
    """Only that: what PostgreSQL says below it may quote a row."""
    lines = str(error).splitlines()
    return Exception(lines[0] if lines else type(error).__name__)


def _as_database_error(context: Any) -> None:
    """A connection that breaks under a statement is the database's failure too."""
    error = context.original_exception
    if isinstance(error, OSError | TimeoutError):
        raise OperationalError(context.statement, {}, _first_line(error)) from None


def open_async(where: Place | Path) -> AsyncEngine:
    """An engine for the running notifier."""
    place = as_place(where)
    if place.path is None:
        engine = create_async_engine(
            "postgresql+asyncpg://",
            async_creator=connector(place),
            pool_pre_ping=True,
            pool_size=4,
            max_overflow=4,
            pool_timeout=CONNECT_TIMEOUT_S,
            hide_parameters=True,
        )
        event.listen(engine.sync_engine, "handle_error", _as_database_error)
        return engine
    engine = create_async_engine(
        f"sqlite+aiosqlite:///{place.path}",
        connect_args={"timeout": BUSY_TIMEOUT_S},
        hide_parameters=True,
    )
    event.listen(engine.sync_engine, "connect", _prepare)
    return engine


def open_sync(path: Path) -> Engine:
    """An engine on a SQLite file, for programs without an event loop."""
    engine = create_engine(
        f"sqlite:///{path}", connect_args={"timeout": 10.0}, hide_parameters=True
    )
    event.listen(engine, "connect", _prepare)
    return engine


def transact(where: Place | Path, work: Callable[[Connection], T]) -> T:
    """Do something in one transaction, from code without an event loop (or beside one).

    Raises:
        sqlalchemy.exc.SQLAlchemyError: it could not be done; nothing of it was.
    """
    place = as_place(where)
    if place.path is not None:
        engine = open_sync(place.path)
        try:
            with engine.begin() as connection:
                return work(connection)
        finally:
            engine.dispose()

    async def run() -> T:
        engine = create_async_engine(
            "postgresql+asyncpg://",
            async_creator=connector(place),
            poolclass=NullPool,
            hide_parameters=True,
        )
        event.listen(engine.sync_engine, "handle_error", _as_database_error)
        try:
            async with engine.begin() as connection:
                return await connection.run_sync(work)
        finally:
            await engine.dispose()

    # A thread of its own: the caller may stand inside a running event loop.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, run()).result()


def reason_of(error: BaseException) -> str:
    """What a database said, without the statement and its values."""
    return str(_first_line(getattr(error, "orig", None) or error))


def migrate(where: Place | Path) -> None:
    """Make the database's tables, or bring them to this version; nothing to do is quick.

    Raises:
        SetupError: it cannot be written, or a newer version wrote it.
    """
    place = as_place(where)
    try:
        place.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        if place.path is not None:
            # Created here so that nobody but the node's user can ever read it.
            os.close(os.open(place.path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise SetupError(
            f"the database {place.path or place.state_dir} cannot be opened ({error.strerror}): "
            "set node.state_dir to a folder that this user can write to"
        ) from None
    try:
        transact(place, lambda connection: _upgrade(connection, place.schema))
    except (SQLAlchemyError, sqlite3.Error) as error:
        what = "give it room, or move it away and start again"
        if place.path is None:
            what = "see that the server runs, and [store] and its password are right"
        raise SetupError(f"{place} cannot be used ({reason_of(error)}): {what}") from None
    except CommandError as error:
        raise SetupError(
            f"{place} was written by another version of Callshield ({error}): "
            "run that version, or move it away"
        ) from None


def alembic_config(connection: Connection) -> Config:
    """Alembic's configuration for our migrations on an open connection."""
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _upgrade(connection: Connection, schema: str) -> None:
    if connection.dialect.name == "postgresql":
        _wait_for_our_turn(connection)
    config = alembic_config(connection)
    if schema:
        script = ScriptDirectory.from_config(config)
        upgrade_schemas(connection, schema, script, lambda _: command.upgrade(config, "head"))
    else:
        command.upgrade(config, "head")


def _wait_for_our_turn(connection: Connection) -> None:
    """Programs that start at once, on one machine or several: the second one finds the tables made.

    Asked for again and again, since one statement that waited could not wait for longer than
    :data:`ANSWER_TIMEOUT_S`, and large tables take their time.

    Raises:
        SetupError: another program has been at it for too long.
    """
    asking = text("SELECT pg_try_advisory_xact_lock(:key)")
    end = time.monotonic() + MIGRATION_WAIT_S
    while not connection.scalar(asking, {"key": MIGRATION_LOCK}):
        if time.monotonic() > end:
            raise SetupError(
                f"another program has been bringing the database up to date for "
                f"{MIGRATION_WAIT_S:.0f} s: let it finish, then start this one again"
            )
        time.sleep(0.2)


def lock(where: Place | Path) -> int:
    """Hold the database for this process: two writers would number events twice.

    It keeps out a second notifier of this machine; one of another machine with the same PostgreSQL
    is kept out by :meth:`notifier.store.Store.take`.

    Returns:
        A file descriptor; the lock lasts as long as it is open.

    Raises:
        SetupError: another notifier has it.
    """
    place = as_place(where)
    descriptor = os.open(place.lock_path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise SetupError(
            f"another notifier already uses {place.path or place}: stop it, or give this node its "
            "own node.state_dir"
        ) from None
    return descriptor


@contextlib.contextmanager
def locked(where: Place | Path) -> Iterator[None]:
    """:func:`lock`, for as long as the block lasts."""
    descriptor = lock(where)
    try:
        yield
    finally:
        os.close(descriptor)
