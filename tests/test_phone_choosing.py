"""How each agent's phone is told, or why it is not; and whose password is read from where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from callshield.cli import app
from callshield.doctor_phones import examine_phones
from callshield.errors import SetupError
from callshield.findings import Verdict
from callshield.settings import Settings
from callshield.settings_phones import FamilySettings, PhonesSettings
from callshield.settings_sip import AgentSettings
from firmware_profiles.catalogue import shipped
from firmware_profiles.choosing import NoPlan, Plan, Source, choose, model_of
from firmware_profiles.push_secrets import load_passwords, password_variable

YEALINK, POLY, CISCO = "Yealink SIP-T46S 66.85.0.5", "VVX 450", "Cisco-CP8851/12.1.1"
SNOM, GRANDSTREAM = "snomD785/10.1.84.12", "Grandstream GRP2612W 1.0.5.67"
LINPHONE = "Linphone/5.2.4 (Debian)"
LOGIN = {"user": "callshield"}


def site(
    model: str = "",
    *,
    networks: tuple[str, ...] = ("192.0.2.0/24",),
    ami: str = "",
    families: dict[str, dict[str, Any]] | None = None,
    phones: dict[str, Any] | None = None,
    **agent: Any,
) -> Settings:
    """A node with one agent."""
    return Settings(
        sip={"phone": {"networks": list(networks)}},  # type: ignore[arg-type]
        agents={
            "1001": AgentSettings(
                **{"uri": "sip:1001@192.0.2.20:5060", "phone_model": model, **agent}
            )
        },
        ami={"host": ami},  # type: ignore[arg-type]
        phones=PhonesSettings(
            families={name: FamilySettings(**table) for name, table in (families or {}).items()},
            **(phones or {}),
        ),
    )


def chosen(
    settings: Settings, seen: dict[Source, str] | None = None, **passwords: str
) -> Plan | NoPlan:
    told = {name.replace("_", "-"): value for name, value in passwords.items()}
    return choose(shipped(), settings, "1001", seen or {}, told)


def plan(settings: Settings, seen: dict[Source, str] | None = None, **passwords: str) -> Plan:
    found = chosen(settings, seen, **passwords)
    assert isinstance(found, Plan), found.reason
    return found


def reason(settings: Settings, seen: dict[Source, str] | None = None, **passwords: str) -> str:
    found = chosen(settings, seen, **passwords)
    assert isinstance(found, NoPlan), found.reason
    return found.reason


def test_a_phone_at_our_side_is_told_by_the_bridge() -> None:
    found = plan(site(YEALINK))
    assert (found.method.id, found.via, found.host) == ("xml-notify", "bridge", "")
    assert found.reason.endswith("xml-notify, sent by Callshield by SIP")
    assert any("block_in_calling" in caution for caution in found.cautions)


def test_a_phone_behind_the_pbx_is_told_by_the_pbx() -> None:
    found = plan(site(YEALINK, endpoint="1001", ami="192.0.2.5"))
    assert (found.method.id, found.via) == ("xml-notify", "pbx")


def test_without_the_manager_interface_http_goes_past_the_pbx() -> None:
    found = plan(site(YEALINK, endpoint="1001", phone_address="192.0.2.77"))
    assert (found.method.id, found.via, found.host) == ("xml-http", "http", "192.0.2.77")
    said = reason(site(YEALINK, endpoint="1001"))
    assert "[ami] is not configured" in said
    assert "agents.1001.phone_address" in said


def test_http_is_for_addresses_inside_the_networks_only() -> None:
    login = {"poly-vvx": LOGIN}
    assert plan(site(POLY, families=login), poly_vvx="s").host == "192.0.2.20"
    outside = site(POLY, families=login, uri="sip:1@198.51.100.7:5060")
    assert "198.51.100.7 is outside" in reason(outside, poly_vvx="s")
    assert "sip.phone.networks" in reason(site(POLY, families=login, networks=()), poly_vvx="s")
    metadata = site(POLY, families=login, phone_address="169.254.169.254")
    assert "outside" in reason(metadata, poly_vvx="s")
    mapped = site(POLY, families=login, phone_address="::ffff:169.254.169.254")
    assert "outside" in reason(mapped, poly_vvx="s")


def test_what_wants_a_password_is_not_tried_without() -> None:
    assert "phones.families.poly-vvx.user" in reason(site(POLY))
    assert "password_file" in reason(site(POLY, families={"poly-vvx": LOGIN}))


def test_a_password_is_not_sent_because_of_what_a_phone_calls_itself() -> None:
    """An agent's softphone with Cisco's User-Agent would read it."""
    table: dict[str, Any] = {"user": "callshield", "password_file": "/nowhere"}
    phones = {"port": 8089, "url": "http://192.0.2.5:8089"}
    seen: dict[Source, str] = {"bridge": CISCO}
    for source in ("bridge", "pbx"):
        said: dict[Source, str] = {source: CISCO}
        settings = site("", families={"cisco-enterprise": table}, phones=phones)
        assert "phone_model" in reason(settings, said, cisco_enterprise="secret")
    assert plan(site(CISCO, families={"cisco-enterprise": table}, phones=phones),
                cisco_enterprise="secret").via == "http"  # fmt: skip
    table["tls"] = True
    known = site("", families={"cisco-enterprise": table}, phones=phones)
    assert plan(known, seen, cisco_enterprise="secret").via == "http"
    table["verify"] = False
    unknown = site("", families={"cisco-enterprise": table}, phones=phones)
    assert "readable" in reason(unknown, seen, cisco_enterprise="secret")


def test_cisco_needs_our_listener() -> None:
    families = {"cisco-enterprise": LOGIN}
    assert "phones.port and phones.url" in reason(
        site(CISCO, families=families), cisco_enterprise="s"
    )
    listening = {"port": 8089, "url": "http://192.0.2.5:8089"}
    found = plan(site(CISCO, families=families, phones=listening), cisco_enterprise="s")
    assert found.method.id == "cgi-execute"


def test_grandstream_has_keys_and_no_text_and_softphones_nothing() -> None:
    said = chosen(site(GRANDSTREAM))
    assert isinstance(said, NoPlan)
    assert said.expected
    assert "presses keys and shows no text" in said.reason
    said = chosen(site(LINPHONE))
    assert isinstance(said, NoPlan)
    assert said.expected


def test_a_way_that_is_asked_for_is_taken_or_said_not_to_be_there() -> None:
    assert plan(site(YEALINK, families={"yealink-t": {"push": "xml-http"}})).via == "http"
    off = chosen(site(YEALINK, families={"yealink-t": {"push": "off"}}))
    assert isinstance(off, NoPlan)
    assert off.expected
    unknown = reason(site(YEALINK, families={"yealink-t": {"push": "nothing"}}))
    assert "xml-notify, xml-http" in unknown
    no_sip = reason(site(SNOM, families={"snom-d7": {"via": "http"}}))
    assert "this way is SIP" in no_sip
    no_http = reason(site(POLY, families={"poly-vvx": {**LOGIN, "via": "bridge"}}), poly_vvx="s")
    assert "this way is HTTP" in no_http
    assert "endpoint is not set" in reason(site(SNOM, families={"snom-d7": {"via": "pbx"}}))
    assert plan(
        site(SNOM, endpoint="1", families={"snom-d7": {"via": "bridge"}})
    ).via == "bridge"  # fmt: skip
    assert "phones.enabled" in reason(site(YEALINK, phones={"enabled": False}))


def test_the_configuration_goes_before_the_pbx_and_the_pbx_before_the_phone() -> None:
    agent = site(YEALINK).agents["1001"]
    seen: dict[Source, str] = {"pbx": SNOM, "bridge": POLY}
    assert model_of(agent, seen) == (YEALINK, "configured")
    assert plan(site(), seen).profile.id == "snom-d7"
    assert plan(site(), {"bridge": SNOM}).profile.id == "snom-d7"


def test_behind_the_pbx_what_answers_us_is_the_pbx() -> None:
    settings = site(endpoint="1001", ami="192.0.2.5")
    assert "did not tell yet" in reason(settings, {"bridge": YEALINK})
    assert plan(settings, {"pbx": YEALINK}).via == "pbx"


def test_nothing_is_guessed() -> None:
    assert "no agents.1001.phone_model" in reason(site())
    assert "no family known here" in reason(site("Wonderphone 3"))


def test_the_screen_is_in_the_agents_language() -> None:
    assert plan(site(YEALINK)).language == "ko"
    assert plan(site(YEALINK, screen_language="zh")).language == "zh"


def test_passwords_come_from_the_environment_or_a_private_file(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("of the file\n")
    file.chmod(0o600)
    settings = site(families={"poly-vvx": {"user": "u", "password_file": file}, "fanvil": {}})
    assert load_passwords(settings, {}) == {"poly-vvx": "of the file"}
    name = password_variable("poly-vvx")
    assert name == "CALLSHIELD_PHONES_PASSWORD_POLY_VVX"
    assert load_passwords(settings, {name: "other"}) == {"poly-vvx": "other"}
    file.chmod(0o644)
    with pytest.raises(SetupError, match="chmod 600") as open_file:
        load_passwords(settings, {})
    assert "of the file" not in str(open_file.value)
    file.chmod(0o600)
    for text in ("", "two\nlines\n", "bell\x07"):
        file.write_text(text)
        with pytest.raises(SetupError, match="one line") as many:
            load_passwords(settings, {})
        assert "two" not in str(many.value)


def test_doctor_has_a_line_for_every_agent() -> None:
    settings = site(YEALINK)
    agents = {
        "1001": settings.agents["1001"],
        "1002": settings.agents["1001"].model_copy(update={"phone_model": POLY}),
        "1003": settings.agents["1001"].model_copy(update={"phone_model": GRANDSTREAM}),
        "1004": settings.agents["1001"].model_copy(update={"phone_model": ""}),
    }
    found = list(examine_phones(settings.model_copy(update={"agents": agents})))
    assert [one.verdict for one in found] == [
        Verdict.OK,
        Verdict.PROBLEM,
        Verdict.NOTE,
        Verdict.NOTE,
    ]
    assert "xml-notify" in found[0].detail
    stranger = site(YEALINK, families={"yaelink-t": {}})
    assert [one.verdict for one in examine_phones(stranger)] == [Verdict.PROBLEM, Verdict.OK]
    off = list(examine_phones(site(phones={"enabled": False})))
    assert [one.verdict for one in off] == [Verdict.OK]


def test_a_dry_run_prints_the_document_and_sends_nothing(tmp_path: Path) -> None:
    config = tmp_path / "callshield.toml"
    config.write_text(
        f"""
[node]
state_dir = "{tmp_path}"
runtime_dir = "{tmp_path}"
[agents.1001]
uri = "sip:1001@192.0.2.20"
phone_model = "{YEALINK}"
[agents.1002]
uri = "sip:1002@192.0.2.21"
phone_model = "{GRANDSTREAM}"
"""
    )
    base = ["profiles", "push", "--dry-run", "--config", str(config), "--agent"]
    shown = CliRunner().invoke(app, [*base, "1001", "--text", "<시험>"])
    assert shown.exit_code == 0
    assert "<YealinkIPPhoneTextScreen" in shown.output
    assert "&lt;시험&gt;" in shown.output
    dark = CliRunner().invoke(app, [*base, "1002"])
    assert dark.exit_code == 1
    assert "shows no text" in dark.output
