"""`callshield bench pipeline` measures what it says: small runs, and its own arithmetic."""

from __future__ import annotations

import itertools
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from callshield import g711
from callshield.bench_alerts import Arrived, Cause, delays_ms, summary
from callshield.bench_pipeline import PipelineLoad, judged, measure
from callshield.bench_pipeline_show import table
from callshield.bench_processes import coverage
from callshield.bench_speech import audible, script, shipped_clips, speech_share
from callshield.errors import SetupError
from callshield.messages import Reason, RiskChanged
from detectors.asr.load import default_model_dir
from sipbridge.bench_load import answered, spoken

CLIPS = shipped_clips()
S = 1_000_000_000


# ------------------------------------------------------------------------------- the whole chain


async def test_a_shout_is_told_and_nothing_is_lost() -> None:
    seen: list[str] = []
    # Long enough for the slower of the shouts, which takes three seconds to level 2.
    result = await measure(PipelineLoad(2, 10.0), progress=lambda name, _: seen.append(name))
    result = json.loads(json.dumps(result))
    assert set(result) >= {
        "calls",
        "cpu_core_pct",
        "us_per_packet",
        "added_latency_ms",
        "lost",
        "sent",
        "rss_mib",
        "tap_delivered_pct",
        "alert_latency_ms",
        "analysis_dropped_pct",
        "asr_coverage_pct",
    }
    assert result["sent"] == 2 * 2 * 50 * (10 + 5)
    assert result["lost"] == 0
    assert result["tap_delivered_pct"] == 100.0
    assert result["analysis_dropped_pct"] == 0.0
    assert result["alerts"]["acoustic"]["raised"] == 1
    assert result["alerts"]["acoustic"]["expected"] == 1
    assert result["alert_latency_ms"]["p50"] > 0
    assert result["alerts"]["caution"]["p50"] <= result["alerts"]["acoustic"]["p50"]
    assert result["asr_coverage_pct"] == {"aroused": None, "all": None}
    assert result["detector"]["rss_mib"] > 10
    assert result["p99_ratio"] > 0
    assert {"loading models", "relay, nothing analysed", "relay, all analysed"} <= set(seen)
    assert table(result).row_count > 5


async def test_a_detector_that_stands_still_is_noticed_and_costs_no_packet() -> None:
    """Negative control: neither alerts nor analysed audio are taken for granted."""
    result = await measure(
        PipelineLoad(2, 5.0), on_detector=lambda pid: os.kill(pid, signal.SIGSTOP)
    )
    assert result["alerts"]["acoustic"] == {"expected": 1, "raised": 0, "p50": None, "p95": None}
    assert result["alert_latency_ms"] == {"p50": None, "p95": None}
    assert result["analysis_dropped_pct"] == 100.0
    assert result["tap_delivered_pct"] == 0.0
    assert result["lost"] == 0


async def test_a_missing_speech_model_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"words cannot be measured: .*without --asr"):
        await measure(PipelineLoad(1, 5.0, transcribers=1, speech_model=tmp_path))


@pytest.mark.skipif(
    not (default_model_dir() / "model.bin").exists(), reason="./run setup installed no speech model"
)
async def test_abusive_words_are_told() -> None:
    result = await measure(PipelineLoad(1, 40.0, transcribers=1))
    words = result["alerts"]["words_aroused"]
    assert 0 < words["raised"] <= words["expected"]
    assert result["asr_coverage_pct"]["aroused"] > 0
    assert result["transcribers"][0]["rss_mib"] > 100
    assert result["speech_model"]


# -------------------------------------------------------------------------------------- callers


def test_recordings_of_every_kind_are_shipped() -> None:
    for voice in ("male", "female"):
        assert {one.kind for one in CLIPS if one.voice == voice} >= {"calm", "abuse"}
    assert any(one.kind == "shout" and one.voice == "male" for one in CLIPS)
    assert all(0 <= one.begins < one.ends < one.length for one in CLIPS)


def test_the_onset_is_the_first_audible_packet() -> None:
    samples = np.zeros(8000, np.int16)
    samples[1600:3200] = 9000
    samples[160:320] = 20
    assert audible(samples) == (10, 19)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 400), st.integers(300, 1500), st.integers(250, 6000), st.booleans())
@example(200, 300, 250, True)  # the pause before the shout would have outlasted the load
def test_callers_say_one_thing_after_another_and_nothing_bad_before_its_time(
    call: int, first: int, measured: int, words: bool
) -> None:
    rounds = first + measured
    said = script(CLIPS, call, first, rounds, words=words)
    assert said == script(CLIPS, call, first, rounds, words=words)
    assert all(one.at + one.clip.length < two.at for one, two in itertools.pairwise(said))
    assert len({one.clip.voice for one in said}) <= 1
    bad = [one for one in said if one.clip.kind != "calm"]
    assert all(one.at >= first for one in bad)
    kinds = {one.clip.kind for one in bad}
    if call % 10 == 0:
        assert sum(one.clip.kind == "shout" for one in bad) == 1
        assert bad[0].clip.kind == "shout"
    elif call % 10 == 5 and words:
        assert len(bad) == 1
        assert kinds == {"abuse"}
    else:
        assert not bad
    if not words:
        assert "abuse" not in kinds


def test_agents_speak_in_the_callers_pauses_and_never_over_their_words() -> None:
    lengths, said = [40], [[[0, 100], [0, 220]], []]
    first, other = answered(lengths, said, 300)
    level = [float(np.abs(g711.decode(frame, g711.PCMU)).mean()) for frame in first]
    assert not any(level[85:155]), "not over a sentence, nor right before and after it"
    assert not any(level[205:275])
    assert max(level[:85]) > 300
    assert max(level[155:205]) > 300, "the control: they do speak"
    assert len(first) == len(other) == 300
    assert max(level) < 5000, "nobody shouts: what is taken for an echo would cover the caller"


def test_callers_speak_a_good_part_of_the_time() -> None:
    scripts = [script(CLIPS, call, 500, 4000, words=True) for call in range(50)]
    assert 0.3 < speech_share(scripts, 4000) < 0.7


def test_what_is_said_is_sent_at_its_time() -> None:
    clip = next(one for one in CLIPS if one.kind == "shout")
    rows = spoken([str(clip.path)], [[[0, 100]], []], 200)
    powers = [
        [float(np.mean(g711.decode(frame, g711.PCMU).astype(float) ** 2)) for frame in row]
        for row in rows
    ]
    assert [len(row) for row in rows] == [200, 200]
    assert {len(frame) for row in rows for frame in row} == {160}
    assert max(powers[1]) < 1e4
    assert max(powers[0][: 100 + clip.begins]) < max(powers[0]) / 1000
    assert powers[0][100 + clip.begins] >= max(powers[0][100:]) / 10**3.1


# ---------------------------------------------------------------------------------------- alerts


def risk(at_s: float, level: int, previous: int, *kinds: str, rule: str = "") -> RiskChanged:
    reasons = [Reason(kind=kind, score=0.9, rule=rule) for kind in kinds]  # type: ignore[arg-type]
    return RiskChanged(
        ts=0.0,
        call_id="a",
        level=level,
        previous=previous,
        categories=[],
        score=0.9,
        reasons=reasons,
        at_s=at_s,
    )


SHOUT = Cause("acoustic", "a", 10 * S, 15 * S, 10.0, False)
WORDS = Cause("words", "a", 20 * S, 23 * S, 20.0, True)


def test_a_shout_counts_from_its_onset_and_words_from_their_end() -> None:
    arrived = [
        Arrived(11 * S, risk(11.0, 2, 0, "vocal_effort")),
        Arrived(25 * S, risk(23.2, 3, 2, "words", "vocal_effort")),
    ]
    assert delays_ms([WORDS, SHOUT], arrived) == [2000.0, 1000.0]
    found = judged([WORDS, SHOUT], arrived)
    assert found["all"] == {"expected": 2, "raised": 2, "p50": 1500.0, "p95": 1950.0}
    assert found["words_calm"] == {"expected": 0, "raised": 0, "p50": None, "p95": None}
    assert found["caution"]["p50"] == 1000.0


@pytest.mark.parametrize(
    ("cause", "at_s", "message"),
    [
        (SHOUT, 9, risk(9.0, 2, 0, "vocal_effort")),  # before it
        (SHOUT, 21, risk(21.0, 2, 0, "vocal_effort")),  # far too late
        (SHOUT, 11, risk(11.0, 1, 0, "vocal_effort")),  # only caution
        (SHOUT, 11, risk(11.0, 2, 3, "vocal_effort", rule="calmed_down")),  # fell
        (SHOUT, 11, risk(11.0, 2, 0, "words")),  # of something else
        (WORDS, 24, risk(24.0, 2, 0, "vocal_effort")),
        (WORDS, 24, risk(15.0, 2, 2, "words")),  # about what was said before
        (WORDS, 24, risk(24.0, 2, 2, "words", rule="no_more_words")),
        (WORDS, 40, risk(39.0, 2, 2, "words")),  # about what was said long after
        (WORDS, 60, risk(23.0, 2, 2, "words")),
        (Cause("words", "b", 20 * S, 23 * S, 20.0, True), 24, risk(23.0, 2, 0, "words")),
    ],
)
def test_what_is_no_answer_is_not_taken_for_one(
    cause: Cause, at_s: int, message: RiskChanged
) -> None:
    assert delays_ms([cause], [Arrived(at_s * S, message)]) == [None]


def test_one_message_answers_one_sentence() -> None:
    second = Cause("words", "a", 27 * S, 29 * S, 27.0, True)
    both = [Arrived(30 * S, risk(29.2, 3, 2, "words"))]
    assert delays_ms([WORDS, second], both) == [None, 1000.0]
    late = [Arrived(30 * S, risk(23.2, 3, 2, "words")), *both]
    assert delays_ms([WORDS, second], late) == [7000.0, 1000.0]
    assert summary([7000.0, None]) == {"expected": 2, "raised": 1, "p50": 7000.0, "p95": 7000.0}


def test_first_step_up_is_told_apart_from_the_alert() -> None:
    arrived = [
        Arrived(11 * S, risk(11.0, 1, 0, "vocal_effort")),
        Arrived(12 * S, risk(12.0, 2, 1, "vocal_effort")),
    ]
    found = judged([SHOUT], arrived)
    assert (found["caution"]["p50"], found["acoustic"]["p50"]) == (1000.0, 2000.0)
    assert found["all"]["expected"] == 1


def test_what_was_dropped_or_still_waits_was_not_heard() -> None:
    first = {"offered": 10.0, "heard": 8.0, "waiting": 50.0}
    last = {"offered": 6.0, "heard": 6.0, "waiting": 4.0}
    assert coverage([first, last]) == 70.0
    assert coverage([]) is None
    assert coverage([{"offered": 0.0, "heard": 0.0, "waiting": 0.0}]) is None
