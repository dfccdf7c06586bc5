"""One HTTP request of a phone, read strictly: bytes in, a request or a refusal out. No I/O.

Only what phones send is taken (RFC 9112): GET, HEAD and POST in origin form, no folded lines, no
chunks, one request for each connection. Whatever else comes is refused with a status, and nothing
of it is kept or logged.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl

#: Request line and header together.
LARGEST_HEAD_BYTES = 8192
LARGEST_LINE_BYTES = 2048
LARGEST_BODY_BYTES = 16 * 1024
_MOST_HEADERS = 64
_MOST_FIELDS = 32

_LINE = re.compile(rb"([A-Z]{1,16}) (/[\x21\x22\x24-\x7e]{0,2047}) HTTP/([0-9])\.([0-9])")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}):[ \t]*([\x20-\x7e\x80-\xff\t]*)")
_METHODS = ("GET", "HEAD", "POST")


class Refused(Exception):
    """It is no request of a phone; not for a person, who never sees this.

    Args:
        status: of HTTP, to be answered.
    """

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


@dataclass(frozen=True, slots=True)
class PhoneRequest:
    """What a phone wants."""

    method: str
    path: str
    """As it came, without the query; nothing is decoded in it."""
    query: str
    body_bytes: int
    """Length of the body that follows."""
    is_form: bool = False
    """The body is a form, URL-encoded; any other body is thrown away."""
    body: bytes = b""
    """Of a form."""

    def __repr__(self) -> str:
        # A path holds a token, a query may hold a password.
        return f"PhoneRequest({self.method})"

    def fields(self) -> dict[str, str]:
        """Fields of the query and of the form, decoded; of one that comes twice the first.

        Raises:
            Refused: it is none in UTF-8, or has too many fields.
        """
        pairs = []
        try:
            for text in (self.query, self.body.decode()):
                pairs += parse_qsl(
                    text, keep_blank_values=True, max_num_fields=_MOST_FIELDS, errors="strict"
                )
        except ValueError:  # UnicodeDecodeError is one
            raise Refused(400) from None
        found: dict[str, str] = {}
        for name, value in pairs:
            found.setdefault(name, value)
        return found


def head_length(received: bytes) -> int | None:
    """Where the header ends; ``None`` while it has not come whole.

    Raises:
        Refused: it is too long already.
    """
    end = received.find(b"\r\n\r\n")
    if end < 0:
        line = received.find(b"\r\n")
        if max(line, len(received) if line < 0 else 0) > LARGEST_LINE_BYTES:
            raise Refused(414)
        if len(received) > LARGEST_HEAD_BYTES:
            raise Refused(431)
        return None
    if end + 4 > LARGEST_HEAD_BYTES:
        raise Refused(431)
    return end + 4


def parse_head(head: bytes) -> PhoneRequest:
    """Read request line and header.

    Args:
        head: with the empty line at its end.

    Raises:
        Refused: it is no request that a phone would send.
    """
    lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    if len(lines[0]) > LARGEST_LINE_BYTES:
        raise Refused(414)
    line = _LINE.fullmatch(lines[0])
    if line is None:
        raise Refused(400)
    if line[3] != b"1":
        raise Refused(505)
    method = line[1].decode()
    if method not in _METHODS:
        raise Refused(405)
    if len(lines) - 1 > _MOST_HEADERS:
        raise Refused(431)
    lengths: set[bytes] = set()
    is_form = False
    for one in lines[1:]:
        header = _HEADER.fullmatch(one)
        if header is None:
            raise Refused(400)
        name = header[1].lower()
        if name == b"transfer-encoding":
            raise Refused(501)
        if name == b"content-length":
            lengths.add(header[2].strip())
        if name == b"content-type":
            kind = header[2].partition(b";")[0].strip().lower()
            is_form = kind == b"application/x-www-form-urlencoded"
    path, _, query = line[2].decode().partition("?")
    return PhoneRequest(method, path, query, _length(lengths), is_form)


def _length(lengths: set[bytes]) -> int:
    if not lengths:
        return 0
    if len(lengths) > 1:
        raise Refused(400)
    (text,) = lengths
    if not re.fullmatch(rb"[0-9]{1,9}", text):
        raise Refused(400)
    length = int(text)
    if length > LARGEST_BODY_BYTES:
        raise Refused(413)
    return length
