"""The benchmark measures what it says: a small run, and its own arithmetic."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callshield.errors import SetupError
from sipbridge import bench_relay, g711
from sipbridge.bench_load import loud_speech
from sipbridge.rtpengine_ng import Rtpengine, bdecode, bencode, media_of, session_description

values = st.recursive(
    st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=12,
)


@given(values)
def test_bencode_goes_there_and_back(value: object) -> None:
    assert bdecode(bencode(value)) == value


@pytest.mark.parametrize("data", [b"", b"i12", b"5:abc", b"d1:ae", b"i1ei2e", b"x"])
def test_what_is_not_bencode_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="not bencoded"):
        bdecode(data)


def test_media_is_read_from_an_sdp() -> None:
    assert media_of(session_description("192.0.2.1", 4000)) == ("192.0.2.1", 4000)


def test_the_load_is_loud() -> None:
    samples = g711.decode(loud_speech(2.0), g711.PCMU).astype(float)
    peak_db = 20 * math.log10(max(abs(samples)) / 32768)
    assert peak_db > -1.5


async def test_a_small_run_loses_nothing_and_says_so_in_the_agreed_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Rtpengine, "installed", staticmethod(lambda: None))
    seen: list[tuple[str, float]] = []
    result = await bench_relay.measure(
        4, 1.0, tap=True, progress=lambda name, done: seen.append((name, done))
    )
    body = json.loads(json.dumps(result.as_json()))
    assert set(body) == {
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
    assert seen[-1] == ("media worker", 1.0)


async def test_rtpengine_that_does_not_answer_is_a_sentence() -> None:
    with pytest.raises(SetupError, match="rtpengine does not answer"):
        async with Rtpengine("/bin/true", calls=1):
            pass
