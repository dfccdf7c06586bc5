"""SRTP of the relay in C against another binding of libsrtp: every suite, and every way to fail."""

from __future__ import annotations

import random
from typing import Any

import pytest
from pylibsrtp import Policy, Session

from tests.core_kit import (
    ADDRESSES,
    AGENT,
    CALLER,
    EVENTS,
    FRAME,
    STRANGER,
    CallInCore,
    Packet,
    clip,
    clip_bytes,
    parse,
    rtp,
    steps,
)
from tests.core_rtcp import block, decode, description, receiver_report

PROFILES = (
    Policy.SRTP_PROFILE_AES128_CM_SHA1_80,
    Policy.SRTP_PROFILE_AES128_CM_SHA1_32,
    Policy.SRTP_PROFILE_AEAD_AES_128_GCM,
    Policy.SRTP_PROFILE_AEAD_AES_256_GCM,
)
KEY_BYTES = (30, 30, 28, 44)
TAG_BYTES = (10, 4, 16, 16)
RTCP_TAG_BYTES = (10, 10, 16, 16)
SUITES = range(4)


class Peer:
    """A far end that speaks SRTP; its keys are for both directions.

    Args:
        suite: 0-3, see relay_core.pyi.
        seed: of the keys.
    """

    def __init__(self, suite: int, seed: int = 1) -> None:
        dice = random.Random(f"{suite} {seed}")
        self.suite = suite
        #: As the relay gets them: what it sends, what it receives.
        self.keys = (
            suite,
            dice.randbytes(KEY_BYTES[suite]),
            dice.randbytes(KEY_BYTES[suite]),
        )
        self.inbound = self._session(self.keys[1], Policy.SSRC_ANY_INBOUND)
        self.outbound = self._session(self.keys[2], Policy.SSRC_ANY_OUTBOUND)

    def _session(self, key: bytes, kind: int) -> Any:
        return Session(Policy(key=key, ssrc_type=kind, srtp_profile=PROFILES[self.suite]))

    def protect(self, data: bytes) -> bytes:
        made: bytes = self.outbound.protect(data)
        return made

    def read(self, call: CallInCore, leg: int) -> list[Packet]:
        """What this far end makes of the RTP it gets."""
        got = []
        for _, to_leg, is_rtcp, to, data in call.core.sent():
            if to_leg == leg and not is_rtcp:
                got.append(parse(leg, to, self.inbound.unprotect(data)))
        return got


def secured(suite: int, leg: int = AGENT) -> tuple[CallInCore, Peer]:
    peer = Peer(suite)
    return CallInCore(srtp={leg: peer.keys}), peer


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("leg", [CALLER, AGENT])
def test_one_leg_is_secured_and_the_other_is_plain(suite: int, leg: int) -> None:
    call, peer = secured(suite, leg)
    call.allow(record=True)
    plain = AGENT + CALLER - leg
    for number in range(50):
        call.say(plain, bytes([number]) * 160)
    raw = [data for _, to, rtcp, _, data in call.core.sent() if to == leg and not rtcp]
    assert {len(data) for data in raw} == {172 + TAG_BYTES[suite]}
    assert all(bytes([number]) * 8 not in data for number, data in enumerate(raw))
    got = [parse(leg, ADDRESSES[leg], peer.inbound.unprotect(data)) for data in raw]
    assert [one.payload for one in got] == [bytes([number]) * 160 for number in range(50)]
    assert set(steps(got)) == {(1, 160)}
    call.recorded()
    for number in range(50):
        call.inject(leg, peer.protect(call.source[leg].packet(bytes([number]) * 160)), after=0.02)
    heard = call.sent(plain)
    assert [one.payload for one in heard] == [bytes([number]) * 160 for number in range(50)]
    assert call.stats(leg)["srtp_refused"] == 0
    # What is tapped and recorded is the voice, not its cipher.
    assert [frame.payload for frame in call.recorded()] == [one.payload for one in heard]
    if leg == CALLER:
        assert [frame.payload for frame in call.tapped_audio()] == [one.payload for one in heard]


def test_who_misses_the_first_packets_can_read_the_rest() -> None:
    """For ten minutes: numbers that begin in their upper half would wrap soon, and only we knew."""
    for _ in range(50):
        call, _ = secured(0)
        call.say(CALLER)
        (row,) = (row for row in call.core.sent() if row[1] == AGENT and not row[2])
        assert int.from_bytes(row[4][2:4], "big") < 0x8000
    call, peer = secured(0)
    for number in range(0x7000):
        call.inject(CALLER, rtp(b"\x11", 0, number, 160 * number), after=0.02)
    call.core.sent()  # nobody was there
    call.inject(CALLER, rtp(b"\x22", 0, 0x7000, 160 * 0x7000), after=0.02)
    assert [one.payload for one in peer.read(call, AGENT)] == [b"\x22"]


def test_both_legs_are_secured_with_keys_of_their_own() -> None:
    caller, agent = Peer(0, 1), Peer(3, 2)
    call = CallInCore(srtp={CALLER: caller.keys, AGENT: agent.keys})
    call.inject(CALLER, caller.protect(call.source[CALLER].packet()))
    (there,) = agent.read(call, AGENT)
    call.inject(AGENT, agent.protect(call.source[AGENT].packet(b"\x22" * 160)))
    (back,) = caller.read(call, CALLER)
    assert (there.payload, back.payload) == (FRAME, b"\x22" * 160)


@pytest.mark.parametrize("suite", SUITES)
def test_what_was_tampered_with_is_refused_and_counted(suite: int) -> None:
    call, peer = secured(suite)
    good = peer.protect(call.source[AGENT].packet())
    # Every byte is either the header, or the payload, or the tag: one bit of any of them.
    for at in range(len(good)):
        spoilt = bytearray(good)
        spoilt[at] ^= 0x20 if at == 0 else 0x01
        call.inject(AGENT, bytes(spoilt))
    assert call.sent(CALLER) == []
    stats = call.stats(AGENT)
    # The version and payload type are looked at before.
    assert stats["srtp_refused"] + stats["malformed"] + stats["wrong_payload_type"] == len(good)
    assert stats["srtp_refused"] >= len(good) - 2
    assert stats["received"] == 0
    call.inject(AGENT, good)
    assert [one.payload for one in call.sent(CALLER)] == [FRAME]


@pytest.mark.parametrize("suite", SUITES)
def test_replayed_short_plain_and_wrongly_keyed_packets_are_refused(suite: int) -> None:
    call, peer = secured(suite)
    packets = [peer.protect(call.source[AGENT].packet()) for _ in range(10)]
    for data in packets:
        call.inject(AGENT, data)
    assert len(call.sent(CALLER)) == 10
    refused = 0
    for data in packets:
        call.inject(AGENT, data)
        refused += 1
    for data in (
        Peer(suite, 2).protect(call.source[AGENT].packet()),
        call.source[AGENT].packet(),
        rtp(b""),
        rtp(b"\x11" * 3),
        rtp(bytes(1400)),
    ):
        call.inject(AGENT, data)
        refused += 1
    assert call.sent(CALLER) == []
    assert call.stats(AGENT)["srtp_refused"] == refused
    assert call.stats(AGENT)["received"] == 10


def test_plain_rtp_never_leaves_a_secured_leg() -> None:
    call, _ = secured(0)
    call.say(CALLER)
    call.core.play(call.handle, AGENT, 1, [clip(1600)], False, False)
    call.run(0.3)
    call.press(CALLER, "5")
    call.run(6)
    # One session for all of it: our numbers begin anywhere, and may wrap on the way.
    other = Peer(0)
    for _, leg, is_rtcp, _, data in call.core.sent():
        if leg == AGENT and not is_rtcp:
            assert other.inbound.unprotect(data) != data
            assert FRAME[:20] not in data


@pytest.mark.parametrize("suite", SUITES)
def test_prompts_and_digits_go_out_secured_in_the_same_stream(suite: int) -> None:
    call, peer = secured(suite)
    call.say(CALLER)
    call.core.play(call.handle, AGENT, 1, [clip(1600)], False, False)
    call.run(0.25)
    call.press(CALLER, "5")
    call.core.digit(call.handle, CALLER, "6")
    call.run(0.3)
    call.say(CALLER)
    got = peer.read(call, AGENT)
    assert {step[0] for step in steps(got)} == {1}
    assert b"".join(one.payload for one in got[1:11]) == clip_bytes(1600)
    events = [one.payload[0] for one in got if one.payload_type == EVENTS[AGENT]]
    assert events == [5] * 8 + [6] * 7
    # The far end's digits are heard too.
    for data in call.source[AGENT].press("7", EVENTS[AGENT]):
        call.inject(AGENT, peer.protect(data), after=0.02)
    assert [one.payload[0] for one in call.sent(CALLER)] == [7] * 8


@pytest.mark.parametrize("suite", SUITES)
def test_rtcp_is_secured_both_ways(suite: int) -> None:
    call, peer = secured(suite)
    for _ in range(300):
        call.say(CALLER, after=0.0)
        call.run(0.02)
    raw = [data for leg, _, data in call.rtcp_sent() if leg == AGENT]
    plain = [peer.inbound.unprotect_rtcp(data) for data in raw]
    reports = [decode(data) for data in plain]
    assert reports
    assert {len(data) for data in raw} == {len(plain[0]) + 4 + RTCP_TAG_BYTES[suite]}
    told = receiver_report(5, block(reports[0].ssrc, fraction_lost=128)) + description(5)
    rtcp_port = (ADDRESSES[AGENT][0], ADDRESSES[AGENT][1] + 1)

    def refused() -> int:
        count: int = call.stats(AGENT)["srtp_refused"]
        return count

    secret = peer.outbound.protect_rtcp(told)
    for data in (told, secret[:-1] + bytes([secret[-1] ^ 1]), secret[:12], b"\x80", b""):
        before = refused()
        call.inject(AGENT, data, source=rtcp_port, rtcp=True)
        assert refused() == before + 1
    assert call.stats(AGENT)["reported_loss_pct"] == -1
    call.inject(AGENT, secret, source=rtcp_port, rtcp=True)
    assert call.stats(AGENT)["reported_loss_pct"] == 50
    call.inject(AGENT, secret, source=rtcp_port, rtcp=True)
    assert call.stats(AGENT)["reports"] == 1
    assert refused() == 6


@pytest.mark.parametrize("suite", SUITES)
def test_lost_and_reordered_packets_and_the_wrap_of_sequence_numbers(suite: int) -> None:
    call, peer = secured(suite)
    source = call.source[AGENT]
    source.sequence = 65_000
    sent = [(n, peer.protect(source.packet(n.to_bytes(2, "big") * 80))) for n in range(1500)]
    dice = random.Random(6)
    sent = [row for row in sent if dice.random() > 0.05]
    order = sorted(sent, key=lambda row: row[0] + dice.uniform(0, 4))
    for _, data in order:
        call.inject(AGENT, data, after=0.02)
    got = call.sent(CALLER)
    assert [int.from_bytes(one.payload[:2], "big") for one in got] == [row[0] for row in order]
    assert call.stats(AGENT)["srtp_refused"] == 0


def test_what_comes_as_late_as_the_relay_takes_it_is_within_the_replay_window() -> None:
    caller, agent = Peer(0, 1), Peer(2, 2)
    call = CallInCore(srtp={CALLER: caller.keys, AGENT: agent.keys})
    packets = [caller.protect(call.source[CALLER].packet()) for _ in range(200)]
    late = packets.pop(100)
    for data in packets[:190]:
        call.inject(CALLER, data, after=0.02)
    call.inject(CALLER, late)
    assert call.stats(CALLER)["srtp_refused"] == 0
    assert call.stats(AGENT)["unsent"] == 0
    raw = [data for _, leg, rtcp, _, data in call.core.sent() if leg == AGENT and not rtcp]
    assert len(raw) == 191


def test_our_own_numbers_wrap_twice_and_the_far_end_can_still_read_them() -> None:
    call, peer = secured(0)
    # Twice around: the rollover counter reaches 2 (RFC 3711 section 3.3.1).
    count = 2 * 65_536 + 1000
    readable = 0
    for number in range(count):
        call.inject(CALLER, rtp(b"\x11", 0, number, 160 * number), after=0.02)
        if number % 1000 == 999 or number == count - 1:
            got = peer.read(call, AGENT)
            readable += len(got)
    assert readable == count


def test_the_far_ends_numbers_wrap_twice() -> None:
    call, peer = secured(0)
    count = 2 * 65_536 + 1000
    heard = 0
    for number in range(count):
        call.inject(AGENT, peer.protect(rtp(b"\x11", 0, number, 160 * number)), after=0.02)
        if number % 1000 == 999 or number == count - 1:
            heard += len(call.sent(CALLER))
    assert heard == count


@pytest.mark.parametrize("suite", SUITES)
def test_new_keys_take_over_and_the_old_ones_are_worth_nothing(suite: int) -> None:
    call, old = secured(suite)
    call.say(CALLER)
    before = old.read(call, AGENT)
    late = old.protect(call.source[AGENT].packet())
    new = Peer((suite + 1) % 4, 2)
    call.negotiate(AGENT, srtp=new.keys)
    call.say(CALLER)
    after = new.read(call, AGENT)
    assert steps(before + after) == [(1, 160)]
    call.inject(AGENT, late)
    assert call.stats(AGENT)["srtp_refused"] == 1
    call.inject(AGENT, new.protect(call.source[AGENT].packet()))
    assert len(call.sent(CALLER)) == 1


def test_the_same_keys_again_go_on_where_they_were() -> None:
    call, peer = secured(0)
    data = peer.protect(call.source[AGENT].packet())
    call.inject(AGENT, data)
    call.say(CALLER)
    assert len(peer.read(call, AGENT)) == 1
    call.negotiate(AGENT, srtp=(0, None, None))
    # The replay list is the old one, and so is the packet index.
    call.inject(AGENT, data)
    assert call.stats(AGENT)["srtp_refused"] == 1
    call.say(CALLER)
    assert len(peer.read(call, AGENT)) == 1


@pytest.mark.parametrize("suite", SUITES)
def test_one_direction_may_get_a_new_key_while_the_other_goes_on(suite: int) -> None:
    call, peer = secured(suite)
    call.say(CALLER)
    call.inject(AGENT, first := peer.protect(call.source[AGENT].packet()))
    assert len(peer.read(call, AGENT)) == 1
    new = Peer(suite, 2)
    call.negotiate(AGENT, srtp=(suite, new.keys[1], None))
    call.say(CALLER)
    assert len(new.read(call, AGENT)) == 1
    call.inject(AGENT, first)
    assert call.stats(AGENT)["srtp_refused"] == 1
    call.inject(AGENT, peer.protect(call.source[AGENT].packet()))
    assert len(call.sent(CALLER)) == 1
    call.negotiate(AGENT, srtp=(suite, None, new.keys[2]))
    call.inject(AGENT, new.protect(call.source[AGENT].packet()))
    assert len(call.sent(CALLER)) == 1
    call.say(CALLER)
    assert len(new.read(call, AGENT)) == 1


def test_keys_may_be_put_aside_and_taken_up() -> None:
    call, peer = secured(0)
    call.srtp.clear()
    call.negotiate(AGENT)
    call.say(AGENT)
    assert len(call.sent(CALLER)) == 1
    call.srtp[AGENT] = peer.keys
    call.negotiate(AGENT)
    call.say(AGENT)
    assert call.sent(CALLER) == []
    call.inject(AGENT, peer.protect(call.source[AGENT].packet()))
    assert len(call.sent(CALLER)) == 1


@pytest.mark.parametrize("suite", SUITES)
def test_keys_of_a_wrong_length_are_refused_and_the_leg_stays_as_it_was(suite: int) -> None:
    call, peer = secured(suite)
    for wrong in (
        (suite, peer.keys[1][:-1], peer.keys[2]),
        (suite, peer.keys[1], peer.keys[2] + b"x"),
        (suite, b"", b""),
        (4, peer.keys[1], peer.keys[2]),
        (-1, peer.keys[1], peer.keys[2]),
    ):
        with pytest.raises(ValueError, match="key does not fit"):
            call.negotiate(AGENT, srtp=wrong)
    call.inject(AGENT, peer.protect(call.source[AGENT].packet()))
    assert len(call.sent(CALLER)) == 1


def test_without_a_key_of_before_there_is_none_to_keep() -> None:
    peer = Peer(0)
    call = CallInCore()
    for keys in ((0, None, None), (0, peer.keys[1], None), (0, None, peer.keys[2])):
        with pytest.raises(ValueError, match="no SRTP key of before"):
            call.negotiate(AGENT, ("192.0.2.99", 9), srtp=keys)
    # The leg stays as it was: plain, and where it was.
    call.say(CALLER)
    assert [(one.to, one.payload) for one in call.sent()] == [(ADDRESSES[AGENT], FRAME)]


def test_who_lacks_the_key_latches_nowhere() -> None:
    nat = "198.51.100.7"
    peer = Peer(0)
    call = CallInCore(srtp={AGENT: peer.keys}, signalling={AGENT: nat})
    # Even from the right host, even from the address in the SDP.
    for source in ((nat, 61_000), ADDRESSES[AGENT], STRANGER):
        call.inject(AGENT, Peer(0, 2).protect(call.source[AGENT].packet()), source=source)
    call.say(CALLER)
    assert [one.to for one in peer.read(call, AGENT)] == [ADDRESSES[AGENT]]
    call.inject(AGENT, peer.protect(call.source[AGENT].packet()), source=(nat, 62_000))
    call.say(CALLER)
    assert [one.to for one in peer.read(call, AGENT)] == [(nat, 62_000)]


def test_a_promoted_helper_keeps_its_keys() -> None:
    peer = Peer(2)
    call = CallInCore(legs=(CALLER, AGENT, 2), srtp={2: peer.keys})
    call.core.play(call.handle, 2, 1, [clip(160)], False, False)
    call.run(0.03)
    before = peer.read(call, 2)
    call.core.remove_leg(call.handle, AGENT)
    call.core.promote(call.handle)
    call.say(CALLER)
    after = peer.read(call, AGENT)
    assert steps(before + after)[0][0] == 1
    call.inject(AGENT, peer.protect(call.source[2].packet()), source=ADDRESSES[2])
    assert len(call.sent(CALLER)) == 1
