"""Phones that take an XML screen from addresses in a list: Yealink, Fanvil, Mitel.

**Yealink** (``POST /servlet?push=xml``): "XML Browser Developer's Guide for Yealink SIP-T4X IP
Phones" (objects, 10,000 bytes, one object a document; Configuring the Push XML Server Address,
Block XML in Calling) and the sample and all code in use: Content-Type text/xml, body ``xml=`` and
the document as it is, not URL-encoded. Beep is on unless ``Beep="no"``. Open: what a sender that
is not in ``push_xml.server`` gets (403), what a broken document gets (400), what a blocked one
gets (200 and nothing: the trap), after how long a TextScreen goes away by itself (45 s, as in the
Aastra documents that this format follows; ``Timeout="0"``: never). A file's own prolog names its
encoding. Action URIs are GET ``/servlet?key=NAME``: from ``features.action_uri_limit_ip`` only
(empty: nobody), and the first one of an address waits for the user's leave ("Allow remote
control?"): 200 and nothing pressed.

**Fanvil** (``POST /xmlService``): the HTTP API guide of the same design (OpenVox: PUSH XML Server
IP, the web administrator's account, ``RetCode``) and code in use that follows D-Link's PushXML
document (root ``FanvilIPPhoneText`` with Title and Text, attribute ``beep``, Content-Type
text/xml, the document is the body). Templates in use name PushXMLIP, EnablePushXMLAuth and
BlockXMLWhenCall. Open: the scheme of the password (basic), whether any attribute ends a screen by
itself (no: it stays until another replaces it, or an empty one), whether it beeps without ``beep``
(yes), the status of refusals (403; a broken document: 200 with RetCode 1; blocked: 200, RetCode 0
and nothing), the largest document (4096 bytes).

**Mitel** (``POST /``): "XML API for Aastra SIP Phones 3.3.1 SP4" (2.6 to 2.8, 3.3, 4.10.2, 5.4:
Content-Type and Content-Length are needed; ``xml=`` and the document, not URL-encoded; 10,000
bytes; UTF-8 unless the prolog says otherwise; 45 s, or Timeout, 0: never) and the administrator
guides 2.1 to 2.4 (a browser's form, URL-encoded; ``xml application post list``). Mitel's own PHP
library sends text/xml. Only these two pairs are taken. Open: refusals (403; a broken document:
400), whether it is shown during a call (``shows_in_call``). Models without soft keys (6863i,
6865i) draw none of a document's (3.3, limitations).

Soft keys of both (``<SoftKey index=""><Label/><URI/></SoftKey>``) fetch an address, whose answer
is shown like a pushed one, or are ``SoftKey:Exit``.
"""

from __future__ import annotations

import asyncio
import re
import urllib.parse
from dataclasses import dataclass, field
from xml.etree import ElementTree

from tests.phone_sims_http import Answer, Phone, Request, basic, document, form, listed
from tests.phone_sims_http_client import ask
from tests.phone_sims_http_screen import Screen, SoftKey

_UI_TIMEOUT_S = 45.0
_OBJECT_BYTES = 10_000


def _raw(body: bytes) -> bytes | None:
    """The document behind ``xml=``, as it is; None where it is missing, or URL-encoded."""
    if not body.startswith(b"xml="):
        return None
    found = body.removeprefix(b"xml=")
    return found if found.lstrip().startswith(b"<") else None


def _soft_keys(root: ElementTree.Element) -> list[SoftKey]:
    found = sorted(root.findall("SoftKey"), key=lambda key: int(key.get("index", "9")))
    return [SoftKey(key.findtext("Label", ""), key.findtext("URI", "")) for key in found]


class _Fetching(Phone):
    """What Yealink's and Mitel's soft keys do."""

    def act(self, action: str) -> None:
        if action == "SoftKey:Exit":
            self.screen.clear()
        elif action.startswith("http"):
            self.start(asyncio.create_task(self._open(action)))

    async def _open(self, url: str) -> None:
        told = await ask(url, limit=_OBJECT_BYTES)
        root = document(told.body)
        if told.content_type.partition(";")[0] == "text/xml" and root is not None:
            self._shown(root)

    def _shown(self, root: ElementTree.Element) -> Answer:
        raise NotImplementedError


@dataclass(kw_only=True)
class YealinkPhone(_Fetching):
    """A T31's size: 132 × 64 dots (lines and characters are open: three of twenty)."""

    screen: Screen = field(default_factory=lambda: Screen(rows=3, width=20))
    push_server: list[str] = field(default_factory=list)
    """``push_xml.server``; empty: nobody."""
    block_in_calling: bool = False
    """``push_xml.block_in_calling``."""
    action_uri_limit_ip: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    allowed: set[str] = field(default_factory=set)
    """Addresses whose keys the user has allowed."""
    asking: str = ""
    """Address about which the screen asks."""

    def __post_init__(self) -> None:
        self.screen.clock = self.clock

    def allow(self) -> None:
        """The user presses OK."""
        self.allowed.add(self.asking)
        self.asking = ""

    async def judge(self, request: Request) -> Answer:
        if request.path != "/servlet":
            return Answer(404)
        if request.method == "GET" and request.query.startswith("key="):
            return self._key(request)
        if request.query != "push=xml":
            return Answer(404)
        if not listed(request.peer, self.push_server):
            return Answer(403)
        if request.method != "POST":
            return Answer(405)
        raw = _raw(request.body) if request.content_type == "text/xml" else None
        if raw is None or len(raw) > _OBJECT_BYTES:
            return Answer(400)
        root = document(raw)
        if root is None or not root.tag.startswith("YealinkIPPhone"):
            return Answer(400)
        if self.in_call and self.block_in_calling:
            return Answer()
        return self._shown(root)

    def _shown(self, root: ElementTree.Element) -> Answer:
        if root.tag != "YealinkIPPhoneTextScreen":
            return Answer()
        timeout = root.get("Timeout", str(int(_UI_TIMEOUT_S)))
        text = root.find("Text")
        if not re.fullmatch(r"\d{1,6}", timeout) or text is None:
            return Answer(400)
        if root.get("Beep", "yes") != "no":
            self.screen.beeps += 1
        self.screen.show(
            text.text or "",
            title=root.findtext("Title", ""),
            timeout_s=float(timeout) if int(timeout) else None,
            keys=_soft_keys(root),
        )
        return Answer()

    def _key(self, request: Request) -> Answer:
        if not listed(request.peer, self.action_uri_limit_ip):
            return Answer(403)
        if request.peer not in self.allowed:
            self.asking = request.peer
            return Answer()
        self.keys.append(urllib.parse.unquote(request.query.removeprefix("key=")))
        return Answer()


@dataclass(kw_only=True)
class FanvilPhone(Phone):
    """An X3's size: 128 × 48 dots (three lines of twenty; the number of characters is open)."""

    screen: Screen = field(default_factory=lambda: Screen(rows=3, width=20))
    push_ip: list[str] = field(default_factory=list)
    """``PushXMLIP``; empty: nobody."""
    push_auth: bool = True
    """``EnablePushXMLAuth``."""
    block_when_call: bool = True
    """``BlockXMLWhenCall``; templates in use have it on."""
    user: str = "admin"
    password: str = "admin"

    def __post_init__(self) -> None:
        self.screen.clock = self.clock

    async def judge(self, request: Request) -> Answer:
        if request.path != "/xmlService":
            return Answer(404)
        if not listed(request.peer, self.push_ip):
            return Answer(403)
        if self.push_auth and basic(request) != (self.user, self.password):
            return Answer(401, headers=(("WWW-Authenticate", 'Basic realm="fanvil"'),))
        if request.method != "POST":
            return Answer(405)
        if request.content_type != "text/xml":
            return Answer(415)
        if len(request.body) > 4096:
            return Answer(413)
        root = document(request.body)
        if root is None or root.tag != "FanvilIPPhoneText" or root.find("Text") is None:
            return _fanvil(1)
        if self.in_call and self.block_when_call:
            return _fanvil(0)
        if root.get("beep", "yes") != "no":
            self.screen.beeps += 1
        self.screen.show(root.findtext("Text", ""), title=root.findtext("Title", ""))
        return _fanvil(0)


def _fanvil(code: int) -> Answer:
    words = (
        '<?xml version="1.0" encoding="UTF-8" ?>\n<FanvilConfiguration cmd="set">'
        f"<RetCode>{code}</RetCode></FanvilConfiguration>"
    )
    return Answer(200, words.encode(), "text/xml")


@dataclass(kw_only=True)
class MitelPhone(_Fetching):
    """A 6863i's size: 128 × 48 dots, of whose three lines the last names keys in other models of
    that size (lines and characters of the 6863i are open)."""

    screen: Screen = field(default_factory=lambda: Screen(rows=4, width=24))
    post_list: list[str] = field(default_factory=list)
    """``xml application post list``; empty: nobody."""
    shows_in_call: bool = True
    soft_keys: bool = False
    """6863i and 6865i have none."""

    def __post_init__(self) -> None:
        self.screen.clock = self.clock

    async def judge(self, request: Request) -> Answer:
        if request.target != "/":
            return Answer(404)
        if request.method != "POST":
            return Answer(405)
        if not listed(request.peer, self.post_list):
            return Answer(403)
        raw: bytes | None = None
        if request.content_type == "text/xml":
            raw = _raw(request.body)
        elif request.content_type == "application/x-www-form-urlencoded":
            fields = form(request.body) or {}
            raw = fields["xml"].encode() if "xml" in fields else None
        if raw is None or len(raw) > _OBJECT_BYTES:
            return Answer(400)
        root = document(raw)
        if root is None or not root.tag.startswith("AastraIPPhone"):
            return Answer(400)
        return self._shown(root)

    def _shown(self, root: ElementTree.Element) -> Answer:
        if root.tag != "AastraIPPhoneTextScreen" or (self.in_call and not self.shows_in_call):
            return Answer()
        timeout = root.get("Timeout", str(int(_UI_TIMEOUT_S)))
        if not re.fullmatch(r"\d{1,6}", timeout) or root.find("Text") is None:
            return Answer(400)
        if root.get("Beep", "no") == "yes":
            self.screen.beeps += 1
        self.screen.show(
            root.findtext("Text", ""),
            title=root.findtext("Title", ""),
            timeout_s=float(timeout) if int(timeout) else None,
            keys=_soft_keys(root) if self.soft_keys else (),
        )
        return Answer()
