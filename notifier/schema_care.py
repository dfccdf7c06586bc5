"""Tables of what follows a bad call. No column holds a number, a name, audio or free text."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Float, Index, String, Table

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
    Index("ix_callbacks_done_ts", "done_ts"),
)
