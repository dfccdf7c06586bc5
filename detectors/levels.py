"""The levels of all calls: verdicts about voices and words in, messages for the notifier out."""

from __future__ import annotations

from typing import Protocol

from callshield.messages import CrisisHint, Reason, RiskChanged
from callshield.settings_notice import Language
from detectors.engine import Verdict
from detectors.fusion import Decision, Fusion, Policy
from detectors.phrases import describe, describe_crisis
from detectors.stream import HOP_S
from detectors.word_evidence import JudgedWords, WordEvidence

RiskMessage = RiskChanged | CrisisHint


class HeardWords(Protocol):
    """One transcribed utterance (:class:`detectors.transcription.HeardWords`)."""

    @property
    def call_id(self) -> bytes: ...
    @property
    def start_s(self) -> float: ...
    @property
    def end_s(self) -> float: ...
    @property
    def words(self) -> JudgedWords: ...


class Levels:
    """One :class:`~detectors.fusion.Fusion` a call.

    Args:
        language: of what is told.
        policy: times.
    """

    def __init__(self, language: Language, policy: Policy | None = None) -> None:
        self._language = language
        self._policy = policy
        self._press_s = (policy or Policy()).press_s
        self._calls: dict[bytes, Fusion] = {}
        self._pressed: dict[bytes, float] = {}
        """When each press of the agent's was: a call that sends no audio has no clock."""
        self.news: dict[str, dict[type[RiskMessage], RiskMessage]] = {}
        """The newest message of each kind of a call that is above 0 or in a crisis, by call id:
        what a notifier that has just come has to hear."""

    def hear_voice(self, verdict: Verdict, ts: float) -> list[RiskMessage]:
        """Take a verdict of the engine; ``ts`` is Unix time."""
        if verdict.over:
            return self._silent(verdict.call_id, ts)
        fusion = self._calls.setdefault(verdict.call_id, Fusion(self._policy))
        decision = fusion.hear_voice(
            verdict.decision, verdict.at_s, HOP_S, spoke=verdict.score is not None
        )
        return self._told(verdict.call_id, decision, verdict.at_s, ts)

    def hear_words(self, heard: HeardWords, ts: float) -> list[RiskMessage]:
        """Take an utterance; of a call that is over nothing is told any more."""
        fusion = self._calls.get(heard.call_id)
        if fusion is None:
            return []
        decision = fusion.hear_words(WordEvidence.of(heard.words), heard.start_s, heard.end_s)
        return self._told(heard.call_id, decision, heard.end_s, ts)

    def press(self, call_id: bytes, ts: float) -> list[RiskMessage]:
        """The agent says that a call is severe; it need not have been heard."""
        fusion = self._calls.setdefault(call_id, Fusion(self._policy))
        self._pressed[call_id] = ts
        return self._told(call_id, fusion.press(), 0.0, ts)

    def step(self, ts: float) -> list[RiskMessage]:
        """Let presses run out in calls that send no audio; ``ts`` is Unix time."""
        messages: list[RiskMessage] = []
        for call_id, pressed_ts in list(self._pressed.items()):
            # A clock that was set back must not hold a level for ever.
            if 0 <= ts - pressed_ts < self._press_s:
                continue
            del self._pressed[call_id]
            fusion = self._calls[call_id]
            if fusion.pressed:
                messages += self._told(call_id, fusion.release(), 0.0, ts)
        return messages

    def _silent(self, call_id: bytes, ts: float) -> list[RiskMessage]:
        """No audio for so long that what was heard is forgotten; not what the agent said of it."""
        before = self._calls.get(call_id)
        if before is None or not before.pressed:
            return self.end(call_id, ts)
        fusion = self._calls[call_id] = Fusion(self._policy)
        fusion.level, fusion.in_crisis = before.level, before.in_crisis
        return self._told(call_id, fusion.press(), 0.0, ts)

    def end(self, call_id: bytes, ts: float) -> list[RiskMessage]:
        """Forget a call; ``ts`` is Unix time."""
        fusion = self._calls.pop(call_id, None)
        self._pressed.pop(call_id, None)
        messages = [] if fusion is None else self._told(call_id, fusion.end(), 0.0, ts)
        self.news.pop(call_id.hex(), None)
        return messages

    def _told(
        self, call_id: bytes, decision: Decision, at_s: float, ts: float
    ) -> list[RiskMessage]:
        messages: list[RiskMessage] = []
        if decision.crisis:
            messages.append(
                CrisisHint(
                    ts=ts,
                    call_id=call_id.hex(),
                    detail=describe_crisis(self._language),
                    words=list(decision.crisis_words),
                    at_s=round(at_s, 2),
                )
            )
        if decision.told:
            messages.append(risk_changed(call_id, decision, at_s, ts, self._language))
        for message in messages:
            if isinstance(message, RiskChanged) and not message.level:
                self.news.get(message.call_id, {}).pop(RiskChanged, None)
            else:
                self.news.setdefault(message.call_id, {})[type(message)] = message
        return messages


def risk_changed(
    call_id: bytes, decision: Decision, at_s: float, ts: float, language: Language
) -> RiskChanged:
    """A decision as the notifier hears it; ``ts`` is Unix time."""
    return RiskChanged(
        ts=ts,
        call_id=call_id.hex(),
        level=decision.level,
        previous=decision.previous,
        categories=list(decision.categories),
        score=round(decision.score, 4),
        reasons=[
            Reason(
                kind=reason.kind,
                score=round(reason.score, 4),
                detail=describe(reason, language),
                rule=reason.rule.value,
                words=list(reason.words),
                categories=list(reason.categories),
            )
            for reason in decision.reasons
        ],
        at_s=round(at_s, 2),
        acoustic_only=decision.acoustic_only,
        words_confirmed=decision.words_confirmed,
        may_trigger=decision.may_trigger,
    )
