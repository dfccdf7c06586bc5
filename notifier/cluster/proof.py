"""Whose wish a request from another node is: signed with what both nodes know of the token.

The asking node has seen the person's token; what both find in the shared table is its SHA-256.
With that as the key it signs the whole message (HMAC-SHA-256, RFC 2104) and the subject, which
names both nodes. Who has only reached the bus can neither make nor change a request, nor send one
again: a request is good once, and for :data:`GOOD_S`. The token itself never leaves its node, and
its hash opens no door.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import OrderedDict

HEADER = "Callshield-Proof"
#: The clocks of two nodes may differ by this much, seconds; and a message may take so long.
GOOD_S = 30.0
#: Requests remembered, so that none is taken twice.
_REMEMBERED = 20_000


def proof(token_sha256: str, subject: str, message: bytes) -> str:
    """The signature of a request.

    Args:
        token_sha256: as the table of tokens holds it.
        subject: on which the message is sent.
        message: as it is sent.
    """
    key = token_sha256.encode()
    return hmac.new(key, subject.encode() + b"\n" + message, hashlib.sha256).hexdigest()


def is_proof(given: str, token_sha256: str, subject: str, message: bytes) -> bool:
    """Whether a signature is the right one."""
    right = proof(token_sha256, subject, message)
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), right.encode())


class Once:
    """Requests that were taken."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, float] = OrderedDict()

    def is_new(self, request_id: str, sent_ts: float, now: float) -> bool:
        """Whether a request is of now and was not seen before; it is remembered.

        Args:
            request_id: of its sender.
            sent_ts: by its sender's clock, seconds since the epoch.
            now: by ours.
        """
        if abs(now - sent_ts) > GOOD_S or request_id in self._known:
            return False
        while self._known:
            oldest = next(iter(self._known))
            # Who is still young enough to be sent again is kept, up to the bound.
            if now - self._known[oldest] <= 2 * GOOD_S and len(self._known) < _REMEMBERED:
                break
            del self._known[oldest]
        self._known[request_id] = now
        return True
