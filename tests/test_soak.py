"""Three minutes of ``./run soak``: what three minutes can show, beside nodes with a fault.

Real processes, sipp as PBX and phones. Descriptors and events are judged to the last one. Memory: a
leak of 100 KiB a call is found, the clean node is shown to leak less than 40; slower ones take the
two hours (docs/load.md).
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.load.soak import Order, soak

pytestmark = [pytest.mark.peers, pytest.mark.timeout(600)]


async def test_nothing_grows_and_no_event_is_lost_and_both_faults_are_found(tmp_path: Path) -> None:
    """The same judge at the same time on three nodes: one as it is, one that keeps memory and a
    descriptor of every call, one that loses a single event."""
    (clean, report), (_, leaky), (losing, short) = await asyncio.gather(
        soak(Order(minutes=3.0, calls=20), tmp_path / "clean"),
        soak(Order(minutes=3.0, calls=8, fault="leak", lane=1), tmp_path / "leaky"),
        soak(Order(minutes=0.5, calls=10, fault="lose", lane=2), tmp_path / "losing"),
    )
    assert report["problems"] == []
    assert report["events_lost"] == 0
    assert report["calls"] > 150
    assert report["events"] > 7 * report["calls"]
    assert report["alerts"] > 0
    assert report["consoles"]["replayed"] > 0
    assert clean.heard.sent > 5000

    notifier = leaky["parts"]["notifier"]
    assert notifier["kib_per_call"][1] > 60
    assert notifier["descriptors"][2] - notifier["descriptors"][0] > 0.9 * leaky["calls"]
    told = " ".join(leaky["problems"])
    assert "notifier grows by" in told
    assert "descriptors open at rest" in told
    assert "/dev/null" in told
    assert not any(problem.startswith(("bridge", "media")) for problem in leaky["problems"])

    assert short["events_lost"] > 0
    assert any(" of 1 " in sentence or " of 2 " in sentence for sentence in losing.verdict.faults)
