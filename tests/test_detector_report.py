"""``callshield train`` and ``callshield eval``: what they say, and what they need."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from callshield.errors import SetupError
from callshield.model_commands import eval_acoustic, train_acoustic
from detectors import features
from detectors.report import kept_figures, markdown
from detectors.sequences import CHANNELS, frames_of
from detectors.stream import WINDOW_FRAMES


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "audio").mkdir()
    (tmp_path / "audio" / "manifest.tsv").write_text("path\tcorpus\n", encoding="utf-8")
    return tmp_path


def test_a_folder_without_recordings_is_named(tmp_path: Path) -> None:
    commands: tuple[Callable[[], object], ...] = (
        lambda: train_acoustic(tmp_path),
        lambda: eval_acoustic(tmp_path, tmp_path / "report"),
    )
    for command in commands:
        with pytest.raises(SetupError, match=r"--data: .*manifest\.tsv is not there"):
            command()
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize("package", ["sklearn", "matplotlib"])
def test_a_package_that_only_training_needs_is_named_with_its_lock_file(
    data: Path, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("detectors.train", "detectors.net", "detectors.plots", "detectors.examples"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    commands: dict[str, Callable[[], object]] = {
        "sklearn": lambda: train_acoustic(data, data),
        "matplotlib": lambda: eval_acoustic(data, data / "report"),
    }
    command = commands[package]
    with pytest.raises(SetupError, match=r"requirements-train\.lock"):
        command()
    assert not (data / "report").exists()


def test_the_report_begins_with_false_alarms() -> None:
    calm = {"clips": 3, "hours": 1.5, "to_level_1_per_hour": 2.0, "to_level_2_per_hour": 0.5}
    lines = list(markdown({"emodb": {"auc": 0.9}, "calm_fsdd": calm}, "3"))
    assert lines[0] == "# Vocal effort, measured (model version 3)"
    assert "| fsdd | 1.50 | 2.0 | 0.5 |" in lines
    assert lines.index("| fsdd | 1.50 | 2.0 | 0.5 |") < lines.index("| auc | 0.9 |")


def test_the_card_keeps_what_this_report_does_not_measure() -> None:
    card = {"figures": {"made_calls": {"hours": 4.61}, "onset": {"calls": 80}}, "model": {}}
    kept = kept_figures(card, {"onset": {"calls": 10}, "emodb": {"auc": 0.9}})
    assert kept == {"onset": {"calls": 10}, "emodb": {"auc": 0.9}, "made_calls": {"hours": 4.61}}
    assert kept_figures({}, {"onset": {}}) == {"onset": {}}, "a fresh card has none"


def test_frames_for_sequence_models_do_not_follow_the_gain() -> None:
    rng = np.random.default_rng(4)
    audio = rng.normal(0, 0.1, (2, 160 * (WINDOW_FRAMES + 1))).astype(np.float32)
    speech = rng.random((2, WINDOW_FRAMES)) < 0.7
    plain, loud = (
        frames_of(features.frame_tracks(audio * np.float32(gain)), speech) for gain in (1.0, 5.0)
    )
    assert plain.shape == (2, WINDOW_FRAMES, CHANNELS)
    np.testing.assert_allclose(plain, loud, atol=2e-2)
    assert not plain[~speech].any()
    assert (plain[speech][:, -1] == 1).all()
    # Control: the level itself would follow it.
    tracks = [features.frame_tracks(audio * np.float32(gain)) for gain in (1.0, 5.0)]
    assert np.abs(tracks[0][..., 0] - tracks[1][..., 0]).min() > 10
