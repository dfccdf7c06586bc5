"""How long the relay's speaking bit says that somebody spoke, beside Silero: the table of
``docs/hearing.md``. ``python -m tests.voice_beside_silero``
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from callshield.heard import read_wav
from detectors.silero import STEP_SAMPLES, Silero, blank, cut_windows
from tests.core_kit import CallInCore
from tests.speech_kit import sentences
from tests.test_core_voice import at, noise, spoken_s

PROMPTS = Path(__file__).parent.parent / "sipbridge" / "prompts"
Pcm = NDArray[np.int16]


def speech() -> dict[str, Pcm]:
    """Talkers who hardly pause, by language."""
    found = {}
    for language in ("ko", "en", "zh", "ja"):
        clips = [read_wav(path) * 32768 for path in sorted((PROMPTS / language).glob("*.wav"))]
        found[f"prompts {language}"] = np.concatenate(clips).astype(np.int16)
    found["sentences ko"] = np.concatenate([one.samples for one in sentences().values()])
    return found


def silero_s(model: Silero, pcm: Pcm) -> float:
    """Seconds that the callers' speech detector takes for speech."""
    whole = pcm[: len(pcm) // STEP_SAMPLES * STEP_SAMPLES]
    windows = cut_windows(np.concatenate([np.zeros(160, np.int16), whole])[None])
    speaks, _ = model.probabilities(windows, blank(1))
    return float((speaks[0] > 0.5).sum() * STEP_SAMPLES / 8000)


def main() -> None:
    """Print the table."""
    model = Silero()
    for name, pcm in speech().items():
        reference = silero_s(model, at(pcm, -25.0))
        for level in (-20.0, -30.0):
            for room in (None, -45.0):
                said = at(pcm, level).astype(int)
                if room is not None:
                    said = said + noise(room, len(pcm) / 8000 + 1)[: len(pcm)]
                bit = spoken_s(CallInCore(), np.clip(said, -32768, 32767).astype(np.int16))
                print(
                    f"{name:14} {level:5} dBFS, noise {room}: {len(pcm) / 8000:6.1f} s, "
                    f"Silero {reference:6.1f}, bit {bit:6.1f}: {bit / reference:.2f}"
                )
    for level in (-60.0, -50.0, -45.0, -40.0, -30.0):
        print(f"noise alone {level} dBFS: {spoken_s(CallInCore(), noise(level, 60.0)):.1f} of 60 s")


if __name__ == "__main__":
    main()
