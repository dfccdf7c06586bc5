"""The bridge's part of callers who ring back: it knows the number, and tells nobody.

On *end*, pressed by a person, the notifier gets the keyed hash of the caller's number
(:class:`callshield.messages_fairness.CallerEnded`); on every INVITE the hash is looked up among the
marks that the notifier told. Nothing here waits for anything but one small file, and only when that
was changed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from callshield.caller_mark import MarkKeys, e164, is_never_marked, load_mark_keys
from callshield.messages import CallEnding, Direction
from callshield.messages_fairness import CallerEnded, RecentEnd, RingbackMarks
from callshield.settings_fairness import RingbackSettings
from sipbridge.sip_message import SipHeaders, address_uri, uri_host_port
from sipbridge.watched_keys import WatchedKeys

#: On our INVITE to the phone, or to the PBX that rings it: its value is the category.
RECENT_END_HEADER = "X-Callshield-Recent-End"
#: RFC 3323 and RFC 3325: the caller asks that nobody be told who calls.
_HIDING = {"id", "user", "header"}
_DAY_S = 86_400.0
#: The number of a ``tel:`` URI (RFC 3966), or of a SIP URI that holds one (RFC 3261 19.1.6).
_NUMBER_IN = re.compile(r"(?:tel:|sips?:(?=[^@>\s]*@))([^;:@>\s]+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class SeenEnd:
    """This caller was ended a while ago."""

    category: str
    ended_days_ago: int
    mark_id: str


def shown_number(headers: SipHeaders) -> str:
    """The number that an INVITE shows as its caller's; ``""`` where it is withheld or is none.

    P-Asserted-Identity, which the network vouches for (RFC 3325), goes before From. Who asks for
    privacy has withheld the number, also where the PBX was told it.
    """
    asked = {part.strip().lower() for v in headers.all("Privacy") for part in v.split(";")}
    sender = address_uri(headers.first("From"))
    if asked & _HIDING or uri_host_port(sender)[0].lower() == "anonymous.invalid":
        return ""
    for value in (*headers.all("P-Asserted-Identity"), headers.first("From")):
        found = _NUMBER_IN.match(address_uri(value))
        if found:
            return found[1]
    return ""


class Ringback:
    """Marks as the bridge knows them.

    Args:
        settings: ``[ringback]``.
        clock: seconds since the epoch.
        trouble: told a sentence when the key file cannot be used, ``""`` when it can again.
    """

    def __init__(
        self,
        settings: RingbackSettings,
        clock: Callable[[], float],
        trouble: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._marks: dict[str, RecentEnd] = {}
        self._keys: WatchedKeys[MarkKeys] = WatchedKeys(settings.key_file, load_mark_keys, trouble)

    def take(self, marks: RingbackMarks) -> None:
        """What the notifier says there is; everything else is gone."""
        self._marks = {mark.mark: mark for mark in marks.marks}

    def recent_end(self, headers: SipHeaders, direction: Direction) -> SeenEnd | None:
        """Whether the caller of an INVITE was ended lately; of calls from outside only."""
        if direction is not Direction.INBOUND or not self._marks:
            return None
        number = self._number(headers)
        # Where nobody is to be marked the key file is nobody's business.
        keys = self._keys.current() if number else None
        if keys is None:
            return None
        now = self._clock()
        found = [
            mark
            for mark in (self._marks.get(one) for one in keys.marks(number))
            if mark is not None and mark.until_ts > now
        ]
        if not found:
            return None
        newest = max(found, key=lambda mark: mark.ended_ts)
        days = max(0, int((now - newest.ended_ts) // _DAY_S))
        return SeenEnd(newest.category, days, newest.mark_id)

    def ended(
        self, ending: CallEnding, headers: SipHeaders, direction: Direction
    ) -> CallerEnded | None:
        """What the notifier is told of an end; nothing unless a person ended a caller's call."""
        by_person = ending.by.startswith(("agent", "supervisor"))
        if direction is not Direction.INBOUND or not by_person:
            return None
        number = self._number(headers)
        # Where nobody is to be marked the key file is nobody's business.
        keys = self._keys.current() if number else None
        if keys is None:
            return None
        mark, key_id = keys.mark(number)
        return CallerEnded(ts=ending.ts, call_id=ending.call_id, mark=mark, key_id=key_id)

    def _number(self, headers: SipHeaders) -> str:
        if not self._settings.enabled:
            return ""
        number = e164(shown_number(headers), self._settings)
        return "" if is_never_marked(number, self._settings) else number

    def look_at_keys(self) -> None:
        """Say at the start, not at the first end, that the key file cannot be used."""
        if self._settings.enabled:
            self._keys.current()
