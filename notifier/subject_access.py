"""What is held on a caller, in readable form, for him: by the inventory, and by nothing else.

Rows and events of his calls, each field in the form that its category has
(:mod:`callshield.privacy_inventory`): as it is, as a neutral word where it names an agent or a
supervisor, that it is there, or not at all. A table, message or field that the inventory does not
give is not in the answer, also when somebody forgot it. Then every text is looked through for the
ids and names of staff that this node knows, wherever they stand.

PIPA art. 35 (Korea; 35(4)(2): not where others would be harmed unjustly), read; GDPR art. 15 with
15(4), APPI art. 33 (Japan), PIPL art. 45 (China), not read in the original.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, Table, select

from callshield.privacy_inventory import Category, Holding, Inventory, inventory
from callshield.settings import Settings
from notifier.chain import ERASED
from notifier.evidence_holds import holds_among
from notifier.schema import events, metadata, tokens
from notifier.schema_care import held_events
from notifier.schema_fairness import ringback_marks
from notifier.sealed import unseal
from notifier.subject_names import Names

#: Version of the form of the answer.
FORMAT = "callshield subject access 1"
#: Neutral words for an agent and for others of the staff.
NEUTRAL: Mapping[str, tuple[str, str]] = {
    "ko": ("상담사", "관리자"),
    "en": ("agent", "staff"),
    "zh": ("坐席", "主管"),
    "ja": ("オペレーター", "管理者"),
}
#: Categories in whose texts no name is looked for: what stands there is ours and has a form.
_FORMED = frozenset({"call", "time"})
#: Tables of events; those of a held call may lie in both.
EVENT_TABLES = (held_events, events)
_MISSING: tuple[Any, ...] = (None, "", [], {})


class Neutral:
    """Takes names and ids of staff out of texts.

    Args:
        language: of the words in their place.
        agents: ids of agents.
        others: ids and names of everybody else, and names of agents.
    """

    def __init__(self, language: str, agents: Iterable[str], others: Iterable[str]) -> None:
        self.agent, self.staff = NEUTRAL[language]
        self._agents = Names(agents)
        self._others = Names(others)

    def text(self, value: str) -> str:
        """A text without them."""
        value = self._agents.replaced(value, self.agent)
        return self._others.replaced(value, self.staff)


def neutral_of(
    connection: Connection, settings: Settings, call_ids: Sequence[str], language: str = ""
) -> Neutral:
    """All staff that this node knows of: of the configuration, of the tokens, and of the calls'
    own rows, where somebody has left since.

    Args:
        connection: to the store.
        settings: the node's configuration.
        call_ids: of the calls.
        language: of the neutral words; the node's when empty.
    """
    agents = set(settings.agents)
    others = set(settings.supervisors)
    for row in connection.execute(select(tokens)).mappings():
        others |= {row["token_id"], row["supervisor_id"]}
        if row["source"] != "oidc":  # who signed in has no name here
            others.add(row["name"])
        agents.add(row["agent_id"])
    calls = metadata.tables["calls"]
    found = select(calls.c.agent_id).where(calls.c.call_id.in_(list(call_ids))).distinct()
    agents |= set(connection.scalars(found))
    return Neutral(language or settings.node.language, agents - {""}, others - {""} - agents)


@dataclass(slots=True)
class _Reader:
    neutral: Neutral
    known: Inventory

    def given(self, holding: Holding, values: Mapping[str, Any]) -> dict[str, Any]:
        """Those fields of a row or message that are given, in the form in which they are."""
        out: dict[str, Any] = {}
        for name, value in values.items():
            category = holding.fields.get(name)
            if category is None or category.given == "no" or value in _MISSING:
                continue
            if name.endswith("_ts") and value == 0:
                continue  # never
            out[name] = self._one(category, value)
        return out

    def _one(self, category: Category, value: Any) -> Any:
        match category.given:
            case "agent":
                return self.neutral.agent
            case "staff":
                return self.neutral.staff
            case "present":
                return True
            case "nested":
                structure = self.known.messages[category.of]
                parts = msgspec.json.decode(value) if isinstance(value, str) else value
                if isinstance(parts, Mapping):
                    return self.given(structure, parts)
                return [self.given(structure, part) for part in parts]
        if category.name == "time" and isinstance(value, int | float):
            return moment(value) if value > 1e8 else value
        if isinstance(value, str) and value[:1] in "[{":
            value = _decoded(value)
        return value if category.name in _FORMED else self._clean(value)

    def _clean(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.neutral.text(value)
        if isinstance(value, list):
            return [self._clean(item) for item in value]
        if isinstance(value, dict):
            return {key: self._clean(item) for key, item in value.items()}
        return value


def _decoded(value: str) -> Any:
    try:
        return msgspec.json.decode(value)
    except msgspec.DecodeError:
        return value


def moment(ts: float) -> str:
    """Seconds since the epoch as ISO 8601, UTC, to the millisecond."""
    return datetime.fromtimestamp(ts, UTC).isoformat(timespec="milliseconds")


def collect(
    connection: Connection,
    settings: Settings,
    call_ids: Sequence[str],
    marks: Sequence[str] = (),
    *,
    language: str = "",
) -> dict[str, Any]:
    """All that is given of these calls.

    Args:
        connection: to the store; one moment of it.
        settings: the node's configuration.
        call_ids: of calls that have ended.
        marks: hashes of the caller's number by the keys of ``[ringback]``.
        language: of the neutral words; the node's when empty.

    Returns:
        What becomes ``data.json``.
    """
    reader = _Reader(neutral_of(connection, settings, call_ids, language), inventory())
    kept_marks = []
    if marks:
        query = select(ringback_marks).where(ringback_marks.c.mark.in_(list(marks)))
        holding = reader.known.tables["ringback_marks"]
        kept_marks = [
            reader.given(holding, dict(row)) for row in connection.execute(query).mappings()
        ]
    return {
        "format": FORMAT,
        "calls": [_call(connection, reader, call_id) for call_id in call_ids],
        "marks_of_the_number": kept_marks,
        "not_given": [
            {"what": category.says, "why": category.why}
            for category in reader.known.categories.values()
            if category.given == "no" and not {"nobody", "call"} >= set(category.about)
        ],
    }


def _call(connection: Connection, reader: _Reader, call_id: str) -> dict[str, Any]:
    rows: dict[str, list[dict[str, Any]]] = {}
    for name, holding in sorted(reader.known.tables.items()):
        table = metadata.tables[name]
        if holding.given and table not in EVENT_TABLES and "call_id" in table.c:
            found = [reader.given(holding, row) for row in _rows(connection, table, call_id)]
            if found:
                rows[name] = found
    told, others = [], 0
    for row in _happened(connection, call_id):
        message = reader.known.messages.get(row["type"])
        if message is None or not message.given:
            others += 1
            continue
        body = msgspec.json.decode(unseal(row["body"], row["words"]))
        told.append({"type": row["type"], **reader.given(message, body)})
    return {
        "call_id": call_id,
        # Not since when, nor who asked: that is the agent's own.
        "held_as_evidence": bool(holds_among(connection, [call_id])),
        "rows": rows,
        "events": told,
        "events_about_others": others,
    }


def _happened(connection: Connection, call_id: str) -> Iterator[Mapping[str, Any]]:
    """Events of a call, the oldest first: those that were put aside went first."""
    for table in EVENT_TABLES:
        query = select(table).where(table.c.call_id == call_id, table.c.type != ERASED)
        for row in connection.execute(query.order_by(table.c.id)).mappings():
            yield dict(row)


def _rows(connection: Connection, table: Table, call_id: str) -> list[dict[str, Any]]:
    query = select(table).where(table.c.call_id == call_id).order_by(*table.primary_key)
    return [dict(row) for row in connection.execute(query).mappings()]
