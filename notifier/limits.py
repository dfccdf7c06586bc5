"""``[limits]`` at the door: who has asked too much gets 429 with Retry-After.

Three kinds of requests are counted apart: actions on calls; health and figures, so that nobody
blinds the monitoring; everything else. *End* and *help* with a good token are not counted at all:
no setting hinders them. A token that was
found good is counted by itself and not by its address, so that a stranger behind the same address
keeps nobody from pressing *end*.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections import OrderedDict
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.types import Scope

from callshield.messages import Action
from callshield.settings_webhooks import LimitSettings
from notifier.problems import Problem
from notifier.rate import ASKERS, Rate, address_of
from notifier.tokens import PREFIX

_HEALTH = frozenset({"/healthz", "/readyz", "/metrics"})
#: Longer than any token of ours.
_TOKEN_CHARACTERS = 128


def kind_of(scope: Scope) -> str:
    """``action``, ``health`` or ``other``."""
    path: str = scope["path"]
    if path in _HEALTH:
        return "health"
    if path.startswith("/api/v1/calls/") and path.endswith("/actions"):
        return "action"
    return "other"


class Limits:
    """Counts requests.

    Args:
        settings: ``[limits]``.
        clock: seconds, monotonic.
    """

    def __init__(
        self, settings: LimitSettings, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._tokens = Rate(settings.token_per_s, settings.token_burst)
        self._addresses = Rate(settings.address_per_s, settings.address_burst)
        self._good: OrderedDict[bytes, None] = OrderedDict()

    def found_good(self, headers: Headers) -> None:
        """The bearer token of this request is one of ours."""
        token = _token(headers)
        if token is not None:
            self._good[token] = None
            self._good.move_to_end(token)
            if len(self._good) > ASKERS:
                self._good.popitem(last=False)

    def refusal(self, scope: Scope) -> Problem | None:
        """The answer to a request that is one too many, or ``None``."""
        now_s, kind = self._clock(), kind_of(scope)
        client = scope.get("client")
        token = _token(Headers(scope=scope))
        if kind == "action" and token in self._good:
            return None  # counted by action_refusal, where it is known what is asked
        if client is not None and token not in self._good:
            wait_s = self._addresses.wait_s((address_of(client[0]), kind), now_s)
            if wait_s:
                return _too_many("this address", wait_s)
        if token is not None:
            wait_s = self._tokens.wait_s((token, kind), now_s)
            if wait_s:
                return _too_many("this token", wait_s)
        return None

    def action_refusal(self, headers: Headers, action: Action) -> Problem | None:
        """The answer to an action with a good token that is one too many, or ``None``."""
        token = _token(headers)
        if token is None or action in (Action.END, Action.HELP):
            return None
        wait_s = self._tokens.wait_s((token, "action"), self._clock())
        return _too_many("this token", wait_s) if wait_s else None


def _token(headers: Headers) -> bytes | None:
    """A short name of the bearer token; whether it is good does not matter here."""
    _, _, token = headers.get("authorization", "").partition(" ")
    token = token.strip()
    if not token.startswith(PREFIX) or len(token) > _TOKEN_CHARACTERS:
        return None
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()[:16]


def _too_many(who: str, wait_s: float) -> Problem:
    return Problem(
        429,
        "too_many_requests",
        f"Too many requests from {who}: wait, then ask again (see [limits]).",
        {"Retry-After": str(max(1, math.ceil(wait_s)))},
    )
