"""The model runner: what it refuses, and that a batch is no different from one call."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from callshield.errors import DetectorModelError
from detectors import features
from detectors.acoustic import CARD_FILE, MODEL_FILE, SHIPPED, AcousticModel, load_card
from detectors.evaluate import verdicts
from detectors.line_sounds import sounds
from detectors.resample import to_int16
from tests.detector_sounds import shouting_voice, vowels


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in (MODEL_FILE, CARD_FILE):
        shutil.copy(SHIPPED / name, tmp_path / name)
    return tmp_path


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_the_shipped_model_loads_and_scores_between_0_and_1() -> None:
    model = AcousticModel()
    rng = np.random.default_rng(1)
    vectors = rng.normal(0, 50, (64, features.FEATURE_COUNT)).astype(np.float32)
    for scores in (*model.score(vectors), *model.score(vectors, vectors[::-1], np.ones(64, "f4"))):
        assert scores.shape == (64,)
        assert ((scores >= 0) & (scores <= 1)).all()
    assert model.score(np.zeros((0, features.FEATURE_COUNT), np.float32)).scores.shape == (0,)


def test_the_callers_own_voice_counts_as_far_as_it_is_known() -> None:
    model = AcousticModel()
    rng = np.random.default_rng(3)
    vectors, own = rng.normal(0, 5, (2, 32, features.FEATURE_COUNT)).astype(np.float32)
    unknown, half, known = (
        model.score(vectors, own, np.full(32, share, np.float32)) for share in (0.0, 0.5, 1.0)
    )
    np.testing.assert_allclose(unknown.scores, unknown.alone, atol=1e-6)
    np.testing.assert_allclose(known.alone, unknown.alone, atol=1e-6)
    assert np.abs(known.scores - unknown.scores).max() > 0.05
    middle = [np.log(s.scores / (1 - s.scores)) for s in (unknown, half, known)]
    np.testing.assert_allclose(middle[1], (middle[0] + middle[2]) / 2, atol=2e-2)


def test_each_window_of_a_batch_scores_as_it_would_alone() -> None:
    model = AcousticModel()
    batch = np.random.default_rng(2).normal(0, 5, (20, features.FEATURE_COUNT)).astype(np.float32)
    alone = [float(model.score(batch[i : i + 1]).scores[0]) for i in range(20)]
    np.testing.assert_allclose(model.score(batch).scores, alone, atol=1e-5)


def test_a_missing_model_or_card_is_named_with_what_to_do(folder: Path) -> None:
    (folder / MODEL_FILE).unlink()
    with pytest.raises(DetectorModelError, match=r"vocal_effort\.onnx cannot be read.*reinstall"):
        AcousticModel(folder)
    (folder / CARD_FILE).unlink()
    with pytest.raises(DetectorModelError, match=r"vocal_effort\.toml is missing.*model_dir"):
        AcousticModel(folder)


def test_a_model_with_one_wrong_byte_is_refused(folder: Path) -> None:
    content = bytearray((folder / MODEL_FILE).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / MODEL_FILE).write_bytes(bytes(content))
    with pytest.raises(DetectorModelError, match="not the one that its card names"):
        AcousticModel(folder)


def test_a_file_that_is_no_model_is_refused_even_when_its_card_vouches_for_it(
    folder: Path,
) -> None:
    import hashlib

    (folder / MODEL_FILE).write_bytes(b"not a model")
    digest = hashlib.sha256(b"not a model").hexdigest()
    edit(folder / CARD_FILE, load_card(folder / CARD_FILE).sha256, digest)
    with pytest.raises(DetectorModelError, match="cannot be run"):
        AcousticModel(folder)


def test_a_model_of_other_features_is_refused(folder: Path) -> None:
    edit(folder / CARD_FILE, load_card(folder / CARD_FILE).features_sha256, "0" * 64)
    with pytest.raises(DetectorModelError, match="trained on other features"):
        AcousticModel(folder)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("not = [toml", "cannot be read"),
        ("", r"lacks its \[model\]"),
        ("[model]\n[thresholds]\n", "lacks model.version"),
    ],
)
def test_a_broken_card_is_one_sentence(folder: Path, text: str, says: str) -> None:
    (folder / CARD_FILE).write_text(text, encoding="utf-8")
    with pytest.raises(DetectorModelError, match=says):
        AcousticModel(folder)


@pytest.mark.parametrize("value", ["2.0", "-0.1", '"high"', "true", "nan"])
def test_thresholds_that_are_no_scores_are_refused(folder: Path, value: str) -> None:
    card = (folder / CARD_FILE).read_text(encoding="utf-8").splitlines()
    changed = [f"serious = {value}" if line.startswith("serious") else line for line in card]
    (folder / CARD_FILE).write_text("\n".join(changed), encoding="utf-8")
    with pytest.raises(DetectorModelError, match=r"thresholds\.serious"):
        AcousticModel(folder)


def test_thresholds_must_rise(folder: Path) -> None:
    card = (folder / CARD_FILE).read_text(encoding="utf-8").splitlines()
    changed = ["serious = 0.01" if line.startswith("serious") else line for line in card]
    (folder / CARD_FILE).write_text("\n".join(changed), encoding="utf-8")
    with pytest.raises(DetectorModelError, match="must rise"):
        AcousticModel(folder)


@pytest.mark.parametrize("f0_hz", [220.0, 310.0])
def test_a_synthetic_shout_reaches_level_2_within_a_second(f0_hz: float) -> None:
    heard = verdicts(AcousticModel(), to_int16(vowels(f0_hz, -6.0, 4.0, 850.0)))
    assert max(v.decision.level for v in heard if v.at_s <= 1.0) == 2


@pytest.mark.parametrize("f0_hz", [115.0, 220.0, 300.0])
def test_a_high_voice_without_effort_raises_nothing(f0_hz: float) -> None:
    """Control: the same melodies with the steep tilt and the low first formant of calm speech."""
    heard = verdicts(AcousticModel(), to_int16(vowels(f0_hz, -12.0, 4.0, 500.0)))
    assert {v.decision.level for v in heard} == {0}


def highest(sound: NDArray[np.float32]) -> tuple[int, int]:
    """Level that a call with this sound reaches, and how many decisions had a score."""
    found = verdicts(AcousticModel(), to_int16(sound))
    return max(v.decision.level for v in found), sum(v.sustained is not None for v in found)


@pytest.mark.parametrize("name", sounds()["music on hold"])
def test_music_on_hold_is_heard_as_an_outcry_but_is_no_alarm(name: str) -> None:
    level, scored = highest(sounds(8.0)["music on hold"][name]())
    # Else the model was not even asked, and this would say nothing about it.
    assert scored >= 3
    assert level < 2


def test_control_a_shouting_voice_in_place_of_the_music_is_an_alarm() -> None:
    assert highest(shouting_voice(8.0))[0] == 2
