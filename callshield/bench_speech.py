"""What the callers of `callshield bench pipeline` say, and when: pure, seeded, known beforehand.

Everybody talks: sentences with pauses between, as in a conversation. One caller in ten shouts at a
known time and goes on abusively; with words, another one in ten says one abusive sentence
without raising the voice. All are recordings that ship with the product (``bench_audio/``,
``demo_audio/``).
"""

from __future__ import annotations

import random
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sipbridge.prompt_file import load_prompt

Kind = Literal["calm", "shout", "abuse"]
Voice = Literal["male", "female"]

#: Packets a second; everything here is counted in packets ("rounds" of the load).
ROUNDS_PER_S = 50
_FRAME = 160
#: Of ten callers the first shouts, and the sixth says something abusive calmly.
EVERY, SHOUTS, THREATENS = 10, 0, 5
#: Between two sentences of one caller, seconds: the agent talks.
PAUSE_S = (1.5, 6.0)
#: Between the sentences of somebody who has begun to shout.
ROUSED_PAUSE_S = (1.2, 4.0)
#: When the shout begins, as shares of the measured time; and the calm threat.
SHOUT_AT, THREAT_AT = (0.1, 0.45), (0.1, 0.7)
#: A frame is part of the sentence when it is at most so far below the loudest one, dB.
_AUDIBLE_DB = 30.0

_FOLDER = Path(__file__).parent
_DEMO: dict[str, Kind] = {
    "calm_1": "calm",
    "calm_2": "calm",
    "shout_1": "shout",
    "shout_2": "shout",
}


@dataclass(frozen=True, slots=True)
class Clip:
    """One recording, counted in packets."""

    path: Path
    kind: Kind
    voice: Voice
    length: int
    begins: int
    """Its first audible packet."""
    ends: int
    """Its last audible packet."""


@dataclass(frozen=True, slots=True)
class Said:
    """A recording at its time."""

    clip: Clip
    at: int
    """Round of its first packet."""

    @property
    def begins(self) -> int:
        """Round of the first audible packet."""
        return self.at + self.clip.begins

    @property
    def ends(self) -> int:
        """Round of the last audible packet."""
        return self.at + self.clip.ends


def audible(samples: NDArray[np.int16]) -> tuple[int, int]:
    """First and last audible packet of a recording at 8 kHz."""
    whole = samples[: len(samples) // _FRAME * _FRAME].reshape(-1, _FRAME)
    power = np.square(whole.astype(np.float64)).mean(axis=1)
    loud = np.flatnonzero(power >= power.max() * 10 ** (-_AUDIBLE_DB / 10))
    return int(loud[0]), int(loud[-1])


def _clip(path: Path, kind: Kind, voice: Voice) -> Clip:
    samples = load_prompt(path).pcm
    begins, ends = audible(samples)
    return Clip(path, kind, voice, len(samples) // _FRAME, begins, ends)


def shipped_clips() -> list[Clip]:
    """All recordings.

    Raises:
        SetupError: one is missing.
    """
    demo = _FOLDER / "demo_audio"
    clips = [_clip(demo / f"{name}.wav", kind, "male") for name, kind in _DEMO.items()]
    folder = _FOLDER / "bench_audio"
    for entry in tomllib.loads((folder / "clips.toml").read_text("utf-8"))["clip"]:
        clips.append(_clip(folder / f"{entry['id']}.wav", entry["kind"], entry["voice"]))
    return clips


def script(
    clips: list[Clip], call: int, first: int, rounds: int, *, words: bool, seed: int = 1
) -> list[Said]:
    """What one caller says, in order; the last sentence may be cut off by the end.

    Args:
        clips: recordings of every kind and voice.
        call: number of the call, from 0: decides what kind of caller it is.
        first: round in which measuring begins; nobody is abusive before.
        rounds: of the whole load.
        words: abusive sentences, too.
        seed: the same one makes the same callers.
    """
    rng = random.Random(f"{seed}/{call}")
    shouts, threatens = call % EVERY == SHOUTS, words and call % EVERY == THREATENS
    voice: Voice = "male" if shouts else rng.choice(("male", "female"))
    own = {
        kind: [one for one in clips if one.kind == kind and one.voice == voice]
        for kind in ("calm", "shout", "abuse")
    }
    span = SHOUT_AT if shouts else THREAT_AT
    due = first + int(rng.uniform(*span) * (rounds - first)) if shouts or threatens else rounds
    said: list[Said] = []
    at, roused, abusive_next = rng.randrange(4 * ROUNDS_PER_S), False, False
    while at < rounds:
        length_left = due - at
        clip = rng.choice(own["calm"])
        if not roused and length_left < clip.length + int(PAUSE_S[0] * ROUNDS_PER_S):
            at = max(at, due)
            clip = rng.choice(own["shout"] if shouts else own["abuse"])
            roused, due = shouts, rounds + 10**6
        elif roused and abusive_next and words:
            clip = rng.choice(own["abuse"])
        abusive_next = roused and clip.kind != "abuse"
        if at < rounds:
            said.append(Said(clip, at))
        at += clip.length + int(
            rng.uniform(*(ROUSED_PAUSE_S if roused else PAUSE_S)) * ROUNDS_PER_S
        )
        if at >= rounds > due:  # a pause that would outlast the load: nobody's abuse is left out
            at = due
    return said


def speech_share(scripts: list[list[Said]], rounds: int) -> float:
    """Share of the time in which a caller speaks, 0..1, pauses within sentences included."""
    spoken = sum(max(0, min(one.ends + 1, rounds) - one.begins) for said in scripts for one in said)
    return spoken / (rounds * len(scripts))
