"""A NOTIFY to an agent's phone, outside of any dialog: what its screen shows (docs/screens.md).

No subscription is behind it, as the vendors of phones document it; ``Subscription-State:
terminated`` says that none is begun (RFC 6665 section 4.1.3 wants the header in every NOTIFY). It
goes where our INVITE to that phone goes: to ``agents.ID.uri``, over its transport, from the same
address and account, and a challenge is answered with the credentials of the phone.

Nothing here waits. PJSIP sends when its loop gets to it; who asked hears after ``limit_s`` at the
latest. PJSIP itself gives a request up only after 64·T1 (timer F, 32 s) and cannot be told to stop
earlier, so those that nobody answers are counted until then: a phone that is away costs a few
transactions, not one for every change of a level.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import pjsua2 as pj
import structlog

from callshield.messages_phones import NotifySent, SendNotify
from sipbridge.digest_accounts import Credentials
from sipbridge.digest_answer import answer, choose
from sipbridge.sip_message import SipHeaders

log = structlog.get_logger()

#: A quarter of timer F: whoever waits longer for a warning has no use for it.
MAX_LIMIT_S = 8.0
#: Requests that PJSIP has not given up yet: to all phones, and to one of them.
MAX_UNDER_WAY = 64
MAX_A_PHONE = 4
#: PJSIP sends messages of 16,384 bytes; the headers take a part.
MAX_BODY_BYTES = 12_000
#: 401, answered; once more when the phone says that only its nonce was too old.
MAX_ANSWERS = 2
_EVENT = re.compile(r"[A-Za-z0-9.!%*_+`'~-]{1,64}(;[\x21-\x7e]{1,64})*")
_CONTENT_TYPE = re.compile(r"[A-Za-z0-9.+-]{1,64}/[A-Za-z0-9.+-]{1,64}(;[\x20-\x7e]{1,64})*")


class Handle(Protocol):
    """What ``call_later`` returns."""

    def cancel(self) -> None: ...


#: Sends a request: uri, headers, content type, body; returns a token that comes back with the
#: answer. Raises NotSent.
Post = Callable[[str, list[tuple[str, str]], str, str], int]


class NotSent(Exception):
    """PJSIP could not even begin; the text is a sentence without an address."""


@dataclass(slots=True)
class _Sending:
    wanted: SendNotify
    uri: str
    timer: Handle | None
    answers: int = 0
    told: bool = False


class PhoneNotify:
    """The requests under way.

    Args:
        uris: agent id → URI of the phone.
        credentials: of phones that ask for some, by URI.
        contact: our Contact header's URI for a phone's URI.
        post: sends.
        tell: takes every outcome, once.
        limit_s: how long who asked waits.
        later: ``loop.call_later``.
    """

    def __init__(
        self,
        uris: Mapping[str, str],
        credentials: Mapping[str, Credentials],
        contact: Callable[[str], str],
        post: Post,
        tell: Callable[[NotifySent], None],
        limit_s: float,
        later: Callable[[float, Callable[[], None]], Handle] | None = None,
    ) -> None:
        self._uris = uris
        self._credentials = credentials
        self._contact = contact
        self._post = post
        self._tell = tell
        self._limit_s = min(limit_s, MAX_LIMIT_S)
        self._later = later or (lambda s, work: asyncio.get_running_loop().call_later(s, work))
        self._under_way: dict[int, _Sending] = {}
        """By the token of their newest transaction."""

    def __len__(self) -> int:
        """Requests that PJSIP has not given up."""
        return len(self._under_way)

    def send(self, wanted: SendNotify) -> None:
        """Begin to send one; what becomes of it is told in at most ``limit_s``, or at once."""
        refusal = self._refusal(wanted)
        if refusal:
            self._say(wanted, 0, refusal)
            return
        sending = _Sending(wanted, self._uris[wanted.agent_id], None)
        if self._begin(sending, []):
            sending.timer = self._later(self._limit_s, lambda: self._late(sending))

    def _refusal(self, wanted: SendNotify) -> str:
        if wanted.agent_id not in self._uris:
            return "there is no such agent"
        if not _EVENT.fullmatch(wanted.event):
            return "the event is no name that a header can carry"
        if wanted.body and not _CONTENT_TYPE.fullmatch(wanted.content_type):
            return "the body has no content type that a header can carry"
        if len(wanted.body.encode()) > MAX_BODY_BYTES:
            return f"the body is longer than {MAX_BODY_BYTES} bytes"
        if len(self._under_way) >= MAX_UNDER_WAY:
            return f"{MAX_UNDER_WAY} requests to phones wait for an answer already"
        same = [one for one in self._under_way.values() if one.wanted.agent_id == wanted.agent_id]
        if len(same) >= MAX_A_PHONE:
            return f"the phone has not answered the last {MAX_A_PHONE} requests yet"
        return ""

    def _begin(self, sending: _Sending, more: list[tuple[str, str]]) -> bool:
        wanted = sending.wanted
        headers = [
            ("Contact", f"<{self._contact(sending.uri)}>"),
            ("Event", wanted.event),
            ("Subscription-State", "terminated;reason=timeout"),
            *more,
        ]
        content_type = wanted.content_type if wanted.body else ""
        try:
            token = self._post(sending.uri, headers, content_type, wanted.body)
        except NotSent as error:
            self._finish(sending, 0, str(error))
            return False
        self._under_way[token] = sending
        return True

    def answered(self, token: int, status: int, message: str) -> None:
        """PJSIP is done with a request.

        Args:
            token: as :data:`Post` returned it.
            status: of the final answer; PJSIP's own where none came.
            message: the answer; empty where none came.
        """
        sending = self._under_way.pop(token, None)
        if sending is None:
            return
        if not message:
            # Nobody said that: 408 is timer F, 503 a connection that could not be made or broke.
            away = "the phone does not answer" if status == 408 else "the phone cannot be reached"
            self._finish(sending, 0, away)
            return
        if status in (401, 407) and not sending.told and self._answer_challenge(sending, message):
            return
        self._finish(sending, status, _meaning(status))

    def _answer_challenge(self, sending: _Sending, message: str) -> bool:
        headers = SipHeaders(message)
        proxy = message.startswith("SIP/2.0 407")
        credentials = self._credentials.get(sending.uri)
        if credentials is None or sending.answers >= MAX_ANSWERS:
            return False
        values = headers.all("Proxy-Authenticate" if proxy else "WWW-Authenticate")
        challenge = choose(values, credentials)
        if challenge is None or (sending.answers and not challenge.stale):
            return False
        sending.answers += 1
        name = "Proxy-Authorization" if proxy else "Authorization"
        value = answer(challenge, credentials, "NOTIFY", sending.uri, secrets.token_hex(8))
        # When it cannot be sent, who asked has been told.
        self._begin(sending, [(name, value)])
        return True

    def _late(self, sending: _Sending) -> None:
        sending.timer = None
        self._finish(sending, 0, f"the phone has not answered within {self._limit_s:g} s")

    def _finish(self, sending: _Sending, status: int, detail: str) -> None:
        if sending.timer is not None:
            sending.timer.cancel()
            sending.timer = None
        if not sending.told:
            sending.told = True
            self._say(sending.wanted, status, detail)

    def _say(self, wanted: SendNotify, status: int, detail: str) -> None:
        if not 200 <= status < 300:
            log.info("notify_failed", agent_id=wanted.agent_id, status=status, detail=detail)
        self._tell(NotifySent(request_id=wanted.request_id, status=status, detail=detail))

    def close(self) -> None:
        """No timer may fire any more."""
        for sending in self._under_way.values():
            if sending.timer is not None:
                sending.timer.cancel()
        self._under_way.clear()


def _meaning(status: int) -> str:
    """What a phone's refusal most often means; a sentence for the log."""
    match status:
        case _ if 200 <= status < 300:
            return ""
        case 401 | 407:
            return "the phone does not take our username and password, or there are none"
        case 403:
            return "the phone does not trust us: make Callshield its server, or let the PBX send"
        case 415:
            return "the phone does not know this content type"
        case 481 | 489:
            return "the phone does not know this event"
        case _:
            return f"the phone refuses ({status})"


class RequestSender:
    """Sends requests outside of dialogs with pjsua2.

    Args:
        account: the pjsua2 account for a phone's URI.
        sent: called after each call into PJSIP from outside its callbacks.
    """

    def __init__(self, account: Callable[[str], Any], sent: Callable[[], None]) -> None:
        self._account = account
        self._sent = sent
        self._tokens: dict[int, Any] = {}
        """pjsua2 hands a pointer back: what it points at has to live until then."""

    def post(self, uri: str, headers: list[tuple[str, str]], content_type: str, body: str) -> int:
        """See :data:`Post`."""
        token: Any = pj.IntVector()
        number = int(token.this)
        request = pj.SendRequestParam()
        request.userData = token.this
        request.method = "NOTIFY"
        option = request.txOption
        option.targetUri = uri
        option.contentType = content_type
        option.msgBody = body
        for name, value in headers:
            header = pj.SipHeader()
            header.hName, header.hValue = name, value
            option.headers.push_back(header)
        # Before it is sent: PJSIP may say within the call that it cannot be.
        self._tokens[number] = token
        try:
            self._account(uri).sendRequest(request)
        except pj.Error as error:
            self._tokens.pop(number, None)
            raise NotSent(f"PJSIP cannot send it (error {error.status})") from None
        self._sent()
        if number not in self._tokens:
            raise NotSent("the phone cannot be reached")  # said while it was being sent
        return number

    def done(self, prm: Any) -> tuple[int, int, str]:
        """Token, status and message of what ``Account.onSendRequest`` was given."""
        number = int(prm.userData)
        self._tokens.pop(number, None)
        transaction = prm.e.body.tsxState
        came = transaction.type == pj.PJSIP_EVENT_RX_MSG
        message = str(transaction.src.rdata.wholeMsg) if came else ""
        return number, int(transaction.tsx.statusCode), message
