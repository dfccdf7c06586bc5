"""Whether an announcement will do: level, clipping, length, and silence where none belongs.

A caller who hears too little of the notice was not told, whatever the stamp says. So a file of the
operator's own that fails here is refused when the node starts; ``callshield prompts check`` says so
before. The shipped ones are held to tighter limits by ``tests/test_prompt_files.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from callshield.errors import SetupError
from callshield.settings_notice import LANGUAGES, PROMPT_ID
from sipbridge.integrated_loudness import SILENCE_LUFS, integrated_lufs
from sipbridge.prompt_catalogue import Prompt, Prompts
from sipbridge.prompt_manifest import Manifest
from sipbridge.wav_file import Wav, read_wav

#: Integrated loudness, LUFS. The shipped ones have -20 to -21. Softer, and a caller in the street
#: does not understand it; louder, and it is louder than any talker on the line.
LUFS: Final = (-32.0, -12.0)
#: The tone that an agent hears through every notice is soft: the shipped one has -39.
TONE_LUFS: Final = -26.0
#: Shorter says nothing; longer, and callers hang up.
LENGTH_S: Final = (0.5, 60.0)
#: Longer silence, seconds: at the beginning callers say "hello?", in the middle they take it for
#: the end, and at the end both sides wait for nothing.
HEAD_S: Final = 1.0
MIDDLE_S: Final = 2.0
TAIL_S: Final = 2.0
#: Silence is this far under the loudness, dB.
_SILENCE_DB: Final = 30.0
_FRAME_S: Final = 0.01
#: As many samples in a row at full scale are no peak, but a cut one.
_CLIPPED_RUN: Final = 3
_FULL_SCALE: Final = 32760


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured of one file."""

    duration_s: float
    lufs: float
    """Integrated loudness (ITU-R BS.1770-4)."""
    clipped_at_s: tuple[float, ...]
    """Where samples at full scale follow each other."""
    head_s: float
    """Silence before the first sound."""
    tail_s: float
    """Silence after the last one."""
    pause_s: float
    """The longest silence in between, and where it begins."""
    pause_at_s: float


def measure(wav: Wav) -> Measured:
    """Measure a 16-bit mono file."""
    samples = wav.samples
    x = samples / 32768.0
    x = x - float(np.mean(x))  # an offset would fill every silence
    lufs = integrated_lufs(x, wav.rate_hz)
    head_s, tail_s, pause_s, pause_at_s = _silences(x, wav.rate_hz, lufs)
    return Measured(
        wav.duration_s, lufs, _clipped(samples, wav.rate_hz), head_s, tail_s, pause_s, pause_at_s
    )


def _silences(
    x: NDArray[np.float64], rate_hz: int, lufs: float
) -> tuple[float, float, float, float]:
    """``(head, tail, longest pause, where it begins)``, seconds."""
    frame = int(_FRAME_S * rate_hz)
    count = len(x) // frame
    power = np.mean(x[: count * frame].reshape(count, frame) ** 2, axis=1)
    loud = np.flatnonzero(10.0 * np.log10(np.maximum(power, 1e-12)) > lufs - _SILENCE_DB)
    if lufs <= SILENCE_LUFS or not len(loud):
        return len(x) / rate_hz, 0.0, 0.0, 0.0
    gaps = np.diff(loud) - 1
    longest = int(np.argmax(gaps)) if len(gaps) else 0
    pause_s = float(gaps[longest]) * _FRAME_S if len(gaps) else 0.0
    tail_s = len(x) / rate_hz - float(loud[-1] + 1) * _FRAME_S
    return (
        float(loud[0]) * _FRAME_S,
        tail_s,
        pause_s,
        float(loud[longest] + 1) * _FRAME_S,
    )


def _clipped(samples: NDArray[np.int16], rate_hz: int) -> tuple[float, ...]:
    full = np.abs(samples.astype(np.int32)) >= _FULL_SCALE
    edges = np.flatnonzero(np.diff(np.concatenate([[0], full.astype(np.int8), [0]])))
    begins, ends = edges[::2], edges[1::2]
    return tuple((begins[ends - begins >= _CLIPPED_RUN] / rate_hz).tolist())


def faults(name: str, measured: Measured, *, words: bool = True) -> list[str]:
    """What is wrong with an announcement, a sentence each.

    Args:
        name: of the file, for the sentences.
        measured: what was measured.
        words: somebody speaks; else it is the tone for agents.
    """
    m, who = measured, f"the prompt {name}"
    found = []
    if not LENGTH_S[0] <= m.duration_s <= LENGTH_S[1]:
        found.append(
            f"{who} lasts {m.duration_s:.2f} s: an announcement has {LENGTH_S[0]:g} to "
            f"{LENGTH_S[1]:g} s; record another, or put the right file there"
        )
    if m.lufs <= SILENCE_LUFS:
        return [*found, f"{who} is silent: record it again"]
    if m.clipped_at_s:
        found.append(
            f"{who} is clipped at {len(m.clipped_at_s)} place(s), first at "
            f"{m.clipped_at_s[0]:.2f} s: record or export it again at a lower level (turning it "
            "down now does not mend it)"
        )
    if not words:
        if m.lufs > TONE_LUFS:
            found.append(
                f"{who} has {m.lufs:.1f} LUFS: agents hear it through every notice; lower it by "
                f"{m.lufs - TONE_LUFS:.0f} dB at least"
            )
        return found
    return found + _level_faults(who, m) + _silence_faults(who, m)


def _level_faults(who: str, m: Measured) -> list[str]:
    softest, loudest = LUFS
    if softest <= m.lufs <= loudest:
        return []
    change = "raise" if m.lufs < softest else "lower"
    by_db = abs(-20.0 - m.lufs)
    return [
        f"{who} has {m.lufs:.1f} LUFS (integrated loudness), not {softest:g} to {loudest:g}: "
        f"{change} it by {by_db:.0f} dB, the shipped ones have about -20"
    ]


def _silence_faults(who: str, m: Measured) -> list[str]:
    found = []
    if m.head_s > HEAD_S:
        found.append(
            f"{who} begins with {m.head_s:.1f} s of silence, {HEAD_S:g} at most: cut it, callers "
            "think that nobody is there"
        )
    if m.pause_s > MIDDLE_S:
        found.append(
            f"{who} is silent for {m.pause_s:.1f} s from {m.pause_at_s:.1f} s on, {MIDDLE_S:g} at "
            "most: shorten the pause, callers take it for the end"
        )
    if m.tail_s > TAIL_S:
        found.append(
            f"{who} ends with {m.tail_s:.1f} s of silence, {TAIL_S:g} at most: cut it, both sides "
            "wait for nothing"
        )
    return found


def file_faults(path: Path, *, words: bool = True) -> list[str]:
    """:func:`faults` of a file, or why it cannot be used at all."""
    try:
        return faults(str(path), measure(read_wav(path)), words=words)
    except SetupError as error:
        return [str(error)]


def prompt_faults(prompt: Prompt) -> list[str]:
    """:func:`file_faults` of both files of a prompt."""
    paths = [prompt.path, *([prompt.wide.path] if prompt.wide else [])]
    words = prompt.language != "common"
    return [fault for path in paths for fault in file_faults(path, words=words)]


def own_faults(prompts: Prompts) -> list[str]:
    """What is wrong with those configured announcements that are not ours."""
    return [fault for prompt in prompts.all if prompt.own for fault in prompt_faults(prompt)]


def check_own(prompts: Prompts) -> None:
    """Refuse announcements of the operator's own that will not do.

    Raises:
        SetupError: every fault, a sentence each.
    """
    if found := own_faults(prompts):
        raise SetupError("; ".join(found))


def missing_files(folder: Path, manifest: Manifest) -> list[str]:
    """What a manifest says of files that are not there, a sentence each."""
    found = []
    for (language, prompt_id), entry in sorted(manifest.items()):
        file = folder / language / f"{prompt_id}.wav"
        wide = file.with_suffix(".16k.wav")
        for path, named in ((file, True), (wide, bool(entry.sha256_16k))):
            if named and not path.exists():
                found.append(
                    f"{path} is missing, and manifest.toml names it: put it there, or "
                    "remove what it says"
                )
    return found


def misplaced(folder: Path) -> list[str]:
    """Files that would never be played, a sentence each."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in (".wav", ".wave", ".mp3", ".ogg", ".flac", ".m4a", ".gsm"):
            continue
        language, stem = path.parent.name, path.stem.removesuffix(".16k")
        there = path.parent.parent == folder and language in (*LANGUAGES, "common")
        if not there:
            found.append(
                f"{path} is never played: announcements lie in {folder}/LANGUAGE/ID.wav, LANGUAGE "
                f"one of {', '.join(LANGUAGES)}; move it, or remove it"
            )
        elif path.suffix != ".wav" or not PROMPT_ID.fullmatch(stem):
            found.append(
                f"{path} is never played: its name has to be ID.wav or ID.16k.wav, ID of small "
                "letters, digits and _; rename it, or remove it"
            )
        elif path.stem != stem and not path.with_name(f"{stem}.wav").exists():
            found.append(f"{path} is never played: it needs {stem}.wav beside it")
    return found
