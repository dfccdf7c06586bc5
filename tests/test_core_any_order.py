"""Calls that are set up, changed, fed and closed in any order."""

from __future__ import annotations

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
from tests.core_forger import SANITIZED, Forger
from tests.core_kit import (
    AGENT,
    CALLER,
    HELPER,
    clip,
    frames_of,
    rtp,
)

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
