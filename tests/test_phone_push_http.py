"""Warnings on simulated phones, by HTTP: each family by its own profile, in a call.

The phones (``tests/phone_sims_http*.py``) know nothing of the sender and refuse what real ones
refuse; what a phone's user would read is asked of its screen, never of what was sent.
"""

from __future__ import annotations

import logging
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest

from callshield.free_ports import free_port
from callshield.messages_phones import ShowTest
from callshield.settings import load_settings
from firmware_profiles.catalogue import shipped
from firmware_profiles.choosing import NoPlan, choose
from tests.notifier_kit import write_config
from tests.phone_push_kit import (
    CISCO,
    CISCO_MPP,
    FANVIL,
    LOGIN,
    MITEL,
    POLY,
    YEALINK,
    Family,
    changed,
    every_family,
    kinds,
    pushing,
    reads,
    refused_with,
    warned,
)
from tests.phone_sims_http import Phone
from tests.phone_sims_http_cisco import CiscoPhone
from tests.phone_sims_http_poly import PolyPhone
from tests.phone_sims_http_xml import FanvilPhone, MitelPhone, YealinkPhone

#: Level 2, level 3, a category, as an agent reads them.
WORDS = {
    "ko": ("위험", "심각", "협박"),
    "en": ("Serious", "Severe", "threat"),
    "zh": ("危险", "严重", "威胁"),
    "ja": ("危険", "深刻", "脅迫"),
}


@every_family
@pytest.mark.parametrize("language", WORDS)
async def test_warning_update_and_clear_during_a_call(
    family: Family[Any], language: str, tmp_path: Path
) -> None:
    serious, severe, threat = WORDS[language]
    async with pushing(family, tmp_path, language=language) as site:
        assert (site.plan.method.id, site.plan.via) == (family.method, "http")
        await warned(site)
        assert serious in reads(site)
        assert threat in reads(site)
        site.risk(3, "threat")
        await site.idle()
        assert severe in reads(site)
        assert serious not in reads(site)
        site.end()
        await site.idle()
        assert not any(word in reads(site) for word in (serious, severe, threat))
        assert kinds(site) == [("warning", True), ("update", True), ("clear", True)]
        # Nothing that was sent fell off the screen, and nothing beeped into the agent's ear.
        assert [picture.lost for picture in site.phone.screen.history] == [()] * len(
            site.phone.screen.history
        )
        assert site.phone.screen.beeps == 0
        assert site.notes.sent == []


@every_family
async def test_the_screen_is_free_some_time_after_the_call(
    family: Family[Any], tmp_path: Path
) -> None:
    async with pushing(family, tmp_path) as site:
        await warned(site)
        site.end()
        await site.idle()
        site.phone.clock.pass_s(10)
        assert reads(site) == ""


@every_family
async def test_what_the_keys_do_is_on_the_screen(family: Family[Any], tmp_path: Path) -> None:
    async with pushing(family, tmp_path) as site:
        await warned(site, 3)
        assert f"안내 후 종료 {site.settings.sip.end_code}" in reads(site)
        assert f"관리자 호출 {site.settings.sip.help_code}" in reads(site)


@pytest.mark.parametrize(
    "family", [POLY, CISCO, CISCO_MPP, YEALINK, MITEL], ids=lambda f: f.profile
)
@pytest.mark.parametrize(
    ("key", "action", "said"),
    [
        ("관리자 호출", "help", "관리자 호출 완료"),
        ("안내 후 종료", "end", "안내 후 종료합니다"),
    ],
    ids=["help", "end"],
)
async def test_a_soft_key_of_the_screen_reaches_the_node_and_says_what_came_of_it(
    family: Family[Any], key: str, action: str, said: str, tmp_path: Path
) -> None:
    def has_keys(phone: Phone) -> None:
        if isinstance(phone, MitelPhone):
            phone.soft_keys = True

    async with pushing(family, tmp_path, set_up=has_keys) as site:
        await warned(site)
        await site.phone.press(key)
        assert [(press.agent_id, press.action) for press in site.pressed] == [("1001", action)]
        assert said in reads(site).replace("\n", " ")
        assert site.phone.screen.history[-1].lost == ()


@pytest.mark.parametrize(
    "family", [POLY, CISCO, CISCO_MPP, YEALINK, MITEL], ids=lambda f: f.profile
)
async def test_the_agent_can_close_the_screen(family: Family[Any], tmp_path: Path) -> None:
    def has_keys(phone: Phone) -> None:
        if isinstance(phone, MitelPhone):
            phone.soft_keys = True

    async with pushing(family, tmp_path, set_up=has_keys) as site:
        await warned(site)
        await site.phone.press("닫기")
        assert (reads(site), site.pressed) == ("", [])


NASTY = [
    "<Text>&amp;]]></Text><b>bold</b>",
    "abc\N{RIGHT-TO-LEFT OVERRIDE}def\N{LEFT-TO-RIGHT ISOLATE}ghi",
    "가" * 200,
    "a\x00b\x1b[31mc\r\n\r\nd",
    "e\N{COMBINING ACUTE ACCENT}" * 200,
    "\N{SMILING FACE WITH SMILING EYES}\N{ZERO WIDTH JOINER}" * 40,
    "%3CText%3E+&xml=%00",
    "\ud800 half",
]


@every_family
@pytest.mark.parametrize("text", NASTY, ids=range(len(NASTY)))
async def test_any_text_is_whole_xml_that_fits_the_screen(
    family: Family[Any], text: str, tmp_path: Path
) -> None:
    async with pushing(family, tmp_path) as site:
        site.desk.test(ShowTest(request_id="t1", agent_id="1001", text=text))
        await site.phone.screen.changed()
        assert [picture.lost for picture in site.phone.screen.history] == [()]
        assert "시험" in reads(site).partition("\n")[0]
        assert "<Text>&amp;]]>" in reads(site) or not text.startswith("<")


async def test_keys_go_before_words_do_where_the_phone_takes_less(tmp_path: Path) -> None:
    def takes_little(phone: PolyPhone) -> None:
        phone.largest_bytes = 300

    profile = changed(shipped().phones["poly-vvx"], "push", max_bytes=300)
    async with pushing(POLY, tmp_path, profile=profile, set_up=takes_little) as site:
        await warned(site)
        picture = site.phone.screen.picture
        assert picture is not None
        assert (picture.keys, picture.lost) == ((), ())
        assert "위험 협박" in reads(site)
    async with pushing(POLY, tmp_path, set_up=takes_little) as site:
        assert "413" in await refused_with(site), "the fact in the profile is what saves it"


def _certificate(folder: Path) -> ssl.SSLContext:
    pem, key = folder / "phone.pem", folder / "phone.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-keyout", key, "-out", pem, "-days", "2", "-subj", "/CN=phone",
         "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, key)
    return context


@pytest.mark.parametrize(
    ("more", "shown"),
    [
        ("tls = true", False),
        ("tls = true\nverify = false", True),
        ('tls = true\nca_file = "{pem}"', True),
        ("", False),
    ],
    ids=["unknown", "not looked at", "vouched for", "plain"],
)
async def test_a_phone_that_speaks_tls(more: str, shown: bool, tmp_path: Path) -> None:
    tls = _certificate(tmp_path)
    more = more.replace("{pem}", str(tmp_path / "phone.pem"))
    async with pushing(POLY, tmp_path, more=more, tls=tls) as site:
        await warned(site)
        assert bool(site.phone.screen.history) is shown
        assert kinds(site) == [("warning", shown)]
        assert shown or site.told[0].reason


# ---- what only the screen shows: 200 says nothing


def _block(phone: Any) -> None:
    if isinstance(phone, YealinkPhone):
        phone.block_in_calling = True
    elif isinstance(phone, FanvilPhone):
        phone.block_when_call = True
    elif isinstance(phone, PolyPhone):
        phone.message_type = 3
    elif isinstance(phone, MitelPhone):
        phone.shows_in_call = False


@pytest.mark.parametrize(
    ("family", "setting"),
    [
        (YEALINK, "push_xml.block_in_calling"),
        (FANVIL, "phone/BlockXMLWhenCall"),
        (POLY, "apps.push.messageType"),
    ],
    ids=lambda value: getattr(value, "profile", ""),
)
async def test_blocked_in_a_call_looks_taken_so_that_the_profile_warns_beforehand(
    family: Family[Any], setting: str, tmp_path: Path
) -> None:
    async with pushing(family, tmp_path, set_up=_block) as site:
        await warned(site)
        assert kinds(site) == [("warning", True)]
        assert site.phone.screen.history == [], "the trap: 200, and nothing is seen"
        assert setting in " ".join(site.plan.cautions)
        traps = [one for one in site.plan.profile.setting if one.key == setting]
        assert traps[0].trap


async def test_grandstream_shows_no_text_and_is_left_alone(tmp_path: Path) -> None:
    config = write_config(
        tmp_path,
        free_port("127.0.0.1"),
        '[sip.phone]\nnetworks = ["127.0.0.1/32"]\n',
        'phone_model = "Grandstream GRP2612W 1.0.5.67"\nphone_address = "127.0.0.1"\n',
    )
    plan = choose(shipped(), load_settings(config), "1001", {}, {})
    assert isinstance(plan, NoPlan)
    assert plan.expected
    assert "presses keys and shows no text" in plan.reason


# ---- sign-in


async def test_poly_is_asked_for_a_challenge_once_and_an_old_nonce_costs_one_more(
    tmp_path: Path,
) -> None:
    async with pushing(POLY, tmp_path) as site:
        await warned(site)
        site.risk(3, "threat")
        await site.idle()
        assert site.phone.digest.why == ["none"], "the second request answers the first challenge"
        site.phone.clock.pass_s(31)
        site.end()
        await site.idle()
        assert site.phone.digest.why == ["none", "stale"]
        assert (reads(site), site.phone.keys) == ("", ["Home"])
        assert all(told.ok for told in site.told)


async def test_a_phone_that_restarted_challenges_anew(tmp_path: Path) -> None:
    async with pushing(POLY, tmp_path) as site:
        await warned(site)
        site.phone.digest._nonces.clear()
        site.risk(3, "threat")
        await site.idle()
        assert kinds(site) == [("warning", True), ("update", True)]


@pytest.mark.parametrize("asks_by", ["POST", "GET"])
async def test_cisco_asks_our_listener_who_may_push(asks_by: str, tmp_path: Path) -> None:
    def ask_by(phone: CiscoPhone) -> None:
        phone.asks_by = "GET" if asks_by == "GET" else "POST"

    async with pushing(CISCO, tmp_path, set_up=ask_by) as site:
        await warned(site)
        assert [told.body for told in site.phone.asked] == [b"AUTHORIZED"]
        assert site.phone.troubles == []
        assert "위험" in reads(site)


# ---- nothing waits for a phone, nothing secret is written down


async def test_a_phone_that_hangs_delays_no_other(tmp_path: Path) -> None:
    async with pushing(MITEL, tmp_path) as site:
        site.phone.mood = "silent"
        site.begin()
        site.begin("c2", "1002")
        site.risk(3, "threat")
        await site.phone.arrived()
        site.phone.mood = "well"
        site.risk(3, "threat", call_id="c2")
        await site.phone.screen.changed()
        assert [told for told in site.told if told.agent_id == "1001"] == [], "it hangs still"


@every_family
async def test_no_secret_and_no_address_in_a_log(
    family: Family[Any],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with caplog.at_level(logging.DEBUG):
        async with pushing(family, tmp_path) as site:
            await warned(site)
            site.phone.mood = "refuse"
            site.risk(3, "threat")
            await site.idle()
    written = caplog.text + "".join(capsys.readouterr())
    written = "\n".join(line for line in written.splitlines() if "asyncio" not in line)
    for secret in (LOGIN[1], "/s/", "Digest ", "Basic ", "협박"):
        assert secret not in written
