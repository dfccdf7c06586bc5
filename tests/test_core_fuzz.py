"""A million packets that somebody made up, and calls that are set up in any order."""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    rule,
)

from callshield.tap import TapKind, decode_batch
from sipbridge.relay_core import Core
from tests.core_kit import (
    ADDRESSES,
    AGENT,
    CALLER,
    EVENTS,
    HEADER,
    HELPER,
    PCMA,
    STRANGER,
    CallInCore,
    clip,
    frames_of,
    rtp,
)
from tests.core_rtcp import block, description, receiver_report, sender_report

#: The C code is compiled with sanitizers (tests/sanitize.sh): slower, and its memory is no measure.
SANITIZED = "CALLSHIELD_SANITIZED" in os.environ
#: Of each kind below; seven kinds in all.
PACKETS = 30_000 if SANITIZED else 150_000
#: Packets between two looks at what came out.
ROUND = 5000
#: What a process may grow by, when the C code keeps nothing: the allocator's own slack.
SLACK_BYTES = 6 * 1024 * 1024


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# ----------------------------------------------------------------------------- what is sent


class Forger:
    """Makes packets up.

    Args:
        seed: the same packets for the same seed.
    """

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.noise = self.dice.randbytes(1 << 20)

    def take(self, size: int) -> bytes:
        at = self.dice.randrange(len(self.noise) - size)
        return self.noise[at : at + size]

    def valid(self, event_type: int = 101) -> bytes:
        """Good RTP: voice or an event."""
        dice = self.dice
        if dice.random() < 0.3:
            payload = bytes([dice.randrange(20), dice.randrange(256)]) + self.take(2)
            kind = event_type
        else:
            payload, kind = self.take(dice.choice((0, 1, 80, 160, 480))), 0
        return rtp(
            payload,
            kind | dice.choice((0, 0x80)),
            dice.randrange(65536),
            dice.randrange(2**32),
            dice.randrange(4),
        )

    def random(self) -> bytes:
        return self.take(self.dice.choice((0, 1, 11, 12, 13, 44, 172, 1400, 1500, 1501, 2048)))

    def mutated(self) -> bytes:
        """Good RTP with some bytes changed, cut off or appended."""
        data = bytearray(self.valid())
        for _ in range(self.dice.randrange(1, 4)):
            data[self.dice.randrange(min(len(data), 24))] = self.dice.randrange(256)
        if self.dice.random() < 0.2:
            del data[self.dice.randrange(len(data)) :]
        if self.dice.random() < 0.2:
            data += self.take(self.dice.randrange(1400))
        return bytes(data)

    def lie(self) -> bytes:
        """RTP of the right type whose lengths, version or event are wrong."""
        dice = self.dice
        what = dice.randrange(6)
        head = (dice.randrange(65536), dice.randrange(2**32), dice.randrange(4))
        if what == 0:
            # CSRCs past the end.
            count = dice.randrange(1, 16)
            return HEADER.pack(0x80 | count, 0, *head) + self.take(dice.randrange(4 * count))
        if what == 1:
            # An extension past the end.
            words = dice.randrange(1, 65536)
            size = dice.randrange(min(4 * words, 1400))
            return HEADER.pack(0x90, 0, *head) + struct.pack(">HH", 0xBEDE, words) + self.take(size)
        if what == 2:
            # An extension that is cut off in its own header.
            return HEADER.pack(0x90, 0, *head) + self.take(dice.randrange(4))
        if what == 3:
            # Padding of nothing, or of more than there is.
            size = dice.randrange(1, 160)
            last = dice.choice((0, min(size + 1 + dice.randrange(90), 255)))
            return HEADER.pack(0xA0, 0, *head) + self.take(size - 1) + bytes([last])
        if what == 4:
            return HEADER.pack(dice.choice((0x00, 0x40, 0xC0)), 0, *head) + self.take(160)
        return HEADER.pack(0x80, 101, *head) + self.take(dice.randrange(4))

    def rtcp(self) -> bytes:
        """RTCP, good or spoilt."""
        dice = self.dice
        what = dice.randrange(4)
        if what == 0:
            return self.random()
        told = block(dice.randrange(2**32), last_sr=dice.randrange(2**32))
        data = bytearray(
            receiver_report(dice.randrange(2**32), told)
            + sender_report(dice.randrange(2**32), ntp=dice.randrange(2**64))
            + description(dice.randrange(2**32), self.take(dice.randrange(40)))
        )
        for _ in range(what):
            data[dice.randrange(len(data))] = dice.randrange(256)
        return bytes(data) if what < 3 else bytes(data[: dice.randrange(len(data))])


def is_plain_or_can_be(data: bytes) -> bool:
    """The judge: whether RFC 3550 (section 5.1, 5.3.1) lets this be RTP with a payload's place."""
    if not 12 <= len(data) <= 1500 or data[0] >> 6 != 2:
        return False
    start = 12 + 4 * (data[0] & 15)
    if data[0] & 0x10:
        if start + 4 > len(data):
            return False
        start += 4 + 4 * int.from_bytes(data[start + 2 : start + 4], "big")
    end = len(data)
    if data[0] & 0x20:
        if data[-1] == 0:
            return False
        end -= data[-1]
    if start > end:
        return False
    return data[1] & 0x7F != 101 or end - start >= 4


# ------------------------------------------------------------------------------- the million


class Target:
    """A call under fire, and what of it must not move."""

    def __init__(self, **how: Any) -> None:
        self.call = CallInCore(codes=["**9"], noise={CALLER: -1, AGENT: 13}, **how)
        self.call.allow(record=True)
        self.seen = 0

    def counted(self, leg: int) -> int:
        stats = self.call.stats(leg)
        names = ("received", "malformed", "wrong_source", "wrong_payload_type", "srtp_refused")
        return sum(int(stats[name]) for name in names)

    def drained(self) -> list[tuple[int, int, bool, tuple[str, int], bytes]]:
        """What came out since the last call; time goes on a little."""
        self.call.run(0.02)
        out = self.call.core.sent()
        self.call.events()
        self.call.core.recorded()
        return out


def forged_strangers(forger: Forger, target: Target, count: int) -> None:
    """Whatever a stranger sends, nothing of it goes anywhere, and all of it is counted."""
    call = target.call
    before = target.counted(CALLER)
    for number in range(count):
        data = forger.valid() if number % 2 else forger.mutated()
        call.inject(CALLER, data, source=(STRANGER[0], number & 0xFFFF))
    assert [one for one in target.drained() if not one[2]] == []
    assert target.counted(CALLER) == before + count
    assert call.core.tapped() == []


def forged_lies(forger: Forger, target: Target, count: int) -> None:
    """What is malformed goes nowhere, from the latched source too."""
    call = target.call
    before = call.stats(CALLER)["malformed"]
    for _ in range(count):
        call.inject(CALLER, forger.lie())
    assert [one for one in target.drained() if not one[2]] == []
    assert call.stats(CALLER)["malformed"] == before + count
    assert call.core.tapped() == []


def forged_noise(forger: Forger, target: Target, count: int) -> None:
    """Random bytes and spoilt packets of the latched source: only what is RTP goes on, as ours."""
    call = target.call
    good = 0
    for number in range(count):
        data = forger.mutated() if number % 3 else forger.random()
        good += is_plain_or_can_be(data) and data[1] & 0x7F in (0, 101)
        call.inject(CALLER, data)
    out = [one for one in target.drained() if not one[2]]
    assert 0 < len(out) <= good
    for _, leg, _, to, data in out:
        assert (leg, to) == (AGENT, ADDRESSES[AGENT])
        assert data[0] == 0x80
        assert data[1] & 0x7F in (0, 96)
    for datagram in call.core.tapped():
        for frame in decode_batch(datagram)[1]:
            assert 0 < len(frame.payload) <= 1488


def forged_events(forger: Forger, target: Target, count: int) -> None:
    """Events of the agent, good and bad: codes may come of them, digits only with their marks."""
    call = target.call
    for number in range(count):
        payload = bytes([forger.dice.randrange(18)]) + forger.take(3)
        kind = EVENTS[AGENT] | forger.dice.choice((0, 0x80))
        call.inject(AGENT, rtp(payload, kind, number, forger.dice.randrange(8) * 1000, 3))
        if number % 50 == 0:
            call.run(0.1)
    for _, leg, is_rtcp, _, data in target.drained():
        if not is_rtcp:
            assert leg == CALLER
            assert (data[0], data[1] & 0x7F, len(data)) == (0x80, EVENTS[CALLER], 16)


def forged_rtcp(forger: Forger, target: Target, count: int) -> None:
    """Reports of anybody: no media comes of them, and none goes to a stranger."""
    call = target.call
    for number in range(count):
        source = (STRANGER[0] if number % 2 else ADDRESSES[AGENT][0], 1 + number % 60_000)
        call.inject(AGENT, forger.rtcp(), source=source, rtcp=True)
    stats = call.stats(AGENT)
    assert stats["rtt_ms"] < 10_000
    for _, _, is_rtcp, to, _ in target.drained():
        assert is_rtcp
        assert to[0] in {host for host, _ in ADDRESSES.values()}


def forged_secrets(forger: Forger, target: Target, count: int) -> None:
    """Whoever lacks the key is nobody, wherever he sends from."""
    call = target.call
    before = target.counted(AGENT)
    for number in range(count):
        data = forger.valid(96) if number % 2 else forger.random()
        call.inject(AGENT, data, rtcp=not number % 7)
    stats = call.stats(AGENT)
    assert stats["received"] == stats["reports"] == 0
    assert target.counted(AGENT) == before + count
    assert [one for one in target.drained() if not one[2]] == []


def forged_conference(forger: Forger, target: Target, count: int) -> None:
    """All legs of a conference sent noise: each hears frames of 20 ms, and they are ours."""
    call = target.call
    for number in range(count):
        leg = number % 3
        data = forger.mutated() if number % 2 else forger.valid(EVENTS[leg])
        call.inject(leg, data)
        if number % 20 == 0:
            call.run(0.02)
    for _, leg, is_rtcp, to, data in target.drained():
        assert to[0] == ADDRESSES[leg][0]
        if not is_rtcp:
            assert data[0] == 0x80
            assert len(data) in (172, 16) or data[1] & 0x7F == EVENTS[leg]
    for datagram in call.core.tapped():
        decode_batch(datagram)


FORGED: dict[str, tuple[Callable[[Forger, Target, int], None], dict[str, Any]]] = {
    "strangers": (forged_strangers, {}),
    "lies": (forged_lies, {}),
    "noise": (forged_noise, {}),
    "events": (forged_events, {}),
    "rtcp": (forged_rtcp, {}),
    "secrets": (forged_secrets, {"srtp": {AGENT: (0, b"k" * 30, b"q" * 30)}}),
    "conference": (forged_conference, {"legs": (CALLER, AGENT, HELPER), "types": {AGENT: PCMA}}),
}


@pytest.mark.parametrize("what", FORGED)
def test_a_hundred_and_fifty_thousand_forged_packets_of_a_kind(what: str) -> None:
    forge, how = FORGED[what]
    target = Target(**how)
    if what == "conference":
        target.call.allow(conference=True, tap=True)
    forger = Forger(seed_of(what))
    for _ in range(3):
        forge(forger, target, ROUND)
    before = resident_bytes()
    for _ in range(PACKETS // ROUND - 3):
        forge(forger, target, ROUND)
    assert SANITIZED or resident_bytes() - before < SLACK_BYTES
    # The control: the call still works.
    if what in ("strangers", "lies", "noise", "rtcp"):
        target.drained()
        target.call.inject(CALLER, rtp(b"\x11" * 160, ssrc=12345))
        assert [one.payload for one in target.call.sent(AGENT)] == [b"\x11" * 160]


def seed_of(text: str) -> int:
    return int.from_bytes(text.encode()[:8], "big")


def test_the_memory_of_calls_that_are_over_is_given_back() -> None:
    core = Core("", ["**9"], 5.0, manual=True)
    key = bytes(range(30))
    made = clip(8000)

    def one_call(number: int) -> None:
        handle = core.open(number.to_bytes(16, "big"), [], [])
        for leg in range(3):
            core.add_leg(handle, leg, -1, -1)
            core.negotiate(
                handle, leg, ADDRESSES[leg], 0, "", 0, 0, 101, 13, 20, True, (0, key, key)
            )
            core.negotiate(handle, leg, ADDRESSES[leg], 0, "", 0, 0, 101, 13, 20, True, None)
        core.allow(handle, True, True, True, True, False, number % 2 == 0)
        for leg in range(3):
            core.inject(handle, leg, rtp(), ADDRESSES[leg], 1.0 + number, False)
            core.play(handle, leg, leg, [made] * 8, True, False)
        core.tick(1.0 + number)
        if number % 3:
            core.remove_leg(handle, AGENT)
            core.promote(handle)
        core.close_call(handle)
        core.sent()
        core.events()
        core.recorded()
        core.tapped()

    for number in range(500):
        one_call(number)
    before = resident_bytes()
    for number in range(500, 2000):
        one_call(number)
    assert SANITIZED or resident_bytes() - before < SLACK_BYTES
    assert core.totals()["sessions"] == 0


# ---------------------------------------------------------------------------- any order at all

LEG_NUMBERS = st.integers(0, 2)
NAT = "203.0.113.9"


class Calls(RuleBasedStateMachine):
    """Everything that Python can ask of the core, and everything that may arrive, in any order."""

    calls = Bundle("calls")

    def __init__(self) -> None:
        super().__init__()
        self.core = Core("", ["**9", "*12", "5"], 5.0, manual=True)
        self.now = 100.0
        self.clip = clip(700)
        #: Of each open leg: where it may be sent to.
        self.may: dict[tuple[int, int], set[str]] = {}
        self.sdp: dict[tuple[int, int], tuple[str, int]] = {}
        self.flow: dict[int, tuple[bool, ...]] = {}
        self.ids: dict[int, bytes] = {}
        self.playing: set[tuple[int, int]] = set()
        self.next_play = 0
        self.forger = Forger(1)

    # --- set-up

    @rule(target=calls, networks=st.booleans())
    def open(self, networks: bool) -> int:
        call_id = len(self.ids).to_bytes(16, "big")
        side = [("203.0.113.0", 24)] if networks else []
        handle = self.core.open(call_id, side, side)
        assert handle not in self.ids
        self.ids[handle] = call_id
        self.flow[handle] = (False,) * 6
        return handle

    @rule(handle=calls, leg=LEG_NUMBERS)
    def add_leg(self, handle: int, leg: int) -> None:
        if (handle, leg) in self.may:
            with pytest.raises(KeyError):
                self.core.add_leg(handle, leg, -1, -1)
            return
        self.core.add_leg(handle, leg, -1, -1)
        self.may[handle, leg] = set()
        self.sdp[handle, leg] = ("", 0)

    @rule(handle=calls, leg=LEG_NUMBERS)
    def remove_leg(self, handle: int, leg: int) -> None:
        if (handle, leg) not in self.may:
            with pytest.raises(KeyError):
                self.core.remove_leg(handle, leg)
            return
        self.core.remove_leg(handle, leg)
        del self.may[handle, leg], self.sdp[handle, leg]

    @rule(
        handle=calls,
        leg=LEG_NUMBERS,
        address=st.sampled_from([("", 0), ("192.0.2.1", 4000), ("2001:db8::1", 4000)]),
        signalling=st.sampled_from(["", "198.51.100.7"]),
        codec=st.sampled_from([0, 8, 9, 111]),
        event_type=st.sampled_from([-1, 101]),
        noise_type=st.sampled_from([-1, 13]),
        ptime_ms=st.sampled_from([10, 20, 60]),
        protect=st.booleans(),
        suite=st.sampled_from([None, 0, 3]),
    )
    def negotiate(
        self,
        handle: int,
        leg: int,
        address: tuple[str, int],
        signalling: str,
        codec: int,
        event_type: int,
        noise_type: int,
        ptime_ms: int,
        protect: bool,
        suite: int | None,
    ) -> None:
        key = b"k" * (44 if suite == 3 else 30)
        srtp = None if suite is None else (suite, key, key)
        arguments: tuple[Any, ...] = (
            handle, leg, address, 0, signalling, codec, codec, event_type, noise_type, ptime_ms,
            protect, srtp,
        )  # fmt: skip
        if (handle, leg) not in self.may:
            with pytest.raises(KeyError):
                self.core.negotiate(*arguments)
            return
        self.core.negotiate(*arguments)
        if address != self.sdp[handle, leg]:
            self.may[handle, leg] = set()
        self.sdp[handle, leg] = address
        if address[0]:
            self.may[handle, leg] |= {address[0], NAT} | ({signalling} if signalling else set())

    @rule(handle=calls, flow=st.tuples(*[st.booleans()] * 6))
    def allow(self, handle: int, flow: tuple[bool, ...]) -> None:
        self.core.allow(handle, *flow)
        self.flow[handle] = flow

    @rule(handle=calls)
    def promote(self, handle: int) -> None:
        if (handle, HELPER) not in self.may or (handle, AGENT) in self.may:
            with pytest.raises(KeyError):
                self.core.promote(handle)
            return
        self.core.promote(handle)
        self.may[handle, AGENT] = self.may.pop((handle, HELPER))
        self.sdp[handle, AGENT] = self.sdp.pop((handle, HELPER))

    @rule(handle=consumes(calls))
    def close(self, handle: int) -> None:
        self.core.close_call(handle)
        for leg in range(3):
            self.may.pop((handle, leg), None)
            self.sdp.pop((handle, leg), None)
        del self.flow[handle]
        with pytest.raises(KeyError):
            self.core.close_call(handle)

    # --- prompts, digits, the ear

    @rule(handle=calls, leg=LEG_NUMBERS, loop=st.booleans(), mix=st.booleans())
    def play(self, handle: int, leg: int, loop: bool, mix: bool) -> None:
        self.next_play += 1
        try:
            begun = self.core.play(handle, leg, self.next_play, [self.clip] * 2, loop, mix)
        except KeyError:
            assert (handle, leg) not in self.may
            return
        if begun:
            assert self.may[handle, leg]
            self.playing.add((handle, self.next_play))

    @rule(handle=calls, leg=LEG_NUMBERS)
    def stop_play(self, handle: int, leg: int) -> None:
        if (handle, leg) in self.may:
            self.core.stop_play(handle, leg)

    @rule(handle=calls, leg=LEG_NUMBERS, digit=st.sampled_from("*9125#"))
    def digit(self, handle: int, leg: int, digit: str) -> None:
        if (handle, leg) in self.may:
            self.core.digit(handle, leg, digit)

    @rule(handle=calls, soften=st.booleans(), levelling=st.booleans())
    def ear(self, handle: int, soften: bool, levelling: bool) -> None:
        self.core.ear(handle, soften, levelling)

    # --- what arrives

    @rule(
        handle=calls,
        leg=LEG_NUMBERS,
        host=st.sampled_from(["192.0.2.1", "2001:db8::1", "198.51.100.7", NAT, "192.0.2.66"]),
        port=st.sampled_from([4000, 4001, 9]),
        codec=st.sampled_from([0, 8, 9, 111, 101, 13]),
        count=st.integers(1, 8),
        is_rtcp=st.booleans(),
    )
    def arrive(
        self, handle: int, leg: int, host: str, port: int, codec: int, count: int, is_rtcp: bool
    ) -> None:
        for number in range(count):
            payload = bytes([0x30 + leg]) * (4 if codec == 101 else 160)
            if codec == 101:
                payload = bytes([self.forger.dice.choice((5, 9, 10)), 0x8A, 3, 32])
            data = rtp(payload, codec, int(self.now * 50) + number, int(self.now * 8000), 7)
            if is_rtcp:
                data = self.forger.rtcp()
            if (handle, leg) in self.may:
                self.core.inject(handle, leg, data, (host, port), self.now, is_rtcp)
            self.now += 0.005

    @rule(seconds=st.sampled_from([0.01, 0.02, 0.1, 2.0, 6.0]))
    def wait(self, seconds: float) -> None:
        steps = max(1, min(int(seconds / 0.01), 60))
        for _ in range(steps):
            self.now += seconds / steps
            self.core.tick(self.now)

    @rule(error=st.sampled_from([0, 11, 101]))
    def refuse(self, error: int) -> None:
        self.core.refuse(error)

    # --- what must hold

    @invariant()
    def only_where_sdp_or_latch_allow(self) -> None:
        for handle, leg, is_rtcp, (host, port), data in self.core.sent():
            # A leg that was closed in this very step sends nothing any more, but what it sent
            # before was looked at after the step before.
            assert host in self.may[handle, leg]
            assert port != 0 or is_rtcp
            assert data[0] & 0xC0 == 0x80

    @invariant()
    def only_the_caller_is_tapped(self) -> None:
        for datagram in self.core.tapped():
            for frame in decode_batch(datagram)[1]:
                if frame.kind is TapKind.AUDIO:
                    assert frame.call_id in self.ids.values()
                    assert frame.payload[:1] == bytes([0x30 + CALLER]) or frame.codec in (
                        0,
                        8,
                        9,
                        111,
                    )

    @invariant()
    def recorded_is_what_the_flow_allows(self) -> None:
        ids = {call_id: handle for handle, call_id in self.ids.items()}
        for frame in frames_of(self.core.recorded()):
            handle = ids[frame.call_id]
            assert handle in self.flow
            to_agent, to_caller, _, record, paused, conference = self.flow[handle]
            assert record
            assert not paused
            assert conference or (to_agent if frame.channel == 0 else to_caller)

    @invariant()
    def every_prompt_ends_once(self) -> None:
        for event in self.core.events():
            assert event[1] in self.ids
            if event[0] == "played":
                self.playing.remove((event[1], event[3]))
                assert 0 <= event[4] <= 4
                assert all(begin <= end for begin, end in event[7])
        assert {handle for handle, _ in self.playing} <= set(self.flow)

    @invariant()
    def figures_are_figures(self) -> None:
        for handle in self.flow:
            legs, call = self.core.stats(handle)
            for leg, stats in enumerate(legs):
                assert (stats is not None) == ((handle, leg) in self.may)
                if stats is not None:
                    assert stats["received"] <= stats["expected"] + stats["late"]
                    assert stats["unsent"] <= stats["sent"]
            assert all(value >= 0 for value in call.values())
        assert set(self.core.activity()) == set(self.flow)
        assert self.core.totals()["sessions"] == len(self.flow)

    def teardown(self) -> None:
        for handle in list(self.flow):
            self.core.close_call(handle)
        ended = {event[3] for event in self.core.events() if event[0] == "played"}
        assert {play_id for _, play_id in self.playing} == ended


Calls.TestCase.settings = settings(
    max_examples=50 if SANITIZED else 150, stateful_step_count=40, deadline=None
)
TestCallsInAnyOrder = Calls.TestCase
