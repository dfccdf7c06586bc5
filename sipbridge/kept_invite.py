"""What is said about an INVITE whose transaction died with its process (RFC 3261 sections 9, 17).

A call that was being set up when the bridge was killed cannot be saved, but who waits need not wait
for long: the PBX gets the 503 that it would have got, and may try elsewhere; the telephone stops
ringing by a CANCEL with the INVITE's own branch. Neither has a transaction behind it, so each is
said more than once, and the ACK to the telephone's 487 is said unasked. Pure functions on text.
"""

from __future__ import annotations

import re

_COMPACT = {"v": "via", "f": "from", "t": "to", "i": "call-id"}
_CSEQ = re.compile(r"(\d+)\s+INVITE", re.IGNORECASE)
_RPORT = re.compile(r";\s*rport\b", re.IGNORECASE)
_SENT_BY_PORT = re.compile(r"\S+\s+(?:\[[^\]]*\]|[^:;\s]+)\s*:\s*(\d{1,5})")
_URI = re.compile(r"^INVITE (\S+) SIP/2\.0", re.IGNORECASE)


def refusal(invite: str, status: int, reason: str, tag: str, headers: list[tuple[str, str]]) -> str:
    """The final answer to an INVITE that came.

    Args:
        invite: as it was received.
        status: 300 to 699.
        reason: of the status line.
        tag: ours, as the provisional answers had it.
        headers: further ones.

    Returns:
        The message; empty when the INVITE lacks what an answer must repeat.
    """
    lines = _lines(invite)
    kept = [(n, v) for n, v in lines if n in ("via", "from", "to", "call-id", "cseq")]
    if {name for name, _ in kept} != {"via", "from", "to", "call-id", "cseq"}:
        return ""
    said = [(n, f"{v};tag={tag}" if n == "to" and tag and ";tag=" not in v else v) for n, v in kept]
    return _written(f"SIP/2.0 {status} {reason}", [*said, *headers])


def answer_port(invite: str, source_port: int) -> int:
    """Where an answer goes at the address that the INVITE came from: its port by ``rport`` (RFC
    3581), else that of the topmost Via (RFC 3261 section 18.2.2)."""
    via = next((value for name, value in _lines(invite) if name == "via"), "")
    first = via.split(",", 1)[0]
    if _RPORT.search(first):
        return source_port
    port = _SENT_BY_PORT.match(first)
    return int(port[1]) if port and 0 < int(port[1]) < 65536 else 5060


def cancel(invite: str) -> str:
    """The CANCEL of an INVITE of ours: same branch, same number (section 9.1); empty when that
    cannot be read."""
    return _like(invite, "CANCEL", "")


def ack(invite: str, tag: str) -> str:
    """The ACK to its refusal, which has the INVITE's branch (section 17.1.1.3).

    Args:
        invite: as it was sent.
        tag: the far end's; without one it cannot be said.
    """
    return _like(invite, "ACK", tag) if tag else ""


def _like(invite: str, method: str, tag: str) -> str:
    uri, lines = _URI.match(invite), _lines(invite)
    values: dict[str, list[str]] = {}
    for name, value in lines:
        values.setdefault(name, []).append(value)
    number = _CSEQ.match(values.get("cseq", [""])[0])
    if uri is None or number is None or not {"via", "from", "to", "call-id"} <= values.keys():
        return ""
    to = values["to"][0] + (f";tag={tag}" if tag else "")
    return _written(
        f"{method} {uri[1]} SIP/2.0",
        [
            ("via", values["via"][0]),
            *(("route", value) for value in values.get("route", [])),
            ("max-forwards", "70"),
            ("from", values["from"][0]),
            ("to", to),
            ("call-id", values["call-id"][0]),
            ("cseq", f"{number[1]} {method}"),
        ],
    )


def _lines(message: str) -> list[tuple[str, str]]:
    """Headers in order, names in small letters and long; folded lines made one."""
    head = re.sub(r"\r?\n[ \t]+", " ", message.partition("\r\n\r\n")[0])
    found = []
    for line in head.split("\r\n")[1:]:
        name, colon, value = line.partition(":")
        if colon:
            small = name.strip().lower()
            found.append((_COMPACT.get(small, small), value.strip()))
    return found


_NAMES = {
    "via": "Via",
    "route": "Route",
    "max-forwards": "Max-Forwards",
    "from": "From",
    "to": "To",
    "call-id": "Call-ID",
    "cseq": "CSeq",
}


def _written(start: str, headers: list[tuple[str, str]]) -> str:
    lines = [start, *(f"{_NAMES.get(name, name)}: {value}" for name, value in headers)]
    return "\r\n".join([*lines, "Content-Length: 0", "", ""])
