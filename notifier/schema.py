"""Tables of the notifier's database. No column can hold a caller's number, a name or audio.

``events`` is append-only: what happened, numbered without reuse, as consoles saw it. ``calls``,
``alerts`` and ``rests`` hold the newest state, so that a restarted notifier knows at once what is
live, what is still open and who rests. ``tokens`` holds hashes only.
"""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    }
)

events = Table(
    "events",
    metadata,
    # Numbered by the one writer, not by the database: a retried batch keeps its numbers.
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("ts", Float, nullable=False),
    Column("type", String(32), nullable=False),
    Column("call_id", String(32), nullable=False),
    # NULL: for everybody (node state). "": for supervisors alone. Else: that agent too.
    Column("agent_id", String(64), nullable=True),
    Column("body", Text, nullable=False),
    Index("ix_events_agent_id_id", "agent_id", "id"),
    Index("ix_events_call_id", "call_id"),
)

calls = Table(
    "calls",
    metadata,
    Column("call_id", String(32), primary_key=True),
    Column("agent_id", String(64), nullable=False),
    Column("pbx_call_id", String(256), nullable=False),
    Column("pbx", String(64), nullable=False),
    Column("started_ts", Float, nullable=False),
    Column("answered_ts", Float, nullable=True),
    Column("notice", String(16), nullable=False),
    Column("tapped", Boolean, nullable=False),
    Column("level", Integer, nullable=False),
    Column("peak_level", Integer, nullable=False),
    Column("alerted_level", Integer, nullable=False),
    Column("categories", Text, nullable=False),
    Column("reasons", Text, nullable=False),
    Column("warnings", Integer, nullable=False),
    Column("ending_ts", Float, nullable=True),
    Column("ended_ts", Float, nullable=True),
    Column("end_reason", String(64), nullable=False),
    Column("duration_s", Float, nullable=False),
    Index("ix_calls_ended_ts", "ended_ts"),
)

alerts = Table(
    "alerts",
    metadata,
    Column("alert_id", String(32), primary_key=True),
    Column("call_id", String(32), nullable=False),
    Column("agent_id", String(64), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("level", Integer, nullable=False),
    Column("categories", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("raised_ts", Float, nullable=False),
    Column("acknowledged_ts", Float, nullable=True),
    Column("acknowledged_by", String(64), nullable=False),
    Index("ix_alerts_acknowledged_ts", "acknowledged_ts"),
    Index("ix_alerts_raised_ts", "raised_ts"),
)

rests = Table(
    "rests",
    metadata,
    # The newest one of each agent.
    Column("agent_id", String(64), primary_key=True),
    Column("call_id", String(32), nullable=False),
    Column("began_ts", Float, nullable=False),
    Column("until_ts", Float, nullable=False),
    Column("reason", String(16), nullable=False),
    Column("ended_ts", Float, nullable=True),
    Column("ended_by", String(16), nullable=False),
)

tokens = Table(
    "tokens",
    metadata,
    Column("token_id", String(16), primary_key=True),
    Column("sha256", String(64), nullable=False, unique=True),
    Column("role", String(16), nullable=False),
    Column("name", String(128), nullable=False),
    Column("agent_id", String(64), nullable=False),
    Column("created_ts", Float, nullable=False),
    Column("expires_ts", Float, nullable=False),
    Column("revoked_ts", Float, nullable=True),
)
