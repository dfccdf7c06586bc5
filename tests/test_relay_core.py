"""The relay core without a socket: what it lets through, and that nothing breaks it."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sipbridge.latching import Latch
from sipbridge.relay import AgentLeg, CallerLeg, Inlet, Outlet
from sipbridge.rtp import HEADER

from callshield.messages import DigitPressed, LegName, MediaMessage

CALLER = ("192.0.2.10", 4000)
AGENT = ("192.0.2.20", 5000)
CALL_ID = "0" * 32


class Tape:
    """A tap that remembers."""

    def __init__(self) -> None:
        self.payloads: list[bytes] = []

    def frame(
        self, codec: int, sequence: int, timestamp: int, now: float, payload: bytearray
    ) -> None:
        self.payloads.append(bytes(payload))


class Pair:
    """Both legs of a call, negotiated and open."""

    def __init__(self, caller_type: int = 0, agent_type: int = 0, agent_event: int = 96) -> None:
        self.outbox: list[MediaMessage] = []
        self.tape = Tape()
        legs = []
        for name, address, voice, event in (
            (LegName.CALLER, CALLER, caller_type, 101),
            (LegName.AGENT, AGENT, agent_type, agent_event),
        ):
            latch = Latch((), 5.0)
            inlet, outlet = Inlet(CALL_ID, name, latch, self.outbox), Outlet(latch)
            inlet.negotiate(address, "", voice, event, 0.0)
            legs.append((inlet, outlet))
        self.caller = CallerLeg(*legs[0])
        self.agent = AgentLeg(*legs[1])
        self.caller.outlet.negotiate(caller_type, 101, agent_type)
        self.agent.outlet.negotiate(agent_type, agent_event, caller_type)
        self.caller.outlet.open_gate(True)
        self.agent.outlet.open_gate(True)
        self.caller.tap = self.tape
        self.now = 1.0

    def from_caller(self, data: bytes, source: tuple[str, int] = CALLER) -> bytes:
        buffer = bytearray(2048)
        buffer[: len(data)] = data
        self.now += 0.02
        size = self.caller.receive(buffer, len(data), source, self.now, self.agent.outlet)
        return bytes(buffer[:size])

    def from_agent(self, data: bytes) -> bytes:
        buffer = bytearray(2048)
        buffer[: len(data)] = data
        self.now += 0.02
        size = self.agent.receive(buffer, len(data), AGENT, self.now, self.caller.outlet)
        return bytes(buffer[:size])


def rtp(payload: bytes, kind: int = 0, sequence: int = 1, timestamp: int = 160) -> bytes:
    return HEADER.pack(0x80, kind, sequence, timestamp, 7) + payload


def test_voice_goes_through_with_the_other_legs_payload_type() -> None:
    pair = Pair(caller_type=0, agent_type=8)
    out = pair.from_caller(rtp(b"\xff" * 160))
    assert out[1] & 0x7F == 8
    assert out[12:] == b"\xd5" * 160
    back = pair.from_agent(rtp(b"\xd5" * 160, 8))
    assert back[1] & 0x7F == 0
    # A-law has no zero: its silence is the smallest positive step.
    assert back[12:] == b"\xfe" * 160


def test_the_tap_gets_the_callers_own_bytes_and_never_the_agents() -> None:
    pair = Pair(caller_type=0, agent_type=8)
    pair.from_caller(rtp(b"\x11" * 160))
    pair.from_agent(rtp(b"\x22" * 160, 8))
    assert pair.tape.payloads == [b"\x11" * 160]


def test_the_agents_leg_has_no_place_for_a_tap() -> None:
    pair = Pair()
    with pytest.raises(AttributeError):
        pair.agent.tap = pair.tape  # type: ignore[attr-defined]


def test_the_tap_hears_the_caller_even_while_nobody_else_does() -> None:
    # A closing prompt plays to the agent, say: whether the caller is tapped is the flow's matter.
    pair = Pair()
    pair.agent.outlet.open_gate(False)
    assert pair.from_caller(rtp(b"\x11" * 160)) == b""
    assert pair.tape.payloads == [b"\x11" * 160]


@pytest.mark.parametrize("payload_type", [3, 8, 13, 18, 72, 96, 127])
def test_other_payload_types_are_dropped_and_counted(payload_type: int) -> None:
    pair = Pair()
    pair.from_caller(rtp(b"\x11" * 160))
    assert pair.from_caller(rtp(b"\x11" * 160, payload_type, 2, 320)) == b""
    assert pair.caller.inlet.wrong_payload_type == 1
    assert pair.caller.inlet.received == 1


def test_a_far_end_with_another_codec_is_not_called_a_stranger() -> None:
    pair = Pair()
    assert pair.from_caller(rtp(b"\x11" * 20, 18)) == b""
    assert pair.from_caller(rtp(b"\x11" * 20, 18), ("192.0.2.66", 9)) == b""
    assert (pair.caller.inlet.wrong_payload_type, pair.caller.inlet.wrong_source) == (1, 1)


def test_events_change_their_payload_type_and_are_dropped_where_there_is_none() -> None:
    payload = bytes([5, 0x8A, 3, 32])
    out = Pair().from_caller(rtp(payload, 0x80 | 101))
    assert out[1] == 0x80 | 96
    assert out[12:] == payload
    deaf = Pair(agent_event=-1)
    assert deaf.from_caller(rtp(payload, 101)) == b""
    assert [message.digit for message in deaf.outbox if isinstance(message, DigitPressed)] == ["5"]


def test_an_event_that_is_too_short_is_malformed() -> None:
    pair = Pair()
    assert pair.from_caller(rtp(b"\x05\x8a\x00", 101)) == b""
    assert (pair.caller.inlet.malformed, pair.caller.inlet.received) == (1, 0)


def test_a_keepalive_without_payload_latches_and_is_not_forwarded() -> None:
    pair = Pair()
    assert pair.from_caller(rtp(b"")) == b""
    assert pair.caller.inlet.received == 1
    assert pair.caller.inlet.malformed == 0
    assert pair.tape.payloads == []


def test_a_flow_that_opens_again_has_no_gap_for_what_was_held_back() -> None:
    pair = Pair()
    first = HEADER.unpack_from(pair.from_caller(rtp(b"\x11" * 160, 0, 1, 160)))
    pair.agent.outlet.open_gate(False)
    for number in range(2, 100):
        assert pair.from_caller(rtp(b"\x11" * 160, 0, number, 160 * number)) == b""
    pair.agent.outlet.open_gate(True)
    second = HEADER.unpack_from(pair.from_caller(rtp(b"\x11" * 160, 0, 100, 16000)))
    assert (second[2] - first[2]) & 0xFFFF == 1
    assert second[1] & 0x80
    # Two seconds went by, and the phone is told so.
    assert (second[3] - first[3]) & 0xFFFFFFFF == 99 * 160


def test_a_hundred_thousand_random_packets_from_the_right_place_forward_nothing() -> None:
    pair = Pair()
    dice = random.Random(11)
    buffer = bytearray(2048)
    count = 100_000
    for number in range(count):
        size = dice.choice((0, 1, 11, 12, 13, 44, 172, 1400, 2048))
        data = bytearray(dice.randbytes(size))
        if size > 1:
            if number % 2:
                data[0] = 0x80 | data[0] & 0x3F
            if data[1] & 0x7F in (0, 101):
                data[1] = 0x83
        buffer[:size] = data
        assert pair.caller.receive(buffer, size, CALLER, 1.0, pair.agent.outlet) == 0
    inlet = pair.caller.inlet
    assert inlet.malformed + inlet.wrong_payload_type + inlet.wrong_source == count
    assert pair.tape.payloads == []
    # The control: the same leg still takes a good packet.
    assert pair.from_caller(rtp(b"\x11" * 160))


@given(st.binary(max_size=600), st.sampled_from([CALLER, ("192.0.2.66", 9)]))
def test_whatever_is_forwarded_is_plain_rtp_of_ours(data: bytes, source: tuple[str, int]) -> None:
    pair = Pair()
    out = pair.from_caller(data, source)
    if out:
        assert source == CALLER
        assert out[0] == 0x80
        assert out[1] & 0x7F in (0, 96)
        assert out[12:] in data
        assert out[8:12] == pair.agent.outlet.stream.ssrc.to_bytes(4, "big")
    else:
        inlet = pair.caller.inlet
        assert inlet.malformed + inlet.wrong_source + inlet.wrong_payload_type + inlet.received == 1


@given(st.integers(0, 15), st.binary(min_size=1, max_size=400), st.data())
def test_only_the_payload_of_a_decorated_packet_goes_on(
    csrcs: int, payload: bytes, data: st.DataObject
) -> None:
    extension = data.draw(
        st.one_of(st.none(), st.binary(max_size=40).map(lambda b: b[: len(b) // 4 * 4]))
    )
    padding = data.draw(st.integers(0, 20))
    first = 0x80 | csrcs | (0x10 if extension is not None else 0) | (0x20 if padding else 0)
    packet = HEADER.pack(first, 0, 5, 800, 9) + b"\xee" * 4 * csrcs
    if extension is not None:
        packet += b"\xbe\xde" + (len(extension) // 4).to_bytes(2, "big") + extension
    packet += payload
    if padding:
        packet += bytes(padding - 1) + bytes([padding])
    assert Pair().from_caller(packet)[12:] == payload
