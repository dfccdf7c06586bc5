"""Which calls were erased, noted beside the database: a backup of before knows nothing of it.

``erased.calls`` in ``node.state_dir``: a call's id and when, a line each. When a backup is put
back, what is in it of these calls is erased again. An id is a random number; without its call it
says nothing of anybody.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import structlog

from callshield.settings import Settings

log = structlog.get_logger()

_LINE = re.compile(r"([0-9a-f]{32}) ([0-9]{1,12})")
_DAY_S = 86_400


def path_of(folder: Path) -> Path:
    """Where the list lies.

    Args:
        folder: ``node.state_dir``.
    """
    return folder / "erased.calls"


def note(path: Path, call_id: str, ts: float) -> None:
    """Add a call; on the disk when this returns. Blocks.

    A disk that does not want to costs the note alone, and is logged: the call is erased.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o600)
        try:
            os.write(descriptor, f"{call_id} {int(ts)}\n".encode("ascii"))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        log.error("erasure_not_noted", call_id=call_id, error=error.strerror)


def noted(path: Path) -> dict[str, int]:
    """Erased calls, and when; what is no line of ours is passed over."""
    try:
        text = path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return {}
    found = (_LINE.fullmatch(line) for line in text.splitlines())
    return {match[1]: int(match[2]) for match in found if match}


def forget(path: Path, before_ts: float) -> int:
    """Take out what was erased before then, and no backup can bring back any more; how many."""
    known = noted(path)
    kept = {call_id: ts for call_id, ts in known.items() if ts >= before_ts}
    if len(kept) == len(known):
        return 0
    fresh = path.with_name(path.name + ".new")
    try:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.writelines(f"{call_id} {ts}\n" for call_id, ts in kept.items())
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, path)
    except OSError as error:
        log.error("erasures_not_forgotten", error=error.strerror)
        return 0
    return len(known) - len(kept)


def longest_s(settings: Settings) -> float:
    """How long anything of a call is kept at most: a backup older than that has nothing that
    retention does not take away at once."""
    retention = settings.retention
    days = [retention.days(kind) for kind in ("words", "events", "alerts", "calls")]
    return max([*days, settings.recording.retention_days]) * _DAY_S
