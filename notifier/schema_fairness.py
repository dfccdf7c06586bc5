"""Tables of fairness: draws and scores, openings of recordings, marks, verdicts, reports.

No column holds a number, a name or a word of a call; ``openings.reason`` is what a person wrote.
"""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Float, Index, Integer, String, Table, Text

from notifier.schema import metadata

quality_months = Table(
    "quality_months",
    metadata,
    Column("month", String(7), primary_key=True),
    Column("secret", String(64), nullable=False),
    Column("time_zone", String(64), nullable=False),
    Column("begin_ts", Float, nullable=False),
    Column("end_ts", Float, nullable=False),
    Column("per_agent", Integer, nullable=False),
    Column("min_call_s", Float, nullable=False),
    Column("recorded_only", Boolean, nullable=False),
    Column("drawn_ts", Float, nullable=True),
)

quality_pool = Table(
    "quality_pool",
    metadata,
    Column("call_id", String(32), primary_key=True),
    Column("month", String(7), nullable=False),
    Column("agent_id", String(64), nullable=False),
    Index("ix_quality_pool_month", "month"),
)

quality_draws = Table(
    "quality_draws",
    metadata,
    Column("draw_id", String(32), primary_key=True),
    Column("month", String(7), nullable=False),
    Column("call_id", String(32), nullable=False, unique=True),
    Column("agent_id", String(64), nullable=False),
    Column("told", Boolean, nullable=False),
    # Until somebody else must have scored a contested call.
    Column("contested_ts", Float, nullable=True),
    Column("due_ts", Float, nullable=True),
    Column("void_ts", Float, nullable=True),
    Column("void_reason", String(24), nullable=False),
    Index("ix_quality_draws_agent_id", "agent_id"),
)

quality_scores = Table(
    "quality_scores",
    metadata,
    Column("draw_id", String(32), primary_key=True),
    Column("review", Integer, primary_key=True, autoincrement=False),
    Column("reviewer", String(64), nullable=False),
    # {"criterion": points}: numbers alone.
    Column("points", Text, nullable=False),
    Column("ts", Float, nullable=False),
)

openings = Table(
    "openings",
    metadata,
    Column("opening_id", String(32), primary_key=True),
    Column("ts", Float, nullable=False),
    Column("call_id", String(32), nullable=False),
    Column("agent_id", String(64), nullable=False),
    Column("by_role", String(16), nullable=False),
    Column("by", String(64), nullable=False),
    Column("why", String(16), nullable=False),
    Column("ref", String(64), nullable=False),
    Column("reason", Text, nullable=False),
    Index("ix_openings_agent_id", "agent_id"),
)

ringback_marks = Table(
    "ringback_marks",
    metadata,
    # HMAC-SHA256 of the number: deleted when it expires or is taken away.
    Column("mark", String(64), primary_key=True),
    Column("key_id", String(8), nullable=False),
    Column("mark_id", String(12), nullable=False, unique=True),
    Column("category", String(32), nullable=False),
    Column("ended_ts", Float, nullable=False),
    Column("until_ts", Float, nullable=False),
)

call_verdicts = Table(
    "call_verdicts",
    metadata,
    Column("call_id", String(32), primary_key=True),
    Column("ts", Float, nullable=False),
    # "", confirmed, refuted, missed: by role; nobody's id stands beside it.
    Column("agent_verdict", String(16), nullable=False),
    Column("supervisor_verdict", String(16), nullable=False),
    Index("ix_call_verdicts_ts", "ts"),
)

withheld_alerts = Table(
    "withheld_alerts",
    metadata,
    Column("alert_id", String(32), primary_key=True),
    Column("ts", Float, nullable=False),
    Column("call_id", String(32), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("level", Integer, nullable=False),
    Column("categories", Text, nullable=False),
    Column("rules", Text, nullable=False),
    Index("ix_withheld_alerts_ts", "ts"),
)

weekly_reports = Table(
    "weekly_reports",
    metadata,
    # Made once: made again with another configuration, the difference would tell of one agent.
    Column("week", String(8), primary_key=True),
    Column("made_ts", Float, nullable=False),
    Column("body", Text, nullable=False),
)
