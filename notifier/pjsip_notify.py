"""A NOTIFY to a phone that is registered at the PBX, sent by the PBX (``PJSIPNotify``).

The PBX splits a ``Variable`` header at commas and takes quotes, backslashes and parentheses for
its own, so each is escaped; a body goes as one ``Content`` variable a line, which the PBX joins
with CR LF. A line break anywhere else is refused: it would begin a header of somebody's choice.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from callshield.errors import AmiError, AmiProtocolError
from notifier.ami_client import AmiClient

_NAME = re.compile(r"[A-Za-z0-9!%*_+`'~.-]{1,64}")
_ENDPOINT = re.compile(r"[A-Za-z0-9._@-]{1,128}")
_SPECIAL = re.compile(r'([\\",()\[\]{}])')
#: Written by the PBX; ours would come twice or break the request (RFC 3261 section 20).
_OWN = frozenset(
    {
        "via",
        "from",
        "to",
        "call-id",
        "cseq",
        "contact",
        "max-forwards",
        "route",
        "record-route",
        "event",
        "content-type",
        "content-length",
    }
)


def notify_fields(
    endpoint: str,
    event: str,
    content_type: str = "",
    body: str = "",
    headers: Mapping[str, str] | None = None,
) -> list[tuple[str, str]]:
    """The headers of the action.

    Args:
        endpoint: PJSIP endpoint at the PBX.
        event: of the Event header, e.g. ``check-sync`` (RFC 6665 section 8.2.1).
        content_type: of the body, e.g. ``application/xml``.
        body: text; its lines may end in LF or CR LF.
        headers: further SIP headers.

    Raises:
        AmiProtocolError: something cannot be carried.
    """
    if not _ENDPOINT.fullmatch(endpoint):
        raise AmiProtocolError("a PJSIP endpoint has letters, digits and . _ @ - only")
    if body and not content_type:
        raise AmiProtocolError("a body needs its content type")
    variables = [("Event", event)]
    for name, value in (headers or {}).items():
        if not _NAME.fullmatch(name) or name.lower() in _OWN:
            raise AmiProtocolError(f"{name[:40]!r} is no SIP header that a NOTIFY may add")
        variables.append((name, value))
    if content_type:
        variables.append(("Content-type", content_type))
    for name, value in variables:
        if not value or any(ord(character) < 32 or ord(character) == 127 for character in value):
            raise AmiProtocolError(f"the value of {name} is empty or holds a line break: not sent")
    if body:
        lines = body.replace("\r\n", "\n").split("\n")
        if lines[-1] == "":
            lines.pop()
        # An empty line cannot be said: the PBX passes over a variable without a value.
        variables += [("Content", line) for line in lines if line]
    return [
        ("Endpoint", endpoint),
        *(("Variable", f"{name}={_SPECIAL.sub(_escaped, value)}") for name, value in variables),
    ]


def _escaped(match: re.Match[str]) -> str:
    return f"\\{match[1]}"


async def send_notify(
    client: AmiClient,
    endpoint: str,
    event: str,
    content_type: str = "",
    body: str = "",
    headers: Mapping[str, str] | None = None,
) -> None:
    """Let the PBX send a NOTIFY to a phone; see :func:`notify_fields`.

    Returning means that the PBX took it, not that the phone answered 200.

    Raises:
        AmiError: the PBX is away, late, or refuses (an unknown endpoint, no right to it).
        AmiProtocolError: something cannot be carried; nothing was sent.
    """
    fields = notify_fields(endpoint, event, content_type, body, headers)
    answer = await client.request("PJSIPNotify", fields)
    if not answer.ok:
        raise AmiError(f"the PBX does not send the NOTIFY: {answer.text}")
