"""One call in the media worker: two legs, their ports, and what the bridge allowed.

Pure but for the sockets that it holds for the worker. Commands of the bridge change it; messages
for the bridge are left in the outbox.
"""

from __future__ import annotations

import ipaddress
import re

from callshield.errors import SdpError
from callshield.messages import (
    FlowUpdate,
    LegName,
    LegUpdate,
    MediaMessage,
    PlayFinished,
    SessionClosed,
)
from sipbridge import g711
from sipbridge.latching import Address, Latch, Network
from sipbridge.playout import Playout
from sipbridge.ports import PortPair
from sipbridge.relay import AgentLeg, CallerLeg, Inlet, Outlet, leg_stats
from sipbridge.tap_sender import CallTap

_CALL_ID = re.compile(r"[0-9a-f]{32}")


def is_call_id(text: str) -> bool:
    """32 small hexadecimal digits."""
    return _CALL_ID.fullmatch(text) is not None


def media_address(address: str, port: int) -> Address | None:
    """The far end's media address of an SDP, or None when it takes no media.

    Raises:
        SdpError: it is not an IP address, or not a port.
    """
    if not address or port == 0:
        return None
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        raise SdpError(
            "the media address in the SDP is not an IP address: resolve the name before"
        ) from None
    if not 0 < port < 65536:
        raise SdpError(f"the media port {port} in the SDP is not between 1 and 65535")
    if parsed.is_unspecified:
        # c=IN IP4 0.0.0.0: the old way to hold (RFC 3264 section 8.4).
        return None
    if parsed.is_multicast:
        raise SdpError("the media address in the SDP is a multicast address")
    return (str(parsed), port)


class MediaSession:
    """The state of one call.

    Args:
        call_id: 32 hexadecimal digits.
        caller_ports: bound sockets towards the PBX.
        agent_ports: bound sockets towards the phone.
        caller_networks: networks of the PBX side.
        agent_networks: networks of the phone side.
        latch_window_s: see :class:`sipbridge.latching.Latch`.
        tap: of this call's caller, closed at first.
        outbox: where messages for the bridge are left.
        now: monotonic seconds.
    """

    def __init__(
        self,
        call_id: str,
        *,
        caller_ports: PortPair,
        agent_ports: PortPair,
        caller_networks: list[Network],
        agent_networks: list[Network],
        latch_window_s: float,
        tap: CallTap,
        outbox: list[MediaMessage],
        now: float,
    ) -> None:
        self.call_id = call_id
        self.caller_ports = caller_ports
        self.agent_ports = agent_ports
        self._outbox = outbox
        self._tap = tap
        self.on_hold = False
        self._timed_out = False
        self._waiting_since: float | None = None
        self._opened_at = now
        caller_latch = Latch(caller_networks, latch_window_s)
        agent_latch = Latch(agent_networks, latch_window_s)
        self.caller = CallerLeg(
            Inlet(call_id, LegName.CALLER, caller_latch, outbox), Outlet(caller_latch)
        )
        self.agent = AgentLeg(
            Inlet(call_id, LegName.AGENT, agent_latch, outbox), Outlet(agent_latch)
        )

    def leg(self, name: LegName) -> CallerLeg | AgentLeg:
        return self.caller if name is LegName.CALLER else self.agent

    def ports(self, name: LegName) -> PortPair:
        return self.caller_ports if name is LegName.CALLER else self.agent_ports

    def negotiate(self, update: LegUpdate, now: float) -> None:
        """Apply a leg's new SDP.

        Raises:
            SdpError: it cannot be used; the leg stays as it was.
        """
        if update.payload_type not in g711.VOICE_PAYLOAD_TYPES:
            raise SdpError(
                f"voice payload type {update.payload_type} cannot be relayed: offer PCMU (0) "
                "or PCMA (8)"
            )
        if not -1 <= update.event_payload_type <= 127:
            raise SdpError(f"telephone-event payload type {update.event_payload_type} is not one")
        address = media_address(update.address, update.port)
        leg = self.leg(update.leg)
        leg.inlet.negotiate(
            address,
            _canonical(update.signalling_address),
            update.payload_type,
            update.event_payload_type,
            now,
        )
        for one, other in ((self.caller, self.agent), (self.agent, self.caller)):
            one.outlet.negotiate(
                one.inlet.payload_type, one.inlet.event_payload_type, other.inlet.payload_type
            )
        if (
            self._waiting_since is None
            and self.caller.inlet.latch.sdp
            and self.agent.inlet.latch.sdp
        ):
            # From now on RTP is expected; before both answered there need be none.
            self._waiting_since = now

    def allow(self, flow: FlowUpdate, now: float) -> None:
        """Open and close the gates and the tap."""
        self.agent.outlet.open_gate(flow.caller_to_agent)
        self.caller.outlet.open_gate(flow.agent_to_caller)
        if self.on_hold and not flow.on_hold and self._waiting_since is not None:
            self._waiting_since = now
        self.on_hold = flow.on_hold
        if flow.tap and not flow.on_hold:
            self.caller.tap = self._tap
        else:
            self.close_tap(now)

    def close_tap(self, now: float) -> None:
        """Nothing of the caller goes to the detector any more."""
        if self.caller.tap is not None:
            self.caller.tap = None
            self._tap.detach(now)

    def last_rtp_at(self) -> float:
        """Monotonic time of the newest accepted packet of either leg; 0 when there was none."""
        return max(self.caller.inlet.last_at, self.agent.inlet.last_at)

    def silent_s(self, now: float) -> float:
        """Seconds without any RTP since both legs were to send it; 0 on hold."""
        if self._waiting_since is None or self.on_hold:
            return 0.0
        return now - max(self._waiting_since, self.last_rtp_at())

    def times_out(self, now: float, timeout_s: float) -> bool:
        """True once, when :meth:`silent_s` reaches the limit."""
        if self._timed_out or self.silent_s(now) < timeout_s:
            return False
        self._timed_out = True
        return True

    def idle_s(self, now: float) -> float:
        """Seconds since the last packet or the opening, hold or not."""
        return now - max(self._opened_at, self.last_rtp_at())

    def finish_play(
        self, name: LegName, *, complete: bool, now: float, wall_now: float, error: str = ""
    ) -> None:
        """Report the prompt that played on a leg, if one did, and be done with it."""
        outlet = self.leg(name).outlet
        playout = outlet.playout
        if playout is None:
            return
        outlet.play(None)
        if complete and not playout.heard:
            complete = False
            error = (
                f"{playout.failed} of {playout.frames} packets of the prompt could not be sent: "
                "check the route to the other side"
            )
        self._outbox.append(
            PlayFinished(
                call_id=self.call_id,
                play_id=playout.play_id,
                leg=name,
                complete=complete,
                spans=playout.spans(now, wall_now),
                error=error,
            )
        )

    def begin_play(self, name: LegName, playout: Playout) -> str:
        """Let a prompt play; an error's sentence when the leg cannot hear."""
        outlet = self.leg(name).outlet
        if outlet.latch.destination is None or outlet.payload_type < 0:
            return f"the {name.value}'s media address is not known: nobody would hear the prompt"
        outlet.play(playout)
        return ""

    def closed(self) -> SessionClosed:
        """The counters at the end."""
        return SessionClosed(
            call_id=self.call_id,
            caller=leg_stats(self.caller),
            agent=leg_stats(self.agent),
            tapped=self._tap.tapped,
            tap_dropped=self._tap.dropped,
        )


def _canonical(address: str) -> str:
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        return ""
