"""`callshield bench phones`: every way is measured beside its reference; a late one is told."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from callshield import bench_phones
from callshield.bench_phones import GOAL_MS, measure, run
from callshield.bench_phones_peer import HttpPhone

FIGURES: dict[str, Any] = {
    "screens": 20,
    "goal_ms": GOAL_MS,
    "http_ms": {"p50": 1.0, "p95": 2.0, "max": 3.0},
    "http_digest_ms": {"p50": 1.0, "p95": 2.0, "max": 3.0},
    "sip_ms": {"p50": 1.0, "p95": 2.0, "max": 3.0},
    "reference_ms": {
        "before": {"p50": 1.0, "p95": 2.0, "max": 3.0},
        "after": {"p50": 1.0, "p95": 2.0, "max": 3.0},
    },
    "load_average": 0.1,
}


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command turns the log off; the tests behind this one want theirs."""
    monkeypatch.setattr(bench_phones, "configure_logs", lambda *_, **__: None)


@pytest.mark.peers
@pytest.mark.timeout(180)
async def test_a_whole_node_is_measured_each_way() -> None:
    found = await measure(20)
    for way in ("http_ms", "http_digest_ms", "sip_ms"):
        assert 0 < found[way]["p50"] <= found[way]["p95"] <= found[way]["max"]
        assert found[way]["p50"] < GOAL_MS
    for reference in found["reference_ms"].values():
        assert reference["p50"] > 0


@pytest.mark.parametrize(("p95", "status"), [(2.0, 0), (GOAL_MS + 1, 1)])
def test_a_way_that_is_late_is_status_1(
    p95: float, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = {**FIGURES, "sip_ms": {"p50": 1.0, "p95": p95, "max": p95}}

    async def made(screens: int) -> dict[str, Any]:
        return figures

    monkeypatch.setattr(bench_phones, "measure", made)
    assert run(20, as_json=True) == status
    assert json.loads(capsys.readouterr().out) == figures
    assert run(20, as_json=False) == status
    assert f"p95 {p95:g}" in capsys.readouterr().out


async def test_half_a_document_is_no_arrival() -> None:
    phone = HttpPhone(digest=False)
    await phone.start("127.0.0.1")
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", phone.port)
        writer.write(b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\nhalf")
        await writer.drain()
        with pytest.raises(TimeoutError):
            await phone.arrivals.next(0.1)
        writer.write(b" there")
        await writer.drain()
        assert (await phone.arrivals.next(5))[1] == b"half there"
        writer.close()
    finally:
        await phone.close()
