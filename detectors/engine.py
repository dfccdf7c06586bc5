"""The detector without its sockets: frames of all calls in, verdicts out.

Once every tick the shell calls :meth:`Detector.step`; all calls that have half a second of new
audio are judged in one batch: features in one numpy pass, scores in one model run.

Of each caller the first calm speech is remembered as the mean of its features: who speaks high or
sharp by nature is then judged against that (:class:`CallerVoice`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from callshield.errors import SetupError
from callshield.tap import CallerFrame, TapKind
from detectors import features
from detectors.acoustic import AcousticModel
from detectors.reached import Figures, Reached
from detectors.risk import Decision, Policy, RiskMachine
from detectors.running import RunningScore
from detectors.speech import SpeechJudge
from detectors.stream import HOP_FRAMES, HOP_S, HOP_SAMPLES, MIN_USED_FRAMES, CallStream
from detectors.thresholds import card_policy
from detectors.vad import FRAME

#: A call that sent nothing for this long is forgotten.
IDLE_S = 30.0
#: A call that sent nothing for this long is silent: its evidence begins to age.
QUIET_S = 1.0
#: More calls than any node admits; frames of further calls are dropped and counted.
MAX_CALLS = 2000
#: Calm speech from which the caller's own voice begins to count, and from which it counts fully.
REFERENCE_S = (2.0, 5.0)
#: Calm speech after which the caller's own voice is not learnt any further.
REFERENCE_ENOUGH_S = 10.0
#: Seconds of speech that one 20 ms frame is.
_FRAME_S = 0.02
#: No score gets there: thresholds while there is no model, and of calls whose sound is not judged.
OUT_OF_REACH = Policy(caution=2.0, serious=2.0, release=0.0, sure=2.0)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one hop of each of several streams holds."""

    vectors: NDArray[np.float32]
    """``(m, FEATURE_COUNT)`` for those streams whose window can be scored."""
    rows: list[int]
    """Index of the stream behind each vector."""
    speech_s: list[float]
    """Seconds of new voice of each stream: speech and outcries."""
    window_s: list[float]
    """Seconds of voice in the window behind each vector."""
    hops: NDArray[np.int16]
    """``(streams, HOP_SAMPLES)``: the new audio of each stream."""
    speech: NDArray[np.bool_]
    """``(streams, HOP_FRAMES)``: frames in which somebody talks; an outcry is no speech."""


def take_evidence(streams: Sequence[CallStream], judge: SpeechJudge) -> Evidence:
    """Take one waiting hop from each stream and summarise the windows that now end with speech.

    Args:
        streams: all of them :attr:`CallStream.ready`.
        judge: says what is speech.
    """
    nothing = np.zeros((0, features.FEATURE_COUNT), np.float32)
    if not streams:
        no_audio = np.zeros((0, HOP_SAMPLES), np.int16)
        return Evidence(nothing, [], [], [], no_audio, np.zeros((0, HOP_FRAMES), np.bool_))
    hops = np.stack([stream.take_hop() for stream in streams])
    new = hops[:, FRAME:]
    judged = judge.judge(hops, [stream.ear for stream in streams])
    passed = judged.rows.tolist()
    if not passed:
        for stream in streams:
            stream.shift_in(None, np.zeros(HOP_FRAMES, np.bool_))
        return Evidence(nothing, [], [0.0] * len(streams), [], new, judged.speech)
    tracks = features.frame_tracks(hops[passed].astype(np.float32) / np.float32(32768.0))
    voice = judged.voice(tracks)
    position = {row: k for k, row in enumerate(passed)}
    for i, stream in enumerate(streams):
        k = position.get(i)
        stream.shift_in(None if k is None else tracks[k], voice[i])
    spoken = np.flatnonzero(voice.any(axis=1)).tolist()
    speech_s = [float(count) * _FRAME_S for count in voice.sum(axis=1)]
    if not spoken:
        return Evidence(nothing, [], speech_s, [], new, judged.speech)
    vectors, used = features.summarise(
        np.stack([streams[i].tracks for i in spoken]),
        np.stack([streams[i].speech for i in spoken]),
    )
    enough = used >= MIN_USED_FRAMES
    rows = [row for row, keep in zip(spoken, enough, strict=True) if keep]
    window_s = [float(count) * _FRAME_S for count in used[enough]]
    return Evidence(vectors[enough], rows, speech_s, window_s, new, judged.speech)


class CallerVoice:
    """What a caller sounds like when calm: the mean features of his first calm speech.

    Only windows that sound calm by themselves are learnt from: who shouts from the first word on
    is never taken for somebody whose voice is like that.
    """

    __slots__ = ("_sum", "learnt_s")

    def __init__(self) -> None:
        self._sum = np.zeros(features.FEATURE_COUNT, dtype=np.float32)
        self.learnt_s = 0.0

    def learn(self, vector: NDArray[np.float32], speech_s: float) -> None:
        """Take the features of one calm window with ``speech_s`` seconds of new speech."""
        if self.learnt_s < REFERENCE_ENOUGH_S:
            self._sum += np.float32(speech_s) * vector
            self.learnt_s += speech_s

    @property
    def known(self) -> float:
        """How well the voice is known, 0 to 1."""
        begin, full = REFERENCE_S
        return min(1.0, max(0.0, (self.learnt_s - begin) / (full - begin)))

    @property
    def mean(self) -> NDArray[np.float32]:
        """``(FEATURE_COUNT,)`` float32; zeros while nothing was learnt."""
        return self._sum / np.float32(max(self.learnt_s, _FRAME_S))


class Listener(Protocol):
    """Somebody else who wants the callers' audio as it is judged, in order for each call."""

    def hear(
        self,
        call_id: bytes,
        start_s: float,
        samples: NDArray[np.int16],
        speech: NDArray[np.bool_],
    ) -> None:
        """One hop: seconds of audio before it, ``(HOP_SAMPLES,)`` at 8 kHz, flags a frame."""

    def pause(self, call_id: bytes) -> None:
        """No more audio for now: the tap was closed, or nothing comes."""

    def end(self, call_id: bytes) -> None:
        """The call is forgotten."""


@dataclass(frozen=True, slots=True)
class Hop:
    """What one half second gave the rules that make a level; kept for :mod:`detectors.replay`."""

    speech_s: float
    """Seconds of new voice in it."""
    newest: float | None
    """Score of its window alone, before the running mean; None when it could not be scored."""
    window_s: float
    """Seconds of voice in that window."""
    known: float
    """How well the caller's own voice was known, 0..1."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One decision about one call."""

    call_id: bytes
    at_s: float
    """Seconds of audio of this call up to the decision."""
    score: float | None
    """Running vocal-effort score, 0..1; None when there was no speech to judge."""
    decision: Decision
    sustained: float | None = None
    """The same averaged over about three seconds of speech: how raised the voice is, rather than
    whether it just rose."""
    over: bool = False
    """The last one of this call: it is forgotten."""
    hop: Hop | None = None
    """What it rests on; None when no audio was judged."""


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
    reached: Reached
    stream: CallStream = field(default_factory=CallStream)
    running: RunningScore = field(default_factory=RunningScore)
    voice: CallerVoice = field(default_factory=CallerVoice)
    silent_hops: int = 0


class Detector:
    """Judges any number of calls.

    Args:
        model: the loaded acoustic model; its card holds the thresholds. None: there is none yet
            (:meth:`use`), every voice counts as calm, and the listener hears all the same.
        policy: other thresholds and times than the card's.
        speech: says what is speech; with the shipped model when absent. It may be exchanged
            while calls go on.
        listener: gets the same audio, with what is speech in it.
    """

    def __init__(
        self,
        model: AcousticModel | None,
        policy: Policy | None = None,
        speech: SpeechJudge | None = None,
        listener: Listener | None = None,
    ) -> None:
        self._model = model
        self.speech = speech or SpeechJudge.load()
        self._listener = listener
        self._policy = policy or (card_policy(model.card) if model else OUT_OF_REACH)
        self._own: dict[bytes, Policy] = {}
        self._calls: dict[bytes, _Call] = {}
        self._over: list[tuple[bytes, Figures]] = []
        self._gone = Counters()
        self.codec_fault = ""
        """What is to be installed before the audio of all calls can be decoded."""

    @property
    def fault(self) -> str:
        """What is to be installed before all calls can be heard well; empty when nothing."""
        return self.codec_fault or self.speech.fault

    @property
    def calls(self) -> int:
        """Calls that are remembered."""
        return len(self._calls)

    def knows(self, call_id: bytes) -> bool:
        """Whether a call was heard and not yet forgotten."""
        return call_id in self._calls

    def use(self, model: AcousticModel, policy: Policy | None = None) -> None:
        """Go on with a model that has come; of what was heard without it no figures are kept."""
        self._model = model
        self._policy = policy or card_policy(model.card)
        for call_id, call in self._calls.items():
            call.risk.policy = self._own.get(call_id, self._policy)
            call.reached = Reached(call.risk.policy)

    def judge_by(self, call_id: bytes, policy: Policy | None) -> None:
        """Judge one call, known already or not, by thresholds of its own from now on.

        Args:
            call_id: the call.
            policy: its thresholds; None: the detector's again, when the call is over.
        """
        if policy is None:
            self._own.pop(call_id, None)
            return
        self._own[call_id] = policy
        if call_id in self._calls:
            self._calls[call_id].risk.policy = policy
            self._calls[call_id].reached.use(policy)

    def take_figures(self, *, all_calls: bool = False) -> list[tuple[bytes, Figures]]:
        """What is left of the calls forgotten since the last time.

        Args:
            all_calls: of those that are remembered too: nothing more will be heard of them.
        """
        over, self._over = self._over, []
        if all_calls:
            over += [(call_id, call.reached.figures) for call_id, call in self._calls.items()]
        return over

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
                policy = self._own.get(frame.call_id, self._policy)
                made = _Call(RiskMachine(policy), now_s, now_s, Reached(policy))
                call = self._calls[frame.call_id] = made
            try:
                call.stream.push(
                    frame.codec, frame.sequence, frame.timestamp, frame.payload, frame.echo
                )
            except SetupError as error:
                self.codec_fault = str(error)
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
            All verdicts, changed level or not, oldest first for each call. A call that is
            forgotten gets a last one of level 0 (:attr:`Verdict.over`).
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
        evidence = take_evidence([call.stream for _, call in ready], self.speech)
        voices = [ready[row][1].voice for row in evidence.rows]
        by_row: dict[int, tuple[float, float]] = {}
        # Before this window is learnt from: what the score was made with.
        known_of = [call.voice.known for _, call in ready]
        if voices and self._model is not None:
            references = np.stack([voice.mean for voice in voices])
            known = np.array([voice.known for voice in voices], dtype=np.float32)
            scores, alone = self._model.score(evidence.vectors, references, known)
            calm = (alone < self._policy.release) & (scores < self._policy.release)
            for k, row in enumerate(evidence.rows):
                by_row[row] = float(scores[k]), evidence.window_s[k]
                if calm[k]:
                    voices[k].learn(evidence.vectors[k], evidence.speech_s[row])
        self._gone.decisions += len(ready)
        self._gone.scored += len(by_row)
        verdicts: list[Verdict] = []
        for row, (call_id, call) in enumerate(ready):
            speech_s = evidence.speech_s[row]
            call.silent_hops = 0 if speech_s else call.silent_hops + 1
            if call.silent_hops * HOP_SAMPLES >= call.stream.speech.size * FRAME:
                call.running.forget()
            score = sustained = newest = None
            window_s = 0.0
            if row in by_row:
                newest, window_s = by_row[row]
                score, sustained = call.running.add(newest)
            decision = call.risk.update(HOP_S, speech_s, score, window_s)
            call.reached.update(HOP_S, speech_s, score, window_s, sustained)
            hop = Hop(speech_s, newest, window_s, known_of[row])
            at_s = call.stream.at_s
            verdicts.append(Verdict(call_id, at_s, score, decision, sustained, hop=hop))
            if self._listener is not None:
                start_s = call.stream.at_s - HOP_S
                self._listener.hear(call_id, start_s, evidence.hops[row], evidence.speech[row])
        return verdicts

    def _silence(self, call_id: bytes, call: _Call) -> Verdict:
        call.stream.settle()
        call.running.forget()
        if self._listener is not None:
            self._listener.pause(call_id)
        decision = call.risk.update(HOP_S, 0.0, None)
        call.reached.update(HOP_S, 0.0, None, heard=False)
        return Verdict(call_id, call.stream.at_s, None, decision)

    def _suspend(self, call_id: bytes) -> None:
        # Hold or end, nobody says which: the level stays until the call is heard again or
        # forgotten, the audio does not.
        if call_id in self._calls:
            call = self._calls[call_id]
            call.stream.reset_audio()
            call.running.forget()
            if self._listener is not None:
                self._listener.pause(call_id)

    def _forget(self, call_id: bytes) -> list[Verdict]:
        call = self._calls.pop(call_id)
        _add_stream(self._gone, call.stream)
        if self._listener is not None:
            self._listener.end(call_id)
        self._over.append((call_id, call.reached.figures))
        decision = Decision(0, call.risk.level, 0.0, None, 0.0)
        return [Verdict(call_id, call.stream.at_s, None, decision, over=True)]


def _add_stream(total: Counters, stream: CallStream) -> None:
    total.dropped_samples += stream.dropped_samples
    total.filled_samples += stream.filled_samples
    total.late_packets += stream.late_packets
    total.bad_packets += stream.bad_packets
