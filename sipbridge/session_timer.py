"""What two ends agreed on about refreshing their session (RFC 4028)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sipbridge.sip_message import SipHeaders

_SESSION_EXPIRES = re.compile(r"^\s*(\d{1,9})\s*(?:;(.*))?$")
_REFRESHER = re.compile(r"(?:^|;)\s*refresher\s*=\s*(uac|uas)\s*(?:;|$)", re.IGNORECASE)
#: No session may be shorter (RFC 4028 section 5).
LEAST_EXPIRES_S = 90


@dataclass(frozen=True, slots=True)
class SessionTimer:
    """The timer of one dialog."""

    expires_s: int
    """Session-Expires; 0: none."""
    we_refresh: bool = False

    def headers(self) -> list[tuple[str, str]]:
        """What our 200 to a far end's refresh says (section 9)."""
        if not self.expires_s:
            return []
        refresher = "uas" if self.we_refresh else "uac"
        said = [("Session-Expires", f"{self.expires_s};refresher={refresher}")]
        # The far end has to know timers where it has to refresh.
        return said if self.we_refresh else [*said, ("Require", "timer")]


def agreed(headers: SipHeaders, *, ours: bool) -> SessionTimer:
    """What a message fixes.

    Args:
        headers: of the 2xx to an INVITE or UPDATE; or of a far end's request, of which our 200 will
            say the same.
        ours: the request is one of ours.
    """
    values = headers.all("Session-Expires") or headers.all("x")
    found = _SESSION_EXPIRES.match(values[0]) if values else None
    if found is None:
        return SessionTimer(0)
    named = _REFRESHER.search(found[2] or "")
    refresher = named[1].lower() if named else "uac"
    return SessionTimer(
        max(int(found[1]), LEAST_EXPIRES_S), we_refresh=(refresher == "uac") is ours
    )


def ends_s(refreshed_s: float, expires_s: int) -> float:
    """When an end that saw no refresh says BYE (section 10): a third of the interval, or 32 s where
    that is less, before the session expires."""
    return refreshed_s + expires_s - min(32.0, expires_s / 3)
