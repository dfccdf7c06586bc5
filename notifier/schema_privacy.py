"""Table of erasures that wait. Rows go when they are carried out; the event stays."""

from __future__ import annotations

from sqlalchemy import Column, Float, String, Table

from notifier.schema import metadata

erasures = Table(
    "erasures",
    metadata,
    Column("call_id", String(32), primary_key=True),
    Column("asked_ts", Float, nullable=False),
    # What the request is called in the files of whoever answers it.
    Column("ref", String(64), nullable=False),
    Column("by_role", String(16), nullable=False),
    Column("by", String(64), nullable=False),
    # What it waits for: evidence, call, recordings; "": nothing, it is being carried out.
    Column("waits", String(16), nullable=False),
)
