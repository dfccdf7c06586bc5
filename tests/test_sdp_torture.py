"""Session descriptions that nobody should send, in the spirit of RFC 4475 and RFC 5118."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callshield.errors import SdpError
from sipbridge import sdp
from sipbridge.leg_policy import LegPolicy
from sipbridge.offer_answer import LegMedia, read_offer
from sipbridge.sdp import Codec

ALL = LegPolicy(codecs=("PCMU", "PCMA", "G722", "OPUS"), srtp="optional", keys_may_travel=True)
HEAD = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n"
AUDIO = "m=audio 4000 RTP/AVP 0 8 101\r\na=rtpmap:101 telephone-event/8000\r\n"
GOOD = HEAD + AUDIO + "a=ptime:20\r\n"
RICH = (
    HEAD
    + "m=audio 4000 RTP/SAVP 96 9 0 13 101 102\r\n"
    + "a=rtpmap:96 opus/48000/2\r\na=fmtp:96 useinbandfec=1;maxplaybackrate=16000\r\n"
    + "a=rtpmap:101 telephone-event/8000\r\na=rtpmap:102 telephone-event/48000\r\n"
    + "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:" + "A" * 40 + "|2^31\r\n"
    + "a=rtcp:4001 IN IP4 192.0.2.1\r\na=ptime:30\r\na=maxptime:60\r\na=sendonly\r\n"
    + "m=video 0 RTP/AVP 31\r\n"
)  # fmt: skip
TOKENS = [
    "v=0", "m=audio 4000 RTP/AVP 0", "m=audio", "c=IN IP4 1.2.3.4", "c=IN IP6 ::1", "a=rtpmap:",
    "0 PCMU/8000", "a=crypto:1 ", "AES_CM_128_HMAC_SHA1_80 inline:", "A" * 40, "|2^31", "|1:4",
    "a=fmtp:96 ", "useinbandfec=1", "a=ptime:", "-1", "99999999999999999999", "0", "a=sendonly",
    "a=rtcp:", "\r\n", "\r", "\n", "\t", " ", "\x00", "\x0b", "\x1c", "\u2028", "\xa0", "\ud55c",
    "\udcff", "=", "/", ":", ";", "RTP/SAVP", "96", "128", "opus/48000/2", "%eth0", "*",
]  # fmt: skip


def survives(text: str) -> str:
    """Parse and answer as a call would; the answer, or the sentence of the one allowed error."""
    media = LegMedia(ALL, "198.51.100.7", port=30000, random=lambda length: b"\x01" * length)
    try:
        offer = sdp.parse(text)
        offer.offered()
        answer, _, _ = media.answer(offer, None)
    except SdpError as error:
        return str(error)
    # Whatever came in, what goes out is a clean description of ours.
    assert sdp.parse(answer).audio is not None
    assert all(" " <= character <= "~" or character in "\r\n" for character in answer)
    assert answer.replace("\r\n", "").isprintable()
    assert "192.0.2.1" not in answer
    with contextlib.suppress(SdpError):
        media.offer((Codec(0, "PCMU", 8000),))
        media.take_answer(offer)
    return answer


ACCEPTED = {
    "line ends of Unix": GOOD.replace("\r\n", "\n"),
    "no last line end": GOOD.removesuffix("\r\n"),
    "empty lines": GOOD.replace("\r\n", "\r\n\r\n"),
    "blank after v": GOOD.replace("v=0", "v=0 "),
    "tabs in m": GOOD.replace("m=audio 4000", "m=audio\t4000"),
    "tabs in c": GOOD.replace("c=IN IP4", "c=IN\tIP4"),
    "name of the session in EUC-KR": GOOD.replace("s=-", "s=\udcb0\udcb3"),
    "name of the session in Korean": GOOD.replace("s=-", "s=고객센터"),
    "rtpmap of an absent payload type": GOOD + "a=rtpmap:99 evil/1\r\n",
    "the same rtpmap twice": GOOD + "a=rtpmap:101 telephone-event/8000\r\n",
    "another rtpmap of one number": GOOD + "a=rtpmap:101 opus/48000/2\r\n",
    "the same format many times": GOOD.replace("0 8 101", "0 0 0 8 8 101 101"),
    "formats nobody knows": GOOD.replace("0 8 101", "97 98 0 127 101"),
    "number of ports": GOOD.replace("4000", "4000/2"),
    "unspecified IPv6": GOOD.replace("c=IN IP4 192.0.2.1", "c=IN IP6 ::"),
    "two c lines": GOOD + "c=IN IP4 192.0.2.3\r\nc=IN IP4 192.0.2.4\r\n",
    "two directions": GOOD + "a=sendonly\r\na=sendrecv\r\n",
    "parameters of the dialect": GOOD + "a=x-unknown:\r\na=:\r\na=\r\nb=AS:64\r\nk=clear:x\r\n",
    "fmtp without text": GOOD + "a=fmtp:\r\na=fmtp:0\r\na=fmtp:999 x\r\n",
    "odd packet lengths": GOOD + "a=ptime:\r\na=ptime:x\r\na=maxptime:-5\r\na=ptime:20.5\r\n",
    "odd RTCP ports": GOOD + "a=rtcp:x\r\na=rtcp:-1\r\na=rtcp:123456\r\n",
    "crypto of nobody": GOOD + "a=crypto:\r\na=crypto:1\r\na=crypto:x y z\r\n",
    "many attributes": GOOD + "a=candidate:1 1 UDP 1 192.0.2.9 5 typ host\r\n" * 200,
    "fifteen refused lines": GOOD + "m=video 0 RTP/AVP 31\r\n" * 15,
    "a video line of another protocol": GOOD + "m=application 9 UDP/BFCP *\r\n",
    "an audio line of another protocol": HEAD + "m=audio 9 TCP/MRCPv2 1\r\n" + AUDIO,
    "everything": RICH,
}  # fmt: skip

#: Parsed, but there is no address of our family to send to (RFC 3261 section 20.43, code 301).
UNREACHABLE = {
    "host name": GOOD.replace("c=IN IP4 192.0.2.1", "c=IN IP4 phone.example.com"),
    "IPv6": GOOD.replace("c=IN IP4 192.0.2.1", "c=IN IP6 2001:db8::9:1"),
    "IPv4 inside IPv6": GOOD.replace("c=IN IP4 192.0.2.1", "c=IN IP6 ::ffff:192.0.2.128"),
    "an interface's name": GOOD.replace("c=IN IP4 192.0.2.1", "c=IN IP6 fe80::1%eth0"),
    "group address": GOOD.replace("c=IN IP4 192.0.2.1", "c=IN IP4 224.2.36.42/127"),
    "no c line": GOOD.replace("c=IN IP4 192.0.2.1\r\n", ""),
}

REFUSED = {
    **UNREACHABLE,
    "nothing": "",
    "only line ends": "\r\n\r\n",
    "another version": GOOD.replace("v=0", "v=1"),
    "version not first": "s=-\r\n" + GOOD,
    "byte order mark": "\ufeff" + GOOD,
    "UTF-16": GOOD.encode("utf-16-le").decode("latin-1"),
    "NUL": GOOD.replace("s=-", "s=\x00"),
    "a carriage return alone": GOOD.replace("\r\n", "\r"),
    "no equals sign": GOOD + "nonsense\r\n",
    "binary": bytes(range(256)).decode("latin-1"),
    "JSON": '{"v": 0}',
    "cut in m": HEAD + "m=aud",
    "cut behind the port": HEAD + "m=audio 4000",
    "cut in rtpmap": GOOD + "a=rtpmap:0",
    "no formats": GOOD.replace(" 0 8 101", ""),
    "a thousand formats": GOOD.replace("0 8 101", " ".join(["0"] * 1000)),
    "a thousand m lines": GOOD + "m=video 0 RTP/AVP 31\r\n" * 500,
    "negative port": GOOD.replace("4000", "-4000"),
    "port too large": GOOD.replace("4000", "65536"),
    "port without end": GOOD.replace("4000", "4" * 5000),
    "port in Arabic digits": GOOD.replace("4000", "\u0664\u0660"),
    "negative payload type": GOOD.replace("0 8 101", "-1"),
    "payload type too large": GOOD.replace("0 8 101", "128"),
    "payload type with sign": GOOD.replace("0 8 101", "+8"),
    "rtpmap without rate": GOOD + "a=rtpmap:0 PCMU\r\n",
    "rtpmap with a rate without end": GOOD + "a=rtpmap:0 PCMU/" + "8" * 400 + "\r\n",
    "c line cut": GOOD.replace("c=IN IP4 192.0.2.1", "c=IN IP4"),
    "c line of another network": GOOD.replace("c=IN IP4", "c=ATM NSAP"),
    "c line of another family": GOOD.replace("c=IN IP4 192.0.2.1", "c=IN IP4 ::1"),
    "control character in m": GOOD.replace("audio 4000", "audio 4000\x1b"),
    "control character in a refused line": GOOD + "m=video 0 RTP/AVP 31\x07\r\n",
    "megabyte": GOOD + "a=x\r\n" * 200_000,
    "audio refused": GOOD.replace("4000", "0"),
    "only video": GOOD.replace("audio", "video"),
    "only codecs of others": GOOD.replace("0 8 101", "18"),
    "other clock of PCMU": GOOD.replace("0 8 101", "97") + "a=rtpmap:97 PCMU/16000\r\n",
    "PCMU in stereo": GOOD.replace("0 8 101", "97") + "a=rtpmap:97 PCMU/8000/2\r\n",
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_odd_but_understandable(name: str) -> None:
    assert survives(ACCEPTED[name]).startswith("v=0\r\n")


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_one_sentence(name: str) -> None:
    said = survives(REFUSED[name])
    assert not said.startswith("v=0")
    assert 10 < len(said) < 400
    assert "\r" not in said


def test_every_truncation_is_a_description_or_one_error() -> None:
    for end in range(len(RICH)):
        survives(RICH[:end])


def test_nothing_of_a_stranger_is_sent_where_nobody_listens() -> None:
    for name in ("host name", "an interface's name", "group address", "no c line"):
        audio = sdp.parse(UNREACHABLE[name]).audio
        assert audio is not None
        assert audio.address == "", name
    unspecified = sdp.parse(ACCEPTED["unspecified IPv6"]).audio
    assert unspecified is not None
    assert unspecified.held


def test_first_of_two_rtpmaps_counts_as_it_does_for_pjsip() -> None:
    audio = sdp.parse(ACCEPTED["another rtpmap of one number"]).audio
    assert audio is not None
    assert audio.event == Codec(101, "telephone-event", 8000)


@settings(max_examples=300)
@given(st.lists(st.sampled_from(TOKENS), max_size=60).map("".join))
def test_any_heap_of_its_words(text: str) -> None:
    survives(HEAD + text)
    survives(text)


@settings(max_examples=300)
@given(st.data())
def test_any_mutation_of_a_rich_one(data: st.DataObject) -> None:
    lines = RICH.split("\r\n")
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(lines) - 1))
        what = data.draw(st.sampled_from(["drop", "repeat", "swap", "insert", "cut"]))
        if what == "drop" and len(lines) > 1:
            del lines[at]
        elif what == "repeat":
            lines.insert(at, lines[at])
        elif what == "swap":
            other = data.draw(st.integers(0, len(lines) - 1))
            lines[at], lines[other] = lines[other], lines[at]
        elif what == "insert":
            lines[at] += data.draw(st.text(max_size=8))
        else:
            lines[at] = lines[at][: data.draw(st.integers(0, len(lines[at])))]
    survives("\r\n".join(lines))


@given(st.binary(max_size=600))
def test_any_bytes_as_pjsua2_hands_them_over(body: bytes) -> None:
    text = body.decode("utf-8", "surrogateescape")
    with contextlib.suppress(SdpError):
        read_offer("INVITE sip:1 SIP/2.0\r\n\r\n" + text, ALL)
    survives("v=0\r\n" + text)


def costs(text: str, work: Callable[[str], object] = survives) -> float:
    """Seconds of CPU for one reading, the best of several."""
    best = float("inf")
    for _ in range(7):
        begun = time.process_time_ns()
        for _ in range(5):
            work(text)
        best = min(best, (time.process_time_ns() - begun) / 5e9)
    return best


@pytest.mark.parametrize(
    "grow",
    [
        lambda n: GOOD + "a=x:y\r\n" * (n // 7),
        lambda n: GOOD + "a=" + " " * n + "\r\n",
        lambda n: GOOD + "a=rtpmap:0" + " " * n + "PCMU/8000\r\n",
        lambda n: GOOD + "a=rtpmap:0 PCMU/8000" + " " * n + "x\r\n",
        lambda n: GOOD + "a=fmtp:0 " + "a;" * (n // 2) + "\r\n",
        lambda n: GOOD + "a=crypto:1 X" + " " * n + "inline:\r\n",
        lambda n: GOOD + "a=crypto:1 X inline:" + "A" * 100 + " y" * (n // 2) + "\r\n",
        lambda n: GOOD + ("a=crypto:1 " + "A" * 60 + "  " * 30 + "\r\n") * (n // 130),
        lambda n: GOOD + "m=video 0 RTP/AVP " + "3" * n + "\r\n",
        lambda n: GOOD.replace("192.0.2.1\r\nt", "1." * (n // 2) + "\r\nt"),
        lambda n: GOOD + "\r\n" * (n // 2),
        lambda n: GOOD + "\r" * n,
    ],
)
def test_time_grows_with_length_and_not_with_its_square(grow: Callable[[int], str]) -> None:
    small, large = grow(1_900), grow(15_200)
    assert len(large) <= sdp.MAX_SDP_BYTES
    # Eight times the length: a square would cost 64 times as much.
    assert costs(large) < 24 * costs(small) + 0.0005


def test_the_measure_sees_a_square() -> None:
    """Negative control."""

    def square(text: str) -> int:
        return sum(text.count(character) for character in text[::8])

    assert costs("x" * 15_200, square) > 24 * costs("x" * 1_900, square) + 0.0005
