"""When a leg is silent, by counters that are looked at now and then."""

from __future__ import annotations

from callshield.messages import LegName
from sipbridge.rtpengine_silence import SilenceWatch

CALLER, AGENT = LegName.CALLER, LegName.AGENT


def answered(now: float = 0.0) -> SilenceWatch:
    watch = SilenceWatch(now)
    watch.expect(CALLER, now, both=False)
    watch.expect(AGENT, now, both=True)
    return watch


def test_nothing_is_missed_before_both_answered() -> None:
    watch = SilenceWatch(0.0)
    watch.expect(CALLER, 0.0, both=False)
    assert watch.changes(100.0) == []
    assert watch.silent_s(100.0) == 0.0
    assert watch.idle_s(100.0) == 100.0


def test_a_leg_falls_silent_and_speaks_again() -> None:
    watch = answered()
    watch.count(CALLER, 50, 1.0)
    watch.count(AGENT, 50, 1.0)
    assert watch.changes(2.0) == []
    watch.count(CALLER, 100, 4.0)
    watch.count(AGENT, 50, 4.0)  # nothing new came
    assert watch.changes(4.5) == [(AGENT, True)]
    assert watch.changes(5.0) == []
    watch.count(AGENT, 51, 6.0)
    assert watch.changes(6.0) == [(AGENT, False)]
    assert watch.packets(CALLER) == 100


def test_both_silent_is_a_timeout_once_and_a_hold_is_none() -> None:
    watch = answered()
    watch.count(CALLER, 1, 1.0)
    watch.hold(True, 10.0)
    assert watch.silent_s(500.0) == 0.0
    watch.hold(False, 500.0)
    assert watch.silent_s(530.0) == 30.0
    assert not watch.times_out(559.0, 60.0)
    assert watch.times_out(560.0, 60.0)
    assert not watch.times_out(600.0, 60.0)
    assert watch.idle_s(560.0) == 559.0
