"""Which call and leg a SIP request means, by its dialog (RFC 3261 section 12)."""

from __future__ import annotations

from collections.abc import Iterable

from sipbridge.bridged import Bridged
from sipbridge.legs import Leg
from sipbridge.refer import DialogRequest
from sipbridge.transfer import Replaces


def leg_of_replaces(calls: Iterable[Bridged], replaces: Replaces) -> tuple[Bridged, Leg] | None:
    """The call and leg that a Replaces sent to us names (RFC 3891 section 3)."""
    wanted = (replaces.call_id, replaces.from_tag, replaces.to_tag)
    for bridged in calls:
        for leg in bridged.legs():
            named = leg.dialog()
            if named is None:
                continue
            ours = named[0]  # as the far end would name it: its own tag is to_tag
            if (ours.call_id, ours.to_tag, ours.from_tag) == wanted:
                return bridged, leg
    return None


def leg_of_request(
    calls: Iterable[Bridged], pjsua_id: int, request: DialogRequest
) -> tuple[Bridged, Leg] | None:
    """The call and leg of a request inside a dialog.

    pjsua gives the number of a call that is over to the next one: the request's own Call-ID
    decides.
    """
    for bridged in calls:
        for leg in bridged.legs():
            if not leg.gone and leg.getId() == pjsua_id:
                named = leg.dialog()
                if named and named[0].call_id == request.headers.first("Call-ID"):
                    return bridged, leg
    return None
