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
from typing import Any

import msgspec

from callshield.messages import (
    AlertAcknowledged,
    AlertEscalated,
    AlertJudged,
    AlertRaised,
    AlertRefused,
    AlertUnanswered,
    CallAnalysed,
    CallAnswered,
    CallEnded,
    CallEnding,
    CallLength,
    CallSnapshot,
    CallStarted,
    CrisisHint,
    EarChanged,
    EarDose,
    EarWarning,
    Event,
    HelperChanged,
    HoldChanged,
    MediaQuality,
    NodeDegraded,
    NoticeFinished,
    NoticeStarted,
    PauseChanged,
    PolicyAdvice,
    RecordingChanged,
    RecordRead,
    RestChanged,
    RetentionDeleted,
    RiskChanged,
    StoreRestored,
    TapStarted,
    WarningPlayed,
)
from callshield.messages_care import (
    AgentSaid,
    BreakChanged,
    CallbackChanged,
    CallMarked,
    EvidenceRequested,
)
from callshield.messages_escalation import AcceptedHow
from callshield.messages_evidence import EvidenceChanged, EvidenceExported
from callshield.messages_fairness import FAIRNESS_EVENTS, AlertWithheld, RingbackSeen
from callshield.messages_notice import PromptPlayed, ProtectionChanged
from callshield.messages_privacy import PRIVACY_EVENTS
from callshield.purposes import heard
from notifier.call_levels import highest_score, is_known, take_level, tells_of_words
from notifier.live import Alert, AlertKind, Call, Entry
from notifier.shadow import Shadow, rules_of, withheld_row

#: A bridge that reconnects says its snapshot first and then what it had queued: an end that is
#: still in that queue carries the true reason, so "lost" waits this long for it.
LOST_AFTER_S = 2.0
#: Words of a call that ended are still taken for so long, seconds: the detector drops what waited
#: longer.
LATE_S = 30.0
#: Rule of the agent's own word that it is severe, and the reason of an alert that came of it: a
#: person's, never set against what the machine heard.
AGENT_PRESS = "agent_press"
#: Ended calls and taken alerts remembered, so that a late press gets a true answer.
_REMEMBERED = 2000
_ID = re.compile(r"[0-9a-f]{32}")
#: What the notifier itself says; from the bus it is nobody's to say.
_OURS = (
    AgentSaid,
    AlertEscalated,
    AlertJudged,
    AlertRefused,
    AlertUnanswered,
    BreakChanged,
    CallbackChanged,
    CallLength,
    CallMarked,
    EvidenceChanged,
    EvidenceExported,
    EvidenceRequested,
    PolicyAdvice,
    RecordRead,
    RestChanged,
    RetentionDeleted,
    StoreRestored,
    *(event for event in FAIRNESS_EVENTS if event is not RingbackSeen),
    *PRIVACY_EVENTS,
)
_OF_CLOSED_PORTS = (EarDose, EarWarning, MediaQuality, PromptPlayed, RecordingChanged)


def _new_id() -> str:
    return uuid.uuid4().hex


class Board:
    """The state, and the rules by which events change it.

    Args:
        alert_level: ``alerts.level``, 1-3.
        new_id: makes alert ids (32 hexadecimal digits).
        crisis_line: number and name that the agent of a caller in danger is shown.
        shadow: which calls are in shadow mode; none when absent.
    """

    def __init__(
        self,
        alert_level: int,
        new_id: Callable[[], str] = _new_id,
        crisis_line: tuple[str, str] = ("", ""),
        shadow: Shadow | None = None,
    ) -> None:
        self.alert_level_of: Callable[[str], int] = lambda agent_id: alert_level
        """Level from which an alert is raised for an agent's calls; a team's policy may say."""
        self._shadow = shadow
        self._withheld: set[tuple[str, str]] = set()
        """Kind and call of alerts that shadow mode kept back, as if they were open."""
        self._crisis_line = crisis_line
        self._new_id = new_id
        self.calls: dict[str, Call] = {}
        self.ended: OrderedDict[str, Call] = OrderedDict()
        self.alerts: dict[str, Alert] = {}
        self.taken: OrderedDict[str, Alert] = OrderedDict()
        self._helped: OrderedDict[str, None] = OrderedDict()
        """Calls whose agent asked for help: asked at every event and for every screen."""
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
        for call in self.calls.values():
            call.shadow = self._in_shadow(call.agent_id)
        self.alerts = {alert.alert_id: alert for alert in alerts}
        self.degraded = {item.component: item for item in degraded}
        for alert in taken_help:
            _remember(self.taken, alert.alert_id, alert)
        for alert in [*self.alerts.values(), *self.taken.values()]:
            if alert.kind == "help":
                self._help_asked(alert.call_id)

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
            case _ if isinstance(event, _OURS):
                return []
            case RingbackSeen():
                call = self.calls.get(event.call_id)
                return [] if call is None else [Entry(event, call.agent_id, call)]
            case CallAnalysed():
                # Of a call that may have ended half a minute ago, or before we were started.
                return [Entry(event, "", analysed=event)]
            case _:
                call = self.calls.get(event.call_id)
                if call is None and isinstance(event, _OF_CLOSED_PORTS):
                    # Said when the ports close, after the end of the call.
                    call = self.ended.get(event.call_id)
                if call is None and isinstance(event, RiskChanged | CrisisHint):
                    return self._late(event)
                if call is None:
                    self.ignored += 1
                    return []
                return self._in_call(call, event)

    def _started(self, event: CallStarted) -> list[Entry]:
        self._missing.pop(event.call_id, None)
        known = self.ended.get(event.call_id)
        if event.call_id in self.calls:
            self.calls[event.call_id].direction = event.direction
            self.calls[event.call_id].spared = event.spared
            return []
        if known is not None and known.end_reason != "lost":
            return []
        self.ended.pop(event.call_id, None)
        call = Call(event.call_id, event.agent_id, event.pbx_call_id, event.pbx, event.ts)
        call.direction = event.direction
        call.spared = event.spared
        call.shadow = self._in_shadow(event.agent_id)
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
                call.waits = event.waits
                call.purposes = heard(event.prompts, call.purposes)
                if event.source == "failed":
                    entries += self._raise("notice_failed", call, event.ts, "notice_failed")
            case PromptPlayed():
                call.purposes = heard([event.stamp], call.purposes)
            case ProtectionChanged():
                call.tapped = event.protected
                call.waits = False
                call.choice = event.reason
            case RecordingChanged():
                call.recording = event.state == "recording"
            case TapStarted():
                call.tapped = True
            case RiskChanged() if is_known(call, event):
                return []  # the detector repeats its levels after a reconnect
            case RiskChanged():
                entries[0].words_for_supervisors = self.help_was_asked(call.call_id)
                entries += self._risk(call, event)
            case CrisisHint():
                return self._crisis(call, event)
            case WarningPlayed():
                call.warnings = event.grade
            case PauseChanged():
                call.paused = event.paused
            case HoldChanged():
                call.held = event.held
            case EarChanged():
                call.softening = event.softening
            case HelperChanged() if event.state == "took_over":
                call.left = True
            case CallEnding():
                if call.ending_ts is not None:
                    return []
                call.ending_ts = event.ts
            case CallEnded():
                call.ended_ts = event.ts
                call.end_reason = event.reason
                call.duration_s = event.duration_s
                del self.calls[call.call_id]
                self._withheld -= {("risk", call.call_id), ("crisis", call.call_id)}
                self._missing.pop(call.call_id, None)
                _remember(self.ended, call.call_id, call)
            case AlertAcknowledged():
                # Only a person at the API acknowledges.
                return []
        return entries

    def _late(self, event: RiskChanged | CrisisHint) -> list[Entry]:
        """The last words of a call, understood after its end.

        Abuse is put on record: the call's peak and its agent's screen know, no live alert says
        what nobody can act upon any more. Somebody in danger is still to be called back.
        """
        call = self.ended.get(event.call_id)
        if call is None or call.ended_ts is None or event.ts - call.ended_ts > LATE_S:
            self.ignored += 1
            return []
        if isinstance(event, CrisisHint):
            return self._crisis(call, event)
        if not tells_of_words(event) or is_known(call, event):
            self.ignored += 1
            return []
        if event.level >= call.level:
            take_level(call, event)
        entry = Entry(msgspec.structs.replace(event, late=True), call.agent_id, call)
        entry.words_for_supervisors = self.help_was_asked(call.call_id)
        return [entry]

    def _risk(self, call: Call, event: RiskChanged) -> list[Entry]:
        rose = event.level > call.level
        take_level(call, event)
        if event.level < self.alert_level_of(call.agent_id):
            return []
        again = rose and not self._is_open("risk", call.call_id)
        if event.level <= call.alerted_level and not again:
            return []
        call.alerted_level = event.level
        pressed = any(reason.rule == AGENT_PRESS for reason in event.reasons)
        why = AGENT_PRESS if pressed else ",".join(event.categories)
        entries = self._raise("risk", call, event.ts, why)
        for entry in entries:
            if entry.alert is None:
                continue  # kept back
            entry.alert.effort_score = highest_score(event.reasons, "vocal_effort")
            # Words beside a level that sound made alone did not raise this alert: a threshold of
            # sound would have kept it away, and calibration has to know that.
            if not event.acoustic_only:
                entry.alert.word_score = highest_score(event.reasons, "words")
        return entries

    def _crisis(self, call: Call, event: CrisisHint) -> list[Entry]:
        """The caller may be in danger: told to the agent, and once to the supervisors."""
        if call.crisis_ts is not None and event.ts == call.crisis_ts:
            return []  # repeated after a reconnect
        first = call.crisis_ts is None
        call.crisis_ts = event.ts
        call.may_trigger = False
        number, name = self._crisis_line
        shown = msgspec.structs.replace(event, number=number, name=name)
        entry = Entry(shown, call.agent_id, call)
        entry.words_for_supervisors = self.help_was_asked(call.call_id)
        if first or not self._is_open("crisis", call.call_id):
            return [entry, *self._raise("crisis", call, event.ts, "crisis")]
        return [entry]

    def _in_shadow(self, agent_id: str) -> bool:
        return self._shadow is not None and self._shadow.covers(agent_id)

    def _is_open(self, kind: AlertKind, call_id: str) -> bool:
        if (kind, call_id) in self._withheld:
            return True
        return any(item.kind == kind and item.call_id == call_id for item in self.alerts.values())

    def _raise(
        self, kind: AlertKind, call: Call, ts: float, reason: str, alert_id: str = ""
    ) -> list[Entry]:
        if self._shadow is not None and self._shadow.withholds(call.agent_id, kind):
            return self._withhold(kind, call, ts)
        # In shadow mode what the node says of itself, or of a call-back, tells no level.
        told = kind == "help" or not call.shadow or self.help_was_asked(call.call_id)
        alert = Alert(
            alert_id or self._new_id(),
            call.call_id,
            call.agent_id,
            kind,
            call.level if told else 0,
            list(call.categories) if told else [],
            reason,
            ts,
        )
        self.alerts[alert.alert_id] = alert
        if kind == "help":
            self._help_asked(call.call_id)
        raised = AlertRaised(
            ts=ts,
            alert_id=alert.alert_id,
            call_id=call.call_id,
            agent_id=call.agent_id,
            kind=kind,
            level=alert.level,
            categories=list(alert.categories),
            reason=reason,
        )
        return [Entry(raised, call.agent_id, call, alert)]

    def _withhold(self, kind: AlertKind, call: Call, ts: float) -> list[Entry]:
        """Shadow mode: what would have been raised, for the figures of the group alone."""
        self._withheld.add((kind, call.call_id))
        kept = AlertWithheld(
            ts=ts,
            alert_id=self._new_id(),
            call_id=call.call_id,
            kind=kind,
            level=call.level,
            categories=list(call.categories),
            rules=rules_of(call.reasons) if kind == "risk" else [],
        )
        return [Entry(kept, "", rows=[withheld_row(kept)])]

    def callback_overdue(self, call_id: str, agent_id: str, ts: float) -> list[Entry]:
        """A call-back of a call, mostly of the past, was not done in time: somebody must look."""
        call = self.calls.get(call_id) or self.ended.get(call_id)
        if call is None:
            call = Call(call_id, agent_id, "", "", ts)
        entries = self._raise("callback", call, ts, "callback_overdue")
        for entry in entries:
            entry.call = None  # a call of the past is as it was
        return entries

    def has_open(self, kind: AlertKind, call_id: str) -> bool:
        """An alert of this kind about a call waits for somebody."""
        return self._is_open(kind, call_id)

    def _alert(self, event: AlertRaised) -> list[Entry]:
        """An alert that another process asks for; never a call for help, which opens words and
        lets a supervisor join: that is the agent's own press (:meth:`ask_for_help`)."""
        call = self.calls.get(event.call_id)
        if call is None or event.kind == "help":
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
        for known in self.calls.values():
            known.paused = known.call_id in event.paused
            known.held = known.call_id in event.held
            known.waits = known.call_id in event.waits
            known.choice = event.choices.get(known.call_id, "")
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
        return call_id in self._helped

    def _help_asked(self, call_id: str) -> None:
        self._helped[call_id] = None
        while len(self._helped) > max(_REMEMBERED, 2 * len(self.calls)):
            oldest = next(iter(self._helped))
            if oldest in self.calls:
                self._helped.move_to_end(oldest)
            else:
                del self._helped[oldest]

    def caller_is(self, call_id: str, pseudonym: str, key_id: str, sealed_number: str) -> None:
        """The bridge says by which pseudonym a live call's caller is found again. No event: it
        must be deletable. The call's row has it with the call's next event."""
        call = self.calls.get(call_id)
        if call is not None:
            call.caller_pseudonym, call.caller_key_id = pseudonym, key_id
            call.sealed_number = sealed_number

    def forget_call(self, call_id: str) -> None:
        """It was erased: nothing of it is known any more, and no late event brings it back."""
        self.ended.pop(call_id, None)
        self._helped.pop(call_id, None)
        for alerts in (self.alerts, self.taken):
            for alert in [alert for alert in alerts.values() if alert.call_id == call_id]:
                del alerts[alert.alert_id]

    def forget_alerts(self, alert_ids: Iterable[str]) -> None:
        """Retention deleted their rows: nobody can take them any more."""
        for alert_id in alert_ids:
            self.alerts.pop(alert_id, None)
            self.taken.pop(alert_id, None)

    def open_alerts(self, limit: int, sees: Callable[[str], bool]) -> list[Alert]:
        """Open alerts, oldest first; of more than ``limit`` calls for help and callers in danger
        before all others, and then the newest.

        Args:
            limit: how many.
            sees: whether the reader may see an agent's.
        """
        found = [alert for alert in self.alerts.values() if sees(alert.agent_id)]
        if len(found) > limit:
            found.sort(key=lambda alert: (alert.kind in ("help", "crisis"), alert.raised_ts))
            found = sorted(found[-limit:], key=lambda alert: alert.raised_ts)
        return found

    def acknowledge(
        self,
        alert_id: str,
        by: str,
        ts: float,
        how: AcceptedHow = "seen",
        supervisor_id: str = "",
    ) -> tuple[Alert, list[Entry]] | None:
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
        alert.how = how
        alert.supervisor_id = supervisor_id
        _remember(self.taken, alert_id, alert)
        event = AlertAcknowledged(
            ts=ts,
            alert_id=alert_id,
            call_id=alert.call_id,
            by=by,
            how=how,
            supervisor_id=supervisor_id,
        )
        call = self.calls.get(alert.call_id) or self.ended.get(alert.call_id)
        return alert, [Entry(event, alert.agent_id, call, alert)]


def _remember(memory: OrderedDict[str, Any], key: str, value: Any) -> None:
    memory[key] = value
    while len(memory) > _REMEMBERED:
        memory.popitem(last=False)
