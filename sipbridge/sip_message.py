"""Headers of a SIP message as text (RFC 3261 section 7.3), for what pjsua2 does not hand over.

PJSIP has parsed and accepted the message before this is called, so this reader is forgiving:
it only has to find headers, with folding (section 7.3.1) and compact forms (section 20).
"""

from __future__ import annotations

import re

#: Answers to a request inside a dialog after which there is none: RFC 3261 section 12.2.1.2, and
#: RFC 5057 section 5.1 of a far end that was started again and knows its own address no more. Those
#: that a proxy on the way may give (482, 483, 502) say nothing of the far end.
DIALOG_GONE = frozenset({404, 408, 410, 481, 484, 485, 604})

_COMPACT = {
    "i": "call-id",
    "m": "contact",
    "f": "from",
    "t": "to",
    "v": "via",
    "c": "content-type",
    "l": "content-length",
    "s": "subject",
    "k": "supported",
    "r": "refer-to",
    "b": "referred-by",
    "o": "event",
}
#: No header of one call is longer than this in our hands; the rest is cut.
MAX_VALUE = 1024
_TOKEN = re.compile(r"^[A-Za-z0-9.!%*_+`'~-]+\Z")
_URI_USER = re.compile(r"sips?:([^@;?>\s]*)@", re.IGNORECASE)
_URI_HOST = re.compile(
    r"sips?:(?:[^@;?>\s]*@)?(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(?::(\d{1,5}))?", re.IGNORECASE
)
_ADDRESS_URI = re.compile(
    r"<\s*((?:sips?|tel):[^>\s]+)\s*>|((?:sips?|tel):[^;,\s]+)", re.IGNORECASE
)


_SENT_BY = re.compile(
    r"\s*SIP\s*/\s*2\.0\s*/\s*\w+\s+(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)\s*(?::\s*(\d{1,5}))?",
    re.IGNORECASE,
)
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]+")


def clean(message: str) -> str:
    """A received message as text that can be sent on and stored.

    pjsua2 hands over bytes that are no UTF-8 as lone surrogates, which nothing can encode again:
    they become ``?``.
    """
    return message.encode("utf-8", "replace").decode("utf-8")


class SipHeaders:
    """The headers of one message, in order, names compared without case.

    Args:
        message: the whole message; a body is ignored.
    """

    def __init__(self, message: str) -> None:
        head = clean(message).replace("\r\n", "\n").split("\n\n", 1)[0]
        lines = head.split("\n")
        self.start_line = lines[0] if lines else ""
        self._fields: list[tuple[str, str]] = []
        for raw in lines[1:]:
            # A bare CR (or NUL, VT, …) ends a line for some peers: it must not travel on.
            line = _CONTROL.sub(" ", raw)
            if line[:1] in (" ", "\t") and self._fields:
                name, value = self._fields[-1]
                self._fields[-1] = (name, f"{value} {line.strip()}"[:MAX_VALUE])
                continue
            name, colon, value = line.partition(":")
            name = name.strip()
            if colon and _TOKEN.match(name):
                self._fields.append((name, value.strip()[:MAX_VALUE]))

    def all(self, name: str) -> list[str]:
        """Every value of a header, in order."""
        wanted = name.lower()
        return [
            value
            for field, value in self._fields
            if _COMPACT.get(field.lower(), field.lower()) == wanted
        ]

    def first(self, name: str) -> str:
        """The first value of a header, or ``""``."""
        values = self.all(name)
        return values[0] if values else ""

    def names(self) -> list[str]:
        """Header names as written, in order."""
        return [name for name, _ in self._fields]

    def carried(self, own_prefix: str = "x-callshield-") -> list[tuple[str, str]]:
        """Headers that go across to the other leg: ``X-*``, P-Asserted-Identity, Diversion.

        Our own (``X-Callshield-*``) are not copied: they are set afresh for each leg.
        """
        return [
            (name, value)
            for name, value in self._fields
            if (lower := name.lower()) in ("p-asserted-identity", "diversion")
            or (lower.startswith("x-") and not lower.startswith(own_prefix))
        ]


def body_of(message: str) -> str:
    """What stands behind the empty line, with LF line ends; ``""`` when there is nothing."""
    return message.replace("\r\n", "\n").partition("\n\n")[2].strip()


def request_uri_user(start_line: str) -> str:
    """The user part of a request's URI: the agent's id (RFC 3261 section 19.1.1); ``""`` if none.

    Escapes (``%41``) are not decoded: agent ids need none.
    """
    parts = start_line.split(" ")
    match = _URI_USER.match(parts[1]) if len(parts) == 3 else None
    return match[1].split(":", 1)[0] if match else ""


def address_uri(value: str) -> str:
    """The URI inside a From, To or Contact value (RFC 3261 section 20.10); ``""`` if none."""
    match = _ADDRESS_URI.search(value)
    return (match[1] or match[2]) if match else ""


def uri_host_port(uri: str) -> tuple[str, str]:
    """Host (without brackets) and ``host:port`` of a SIP URI; empty when there is none."""
    match = _URI_HOST.match(uri)
    if match is None:
        return "", ""
    return match[1].strip("[]"), match[1] + (f":{match[2]}" if match[2] else "")


def uri_user(uri: str) -> str:
    """The user part of a SIP URI, or ``""``."""
    match = _URI_USER.match(uri)
    return match[1] if match else ""


def display_name(value: str) -> str:
    """The display name of a From or To value, without quotes; ``""`` if none."""
    match = re.match(r'\s*(?:"((?:[^"\\]|\\.)*)"|([^<"]*?))\s*<', value)
    if match is None:
        return ""
    return (match[1] if match[1] is not None else match[2]).replace("\\", "").strip()


def source_host(source: str) -> str:
    """``192.0.2.1`` of ``192.0.2.1:5060`` or ``[2001:db8::1]:5060``."""
    host = source.rpartition(":")[0] if source.count(":") == 1 or "]" in source else source
    return host.strip("[]")


def via_hosts(headers: SipHeaders) -> set[tuple[str, int]]:
    """Host and port of the sent-by of every Via (RFC 3261 section 20.42); 5060 when it has none."""
    found = set()
    for value in headers.all("Via"):
        for part in value.split(","):
            match = _SENT_BY.match(part)
            if match is not None:
                found.add((match[1].strip("[]").lower(), int(match[2] or 5060)))
    return found


def over_tls(headers: SipHeaders) -> bool:
    """The last hop says that it sent the message over TLS (RFC 3261 section 18.1.1)."""
    return bool(re.match(r"SIP\s*/\s*2\.0\s*/\s*TLS\s", headers.first("Via"), re.IGNORECASE))


def max_forwards(headers: SipHeaders) -> int:
    """Hops that a request may still take (RFC 3261 section 8.1.1.6); 70 when it does not say."""
    value = headers.first("Max-Forwards")
    return int(value) if value.isascii() and value.isdigit() and len(value) < 4 else 70
