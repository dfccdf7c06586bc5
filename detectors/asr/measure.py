"""How well a Whisper model reads speech, and at what cost.

    python -m detectors.asr.measure --speech tests/speech/ko [--model FOLDER]

Every clip goes through mu-law. For each window of the encoder, with and without hotwords: the
character error rate (edit distance over length; letters only), of calm and of abusive sentences,
and processor seconds of an utterance on one thread. One line each.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from callshield import g711
from detectors.asr.guard import letters
from detectors.asr.load import default_model_dir
from detectors.asr.protocol import RATE
from detectors.asr.whisper import WhisperRecogniser

#: Windows that are compared, seconds.
WINDOWS_S = (6.0, 8.0, 10.0, 16.0, 30.0)
LANGUAGES = ("ko", "en", "zh", "ja")


def read_speech(
    folder: Path,
) -> Iterator[tuple[str, bool, str, NDArray[np.int16]]]:
    """Language, abusive or not, text and samples (8 kHz, through mu-law) of each clip."""
    for line in (folder / "manifest.tsv").read_text(encoding="utf-8").splitlines()[1:]:
        file, language, abusive, text, *_ = line.split("\t")
        pcm, rate = soundfile.read(folder / file, dtype="int16")
        if rate != RATE or pcm.ndim != 1:
            raise SystemExit(f"{file}: {RATE} Hz mono is wanted")
        heard = g711.decode(g711.encode(pcm, g711.PCMU), g711.PCMU)
        yield language, abusive == "1", text, heard


def character_errors(said: str, heard: str) -> tuple[int, int]:
    """Edit distance in letters, and how many were said (Levenshtein 1966)."""
    a, b = (letters(unicodedata.normalize("NFKC", text).lower()) for text in (said, heard))
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1], len(a)


def measure(
    recogniser: WhisperRecogniser, speech: Sequence[tuple[str, bool, str, NDArray[np.int16]]]
) -> dict[str, Any]:
    """Error rates and cost over all clips."""
    wrong, length = {False: 0, True: 0}, {False: 0, True: 0}
    rejected = 0
    begun_s = time.process_time()
    for language, abusive, text, samples in speech:
        heard = recogniser.transcribe(samples, language)
        rejected += bool(heard.rejected)
        errors = character_errors(text, heard.text)
        wrong[abusive] += errors[0]
        length[abusive] += errors[1]
    cpu_s = time.process_time() - begun_s
    return {
        "cer": round(sum(wrong.values()) / sum(length.values()), 3),
        "cer_calm": round(wrong[False] / max(length[False], 1), 3),
        "cer_abusive": round(wrong[True] / max(length[True], 1), 3),
        "rejected": rejected,
        "cpu_s_per_utterance": round(cpu_s / len(speech), 3),
        "audio_s_per_utterance": round(
            sum(len(item[3]) for item in speech) / RATE / len(speech), 2
        ),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Measure a speech model.")
    parser.add_argument("--speech", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=default_model_dir())
    parser.add_argument("--hotwords", default="", help="separated by spaces; none: without only")
    parser.add_argument("--windows", default=",".join(str(w) for w in WINDOWS_S))
    arguments = parser.parse_args()
    speech = list(read_speech(arguments.speech))
    hotwords = arguments.hotwords.split()
    for window in arguments.windows.split(","):
        choices: list[list[str]] = [[], hotwords] if hotwords else [[]]
        for words in choices:
            told = dict.fromkeys(LANGUAGES, words) if words else None
            recogniser = WhisperRecogniser(
                arguments.model, LANGUAGES, told, windows_s=(float(window),)
            )
            found = measure(recogniser, speech)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
            line = {"window_s": float(window), "hotwords": len(words), **found, "peak_mib": peak}
            sys.stdout.write(json.dumps(line) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
