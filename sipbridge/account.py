"""The pjsua2 account that every dialog of ours belongs to: a transport, and perhaps credentials."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol

import pjsua2 as pj
import structlog

if TYPE_CHECKING:
    from sipbridge.phone_notify import PhoneNotify, RequestSender

log = structlog.get_logger()


class AccountOwner(Protocol):
    """What an account tells the bridge."""

    requests: RequestSender
    notify: PhoneNotify

    def on_invite(self, account: Any, pjsua_id: int, message: str, source: str) -> None:
        """An INVITE that begins a call."""


class BridgeAccount(pj.Account):
    """Hands incoming calls to the bridge."""

    def __init__(self, bridge: AccountOwner) -> None:
        super().__init__()
        self._bridge = bridge
        self.name = ""
        """Side, transport, and whose credentials."""

    def onIncomingCall(self, prm: Any) -> None:
        try:
            self._bridge.on_invite(
                self, prm.callId, str(prm.rdata.wholeMsg), str(prm.rdata.srcAddress)
            )
        except Exception:  # the process must outlive any one INVITE
            log.exception("invite_failed")

    def onSendRequest(self, prm: Any) -> None:
        try:
            # Not inside PJSIP's callback: what follows may be another request.
            done = self._bridge.requests.done(prm)
            asyncio.get_running_loop().call_soon(self._bridge.notify.answered, *done)
        except Exception:  # never out of a pjsua2 callback
            log.exception("notify_answer_failed")
