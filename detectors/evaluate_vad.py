"""``callshield eval vad``: how well speech is told from everything else, and what that costs.

Without the ``callshield`` command: ``python -m detectors.evaluate_vad --data DATA --report OUT``.

Three judges side by side: webrtcvad alone in its strictest mode, webrtcvad with our checks (what
stands where Silero's file is missing), and both with Silero. Everything goes through a telephone
line of 300-3400 Hz and G.711; each file with another noise. Seeded.
"""

from __future__ import annotations

import argparse
import functools
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import webrtcvad
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from callshield.errors import SetupError
from detectors import corpora, features, line_sounds, telephone
from detectors.resample import RATE, to_8k
from detectors.silero import Silero
from detectors.speech import CallerEar, SpeechJudge
from detectors.stream import HOP_FRAMES, HOP_SAMPLES
from detectors.vad import FRAME

WEBRTC, CHECKED, OURS = "webrtcvad alone", "webrtcvad, checks", "with Silero"
METHODS = (WEBRTC, CHECKED, OURS)
SNR_DB = (20, 10, 5, 0)
#: ESC-10 sounds that people make: neither a background nor plainly "no voice".
_PEOPLE = frozenset({"noise_baby_cry", "noise_person_sneeze"})
_FRAME_S = FRAME / RATE
_BATCHES = (1, 50, 300)


@dataclass(frozen=True, slots=True)
class Flags:
    """What each method says of a recording's frames."""

    speech: dict[str, NDArray[np.bool_]]
    """``(n,)`` by method."""
    score: dict[str, NDArray[np.float32]]
    """``(n,)``: what a ROC curve can be drawn of. webrtcvad knows only yes and no: how many of
    its four modes say yes."""
    voice: NDArray[np.bool_]
    """``(n,)``: speech and outcries, what the acoustic model is asked about."""


def flags_of(pcm: NDArray[np.int16], judge: SpeechJudge) -> Flags:
    """Run all methods over int16 audio at 8 kHz as over one call; its last part hop is cut off."""
    pcm = pcm[: len(pcm) // HOP_SAMPLES * HOP_SAMPLES]
    frames = pcm.reshape(-1, FRAME)
    modes = []
    for mode in range(4):
        alone = webrtcvad.Vad(mode)
        modes.append([alone.is_speech(frame.tobytes(), RATE) for frame in frames])
    padded = np.concatenate([np.zeros(FRAME, np.int16), pcm])
    views = np.lib.stride_tricks.sliding_window_view(padded, FRAME + HOP_SAMPLES)
    hops = np.ascontiguousarray(views[::HOP_SAMPLES])
    judged = judge.judge_recording(hops, CallerEar())
    passed = hops[judged.rows].astype(np.float32) / np.float32(32768.0)
    tracks = np.zeros((0, HOP_FRAMES, features.TRACK_COUNT), np.float32)
    if len(passed):
        tracks = features.frame_tracks(passed)
    gate = SpeechJudge(None).judge_recording(hops, CallerEar()).gate.ravel()
    return Flags(
        {WEBRTC: np.array(modes[3]), CHECKED: gate, OURS: judged.speech.ravel()},
        {
            WEBRTC: np.sum(modes, axis=0).astype(np.float32),
            CHECKED: gate.astype(np.float32),
            OURS: judged.probability.ravel(),
        },
        judged.voice(tracks).ravel(),
    )


def read_labels(path: Path, frames: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """A file of frame labels: ``name,start,end,0|1,start,end,0|1,…`` in seconds.

    Returns:
        ``(speech, known)``, each ``(frames,)``, by the middle of each 20 ms frame.
    """
    cells = path.read_text(encoding="utf-8").strip().split(",")[1:]
    middle_s = (np.arange(frames) + 0.5) * _FRAME_S
    speech = np.zeros(frames, np.bool_)
    known = np.zeros(frames, np.bool_)
    for start, end, label in zip(cells[0::3], cells[1::3], cells[2::3], strict=True):
        inside = (middle_s >= float(start)) & (middle_s < float(end))
        known |= inside
        speech |= inside & (label == "1")
    return speech, known


def auc(score: NDArray[np.float32], truth: NDArray[np.bool_]) -> float:
    """Area under the ROC curve: chance that a speech frame scores higher, ties counting half."""
    values, place = np.unique(score, return_inverse=True)
    positive = np.bincount(place[truth], minlength=len(values)).astype(np.float64)
    negative = np.bincount(place[~truth], minlength=len(values)).astype(np.float64)
    below = np.cumsum(negative) - negative
    pairs = positive.sum() * negative.sum()
    return float((positive * (below + 0.5 * negative)).sum() / pairs) if pairs else float("nan")


@dataclass(frozen=True, slots=True)
class Marked:
    """One file under one condition: its labelled frames only."""

    truth: NDArray[np.bool_]
    flags: dict[str, NDArray[np.bool_]]
    score: dict[str, NDArray[np.float32]]


def _quality(files: list[Marked], method: str) -> dict[str, float]:
    truth = np.concatenate([f.truth for f in files])
    found = np.concatenate([f.flags[method] for f in files])
    hits = float((truth & found).sum())
    precision, recall = hits / max(1, found.sum()), hits / max(1, truth.sum())
    return {
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / max(1e-9, precision + recall),
        "auc": auc(np.concatenate([f.score[method] for f in files]), truth),
        "false_alarm": float((found & ~truth).sum() / max(1, (~truth).sum())),
    }


def quality(files: list[Marked], method: str, seed: int, rounds: int = 200) -> dict[str, Any]:
    """Precision, recall, F1 and AUC per frame, F1 and AUC with 95 % intervals by file."""
    rng = np.random.default_rng(seed)
    drawn = [
        _quality([files[i] for i in rng.integers(len(files), size=len(files))], method)
        for _ in range(rounds)
    ]
    out: dict[str, Any] = {k: round(v, 3) for k, v in _quality(files, method).items()}
    for key in ("f1", "auc"):
        low, high = np.quantile([d[key] for d in drawn], [0.025, 0.975])
        out[f"{key}_interval"] = [round(float(low), 3), round(float(high), 3)]
    return out


def _noises(data: Path) -> list[NDArray[np.float32]]:
    return [
        to_8k(*corpora.read_clip(clip.path))
        for clip in corpora.read_manifest(data)
        if clip.corpus == "esc10" and clip.emotion not in _PEOPLE
    ]


def labelled(data: Path, judge: SpeechJudge, seed: int) -> dict[str, list[Marked]]:
    """The labelled recordings under every condition, ``{"clean": …, "white 20 dB": …}``.

    Raises:
        SetupError: there are no labelled recordings.
    """
    folder = data / "audio" / "vad" / "testset"
    paths = sorted(folder.glob("*.wav"))
    if not paths:
        raise SetupError(f"--data: no recordings in {folder}; give the folder that holds audio/vad")
    backgrounds = _noises(data)
    conditions: list[tuple[str, str, float]] = [("clean", "", 60.0)]
    conditions += [(f"{kind} {snr} dB", kind, snr) for kind in ("white", "real") for snr in SNR_DB]
    out: dict[str, list[Marked]] = {name: [] for name, _, _ in conditions}
    for i, path in enumerate(track(paths, "labelled recordings")):
        audio = to_8k(*corpora.read_clip(path))
        audio = np.concatenate([audio, np.zeros(-len(audio) % HOP_SAMPLES, np.float32)])
        for name, kind, snr in conditions:
            rng = np.random.default_rng([seed, i])
            noise = backgrounds[i * 7 % len(backgrounds)] if kind == "real" else None
            pcm = telephone.transmit(audio, telephone.Line(snr_db=snr), rng, noise)
            found = flags_of(pcm, judge)
            truth, known = read_labels(path.with_suffix(".scv"), len(found.voice))
            out[name].append(
                Marked(
                    truth[known],
                    {m: found.speech[m][known] for m in METHODS},
                    {m: found.score[m][known] for m in METHODS},
                )
            )
    return out


def _read_8k(path: Path) -> NDArray[np.float32]:
    return to_8k(*corpora.read_clip(path))


def no_speech(data: Path, judge: SpeechJudge, seed: int) -> dict[str, dict[str, Any]]:
    """Share of frames taken for speech in sounds that hold none, by family."""
    made: list[tuple[str, Callable[[], NDArray[np.float32]]]] = [
        (family, make)
        for family, members in line_sounds.sounds().items()
        for make in members.values()
    ]
    for clip in corpora.read_manifest(data):
        if clip.corpus == "esc10":
            name = clip.emotion.removeprefix("noise_").replace("_", " ")
            made.append((f"ESC-10 {name}", functools.partial(_read_8k, clip.path)))
    counts: dict[str, dict[str, list[float]]] = {}
    for i, (family, make) in enumerate(track(made, "no speech")):
        for level_dbfs in (-20.0, -32.0):
            rng = np.random.default_rng([seed, i])
            line = telephone.Line(snr_db=40.0, level_dbfs=level_dbfs)
            found = flags_of(telephone.transmit(make(), line, rng), judge)
            table = counts.setdefault(family, {})
            for method in METHODS:
                table.setdefault(method, []).append(float(found.speech[method].mean()))
            table.setdefault("voice", []).append(float(found.voice.mean()))
    return {
        family: {"sounds": len(table["voice"]) // 2}
        | {key: round(float(np.mean(values)), 4) for key, values in table.items()}
        for family, table in counts.items()
    }


def cost(data: Path, judge: SpeechJudge) -> dict[str, dict[str, float]]:
    """CPU time in µs for each 20 ms frame of callers who all talk, by calls in a batch."""
    paths = sorted((data / "audio" / "vad" / "testset").glob("*.wav"))
    audio = np.concatenate([to_8k(*corpora.read_clip(path)) for path in paths])
    pcm = telephone.transmit(audio, telephone.CLEAN, np.random.default_rng(1))
    out: dict[str, dict[str, float]] = {}
    for calls in _BATCHES:
        turns = 8 if calls > 1 else 100
        starts = np.random.default_rng(2).integers(
            0, len(pcm) - (turns + 1) * HOP_SAMPLES, size=calls
        )
        ears = [CallerEar() for _ in range(calls)]
        alone = [webrtcvad.Vad(3) for _ in range(calls)]
        unjudged, unheard = SpeechJudge(None), [CallerEar() for _ in range(calls)]
        spent = dict.fromkeys(METHODS, 0.0)
        for turn in range(turns):
            at = turn * HOP_SAMPLES
            hops = np.stack([pcm[s + at : s + at + FRAME + HOP_SAMPLES] for s in starts])
            begun = time.process_time()
            for vad, hop in zip(alone, hops, strict=True):
                content = hop[FRAME:].tobytes()
                for k in range(0, len(content), 2 * FRAME):
                    vad.is_speech(content[k : k + 2 * FRAME], RATE)
            first = time.process_time()
            unjudged.judge(hops, unheard)
            second = time.process_time()
            judge.judge(hops, ears)
            third = time.process_time()
            for method, used in zip(
                METHODS, (first - begun, second - first, third - second), strict=True
            ):
                spent[method] += used
        frames = calls * turns * HOP_FRAMES
        out[f"{calls}"] = {m: round(1e6 * spent[m] / frames, 1) for m in METHODS}
    return out


def figures(data: Path, seed: int) -> dict[str, Any]:
    """All figures: ``{"labelled": …, "no_speech": …, "cost_us_per_frame": …}``."""
    judge = SpeechJudge(Silero())
    files = labelled(data, judge, seed)
    return {
        "labelled": {
            name: {method: quality(marked, method, seed) for method in METHODS}
            for name, marked in files.items()
        },
        "no_speech": no_speech(data, judge, seed),
        "cost_us_per_frame": cost(data, judge),
    }


def markdown(found: dict[str, Any]) -> Iterator[str]:
    """The tables, line by line."""
    yield "# Voice activity"
    yield ""
    yield "Precision / recall / F1 per 20 ms frame; AUC with its 95 % interval, drawn by file."
    yield ""
    yield "| line | " + " | ".join(METHODS) + " |"
    yield "|---|" + "---|" * len(METHODS)
    for name, methods in found["labelled"].items():
        cells = []
        for method in METHODS:
            q = methods[method]
            low, high = q["auc_interval"]
            cells.append(
                f"{q['precision']:.2f} / {q['recall']:.2f} / **{q['f1']:.3f}**; AUC "
                f"{q['auc']:.3f} ({low:.3f}-{high:.3f}); {100 * q['false_alarm']:.0f} % of pauses"
            )
        yield f"| {name} | " + " | ".join(cells) + " |"
    yield ""
    yield "Share of frames taken for speech in sounds without any."
    yield ""
    yield "| sound | sounds | " + " | ".join(METHODS) + " | voice |"
    yield "|---|---|" + "---|" * (len(METHODS) + 1)
    for family, table in found["no_speech"].items():
        shares = " | ".join(f"{100 * table[key]:.1f} %" for key in (*METHODS, "voice"))
        yield f"| {family} | {table['sounds']} | {shares} |"
    yield ""
    yield "CPU time in µs for each 20 ms frame, all callers talking."
    yield ""
    yield "| calls in a batch | " + " | ".join(METHODS) + " |"
    yield "|---|" + "---|" * len(METHODS)
    for calls, table in found["cost_us_per_frame"].items():
        yield f"| {calls} | " + " | ".join(f"{table[m]:.1f}" for m in METHODS) + " |"


def report(data: Path, out: Path, *, seed: int) -> None:
    """Measure; write ``vad.md``, ``vad.json`` and ``vad.png`` into ``out``.

    Args:
        data: folder with ``audio/manifest.tsv`` and ``audio/vad``.
        out: made if it is not there.
        seed: of lines and noises.

    Raises:
        SetupError: the labelled recordings are missing.
        DetectorModelError: Silero's file is missing or another.
        ModuleNotFoundError: matplotlib, of the training packages, is not installed.
    """
    # Asked for first: the measuring should not end without its plot.
    from detectors.plots_vad import draw

    found = figures(data, seed)
    out.mkdir(parents=True, exist_ok=True)
    (out / "vad.md").write_text("\n".join(markdown(found)) + "\n", encoding="utf-8")
    (out / "vad.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    draw(found, out / "vad.png")
    Console().print(f"{out / 'vad.md'} and vad.png written")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Measure the voice activity detector.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--report", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    report(arguments.data, arguments.report, seed=arguments.seed)


if __name__ == "__main__":
    main()
