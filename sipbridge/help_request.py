"""The helper's leg as a pure state machine: a supervisor who joins, a manager who takes over.

::

    NONE ──join / hand over──► OPENING ──► CALLING ──► WAITING ──► ANNOUNCING ──► JOINED
      ▲                           │           │           │  ▲          │            │
      └── no ports, no answer, refused, gone, not heard ──┴──┘ on hold ─┘  left ◄────┘

Part of :class:`sipbridge.call.Call`, which hands on what concerns the helper. The promises:

* nobody joins but a supervisor whom this call's agent asked for, and each request lets one in;
* nobody new is heard, or hears, before the announcement was played **to its end** to everybody
  who will be heard: to caller and agent when a supervisor joins, to the caller when a manager
  takes over. An announcement that cannot be played lets nobody in, and is an alarm;
* until then caller and agent go on talking, and a helper who does not come changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Literal, Protocol

from callshield.messages import HelperChanged, LegName
from callshield.messages_care import HandOverUnanswered
from callshield.messages_media import CloseLeg, LegUpdate, OpenLeg, PlayFinished
from callshield.messages_media import PromoteHelper as Promote
from sipbridge.call_plan import CallPlan
from sipbridge.call_steps import (
    CallHelper,
    Emit,
    HangUp,
    Outcome,
    ReplaceAgent,
    StartTimer,
    Step,
    StopTimer,
    ToMedia,
)
from sipbridge.help_plan import Helper, HelpPlan
from sipbridge.offer_answer import LegMedia, OfferRefused, offered_to_late_caller
from sipbridge.prompt_catalogue import Prompt
from sipbridge.sdp import G711, Codec, Negotiated, SessionDescription

#: A media worker that has not reserved the ports after this long is not going to.
OPEN_TIMEOUT_S = 3.0
#: An announcement whose end is not reported this long after it should have come was not heard.
ANNOUNCED_WITHIN_S = 5.0

Pressed = tuple[Outcome, str, list[Step]]


class Stage(StrEnum):
    """Where the helper stands."""

    NONE = "none"
    OPENING = "opening"
    """The media worker reserves ports."""
    CALLING = "calling"
    """The helper's phone rings."""
    WAITING = "waiting"
    """The helper answered; somebody who must hear the announcement cannot hear it yet."""
    ANNOUNCING = "announcing"
    JOINED = "joined"


class HelpedCall(Protocol):
    """What the helper's leg needs of its call."""

    plan: CallPlan
    media: dict[LegName, LegMedia]
    """Offer and answer of each leg."""

    @property
    def now(self) -> Callable[[], float]:
        """Wall clock for events."""

    @property
    def caller_listens(self) -> bool:
        """The caller is not on hold."""

    @property
    def caller_free(self) -> bool:
        """Nothing plays to the caller that must be heard to its end."""

    @property
    def agent_listens(self) -> bool:
        """The agent is there and not on hold."""

    @property
    def agent_left(self) -> bool:
        """The agent hung up while a hand-over was under way."""

    def flow(self) -> ToMedia:
        """What may pass now."""

    def leg_update(
        self,
        leg: LegName,
        sdp: SessionDescription,
        negotiated: Negotiated,
        signalling_address: str,
    ) -> LegUpdate:
        """What the media worker must know of a leg."""

    def say(self, leg: LegName, prompts: Sequence[Prompt], *, loop: bool = False) -> ToMedia:
        """Play to a leg instead of what it would hear; :meth:`playing` then names the play."""

    def murmur(self, prompts: Sequence[Prompt]) -> list[Step]:
        """Let the agent know that the caller hears these, as configured."""

    def playing(self, leg: LegName) -> int:
        """Number of the last play on a leg."""

    def hush(self, leg: LegName) -> ToMedia:
        """Stop what plays on a leg and forget it."""

    def alarm(self, reason: str) -> Emit:
        """An announcement could not be played."""

    def helper_took_over(self) -> list[Step]:
        """The helper's leg is the agent's from now on."""

    def owe_call_back(self) -> None:
        """Nobody took the call over: the caller is to hear that somebody will call back."""


class HelpRequest:
    """The agent's request for help in one call, and the leg of whoever comes.

    Args:
        call: the call that it belongs to.
    """

    def __init__(self, call: HelpedCall) -> None:
        self._call = call
        self.stage = Stage.NONE
        self.wanted = False
        """The agent asked, and nobody has come yet."""
        self.held = False
        """The helper holds: what its phone sends meanwhile (music) is for nobody."""
        self._known: set[str] = set()
        self._kind: Literal["join", "hand_over"] = "join"
        self._helper: Helper | None = None
        self._by = ""
        self._wanted_ts = 0.0
        self._asked_ts = 0.0
        """When the agent asked for what goes on now."""
        self._attempt = 0
        self._in_call = False
        self._saying: Literal["", "handing_over", "hold_on", "last"] = ""
        self._owed = False
        self._telling: set[LegName] = set()

    # ---------------------------------------------------------------------------- what is true

    @property
    def conference(self) -> bool:
        """Caller, agent and helper hear each other."""
        return self._in_call and not self.held and not self._call.agent_left

    @property
    def announcing(self) -> bool:
        """Somebody is being told who comes: nothing else may be played to either party."""
        return self.stage is Stage.ANNOUNCING

    @property
    def handing_over(self) -> bool:
        """A manager is on the way: the agent may leave before."""
        active = self.stage not in (Stage.NONE, Stage.JOINED)
        return active and self._kind == "hand_over"

    # --------------------------------------------------------------------------- what people do

    def ask(self, request_id: str = "") -> None:
        """The agent asks for help.

        Args:
            request_id: when given, a request that was seen before counts no second time: the
                notifier repeats what it is not sure of after a restart.
        """
        if request_id:
            if request_id in self._known:
                return
            self._known.add(request_id)
        self.wanted, self._wanted_ts = True, self._call.now()

    def known_as(self, request_id: str) -> None:
        """The request just made has this id elsewhere; hearing it again is no new request."""
        self._known.add(request_id)

    def join(self, by: str, target: str) -> Pressed:
        """A supervisor takes the agent's request."""
        if not by.startswith("supervisor:"):
            return "not_now", "Only a supervisor can join a call.", []
        if self.stage is not Stage.NONE and self._helper is not None:
            if self._kind == "join" and target in ("", self._helper.helper_id):
                return "already", "That phone is already called, or in the call.", []
            return "not_now", "Somebody else is already called, or in the call.", []
        if not self.wanted:
            return "not_now", "The agent has not asked for help, or somebody has come.", []
        plan = self._call.plan.help
        helper = plan.find(target) if plan else None
        if plan is None or helper is None:
            return "not_now", _unknown(plan, "supervisor"), []
        if not (self._is_g711(LegName.CALLER) and self._is_g711(LegName.AGENT)):
            return "not_now", "Only a call in G.711 can be joined; this one uses another codec.", []
        if not self._offered(helper):
            return "not_now", _WRONG_CODEC, []
        return (
            "done",
            "The phone rings; both parties will be told.",
            self._begin("join", helper, by),
        )

    def hand_over(self, by: str, target: str) -> Pressed:
        """The agent hands the call to the responsible manager, or to whoever has joined."""
        if not by.startswith("agent:"):
            return "not_now", "Only the call's own agent hands it over.", []
        if self.stage is Stage.JOINED and self._helper is not None:
            if target not in ("", self._helper.helper_id):
                return "not_now", "Somebody else is in the call already.", []
            self._kind, self._by, self.stage = "hand_over", by, Stage.WAITING
            self._asked_ts = self._call.now()
            return "done", "The caller is told; then you are free.", self.tell()
        if self.stage is not Stage.NONE:
            if self._kind == "hand_over":
                return "already", "The manager's phone is already called.", []
            return "not_now", "A supervisor's phone is being called.", []
        plan = self._call.plan.help
        manager = plan.find(target or plan.manager) if plan and (target or plan.manager) else None
        if plan is None or manager is None or manager.role != "manager":
            return "not_now", _unknown(plan, "manager"), []
        if not self._offered(manager):
            return "not_now", _WRONG_CODEC, []
        return (
            "done",
            "The manager's phone rings; go on until you are free.",
            self._begin("hand_over", manager, by),
        )

    # -------------------------------------------------------------------------- calling a helper

    def _begin(self, kind: Literal["join", "hand_over"], helper: Helper, by: str) -> list[Step]:
        self._kind, self._helper, self._by = kind, helper, by
        self._asked_ts = self._wanted_ts if kind == "join" else self._call.now()
        self.stage = Stage.OPENING
        self.held = False
        self._attempt += 1
        call_id = self._call.plan.call_id
        return [
            self._changed("calling"),
            ToMedia(OpenLeg(request_id=self._attempt, call_id=call_id, leg=LegName.HELPER)),
            StartTimer("helper", OPEN_TIMEOUT_S),
        ]

    def on_leg_opened(self, request_id: int, port: int, error: str, session_id: int) -> list[Step]:
        """The media worker reserved ports, or says why not; an old answer changes nothing."""
        if self.stage is not Stage.OPENING or request_id != self._attempt:
            return []
        helper, plan = self._helper, self._call.plan.help
        assert helper is not None
        assert plan is not None
        if error or not port:
            return self._gone(close=False)
        self.stage = Stage.CALLING
        self._owed = self._kind == "hand_over"
        media = LegMedia(helper.policy, self._call.plan.phone_address, port, session_id)
        self._call.media[LegName.HELPER] = media
        offer = media.offer(self._offered(helper))
        return [
            StartTimer("helper", plan.ring_timeout_s),
            *self.tell(),
            CallHelper(helper.uri, offer),  # last: should it fail, nothing of this follows
        ]

    def _offered(self, helper: Helper) -> tuple[Codec, ...]:
        """What the caller has, and the other law of G.711: what the relay can pass or turn."""
        caller = self._call.media[LegName.CALLER].negotiated
        return offered_to_late_caller(caller.voice, helper.policy) if caller else ()

    def _is_g711(self, leg: LegName) -> bool:
        """Only that can be mixed: the conference adds samples at 8 kHz."""
        negotiated = self._call.media[leg].negotiated
        return negotiated is not None and negotiated.voice.name in G711

    def on_answered(self, sdp: SessionDescription | None, signalling_address: str) -> list[Step]:
        """200 from the helper's phone: the worker is told, and nobody hears it yet.

        Args:
            sdp: its answer; ``None`` when it could not be read.
            signalling_address: where the answer came from.
        """
        if self.stage is not Stage.CALLING:
            return []
        if sdp is None:
            return self._let_go()
        try:
            negotiated = self._call.media[LegName.HELPER].take_answer(sdp)
        except OfferRefused:
            return self._let_go()
        update = self._call.leg_update(LegName.HELPER, sdp, negotiated, signalling_address)
        self.held = sdp.audio is not None and sdp.audio.held
        self.stage = Stage.WAITING
        return [StopTimer("helper"), ToMedia(update), *self.tell()]

    # -------------------------------------------------------------------------- announcements

    def tell(self) -> list[Step]:
        """Play what is due to whoever can hear it now; call it whenever that may have changed."""
        plan, call = self._call.plan.help, self._call
        if plan is None or not call.caller_listens or not call.caller_free:
            return []
        prompts = plan.prompts
        if self.stage in (Stage.CALLING, Stage.WAITING) and self._owed:
            self._owed = False
            self._saying = "handing_over"
            return [
                *call.murmur([prompts.handing_over]),
                call.say(LegName.CALLER, [prompts.handing_over]),
            ]
        if self.stage is Stage.CALLING and call.agent_left and self._saying != "hold_on":
            self._saying = "hold_on"
            return [call.say(LegName.CALLER, [prompts.hold_on], loop=True)]
        if self.stage is not Stage.WAITING:
            return []
        if self._kind == "hand_over":
            self.stage, self._saying = Stage.ANNOUNCING, "last"
            self._telling = {LegName.CALLER}
            return [
                *call.murmur([prompts.handed_over]),
                call.say(LegName.CALLER, [prompts.handed_over]),
                StartTimer("helper", prompts.handed_over.duration_s + ANNOUNCED_WITHIN_S),
            ]
        if not call.agent_listens:
            return []
        self.stage, self._saying = Stage.ANNOUNCING, "last"
        self._telling = {LegName.CALLER, LegName.AGENT}
        return [
            call.say(LegName.CALLER, [prompts.joined]),
            call.say(LegName.AGENT, [prompts.joined]),
            StartTimer("helper", prompts.joined.duration_s + ANNOUNCED_WITHIN_S),
        ]

    def on_played(self, played: PlayFinished) -> list[Step]:
        """A play ended on the caller's or the agent's leg, ours or not."""
        if played.play_id != self._call.playing(played.leg):
            return []
        if self.stage is Stage.ANNOUNCING and played.leg in self._telling:
            if not played.complete:
                return self._unheard(played.error)
            self._telling.discard(played.leg)
            return [] if self._telling else self._let_in()
        if played.leg is LegName.CALLER and self._saying in ("handing_over", "hold_on"):
            # It says what happens next; the next is announced by itself, with or without it.
            steps: list[Step] = []
            if not self._call.agent_left:
                steps.append(self._call.hush(LegName.AGENT))
            if not played.complete:
                steps.append(self._call.alarm(played.error or "an announcement was cut short"))
            if self._saying == "handing_over":  # a failing loop is not begun again
                self._saying = ""
            return [*steps, *self.tell()]
        return []

    def on_hold_changed(self) -> list[Step]:
        """Caller or agent holds or is back: what plays to somebody on hold is heard by nobody.

        It is stopped, and begins again from its first word.
        """
        call = self._call
        deaf = not call.caller_listens
        if self._saying == "last" and self._kind == "join":
            deaf = deaf or not call.agent_listens
        if not deaf or not self._saying:
            return self.tell()
        steps: list[Step] = [call.hush(LegName.CALLER)]
        if self._saying == "last":
            steps.append(StopTimer("helper"))
        if not call.agent_left:
            steps.append(call.hush(LegName.AGENT))
        self._owed = self._saying == "handing_over"
        if self._saying == "last":
            self.stage = Stage.WAITING
        self._saying = ""
        self._telling = set()
        return steps

    def _let_in(self) -> list[Step]:
        """Everybody was told: open the conference, or put the helper in the agent's place."""
        call = self._call
        self._saying = ""
        if self._kind == "join":
            self.stage, self._in_call, self.wanted = Stage.JOINED, True, False
            return [StopTimer("helper"), call.flow(), self._changed("joined")]
        took_over = self._changed("took_over")
        steps: list[Step] = [StopTimer("helper")]
        if not call.agent_left:
            steps.append(call.hush(LegName.AGENT))
        if self._in_call:
            self._in_call = False
            steps.append(call.flow())  # nothing is mixed while legs change places
        self._reset()
        self.wanted = False
        promote = Promote(call_id=call.plan.call_id)
        return [*steps, ReplaceAgent(), ToMedia(promote), *call.helper_took_over(), took_over]

    def _unheard(self, error: str) -> list[Step]:
        alarm = self._call.alarm(error or "the announcement of a helper stopped before its end")
        if self._in_call:  # a supervisor in the call who was to take over stays where she is
            steps = [*self._hush_all(), StopTimer("helper")]
            self.stage, self._kind = Stage.JOINED, "join"
            return [*steps, alarm]
        return [*self._let_go(), alarm]

    def _hush_all(self) -> list[Step]:
        steps: list[Step] = []
        if self._saying:
            steps.append(self._call.hush(LegName.CALLER))
            if not self._call.agent_left:
                steps.append(self._call.hush(LegName.AGENT))
        self._saying = ""
        self._telling = set()
        return steps

    # ------------------------------------------------------------------------------------ ends

    def on_hold(self, *, held: bool) -> list[Step]:
        """The helper's phone holds or resumes."""
        self.held = held
        return [self._call.flow()] if self._in_call else []

    def on_gone(self) -> list[Step]:
        """The helper's phone refused, did not answer, or hung up."""
        return [] if self.stage is Stage.NONE else self._gone()

    def on_timer(self) -> list[Step]:
        """No ports, no answer, or no word about an announcement, in time."""
        if self.stage is Stage.ANNOUNCING:
            return self._unheard("the media worker does not say that an announcement ended")
        return self._let_go() if self.stage in (Stage.OPENING, Stage.CALLING) else []

    def drop(self) -> list[Step]:
        """The call ends: CANCEL or BYE to whoever is on the way or here."""
        return [] if self.stage is Stage.NONE else self._let_go(over=True)

    def _let_go(self, *, over: bool = False) -> list[Step]:
        return [HangUp(LegName.HELPER), *self._gone(over=over)]

    def _gone(self, *, close: bool = True, over: bool = False) -> list[Step]:
        """Nobody is there any more, or ever was.

        Args:
            close: the media worker has ports of this leg.
            over: the call ends, and that is why.
        """
        was_in_call = self._in_call
        changed = [self._changed("left" if was_in_call else "unreachable")]
        if self._kind == "hand_over" and not (was_in_call or over):
            changed.append(self._unanswered())
            self._call.owe_call_back()
        steps = self._hush_all()
        self._reset()
        if was_in_call:
            steps.append(self._call.flow())
        steps.append(StopTimer("helper"))
        if close:
            leg = LegName.HELPER
            steps.append(ToMedia(CloseLeg(call_id=self._call.plan.call_id, leg=leg)))
        return [*steps, *changed]

    def _unanswered(self) -> Emit:
        plan, helper = self._call.plan, self._helper
        assert helper is not None
        return Emit(
            HandOverUnanswered(
                ts=self._call.now(),
                call_id=plan.call_id,
                agent_id=plan.agent_id,
                helper_id=helper.helper_id,
                pbx_call_id=plan.pbx_call_id,
            )
        )

    def _reset(self) -> None:
        self.stage, self._helper = Stage.NONE, None
        self._in_call = self._owed = False
        self._saying, self._telling = "", set()

    def _changed(
        self, state: Literal["calling", "joined", "took_over", "left", "unreachable"]
    ) -> Emit:
        plan, helper = self._call.plan, self._helper
        assert helper is not None
        return Emit(
            HelperChanged(
                ts=self._call.now(),
                call_id=plan.call_id,
                agent_id=plan.agent_id,
                state=state,
                role=helper.role,
                helper_id=helper.helper_id,
                by=self._by,
                pbx_call_id=plan.pbx_call_id,
                asked_ts=self._asked_ts,
            )
        )


_WRONG_CODEC = "That phone may not take this call's codec (hearing_protection, codecs)."


def _unknown(plan: HelpPlan | None, what: str) -> str:
    if plan is None:
        return (
            "No supervisor's phone can be called: an administrator adds [supervisors.ID], or sets "
            "help.phones."
        )
    if what == "manager":
        return "No manager's phone is configured under that id, or at all."
    return "No supervisor's phone is configured under that id."
