"""Who is behind the caller's leg now, by the PBX's own word.

A PBX moves calls about inside itself: the agent consults a colleague by its feature code, a
supervisor redirects a channel. Our dialog with it stays, and somebody else speaks on it, who has
not heard the notice. It says so in an UPDATE or a re-INVITE with another P-Asserted-Identity
(RFC 3325, RFC 5876 section 3) or Remote-Party-ID. A line does the same with whom an agent called:
there whoever is named until the answer is the called party, who then hears the notice.
"""

from __future__ import annotations

from sipbridge.sip_message import SipHeaders, address_uri, uri_user

#: Digits of a subscriber's number that must agree where one side writes more of it.
_MIN_DIGITS = 7

_IDENTITY = ("P-Asserted-Identity", "Remote-Party-ID")


def named_numbers(headers: SipHeaders) -> frozenset[str]:
    """The numbers by which a message of the far end names who is there; empty when it does not."""
    return frozenset(
        uri_user(address_uri(value)).split(":", 1)[0]
        for name in _IDENTITY
        for value in headers.all(name)
    )


def is_somebody_else(numbers: frozenset[str], headers: SipHeaders) -> bool | None:
    """Whether a request inside the caller's dialog names another party than the caller.

    Args:
        numbers: the numbers by which the caller, or the called party, was named before.
        headers: of the UPDATE or re-INVITE.

    Returns:
        None when it names nobody: a mere session refresh.
    """
    named = named_numbers(headers)
    if not named:
        return None
    return not any(_is_same(one, other) for one in named for other in numbers)


def _is_same(one: str, other: str) -> bool:
    """``+821012345678``, ``821012345678`` and ``01012345678`` are one subscriber: without ``+`` and
    the trunk's zeros the shorter one ends the longer one (E.164). Anything else must be equal."""
    if one == other:
        return True
    digits = sorted((n.removeprefix("+").lstrip("0") for n in (one, other)), key=len)
    short, long = digits
    return (
        short.isdecimal()
        and long.isdecimal()
        and len(short) >= _MIN_DIGITS
        and (long.endswith(short))
    )
