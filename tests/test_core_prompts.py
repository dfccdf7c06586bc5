"""Prompts from the relay in C: absolute deadlines, catching up, and the proof of what was heard."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pytest

from sipbridge.relay_core import Clip
from tests.core_kit import (
    AGENT,
    CALLER,
    FRAME,
    G722,
    HELPER,
    OPUS,
    PCMA,
    PCMU,
    CallInCore,
    clip,
    clip_bytes,
    markers,
    steps,
)

DONE, STOPPED, UNHEARD, NO_ADDRESS, WRONG_CODEC = range(5)


def play(
    call: CallInCore,
    *clips: Clip,
    leg: int = CALLER,
    play_id: int = 7,
    loop: bool = False,
    mix: bool = False,
) -> bool:
    return call.core.play(call.handle, leg, play_id, list(clips), loop, mix)


def test_late_wake_ups_do_not_add_up() -> None:
    call = CallInCore()
    dice = random.Random(3)
    begin = call.now
    frames = 2000
    play(call, clip(160 * frames))
    deadline, sent, last_at = begin, 0, 0.0
    while sent < frames:
        # Woken up to 15 ms late, each time.
        call.core.tick(deadline + dice.uniform(0, 0.015))
        new = len(call.sent(CALLER))
        sent += new
        last_at = deadline if new else last_at
        deadline += 0.01
    assert last_at - begin == pytest.approx((frames - 1) * 0.02, abs=0.021)


def test_nothing_is_due_early() -> None:
    call = CallInCore()
    play(call, clip(1600))
    call.core.tick(call.now)
    assert len(call.sent()) == 1
    call.core.tick(call.now + 0.019)
    assert call.sent() == []
    call.core.tick(call.now + 0.02)
    assert len(call.sent()) == 1


def test_catching_up_is_at_most_three_at_a_time_and_loses_none() -> None:
    call = CallInCore()
    play(call, clip(160 * 40))
    call.core.tick(call.now)
    assert len(call.sent()) == 1
    # The machine was busy for 200 ms: ten packets are due.
    counts, got = [], []
    for number in range(5):
        call.core.tick(call.now + 0.2 + number * 0.001)
        new = call.sent()
        counts.append(len(new))
        got += new
    assert counts == [3, 3, 3, 1, 0]
    assert steps(got) == [(1, 160)] * 9
    assert b"".join(one.payload for one in got) == clip_bytes(160 * 11)[160:]


def test_a_machine_that_was_stopped_does_not_pour_out_the_past() -> None:
    call = CallInCore()
    play(call, clip(160 * 40))
    call.core.tick(call.now)
    call.core.tick(call.now + 60.0)
    call.core.tick(call.now + 60.001)
    assert len(call.sent()) == 2


def test_a_prompt_on_time_is_stamped_from_its_first_to_its_last_sample() -> None:
    call = CallInCore()
    begin = call.now
    play(call, clip(480), clip(200, fill=50))
    # The wall clock is that of the first tick; from then on the test's own clock counts.
    got = []
    ticked: list[float] = []
    for number in range(6):
        ticked += [time.time()] if number < 1 else []
        call.core.tick(begin + 0.02 * number)
        ticked += [time.time()] if number < 1 else []
        got += call.sent()
        time.sleep(0.02)
    assert len(got) == 5
    assert (
        b"".join(one.payload for one in got)
        == clip_bytes(480) + clip_bytes(200, fill=50) + b"\xff" * 120
    )
    (event,) = call.events("played")
    assert event[:7] == ("played", call.handle, CALLER, 7, DONE, 5, 0)
    (one_begin, one_end), (two_begin, two_end) = event[7]
    assert ticked[0] - 1e-6 <= one_begin <= ticked[1] + 1e-6
    assert one_end - one_begin == pytest.approx(0.06, abs=1e-6)
    assert two_begin == pytest.approx(one_end, abs=1e-6)
    assert two_end - two_begin == pytest.approx(0.04, abs=1e-6)


def test_a_prompt_is_finished_only_after_its_last_frame_was_heard() -> None:
    call = CallInCore()
    play(call, clip(320))
    call.core.tick(call.now)
    call.core.tick(call.now + 0.02)
    assert len(call.sent()) == 2
    call.core.tick(call.now + 0.03)
    assert call.events("played") == []
    call.core.tick(call.now + 0.04)
    assert [event[4] for event in call.events("played")] == [DONE]


def test_a_prompt_cut_off_is_told_as_stopped_and_ends_when_it_was_cut() -> None:
    call = CallInCore()
    play(call, clip(8000), clip(8000))
    call.core.tick(call.now)
    assert call.core.stop_play(call.handle, CALLER)
    assert not call.core.stop_play(call.handle, CALLER)
    (event,) = call.events("played")
    assert event[4:7] == (STOPPED, 1, 0)
    ((begin, end),) = event[7]
    assert 0 <= end - begin <= 0.02


def test_a_loop_never_ends() -> None:
    call = CallInCore()
    play(call, clip(320), loop=True)
    call.run(0.39)
    got = call.sent()
    assert len(got) == 20
    assert {one.payload for one in got[::2]} == {got[0].payload}
    assert {one.payload for one in got[1::2]} == {got[1].payload}
    assert call.events("played") == []
    call.core.stop_play(call.handle, CALLER)
    (event,) = call.events("played")
    assert len(event[7]) == 1


@pytest.mark.parametrize("law", [PCMU, PCMA])
def test_a_prompt_is_in_its_legs_law(law: int) -> None:
    call = CallInCore(types={CALLER: law})
    play(call, clip(480))
    call.run(0.02)
    call.types[CALLER] = PCMA - law
    call.negotiate(CALLER)
    call.run(0.03)
    got = call.sent()
    assert [one.payload_type for one in got] == [law, law, PCMA - law]
    assert [one.payload for one in got] == [
        clip_bytes(480, law)[:160],
        clip_bytes(480, law)[160:320],
        clip_bytes(480, PCMA - law)[320:],
    ]


def test_packets_of_another_codec_are_played_as_they_are() -> None:
    packets = [bytes([n]) * (40 + n) for n in range(5)]
    call = CallInCore(types={CALLER: OPUS})
    play(call, Clip(codec=OPUS, packets=packets, packet_ms=20))
    call.run(0.13)
    got = call.sent()
    assert [one.payload for one in got] == packets
    assert steps(got) == [(1, 960)] * 4
    assert [event[4] for event in call.events("played")] == [DONE]
    call = CallInCore(types={CALLER: G722})
    play(call, Clip(codec=G722, packets=packets, packet_ms=30))
    call.run(0.17)
    # RFC 3551 section 4.5.2: a G.722 timestamp counts 8000 a second.
    assert steps(call.sent()) == [(1, 240)] * 4


def test_a_codec_that_changes_under_a_prompt_ends_it() -> None:
    call = CallInCore(types={CALLER: OPUS})
    play(call, Clip(codec=OPUS, packets=[b"x"] * 50))
    call.run(0.05)
    call.types[CALLER] = PCMU
    call.negotiate(CALLER)
    call.run(0.05)
    assert [event[4] for event in call.events("played")] == [WRONG_CODEC]


def test_a_prompt_that_hardly_left_the_machine_was_not_heard() -> None:
    for failures, end in ((2, DONE), (3, UNHEARD)):
        call = CallInCore()
        play(call, clip(16_000))
        call.core.refuse(101)
        call.run(0.02 * failures - 0.01)
        call.core.refuse(0)
        call.run(2.1)
        (event,) = call.events("played")
        assert event[4:7] == (end, 100, failures)


def test_nobody_to_hear_is_told_at_once_or_when_it_happens() -> None:
    call = CallInCore()
    call.negotiate(CALLER, ("", 0))
    assert not play(call, clip())
    call.negotiate(CALLER)
    assert play(call, clip(16_000))
    assert not play(call, clip(), play_id=8), "one prompt a leg"
    call.run(0.05)
    call.negotiate(CALLER, ("", 0))
    call.run(0.02)
    (event,) = call.events("played")
    assert event[3:5] == (7, NO_ADDRESS)


def test_a_prompt_that_plays_when_its_leg_or_call_ends_is_reported() -> None:
    call = CallInCore(legs=(CALLER, AGENT, HELPER))
    play(call, clip(16_000), leg=HELPER, play_id=1)
    play(call, clip(16_000), leg=CALLER, play_id=2)
    call.run(0.05)
    call.core.remove_leg(call.handle, HELPER)
    call.core.close_call(call.handle)
    assert [event[2:5] for event in call.events("played")] == [
        (HELPER, 1, STOPPED),
        (CALLER, 2, STOPPED),
    ]


def test_a_prompt_goes_with_a_helper_who_is_promoted() -> None:
    call = CallInCore(legs=(CALLER, AGENT, HELPER))
    play(call, clip(1600), leg=HELPER, play_id=1)
    call.run(0.05)
    call.core.remove_leg(call.handle, AGENT)
    call.core.promote(call.handle)
    call.run(0.2)
    assert [event[2:5] for event in call.events("played")] == [(AGENT, 1, DONE)]
    assert steps(call.sent(HELPER, AGENT)) == [(1, 160)] * 9


def test_a_prompt_replaces_what_is_relayed_to_its_leg_and_only_there() -> None:
    call = CallInCore()
    play(call, clip(1600), leg=AGENT)
    for _ in range(10):
        call.say(CALLER, after=0.0)
        call.say(AGENT, after=0.0)
        call.run(0.02)
    got = call.sent()
    assert {one.payload for one in got if one.leg == CALLER} == {FRAME}
    assert FRAME not in {one.payload for one in got if one.leg == AGENT}
    assert len([one for one in got if one.leg == AGENT]) == 10


def test_a_mixed_tone_goes_alone_while_nobody_speaks_and_in_one_stream() -> None:
    call = CallInCore()
    call.say(CALLER)
    play(call, clip(160 * 20), leg=AGENT, mix=True)
    call.run(0.1)
    for _ in range(5):
        call.say(CALLER, after=0.0)
        call.run(0.02)
    call.run(0.4)
    got = call.sent(AGENT)
    assert steps(got[: markers(got)[1]]) == []
    assert all(step[0] == 1 and 160 <= step[1] <= 640 for step in steps(got))
    assert got[1].payload == clip_bytes(160)
    (event,) = call.events("played")
    assert event[4:7] == (DONE, 20, 0)


@pytest.mark.parametrize("codec", [G722, OPUS])
def test_a_tone_that_cannot_be_mixed_still_ends(codec: int) -> None:
    call = CallInCore(types={CALLER: codec, AGENT: codec})
    call.say(CALLER)
    play(call, Clip(codec=codec, packets=[b"x" * 40] * 20), leg=AGENT, mix=True)
    for _ in range(25):
        call.say(CALLER, after=0.0)
        call.run(0.02)
    (event,) = call.events("played")
    assert event[4] == UNHEARD
    assert {one.payload for one in call.sent(AGENT)} == {FRAME}


def test_clips_are_checked() -> None:
    wrong: list[Callable[[], Clip]] = [
        lambda: Clip(),
        lambda: Clip(b"ab", b"a"),
        lambda: Clip(codec=OPUS),
        lambda: Clip(codec=OPUS, packets=[b"x"], packet_ms=4),
        lambda: Clip(codec=OPUS, packets=[b"x"], packet_ms=61),
        lambda: Clip(codec=OPUS, packets=[b"x" * 1489]),
        lambda: Clip(codec=OPUS, packets=["x"]),  # type: ignore[list-item]
    ]
    for make in wrong:
        with pytest.raises(ValueError, match=r"clip|packet"):
            make()
    call = CallInCore()
    with pytest.raises(ValueError, match="1 to 8 files"):
        play(call)
    with pytest.raises(ValueError, match="1 to 8 files"):
        play(call, *[clip()] * 9)
    with pytest.raises(TypeError):
        play(call, b"no clip")  # type: ignore[arg-type]


def test_a_clip_outlives_its_python_object_while_it_plays() -> None:
    call = CallInCore()
    play(call, Clip(b"\x01" * 3200, b"\x81" * 3200))
    garbage = [Clip(b"\x02" * 3200, b"\x82" * 3200) for _ in range(100)]
    del garbage
    call.run(0.5)
    assert {one.payload for one in call.sent()} == {b"\x01" * 160}
