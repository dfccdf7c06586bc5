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

from sqlalchemy import Connection, insert, select, update

from callshield.errors import SetupError
from callshield.settings import Settings
from notifier.database import migrate, place_of, transact
from notifier.schema import tokens

Role = Literal["agent", "supervisor", "auditor", "admin", "representative"]
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
    supervisor_id: str = ""
    """ID of ``[supervisors.ID]``, of a supervisor's token that is tied to one."""
    hidden: frozenset[str] = frozenset()
    """Agents of other teams, whose calls and alerts this person does not see."""

    def sees(self, agent_id: str) -> bool:
        """True when this person may know of that agent's calls."""
        if self.watches_all:
            return agent_id not in self.hidden
        return agent_id == self.agent_id

    @property
    def watches_all(self) -> bool:
        """True for roles that see the level of others' calls (never their words): of every call,
        or of one's own teams (:attr:`hidden`)."""
        return self.role in ("supervisor", "admin")


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
    return Identity(
        row["token_id"], row["role"], row["agent_id"], row["expires_ts"], row["supervisor_id"]
    )


def token_row(
    role: str,
    name: str,
    agent_id: str,
    now: float,
    lifetime_s: float,
    supervisor_id: str = "",
) -> tuple[str, dict[str, Any]]:
    """A new token, and the row that stands for it."""
    token = PREFIX + secrets.token_urlsafe(32)
    return token, {
        "token_id": secrets.token_hex(4),
        "sha256": digest(token),
        "role": role,
        "name": name,
        "agent_id": agent_id,
        "supervisor_id": supervisor_id,
        "created_ts": now,
        "expires_ts": now + lifetime_s,
    }


def create_token(
    settings: Settings,
    role: str,
    name: str,
    agent_id: str | None = None,
    expires: timedelta | None = None,
    supervisor_id: str | None = None,
) -> str:
    """Make a token; the only moment at which it can be read.

    Works while the node runs and before its first start.

    Args:
        settings: names the database.
        role: ``agent``, ``supervisor``, ``auditor``, ``admin`` or ``representative``.
        name: for the person who lists tokens; never logged, and sent to nobody but the agent
            whose recording the bearer opened (``GET /api/v1/me/opened``).
        agent_id: for role ``agent``: an id of ``[agents]``.
        expires: lifetime from now; 90 days when absent.
        supervisor_id: for role ``supervisor``: an id of ``[supervisors]``, who is then asked in
            turn and sees the own teams; absent: sees every team.

    Raises:
        SetupError: role, name, agent or lifetime make no sense, or the database cannot be used.
    """
    if role not in get_args(Role):
        known = ", ".join(get_args(Role))
        raise SetupError(f"there is no role {role!r}: choose one of {known}")
    if not 1 <= len(name) <= 128:
        raise SetupError("give the token a name of 1 to 128 characters")
    if role == "agent" and agent_id not in settings.agents:
        known = ", ".join(sorted(settings.agents)) or "none yet"
        found = f", not {agent_id!r}" if agent_id else ""
        raise SetupError(f"give --agent one of the configured agents ({known}){found}")
    if role != "agent" and agent_id is not None:
        raise SetupError(f"--agent goes with role agent, not with {role}")
    if supervisor_id is not None:
        if role != "supervisor":
            raise SetupError(f"--supervisor goes with role supervisor, not with {role}")
        if supervisor_id not in settings.supervisors:
            known = ", ".join(sorted(settings.supervisors)) or "none yet"
            raise SetupError(
                f"give --supervisor one of the configured supervisors ({known}), "
                f"not {supervisor_id!r}"
            )
    lifetime = DEFAULT_LIFETIME if expires is None else expires
    if lifetime <= timedelta(0):
        raise SetupError("a token must expire in the future")
    token, row = token_row(
        role, name, agent_id or "", time.time(), lifetime.total_seconds(), supervisor_id or ""
    )
    place = place_of(settings)
    migrate(place)
    transact(place, lambda connection: connection.execute(insert(tokens).values(row)))
    return token


def list_tokens(settings: Settings) -> list[dict[str, Any]]:
    """All tokens, newest first, without their hashes: for the administrator's command line."""
    place = place_of(settings)
    migrate(place)
    hidden = ("sha256", "subject_sha256")
    columns = [column for column in tokens.c if column.name not in hidden]
    query = select(*columns).order_by(tokens.c.created_ts.desc())

    def read(connection: Connection) -> list[dict[str, Any]]:
        return [dict(row) for row in connection.execute(query).mappings()]

    return transact(place, read)


def revoke_token(settings: Settings, token_id: str) -> bool:
    """End a token now; an open console of it is closed within seconds.

    Returns:
        False when there is no such token that was still good.
    """
    place = place_of(settings)
    migrate(place)
    ending = (
        update(tokens)
        .where(tokens.c.token_id == token_id, tokens.c.revoked_ts.is_(None))
        .values(revoked_ts=time.time())
    )
    return transact(place, lambda connection: bool(connection.execute(ending).rowcount))
