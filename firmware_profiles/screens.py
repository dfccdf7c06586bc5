"""What each phone shows, when it is sent, updated and taken away. Pure: events and a clock in,
pushes out.

One screen a phone, of its agent's worst call. The newest state wins: while a request is under way
nothing is queued, and what follows is what is true then. A push that failed is tried once more;
after that the phone is left until something changes, and then for a pause that grows each time,
so that a phone that is gone costs next to nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from callshield.messages import (
    AlertRaised,
    CallEnded,
    CallEnding,
    CallSnapshot,
    CallStarted,
    CrisisHint,
    HelperChanged,
    RiskChanged,
    WarningPlayed,
)
from callshield.messages_escalation import AlertAcknowledged, AlertUnanswered
from firmware_profiles.screen_text import Screen, Status

Kind = Literal["warning", "update", "clear"]
Outcome = Literal["taken", "failed", "refused"]
"""``failed``: nothing was taken, another try may be; ``refused``: the phone said no."""

#: A level that fell to 0 stays on the screen so long: it may rise again at once.
CALM_S = 5.0
#: A screen that goes by itself is sent anew when this much of its time is left.
RENEW_AT = 0.7
#: Pause after a push and its retry failed; it doubles with each further failure.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 4.0, 120.0
#: A screen that could not be taken away is a lie: tried so often, minutes in all.
CLEARS = 6
#: Calls that are known at once; beyond it the oldest is forgotten.
MOST_CALLS = 2000
_TRIES = 2

ScreenEvent = (
    CallStarted
    | CallEnding
    | CallEnded
    | CallSnapshot
    | RiskChanged
    | CrisisHint
    | WarningPlayed
    | HelperChanged
    | AlertRaised
    | AlertAcknowledged
    | AlertUnanswered
)
_HELPER: dict[str, Status] = {
    "calling": "coming",
    "joined": "joined",
    "took_over": "took_over",
    "left": "",
    "unreachable": "nobody",
}


#: Shown whatever the level: the agent asked, and is told what becomes of it.
_OF_HELP: frozenset[Status] = frozenset(
    {"asked", "seen", "coming", "joined", "took_over", "nobody"}
)


@dataclass(frozen=True, slots=True)
class Push:
    """One request to a phone.

    Attributes:
        serial: names it; :meth:`Screens.done` gives it back.
        screen: to be shown; ``None``: the screen goes.
        tries: 1, or 2 for the retry.
    """

    agent_id: str
    call_id: str
    serial: int
    kind: Kind
    screen: Screen | None
    tries: int


@dataclass(slots=True)
class _Call:
    call_id: str
    agent_id: str
    level: int = 0
    categories: tuple[str, ...] = ()
    crisis: bool = False
    status: Status = ""
    grade: int = 0
    begun: bool = False
    """It reached the level from which phones show it."""
    calm_since_s: float | None = None
    left: bool = False
    """A manager took it over: the agent reads so for a moment, and nothing more of it."""


@dataclass(slots=True)
class _Phone:
    agent_id: str
    hold_s: float | None
    shown: Screen | None = None
    shown_at_s: float = 0.0
    maybe: bool = False
    """A request failed on the way: something may be on the screen that we do not know of."""
    sent: Push | None = None
    left: Screen | None = None
    gave_up: bool = False
    """``left`` could not be sent: nothing is tried until something else is to be shown."""
    failures: int = 0
    paused_until_s: float = 0.0
    calls: dict[str, _Call] = field(default_factory=dict)


class Screens:
    """The screens of all phones.

    Args:
        from_level: ``phones.from_level``.
    """

    def __init__(self, from_level: int) -> None:
        self._from_level = from_level
        self._phones: dict[str, _Phone] = {}
        self._calls: dict[str, _Call] = {}
        self._alerts: dict[str, str] = {}
        self._serial = 0

    def set_phones(self, phones: Mapping[str, float | None]) -> None:
        """Which agents have a phone that can be pushed to.

        Args:
            phones: by agent id: after how many seconds a screen goes by itself; ``None``: never.
        """
        for agent_id in list(self._phones):
            if agent_id not in phones:
                del self._phones[agent_id]
        for agent_id, hold_s in phones.items():
            phone = self._phones.setdefault(agent_id, _Phone(agent_id, hold_s))
            phone.hold_s = hold_s
            phone.calls = {
                call.call_id: call for call in self._calls.values() if call.agent_id == agent_id
            }

    def feed(self, event: ScreenEvent, now_s: float) -> list[Push]:
        """Something happened.

        Args:
            event: as the notifier passes it on.
            now_s: monotonic.
        """
        if isinstance(event, CallSnapshot):
            live = {started.call_id for started in event.calls}
            for call_id in [call_id for call_id in self._calls if call_id not in live]:
                self._forget(call_id)
            for started in event.calls:
                self._begin(started)
            return self.tick(now_s)
        if isinstance(event, CallStarted):
            self._begin(event)
            return []
        call_id = event.call_id
        call = self._calls.get(call_id)
        if call is None:
            return []
        phone = self._phones.get(call.agent_id)
        if call.left and not isinstance(event, CallEnding | CallEnded):
            return []
        match event:
            case RiskChanged():
                if event.late:
                    return []
                if event.level == 0:
                    # Kept for a while: it may be up again at once.
                    call.calm_since_s = now_s
                else:
                    call.level, call.categories = event.level, tuple(event.categories)
                    call.begun = call.begun or event.level >= self._from_level
                    call.calm_since_s = None
            case CrisisHint():
                call.crisis = True
            case WarningPlayed():
                call.grade = event.grade
                if call.status in ("", "warned"):
                    call.status = "warned"
            case HelperChanged(state="took_over"):
                call.left, call.calm_since_s, call.status = True, now_s, "took_over"
                call.level, call.categories, call.crisis = 0, (), False
            case HelperChanged():
                call.status = _HELPER[event.state] or ("warned" if call.grade else "")
            case AlertRaised(kind="help") if event.alert_id not in self._alerts:
                # Not one that is only said again after a reconnect: somebody may have come.
                self._alerts[event.alert_id] = call_id
                call.status = "asked"
            case AlertAcknowledged():
                # Alerts of other kinds are taken, too; only who asked is told that somebody comes.
                if event.alert_id in self._alerts and call.status in ("asked", "nobody"):
                    call.status = "seen" if event.how == "seen" else "coming"
            case AlertUnanswered():
                if event.alert_id in self._alerts and call.status == "asked":
                    call.status = "nobody"
            case CallEnding() | CallEnded():
                self._forget(call_id)
        return [] if phone is None else self._next(phone, now_s)

    def left_on(self, agent_ids: Sequence[str], now_s: float) -> list[Push]:
        """These phones still show what a process before this one put there.

        Args:
            agent_ids: of phones; what is not ours to push to is passed over.
            now_s: monotonic.
        """
        for agent_id in agent_ids:
            phone = self._phones.get(agent_id)
            if phone is not None and phone.shown is None:
                phone.maybe = True
        return self.tick(now_s)

    def covered(self, agent_id: str, now_s: float) -> list[Push]:
        """Something else is on the screen: what belongs there is sent anew, or it goes."""
        if (phone := self._phones.get(agent_id)) is None:
            return []
        phone.maybe = True
        return self._next(phone, now_s)

    def done(self, push: Push, outcome: Outcome, now_s: float) -> list[Push]:
        """What came of a push; what follows from that."""
        phone = self._phones.get(push.agent_id)
        if phone is None or phone.sent is None or phone.sent.serial != push.serial:
            return []
        phone.sent = None
        if outcome == "taken":
            phone.shown, phone.shown_at_s, phone.maybe = push.screen, now_s, False
            phone.failures, phone.gave_up, phone.paused_until_s = 0, False, 0.0
            return self._next(phone, now_s)
        phone.maybe = phone.maybe or outcome == "failed"
        if outcome == "failed" and push.tries < _TRIES:
            # The newest state, not the one that failed.
            return self._next(phone, now_s, tries=push.tries + 1)
        stays = outcome == "failed" and push.screen is None and phone.failures < CLEARS
        phone.gave_up, phone.left = not stays, push.screen
        phone.paused_until_s = now_s + min(FIRST_PAUSE_S * 2**phone.failures, LONGEST_PAUSE_S)
        phone.failures = min(phone.failures + 1, 16)
        return self._next(phone, now_s)

    def tick(self, now_s: float) -> list[Push]:
        """What is due now."""
        return [push for phone in self._phones.values() for push in self._next(phone, now_s)]

    def next_due(self, now_s: float) -> float | None:
        """When :meth:`tick` is next of use; ``None``: not before something happens."""
        times = [due for phone in self._phones.values() for due in self._due(phone, now_s)]
        return min(times, default=None)

    def showing(self, agent_id: str) -> Screen | None:
        """What the phone took last."""
        phone = self._phones.get(agent_id)
        return phone.shown if phone else None

    # ------------------------------------------------------------------------------ inside

    def _begin(self, event: CallStarted) -> None:
        if event.call_id in self._calls:
            return
        while len(self._calls) >= MOST_CALLS:
            self._forget(next(iter(self._calls)))
        call = self._calls[event.call_id] = _Call(event.call_id, event.agent_id)
        if phone := self._phones.get(event.agent_id):
            phone.calls[event.call_id] = call

    def _forget(self, call_id: str) -> None:
        call = self._calls.pop(call_id, None)
        if call is None:
            return
        if phone := self._phones.get(call.agent_id):
            phone.calls.pop(call_id, None)
        for alert_id in [key for key, value in self._alerts.items() if value == call_id]:
            del self._alerts[alert_id]

    def _wanted(self, phone: _Phone, now_s: float) -> tuple[Screen | None, str]:
        """What the phone should show now, and of which call."""
        worst: _Call | None = None
        for call in phone.calls.values():
            if call.calm_since_s is not None and now_s - call.calm_since_s >= CALM_S:
                call.begun, call.calm_since_s, call.level, call.categories = False, None, 0, ()
                if call.left:
                    call.status = ""
            if not (call.begun or call.crisis or call.status in _OF_HELP):
                continue
            if worst is None or _rank(call) > _rank(worst):
                worst = call
        if worst is None:
            return None, ""
        screen = Screen(worst.level, worst.categories, worst.crisis, worst.status, worst.grade)
        return screen, worst.call_id

    def _next(self, phone: _Phone, now_s: float, tries: int = 1) -> list[Push]:
        if phone.sent is not None:
            return []
        wanted, call_id = self._wanted(phone, now_s)
        if phone.gave_up and wanted != phone.left:
            phone.gave_up = False
        if not self._is_needed(phone, wanted, now_s):
            return []
        if tries == 1 and (phone.gave_up or now_s < phone.paused_until_s):
            return []
        kind: Kind = "clear" if wanted is None else "update" if phone.shown else "warning"
        self._serial += 1
        phone.sent = Push(phone.agent_id, call_id, self._serial, kind, wanted, tries)
        return [phone.sent]

    @staticmethod
    def _is_needed(phone: _Phone, wanted: Screen | None, now_s: float) -> bool:
        if wanted != phone.shown or phone.maybe:
            return True
        fades = phone.hold_s is not None and now_s >= phone.shown_at_s + RENEW_AT * phone.hold_s
        return wanted is not None and fades

    def _due(self, phone: _Phone, now_s: float) -> list[float]:
        if phone.sent is not None:
            return []
        wanted, _ = self._wanted(phone, now_s)
        found = [
            call.calm_since_s + CALM_S
            for call in phone.calls.values()
            if call.calm_since_s is not None
        ]
        if phone.gave_up and wanted == phone.left:
            return found
        if wanted != phone.shown or phone.maybe:
            found.append(phone.paused_until_s)
        elif wanted is not None and phone.hold_s is not None:
            renewed = phone.shown_at_s + RENEW_AT * phone.hold_s
            found.append(max(renewed, phone.paused_until_s))
        return found


def _rank(call: _Call) -> tuple[bool, int]:
    return call.crisis, call.level
