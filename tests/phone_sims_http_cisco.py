"""Cisco 7800/8800: ``POST /CGI/Execute``, with the enterprise firmware and with multiplatform.

From "Cisco Unified IP Phone Services Application Development Notes" (7.1(3) and 9.1(1): HTTP
Server Requests, CiscoIPPhoneExecute, CiscoIPPhoneResponse, CiscoIPPhoneError, Init, Content-Type),
the multiplatform administration guides (XML Applications: CISCO XML EXE Auth Mode), and the pages
of usecallmanager.nz and voip-info.org on the authentication URL.

Written there: the path and the form's field ``XML`` are case-sensitive; a post has at most 512
bytes; up to three ExecuteItems; priority 0 at once, 1 when idle, 2 only if idle; an item's URL is
fetched by the phone itself, with GET, and parsed where its Content-Type is text/xml; without a
charset the phone's locale decides, so it has to be named; ``Init:Services`` closes what services
show; the enterprise phone asks the authentication URL with UserID, Password and devicename, and
takes ``AUTHORIZED`` and nothing else, not even a line break; errors are ``CiscoIPPhoneError`` with
Number 1 (parsing), 2 (framing), 3 (internal file), 4 (authentication), and code in use knows 5
(network) and 6 (timeout). All of these come with **HTTP status 200**.

Open, and decided against the sender: a post without an Authorization header gets 401 with a
challenge, a wrong password error 4; without an authentication URL everybody gets error 4 (the
notes: "or the Authentication URL is not set properly"; usecallmanager.nz has it that nobody is
asked then); another Content-Type than a form's, or a post that is too large, gets error 1; the
512 bytes are those of the body as posted; the answer comes before anything was fetched, so that
success says nothing of the showing. The authentication URL is asked by POST (voip-info.org) or by
GET: ``asks_by`` says which, a listener has to take both.
"""

from __future__ import annotations

import asyncio
import html
import re
import urllib.parse
from dataclasses import dataclass, field
from typing import Literal
from xml.etree import ElementTree

from tests.phone_sims_http import Answer, Digest, Phone, Request, basic, document, form
from tests.phone_sims_http_client import Fetched, ask
from tests.phone_sims_http_screen import Screen, SoftKey

_POST_BYTES = 512
#: Of a page that is fetched; nothing longer is a text for a phone.
_PAGE_BYTES = 16 * 1024
_ITEMS = 3
Item = tuple[str, str]
AuthMode = Literal["Trusted", "Local Credential", "Remote Credential"]
"""``CISCO_XML_EXE_Auth_Mode``."""


@dataclass(kw_only=True)
class _ExecutingPhone(Phone):
    """What both firmwares do once they believe the sender."""

    screen: Screen = field(default_factory=lambda: Screen(rows=4, width=24))
    model: str = "CP-8841"
    device: str = "SEP001122334455"
    fetched: list[Fetched] = field(default_factory=list)
    """Pages of items, in order."""
    troubles: list[str] = field(default_factory=list)
    """Why something that was executed did not show: the phone's own log."""
    keys: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    fetch_limit_s: float = 3.0

    def __post_init__(self) -> None:
        self.screen.clock = self.clock

    def hang_up(self) -> None:
        """The call is over: what waited for that is done."""
        self.in_call = False
        for url in self.waiting:
            self._do(url)
        self.waiting.clear()

    def _executed(self, request: Request) -> Answer:
        if request.content_type != "application/x-www-form-urlencoded":
            return _error(1)
        if len(request.body) > _POST_BYTES:
            return _error(1)
        fields = form(request.body)
        root = document(fields["XML"].encode()) if fields and "XML" in fields else None
        if root is None:
            return _error(1)
        if root.tag == "CiscoIPPhoneText":
            self._show(root)
            return _response([("", "0")])
        if root.tag != "CiscoIPPhoneExecute":
            return _error(1)
        urls = [item.get("URL", "") for item in root]
        wrong = [item for item in root if item.tag != "ExecuteItem" or not item.get("URL")]
        if wrong or not 1 <= len(urls) <= _ITEMS:
            return _error(1)
        done: list[Item] = []
        for item, url in zip(root, urls, strict=True):
            priority = item.get("Priority", "0")
            if priority not in ("0", "1", "2"):
                return _error(1)
            done.append((url, "0" if self._known(url) else "1"))
            if done[-1][1] != "0":
                continue
            if self.in_call and priority == "1":
                self.waiting.append(url)
            elif not self.in_call or priority == "0":
                self._do(url)
        return _response(done)

    def _known(self, url: str) -> bool:
        return re.fullmatch(r"https?://\S+|(Init|Key|SoftKey|Play|Dial):\S+", url) is not None

    def _do(self, url: str) -> None:
        if url.startswith("http"):
            self.start(asyncio.create_task(self.open(url)))
        elif url.lower() in ("init:services", "key:services", "softkey:exit"):
            self.screen.clear()
        elif url.startswith(("Key:", "SoftKey:")):
            self.keys.append(url.partition(":")[2])

    async def open(self, url: str) -> None:
        try:
            page = await asyncio.wait_for(
                ask(url, headers=self._who(), limit=_PAGE_BYTES), self.fetch_limit_s
            )
        except (OSError, EOFError, ValueError, TimeoutError) as error:
            self.troubles.append(type(error).__name__)
            return
        self.fetched.append(page)
        kind, _, parameters = page.content_type.partition(";")
        if page.status != 200 or kind.strip().lower() != "text/xml":
            self.troubles.append(f"{page.status} {kind}")
            return
        if parameters.replace(" ", "").replace('"', "").lower() != "charset=utf-8":
            self.troubles.append("charset")
            return
        root = document(page.body)
        if root is None or root.tag != "CiscoIPPhoneText":
            self.troubles.append("XML Error [4]: Parse Error")
            return
        self._show(root)

    def _show(self, root: ElementTree.Element) -> None:
        if len(root.findtext("Text", "")) > 4000:
            self.troubles.append("Text")
            return
        keys = sorted(
            root.iter("SoftKeyItem"), key=lambda item: int(item.findtext("Position", "9"))
        )
        self.screen.show(
            root.findtext("Text", ""),
            title=root.findtext("Title", ""),
            keys=[SoftKey(key.findtext("Name", ""), key.findtext("URL", "")) for key in keys],
        )

    def act(self, action: str) -> None:
        self._do(action)

    def _who(self) -> dict[str, str]:
        return {
            "x-CiscoIPPhoneModelName": self.model,
            "x-CiscoIPPhoneDisplay": "396,162,12,C",
            "x-CiscoIPPhoneSDKVersion": "9.0.1",
            "Accept": "x-CiscoIPPhone/*;version=9.0.1,text/xml,text/plain",
            "Accept-Charset": "utf-8",
        }


@dataclass(kw_only=True)
class CiscoPhone(_ExecutingPhone):
    """Enterprise firmware: basic authentication, and somebody else decides who may push."""

    authentication_url: str = ""
    asks_by: Literal["POST", "GET"] = "POST"
    asked: list[Fetched] = field(default_factory=list)
    """What the authentication URL said."""
    ask_limit_s: float = 3.0

    async def judge(self, request: Request) -> Answer:
        if request.path != "/CGI/Execute":
            return Answer(404)
        given = basic(request)
        if given is None:
            return Answer(401, headers=(("WWW-Authenticate", 'Basic realm="phone"'),))
        if request.method != "POST":
            return Answer(405)
        if not await self._authorized(*given):
            return _error(4)
        return self._executed(request)

    async def _authorized(self, user: str, password: str) -> bool:
        if not self.authentication_url:
            return False
        values = {"UserID": user, "Password": password, "devicename": self.device}
        query = urllib.parse.urlencode(values)
        url = self.authentication_url
        try:
            if self.asks_by == "GET":
                url += ("&" if "?" in url else "?") + query
                told = await asyncio.wait_for(ask(url, limit=1024), self.ask_limit_s)
            else:
                told = await asyncio.wait_for(
                    ask(url, body=query.encode(), limit=1024), self.ask_limit_s
                )
        except (OSError, EOFError, ValueError, TimeoutError) as error:
            self.troubles.append(f"authentication: {type(error).__name__}")
            return False
        self.asked.append(told)
        return told.status == 200 and told.body == b"AUTHORIZED"


@dataclass(kw_only=True)
class CiscoMppPhone(_ExecutingPhone):
    """Multiplatform firmware: digest, by the phone's own passwords.

    ``CISCO_XML_EXE_Enable`` No (its default): what then is answered is open; here 403.
    """

    model: str = "CP-8841-3PCC"
    enabled: bool = True
    auth_mode: AuthMode = "Local Credential"
    user: str = "user"
    password: str = "456"
    """Of the local user; empty with Local Credential: nobody is asked for anything."""
    nonce_s: float = 30.0
    digest: Digest = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.digest = Digest("cisco", self.user, self.password, self.clock, self.nonce_s)

    async def judge(self, request: Request) -> Answer:
        if request.path != "/CGI/Execute":
            return Answer(404)
        if not self.enabled:
            return Answer(403)
        if self.auth_mode != "Trusted" and self.password:
            challenge = self.digest.challenge(request)
            if challenge is not None:
                return challenge
        if request.method != "POST":
            return Answer(405)
        return self._executed(request)


def _error(number: int) -> Answer:
    return Answer(200, f'<CiscoIPPhoneError Number="{number}" />'.encode(), "text/xml")


def _response(items: list[Item]) -> Answer:
    said = "".join(
        f'<ResponseItem Status="{status}" Data="{"Success" if status == "0" else "Invalid URI"}"'
        f' URL="{html.escape(url)}" />'
        for url, status in items
    )
    return Answer(200, f"<CiscoIPPhoneResponse>{said}</CiscoIPPhoneResponse>".encode(), "text/xml")
