"""A wrong configuration is one line a fault: file, key, found, expected."""

from __future__ import annotations

from pathlib import Path

import pytest

from callshield.configuration_page import page
from callshield.errors import ConfigurationError
from callshield.settings import load_settings

GOOD = """
[[peers]]
name = "pbx"
networks = ["192.0.2.10"]
[agents.1001]
uri = "sip:1001@192.0.2.20:5060"
"""


def faults(tmp_path: Path, text: str) -> list[tuple[str, str, str, str]]:
    path = tmp_path / "callshield.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        load_settings(path)
    assert str(caught.value).count("\n") == len(caught.value.faults) - 1
    return caught.value.faults


def test_defaults_need_only_peers_and_agents(tmp_path: Path) -> None:
    path = tmp_path / "callshield.toml"
    path.write_text(GOOD, encoding="utf-8")
    settings = load_settings(path)
    assert settings.agents["1001"].uri == "sip:1001@192.0.2.20:5060"
    assert settings.notice.prompts == ["abuse_prevention", "recording"]
    assert settings.sip.phone.port == 5062
    assert settings.bus_path.name == "bus.sock"


def test_partial_side_keeps_its_own_defaults(tmp_path: Path) -> None:
    path = tmp_path / "callshield.toml"
    path.write_text(GOOD + '[sip.phone]\nbind = "127.0.0.3"\n', encoding="utf-8")
    assert load_settings(path).sip.phone.rtp_ports == (25000, 29999)


@pytest.mark.parametrize(
    ("text", "key", "found", "expected"),
    [
        ('[sip.pbx]\nport = "abc"', "sip.pbx.port", "'abc'", "a whole number"),
        ("[web]\nport = 70000", "web.port", "70000", "at most 65535"),
        ("[web]\nprot = 1", "web.prot", "1", "a known key; did you mean port?"),
        ("[sip.pbx]\nzzz = 1", "sip.pbx.zzz", "1", "a known key (see docs/configuration.md)"),
        (
            '[agents.1001]\nuri = "sip:1001@desk.example"',
            "agents.1001.uri",
            "'sip:1001@desk.example'",
            "an address as the host, like sip:1001@192.0.2.20:5060",
        ),
        (
            '[agents.1001]\nuri = "1001"',
            "agents.1001.uri",
            "'1001'",
            "a SIP URI like sip:1001@192.0.2.20:5060",
        ),
        ("[agents.1001]", "agents.1001.uri", "nothing", "a value"),
        ('[notice]\nlanguage = "de"', "notice.language", "'de'", "one of 'ko', 'en', 'zh' or 'ja'"),
        ("[sip]\nadmission_limit = 0", "sip.admission_limit", "0", "at least 1"),
        ('[sip.pbx]\nbind = "here"', "sip.pbx.bind", "'here'", "an IPv4 or IPv6 address"),
        ('[detector]\nenabled = "maybe"', "detector.enabled", "'maybe'", "true or false"),
    ],
)
def test_fault_names_key_found_and_expected(
    tmp_path: Path, text: str, key: str, found: str, expected: str
) -> None:
    assert faults(tmp_path, text) == [(str(tmp_path / "callshield.toml"), key, found, expected)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            '[help]\nmanager = "kim"',
            'help.manager: the ID of a [supervisors.ID] with role = "manager"',
        ),
        (
            '[help]\nmanager = "lee"\n[supervisors.lee]\nuri = "sip:2001@192.0.2.21"',
            'help.manager: the ID of a [supervisors.ID] with role = "manager"',
        ),
        ('[supervisors.lee]\nuri = "2001"', "a SIP URI like sip:1001@192.0.2.20:5060"),
        (
            '[supervisors.lee]\nuri = "sip:a@192.0.2.1"\nrole = "boss"',
            "one of 'supervisor' or 'manager'",
        ),
        (
            '[supervisors.lee]\nuri = "sip:a@192.0.2.1"\nrol = "x"',
            "a known key; did you mean role?",
        ),
        ('[supervisors."a b"]\nuri = "sip:a@192.0.2.1"', "ids of letters"),
        (
            '[sip]\npause_code = "*9"',
            "DTMF codes none of which is the beginning or the end of another",
        ),
        (
            '[sip]\nsoften_code = "#*4#"',
            "DTMF codes none of which is the beginning or the end of another",
        ),
    ],
)
def test_what_helps_a_call_is_checked(tmp_path: Path, text: str, expected: str) -> None:
    ((_, _, _, said),) = faults(tmp_path, GOOD + text)
    assert said.startswith(expected)


def test_a_manager_may_be_named(tmp_path: Path) -> None:
    """Negative control of the test above."""
    path = tmp_path / "callshield.toml"
    path.write_text(
        GOOD
        + '[help]\nmanager = "kim"\n[supervisors.kim]\nrole = "manager"\n'
        + 'uri = "sip:2000@192.0.2.21:5060"\n[sip]\npause_code = "**1"\n',
        encoding="utf-8",
    )
    settings = load_settings(path)
    assert settings.phone_uris == ["sip:1001@192.0.2.20:5060", "sip:2000@192.0.2.21:5060"]


def test_all_faults_are_named_at_once(tmp_path: Path) -> None:
    keys = {fault[1] for fault in faults(tmp_path, "[web]\nport = 0\n[node]\nname = 'a b'\n")}
    assert keys == {"web.port", "node.name"}


def test_notice_cannot_be_switched_off(tmp_path: Path) -> None:
    ((_, key, _, expected),) = faults(tmp_path, "[notice]\nprompts = []")
    assert key == "notice.prompts"
    assert "without a notice nothing may be analysed" in expected


@pytest.mark.parametrize(
    "text",
    [
        "[sip.phone]\nport = 5060\nrtp_ports = [30000, 30100]\n",
        "[sip.phone]\nrtp_ports = [20000, 20100]\n",
        '[sip]\nend_code = "*89#"\nhelp_code = "9#"\n',
    ],
)
def test_values_that_do_not_fit_together(tmp_path: Path, text: str) -> None:
    ((_, _, found, _),) = faults(tmp_path, text)
    assert found == "values that do not fit together"


def test_missing_file_and_broken_syntax(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="found no such file, expected a TOML file"):
        load_settings(tmp_path / "none.toml")
    ((_, key, found, _),) = faults(tmp_path, "[web\n")
    assert key == "(syntax)"
    assert "line 1" in found


def test_environment_overrides_the_file_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "callshield.toml"
    path.write_text(GOOD, encoding="utf-8")
    monkeypatch.setenv("CALLSHIELD_WEB__PORT", "9001")
    assert load_settings(path).web.port == 9001
    monkeypatch.setenv("CALLSHIELD_WEB__PORT", "many")
    ((source, key, found, _),) = faults(tmp_path, GOOD)
    assert (source, key, found) == ("environment", "web.port", "'many'")


def test_the_page_in_docs_is_the_one_that_the_settings_make() -> None:
    shown = Path(__file__).parent.parent / "docs" / "configuration.md"
    assert shown.read_text(encoding="utf-8") == page(), (
        "run: .venv/bin/python -m callshield.configuration_page > docs/configuration.md"
    )


def test_the_example_is_a_valid_configuration() -> None:
    example = Path(__file__).parent.parent / "deploy" / "callshield.example.toml"
    assert set(load_settings(example).agents) == {"1001", "1002"}
