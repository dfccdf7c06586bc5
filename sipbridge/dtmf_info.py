"""Digits that come by INFO (RFC 6086), as some telephones and PBXs send them."""

from __future__ import annotations

import re

_DTMF_RELAY = re.compile(r"^\s*Signal\s*=\s*([0-9A-D*#]|1[0-5])\s*$", re.MULTILINE | re.IGNORECASE)
#: Event codes of RFC 4733 that some phones write instead of the sign.
_EVENTS = {"10": "*", "11": "#", "12": "A", "13": "B", "14": "C", "15": "D"}


def digit_of_info(content_type: str, body: str) -> str | None:
    """The digit in an INFO body; None when it is not one.

    ``application/dtmf-relay`` carries ``Signal=5``, ``application/dtmf`` the sign alone; both are
    conventions of the makers, and RFC 6086 only carries them.
    """
    kind = content_type.split(";", 1)[0].strip().lower()
    if kind == "application/dtmf-relay":
        match = _DTMF_RELAY.search(body)
        sign = match[1].upper() if match else ""
    elif kind == "application/dtmf":
        sign = body.strip().upper()
    else:
        return None
    sign = _EVENTS.get(sign, sign)
    return sign if len(sign) == 1 and sign in "0123456789*#ABCD" else None
