"""``callshield doctor``: ring-back marks, pseudonyms, and groups that try it out."""

from __future__ import annotations

from collections import Counter

from callshield.caller_mark import load_mark_keys
from callshield.caller_pseudonym import load_caller_keys
from callshield.errors import SetupError
from callshield.settings import Settings


def check_ringback(settings: Settings) -> str:
    """The keys of marks, where callers are marked.

    Raises:
        SetupError: there are none, or they lie open.
    """
    if not settings.ringback.enabled:
        return "off"
    keys = load_mark_keys(settings.ringback.key_file)
    return f"{len(keys.keys)} keys, marks last {settings.ringback.days} days"


def check_pseudonyms(settings: Settings) -> str:
    """The keys by which callers' calls are found again.

    Raises:
        SetupError: they lie open, or are no keys.
    """
    if not settings.privacy.find_by_number:
        return "off: calls are found by their ids alone"
    path = settings.caller_keys_path
    if not path.exists():
        return f"{path} is made at the first start"
    count = len(load_caller_keys(path, make=False).keys)
    return f"{path}: {count} key{'' if count == 1 else 's'}; keep a copy apart from the store's"


def kept_beyond_calls(settings: Settings) -> str:
    """A sentence about what is kept of calls for longer than the calls' own rows, by which alone
    they are found by number; empty where nothing is."""
    if not settings.privacy.find_by_number:
        return ""
    calls_days = settings.retention.days("calls")
    kept = {f"{kind}_days": settings.retention.days(kind) for kind in ("events", "alerts")}
    if settings.recording.enabled:
        kept["recording.retention_days"] = settings.recording.retention_days
    longer = [f"{name} = {days}" for name, days in kept.items() if days > calls_days]
    if not longer:
        return ""
    return (
        f"calls older than retention calls_days = {calls_days} are found by no number, and "
        f"{', '.join(longer)} keeps more of them: set calls_days to the longest, or answer for "
        "older calls by their ids"
    )


def check_shadow(settings: Settings) -> str:
    """Groups in shadow mode: somebody is in them, and enough for a report.

    Raises:
        SetupError: a group has nobody.
    """
    from notifier.weekly import FEWEST

    sizes = Counter(agent.group for agent in settings.agents.values())
    empty = sorted(group for group in settings.shadow.groups if not sizes[group])
    if empty:
        raise SetupError(
            f"[shadow] groups names {', '.join(empty)}, and no agent has such a group "
            "(agents.ID.group)"
        )
    few = sorted(group for group in settings.shadow.groups if sizes[group] < FEWEST)
    if not settings.shadow.groups:
        return "off"
    return f"{len(settings.shadow.groups)} groups" + (
        f"; nothing will be reported of {', '.join(few)}: fewer than {FEWEST} agents" if few else ""
    )
