"""Whose address at the listener is whose: from one key, for one agent and one action each."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callshield.errors import SetupError
from firmware_profiles.phone_tokens import (
    PHONE_ACTIONS,
    TOKEN_LENGTH,
    PhoneTokens,
    key_path,
    load_key,
    load_tokens,
)
from tests.phone_keys_kit import phone_settings

KEY = bytes(range(32))
AGENTS = [str(number) for number in range(1001, 1051)]


def test_a_token_is_of_one_agent_and_one_action() -> None:
    tokens = PhoneTokens(KEY, AGENTS)
    made = {tokens.token(agent, action) for agent in AGENTS for action in PHONE_ACTIONS}
    assert len(made) == len(AGENTS) * len(PHONE_ACTIONS)
    assert {len(token) for token in made} == {TOKEN_LENGTH}
    for agent in AGENTS:
        for action in PHONE_ACTIONS:
            for asked in PHONE_ACTIONS:
                expected = agent if asked == action else None
                assert tokens.agent(tokens.token(agent, action), asked) == expected


def test_a_token_is_the_same_tomorrow_and_another_with_another_key() -> None:
    # Written into phones: this must never change.
    assert PhoneTokens(KEY, []).token("1001", "end") == EXPECTED_END
    assert PhoneTokens(KEY[::-1], []).token("1001", "end") != EXPECTED_END


#: HMAC-SHA256 of "callshield phone\\0end\\01001" under 00 01 … 1f, its first 20 bytes in base 32;
#: made with `openssl dgst -sha256 -mac HMAC` and `base32`.
EXPECTED_END = "7pmxshew6ozo2skczm2ruuewyoeb7ioz"


def test_an_agent_that_is_gone_has_no_address() -> None:
    token = PhoneTokens(KEY, AGENTS).token("1001", "end")
    assert PhoneTokens(KEY, ["1002"]).agent(token, "end") is None


def test_agents_whose_names_join_alike_differ() -> None:
    tokens = PhoneTokens(KEY, ["a", "help\0a"])
    assert tokens.token("a", "help") != tokens.token("help\0a", "end")


@given(st.text(max_size=64))
def test_no_text_is_a_token(text: str) -> None:
    tokens = PhoneTokens(KEY, AGENTS)
    try:
        text.encode()
    except UnicodeEncodeError:
        return
    assert all(tokens.agent(text, action) is None for action in PHONE_ACTIONS)


def test_nothing_of_it_is_shown() -> None:
    tokens = PhoneTokens(KEY, AGENTS)
    assert repr(tokens) == "PhoneTokens(…)"


def test_the_key_is_made_once_and_private(tmp_path: Path) -> None:
    settings = phone_settings(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: load_key(settings), range(16)))
    assert len(keys) == 1
    path = key_path(settings)
    assert path == settings.node.state_dir / "phones.key"
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(path.parent) == ["phones.key"]
    assert load_tokens(settings).token("1001", "end") == load_tokens(settings).token("1001", "end")


def test_without_making_a_missing_key_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="profiles render"):
        load_key(phone_settings(tmp_path), make=False)
    assert not key_path(phone_settings(tmp_path)).exists()


@pytest.mark.parametrize(
    ("content", "mode", "sentence"),
    [("00" * 32, 0o644, "chmod 600"), ("00" * 31, 0o600, "is no key"), ("", 0o600, "is no key")],
)
def test_a_key_that_cannot_be_used_is_a_sentence(
    tmp_path: Path, content: str, mode: int, sentence: str
) -> None:
    path = tmp_path / "my.key"
    path.write_text(content, encoding="utf-8")
    path.chmod(mode)
    settings = phone_settings(tmp_path, f'key_file = "{path}"')
    with pytest.raises(SetupError, match=sentence) as refused:
        load_key(settings)
    assert "0000" not in str(refused.value)
    assert path.read_text(encoding="utf-8") == content
