"""Made calls: the truth in them, how levels are held against it, and what the report says."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from callshield.errors import SetupError
from callshield.model_commands import eval_calls
from detectors import corpora, made_calls, telephone
from detectors.acoustic import AcousticModel, Scores
from detectors.calls_eval import GRACE_S, Outcome, false_alarms, hit_share, outcome, outcomes
from detectors.calls_report import (
    NOT_TESTED,
    card_figures,
    figures,
    groups,
    markdown,
    measure,
    ordinary,
)
from detectors.engine import Verdict
from detectors.made_calls import Kind, MadeCall, Voices, abusive, empty, peaceful, traits_of
from detectors.resample import RATE
from detectors.risk import Decision
from tests.detector_sounds import calm_voice, shouting_voice

COLUMNS = ("path", "corpus", "lang", "speaker", "emotion", "positive", "split", "licence")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two speakers with a calm, a lively and an angry clip each; made voices, real files."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "audio").mkdir()
    rows = []
    for speaker in ("emodb_15", "emodb_16"):
        for emotion in ("neutral", "happiness", "anger"):
            name = f"{speaker}_{emotion}.wav"
            voice = shouting_voice(3.0) if emotion == "anger" else calm_voice(3.0)
            soundfile.write(folder / "audio" / name, voice, RATE)
            rows.append((name, "emodb", "de", speaker, emotion, "0", "dev", "CC0-1.0"))
    with (folder / "audio" / "manifest.tsv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(COLUMNS)
        writer.writerows(rows)
    return folder


@pytest.fixture(scope="module")
def voices(data: Path) -> Voices:
    return Voices(corpora.read_manifest(data))


class Fixed(AcousticModel):
    """Any speech gets one score."""

    value = 0.01

    def score(
        self,
        vectors: NDArray[np.float32],
        references: NDArray[np.float32] | None = None,
        known: NDArray[np.float32] | None = None,
    ) -> Scores:
        scores = np.full(len(vectors), self.value, dtype=np.float32)
        return Scores(scores, scores)


class AlwaysShouting(Fixed):
    value = 0.99


def test_a_calm_call_has_turns_of_one_speaker_and_no_anger(voices: Voices) -> None:
    calls = list(peaceful(voices, Kind.CALM, "emodb", 2.0, 3))
    assert sum(call.seconds for call in calls) >= 120
    assert [call.speaker for call in calls] == ["emodb_15", "emodb_16"][: len(calls)]
    for call in calls:
        assert call.anger_s is None
        assert 0.3 < call.speech_s / call.seconds < 0.85, "the agent speaks too"


def test_an_abusive_call_is_angry_where_it_says_so(voices: Voices) -> None:
    (call,) = abusive(voices, "emodb", 1, 3)
    assert call.anger_s is not None
    start, end = call.anger_s
    assert 20 < start < end < call.seconds - 5
    # Anger is the only part of these voices with a strong upper band.
    loud = np.abs(np.diff(call.pcm.astype(np.float64)))
    inside = loud[int(start * RATE) : int(end * RATE)].mean()
    assert inside > 1.3 * loud[: int(start * RATE)].mean()


def test_the_same_seed_makes_the_same_calls_and_another_does_not(voices: Voices) -> None:
    def one(seed: int) -> NDArray[np.int16]:
        return next(peaceful(voices, Kind.SIGNALS, "emodb", 1.0, seed)).pcm

    assert np.array_equal(one(3), one(3))
    assert not np.array_equal(one(3)[:80000], one(4)[:80000])


def test_noise_lies_where_it_is_said_to(voices: Voices) -> None:
    names: dict[str, set[str]] = {}
    for call in peaceful(voices, Kind.NOISY, "emodb", 4.0, 3):
        (noise,) = [trait for trait in call.traits if trait.startswith("noise")]
        assert noise == f"noise {call.line.snr_db:g} dB under the voice"
        names.setdefault(call.speaker, set()).add(noise)
    assert all(len(noises) > 1 for noises in names.values()), "no speaker has one noise alone"


def test_a_call_without_speech_has_none(voices: Voices) -> None:
    (call,) = list(empty(0.9, 3))[:1]
    assert call.speech_s == 0
    assert call.anger_s is None
    assert np.abs(call.pcm.astype(np.int32)).max() > 100, "there is something on the line"


def test_nothing_is_guessed_about_a_speaker() -> None:
    assert traits_of("emodb", "emodb_16") == ("women", "21 to 35 years")
    assert traits_of("fsdd", "yweweler") == ("men", "second-language")
    assert traits_of("fsdd", "lucas") == ()
    assert traits_of("nemo", "nemo_WR0") == ()


def call(anger_s: tuple[float, float] | None) -> MadeCall:
    pcm = np.zeros(60 * RATE, np.int16)
    return MadeCall(Kind.ABUSIVE, "emodb", "x", pcm, anger_s, 30.0, telephone.CLEAN, ())


def levels(*steps: tuple[float, int]) -> list[Verdict]:
    """Verdicts every half second; each step is a time and the level from then on."""
    out, previous = [], 0
    for hop in range(120):
        at_s = 0.5 * (hop + 1)
        level = max((s for s in steps if s[0] <= at_s), default=(0.0, 0))[1]
        out.append(Verdict(b"x", at_s, None, Decision(level, previous, 0.0, None, 0.0)))
        previous = level
    return out


def test_a_rise_in_the_anger_is_a_hit_and_its_delay_counts_from_the_first_word() -> None:
    found = outcome(call((30.0, 40.0)), levels((31.0, 1), (32.5, 2), (50.0, 0)))
    assert (found.hit, found.delay_s, found.false_2, found.false_1) == (True, 2.5, 0, 0)


def test_a_rise_outside_is_a_false_alarm_and_every_one_counts() -> None:
    steps = ((10.0, 2), (15.0, 0), (20.0, 2), (25.0, 0))
    found = outcome(call((30.0, 40.0)), levels(*steps))
    assert (found.hit, found.false_2, found.false_1) == (False, 2, 2)
    calm = outcome(call(None), levels(*steps))
    assert (calm.hit, calm.false_2) == (None, 2)


def test_a_level_just_after_the_anger_follows_from_it_and_a_later_one_does_not() -> None:
    assert outcome(call((30.0, 40.0)), levels((40.0 + GRACE_S, 2))).hit
    late = outcome(call((30.0, 40.0)), levels((40.5 + GRACE_S, 2)))
    assert (late.hit, late.false_2) == (False, 1)


def test_a_level_that_stood_before_gives_no_delay() -> None:
    found = outcome(call((30.0, 40.0)), levels((28.0, 2)))
    assert found.hit
    assert np.isnan(found.delay_s)
    assert found.false_2 == 1


def one(speaker: str, false_2: int, hit: bool | None = None, hours: float = 1.0) -> Outcome:
    return Outcome(Kind.CALM, "c", speaker, (), hours, 0.0, false_2, false_2, hit, 1.0)


def test_alarms_of_one_voice_make_the_interval_wider_than_chance_would() -> None:
    spread = false_alarms([one(str(i), 2) for i in range(20)], 1)
    bundled = false_alarms([one(str(i), 40 if i == 0 else 0) for i in range(20)], 1)
    assert spread.per_hour == bundled.per_hour == 2.0
    assert bundled.high > 1.5 * spread.high
    none = false_alarms([one(str(i), 0) for i in range(20)], 1)
    assert (none.low, none.high) == (0.0, pytest.approx(3.689 / 20, abs=1e-3))


def test_hits_of_one_voice_say_little_about_others() -> None:
    spread = hit_share([one(str(i), 0, hit=i % 2 == 0) for i in range(40)], 1)
    bundled = hit_share([one(str(i // 20), 0, hit=i < 20) for i in range(40)], 1)
    assert spread.hits == bundled.hits == 20
    assert (bundled.low, bundled.high) == (0.0, 1.0)
    assert spread.high - spread.low < 0.35


def test_a_model_that_always_cries_wolf_is_found_out_and_a_deaf_one_too(data: Path) -> None:
    """Negative control of the whole: the headline follows the model."""
    wolf = measure(AlwaysShouting(), data, 3, 1.0)
    deaf = measure(Fixed(), data, 3, 1.0)
    assert {o.kind for o in wolf} == set(Kind)
    assert false_alarms(ordinary(wolf), 3).per_hour > 20
    assert false_alarms(ordinary(deaf), 3).events == 0
    assert hit_share(deaf, 3).hits == 0
    text = "\n".join(markdown(deaf, 3, "x"))
    assert text.splitlines()[2].startswith("**False alarms an agent-hour: 0.00 (0.00 to ")
    for sentence in NOT_TESTED:
        assert sentence in text
    headline = card_figures(wolf, 3)
    assert headline["level_2_per_hour"] == round(false_alarms(ordinary(wolf), 3).per_hour, 2)
    assert headline["emodb_passages_reach_2"] == 1.0
    told = figures(wolf, 3)
    assert told["false_alarms_per_agent_hour"]["events"] == sum(o.false_2 for o in ordinary(wolf))
    tables = groups(wolf, 3)
    # One call of each kind: the first speaker's, a man's.
    known = {row.name for row in tables["by voice, where it is known"]}
    assert known == {"men", "21 to 35 years"}


def test_calls_judged_together_get_what_each_would_get_alone(voices: Voices) -> None:
    model = AcousticModel()
    calls = [*abusive(voices, "emodb", 2, 5), *peaceful(voices, Kind.CALM, "emodb", 1.0, 5)]
    together = outcomes(model, calls)
    alone = [outcomes(model, [single])[0] for single in calls]
    for mine, single in zip(together, alone, strict=True):
        same = replace(mine, delay_s=0.0) == replace(single, delay_s=0.0)
        assert same
        assert mine.delay_s == single.delay_s or np.isnan(mine.delay_s)


def test_the_command_says_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"manifest\.tsv is not there"):
        eval_calls(tmp_path, tmp_path / "out")


def test_signals_are_what_their_standards_say() -> None:
    rng = np.random.default_rng(1)
    ring = made_calls.ringing(rng)[: RATE // 2]
    spectrum = np.abs(np.fft.rfft(ring))
    hz = np.fft.rfftfreq(len(ring), 1 / RATE)
    strongest = {round(float(hz[i])) for i in np.argsort(spectrum)[-2:]}
    assert strongest <= {440, 480, 424, 426}
    fax = np.abs(np.fft.rfft(made_calls.fax(rng)[: RATE // 2]))
    assert abs(hz[int(np.argmax(fax))] - 1100) <= 2
    tune = made_calls.music(rng)
    assert 6 * RATE < len(tune) < 25 * RATE
    assert np.isfinite(tune).all()
