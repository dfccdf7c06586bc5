"""Offer and answer: what the legs may say to each other, and what breaks nothing."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callshield.errors import SdpError
from sipbridge import sdp
from sipbridge.sdp import Codec, Direction

OFFER = (
    "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n"
    "m=audio 4000 RTP/AVP 18 8 0 96\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:96 telephone-event/8000\r\n"
    "a=fmtp:96 0-16\r\na=ptime:30\r\n"
)


def test_offer_is_read() -> None:
    audio = sdp.parse(OFFER).audio
    assert audio is not None
    assert (audio.address, audio.port, audio.ptime_ms) == ("192.0.2.1", 4000, 30)
    assert [codec.name for codec in audio.codecs] == ["G729", "PCMA", "PCMU", "telephone-event"]
    assert audio.event == Codec(96, "telephone-event", 8000)
    assert audio.direction is Direction.SENDRECV
    assert not audio.held


def test_first_voice_codec_of_the_offerer_wins() -> None:
    negotiated = sdp.negotiate(sdp.parse(OFFER))
    assert negotiated is not None
    assert negotiated.voice.name == "PCMA"
    assert negotiated.event is not None
    assert negotiated.event.payload_type == 96


def test_offer_without_g711_is_refused_and_named() -> None:
    offer = sdp.parse(OFFER.replace("18 8 0 96", "18 9 111") + "a=rtpmap:111 opus/48000/2\r\n")
    assert sdp.negotiate(offer) is None
    assert offer.offered() == "G729/8000, G722/8000, OPUS/48000"


def test_dynamic_payload_type_of_pcmu_is_kept() -> None:
    offer = sdp.parse(
        OFFER.replace("18 8 0 96", "97").replace("a=rtpmap:8 PCMA", "a=rtpmap:97 pcmu")
    )
    negotiated = sdp.negotiate(offer)
    assert negotiated is not None
    assert negotiated.voice == Codec(97, "PCMU", 8000)


def test_answer_has_a_line_for_every_line_of_the_offer() -> None:
    offer = sdp.parse(
        OFFER.replace("m=audio", "m=video 5000 RTP/AVP 31 34\r\na=rtpmap:31 H261/90000\r\nm=audio")
        + "m=text 5002 RTP/AVP 98\r\n"
    )
    negotiated = sdp.negotiate(offer)
    assert negotiated is not None
    answer = sdp.write_answer(
        offer, address="198.51.100.7", port=20000, negotiated=negotiated, session_id=7
    )
    lines = [line for line in answer.split("\r\n") if line.startswith("m=")]
    assert lines == [
        "m=video 0 RTP/AVP 31 34",
        "m=audio 20000 RTP/AVP 8 96",
        "m=text 0 RTP/AVP 98",
    ]
    # Nothing of the other side's address may shine through.
    assert "192.0.2.1" not in answer
    again = sdp.parse(answer).audio
    assert again is not None
    assert (again.address, again.port) == ("198.51.100.7", 20000)


@pytest.mark.parametrize(
    ("said", "answered", "held"),
    [
        ("sendrecv", "sendrecv", False),
        ("sendonly", "recvonly", True),
        ("inactive", "inactive", True),
        ("recvonly", "sendonly", False),
    ],
)
def test_direction_is_mirrored(said: str, answered: str, held: bool) -> None:
    offer = sdp.parse(OFFER + f"a={said}\r\n")
    negotiated = sdp.negotiate(offer)
    assert negotiated is not None
    assert offer.audio is not None
    assert offer.audio.held is held
    answer = sdp.write_answer(offer, address="::1", port=4, negotiated=negotiated, session_id=1)
    assert f"a={answered}\r\n" in answer
    assert "c=IN IP6 ::1" in answer


def test_hold_the_old_way() -> None:
    offer = sdp.parse(OFFER.replace("c=IN IP4 192.0.2.1", "c=IN IP4 0.0.0.0"))
    assert offer.audio is not None
    assert offer.audio.held


def test_host_name_is_no_address() -> None:
    offer = sdp.parse(OFFER.replace("c=IN IP4 192.0.2.1", "c=IN IP4 phone.example"))
    assert offer.audio is not None
    assert offer.audio.address == ""


def test_our_offer_carries_the_callers_codecs_in_order() -> None:
    audio = sdp.parse(OFFER).audio
    assert audio is not None
    offer = sdp.write_offer(
        address="198.51.100.7", port=30000, voices=audio.voice, events=True, session_id=3
    )
    again = sdp.parse(offer).audio
    assert again is not None
    assert [c.payload_type for c in again.codecs] == [8, 0, 101]


def test_secure_profile_is_read_but_is_nothing_for_a_plain_leg() -> None:
    offer = sdp.parse(OFFER.replace("RTP/AVP", "RTP/SAVP"))
    assert offer.audio is not None
    assert offer.audio.secure
    assert sdp.negotiate(offer) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "v=1\r\n",
        "hello",
        OFFER.replace("4000", "99999"),
        OFFER.replace("4000", "-1"),
        OFFER.replace("18 8 0 96", ""),
        OFFER.replace("18 8 0 96", "128"),
        OFFER.replace("PCMA/8000", "PCMA"),
        OFFER.replace("c=IN IP4 192.0.2.1", "c=IN"),
        OFFER + "x" * sdp.MAX_SDP_BYTES,
        OFFER + "garbage line\r\n",
    ],
)
def test_what_is_no_description_is_one_error(text: str) -> None:
    with pytest.raises(SdpError):
        sdp.parse(text)


@given(st.text(max_size=400))
def test_any_text_is_a_description_or_one_error(text: str) -> None:
    with contextlib.suppress(SdpError):
        sdp.parse("v=0\r\n" + text)


@given(st.integers(0, len(OFFER)), st.characters())
def test_one_changed_character_never_escapes(position: int, character: str) -> None:
    try:
        offer = sdp.parse(OFFER[:position] + character + OFFER[position + 1 :])
        negotiated = sdp.negotiate(offer)
        if negotiated is not None:
            answer = sdp.write_answer(
                offer, address="127.0.0.1", port=4000, negotiated=negotiated, session_id=1
            )
            sdp.parse(answer)
    except SdpError:
        pass
