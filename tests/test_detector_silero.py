"""Silero at 8 kHz: the same numbers as upstream's own file, batched, and only the right file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from callshield.errors import DetectorModelError
from detectors import silero
from detectors.silero import LICENCE_FILE, MODEL_FILE, SHIPPED, Silero, blank, cut_windows

DEMO = Path(__file__).parents[1] / "callshield" / "demo_audio"
#: What silero_vad.onnx of silero-vad 6.2.3, window after window of 256 samples with the 32 before
#: it, gives for the beginning of the demo's calm_1.wav.
UPSTREAM = (
    *(0.0174, 0.0175, 0.0224, 0.4451, 0.7014, 0.9403, 0.9712, 0.9643, 0.9734, 0.9986),
    *(0.9995, 0.9999, 0.9999, 0.9998, 0.9998, 0.9994, 0.9998, 0.9999, 0.9998, 0.9998),
    *(0.9996, 0.9992, 0.9999, 0.9999, 0.9999, 0.9998, 0.9998, 0.9998, 0.9987, 0.9893),
    *(0.8764, 0.7632, 0.5861, 0.3848, 0.2216, 0.1595, 0.1521, 0.1449, 0.8710, 0.9988),
)


def demo(name: str) -> NDArray[np.int16]:
    pcm, rate = soundfile.read(DEMO / f"{name}.wav", dtype="int16")
    assert rate == 8000
    return np.asarray(pcm, dtype=np.int16)


def upstream_windows(pcm: NDArray[np.int16], count: int) -> NDArray[np.float32]:
    padded = np.concatenate([np.zeros(32, np.int16), pcm]).astype(np.float32) / 32768
    views = np.lib.stride_tricks.sliding_window_view(padded, 288)[::256][:count]
    return np.ascontiguousarray(views[None])


@pytest.fixture(scope="module")
def model() -> Silero:
    return Silero()


def test_the_batched_graph_gives_upstreams_probabilities(model: Silero) -> None:
    windows = upstream_windows(demo("calm_1"), len(UPSTREAM))
    found, _ = model.probabilities(windows, blank(1))
    np.testing.assert_allclose(found[0], UPSTREAM, atol=1e-4)


def test_control_without_its_memory_the_model_says_something_else(model: Silero) -> None:
    windows = upstream_windows(demo("calm_1"), len(UPSTREAM))
    forgetful, _ = model.probabilities(windows.transpose(1, 0, 2), blank(len(UPSTREAM)))
    assert np.abs(forgetful[:, 0] - UPSTREAM).max() > 0.3


def test_windows_every_250_samples_agree_with_upstreams_every_256(model: Silero) -> None:
    pcm = demo("calm_1")[:24000]
    ours, _ = model.probabilities(
        cut_windows(np.concatenate([np.zeros(160, "i2"), pcm])[None]), blank(1)
    )
    theirs, _ = model.probabilities(upstream_windows(pcm, 93), blank(1))
    at = np.arange(93) * 256 / 250
    assert np.mean((np.interp(at, np.arange(96), ours[0]) > 0.5) == (theirs[0] > 0.5)) > 0.96


def test_a_hop_is_sixteen_windows_and_the_last_ends_with_it() -> None:
    hops = np.arange(2 * 4160, dtype=np.int16).reshape(2, 4160)
    windows = cut_windows(hops)
    assert windows.shape == (2, 16, 288)
    np.testing.assert_array_equal(windows[1, -1] * 32768, hops[1, -288:])
    np.testing.assert_array_equal(windows[0, 1, :38], windows[0, 0, 250:])


def test_a_batch_is_no_different_from_each_call_alone(model: Silero) -> None:
    rng = np.random.default_rng(1)
    hops = np.stack([demo("calm_1")[s : s + 4160] for s in rng.integers(0, 40000, 7)])
    memory = silero.Memory(*(rng.normal(0, 0.5, (7, 128)).astype(np.float32) for _ in range(2)))
    together, after = model.probabilities(cut_windows(hops), memory)
    for i in range(7):
        mine = silero.Memory(memory.hidden[i : i + 1], memory.cell[i : i + 1])
        alone, mine = model.probabilities(cut_windows(hops[i : i + 1]), mine)
        np.testing.assert_allclose(alone[0], together[i], atol=1e-5)
        np.testing.assert_allclose(mine.cell[0], after.cell[i], atol=1e-5)


def test_the_licence_stands_beside_the_file() -> None:
    text = (SHIPPED / LICENCE_FILE).read_text(encoding="utf-8")
    assert "MIT License" in text
    assert "Silero Team" in text


def test_a_missing_file_is_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DetectorModelError, match=r"silero_8k\.onnx cannot be read.*reinstall"):
        Silero(tmp_path / MODEL_FILE)


def test_a_file_with_one_wrong_byte_is_refused(tmp_path: Path) -> None:
    content = bytearray((SHIPPED / MODEL_FILE).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / MODEL_FILE).write_bytes(bytes(content))
    with pytest.raises(DetectorModelError, match="not the one of this version"):
        Silero(tmp_path / MODEL_FILE)


def test_what_is_no_model_is_refused_even_with_the_right_sum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import hashlib

    (tmp_path / MODEL_FILE).write_bytes(b"not a model")
    monkeypatch.setattr(silero, "SHA256", hashlib.sha256(b"not a model").hexdigest())
    with pytest.raises(DetectorModelError, match="cannot be run"):
        Silero(tmp_path / MODEL_FILE)


def test_a_sites_own_folder_goes_first_where_it_holds_the_file(tmp_path: Path) -> None:
    assert silero.find_model(None) == SHIPPED / MODEL_FILE
    assert silero.find_model(tmp_path) == SHIPPED / MODEL_FILE
    (tmp_path / MODEL_FILE).write_bytes(b"")
    assert silero.find_model(tmp_path) == tmp_path / MODEL_FILE
