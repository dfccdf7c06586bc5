"""Tables of what follows a bad call. No column holds a name or audio, nor a number but
encrypted, while somebody is to be called back; ``evidence_decisions.reason`` is what a person
wrote."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Float, Index, Integer, String, Table, Text

from notifier.schema import metadata

#: Calls left out of quality sampling, handling time and surveys. By whom is not kept here: no row
#: sets an agent's word against the model's level.
marks = Table(
    "marks",
    metadata,
    Column("call_id", String(32), primary_key=True),
    Column("agent_id", String(64), nullable=False),
    Column("pbx_call_id", String(256), nullable=False),
    Column("ts", Float, nullable=False),
    Index("ix_marks_ts", "ts"),
)

#: What agents said of their own calls; each agent reads the own rows only.
said = Table(
    "said",
    metadata,
    Column("request_id", String(32), primary_key=True),
    Column("call_id", String(32), nullable=False),
    Column("agent_id", String(64), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("ts", Float, nullable=False),
    Column("choice", String(32), nullable=False),
    # Of a request for evidence: when, and through which token, it was settled.
    Column("done_ts", Float, nullable=True),
    Column("done_by", String(64), nullable=False, server_default=""),
    Index("ix_said_agent_id_ts", "agent_id", "ts"),
    Index("ix_said_ts", "ts"),
)

#: What was decided on requests for evidence; an open request without a row waits.
evidence_decisions = Table(
    "evidence_decisions",
    metadata,
    Column("request_id", String(32), primary_key=True),
    Column("call_id", String(32), nullable=False),
    # approved, refused
    Column("state", String(16), nullable=False),
    Column("ts", Float, nullable=False),
    Column("by_role", String(16), nullable=False),
    Column("by", String(64), nullable=False),
    # Of a refusal: for the agent.
    Column("reason", Text, nullable=False),
    # Of a refusal: until then everything about the call stays.
    Column("held_until_ts", Float, nullable=True),
    Index("ix_evidence_decisions_call_id", "call_id"),
)

#: Events that retention took out of the chain's table while somebody had asked for the evidence of
#: their call, with the hash that each followed on.
held_events = Table(
    "held_events",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("ts", Float, nullable=False),
    Column("type", String(32), nullable=False),
    Column("call_id", String(32), nullable=False),
    Column("agent_id", String(64), nullable=True),
    Column("body", Text, nullable=False),
    Column("words", Text, nullable=True),
    Column("hash", String(64), nullable=False),
    Column("previous", String(64), nullable=False),
    Index("ix_held_events_call_id", "call_id"),
)

eaten_breaks = Table(
    "eaten_breaks",
    metadata,
    Column("agent_id", String(64), primary_key=True),
    Column("call_id", String(32), primary_key=True),
    Column("break_ts", Float, primary_key=True),
    Column("length_s", Float, nullable=False),
    Column("busy_from_ts", Float, nullable=False),
    Column("eaten_s", Float, nullable=False),
    Column("moved_to_ts", Float, nullable=True),
    Column("paid_s", Float, nullable=False),
    Column("bad", Boolean, nullable=False),
    Index("ix_eaten_breaks_break_ts", "break_ts"),
)

callbacks = Table(
    "callbacks",
    metadata,
    Column("callback_id", String(32), primary_key=True),
    Column("call_id", String(32), nullable=False),
    Column("agent_id", String(64), nullable=False),
    Column("pbx_call_id", String(256), nullable=False),
    Column("owner", String(64), nullable=False),
    Column("promised_ts", Float, nullable=False),
    Column("due_ts", Float, nullable=False),
    Column("spoken_ts", Float, nullable=True),
    Column("overdue_ts", Float, nullable=True),
    Column("done_ts", Float, nullable=True),
    Column("done_by", String(64), nullable=False),
    # Whom to call, encrypted; "": none is kept, or nobody is to be called any more.
    Column("sealed_number", String(160), nullable=False, server_default=""),
    Index("ix_callbacks_done_ts", "done_ts"),
)
