"""One call in the media worker: its legs' ports, and what the bridge asked of the relay.

The audio itself is in :mod:`sipbridge.relay_core`; this is the part that Python keeps.
"""

from __future__ import annotations

import ipaddress
import re
import time
from typing import Any

from callshield.errors import SdpError
from callshield.messages import LegName, MediaQuality
from callshield.messages_media import (
    EarUpdate,
    FlowUpdate,
    KeepCall,
    KeepDialog,
    KeptCall,
    LegStats,
    LegUpdate,
    SessionClosed,
    SrtpKeys,
)
from callshield.tap import TapCodec
from sipbridge.kept_by_worker import KeptByWorker
from sipbridge.ports import PortPair
from sipbridge.quality import mean_opinion_score
from sipbridge.relay_core import Core

#: The relay's numbers of the legs, in order.
LEGS = (LegName.CALLER, LegName.AGENT, LegName.HELPER)
LEG_NUMBER = {name: number for number, name in enumerate(LEGS)}
#: No packet of a leg for this long is reported as silence.
SILENT_S = 3.0
#: Too few packets to speak of quality.
_LEAST_PACKETS = 50
_CALL_ID = re.compile(r"[0-9a-f]{32}")
_STATIC = {0: "PCMU", 8: "PCMA", 9: "G722"}
_SUITES = (
    "AES_CM_128_HMAC_SHA1_80",
    "AES_CM_128_HMAC_SHA1_32",
    "AEAD_AES_128_GCM",
    "AEAD_AES_256_GCM",
)


def is_call_id(text: str) -> bool:
    """32 small hexadecimal digits."""
    return _CALL_ID.fullmatch(text) is not None


def media_address(address: str, port: int) -> tuple[str, int]:
    """The far end's media address of an SDP; ``("", 0)`` when it takes no media.

    Raises:
        SdpError: it is not an IP address, or not a port.
    """
    if not address or port == 0:
        return ("", 0)
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
        return ("", 0)
    if parsed.is_multicast:
        raise SdpError("the media address in the SDP is a multicast address")
    return (str(parsed), port)


class MediaSession:
    """The Python side of one call.

    Args:
        core: the relay.
        handle: of the session in it.
        call_id: 32 hexadecimal digits.
        caller_ports: bound sockets towards the PBX.
        agent_ports: bound sockets towards the phone.
        now: monotonic seconds.
    """

    def __init__(
        self,
        core: Core,
        handle: int,
        call_id: str,
        *,
        caller_ports: PortPair,
        agent_ports: PortPair,
        now: float,
    ) -> None:
        self._core = core
        self.handle = handle
        self.call_id = call_id
        self.ports = {LegName.CALLER: caller_ports, LegName.AGENT: agent_ports}
        self.codecs: dict[LegName, str] = {}
        self.ptime_ms: dict[LegName, int] = {}
        self._keys: dict[LegName, SrtpKeys | None] = {}
        self.on_hold = False
        self.flow: FlowUpdate | None = None
        self._kept = KeptByWorker()
        self._opened_at = now
        self._waiting_since: float | None = None
        self._timed_out = False
        self._handed_over = False
        self._heard = False
        self._silent: dict[LegName, bool] = {}
        self._expected_since: dict[LegName, float] = {}

    # ---------------------------------------------------------------------------- commands

    def negotiate(self, update: LegUpdate, now: float) -> None:
        """Apply a leg's new SDP.

        Raises:
            SdpError: it cannot be used; the leg stays as it was.
        """
        name = update.leg
        codec = update.codec or _STATIC.get(update.payload_type, "")
        if codec not in TapCodec.__members__:
            raise SdpError(
                f"voice payload type {update.payload_type} cannot be relayed: offer PCMU, PCMA, "
                "G722 or opus"
            )
        if not -1 <= update.event_payload_type <= 127:
            raise SdpError(f"telephone-event payload type {update.event_payload_type} is not one")
        srtp: tuple[int, bytes | None, bytes | None] | None = None
        if update.srtp is not None:
            if update.srtp.suite not in _SUITES:
                raise SdpError("the SRTP suite is not one of " + ", ".join(_SUITES))
            # A direction whose key is that of before keeps its context: a new one would begin the
            # packet index anew, and so use the key stream twice (RFC 3711 section 3.2.1).
            before = self._keys.get(name)
            same = before is not None and before.suite == update.srtp.suite
            srtp = (
                _SUITES.index(update.srtp.suite),
                None if same and before and before.send == update.srtp.send else update.srtp.send,
                None
                if same and before and before.receive == update.srtp.receive
                else update.srtp.receive,
            )
        try:
            self._core.negotiate(
                self.handle,
                LEG_NUMBER[name],
                media_address(update.address, update.port),
                update.rtcp_port,
                _canonical(update.signalling_address),
                int(TapCodec[codec]),
                update.payload_type,
                update.event_payload_type,
                update.comfort_noise_type,
                min(max(update.ptime_ms, 10), 60),
                name is not LegName.CALLER,
                srtp,
            )
        except KeyError:
            raise SdpError(f"the call has no {name.value} leg: open it first") from None
        except (ValueError, RuntimeError) as error:
            raise SdpError(f"the {name.value}'s media cannot be set up: {error}") from None
        self._keys[name] = update.srtp
        self.codecs[name] = codec
        self.ptime_ms[name] = update.ptime_ms
        self._expected_since.setdefault(name, now)
        if self._waiting_since is None and {LegName.CALLER, LegName.AGENT} <= self.codecs.keys():
            # From now on RTP is expected; before both answered there need be none.
            self._waiting_since = now
            self._expect_anew(now)

    def _expect_anew(self, now: float) -> None:
        for name in self._expected_since:
            self._expected_since[name] = now

    def allow(self, flow: FlowUpdate, now: float) -> None:
        """Open and close the gates, the tap and the recorder's."""
        self._core.allow(
            self.handle,
            flow.caller_to_agent,
            flow.agent_to_caller,
            flow.tap and not flow.on_hold,
            flow.record and not flow.on_hold,
            flow.paused,
            flow.conference,
            flow.keys,
        )
        if self.on_hold and not flow.on_hold and self._waiting_since is not None:
            self._waiting_since = now
            self._expect_anew(now)
        self.on_hold = flow.on_hold
        self.flow = flow

    def protect(self, update: EarUpdate) -> None:
        """Softening and levelling, on or off."""
        self._core.ear(self.handle, update.soften, update.levelling)

    def take_dose(self, *, last: bool = False) -> tuple[float, int] | None:
        """What the agent was given to hear since the last call; None when nothing, or when a
        helper has taken the agent's place: that is another headset.

        Args:
            last: the agent hears no more of this call; who heard anything of it is told so, also
                where nothing was added.
        """
        if self._handed_over or LegName.AGENT not in self.ports:
            return None
        heard = self._core.take_dose(self.handle, LEG_NUMBER[LegName.AGENT])
        self._heard = self._heard or heard[1] > 0
        return heard if heard[1] or (last and self._heard) else None

    def take_voice(self) -> float:
        """Seconds that the agent spoke since the last call; 0 when a helper has taken the agent's
        place: that is another voice."""
        if self._handed_over:
            return 0.0
        return self._core.take_voice(self.handle) / 1000

    def add_helper(self, ports: PortPair, now: float) -> None:
        """One more leg.

        Raises:
            KeyError: there is one already.
            OSError: its sockets cannot be watched.
        """
        self._core.add_leg(
            self.handle, LEG_NUMBER[LegName.HELPER], ports.rtp.fileno(), ports.rtcp.fileno()
        )
        self.ports[LegName.HELPER] = ports
        self._expected_since.pop(LegName.HELPER, None)

    def remove_leg(self, name: LegName) -> PortPair:
        """Take a leg out of the relay; its ports, to be closed.

        Raises:
            KeyError: there is no such leg.
        """
        self._core.remove_leg(self.handle, LEG_NUMBER[name])
        for by_leg in (self.codecs, self.ptime_ms, self._keys, self._silent, self._expected_since):
            by_leg.pop(name, None)
        return self.ports.pop(name)

    def promote_helper(self) -> PortPair:
        """The helper takes the agent's place; the agent's ports, to be closed.

        Raises:
            KeyError: there is no helper.
        """
        if LegName.HELPER not in self.ports:
            raise KeyError("no helper")
        ports = self.remove_leg(LegName.AGENT)
        self._handed_over = True
        self._core.promote(self.handle)
        _rename(self.ports)
        _rename(self.codecs)
        _rename(self.ptime_ms)
        _rename(self._keys)
        _rename(self._silent)
        _rename(self._expected_since)
        return ports

    # ------------------------------------------------------------------ kept for a next bridge

    def keep(self, message: KeepCall | KeepDialog) -> None:
        """Keep what the bridge says of its side of the call."""
        self._kept.keep(message)

    def kept(self) -> KeptCall | None:
        """What was kept; None when nothing was. Whoever asks for it commands the call from now on,
        and is told anew when all its audio stops."""
        kept = self._kept.told(self.flow, (name for name, is_so in self._silent.items() if is_so))
        if kept is not None:
            self._timed_out = False
        return kept

    # ----------------------------------------------------------------------------- silence

    def silent_s(self, last: tuple[float, ...], now: float) -> float:
        """Seconds without any RTP since both legs were to send it; 0 on hold."""
        if self._waiting_since is None or self.on_hold:
            return 0.0
        return now - max(self._waiting_since, *last)

    def times_out(self, last: tuple[float, ...], now: float, timeout_s: float) -> bool:
        """True once, when :meth:`silent_s` reaches the limit."""
        if self._timed_out or self.silent_s(last, now) < timeout_s:
            return False
        self._timed_out = True
        return True

    def idle_s(self, last: tuple[float, ...], now: float) -> float:
        """Seconds since the last packet or the opening, hold or not."""
        return now - max(self._opened_at, *last)

    def silence_changes(self, last: tuple[float, ...], now: float) -> list[tuple[LegName, bool]]:
        """Legs that fell silent, or speak again, since the last call."""
        changes = []
        for name, since in self._expected_since.items():
            expected = self._waiting_since is not None and not self.on_hold
            silent = expected and now - max(since, last[LEG_NUMBER[name]]) >= SILENT_S
            if silent != self._silent.get(name, False):
                self._silent[name] = silent
                changes.append((name, silent))
        return changes

    # -------------------------------------------------------------------------------- figures

    def closed(self) -> tuple[SessionClosed, list[MediaQuality]]:
        """The counters at the end; to be called before the session is closed."""
        legs, call = self._core.stats(self.handle)
        stats = {name: self._leg_stats(name, legs[number]) for number, name in enumerate(LEGS)}
        now = time.time()
        quality = [
            MediaQuality(
                ts=now,
                call_id=self.call_id,
                leg=name,
                mos=figures.mos,
                loss_pct=_loss_pct(figures),
                jitter_ms=figures.jitter_ms,
                rtt_ms=figures.rtt_ms,
            )
            for name, figures in stats.items()
            if figures.mos
        ]
        return (
            SessionClosed(
                call_id=self.call_id,
                caller=stats[LegName.CALLER],
                agent=stats[LegName.AGENT],
                tapped=call["tapped"],
                tap_dropped=call["tap_dropped"],
            ),
            quality,
        )

    def _leg_stats(self, name: LegName, figures: dict[str, Any] | None) -> LegStats:
        if figures is None:
            return LegStats(received=0, sent=0, malformed=0, wrong_source=0, wrong_payload_type=0)
        received = figures["received"]
        lost = max(figures["expected"] - received, 0)
        loss_pct = 100.0 * lost / max(figures["expected"], 1)
        jitter_ms = figures["jitter_ms"]
        mos = 0.0
        if received >= _LEAST_PACKETS:
            mos = mean_opinion_score(
                self.codecs.get(name, "PCMU"),
                loss_pct=loss_pct,
                jitter_ms=jitter_ms,
                rtt_ms=figures["rtt_ms"],
            )
        return LegStats(
            received=received,
            sent=figures["sent"] - figures["unsent"],
            malformed=figures["malformed"],
            wrong_source=figures["wrong_source"],
            wrong_payload_type=figures["wrong_payload_type"],
            lost=lost,
            duplicates=figures["duplicates"],
            late=figures["late"],
            jitter_ms=round(jitter_ms, 2),
            rtt_ms=round(figures["rtt_ms"], 2),
            reported_loss_pct=round(figures["reported_loss_pct"], 2),
            mos=round(mos, 2),
            srtp_refused=figures["srtp_refused"],
        )


def _rename(by_leg: dict[LegName, Any]) -> None:
    if LegName.HELPER in by_leg:
        by_leg[LegName.AGENT] = by_leg.pop(LegName.HELPER)


def _loss_pct(stats: LegStats) -> float:
    return round(100.0 * stats.lost / max(stats.lost + stats.received, 1), 2)


def _canonical(address: str) -> str:
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        return ""
