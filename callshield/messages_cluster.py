"""What nodes say to each other over the bus (docs/cluster.md): JSON, every field bounded.

A message is from another machine, and whoever reached the NATS server may have written it: what
does not fit these types is refused and counted, never repaired. Fields that a newer version adds
are passed over; a changed meaning is a new ``v``, and another one than 1 is refused.

Nothing here can hold a caller's number, audio, or what was said: the one message that carries
quotations is the answer to a person's own request for them (:class:`Answer`).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

#: No message is larger; NATS itself takes one MiB by default.
MAX_BYTES = 256 * 1024
#: Events in one message.
MAX_EVENTS = 200
#: Calls or alerts in one answer.
PAGE = 200

NodeName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,32}$")]
HexId = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}$")]
Boot = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{16}$")]
#: Of agents, supervisors, teams and tokens (``token:ID`` among them).
PersonId = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._:-]{0,64}$")]
Short = Annotated[str, msgspec.Meta(max_length=256)]
Sentence = Annotated[str, msgspec.Meta(max_length=1000)]
#: Number of an event: fits the column.
EventId = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
#: Fits a signed 64-bit integer of SQL.
Count = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
Level = Annotated[int, msgspec.Meta(ge=0, le=3)]
Categories = Annotated[list[Short], msgspec.Meta(max_length=16)]
People = Annotated[list[PersonId], msgspec.Meta(max_length=2000)]


class Beat(msgspec.Struct, frozen=True, kw_only=True):
    """A node lives; how far it is, and which supervisors it reaches."""

    v: Literal[1] = 1
    node: NodeName
    boot: Boot
    """Of this run of its notifier."""
    epoch: Count
    """Of its store: grows when the store went back (a restored backup)."""
    ts: float
    state: Literal["up", "draining", "stopped"] = "up"
    """``draining``: it takes no new calls; ``stopped``: goodbye."""
    version: Short = ""
    config: Short = ""
    """Digest of the parts of the configuration that must be the same everywhere."""
    last_id: EventId
    """Its newest stored event."""
    sent_id: EventId
    """The newest that is on the bus, or was left out."""
    outbox: Count
    """Events that are neither."""
    dropped: Count
    """Events left out since it started, because the outbox was full."""
    position: Count
    """Sequence in the stream up to which it has stored what the others said."""
    refused: Count = 0
    """Messages that it refused since it started."""
    calls: Count
    alerts: Count
    supervisors: People = []
    """Who has a console open there; ``token:ID`` for tokens tied to nobody."""
    busy: People = []
    """Who is in a call there into which they were asked."""


class CallState(msgspec.Struct, frozen=True, kw_only=True):
    """A live call, as a supervisor may see it before its agent asked for help."""

    call_id: HexId
    agent_id: PersonId
    pbx_call_id: Short
    direction: Literal["inbound", "outbound", "internal"]
    started_ts: float
    answered_ts: float | None
    notice: Short
    tapped: bool
    level: Level
    categories: Categories
    acoustic_only: bool
    words_confirmed: bool
    crisis: bool
    ending: bool
    help_asked: bool
    """Its words may be asked for (``words``)."""
    hidden: bool = False
    """In shadow mode: no screen shows its level."""


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody could not come."""

    by: PersonId
    reason: Short
    ts: float


class Escalation(msgspec.Struct, frozen=True, kw_only=True):
    """How far an open alert has got."""

    step: Count
    stage: Literal["person", "all", "manager", "nobody"]
    asking: PersonId
    told: People
    refusals: Annotated[list[Refusal], msgspec.Meta(max_length=1000)]
    next_in_s: float | None
    unanswered: bool


class AlertState(msgspec.Struct, frozen=True, kw_only=True):
    """An alert, as a supervisor may see it."""

    alert_id: HexId
    call_id: Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{32})?$")]
    agent_id: PersonId
    kind: Literal["risk", "help", "crisis", "notice_failed", "node", "callback"]
    level: Level
    categories: Categories
    reason: Short
    raised_ts: float
    acknowledged_ts: float | None
    acknowledged_by: PersonId
    how: Literal["", "join", "take_over", "seen"]
    supervisor_id: PersonId
    verdict: Literal["", "confirmed", "refuted"]
    """Of the supervisors; the agents' own stays where it was said."""
    escalation: Escalation | None = None


class Numbered(msgspec.Struct, frozen=True, kw_only=True):
    """One event with its number at the node that stored it."""

    id: EventId
    agent_id: PersonId | None
    """Who may see it besides supervisors: nobody for ``""``, everybody for ``null``."""
    pbx_call_id: Short = ""
    event: msgspec.Raw
    """Read one by one: a type that only a newer version knows must not hide the others."""


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """Events that were left out because the outbox was full; none was an alert."""

    first: EventId
    last: EventId
    count: Count


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """What happened at one node, in order, and how the calls and alerts concerned stand now."""

    v: Literal[1] = 1
    node: NodeName
    boot: Boot
    epoch: Count
    first: EventId
    """The events up to here were in an earlier message, or are none of yours."""
    last: EventId
    as_of: EventId
    """The newest stored event when ``calls`` and ``alerts`` were looked at."""
    events: Annotated[list[Numbered], msgspec.Meta(max_length=MAX_EVENTS)]
    calls: Annotated[list[CallState], msgspec.Meta(max_length=MAX_EVENTS)] = []
    ended: Annotated[list[HexId], msgspec.Meta(max_length=MAX_EVENTS)] = []
    alerts: Annotated[list[AlertState], msgspec.Meta(max_length=MAX_EVENTS)] = []
    gap: Gap | None = None


class OpenCallback(msgspec.Struct, frozen=True, kw_only=True):
    """A call-back that was promised."""

    agent_id: PersonId
    due_ts: float


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """One page of how a node stands."""

    v: Literal[1] = 1
    node: NodeName
    boot: Boot
    epoch: Count
    as_of: EventId
    calls: Annotated[list[CallState], msgspec.Meta(max_length=PAGE)]
    alerts: Annotated[list[AlertState], msgspec.Meta(max_length=PAGE)]
    degraded: Annotated[dict[Short, Sentence], msgspec.Meta(max_length=100)] = {}
    """Parts of that node that are down, and why."""
    callbacks: Annotated[list[OpenCallback], msgspec.Meta(max_length=PAGE)] = []
    more: bool = False
    """Ask for the next page."""


Operation = Literal[
    "state",
    "words",
    "act",
    "after",
    "call_verdict",
    "acknowledge",
    "accept",
    "refuse",
    "verdict",
    "callbacks",
    "callback_done",
    "requests",
    "request_approve",
    "request_refuse",
    "request_done",
]


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """A request to another node: its state, or what a person wants there."""

    v: Literal[1] = 1
    id: HexId
    node: NodeName
    """Who asks."""
    to: NodeName
    ts: float
    op: Operation
    token_id: PersonId = ""
    """Whose wish it is; the message is signed with the hash of that token (header
    ``Callshield-Proof``)."""
    of: Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{32})?$")] = ""
    """Call or alert."""
    page: Annotated[int, msgspec.Meta(ge=0, le=10_000)] = 0
    """Of ``state``."""
    body: dict[str, Any] = {}


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What came of an :class:`Ask`: the status, and the body, of the same request by HTTP."""

    v: Literal[1] = 1
    id: HexId
    node: NodeName
    status: Annotated[int, msgspec.Meta(ge=200, le=599)]
    kind: Short = ""
    """Of a refusal."""
    detail: Sentence = ""
    retry_after: Annotated[str, msgspec.Meta(max_length=16)] = ""
    body: msgspec.Raw = msgspec.Raw(b"null")


class _Decoders:
    beat = msgspec.json.Decoder(Beat)
    batch = msgspec.json.Decoder(Batch)
    ask = msgspec.json.Decoder(Ask)
    answer = msgspec.json.Decoder(Answer)
    snapshot = msgspec.json.Decoder(Snapshot)


decode_beat = _Decoders.beat.decode
decode_batch = _Decoders.batch.decode
decode_ask = _Decoders.ask.decode
decode_answer = _Decoders.answer.decode
decode_snapshot = _Decoders.snapshot.decode
