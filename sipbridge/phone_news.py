"""What phones say of themselves by refusing: come back later, and who are you?

Kept between the calls: a phone, or a proxy in front of it, that says 503 with Retry-After is not
called before then (RFC 3261 section 21.5.4), and wrong credentials are an alarm until they are
right.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import structlog

from callshield.messages import Event, NodeDegraded

log = structlog.get_logger()

#: A phone cannot have itself left alone for longer than this.
MAX_REST_S = 300
_SECONDS = re.compile(r"\s*(\d{1,9})\s*(?:[(;]|$)")


def retry_after_s(value: str) -> int:
    """Seconds of a Retry-After header (RFC 3261 section 20.33), at most :data:`MAX_REST_S`;
    0 when it has none."""
    match = _SECONDS.match(value)
    return min(int(match[1]), MAX_REST_S) if match else 0


class PhoneNews:
    """What is known of the phones that we call, by their URIs.

    Args:
        send: takes the alarm and its end.
        monotonic: seconds.
    """

    def __init__(
        self, send: Callable[[Event], None], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._send = send
        self._monotonic = monotonic
        self._rests: dict[str, float] = {}
        self._unbelieved: dict[str, str] = {}

    def rest_s(self, uri: str) -> int:
        """Seconds for which this phone is not called; 0 when it may be."""
        left = self._rests.get(uri, 0.0) - self._monotonic()
        if left <= 0:
            self._rests.pop(uri, None)
            return 0
        return int(left) + 1

    def refused(self, uri: str, agent_id: str, status: int, rest_s: int) -> None:
        """Its final answer to an INVITE of ours was a refusal.

        Args:
            uri: the phone, or ``trunk NAME``.
            agent_id: of the agent, or the supervisor, whose it is, or ``trunk NAME``.
            status: of the answer.
            rest_s: its Retry-After.
        """
        if status == 503 and rest_s > 0:
            log.info("phone_rests", agent_id=agent_id, rest_s=rest_s)
            self._rests[uri] = self._monotonic() + rest_s
        if status not in (401, 407):
            self.believed(uri)
        elif uri not in self._unbelieved:
            self._unbelieved[uri] = agent_id
            log.warning("credentials_refused", agent_id=agent_id, status=status)
            self._tell()

    def believed(self, uri: str) -> None:
        """It took, or at least did not question, who we say we are."""
        if self._unbelieved.pop(uri, None) is not None:
            self._tell()

    def _tell(self) -> None:
        names = sorted(self._unbelieved.values())
        lines = [name for name in names if name.startswith("trunk ")]
        agents = [name for name in names if name not in lines]
        who = ", ".join([*([f"agent {', '.join(agents)}"] if agents else []), *lines])
        reason = f"the far end does not take our username and password: {who}"
        self._send(
            NodeDegraded(
                ts=time.time(),
                component="credentials",
                degraded=bool(names),
                reason=reason if names else "",
            )
        )
