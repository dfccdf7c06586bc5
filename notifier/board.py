"""What is true now: live calls, open alerts, parts that are down. Pure: events in, entries out.

Nothing here waits, reads a clock or touches a disk. :meth:`Board.apply` takes one event and
returns the entries to store and then send, derived alerts included.

An alert of kind ``risk`` is raised when a call's level reaches the configured one. It is raised
again only when the level goes **higher** than it was ever alerted in this call, or when it rises
again **after somebody acknowledged** the last one: a level that flickers round the threshold
makes one alert, and an acknowledged storm that comes back makes a new one.
"""

from __future__ import annotations

import re
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from callshield.messages import (
    AlertAcknowledged,
    AlertRaised,
    CallAnswered,
    CallEnded,
    CallEnding,
    CallSnapshot,
    CallStarted,
    Direction,
    EarDose,
    Event,
    MediaQuality,
    NodeDegraded,
    NoticeFinished,
    NoticeStarted,
    Reason,
    RecordingChanged,
    RestChanged,
    RiskChanged,
    TapStarted,
    WarningPlayed,
)

if TYPE_CHECKING:
    from notifier.rest import Rest

AlertKind = Literal["risk", "help", "notice_failed", "node"]

#: A bridge that reconnects says its snapshot first and then what it had queued: an end that is
#: still in that queue carries the true reason, so "lost" waits this long for it.
LOST_AFTER_S = 2.0
#: Ended calls and taken alerts remembered, so that a late press gets a true answer.
_REMEMBERED = 2000
_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(slots=True)
class Call:
    """One call as far as it is known; a row of ``calls``."""

    call_id: str
    agent_id: str
    pbx_call_id: str
    pbx: str
    started_ts: float
    answered_ts: float | None = None
    notice: str = ""
    """``""``, ``playing``, or the source of :class:`NoticeFinished`."""
    tapped: bool = False
    level: int = 0
    peak_level: int = 0
    alerted_level: int = 0
    """Highest level for which an alert was raised since the last acknowledged rise."""
    categories: list[str] = field(default_factory=list)
    reasons: list[Reason] = field(default_factory=list)
    warnings: int = 0
    """Grade of the last warning played."""
    ending_ts: float | None = None
    ended_ts: float | None = None
    end_reason: str = ""
    duration_s: float = 0.0
    direction: Direction = Direction.INBOUND
    """Not in the row: every bridge says it again when it connects."""


@dataclass(slots=True)
class Alert:
    """One alert; a row of ``alerts``."""

    alert_id: str
    call_id: str
    agent_id: str
    kind: AlertKind
    level: int
    categories: list[str]
    reason: str
    raised_ts: float
    acknowledged_ts: float | None = None
    acknowledged_by: str = ""
    """Token id, never a name."""


@dataclass(slots=True)
class Entry:
    """One event on its way: to the store, then to whoever may see it."""

    event: Event
    audience: str | None
    """Agent who may see it besides supervisors; ``None`` for everybody, ``""`` for no agent."""
    call: Call | None = None
    alert: Alert | None = None
    event_id: int = 0
    """Given by the journal."""
    rest: Rest | None = None

    @property
    def is_alert(self) -> bool:
        """True for what may never be dropped: an alert, and an agent's rest."""
        return self.alert is not None or self.rest is not None

    def body(self) -> dict[str, Any]:
        """The event as it is stored and sent; every event of a call carries the PBX's own id of
        it, whichever process it came from."""
        body: dict[str, Any] = msgspec.to_builtins(self.event)
        if self.call is not None:
            body["agent_id"] = self.call.agent_id
            body["pbx_call_id"] = self.call.pbx_call_id
        return body


def _new_id() -> str:
    return uuid.uuid4().hex


class Board:
    """The state, and the rules by which events change it.

    Args:
        alert_level: ``alerts.level``, 1-3.
        new_id: makes alert ids (32 hexadecimal digits).
    """

    def __init__(self, alert_level: int, new_id: Callable[[], str] = _new_id) -> None:
        self._alert_level = alert_level
        self._new_id = new_id
        self.calls: dict[str, Call] = {}
        self.ended: OrderedDict[str, Call] = OrderedDict()
        self.alerts: dict[str, Alert] = {}
        self.taken: OrderedDict[str, Alert] = OrderedDict()
        self.degraded: dict[str, NodeDegraded] = {}
        """Parts of the node that are down, by component."""
        self.ignored = 0
        """Events that fit no live call."""
        self._missing: dict[str, float] = {}

    def restore(
        self,
        calls: Iterable[Call],
        alerts: Iterable[Alert],
        degraded: Iterable[NodeDegraded],
        taken_help: Iterable[Alert] = (),
    ) -> None:
        """Take over what a former process stored."""
        self.calls = {call.call_id: call for call in calls}
        self.alerts = {alert.alert_id: alert for alert in alerts}
        self.degraded = {item.component: item for item in degraded}
        for alert in taken_help:
            _remember(self.taken, alert.alert_id, alert)

    def apply(self, event: Event) -> list[Entry]:
        """Take one event from the bus.

        Returns:
            What to store and send, in order; empty for an event that changes nothing or that
            belongs to no live call.
        """
        match event:
            case CallSnapshot():
                return self._snapshot(event)
            case CallStarted():
                return self._started(event)
            case NodeDegraded():
                return self._node(event)
            case AlertRaised():
                return self._alert(event)
            case RestChanged():
                return []  # rests are ours to say
            case _:
                call = self.calls.get(event.call_id)
                if call is None and isinstance(event, EarDose | MediaQuality | RecordingChanged):
                    # Said when the ports close, after the end of the call.
                    call = self.ended.get(event.call_id)
                if call is None:
                    self.ignored += 1
                    return []
                return self._in_call(call, event)

    def _started(self, event: CallStarted) -> list[Entry]:
        self._missing.pop(event.call_id, None)
        known = self.ended.get(event.call_id)
        if event.call_id in self.calls:
            self.calls[event.call_id].direction = event.direction
            return []
        if known is not None and known.end_reason != "lost":
            return []
        self.ended.pop(event.call_id, None)
        call = Call(event.call_id, event.agent_id, event.pbx_call_id, event.pbx, event.ts)
        call.direction = event.direction
        self.calls[call.call_id] = call
        return [Entry(event, call.agent_id, call)]

    def _in_call(self, call: Call, event: Event) -> list[Entry]:
        entries = [Entry(event, call.agent_id, call)]
        match event:
            case CallAnswered():
                if call.answered_ts is not None:
                    return []
                call.answered_ts = event.ts
            case NoticeStarted():
                call.notice = "playing"
            case NoticeFinished():
                call.notice = event.source
                call.tapped = event.tapped
                if event.source == "failed":
                    entries += self._raise("notice_failed", call, event.ts, "notice_failed")
            case TapStarted():
                call.tapped = True
            case RiskChanged() if event.level == call.level:
                return []  # the detector repeats its levels after a reconnect
            case RiskChanged():
                entries += self._risk(call, event)
            case WarningPlayed():
                call.warnings = event.grade
            case CallEnding():
                if call.ending_ts is not None:
                    return []
                call.ending_ts = event.ts
            case CallEnded():
                call.ended_ts = event.ts
                call.end_reason = event.reason
                call.duration_s = event.duration_s
                del self.calls[call.call_id]
                self._missing.pop(call.call_id, None)
                _remember(self.ended, call.call_id, call)
            case AlertAcknowledged():
                # Only a person at the API acknowledges.
                return []
        return entries

    def _risk(self, call: Call, event: RiskChanged) -> list[Entry]:
        rose = event.level > call.level
        call.level = event.level
        call.peak_level = max(call.peak_level, event.level)
        call.categories = list(event.categories)
        call.reasons = list(event.reasons)
        if event.level < self._alert_level:
            return []
        again = rose and not self._is_open("risk", call.call_id)
        if event.level <= call.alerted_level and not again:
            return []
        call.alerted_level = event.level
        return self._raise("risk", call, event.ts, ",".join(event.categories))

    def _is_open(self, kind: AlertKind, call_id: str) -> bool:
        return any(item.kind == kind and item.call_id == call_id for item in self.alerts.values())

    def _raise(
        self, kind: AlertKind, call: Call, ts: float, reason: str, alert_id: str = ""
    ) -> list[Entry]:
        alert = Alert(
            alert_id or self._new_id(),
            call.call_id,
            call.agent_id,
            kind,
            call.level,
            list(call.categories),
            reason,
            ts,
        )
        self.alerts[alert.alert_id] = alert
        raised = AlertRaised(
            ts=ts,
            alert_id=alert.alert_id,
            call_id=call.call_id,
            agent_id=call.agent_id,
            kind=kind,
            level=call.level,
            categories=list(call.categories),
            reason=reason,
        )
        return [Entry(raised, call.agent_id, call, alert)]

    def _alert(self, event: AlertRaised) -> list[Entry]:
        """An alert that another process asks for (help pressed on the phone)."""
        call = self.calls.get(event.call_id)
        if call is None:
            self.ignored += 1
            return []
        if self._is_open(event.kind, call.call_id):
            return []
        return self._raise(event.kind, call, event.ts, event.reason)

    def _node(self, event: NodeDegraded) -> list[Entry]:
        if event.call_id:
            call = self.calls.get(event.call_id)
            return [Entry(event, call.agent_id if call else "", call)]
        if event.degraded:
            known = self.degraded.get(event.component)
            if known is not None and known.reason == event.reason:
                return []
            self.degraded[event.component] = event
        elif self.degraded.pop(event.component, None) is None:
            return []
        return [Entry(event, None)]

    def _snapshot(self, event: CallSnapshot) -> list[Entry]:
        entries: list[Entry] = []
        present = {call.call_id for call in event.calls}
        for call_id in self.calls:
            if call_id in present:
                self._missing.pop(call_id, None)
            else:
                self._missing.setdefault(call_id, event.ts)
        for started in event.calls:
            entries += self._started(started)
        for call_id in event.answered:
            call = self.calls.get(call_id)
            if call is not None and call.answered_ts is None:
                entries += self._in_call(
                    call,
                    CallAnswered(
                        ts=event.ts,
                        call_id=call_id,
                        agent_id=call.agent_id,
                        pbx_call_id=call.pbx_call_id,
                    ),
                )
        return entries

    @property
    def has_missing(self) -> bool:
        """True while :meth:`end_lost` has something to wait for."""
        return bool(self._missing)

    def end_lost(self, now: float) -> list[Entry]:
        """End the calls that a snapshot did not name and whose end nobody told since.

        Args:
            now: seconds since the epoch.
        """
        entries: list[Entry] = []
        for call_id, since in list(self._missing.items()):
            # A clock set back must not keep a dead call alive.
            if 0 <= now - since < LOST_AFTER_S:
                continue
            del self._missing[call_id]
            call = self.calls[call_id]
            spoken_s = 0.0 if call.answered_ts is None else max(0.0, since - call.answered_ts)
            entries += self._in_call(
                call,
                CallEnded(
                    ts=now,
                    call_id=call_id,
                    agent_id=call.agent_id,
                    reason="lost",
                    duration_s=round(spoken_s, 3),
                    pbx_call_id=call.pbx_call_id,
                ),
            )
        return entries

    def ask_for_help(
        self, call_id: str, ts: float, request_id: str = ""
    ) -> tuple[Alert, list[Entry]] | None:
        """The agent of a live call asks for a supervisor, at whatever level.

        Args:
            call_id: the call.
            ts: when, seconds since the epoch.
            request_id: becomes the alert's id when it can, so that a bridge knows its own
                request again.

        Returns:
            The alert, and what to store (empty when this call's help request is still open);
            ``None`` when the call is not live.
        """
        call = self.calls.get(call_id)
        if call is None:
            return None
        for alert in self.alerts.values():
            if alert.kind == "help" and alert.call_id == call_id:
                return alert, []
        usable = _ID.fullmatch(request_id) is not None and not self._knows_alert(request_id)
        entries = self._raise("help", call, ts, "help", request_id if usable else "")
        alert = next(iter(reversed(self.alerts.values())))
        return alert, entries

    def _knows_alert(self, alert_id: str) -> bool:
        return alert_id in self.alerts or alert_id in self.taken

    def open_help(self, call_id: str | None = None) -> list[Alert]:
        """Calls for help that nobody has taken, of one live call or of all."""
        return [
            alert
            for alert in self.alerts.values()
            if alert.kind == "help"
            and alert.call_id in self.calls
            and call_id in (None, alert.call_id)
        ]

    def help_was_asked(self, call_id: str) -> bool:
        """True when this call's agent asked for a supervisor, taken or not."""
        known = [*self.alerts.values(), *self.taken.values()]
        return any(item.kind == "help" and item.call_id == call_id for item in known)

    def acknowledge(self, alert_id: str, by: str, ts: float) -> tuple[Alert, list[Entry]] | None:
        """One person takes an alert; the first wins.

        Returns:
            The alert, and what to store: empty when somebody took it before
            (:attr:`Alert.acknowledged_by` says who). ``None`` when it is not known here.
        """
        taken = self.taken.get(alert_id)
        if taken is not None:
            return taken, []
        alert = self.alerts.pop(alert_id, None)
        if alert is None:
            return None
        alert.acknowledged_ts = ts
        alert.acknowledged_by = by
        _remember(self.taken, alert_id, alert)
        event = AlertAcknowledged(ts=ts, alert_id=alert_id, call_id=alert.call_id, by=by)
        call = self.calls.get(alert.call_id) or self.ended.get(alert.call_id)
        return alert, [Entry(event, alert.agent_id, call, alert)]


def _remember(memory: OrderedDict[str, Any], key: str, value: Any) -> None:
    memory[key] = value
    while len(memory) > _REMEMBERED:
        memory.popitem(last=False)
