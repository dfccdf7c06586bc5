"""What calls in rtpengine share, what it is told of their legs, and what it says of them."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any

from callshield.errors import CallshieldError
from callshield.messages import LegName
from callshield.messages_media import LegUpdate
from sipbridge.media_session import media_address
from sipbridge.ng_client import NgClient
from sipbridge.ng_protocol import session_description
from sipbridge.relay_core import Core

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
#: A far end without an address, as in the old way to hold (RFC 3264 section 8.4).
NOWHERE = ("0.0.0.0", 9)


@dataclass(frozen=True, slots=True)
class Plane:
    """What all calls share.

    Args:
        ng: rtpengine.
        core: the relay in C, for its tap.
    """

    ng: NgClient
    core: Core
    prefix: str
    """Of our call ids in rtpengine: several nodes may share one."""
    interfaces: tuple[str, str]
    """rtpengine's names of the sides towards the PBX and the phones."""
    tap_address: str
    networks: dict[LegName, list[Network]]
    """From where a far end may show its address by sending (phones behind NAT); empty: it has to be
    the SDP's."""
    tos: int
    """Type of service byte of what is sent."""
    codes: list[str]
    """Feature codes."""


def leg_formats(update: LegUpdate, events: list[int]) -> dict[str, Any]:
    """What of a leg goes into a session description, as keywords of :func:`session_description`."""
    return {
        "codec": update.codec,
        "payload_type": update.payload_type,
        "event_payload_types": events,
        "comfort_noise_type": update.comfort_noise_type,
        "ptime_ms": update.ptime_ms,
    }


def leg_sdp(update: LegUpdate | None, other: LegUpdate | None, events: list[int]) -> str:
    """A leg's session description; of one whose far end is not known yet, one that goes with the
    other's codec and has no address."""
    if update is None:
        formats = (
            leg_formats(other, events) if other is not None else {"event_payload_types": events}
        )
        return session_description(*NOWHERE, **formats)
    address, port = media_address(update.address, update.port)
    place = (address, port) if address else NOWHERE
    return session_description(*place, **leg_formats(update, events), rtcp_port=update.rtcp_port)


def stream_of(reply: dict[str, Any], tag: str) -> dict[str, Any]:
    """The RTP stream of one end in the answer to *query* or *delete*; empty where there is none."""
    try:
        stream = reply["tags"][tag]["medias"][0]["streams"][0]
    except (KeyError, IndexError, TypeError):
        return {}
    return stream if isinstance(stream, dict) else {}


def local_end(reply: dict[str, Any], tag: str) -> tuple[str, int]:
    """Where rtpengine sends from to one end.

    Raises:
        CallshieldError: it does not say.
    """
    stream = stream_of(reply, tag)
    address, port = stream.get("local address"), stream.get("local port")
    if not isinstance(address, str) or not isinstance(port, int):
        raise CallshieldError("rtpengine does not say where it copies the caller's audio from")
    return address, port


def packets_of(reply: dict[str, Any], tag: str) -> int:
    """RTP packets that came from one far end; 0 where rtpengine does not say."""
    stats = stream_of(reply, tag).get("stats")
    packets = stats.get("packets") if isinstance(stats, dict) else 0
    return packets if isinstance(packets, int) else 0
