"""Session descriptions (RFC 8866) and the offer/answer of our two legs (RFC 3264).

The bridge never lets one leg's session description reach the other: each leg is offered, or
answered with, the address and ports of our own relay. What passes between the legs is only the
choice of codec. Pure functions on text; no sockets.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from enum import StrEnum

from callshield.errors import SdpError

#: A session description longer than this is not one of a phone call.
MAX_SDP_BYTES = 16 * 1024

#: Static payload types of RFC 3551 that need no rtpmap; only those we can name in a log.
_STATIC_PAYLOAD_TYPES = {
    0: ("PCMU", 8000),
    3: ("GSM", 8000),
    4: ("G723", 8000),
    8: ("PCMA", 8000),
    9: ("G722", 8000),
    13: ("CN", 8000),
    15: ("G728", 8000),
    18: ("G729", 8000),
}
#: The voice codecs that the relay carries.
VOICE_CODECS = ("PCMU", "PCMA")
_RTPMAP = re.compile(r"^(\d{1,3}) ([A-Za-z0-9._-]{1,32})/(\d{1,6})(?:/(\d{1,2}))?$")


class Direction(StrEnum):
    """Media direction (RFC 8866 section 6.7), from the point of view of who wrote it."""

    SENDRECV = "sendrecv"
    SENDONLY = "sendonly"
    RECVONLY = "recvonly"
    INACTIVE = "inactive"

    @property
    def mirrored(self) -> Direction:
        """What the answerer says when it agrees (RFC 3264 section 6.1)."""
        return _MIRROR[self]


_MIRROR = {
    Direction.SENDRECV: Direction.SENDRECV,
    Direction.SENDONLY: Direction.RECVONLY,
    Direction.RECVONLY: Direction.SENDONLY,
    Direction.INACTIVE: Direction.INACTIVE,
}


@dataclass(frozen=True, slots=True)
class Codec:
    """One format of an audio line."""

    payload_type: int
    name: str
    """Encoding name in capitals as registered; ``telephone-event`` in small letters."""
    clock_rate: int

    def __str__(self) -> str:
        return f"{self.name}/{self.clock_rate}"


@dataclass(frozen=True, slots=True)
class AudioMedia:
    """The first usable audio line of a session description."""

    index: int
    """Position among the m= lines."""
    address: str
    """Where the writer wants its RTP: an IP address; ``""`` when it is a host name."""
    port: int
    """RTP port; 0 when the line is refused."""
    profile: str
    """``RTP/AVP`` and so on."""
    codecs: tuple[Codec, ...]
    direction: Direction
    ptime_ms: int

    @property
    def voice(self) -> tuple[Codec, ...]:
        """The voice codecs among them that the relay carries, in the writer's order."""
        return tuple(c for c in self.codecs if c.name in VOICE_CODECS and c.clock_rate == 8000)

    @property
    def event(self) -> Codec | None:
        """telephone-event at 8 kHz (RFC 4733), if offered."""
        for codec in self.codecs:
            if codec.name == "telephone-event" and codec.clock_rate == 8000:
                return codec
        return None

    @property
    def held(self) -> bool:
        """The writer holds the call: it will not hear us (RFC 3264 section 8.4).

        The old way, a connection address of 0.0.0.0 (RFC 2543), counts too.
        """
        return (
            self.direction in (Direction.SENDONLY, Direction.INACTIVE) or self.address == "0.0.0.0"
        )


@dataclass(frozen=True, slots=True)
class SessionDescription:
    """What the bridge needs to know of a session description."""

    audio: AudioMedia | None
    media_lines: tuple[str, ...]
    """Every m= line without the ``m=``; an answer must have as many (RFC 3264 section 6)."""

    def offered(self) -> str:
        """The codecs by name, for a log line; never an address."""
        if self.audio is None:
            return "no audio line"
        return ", ".join(str(codec) for codec in self.audio.codecs) or "no codec"


@dataclass(frozen=True, slots=True)
class Negotiated:
    """The codecs in force on one leg."""

    voice: Codec
    event: Codec | None


def parse(text: str) -> SessionDescription:
    """Read a session description.

    Lines that the bridge does not use are passed over. A host name instead of an address gives
    ``address=""``: media then waits for a later address.

    Raises:
        SdpError: not a session description, or one whose audio line cannot be understood.
    """
    if len(text) > MAX_SDP_BYTES:
        raise SdpError(f"a session description of {len(text)} characters is too long")
    lines = text.replace("\r\n", "\n").split("\n")
    if not lines or lines[0].strip() != "v=0":
        raise SdpError("a session description does not begin with v=0")
    session_address = ""
    session_direction = Direction.SENDRECV
    sections: list[tuple[str, list[str]]] = []
    for line in lines[1:]:
        if len(line) < 2 or line[1] != "=":
            if line.strip():
                raise SdpError("a line of a session description is not of the form x=value")
            continue
        if line.startswith("m="):
            sections.append((line[2:].strip(), []))
        elif sections:
            sections[-1][1].append(line)
        elif line.startswith("c="):
            session_address = _connection_address(line[2:])
        elif line[2:].strip() in Direction._value2member_map_ and line.startswith("a="):
            session_direction = Direction(line[2:].strip())
    audio: AudioMedia | None = None
    for index, (media, attributes) in enumerate(sections):
        if media.split(" ", 1)[0] != "audio":
            continue
        candidate = _audio(index, media, attributes, session_address, session_direction)
        if candidate.port and candidate.profile in ("RTP/AVP", "RTP/AVPF"):
            audio = candidate
            break
    return SessionDescription(audio, tuple(media for media, _ in sections))


def _connection_address(value: str) -> str:
    parts = value.split()
    if len(parts) != 3 or parts[0] != "IN" or parts[1] not in ("IP4", "IP6"):
        raise SdpError("a c= line is not of the form IN IP4 address")
    host = parts[2].split("/", 1)[0]
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return ""


def _audio(
    index: int,
    media: str,
    attributes: list[str],
    session_address: str,
    session_direction: Direction,
) -> AudioMedia:
    parts = media.split()
    if len(parts) < 4 or len(parts) > 64:
        raise SdpError("an m= line is not of the form audio port profile formats")
    port = _number(parts[1].split("/", 1)[0], 65535, "port")
    formats = [_number(part, 127, "payload type") for part in parts[3:]]
    maps: dict[int, Codec] = {
        number: Codec(number, *known)
        for number in formats
        if (known := _STATIC_PAYLOAD_TYPES.get(number)) is not None
    }
    address, direction, ptime_ms = session_address, session_direction, 20
    for line in attributes:
        if line.startswith("c="):
            address = _connection_address(line[2:])
            continue
        if not line.startswith("a="):
            continue
        name, _, value = line[2:].strip().partition(":")
        if name in Direction._value2member_map_ and not value:
            direction = Direction(name)
        elif name == "rtpmap":
            match = _RTPMAP.match(value)
            if match is None:
                raise SdpError("an a=rtpmap line is not of the form number name/rate")
            number = int(match[1])
            encoding = match[2]
            encoding = (
                "telephone-event" if encoding.lower() == "telephone-event" else encoding.upper()
            )
            if number in formats:
                maps[number] = Codec(number, encoding, int(match[3]))
        elif name == "ptime" and value.isascii() and value.isdigit() and len(value) < 4:
            ptime_ms = max(10, min(60, int(value)))
    codecs = tuple(
        maps.get(number, Codec(number, f"payload type {number}", 0)) for number in formats
    )
    return AudioMedia(index, address, port, parts[2], codecs, direction, ptime_ms)


def _number(text: str, limit: int, what: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 5 or int(text) > limit:
        raise SdpError(f"an m= line carries a {what} that is not a number up to {limit}")
    return int(text)


def negotiate(offer: SessionDescription) -> Negotiated | None:
    """The codecs that we accept of an offer or find in an answer: the writer's first choice.

    Returns None when there is nothing the relay carries (488, RFC 3261 section 21.4.26).
    """
    if offer.audio is None or not offer.audio.voice:
        return None
    return Negotiated(offer.audio.voice[0], offer.audio.event)


def write_offer(
    *,
    address: str,
    port: int,
    voices: tuple[Codec, ...],
    events: bool,
    session_id: int,
    event_payload_type: int = 101,
) -> str:
    """Our offer to the agent's phone: the caller's voice codecs, in the caller's order.

    Args:
        address: our media address on this side.
        port: our RTP port.
        voices: voice codecs, static payload types.
        events: offer telephone-event.
        event_payload_type: its payload type.
        session_id: number in the o= line.
    """
    formats = list(voices) + (
        [Codec(event_payload_type, "telephone-event", 8000)] if events else []
    )
    return _write(address, session_id, ["audio"], 0, port, "RTP/AVP", formats, Direction.SENDRECV)


def write_answer(
    offer: SessionDescription,
    *,
    address: str,
    port: int,
    negotiated: Negotiated,
    session_id: int,
) -> str:
    """Our answer: one voice codec, the offerer's payload types, every other line refused.

    Raises:
        SdpError: the offer has no audio line that can be answered.
    """
    if offer.audio is None:
        raise SdpError("an offer without a usable audio line cannot be answered")
    formats = [negotiated.voice] + ([negotiated.event] if negotiated.event else [])
    return _write(
        address,
        session_id,
        list(offer.media_lines),
        offer.audio.index,
        port,
        offer.audio.profile,
        formats,
        offer.audio.direction.mirrored,
    )


def _write(
    address: str,
    session_id: int,
    media_lines: list[str],
    index: int,
    port: int,
    profile: str,
    formats: list[Codec],
    direction: Direction,
) -> str:
    family = "IP6" if ":" in address else "IP4"
    lines = [
        "v=0",
        f"o=- {session_id} {session_id} IN {family} {address}",
        "s=-",
        f"c=IN {family} {address}",
        "t=0 0",
    ]
    for position, media in enumerate(media_lines):
        if position != index:
            # Refused lines repeat type, profile and formats with port 0 (RFC 3264 section 6).
            parts = media.split()
            parts[1] = "0"
            lines.append("m=" + " ".join(parts))
            continue
        numbers = " ".join(str(codec.payload_type) for codec in formats)
        lines.append(f"m=audio {port} {profile} {numbers}")
        for codec in formats:
            lines.append(f"a=rtpmap:{codec.payload_type} {codec.name}/{codec.clock_rate}")
            if codec.name == "telephone-event":
                lines.append(f"a=fmtp:{codec.payload_type} 0-15")
        lines += ["a=ptime:20", f"a={direction}"]
    return "\r\n".join(lines) + "\r\n"
