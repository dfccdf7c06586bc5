"""Digest answers to a challenge of a request outside of any dialog (RFC 3261 section 22, RFC 8760).

PJSIP answers challenges inside its dialogs; for a request that pjsua2 sends outside of them it
hands the 401 or 407 back. The far end may challenge with several algorithms, the best first; the
first that can be computed here counts (RFC 8760 section 2.4).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from sipbridge.digest_accounts import Credentials

_PARAMETER = re.compile(r'([A-Za-z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
#: By the name in the challenge, in small letters; RFC 7616 section 6.1. No ``-sess``: it is for
#: a session that a request outside of one has not.
_ALGORITHMS = {"md5": "md5", "sha-256": "sha256", "sha-512-256": "sha512_256"}


@dataclass(frozen=True, slots=True)
class Challenge:
    """One WWW-Authenticate or Proxy-Authenticate header.

    Attributes:
        algorithm: as the far end wrote it; empty when it did not, which means MD5.
        qop: the qualities of protection that are offered; empty in RFC 2069's way.
        stale: the last answer was right but its nonce is too old.
    """

    realm: str
    nonce: str
    opaque: str
    algorithm: str
    qop: tuple[str, ...]
    stale: bool


def read_challenge(value: str) -> Challenge | None:
    """A header's value; None when it is no digest challenge that can be answered here."""
    scheme, _, rest = value.strip().partition(" ")
    if scheme.lower() != "digest":
        return None
    found = {
        name.lower(): re.sub(r"\\(.)", r"\1", quoted) if quoted or not plain else plain
        for name, quoted, plain in _PARAMETER.findall(rest)
    }
    qop = tuple(part.strip().lower() for part in found.get("qop", "").split(",") if part.strip())
    algorithm = found.get("algorithm", "")
    if (algorithm or "MD5").lower() not in _ALGORITHMS or not found.get("nonce"):
        return None
    if qop and "auth" not in qop:
        return None  # auth-int alone: few far ends ask for it, and none of the phones
    return Challenge(
        found.get("realm", ""),
        found["nonce"],
        found.get("opaque", ""),
        algorithm,
        qop,
        found.get("stale", "").lower() == "true",
    )


def choose(values: Sequence[str], credentials: Credentials) -> Challenge | None:
    """The first challenge that these credentials are for."""
    for value in values:
        challenge = read_challenge(value)
        if challenge is not None and credentials.realm in ("*", challenge.realm):
            return challenge
    return None


def answer(
    challenge: Challenge, credentials: Credentials, method: str, uri: str, cnonce: str
) -> str:
    """The value of Authorization or Proxy-Authorization (RFC 7616 section 3.4).

    Args:
        challenge: what was asked.
        credentials: who we are.
        method: of the request.
        uri: its Request-URI.
        cnonce: of our choice, never the same twice; letters and digits.
    """
    name = _ALGORITHMS[(challenge.algorithm or "MD5").lower()]

    def digest(*parts: str) -> str:
        text = ":".join(parts).encode()
        # MD5 is what most phones know; it is theirs to choose.
        return hashlib.new(name, text, usedforsecurity=False).hexdigest()

    secret = digest(credentials.username, challenge.realm, credentials.password)
    asked = digest(method, uri)
    if challenge.qop:
        response = digest(secret, challenge.nonce, "00000001", cnonce, "auth", asked)
    else:
        response = digest(secret, challenge.nonce, asked)
    parts = [
        f'username="{_quoted(credentials.username)}"',
        f'realm="{_quoted(challenge.realm)}"',
        f'nonce="{_quoted(challenge.nonce)}"',
        f'uri="{uri}"',
        f'response="{response}"',
    ]
    if challenge.algorithm:
        parts.append(f"algorithm={challenge.algorithm}")
    if challenge.opaque:
        parts.append(f'opaque="{_quoted(challenge.opaque)}"')
    if challenge.qop:
        parts += ["qop=auth", "nc=00000001", f'cnonce="{cnonce}"']
    return "Digest " + ", ".join(parts)


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
