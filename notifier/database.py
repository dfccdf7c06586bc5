"""The SQLite file: where it is, how it is opened, how it gets its tables.

Write-ahead log with ``synchronous=FULL``. With NORMAL a power cut may take back the last
transactions although their events were already on a screen; after the restart their numbers
would be given a second time, and a console that asks for "everything after 4711" would miss the
new 4711. FULL costs one fsync a commit, and commits are grouped (:mod:`notifier.journal`).
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import create_engine, event
from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from callshield.errors import SetupError

#: How long one statement waits for another process (``callshield token create``) to finish.
BUSY_TIMEOUT_S = 1.0
_MIGRATIONS = Path(__file__).parent / "migrations"


def _prepare(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()


def open_async(path: Path) -> AsyncEngine:
    """An engine for the running notifier."""
    engine = create_async_engine(
        f"sqlite+aiosqlite:///{path}", connect_args={"timeout": BUSY_TIMEOUT_S}
    )
    event.listen(engine.sync_engine, "connect", _prepare)
    return engine


def open_sync(path: Path) -> Engine:
    """An engine for the command line and for migrations."""
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": 10.0})
    event.listen(engine, "connect", _prepare)
    return engine


def migrate(path: Path) -> None:
    """Make the file and bring its tables to this version; nothing to do is quick.

    Raises:
        SetupError: the folder or file cannot be written, or a newer version wrote it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Created here so that nobody but the node's user can ever read it.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise SetupError(
            f"the database {path} cannot be opened ({error.strerror}): set node.state_dir to a "
            "folder that this user can write to"
        ) from None
    engine = open_sync(path)
    try:
        with engine.begin() as connection:
            config = Config()
            config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except (SQLAlchemyError, sqlite3.Error) as error:
        reason = getattr(error, "orig", None) or error
        raise SetupError(
            f"the database {path} cannot be used ({reason}): give it room, or move it away and "
            "start again"
        ) from None
    except CommandError as error:
        raise SetupError(
            f"the database {path} was written by another version of Callshield ({error}): "
            "run that version, or move the file away"
        ) from None
    finally:
        engine.dispose()


def lock(path: Path) -> int:
    """Hold the database for this process: two writers would number events twice.

    Returns:
        A file descriptor; the lock lasts as long as it is open.

    Raises:
        SetupError: another notifier has it.
    """
    descriptor = os.open(path.with_suffix(".lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise SetupError(
            f"another notifier already uses {path}: stop it, or give this node its own "
            "node.state_dir"
        ) from None
    return descriptor
