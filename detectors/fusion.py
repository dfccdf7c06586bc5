"""From evidence to a level: vocal effort, words and the agent's press, for one call.

A pure state machine. The acoustic level comes from :class:`detectors.risk.RiskMachine` and ends
at 2; words make a level of their own, which falls by itself when none follow; the call's level is
the higher of the two. Level 3 takes words, or the agent's press. Words that the lexicon knows only
nearly, or that the model alone takes for abuse, are *unsure*: level 1 until a second utterance
confirms them.

A hint of crisis is no abuse: it changes no level and makes a :class:`Decision` of its own.

:attr:`Decision.may_trigger` is what every automatic step, spoken warning and repeat-caller mark
has to ask: words that are confirmed, or the agent; never sound alone, never in a crisis.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from callshield.messages import RiskLevel
from detectors import risk
from detectors.risk import ACOUSTIC_CEILING, SHOUTING
from detectors.word_evidence import ABUSIVE, GROSS, RUDE, WordEvidence, ordered

#: Pieces of evidence told with one decision.
MAX_REASONS = 4
#: Utterances remembered at most.
_REMEMBERED = 64


class Rule(StrEnum):
    """Why a level is what it is; the acoustic ones are those of :class:`detectors.risk.Rule`."""

    RAISED_VOICE = "raised_voice"
    """Speech with a raised voice: level 1."""
    SUSTAINED_EFFORT = "sustained_effort"
    """Sustained shouting: level 2, the most that sound alone can make."""
    UNSURE_WORDS = "unsure_words"
    """Nearly a word of the lexicon, or the model alone: level 1."""
    RUDE_WORDS = "rude_words"
    """Rude words: level 1."""
    ABUSIVE_WORDS = "abusive_words"
    """Abusive words: level 2, also when they are whispered."""
    CONFIRMED_WORDS = "confirmed_words"
    """Unsure words in a second utterance, of the same kind: level 2."""
    REPEATED_RUDENESS = "repeated_rudeness"
    """Rude words in three utterances within ``memory_s``: level 2."""
    REPEATED_ABUSE = "repeated_abuse"
    """Abusive words in three utterances, or gross ones in two, within ``memory_s``: level 3."""
    GRAVE_WORDS = "grave_words"
    """A grave threat or sexual harassment: level 3."""
    SHOUTED_ABUSE = "shouted_abuse"
    """Abusive words and sustained shouting within ``together_s``: level 3."""
    AGENT_PRESS = "agent_press"
    """The agent says that it is severe: level 3."""
    CALMED_DOWN = "calmed_down"
    """The voice calmed down: one level down."""
    NOTHING_SAID = "nothing_said"
    """The raised voice said nothing abusive: back to level 0."""
    NO_MORE_WORDS = "no_more_words"
    """No more such words for ``hold_s``: one level down."""
    CRISIS = "crisis"
    """The caller may be in danger."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Times in seconds of the call's audio."""

    memory_s: float = 60.0
    """How long an utterance counts together with later ones."""
    hold_s: float = 20.0
    """Without abusive words for this long the words' level falls by one; silence counts half."""
    together_s: float = 10.0
    """Shouting and abusive words this close together are shouted abuse."""
    press_s: float = 60.0
    """How long the agent's press holds level 3."""
    crisis_s: float = 30.0
    """A further hint of crisis within this time is told no second time."""


@dataclass(frozen=True, slots=True)
class Reason:
    """One piece of evidence behind a decision."""

    kind: Literal["vocal_effort", "words", "agent"]
    rule: Rule
    score: float
    """0..1."""
    words: tuple[str, ...] = ()
    """Redacted."""
    categories: tuple[str, ...] = ()
    effort_s: float = 0.0
    """Seconds of shouted speech, of vocal effort."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to be told after one piece of evidence."""

    level: int
    previous: int
    categories: tuple[str, ...]
    reasons: tuple[Reason, ...]
    """What the level rests on, the decisive one first; for a fall, why it fell."""
    score: float
    """Peak vocal effort, 0..1."""
    acoustic_only: bool
    """The level rests on sound alone: words, if there were any, would not have made it."""
    words_confirmed: bool
    """The level rests, at least in part, on words that are no mishearing."""
    may_trigger: bool
    """An automatic step, a spoken warning or a repeat-caller mark may follow from this."""
    told: bool
    """Something changed that is worth an event: level, categories, or new words."""
    crisis: bool = False
    """The caller may be in danger, by this utterance; told at most every ``crisis_s``."""
    crisis_words: tuple[str, ...] = ()


@dataclass(slots=True)
class _Utterance:
    at_s: float
    """When it ended, on the machine's clock."""
    said: WordEvidence
    rule: Rule


class Fusion:
    """One call.

    Args:
        policy: times.
    """

    def __init__(self, policy: Policy | None = None) -> None:
        self._policy = policy or Policy()
        self.level = int(RiskLevel.CALM)
        self.in_crisis = False
        """A hint of crisis was heard in this call; never taken back."""
        self._now_s = 0.0
        """The machine's clock: goes on while no audio comes."""
        self._at_s = 0.0
        """Seconds of the call's audio."""
        self._acoustic = risk.Decision(0, 0, 0.0, None, 0.0)
        self._acoustic_rule = Rule.RAISED_VOICE
        self._raised_at_s = 0.0
        """Where in the audio the voice rose."""
        self._shouted_at_s: float | None = None
        self._excused = False
        """The raised voice was heard to say nothing abusive."""
        self._word_level = 0
        self._decisive: _Utterance | None = None
        self._confirmed = False
        self._quiet_s = 0.0
        self._said: deque[_Utterance] = deque(maxlen=_REMEMBERED)
        self._pressed_until_s: float | None = None
        self._crisis_at_s: float | None = None
        self._categories: tuple[str, ...] = ()
        self._basis = (False, False, False)
        """What the level rests on, as last told: sound alone, confirmed words, the agent."""

    # ------------------------------------------------------------------------------ evidence

    def hear_voice(
        self, heard: risk.Decision, at_s: float, elapsed_s: float, *, spoke: bool
    ) -> Decision:
        """Take the acoustic machine's decision after one more piece of audio, or of silence.

        Args:
            heard: of :class:`detectors.risk.RiskMachine`.
            at_s: seconds of the call's audio so far.
            elapsed_s: time since the last one.
            spoke: there was speech in it.
        """
        self._now_s += elapsed_s
        self._at_s = at_s
        fell: Rule | None = None
        if heard.level > self._acoustic.level:
            self._raised_at_s = at_s
        if heard.level != RiskLevel.CAUTION or heard.level > self._acoustic.level:
            self._excused = False
        if heard.level < self._acoustic.level:
            fell = Rule.CALMED_DOWN
        if heard.rule is not None and heard.level > self._acoustic.level:
            self._acoustic_rule = Rule(heard.rule.value)
        elif heard.level == RiskLevel.CAUTION:
            self._acoustic_rule = Rule.RAISED_VOICE
        self._acoustic = heard
        if heard.level >= ACOUSTIC_CEILING:
            self._shouted_at_s = self._now_s
            self._together()
        self._quiet_s += elapsed_s if spoke else 0.5 * elapsed_s
        if self._word_level and self._quiet_s >= self._policy.hold_s:
            self._word_level -= 1
            self._quiet_s = 0.0
            fell = Rule.NO_MORE_WORDS
            if not self._word_level:
                self._confirmed = False
                self._decisive = None
        if self._pressed_until_s is not None and self._now_s >= self._pressed_until_s:
            self._pressed_until_s = None
            fell = fell or Rule.NO_MORE_WORDS
        return self._decide(fell)

    def hear_words(self, said: WordEvidence, start_s: float, end_s: float) -> Decision:
        """Take one utterance that was transcribed.

        Args:
            said: what it says.
            start_s: where in the call's audio it begins; it may be seconds ago.
            end_s: where it ends.
        """
        crisis = said.crisis and self._is_news_of_crisis()
        self.in_crisis = self.in_crisis or said.crisis
        before = self._acoustic_level
        fell: Rule | None = None
        if said.severity:
            self._excused = False
            self._quiet_s = 0.0
            self._weigh(said, self._now_s - max(0.0, self._at_s - end_s))
            self._together()
        elif before == RiskLevel.CAUTION and self._voice_rose_in(start_s, end_s):
            # A single loud "wow!" is no abuse; sustained shouting stands for itself.
            self._excused = True
            fell = Rule.NOTHING_SAID
        words = said.crisis_words if crisis else ()
        return self._decide(fell, new=said.severity > 0, crisis=crisis, crisis_words=words)

    def press(self) -> Decision:
        """The agent says that this call is severe."""
        self._pressed_until_s = self._now_s + self._policy.press_s
        return self._decide(None, new=True)

    @property
    def pressed(self) -> bool:
        """The agent's press holds the level."""
        return self._pressed_until_s is not None

    def release(self) -> Decision:
        """The time of the agent's press is over, by another clock than the audio's."""
        self._pressed_until_s = None
        return self._decide(Rule.NO_MORE_WORDS)

    def end(self) -> Decision:
        """The call is over: whatever it was, it is level 0 now."""
        previous, self.level = self.level, int(RiskLevel.CALM)
        return Decision(
            level=self.level,
            previous=previous,
            categories=(),
            reasons=(),
            score=0.0,
            acoustic_only=False,
            words_confirmed=False,
            may_trigger=False,
            told=previous > 0,
        )

    # ------------------------------------------------------------------------------- weighing

    def _voice_rose_in(self, start_s: float, end_s: float) -> bool:
        # The acoustic decision looks back over the last second.
        return start_s - 0.5 <= self._raised_at_s <= end_s + 1.0

    def _weigh(self, said: WordEvidence, at_s: float) -> None:
        level, rule = self._rate(said)
        utterance = _Utterance(at_s, said, rule)
        self._said.append(utterance)
        if said.sure or rule is Rule.CONFIRMED_WORDS:
            self._confirmed = True
        if level >= self._word_level:
            self._word_level, self._decisive = level, utterance

    def _rate(self, said: WordEvidence) -> tuple[int, Rule]:
        """Level and rule of an utterance, with those before it in mind."""
        lately = [one.said for one in self._said if self._now_s - one.at_s < self._policy.memory_s]
        if not said.sure:
            same_kind = any(set(one.categories) & set(said.categories) for one in lately)
            if same_kind and said.severity >= ABUSIVE:
                return RiskLevel.SERIOUS, Rule.CONFIRMED_WORDS
            return RiskLevel.CAUTION, Rule.UNSURE_WORDS
        sure = [one for one in lately if one.sure]
        if said.severity == RUDE:
            if len(sure) >= 2:
                return RiskLevel.SERIOUS, Rule.REPEATED_RUDENESS
            return RiskLevel.CAUTION, Rule.RUDE_WORDS
        if said.grave:
            return RiskLevel.SEVERE, Rule.GRAVE_WORDS
        abusive = [one for one in sure if one.severity >= ABUSIVE]
        twice = said.severity == GROSS and any(one.severity == GROSS for one in abusive)
        if len(abusive) >= 2 or twice:
            return RiskLevel.SEVERE, Rule.REPEATED_ABUSE
        return RiskLevel.SERIOUS, Rule.ABUSIVE_WORDS

    def _together(self) -> None:
        """Abusive words and sustained shouting at the same time."""
        if self._shouted_at_s is None or self._word_level >= RiskLevel.SEVERE:
            return
        for one in reversed(self._said):
            near = abs(self._shouted_at_s - one.at_s) <= self._policy.together_s
            lately = self._now_s - one.at_s <= self._policy.together_s
            if one.said.sure and one.said.severity >= ABUSIVE and near and lately:
                one.rule = Rule.SHOUTED_ABUSE
                self._word_level, self._decisive = int(RiskLevel.SEVERE), one
                self._quiet_s = 0.0
                return

    def _is_news_of_crisis(self) -> bool:
        before = self._crisis_at_s
        if before is not None and self._now_s - before < self._policy.crisis_s:
            return False
        self._crisis_at_s = self._now_s
        return True

    # ------------------------------------------------------------------------------- deciding

    @property
    def _acoustic_level(self) -> int:
        return 0 if self._excused else self._acoustic.level

    def _decide(
        self,
        fell: Rule | None,
        *,
        new: bool = False,
        crisis: bool = False,
        crisis_words: tuple[str, ...] = (),
    ) -> Decision:
        previous = self.level
        pressed = self._pressed_until_s is not None
        acoustic, words = self._acoustic_level, self._word_level
        self.level = max(acoustic, words, RiskLevel.SEVERE if pressed else RiskLevel.CALM)
        categories = self._present_categories(acoustic)
        # Words that made less than sound did carry nothing: a rude word is no reason to warn
        # somebody who is merely loud.
        by_sound = acoustic > words and not pressed
        confirmed = self._confirmed and 0 < words >= acoustic
        basis = (by_sound, confirmed, pressed)
        before = (previous, self._categories, self._basis)
        told = new or (self.level, categories, basis) != before
        self._categories, self._basis = categories, basis
        return Decision(
            level=self.level,
            previous=previous,
            categories=categories,
            reasons=self._reasons(acoustic, pressed, fell if self.level <= previous else None),
            score=self._acoustic.score,
            acoustic_only=by_sound,
            words_confirmed=confirmed,
            may_trigger=(confirmed or pressed)
            and self.level >= RiskLevel.SERIOUS
            and not self.in_crisis,
            told=told,
            crisis=crisis,
            crisis_words=crisis_words,
        )

    def _present_categories(self, acoustic: int) -> tuple[str, ...]:
        found: list[str] = []
        if self._word_level:
            found = [name for one in self._lately() for name in one.said.categories]
        return (*ordered(found), *((SHOUTING,) if acoustic else ()))

    def _lately(self) -> list[_Utterance]:
        """What the words' level rests on: the decisive utterance, then the newest ones."""
        if self._decisive is None:
            return []
        newest_first = (one for one in reversed(self._said) if one is not self._decisive)
        memory_s = self._policy.memory_s
        return [
            self._decisive,
            *(one for one in newest_first if self._now_s - one.at_s < memory_s),
        ]

    def _reasons(self, acoustic: int, pressed: bool, fell: Rule | None) -> tuple[Reason, ...]:
        reasons: list[Reason] = []
        if fell is not None:
            kind: Literal["vocal_effort", "words"] = "words"
            if fell is Rule.CALMED_DOWN:
                kind = "vocal_effort"
            reasons.append(Reason(kind, fell, self._acoustic.score))
        if pressed:
            reasons.append(Reason("agent", Rule.AGENT_PRESS, 1.0))
        said = [
            Reason("words", one.rule, one.said.score, one.said.words, one.said.categories)
            for one in self._lately()[:MAX_REASONS]
        ]
        loud: list[Reason] = []
        if acoustic:
            effort_s = self._acoustic.effort_s
            loud = [
                Reason(
                    "vocal_effort",
                    self._acoustic_rule,
                    self._acoustic.score,
                    categories=(SHOUTING,),
                    effort_s=effort_s,
                )
            ]
        reasons += [*loud, *said] if acoustic > self._word_level else [*said, *loud]
        return tuple(reasons[: MAX_REASONS + 1])
