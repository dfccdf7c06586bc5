"""Credentials for far ends that challenge us: where a password may stand, and who sees it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from callshield.errors import SetupError
from callshield.settings import Settings
from callshield.settings_sip import AgentSettings, SideSettings
from sipbridge.digest_accounts import (
    MAX_CREDENTIALS,
    Credentials,
    DigestAccounts,
    password_variable,
    phone_credentials,
    read_credentials,
)


def agent(**keys: Any) -> AgentSettings:
    return AgentSettings(uri="sip:1001@192.0.2.20", **keys)


def private(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


def test_password_of_a_private_file(tmp_path: Path) -> None:
    file = private(tmp_path / "secret", "비밀 no. 1\n")
    found = read_credentials(
        agent(username="cs", password_file=file, realm="pbx"), "agent", "1", {}
    )
    assert found == Credentials("cs", "비밀 no. 1", "pbx")
    assert "비밀" not in repr(found)


def test_environment_goes_before_the_file(tmp_path: Path) -> None:
    file = private(tmp_path / "secret", "old\n")
    name = password_variable("agent", "a-1.b")
    assert name == "CALLSHIELD_AGENT_PASSWORD_A_1_B"
    found = read_credentials(
        agent(username="cs", password_file=file), "agent", "a-1.b", {name: "new"}
    )
    assert found is not None
    assert found.password == "new"


def test_without_a_username_a_challenge_is_a_refusal(tmp_path: Path) -> None:
    assert read_credentials(agent(), "agent", "1001", {}) is None


@pytest.mark.parametrize(
    ("text", "mode", "says"),
    [
        ("pw\n", 0o644, "chmod 600"),
        ("pw\nmore\n", 0o600, "one line"),
        ("", 0o600, "one line"),
        (None, 0, "cannot be read"),
    ],
)
def test_faults_name_the_key_and_never_the_password(
    tmp_path: Path, text: str | None, mode: int, says: str
) -> None:
    file = tmp_path / "secret"
    if text is not None:
        private(file, text, mode)
    with pytest.raises(SetupError, match=says) as fault:
        read_credentials(agent(username="cs", password_file=file), "agent", "1001", {})
    assert "agents.1001.password_file" in str(fault.value)
    assert "pw" not in str(fault.value).replace(str(tmp_path), "")


def test_a_username_without_a_password_is_a_fault() -> None:
    with pytest.raises(SetupError, match="CALLSHIELD_AGENT_PASSWORD_1001"):
        read_credentials(agent(username="cs"), "agent", "1001", {})


def test_one_phone_has_one_password(monkeypatch: pytest.MonkeyPatch) -> None:
    both = {"1001": agent(username="cs"), "1002": agent(username="cs")}
    for name in both:
        monkeypatch.setenv(password_variable("agent", name), "same")
    settings = Settings(agents=both)
    assert phone_credentials(settings) == {"sip:1001@192.0.2.20": Credentials("cs", "same")}
    monkeypatch.setenv(password_variable("agent", "1002"), "another")
    with pytest.raises(SetupError, match=r"agents\.1002"):
        phone_credentials(settings)


def test_equal_credentials_share_an_account_and_the_number_of_accounts_is_bounded() -> None:
    made: list[tuple[str, Credentials]] = []

    def make(side: SideSettings, transport: str, credentials: Credentials) -> object:
        made.append((transport, credentials))
        return object()

    accounts, side = DigestAccounts(make), SideSettings()
    one = accounts.account(side, "udp", Credentials("cs", "pw"))
    assert accounts.account(side, "udp", Credentials("cs", "pw")) is one
    assert accounts.account(side, "tcp", Credentials("cs", "pw")) is not one
    for number in range(MAX_CREDENTIALS - 2):
        accounts.account(side, "udp", Credentials("cs", f"pw{number}"))
    with pytest.raises(SetupError, match=f"more than {MAX_CREDENTIALS}"):
        accounts.account(side, "udp", Credentials("cs", "one too many"))
    assert len(made) == MAX_CREDENTIALS
