"""An alert finds somebody. Pure: alerts, people's words and a clock in, events and rows out.

``person`` → ``all`` → ``manager`` → ``nobody``: one after the other of those on duty who have a
console open, then everybody on duty, then the manager (and whatever webhook listens), then the
agent is offered what needs nobody else. Nothing but an acknowledgement closes a request. A refusal
passes it on at once and never closes it. At the limit whoever was not told yet is told, whatever
the single steps' times say; from then on everybody is told again every :data:`AGAIN_S` while the
call lasts.

Times are measured by a clock that does not jump (:attr:`Moment.now`); the time on the wall stands
in events and rows only. A restarted process goes on from the rows: what is left of a step is
counted from the wall then, and a wall clock that was moved meanwhile costs or adds at most that
step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from callshield.messages_escalation import (
    AlertEscalated,
    AlertRefused,
    AlertUnanswered,
    Offer,
    Stage,
)
from callshield.settings_teams import Team, TeamSettings
from notifier.live import Alert
from notifier.policy import Policies
from notifier.rota import Duty, Teams, duty

#: A console that reloads or changes its network is back by then; who is not is passed over.
GONE_AFTER_S = 8.0
#: After the limit everybody is told again this often while the call lasts.
AGAIN_S = 60.0
#: Kinds in which a person needs a person; the others are faults of the node.
_OF_PEOPLE = ("help", "risk", "crisis")

_LISTS = msgspec.json.Decoder(list[str])


@dataclass(frozen=True, slots=True)
class Moment:
    """When something happens, and who is there."""

    now: float
    """Seconds of a clock that does not jump."""
    ts: float
    """Seconds since the epoch, as the wall clock has it."""
    connected: frozenset[str] = frozenset()
    """Supervisors with an open console, by id; ``token:ID`` for tokens tied to nobody."""
    busy: frozenset[str] = frozenset()
    """Supervisors who are in a call that they were asked into."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Somebody could not come."""

    by: str
    """Supervisor or token id."""
    reason: str
    ts: float
    turn: int
    """Which round it was said in; a refusal holds for one."""


@dataclass(slots=True)
class Request:
    """How far an open alert has got; a row of ``escalations``."""

    alert_id: str
    call_id: str
    agent_id: str
    kind: str
    team: str
    raised_ts: float
    stage: Stage = "person"
    step: int = 0
    turn: int = 1
    """Round; a new one begins whenever everybody is told again."""
    since_ts: float = 0.0
    """When the newest step was made, by the wall clock."""
    asked: list[str] = field(default_factory=list)
    """Who was asked in turn, the last one being asked now."""
    told: list[str] = field(default_factory=list)
    """Everybody who was told."""
    refusals: list[Refusal] = field(default_factory=list)
    unanswered_ts: float | None = None

    @property
    def person(self) -> str:
        """Who is being asked in turn; ``""`` in the later stages."""
        return self.asked[-1] if self.stage == "person" and self.asked else ""

    def refused(self) -> set[str]:
        """Who refused in this round."""
        return {one.by for one in self.refusals if one.turn == self.turn}

    def row(self) -> dict[str, Any]:
        """As it is stored."""
        row = asdict(self)
        for name in ("asked", "told", "refusals"):
            row[name] = msgspec.json.encode(row[name]).decode()
        return row

    @staticmethod
    def of_row(row: dict[str, Any]) -> Request:
        """From what was stored."""
        refusals = msgspec.json.decode(row["refusals"], type=list[Refusal])
        lists = {name: _LISTS.decode(row[name]) for name in ("asked", "told")}
        return Request(**{**row, **lists, "refusals": refusals})


EscalationEvent = AlertEscalated | AlertRefused | AlertUnanswered


@dataclass(frozen=True, slots=True)
class Said:
    """One event to store and send, with the request as it is after it."""

    event: EscalationEvent
    request: Request


@dataclass(slots=True)
class _Timer:
    """Of one request, on the clock that does not jump."""

    raised: float
    since: float
    gone: float | None = None
    """Since when the person who is asked has no console open."""
    call_over: bool = False


class Escalation:
    """All open requests.

    Args:
        teams: who is called for whom.
        policies: who is told first.
        local: the wall clock of seconds since the epoch; the machine's own time zone.
    """

    def __init__(
        self,
        teams: Teams,
        policies: Policies,
        local: Callable[[float], datetime] = lambda ts: datetime.fromtimestamp(ts).astimezone(),
    ) -> None:
        self._teams = teams
        self._policies = policies
        self.local = local
        """The clock on the wall."""
        self.requests: dict[str, Request] = {}
        self._timers: dict[str, _Timer] = {}
        self._called: dict[str, float] = {}
        """When each was last called in turn: a running number."""

    # ------------------------------------------------------------------------------ what happens

    def restore(self, requests: Iterable[Request], over: Iterable[str], moment: Moment) -> None:
        """Take over what a former process stored.

        Args:
            requests: of open alerts, oldest first.
            over: calls of theirs that have ended.
            moment: now.
        """
        ended = set(over)
        for request in requests:
            self.requests[request.alert_id] = request
            settings = self._settings(request)
            longest_s = max(settings.limit_s, AGAIN_S)
            # A wall clock that was set back in between must not make anybody wait for longer.
            since_s = min(max(moment.ts - request.since_ts, 0.0), longest_s)
            raised_s = min(max(moment.ts - request.raised_ts, since_s), longest_s)
            self._timers[request.alert_id] = _Timer(
                moment.now - raised_s,
                moment.now - since_s,
                call_over=request.call_id in ended,
            )
            self.recall(request.asked)

    def recall(self, order: Iterable[str]) -> None:
        """Who was called in turn before, oldest first: a restart begins no new rotation."""
        for one in order:
            self._called[one] = max(self._called.values(), default=0.0) + 1.0

    def known_before(self, alert: Alert, moment: Moment) -> None:
        """An old alert of an ended call, from before there were steps: it stays open in silence."""
        request = Request(
            alert.alert_id,
            alert.call_id,
            alert.agent_id,
            alert.kind,
            self._teams.of(alert.agent_id).name,
            alert.raised_ts,
            stage="nobody",
        )
        self.requests[alert.alert_id] = request
        self._timers[alert.alert_id] = _Timer(moment.now, moment.now, call_over=True)

    def raised(self, alert: Alert, moment: Moment, *, without: str = "") -> list[Said]:
        """An alert is open: tell somebody.

        Args:
            alert: as the board raised it.
            moment: now.
            without: a supervisor whose phone has just not answered.
        """
        if alert.alert_id in self.requests:
            return []
        team = self._teams.of(alert.agent_id)
        request = Request(
            alert.alert_id, alert.call_id, alert.agent_id, alert.kind, team.name, alert.raised_ts
        )
        if without:
            request.refusals.append(Refusal(without, "unreachable", moment.ts, request.turn))
        self.requests[alert.alert_id] = request
        self._timers[alert.alert_id] = _Timer(moment.now, moment.now)
        match self._policies.named(team.name).told(alert):
            case "in_turn":
                return self._next_person(request, moment)
            case "manager":
                return [*self._tell_all(request, moment), *self._tell_manager(request, moment)]
            case _:
                return self._tell_all(request, moment)

    def refused(self, alert_id: str, by: str, reason: str, moment: Moment) -> list[Said] | None:
        """Somebody cannot come.

        Args:
            alert_id: the alert.
            by: supervisor id, or token id of a token that is tied to nobody.
            reason: in that person's words.
            moment: now.

        Returns:
            What follows; empty when the same person refused in this round before; ``None`` when
            no such request is open.
        """
        request = self.requests.get(alert_id)
        if request is None:
            return None
        if by in request.refused():
            return []
        was_asked = request.person
        request.refusals.append(Refusal(by, reason, moment.ts, request.turn))
        event = AlertRefused(
            ts=moment.ts, alert_id=alert_id, call_id=request.call_id, by=by, reason=reason
        )
        said = [Said(event, request)]
        match request.stage:
            case "person" if by == was_asked:
                said += self._next_person(request, moment)
            case "all" if not self._may_still_come(request, moment):
                said += self._tell_manager(request, moment)
            case "manager" if not self._may_still_come(request, moment):
                said += self._tell_nobody(request, moment)
        return said

    def closed(self, alert_id: str) -> Request | None:
        """Somebody accepted: the only end of a request."""
        self._timers.pop(alert_id, None)
        return self.requests.pop(alert_id, None)

    def call_over(self, call_id: str) -> None:
        """The call of some requests has ended. They stay open and go on until everybody was told
        once; the agent is offered nothing any more, and nobody is told again."""
        for alert_id, request in self.requests.items():
            if request.call_id == call_id:
                self._timers[alert_id].call_over = True

    def tick(self, moment: Moment) -> list[Said]:
        """Time has passed, or somebody came or went."""
        said: list[Said] = []
        for request in list(self.requests.values()):
            said += self._tick(request, moment)
        return said

    def due_in_s(self, alert_id: str, now: float) -> float | None:
        """Seconds until the next step by time; ``None`` when there is none."""
        request, timer = self.requests.get(alert_id), self._timers.get(alert_id)
        if request is None or timer is None:
            return None
        settings = self._settings(request)
        limit = timer.raised + settings.limit_s
        match request.stage:
            case "person":
                at = min(timer.since + settings.next_after_s, limit)
            case "all":
                at = min(timer.since + settings.manager_after_s, limit)
            case "manager":
                at = limit
            case "nobody":
                if timer.call_over or request.kind not in _OF_PEOPLE:
                    return None
                at = timer.since + AGAIN_S
        return max(0.0, at - now)

    # ------------------------------------------------------------------------------------- steps

    def _tick(self, request: Request, moment: Moment) -> list[Said]:
        timer = self._timers[request.alert_id]
        said: list[Said] = []
        if request.stage != "nobody" and moment.now - timer.raised >= (
            self._settings(request).limit_s
        ):
            if request.stage == "person":
                said += self._tell_all(request, moment)
            if request.stage == "all":
                said += self._tell_manager(request, moment)
            if request.stage == "manager":
                said += self._tell_nobody(request, moment)
            return said
        if request.person:
            self._watch_person(request, timer, moment)
        left_s = self.due_in_s(request.alert_id, moment.now)
        gone = timer.gone is not None and moment.now - timer.gone >= GONE_AFTER_S
        if left_s is None or (left_s > 0 and not gone):
            return said
        match request.stage:
            case "person":
                return self._next_person(request, moment)
            case "all":
                return self._tell_manager(request, moment)
            case "manager":
                return self._tell_nobody(request, moment)
            case "nobody":
                request.turn += 1
                return self._tell_nobody(request, moment)

    def _watch_person(self, request: Request, timer: _Timer, moment: Moment) -> None:
        if request.person in moment.connected:
            timer.gone = None
        elif timer.gone is None:
            timer.gone = moment.now

    def _next_person(self, request: Request, moment: Moment) -> list[Said]:
        on = self._duty(request, moment)
        passed = request.refused() | set(request.asked)
        # Who is asked for this call already is asked for the rest of it too.
        same = [
            other.person
            for other in self.requests.values()
            if other.call_id == request.call_id and other.person in on.connected
        ]
        for one in [*same, *on.connected]:
            if one not in passed:
                request.asked.append(one)
                self.recall([one])
                return self._tell("person", [one], request, moment)
        return self._tell_all(request, moment)

    def _tell_all(self, request: Request, moment: Moment) -> list[Said]:
        on, refused = self._duty(request, moment), request.refused()
        to = [one for one in on.on if one not in refused]
        to = to or [one for one in on.off if one not in refused]
        if not to and self._team(request).supervisors:
            # All of them have refused: no time is lost on asking them again now.
            return self._tell_manager(request, moment)
        return self._tell("all", to, request, moment)

    def _tell_manager(self, request: Request, moment: Moment) -> list[Said]:
        manager, refused = self._team(request).manager, request.refused()
        if manager and manager not in refused:
            return self._tell("manager", [manager], request, moment)
        # Without a manager, whoever is left: those off duty too.
        left = [one for one in self._team(request).supervisors if one not in refused]
        return self._tell("manager", left, request, moment)

    def _tell_nobody(self, request: Request, moment: Moment) -> list[Said]:
        """The limit is over. Told to everybody who could come, refused or not: things change."""
        team, on = self._team(request), self._duty(request, moment)
        to = list(dict.fromkeys([*on.on, *([team.manager] if team.manager else [])]))
        again = request.stage == "nobody"
        said = self._tell("nobody", to if again else [], request, moment)
        talks = request.kind in _OF_PEOPLE and not self._timers[request.alert_id].call_over
        if talks and request.unanswered_ts is None:
            request.unanswered_ts = moment.ts
            # A caller in danger is not hung up on by advice; the button is where it always is.
            offers: list[Offer] = ["end", "promise_call_back"]
            if request.kind == "crisis":
                offers = ["promise_call_back"]
            event = AlertUnanswered(
                ts=moment.ts, alert_id=request.alert_id, call_id=request.call_id, offers=offers
            )
            said.append(Said(event, request))
        return said

    def _tell(self, stage: Stage, to: list[str], request: Request, moment: Moment) -> list[Said]:
        timer = self._timers[request.alert_id]
        timer.since, timer.gone = moment.now, None
        request.stage = stage
        request.step += 1
        request.since_ts = moment.ts
        request.told = list(dict.fromkeys([*request.told, *to]))
        event = AlertEscalated(
            ts=moment.ts,
            alert_id=request.alert_id,
            call_id=request.call_id,
            step=request.step,
            stage=stage,
            to=to,
        )
        return [Said(event, request)]

    # -------------------------------------------------------------------------------- who and when

    def _team(self, request: Request) -> Team:
        return self._teams.named(request.team)

    def _settings(self, request: Request) -> TeamSettings:
        return self._team(request).settings or AS_EVER

    def _duty(self, request: Request, moment: Moment) -> Duty:
        asked = {one.person for one in self.requests.values() if one is not request} - {""}
        return duty(
            self._team(request),
            self.local(moment.ts),
            moment.connected,
            self._called,
            self._teams.language(request.agent_id),
            moment.busy | asked,
        )

    def _may_still_come(self, request: Request, moment: Moment) -> bool:
        """Is anybody left who was told, or sees it on an open console, and has not refused?"""
        team = self._team(request)
        watching = {
            one
            for one in moment.connected
            if one in team.supervisors or one == team.manager or one.startswith("token:")
        }
        # Tokens that are tied to nobody refuse by their token's id.
        there = {one.removeprefix("token:") for one in {*request.told, *watching}}
        if request.stage == "all" and team.manager not in team.supervisors:
            there.discard(team.manager)
        return bool(there - request.refused())


#: Times of the implicit team.
AS_EVER = TeamSettings.model_validate({"supervisors": ["-"], "order": "fixed"})
