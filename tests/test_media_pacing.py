"""Ticks: absolute deadlines, catching up, and a prompt's times."""

from __future__ import annotations

import random

import numpy as np
import pytest
from sipbridge.pacing import MAX_BURST, TickClock
from sipbridge.playout import Playout

from sipbridge.g711 import SILENCE
from sipbridge.prompt_file import Prompt
from tests.rtp_peer import tone


def prompt(samples: int) -> Prompt:
    signal = tone(700, samples / 8000)
    from sipbridge import g711

    return Prompt({law: g711.encode(np.ascontiguousarray(signal), law) for law in (0, 8)})


def test_late_wake_ups_do_not_add_up() -> None:
    clock = TickClock(0.0, 0.02)
    dice = random.Random(3)
    sent: list[float] = []
    while len(sent) < 5000:
        now = clock.deadline_s + dice.uniform(0, 0.015)
        sent += [now] * clock.due(now)
    assert sent[-1] == pytest.approx(4999 * 0.02, abs=0.015)


def test_the_negative_control_sleeping_twenty_milliseconds_drifts() -> None:
    dice = random.Random(3)
    now = 0.0
    for _ in range(4999):
        now += 0.02 + dice.uniform(0, 0.015)
    assert now > 4999 * 0.02 + 10


def test_nothing_is_due_early() -> None:
    clock = TickClock(10.0, 0.02)
    assert clock.due(9.99) == 0
    assert clock.due(10.0) == 1
    assert clock.due(10.019) == 0


def test_catching_up_is_at_most_three_at_a_time_and_loses_none() -> None:
    clock = TickClock(0.0, 0.02)
    assert clock.due(0.0) == 1
    # The machine was busy for 200 ms: ten ticks are due.
    counts = [clock.due(0.2 + n * 0.001) for n in range(5)]
    assert counts == [3, 3, 3, 1, 0]
    assert max(counts) == MAX_BURST
    assert clock.late > 0
    assert clock.skipped == 0
    assert clock.deadline_s == pytest.approx(0.22)


def test_a_machine_that_was_stopped_does_not_pour_out_the_past() -> None:
    clock = TickClock(0.0, 0.02)
    clock.due(0.0)
    assert clock.due(60.0) == 1
    assert clock.due(60.001) == 0
    assert clock.skipped > 2900


def test_a_prompt_on_time_is_stamped_from_its_first_to_its_last_sample() -> None:
    playout = Playout(1, [prompt(480), prompt(200)], loop=False, mix=False)
    frames = []
    now = 50.0
    while not playout.exhausted:
        frames.append(playout.take(0, 160, now))
        now += 0.02
    assert [len(frame) for frame in frames] == [160] * 5
    assert frames[-1].endswith(SILENCE[0] * 120)
    spans = playout.spans(now, 1_000_050.0 + 0.1)
    assert spans == [
        pytest.approx((1_000_050.0, 1_000_050.06)),
        pytest.approx((1_000_050.06, 1_000_050.1)),
    ]


def test_a_prompt_is_finished_only_after_its_last_frame_was_heard() -> None:
    playout = Playout(1, [prompt(320)], loop=False, mix=False)
    playout.take(0, 160, 1.0)
    assert not playout.finished(5.0)
    # The second frame leaves in the same instant: it is heard after the first one.
    playout.take(0, 160, 1.0)
    assert not playout.finished(1.02)
    assert playout.finished(1.04)
    assert playout.spans(1.04, 1.04)[0][1] == pytest.approx(1.04)


def test_a_prompt_cut_off_ends_when_it_was_cut() -> None:
    playout = Playout(1, [prompt(8000), prompt(8000)], loop=False, mix=False)
    playout.take(0, 160, 1.0)
    assert playout.spans(1.005, 1.005) == [pytest.approx((1.0, 1.005))]


def test_a_loop_never_ends() -> None:
    playout = Playout(1, [prompt(320)], loop=True, mix=False)
    first = [playout.take(0, 160, n * 0.02) for n in range(2)]
    again = [playout.take(0, 160, n * 0.02) for n in range(2, 4)]
    assert first == again
    assert not playout.exhausted
    assert len(playout.spans(1.0, 1.0)) == 1


def test_a_prompt_follows_its_legs_codec() -> None:
    playout = Playout(1, [prompt(480)], loop=False, mix=False)
    whole = prompt(480)
    assert playout.take(0, 160, 0.0) == whole.encoded[0][:160]
    assert playout.take(8, 160, 0.02) == whole.encoded[8][160:320]


def test_a_prompt_that_hardly_left_the_machine_was_not_heard() -> None:
    playout = Playout(1, [prompt(16000)], loop=False, mix=False)
    for number in range(100):
        playout.take(0, 160, number * 0.02)
    playout.failed = 2
    assert playout.heard
    playout.failed = 3
    assert not playout.heard
