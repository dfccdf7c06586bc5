"""Session descriptions (RFC 8866): read and written.

The bridge never lets one leg's session description reach the other: each leg is offered, or
answered with, the address and ports of our own relay. What may be agreed on a leg is decided in
:mod:`sipbridge.offer_answer`. Pure functions on text, linear in its length; no sockets.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from callshield.errors import SdpError
from callshield.messages_media import SrtpKeys
from sipbridge.opus_format import written_opus_parameters

#: A session description longer than this is not one of a phone call.
MAX_SDP_BYTES = 16 * 1024
#: More m= lines than this are not a phone call (and more than PJSIP holds).
MAX_MEDIA_LINES = 16
#: Formats of one m= line, and attributes that we keep of it.
MAX_FORMATS = 60
MAX_CRYPTO_LINES = 16
#: Packet lengths that the relay and its prompts are made for.
MIN_PTIME_MS, MAX_PTIME_MS, USUAL_PTIME_MS = 10, 60, 20

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
#: The two laws of G.711: what the core can limit, mix and transcode into each other.
G711 = ("PCMU", "PCMA")
#: The voice codecs that the relay carries, each with its clock and channels (RFC 3551 section
#: 4.5, RFC 7587 section 4.1; G.722's clock says 8000 by historical mistake, RFC 3551 4.5.2).
VOICE_CODECS = {
    "PCMU": (8000, 1),
    "PCMA": (8000, 1),
    "G722": (8000, 1),
    "OPUS": (48000, 2),
}
_PROFILES = ("RTP/AVP", "RTP/AVPF", "RTP/SAVP", "RTP/SAVPF")
_RTPMAP = re.compile(r"^(\d{1,3}) +([A-Za-z0-9._-]{1,32})/(\d{1,6})(?:/(\d{1,2}))? *\Z")
_FMTP = re.compile(r"^(\d{1,3}) +([!-~][ -~]{0,255})\Z")
_TOKEN = re.compile(r"^[!-~]{1,64}\Z")


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
    channels: int = 1
    fmtp: str = field(default="", compare=False)
    """The value of its ``a=fmtp`` line, as the far end wrote it; never echoed."""

    def __str__(self) -> str:
        return f"{self.name}/{self.clock_rate}"

    @property
    def carried(self) -> bool:
        """A voice codec that the relay carries."""
        return VOICE_CODECS.get(self.name) == (self.clock_rate, self.channels)


@dataclass(frozen=True, slots=True)
class AudioMedia:
    """One usable audio line of a session description."""

    index: int
    """Position among the m= lines."""
    address: str
    """Where the writer wants its RTP: an IP address; ``""`` when it is a host name, the
    unspecified address or a group address."""
    port: int
    """RTP port; 0 when the line is refused."""
    profile: str
    """``RTP/AVP`` and so on."""
    codecs: tuple[Codec, ...]
    direction: Direction
    ptime_ms: int
    """10-60, the writer's wish held to what the relay is made for."""
    rtcp_port: int = 0
    """From ``a=rtcp`` (RFC 3605); 0: the port above."""
    crypto: tuple[str, ...] = field(default=(), repr=False)
    """Values of its ``a=crypto`` lines (RFC 4568), unread; they carry keys."""
    unspecified_address: bool = False
    """The address was 0.0.0.0 or ::, the old way to hold."""

    @property
    def voice(self) -> tuple[Codec, ...]:
        """The voice codecs among them that the relay carries, in the writer's order."""
        return tuple(codec for codec in self.codecs if codec.carried)

    @property
    def event(self) -> Codec | None:
        """telephone-event at 8 kHz (RFC 4733), if offered."""
        return self.event_at(8000)

    def event_at(self, clock_rate: int) -> Codec | None:
        """telephone-event at the clock of a voice codec: they share one timestamp line
        (RFC 4733 section 2.1)."""
        return self._first("telephone-event", clock_rate)

    @property
    def comfort_noise(self) -> Codec | None:
        """Comfort noise at 8 kHz (RFC 3389), if offered."""
        return self._first("CN", 8000)

    def _first(self, name: str, clock_rate: int) -> Codec | None:
        for codec in self.codecs:
            if codec.name == name and codec.clock_rate == clock_rate:
                return codec
        return None

    @property
    def secure(self) -> bool:
        """A profile of SRTP."""
        return self.profile.startswith("RTP/SAVP")

    @property
    def held(self) -> bool:
        """The writer holds the call: it will not hear us (RFC 3264 section 8.4).

        The old way, a connection address of 0.0.0.0 (RFC 2543), counts too.
        """
        return (
            self.direction in (Direction.SENDONLY, Direction.INACTIVE) or self.unspecified_address
        )


@dataclass(frozen=True, slots=True)
class SessionDescription:
    """What the bridge needs to know of a session description."""

    audio: AudioMedia | None
    """The audio line that counts: the first usable one, until
    :func:`sipbridge.offer_answer.choose_line` takes another."""
    media_lines: tuple[str, ...]
    """Every m= line without the ``m=``; an answer must have as many (RFC 3264 section 6)."""
    audio_lines: tuple[AudioMedia, ...] = ()
    """Every audio line with a port and an RTP profile."""

    def offered(self) -> str:
        """The codecs by name, for a log line; never an address."""
        if self.audio is None:
            return "no audio line"
        return ", ".join(str(codec) for codec in self.audio.codecs) or "no codec"


@dataclass(frozen=True, slots=True)
class Negotiated:
    """What is in force on one leg."""

    voice: Codec
    event: Codec | None
    comfort_noise: Codec | None = None
    srtp: SrtpKeys | None = None


def parse(text: str) -> SessionDescription:
    """Read a session description.

    Lines that the bridge does not use are passed over. A host name instead of an address gives
    ``address=""``: media then waits for a later address.

    Raises:
        SdpError: not a session description, or one whose audio line cannot be understood.
    """
    if len(text) > MAX_SDP_BYTES:
        raise SdpError(f"a session description of {len(text)} characters is too long")
    if "\x00" in text:
        raise SdpError("a session description carries a NUL")
    lines = text.replace("\r\n", "\n").split("\n")
    if lines[0].strip() != "v=0":
        raise SdpError("a session description does not begin with v=0")
    session_address = _Address("", False)
    session_direction = Direction.SENDRECV
    sections: list[tuple[tuple[str, ...], list[str]]] = []
    for line in lines[1:]:
        if len(line) < 2 or line[1] != "=":
            if line.strip():
                raise SdpError("a line of a session description is not of the form x=value")
            continue
        if line.startswith("m="):
            sections.append((_media_parts(line[2:]), []))
            if len(sections) > MAX_MEDIA_LINES:
                raise SdpError(f"a session description has more than {MAX_MEDIA_LINES} m= lines")
        elif sections:
            sections[-1][1].append(line)
        elif line.startswith("c="):
            session_address = _connection_address(line[2:])
        elif line[2:].strip() in Direction._value2member_map_ and line.startswith("a="):
            session_direction = Direction(line[2:].strip())
    found: list[AudioMedia] = []
    for index, (media, attributes) in enumerate(sections):
        if media[0] != "audio":
            continue
        candidate = _audio(index, media, attributes, session_address, session_direction)
        if candidate.port and candidate.profile in _PROFILES:
            found.append(candidate)
    return SessionDescription(
        found[0] if found else None, tuple(" ".join(media) for media, _ in sections), tuple(found)
    )


def _media_parts(value: str) -> tuple[str, ...]:
    """The words of an m= line; it is written again in our answer, so each must be a token."""
    parts = tuple(value.split())
    if len(parts) < 4 or len(parts) > 3 + MAX_FORMATS:
        raise SdpError("an m= line is not of the form audio port profile formats")
    if not all(_TOKEN.match(part) for part in parts):
        raise SdpError("an m= line carries what is no token")
    return parts


@dataclass(frozen=True, slots=True)
class _Address:
    """A connection address; ``""`` when nothing can be sent there."""

    text: str
    unspecified: bool


def _connection_address(value: str) -> _Address:
    parts = value.split()
    if len(parts) != 3 or parts[0] != "IN" or parts[1] not in ("IP4", "IP6"):
        raise SdpError("a c= line is not of the form IN IP4 address")
    host = parts[2].split("/", 1)[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return _Address("", False)
    if address.version != int(parts[1][2]):
        raise SdpError(f"a c= line of {parts[1]} carries an address of the other family")
    if address.is_unspecified:
        return _Address("", True)
    # A group or an interface's name is no place for one caller's voice.
    usable = not address.is_multicast and "%" not in host and host != "255.255.255.255"
    return _Address(str(address) if usable else "", False)


def _audio(
    index: int,
    parts: tuple[str, ...],
    attributes: list[str],
    session_address: _Address,
    session_direction: Direction,
) -> AudioMedia:
    port = _number(parts[1].split("/", 1)[0], 65535, "port")
    if not parts[2].startswith("RTP/"):  # formats of other protocols need not be numbers
        return AudioMedia(index, "", 0, parts[2], (), session_direction, USUAL_PTIME_MS)
    formats = list(dict.fromkeys(_number(part, 127, "payload type") for part in parts[3:]))
    maps: dict[int, tuple[str, int, int]] = {}
    parameters: dict[int, str] = {}
    crypto: list[str] = []
    address, direction = session_address, session_direction
    ptime_ms, max_ptime_ms, rtcp_port = USUAL_PTIME_MS, MAX_PTIME_MS, 0
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
            number, encoding = _rtpmap(value)
            maps.setdefault(number, encoding)
        elif name == "fmtp":
            if match := _FMTP.match(value):
                parameters.setdefault(int(match[1]), match[2])
        elif name == "ptime":
            ptime_ms = max(MIN_PTIME_MS, min(MAX_PTIME_MS, _small(value) or USUAL_PTIME_MS))
        elif name == "maxptime":
            max_ptime_ms = max(MIN_PTIME_MS, _small(value) or MAX_PTIME_MS)
        elif name == "rtcp":
            rtcp_port = _rtcp_port(value)
        elif name == "crypto" and len(crypto) < MAX_CRYPTO_LINES:
            crypto.append(value)
    codecs = []
    for number in formats:
        known = _STATIC_PAYLOAD_TYPES.get(number, (f"payload type {number}", 0))
        encoding = maps.get(number, (*known, 1))
        codecs.append(Codec(number, *encoding, parameters.get(number, "")))
    return AudioMedia(
        index=index,
        address=address.text,
        port=port,
        profile=parts[2],
        codecs=tuple(codecs),
        direction=direction,
        ptime_ms=min(ptime_ms, max_ptime_ms),
        rtcp_port=rtcp_port,
        crypto=tuple(crypto),
        unspecified_address=address.unspecified,
    )


def _rtpmap(value: str) -> tuple[int, tuple[str, int, int]]:
    match = _RTPMAP.match(value)
    if match is None:
        raise SdpError("an a=rtpmap line is not of the form number name/rate")
    encoding = match[2]
    lower = encoding.lower()
    encoding = "telephone-event" if lower == "telephone-event" else encoding.upper()
    return int(match[1]), (encoding, int(match[3]), int(match[4] or 1))


def _small(value: str) -> int:
    """A number of at most four digits, with or without decimals; 0 for anything else."""
    whole = value.strip().split(".", 1)[0]
    return int(whole) if whole.isascii() and whole.isdigit() and len(whole) < 5 else 0


def _rtcp_port(value: str) -> int:
    """Port of ``a=rtcp:port [IN IP4 address]`` (RFC 3605 section 2.1); 0 when it is none.

    An address there is not followed: RTCP goes where RTP goes.
    """
    words = value.split()
    word = words[0] if words else ""
    if word.isascii() and word.isdigit() and len(word) < 6 and 0 < int(word) <= 65535:
        return int(word)
    return 0


def _number(text: str, limit: int, what: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 5 or int(text) > limit:
        raise SdpError(f"an m= line carries a {what} that is not a number up to {limit}")
    return int(text)


def negotiate(description: SessionDescription, allowed: Sequence[str] = G711) -> Negotiated | None:
    """What a description gives a plain RTP leg: the writer's first allowed voice codec.

    Returns None when there is nothing the relay carries (488, RFC 3261 section 21.4.26).
    """
    audio = description.audio
    if audio is None or audio.secure:
        return None
    for codec in audio.voice:
        if codec.name in allowed:
            return Negotiated(codec, audio.event_at(codec.clock_rate))
    return None


def write_offer(
    *,
    address: str,
    port: int,
    voices: tuple[Codec, ...],
    events: bool,
    session_id: int,
    event_payload_type: int = 101,
    comfort_noise: bool = False,
    ptime_ms: int = USUAL_PTIME_MS,
    profile: str = "RTP/AVP",
    crypto: Sequence[str] = (),
) -> str:
    """An offer of ours.

    Args:
        address: our media address on this side.
        port: our RTP port.
        voices: voice codecs in order, with the payload types to use.
        events: offer telephone-event at every clock of the voice codecs.
        event_payload_type: its payload type at the first clock.
        session_id: number in the o= line.
        comfort_noise: offer comfort noise, payload type 13.
        ptime_ms: the packet length that we ask for.
        profile: ``RTP/AVP`` or ``RTP/SAVP``.
        crypto: values of our ``a=crypto`` lines.
    """
    formats = list(voices)
    if comfort_noise:
        formats.append(Codec(13, "CN", 8000))
    if events:
        used = {codec.payload_type for codec in formats}
        number = event_payload_type
        for clock_rate in dict.fromkeys(codec.clock_rate for codec in voices):
            while number in used:
                number = number + 1 if number < 127 else 96
            used.add(number)
            formats.append(Codec(number, "telephone-event", clock_rate))
    return _write(
        address,
        session_id,
        ["audio"],
        0,
        port,
        profile,
        formats,
        Direction.SENDRECV,
        ptime_ms,
        crypto,
    )


def write_answer(
    offer: SessionDescription,
    *,
    address: str,
    port: int,
    negotiated: Negotiated,
    session_id: int,
    crypto: Sequence[str] = (),
) -> str:
    """Our answer: one voice codec, the offerer's payload types, every other line refused.

    Args:
        offer: its ``audio`` is the line that is answered.
        address: our media address on this side.
        port: our RTP port.
        negotiated: what is agreed; the voice codec's ``fmtp`` is what we tell the offerer.
        session_id: number in the o= line.
        crypto: values of our ``a=crypto`` lines; one for an SRTP leg.

    Raises:
        SdpError: the offer has no audio line that can be answered.
    """
    if offer.audio is None:
        raise SdpError("an offer without a usable audio line cannot be answered")
    wanted = (negotiated.voice, negotiated.comfort_noise, negotiated.event)
    return _write(
        address,
        session_id,
        list(offer.media_lines),
        offer.audio.index,
        port,
        offer.audio.profile,
        [codec for codec in wanted if codec is not None],
        offer.audio.direction.mirrored,
        offer.audio.ptime_ms,
        crypto,
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
    ptime_ms: int,
    crypto: Sequence[str],
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
            lines += _format_lines(codec)
        lines += [f"a=crypto:{value}" for value in crypto]
        lines += [f"a=ptime:{ptime_ms}", f"a={direction}"]
    return "\r\n".join(lines) + "\r\n"


def _format_lines(codec: Codec) -> list[str]:
    name = "opus" if codec.name == "OPUS" else codec.name
    channels = f"/{codec.channels}" if codec.channels > 1 else ""
    lines = [f"a=rtpmap:{codec.payload_type} {name}/{codec.clock_rate}{channels}"]
    if codec.name == "telephone-event":
        lines.append(f"a=fmtp:{codec.payload_type} 0-15")
    elif codec.name == "OPUS" and (parameters := written_opus_parameters(codec.fmtp)):
        lines.append(f"a=fmtp:{codec.payload_type} {parameters}")
    return lines
