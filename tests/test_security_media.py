"""Who is not in a call neither speaks nor listens in it: RTP and RTCP from elsewhere.

Which source is taken at all is in :mod:`tests.test_core_latching`, forged and broken packets in
:mod:`tests.test_core_fuzz`, SRTP in :mod:`tests.test_core_srtp`. Here: what an injector who guesses
well gets, in every state of a call.
"""

from __future__ import annotations

import random

import pytest

from tests.core_kit import (
    ADDRESSES,
    AGENT,
    CALLER,
    FRAME,
    PCMU,
    STRANGER,
    CallInCore,
    clip,
    clip_bytes,
    rtp,
)
from tests.core_rtcp import block, decode, receiver_report, sender_report

#: What an injector would have heard.
FORGED = b"\x66" * 160
#: Another port of the right host: a second process on the phone's machine, or a NAT's guess.
BESIDE = (ADDRESSES[AGENT][0], ADDRESSES[AGENT][1] + 2)
#: RTCP type 203 of a source (RFC 3550 section 6.6).
BYE = 203


def goodbye(ssrc: int) -> bytes:
    return bytes([0x81, BYE, 0, 1]) + ssrc.to_bytes(4, "big")


def spray(call: CallInCore, leg: int, count: int = 200) -> None:
    """Packets with the right SSRC, type, next sequence number and timestamp: all was overheard."""
    source = call.source[leg]
    for number in range(count):
        for where in (STRANGER, BESIDE) if leg == AGENT else (STRANGER,):
            call.inject(
                leg,
                rtp(
                    FORGED,
                    source.kind,
                    source.sequence + number,
                    source.timestamp + 160 * number,
                    source.ssrc,
                ),
                source=where,
            )


@pytest.mark.parametrize("leg", [CALLER, AGENT])
def test_an_injector_who_knows_every_number_is_not_heard(leg: int) -> None:
    call, other = CallInCore(), AGENT if leg == CALLER else CALLER
    call.say(leg)
    assert len(call.sent(other)) == 1
    before = call.stats(leg)
    spray(call, leg)
    assert call.sent() == []
    assert all(frame.payload == FRAME for frame in call.tapped_audio())
    after = call.stats(leg)
    assert after["wrong_source"] - before["wrong_source"] == 200 * (2 if leg == AGENT else 1)
    # The one who is really there goes on in the same stream: no number was burnt.
    call.say(leg)
    (packet,) = call.sent(other)
    assert packet.payload == FRAME
    assert after["received"] == before["received"]


def test_the_negative_control_the_same_packets_from_the_right_place_are_heard() -> None:
    call = CallInCore()
    call.say(CALLER)
    call.sent()
    call.inject(
        CALLER,
        rtp(FORGED, PCMU, call.source[CALLER].sequence, call.source[CALLER].timestamp, 0x1000),
    )
    (packet,) = call.sent(AGENT)
    assert packet.payload == FORGED


def test_no_ssrc_that_is_guessed_opens_a_door() -> None:
    """The source decides, the SSRC never: thousands of them, the right one among them."""
    call = CallInCore()
    call.say(CALLER)
    call.sent()
    rng = random.Random(1)
    ours = [rng.getrandbits(32) for _ in range(4000)]
    ours[2000] = call.source[CALLER].ssrc
    for number, ssrc in enumerate(ours):
        call.inject(CALLER, rtp(FORGED, PCMU, number, 160 * number, ssrc), source=STRANGER)
    assert call.sent() == []
    assert [f.payload for f in call.tapped_audio()] == [FRAME]


def test_a_notice_cannot_be_disturbed_from_outside() -> None:
    """A prompt plays to the caller; forged voice and digits on either leg change no byte of it."""
    call = CallInCore(open_gates=False)
    prompt = clip(1600)
    assert call.core.play(call.handle, CALLER, 1, [prompt], False, False)
    for _ in range(15):
        spray(call, CALLER, 2)
        spray(call, AGENT, 2)
        call.run(0.02)
    heard = [packet for packet in call.sent(CALLER) if len(packet.payload) == 160]
    assert b"".join(packet.payload for packet in heard)[:1600] == clip_bytes(1600)
    sequence = [packet.sequence for packet in heard]
    assert sequence == [(sequence[0] + n) & 0xFFFF for n in range(len(sequence))]
    assert call.tapped() == []


def test_forged_rtcp_changes_nothing_that_is_shown_and_ends_no_stream() -> None:
    """Reports of heavy loss (which would lower the MOS that is shown) and a BYE of the caller."""
    call = CallInCore()
    for _ in range(300):
        call.say(CALLER, after=0.0)
        call.run(0.02)
    ours = [decode(data) for leg, _, data in call.rtcp_sent() if leg == AGENT][-1]
    before = {leg: call.stats(leg) for leg in (CALLER, AGENT)}
    lies = (
        receiver_report(5, block(ours.ssrc, fraction_lost=255)),
        sender_report(call.source[CALLER].ssrc),
        receiver_report(5) + goodbye(call.source[CALLER].ssrc),
    )
    ports = {leg: (host, port + 1) for leg, (host, port) in ADDRESSES.items()}
    for leg in (CALLER, AGENT):
        for lie in lies:
            for source in (STRANGER, (STRANGER[0], ports[leg][1])):
                call.inject(leg, lie, source=source, rtcp=True)
                call.inject(leg, lie, source=source)  # multiplexed with RTP (RFC 5761)
    after = {leg: call.stats(leg) for leg in (CALLER, AGENT)}
    for leg in (CALLER, AGENT):
        for figure in ("reported_loss_pct", "rtt_ms", "jitter_ms", "expected", "received"):
            assert after[leg][figure] == before[leg][figure]
        assert after[leg]["reports"] == before[leg]["reports"]
        assert after[leg]["wrong_source"] > before[leg]["wrong_source"]
    # The control: the first of the lies, told by the agent's phone itself, is shown.
    call.inject(AGENT, lies[0], source=ports[AGENT], rtcp=True)
    assert call.stats(AGENT)["reported_loss_pct"] > 90
    call.sent()
    call.say(CALLER)
    assert [packet.payload for packet in call.sent(AGENT)] == [FRAME]
    for _ in range(300):
        call.say(CALLER, after=0.0)
        call.run(0.02)
    assert {to[0] for _, to, _ in call.rtcp_sent()} <= {host for host, _ in ADDRESSES.values()}


def test_a_bye_in_rtcp_from_the_right_place_does_not_cut_the_voice_either() -> None:
    """RTCP is no signalling: what ends a call is SIP."""
    call = CallInCore()
    call.say(CALLER)
    call.sent()
    host, port = ADDRESSES[CALLER]
    call.inject(
        CALLER,
        receiver_report(call.source[CALLER].ssrc) + goodbye(call.source[CALLER].ssrc),
        source=(host, port + 1),
        rtcp=True,
    )
    call.say(CALLER)
    assert len(call.sent(AGENT)) == 1


def test_sip_on_a_media_port_is_nothing() -> None:
    """A scanner that tries every port: no answer, no packet to anybody, no door."""
    call = CallInCore()
    call.say(CALLER)
    call.sent()
    scans = [
        f"{method} sip:1001@192.0.2.1 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.66\r\n\r\n".encode()
        for method in ("OPTIONS", "INVITE", "REGISTER", "BYE")
    ] + [b"\r\n\r\n", b"SIP/2.0 200 OK\r\n\r\n", b"\x00\x01\x00\x00\x21\x12\xa4\x42" + bytes(12)]
    for leg in (CALLER, AGENT):
        for source in (STRANGER, ADDRESSES[leg]):
            for scan in scans:
                call.inject(leg, scan, source=source)
                call.inject(leg, scan, source=(source[0], source[1] + 1), rtcp=True)
    assert [packet.payload for packet in call.sent()] == []
    assert len(call.tapped_audio()) == 1
    call.say(CALLER)
    assert len(call.sent(AGENT)) == 1


def test_the_relay_is_no_amplifier() -> None:
    """Bytes out for bytes in: nothing for a stranger, one packet for one of a far end."""
    call = CallInCore()
    for leg in (CALLER, AGENT):
        spray(call, leg)
        for _ in range(200):
            call.inject(leg, receiver_report(5), source=STRANGER, rtcp=True)
    assert call.core.sent() == []
    for _ in range(50):
        call.say(CALLER)
    assert len(call.sent()) == 50
