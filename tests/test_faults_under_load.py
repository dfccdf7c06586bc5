"""Detector and notifier of a whole node die under load; the calls notice nothing.

Words are switched off in it; tests/test_transcriber_process.py kills transcribers.
"""

from __future__ import annotations

from callshield.bench_faults import VICTIMS, measure


async def test_calls_do_not_notice_that_detector_and_notifier_die() -> None:
    result = await measure(100, 5.0)
    # Both were really killed and came back, and nothing else did.
    assert set(result.restarted) == set(VICTIMS)
    assert result.bridge_lived
    for part in (result.before, result.after):
        assert part.sent > 0.9 * 100 * 2 * 50 * 5
        assert part.lost == 0
    # At most 1.2 times what it was. The floor is half of the relay's own rest between two looks
    # (0.5 ms, engine.c): a p99 can be a few packets of one busy moment of this machine.
    assert result.after.p99_ms <= max(1.2 * result.before.p99_ms, result.before.p99_ms + 0.25)
