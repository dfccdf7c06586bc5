"""A call of ours that comes back through the PBX without our header.

Max-Forwards and :data:`sipbridge.admission.CALL_ID_HEADER` show a loop to whoever keeps them. A
PBX that is a back-to-back user agent (Asterisk) begins Max-Forwards anew and drops headers that it
does not know: if its dialplan sends our call for an agent's phone back to us, it looks like a new
one. It is told by what it must have in common with the call that we are placing right now.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sipbridge.sip_message import SipHeaders, address_uri, uri_user

#: What stands for a withheld number (RFC 3323 section 4.1.1.3, and what PBXs write).
WITHHELD = frozenset(("", "anonymous", "restricted", "unknown", "unavailable", "private"))


@dataclass(frozen=True, slots=True)
class Placed:
    """A call whose phone we are calling now.

    Args:
        agent_id: for whom.
        peer: name of the PBX that it came from.
        number: the caller's, as its From has it.
    """

    agent_id: str
    peer: str
    number: str


def calling_number(headers: SipHeaders) -> str:
    """User part of From; ``""`` when it is withheld."""
    number = uri_user(address_uri(headers.first("From")))
    return "" if number.lower() in WITHHELD else number


def comes_back(placed: Iterable[Placed], agent_id: str, peer: str, number: str) -> bool:
    """Whether an INVITE is one of the calls that we are placing through the same PBX.

    Withheld numbers are never taken for each other: two callers may withhold theirs.
    """
    return bool(number) and Placed(agent_id, peer, number) in placed
