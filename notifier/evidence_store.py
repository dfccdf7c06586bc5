"""Requests for evidence out of the database: what was asked, and what was decided on it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import select

from notifier.care import Said
from notifier.evidence import Decision
from notifier.schema import events, tokens
from notifier.schema_care import evidence_decisions, held_events, said

if TYPE_CHECKING:
    from notifier.store import Store


def decision(row: Mapping[str, Any]) -> Decision:
    """A row of ``evidence_decisions``."""
    return Decision(**row)


async def decisions(store: Store, request_ids: Collection[str]) -> dict[str, Decision]:
    """What was decided on these requests, by id; the newest word of each."""
    query = select(evidence_decisions).where(evidence_decisions.c.request_id.in_(list(request_ids)))
    return {row["request_id"]: decision(row) for row in await store.rows(query)}


async def decision_of(store: Store, request_id: str) -> Decision | None:
    """What was decided on one request."""
    return (await decisions(store, [request_id])).get(request_id)


async def known_request(store: Store, request_id: str) -> Said | None:
    """A request for evidence, open or settled."""
    query = select(said).where(said.c.request_id == request_id, said.c.kind == "evidence")
    rows = await store.rows(query)
    return Said(**rows[0]) if rows else None


async def request_of_call(store: Store, call_id: str) -> str | None:
    """Id of the request for a call's evidence; an agent asks once a call."""
    query = select(said.c.request_id).where(said.c.call_id == call_id, said.c.kind == "evidence")
    rows = await store.rows(query)
    return str(rows[0]["request_id"]) if rows else None


async def was_handed_out(store: Store, asked: Said) -> bool:
    """True when a package was made for a request, or its recording was exported on it.

    Args:
        store: of the node.
        asked: the request.
    """
    for table in (events, held_events):
        of_call = table.c.call_id == asked.call_id
        left_the_node = table.c.type.in_(["evidence.exported", "recording.opened"])
        for row in await store.rows(select(table.c.body).where(of_call, left_the_node)):
            body = msgspec.json.decode(row["body"])
            if body["type"] == "evidence.exported" and body["request_id"] == asked.request_id:
                return True
            # Opened for a package is not handed out: that may have failed.
            if body.get("what") == "audio" and body["ref"] == asked.request_id:
                return True
    return False


async def is_own_request(store: Store, token_id: str, agent_id: str) -> bool:
    """True when the bearer of a token is the agent: the same name on a token of that agent, or the
    same account that signed in. (Names of people who signed in are all alike.)"""
    mine = await store.rows(select(tokens).where(tokens.c.token_id == token_id))
    if not mine:
        return False
    name, subject = _person(mine[0])
    agents = await store.rows(select(tokens).where(tokens.c.agent_id == agent_id))
    others = [_person(row) for row in agents]
    return any((name and name == one) or (subject and subject == other) for one, other in others)


def _person(row: Mapping[str, Any]) -> tuple[str, str]:
    name = row["name"].strip().casefold() if row["source"] != "oidc" else ""
    return name, row["subject_sha256"]
