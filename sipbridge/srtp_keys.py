"""SRTP keys in the session description: SDES (RFC 4568, RFC 7714 for the AEAD suites).

Pure functions; randomness comes in as a function. Keys never appear in a ``repr``, a log line or
an error.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from callshield.errors import SdpError
from callshield.messages_media import SrtpKeys

#: Crypto suites that the core carries, with the bytes of master key and salt (RFC 4568 section
#: 6.2, RFC 7714 section 14.2). The order is that of our offers: the suite that every SRTP phone
#: has comes first.
SUITES = {
    "AES_CM_128_HMAC_SHA1_80": 30,
    "AES_CM_128_HMAC_SHA1_32": 30,
    "AEAD_AES_256_GCM": 44,
    "AEAD_AES_128_GCM": 28,
}
#: A key that its owner limits to fewer packets could run out in a call: we do not re-key on our
#: own. 2^20 packets are 5.8 hours of 20 ms.
MIN_LIFETIME_PACKETS = 2**20
#: No session description has reason to offer more keys than this.
MAX_CRYPTO_LINES = 16

_LINE = re.compile(r"^(\d{1,9}) +([A-Za-z0-9_]{1,64}) +(\S{1,512})((?: +\S{1,64}){0,8}) *\Z")
_PARAMETER = re.compile(
    r"^inline:([A-Za-z0-9+/]{16,128}={0,2})"
    r"(?:\|(2\^\d{1,2}|\d{1,16}))?(?:\|(\d{1,10}:\d{1,3}))?\Z"
)
#: Session parameters that change nothing for us (RFC 4568 section 6.3): the window size is the
#: receiver's hint. Every other one asks for something that we do not do.
_HARMLESS = re.compile(r"^(WSH=\d{1,6}|-.*)\Z")


@dataclass(frozen=True, slots=True)
class CryptoLine:
    """One usable ``a=crypto`` line."""

    tag: int
    suite: str
    key: bytes = field(repr=False)
    """Master key and salt, as long as the suite wants."""

    def __str__(self) -> str:
        return f"{self.tag} {self.suite}"

    def written(self) -> str:
        """The value behind ``a=crypto:``; it carries the key."""
        return f"{self.tag} {self.suite} inline:{base64.b64encode(self.key).decode('ascii')}"


def parse_crypto(value: str) -> CryptoLine:
    """Read the value of one ``a=crypto`` line (RFC 4568 section 9.1).

    Raises:
        SdpError: malformed, or asking for what we do not do: another suite, a master key
            identifier (MKI), several keys, a short lifetime, unencrypted or unauthenticated
            streams. The sentence carries no key.
    """
    match = _LINE.match(value)
    if match is None:
        raise SdpError("an a=crypto line is not of the form tag suite inline:key")
    tag, suite = int(match[1]), match[2].upper()
    if suite not in SUITES:
        raise SdpError(f"SRTP suite {suite} is not one of {', '.join(SUITES)}")
    if ";" in match[3]:
        raise SdpError("an a=crypto line carries several keys: one key without MKI is taken")
    parameter = _PARAMETER.match(match[3])
    if parameter is None:
        raise SdpError("the key of an a=crypto line is not of the form inline:base64")
    if parameter[3] is not None:
        raise SdpError("an a=crypto line carries an MKI: only keys without one are taken")
    if parameter[2] is not None and _lifetime(parameter[2]) < MIN_LIFETIME_PACKETS:
        raise SdpError(
            f"an SRTP key lives for fewer than {MIN_LIFETIME_PACKETS} packets: that could be "
            "shorter than the call"
        )
    for asked in match[4].split():
        if not _HARMLESS.match(asked):
            raise SdpError("an a=crypto line asks for a session parameter that is not supported")
    try:
        key = base64.b64decode(parameter[1], validate=True)
    except binascii.Error:
        raise SdpError("the key of an a=crypto line is no base64") from None
    if len(key) != SUITES[suite]:
        raise SdpError(f"the key of an a=crypto line has {len(key)} bytes, {suite} wants others")
    return CryptoLine(tag, suite, key)


def _lifetime(text: str) -> int:
    if text.startswith("2^"):
        return int(2 ** int(text[2:]))
    return int(text)


def usable_lines(
    values: Iterable[str], suites: Iterable[str]
) -> tuple[tuple[CryptoLine, ...], str]:
    """The lines of an offer that we can take, in its order, and why the last other one is not.

    A line that cannot be used is passed over, as if it were not there (RFC 4568 section 5.1.2);
    of two lines with one tag, which is an error, the first counts.
    """
    allowed = frozenset(suites)
    found: list[CryptoLine] = []
    why = "the description carries no a=crypto line"
    for value in values:
        try:
            line = parse_crypto(value)
        except SdpError as error:
            why = str(error)
            continue
        if line.suite not in allowed:
            why = f"SRTP suite {line.suite} is switched off here"
        elif all(line.tag != other.tag for other in found):
            found.append(line)
    return tuple(found), why


def fresh_lines(suites: Iterable[str], random: Callable[[int], bytes]) -> tuple[CryptoLine, ...]:
    """Lines for an offer of ours, each suite with a key of its own, tags from 1."""
    return tuple(
        CryptoLine(tag, suite, random(SUITES[suite])) for tag, suite in enumerate(suites, start=1)
    )


def answer_line(
    offered: CryptoLine,
    before: tuple[CryptoLine, CryptoLine] | None,
    random: Callable[[int], bytes],
) -> CryptoLine:
    """Our line of an answer: the tag and suite of the one taken, and our key.

    Args:
        offered: the line that we take.
        before: our and their line in force, if any. As long as the far end's key stays, so does
            ours: neither side's packet counter may begin again under an old key.
        random: gives that many random bytes.
    """
    if before is not None:
        ours, theirs = before
        if (theirs.suite, theirs.key) == (offered.suite, offered.key):
            return CryptoLine(offered.tag, ours.suite, ours.key)
    return CryptoLine(offered.tag, offered.suite, random(SUITES[offered.suite]))


def agreed(ours: CryptoLine, theirs: CryptoLine) -> SrtpKeys:
    """The keys of a leg for the media worker."""
    return SrtpKeys(suite=theirs.suite, send=ours.key, receive=theirs.key)
