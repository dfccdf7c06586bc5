"""The escalation and the teams' policies at work: the node's events in, entries and commands out.

The rules are in :mod:`notifier.escalation`, :mod:`notifier.rota`, :mod:`notifier.policy` and
:mod:`notifier.call_length`; here they meet the board, the open consoles, the clocks and the bridge.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any

import structlog

from callshield.messages import (
    Action,
    AlertAcknowledged,
    AlertRaised,
    CallEnded,
    CallEnding,
    CallLength,
    CommandResult,
    CrisisHint,
    Direction,
    HelperChanged,
    PolicyAdvice,
    RiskChanged,
    WarningPlayed,
)
from callshield.settings import Settings
from notifier.board import Board
from notifier.call_length import CallLengths, Prompt
from notifier.commands import BridgeAway
from notifier.escalation import AS_EVER, Escalation, Moment, Request, Said
from notifier.live import Alert, Call, Entry
from notifier.policy import Advice, Advisor, Policies
from notifier.rota import Teams, on_duty

log = structlog.get_logger()

#: How often time is looked at.
TICK_S = 1.0
#: An open alert of an ended call that is older, and of which no step was ever stored, is from an
#: earlier version: nobody is called for it now.
_STALE_S = 900.0
_LONGEST_TALK_S = 24 * 3600.0

Ask = Callable[[str, Action, str], Awaitable[CommandResult]]


class Escalating:
    """Who is told, and what the agent is advised, on this node.

    Args:
        settings: the node's configuration.
        board: what is true now.
        clock: seconds since the epoch.
        monotonic: seconds of a clock that does not jump.
        connected: supervisors with an open console; ``token:ID`` for tokens tied to nobody.
        ask: sends a command to the bridge and waits for its result.
        busy_elsewhere: supervisors in a call of another node into which they were asked.
    """

    def __init__(
        self,
        settings: Settings,
        board: Board,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        connected: Callable[[], frozenset[str]],
        ask: Ask,
        busy_elsewhere: Callable[[], frozenset[str]] = frozenset,
    ) -> None:
        self._busy_elsewhere = busy_elsewhere
        self.teams = Teams(settings)
        self.policies = Policies(settings, self.teams)
        self.escalation = Escalation(self.teams, self.policies)
        self._advisor = Advisor(self.policies)
        self._lengths = CallLengths(self.policies)
        self._board = board
        self._clock = clock
        self._monotonic = monotonic
        self._connected = connected
        self._ask = ask
        self._busy: dict[str, str] = {}
        """Supervisor → the call that he was asked into."""
        self._answered: dict[str, float] = {}
        """Call → when it was answered, by the clock that does not jump."""
        self._claims: dict[str, str] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        board.alert_level_of = self.policies.alert_level

    def _moment(self) -> Moment:
        busy = self.busy | self._busy_elsewhere()
        return Moment(self._monotonic(), self._clock(), self._connected(), busy)

    @property
    def busy(self) -> frozenset[str]:
        """Supervisors who are in a call of this node into which they were asked."""
        return frozenset(self._busy)

    # ---------------------------------------------------------------------------- what happened

    def restore(
        self,
        requests: Iterable[Request],
        recently_asked: Iterable[str],
        lengths: Iterable[CallLength],
    ) -> list[Entry]:
        """Go on from what is stored; the board is restored already.

        Returns:
            What to store and send: an alert whose first step was never stored is told now.
        """
        moment = self._moment()
        self.escalation.recall(recently_asked)
        known = [one for one in requests if one.alert_id in self._board.alerts]
        over = {one.call_id for one in known} - set(self._board.calls)
        self.escalation.restore(known, over, moment)
        entries: list[Entry] = []
        for alert in self._board.alerts.values():
            live = alert.call_id in self._board.calls
            if alert.alert_id in self.escalation.requests:
                continue
            if not live and moment.ts - alert.raised_ts > _STALE_S:
                self.escalation.known_before(alert, moment)
                continue
            entries += self._entries(self.escalation.raised(alert, moment))
            if not live:
                self.escalation.call_over(alert.call_id)
        for said in lengths:
            call = self._board.calls.get(said.call_id)
            if call is not None and call.answered_ts is not None:
                self._lengths.restore(call, said.step, said.ts, said.until_ts)
        for call in self._board.calls.values():
            entries += self._advise(call)
        return entries

    def feed(self, entries: Sequence[Entry]) -> list[Entry]:
        """What follows from entries that are being stored."""
        more: list[Entry] = []
        for entry in entries:
            event, call = entry.event, entry.call
            match event:
                case AlertRaised() if entry.alert is not None:
                    more += self._entries(self.escalation.raised(entry.alert, self._moment()))
                    if event.call_id not in self._board.calls:
                        # Heard in its last words: nobody waits in that call any more.
                        self.escalation.call_over(event.call_id)
                case AlertAcknowledged():
                    self.escalation.closed(event.alert_id)
                    if event.how != "seen":
                        more += self._taken_with(event)
                case HelperChanged():
                    more += self._helper(event)
                case CallEnded():
                    self._over(event.call_id)
                case RiskChanged() if call is not None and call.ended_ts is None:
                    more += self._advise(call)
                    if self._advisor.warns_now(call, self._monotonic()):
                        self._act(call.call_id, Action.WARN, "policy")
                case CrisisHint() | CallEnding() if call is not None:
                    more += self._advise(call)
                case WarningPlayed() if call is not None:
                    self._advisor.warning_played(call.call_id, self._monotonic())
                    more += self._advise(call)
        return more

    def tick(self) -> list[Entry]:
        """Time has passed."""
        entries = self._entries(self.escalation.tick(self._moment()))
        for call in list(self._board.calls.values()):
            entries += self._length(call)
        return entries

    def _entries(self, said: Iterable[Said]) -> list[Entry]:
        entries = []
        for one in said:
            call_id = one.request.call_id
            call = self._board.calls.get(call_id) or self._board.ended.get(call_id)
            entry = Entry(one.event, one.request.agent_id, call)
            entry.escalation = one.request
            entries.append(entry)
            log.info(
                "alert_step",
                alert_id=one.request.alert_id,
                what=type(one.event).__name__,
                stage=one.request.stage,
                step=one.request.step,
            )
        return entries

    def _over(self, call_id: str) -> None:
        self.escalation.call_over(call_id)
        self._advisor.forget(call_id)
        self._lengths.forget(call_id)
        self._answered.pop(call_id, None)
        self._busy = {one: in_call for one, in_call in self._busy.items() if in_call != call_id}

    def _helper(self, event: HelperChanged) -> list[Entry]:
        """A supervisor's phone rings, is in the call, or could not be had."""
        if event.state in ("calling", "joined", "took_over"):
            if event.helper_id:
                self._busy[event.helper_id] = event.call_id
        else:
            self._busy.pop(event.helper_id, None)
        by_supervisor = event.by.startswith("supervisor:")
        if event.state == "joined" and by_supervisor:
            # We may have died between the bridge's word and ours: who is there has accepted.
            return [
                entry
                for alert in self._board.open_help(event.call_id)
                for entry in self._taken(alert, event)
            ]
        if event.state == "unreachable" and by_supervisor:
            return self._ask_again(event)
        return []

    def _taken_with(self, event: AlertAcknowledged) -> list[Entry]:
        """Who comes into a call need not be asked, nor anybody else, to look at it."""
        entries: list[Entry] = []
        for alert in list(self._board.alerts.values()):
            if alert.call_id == event.call_id and alert.kind in ("help", "risk", "crisis"):
                taken = self._board.acknowledge(
                    alert.alert_id, event.by, event.ts, event.how, event.supervisor_id
                )
                self.escalation.closed(alert.alert_id)
                entries += taken[1] if taken is not None else []
        return entries

    def _taken(self, alert: Alert, event: HelperChanged) -> list[Entry]:
        by = event.by.removeprefix("supervisor:")
        taken = self._board.acknowledge(
            alert.alert_id, by, self._clock(), how="join", supervisor_id=event.helper_id
        )
        self.escalation.closed(alert.alert_id)
        return taken[1] if taken is not None else []

    def _ask_again(self, event: HelperChanged) -> list[Entry]:
        """Who accepted did not come after all: the agent still needs somebody."""
        asked = self._board.ask_for_help(event.call_id, self._clock())
        if asked is None:
            return []
        alert, entries = asked
        said = self.escalation.raised(alert, self._moment(), without=event.helper_id)
        return [*entries, *self._entries(said)]

    # ------------------------------------------------------------------------ advice and lengths

    def _advise(self, call: Call) -> list[Entry]:
        advice: Advice | None = self._advisor.changed(call)
        if advice is None:
            return []
        event = PolicyAdvice(
            ts=self._clock(),
            call_id=call.call_id,
            warn_grade=advice.warn_grade,
            end_highlighted=advice.end_highlighted,
            category=advice.category,
        )
        return [Entry(event, call.agent_id, call)]

    def _talked_s(self, call: Call) -> float | None:
        """Seconds since the answer; a clock on the wall that jumps in the call does not count."""
        if call.answered_ts is None:
            return None
        now = self._monotonic()
        if call.call_id not in self._answered:
            talked_s = min(max(self._clock() - call.answered_ts, 0.0), _LONGEST_TALK_S)
            self._answered[call.call_id] = now - talked_s
        return now - self._answered[call.call_id]

    def _length(self, call: Call) -> list[Entry]:
        talked_s = self._talked_s(call)
        # Whoever calls out, or talks to a colleague, is kept by nobody.
        if talked_s is None or call.direction is not Direction.INBOUND:
            return []
        prompts, ends = self._lengths.due(call, talked_s)
        if ends:
            self._act(call.call_id, Action.END, "policy:length")
        return [self._length_entry(call, prompt, talked_s) for prompt in prompts]

    def _length_entry(self, call: Call, prompt: Prompt, talked_s: float) -> Entry:
        now = self._clock()
        event = CallLength(
            ts=now,
            call_id=call.call_id,
            minutes=prompt.minutes,
            step=prompt.step,
            until_ts=round(now + prompt.until_s - talked_s, 3) if prompt.until_s else 0.0,
        )
        return Entry(event, call.agent_id, call)

    def _act(self, call_id: str, action: Action, by: str) -> None:
        task = asyncio.create_task(self._automatic(call_id, action, by))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _automatic(self, call_id: str, action: Action, by: str) -> None:
        try:
            result = await self._ask(call_id, action, by)
        except (BridgeAway, TimeoutError) as error:
            log.warning("automatic_step_failed", call_id=call_id, error=type(error).__name__)
            return
        log.info("automatic_step", call_id=call_id, action=action.value, status=result.status)

    # ---------------------------------------------------------------------- what a person does

    def refuse(self, alert_id: str, by: str, reason: str) -> list[Entry] | None:
        """Somebody cannot come; see :meth:`notifier.escalation.Escalation.refused`."""
        said = self.escalation.refused(alert_id, by, reason, self._moment())
        return None if said is None else self._entries(said)

    def forget(self, alert_ids: Iterable[str]) -> None:
        """Retention deleted these alerts: nobody is asked for them any more."""
        for alert_id in alert_ids:
            self.escalation.closed(alert_id)

    @contextlib.contextmanager
    def claim(self, alert_id: str, by: str) -> Iterator[bool]:
        """Hold an alert while one's phone is being called; False when somebody else holds it.

        Nothing is stored: whoever dies in between has not accepted, and the escalation goes on
        meanwhile.
        """
        if alert_id in self._claims:
            yield False
            return
        self._claims[alert_id] = by
        try:
            yield True
        finally:
            del self._claims[alert_id]

    def state(self, alert_id: str) -> dict[str, Any] | None:
        """How far an open alert has got, as JSON; ``None`` for one that is not open."""
        request = self.escalation.requests.get(alert_id)
        if request is None:
            return None
        return {
            "step": request.step,
            "stage": request.stage,
            "asking": request.person,
            "told": request.told,
            "refusals": [
                {"by": one.by, "reason": one.reason, "ts": one.ts} for one in request.refusals
            ],
            "next_in_s": self.escalation.due_in_s(alert_id, self._monotonic()),
            "unanswered": request.unanswered_ts is not None,
        }

    def in_force(self, agent_id: str | None) -> list[dict[str, Any]]:
        """The teams with their policies as JSON; ``agent_id``: this agent's alone."""
        teams = self.teams.all() if agent_id is None else [self.teams.of(agent_id)]
        return [
            {
                "team": team.name,
                "supervisors": list(team.supervisors),
                "on_duty": list(on_duty(team, self.escalation.local(self._clock()))),
                "manager": team.manager,
                "order": table.order,
                "next_after_s": table.next_after_s,
                "manager_after_s": table.manager_after_s,
                "limit_s": table.limit_s,
                "preset": self.policies.preset_of(team),
                "policy": self.policies.named(team.name).model_dump(),
            }
            for team in teams
            for table in [team.settings or AS_EVER]
        ]

    def held_by(self, alert_id: str) -> str:
        """Who holds an alert (:meth:`claim`); ``""`` for nobody."""
        return self._claims.get(alert_id, "")

    def extend(self, call: Call) -> Entry | None:
        """The agent needs more time; ``None`` where there is no limit to extend."""
        talked_s = self._talked_s(call)
        prompt = None if talked_s is None else self._lengths.extend(call, talked_s)
        if prompt is None or talked_s is None:
            return None
        return self._length_entry(call, prompt, talked_s)
