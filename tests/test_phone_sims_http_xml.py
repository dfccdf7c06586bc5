"""The simulated phones that take XML screens: requests by hand, so that they are not lenient."""

from __future__ import annotations

import base64
import urllib.parse

import pytest

from tests.phone_raw_kit import AASTRA, FORM, HOME, ME, get, post, raw
from tests.phone_sims_http_xml import FanvilPhone, MitelPhone, YealinkPhone

MITEL_POST = post("/", "text/xml", AASTRA)

YEALINK = (
    '<?xml version="1.0" encoding="UTF-8"?><YealinkIPPhoneTextScreen Beep="no" Timeout="5">'
    "<Title>경고</Title><Text>위험한 말</Text></YealinkIPPhoneTextScreen>"
).encode()
TO_YEALINK = "/servlet?push=xml"


async def test_yealink_takes_the_documented_request_until_its_time_is_over() -> None:
    async with YealinkPhone(push_server=HOME).on() as phone:
        assert (await raw(phone, post(TO_YEALINK, "text/xml", b"xml=" + YEALINK)))[0] == 200
        assert (phone.screen.text, phone.screen.beeps) == ("경고\n위험한 말", 0)
        phone.clock.pass_s(5)
        assert phone.screen.text == ""
        loud = (b"xml=" + YEALINK).replace(b' Beep="no"', b"")
        assert (await raw(phone, post(TO_YEALINK, "text/xml", loud)))[0] == 200
        assert phone.screen.beeps == 1


@pytest.mark.parametrize(
    ("target", "kind", "body", "status"),
    [
        ("/servlet", "text/xml", b"xml=" + YEALINK, 404),
        (TO_YEALINK, "text/xml", YEALINK, 400),
        (TO_YEALINK, "text/xml", b"xml=" + urllib.parse.quote(YEALINK).encode(), 400),
        (TO_YEALINK, FORM, b"xml=" + urllib.parse.quote(YEALINK).encode(), 400),
        (TO_YEALINK, FORM, b"xml=" + YEALINK, 400),
        (TO_YEALINK, "application/xml", b"xml=" + YEALINK, 400),
        (TO_YEALINK, "text/xml", b"xml=" + YEALINK[:-1], 400),
        (TO_YEALINK, "text/xml", b"xml=" + YEALINK.replace(b"UTF-8", b"EUC-XX"), 400),
        (TO_YEALINK, "text/xml", b"xml=" + YEALINK.replace(b'"5"', b'"soon"'), 400),
        (TO_YEALINK, "text/xml", b"xml=" + YEALINK.replace(b"Yealink", b"Aastra"), 400),
        (TO_YEALINK, "text/xml", b"xml=" + YEALINK.replace(b"<Text>", b"<Text>" + b"a" * 10000),
         400),
    ],
)  # fmt: skip
async def test_yealink_refuses_each_other_one(
    target: str, kind: str, body: bytes, status: int
) -> None:
    async with YealinkPhone(push_server=HOME).on() as phone:
        assert (await raw(phone, post(target, kind, body)))[0] == status
        assert phone.screen.history == []


@pytest.mark.parametrize("servers", [[], ["192.0.2.5"], ["127.0.0.2"]])
async def test_who_is_not_in_the_list_is_refused(servers: list[str]) -> None:
    request = post(TO_YEALINK, "text/xml", b"xml=" + YEALINK)
    async with YealinkPhone(push_server=servers).on() as phone:
        assert (await raw(phone, request))[0] == 403
        if servers == ["127.0.0.2"]:
            assert (await raw(phone, request, source="127.0.0.2"))[0] == 200
    async with MitelPhone(post_list=servers).on() as phone:
        assert (await raw(phone, MITEL_POST))[0] == 403
    async with FanvilPhone(push_ip=servers).on() as phone:
        assert (await raw(phone, fanvil_post(FANVIL)))[0] == 403


async def test_blocked_in_a_call_is_200_and_nothing() -> None:
    async with YealinkPhone(push_server=HOME, block_in_calling=True).on() as phone:
        request = post(TO_YEALINK, "text/xml", b"xml=" + YEALINK)
        phone.in_call = True
        assert (await raw(phone, request))[0] == 200
        assert phone.screen.history == []
        phone.block_in_calling = False
        assert (await raw(phone, request))[0] == 200
        assert phone.screen.text != ""


async def test_yealink_asks_its_user_once_before_it_presses_a_key() -> None:
    async with YealinkPhone().on() as phone:
        assert (await raw(phone, get("/servlet?key=OK")))[0] == 403
        phone.action_uri_limit_ip = HOME
        assert (await raw(phone, get("/servlet?key=OK")))[0] == 200
        assert (phone.keys, phone.asking) == ([], "127.0.0.1")
        phone.allow()
        assert (await raw(phone, get("/servlet?key=OK")))[0] == 200
        assert phone.keys == ["OK"]


FANVIL = (
    '<?xml version="1.0" encoding="UTF-8"?><FanvilIPPhoneText beep="no">'
    "<Title>경고</Title><Text>위험</Text></FanvilIPPhoneText>"
).encode()
ADMIN = "Authorization: Basic " + base64.b64encode(b"admin:admin").decode()


def fanvil_post(body: bytes, kind: str = "text/xml", who: str = ADMIN) -> bytes:
    return post("/xmlService", kind, body, who)


async def test_fanvil_takes_the_documented_request() -> None:
    async with FanvilPhone(push_ip=HOME).on() as phone:
        status, _, body = await raw(phone, fanvil_post(FANVIL))
        assert (status, b"<RetCode>0</RetCode>" in body) == (200, True)
        assert (phone.screen.text, phone.screen.beeps) == ("경고\n위험", 0)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (fanvil_post(FANVIL, who="X: y"), 401),
        (fanvil_post(FANVIL, who=ME), 401),
        (fanvil_post(FANVIL, FORM), 415),
        (fanvil_post(FANVIL.replace(b"<Text>", b"<Text>" + b"a" * 4096)), 413),
        (post("/xmlservice", "text/xml", FANVIL, ADMIN), 404),
        (fanvil_post(FANVIL[:-1]), 200),
        (fanvil_post(b"xml=" + FANVIL), 200),
        (fanvil_post(FANVIL.replace(b"Fanvil", b"Yealink")), 200),
    ],
)
async def test_fanvil_refuses_each_other_one(request_: bytes, status: int) -> None:
    async with FanvilPhone(push_ip=HOME).on() as phone:
        told = await raw(phone, request_)
        assert told[0] == status
        assert b"<RetCode>0" not in told[2]
        assert phone.screen.history == []


async def test_fanvil_blocks_in_a_call_as_its_templates_have_it_and_says_0() -> None:
    async with FanvilPhone(push_ip=HOME, in_call=True).on() as phone:
        assert b"<RetCode>0" in (await raw(phone, fanvil_post(FANVIL)))[2]
        assert phone.screen.history == []
        phone.block_when_call = False
        assert b"<RetCode>0" in (await raw(phone, fanvil_post(FANVIL)))[2]
        assert len(phone.screen.history) == 1


async def test_mitel_takes_the_two_documented_ways_of_writing_it() -> None:
    async with MitelPhone(post_list=HOME).on() as phone:
        assert (await raw(phone, MITEL_POST))[0] == 200
        assert phone.screen.text == "T\nhello"
        encoded = (
            b"xml=" + urllib.parse.quote(AASTRA[4:].replace(b"hello", b"a+b"), safe="").encode()
        )
        assert (await raw(phone, post("/", FORM, encoded)))[0] == 200
        assert phone.screen.text == "T\na+b"
        phone.clock.pass_s(45)
        assert phone.screen.text == ""


@pytest.mark.parametrize(
    ("target", "kind", "body", "status"),
    [
        ("/x", "text/xml", AASTRA, 404),
        ("/", "text/xml", AASTRA[4:], 400),
        ("/", FORM, AASTRA, 400),
        ("/", "text/xml", b"xml=" + urllib.parse.quote(AASTRA[4:]).encode(), 400),
        ("/", "application/xml", AASTRA, 400),
        ("/", "text/xml", AASTRA[:-2], 400),
        ("/", "text/xml", AASTRA.replace(b"hello", b"a" * 10000), 400),
        ("/", "text/xml", AASTRA.replace(b"hello", b"a & b"), 400),
    ],
)
async def test_mitel_refuses_each_other_one(
    target: str, kind: str, body: bytes, status: int
) -> None:
    async with MitelPhone(post_list=HOME).on() as phone:
        assert (await raw(phone, post(target, kind, body)))[0] == status
        assert phone.screen.history == []
