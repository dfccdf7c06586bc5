"""The bridge's connection to the notifier: events out, commands and risk levels in."""

from __future__ import annotations

import os
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path

from callshield.bus import BusClient
from callshield.messages import (
    Action,
    CallEnded,
    CallSnapshot,
    Command,
    CommandResult,
    CrisisHint,
    Event,
    Hello,
    NodeMessage,
    RiskChanged,
    VoiceTalk,
)
from callshield.messages_care import CallMarked, RecordingsHeld
from callshield.messages_fairness import CallerEnded, RingbackMarks
from callshield.messages_phones import NotifySent, PhoneSeen, SendNotify
from callshield.messages_privacy import CallerNumber, EraseRecordings, RecordingsErased
from sipbridge.bridged import Bridged
from sipbridge.call import CallState
from sipbridge.kept_calls import KeptCalls
from sipbridge.recordings_desk import RecordingsDesk

#: Ended calls remembered so that a late second press is "already", not "unknown".
REMEMBERED_ENDED = 1024


class NotifierLink:
    """What the notifier is told, and what it wants of the running calls.

    Args:
        path: the notifier's socket.
        node: this node's name.
        calls: the running calls by id; read only.
        kept: those of a bridge that died.
        on_marks: told which callers were ended lately.
        recordings: told of which calls the recordings must stay, and which must go.
        on_notify: told what a phone's screen is to show.
        phones_seen: which phones answered so far.
    """

    def __init__(
        self,
        path: Path,
        node: str,
        calls: Mapping[str, Bridged],
        kept: KeptCalls,
        on_marks: Callable[[RingbackMarks], None],
        recordings: RecordingsDesk,
        on_notify: Callable[[SendNotify], None] = lambda _wanted: None,
        phones_seen: Callable[[], list[PhoneSeen]] = list,
    ) -> None:
        self._on_notify = on_notify
        self._phones_seen = phones_seen
        self._recordings = recordings
        self._on_marks = on_marks
        self._node = node
        self._calls = calls
        self._kept = kept
        self._ended: OrderedDict[str, str] = OrderedDict()
        """Agent of each call that ended lately."""
        self._help_wanted: OrderedDict[str, Command] = OrderedDict()
        self._bus: BusClient[NodeMessage] = BusClient(
            path, NodeMessage, self._on_message, self._introduce
        )

    def start(self) -> None:
        self._bus.start()

    def send(
        self,
        event: Event
        | CallerEnded
        | CallerNumber
        | RecordingsErased
        | PhoneSeen
        | NotifySent
        | VoiceTalk,
    ) -> None:
        """Queue an event; a call that ended with it is remembered for a while."""
        self._bus.send(event)
        if isinstance(event, CallEnded):
            self._ended[event.call_id] = event.agent_id
            while len(self._ended) > REMEMBERED_ENDED:
                self._ended.popitem(last=False)

    def agent_of(self, call_id: str) -> str | None:
        """The agent of a call that runs or ended lately."""
        if bridged := self._calls.get(call_id):
            return bridged.call.plan.agent_id
        if kept := self._kept.calls.get(call_id):
            return kept.kept.started.agent_id
        return self._ended.get(call_id)

    def call_supervisor(self, call_id: str, by: str) -> str:
        """*help* keyed on the phone: an alert is the notifier's to raise.

        Kept, and said again on every connection, until the notifier answered that it is stored.
        """
        command = Command(command_id=uuid.uuid4().hex, call_id=call_id, action=Action.HELP, by=by)
        self._help_wanted[command.command_id] = command
        while len(self._help_wanted) > REMEMBERED_ENDED:
            self._help_wanted.popitem(last=False)
        self._bus.send(command)
        return command.command_id

    async def flush(self, patience_s: float) -> None:
        """Say what is queued, for at most ``patience_s``."""
        await self._bus.flush(patience_s)

    async def close(self) -> None:
        await self._bus.close()

    async def _on_message(self, message: NodeMessage) -> None:
        if isinstance(message, CommandResult):
            self._help_wanted.pop(message.command_id, None)
        if isinstance(message, RiskChanged):
            if bridged := self._calls.get(message.call_id):
                steps = bridged.call.on_risk(message.level, may_trigger=message.may_trigger)
                bridged.run(steps)
            return
        if isinstance(message, CrisisHint):
            if bridged := self._calls.get(message.call_id):
                bridged.call.on_crisis()
            return
        if isinstance(message, RingbackMarks):
            self._on_marks(message)
            return
        if isinstance(message, RecordingsHeld):
            self._recordings.hold(message)
            return
        if isinstance(message, EraseRecordings):
            self._recordings.erase(message)
            return
        if isinstance(message, SendNotify):
            self._on_notify(message)
            return
        if isinstance(message, CallMarked):
            if bridged := self._calls.get(message.call_id):
                bridged.call.on_marked()
            return
        if isinstance(message, Command):
            self._bus.send(self._carry_out(message))

    def _carry_out(self, command: Command) -> CommandResult:
        if command.call_id in self._kept.calls:
            outcome, detail = self._kept.act(command.call_id, command.action, command.by)
            return CommandResult(command_id=command.command_id, status=outcome, detail=detail)
        bridged = self._calls.get(command.call_id)
        if bridged is not None and bridged.call.state is not CallState.ENDED:
            outcome, detail, steps = bridged.call.act(
                command.action, command.by, target=command.target, request_id=command.command_id
            )
            bridged.run(steps)
            return CommandResult(command_id=command.command_id, status=outcome, detail=detail)
        if command.call_id in self._ended or bridged is not None:
            return CommandResult(
                command_id=command.command_id,
                status="already" if command.action is Action.END else "not_now",
                detail="The call has ended.",
            )
        return CommandResult(
            command_id=command.command_id,
            status="unknown_call",
            detail="There is no such call on this node.",
        )

    def _introduce(self) -> list[NodeMessage]:
        over = (CallState.ENDED, CallState.TRANSFERRED)
        live = [b for b in self._calls.values() if b.call.state not in over]
        kept = self._kept.live()
        return [
            Hello(role="bridge", pid=os.getpid(), node=self._node),
            CallSnapshot(
                ts=time.time(),
                calls=[b.call.started_event() for b in live] + [k.kept.started for k in kept],
                answered=[b.call_id for b in live if b.call.answered_ts]
                + [k.call_id for k in kept if k.kept.answered_ts],
                paused=[b.call_id for b in live if b.call.paused]
                + [k.call_id for k in kept if k.kept.paused],
                held=[b.call_id for b in live if b.call.on_hold]
                + [k.call_id for k in kept if k.on_hold],
                waits=[b.call_id for b in live if b.call.notice_waits],
                choices={b.call_id: one for b in live if (one := b.call.notice_choice)}
                | {k.call_id: k.kept.choice for k in kept if k.kept.choice},
            ),
            *(b.caller_number for b in live if b.caller_number is not None),
            *self._help_wanted.values(),
            *self._phones_seen(),
        ]
