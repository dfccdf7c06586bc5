"""The detector's side of transcription: utterances of all calls out, judged words back.

Audio of every call is cut into utterances, the scheduler chooses, and each transcriber that is
connected and ready gets one turn at a time. A transcriber that dies costs nothing but time: its
turn is put back once (a turn that kills two is dropped). Without any transcriber what waits grows
old and is dropped, and :attr:`Transcription.trouble` says why.
"""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import structlog
from numpy.typing import NDArray

from callshield.bus import BusServer, Peer
from detectors.caller_language import CallerLanguage
from detectors.schedule import MAX_AGE_S, Scheduler, Turn
from detectors.text_pipeline import JudgedText
from detectors.utterances import PAUSE_S, Utterance, UtteranceCutter
from detectors.words_link import LinkMessage, Transcribe, Transcribed, TranscriberState

log = structlog.get_logger()

#: How long a call stays aroused after the last cause.
AROUSED_S = 30.0
#: A pause that ends an utterance of an aroused caller, whose words are wanted soon; of others
#: :data:`PAUSE_S`. (Keeping a transcriber free for a sentence that may be about to end took 0.2 s
#: more off, but cost a fifth of the calm callers' abusive sentences: docs/detection.md.)
AROUSED_PAUSE_S = 0.4
#: Without a ready transcriber for this long somebody is told: a model takes seconds to load.
START_S = 30.0
#: A transcriber without an answer for this long is cut off; its turn goes to another.
ANSWER_S = 70.0
#: Calls whose language is remembered; beyond it the oldest is forgotten.
MAX_LANGUAGES = 4000
#: How often a turn is given out.
ATTEMPTS = 2


@dataclass(frozen=True, slots=True)
class HeardWords:
    """What a caller said, judged and redacted."""

    call_id: bytes
    start_s: float
    """Seconds of the call's audio before the first word, and at the end of the last."""
    end_s: float
    speech_s: float
    language: str
    avg_logprob: float
    """Mean log probability of a token: how sure the recogniser is; at most 0."""
    delay_s: float
    """From the moment at which the last utterance was cut off to now."""
    words: JudgedText


@dataclass(slots=True)
class Counters:
    """Totals since the start."""

    utterances: int = 0
    """Cut off and offered to the scheduler."""
    turns: int = 0
    """Answered by a transcriber."""
    rejected: int = 0
    """Of those, the ones that it did not believe itself."""
    failed: int = 0
    """Of those, the ones at which its library broke."""
    cpu_s: float = 0.0
    """Processor time of all of them."""


@dataclass(slots=True)
class _Given:
    """A turn at a transcriber."""

    turn: Turn
    attempt: int
    given_at_s: float


@dataclass(slots=True)
class _Worker:
    """One connected transcriber."""

    state: TranscriberState | None = None
    number: int = 0
    """Of the turn that it has."""
    given: _Given | None = None

    @property
    def idle(self) -> bool:
        return self.state is not None and self.state.ready and self.given is None


class Transcription:
    """Everything between speech flags and words.

    Args:
        path: socket file for the transcribers.
        language: of all callers; empty: detect it.
        on_words: called with what was heard.
        on_ready: called with the name of a transcriber that has its model.
        clock: monotonic seconds.
        usual: what callers usually speak, where it is to be detected; empty: not known.
    """

    def __init__(
        self,
        path: Path,
        language: str,
        on_words: Callable[[HeardWords], None],
        on_ready: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        usual: str = "",
    ) -> None:
        self._server: BusServer[LinkMessage] = BusServer(
            path, LinkMessage, self._on_message, self._on_close
        )
        self._language = language
        self._usual = usual
        self._on_words = on_words
        self._on_ready = on_ready
        self._clock = clock
        self._workers: dict[Peer[LinkMessage], _Worker] = {}
        self._again: deque[_Given] = deque()
        """Turns whose transcriber died; no more than there are transcribers."""
        self._cutters: dict[bytes, UtteranceCutter] = {}
        self._languages: dict[bytes, CallerLanguage] = {}
        # Not from 1: a transcriber may still hold a turn of the detector that was here before,
        # and one caller's words must never be taken for another's.
        self._number = secrets.randbits(48)
        self._without_since_s: float | None = clock()
        self.scheduler = Scheduler()
        self.counters = Counters()

    async def start(self) -> None:
        """Listen for transcribers.

        Raises:
            BusError: the socket cannot be made.
        """
        await self._server.start()

    async def close(self) -> None:
        """Let the transcribers go."""
        await self._server.close()

    @property
    def ready(self) -> int:
        """Transcribers that could work now or do."""
        return sum(1 for w in self._workers.values() if w.state is not None and w.state.ready)

    def states(self) -> list[TranscriberState]:
        """What the connected transcribers last said of themselves."""
        return [worker.state for worker in self._workers.values() if worker.state is not None]

    def language_of(self, call_id: bytes) -> str:
        """What a caller speaks; empty while that is not sure."""
        known = self._languages.get(call_id)
        return known.language if known else self._language

    @property
    def trouble(self) -> str:
        """Why no words are heard, or not well; empty when they are, or may be soon."""
        if self._without_since_s is None:
            lacking = (state.lacking for state in self.states() if state.ready)
            return next((sentence for sentence in lacking if sentence), "")
        if self._clock() - self._without_since_s < START_S:
            return ""
        for worker in self._workers.values():
            if worker.state is not None:
                return f"words are not heard: {worker.state.detail}"
        return "words are not heard: no transcriber is running"

    # ------------------------------------------------------------------------------- what is said

    def speaks(self, call_id: bytes, language: str) -> None:
        """Say what a caller speaks; empty: detect it."""
        self._languages.pop(call_id, None)
        self._languages[call_id] = CallerLanguage(language, self._usual)
        if len(self._languages) > MAX_LANGUAGES:  # of calls of which nothing was ever heard
            del self._languages[next(iter(self._languages))]

    def hear(
        self,
        call_id: bytes,
        start_s: float,
        samples: NDArray[np.int16],
        speech: NDArray[np.bool_],
    ) -> None:
        """Take the audio that follows of a call; see :meth:`UtteranceCutter.push`."""
        cutter = self._cutters.get(call_id)
        if cutter is None:
            cutter = self._cutters[call_id] = UtteranceCutter()
        aroused = self.scheduler.aroused(call_id, self._clock())
        cutter.end_after(AROUSED_PAUSE_S if aroused else PAUSE_S)
        self._offer(call_id, cutter.push(start_s, samples, speech))

    def pause(self, call_id: bytes) -> None:
        """The tap was closed, for a while or for good: what was said until then is whole."""
        cutter = self._cutters.get(call_id)
        if cutter is not None:
            self._offer(call_id, cutter.flush())

    def end(self, call_id: bytes) -> None:
        """Forget a call; what waits of it is still heard."""
        self.pause(call_id)
        self._cutters.pop(call_id, None)
        self._languages.pop(call_id, None)

    def rouse(self, call_id: bytes) -> None:
        """There is cause to hear this caller first."""
        self.scheduler.rouse(call_id, self._clock() + AROUSED_S)

    def _offer(self, call_id: bytes, utterances: list[Utterance]) -> None:
        for utterance in utterances:
            self.counters.utterances += 1
            self.scheduler.offer(call_id, utterance, self._clock())
        if utterances:
            self._give()

    # ------------------------------------------------------------------------------ who writes it

    def step(self) -> None:
        """Once a second or more often: give out, and cut off whoever does not answer."""
        now_s = self._clock()
        for peer, worker in list(self._workers.items()):
            if worker.given is not None and now_s - worker.given.given_at_s > ANSWER_S:
                log.error("transcriber_silent", part=worker.state.name if worker.state else "")
                self._on_close(peer)
                peer.close()
        # Nobody's voice is kept because there is nobody to write it down.
        self.scheduler.expire(now_s)
        self._give()

    def _give(self) -> None:
        now_s = self._clock()
        for peer, worker in self._workers.items():
            if not worker.idle:
                continue
            given = self._next(now_s)
            if given is None:
                return
            self._number += 1
            worker.number, worker.given = self._number, given
            call_id = given.turn.call_id
            peer.send(
                Transcribe(
                    number=self._number,
                    call_id=call_id.hex(),
                    language=(caller := self._caller_language(call_id)).language,
                    expected=caller.expected,
                    samples=given.turn.samples.astype("<i2").tobytes(),
                )
            )

    def _next(self, now_s: float) -> _Given | None:
        while self._again:
            given = self._again.popleft()
            if now_s - given.turn.offered_at_s <= MAX_AGE_S:
                return _Given(given.turn, given.attempt + 1, now_s)
            self.scheduler.lost(given.turn)
        turn = self.scheduler.take(now_s)
        return None if turn is None else _Given(turn, 1, now_s)

    def _caller_language(self, call_id: bytes) -> CallerLanguage:
        known = self._languages.get(call_id)
        if known is None:
            known = CallerLanguage(self._language, self._usual)
            if call_id in self._cutters:  # else the call is over: nothing to remember
                self._languages[call_id] = known
        return known

    async def _on_message(self, peer: Peer[LinkMessage], message: LinkMessage) -> None:
        worker = self._workers.setdefault(peer, _Worker())
        match message:
            case TranscriberState():
                peer.role = message.name
                worker.state = message
                self._note_ready()
                log.info("transcriber_state", part=message.name, ready=message.ready)
                if message.ready and self._on_ready is not None:
                    self._on_ready(message.name)
            case Transcribed():
                self._heard(worker, message)
        self._give()

    def _on_close(self, peer: Peer[LinkMessage]) -> None:
        worker = self._workers.pop(peer, None)
        if worker is None:
            return
        given, worker.given = worker.given, None
        if given is not None and given.attempt < ATTEMPTS:
            self._again.append(given)
        elif given is not None:
            log.error("turn_dropped", call_id=given.turn.call_id.hex())
            self.scheduler.lost(given.turn)
        self._note_ready()
        self._give()

    def _note_ready(self) -> None:
        if self.ready:
            self._without_since_s = None
        elif self._without_since_s is None:
            # It was there a moment ago: a restart takes seconds, and is not worth an alarm.
            self._without_since_s = self._clock()

    def _heard(self, worker: _Worker, message: Transcribed) -> None:
        given = worker.given
        if given is None or message.number != worker.number:
            return
        worker.given = None
        turn, counters = given.turn, self.counters
        counters.turns += 1
        counters.cpu_s += message.cpu_s
        if message.rejected == "failed":
            counters.failed += 1
            self.scheduler.lost(turn)
            return
        self.scheduler.heard(turn)
        counters.rejected += bool(message.rejected)
        self._caller_language(turn.call_id).hear(message.language_odds)
        if message.words.text:
            self._on_words(
                HeardWords(
                    call_id=turn.call_id,
                    start_s=turn.utterances[0].start_s,
                    end_s=turn.utterances[-1].end_s,
                    speech_s=turn.speech_s,
                    language=message.language,
                    avg_logprob=message.avg_logprob,
                    delay_s=self._clock() - turn.offered_at_s,
                    words=message.words,
                )
            )
