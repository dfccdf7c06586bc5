"""What the process that writes on phones hears from us, and what it says of its pushes.

It hears level and category, never a reason, a word or a number; a client of the bus like others,
cut off when it does not read, so that nothing waits for it. What it says is counted by family,
and a family that keeps failing is a part of the node that is down.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import msgspec
import structlog

from callshield.bus import Peer
from callshield.messages import (
    AlertRaised,
    CallEnded,
    CallEnding,
    CallSnapshot,
    CallStarted,
    CrisisHint,
    Event,
    HelperChanged,
    NodeMessage,
    RiskChanged,
    WarningPlayed,
)
from callshield.messages_escalation import AlertAcknowledged, AlertUnanswered
from callshield.messages_phones import ScreenPushed, ScreensLeft, ShowTest
from callshield.settings import Settings
from notifier.board import Board
from notifier.live import Alert, Call, Entry
from notifier.phone_relay import ROLE

if TYPE_CHECKING:
    from notifier.metrics import Metrics

log = structlog.get_logger()

COMPONENT = "phone_screens"
#: Failures of a family one after another, each after its retry, that make it an alarm.
FAILS = 3
#: A family of fewer phones is counted with the others of that kind: a label must not be a person.
FEWEST = 5
#: Tests whose outcome somebody waits for.
_REMEMBERED = 100


class PhoneScreens:
    """Events to the process, and its reports from it.

    Args:
        settings: the node's configuration.
        board: calls and alerts.
        peers: who is on the bus now.
        metrics: where pushes are counted.
        note: tells that a component is down (True) or works again, and why.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        settings: Settings,
        board: Board,
        peers: Callable[[], Iterable[Peer[NodeMessage]]],
        metrics: Metrics,
        note: Callable[[str, bool, str], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._board = board
        self._peers = peers
        self._metrics = metrics
        self._note = note
        self._clock = clock
        self._failed: dict[str, int] = {}
        self._showing: set[str] = set()
        """Agents whose phone took a screen that was not taken away; in memory alone."""
        self._asked: OrderedDict[str, Peer[NodeMessage]] = OrderedDict()

    @property
    def expected(self) -> bool:
        """Somebody configured it, so that its absence is a fault."""
        phones = self._settings.phones
        told = any(agent.phone_model for agent in self._settings.agents.values())
        return phones.enabled and (bool(phones.port) or bool(phones.families) or told)

    # -------------------------------------------------------------------------- what it hears

    def came(self, peer: Peer[NodeMessage]) -> None:
        """It is on the bus: it hears what is true now, and forgets what is not."""
        live = [
            call for call in self._board.calls.values() if call.ending_ts is None and not call.left
        ]
        now = self._clock()
        started = [_started(call) for call in live]
        peer.send(CallSnapshot(ts=now, calls=started))
        for call in live:
            for event in self._of_call(call, now):
                peer.send(event)
        if self._showing:
            peer.send(ScreensLeft(agent_ids=sorted(self._showing)))

    def feed(self, entries: Sequence[Entry]) -> None:
        """What happened, before it is stored: a level must not wait for a disk."""
        for entry in entries:
            event = entry.event
            if isinstance(
                event,
                CallStarted
                | RiskChanged
                | CrisisHint
                | WarningPlayed
                | HelperChanged
                | CallEnding
                | CallEnded,
            ):
                self._say(event)

    def published(self, entries: Sequence[Entry]) -> None:
        """What was stored: that somebody was called, or comes, is said when it is sure."""
        for entry in entries:
            event = entry.event
            match event:
                case AlertRaised(kind="help") | AlertAcknowledged() | AlertUnanswered():
                    self._say(event)

    def _say(self, event: Event) -> None:
        peers = [peer for peer in self._peers() if peer.role == ROLE]
        if not peers:
            return
        said = plain(event)
        for peer in peers:
            peer.send(said)

    def _of_call(self, call: Call, now: float) -> Iterable[Event]:
        # Level 0, too: it may have fallen while the process was away.
        yield RiskChanged(
            ts=now,
            call_id=call.call_id,
            level=call.level,
            previous=call.level,
            categories=list(call.categories),
            score=0.0,
        )
        if call.crisis_ts is not None:
            yield CrisisHint(ts=call.crisis_ts, call_id=call.call_id)
        if call.warnings:
            yield WarningPlayed(
                ts=now,
                call_id=call.call_id,
                agent_id=call.agent_id,
                grade=call.warnings,
                complete=True,
            )
        for alert in self._help_of(call.call_id):
            yield AlertRaised(
                ts=alert.raised_ts,
                alert_id=alert.alert_id,
                call_id=call.call_id,
                agent_id=call.agent_id,
                kind="help",
                level=alert.level,
            )
            if alert.acknowledged_ts is not None:
                yield AlertAcknowledged(
                    ts=alert.acknowledged_ts,
                    alert_id=alert.alert_id,
                    call_id=call.call_id,
                    by="",
                    how=alert.how or "seen",
                )

    def _help_of(self, call_id: str) -> list[Alert]:
        """The last request for help of a call, open before taken."""
        known = [*self._board.taken.values(), *self._board.alerts.values()]
        found = [alert for alert in known if alert.kind == "help" and alert.call_id == call_id]
        return found[-1:]

    # --------------------------------------------------------------------------- what it says

    def pushed(self, message: ScreenPushed) -> None:
        """What came of a push."""
        asker = self._asked.pop(message.request_id, None) if message.request_id else None
        if asker is not None:
            asker.send(message)
        if not message.method:
            return  # nothing was sent
        if message.ok and message.kind == "clear":
            self._showing.discard(message.agent_id)
        elif message.ok and message.kind != "test" and message.agent_id in self._settings.agents:
            self._showing.add(message.agent_id)
        family = message.profile if message.family_agents >= FEWEST else "few"
        outcome = "taken" if message.ok else "not_taken"
        self._metrics.phone_screens.labels(family, outcome).inc()
        if message.tries > 1:
            self._metrics.phone_retries.labels(family).inc(message.tries - 1)
        if message.ok:
            self._metrics.phone_screen_seconds.labels(family).observe(message.took_ms / 1000)
        if message.kind != "test":
            self._judge(message)

    def test(self, asker: Peer[NodeMessage], message: ShowTest) -> None:
        """Somebody at the command line wants to see a few words on a phone."""
        phones = next((peer for peer in self._peers() if peer.role == ROLE), None)
        if phones is None:
            asker.send(
                ScreenPushed(
                    agent_id=message.agent_id,
                    call_id="",
                    profile="",
                    method="",
                    kind="test",
                    ok=False,
                    reason="the process that writes on phones does not run: see phones.enabled",
                    request_id=message.request_id,
                )
            )
            return
        self._asked[message.request_id] = asker
        while len(self._asked) > _REMEMBERED:
            self._asked.popitem(last=False)
        phones.send(message)

    def _judge(self, message: ScreenPushed) -> None:
        failing = self._failing()
        if message.ok:
            self._failed.pop(message.profile, None)
        else:
            self._failed[message.profile] = self._failed.get(message.profile, 0) + 1
        if self._failing() != failing:
            families = self._failing()
            reason = f"{', '.join(families)}: {message.reason}" if families else ""
            self._note(COMPONENT, bool(families), reason)

    def _failing(self) -> list[str]:
        return sorted(family for family, count in self._failed.items() if count >= FAILS)


def plain(event: Event) -> Event:
    """An event without what a phone never shows: reasons, quotations, numbers."""
    match event:
        case RiskChanged():
            return msgspec.structs.replace(event, reasons=[], score=0.0)
        case CrisisHint():
            return CrisisHint(ts=event.ts, call_id=event.call_id)
        case CallStarted():
            return msgspec.structs.replace(event, pbx_call_id="", pbx_channel="")
        case AlertAcknowledged():
            return msgspec.structs.replace(event, by="", supervisor_id="")
        case HelperChanged():
            return msgspec.structs.replace(event, by="", helper_id="", pbx_call_id="")
        case _:
            return event


def _started(call: Call) -> CallStarted:
    return CallStarted(
        ts=call.started_ts,
        call_id=call.call_id,
        agent_id=call.agent_id,
        pbx_call_id="",
        direction=call.direction,
    )
