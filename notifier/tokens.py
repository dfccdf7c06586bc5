"""Bearer tokens: who may see what.

A token is ``cs_`` and 256 random bits. Only its SHA-256 is stored. A slow hash (argon2, bcrypt)
protects passwords because people choose guessable ones; 256 random bits cannot be guessed at any
speed, and a fast hash keeps every request cheap. The prefix lets a secret scanner recognise a
leaked token.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, get_args

from sqlalchemy import insert, select, update

from callshield.errors import SetupError
from callshield.settings import Settings
from notifier.database import migrate, open_sync
from notifier.schema import tokens

Role = Literal["agent", "supervisor", "admin"]
PREFIX = "cs_"
DEFAULT_LIFETIME = timedelta(days=90)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a valid token stands for. Carries ids only; the token's name stays in the table."""

    token_id: str
    role: Role
    agent_id: str
    """Of an agent's token; empty otherwise."""
    expires_ts: float

    @property
    def watches_all(self) -> bool:
        """True for roles that see every call's level (never its words)."""
        return self.role != "agent"


def digest(token: str) -> str:
    """SHA-256 of a token, in hexadecimal: what the table holds."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def identify(row: Mapping[str, Any] | None, token: str, now: float) -> Identity | None:
    """Check a row found by hash against the token that was shown.

    The row was looked up by the SHA-256 of what the stranger sent, which he cannot steer towards
    a stored one; the comparison here takes the same time wherever the two differ.

    Returns:
        ``None`` for a token that is unknown, expired or revoked: the three look alike outside.
    """
    if row is None or not hmac.compare_digest(str(row["sha256"]), digest(token)):
        return None
    if row["revoked_ts"] is not None or row["expires_ts"] <= now:
        return None
    return Identity(row["token_id"], row["role"], row["agent_id"], row["expires_ts"])


def create_token(
    settings: Settings,
    role: str,
    name: str,
    agent_id: str | None = None,
    expires: timedelta | None = None,
) -> str:
    """Make a token; the only moment at which it can be read.

    Works while the node runs and before its first start.

    Args:
        settings: names the database.
        role: ``agent``, ``supervisor`` or ``admin``.
        name: for the person who lists tokens; never logged, never sent.
        agent_id: for role ``agent``: an id of ``[agents]``.
        expires: lifetime from now; 90 days when absent.

    Raises:
        SetupError: role, name, agent or lifetime make no sense, or the database cannot be used.
    """
    if role not in get_args(Role):
        raise SetupError(f"there is no role {role!r}: choose agent, supervisor or admin")
    if not 1 <= len(name) <= 128:
        raise SetupError("give the token a name of 1 to 128 characters")
    if role == "agent" and agent_id not in settings.agents:
        known = ", ".join(sorted(settings.agents)) or "none yet"
        found = f", not {agent_id!r}" if agent_id else ""
        raise SetupError(f"give --agent one of the configured agents ({known}){found}")
    if role != "agent" and agent_id is not None:
        raise SetupError(f"--agent goes with role agent, not with {role}")
    lifetime = DEFAULT_LIFETIME if expires is None else expires
    if lifetime <= timedelta(0):
        raise SetupError("a token must expire in the future")
    token = PREFIX + secrets.token_urlsafe(32)
    now = time.time()
    migrate(settings.database_path)
    engine = open_sync(settings.database_path)
    try:
        with engine.begin() as connection:
            connection.execute(
                insert(tokens).values(
                    token_id=secrets.token_hex(4),
                    sha256=digest(token),
                    role=role,
                    name=name,
                    agent_id=agent_id or "",
                    created_ts=now,
                    expires_ts=now + lifetime.total_seconds(),
                )
            )
    finally:
        engine.dispose()
    return token


def list_tokens(settings: Settings) -> list[dict[str, Any]]:
    """All tokens, newest first, without their hashes: for the administrator's command line."""
    migrate(settings.database_path)
    engine = open_sync(settings.database_path)
    columns = [column for column in tokens.c if column.name != "sha256"]
    try:
        with engine.connect() as connection:
            rows = connection.execute(select(*columns).order_by(tokens.c.created_ts.desc()))
            return [dict(row) for row in rows.mappings()]
    finally:
        engine.dispose()


def revoke_token(settings: Settings, token_id: str) -> bool:
    """End a token now; an open console of it is closed within seconds.

    Returns:
        False when there is no such token that was still good.
    """
    migrate(settings.database_path)
    engine = open_sync(settings.database_path)
    try:
        with engine.begin() as connection:
            result = connection.execute(
                update(tokens)
                .where(tokens.c.token_id == token_id, tokens.c.revoked_ts.is_(None))
                .values(revoked_ts=time.time())
            )
            return bool(result.rowcount)
    finally:
        engine.dispose()
