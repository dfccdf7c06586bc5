"""The model runner: what it refuses, and that a batch is no different from one call."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from callshield.errors import DetectorModelError
from detectors import features
from detectors.acoustic import CARD_FILE, MODEL_FILE, SHIPPED, AcousticModel, load_card


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
    scores = model.score(rng.normal(0, 50, (64, features.FEATURE_COUNT)).astype(np.float32))
    assert scores.shape == (64,)
    assert ((scores >= 0) & (scores <= 1)).all()
    assert model.score(np.zeros((0, features.FEATURE_COUNT), np.float32)).shape == (0,)


def test_each_window_of_a_batch_scores_as_it_would_alone() -> None:
    model = AcousticModel()
    batch = np.random.default_rng(2).normal(0, 5, (20, features.FEATURE_COUNT)).astype(np.float32)
    alone = [float(model.score(batch[i : i + 1])[0]) for i in range(20)]
    np.testing.assert_allclose(model.score(batch), alone, atol=1e-5)


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
