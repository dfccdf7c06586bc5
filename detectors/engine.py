"""The detector without its sockets: frames of all calls in, verdicts out.

Once every tick the shell calls :meth:`Detector.step`; all calls that have half a second of new
audio are judged in one batch: features in one numpy pass, scores in one model run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from callshield.errors import SetupError
from callshield.tap import CallerFrame, TapKind
from detectors import features
from detectors.acoustic import AcousticModel
from detectors.risk import Decision, Policy, RiskMachine
from detectors.stream import HOP_FRAMES, HOP_S, HOP_SAMPLES, MIN_USED_FRAMES, CallStream
from detectors.vad import FRAME, FrameChecks, check_frames

#: A call that sent nothing for this long is forgotten.
IDLE_S = 30.0
#: A call that sent nothing for this long is silent: its evidence begins to age.
QUIET_S = 1.0
#: More calls than any node admits; frames of further calls are dropped and counted.
MAX_CALLS = 2000
#: Weight of the newest window in the running score; the rest is what was heard before.
NEWEST_WEIGHT = 0.6
#: Seconds of speech that one 20 ms frame is.
_FRAME_S = 0.02
#: Keeps the logarithm of the odds finite.
_SCORE_MARGIN = 1e-4


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one hop of each of several streams holds."""

    vectors: NDArray[np.float32]
    """``(m, FEATURE_COUNT)`` for those streams whose window can be scored."""
    rows: list[int]
    """Index of the stream behind each vector."""
    speech_s: list[float]
    """Seconds of new speech of each stream."""


def take_evidence(streams: Sequence[CallStream]) -> Evidence:
    """Take one waiting hop from each stream and summarise the windows that now end with speech.

    Args:
        streams: all of them :attr:`CallStream.ready`.
    """
    if not streams:
        return Evidence(np.zeros((0, features.FEATURE_COUNT), np.float32), [], [])
    hops = np.stack([stream.take_hop() for stream in streams])
    checks = check_frames(hops[:, FRAME:].reshape(-1, FRAME))
    speech = []
    for i, stream in enumerate(streams):
        own = slice(i * HOP_FRAMES, (i + 1) * HOP_FRAMES)
        part = FrameChecks(checks.audible[own], checks.line_hz[own], checks.share[own])
        speech.append(stream.hear(hops[i], part))
    spoken = [i for i, flags in enumerate(speech) if flags.any()]
    tracks = features.frame_tracks(hops[spoken].astype(np.float32) / np.float32(32768.0))
    position = {row: k for k, row in enumerate(spoken)}
    for i, stream in enumerate(streams):
        k = position.get(i)
        stream.shift_in(None if k is None else tracks[k], speech[i])
    speech_s = [float(flags.sum()) * _FRAME_S for flags in speech]
    if not spoken:
        return Evidence(np.zeros((0, features.FEATURE_COUNT), np.float32), [], speech_s)
    vectors, used = features.summarise(
        np.stack([streams[i].tracks for i in spoken]),
        np.stack([streams[i].speech for i in spoken]),
    )
    enough = used >= MIN_USED_FRAMES
    rows = [row for row, keep in zip(spoken, enough, strict=True) if keep]
    return Evidence(vectors[enough], rows, speech_s)


@dataclass(frozen=True, slots=True)
class Verdict:
    """One decision about one call."""

    call_id: bytes
    at_s: float
    """Seconds of audio of this call up to the decision."""
    score: float | None
    """Running vocal-effort score, 0..1; None when there was no speech to judge."""
    decision: Decision


@dataclass(slots=True)
class Counters:
    """What the detector did and what it could not do; totals since its start."""

    frames: int = 0
    decisions: int = 0
    """Half-second hops judged."""
    scored: int = 0
    """Of those, the ones with speech that were scored by the model."""
    dropped_samples: int = 0
    """Audio thrown away, oldest first, because the detector was behind."""
    filled_samples: int = 0
    """Audio that never came and was replaced by silence or concealed."""
    late_packets: int = 0
    """Packets that were repeated, or too late to be put into order."""
    bad_packets: int = 0
    """Packets that their codec could not decode."""
    refused_frames: int = 0
    """Frames beyond :data:`MAX_CALLS`, or of no length."""


@dataclass(slots=True)
class _Call:
    risk: RiskMachine
    heard_at_s: float
    quiet_until_s: float
    stream: CallStream = field(default_factory=CallStream)
    log_odds: float | None = None
    silent_hops: int = 0


class Detector:
    """Judges any number of calls.

    Args:
        model: the loaded acoustic model; its card holds the thresholds.
        policy: other thresholds and times than the card's.
    """

    def __init__(self, model: AcousticModel, policy: Policy | None = None) -> None:
        self._model = model
        card = model.card
        self._policy = policy or Policy(card.caution, card.serious, card.release)
        self._calls: dict[bytes, _Call] = {}
        self._gone = Counters()
        self.fault = ""
        """What is to be installed before all calls can be heard; empty when nothing."""

    @property
    def calls(self) -> int:
        """Calls that are remembered."""
        return len(self._calls)

    @property
    def counters(self) -> Counters:
        """Totals over all calls, past ones included."""
        total = Counters(
            self._gone.frames,
            self._gone.decisions,
            self._gone.scored,
            self._gone.dropped_samples,
            self._gone.filled_samples,
            self._gone.late_packets,
            self._gone.bad_packets,
            self._gone.refused_frames,
        )
        for call in self._calls.values():
            _add_stream(total, call.stream)
        return total

    def feed(self, frames: Iterable[CallerFrame], now_s: float) -> None:
        """Take frames of any calls, known or not.

        Args:
            frames: in order of arrival.
            now_s: monotonic clock.
        """
        for frame in frames:
            if frame.kind is TapKind.DETACH:
                self._suspend(frame.call_id)
                continue
            call = self._calls.get(frame.call_id)
            if not frame.payload or (call is None and len(self._calls) >= MAX_CALLS):
                self._gone.refused_frames += 1
                continue
            if call is None:
                call = self._calls[frame.call_id] = _Call(RiskMachine(self._policy), now_s, now_s)
            try:
                call.stream.push(frame.codec, frame.sequence, frame.timestamp, frame.payload)
            except SetupError as error:
                self.fault = str(error)
                self._gone.bad_packets += 1
            call.heard_at_s = call.quiet_until_s = now_s
            self._gone.frames += 1

    def finish(self, call_id: bytes) -> None:
        """Say that a call's audio has ended, so that its last part hop can be judged."""
        if call_id in self._calls:
            self._calls[call_id].stream.flush()

    def step(self, now_s: float) -> list[Verdict]:
        """Judge every whole hop that waits, and let the evidence of silent calls age.

        Returns:
            All verdicts, changed level or not, oldest first for each call. A call forgotten
            with a level above 0 gets a last one of level 0.
        """
        verdicts: list[Verdict] = []
        while True:
            ready = [(k, call) for k, call in self._calls.items() if call.stream.ready]
            if not ready:
                break
            verdicts += self._judge(ready)
        for call_id, call in list(self._calls.items()):
            if now_s - call.heard_at_s >= IDLE_S:
                verdicts += self._forget(call_id)
                continue
            while now_s - call.quiet_until_s >= QUIET_S:
                call.quiet_until_s += HOP_S
                verdicts.append(self._silence(call_id, call))
        return verdicts

    def _judge(self, ready: list[tuple[bytes, _Call]]) -> list[Verdict]:
        evidence = take_evidence([call.stream for _, call in ready])
        scores = self._model.score(evidence.vectors)
        by_row = dict(zip(evidence.rows, scores.tolist(), strict=True))
        self._gone.decisions += len(ready)
        self._gone.scored += len(by_row)
        verdicts: list[Verdict] = []
        for row, (call_id, call) in enumerate(ready):
            speech_s = evidence.speech_s[row]
            score = self._running(call, by_row.get(row), speech_s)
            decision = call.risk.update(HOP_S, speech_s, score)
            verdicts.append(Verdict(call_id, call.stream.at_s, score, decision))
        return verdicts

    @staticmethod
    def _running(call: _Call, score: float | None, speech_s: float) -> float | None:
        """Running mean of the log odds, begun anew after a window's length of silence."""
        call.silent_hops = 0 if speech_s else call.silent_hops + 1
        if call.silent_hops * HOP_SAMPLES >= call.stream.speech.size * 160:
            call.log_odds = None
        if score is None:
            return None
        bounded = min(1.0 - _SCORE_MARGIN, max(_SCORE_MARGIN, score))
        newest = float(np.log(bounded / (1.0 - bounded)))
        before = newest if call.log_odds is None else call.log_odds
        call.log_odds = NEWEST_WEIGHT * newest + (1.0 - NEWEST_WEIGHT) * before
        return float(1.0 / (1.0 + np.exp(-call.log_odds)))

    def _silence(self, call_id: bytes, call: _Call) -> Verdict:
        call.stream.settle()
        call.log_odds = None
        decision = call.risk.update(HOP_S, 0.0, None)
        return Verdict(call_id, call.stream.at_s, None, decision)

    def _suspend(self, call_id: bytes) -> None:
        # Hold or end, nobody says which: the level stays until the call is heard again or
        # forgotten, the audio does not.
        if call_id in self._calls:
            call = self._calls[call_id]
            call.stream.reset_audio()
            call.log_odds = None

    def _forget(self, call_id: bytes) -> list[Verdict]:
        call = self._calls.pop(call_id)
        _add_stream(self._gone, call.stream)
        if not call.risk.level:
            return []
        decision = Decision(0, call.risk.level, 0.0, None, 0.0)
        return [Verdict(call_id, call.stream.at_s, None, decision)]


def _add_stream(total: Counters, stream: CallStream) -> None:
    total.dropped_samples += stream.dropped_samples
    total.filled_samples += stream.filled_samples
    total.late_packets += stream.late_packets
    total.bad_packets += stream.bad_packets
