"""Recordings through the pipeline: any rate, any length, and what cannot be read."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from callshield.errors import DetectorModelError
from detectors import corpora
from detectors.analyze import analyze_file, analyze_paths
from detectors.resample import to_8k
from tests.detector_sounds import DATA, calm_voice, needs_data, shouting_voice, white_noise

KEYS = {"file", "duration_s", "acoustic", "level", "categories", "events"}


def wav(path: Path, audio: NDArray[np.float32], rate: int = 8000, subtype: str = "PCM_16") -> Path:
    soundfile.write(path, audio, rate, subtype=subtype)
    return path


def test_the_result_has_the_fields_of_the_black_box_interface(tmp_path: Path) -> None:
    (found,) = analyze_paths([wav(tmp_path / "a.wav", calm_voice(3.0))])
    assert set(found) == KEYS
    assert found["file"] == str(tmp_path / "a.wav")
    assert found["duration_s"] == 3.0
    assert 0.0 <= found["acoustic"] <= 1.0
    assert found["level"] == 0
    assert found["categories"] == []
    assert found["events"] == []
    json.dumps(found)


def test_48_khz_stereo_gives_nearly_what_8_khz_mono_gives(tmp_path: Path) -> None:
    import soxr

    voice = shouting_voice(4.0)
    wide = soxr.resample(voice, 8000, 48000).astype(np.float32)
    mono = analyze_file(wav(tmp_path / "mono.wav", voice))
    stereo = analyze_file(wav(tmp_path / "stereo.wav", np.stack([wide, wide], axis=1), 48000))
    assert stereo.duration_s == pytest.approx(4.0, abs=0.01)
    assert stereo.acoustic == pytest.approx(mono.acoustic, abs=0.1)
    assert stereo.level == mono.level


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 44100])
def test_a_recording_without_samples_is_calm(tmp_path: Path, rate: int) -> None:
    found = analyze_file(wav(tmp_path / "empty.wav", np.zeros(0, np.float32), rate))
    assert (found.duration_s, found.acoustic, found.level, found.events) == (0.0, 0.0, 0, [])


@pytest.mark.parametrize("samples", [1, 79, 159, 160, 161, 3999, 4000, 4001])
def test_very_short_recordings_are_analysed(tmp_path: Path, samples: int) -> None:
    found = analyze_file(wav(tmp_path / "short.wav", white_noise(1.0)[:samples]))
    assert found.duration_s == round(samples / 8000, 3)
    assert found.level == 0


@pytest.mark.parametrize("name", ["silence", "noise", "clipped noise", "nan"])
def test_what_is_no_voice_is_calm(tmp_path: Path, name: str) -> None:
    audio = {
        "silence": np.zeros(40000, np.float32),
        "noise": white_noise(5.0),
        "clipped noise": np.sign(white_noise(5.0)),
        "nan": np.full(40000, np.nan, np.float32),
    }[name]
    assert analyze_file(wav(tmp_path / "a.wav", audio, subtype="FLOAT")).level == 0


def test_what_cannot_be_read_is_an_error_and_the_others_are_still_done(tmp_path: Path) -> None:
    good = wav(tmp_path / "good.wav", calm_voice(2.0))
    text = tmp_path / "text.wav"
    text.write_text("not audio")
    nothing = tmp_path / "nothing.wav"
    nothing.write_bytes(b"")
    paths = [text, good, nothing, tmp_path / "missing.wav", tmp_path, good]
    found = list(analyze_paths(paths))
    assert [f["file"] for f in found] == [str(p) for p in paths]
    assert [set(f) == {"file", "error"} for f in found] == [True, False, True, True, True, False]
    assert "No such file" in found[3]["error"]
    assert "readable" in found[0]["error"]


def test_two_jobs_give_the_same_as_one(tmp_path: Path) -> None:
    paths = [wav(tmp_path / f"{i}.wav", calm_voice(1.0 + i)) for i in range(3)]
    paths.append(tmp_path / "missing.wav")
    assert list(analyze_paths(paths, jobs=2)) == list(analyze_paths(paths, jobs=1))


def test_without_a_model_nothing_is_analysed(tmp_path: Path) -> None:
    with pytest.raises(DetectorModelError, match="is missing"):
        list(analyze_paths([wav(tmp_path / "a.wav", calm_voice(1.0))], model_dir=tmp_path))


_MEMORY = """
import resource, sys
from pathlib import Path
from detectors.analyze import analyze_file
analyze_file(Path(sys.argv[1]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = analyze_file(Path(sys.argv[2]))
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(found.duration_s, (after - before) // 1024)
"""


def test_a_long_recording_takes_no_more_memory_than_a_short_one(tmp_path: Path) -> None:
    """Ten minutes of stereo at 48 kHz would be 220 MiB as float32."""
    short = wav(tmp_path / "short.wav", calm_voice(5.0))
    long = tmp_path / "long.wav"
    with soundfile.SoundFile(long, "w", 48000, 2, "PCM_16") as file:
        second = np.zeros((48000, 2), np.float32)
        second[:24000] = white_noise(3.0)[:24000, None]
        for _ in range(600):
            file.write(second)
    ran = subprocess.run(
        [sys.executable, "-c", _MEMORY, str(short), str(long)],
        capture_output=True,
        text=True,
        check=True,
    )
    duration_s, grown_mib = ran.stdout.split()
    assert float(duration_s) == 600.0
    assert int(grown_mib) < 24


@needs_data
@pytest.mark.data
def test_an_angry_clip_is_an_event_where_it_is_and_its_calm_neighbour_is_not(
    tmp_path: Path,
) -> None:
    """Both of one speaker whom the model never heard: 6 s calm, then shouting."""
    clips = [c for c in corpora.read_manifest(DATA) if c.corpus == "emodb" and c.split == "dev"]
    speaker = "emodb_12"
    calm = [c for c in clips if c.speaker == speaker and c.emotion == "neutral"]
    angry = [c for c in clips if c.speaker == speaker and c.emotion == "anger"]
    parts = [to_8k(*corpora.read_clip(c.path)) for c in (*calm[:3], *angry[:4])]
    onset_s = sum(map(len, parts[:3])) / 8000
    found = analyze_file(wav(tmp_path / "call.wav", np.concatenate(parts)))
    assert found.level == 2
    assert found.categories == ["shouting"]
    assert found.events
    assert all(e.start >= onset_s - 1.0 for e in found.events)
    # The figure of the whole recording is sustained over seconds, an event's is its peak.
    assert 0.5 < found.acoustic <= max(e.score for e in found.events)
    assert all(e.end <= found.duration_s for e in found.events)
