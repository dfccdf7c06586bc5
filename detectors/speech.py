"""Who talks, and who cries out: what all other detectors stand on, batched over calls.

Two judges in turn. webrtcvad (:mod:`detectors.vad`) is the cheap gate: a hop in which it hears
nothing goes no further. Of the rest Silero (:mod:`detectors.silero`) says which
frames are speech; it takes neither tones nor fax nor music nor noise for it.

Silero knows talking. A held scream has no syllables and is no speech to it, yet it is the strongest
vocal effort there is. So what the gate lets through and Silero refuses still counts as *voice*,
though never as speech, where it is periodic, of more than a few lines (:func:`outcries`) and does
not go on for longer than a breath without a word. What it is then, the acoustic model says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from callshield.errors import DetectorModelError
from detectors import features
from detectors.silero import STEP_SAMPLES, Memory, Silero, blank, cut_windows, find_model
from detectors.vad import FRAME, FrameChecks, VoiceActivity, check_frames, tonal_lines

#: Silero's probability from which a window is speech.
SPEECH = 0.3
#: An outcry's frames are this periodic (normalised autocorrelation), hold less than this share of
#: their energy in two lines (the network's tones hold 0.99), and spread over this many mel bands; a
#: low one over more (a modem is as narrow as a high voice, and its "pitch" is low).
OUTCRY_VOICING, OUTCRY_SHARE, OUTCRY_BANDS = 0.6, 0.97, 3.0
LOW_HZ, LOW_BANDS = 180.0, 4.0
#: So many frames of a hop are like that, and this part of those that the gate let through.
OUTCRY_FRAMES, OUTCRY_PART = 8, 0.4
#: Nobody screams longer than this, in frames of 20 ms, without a word in between. (Silero's own
#: doubt would say no more: of screams as of music it is sure after four to five seconds.)
PATIENCE_FRAMES = 250
#: Frames of speech in a hop that make a word.
WORD_FRAMES = 5


class CallerEar:
    """What is remembered of one call between two hops."""

    __slots__ = ("activity", "cell", "hidden", "wordless_frames")

    def __init__(self) -> None:
        self.activity = VoiceActivity()
        self.forget()

    def forget(self) -> None:
        """What comes next has nothing to do with what came before."""
        self.hidden, self.cell = (state[0] for state in blank(1))
        self.wordless_frames = 0


@dataclass(frozen=True, slots=True)
class Judgement:
    """What several hops hold; all arrays ``(hops, frames)``."""

    gate: NDArray[np.bool_]
    """Frames that webrtcvad let through; without Silero, those that passed its checks too."""
    probability: NDArray[np.float32]
    """Of speech, 0..1; 0 in hops that did not pass the gate."""
    line_share: NDArray[np.float32]
    """See :func:`detectors.vad.tonal_lines`; 0 where it was not needed."""
    judged: bool
    """False when there is no Silero: then the gate's word stands."""
    ears: Sequence[CallerEar]
    """Of the call behind each hop."""

    @property
    def speech(self) -> NDArray[np.bool_]:
        """Frames in which somebody talks."""
        return np.asarray(self.probability >= SPEECH)

    @property
    def rows(self) -> NDArray[np.int_]:
        """Indices of the hops that passed the gate: those whose tracks :meth:`voice` needs."""
        return np.flatnonzero(self.gate.any(axis=1))

    def voice(self, tracks: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Frames of a human voice: speech and outcries; to be asked once.

        Args:
            tracks: ``(len(rows), frames, TRACK_COUNT)`` of :func:`detectors.features.frame_tracks`
                of those hops.
        """
        voice = self.speech
        if not self.judged or not len(tracks):
            return voice
        rows = self.rows
        cries = outcries(self.gate[rows] & ~voice[rows], tracks, self.line_share[rows])
        words = voice[rows].sum(axis=1) >= WORD_FRAMES
        for k, row in enumerate(rows):
            ear = self.ears[row]
            if words[k]:
                ear.wordless_frames = 0
            if ear.wordless_frames < PATIENCE_FRAMES:
                ear.wordless_frames += int(cries[k].sum())
                voice[row] |= cries[k]
        return voice


def outcries(
    candidates: NDArray[np.bool_], tracks: NDArray[np.float32], line_share: NDArray[np.float32]
) -> NDArray[np.bool_]:
    """Which candidates may belong to a scream or a wail.

    Args:
        candidates: ``(hops, frames)``.
        tracks: ``(hops, frames, TRACK_COUNT)``.
        line_share: ``(hops, frames)``.

    Returns:
        ``(hops, frames)``: all candidates of the hops that hold enough of it.
    """
    power = 10.0 ** (tracks[..., len(features.TRACKS) :] / 10.0)
    share = power / power.sum(axis=-1, keepdims=True)
    # The exponential of the entropy: over how many bands the energy is spread.
    bands = np.exp(-(share * np.log(share + 1e-9)).sum(axis=-1))
    needed = np.where(tracks[..., features.F0] < np.log2(LOW_HZ), LOW_BANDS, OUTCRY_BANDS)
    like = candidates & (tracks[..., features.VOICING] >= OUTCRY_VOICING)
    like &= (line_share < OUTCRY_SHARE) & (bands >= needed)
    frames = like.sum(axis=1)
    enough = (frames >= OUTCRY_FRAMES) & (frames >= OUTCRY_PART * candidates.sum(axis=1))
    return np.asarray(candidates & enough[:, None])


class SpeechJudge:
    """Judges hops of any number of calls.

    Args:
        silero: the loaded model; without it webrtcvad and its checks judge alone.
        fault: why there is none, for a person.
    """

    def __init__(self, silero: Silero | None, fault: str = "") -> None:
        self._silero = silero
        self.fault = fault

    @classmethod
    def load(cls, folder: Path | None = None) -> SpeechJudge:
        """With the model of a folder, or the shipped one; without it, saying so, where it fails."""
        try:
            return cls(Silero(find_model(folder)))
        except DetectorModelError as error:
            return cls(None, f"{error}; until then tones, music and noise can pass as speech")

    def judge(self, hops: NDArray[np.int16], ears: Sequence[CallerEar]) -> Judgement:
        """Judge one hop of each of several calls, in one run of the model.

        Args:
            hops: ``(calls, 160 + length)`` int16 at 8 kHz: the frame before the hop and the hop,
                whose length is a multiple of 2000 samples.
            ears: of those calls, in the same order.
        """

        def listen(windows: NDArray[np.float32], rows: NDArray[np.int_]) -> NDArray[np.float32]:
            heard = [ears[row] for row in rows]
            memory = Memory(np.stack([e.hidden for e in heard]), np.stack([e.cell for e in heard]))
            found, memory = self._run(windows, memory)
            for ear, hidden, cell in zip(heard, memory.hidden, memory.cell, strict=True):
                # Copies: a view would keep the whole batch alive.
                ear.hidden, ear.cell = hidden.copy(), cell.copy()
            return found

        return self._judge(hops, ears, listen)

    def judge_recording(self, hops: NDArray[np.int16], ear: CallerEar) -> Judgement:
        """Judge consecutive hops of one call in one run; the same as one after the other.

        Args:
            hops: ``(n, 160 + length)`` as in :meth:`judge`, in order.
            ear: of that call.
        """

        def listen(windows: NDArray[np.float32], _: NDArray[np.int_]) -> NDArray[np.float32]:
            in_turn = windows.reshape(1, -1, windows.shape[-1])
            found, memory = self._run(in_turn, Memory(ear.hidden[None], ear.cell[None]))
            ear.hidden, ear.cell = memory.hidden[0], memory.cell[0]
            return found.reshape(windows.shape[:2])

        return self._judge(hops, [ear] * len(hops), listen)

    def _run(
        self, windows: NDArray[np.float32], memory: Memory
    ) -> tuple[NDArray[np.float32], Memory]:
        assert self._silero is not None
        return self._silero.probabilities(windows, memory)

    def _judge(
        self,
        hops: NDArray[np.int16],
        ears: Sequence[CallerEar],
        listen: Callable[[NDArray[np.float32], NDArray[np.int_]], NDArray[np.float32]],
    ) -> Judgement:
        frames = hops.shape[1] // FRAME - 1
        cut = hops[:, FRAME:].reshape(len(hops), frames, FRAME)
        # Silero needs no help with tones: their costly check is for those who must do without it.
        checks = check_frames(cut.reshape(-1, FRAME), lines=self._silero is None)
        gate = np.zeros((len(hops), frames), dtype=np.bool_)
        for i, ear in enumerate(ears):
            own = slice(i * frames, (i + 1) * frames)
            part = FrameChecks(checks.audible[own], checks.line_hz[own], checks.share[own])
            gate[i] = ear.activity.push(cut[i], part)
        share = checks.share.reshape(gate.shape)
        if self._silero is None:
            return Judgement(gate, gate.astype(np.float32), share, False, ears)
        probability = np.zeros(gate.shape, dtype=np.float32)
        rows = np.flatnonzero(gate.any(axis=1))
        if len(rows):
            found = listen(cut_windows(hops[rows]), rows)
            probability[rows] = found[:, _window_of_frame(frames)]
        refused = gate & (probability < SPEECH)
        suspect = np.flatnonzero(refused.sum(axis=1) >= OUTCRY_FRAMES)
        if len(suspect):
            share[suspect] = tonal_lines(cut[suspect].reshape(-1, FRAME))[1].reshape(-1, frames)
        return Judgement(gate, probability, share, True, ears)


def _window_of_frame(frames: int) -> NDArray[np.int_]:
    """Which window says what a frame is: the one after the one that holds the frame's middle.

    The model hears an onset a window late (measured: AUC 0.959 against 0.948 with the window of
    the frame itself); a hop's last frames have no later window.
    """
    middle = np.arange(frames) * FRAME + FRAME // 2
    last = frames * FRAME // STEP_SAMPLES - 1
    return np.asarray(np.minimum(middle // STEP_SAMPLES + 1, last))
