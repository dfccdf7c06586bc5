"""Whose media a leg takes, and where it sends its own: the rules against RTP injection.

A leg takes media from the address and port in the far end's SDP. A phone behind NAT sends from
another one; that one is taken only for a few seconds after the SDP came, and only when its
address is that of the leg's signalling or lies in a network that the administrator named. The
first valid packet from there *latches*: media goes back to it (RFC 4961, symmetric RTP) and
nobody else is heard any more. Unlike "learn from whoever sends first" (RTPbleed, CVE-2017-14099
and others) a stranger who sprays packets never wins.

Three ranks settle who may displace whom: the SDP's own address, then the signalling address,
then the configured networks. The SDP's address may always take its leg back; a signalling
address displaces a network only while the window is open.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from enum import IntEnum

Address = tuple[str, int]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Rank(IntEnum):
    """How sure we are that a source is the far end."""

    NOBODY = 0
    NETWORK = 1
    SIGNALLING = 2
    SDP = 3


class Latch:
    """The source of one leg's media.

    Args:
        networks: from which media may come besides the SDP's and the signalling address.
        window_s: how long after :meth:`arm` a source other than the SDP's may show itself.
    """

    __slots__ = (
        "_confirmed",
        "_deadline",
        "_networks",
        "_rank",
        "_signalling",
        "_window_s",
        "destination",
        "sdp",
        "source",
    )

    def __init__(self, networks: Sequence[Network], window_s: float) -> None:
        self._networks = tuple(networks)
        self._window_s = window_s
        self._signalling = ""
        self._deadline = 0.0
        self._rank = Rank.NOBODY
        self._confirmed = False
        self.sdp: Address | None = None
        """What the far end's SDP says."""
        self.source: Address | None = None
        """The source that has latched."""
        self.destination: Address | None = None
        """Where to send: to the latched source, to the SDP's address before."""

    def arm(self, sdp: Address | None, signalling: str, now: float) -> None:
        """A new SDP came: the window opens again.

        When the SDP's address is the same as before (a session refresh), media goes on to the
        latched source until another one shows itself: a muted phone behind NAT stays reachable.

        Args:
            sdp: address and port; None when the far end gave none (or held with 0.0.0.0).
            signalling: address from which the leg's SIP comes; empty when unknown.
            now: monotonic seconds.
        """
        if sdp != self.sdp:
            self.source = None
            self._rank = Rank.NOBODY
        self.sdp = sdp
        self.destination = self.source or sdp
        self._signalling = signalling
        self._confirmed = False
        self._deadline = now + self._window_s

    def _rank_of(self, source: Address) -> Rank:
        if source == self.sdp:
            return Rank.SDP
        if source[0] == self._signalling:
            return Rank.SIGNALLING
        if self._networks:
            address = ipaddress.ip_address(source[0].partition("%")[0])
            if any(address in network for network in self._networks):
                return Rank.NETWORK
        return Rank.NOBODY

    def accept(self, source: Address, now: float) -> bool:
        """Whether a valid packet with the right payload type may come from here; latches it.

        Args:
            source: address and port of the datagram.
            now: monotonic seconds.
        """
        if source == self.source:
            self._confirmed = True
            return True
        if self.sdp is None:
            # No SDP, no media: before an answer nobody may latch.
            return False
        rank = self._rank_of(source)
        if rank is Rank.NOBODY:
            return False
        if rank is not Rank.SDP and (
            now > self._deadline or (self._confirmed and rank <= self._rank)
        ):
            return False
        self.source = self.destination = source
        self._rank = rank
        self._confirmed = True
        return True

    @property
    def settled(self) -> Address | None:
        """The source whose packets need no more questions, or None."""
        return self.source if self._confirmed else None
