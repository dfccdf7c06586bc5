"""A phone whose key acts for a colleague, or for nobody, is found in its configuration."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from callshield.findings import Finding, Verdict
from firmware_profiles.catalogue import shipped
from firmware_profiles.conformance import check_file
from firmware_profiles.phone_tokens import PHONE_ACTIONS
from firmware_profiles.reading import read
from firmware_profiles.rendering import Values, render
from firmware_profiles.token_check import check_tokens, without_tokens
from tests.phones_kit import LISTENER, SITE, TOKENS
from tests.test_profiles_command import CONFIG, refused, run

BY_URL = replace(SITE, keys="url", password="p", push_password="p")
IDS = sorted(id_ for id_, one in shipped().phones.items() if "action_url" in one.end.ways)
OTHER = {
    name: LISTENER + TOKENS.path("1002", action)
    for name, action in zip(("end_url", "help_url", "action_url"), PHONE_ACTIONS, strict=True)
}


def problems(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.verdict is Verdict.PROBLEM]


def tokens_in(id_: str, values: Values) -> list[Finding]:
    profile = shipped().phones[id_]
    found = read(profile.provisioning.format, render(profile, values).encode())
    return check_tokens(found, TOKENS, "1001", LISTENER)


@pytest.mark.parametrize("id_", IDS)
def test_what_we_write_with_keys_that_call_has_no_trap(id_: str) -> None:
    profile = shipped().phones[id_]
    raw = render(profile, BY_URL).encode()
    # The way of the keys is seen in the file, whatever is rendered by default.
    assert problems(check_file(profile, replace(BY_URL, keys="auto"), raw)) == []
    assert problems(check_file(profile, None, raw)) == []
    assert problems(tokens_in(id_, BY_URL)) == []
    # Negative control: without a listener such keys call nobody.
    gone = replace(BY_URL, end_url="", help_url="", action_url="", keys="auto")
    assert problems(check_file(profile, gone, raw))


@pytest.mark.parametrize("id_", IDS)
@pytest.mark.parametrize(
    "values",
    [
        replace(BY_URL, end_url=OTHER["end_url"]),
        replace(BY_URL, help_url=OTHER["help_url"]),
    ],
    ids=["end", "help"],
)
def test_a_key_of_another_agent_is_found(id_: str, values: Values) -> None:
    (found,) = problems(tokens_in(id_, values))
    assert "agent 1002's" in found.detail
    assert not re.search("[a-z2-7]{32}", found.detail + found.advice)


def test_events_of_another_agent_are_found_too() -> None:
    for id_ in ("yealink-t", "mitel-6800", "snom-d7", "poly-vvx", "grandstream"):
        assert problems(tokens_in(id_, replace(SITE, action_url=OTHER["action_url"])))
        assert not problems(tokens_in(id_, SITE))


@pytest.mark.parametrize(
    ("address", "detail"),
    [
        (f"{LISTENER}/p/{'a' * 32}/end", "no agent's"),
        (f"{LISTENER}/p/{TOKENS.token('1001', 'help')}/end", "no agent's"),
        (f"{LISTENER}/p/{TOKENS.token('1001', 'end').upper()}/end", "no agent's"),
        (f"http://198.51.100.7:8089/p/{TOKENS.token('1001', 'end')}/end", "leads to"),
        (f"https://192.0.2.10:8089/p/{TOKENS.token('1001', 'end')}/end", "leads to"),
        (f"/p/{TOKENS.token('1001', 'end')}/end", "nowhere"),
    ],
)
def test_an_address_that_leads_nowhere_is_found(address: str, detail: str) -> None:
    (found,) = check_tokens({"key": f"url {address}"}, TOKENS, "1001", LISTENER)
    assert found.verdict is Verdict.PROBLEM
    assert detail in found.detail
    assert not re.search("[a-z2-7]{32}", found.detail, re.IGNORECASE)


def test_an_address_that_anybody_may_read_is_noted_and_https_is_not() -> None:
    (noted,) = check_tokens({"key": SITE.end_url}, TOKENS, "1001", LISTENER)
    assert noted.verdict is Verdict.NOTE
    assert "unencrypted" in noted.detail
    secure = LISTENER.replace("http", "https")
    (fine,) = check_tokens({"key": SITE.end_url.replace("http", "https")}, TOKENS, "1001", secure)
    assert fine.verdict is Verdict.OK
    assert check_tokens({"key": "http://crm.example/p/short/end"}, TOKENS, "1001", LISTENER) == []


def test_a_token_is_hidden_wherever_it_stands() -> None:
    assert without_tokens(f"url {SITE.end_url}") == f"url {LISTENER}/p/…/end"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "callshield.toml"
    listener = f'[node]\nstate_dir = "{tmp_path}"\n[phones]\nport = 8089\nurl = "{LISTENER}"\n'
    path.write_text(CONFIG + listener, encoding="utf-8")
    return path


def test_the_operator_renders_and_checks(tmp_path: Path, config: Path) -> None:
    path = tmp_path / "phone.xml"
    early = path.with_name("early.xml")
    early.write_text("<settings></settings>", encoding="utf-8")
    check = ("--model", "D785", "--agent", "1001", "--config", config)
    assert "profiles render" in refused("check", early, *check)
    made = run("render", "D785", "--agent", "1001", "--keys", "url", "--config", config)
    assert made.exit_code == 0, made.output
    addresses = re.findall(r"http://192\.0\.2\.10:8089/p/([a-z2-7]{32})/(\w+)", made.output)
    assert [action for _, action in addresses] == ["event", "event", "end", "help"]
    again = run("render", "D785", "--agent", "1001", "--keys", "url", "--config", config)
    assert again.output == made.output
    path.write_text(made.output, encoding="utf-8")
    right = run("check", path, *check)
    assert right.exit_code == 0, right.output
    assert "ok      functionKeys/fkey[idx=2]" in right.output
    # The same file in a colleague's phone.
    wrong = run("check", path, "--model", "D785", "--agent", "1002", "--config", config)
    assert wrong.exit_code == 1
    assert "agent 1001's: this phone ends that agent's calls" in wrong.output
    for token, _ in addresses:
        assert token not in wrong.output + right.output


def test_options_go_before_the_listener(config: Path) -> None:
    given = ("--action-url", "http://192.0.2.9/crm", "--authentication-url", "http://192.0.2.9/a")
    made = run("render", "T46S", "--agent", "1001", *given, "--config", config).output
    assert "action_url.call_established = http://192.0.2.9/crm?event" in made
    assert "8089" not in made
    cisco = run("render", "8851", "--agent", "1001", "--config", config).output
    assert f"<authenticationURL>{LISTENER}/cisco/authenticate</authenticationURL>" in cisco
    with_option = run("render", "8851", "--agent", "1001", *given, "--config", config).output
    assert "<authenticationURL>http://192.0.2.9/a</authenticationURL>" in with_option


def test_without_a_listener_no_address_is_written_and_no_key_made(tmp_path: Path) -> None:
    path = tmp_path / "callshield.toml"
    path.write_text(f'[node]\nstate_dir = "{tmp_path}"\n{CONFIG}', encoding="utf-8")
    made = run("render", "T46S", "--agent", "1001", "--config", path).output
    assert "action_url" not in made
    assert "phones.port" in refused("render", "T46S", "--agent", "1001", "--keys", "url",
                                    "--config", path)  # fmt: skip
    assert not (tmp_path / "phones.key").exists()
