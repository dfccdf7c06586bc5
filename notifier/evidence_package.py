"""The files of a package: what happened as data, the report, and how to check it all."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import IO, Any

import msgspec

from callshield import __version__
from notifier.evidence_container import Source
from notifier.evidence_manifest import EVENTS, FORMAT, Chain, Manifest, describe
from notifier.evidence_record import CallRecord
from notifier.evidence_texts import Texts
from notifier.evidence_timeline import Moment, Timeline

_HEAD_OF_CALL = (
    "call_id",
    "pbx_call_id",
    "agent_id",
    "started_ts",
    "answered_ts",
    "ended_ts",
    "duration_s",
    "end_reason",
    "peak_level",
    "notice",
)


@dataclass(frozen=True, slots=True)
class Maker:
    """Who makes a package, where and when."""

    package_id: str
    made_ts: float
    node: str
    role: str
    token_id: str
    key_id: str
    unredacted: bool


def at(ts: float) -> str:
    """A moment in UTC, ISO 8601, to the millisecond."""
    return datetime.fromtimestamp(ts, UTC).isoformat(timespec="milliseconds")


def data_files(record: CallRecord, timeline: Timeline, texts: Texts) -> list[Source]:
    """What the store knows, as JSON."""
    call = record.call
    lines = b"".join(msgspec.json.encode(event) + b"\n" for event in record.events)
    about = {
        "call": {name: call[name] for name in _HEAD_OF_CALL},
        "categories": msgspec.json.decode(call["categories"]),
        "language": texts.language,
        "levels": [{"ts": ts, "at": at(ts), "level": level} for ts, level in timeline.levels],
        "moments": _told(timeline.moments, call["started_ts"]),
    }
    done = {
        "actions": _told(timeline.actions, call["started_ts"]),
        "told": _told(timeline.told, call["started_ts"]),
        "opened": _told(timeline.custody, call["started_ts"]),
    }
    notices = {"notices": [asdict(stamp) for stamp in timeline.notices]}
    return [
        json_file("timeline.json", about),
        json_file("notices.json", notices),
        json_file("actions.json", done),
        Source(EVENTS, io.BytesIO(lines)),
    ]


def _told(moments: Sequence[Moment], began_ts: float) -> list[dict[str, Any]]:
    return [
        {
            "event_id": moment.event_id,
            "type": moment.type,
            "ts": moment.ts,
            "at": at(moment.ts),
            "offset_s": round(moment.ts - began_ts, 3),
            "text": moment.text,
        }
        for moment in moments
    ]


def json_file(name: str, value: Any) -> Source:
    """A value as a JSON file that a person can read."""
    data = msgspec.json.format(msgspec.json.encode(value), indent=2)
    return Source(name, io.BytesIO(data + b"\n"))


def text_file(name: str, lines: Sequence[str]) -> Source:
    """Lines as a text file, UTF-8."""
    return Source(name, io.BytesIO("".join(f"{line}\n" for line in lines).encode()))


def blob_file(name: str, file: IO[bytes] | bytes) -> Source:
    """Anything else."""
    return Source(name, io.BytesIO(file) if isinstance(file, bytes) else file)


def manifest_of(record: CallRecord, maker: Maker, sources: Sequence[Source]) -> Manifest:
    """What the package says of itself."""
    return Manifest(
        callshield_evidence=FORMAT,
        package_id=maker.package_id,
        version=__version__,
        node=maker.node,
        made_ts=maker.made_ts,
        made_at=at(maker.made_ts),
        call_id=record.call["call_id"],
        pbx_call_id=record.call["pbx_call_id"],
        agent_id=record.call["agent_id"],
        request_id=record.request.request_id,
        requested_ts=record.request.ts,
        approved_ts=record.decision.ts,
        approved_by=record.decision.by,
        exported_by=maker.token_id,
        exported_by_role=maker.role,
        unredacted=maker.unredacted,
        chain=Chain(
            head_id=record.head.last_id,
            head_hash=record.head.hash,
            events=len(record.events),
        ),
        key_id=maker.key_id,
        files=describe(sources),
    )
