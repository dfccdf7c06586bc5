"""Tables of a node among others: how far it has told, and heard. Nothing personal."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Integer, String, Table

from notifier.schema import metadata

#: One row: what this node has said.
cluster_own = Table(
    "cluster_own",
    metadata,
    Column("key", String(8), primary_key=True),
    # Grows when the store went back: the others then begin anew with its numbers.
    Column("epoch", BigInteger, nullable=False),
    # The newest event that is on the bus, or was left out.
    Column("sent_id", Integer, nullable=False),
)

#: One row a node: its newest event that is stored here.
cluster_peers = Table(
    "cluster_peers",
    metadata,
    Column("node", String(64), primary_key=True),
    Column("epoch", BigInteger, nullable=False),
    Column("event_id", Integer, nullable=False),
    # Of the run of its notifier that told it: an alert about the end of that run is raised once.
    Column("boot", String(16), nullable=False, server_default=""),
)

#: One row a stream: how far it was read. Written in the transaction that stores what was read.
cluster_position = Table(
    "cluster_position",
    metadata,
    Column("stream", String(64), primary_key=True),
    # When the stream was made: one that was lost and made anew counts from 1 again.
    Column("created", String(64), nullable=False),
    Column("seq", BigInteger, nullable=False),
)
