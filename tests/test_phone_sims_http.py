"""The simulated phones themselves: requests written by hand, so that none of them is lenient.

Nothing of the sender is imported here. Each family has one request that is taken, and that same
request with one thing changed, which is not.
"""

from __future__ import annotations

import asyncio
import base64
import time

import pytest

from tests.phone_raw_kit import AASTRA, HOME, Told, digest, get, post, raw
from tests.phone_sims_http import FLOOD_BYTES, Digest, Request, form
from tests.phone_sims_http_grandstream import GrandstreamPhone
from tests.phone_sims_http_poly import PolyPhone
from tests.phone_sims_http_screen import FakeClock, Screen, columns, cut
from tests.phone_sims_http_xml import MitelPhone

# ---- the screen


def test_wide_characters_take_two_columns_and_halves_are_not_drawn() -> None:
    assert columns("경고 A") == 6
    assert cut("경고멘트", 5) == "경고"
    screen = Screen(rows=2, width=6)
    screen.show("위험한말\n도움\n셋째", title="주의주의")
    picture = screen.picture
    assert picture is not None
    assert (picture.title, picture.lines) == (("주의주",), ("위험한", "도움"))
    assert set(picture.lost) == {"셋째", "말", "의"}


def test_what_turns_the_line_round_is_a_box_and_is_told() -> None:
    screen = Screen(rows=1, width=20)
    screen.show("abc\N{RIGHT-TO-LEFT OVERRIDE}def")
    assert screen.text == "abc\N{WHITE SQUARE}def"
    assert screen.picture is not None
    assert screen.picture.lost == ("\N{RIGHT-TO-LEFT OVERRIDE}",)


def test_a_screen_goes_away_when_its_time_is_over_and_not_before() -> None:
    clock = FakeClock()
    screen = Screen(rows=1, width=9, clock=clock)
    screen.show("a", timeout_s=3)
    clock.pass_s(2.9)
    assert screen.text == "a"
    clock.pass_s(0.1)
    assert screen.text == ""
    screen.show("b")
    clock.pass_s(1e6)
    assert screen.text == "b"


# ---- the web server


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),  # no Host
        (b"nonsense\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\n\r\n", 411),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", 400),
    ],
)
async def test_a_small_web_server_wants_whole_requests(request_: bytes, status: int) -> None:
    async with MitelPhone(post_list=HOME).on() as phone:
        assert (await raw(phone, request_))[0] == status


MITEL_POST = post("/", "text/xml", AASTRA)


async def test_moods() -> None:
    async with MitelPhone(post_list=HOME).on() as phone:
        phone.mood = "redirect"
        status, headers, _ = await raw(phone, MITEL_POST)
        assert (status, headers["location"]) == (302, phone.elsewhere)
        assert phone.screen.text == ""
        phone.mood = "flood"
        assert len((await raw(phone, MITEL_POST))[2]) == FLOOD_BYTES
        phone.mood = "drop_once"
        with pytest.raises((IndexError, ConnectionError)):
            await raw(phone, MITEL_POST)
        assert phone.screen.history == []
        assert (await raw(phone, MITEL_POST))[0] == 200
        phone.mood = "drop"
        with pytest.raises((IndexError, ConnectionError)):
            await raw(phone, MITEL_POST)
        assert len(phone.screen.history) == 2, "taken, and not answered"
        phone.mood, phone.slow_s = "slow", 0.2
        began = time.monotonic()
        assert (await raw(phone, MITEL_POST))[0] == 200
        assert time.monotonic() - began >= 0.2
        phone.mood = "silent"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await raw(phone, MITEL_POST)


# ---- digest


def _mufasa(nonce: str, response: str, uri: str = "/dir/index.html") -> Request:
    words = (
        f'Digest username="Mufasa", realm="testrealm@host.com", nonce="{nonce}", uri="{uri}", '
        f'qop=auth, nc=00000001, cnonce="0a4f113b", response="{response}"'
    )
    return Request("GET", "/dir/index.html", {"authorization": words}, b"", "127.0.0.1")


def test_digest_is_the_one_of_the_rfc() -> None:
    """RFC 2617, 3.5: the worked example."""
    phone = Digest("testrealm@host.com", "Mufasa", "Circle Of Life", FakeClock())
    nonce, right = "dcd98b7102dd2f0e8b11d0f600bfb0c093", "6629fae49393a05397450978507c4ef1"
    phone._nonces[nonce] = (0.0, 0)
    assert phone.challenge(_mufasa(nonce, "0" * 32)) is not None
    assert phone.challenge(_mufasa(nonce, right)) is None
    assert phone.challenge(_mufasa(nonce, right)) is not None, "the same count again: a replay"
    assert phone.why == ["response", "count"]


PAGE = b'<PolycomIPPhone><Data priority="Critical"><h1>Hello</h1>you</Data></PolycomIPPhone>'
SPIPX = "application/x-com-polycom-spipx"
PASSWORD = PolyPhone().password


async def signed(phone: PolyPhone, body: bytes, kind: str = SPIPX, secret: str = PASSWORD) -> Told:
    first = await raw(phone, post("/push", kind, body))
    assert first[0] == 401
    assert 'qop="auth"' in first[1]["www-authenticate"]
    words = digest(first, "/push", "Polycom", secret)
    return await raw(phone, post("/push", kind, body, words))


async def test_poly_takes_the_documented_request() -> None:
    async with PolyPhone().on() as phone:
        assert (await signed(phone, PAGE))[0] == 200
        assert phone.screen.text == "Hello\nyou"


@pytest.mark.parametrize(
    ("body", "kind", "password", "status"),
    [
        (PAGE, SPIPX, "457", 401),
        (PAGE, "text/xml", "456", 400),
        (PAGE, "application/x-www-form-urlencoded", "456", 400),
        (PAGE[:-1], SPIPX, "456", 400),
        (PAGE.replace(b"you", b"a & b"), SPIPX, "456", 400),
        (PAGE.replace(b"Critical", b"critical"), SPIPX, "456", 400),
        (PAGE.replace(b"Data", b"Text"), SPIPX, "456", 400),
        (b"Key:Home", SPIPX, "456", 400),
        (PAGE.replace(b"you", b"u" * 1000), SPIPX, "456", 413),
    ],
)
async def test_poly_refuses_each_other_one(
    body: bytes, kind: str, password: str, status: int
) -> None:
    async with PolyPhone().on() as phone:
        assert (await signed(phone, body, kind, password))[0] == status
        assert phone.screen.history == []


async def test_poly_wants_the_uri_that_was_asked_for_and_says_when_a_nonce_is_old() -> None:
    async with PolyPhone(nonce_s=10).on() as phone:
        first = await raw(phone, post("/push", SPIPX, PAGE))
        other = digest(first, "/push", "Polycom", "456", uri="/other")
        assert (await raw(phone, post("/push", SPIPX, PAGE, other)))[0] == 401
        phone.clock.pass_s(10)
        words = digest(first, "/push", "Polycom", "456")
        status, headers, _ = await raw(phone, post("/push", SPIPX, PAGE, words))
        assert status == 401
        assert "stale=true" in headers["www-authenticate"]
        assert phone.digest.why == ["none", "uri", "stale"]
        basic = "Authorization: Basic " + base64.b64encode(b"Polycom:456").decode()
        assert (await raw(phone, post("/push", SPIPX, PAGE, basic)))[0] == 401


@pytest.mark.parametrize(
    ("message_type", "shown"), [(0, False), (1, False), (3, False), (4, True), (5, True)]
)
async def test_poly_discards_what_its_filter_does_not_let_through_and_says_200(
    message_type: int, shown: bool
) -> None:
    async with PolyPhone(message_type=message_type).on() as phone:
        assert (await signed(phone, PAGE))[0] == 200
        assert bool(phone.screen.history) is shown


async def test_poly_in_a_call_shows_critical_at_once_and_normal_afterwards() -> None:
    async with PolyPhone(in_call=True).on() as phone:
        assert (await signed(phone, PAGE.replace(b' priority="Critical"', b"")))[0] == 200
        assert phone.screen.text == ""
        assert (await signed(phone, PAGE.replace(b"Critical", b"High")))[0] == 200
        assert phone.screen.text == "Hello\nyou"
        assert (await signed(phone, PAGE.replace(b"Critical", b"High").replace(b"you", b"2")))[
            0
        ] == 200
        assert phone.screen.text == "Hello\nyou", "of the same priority: it waits"
        assert (await signed(phone, PAGE.replace(b"you", b"3")))[0] == 200
        assert phone.screen.text == "Hello\n3"
        assert (await signed(phone, PAGE.replace(b"you", b"4")))[0] == 200
        assert phone.screen.text == "Hello\n4"
        home = b'<PolycomIPPhone><Data priority="Critical">Key:Home</Data></PolycomIPPhone>'
        assert (await signed(phone, home))[0] == 200
        assert (phone.screen.text, phone.keys) == ("", ["Home"])
        phone.hang_up()
        assert phone.screen.text == "Hello\n2", "what waited comes then"


# ---- Grandstream

PRESS = "/cgi-bin/api-send_key?passcode=admin&keys=OK"


async def test_grandstream_presses_a_key() -> None:
    async with GrandstreamPhone(allowed_ips=HOME).on() as phone:
        assert (await raw(phone, get(PRESS)))[2] == b'{"response": "success", "body": "complete"}'
        assert phone.keys == ["OK"]


@pytest.mark.parametrize(
    "target",
    [
        PRESS.replace("admin", "nimda"), PRESS.replace("OK", "NONSENSE"), PRESS + "&keys=OK",
        PRESS.replace("keys", "key"), PRESS.partition("?")[0], PRESS + "&more=1",
    ],
)  # fmt: skip
async def test_grandstream_refuses_with_status_200(target: str) -> None:
    async with GrandstreamPhone(allowed_ips=HOME).on() as phone:
        told = await raw(phone, get(target))
        assert (told[0], b"error" in told[2], phone.keys) == (200, True, [])


async def test_grandstream_outside_of_the_list_or_switched_off() -> None:
    async with GrandstreamPhone(allowed_ips=["192.0.2.1"]).on() as phone:
        assert b"error" in (await raw(phone, get(PRESS)))[2]
        phone.allowed_ips, phone.action_uri = ["any"], False
        assert b"error" in (await raw(phone, get(PRESS)))[2]
        phone.action_uri = True
        assert b"success" in (await raw(phone, get(PRESS)))[2]


async def test_grandstream_with_its_pop_up_answers_when_its_user_does() -> None:
    async with GrandstreamPhone(allowed_ips=HOME, pop_up=True).on() as phone:
        pending = asyncio.create_task(raw(phone, get(PRESS)))
        await asyncio.wait_for(phone.asking.wait(), 30)
        assert not pending.done()
        assert phone.keys == []
        phone.allow()
        assert b"success" in (await pending)[2]
        assert phone.keys == ["OK"]


def test_a_form_is_read_strictly() -> None:
    assert form(b"XML=a+b%20%ea%b2%bd") == {"XML": "a b 경"}
    for wrong in (b"XML=<a/>", b"XML=a b", b"XML=%zz", b"XML", b"XML=%ff", b"XML=a;b"):
        assert form(wrong) is None
