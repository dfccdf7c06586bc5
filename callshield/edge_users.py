"""Users of the edge's phones: a file of H(A1) that a person can read, and Kamailio's copy of it.

The file has htdigest's lines (``user:realm:H(A1)``, RFC 7616 section 3.4.2 with MD5, which is what
desk phones and JsSIP can); no password is kept anywhere. Kamailio looks into an SQLite copy, so
that a change counts with the next REGISTER and nothing is restarted.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path

from callshield.edge_files import EdgeError, auth_database, location_database
from callshield.private_file import read_private
from callshield.settings_edge import EdgeSettings

USER = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HA1 = re.compile(r"[0-9a-f]{32}")
#: 20 of 32 characters: 100 bits. None that a person who types it into a phone takes for another.
_ALPHABET = "abcdefghijkmnopqrstuvwxyz2346789"
PASSWORD_LENGTH = 20
#: Whom Debian's Kamailio runs as; files that only it may read are given to it.
KAMAILIO_USER = "kamailio"
_MAX_BYTES = 4 << 20

#: Tables and versions of Kamailio 5.6 to 6.0 (scripts of its package kamailio-sqlite-modules).
_VERSION = """
CREATE TABLE IF NOT EXISTS version (
    table_name VARCHAR(32) NOT NULL UNIQUE, table_version INTEGER DEFAULT 0 NOT NULL
);
"""
_USERS = """
INSERT OR REPLACE INTO version VALUES ('subscriber', 7);
CREATE TABLE IF NOT EXISTS subscriber (
    id INTEGER PRIMARY KEY NOT NULL, username VARCHAR(64) DEFAULT '' NOT NULL UNIQUE,
    domain VARCHAR(64) DEFAULT '' NOT NULL, ha1 VARCHAR(128) DEFAULT '' NOT NULL
);
"""
_LOCATION = """
INSERT OR REPLACE INTO version VALUES ('location', 9);
CREATE TABLE IF NOT EXISTS location (
    id INTEGER PRIMARY KEY NOT NULL, ruid VARCHAR(64) DEFAULT '' NOT NULL UNIQUE,
    username VARCHAR(64) DEFAULT '' NOT NULL, domain VARCHAR(64) DEFAULT NULL,
    contact VARCHAR(512) DEFAULT '' NOT NULL, received VARCHAR(128) DEFAULT NULL,
    path VARCHAR(512) DEFAULT NULL, expires TIMESTAMP WITHOUT TIME ZONE
        DEFAULT '2030-05-28 21:32:15' NOT NULL,
    q REAL DEFAULT 1.0 NOT NULL, callid VARCHAR(255) DEFAULT 'Default-Call-ID' NOT NULL,
    cseq INTEGER DEFAULT 1 NOT NULL, last_modified TIMESTAMP WITHOUT TIME ZONE
        DEFAULT '2000-01-01 00:00:01' NOT NULL,
    flags INTEGER DEFAULT 0 NOT NULL, cflags INTEGER DEFAULT 0 NOT NULL,
    user_agent VARCHAR(255) DEFAULT '' NOT NULL, socket VARCHAR(64) DEFAULT NULL,
    methods INTEGER DEFAULT NULL, instance VARCHAR(255) DEFAULT NULL,
    reg_id INTEGER DEFAULT 0 NOT NULL, server_id INTEGER DEFAULT 0 NOT NULL,
    connection_id INTEGER DEFAULT 0 NOT NULL, keepalive INTEGER DEFAULT 0 NOT NULL,
    partition INTEGER DEFAULT 0 NOT NULL
);
CREATE INDEX IF NOT EXISTS location_account_contact_idx ON location (username, domain, contact);
CREATE INDEX IF NOT EXISTS location_expires_idx ON location (expires);
"""


def new_password() -> str:
    """A random password that can be typed into a desk phone."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(PASSWORD_LENGTH))


def ha1(user: str, realm: str, password: str) -> str:
    """H(A1) with MD5: what a digest is made of instead of the password."""
    text = f"{user}:{realm}:{password}".encode()
    return hashlib.md5(text, usedforsecurity=False).hexdigest()


def read_users(edge: EdgeSettings) -> dict[str, str]:
    """User → H(A1), of the realm of ``[edge]``.

    Raises:
        EdgeError: the file is missing, not private, or has a line that is none of htdigest's.
    """
    path = edge.secrets_file
    text = read_private(
        path,
        "edge.secrets_file",
        EdgeError,
        missing=f"there is no {path} yet: `callshield edge password USER` makes it",
        max_bytes=_MAX_BYTES,
    )
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        parts = line.strip().split(":")
        if len(parts) != 3 or not USER.fullmatch(parts[0]) or not _HA1.fullmatch(parts[2]):
            raise EdgeError(f"{path}, line {number}: a line like 1001:{edge.realm}:32 hex digits")
        if parts[1] != edge.realm:
            raise EdgeError(
                f"{path}, line {number}: the password of {parts[0]} was made for the realm "
                f"{parts[1]}, the edge's is {edge.realm} (edge.domain): give that phone a new one"
            )
        found[parts[0]] = parts[2]
    return found


def change_user(edge: EdgeSettings, user: str, password: str | None) -> None:
    """Give a user a password, or take it away (``None``), in file and copy.

    Raises:
        EdgeError: the file cannot be used, or there is no such user to be removed.
    """
    if not USER.fullmatch(user):
        raise EdgeError(f"a user of letters, digits, '.', '_' and '-', not {user!r}")
    path = edge.secrets_file
    with _one_at_a_time(path.parent):
        users = read_users(edge) if path.exists() else {}
        if password is None:
            if user not in users:
                raise EdgeError(f"there is no user {user} in {path}")
            del users[user]
        else:
            users[user] = ha1(user, edge.realm, password)
        lines = [f"{name}:{edge.realm}:{value}" for name, value in sorted(users.items())]
        _replace_private(path, "\n".join(["# user:realm:H(A1) of the phones", *lines, ""]))
    if auth_database(edge).exists():
        write_users(edge, users)


def write_users(edge: EdgeSettings, users: Mapping[str, str]) -> None:
    """Kamailio's copy of the users; it reads the new one with the next request.

    Raises:
        EdgeError: the file cannot be written.
    """
    with _database(auth_database(edge), _USERS) as database:
        database.execute("DELETE FROM subscriber")
        database.executemany(
            "INSERT INTO subscriber (username, domain, ha1) VALUES (?, ?, ?)",
            [(user, edge.realm, value) for user, value in users.items()],
        )


def make_location_database(edge: EdgeSettings) -> None:
    """The file for registrations; one that is there is left as it is.

    Raises:
        EdgeError: it cannot be written.
    """
    with _database(location_database(edge), _LOCATION):
        pass


@contextlib.contextmanager
def _database(path: Path, tables: str) -> Iterator[sqlite3.Connection]:
    try:
        path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        if not path.exists():
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        with contextlib.closing(sqlite3.connect(path, timeout=10)) as database:
            database.executescript(_VERSION + tables)
            with database:
                yield database
        give_to_kamailio(path)
        give_to_kamailio(path.parent)
    except (OSError, sqlite3.Error) as error:
        raise EdgeError(f"{path} cannot be written: {error}") from None


def give_to_kamailio(path: Path) -> None:
    """Let the user that Debian's service runs as own it, where we may and there is one."""
    if os.geteuid() != 0:
        return
    with contextlib.suppress(LookupError):
        shutil.chown(path, KAMAILIO_USER, KAMAILIO_USER)


@contextlib.contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    try:
        folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise EdgeError(f"the folder {folder} cannot be used: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _replace_private(path: Path, text: str) -> None:
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(
            new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise EdgeError(f"{path} cannot be written: {error.strerror}") from None
