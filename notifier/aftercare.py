"""What follows a bad call, carried out: the cores' shell beside :class:`notifier.pbx.Pbx`.

:mod:`notifier.care` says which calls are marked and what agents said of them,
:mod:`notifier.break_ledger` what is owed of breaks, :mod:`notifier.callbacks` who calls back. Here
their events are recorded, the bridge and the PBX are told, and the clock is looked at once a
second: a wall clock that is set shortens no rest and moves no break.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal

import structlog

from callshield.errors import BusError
from callshield.messages import (
    Action,
    CallEnded,
    CallEnding,
    CommandResult,
    Event,
    HelperChanged,
    Reason,
    RiskChanged,
    RiskLevel,
)
from callshield.messages_care import (
    EXCLUSIONS,
    AgentSaid,
    BreakChanged,
    CallbackChanged,
    CallBackSpoken,
    CallMarked,
    EvidenceRequested,
    HandOverUnanswered,
    RecordingsHeld,
    SaidKind,
)
from callshield.settings import Settings
from notifier.board import Board
from notifier.break_ledger import BreakLedger, BreakPlan, Eaten
from notifier.callbacks import Callback, Callbacks
from notifier.care import Mark, Marks, Word
from notifier.care_store import CareState
from notifier.evidence import EvidenceRequests
from notifier.evidence_desk import EvidenceDesk
from notifier.live import Call, Entry
from notifier.pbx import Pbx
from notifier.rest import Rest

log = structlog.get_logger()

_TICK_S = 1.0
#: The wall clock may differ this much from what passed before it counts as set.
_SET_S = 2.0
_REMEMBERED = 2000

Outcome = Literal["done", "already"]


class BeingErased(Exception):
    """Nothing can be kept of a call any more: it is being erased."""


def team_of(settings: Settings, agent_id: str) -> str:
    """The team of an agent; ``""`` where there are none."""
    agent = settings.agents.get(agent_id)
    return agent.team if agent else ""


class Aftercare:
    """What follows bad calls on this node.

    Args:
        settings: the node's configuration.
        board: what is true now.
        pbx: rests, and the PBX's call records.
        clock: seconds since the epoch.
        record: stores and sends events, and lets everybody on the node see them.
        stored: waits until entries are stored.
        to_bridge: says something to the bridge; False when it is away.
        ask: sends a command to the bridge and waits for its result.
        say_abusive: tells the detector, where there is one, that a live call's agent calls it
            abusive.
        monotonic: seconds that nobody sets.
    """

    def __init__(
        self,
        settings: Settings,
        board: Board,
        pbx: Pbx,
        clock: Callable[[], float],
        record: Callable[[Sequence[Entry]], None],
        stored: Callable[[Sequence[Entry]], Awaitable[None]],
        to_bridge: Callable[[RiskChanged | CallMarked | RecordingsHeld], bool],
        ask: Callable[[str, Action, str], Awaitable[CommandResult]],
        say_abusive: Callable[[str], bool],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._board = board
        self._pbx = pbx
        self._clock = clock
        self._record = record
        self._stored = stored
        self._to_bridge = to_bridge
        self._ask = ask
        self._say_abusive = say_abusive
        self._monotonic = monotonic
        teams = {agent_id: team_of(settings, agent_id) for agent_id in settings.agents}
        self.marks = Marks(settings.aftercare)
        self.word = Word(_new_id)
        self.ledger = BreakLedger(settings.breaks, BreakPlan(settings.breaks, teams))
        self.callbacks = Callbacks(settings.callbacks, _new_id)
        self.evidence = EvidenceRequests()
        self.evidence_desk = EvidenceDesk(
            settings, self.evidence, board, clock, record, stored, to_bridge
        )
        self.being_erased: Callable[[str], bool] = lambda _: False
        """Set by the node: rows of this call go at this moment."""
        self._freed: OrderedDict[str, None] = OrderedDict()
        self._seen_at = (clock(), monotonic())
        self._ticking: asyncio.Task[None] | None = None
        pbx.on_rest_over = self._rest_over
        pbx.look_at_clock = self.look_at_clock

    def start(self, state: CareState) -> None:
        """Take over what was stored and begin."""
        self.marks.restore(state.marked)
        self.word.restore(state.said)
        self.ledger.restore(state.eaten)
        self.callbacks.restore(state.callbacks)
        self.evidence.restore(state.wanted)
        self._ticking = asyncio.create_task(self._tick_on(), name="aftercare")

    async def close(self) -> None:
        if self._ticking is not None:
            self._ticking.cancel()
            await asyncio.gather(self._ticking, return_exceptions=True)

    # --------------------------------------------------------------------------------- the clock

    async def _tick_on(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            try:
                self.tick()
            except Exception:  # the next second may go better
                log.exception("aftercare_tick_failed")

    def tick(self) -> None:
        """Once a second: was the clock set, is a call-back overdue?"""
        self.look_at_clock()
        self.evidence_desk.tick()
        now = self._clock()
        overdue = self.callbacks.overdue(
            now,
            lambda call_id: self._board.has_open("callback", call_id),
            self.responsible,
        )
        for item in overdue:
            log.warning("callback_overdue", call_id=item.call_id, callback_id=item.callback_id)
            self._callback_changed(item)
            self._record(self._board.callback_overdue(item.call_id, item.agent_id, now))

    def look_at_clock(self) -> None:
        """Compare the wall clock with the one that nobody sets, and move what hangs on it."""
        wall, passed = self._clock(), self._monotonic()
        by_s = (wall - self._seen_at[0]) - (passed - self._seen_at[1])
        self._seen_at = (wall, passed)
        if abs(by_s) <= _SET_S:
            return
        log.warning("clock_was_set", by_s=round(by_s, 1))
        self._pbx.clock_moved(by_s)
        self._breaks_changed(self.ledger.clock_moved(by_s, wall))

    # ----------------------------------------------------------------------- what happens in calls

    def feed(self, entries: Sequence[Entry]) -> None:
        """Events as the board took them; after :meth:`notifier.pbx.Pbx.feed`."""
        for entry in entries:
            if entry.call is not None:
                self._feed(entry.event, entry.call)

    def _feed(self, event: Event, call: Call) -> None:
        marked = self.marks.feed(event, call)
        if marked is not None:
            self._marked(marked, call)
        match event:
            case HandOverUnanswered():
                owner = self._settings.callbacks.owner or event.helper_id
                self._promised(self.callbacks.promise(call, owner, self._clock()))
            case CallBackSpoken() if event.complete:
                self._promised(self.callbacks.spoken(call.call_id, event.ts))
            case HelperChanged() if event.state == "took_over":
                promised = self.callbacks.of_call(call.call_id)
                if promised is not None:  # somebody came after all
                    self._promised(
                        self.callbacks.done(promised.callback_id, "handed_over", self._clock())
                    )
                self._agent_free(call, event.ts)
            case CallEnding() | CallEnded():
                self._agent_free(call, event.ts)

    def bridge_came(self, send: Callable[[CallMarked | RecordingsHeld], None]) -> None:
        """Say again to a bridge which live calls are marked, and which recordings are held: it may
        be a new one, or have missed it."""
        send(self.evidence_desk.held())
        for call in self._board.calls.values():
            if call.call_id in self.marks:
                send(
                    CallMarked(
                        ts=self._clock(),
                        call_id=call.call_id,
                        agent_id=call.agent_id,
                        exclude=list(EXCLUSIONS),
                    )
                )

    def _marked(self, event: CallMarked, call: Call) -> None:
        self._to_bridge(event)
        self._pbx.mark(call.call_id)
        row = Mark(call.call_id, call.agent_id, call.pbx_call_id, event.ts)
        self._record([Entry(event, call.agent_id, call, kept=(row,))])
        self._breaks_changed(self.ledger.mark_bad(call.call_id))

    def _agent_free(self, call: Call, ts: float) -> None:
        """The agent is out of a call: what it ate of breaks, and which break comes now."""
        known = call.call_id in self._freed or call.agent_id not in self._settings.agents
        if known or call.answered_ts is None:
            return
        self._freed[call.call_id] = None
        while len(self._freed) > _REMEMBERED:
            self._freed.popitem(last=False)
        now = self._clock()
        ts = min(ts, now)
        agent_id = call.agent_id
        wanted = self.word.get(call.call_id, "rest")
        if wanted is not None:  # asked for while the call still was
            self._pbx.ask_rest(call, once=True)
        rest = self._pbx.rests.resting(agent_id)
        until_ts = max(ts, rest.until_ts) if rest else ts
        bad = (
            call.peak_level >= self._settings.aftercare.from_level
            or call.ending_ts is not None
            or call.call_id in self.marks
        )
        rows = self.ledger.busy(agent_id, call.call_id, call.answered_ts, until_ts, bad=bad)
        if self._talks_on(call):
            for row in rows:  # the break begins when the last call is over
                row.moved_to_ts = None
        moved = [row for row in rows if row.moved_to_ts is not None]
        if moved:
            ends_ts = max((row.moved_to_ts or 0.0) + row.length_s for row in moved)
            self._pbx.hold_rest(call, ts, ends_ts)
        elif not rows and call.peak_level >= RiskLevel.SERIOUS:
            ahead = self.ledger.next_break(agent_id, now)
            if ahead is not None:
                self._pbx.hold_rest(call, ts, ahead.ends_ts)
        self._breaks_changed(rows)

    def _talks_on(self, call: Call) -> bool:
        return any(
            other.agent_id == call.agent_id
            and other.call_id != call.call_id
            and other.answered_ts is not None
            and other.call_id not in self._freed
            for other in self._board.calls.values()
        )

    # -------------------------------------------------------------------------- rests and breaks

    def _rest_over(self, rest: Rest) -> None:
        assert rest.ended_ts is not None
        ended_ts = min(rest.ended_ts, rest.until_ts)
        if rest.call_id:
            rows = self.ledger.rested(rest.agent_id, rest.began_ts, ended_ts)
        else:  # owed time that the agent took
            rows = self.ledger.give_back(rest.agent_id, max(0.0, ended_ts - rest.began_ts))
        self._breaks_changed(rows)

    def _breaks_changed(self, rows: Sequence[Eaten]) -> None:
        now = self._clock()
        for agent_id in dict.fromkeys(row.agent_id for row in rows):
            own = [row for row in rows if row.agent_id == agent_id]
            ahead = [row.moved_to_ts for row in own if (row.moved_to_ts or 0.0) >= now - _SET_S]
            event = BreakChanged(
                ts=now,
                agent_id=agent_id,
                owed_s=round(self.ledger.owed_s(agent_id), 1),
                moved_to_ts=max((ts for ts in ahead if ts is not None), default=0.0),
                call_id=own[-1].call_id,
            )
            self._record([Entry(event, agent_id, kept=tuple(own))])

    async def extend_rest(self, agent_id: str) -> tuple[Rest, float] | None:
        """The agent makes his rest longer; a break that waits for its end moves with it."""
        now = self._clock()
        extended = await self._pbx.extend_rest(agent_id)
        if extended is not None and extended[1] > 0:
            self._breaks_changed(self.ledger.extended(agent_id, extended[1], now))
        return extended

    async def take_break(self, agent_id: str) -> Rest | None:
        """The agent takes what is owed to him, now; ``None``: nothing is, or he rests already."""
        return await self._pbx.take_rest(agent_id, self.ledger.owed_s(agent_id))

    # -------------------------------------------------------------------------- the agent's word

    async def say(self, call: Call, kind: SaidKind, choice: str = "") -> tuple[Outcome, str]:
        """The agent says something of an own call, live or not long over.

        Returns:
            ``done`` or ``already``, and the id under which it is kept.

        Raises:
            BeingErased: it is too late for anything but a rest, which is the agent's own.
        """
        if kind != "rest" and self.being_erased(call.call_id):
            raise BeingErased
        said = self.word.say(call, kind, self._clock(), choice)
        if said is None:
            if kind == "abusive" and call.call_id in self._board.calls:
                self._severe(call, self._clock())  # its level may have fallen since
            known = self.word.get(call.call_id, kind)
            return "already", known.request_id if known else ""
        live = call.call_id in self._board.calls
        match kind:
            case "evidence":
                event = EvidenceRequested(
                    ts=said.ts,
                    call_id=call.call_id,
                    agent_id=call.agent_id,
                    request_id=said.request_id,
                    pbx_call_id=call.pbx_call_id,
                )
                self.evidence.ask(said, call.pbx_call_id)
                self._to_bridge(self.evidence_desk.held())
                self._record([Entry(event, call.agent_id, kept=(said,))])
            case "abusive" if live:
                self._severe(call, said.ts)
            case "abusive":
                marked = self.marks.mark(call, "agent", said.ts)
                if marked is not None:
                    self._marked(marked, call)
                self._breaks_changed(self.ledger.mark_bad(call.call_id))
                self._pbx.ask_rest(call, once=True)
            case "rest" if not live:
                self._pbx.ask_rest(call, once=False)
        kept = AgentSaid(
            ts=said.ts,
            call_id=call.call_id,
            agent_id=call.agent_id,
            request_id=said.request_id,
            kind=kind,
            choice=choice,
        )
        # First: whoever waits for both may be told that it takes too long, and go.
        await self._stored([Entry(kept, call.agent_id, kept=(said,))])
        await self._pbx.rest_stored(call.agent_id)
        return "done", said.request_id

    def calls_deleted(self, call_ids: Sequence[str]) -> None:
        """Retention deleted these calls: what was asked of them went with them."""
        if self.evidence.forget(call_ids):
            self._to_bridge(self.evidence_desk.held())

    def _severe(self, call: Call, ts: float) -> None:
        """The agent's word in a live call makes the level, as the machine's words do: there is one
        level for everybody, and nothing on which the two could be compared. Said here, because the
        word counts without a detector too; one that is there holds it, and lets it fall."""
        if call.level < RiskLevel.SEVERE:
            level = RiskChanged(
                ts=ts,
                call_id=call.call_id,
                level=RiskLevel.SEVERE,
                previous=call.level,
                categories=list(call.categories),
                score=0.0,
                reasons=[Reason(kind="agent", score=1.0, rule="agent_press"), *call.reasons],
                words_confirmed=call.words_confirmed,
                may_trigger=call.crisis_ts is None,
            )
            self._to_bridge(level)
            self._record(self._board.apply(level))
        self._say_abusive(call.call_id)
        marked = self.marks.mark(call, "agent", ts)
        if marked is not None:
            self._marked(marked, call)

    # ---------------------------------------------------------------------------------- call-backs

    def responsible(self, agent_id: str) -> str:
        """The manager in charge: the team's, or ``help.manager``, or the first one; empty for
        none."""
        team = self._settings.teams.get(team_of(self._settings, agent_id))
        if team is not None and team.manager:
            return team.manager
        managers = [i for i, s in self._settings.supervisors.items() if s.role == "manager"]
        return self._settings.help.manager or (managers[0] if managers else "")

    async def promise_call_back(self, call_id: str, by: str) -> tuple[Outcome, Callback] | None:
        """Nobody came: somebody will call back, and the caller is told so.

        Args:
            call_id: a live call.
            by: ``agent:…``.

        Returns:
            The promise, new or made before; ``None`` where none are promised, or the call is over.
        """
        call = self._board.calls.get(call_id)
        if call is None or not self._settings.callbacks.within_s:
            return None
        owner = self._settings.callbacks.owner or self.responsible(call.agent_id)
        made = self.callbacks.promise(call, owner, self._clock())
        found = made or self.callbacks.of_call(call_id)
        assert found is not None
        if made is not None:
            await self._stored([self._callback_entry(made, call)])
        if found.spoken_ts is None:
            try:
                result = await self._ask(call_id, Action.PROMISE_CALL_BACK, by)
            except (BusError, TimeoutError) as error:
                log.warning("callback_not_spoken", call_id=call_id, error=str(error))
            else:
                log.info("callback_announced", call_id=call_id, outcome=result.status)
        return ("already" if made is None else "done"), found

    async def callback_done(self, callback_id: str, by: str) -> Callback | None:
        """Somebody called back; done when that is stored. ``None``: it is not open."""
        now = self._clock()
        done = self.callbacks.done(callback_id, by, now)
        if done is not None:
            for alert in list(self._board.alerts.values()):
                if alert.kind == "callback" and alert.call_id == done.call_id:
                    taken = self._board.acknowledge(alert.alert_id, by, now)
                    self._record(taken[1] if taken else [])
            await self._stored([self._callback_entry(done, None)])
        return done

    def _promised(self, changed: Callback | None) -> None:
        if changed is not None:
            self._callback_changed(changed)

    def _callback_changed(self, item: Callback) -> None:
        self._record([self._callback_entry(item, None)])

    def _callback_entry(self, item: Callback, call: Call | None) -> Entry:
        event = CallbackChanged(
            ts=self._clock(),
            call_id=item.call_id,
            agent_id=item.agent_id,
            callback_id=item.callback_id,
            state=item.state,
            owner=item.owner,
            due_ts=item.due_ts,
            pbx_call_id=item.pbx_call_id,
        )
        return Entry(event, item.agent_id, call, kept=(item,))


def _new_id() -> str:
    return uuid.uuid4().hex
