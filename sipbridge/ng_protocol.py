"""rtpengine's ng control protocol as bytes: bencode, and the session descriptions that go in it.

A message is a cookie, a space and a bencoded dictionary, one UDP datagram each way; the answer
carries the question's cookie (rtpengine's documentation, "The ng Control Protocol"). Pure.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from callshield.errors import ProtocolError

#: What goes into one UDP datagram.
LONGEST = 65507
#: A datagram whose lists and dictionaries lie deeper in each other than this is no answer.
_DEEPEST = 16
_RTPMAPS = {
    "PCMU": "PCMU/8000",
    "PCMA": "PCMA/8000",
    "G722": "G722/8000",
    "OPUS": "opus/48000/2",
}


class NgError(ProtocolError):
    """A datagram that is no ng message."""


def bencode(value: Any) -> bytes:
    """A bencoded string, number, list or dictionary."""
    match value:
        case bool():
            raise TypeError("bencode has no booleans")
        case int():
            return b"i%de" % value
        case str():
            data = value.encode()
            return b"%d:%s" % (len(data), data)
        case list():
            return b"l" + b"".join(bencode(item) for item in value) + b"e"
        case dict():
            items = sorted(value.items())
            return b"d" + b"".join(bencode(key) + bencode(item) for key, item in items) + b"e"
        case _:
            raise TypeError(f"bencode has no {type(value).__name__}")


def bdecode(data: bytes) -> Any:
    """The value of a bencoded text; strings as str, bytes that are no UTF-8 replaced.

    Raises:
        NgError: it is not bencoded.
    """
    try:
        value, end = _bdecode(data, 0, 0)
    except (ValueError, TypeError) as error:
        raise NgError(f"not bencoded: {error}") from None
    if end != len(data):
        raise NgError("not bencoded: bytes after the value")
    return value


def _bdecode(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    if depth > _DEEPEST:
        raise ValueError("lists in lists in lists")
    kind = data[at : at + 1]
    if kind == b"i":
        end = data.index(b"e", at)
        return int(data[at + 1 : end]), end + 1
    if kind in (b"l", b"d"):
        items = []
        at += 1
        while data[at : at + 1] != b"e":
            item, at = _bdecode(data, at, depth + 1)
            items.append(item)
        if kind == b"l":
            return items, at + 1
        return dict(zip(items[::2], items[1::2], strict=True)), at + 1
    colon = data.index(b":", at)
    if not data[at:colon].isdigit():
        raise ValueError("a string without its length")
    end = colon + 1 + int(data[at:colon])
    if end > len(data):
        raise ValueError("a string ends too early")
    return data[colon + 1 : end].decode("utf-8", "replace"), end


def question(cookie: bytes, body: dict[str, Any]) -> bytes:
    """A message to rtpengine.

    Raises:
        NgError: it is too long for a datagram.
    """
    message = cookie + b" " + bencode(body)
    if len(message) > LONGEST:
        raise NgError(f"an ng message of {len(message)} bytes is too long for a datagram")
    return message


def answer(datagram: bytes) -> tuple[bytes, dict[str, Any]]:
    """Cookie and body of what rtpengine says.

    Raises:
        NgError: it is no ng message.
    """
    cookie, space, rest = datagram.partition(b" ")
    if not space:
        raise NgError("a datagram on the ng socket has no cookie")
    body = bdecode(rest)
    if not isinstance(body, dict):
        raise NgError("a datagram on the ng socket holds no dictionary")
    return cookie, body


def session_description(
    address: str,
    port: int,
    *,
    codec: str = "PCMU",
    payload_type: int = 0,
    event_payload_types: Collection[int] = (),
    comfort_noise_type: int = -1,
    ptime_ms: int = 20,
    rtcp_port: int = 0,
    direction: str = "sendrecv",
) -> str:
    """One audio stream over plain RTP, as rtpengine is to take it for a far end's.

    Args:
        address: of the far end.
        port: of its RTP.
        codec: ``PCMU``, ``PCMA``, ``G722`` or ``OPUS``.
        payload_type: of the codec.
        event_payload_types: of telephone-event (RFC 4733).
        comfort_noise_type: of comfort noise (RFC 3389); -1: none.
        ptime_ms: length of the packets that the far end wants.
        rtcp_port: 0: the port above.
        direction: ``sendrecv``, ``recvonly``, …
    """
    clock_rate = 48000 if codec == "OPUS" else 8000
    formats = {payload_type: _RTPMAPS[codec]}
    if comfort_noise_type >= 0:
        formats[comfort_noise_type] = "CN/8000"
    for number in event_payload_types:
        formats[number] = f"telephone-event/{clock_rate}"
    family = "IP6" if ":" in address else "IP4"
    lines = [
        "v=0",
        f"o=- 1 1 IN {family} {address}",
        "s=-",
        f"c=IN {family} {address}",
        "t=0 0",
        f"m=audio {port} RTP/AVP {' '.join(str(number) for number in formats)}",
        *(f"a=rtpmap:{number} {name}" for number, name in formats.items()),
        *(f"a=fmtp:{number} 0-15" for number in event_payload_types),
        f"a=ptime:{ptime_ms}",
        *([f"a=rtcp:{rtcp_port}"] if rtcp_port else []),
        f"a={direction}",
    ]
    return "".join(f"{line}\r\n" for line in lines)


def media_of(sdp: str) -> tuple[str, int]:
    """Address and port of a session description's first stream.

    Raises:
        NgError: it has none.
    """
    lines = [line.strip() for line in sdp.splitlines()]
    try:
        address = next(line.split()[-1] for line in lines if line.startswith("c="))
        port = next(int(line.split()[1]) for line in lines if line.startswith("m="))
    except (StopIteration, IndexError, ValueError):
        raise NgError("rtpengine's session description has no stream") from None
    return address, port
