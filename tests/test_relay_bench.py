"""The benchmark measures what it says: a small run, and its own arithmetic."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from callshield import g711
from callshield.errors import SetupError
from callshield.messages_media import SrtpKeys
from sipbridge import bench_relay
from sipbridge.bench_arrivals import HEADER, Arrivals, Results
from sipbridge.bench_load import loud_speech
from sipbridge.bench_relay import Load
from sipbridge.bench_show import run_table
from sipbridge.bench_worker import StandIn
from sipbridge.rtpengine_process import Rtpengine


def test_the_load_is_loud() -> None:
    samples = g711.decode(loud_speech(2.0), g711.PCMU).astype(float)
    peak_db = 20 * math.log10(max(abs(samples)) / 32768)
    assert peak_db > -1.5


async def test_a_small_run_loses_nothing_and_says_so_in_the_agreed_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bench_relay, "rtpengine_binary", lambda: None)
    seen: list[tuple[str, float]] = []
    result = await bench_relay.measure(
        Load(4, 1.0), progress=lambda name, done: seen.append((name, done))
    )
    body = json.loads(json.dumps(result.as_json()))
    assert set(body) >= {
        "calls",
        "cpu_core_pct",
        "us_per_packet",
        "added_latency_ms",
        "lost",
        "sent",
        "rss_mib",
        "tap_delivered_pct",
    }
    assert set(body["added_latency_ms"]) == {"p50", "p99", "max"}
    assert body["sent"] == 4 * 2 * 50
    assert body["lost"] == 0
    assert body["tap_delivered_pct"] == 100.0
    assert body["rss_mib"] > 5
    assert 0 < body["relay_us_per_packet"] <= body["us_per_packet"]
    assert seen[-1] == ("media worker", 1.0)


async def test_ciphered_and_recorded_calls_lose_nothing() -> None:
    pytest.importorskip("pylibsrtp")
    result = await bench_relay.measure(
        Load(4, 1.0, tap=False, record=True, srtp=True, histogram=True), reference=False
    )
    worker = result.worker
    assert (worker.sent, worker.lost) == (4 * 2 * 50, 0)
    assert worker.tap_delivered_pct is None
    assert sum(worker.histogram) == worker.sent
    assert result.reference is None


async def test_agents_who_hold_other_keys_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: what the agents hear is really deciphered."""
    pytest.importorskip("pylibsrtp")
    new_keys = StandIn._new_keys

    def wrong_keys(bridge: StandIn) -> SrtpKeys:
        keys = new_keys(bridge)
        bridge.srtp[-1] = (bridge.srtp[-1][0], bytes(30).hex())
        return keys

    monkeypatch.setattr(StandIn, "_new_keys", wrong_keys)
    with pytest.raises(SetupError, match="could not be deciphered"):
        await bench_relay.measure(Load(2, 1.0, srtp=True), reference=False)


def test_a_lost_packet_a_late_one_and_the_path_are_told_apart() -> None:
    warm_up, rounds = 2, 6
    sent = np.arange(1, 3 * rounds + 1, dtype=np.int64).reshape(3, rounds) * 1_000_000_000
    arrived = np.zeros_like(sent)
    for flow, took_ms in ((0, 1), (1, 3), (2, 1)):  # the last one is the direct path
        heard = Arrivals(sent[flow], arrived[flow])
        for number in range(rounds):
            if (flow, number) == (0, 4):
                continue
            packet = HEADER.pack(0x80, 0, 65534 + number & 0xFFFF, 0, 7) + bytes(160)
            heard.take(packet, int(sent[flow, number]) + took_ms * 1_000_000)
        heard.take(b"\x80\xc8" + bytes(30), int(sent[flow, -1]))  # RTCP does not count
    results = Results(
        sent, arrived, relayed=slice(0, 2), direct=slice(2, None), warm_up_rounds=warm_up
    )
    whole = results.whole()
    assert (whole["sent"], whole["received"]) == (8, 7)
    assert whole["added_ms"] == {"p50": 2.0, "p99": 2.0, "max": 2.0}
    first = results.between(int(sent[0, warm_up]), int(sent[0, -1]) + 1)
    assert (first["sent"], first["received"], first["added_ms"]["max"]) == (4, 3, 0.0)
    assert results.histogram(0.5, 3) == [3, 0, 4]


def test_the_table_has_a_row_for_each_combination(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_relay, "rtpengine_binary", lambda: None)
    monkeypatch.setattr(bench_relay, "_WARM_UP_S", 0.2)
    out = tmp_path / "table.md"
    assert run_table([2], 0.5, out) == 0
    rows = [line for line in out.read_text().splitlines() if line.startswith("| 2 |")]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert {(row[1], row[2]) for row in cells} == {
        (tap, recorder) for tap in ("on", "off") for recorder in ("on", "off")
    }
    assert {row[13] for row in cells} == {"0 of 100"}
    assert [row[14] for row in cells] == ["-", "100.00", "-", "100.00"]


async def test_rtpengine_that_does_not_answer_is_a_sentence() -> None:
    with pytest.raises(SetupError, match="rtpengine does not answer"):
        async with Rtpengine("/bin/true", ports=(22000, 22010)):
            pass
