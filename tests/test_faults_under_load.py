"""Detector and notifier of a whole node die under load; the calls notice nothing.

Words are switched off in it; tests/test_transcriber_process.py kills transcribers.
"""

from __future__ import annotations

from dataclasses import replace

from callshield.bench_faults import VICTIMS, FaultBench, measure
from sipbridge.bench_stall import Part

#: Looks at the latest packets. What else a machine does only ever makes them later, in one window
#: or the other; what a restart does to the calls, every look shows.
LOOKS = 3


def unnoticed(result: FaultBench) -> bool:
    """The latest packets came at most 1.2 times as late as before.

    The floor is half of the relay's own rest between two looks (0.5 ms, engine.c): a p99 can be a
    few packets of one busy moment of this machine.
    """
    before, after = result.before.p99_ms, result.after.p99_ms
    return after <= max(1.2 * before, before + 0.25)


async def test_calls_do_not_notice_that_detector_and_notifier_die() -> None:
    seen = []
    for _ in range(LOOKS):
        result = await measure(100, 5.0)
        # Both were really killed and came back, and nothing else did.
        assert set(result.restarted) == set(VICTIMS)
        assert result.bridge_lived
        for part in (result.before, result.after):
            assert part.sent > 0.9 * 100 * 2 * 50 * 5
            assert part.lost == 0
        seen.append((result.before.p99_ms, result.after.p99_ms))
        if unnoticed(result):
            return
    raise AssertionError(f"p99 before and after, in ms, of each look: {seen}")


def test_control_later_packets_are_noticed() -> None:
    before = Part(sent=50_000, lost=0, p50_ms=0.3, p99_ms=0.8, max_ms=5.0)
    result = FaultBench(100, before, before, {}, bridge_lived=True, load_average=1.0)
    assert unnoticed(result)
    assert not unnoticed(replace(result, after=replace(before, p99_ms=1.1)))
