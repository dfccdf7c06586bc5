"""``callshield bench consoles``: it counts what it claims to count."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import Any

import uvloop

from callshield.bench_consoles import ConsoleLoad, measure, quantile_ms
from callshield.bench_consoles_clients import STEP_MS, Console, Tally
from notifier.cut import text_frame


def test_quantiles_are_the_upper_ends_of_their_steps() -> None:
    delays = Counter({9: 50, 19: 49, 1999: 1})
    assert quantile_ms(delays, 0.5) == round(10 * STEP_MS, 1)
    assert quantile_ms(delays, 0.99) == round(20 * STEP_MS, 1)
    assert quantile_ms(delays, 1.0) == round(2000 * STEP_MS, 1)
    assert quantile_ms(Counter(), 0.5) is None


class _Transport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.written = b""

    def write(self, data: Any) -> None:
        self.written += bytes(data)


def test_a_client_counts_alerts_repeats_and_answers_pings_however_the_bytes_are_cut() -> None:
    """Negative control of the benchmark: what comes twice, or not at all, is seen."""

    def alert(number: int, fill: int = 0) -> bytes:
        body = {"id": number, "type": "alert.raised", "ts": 1.0, "reason": "x" * fill}
        return text_frame(json.dumps(body, separators=(",", ":")).encode())

    other = text_frame(b'{"id":3,"type":"risk.changed","ts":1.0,"detail":"alert.raised"}')
    stream = b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + text_frame(b'{"type":"session.ready"}')
    stream += alert(1) + alert(2, 300) + other + alert(2) + alert(5, 70_000) + b"\x89\x01!"
    for size in (1, 7, 4096, len(stream)):
        tally, transport = Tally(), _Transport()
        console = Console(tally, "/", b"{}", asyncio.Semaphore(0))
        console.connection_made(transport)
        for at in range(0, len(stream), size):
            console.data_received(stream[at : at + size])
        assert (console.timed, console.again) == (4, 1)
        assert sum(tally.delays.values()) == 4
        assert tally.messages == 6
        assert transport.written.endswith(b"\x8a\x81\x00\x00\x00\x00!")


def test_a_short_run_delivers_every_alert_once() -> None:
    result = uvloop.run(measure(ConsoleLoad(consoles=6, alerts_per_s=20, seconds=1)))
    assert result["delivered"] == 6 * 20
    assert (result["missed"], result["twice"], result["closed"]) == (0, 0, 0)
    assert result["delivery_ms"]["p99"] >= result["delivery_ms"]["p50"] > 0
    assert result["reference_ms"]["before"]["p50"] > 0
    assert result["notifier"]["peak_mib"] > 20
    assert result["commits"] > 0
