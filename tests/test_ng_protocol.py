"""rtpengine's ng protocol: what we say is read back, and what strangers say harms nobody."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipbridge.digit_codes import HOLD_S, DigitCodes
from sipbridge.ng_client import NgClient, NgRefused, NgUnreachable
from sipbridge.ng_protocol import (
    LONGEST,
    NgError,
    answer,
    bdecode,
    bencode,
    media_of,
    question,
    session_description,
)
from sipbridge.rtpengine_dtmf import DtmfEvent, DtmfLog

values = st.recursive(
    st.integers() | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=4)
    ),
    max_leaves=10,
)


@given(values)
def test_what_is_encoded_is_decoded_again(value: Any) -> None:
    assert bdecode(bencode(value)) == value


@given(st.binary(max_size=200))
def test_any_bytes_are_a_value_or_an_error_of_ours(data: bytes) -> None:
    try:
        bdecode(data)
    except NgError:
        return


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"i12",
        b"ie",
        b"5:abc",
        b"-1:abc",
        b"d3:abce",
        b"l",
        b"i1ei2e",
        b"x",
        b"l" * 5000 + b"e" * 5000,
        b"di1ei2e",
    ],
)
def test_what_is_not_bencoded_is_a_sentence(data: bytes) -> None:
    with pytest.raises(NgError, match="not bencoded"):
        bdecode(data)


def test_a_message_is_cookie_and_dictionary() -> None:
    message = question(b"5323_1", {"command": "ping"})
    assert message == b"5323_1 d7:command4:pinge"
    assert answer(b"5323_1 d6:result4:ponge") == (b"5323_1", {"result": "pong"})
    for wrong in (b"nocookie", b"c l4:ponge", b"c i1e"):
        with pytest.raises(NgError):
            answer(wrong)
    with pytest.raises(NgError, match="too long"):
        question(b"c", {"blob": "x" * LONGEST})


def test_a_leg_as_rtpengine_is_told_it() -> None:
    text = session_description(
        "192.0.2.1",
        4000,
        codec="OPUS",
        payload_type=111,
        event_payload_types=[101, 96],
        rtcp_port=4003,
    )
    assert "m=audio 4000 RTP/AVP 111 101 96\r\n" in text
    assert "a=rtpmap:101 telephone-event/48000\r\n" in text
    assert "a=rtcp:4003\r\n" in text
    assert media_of(text) == ("192.0.2.1", 4000)
    with pytest.raises(NgError, match="no stream"):
        media_of("v=0\r\n")


# ----------------------------------------------------------------------------------- the client


class Double(asyncio.DatagramProtocol):
    """What answers in rtpengine's place, as a test wants it."""

    def __init__(self) -> None:
        self.asked: list[tuple[bytes, dict[str, Any]]] = []
        self.ignore = 0
        self.say: list[bytes] = []

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        cookie, body = answer(data)
        self.asked.append((cookie, body))
        if self.ignore:
            self.ignore -= 1
            return
        for line in self.say:
            self.transport.sendto(line.replace(b"COOKIE", cookie), addr)


@pytest.fixture
async def pair() -> AsyncIterator[tuple[NgClient, Double]]:
    loop = asyncio.get_running_loop()
    transport, double = await loop.create_datagram_endpoint(Double, local_addr=("127.0.0.1", 0))
    client = await NgClient.open(transport.get_extra_info("sockname"))
    yield client, double
    client.close()
    transport.close()


async def test_an_unanswered_question_is_asked_again_under_the_same_cookie(
    pair: tuple[NgClient, Double],
) -> None:
    client, double = pair
    double.ignore, double.say = 2, [b"COOKIE d6:result2:oke"]
    assert (await client.ask("offer", {"sdp": "v=0"}))["result"] == "ok"
    assert len(double.asked) == 3
    assert len({cookie for cookie, _ in double.asked}) == 1
    assert double.asked[0][1] == {"command": "offer", "sdp": "v=0"}


async def test_only_the_answer_with_the_cookie_counts(pair: tuple[NgClient, Double]) -> None:
    client, double = pair
    double.say = [
        b"other d6:result2:noe",
        b"\xff\xfe garbage",
        b"COOKIE d6:result2:oke",
        b"COOKIE d6:result5:errore",
    ]
    assert (await client.ask("query"))["result"] == "ok"
    await asyncio.sleep(0.05)
    assert client.unreadable == 3


async def test_an_error_is_rtpengines_own_words(pair: tuple[NgClient, Double]) -> None:
    client, double = pair
    double.say = [b"COOKIE d12:error-reason15:Unknown call-id6:result5:errore"]
    with pytest.raises(NgRefused, match=r"'query': Unknown call-id") as caught:
        await client.ask("query")
    assert caught.value.unknown_call


async def test_nobody_there_is_known_at_once() -> None:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(Double, local_addr=("127.0.0.1", 0))
    address = transport.get_extra_info("sockname")
    transport.close()
    await asyncio.sleep(0.05)
    client = await NgClient.open(address)
    began = loop.time()
    with pytest.raises(NgUnreachable, match="nobody listens"):
        await client.ask("ping")
    assert loop.time() - began < 1
    client.close()


async def test_silence_is_a_sentence_after_a_few_tries(pair: tuple[NgClient, Double]) -> None:
    client, double = pair
    with pytest.raises(NgUnreachable, match="has not answered for 3 s"):
        await client.ask("offer")
    assert len(double.asked) == 4
    assert not await client.ping(0.05)


# ----------------------------------------------------------------------------------------- keys


def test_a_code_is_found_among_other_digits() -> None:
    codes = DigitCodes(["*9#", "*8#"])
    assert [codes.press(digit, 0.0) for digit in "1*19*9#2"] == [
        ("", "1"),
        ("", ""),
        ("", "*1"),
        ("", "9"),
        ("", ""),
        ("", ""),
        ("*9#", ""),
        ("", "2"),
    ]


def test_a_code_that_is_not_finished_is_released() -> None:
    codes = DigitCodes(["*9#"])
    codes.press("*", 0.0)
    codes.press("9", 1.0)
    assert codes.expire(1.0 + HOLD_S - 0.01) == ""
    assert codes.expire(1.0 + HOLD_S) == "*9"
    assert (codes.expire(99.0), codes.deadline) == ("", 0.0)


async def test_keys_of_strangers_are_not_pressed() -> None:
    heard: list[DtmfEvent] = []
    loop = asyncio.get_running_loop()
    log = await DtmfLog.open(("127.0.0.1", 0), frozenset({"127.0.0.1"}), heard.append)
    address = log._transport.get_extra_info("sockname")
    good = b'{"callid":"c","source_tag":"agent","type":"DTMF","event":10,"duration":80}'
    for source, line in (
        ("127.0.0.9", good),
        ("127.0.0.1", b"garbage"),
        ("127.0.0.1", good.replace(b"10", b"99")),
        ("127.0.0.1", b"[]"),
        ("127.0.0.1", good),
    ):
        transport, _ = await loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, local_addr=(source, 0), remote_addr=address
        )
        transport.sendto(line)
        transport.close()
        await asyncio.sleep(0.02)
    assert [(event.callid, event.digit) for event in heard] == [("c", "*")]
    assert log.refused == 4
    log.close()
