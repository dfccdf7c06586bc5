"""Whom an INVITE connects: in, out or between colleagues, and whether it may.

Pure. Nothing that a request says widens what the configuration allows: an agent's call goes out
only from a peer that may place such calls, to a number that a pattern names, over a line that the
peer may use. The number is read from the request's URI as it stands, and what is not exactly a
number is refused rather than understood.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from callshield.messages import Direction, LegName
from callshield.settings import Settings
from callshield.settings_sip import SIP_URI, PeerSettings
from sipbridge.sip_message import SipHeaders, address_uri, request_uri_user, uri_user

#: ``#`` is the one sign of a number that a URI must escape (RFC 3261 section 19.1.2).
_NUMBER_URI = re.compile(
    r"sips?:(?P<number>(?:[0-9*+]|%23){1,32})@(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(?::[0-9]{1,5})?"
    r"(?:;[^\s?<>\"]*)?",
    re.IGNORECASE,
)


class Refused(NamedTuple):
    """Why an INVITE is not taken."""

    status: int
    reason: str
    detail: str = ""
    """For the log; no number."""


@dataclass(frozen=True, slots=True)
class Route:
    """Whom an INVITE connects."""

    direction: Direction
    agent_id: str
    incoming: LegName
    """The leg that the INVITE came on: the caller's, or that of an agent who calls."""
    called_uri: str
    """Whom we call."""
    trunk: str = ""
    """NAME of the line; ``""``: a phone of ours."""
    dialled: str = ""
    """The number that the agent dialled; ``""`` when the agent is called."""


@dataclass(frozen=True, slots=True)
class Running:
    """A call that is there already: for the sake of loops, and of who calls too much."""

    agent_id: str
    numbers: frozenset[str]
    """The calling numbers, as From and P-Asserted-Identity say them."""
    dialled: str
    called_uri: str
    rings: bool
    """Nobody has answered it yet."""

    def is_repeated_by(self, route: Route, numbers: frozenset[str]) -> bool:
        """Whether an INVITE looks like this call, come back: Asterisk, being a B2BUA, lets neither
        Via nor Max-Forwards nor headers of ours through."""
        if not self.rings or (self.agent_id, self.dialled) != (route.agent_id, route.dialled):
            return False
        return bool(self.dialled) or bool(self.numbers & numbers)


def dialled_number(start_line: str) -> str:
    """The number in an INVITE's URI; ``""`` when the URI is anything but a number at a host.

    User parameters (``;phone-context=``), passwords, escapes other than ``%23``, headers in the
    URI and ``tel:`` make it something else.
    """
    parts = start_line.split(" ")
    match = _NUMBER_URI.fullmatch(parts[1]) if len(parts) == 3 else None
    number = match["number"].replace("%23", "#") if match else ""
    return number if len(number) <= 32 else ""


def calling_number(headers: SipHeaders) -> str:
    """Who calls: P-Asserted-Identity where the PBX gives one (RFC 3325), else From."""
    value = headers.first("P-Asserted-Identity") or headers.first("From")
    return uri_user(address_uri(value)).split(":", 1)[0]


def calling_numbers(headers: SipHeaders) -> frozenset[str]:
    """Every number by which the caller is named."""
    values = [headers.first("From"), *headers.all("P-Asserted-Identity")]
    return frozenset(uri_user(address_uri(value)).split(":", 1)[0] for value in values)


class Routing:
    """The configuration's word on whom an INVITE may connect.

    Args:
        settings: the node's configuration.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._colleagues: dict[str, str] = {}
        """SIP URI of each agent and supervisor, by id and by the user of that URI."""
        people = [*settings.agents.items(), *settings.supervisors.items()]
        for _, person in people:
            match = SIP_URI.match(person.uri)
            assert match is not None  # the settings took nothing else
            self._colleagues.setdefault(match["user"], person.uri)
        for person_id, person in people:
            self._colleagues[person_id] = person.uri

    def route(self, headers: SipHeaders, peer: PeerSettings) -> Route | Refused:
        """Whom this INVITE connects, or why it may not."""
        outbound = self._settings.outbound
        names = headers.all(outbound.agent_header)
        if names:
            return self._outgoing(headers, peer, names)
        agent_id = request_uri_user(headers.start_line)
        agent = self._settings.agents.get(agent_id)
        if agent is None:
            return Refused(404, "unknown_agent")
        internal = headers.first(outbound.internal_header).lower() == "yes" or (
            peer.internal_numbers and calling_number(headers) in self._colleagues
        )
        direction = Direction.INTERNAL if internal else Direction.INBOUND
        return Route(direction, agent_id, LegName.CALLER, agent.uri)

    def may_transfer_to(self, agent_id: str, user: str) -> bool:
        """Whether we may call this user at the PBX because an agent's phone asked for it (REFER).

        The PBX puts such a call through as one of ours: where agents' calls go out through us, the
        rules for what they dial hold for what they transfer to.

        Args:
            agent_id: whose phone asked.
            user: of the target's URI, as it stands there.
        """
        settings = self._settings
        if not any(peer.outgoing for peer in settings.peers) or user in self._colleagues:
            return True
        number = user.replace("%23", "#")
        if settings.outbound.is_extension(number):
            return True
        return settings.agents[agent_id].outgoing and settings.outbound.allows(number)

    def _outgoing(
        self, headers: SipHeaders, peer: PeerSettings, names: list[str]
    ) -> Route | Refused:
        settings, outbound = self._settings, self._settings.outbound
        if not peer.outgoing:
            return Refused(403, "outgoing_not_allowed", peer.name)
        if len(names) != 1:
            return Refused(400, "agent_header_twice", peer.name)
        agent = settings.agents.get(names[0])
        if agent is None:
            return Refused(403, "unknown_agent", peer.name)
        if not agent.outgoing:
            return Refused(403, "agent_may_not_call", names[0])
        colleague = self._called_colleague(headers)
        if colleague in settings.agents:
            # As if the colleague were called from outside: that phone is the agent's leg.
            uri = settings.agents[colleague].uri
            return Route(Direction.INTERNAL, colleague, LegName.CALLER, uri)
        if colleague:
            uri = self._colleagues[colleague]
            return Route(Direction.INTERNAL, names[0], LegName.AGENT, uri, dialled=colleague)
        number = dialled_number(headers.start_line)
        if not number:
            return Refused(403, "not_a_number", names[0])
        if not outbound.allows(number):
            return Refused(403, "number_not_allowed", names[0])
        trunks = headers.all(outbound.trunk_header)
        if len(trunks) > 1:
            return Refused(400, "trunk_header_twice", peer.name)
        trunk = trunks[0] if trunks else peer.trunk
        if trunk not in (peer.trunk, *peer.trunks):
            return Refused(403, "trunk_not_allowed", peer.name)
        internal = headers.first(outbound.internal_header).lower() == "yes"
        return Route(
            Direction.INTERNAL if internal else Direction.OUTBOUND,
            names[0],
            LegName.AGENT,
            settings.trunks[trunk].uri(number.replace("#", "%23")),
            trunk,
            number,
        )

    def _called_colleague(self, headers: SipHeaders) -> str:
        """The id or extension of ours that is called; ``""`` when it is somebody else."""
        user = request_uri_user(headers.start_line)
        if user in self._settings.agents or user in self._settings.supervisors:
            return user
        if user not in self._colleagues:
            return ""
        uri = self._colleagues[user]
        for agent_id, agent in self._settings.agents.items():
            if agent.uri == uri:
                return agent_id
        return user
