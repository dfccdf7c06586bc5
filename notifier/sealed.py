"""Quotations out of an event, and back in: what may be deleted sooner than the event itself.

The body keeps, in their place, a salted SHA-256 of them. The salt lies with the words and goes
with them: without it the few words that callers abuse people with could be tried one by one.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from typing import Any

import msgspec

#: Field of a stored body.
COMMITMENT = "words_sha256"
#: Fields that hold what was said or written, wherever they stand in an event.
WORD_FIELDS = frozenset({"words", "quote", "quotes", "note"})
_SALT_BYTES = 16
Path = tuple[str | int, ...]


def _salt() -> str:
    return secrets.token_hex(_SALT_BYTES)


def seal(
    body: dict[str, Any], salt: Callable[[], str] = _salt
) -> tuple[dict[str, Any], str | None]:
    """Take the words out of an event's body.

    Returns:
        The body to store, and the words with their salt as JSON, ``None`` where there are none.
    """
    found: list[tuple[Path, Any]] = []
    kept = _without(body, (), found)
    if not found:
        return body, None
    words = msgspec.json.encode({"salt": salt(), "values": found}).decode()
    return {**kept, COMMITMENT: hashlib.sha256(words.encode()).hexdigest()}, words


def _without(value: Any, path: Path, found: list[tuple[Path, Any]]) -> Any:
    if isinstance(value, dict):
        kept = {}
        for name, item in value.items():
            if name in WORD_FIELDS and item:
                found.append(((*path, name), item))
            else:
                kept[name] = _without(item, (*path, name), found)
        return kept
    if isinstance(value, list):
        return [_without(item, (*path, place), found) for place, item in enumerate(value)]
    return value


def unseal(body: str, words: str | None) -> str:
    """A stored body with its words put back, as JSON; without them when they were deleted."""
    if COMMITMENT not in body:
        return body
    event: dict[str, Any] = msgspec.json.decode(body)
    event.pop(COMMITMENT, None)
    if words is not None:
        for path, value in msgspec.json.decode(words)["values"]:
            at: Any = event
            for step in path[:-1]:
                at = at[step]
            at[path[-1]] = value
    return msgspec.json.encode(event).decode()


def holds_words(value: Any) -> bool:
    """True when an event quotes somebody."""
    if isinstance(value, dict):
        return any(
            (name in WORD_FIELDS and item) or holds_words(item) for name, item in value.items()
        )
    return isinstance(value, list) and any(holds_words(item) for item in value)


def commits_to(commitment: str, words: str) -> bool:
    """True when these are the words that the body was stored with."""
    return hashlib.sha256(words.encode()).hexdigest() == commitment


def without_quotes(reasons: str) -> str:
    """The reasons of a call (JSON, as in ``calls``) without what was said."""
    kept: list[tuple[Path, Any]] = []
    return msgspec.json.encode(_without(msgspec.json.decode(reasons), (), kept)).decode()
