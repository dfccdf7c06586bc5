"""Pushing to a phone by SIP NOTIFY: asked for on the notifier's bus, sent by bridge or PBX."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable

from callshield.messages_phones import NotifySent, SendNotify
from firmware_profiles.choosing import Plan
from firmware_profiles.push_result import Result

#: RFC 6665 section 8.2.1 wants an Event header; Snom's manual shows none.
ANY_EVENT = "xml"
#: The bridge and the PBX keep to the limit themselves; this is for one that never answers.
_GRACE_S = 0.5
#: Another try may help: nobody answered, the phone is away or busy, or could not (RFC 3261 section
#: 21.4, 21.5).
_PASSING = frozenset({0, 408, 480, 486, 500, 502, 503, 504})


class NotifyPush:
    """Asks for NOTIFYs and waits for what came of them.

    Args:
        ask: hands a request to the notifier; False when it is not there.
        limit_s: ``phones.limit_s``.
    """

    def __init__(self, ask: Callable[[SendNotify], bool], limit_s: float) -> None:
        self._ask = ask
        self._limit_s = limit_s
        self._waiting: dict[str, asyncio.Future[NotifySent]] = {}

    def answered(self, sent: NotifySent) -> None:
        """The notifier says what came of a request; one that nobody waits for is too late."""
        waiting = self._waiting.get(sent.request_id)
        if waiting is not None and not waiting.done():
            waiting.set_result(sent)

    def lost(self) -> None:
        """The notifier is gone: no answer will come."""
        for request_id in list(self._waiting):
            self.answered(NotifySent(request_id=request_id, status=0, detail="the notifier went"))

    async def send(self, plan: Plan, body: bytes) -> Result:
        """Send one document; one try, and it never raises but when cancelled.

        Args:
            plan: whose phone; its ``via`` is ``bridge`` or ``pbx``.
            body: the document.
        """
        assert plan.via != "http"
        request = SendNotify(
            request_id=uuid.uuid4().hex,
            agent_id=plan.agent_id,
            via=plan.via,
            event=plan.method.event or ANY_EVENT,
            content_type=plan.method.content_type,
            body=body.decode(plan.method.encoding),
        )
        waiting: asyncio.Future[NotifySent] = asyncio.get_running_loop().create_future()
        self._waiting[request.request_id] = waiting
        try:
            if not self._ask(request):
                return Result("failed", "the notifier is not connected")
            async with asyncio.timeout(self._limit_s + _GRACE_S):
                sent = await waiting
        except TimeoutError:
            return Result("failed", f"no answer within {self._limit_s:g} s")
        finally:
            del self._waiting[request.request_id]
        if 200 <= sent.status < 300:
            return Result("taken")
        said = f"{sent.status}: {sent.detail}" if sent.status else sent.detail or "not sent"
        return Result("failed" if sent.status in _PASSING else "refused", said)
