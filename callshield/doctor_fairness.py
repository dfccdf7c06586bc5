"""``callshield doctor``: ring-back marks, and groups that try it out."""

from __future__ import annotations

from collections import Counter

from callshield.caller_mark import load_mark_keys
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
