"""The notifier's side of the local bus: who comes and goes, what they say, and what they are told.

What a message means to calls and alerts is the board's (:mod:`notifier.board`); here it is decided
who may say it, and which part of the node takes it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import msgspec
import structlog

from callshield.bus import BusServer, Peer
from callshield.messages import (
    Action,
    AlertRaised,
    CallEnded,
    CallSnapshot,
    CallStarted,
    Command,
    CommandResult,
    CrisisHint,
    EarDose,
    Hello,
    NodeMessage,
    RiskChanged,
    VoiceTalk,
    WarningPlayed,
)
from callshield.messages_care import CallMarked, RecordingsHeld
from callshield.messages_evidence import EvidenceAnswer, EvidenceMade, OpenEvidence
from callshield.messages_fairness import CallerEnded, OpenRecording, RemoveMark, RingbackMarks
from callshield.messages_phones import (
    NotifySent,
    PhoneKey,
    PhoneKeyDone,
    PhoneSeen,
    ScreenPushed,
    ScreensLeft,
    SendNotify,
    ShowTest,
)
from callshield.messages_privacy import (
    CallerNumber,
    EraseRecordings,
    FileGiven,
    PrivacyAnswer,
    PrivacyRequest,
    RecordingsErased,
)
from notifier.detector_levels import DetectorLevels, said_abusive
from notifier.live import Entry
from notifier.phone_relay import ROLE as PHONES

if TYPE_CHECKING:
    from notifier.node import Node

log = structlog.get_logger()

#: Processes whose silence on the bus means that a part of the node is down.
WATCHED_ROLES = ("bridge", "detector")
#: A process that has not come this long after our start is said to be missing: a screen must not
#: promise protection that nobody gives.
ABSENT_AFTER_S = 15.0


class BusSide:
    """Serves the bus for one node.

    Args:
        node: whose parts take what is said.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._server: BusServer[NodeMessage] = BusServer(
            node.settings.bus_path, NodeMessage, self._on_message, self._on_close
        )
        self._levels = DetectorLevels(node.board, node.clock, self._fall)
        self._lost_check: asyncio.TimerHandle | None = None
        self._absent_check: asyncio.TimerHandle | None = None
        self._closing = False

    async def start(self) -> None:
        """Listen.

        Raises:
            BusError: the bus socket cannot be made.
        """
        await self._server.start()
        self._absent_check = asyncio.get_running_loop().call_later(
            ABSENT_AFTER_S, self._note_absent
        )

    def stop_noting(self) -> None:
        """We stop: who goes from now on is not down."""
        self._closing = True
        for check in (self._lost_check, self._absent_check):
            if check is not None:
                check.cancel()
        self._levels.close()

    async def close(self) -> None:
        """Hear nobody any more; :meth:`stop_noting` comes first."""
        await self._server.close()

    @property
    def peers(self) -> Collection[Peer[NodeMessage]]:
        """The processes that are connected."""
        return self._server.peers

    def connected(self, role: str) -> bool:
        """True when a process of this role is on the bus."""
        return any(peer.role == role for peer in self.peers)

    async def _on_message(self, peer: Peer[NodeMessage], message: NodeMessage) -> None:
        match message:
            case Hello():
                peer.role = message.role
                log.info("bus_peer_connected", role=message.role, pid=message.pid)
                if message.role in WATCHED_ROLES:
                    self._node.note(message.role, degraded=False)
                if message.role == "detector":
                    self._levels.detector_came(peer.send)
                if message.role == "bridge":
                    self._node.commands.bridge_came()
                    self._node.hearing.bridge_came(self._node.clock())
                    self._node.fairness.bridge_came()
                    self._repeat_levels(peer)
                    self._node.aftercare.bridge_came(peer.send)
                if message.role == PHONES:
                    self._node.phone_relay.came(peer)
                    self._node.phone_screens.came(peer)
                    if PHONES in self._node.board.degraded:
                        self._node.note(PHONES, degraded=False)
            case CommandResult():
                self._node.commands.answered(message)
            case Command():
                # Not awaited: a disk that is slow now must not keep the rest of the bus waiting.
                self._node.keep(asyncio.create_task(self._on_command(peer, message)))
            case ScreenPushed():
                if peer.role == PHONES:
                    self._node.phone_screens.pushed(message)
            case ShowTest():
                self._node.phone_screens.test(peer, message)
            case PhoneKey():
                if peer.role == PHONES:
                    self._node.phone_keys.take(message, peer.send)
            case RecordingsHeld() | EvidenceAnswer():
                pass  # ours to say
            case VoiceTalk():
                if peer.role == "bridge":
                    self._node.hearing.talk(message)
            case EarDose(last_of_call=False):
                if peer.role == "bridge":
                    self._node.hearing.dose(message)
            case SendNotify():
                self._node.phone_relay.wanted(peer, message)
            case NotifySent() if peer.role == "bridge":
                self._node.phone_relay.sent(message)
            case PhoneSeen() if peer.role == "bridge":
                self._node.phone_relay.seen(message)
            case NotifySent() | PhoneSeen() | PhoneKeyDone() | ScreensLeft():
                pass  # nobody else's to say
            case CallerEnded() | RingbackMarks() | OpenRecording() | RemoveMark():
                await self._node.fairness.on_message(message, peer.send)
            case OpenEvidence() | EvidenceMade():
                await self._node.aftercare.evidence_desk.on_message(message, peer.send)
            case CallerNumber() | RecordingsErased():
                if peer.role == "bridge":
                    self._node.privacy.from_bridge(message)
            case PrivacyRequest() | FileGiven() | PrivacyAnswer() | EraseRecordings():
                # Not awaited: an erasure waits for the bridge, which speaks on this very bus.
                self._node.keep(
                    asyncio.create_task(self._node.privacy.on_message(message, peer.send))
                )
            case _ if peer.role == PHONES:
                # It is called from the phones' network: no word of it makes a level or ends a call.
                log.warning("phones_said_more_than_it_may", message=type(message).__name__)
            case _:
                if isinstance(message, EarDose):
                    self._node.hearing.dose(message)
                if isinstance(message, RiskChanged):
                    self._levels.heard(message.call_id)
                if isinstance(message, RiskChanged | CrisisHint) and peer.role != "bridge":
                    # It softens shouting in the agent's ear and keeps automatic steps back.
                    self.to_bridge(message)
                self._node.metrics.received(message)
                self._node.record(self._node.board.apply(message))
                if isinstance(message, CallSnapshot):
                    self._tell_spared(message)
                    self._node.pbx.snapshot(message)
                    self._check_lost()

    async def _on_command(self, peer: Peer[NodeMessage], command: Command) -> None:
        """The bridge passes on what the agent keyed on the phone: help is ours to do.

        Answered when the alert is stored: until then the bridge asks again after a reconnect. A
        request for help opens words and lets a supervisor join: no other process says it for an
        agent.
        """
        if command.action is not Action.HELP or peer.role != "bridge":
            peer.send(CommandResult(command_id=command.command_id, status="not_supported"))
            return
        asked = await self._node.ask_for_help(command.call_id, request_id=command.command_id)
        if asked is None:
            peer.send(CommandResult(command_id=command.command_id, status="unknown_call"))
            return
        peer.send(
            CommandResult(command_id=command.command_id, status="done" if asked[1] else "already")
        )

    def _on_close(self, peer: Peer[NodeMessage]) -> None:
        if self._closing:
            return
        log.info("bus_peer_gone", role=peer.role)
        self._node.phone_relay.gone(peer)
        if peer.role == "bridge" and not self.connected("bridge"):
            self._node.commands.bridge_left()
        if peer.role in WATCHED_ROLES and not self.connected(peer.role):
            self._node.note(peer.role, degraded=True, reason="disconnected")
        if peer.role == PHONES and self._node.phone_screens.expected and not self.connected(PHONES):
            self._node.note(PHONES, degraded=True, reason="disconnected")

    def _note_absent(self) -> None:
        for role in WATCHED_ROLES:
            expected = role != "detector" or self._node.settings.detector.enabled
            if expected and not self.connected(role):
                self._node.note(role, degraded=True, reason="not connected")
        if self._node.phone_screens.expected and not self.connected(PHONES):
            self._node.note(PHONES, degraded=True, reason="not connected")

    def _check_lost(self) -> None:
        self._node.record(self._node.board.end_lost(self._node.clock()))
        if self._node.board.has_missing and self._lost_check is None:
            self._lost_check = asyncio.get_running_loop().call_later(0.5, self._lost_check_again)

    def _lost_check_again(self) -> None:
        self._lost_check = None
        self._check_lost()

    def _repeat_levels(self, bridge: Peer[NodeMessage]) -> None:
        """What a bridge may have missed while its connection was away."""
        for call in self._node.board.calls.values():
            if call.crisis_ts is not None:
                bridge.send(CrisisHint(ts=call.crisis_ts, call_id=call.call_id))
            if call.peak_level:
                level = RiskChanged(
                    ts=self._node.clock(),
                    call_id=call.call_id,
                    level=call.level,
                    previous=call.level,
                    categories=list(call.categories),
                    score=0.0,
                    acoustic_only=call.acoustic_only,
                    words_confirmed=call.words_confirmed,
                    may_trigger=call.may_trigger,
                )
                bridge.send(self._for_bridge(level))

    def _fall(self, level: RiskChanged) -> None:
        self.to_bridge(level)
        self._node.record(self._node.board.apply(level))

    def tell_detector(self, entries: Sequence[Entry]) -> None:
        """Whose call it is, and when its agent asked for help or warned the caller."""
        for entry in entries:
            event = entry.event
            match event:
                case CallStarted() | CallEnded() | WarningPlayed() | AlertRaised(kind="help"):
                    for peer in self.peers:
                        if peer.role == "detector":
                            peer.send(event)

    def _tell_spared(self, snapshot: CallSnapshot) -> None:
        """Calls that the store knew, too: it does not keep whose sound is not to be judged."""
        for started in snapshot.calls:
            for peer in self.peers if started.spared else ():
                if peer.role == "detector":
                    peer.send(started)

    def _for_bridge(self, message: RiskChanged) -> RiskChanged:
        call = self._node.board.calls.get(message.call_id)
        return message if call is None else self._node.shadow.for_bridge(message, call.agent_id)

    def to_bridge(
        self,
        message: Command
        | RiskChanged
        | CrisisHint
        | CallMarked
        | RingbackMarks
        | RecordingsHeld
        | EraseRecordings,
    ) -> bool:
        """Tell the bridge; False when none is connected."""
        # A level softens the ear and keeps automatic steps back; what was said is nothing to it.
        if isinstance(message, RiskChanged):
            level = self._for_bridge(message)
            message = msgspec.structs.replace(level, reasons=[], score=0.0)
        elif isinstance(message, CrisisHint):
            message = msgspec.structs.replace(message, words=[], detail="")
        for peer in self.peers:
            if peer.role == "bridge":
                peer.send(message)
                return True
        return False

    def say_abusive(self, call_id: str) -> bool:
        """The agent says that this is severe abuse; False when no detector is there to take it."""
        command = said_abusive(call_id)
        detectors = [peer for peer in self.peers if peer.role == "detector"]
        for peer in detectors:
            peer.send(command)
        return bool(detectors)
