"""Tables of the notifier's database. No column holds a caller's number in the clear, a caller's
name, or audio.

``events`` is append-only and chained by hashes: what happened, numbered without reuse, as consoles
saw it. ``calls``,
``alerts`` and ``rests`` hold the newest state, so that a restarted notifier knows at once what is
live, what is still open and who rests. ``analyses`` and the verdicts in ``alerts`` are what
thresholds are judged by. ``tokens`` holds hashes only.
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
from sqlalchemy import text as sql_text

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
    # Without quotations, of which it holds a salted hash; exactly this text is in the chain.
    Column("body", Text, nullable=False),
    # Quotations and their salt; NULL: none, or deleted.
    Column("words", Text, nullable=True),
    # Over the hash of the event before and all columns but ``words`` (notifier.chain).
    Column("hash", String(64), nullable=False, server_default=""),
    Index("ix_events_agent_id_id", "agent_id", "id"),
    Index("ix_events_call_id", "call_id"),
    Index("ix_events_type_id", "type", "id"),
    # Few events hold words: retention finds them without reading the others.
    Index(
        "ix_events_words",
        "id",
        sqlite_where=sql_text("words IS NOT NULL"),
        postgresql_where=sql_text("words IS NOT NULL"),
    ),
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
    Column("acoustic_only", Boolean, nullable=False),
    Column("words_confirmed", Boolean, nullable=False),
    Column("may_trigger", Boolean, nullable=False),
    Column("crisis_ts", Float, nullable=True),
    Column("warnings", Integer, nullable=False),
    Column("ending_ts", Float, nullable=True),
    Column("ended_ts", Float, nullable=True),
    Column("end_reason", String(64), nullable=False),
    Column("duration_s", Float, nullable=False),
    # What the caller was told that the call is used for.
    Column("purposes", Text, nullable=False, server_default="[]"),
    # HMAC-SHA256 of the caller's number under a key beside the database, and which key; "": none.
    Column("caller_pseudonym", String(64), nullable=False, server_default=""),
    Column("caller_key_id", String(8), nullable=False, server_default=""),
    Index("ix_calls_ended_ts", "ended_ts"),
    Index("ix_calls_caller_pseudonym", "caller_pseudonym"),
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
    Column("effort_score", Float, nullable=False, server_default="0"),
    Column("word_score", Float, nullable=False, server_default="0"),
    # "", confirmed, refuted: by role; nobody's id stands beside it.
    Column("agent_verdict", String(16), nullable=False, server_default=""),
    Column("supervisor_verdict", String(16), nullable=False, server_default=""),
    Column("how", String(16), nullable=False, server_default=""),
    Column("supervisor_id", String(64), nullable=False, server_default=""),
    Index("ix_alerts_acknowledged_ts", "acknowledged_ts"),
    Index("ix_alerts_raised_ts", "raised_ts"),
)

analyses = Table(
    "analyses",
    metadata,
    # What is left of an analysed call: seconds and scores.
    Column("call_id", String(32), primary_key=True),
    Column("ts", Float, nullable=False),
    Column("analysed_s", Float, nullable=False),
    Column("speech_s", Float, nullable=False),
    Column("effort_peak", Float, nullable=False),
    Column("effort_sustained", Float, nullable=False),
    Column("caution_reached", Float, nullable=False),
    Column("serious_reached", Float, nullable=False),
    Column("caution", Float, nullable=False),
    Column("serious", Float, nullable=False),
    Column("model", String(12), nullable=False),
    Index("ix_analyses_ts", "ts"),
)

escalations = Table(
    "escalations",
    metadata,
    # How far each alert got (notifier/escalation.py); open or not, ``alerts`` says.
    Column("alert_id", String(32), primary_key=True),
    Column("call_id", String(32), nullable=False),
    Column("agent_id", String(64), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("team", String(64), nullable=False),
    Column("raised_ts", Float, nullable=False),
    Column("stage", String(16), nullable=False),
    Column("step", Integer, nullable=False),
    Column("turn", Integer, nullable=False),
    Column("since_ts", Float, nullable=False),
    Column("asked", Text, nullable=False),
    Column("told", Text, nullable=False),
    # Who could not come, and why in that person's words.
    Column("refusals", Text, nullable=False),
    Column("unanswered_ts", Float, nullable=True),
    Index("ix_escalations_since_ts", "since_ts"),
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
    Column("supervisor_id", String(64), nullable=False, server_default=""),
    Column("created_ts", Float, nullable=False),
    Column("expires_ts", Float, nullable=False),
    Column("revoked_ts", Float, nullable=True),
    # "": made by ``callshield token create``; "oidc": somebody signed in.
    Column("source", String(8), nullable=False, server_default=""),
    # SHA-256 of issuer and subject: who signed in again and again is one person, unnamed.
    Column("subject_sha256", String(64), nullable=False, server_default=""),
    Index("ix_tokens_expires_ts", "expires_ts"),
)

outbox = Table(
    "outbox",
    metadata,
    # One event for one webhook or the mail, as that channel may tell it; gone when delivered.
    Column("letter_id", String(32), primary_key=True),
    Column("channel", String(80), nullable=False),
    Column("event_id", Integer, nullable=False),
    Column("type", String(64), nullable=False),
    Column("ts", Float, nullable=False),
    Column("body", Text, nullable=False),
    # "waiting", or "dead": put aside until a person looks.
    Column("state", String(8), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_ts", Float, nullable=False),
    Column("failure", String(200), nullable=False),
    Index("ix_outbox_channel_state_next_ts", "channel", "state", "next_ts"),
)

outbox_cursors = Table(
    "outbox_cursors",
    metadata,
    # Up to which event a channel has its letters.
    Column("channel", String(80), primary_key=True),
    Column("event_id", Integer, nullable=False),
)

# The tables of other topics belong to the same database: whoever backs it up, restores it or
# deletes from it must have them all, whatever else the program has loaded.
from notifier import schema_care as schema_care  # noqa: E402
from notifier import schema_cluster as schema_cluster  # noqa: E402
from notifier import schema_fairness as schema_fairness  # noqa: E402
from notifier import schema_privacy as schema_privacy  # noqa: E402
