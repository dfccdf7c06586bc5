"""Callers' audio that never reaches the detector is told, and only that."""

from __future__ import annotations

from sipbridge.tap_watch import TapWatch


def looks(watch: TapWatch, *seconds: tuple[int, int]) -> list[bool]:
    """What each second brought: frames taken, frames lost."""
    said, tapped, dropped = [], watch._tapped, watch._dropped
    for took, lost in seconds:
        tapped, dropped = tapped + took, dropped + lost
        said.append(watch.look(tapped, dropped))
    return said


def test_three_seconds_of_losses_are_told_once_and_their_end_after_thirty() -> None:
    watch = TapWatch()
    assert looks(watch, *[(100, 1)] * 5) == [False, False, True, False, False]
    begun = watch.alarm()
    assert (begun.component, begun.degraded) == ("tap", True)
    assert "sip.admission_limit" in begun.reason
    assert looks(watch, *[(100, 0)] * 29, (100, 1)) == [False] * 30
    assert looks(watch, *[(100, 0)] * 31) == [False] * 29 + [True, False]
    assert (watch.alarm().degraded, watch.alarm().reason) == (False, "")


def test_a_hole_of_a_moment_is_none() -> None:
    watch = TapWatch()
    assert not any(looks(watch, *[(100, 50), (100, 50), (100, 0)] * 20))


def test_no_detector_is_told_by_others() -> None:
    """It took nothing at all: the notifier sees that it is not connected."""
    watch = TapWatch()
    assert not any(looks(watch, *[(0, 100)] * 20))


def test_a_node_at_rest_says_nothing() -> None:
    watch = TapWatch()
    assert not any(looks(watch, *[(0, 0)] * 100))
