"""What the relay makes itself keeps to the clock: the pace of digits, the timestamps of a call."""

from __future__ import annotations

import itertools

import pytest

from tests.core_kit import AGENT, CALLER, EVENTS, CallInCore, Packet, clip, gate, rtp

#: Ticks of a real machine: always a little late, never by the same (seconds).
LATE = [0.0001, 0.0009, 0.0004, 0.0017, 0.0002, 0.0006]


def live(call: CallInCore, seconds: float, *, talk: bool) -> list[tuple[float, Packet]]:
    """Let time go by with late ticks, the agent talking or not: when each packet went out."""
    out = []
    start = round(call.now, 2)
    for number, late in zip(range(1, round(seconds * 100) + 1), itertools.cycle(LATE)):
        call.now = start + number * 0.01 + late
        call.core.tick(call.now)
        if talk and number % 2:
            call.say(AGENT, after=0.0)
        out += [(call.now, packet) for packet in call.sent(CALLER)]
    return out


def test_digits_of_ours_keep_their_pace_on_a_machine_whose_ticks_are_late() -> None:
    call = gate()
    for digit in "*4":
        call.core.digit(call.handle, AGENT, digit)
    sent = live(call, 0.6, talk=False)
    for press in (sent[:7], sent[7:]):
        assert len(press) == 7
        begin = press[0][0]
        assert [at - begin for at, _ in press] == pytest.approx(
            [0, 0.02, 0.04, 0.06, 0.08, 0.08, 0.08], abs=0.011
        )
        gaps = [two[0] - one[0] for one, two in itertools.pairwise(press[:5])]
        assert sum(gaps) == pytest.approx(0.08, abs=0.011)


def test_timestamps_stay_with_the_clock_over_many_digits_and_prompts() -> None:
    """A phone that plays by timestamps must not have to hold back more after each of them."""
    call = gate()
    sent = live(call, 1, talk=True)
    for number in range(15):
        for digit in "*4":
            call.core.digit(call.handle, AGENT, digit)
        sent += live(call, 0.61 + number % 4 / 100, talk=True)
        assert call.core.play(call.handle, CALLER, number, [clip(1600)], False, False)
        sent += live(call, 0.61 + number % 3 / 100, talk=True)
    voice = [(at, packet) for at, packet in sent if packet.payload_type != EVENTS[CALLER]]
    assert len(voice) > 600
    (began, first) = voice[0]
    ahead = [
        ((packet.timestamp - first.timestamp) & 0xFFFFFFFF) / 8000 - (at - began)
        for at, packet in voice
    ]
    assert -0.04 < min(ahead) <= max(ahead) < 0.06
    sequences = [packet.sequence for _, packet in sent]
    steps = {(two - one) & 0xFFFF for one, two in itertools.pairwise(sequences)}
    assert steps == {1}


@pytest.mark.parametrize("what", ["prompt", "digit"])
def test_a_held_digit_just_before_our_own_sound_leaves_no_hole(what: str) -> None:
    """Found with real telephones: voice gave way, the next packet was held, then came the tick."""
    call = gate()
    call.say(AGENT)
    source = call.source[AGENT]
    began = source.timestamp

    def hold(duration: int) -> None:
        """A packet of "*", as baresip sends it: between the packets of its voice."""
        payload = bytes([10, 10, *duration.to_bytes(2, "big")])
        call.inject(AGENT, rtp(payload, EVENTS[AGENT], source.sequence, began, source.ssrc))
        source.sequence += 1

    for number in range(4):
        hold(160 * number + 160)
        call.say(AGENT)
    if what == "prompt":
        assert call.core.play(call.handle, CALLER, 1, [clip(1600)], False, False)
    else:
        call.core.digit(call.handle, AGENT, "5")
    call.say(AGENT)
    hold(800)
    call.run(0.3)
    call.say(AGENT)
    got = call.sent(CALLER)
    assert len(got) > 10
    assert {(b.sequence - a.sequence) & 0xFFFF for a, b in itertools.pairwise(got)} == {1}
