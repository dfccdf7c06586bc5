"""Scripted telephones that register, and what a stranger would send."""

from __future__ import annotations

import itertools

from sipbridge.digest_accounts import Credentials
from sipbridge.digest_answer import answer, read_challenge
from tests.edge.kit import Edge
from tests.peers.sip_ua import PATIENCE_S, Message, Ua

_numbers = itertools.count(1)


class Registration:
    """One phone's registration: each REGISTER of it has the same Call-ID.

    Args:
        ua: the phone.
        edge: where it registers.
        user: whom it says it is.
        headers: more of its REGISTER.
        to: address and port it is sent to; the edge's own.
    """

    def __init__(
        self,
        ua: Ua,
        edge: Edge,
        user: str,
        *,
        headers: tuple[str, ...] = (),
        to: tuple[str, int] | None = None,
    ) -> None:
        self.ua, self.edge, self.user, self.headers = ua, edge, user, headers
        self.to = to or (edge.address, edge.port)
        self.call_id = f"r{next(_numbers)}@{ua.address}"
        self._cseq = 0

    async def send(self, *, authorization: str = "", expires: int = 300) -> Message:
        """One REGISTER; its final answer."""
        self.begin(authorization=authorization, expires=expires)
        return await self.answered()

    async def answered(self, timeout_s: float = PATIENCE_S) -> Message:
        """The final answer to the last REGISTER."""
        return await self.ua.expect(
            lambda m: (
                m.status >= 200
                and m["Call-ID"] == self.call_id
                and m["CSeq"] == f"{self._cseq} REGISTER"
            ),
            "an answer",
            timeout_s,
        )

    def begin(self, *, authorization: str = "", expires: int = 300) -> None:
        """One REGISTER, and no waiting."""
        self._cseq += 1
        ua, who = self.ua, f"sip:{self.user}@{self.edge.place}"
        lines = [
            f"REGISTER sip:{self.edge.place} SIP/2.0",
            f"Via: SIP/2.0/UDP {ua.address}:{ua.port};rport;branch=z9hG4bKr{next(_numbers)}",
            "Max-Forwards: 70",
            f"From: <{who}>;tag=r{self._cseq}",
            f"To: <{who}>",
            f"Call-ID: {self.call_id}",
            f"CSeq: {self._cseq} REGISTER",
            f"Contact: <sip:{self.user}@{ua.address}:{ua.port}>",
            f"Expires: {expires}",
            *self.headers,
            *([f"Authorization: {authorization}"] if authorization else []),
            "Content-Length: 0",
            "",
            "",
        ]
        ua.send("\r\n".join(lines), self.to)

    async def register(self, password: str, *, expires: int = 300) -> Message:
        """Both REGISTERs: the challenge is answered; the last answer."""
        challenged = await self.send(expires=expires)
        if challenged.status != 401:
            return challenged
        return await self.send(authorization=self.digest(challenged, password), expires=expires)

    def digest(self, challenged: Message, password: str) -> str:
        """What answers a challenge."""
        challenge = read_challenge(challenged["WWW-Authenticate"])
        assert challenge is not None
        who = Credentials(self.user, password)
        return answer(challenge, who, "REGISTER", f"sip:{self.edge.place}", "cnonce1")


async def options(ua: Ua, edge: Edge, user: str = "") -> Message:
    """OPTIONS outside any dialog; its answer."""
    number = next(_numbers)
    target = f"sip:{user}@{edge.place}" if user else f"sip:{edge.place}"
    lines = [
        f"OPTIONS {target} SIP/2.0",
        f"Via: SIP/2.0/UDP {ua.address}:{ua.port};rport;branch=z9hG4bKo{number}",
        "Max-Forwards: 70",
        f"From: <sip:{ua.user}@{ua.address}>;tag=o{number}",
        f"To: <{target}>",
        f"Call-ID: o{number}@{ua.address}",
        f"CSeq: {number} OPTIONS",
        "Content-Length: 0",
        "",
        "",
    ]
    ua.send("\r\n".join(lines), (edge.address, edge.port))
    call_id = f"o{number}@{ua.address}"
    return await ua.expect(lambda m: m["Call-ID"] == call_id, "an answer to OPTIONS")
