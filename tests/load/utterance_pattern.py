"""When callers' utterances are cut, and how long they are: measured on the project's own calls.

    python -m tests.load.utterance_pattern --data ../shared/data [--out FILE]

Plays calls through the real detector (voice activity, level) with the real cutter behind it: those
that the evaluation is made of (:mod:`detectors.made_calls`: acted and read speech in turns, over
simulated lines) and those of ``callshield bench pipeline``. Kept are numbers only, one row an
utterance: when it began, how long it is, how much of it is speech, when its last word ended, and
when it was cut, in seconds of the call's audio.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from callshield import g711
from callshield.bench_speech import ROUNDS_PER_S, script, shipped_clips
from callshield.tap import CallerFrame, TapCodec, TapKind
from detectors import corpora, made_calls
from detectors.acoustic import AcousticModel
from detectors.engine import Detector
from detectors.made_calls import Kind, Voices
from detectors.resample import RATE
from detectors.transcription import AROUSED_PAUSE_S
from detectors.utterances import AFTER_S, FRAMES_PER_S, PAUSE_S, Utterance, UtteranceCutter
from sipbridge.bench_load import spoken

MEASURED = Path(__file__).parent / "measured" / "utterances.json"
_BLOCK = RATE // 2
_TOGETHER = 12
#: Corpora of the evaluation with whole sentences (docs/detection.md).
_CORPORA = ("emodb", "nemo")


@dataclass(slots=True)
class Pattern:
    """One call's utterances: rows of ``start_s, length_s, speech_s, words_end_s, cut_s``."""

    kind: str
    seconds: float
    calm: list[tuple[float, ...]] = field(default_factory=list)
    """As they are cut while there is no cause to hurry."""
    aroused: list[tuple[float, ...]] = field(default_factory=list)
    """As they are cut for aroused callers, at a shorter pause."""


class _Cuts:
    """A listener of the detector's that cuts like the real one."""

    def __init__(self, pause_s: float) -> None:
        self._pause_s = pause_s
        self._cutters: dict[bytes, UtteranceCutter] = {}
        self.rows: dict[bytes, list[tuple[float, ...]]] = {}

    def hear(
        self,
        call_id: bytes,
        start_s: float,
        samples: NDArray[np.int16],
        speech: NDArray[np.bool_],
    ) -> None:
        cutter = self._cutters.get(call_id)
        if cutter is None:
            cutter = self._cutters[call_id] = UtteranceCutter()
            cutter.end_after(self._pause_s)
        now_s = start_s + len(samples) / RATE
        self._keep(call_id, cutter.push(start_s, samples, speech), now_s)

    def _keep(self, call_id: bytes, found: Sequence[Utterance], now_s: float) -> None:
        for one in found:
            # What was cut at a pause has its air behind the last word; what was cut without one
            # has none.
            ended_s = one.end_s - AFTER_S if now_s - one.end_s < self._pause_s + 0.5 else one.end_s
            row = (one.start_s, one.length_s, one.speech_s, ended_s, now_s)
            self.rows.setdefault(call_id, []).append(tuple(round(value, 2) for value in row))

    def pause(self, call_id: bytes) -> None:
        return

    def end(self, call_id: bytes) -> None:
        return


class _Both:
    """Two listeners."""

    def __init__(self, one: _Cuts, two: _Cuts) -> None:
        self._each = (one, two)

    def hear(self, *told: Any) -> None:
        for one in self._each:
            one.hear(*told)

    def pause(self, call_id: bytes) -> None:
        return

    def end(self, call_id: bytes) -> None:
        return


def patterns(model: AcousticModel, calls: Sequence[tuple[str, NDArray[np.int16]]]) -> list[Pattern]:
    """Play calls (kind, samples at 8 kHz) side by side."""
    calm, aroused = _Cuts(PAUSE_S), _Cuts(AROUSED_PAUSE_S)
    detector = Detector(model, listener=_Both(calm, aroused))
    coded = {
        number.to_bytes(16, "big"): g711.encode(pcm, g711.PCMU)
        for number, (_, pcm) in enumerate(calls, 1)
    }
    for start in range(0, max(map(len, coded.values())), _BLOCK):
        now_s = (start + _BLOCK) / RATE
        for call_id, payload in coded.items():
            part = payload[start : start + _BLOCK]
            detector.feed(
                [
                    CallerFrame(
                        call_id,
                        TapKind.AUDIO,
                        TapCodec.PCMU,
                        (start + at) // 160 % 2**16,
                        start + at,
                        0,
                        part[at : at + 160],
                    )
                    for at in range(0, len(part), 160)
                ],
                now_s,
            )
        detector.step(now_s)
    return [
        Pattern(
            kind,
            round(len(pcm) / RATE, 1),
            calm.rows.get(call_id, []),
            aroused.rows.get(call_id, []),
        )
        for call_id, (kind, pcm) in zip(coded, calls, strict=True)
    ]


def bench_calls(number: int, seconds: float) -> list[tuple[str, NDArray[np.int16]]]:
    """Callers of ``callshield bench pipeline --asr``."""
    rounds = int(seconds * ROUNDS_PER_S)
    scripts = [script(shipped_clips(), n, 0, rounds, words=True) for n in range(number)]
    paths = sorted({str(one.clip.path) for said in scripts for one in said})
    said = [[[paths.index(str(one.clip.path)), one.at] for one in row] for row in scripts]
    return [("bench", g711.decode(b"".join(row), g711.PCMU)) for row in spoken(paths, said, rounds)]


def evaluation_calls(data: Path, minutes: float) -> list[tuple[str, NDArray[np.int16]]]:
    """Of each corpus calm calls for so long, and a few abusive ones."""
    voices = Voices(corpora.read_manifest(data))
    found = []
    for corpus in _CORPORA:
        for call in made_calls.peaceful(voices, Kind.CALM, corpus, minutes, seed=9):
            found.append((f"calm {corpus}", call.pcm))
        for call in islice(made_calls.abusive(voices, corpus, 12, seed=9), 12):
            found.append((f"abusive {corpus}", call.pcm))
    return found


def read_patterns(path: Path = MEASURED) -> list[Pattern]:
    """What was measured."""
    return [
        Pattern(
            one["kind"],
            one["seconds"],
            [tuple(row) for row in one["calm"]],
            [tuple(row) for row in one["aroused"]],
        )
        for one in json.loads(path.read_text())["calls"]
    ]


def summary(found: Sequence[Pattern]) -> dict[str, dict[str, float]]:
    """By kind: calls, share of speech, utterances a minute, their length, the wait for the cut."""
    by_kind: dict[str, list[Pattern]] = {}
    for one in found:
        by_kind.setdefault(one.kind, []).append(one)
    told = {}
    for kind, calls in by_kind.items():
        rows = np.array([row for one in calls for row in one.calm])
        seconds = sum(one.seconds for one in calls)
        length = rows[:, 1]
        told[kind] = {
            "calls": len(calls),
            "minutes": round(seconds / 60, 1),
            "speech_pct": round(100 * float(rows[:, 2].sum()) / seconds, 1),
            "utterances_a_minute": round(60 * len(rows) / seconds, 2),
            "length_p50_s": round(float(np.median(length)), 2),
            "length_p95_s": round(float(np.quantile(length, 0.95)), 2),
            "word_to_cut_p50_s": round(float(np.median(rows[:, 4] - rows[:, 3])), 2),
        }
    return told


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Measure when utterances are cut.")
    parser.add_argument("--data", type=Path, required=True, help="folder with audio/manifest.tsv")
    parser.add_argument("--minutes", type=float, default=12.0, help="of calm calls of a corpus")
    parser.add_argument("--out", type=Path, default=MEASURED)
    given = parser.parse_args()
    model = AcousticModel()
    calls = [*bench_calls(20, 120.0), *evaluation_calls(given.data, given.minutes)]
    found: list[Pattern] = []
    for first in range(0, len(calls), _TOGETHER):
        found += patterns(model, calls[first : first + _TOGETHER])
        sys.stderr.write(f"{len(found)} of {len(calls)} calls\n")
    body = {
        "frames_per_s": FRAMES_PER_S,
        "summary": summary(found),
        "calls": [
            {"kind": p.kind, "seconds": p.seconds, "calm": p.calm, "aroused": p.aroused}
            for p in found
        ],
    }
    given.out.write_text(json.dumps(body, separators=(",", ":")) + "\n")
    sys.stdout.write(json.dumps(summary(found), indent=1) + "\n")


if __name__ == "__main__":
    main()
