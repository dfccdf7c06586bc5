"""What the PBX should know, kept true there: device states, rests, muted recordings; and phones.

Nothing is told as a list of past wishes. For each agent and each paused call what should be is
compared with what the PBX was told, and the difference is said (:mod:`notifier.settling`); after a
loss of the connection, ours or the PBX's restart, everything counts as untold. So no order of
failures leaves an agent paused for ever, or takes a rest away.

The rest itself is ours (:mod:`notifier.rest`), stored before the PBX hears of it: it begins, is
shown and ends although the PBX is away, and without any PBX.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import structlog

from callshield.errors import AmiError
from callshield.messages import (
    CallAnswered,
    CallEnded,
    CallEnding,
    CallSnapshot,
    CallStarted,
    HelperChanged,
    HoldChanged,
    PauseChanged,
    RestChanged,
)
from callshield.settings import Settings
from notifier.ami_client import AmiAway, AmiClient
from notifier.ami_protocol import Message
from notifier.board import Board
from notifier.device_state import device_state
from notifier.live import Call, Entry
from notifier.pbx_marks import CallRecords
from notifier.pbx_recording import Mutes
from notifier.phones import Phones
from notifier.queue_pause import membership, memberships, pause, pause_reason, resume
from notifier.rest import Rest, Rests
from notifier.settling import Key, Settling

log = structlog.get_logger()

#: A rest is told to the PBX when it is stored, or after this time when the disk is slow.
STORED_WITHIN_S = 1.0
#: An event about our own unpausing may come this much later.
_ECHO_S = 2.0
#: Whoever makes a resting agent available at the PBX is answered by a new pause after this time:
#: two programs that disagree must not keep each other busy.
_PAUSED_AGAIN_S = 1.0
_PHONES_SETTLE_S = 0.5

#: Keys of what is settled, besides ``("agent", id)``, ``("call", id)`` and ``("mark", id)``.
MEMBERS, PHONES = ("members", ""), ("phones", "")


class Pbx:
    """The PBX beside this node.

    Args:
        settings: the node's configuration.
        secret: of the manager user; unused without ``[ami]``.
        board: what is true now; read only.
        clock: seconds since the epoch.
        stored: stores entries and waits for it.
        note: told a component, whether it is degraded, and why.
        alarm: told a call id and a sentence: the PBX records although the agent paused; an empty
            sentence when that is over.
    """

    def __init__(
        self,
        settings: Settings,
        secret: str,
        board: Board,
        clock: Callable[[], float],
        stored: Callable[[Sequence[Entry]], Awaitable[None]],
        note: Callable[[str, bool, str], None],
        alarm: Callable[[str, str], None],
    ) -> None:
        self._settings = settings
        self._agents = settings.agents
        self._board = board
        self._clock = clock
        self._stored = stored
        self._note = note
        self.rests = Rests(settings.aftercare)
        self.phones = Phones(settings.agents)
        self.client = AmiClient(
            settings.ami, secret, on_up=self._up, on_down=self._down, on_event=self._event
        )
        self._mutes = Mutes(self.client, alarm)
        self._records = CallRecords(self.client, settings.ami.cdr_field)
        self._reason = pause_reason(settings.aftercare.pause_reason, settings.node.language)
        self.on_rest_over: Callable[[Rest], None] = lambda _rest: None
        """Told every rest that is over, before that is stored."""
        self.on_phones: Callable[[], None] = lambda: None
        """Called when something was learnt about phones."""
        self.look_at_clock: Callable[[], None] = lambda: None
        """Called before the clock is believed: it may have been set."""
        self._members = {a.queue_member: id_ for id_, a in self._agents.items() if a.queue_member}
        self._held: set[str] = set()
        self._left: set[str] = set()
        self._once_paused: set[str] = set()
        self._told: dict[str, str] = {}
        """Device state that the PBX has of each agent."""
        self._at_rest: set[str] = set()
        """Agents whose members were paused on this connection."""
        self._to_resume: set[str] = set()
        self._resumed_at: dict[str, float] = {}
        self._saving: dict[str, asyncio.Task[None]] = {}
        self._settling = Settling(
            self._settle,
            lambda reason: note("pbx_actions", reason is not None, reason or ""),
        )
        self._due: asyncio.TimerHandle | None = None
        self._closing = False

    @property
    def enabled(self) -> bool:
        """There is a PBX to talk to."""
        return self._settings.ami.enabled

    def start(self, rests: Iterable[Rest], once_paused: Iterable[str]) -> None:
        """Take over what was stored and begin.

        Args:
            rests: the newest of each agent.
            once_paused: live calls that were paused at some time: the PBX may still mute them.
        """
        self.rests.restore(rests)
        self._once_paused.update(once_paused)
        self._wait_for_due()
        if self.enabled:
            self.client.start()

    async def close(self) -> None:
        """Stop; the PBX keeps what it was told until somebody comes back."""
        self._closing = True
        if self._due is not None:
            self._due.cancel()
        await self._settling.close()
        if self._saving:
            _, late = await asyncio.wait(self._saving.values(), timeout=STORED_WITHIN_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await self.client.close()

    # ------------------------------------------------------------------- what happens in calls

    def feed(self, entries: Iterable[Entry]) -> None:
        """Events as the board took them."""
        for entry in entries:
            self._feed(entry)

    def _feed(self, entry: Entry) -> None:
        event, call = entry.event, entry.call
        if call is None:
            return
        match event:
            case CallStarted():
                self._begin(event)
            case CallAnswered():
                self.phones.answered(event.agent_id, event.phone_user_agent)
                self.on_phones()
            case HoldChanged():
                (self._held.add if event.held else self._held.discard)(event.call_id)
            case PauseChanged():
                self._pause_recording(event.call_id, paused=event.paused)
            case HelperChanged() if event.state == "took_over":
                self._left.add(event.call_id)
                self._rest_after(entry, event.ts)
            case CallEnding():
                self._rest_after(entry, event.ts)
            case CallEnded():
                self._held.discard(event.call_id)
                self._left.discard(event.call_id)
                self._mutes.ended(event.call_id)
                self._settling.forget(("call", event.call_id))
                self._records.ended(event.call_id)
                self._settling.forget(("mark", event.call_id))
                self._rest_after(entry, event.ts)
            case _:
                return
        self._kick(("agent", call.agent_id))

    def snapshot(self, snapshot: CallSnapshot) -> None:
        """A bridge came: what of its calls this process may not know."""
        self._held = set(snapshot.held)
        for started in snapshot.calls:
            self._begin(started)
            call_id = started.call_id
            if call_id in snapshot.paused or call_id in self._once_paused:
                self._pause_recording(call_id, paused=call_id in snapshot.paused)
        self._once_paused.clear()
        self._kick_agents()

    def _begin(self, started: CallStarted) -> None:
        self._records.started(started.call_id, started.pbx_channel)
        if self.enabled and self._settings.ami.pause_pbx_recording:
            self._mutes.started(started.call_id, started.pbx_channel)

    def mark(self, call_id: str) -> None:
        """The PBX's record of a live call says what the call is left out of."""
        if self._records.marked(call_id):
            self._kick(("mark", call_id))

    def _pause_recording(self, call_id: str, *, paused: bool) -> None:
        if self._mutes.paused(call_id, paused=paused):
            self._kick(("call", call_id))

    # ------------------------------------------------------------------------------------ rest

    def _rest_after(self, entry: Entry, ts: float) -> None:
        assert entry.call is not None
        if entry.call.agent_id not in self._agents:
            return
        self._begun(self.rests.agent_free(entry.call, ts, self._clock()))

    def _begun(self, rest: Rest | None) -> Rest | None:
        """A rest began or became longer: shown, stored, and said to the PBX."""
        if rest is not None:
            self._at_rest.discard(rest.agent_id)
            self._to_resume.discard(rest.agent_id)
            self._rest_changed(rest)
            self._wait_for_due()
            self._kick(("agent", rest.agent_id))
        return rest

    def ask_rest(self, call: Call, *, once: bool) -> Rest | None:
        """The agent asks for the rest that a severe call brings (:meth:`Rests.ask`).

        Args:
            call: of the agent, over.
            once: not when a rest followed this call before.
        """
        if call.agent_id not in self._agents:
            return None
        return self._begun(self.rests.ask(call, self._clock(), once=once))

    def hold_rest(self, call: Call, began_ts: float, until_ts: float) -> Rest | None:
        """A planned break is kept free of calls."""
        return self._begun(self.rests.hold(call, began_ts, until_ts, self._clock()))

    async def take_rest(self, agent_id: str, seconds: float) -> Rest | None:
        """Owed time begins now; done when that is stored. ``None`` where the agent rests."""
        rest = self._begun(self.rests.take(agent_id, seconds, self._clock()))
        await self.rest_stored(agent_id)
        return rest

    async def extend_rest(self, agent_id: str) -> tuple[Rest, float] | None:
        """The agent makes his rest longer (:meth:`Rests.extend`); done when that is stored."""
        extended = self.rests.extend(agent_id)
        if extended is not None and extended[1] > 0:
            self._rest_changed(extended[0])
            self._wait_for_due()
            await self.rest_stored(agent_id)
        return extended

    async def rest_stored(self, agent_id: str) -> None:
        """Wait until the newest change of an agent's rest is stored."""
        saving = self._saving.get(agent_id)
        if saving is not None:
            await asyncio.shield(saving)

    def clock_moved(self, by_s: float) -> None:
        """The wall clock was set: what is left of each rest stays."""
        for rest in self.rests.clock_moved(by_s):
            self._rest_changed(rest)
        self._wait_for_due()

    async def ready(self, agent_id: str) -> Rest | None:
        """The agent says *ready*: the rest is over when that is stored.

        Returns:
            The rest that was ended; ``None`` when there was none.
        """
        rest = self._end_rest(agent_id, "agent")
        if rest is not None:
            await self.rest_stored(agent_id)
        return rest

    def _end_rest(self, agent_id: str, by: str) -> Rest | None:
        rest = self.rests.end(agent_id, by, self._clock())
        if rest is not None:
            self._at_rest.discard(agent_id)
            self._to_resume.add(agent_id)
            self.on_rest_over(rest)
            self._rest_changed(rest)
            self._kick(("agent", agent_id))
        return rest

    def _rest_changed(self, rest: Rest) -> None:
        event = RestChanged(
            ts=self._clock(),
            agent_id=rest.agent_id,
            call_id=rest.call_id,
            state="resting" if rest.resting else "over",
            until_ts=rest.until_ts if rest.ended_ts is None else rest.ended_ts,
            reason=rest.reason,
            by=rest.ended_by,
        )
        before = self._saving.get(rest.agent_id)
        # The audience is the agent: nobody's screen counts how often somebody needs rest.
        entry = Entry(event, rest.agent_id, rest=rest)

        async def save() -> None:
            if before is not None:
                await asyncio.wait({before})
            await self._stored([entry])

        self._saving[rest.agent_id] = asyncio.create_task(save())

    def _wait_for_due(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None
        due = self.rests.next_due()
        if due is not None and not self._closing:
            # Looked at again at least every minute: the wall clock may be set.
            delay_s = min(max(due - self._clock(), 0.0) + 0.01, 60.0)
            self._due = asyncio.get_running_loop().call_later(delay_s, self._end_due)

    def _end_due(self) -> None:
        self.look_at_clock()
        for rest in self.rests.mend(self._clock()):
            self._rest_changed(rest)
        for agent_id in self.rests.due(self._clock()):
            self._end_rest(agent_id, "timer")
        self._wait_for_due()

    # ------------------------------------------------------------------------------ connection

    def _up(self) -> None:
        self._settling.start_over()
        self._note("pbx", False, "")
        self._start_over()

    def _start_over(self) -> None:
        """Whatever the PBX was told may be forgotten there."""
        self._told.clear()
        self._at_rest.clear()
        self._kick_agents()
        for call_id in self._mutes.lost():
            self._kick(("call", call_id))
        for call_id in self._records.open():
            self._kick(("mark", call_id))
        if self._members:
            self._kick(MEMBERS)
        if self.phones.endpoints:
            self._kick(PHONES)

    def _down(self, reason: str) -> None:
        self._note("pbx", True, reason)

    def _event(self, message: Message) -> None:
        match message.event:
            case "QueueMemberPause" | "QueueMemberAdded":
                self._member_event(message)
            case "MixMonitorStart":
                call_id = self._mutes.recording_began(message.get("Channel"))
                if call_id is not None:
                    self._kick(("call", call_id))
            case "ContactStatus":
                endpoint = message.get("EndpointName") or message.get("AOR")
                if endpoint in self.phones.endpoints:
                    self._kick(PHONES)
            case "FullyBooted":
                self._start_over()

    def _member_event(self, message: Message) -> None:
        member = membership(message)
        agent_id = self._members.get(member.interface)
        if agent_id is None or member.paused or self.rests.resting(agent_id) is None:
            return
        if message.event == "QueueMemberAdded":
            # Logged in to a queue while resting: the rest holds there too.
            self._at_rest.discard(agent_id)
            self._kick(("agent", agent_id))
        elif asyncio.get_running_loop().time() - self._resumed_at.get(agent_id, 0.0) <= _ECHO_S:
            return
        elif self._settings.aftercare.ready_at_pbx:
            # Configured so: nobody but the agent can do that there.
            self._end_rest(agent_id, "pbx")
        else:
            # Nobody but the agent ends a rest: it holds, at the PBX too.
            log.warning("rest_unpaused_at_pbx", agent_id=agent_id)
            asyncio.get_running_loop().call_later(_PAUSED_AGAIN_S, self._pause_again, agent_id)

    def _pause_again(self, agent_id: str) -> None:
        if not self._closing:
            self._at_rest.discard(agent_id)
            self._kick(("agent", agent_id))

    # ------------------------------------------------------------- what should be, and what is

    def _kick_agents(self) -> None:
        for agent_id in self._agents:
            self._kick(("agent", agent_id))

    def _kick(self, key: Key) -> None:
        # Without a connection only a pause goes on: that it cannot be done is said at once.
        if self.enabled and (self.client.connected or key[0] == "call"):
            self._settling.kick(key)

    async def _settle(self, key: Key) -> None:
        match key:
            case ("agent", agent_id):
                await self._settle_agent(agent_id)
            case ("call", call_id):
                await self._mutes.settle(call_id)
                if call_id in self._mutes.open() and self.client.connected:
                    raise AmiError("the PBX does not mute its recording")
            case ("mark", call_id):
                await self._records.settle(call_id)
            case ("members", _):
                await self._take_back()
            case _:
                await self._ask_phones()

    async def _settle_agent(self, agent_id: str) -> None:
        """Pause before the device is free: no call slips in between."""
        agent = self._agents.get(agent_id)
        if agent is None:  # a call that outlived its agent's configuration
            return
        failure: AmiError | None = None
        if agent.queue_member:
            try:
                await self._settle_member(agent_id, agent.queue_member)
            except AmiAway:
                raise
            except AmiError as error:
                failure = error
        if agent.device_state:
            await self._settle_device(agent_id, agent.device_state)
        if failure is not None:
            raise failure

    async def _settle_member(self, agent_id: str, member: str) -> None:
        if self.rests.resting(agent_id) is not None:
            if agent_id in self._at_rest:
                return
            if (saving := self._saving.get(agent_id)) is not None:
                await asyncio.wait({saving}, timeout=STORED_WITHIN_S)
            # Noted before it is said: what takes it back meanwhile must not be forgotten.
            self._at_rest.add(agent_id)
            try:
                queues = await pause(self.client, member, self._reason)
            except BaseException:
                self._at_rest.discard(agent_id)
                raise
            log.info("agent_rests", agent_id=agent_id, queues=len(queues))
        elif agent_id in self._to_resume:
            self._to_resume.discard(agent_id)
            try:
                queues = await resume(self.client, member, self._reason)
            except BaseException:
                self._to_resume.add(agent_id)
                raise
            self._resumed_at[agent_id] = asyncio.get_running_loop().time()
            log.info("agent_back", agent_id=agent_id, queues=len(queues))

    async def _settle_device(self, agent_id: str, device: str) -> None:
        calls = [call for call in self._board.calls.values() if call.agent_id == agent_id]
        state = device_state(calls, self._held, self._left)
        if self._told.get(agent_id) == state:
            return
        self._told[agent_id] = state
        try:
            answer = await self.client.request(
                "Setvar", [("Variable", f"DEVICE_STATE({device})"), ("Value", state)]
            )
            if not answer.ok:
                raise AmiError(f"the PBX does not take a device state: {answer.text}")
        except BaseException:
            self._told.pop(agent_id, None)
            raise

    async def _take_back(self) -> None:
        """Members that bear our reason and whose agent does not rest: a pause that we lost."""
        for member in await memberships(self.client, self._members):
            agent_id = self._members[member.interface]
            if member.ours(self._reason) and self.rests.resting(agent_id) is None:
                self._to_resume.add(agent_id)
                self._kick(("agent", agent_id))

    async def _ask_phones(self) -> None:
        await asyncio.sleep(_PHONES_SETTLE_S)  # a phone that registers makes several events
        answer = await self.client.request("PJSIPShowContacts")
        if answer.ok:
            self.phones.contacts(answer.items)
            self.on_phones()
        elif "no contacts" in answer.text.lower():
            self.phones.contacts(())
        else:
            raise AmiError(f"the PBX does not tell its phones: {answer.text}")

    # -------------------------------------------------------------------------- what it is now

    def state(self) -> dict[str, Any]:
        """For an administrator's eyes: connection, failures, phones."""
        return {
            "configured": self.enabled,
            "connected": self.client.connected,
            "version": self.client.version if self.client.connected else "",
            "failing": self._settling.failing,
            "phones": [self.phones.get(agent_id) for agent_id in self._agents],
        }
