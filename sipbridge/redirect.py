"""Whether a 3xx answer to an INVITE of ours is followed (RFC 3261 sections 8.1.3.4 and 21.3).

A phone, or the registrar in front of it, that says *he has moved* is followed: the same user, at a
host that may be called, over the same transport. One that says *call somebody else* (a call
forward) is not: whom the agents' calls may be forwarded to is the PBX's to decide, and it is told.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from callshield.settings_sip import uri_transport
from sipbridge.sip_message import SipHeaders, uri_host_port, uri_user

#: Redirections of one INVITE that are followed.
MAX_HOPS = 3
_URI = re.compile(r"<\s*([^>\s]+)\s*>|((?:sips?|tel):[^;,\s]+)", re.IGNORECASE)


def contacts_of(headers: SipHeaders) -> list[str]:
    """Every URI in the Contact headers, in order."""
    return [
        match[1] or match[2] for value in headers.all("Contact") for match in _URI.finditer(value)
    ]


@dataclass(slots=True)
class Redirections:
    """The redirections of one INVITE.

    Args:
        uri: whom we called.
        may_be_called: whether the configuration lets us call a host.
    """

    uri: str
    may_be_called: Callable[[str], bool]
    _seen: set[str] = field(default_factory=set)
    _hops: int = 0

    def refusal(self, contacts: list[str]) -> str:
        """Why a redirection is not followed; ``""`` when it is, and then it counts.

        Args:
            contacts: where it leads; all must be fit, since PJSIP tries them in turn.

        Returns:
            ``elsewhere`` (somebody else: the PBX is told), ``nowhere``, ``loop``, ``too_many``,
            ``transport`` or ``host``.
        """
        if not contacts:
            return "nowhere"
        self._seen.add(_place(self.uri))
        for contact in contacts:
            if uri_user(contact) != uri_user(self.uri):
                return "elsewhere"
            if uri_transport(contact) != uri_transport(self.uri):
                return "transport"
            if not self.may_be_called(uri_host_port(contact)[0]):
                return "host"
            if _place(contact) in self._seen:
                return "loop"
        if self._hops >= MAX_HOPS:
            return "too_many"
        self._hops += 1
        self._seen.update(_place(contact) for contact in contacts)
        return ""


def _place(uri: str) -> str:
    host, host_port = uri_host_port(uri)
    port = host_port.rpartition(":")[2] if host_port != host and host_port[-1:] != "]" else ""
    return f"{host.lower()} {port or '5060'}"
