"""What the acoustic model learns from: recordings, and what is made of them, over telephones.

Each utterance that may be trained on goes over several lines; calm ones are also re-spoken with
more effort, and with changes that are no effort (:mod:`detectors.shouting`). What each kind of
evidence weighs is fixed beforehand (:func:`_kind`), so that "which corpus is this" says little
about the answer: every corpus of calm volunteers also appears with simulated shouts.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from detectors import corpora, features, line_sounds, shouting, telephone
from detectors.resample import RATE, to_8k
from detectors.sequences import frames_of


@dataclass(frozen=True, slots=True)
class Example:
    """One utterance as one line delivered it."""

    vectors: NDArray[np.float32]
    """``(windows, FEATURE_COUNT)``."""
    reference: NDArray[np.float32]
    """``(FEATURE_COUNT,)``: mean of the speaker's other, calm speech over the same line; of no
    length where there is none."""
    corpus: str
    speaker: str
    emotion: str
    made: str
    """``real``, or simulated: ``raised``, ``shout``, ``scream``, ``calm`` (another calm speaker),
    ``lively``."""
    frames: NDArray[np.float16] | None = None
    """``(windows, WINDOW_FRAMES, CHANNELS)`` from :func:`detectors.sequences.frames_of`, for the
    kinds of model that see frames; None unless asked for."""

    @property
    def effort(self) -> float:
        """Vocal effort, 0 to 1: what the model is to say."""
        if self.made == "real":
            return float(self.emotion == "anger")
        return _SIMULATED_EFFORT[self.made]


_SIMULATED_EFFORT = {"raised": 0.6, "shout": 1.0, "scream": 1.0, "calm": 0.0, "lively": 0.0}
#: What each calm utterance is re-spoken as.
_RESPOKEN = (
    ("raised", shouting.raised),
    ("shout", shouting.shouted),
    ("shout", shouting.shouted),
    ("calm", shouting.calm),
    ("lively", shouting.lively),
)
#: Lines that a recording is sent over, apart from a clean one; EmoDB has the only real anger.
_LINES = {"emodb": 4}
_OTHER_LINES = 3
#: Tunes of music on hold, and the first of their seeds: none of them is measured with.
_TUNES, _TUNE_SEED = 300, 10_000
_INSTRUMENTS = ("piano", "strings", "flute", "organ", "synth", "plucked")

_backgrounds: list[NDArray[np.float32]] = []


def _load_backgrounds(paths: list[Path]) -> None:
    _backgrounds.extend(to_8k(*corpora.read_clip(path)) for path in paths)


@dataclass(frozen=True, slots=True)
class Work:
    """One utterance to be made into examples."""

    seed: int
    utterance: corpora.Utterance
    calm: tuple[corpora.Clip, ...]
    """Other, calm clips of the speaker."""
    respoken: bool
    """Re-speak it with other efforts too."""
    sequences: bool
    """Keep the frames."""


def _examples(work: Work) -> list[Example]:
    rng = np.random.default_rng(work.seed)
    clip = work.utterance.first
    parts = [corpora.read_clip(c.path) for c in work.utterance.clips]
    before = [to_8k(*corpora.read_clip(c.path)) for c in work.calm]
    out: list[Example] = []

    def add(audio: list[NDArray[np.float32]], made: str, clean: bool = False) -> None:
        line = telephone.CLEAN if clean else telephone.random_line(rng)
        noisy = bool(_backgrounds) and not clean and rng.random() < 0.25
        background = _backgrounds[int(rng.integers(len(_backgrounds)))] if noisy else None
        heard = corpora.telephoned(corpora.joined(audio, rng), line, rng, background)
        reference = np.zeros(0, dtype=np.float32)
        if before:
            own = corpora.telephoned(corpora.joined(before, rng), line, rng, background).vectors
            if len(own):
                reference = own.mean(axis=0)
        out.append(
            Example(
                heard.vectors,
                reference,
                clip.corpus,
                clip.speaker,
                clip.emotion,
                made,
                frames_of(heard.tracks, heard.speech) if work.sequences else None,
            )
        )

    real = [to_8k(*part) for part in parts]
    add(real, "real", clean=True)
    lines = _LINES.get(clip.corpus, _OTHER_LINES) if work.respoken else 1
    for _ in range(lines):
        add(real, "real")
    if clip.emotion not in corpora.CALM or not work.respoken:
        return out
    voices = [shouting.analyse(*part) for part in parts]
    for made, draw in _RESPOKEN:
        effort = draw(rng)
        spoken = [to_8k(shouting.respeak(v, effort), v.rate) for v in voices]
        add(spoken, made, clean=rng.random() < 0.2)
    if rng.random() < 0.5:
        scream = shouting.held(voices[0], float(rng.uniform(0.6, 2.0)))
        add([to_8k(shouting.respeak(scream, shouting.screamed(rng)), scream.rate)], "scream")
    return out


def _work(
    groups: list[corpora.Utterance],
    seed: int,
    rng: np.random.Generator,
    *,
    respoken: bool,
    sequences: bool,
) -> Iterator[Work]:
    """Each utterance with up to four other calm clips of its speaker."""
    calm = _calm([clip for group in groups for clip in group.clips])
    for i, group in enumerate(groups):
        others = [c for c in calm.get(_person(group.first), []) if c not in group.clips]
        size = 4 if len(group.clips) > 1 else 2
        order = rng.permutation(len(others))[:size]
        chosen = tuple(others[k] for k in order)
        if group.first.emotion.startswith("noise"):
            chosen = _anybody(calm, np.random.default_rng([seed, i]))
        if group.first.corpus == "mycroft":
            # Nobody knows whose voices these are; each stands for its own.
            chosen = group.clips
        yield Work(seed + 1 + i, group, chosen, respoken, sequences)


def _anybody(
    calm: dict[str, list[corpora.Clip]], rng: np.random.Generator
) -> tuple[corpora.Clip, ...]:
    """Calm clips of one speaker: the caller whose voice was learnt before a sound came."""
    people = sorted(calm)
    own = calm[people[int(rng.integers(len(people)))]] if people else []
    return tuple(own[k] for k in rng.permutation(len(own))[:3])


def _calm(clips: list[corpora.Clip]) -> dict[str, list[corpora.Clip]]:
    """Calm clips by speaker."""
    calm: dict[str, list[corpora.Clip]] = {}
    for clip in (c for c in clips if c.emotion in corpora.CALM):
        calm.setdefault(_person(clip), []).append(clip)
    return calm


def _sounds(rng: np.random.Generator, *, sequences: bool) -> Iterator[Example]:
    """Chords, call-progress tones and noise that a voice activity detector lets through."""
    time_s = np.arange(5 * RATE) / RATE
    for i in range(60):
        if i % 3 == 0:
            audio = (
                rng.standard_normal(len(time_s))
                * (rng.random(len(time_s) // 800 + 1) > 0.3)[np.arange(len(time_s)) // 800]
            )
        else:
            audio = np.zeros(len(time_s))
            for start in np.arange(0, 5, 0.4 if i % 3 == 1 else 1.0):
                root = 110.0 * 2 ** (rng.integers(0, 24) / 12)
                age = np.maximum(time_s - start, 0.0)
                envelope = (time_s >= start) * np.exp(-age * rng.uniform(1, 6))
                for ratio in (1.0, 1.26, 1.5):
                    for harmonic in range(1, int(rng.integers(2, 9))):
                        phase = 2 * np.pi * root * ratio * harmonic * time_s
                        audio += envelope * np.sin(phase) / harmonic
        sound = audio.astype(np.float32)
        yield _unvoiced(sound, "made_sounds", f"sound_{i}", rng, sequences=sequences)


def _tunes(
    rng: np.random.Generator, clips: list[corpora.Clip], *, sequences: bool
) -> Iterator[Example]:
    """Music on hold: what is periodic and no speech passes as an outcry at first.

    Each after calm clips of somebody: a call is put on hold when a voice is known already.
    """
    calm = _calm(clips)
    for i in range(_TUNES):
        lead = _INSTRUMENTS[i % len(_INSTRUMENTS)]
        backing = (None, *_INSTRUMENTS)[int(rng.integers(len(_INSTRUMENTS) + 1))]
        tune = line_sounds.music(8.0, lead, backing, bool(rng.random() < 0.5), _TUNE_SEED + i)
        # Played faster or slower: other keys and other instruments.
        at = np.arange(0.0, len(tune) - 1, float(2 ** rng.uniform(-0.6, 0.8)))
        sound = np.interp(at, np.arange(len(tune)), tune)[: 5 * RATE].astype(np.float32)
        # Five seconds are heard at all, see detectors.speech.
        before = [to_8k(*corpora.read_clip(c.path)) for c in _anybody(calm, rng)]
        yield _unvoiced(sound, "made_music", f"tune_{i}", rng, before, sequences=sequences)


def _unvoiced(
    sound: NDArray[np.float32],
    corpus: str,
    name: str,
    rng: np.random.Generator,
    before: list[NDArray[np.float32]] | None = None,
    *,
    sequences: bool,
) -> Example:
    line = telephone.random_line(rng)
    heard = corpora.telephoned(sound, line, rng)
    reference = np.zeros(0, dtype=np.float32)
    if before:
        own = corpora.telephoned(corpora.joined(before, rng), line, rng).vectors
        reference = own.mean(axis=0) if len(own) else reference
    return Example(
        heard.vectors,
        reference,
        corpus,
        name,
        "noise",
        "real",
        frames_of(heard.tracks, heard.speech) if sequences else None,
    )


def build(
    data: Path, seed: int, jobs: int, *, held_out: bool = False, sequences: bool = False
) -> list[Example]:
    """Every utterance over several lines, in an order that does not depend on ``jobs``.

    Args:
        data: folder with ``audio/manifest.tsv``.
        seed: of lines, joined words and simulated efforts.
        jobs: processes.
        held_out: take what is kept from training instead, recordings alone: each over a clean
            and a random line, nothing re-spoken.
        sequences: keep the frames of each window, for the comparison of kinds of model.
    """
    manifest = corpora.read_manifest(data)
    trained = [c for c in manifest if c.may_train and not c.held_out]
    # Babies cry in callers' rooms, but also sound like screams: heard alone, never mixed in.
    noises = [
        c.path for c in trained if c.emotion.startswith("noise") and c.emotion != "noise_baby_cry"
    ]
    rng = np.random.default_rng(seed)
    chosen = [c for c in manifest if c.held_out] if held_out else trained
    groups = corpora.utterances(chosen, rng)
    out: list[Example] = []
    with ProcessPoolExecutor(jobs, initializer=_load_backgrounds, initargs=(noises,)) as pool:
        work = list(_work(groups, seed, rng, respoken=not held_out, sequences=sequences))
        results = pool.map(_examples, work, chunksize=4)
        for examples in track(results, "utterances over telephone lines", total=len(work)):
            out += examples
    if held_out:
        return out
    out += _sounds(rng, sequences=sequences)
    return out + list(_tunes(rng, trained, sequences=sequences))


@dataclass(frozen=True, slots=True)
class Windows:
    """All windows of all examples, flat."""

    x: NDArray[np.float32]
    reference: NDArray[np.float32]
    """The speaker's own calm voice, beside each window."""
    known: NDArray[np.bool_]
    """Whether there is one."""
    effort: NDArray[np.float64]
    weight: NDArray[np.float64]
    example: NDArray[np.int_]
    group: NDArray[np.int_]
    """Speaker, for folds."""


def _kind(e: Example) -> tuple[str, float]:
    """What an example is evidence of, and what all of that weighs together."""
    if e.emotion.startswith("noise"):
        baby = e.emotion == "noise_baby_cry"
        # A baby behind a caller is none of our alarms; but its cry is near to a scream.
        weight = {"made_sounds": 0.1, "made_music": 0.3}.get(e.corpus, 0.1 if baby else 0.25)
        return f"{e.corpus} {baby}", weight
    if e.made != "real":
        weight = {"shout": 0.2, "scream": 0.1, "lively": 0.3}.get(e.made, 0.12)
        return f"{e.corpus} {e.made}", weight
    if e.emotion == "anger":
        return "acted anger", 1.6
    if e.emotion in corpora.AROUSED:
        return f"acted {e.emotion}", 0.35
    if e.emotion == "disgust":
        return "acted disgust", 0.3
    return f"{e.corpus} calm", 1.0 if e.corpus == "emodb" else 0.3


def _weights(examples: list[Example], example: NDArray[np.int_]) -> NDArray[np.float64]:
    """One total weight for each kind of evidence, whatever its number of windows."""
    kinds = [_kind(e) for e in examples]
    windows: dict[str, int] = {}
    for name, _ in (kinds[i] for i in example):
        windows[name] = windows.get(name, 0) + 1
    return np.array([kinds[i][1] / windows[kinds[i][0]] for i in example])


def flatten(examples: list[Example]) -> Windows:
    """Stack the windows of all examples."""
    example = np.concatenate([np.full(len(e.vectors), i) for i, e in enumerate(examples)])
    speakers = {s: i for i, s in enumerate(sorted({_person(e) for e in examples}))}
    nothing = np.zeros(features.FEATURE_COUNT, dtype=np.float32)
    references = np.stack([e.reference if len(e.reference) else nothing for e in examples])
    return Windows(
        np.concatenate([e.vectors for e in examples]),
        references[example],
        np.array([len(e.reference) > 0 for e in examples])[example],
        np.array([e.effort for e in examples])[example],
        _weights(examples, example),
        example,
        np.array([speakers[_person(e)] for e in examples])[example],
    )


def _person(voice: Example | corpora.Clip) -> str:
    return f"{voice.corpus}/{voice.speaker}"


def cached(path: Path | None, make: Callable[[], list[Example]]) -> list[Example]:
    """What a file of this machine keeps, or what ``make`` makes, kept in the file.

    Args:
        path: written by this function, or not there yet; None keeps nothing.
        make: makes the examples.
    """
    if path and path.exists():
        # Written by this program on this machine, see below.
        kept: list[Example] = pickle.loads(path.read_bytes())
        return kept
    made = make()
    if path:
        path.write_bytes(pickle.dumps(made))
    return made
