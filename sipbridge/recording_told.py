"""What the caller was told, as a recording itself says: read back for the export's JSON file.

A recording carries its own proof (:attr:`sipbridge.recording_format.Mark.TOLD`): which notice, in
which version and file, was heard or attested before it began, what the caller pressed, and every
announcement since. Sealed with the audio, it cannot be changed without the recording failing to
open.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from callshield.errors import RecordingDamaged
from callshield.messages import NoticeFinished
from callshield.messages_media import Told
from callshield.messages_notice import PromptStamp, ProtectionChanged

_TOLD: msgspec.json.Decoder[Told] = msgspec.json.Decoder(Told)


def announced(told: Iterable[bytes], zero_ns: int) -> dict[str, Any]:
    """``notice`` and ``announcements`` for the export's JSON file.

    Args:
        told: payloads of the marks, in the order of the recording.
        zero_ns: when the export begins, since the Unix epoch: times are seconds from there, so that
            what was said before the recording began has negative ones.

    Raises:
        RecordingDamaged: the recorder wrote nonsense (it was authentic).
    """
    notice: dict[str, Any] = {}
    stamps: list[tuple[str, PromptStamp]] = []
    for one in told:
        try:
            event = _TOLD.decode(one)
        except msgspec.MsgspecError:
            raise RecordingDamaged(
                "what the recording says of its announcements is no such thing"
            ) from None
        match event:
            case NoticeFinished():
                notice |= {
                    "source": event.source,
                    "attested_by": event.attested_by,
                    "finished_s": _seconds(event.ts, zero_ns),
                    "key": event.key,
                }
                stamps += [(event.attested_by, stamp) for stamp in event.prompts]
            case ProtectionChanged():
                notice["choice"] = event.reason
                notice["key"] = event.key or notice.get("key", "")
            case _:
                stamps.append(("", event.stamp))
    return {
        "notice": notice,
        "announcements": [_stamp(by, stamp, zero_ns) for by, stamp in stamps],
    }


def _stamp(attested_by: str, stamp: PromptStamp, zero_ns: int) -> dict[str, Any]:
    found = msgspec.structs.asdict(stamp)
    for name in ("started", "finished"):
        found[f"{name}_s"] = _seconds(found.pop(f"{name}_ts"), zero_ns)
    if attested_by and not stamp.sha256:
        found["attested_by"] = attested_by
    return found


def _seconds(ts: float, zero_ns: int) -> float:
    return round(ts - zero_ns / 1e9, 3)
