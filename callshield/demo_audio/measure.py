"""Measure the demo's voices beside EmoDB's neutral and angry actors; the table of docs/prompts.md.

Run by hand, with soundfile and soxr at hand::

    python -m callshield.demo_audio.measure [--data ../shared/data/audio]

Every clip goes through the same 200-3500 Hz band at 8 kHz, and is measured by the detector's own
frame features over its clearly voiced frames within 25 dB of its loudest.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from detectors import features
from sipbridge.prompts import loudness

HERE = Path(__file__).parent

#: Columns of :func:`measure`.
COLUMNS = (
    "alpha ratio dB",
    "F0 median Hz",
    "F0 spread semitones",
    "F1 Hz",
    "slope dB/octave",
    "active level dBFS",
)


def measure(x: NDArray[np.float64]) -> list[float]:
    """One clip's :data:`COLUMNS`; ``x`` is 8 kHz, full scale 1.0."""
    whole = x[None, : len(x) // features.HOP * features.HOP].astype(np.float32)
    tracks = features.frame_tracks(whole)[0]
    level = tracks[:, features.LEVEL]
    tracks = tracks[(level > level.max() - 25) & (tracks[:, features.VOICING] > 0.6)]
    pitch = tracks[:, features.F0]
    return [
        float(np.mean(tracks[:, features.ALPHA])),
        float(2 ** np.median(pitch)),
        float(12 * np.std(pitch)),
        float(2 ** np.median(tracks[:, features.FORMANT])),
        float(np.median(tracks[:, features.SLOPE])),
        loudness.active_level_dbfs(x),
    ]


def main() -> int:
    """Command line; prints table rows, EmoDB's as 10 / 50 / 90 %."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/audio"))
    args = parser.parse_args()
    found: dict[str, list[list[float]]] = {"neutral": [], "anger": []}
    medians: dict[tuple[str, str], list[float]] = {}
    with (args.data / "manifest.tsv").open(encoding="utf-8") as table:
        for row in csv.DictReader(table, delimiter="\t"):
            if row["corpus"] == "emodb" and row["emotion"] in found:
                x, rate = soundfile.read(args.data / row["path"])
                values = measure(loudness.to_telephone_band(x, rate))
                found[row["emotion"]].append(values)
                medians.setdefault((row["speaker"], row["emotion"]), []).append(values[1])
    out = sys.stdout.write
    out(f"| | {' | '.join(COLUMNS)} |\n")
    for emotion, clips in found.items():
        spread = np.quantile(clips, [0.1, 0.5, 0.9], axis=0).T[:-1]
        cells = " | ".join(" / ".join(f"{v:.1f}" for v in column) for column in spread)
        out(f"| EmoDB {emotion} ({len(clips)} clips) | {cells} | - |\n")
    for line in ("calm_1", "calm_2", "agent_1", "shout_1", "shout_2"):
        x, _ = soundfile.read(HERE / f"{line}.wav")
        out(f"| `{line}` | {' | '.join(f'{v:.1f}' for v in measure(x))} |\n")
    for speaker in sorted({s for s, _ in medians}):
        ratio = np.median(medians[speaker, "anger"]) / np.median(medians[speaker, "neutral"])
        out(f"{speaker}: median F0 in anger {ratio:.2f} times that in neutral speech\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
