"""A conference in the relay in C: three far ends, three tones, and what networks do to them."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from callshield import g711
from tests.core_kit import (
    AGENT,
    CALLER,
    HELPER,
    PCMA,
    CallInCore,
    Packet,
    clip,
    markers,
    one_ssrc,
    steps,
)
from tests.rtp_peer import strength

ALL = (CALLER, AGENT, HELPER)
TONES = {CALLER: 400, AGENT: 1000, HELPER: 1700}
FRAME = 160

Samples = NDArray[np.int16]


class Talker:
    """A far end that says a tone, or anything else, in packets of its own clock.

    Args:
        leg: of the call.
        hz: of the tone.
        clock_hz: samples that it takes for a second.
        samples: says the sample values at these sample numbers; None: the tone.
        jitter_s: how late a packet may come.
        loss: share of packets that never come.
    """

    def __init__(
        self,
        leg: int,
        hz: float,
        *,
        clock_hz: float = 8000,
        samples: Callable[[NDArray[np.int64]], NDArray[np.float64]] | None = None,
        jitter_s: float = 0.0,
        loss: float = 0.0,
        law: int = 0,
        seed: int = 1,
    ) -> None:
        self.leg = leg
        self.hz = hz
        self.clock_hz = clock_hz
        self.samples = samples or self._tone
        self.jitter_s = jitter_s
        self.loss = loss
        self.law = law
        self.dice = random.Random(seed)
        self.said = 0
        self.late: list[tuple[float, bytes]] = []
        self.begun: float | None = None

    def _tone(self, at: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.asarray(4000 * np.sin(2 * np.pi * self.hz * at / self.clock_hz))

    def speak(self, call: CallInCore) -> None:
        """Send what is due by now."""
        if self.begun is None:
            self.begun = call.now
        while self.begun + self.said / self.clock_hz <= call.now + 1e-9:
            at = np.arange(self.said, self.said + FRAME)
            payload = g711.encode(self.samples(at).astype(np.int16), self.law)
            data = call.source[self.leg].packet(payload)
            due = self.begun + self.said / self.clock_hz + self.dice.uniform(0, self.jitter_s)
            self.said += FRAME
            if self.dice.random() >= self.loss:
                self.late.append((due, data))
        self.late.sort(key=lambda row: row[0])
        while self.late and self.late[0][0] <= call.now + 1e-9:
            call.inject(self.leg, self.late.pop(0)[1])


def conference(**how: object) -> CallInCore:
    call = CallInCore(legs=ALL, **how)  # type: ignore[arg-type]
    call.allow(conference=True)
    return call


def converse(
    call: CallInCore, talkers: Sequence[Talker], seconds: float
) -> dict[int, list[Packet]]:
    """Let them talk; what each leg was sent."""
    heard: dict[int, list[Packet]] = {leg: [] for leg in ALL}
    for _ in range(round(seconds / 0.005)):
        for talker in talkers:
            talker.speak(call)
        call.run(0.005)
        for one in call.sent():
            heard[one.leg].append(one)
    return heard


def signal(packets: list[Packet], law: int = 0) -> Samples:
    return g711.decode(b"".join(one.payload for one in packets), law)


def test_each_hears_the_two_others_and_not_itself() -> None:
    call = conference(types={AGENT: PCMA})
    talkers = [Talker(leg, hz, law=PCMA if leg == AGENT else 0) for leg, hz in TONES.items()]
    heard = converse(call, talkers, 1.0)
    for leg in ALL:
        assert len(heard[leg]) == pytest.approx(50, abs=2)
        assert one_ssrc(heard[leg])
        assert set(steps(heard[leg])) == {(1, FRAME)}
        assert {one.payload_type for one in heard[leg]} == {call.types.get(leg, 0)}
        mixed = signal(heard[leg][10:], call.types.get(leg, 0))
        for other, hz in TONES.items():
            share = strength(mixed, hz)
            assert share < 0.001 if other == leg else share == pytest.approx(0.5, abs=0.05)


def test_the_negative_control_outside_a_conference_the_helper_hears_nobody() -> None:
    call = CallInCore(legs=ALL)
    heard = converse(call, [Talker(leg, hz) for leg, hz in TONES.items()], 0.5)
    assert heard[HELPER] == []
    assert strength(signal(heard[CALLER]), TONES[AGENT]) > 0.98
    assert strength(signal(heard[AGENT]), TONES[CALLER]) > 0.98


def test_loud_voices_are_clipped_and_do_not_wrap() -> None:
    def loud(at: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.full(len(at), 30_000.0)

    call = conference()
    heard = converse(call, [Talker(leg, 0, samples=loud) for leg in ALL], 0.5)
    for leg in ALL:
        assert np.all(signal(heard[leg][10:]) > 30_000)


def test_from_two_to_three_and_back_is_one_stream_for_each_leg() -> None:
    call = CallInCore(legs=ALL)
    talkers = [Talker(leg, hz) for leg, hz in TONES.items()]
    heard = converse(call, talkers, 0.5)
    for on in (True, False, True):
        call.allow(conference=on)
        for leg, packets in converse(call, talkers, 0.5).items():
            heard[leg] += packets
    for leg in (CALLER, AGENT):
        assert one_ssrc(heard[leg])
        assert {step[0] for step in steps(heard[leg])} == {1}
        assert all(FRAME <= step[1] <= 4 * FRAME for step in steps(heard[leg]))
        assert len(heard[leg]) == pytest.approx(100, abs=8)
        assert len(markers(heard[leg])) <= 4
    assert len(heard[HELPER]) == pytest.approx(50, abs=4)


# --------------------------------------------------------------------- what networks do to it


def spikes(every: int) -> Callable[[NDArray[np.int64]], NDArray[np.float64]]:
    """A short click every so many samples: its way through the conference can be timed."""

    def made(at: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.where(at % every < 8, 20_000.0, 0.0)

    return made


def delays_s(call: CallInCore, talker: Talker, seconds: float, every: int = 4000) -> list[float]:
    """Seconds from the saying of each click to the sample in which the agent hears it."""
    begin = call.now
    found: list[float] = []
    last = -1.0
    for _ in range(round(seconds / 0.005)):
        talker.speak(call)
        call.run(0.005)
        for one in call.sent(AGENT):
            for at in np.flatnonzero(np.abs(g711.decode(one.payload, 0)) > 10_000):
                heard_at = call.now + float(at) / 8000
                if heard_at - last < 0.1:
                    continue
                last = heard_at
                period = every / talker.clock_hz
                # Heard by at most one period later, or the measure would be ambiguous.
                found.append((heard_at - begin) % period)
    return found


@pytest.mark.parametrize(
    ("clock_hz", "jitter_s", "loss"),
    [
        (8000, 0.0, 0.0),
        (8000, 0.03, 0.0),
        (8000, 0.03, 0.05),
        (8008, 0.0, 0.0),
        (8008, 0.03, 0.02),
        (7992, 0.0, 0.0),
        (7992, 0.03, 0.02),
    ],
    ids=["quiet", "jitter", "jitter and loss", "fast", "fast and all", "slow", "slow and all"],
)
def test_delay_stays_bounded_whatever_the_network_and_the_clock_do(
    clock_hz: float, jitter_s: float, loss: float
) -> None:
    call = conference()
    talker = Talker(
        CALLER, 0, clock_hz=clock_hz, samples=spikes(4000), jitter_s=jitter_s, loss=loss
    )
    seconds = 120
    found = delays_s(call, talker, seconds)
    clicks = int(seconds * clock_hz / 4000)
    assert len(found) >= clicks * (1 - loss) - 4 - clicks * 0.1 * (loss > 0)
    assert len(found) <= clicks + 2
    # 50 ms of buffer and a frame; up to 100 ms where a fast clock has filled it, and jitter.
    assert max(found) < 0.175
    assert min(found) > 0.005
    if clock_hz == 8000 and not jitter_s:
        # A packet comes up to half a tick before the tick that mixes it.
        assert max(found) - min(found) < 0.011


@pytest.mark.parametrize("clock_hz", [8008, 7992])
def test_a_tone_of_a_drifting_clock_is_hardly_torn(clock_hz: float) -> None:
    call = conference()
    heard = converse(call, [Talker(CALLER, 400, clock_hz=clock_hz)], 60)
    linear = signal(heard[AGENT][10:])
    silent = np.mean(np.abs(linear.reshape(-1, FRAME)).max(axis=1) < 100)
    # A tenth of a per cent of drift: a frame in twenty seconds, or three at once in 50.
    assert silent < 0.01
    assert set(steps(heard[AGENT])) == {(1, FRAME)}


def test_what_is_lost_is_silence_and_not_an_older_sound() -> None:
    # Two seconds of a tone, loss only of every tenth packet: 10 % silence, nothing twice.
    call = conference()
    number = 0
    got: list[Packet] = []
    for number in range(200):
        data = call.source[CALLER].packet(bytes([0x20 + number % 64]) * FRAME)
        if number % 10 != 9:
            call.inject(CALLER, data)
        call.run(0.02)
        got += call.sent(AGENT)
    frames = [one.payload[80] for one in got[4:]]
    silent = sum(code == 0xFF for code in frames)
    assert silent == pytest.approx(len(frames) / 10, abs=2)
    for before, after in itertools.pairwise(frames):
        if before != 0xFF != after:
            assert (after - before) % 64 in (1, 2)


def test_a_fast_clock_leaves_no_old_frame_behind() -> None:
    # The buffer grows until a frame is left out; then packets are lost where it was.
    call = conference()
    talker = Talker(CALLER, 400, clock_hz=8080)
    converse(call, [talker], 20)
    talker.loss = 1.0
    after = converse(call, [talker], 2)
    assert np.all(np.abs(signal(after[AGENT][12:])) < 10)


def test_packets_in_disorder_are_put_in_order() -> None:
    call = conference()
    dice = random.Random(8)
    got: list[Packet] = []
    packets = [
        call.source[CALLER].packet(bytes([0x20 + number % 64]) * FRAME) for number in range(200)
    ]
    for number in range(0, 200, 2):
        pair = packets[number : number + 2]
        dice.shuffle(pair)
        for data in pair:
            call.inject(CALLER, data)
        call.run(0.04)
        got += call.sent(AGENT)
    frames = [one.payload[80] for one in got if one.payload[80] != 0xFF]
    assert len(frames) > 190
    assert {(b - a) % 64 for a, b in itertools.pairwise(frames)} == {1}


@pytest.mark.parametrize("begin", [0xFFFFFFFF - 160 * 20, 0xFFFFFFFF - 160 * 20 - 77])
def test_timestamps_wrap_unheard(begin: int) -> None:
    call = conference()
    call.source[CALLER].timestamp = begin
    got: list[Packet] = []
    for number in range(100):
        call.inject(CALLER, call.source[CALLER].packet(bytes([0x20 + number % 64]) * FRAME))
        call.run(0.02)
        got += call.sent(AGENT)
    frames = [one.payload[80] for one in got if one.payload[80] != 0xFF]
    assert len(frames) > 94
    assert {(b - a) % 64 for a, b in itertools.pairwise(frames)} == {1}


def test_a_jump_of_the_timestamps_is_heard_within_a_moment() -> None:
    call = conference()
    talker = Talker(CALLER, 400)
    converse(call, [talker], 0.5)
    for jump in (1_000_000, -1_000_000, 0x80000000):
        call.source[CALLER].timestamp = (call.source[CALLER].timestamp + jump) & 0xFFFFFFFF
        after = converse(call, [talker], 0.5)
        assert strength(signal(after[AGENT][8:]), 400) > 0.9


def test_who_pauses_and_speaks_again_is_heard_again() -> None:
    call = conference()
    talker = Talker(CALLER, 400)
    converse(call, [talker], 0.5)
    silent = converse(call, [], 3.0)
    assert np.all(np.abs(signal(silent[AGENT][8:])) < 10)
    # It sends on as if nothing had been (DTX), or with the timestamps of before (a mute).
    for gap in (3 * 8000, 0):
        call.source[CALLER].timestamp = (call.source[CALLER].timestamp + gap) & 0xFFFFFFFF
        talker.begun, talker.said = None, 0
        after = converse(call, [talker], 0.5)
        assert strength(signal(after[AGENT][8:]), 400) > 0.9
        converse(call, [], 3.0)


def test_packets_of_every_length_are_mixed() -> None:
    for count in (80, 160, 240, 320, 480):
        call = conference()
        got: list[Packet] = []
        for _ in range(4800 // count):
            call.inject(CALLER, call.source[CALLER].packet(b"\x20" * count))
            call.run(count / 8000)
            got += call.sent(AGENT)
        linear = signal(got[6:])
        assert np.mean(np.abs(linear) > 1000) > 0.95, count


def test_a_machine_that_was_stopped_goes_on_at_once() -> None:
    call = conference()
    talkers = [Talker(leg, hz) for leg, hz in TONES.items()]
    converse(call, talkers, 0.5)
    call.now += 30
    call.core.tick(call.now)
    assert len(call.sent(CALLER)) <= 3
    after = converse(call, [Talker(leg, hz) for leg, hz in TONES.items()], 0.5)
    assert len(after[CALLER]) == pytest.approx(25, abs=4)


# ------------------------------------------------------------------------ coming and going


def test_a_leg_may_leave_and_come_back() -> None:
    call = conference()
    talkers = {leg: Talker(leg, hz) for leg, hz in TONES.items()}
    converse(call, list(talkers.values()), 0.3)
    call.core.remove_leg(call.handle, HELPER)
    two = [talkers[CALLER], talkers[AGENT]]
    converse(call, two, 0.2)
    heard = converse(call, two, 0.5)
    assert heard[HELPER] == []
    assert strength(signal(heard[CALLER]), TONES[AGENT]) > 0.98
    call.core.add_leg(call.handle, HELPER, -1, -1)
    call.negotiate(HELPER)
    converse(call, list(talkers.values()), 0.2)
    heard = converse(call, list(talkers.values()), 0.5)
    assert strength(signal(heard[CALLER]), TONES[HELPER]) == pytest.approx(0.5, abs=0.05)
    assert strength(signal(heard[HELPER]), TONES[CALLER]) == pytest.approx(0.5, abs=0.05)


def test_on_hold_a_leg_hears_nothing_and_the_others_go_on() -> None:
    call = conference()
    talkers = [Talker(leg, hz) for leg, hz in TONES.items()]
    converse(call, talkers, 0.3)
    call.negotiate(AGENT, ("", 0))
    converse(call, [talkers[0], talkers[2]], 0.2)
    heard = converse(call, [talkers[0], talkers[2]], 0.5)
    assert heard[AGENT] == []
    assert strength(signal(heard[CALLER]), TONES[HELPER]) > 0.98


def test_the_helper_takes_over_and_the_two_go_on_without_a_seam() -> None:
    call = conference()
    call.allow(record=True)
    talkers = {leg: Talker(leg, hz) for leg, hz in TONES.items()}
    before = converse(call, list(talkers.values()), 0.5)
    call.core.remove_leg(call.handle, AGENT)
    call.core.promote(call.handle)
    call.allow(conference=False)
    call.source[AGENT] = call.source[HELPER]
    call.recorded()
    heard: dict[int, list[Packet]] = {CALLER: [], AGENT: []}
    for _ in range(25):
        talkers[CALLER].speak(call)
        helper = talkers[HELPER]
        at = np.arange(helper.said, helper.said + FRAME)
        helper.said += FRAME
        payload = g711.encode(helper.samples(at).astype(np.int16), 0)
        call.inject(AGENT, call.source[HELPER].packet(payload), source=("192.0.2.30", 6000))
        call.run(0.02)
        for one in call.sent():
            heard[one.leg].append(one)
    assert strength(signal(heard[CALLER]), TONES[HELPER]) > 0.98
    assert strength(signal(heard[AGENT]), TONES[CALLER]) > 0.98
    for stream in (before[CALLER] + heard[CALLER], before[HELPER] + heard[AGENT]):
        assert one_ssrc(stream)
        assert {step[0] for step in steps(stream)} == {1}
        assert all(FRAME <= step[1] <= 4 * FRAME for step in steps(stream))
    assert {frame.channel for frame in call.recorded()} == {0, 1}


def test_a_conference_records_the_caller_and_what_the_caller_hears() -> None:
    call = conference()
    call.allow(record=True)
    converse(call, [Talker(leg, hz) for leg, hz in TONES.items()], 1.0)
    frames = call.recorded()
    by_channel = [
        g711.decode(b"".join(frame.payload for frame in frames[20:] if frame.channel == n), 0)
        for n in (0, 1)
    ]
    assert strength(by_channel[0], TONES[CALLER]) > 0.98
    assert strength(by_channel[1], TONES[CALLER]) < 0.001
    assert strength(by_channel[1], TONES[AGENT]) == pytest.approx(0.5, abs=0.05)
    assert strength(by_channel[1], TONES[HELPER]) == pytest.approx(0.5, abs=0.05)


def test_a_prompt_is_heard_instead_of_the_conference_and_a_tone_with_it() -> None:
    call = conference()
    talkers = [Talker(leg, hz) for leg, hz in TONES.items()]
    converse(call, talkers, 0.3)
    assert call.core.play(call.handle, CALLER, 1, [clip(1600)], False, False)
    assert call.core.play(call.handle, AGENT, 2, [clip(1600)], False, True)
    heard = converse(call, talkers, 0.4)
    assert sorted(event[3:5] for event in call.events("played")) == [(1, 0), (2, 0)]
    for leg in ALL:
        assert {step[0] for step in steps(heard[leg])} == {1}
        assert len(heard[leg]) == pytest.approx(20, abs=3)
    assert strength(signal(heard[CALLER][:8]), TONES[AGENT]) < 0.1
    assert strength(signal(heard[CALLER][14:]), TONES[AGENT]) == pytest.approx(0.5, abs=0.1)


def test_who_may_not_be_heard_outside_is_not_tapped_inside() -> None:
    call = conference()
    converse(call, [Talker(AGENT, 1000), Talker(HELPER, 1700)], 0.3)
    assert call.tapped_audio() == []
    converse(call, [Talker(CALLER, 400)], 0.3)
    assert len(call.tapped_audio()) == 15
