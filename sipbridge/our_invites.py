"""What our own INVITEs of a call say: to whom, from whom, and which headers go across.

A phone of ours is told what the PBX said of the caller. A line is told what is configured for it,
and nothing of the PBX, unless the line is that PBX.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from callshield.messages import LegName
from sipbridge.call_plan import CallPlan
from sipbridge.refer import replaces_of
from sipbridge.ringback import RECENT_END_HEADER
from sipbridge.sip_message import SipHeaders, max_forwards, uri_host_port
from sipbridge.transfer import Replaces

if TYPE_CHECKING:
    from sipbridge.bridged import CallHost


@dataclass(frozen=True, slots=True)
class OurInvite:
    """One INVITE but for its session description."""

    account: Any
    """The pjsua2 account that it goes by."""
    uri: str
    local: str
    """From."""
    headers: list[tuple[str, str]]


class OurInvites:
    """The INVITEs that one call may send.

    Args:
        host: the bridge.
        plan: the call.
        headers: of the INVITE that began it.
    """

    def __init__(self, host: CallHost, plan: CallPlan, headers: SipHeaders) -> None:
        self._host = host
        self._plan = plan
        self._headers = headers

    def first(self) -> OurInvite:
        """To whom the call is for: a phone of ours, or over a line whom the agent dialled."""
        host, plan = self._host, self._plan
        carried = self._carried()
        if not plan.trunk:
            if plan.recent_end is not None:
                carried.append((RECENT_END_HEADER, plan.recent_end.category))
            replaces = replaces_of(self._headers)
            if isinstance(replaces, Replaces):
                # Not a dialog of ours: one that the phone has with the PBX itself.
                carried += [("Replaces", replaces.header()), ("Require", "replaces")]
            account = host.phone_account(plan.called_uri)
            return self._invite(account, plan.called_uri, host.from_header(self._headers), carried)
        if not host.is_peer(uri_host_port(plan.called_uri)[0]):
            carried = []  # what our PBX says to us is not a carrier's to know
        if host.settings.trunks[plan.trunk].caller_id:  # the only one that is shown
            carried = [item for item in carried if item[0].lower() != "p-asserted-identity"]
        local, identity = host.trunk_identity(plan.trunk, self._headers)
        account = host.trunk_account(plan.trunk)
        return self._invite(account, plan.called_uri, local, [*carried, *identity])

    def helper(self, uri: str) -> OurInvite:
        """To the phone of somebody whom the agent asked into the call."""
        account = self._host.phone_account(uri)
        return self._invite(account, uri, self.customer(), self.carried_to_colleagues())

    def customer(self, *, pbx_side: bool = False) -> str:
        """A From header that shows whom the agent speaks with, to a phone or PBX of ours."""
        if self._plan.incoming is LegName.CALLER:
            return self._host.from_header(self._headers, pbx_side=pbx_side)
        return self._host.from_number(self._plan.dialled, pbx_side=pbx_side)

    def carried_to_colleagues(self) -> list[tuple[str, str]]:
        """What of the INVITE goes on to who joins later; an agent's own identity is not the
        customer's."""
        return [] if self._plan.incoming is LegName.AGENT else self._carried()

    def _carried(self) -> list[tuple[str, str]]:
        """Headers of the INVITE that go across, but those that are said to us alone."""
        own = self._host.own_headers
        return [header for header in self._headers.carried() if header[0].lower() not in own]

    def _invite(
        self, account: Any, uri: str, local: str, headers: list[tuple[str, str]]
    ) -> OurInvite:
        hops = ("Max-Forwards", str(max_forwards(self._headers) - 1))
        return OurInvite(account, uri, local, [hops, *headers])
