"""``callshield eval asr``: how well callers are read, and what is left of abuse behind it.

The folder holds a ``manifest.tsv`` (file, language, abusive 0 or 1, text) beside recordings of
8 kHz mono, as tests/speech does. Each goes through mu-law and two lines more: 10 dB quieter, and
with white noise at 15 dB.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from callshield.errors import SetupError
from callshield.transcriber_settings import TranscriberSettings
from detectors.asr.load import load_recogniser
from detectors.asr.measure import character_errors, read_speech
from detectors.asr.protocol import RATE, Recogniser
from detectors.text_pipeline import TextPipeline
from detectors.transcriber import pipeline_for

Speech = tuple[str, bool, str, NDArray[np.int16]]
LINES = ("as recorded", "10 dB quieter", "white noise, 15 dB")
_QUIETER, _NOISE = 10 ** (-10 / 20), 10 ** (-15 / 20)


@dataclass(frozen=True, slots=True)
class Read:
    """One recording over one line."""

    language: str
    abusive: bool
    wrong: int
    """Letters that differ from what was said."""
    letters: int
    flagged: bool
    """The judge takes the transcript for abuse."""
    rejected: bool
    cpu_s: float
    audio_s: float


def heard(samples: NDArray[np.int16], line: str, seed: int) -> NDArray[np.int16]:
    """int16 at 8 kHz as it comes over one of :data:`LINES`."""
    sound = samples.astype(np.float32)
    if line == LINES[1]:
        sound = sound * np.float32(_QUIETER)
    elif line == LINES[2]:
        level = float(np.sqrt(np.square(sound).mean())) * _NOISE
        sound = sound + np.random.default_rng(seed).normal(0.0, level, len(sound)).astype("f4")
    return np.clip(sound, -32768, 32767).astype(np.int16)


def measure(
    recogniser: Recogniser, pipeline: TextPipeline, speech: Sequence[Speech], line: str, seed: int
) -> Iterator[Read]:
    """Read and judge every recording over one line."""
    for number, (language, abusive, text, samples) in enumerate(speech):
        sound = heard(samples, line, seed + number)
        began_s = time.process_time()
        transcript = recogniser.transcribe(sound, language)
        cpu_s = time.process_time() - began_s
        wrong, letters = character_errors(text, transcript.text)
        flagged = bool(transcript.text) and (
            pipeline.judge.judge(transcript.text, language).abusive
        )
        rejected, audio_s = bool(transcript.rejected), len(samples) / RATE
        yield Read(language, abusive, wrong, letters, flagged, rejected, cpu_s, audio_s)


def _row(name: str, found: Sequence[Read], seed: int) -> str:
    rate, low, high = _error_rate(found, seed)
    bad = [one.flagged for one in found if one.abusive]
    calm = [one.flagged for one in found if not one.abusive]
    return (
        f"| {name} | {len(found)} | {rate:.3f} ({low:.3f}-{high:.3f}) | "
        f"{sum(bad)} of {len(bad)} | {sum(calm)} of {len(calm)} | "
        f"{sum(one.rejected for one in found)} | {np.mean([one.cpu_s for one in found]):.2f} |"
    )


def _error_rate(found: Sequence[Read], seed: int) -> tuple[float, float, float]:
    """Character error rate with its 95 % interval, recordings drawn."""
    wrong = np.array([one.wrong for one in found])
    letters = np.array([one.letters for one in found])
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(found), size=(500, len(found)))
    rates = wrong[drawn].sum(axis=1) / np.maximum(letters[drawn].sum(axis=1), 1)
    low, high = np.quantile(rates, [0.025, 0.975])
    return float(wrong.sum() / max(letters.sum(), 1)), float(low), float(high)


HEAD = """\
| speech | clips | character errors (95 %) | abusive flagged | calm flagged | rejected | CPU s |
|---|---|---|---|---|---|---|"""


def _draw(found: dict[str, list[Read]], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4))
    for name, several in found.items():
        rates = np.sort([one.wrong / max(one.letters, 1) for one in several])
        axes.step(rates, np.arange(1, len(rates) + 1) / len(rates), where="post", label=name)
    axes.set(xlabel="character error rate of a recording", ylabel="share of recordings below")
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    plt.close(figure)


def report(data: Path, out: Path, model_dir: Path | None, *, seed: int) -> None:
    """Write ``asr.md``, ``asr.json`` and ``asr.png`` into ``out``.

    Args:
        data: folder with ``manifest.tsv``.
        out: made if it is not there.
        model_dir: another Whisper model for CTranslate2.
        seed: of the noise and of the intervals.

    Raises:
        DetectorModelError: no speech model.
        SetupError: nothing to read.
        ModuleNotFoundError: matplotlib, of the training packages, is missing.
    """
    # Asked for first: minutes of measuring should not end without their plot.
    import matplotlib  # noqa: F401

    speech = list(read_speech(data))
    if not speech:
        raise SetupError(f"{data / 'manifest.tsv'} names no recordings")
    languages = sorted({language for language, *_ in speech})
    pipeline = pipeline_for(languages)
    hotwords = {language: pipeline.judge.hotwords(language) for language in languages}
    settings = TranscriberSettings.model_validate({"model_dir": model_dir})
    recogniser = load_recogniser(settings, languages, hotwords)
    out.mkdir(parents=True, exist_ok=True)
    found = {
        line: list(measure(recogniser, pipeline, speech, line, seed))
        for line in track(LINES, "lines")
    }
    lines = [f"# Words heard by {recogniser.name}", "", HEAD]
    for name, several in found.items():
        for language in languages:
            own = [one for one in several if one.language == language]
            lines.append(_row(f"{language}, {name}", own, seed))
            for abusive, kind in ((True, "abusive"), (False, "calm")):
                part = [one for one in own if one.abusive is abusive]
                if part:
                    lines.append(_row(f"{language}, {name}: {kind}", part, seed))
    (out / "asr.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    table = {
        name: {
            "cer": round(_error_rate(several, seed)[0], 4),
            "abusive_flagged": sum(one.flagged for one in several if one.abusive),
            "calm_flagged": sum(one.flagged for one in several if not one.abusive),
            "recordings": len(several),
        }
        for name, several in found.items()
    }
    (out / "asr.json").write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    _draw(found, out / "asr.png")
    Console().print(f"{out / 'asr.md'} and a plot written")
