"""The recordings for training and measuring: which may be used for what, and through which line.

Reads ``DATA/audio/manifest.tsv`` (tab-separated: path, corpus, lang, speaker, emotion, positive,
split, licence). Nothing here decides by a corpus's name what may be trained on: the licence
column does.
"""

from __future__ import annotations

import csv
import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
from numpy.typing import NDArray

from detectors import features, telephone
from detectors.resample import RATE, to_8k
from detectors.silero import Silero
from detectors.speech import CallerEar, SpeechJudge
from detectors.stream import HOP_FRAMES, HOP_SAMPLES, MIN_USED_FRAMES, WINDOW_FRAMES
from detectors.vad import FRAME

#: Emotions and kinds that nobody calls raised.
CALM = frozenset({"neutral", "neutral-digit", "boredom", "sadness"})
#: Aroused but not angry: some are loud, so they weigh little in training.
AROUSED = frozenset({"happiness", "fear", "surprised"})
#: Corpora of single words, joined into utterances of one speaker.
_WORDS = {"fsdd": 8, "speech_commands": 4}


@dataclass(frozen=True, slots=True)
class Clip:
    """One line of the manifest."""

    path: Path
    corpus: str
    speaker: str
    emotion: str
    split: str
    licence: str

    @property
    def may_train(self) -> bool:
        """The licence lets a model trained on it be shipped (no NC, no ND, no 'measure only')."""
        text = self.licence.lower()
        return not ("measure only" in text or "-nc" in text or "-nd" in text)

    @property
    def held_out(self) -> bool:
        """Kept from training: the dev split, and of the corpora without one three tenths.

        By speaker where speakers are known, else by file.
        """
        if self.split != "train":
            return True
        if self.corpus in ("emodb", "fsdd"):
            return False
        key = self.speaker if self.corpus == "speech_commands" else self.path.name
        return hashlib.sha256(key.encode()).digest()[0] < 77


@dataclass(frozen=True, slots=True)
class Utterance:
    """One clip, or several single words of one speaker."""

    clips: tuple[Clip, ...]

    @property
    def first(self) -> Clip:
        """Stands for all: they share corpus, speaker, split and kind."""
        return self.clips[0]


def read_manifest(data: Path) -> list[Clip]:
    """All clips of ``data/audio/manifest.tsv``, in its order.

    Raises:
        FileNotFoundError: there is no manifest.
    """
    folder = data / "audio"
    with (folder / "manifest.tsv").open(encoding="utf-8", newline="") as file:
        return [
            Clip(
                folder / row["path"],
                row["corpus"],
                row["speaker"],
                row["emotion"],
                row["split"],
                row["licence"],
            )
            for row in csv.DictReader(file, delimiter="\t")
        ]


def utterances(clips: list[Clip], rng: np.random.Generator) -> list[Utterance]:
    """Join single words of one speaker; leave sentences alone."""
    out: list[Utterance] = []
    words: dict[tuple[str, str, str], list[Clip]] = {}
    for clip in clips:
        if clip.corpus in _WORDS:
            words.setdefault((clip.corpus, clip.speaker, clip.split), []).append(clip)
        else:
            out.append(Utterance((clip,)))
    for (corpus, _, _), members in words.items():
        order = rng.permutation(len(members))
        size = _WORDS[corpus]
        for start in range(0, len(order), size):
            out.append(Utterance(tuple(members[i] for i in order[start : start + size])))
    return out


def read_clip(path: Path) -> tuple[NDArray[np.float32], int]:
    """Mono float32 and its rate."""
    audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return audio.mean(axis=1, dtype=np.float32), int(rate)


def joined(parts: list[NDArray[np.float32]], rng: np.random.Generator) -> NDArray[np.float32]:
    """Parts at 8 kHz one after the other with short pauses, each at a level of its own."""
    pieces = [np.zeros(int(rng.uniform(0.02, 0.5) * RATE), dtype=np.float32)]
    for part in parts:
        level = np.float32(rng.uniform(0.5, 0.8) / (float(np.abs(part).max()) + 1e-6))
        pieces.append(part * level)
        pieces.append(np.zeros(int(rng.uniform(0.05, 0.35) * RATE), dtype=np.float32))
    pieces.append(np.zeros(RATE // 4, dtype=np.float32))
    return np.concatenate(pieces)


def load_8k(utterance: Utterance, rng: np.random.Generator) -> NDArray[np.float32]:
    """An utterance as one stretch of audio at 8 kHz."""
    return joined([to_8k(*read_clip(clip.path)) for clip in utterance.clips], rng)


class Heard(NamedTuple):
    """The windows of one recording that a live call would be scored on."""

    vectors: NDArray[np.float32]
    """``(n, FEATURE_COUNT)`` from :func:`detectors.features.summarise`."""
    tracks: NDArray[np.float32]
    """``(n, WINDOW_FRAMES, TRACK_COUNT)``: the frames behind them."""
    speech: NDArray[np.bool_]
    """``(n, WINDOW_FRAMES)``."""


@functools.cache
def _speech_judge() -> SpeechJudge:
    return SpeechJudge(Silero())


def heard(pcm: NDArray[np.int16]) -> Heard:
    """What a live call with this audio would be scored on.

    The same as :func:`detectors.engine.take_evidence` gives hop after hop, in one pass.
    """
    missing = -len(pcm) % HOP_SAMPLES
    pcm = np.concatenate([np.zeros(FRAME, np.int16), pcm, np.zeros(missing, np.int16)])
    hops = np.lib.stride_tricks.sliding_window_view(pcm, FRAME + HOP_SAMPLES)[::HOP_SAMPLES]
    judged = _speech_judge().judge_recording(hops, CallerEar())
    tracks = features.frame_tracks(pcm[None].astype(np.float32) / np.float32(32768.0))[0]
    by_hop = tracks.reshape(-1, HOP_FRAMES, features.TRACK_COUNT)
    speech = judged.voice(by_hop[judged.rows]).reshape(-1)
    ends = [
        end
        for end in range(HOP_FRAMES, len(speech) + 1, HOP_FRAMES)
        if speech[end - HOP_FRAMES : end].any()
    ]
    if not ends:
        return Heard(
            np.zeros((0, features.FEATURE_COUNT), dtype=np.float32),
            np.zeros((0, WINDOW_FRAMES, features.TRACK_COUNT), dtype=np.float32),
            np.zeros((0, WINDOW_FRAMES), dtype=np.bool_),
        )
    before = WINDOW_FRAMES - HOP_FRAMES
    tracks = np.concatenate([np.zeros((before, features.TRACK_COUNT), np.float32), tracks])
    speech = np.concatenate([np.zeros(before, np.bool_), speech])
    windows = [slice(end - HOP_FRAMES, end + before) for end in ends]
    behind, flags = np.stack([tracks[w] for w in windows]), np.stack([speech[w] for w in windows])
    vectors, used = features.summarise(behind, flags)
    enough = used >= MIN_USED_FRAMES
    return Heard(vectors[enough], behind[enough], flags[enough])


def telephoned(
    audio: NDArray[np.float32],
    line: telephone.Line,
    rng: np.random.Generator,
    background: NDArray[np.float32] | None = None,
) -> Heard:
    """What is heard of audio at 8 kHz after a telephone line."""
    return heard(telephone.transmit(audio, line, rng, background))
