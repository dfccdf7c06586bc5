"""What the chosen media plane cannot give is refused with the key and the reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from callshield.configuration_page import page
from callshield.errors import ConfigurationError
from callshield.serve import parts_of
from callshield.settings import Settings, load_settings
from callshield.settings_media import host_port

#: A configuration that asks for nothing that rtpengine cannot.
PLAIN = """
[media]
plane = "rtpengine"
[ear]
limiter = false
levelling = false
soften_from_level = 4
[hearing]
dose_warnings_pct = []
voice_hint_after_s = 0
[notice]
agent_hears = "nothing"
"""


def read(folder: Path, text: str) -> Settings:
    path = folder / "node.toml"
    path.write_text(text, encoding="utf-8")
    return load_settings(path)


def test_the_relay_is_usual_and_rtpengine_has_a_process_of_its_own(tmp_path: Path) -> None:
    assert Settings().media.plane == "relay"
    modules = {part.name: part.module for part in parts_of(Settings())}
    assert modules["media"] == "sipbridge.media_worker"
    modules = {part.name: part.module for part in parts_of(read(tmp_path, PLAIN))}
    assert modules["media"] == "sipbridge.rtpengine_plane"


def test_rtpengine_with_all_defaults_is_told_everything_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read(tmp_path, '[media]\nplane = "rtpengine"\n')
    assert [key for _, key, _, _ in caught.value.faults] == [
        "ear.limiter",
        "ear.levelling",
        "ear.soften_from_level",
        "hearing.dose_warnings_pct",
        "hearing.voice_hint_after_s",
        "notice.agent_hears",
    ]
    for _, _, _, expected in caught.value.faults:
        assert 'with media.plane = "rtpengine"' in expected


AGENT = '[agents.1001]\nuri = "sip:1001@192.0.2.20"\n'
BOSS = '[supervisors.kim]\nuri = "sip:2001@192.0.2.21"\n'


@pytest.mark.parametrize(
    ("more", "key", "why"),
    [
        ("[recording]\nenabled = true\n", "recording.enabled", "its recorder"),
        ('[sip.pbx]\nsrtp = "optional"\n', "sip.pbx.srtp", "makes its own"),
        ('[sip.phone]\nsrtp = "optional"\n', "sip.phone.srtp", "makes its own"),
        (f'{AGENT}srtp = "optional"\n', "agents.1001.srtp", "makes its own"),
        (BOSS, "help.phones", "nobody can join"),
        (
            f'{AGENT}headset = "h"\n[headsets.h]\ncalibration_db_spl_at_0dbfs = 100\n',
            "agents.1001.headset",
            "measures no dose",
        ),
        ('[sip.pbx]\nbind = "::1"\n', "sip.pbx.bind", "IPv4"),
    ],
)
def test_what_it_cannot_give_is_refused(tmp_path: Path, more: str, key: str, why: str) -> None:
    read(tmp_path, PLAIN)
    with pytest.raises(ConfigurationError) as caught:
        read(tmp_path, PLAIN + more)
    (found,) = [fault for fault in caught.value.faults if fault[1] == key]
    assert why in found[3]


def test_a_calibration_is_refused_since_nothing_is_measured(tmp_path: Path) -> None:
    text = PLAIN.replace("[ear]", "[ear]\ncalibration_db_spl_at_0dbfs = 100")
    with pytest.raises(ConfigurationError, match=r"ear\.calibration_db_spl_at_0dbfs.*dose"):
        read(tmp_path, text)


def test_supervisors_without_phones_are_taken(tmp_path: Path) -> None:
    assert read(tmp_path, f"{PLAIN}{BOSS}[help]\nphones = false\n").supervisors.keys() == {"kim"}


def test_the_relays_limiter_cannot_be_switched_off(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"ear\.limiter.*the relay always limits"):
        read(tmp_path, "[ear]\nlimiter = false\n")


def test_an_environment_variable_that_breaks_the_plane_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CALLSHIELD_RECORDING__ENABLED", "true")
    with pytest.raises(ConfigurationError, match=r"environment: recording\.enabled"):
        read(tmp_path, PLAIN)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:2223", ("127.0.0.1", 2223)),
        ("[2001:db8::1]:22", ("2001:db8::1", 22)),
    ],
)
def test_addresses_with_ports(text: str, expected: tuple[str, int]) -> None:
    assert host_port(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "2223", "localhost:2223", "127.0.0.1:0", "127.0.0.1:65536", "::1:22", "[1.2.3.4]:5"],
)
def test_what_is_no_address_with_a_port(text: str) -> None:
    values: dict[str, Any] = {"media": {"rtpengine": {"control": text}}}
    with pytest.raises(ValidationError, match="an address and a port"):
        Settings(**values)


def test_every_key_of_the_plane_is_documented() -> None:
    text = page()
    for key in ("[media]", "[media.rtpengine]", "`dtmf_log`", "`limiter`"):
        assert key in text
