"""The notifier as a whole: bus in, board, journal, hub, commands out."""

from __future__ import annotations

import asyncio
import dataclasses
import time
import uuid
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import structlog
from sqlalchemy.exc import SQLAlchemyError

from callshield.messages import (
    AlertRaised,
    AlertVerdict,
    NodeDegraded,
)
from callshield.messages_escalation import AcceptedHow
from callshield.settings import Settings
from notifier.aftercare import Aftercare
from notifier.anchor import Anchor, read_head
from notifier.board import Board
from notifier.care_store import load_care
from notifier.commands import Commands
from notifier.database import place_of
from notifier.escalating import TICK_S, Escalating
from notifier.fairness import Fairness
from notifier.hearing import Hearing
from notifier.holds import hold_on
from notifier.hub import Hub
from notifier.journal import Journal
from notifier.live import Alert, Call, Entry, JudgeRole, judge
from notifier.metrics import Metrics
from notifier.node_bus import BusSide
from notifier.outbox import Channel
from notifier.outbox_store import OutboxStore
from notifier.pbx import Pbx
from notifier.phone_keys import PhoneKeys
from notifier.phone_relay import PhoneRelay
from notifier.phone_screens import PhoneScreens
from notifier.post import Post, is_channel
from notifier.privacy import Privacy
from notifier.pulse import beat
from notifier.reading import Readings
from notifier.retaining import Retaining
from notifier.retention import ClockGuard
from notifier.shadow import Shadow
from notifier.store import Store
from notifier.tokens import Identity

if TYPE_CHECKING:
    from notifier.cluster.floor import Floor
    from notifier.oidc_sign_in import SignIn

log = structlog.get_logger()

_STOP_WRITING_S = 5.0
#: Each console hears from us so often.
HEARTBEAT_S = 10.0


class Node:
    """One running notifier.

    Args:
        settings: the node's configuration.
        clock: seconds since the epoch.
        ami_secret: of the PBX's manager user, where ``[ami]`` is configured.
        oidc_secret: of our client id, where ``[oidc]`` is configured.
        channels: webhooks and mail.
    """

    def __init__(
        self,
        settings: Settings,
        clock: Callable[[], float] = time.time,
        ami_secret: str = "",
        oidc_secret: str = "",
        channels: Sequence[Channel] = (),
    ) -> None:
        self.settings = settings
        self.name = settings.node.name
        self.clock = clock
        self.metrics = Metrics()
        self.shadow = Shadow(settings)
        self.board = Board(
            settings.alerts.level, crisis_line=settings.crisis_line, shadow=self.shadow
        )
        self.store = Store(place_of(settings))
        self.anchor = Anchor(self.store.place.head_path)
        self.bus = BusSide(self)
        self.commands = Commands(self.bus.to_bridge)
        self.hub = Hub(0, self.words_shown)
        self.hearing = Hearing(self.hub.tell)
        self._readings = Readings()
        self.sign_in: SignIn | None = None
        if settings.oidc.enabled:
            # Only who has a provider loads what talks to it.
            from notifier.oidc_sign_in import SignIn

            self.sign_in = SignIn(settings.oidc, oidc_secret)
        self.journal = Journal(self._write, self._publish, self._store_trouble, 0)
        self.pbx = Pbx(
            settings,
            ami_secret,
            self.board,
            clock,
            lambda entries: self.journal.stored(entries),
            lambda part, bad, why: self.note(part, degraded=bad, reason=why),
            self._pbx_records,
        )
        self.phone_relay = PhoneRelay(
            settings.agents,
            self.pbx.phones,
            self.pbx.client if self.pbx.enabled else None,
            lambda: self.bus.peers,
            settings.phones.limit_s,
        )
        self.pbx.on_phones = self.phone_relay.changed
        self.aftercare = Aftercare(
            settings,
            self.board,
            self.pbx,
            clock,
            self.record,
            lambda entries: self.journal.stored(entries),
            self.bus.to_bridge,
            self.commands.ask,
            self.bus.say_abusive,
        )
        self.aftercare.evidence_desk.store = self.store
        self.aftercare.evidence_desk.identify = self.identity
        self.escalating = Escalating(
            settings,
            self.board,
            clock,
            time.monotonic,
            self.watching,
            self.commands.ask,
            lambda: frozenset() if self.cluster is None else self.cluster.peers.busy(),
        )
        self.phone_keys = PhoneKeys(
            self.board,
            self.commands.ask,
            lambda call_id: self.ask_for_help(call_id),
            lambda action, outcome: self.metrics.actions.labels(action, outcome).inc(),
            clock,
        )
        self.phone_screens = PhoneScreens(
            settings,
            self.board,
            lambda: self.bus.peers,
            self.metrics,
            lambda part, bad, why: self.note(part, degraded=bad, reason=why),
            clock,
        )
        self._ticking: asyncio.TimerHandle | None = None
        self.fairness = Fairness(
            settings,
            self.board,
            self.store,
            lambda entries: self.journal.stored(entries),
            lambda entries: self.journal.append(entries),
            clock,
            self.bus.to_bridge,
        )
        self.privacy = Privacy(
            self.board,
            self.store,
            lambda entries: self.journal.stored(entries),
            self.bus.to_bridge,
            lambda call_id: hold_on(self.aftercare.evidence, call_id),
            self._forget_call,
            self.fairness.forget_marks,
            self.fairness.erase_marks,
            settings,
            clock,
            settings.cluster.others(settings.node.name),
        )
        self.aftercare.being_erased = self.privacy.erasing.going
        self.retaining: Retaining | None = None
        self.outbox = OutboxStore(self.store.engine)
        self.post = Post(
            channels,
            self.outbox,
            clock,
            lambda: self.hub.last_id,
            self.known_alert,
            lambda channel, bad, why: self.note(channel, degraded=bad, reason=why),
            self.metrics,
        )
        self._answers: set[asyncio.Task[None]] = set()
        self.cluster: Floor | None = None
        if settings.cluster.enabled:
            # Only who has other nodes loads what talks to them.
            from notifier.cluster.floor import Floor

            self.cluster = Floor(self)
        self._pulse: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Take over what is stored, then listen on the bus.

        Raises:
            BusError: the bus socket cannot be made.
        """
        await self.store.take()
        last_id = await self.store.last_event_id()
        self.board.restore(
            await self.store.live_calls(),
            await self.store.open_alerts(),
            await self.store.degraded(),
            await self.store.taken_help(),
        )
        for alert in self.board.open_help():
            # A request that this process stored and then died over: a bridge knows it or not.
            self.commands.tell_help(alert.call_id, alert.alert_id, send=False)
        # The store answered: what an earlier process noted about it is over.
        self.board.degraded.pop("store", None)
        if not self.settings.ringback.enabled:
            self.board.degraded.pop("ringback", None)
        if not self.settings.privacy.find_by_number:
            self.board.degraded.pop("caller_keys", None)
        # What earlier pushes came to is over; whether that process is there is seen anew.
        self.board.degraded.pop("phone_screens", None)
        if not self.phone_screens.expected:
            self.board.degraded.pop("phones", None)
        if not self.pbx.enabled:
            self.board.degraded.pop("pbx", None)
            self.board.degraded.pop("pbx_actions", None)
        requests, asked = await self.store.escalations(), await self.store.recently_asked()
        lengths = await self.store.lengths()
        rests, once_paused = await self.store.rests(), await self.store.once_paused()
        care = await load_care(self.store, self.clock())
        self.hub.last_id = last_id
        self.journal = Journal(self._write, self._publish, self._store_trouble, last_id)
        self.journal.start()
        self.aftercare.start(care)
        self.anchor.start()
        await self._start_retaining()
        self._compare_heads()
        for name in list(self.board.degraded):
            # How the bus and the other nodes are is seen anew; a drain ended with its process.
            if name in ("cluster", "draining") or name.startswith("node:"):
                self.board.degraded.pop(name)
        in_trouble = {name for name in self.board.degraded if is_channel(name)}
        for name in in_trouble - set(self.post.channels):
            self.board.degraded.pop(name)
        await self.post.start(last_id, in_trouble)
        self._pulse = asyncio.create_task(
            beat(self.hub, self.store, self.clock, lambda: HEARTBEAT_S), name="pulse"
        )
        self.pbx.start(rests, once_paused)
        self.journal.append(self.escalating.restore(requests, asked, lengths))
        self._tick()
        await self.fairness.start()
        await self.privacy.start()
        await self.bus.start()
        if self.cluster is not None:
            await self.cluster.start()
        self.metrics.watch(self)
        log.info(
            "board_restored",
            calls=len(self.board.calls),
            open_alerts=len(self.board.alerts),
            last_event_id=last_id,
        )

    async def stop(self) -> None:
        """Close the bus, write what is queued, close the store."""
        self.bus.stop_noting()
        if self._ticking is not None:
            self._ticking.cancel()
        if self._pulse is not None:
            self._pulse.cancel()
            await asyncio.gather(self._pulse, return_exceptions=True)
        if self.cluster is not None:
            await self.cluster.stop()
        await self.bus.close()
        await self.fairness.close()
        await self.privacy.close()
        await self.aftercare.close()
        if self.sign_in is not None:
            await self.sign_in.provider.close()
        await self.phone_relay.close()
        await self.pbx.close()
        if self.retaining is not None:
            await self.retaining.close()
        await self.journal.close(_STOP_WRITING_S)
        await self.post.stop()
        await self.anchor.close()
        await self.store.close()

    # ------------------------------------------------------------------------ for the other parts

    def watching(self) -> frozenset[str]:
        """Supervisors with an open console, at whichever node."""
        here = self.hub.watching()
        return here if self.cluster is None else here | self.cluster.peers.supervisors()

    def note(self, component: str, *, degraded: bool, reason: str = "") -> None:
        """Say that a part is down, or works again; nothing where that was said last."""
        event = NodeDegraded(ts=self.clock(), component=component, degraded=degraded, reason=reason)
        self.journal.append(self.board.apply(event))

    def record(self, entries: Sequence[Entry]) -> None:
        """Store, send and act upon what happened here."""
        entries = [*entries, *self.escalating.feed(entries)]
        self.bus.tell_detector(entries)
        self.phone_screens.feed(entries)
        self.journal.append(entries)
        self.pbx.feed(entries)
        self.aftercare.feed(entries)

    def keep(self, task: asyncio.Task[None]) -> None:
        """Hold on to a task until it is done."""
        self._answers.add(task)
        task.add_done_callback(self._answers.discard)

    @property
    def writing(self) -> asyncio.Task[None]:
        """The journal's writer; its end before :meth:`stop` is a fault."""
        return self.journal.task

    def _tick(self) -> None:
        self._ticking = asyncio.get_running_loop().call_later(TICK_S, self._tick)
        self.record(self.escalating.tick())

    def words_shown(self, identity: Identity, call_id: str) -> None:
        """A screen shows what a caller said; recorded, once for each token and call."""
        self.journal.append(self._reading_of(identity, call_id))

    async def show_words(self, identity: Identity) -> None:
        """Record that a person is shown the words of every live call whose agent asked for help,
        and wait until that is stored."""
        entries = [
            entry
            for call in self.board.calls.values()
            if identity.sees(call.agent_id)
            and any(reason.words for reason in call.reasons)
            and self.board.help_was_asked(call.call_id)
            for entry in self._reading_of(identity, call.call_id)
        ]
        await self.journal.stored(entries)

    def _reading_of(self, identity: Identity, call_id: str) -> list[Entry]:
        call = self.board.calls.get(call_id) or self.board.ended.get(call_id)
        agent_id = call.agent_id if call else ""
        return self._readings.shown(identity, call_id, agent_id, self.clock())

    def _pbx_records(self, call_id: str, trouble: str) -> None:
        """The agent paused, and the PBX records on: agent and supervisors must know."""
        call = self.board.calls.get(call_id)
        if call is None:
            return
        now = self.clock()
        self.record(
            self.board.apply(
                NodeDegraded(
                    ts=now,
                    component="pbx_recording",
                    degraded=bool(trouble),
                    reason=trouble,
                    call_id=call_id,
                )
            )
        )
        if trouble:
            log.error("pbx_records_on", call_id=call_id, reason=trouble)
            self.record(
                self.board.apply(
                    AlertRaised(
                        ts=now,
                        alert_id="",
                        call_id=call_id,
                        agent_id=call.agent_id,
                        kind="node",
                        level=call.level,
                        reason="pbx_recording_goes_on",
                    )
                )
            )

    # ----------------------------------------------------------------------------- the store

    async def _write(self, entries: Sequence[Entry], more_calls: Sequence[Call]) -> None:
        with self.metrics.commit_seconds.time():
            await self.store.write(entries, more_calls)
        if self.store.head is not None:
            self.anchor.note(self.store.head)

    async def _start_retaining(self) -> None:
        newest = await self.store.newest_ts()
        self.retaining = Retaining(
            self.settings.retention,
            self.store.find_due,
            self._delete,
            lambda: len(self.journal),
            self.clock,
            ClockGuard(self.clock(), time.monotonic(), newest),
        )
        self.retaining.start()

    async def _delete(self, entry: Entry) -> None:
        """Delete old rows, and what this process remembers of them."""
        await self.journal.stored([entry])
        gone = entry.deletion
        if gone is not None and gone.kind == "calls":
            self.aftercare.calls_deleted(gone.keys)
        if gone is not None and gone.kind == "alerts":
            self.board.forget_alerts(gone.keys)
            self.escalating.forget(gone.keys)

    async def _forget_call(self, call_id: str) -> None:
        """It is being erased: no memory of this process may bring it back."""
        for alert in [one for one in self.board.alerts.values() if one.call_id == call_id]:
            # Screens take it away; what is written of that goes with the rest.
            await self.acknowledge(alert.alert_id, "erasure")
        self.board.forget_call(call_id)
        self.aftercare.callbacks.forget([call_id])

    def _compare_heads(self) -> None:
        """Events that were noted and are gone: said before the note is overwritten."""
        noted, head = read_head(self.store.place.head_path), self.store.head
        if noted is None or head is None:
            return
        if noted.last_id > head.last_id or (
            noted.last_id == head.last_id and noted.hash != head.hash
        ):
            reason = f"event {noted.last_id} was noted and the store ends at {head.last_id}"
            log.error("chain_head_differs", noted=noted.last_id, stored=head.last_id)
            self.note("chain", degraded=True, reason=reason)
        elif "chain" in self.board.degraded:
            self.note("chain", degraded=False)

    def _publish(self, entries: Sequence[Entry]) -> None:
        if self.cluster is not None:
            self.cluster.published(entries)
        self.hub.publish(entries)
        self.phone_screens.published([entry for entry in entries if not entry.origin])
        self.post.published(entries)
        self.metrics.stored(entries)

    def _store_trouble(self, reason: str | None) -> None:
        if reason is not None:
            # Said at once and without a number: it cannot be stored now. It is queued too, so
            # that the record has it.
            self.hub.announce(
                NodeDegraded(ts=self.clock(), component="store", degraded=True, reason=reason)
            )
        self.note("store", degraded=reason is not None, reason=reason or "")

    async def store_is_writable(self) -> bool:
        """For readiness: a transaction can begin and nothing waits for one."""
        if self.journal.in_trouble:
            return False
        try:
            return await self.store.check_writable()
        except SQLAlchemyError:
            return False

    # -------------------------------------------------------------------- what a person does

    async def ask_for_help(
        self, call_id: str, *, request_id: str = ""
    ) -> tuple[Alert, bool] | None:
        """Raise a help alert and wait until it is stored.

        Args:
            call_id: the call.
            request_id: of the bridge, when the agent keyed it on the phone; without one it was
                the console, and the bridge is told.

        Returns:
            The alert and whether it is new; ``None`` when the call is not live.
        """
        asked = self.board.ask_for_help(call_id, self.clock(), request_id)
        if asked is None:
            return None
        alert, entries = asked
        entries = [*entries, *self.escalating.feed(entries)]
        if not request_id:
            # Every press is a request of its own: after somebody came and left, it asks anew.
            self.commands.tell_help(call_id, alert.alert_id if entries else uuid.uuid4().hex)
        self.bus.tell_detector(entries)
        await self.journal.stored(entries)
        return alert, bool(entries)

    async def identity(self, token: str) -> Identity | None:
        """Whom a token stands for, and whom that person may see; ``None`` for no good token."""
        identity = await self.store.identity(token, self.clock())
        if identity is None:
            return None
        hidden = self.escalating.teams.hidden_from(identity.supervisor_id)
        return dataclasses.replace(identity, hidden=hidden)

    async def take_help(
        self, call_id: str, by: str, how: AcceptedHow = "join", supervisor_id: str = ""
    ) -> None:
        """A supervisor joins: the call for help is taken, and stored so, by that person."""
        for alert in self.board.open_help(call_id):
            await self.acknowledge(alert.alert_id, by, how, supervisor_id)

    async def refuse(self, alert_id: str, by: str, reason: str) -> bool | None:
        """Keep that somebody cannot come, tell the next, and wait until both are stored.

        Returns:
            False when the same person refused before; ``None`` when no such alert is open.
        """
        entries = self.escalating.refuse(alert_id, by, reason)
        if entries is None:
            return None
        await self.journal.stored(entries)
        return bool(entries)

    async def extend(self, call: Call) -> bool:
        """The agent takes more time than the policy gives; False where there is no limit."""
        entry = self.escalating.extend(call)
        if entry is None:
            return False
        await self.journal.stored([entry])
        return True

    async def known_alert(self, alert_id: str) -> Alert | None:
        """An alert, open, taken or of the past."""
        kept = self.board.alerts.get(alert_id) or self.board.taken.get(alert_id)
        return kept or await self.store.alert(alert_id)

    async def judge(self, alert: Alert, verdict: AlertVerdict, role: JudgeRole) -> None:
        """Keep what a person says of an alert, and wait until that is stored."""
        await self.journal.stored(judge(alert, verdict, role, self.clock()))

    async def acknowledge(
        self, alert_id: str, by: str, how: AcceptedHow = "seen", supervisor_id: str = ""
    ) -> tuple[Alert, bool] | None:
        """Take an alert and wait until that is stored.

        Returns:
            The alert and whether this call won it; ``None`` when there is no such alert.
        """
        taken = self.board.acknowledge(alert_id, by, self.clock(), how, supervisor_id)
        if taken is None:
            past = await self.store.alert(alert_id)
            return None if past is None else (past, False)
        alert, entries = taken
        entries = [*entries, *self.escalating.feed(entries)]
        await self.journal.stored(entries)
        return alert, bool(entries)
