"""What a phone refuses, and how badly it can answer: the reason that is told is the right one.

And negative controls: with one fact of a profile changed, its phone shows nothing.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from pathlib import Path
from typing import Any

import pytest

from firmware_profiles.catalogue import shipped
from firmware_profiles.choosing import NoPlan
from firmware_profiles.documents import text_document
from firmware_profiles.screen_text import Words
from tests.phone_push_kit import (
    CISCO,
    CISCO_MPP,
    FANVIL,
    LIMIT_S,
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
from tests.phone_sims_http import FLOOD_BYTES, Mood, Phone


@pytest.mark.parametrize("family", [POLY, CISCO_MPP, FANVIL], ids=lambda f: f.profile)
async def test_a_wrong_password_is_told_as_such(family: Family[Any], tmp_path: Path) -> None:
    async with pushing(family, tmp_path, password="other") as site:
        reason = await refused_with(site)
        assert "401" in reason
        assert "password" in reason
        assert len(site.phone.requests) <= 2, "a wrong password is not tried again and again"


@pytest.mark.parametrize(
    "challenge",
    [
        "",
        "Digest",
        'Digest realm="x"',
        'Digest realm="x", nonce="n", algorithm=SHA3-512',
        'Digest realm="x", nonce="n", qop="auth-int"',
        'Digest realm="x", nonce="n", qop=""',
        "Digest nonsense",
        'Basic realm="x"',
        'Digest realm="\xff", nonce="\xff", qop="auth"',
        'Negotiate, Digest realm="Push", nonce="n", qop="auth"',
    ],
)
async def test_a_challenge_that_cannot_be_answered(challenge: str, tmp_path: Path) -> None:
    def asks(phone: Any) -> None:
        phone.digest.instead = challenge

    async with pushing(POLY, tmp_path, set_up=asks) as site:
        reason = await refused_with(site)
        assert reason
        assert "failed here" not in reason
        assert "broke" not in reason, "the answer was whole"
        assert len(site.phone.requests) <= 2


async def test_cisco_where_the_authentication_url_does_not_agree(tmp_path: Path) -> None:
    async with pushing(CISCO, tmp_path, login=("callshield", "another")) as site:
        assert "4" in await refused_with(site)
        assert site.phone.asked[0].body == b"UN-AUTHORIZED"


def _no_list(phone: Any) -> None:
    for name in ("push_server", "push_ip", "post_list"):
        if hasattr(phone, name):
            setattr(phone, name, ["192.0.2.77"])


@pytest.mark.parametrize("family", [YEALINK, FANVIL, MITEL], ids=lambda f: f.profile)
async def test_a_phone_that_does_not_list_us_is_told_as_such(
    family: Family[Any], tmp_path: Path
) -> None:
    async with pushing(family, tmp_path, set_up=_no_list) as site:
        reason = await refused_with(site)
        assert "403" in reason
        assert "who may push" in reason


async def test_multiplatform_that_executes_nothing_is_told_as_such(tmp_path: Path) -> None:
    def switch_off(phone: Any) -> None:
        phone.enabled = False

    async with pushing(CISCO_MPP, tmp_path, set_up=switch_off) as site:
        assert "403" in await refused_with(site)


@every_family
@pytest.mark.parametrize(
    ("mood", "said"),
    [
        ("redirect", "redirect"),
        ("flood", "64 KiB"),
        ("silent", "no whole answer"),
        ("slow", "no whole answer"),
        ("drip", "no whole answer"),
        ("refuse", ""),
    ],
)
async def test_a_phone_that_answers_badly(
    family: Family[Any], mood: Mood, said: str, tmp_path: Path
) -> None:
    def behave(phone: Phone) -> None:
        phone.mood = mood
        # Each byte of a drip comes in time; all of them together do not.
        phone.slow_s = 0.1 if mood == "drip" else 30.0

    # Who answers at once, however badly, has time for it, also on a machine that stands still.
    limit_s = 0.3 if mood in ("silent", "slow", "drip") else LIMIT_S
    async with pushing(family, tmp_path, set_up=behave, limit_s=limit_s) as site:
        began = time.monotonic()
        site.begin()
        site.risk(2, "threat")
        for _ in range(2):
            # A try and its retry, or a refusal at once.
            if site.desk._tasks:
                await asyncio.wait(site.desk._tasks.copy(), timeout=5)
        assert time.monotonic() - began < 3
        assert [told.ok for told in site.told] == [False]
        assert said in site.told[0].reason
        assert site.phone.connections <= 4
        assert site.phone.sent_bytes < FLOOD_BYTES


@every_family
async def test_a_redirect_is_not_followed(family: Family[Any], tmp_path: Path) -> None:
    hits: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hits.append(await reader.read(100))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, pushing(family, tmp_path) as site:
        site.phone.mood = "redirect"
        site.phone.elsewhere = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        await refused_with(site)
        assert hits == []


@every_family
async def test_no_proxy_of_the_environment_is_asked(
    family: Family[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with pushing(family, tmp_path) as site:
        await warned(site)
        assert kinds(site) == [("warning", True)]


@every_family
async def test_one_retry_where_nothing_was_taken(family: Family[Any], tmp_path: Path) -> None:
    async with pushing(family, tmp_path) as site:
        site.phone.mood = "drop_once"
        await warned(site)
        assert [(told.ok, told.tries) for told in site.told] == [(True, 2)]
        assert len(site.phone.screen.history) == 1


@every_family
async def test_taken_without_an_answer_is_shown_and_tried_once_more(
    family: Family[Any], tmp_path: Path
) -> None:
    async with pushing(family, tmp_path) as site:
        if family in (POLY, CISCO_MPP):
            # Signed in before, so that the first request is already the whole one.
            await warned(site)
            site.phone.screen.history.clear()
            site.told.clear()
            site.phone.mood = "drop"
            site.risk(3, "threat")
            await site.idle()
        else:
            site.phone.mood = "drop"
            await warned(site)
        assert [(told.ok, told.tries) for told in site.told] == [(False, 2)]
        assert 1 <= len(site.phone.screen.history) <= 2
        site.phone.mood = "well"
        site.end()
        # The phone may show something: it is cleared all the same, after a pause.
        assert site.desk._screens.next_due(site.desk._clock()) is not None


@every_family
async def test_outside_of_the_phones_networks_nothing_is_sent(
    family: Family[Any], tmp_path: Path
) -> None:
    async with pushing(family, tmp_path, networks="127.0.0.2/32") as site:
        plan = site.desk.plans["1001"]
        assert isinstance(plan, NoPlan)
        assert "sip.phone.networks" in plan.reason
        site.begin()
        site.risk(3, "threat")
        await site.idle()
        assert site.phone.connections == 0


# ---- negative controls: one fact of the profile is wrong, and the phone shows nothing


def _wrong(family: Family[Any], **facts: object) -> Any:
    return pytest.param(family, facts, id=f"{family.profile}-{'-'.join(facts)}")


@pytest.mark.parametrize(
    ("family", "facts"),
    [
        _wrong(POLY, content_type="text/xml"),
        _wrong(POLY, path="/Push"),
        _wrong(POLY, auth="basic"),
        _wrong(POLY, auth="none"),
        _wrong(POLY, document="yealink_text"),
        _wrong(CISCO, path="/CGI/execute"),
        _wrong(CISCO, form_field="xml"),
        _wrong(CISCO, auth="digest"),
        _wrong(CISCO, document="aastra_text"),
        _wrong(CISCO_MPP, auth="basic"),
        _wrong(CISCO_MPP, form_field=""),
        _wrong(FANVIL, auth="none"),
        _wrong(FANVIL, document="yealink_text"),
        _wrong(FANVIL, form_field="xml"),
        _wrong(FANVIL, content_type="application/xml"),
        _wrong(YEALINK, form_field=""),
        _wrong(YEALINK, path="/servlet"),
        _wrong(YEALINK, content_type="application/x-www-form-urlencoded"),
        _wrong(YEALINK, document="aastra_text"),
        _wrong(MITEL, form_field=""),
        _wrong(MITEL, document="yealink_text"),
        _wrong(MITEL, content_type="application/xml"),
    ],
)
async def test_a_profile_with_one_fact_wrong_shows_nothing(
    family: Family[Any], facts: dict[str, object], tmp_path: Path
) -> None:
    wrong = changed(shipped().phones[family.profile], family.method, **facts)
    async with pushing(family, tmp_path, profile=wrong) as site:
        await warned(site)
        assert site.phone.screen.history == []
        if "document" not in facts:  # which also says how the answer is to be read
            assert [told.ok for told in site.told] == [False]


@pytest.mark.parametrize(
    ("family", "facts", "lost"),
    [
        (POLY, {"characters": 30}, "wide"),
        (YEALINK, {"lines": 9}, "low"),
        (MITEL, {"lines": 9}, "low"),
        (POLY, {"clear_key": "Key:Nowhere"}, "stays"),
        (CISCO, {"lines": 9}, "low"),
    ],
    ids=["poly-wide", "yealink-low", "mitel-low", "poly-clear", "cisco-low"],
)
async def test_a_profile_that_believes_in_a_larger_screen_or_another_key_is_found_out(
    family: Family[Any], facts: dict[str, object], lost: str, tmp_path: Path
) -> None:
    wrong = changed(shipped().phones[family.profile], family.method, **facts)
    async with pushing(family, tmp_path, profile=wrong, language="en") as site:
        site.begin()
        site.risk(3, "sexual_harassment", "threat", "hate", "insult", "profanity", "shouting")
        await site.idle()
        if lost == "stays":
            site.end()
            await site.idle()
            assert reads(site) != ""
        else:
            assert any(picture.lost for picture in site.phone.screen.history)


async def test_a_phone_that_turns_out_to_be_another_one_gets_its_own_familys_password(
    tmp_path: Path,
) -> None:
    """Digest is kept between requests, and never the other family's."""
    async with pushing(POLY, tmp_path) as site:
        first = await site.http.send(site.plan, text_document(site.plan.method, Words("1")))
        assert first.outcome == "taken"
        other = dataclasses.replace(
            site.plan, profile=site.plan.profile.model_copy(update={"id": "poly-other"})
        )
        families = site.settings.phones.families
        families["poly-other"] = families["poly-vvx"].model_copy(update={"user": "other"})
        site.http._passwords = {**site.http._passwords, "poly-other": "another-s3cret"}
        site.phone.requests.clear()
        second = await site.http.send(other, text_document(site.plan.method, Words("2")))
        assert second.outcome == "refused"
        told = [request.headers.get("authorization", "") for request in site.phone.requests]
        assert any('username="other"' in value for value in told)
        assert not any(LOGIN[0] in value for value in told)
