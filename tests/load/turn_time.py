"""How long a transcriber takes for a turn: measured with the real recogniser and judge.

    python -m tests.load.turn_time [--turns N] [--out FILE]

Turns are made as the scheduler makes them, of the Korean sentences of ``tests/speech`` and of the
benchmark: one or several joined, up to the recogniser's window. Kept are the length of the audio,
the processor time and the wall time of each. Processor time is what a core of this machine has to
do; wall time is that and whoever else wanted the core.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from callshield import g711
from callshield.bench_speech import shipped_clips
from callshield.transcriber_settings import TranscriberSettings
from detectors.asr.load import default_model_dir, load_recogniser
from detectors.asr.measure import read_speech
from detectors.schedule import JOINT_S, TURN_S
from detectors.transcriber import pipeline_for
from sipbridge.prompt_file import load_prompt

MEASURED = Path(__file__).parent / "measured" / "turns.json"
#: A recogniser's first window; a turn beyond it takes the second one.
_WINDOW_S = 9.4


@dataclass(frozen=True, slots=True)
class TurnTimes:
    """Measured turns: seconds of audio and of processor time."""

    short: tuple[float, ...]
    """Processor seconds of those that fit the first window."""
    long: tuple[float, ...]

    def draw(self, audio_s: float, rng: random.Random) -> float:
        """Of a turn with so much audio."""
        return rng.choice(self.short if audio_s <= _WINDOW_S or not self.long else self.long)


def read_turn_times(path: Path = MEASURED) -> TurnTimes:
    """What was measured."""
    rows = json.loads(path.read_text())["turns"]
    return TurnTimes(
        tuple(cpu_s for audio_s, cpu_s, _ in rows if audio_s <= _WINDOW_S),
        tuple(cpu_s for audio_s, cpu_s, _ in rows if audio_s > _WINDOW_S),
    )


def sentences() -> list[NDArray[np.int16]]:
    """All Korean sentences, 8 kHz, through µ-law."""
    folder = Path(__file__).parent.parent / "speech" / "ko"
    found = [samples for _, _, _, samples in read_speech(folder)]
    for clip in shipped_clips():
        pcm = load_prompt(clip.path).pcm
        found.append(np.asarray(g711.decode(g711.encode(pcm, g711.PCMU), g711.PCMU)))
    return found


def turns(said: Sequence[NDArray[np.int16]], count: int, seed: int) -> list[NDArray[np.int16]]:
    """Turns of one to four sentences."""
    rng = random.Random(seed)
    joint = np.zeros(int(JOINT_S * 8000), np.int16)
    found = []
    for number in range(count):
        parts = [rng.choice(said)]
        for _ in range(number % 4):
            more = rng.choice(said)
            if sum(map(len, parts)) + len(joint) + len(more) > TURN_S * 8000:
                break
            parts += [joint, more]
        # One in ten is somebody who speaks without a pause: longer than the first window.
        while number % 10 == 9 and sum(map(len, parts)) < 11 * 8000:
            parts.append(rng.choice(said))
        found.append(np.concatenate(parts)[: 15 * 8000])
    return found


def measure(count: int, seed: int = 1) -> list[tuple[float, float, float]]:
    """Seconds of audio, processor and wall of each turn; the first ones, which warm up, left out.

    Raises:
        DetectorModelError: there is no model.
    """
    pipeline = pipeline_for(("ko",))
    hotwords = {"ko": pipeline.judge.hotwords("ko")}
    recogniser = load_recogniser(TranscriberSettings(), ("ko",), hotwords)
    rows = []
    for samples in turns(sentences(), count + 3, seed):
        cpu_s, wall_s = time.process_time(), time.monotonic()
        transcript = recogniser.transcribe(samples, "ko")
        pipeline(transcript.text, transcript.language)
        rows.append(
            (
                round(len(samples) / 8000, 2),
                round(time.process_time() - cpu_s, 4),
                round(time.monotonic() - wall_s, 4),
            )
        )
    return rows[3:]


def summary(rows: Sequence[tuple[float, float, float]]) -> dict[str, object]:
    """Percentiles of processor time, and what the machine added to it."""
    found: dict[str, object] = {"turns": len(rows), "load_average": round(os.getloadavg()[0], 2)}
    for name, chosen in (
        ("to 9.4 s", [row for row in rows if row[0] <= _WINDOW_S]),
        ("longer", [row for row in rows if row[0] > _WINDOW_S]),
    ):
        if chosen:
            cpu = np.array([row[1] for row in chosen])
            wall = np.array([row[2] for row in chosen])
            found[name] = {
                "cpu_p50_s": round(float(np.median(cpu)), 3),
                "cpu_p95_s": round(float(np.quantile(cpu, 0.95)), 3),
                "wall_p50_s": round(float(np.median(wall)), 3),
            }
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Measure how long turns take.")
    parser.add_argument("--turns", type=int, default=120)
    parser.add_argument("--out", type=Path, default=MEASURED)
    given = parser.parse_args()
    if not default_model_dir().is_dir():
        raise SystemExit("the speech model is missing: run ./run setup")
    rows = measure(given.turns)
    body = {"summary": summary(rows), "turns": rows}
    given.out.write_text(json.dumps(body, separators=(",", ":")) + "\n")
    sys.stdout.write(json.dumps(body["summary"], indent=1) + "\n")


if __name__ == "__main__":
    main()
