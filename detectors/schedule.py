"""Who is transcribed next: pure, told the time.

Not every second can be written down. Callers whose voice or words gave cause (*aroused*) go
first; what is left goes round all others in turn, because threats can be calm. One turn in
:data:`OTHERS_TURN` is theirs even when aroused callers alone could fill the time. A turn takes as
much of one caller's waiting speech as fits a recogniser's window, whose cost does not depend on
how full it is.

What waits is bounded in length and in age; the oldest goes first. Everything dropped counts as
not heard in :class:`Share`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from detectors.utterances import FRAME, Utterance

#: Speech that may wait, seconds: of one call, and of all calls together (16 kB a second).
PER_CALL_S, TOTAL_S = 30.0, 600.0
#: Speech that has waited longer is dropped: it would explain a level that has long changed.
MAX_AGE_S = 30.0
#: One turn in so many goes to callers who are not aroused, if any waits.
OTHERS_TURN = 10
#: Most audio in one turn, and the silence between utterances that are joined in it.
TURN_S, JOINT_S = 9.4, 0.3
#: A call of which nothing was heard for this long is forgotten.
FORGET_S = 60.0

_JOINT = np.zeros(round(JOINT_S * 50) * FRAME, dtype=np.int16)


@dataclass(frozen=True, slots=True)
class Turn:
    """What a recogniser gets at once: speech of one call."""

    call_id: bytes
    utterances: tuple[Utterance, ...]
    """At least one, in order."""
    aroused: bool
    offered_at_s: float
    """When the last of them was queued."""

    @property
    def samples(self) -> np.ndarray[tuple[int], np.dtype[np.int16]]:
        """All of it with short silences between, int16 at 8 kHz."""
        parts = [self.utterances[0].samples]
        for utterance in self.utterances[1:]:
            parts += [_JOINT, utterance.samples]
        return np.concatenate(parts) if len(parts) > 1 else parts[0]

    @property
    def speech_s(self) -> float:
        """Seconds of speech in it."""
        return sum(utterance.speech_s for utterance in self.utterances)


@dataclass(slots=True)
class Share:
    """How much of the callers' speech was heard, in seconds of speech."""

    offered_s: float = 0.0
    """Heard or dropped; what still waits is in neither."""
    heard_s: float = 0.0

    @property
    def percent(self) -> float:
        """Heard of offered, 0..100; 100 while nothing was offered."""
        return 100.0 * self.heard_s / self.offered_s if self.offered_s else 100.0

    def count(self, speech_s: float, heard: bool) -> None:
        """Add speech that was heard or will never be."""
        self.offered_s += speech_s
        if heard:
            self.heard_s += speech_s


@dataclass(frozen=True, slots=True)
class SharesHeard:
    """The share heard of aroused callers and of all."""

    aroused: Share = field(default_factory=Share)
    all: Share = field(default_factory=Share)

    def count(self, speech_s: float, *, aroused: bool, heard: bool) -> None:
        """Add speech that was heard or will never be."""
        self.all.count(speech_s, heard)
        if aroused:
            self.aroused.count(speech_s, heard)


@dataclass(slots=True)
class _Waiting:
    utterance: Utterance
    offered_at_s: float
    aroused: bool
    """The caller was aroused when it was said, or became so while it waited."""


@dataclass(slots=True)
class _Call:
    queue: deque[_Waiting] = field(default_factory=deque)
    aroused_until_s: float = float("-inf")
    served_at: int = 0
    """Number of the turn in which this call was last served."""
    touched_at_s: float = 0.0

    @property
    def waiting_s(self) -> float:
        return sum(item.utterance.length_s for item in self.queue)


class Scheduler:
    """Chooses among the utterances of all calls."""

    def __init__(self) -> None:
        self._calls: dict[bytes, _Call] = {}
        self._turns = 0
        self.shares = SharesHeard()
        """Totals since the start; replace it to begin a new count."""
        self.dropped = 0
        """Utterances that were dropped, all of them."""

    @property
    def calls(self) -> int:
        """Calls that are remembered."""
        return len(self._calls)

    @property
    def waiting_s(self) -> float:
        """Audio that waits, seconds."""
        return sum(call.waiting_s for call in self._calls.values())

    def waiting_speech_s(self, *, aroused: bool = False) -> float:
        """Seconds of speech that wait; ``aroused``: of aroused callers alone."""
        return sum(
            item.utterance.speech_s
            for call in self._calls.values()
            for item in call.queue
            if item.aroused or not aroused
        )

    def rouse(self, call_id: bytes, until_s: float) -> None:
        """Put a call first until then; what waits of it already, too."""
        call = self._calls.setdefault(call_id, _Call())
        call.touched_at_s = max(call.touched_at_s, until_s)
        call.aroused_until_s = max(call.aroused_until_s, until_s)
        for item in call.queue:
            item.aroused = True

    def offer(self, call_id: bytes, utterance: Utterance, now_s: float) -> None:
        """Queue one utterance; the oldest of this call, then of all, make room for it."""
        call = self._calls.setdefault(call_id, _Call(served_at=self._turns))
        call.touched_at_s = max(call.touched_at_s, now_s)
        call.queue.append(_Waiting(utterance, now_s, now_s < call.aroused_until_s))
        while call.waiting_s > PER_CALL_S and len(call.queue) > 1:
            self._drop(call)
        while self.waiting_s > TOTAL_S:
            self._drop(self._oldest())

    def aroused(self, call_id: bytes, now_s: float) -> bool:
        """Whether there is cause to hear this caller first."""
        call = self._calls.get(call_id)
        return call is not None and now_s < call.aroused_until_s

    def take(self, now_s: float) -> Turn | None:
        """The next turn; None when nothing waits."""
        self.expire(now_s)
        waiting = {call_id: call for call_id, call in self._calls.items() if call.queue}
        if not waiting:
            return None
        aroused = {k: call for k, call in waiting.items() if now_s < call.aroused_until_s}
        others = {k: call for k, call in waiting.items() if k not in aroused}
        self._turns += 1
        first, second = (others, aroused) if not self._turns % OTHERS_TURN else (aroused, others)
        chosen = first or second
        # Who was served longest ago; among equals, whose speech has waited longest.
        call_id, call = min(
            chosen.items(), key=lambda item: (item[1].served_at, item[1].queue[0].offered_at_s)
        )
        call.served_at = self._turns
        return self._turn_of(call_id, call)

    def heard(self, turn: Turn) -> None:
        """Say that a turn was transcribed."""
        self.shares.count(turn.speech_s, aroused=turn.aroused, heard=True)

    def lost(self, turn: Turn) -> None:
        """Say that a turn will never be."""
        self.dropped += len(turn.utterances)
        self.shares.count(turn.speech_s, aroused=turn.aroused, heard=False)

    @staticmethod
    def _turn_of(call_id: bytes, call: _Call) -> Turn:
        taken = [call.queue.popleft()]
        length_s = taken[0].utterance.length_s
        while call.queue:
            length_s += JOINT_S + call.queue[0].utterance.length_s
            if length_s > TURN_S:
                break
            taken.append(call.queue.popleft())
        aroused = any(item.aroused for item in taken)
        utterances = tuple(item.utterance for item in taken)
        return Turn(call_id, utterances, aroused, taken[-1].offered_at_s)

    def expire(self, now_s: float) -> None:
        """Drop what has waited too long, and forget calls of which nothing is heard any more; to be
        called while no turn is taken, too."""
        for call_id, call in list(self._calls.items()):
            while call.queue and now_s - call.queue[0].offered_at_s > MAX_AGE_S:
                self._drop(call)
            if not call.queue and now_s - call.touched_at_s > FORGET_S:
                del self._calls[call_id]

    def _oldest(self) -> _Call:
        """The call with the oldest utterance; an aroused one only where there is no other."""
        return min(
            (call for call in self._calls.values() if call.queue),
            key=lambda call: (call.queue[0].aroused, call.queue[0].offered_at_s),
        )

    def _drop(self, call: _Call) -> None:
        item = call.queue.popleft()
        self.dropped += 1
        self.shares.count(item.utterance.speech_s, aroused=item.aroused, heard=False)
