"""Tokens: random, hashed, expiring, revocable."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from callshield.errors import SetupError
from callshield.settings import Settings, load_settings
from notifier.database import place_of, transact
from notifier.schema import tokens
from notifier.tokens import create_token, digest, identify, list_tokens, revoke_token
from tests.notifier_kit import write_config


@pytest.fixture
def settings(tmp_path: Path, store_toml: str) -> Settings:
    return load_settings(write_config(tmp_path, 8080, store_toml))


def _row(settings: Settings) -> dict[str, object]:
    return transact(
        place_of(settings), lambda c: dict(c.execute(select(tokens)).mappings().first() or {})
    )


def test_the_database_holds_the_hash_and_never_the_token(settings: Settings) -> None:
    token = create_token(settings, "agent", "desk", "1001")
    assert token.startswith("cs_")
    assert len(token) == 3 + 43, "256 bits in base64url"
    assert create_token(settings, "agent", "desk", "1001") != token
    files = settings.node.state_dir.glob("*")
    assert not any(token[3:].encode() in file.read_bytes() for file in files)
    assert _row(settings)["sha256"] == digest(token)


def test_a_good_token_is_known_and_an_expired_revoked_or_other_one_is_not(
    settings: Settings,
) -> None:
    token = create_token(settings, "agent", "desk", "1001", timedelta(hours=1))
    row = _row(settings)
    now = float(str(row["created_ts"]))
    good = identify(row, token, now + 3599)
    assert good is not None
    assert (good.role, good.agent_id, good.watches_all) == ("agent", "1001", False)
    assert identify(row, token, now + 3600) is None
    assert identify(row, token + "x", now) is None
    assert identify(None, token, now) is None
    assert revoke_token(settings, good.token_id)
    assert not revoke_token(settings, good.token_id)
    assert identify(_row(settings), token, now) is None


@pytest.mark.parametrize(
    ("role", "agent_id", "expires", "says"),
    [
        ("root", None, None, "role"),
        ("agent", None, None, "--agent"),
        ("agent", "9999", None, "1001, 1002"),
        ("supervisor", "1001", None, "--agent"),
        ("admin", None, timedelta(0), "future"),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_sentence(
    settings: Settings, role: str, agent_id: str | None, expires: timedelta | None, says: str
) -> None:
    with pytest.raises(SetupError, match=says):
        create_token(settings, role, "name", agent_id, expires)
    assert not settings.node.state_dir.exists()


def test_the_list_shows_no_hash(settings: Settings) -> None:
    create_token(settings, "supervisor", "desk")
    [row] = list_tokens(settings)
    assert row["name"] == "desk"
    assert "sha256" not in row
