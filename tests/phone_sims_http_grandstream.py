"""A Grandstream GRP or GXP: ``GET /cgi-bin/api-send_key``, which presses keys and shows no text.

From "GRP26xx Series CTI Guide" (Enabling CTI feature; Request format, Response format; Send Keys).
Written there: the passcode is the admin's or user's password and stands in the query; Action URI
Support has to be on, the sender in the Action URI Allowed IP List (``any``: all); unless Remote
Control Pop up Window Support is off, the user is asked on the phone; a positive answer is
``{"response":"success","body":"complete"}``, a negative one ``{"response":"error","body":
"unknown"}``.

Open, and decided against the sender: negative answers come with status 200, those to senders
outside of the list too; while the phone asks its user there is no answer at all; several keys are
one a request; an unknown key is an error; a query that names anything twice or something else is
an error.
"""

from __future__ import annotations

import asyncio
import json
import urllib.parse
from dataclasses import dataclass, field

from tests.phone_sims_http import Answer, Phone, Request, listed
from tests.phone_sims_http_screen import Screen

KEYS = frozenset(
    [*"0123456789", "STAR", "POUND", "OK", "UP", "DOWN", "LEFT", "RIGHT", "HOME", "MUTE", "HOLD"]
    + ["ONHOOK", "OFFHOOK", "SPEAKER", "LOCK", "UNLOCK", "VUP", "VDOWN", "TRANS", "CONF", "SEND"]
    + [f"{kind}{n}" for kind in ("LINE", "MPK", "SOFT") for n in range(1, 9)]
)


@dataclass(kw_only=True)
class GrandstreamPhone(Phone):
    """What its agent sees is what the agent's own keys do."""

    screen: Screen = field(default_factory=lambda: Screen(rows=4, width=20))
    passcode: str = "admin"
    action_uri: bool = True
    allowed_ips: list[str] = field(default_factory=list)
    pop_up: bool = False
    """Remote Control Pop up Window Support."""
    keys: list[str] = field(default_factory=list)
    asking: asyncio.Event = field(default_factory=asyncio.Event)
    """Its user is being asked."""
    _leave: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.screen.clock = self.clock

    def allow(self) -> None:
        """The user allows it, once."""
        self._leave.set()

    async def judge(self, request: Request) -> Answer:
        if request.path != "/cgi-bin/api-send_key":
            return Answer(404)
        if request.method != "GET":
            return Answer(405)
        if not self.action_uri or not listed(request.peer, self.allowed_ips):
            return _said("error", "unknown")
        fields = urllib.parse.parse_qsl(request.query, keep_blank_values=True)
        values = dict(fields)
        if sorted(name for name, _ in fields) != ["keys", "passcode"]:
            return _said("error", "unknown")
        if values["passcode"] != self.passcode or values["keys"] not in KEYS:
            return _said("error", "unknown")
        if self.pop_up:
            self.asking.set()
            await self._leave.wait()
            self._leave.clear()
            self.asking.clear()
        self.keys.append(values["keys"])
        return _said("success", "complete")


def _said(response: str, body: str) -> Answer:
    return Answer(200, json.dumps({"response": response, "body": body}).encode())
