"""The other nodes as this one knows them. Pure: messages and a clock in, findings out.

A peer is ``unknown`` until it is heard, ``up``, ``draining`` (it takes no new calls), ``stopped``
(it said goodbye) or ``away`` (it fell silent). Silence is judged by a clock that does not jump, and
only while the bus is seen to answer this node: who is cut off, or stood still, cannot tell who is
dead.

How a peer's calls and alerts stand comes from two sources that overlap: snapshots, and the state
that every batch of its events carries. Both name the newest event they were taken at; of one call
or alert the older never overwrites the newer.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict, deque
from collections.abc import Collection, Container, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from callshield.messages_cluster import AlertState, Batch, Beat, CallState, Snapshot

What = TypeVar("What", CallState, AlertState)
PeerState = Literal["unknown", "up", "draining", "stopped", "away"]
#: Ended calls, taken alerts and call-backs whose owner is remembered, for a late press.
_REMEMBERED = 5000
#: Each node waits so much longer than the one before it in the alphabet before it raises the alert
#: about a dead one, seconds: the first of them alone does it.
RANK_S = 2.0
#: A node that was never heard since this one began may be starting too: it has so long, seconds.
STARTS_WITHIN_S = 60.0
#: An event that a snapshot was ahead of comes within this, seconds, or was left out.
VANISHED_AFTER_S = 30.0
#: Heartbeats that must tell of other numbers before what is known counts as wrong.
_DIFFERING = 10


def away_alert_id(node: str, boot: str) -> str:
    """The id of the alert about one death: the same at whichever node raises it."""
    return hashlib.sha256(f"callshield away {node} {boot}".encode()).hexdigest()[:32]


@dataclass(slots=True)
class Peer:
    """One other node."""

    name: str
    state: PeerState = "unknown"
    beat: Beat | None = None
    heard: float = 0.0
    """When it was heard last; before that, since when one can listen. Monotonic seconds."""
    clock_offset_s: float = 0.0
    """Its clock less ours, when it was heard last."""
    offsets: deque[float] = field(default_factory=lambda: deque(maxlen=8))
    epoch: int = 0
    last_id: int = 0
    """Its newest event that is stored here, of this epoch."""
    calls: dict[str, CallState] = field(default_factory=dict)
    alerts: dict[str, AlertState] = field(default_factory=dict)
    callbacks: list[tuple[str, float]] = field(default_factory=list)
    """Agent and time of each open call-back, as of the last snapshot."""
    degraded: dict[str, str] = field(default_factory=dict)
    complete: bool = False
    """Nothing is missing in ``calls`` and ``alerts``: a snapshot was taken since it had to be."""
    boot: str = ""
    """Of the run of its notifier from which that snapshot came."""
    touched: OrderedDict[str, int] = field(default_factory=OrderedDict)
    """The event as of which the newest calls and alerts, over or not, are known."""
    alerted: str = ""
    """The alert about this silence that this node raised, or saw."""
    differing: int = 0
    """Heartbeats in a row whose numbers of calls and alerts are not those known here."""
    vanished: dict[str, tuple[float, CallState | AlertState]] = field(default_factory=dict)
    """What a snapshot had no more, and when its end is believed without an event of it."""

    @property
    def reachable(self) -> bool:
        return self.state in ("up", "draining")


@dataclass(frozen=True, slots=True)
class Changed:
    """A peer is in another state now."""

    peer: Peer
    before: PeerState
    silent_s: float = 0.0


@dataclass(frozen=True, slots=True)
class RaiseAway:
    """This node is the one to raise the alert about a peer's silence."""

    peer: Peer
    alert_id: str
    silent_s: float


@dataclass(frozen=True, slots=True)
class Vanished:
    """A call or alert of a peer is over, and no event told it: it was left out, or lost."""

    peer: Peer
    what: CallState | AlertState


Finding = Changed | RaiseAway | Vanished


class Peers:
    """All other nodes.

    Args:
        own: our name.
        names: of all nodes.
        dead_after_s: silence that counts as death.
        stopped_after_s: silence after a goodbye that does.
    """

    def __init__(
        self, own: str, names: Iterable[str], dead_after_s: float, stopped_after_s: float
    ) -> None:
        self.own = own
        self._dead_after_s = dead_after_s
        self._stopped_after_s = stopped_after_s
        self.all = {name: Peer(name) for name in sorted(names) if name != own}
        self._listening = False
        self._answered = 0.0
        """When the bus was last seen to answer."""
        self._owners: OrderedDict[str, str] = OrderedDict()

    def __iter__(self) -> Iterator[Peer]:
        return iter(self.all.values())

    def get(self, name: str) -> Peer | None:
        """``None`` for a name that is not configured, our own among them."""
        return self.all.get(name)

    # ------------------------------------------------------------------------------- life and death

    def bus_answers(self, now: float) -> None:
        """The bus has answered just now. Where it had not for a while, silence counts from now."""
        if not self._listening or now - self._answered > self._dead_after_s / 2:
            for peer in self:
                peer.heard = now
        self._listening = True
        self._answered = now

    def deaf(self) -> None:
        """The bus is away: nobody's silence means anything."""
        self._listening = False

    def heard(self, beat: Beat, now: float, ts: float) -> list[Finding]:
        """A heartbeat came.

        Args:
            beat: of a configured peer.
            now: monotonic seconds.
            ts: our wall clock, seconds since the epoch.
        """
        peer = self.all[beat.node]
        before = peer.state
        peer.beat, peer.heard = beat, now
        # What was late on its way looks like a clock that is behind: the newest few, the best of
        # them.
        peer.offsets.append(beat.ts - ts)
        peer.clock_offset_s = max(peer.offsets)
        peer.state = beat.state
        if peer.reachable:
            peer.alerted = ""
        same = (len(peer.calls), len(peer.alerts)) == (beat.calls, beat.alerts)
        peer.differing = 0 if same else peer.differing + 1
        return [Changed(peer, before)] if peer.state != before else []

    def tick(self, now: float) -> list[Finding]:
        """Time has passed."""
        if not self._listening:
            return []
        found: list[Finding] = []
        for peer in self:
            for key, (at, what) in list(peer.vanished.items()):
                if now >= at:
                    del peer.vanished[key]
                    found.append(Vanished(peer, what))
            # Up to when somebody could have been heard, not up to now.
            silent_s = self._answered - peer.heard
            limit_s = self._dead_after_s
            if peer.state == "stopped":
                limit_s = self._stopped_after_s
            elif peer.beat is None:
                limit_s = max(limit_s, STARTS_WITHIN_S)
            if silent_s < limit_s:
                continue
            if peer.state != "away":
                before, peer.state = peer.state, "away"
                found.append(Changed(peer, before, silent_s))
            if not peer.alerted and silent_s >= limit_s + RANK_S * self._rank():
                peer.alerted = away_alert_id(peer.name, self._boot_of(peer))
                found.append(RaiseAway(peer, peer.alerted, silent_s))
        return found

    @staticmethod
    def _boot_of(peer: Peer) -> str:
        return peer.beat.boot if peer.beat is not None else peer.boot

    def _rank(self) -> int:
        """How many nodes that live stand before us in the alphabet."""
        return sum(peer.reachable and peer.name < self.own for peer in self)

    def saw_alert(self, alert_id: str) -> None:
        """Somebody else raised this alert: where it is about a silence, no second one is needed."""
        for peer in self:
            if alert_id == away_alert_id(peer.name, self._boot_of(peer)):
                peer.alerted = alert_id

    def supervisors(self) -> frozenset[str]:
        """Who has a console open at a node that lives; nobody while the bus is away."""
        if not self._listening:
            return frozenset()
        return frozenset(
            one for peer in self if peer.reachable and peer.beat for one in peer.beat.supervisors
        )

    def busy(self) -> frozenset[str]:
        """Who is in a call there into which they were asked."""
        return frozenset(
            one for peer in self if peer.reachable and peer.beat for one in peer.beat.busy
        )

    # ----------------------------------------------------------------------------- calls and alerts

    def is_news(self, node: str, epoch: int, event_id: int) -> bool:
        """Whether an event was not taken before."""
        peer = self.all[node]
        return epoch > peer.epoch or (epoch == peer.epoch and event_id > peer.last_id)

    def took(self, node: str, epoch: int, last_id: int) -> None:
        """Events up to this one are stored here."""
        peer = self.all[node]
        if epoch > peer.epoch:
            peer.epoch, peer.last_id = epoch, last_id
            # Numbers of another epoch tell nothing about which is newer.
            peer.touched.clear()
            peer.complete = False
        elif epoch == peer.epoch:
            peer.last_id = max(peer.last_id, last_id)

    def apply(self, batch: Batch) -> None:
        """Take over how calls and alerts stand after a batch."""
        peer = self.all[batch.node]
        if batch.epoch < peer.epoch:
            return
        calls = {call.call_id: call for call in batch.calls}
        for call_id in [*calls, *batch.ended]:
            self._put(peer, peer.calls, call_id, calls.get(call_id), batch.as_of)
        for alert in batch.alerts:
            is_open = alert if alert.acknowledged_ts is None else None
            self._put(peer, peer.alerts, alert.alert_id, is_open, batch.as_of)
            self.saw_alert(alert.alert_id)

    def _put(
        self, peer: Peer, known: dict[str, What], key: str, what: What | None, as_of: int
    ) -> None:
        """Know one thing, or that it is over, unless something newer is known of it."""
        self._remember(peer.name, [key])
        if as_of < peer.touched.get(key, -1):
            return
        peer.touched[key] = as_of
        peer.touched.move_to_end(key)
        while len(peer.touched) > _REMEMBERED:
            peer.touched.popitem(last=False)
        if what is None:
            known.pop(key, None)
        else:
            known[key] = what

    def learn(self, pages: Collection[Snapshot], now: float) -> None:
        """Replace what is known of a peer.

        Args:
            pages: of one snapshot, in order; all of one node.
            now: monotonic seconds.
        """
        first = next(iter(pages))
        peer = self.all[first.node]
        there: set[str] = set()
        for page in pages:
            for call in page.calls:
                there.add(call.call_id)
                self._put(peer, peer.calls, call.call_id, call, page.as_of)
            for alert in page.alerts:
                there.add(alert.alert_id)
                self._put(peer, peer.alerts, alert.alert_id, alert, page.as_of)
                self.saw_alert(alert.alert_id)
        self._take_out(peer, peer.calls, there, first.as_of, now)
        self._take_out(peer, peer.alerts, there, first.as_of, now)
        peer.callbacks = [(one.agent_id, one.due_ts) for page in pages for one in page.callbacks]
        peer.degraded = dict(first.degraded)
        peer.boot, peer.complete, peer.differing = first.boot, True, 0

    @staticmethod
    def _take_out(
        peer: Peer, known: dict[str, What], there: Container[str], as_of: int, now: float
    ) -> None:
        for key, what in list(known.items()):
            if key in there:
                peer.vanished.pop(key, None)
            elif peer.touched.get(key, -1) <= as_of:
                del known[key]
                peer.vanished[key] = (now + VANISHED_AFTER_S, what)

    def told(self, node: str, of: str) -> None:
        """The end of a call, or an acknowledgement, came as an event."""
        self.all[node].vanished.pop(of, None)

    def needs_snapshot(self, peer: Peer) -> bool:
        """Whether what is known of a living peer cannot be right, or may not be."""
        beat = peer.beat
        if beat is None or not peer.reachable:
            return False
        if not peer.complete or peer.boot != beat.boot:
            return True
        return peer.differing >= _DIFFERING

    def owner(self, of: str) -> Peer | None:
        """Whose a call, an alert or a call-back is; ``None`` when no peer is known to have it."""
        for peer in self:
            if of in peer.calls or of in peer.alerts:
                return peer
        name = self._owners.get(of)
        return None if name is None else self.all.get(name)

    def remember(self, node: str, ids: Iterable[str]) -> None:
        """Things of a peer that are no live calls or open alerts (any more)."""
        self._remember(node, ids)

    def _remember(self, node: str, ids: Iterable[str]) -> None:
        for one in ids:
            self._owners[one] = node
            self._owners.move_to_end(one)
        while len(self._owners) > _REMEMBERED:
            self._owners.popitem(last=False)

    def forget_state(self, node: str) -> None:
        """What is known of a peer may be wrong: ask for a snapshot."""
        self.all[node].complete = False
