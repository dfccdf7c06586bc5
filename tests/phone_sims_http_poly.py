"""A Poly VVX or Edge: ``POST /push``.

From "Web Application for Polycom Phones, UC Software 5.0.0" (HTTP URL Push, HTML Data Push, tables
9 to 15 and 62), "SIP 3.1 Application Development" (Data Push) and code in use (a key is text of the
form ``Key:NAME`` inside of ``<PolycomIPPhone><Data priority="Critical">``).

Written there: every request is challenged by digest; ``apps.push.messageType`` 0 discards all, 1 to
4 allow one priority only, 5 all; without ``priority`` it is Normal; while the phone is not idle,
Critical is shown at once, High and Important at once unless the last one was of the same or a
higher priority (then when the phone is idle again), Normal when it is idle again; one element in
``PolycomIPPhone``. 2xx or 4xx comes at once and says nothing of the showing.

Open, and decided against the sender: the largest request (1 KB in SIP 3.1, 2 KB in 5.0: 1024
bytes); what a filtered message gets (200 and nothing); what a wrong Content-Type gets (400); that
``Key:Home`` takes a pushed page away is in no text that we could read, but is what the key does on
the phone; an unknown key is 200 and nothing. The realm's name is our own. A soft key of a page
(``<softkey index="" label="" action="">``) fetches with ``SoftKey:Fetch;URL`` and goes back with
``SoftKey:Back`` or ``SoftKey:Exit``; a page that is fetched has to be text/html (open, too).
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from xml.etree import ElementTree

from tests.phone_sims_http import Answer, Digest, Phone, Request, document
from tests.phone_sims_http_client import ask
from tests.phone_sims_http_screen import Screen, SoftKey

PRIORITIES = ("Normal", "Important", "High", "Critical")
KEYS = frozenset(
    [f"Line{n}" for n in range(1, 49)]
    + [f"{pad}{n}" for pad in ("Dialpad", "DialPad") for n in range(10)]
    + [f"Softkey{n}" for n in range(1, 6)]
    + ["DialPadStar", "DialPadPound", "VolDown", "VolUp", "Headset", "Handsfree", "MicMute"]
    + ["Menu", "Messages", "Applications", "Directories", "Setup", "ArrowUp", "ArrowDown"]
    + ["ArrowLeft", "ArrowRight", "Backspace", "DoNotDisturb", "Select", "Conference", "Transfer"]
    + ["Redial", "Hold", "Status", "CallList", "Home"]
)
_TYPE = "application/x-com-polycom-spipx"
#: Elements that begin a new line; what is inside of others flows on.
_BLOCKS = frozenset({"p", "h1", "h2", "h3", "h4", "h5", "h6", "div", "li", "tr", "body"})


@dataclass(kw_only=True)
class PolyPhone(Phone):
    """A VVX 150's size: 132 × 64 dots, four lines of twenty (the number of characters is open)."""

    screen: Screen = field(default_factory=lambda: Screen(rows=4, width=20))
    user: str = "Polycom"
    password: str = "456"
    message_type: int = 5
    """``apps.push.messageType``."""
    largest_bytes: int = 1024
    nonce_s: float = 30.0
    keys: list[str] = field(default_factory=list)
    """Keys that were pressed from outside."""
    waiting: list[ElementTree.Element] = field(default_factory=list)
    """Pages that are shown when the phone is idle again."""
    digest: Digest = field(init=False)
    _last: int | None = None

    def __post_init__(self) -> None:
        self.screen.clock = self.clock
        self.digest = Digest("Push", self.user, self.password, self.clock, self.nonce_s)

    def hang_up(self) -> None:
        """The call is over: what waited is shown."""
        self.in_call = False
        for data in self.waiting:
            self._do(data)
        self.waiting.clear()
        self._last = None

    async def judge(self, request: Request) -> Answer:
        if request.path != "/push":
            return Answer(404)
        challenge = self.digest.challenge(request)
        if challenge is not None:
            return challenge
        if request.method != "POST":
            return Answer(405)
        if request.content_type != _TYPE:
            return Answer(400)
        if len(request.body) > self.largest_bytes:
            return Answer(413)
        root = document(request.body)
        if root is None or root.tag != "PolycomIPPhone" or [e.tag for e in root] != ["Data"]:
            return Answer(400)
        data = root[0]
        priority = data.get("priority", "Normal")
        if priority not in PRIORITIES:
            return Answer(400)
        self._sort(data, PRIORITIES.index(priority))
        return Answer()

    def _sort(self, data: ElementTree.Element, priority: int) -> None:
        if self.message_type != 5 and self.message_type != priority + 1:
            return
        if self.in_call and priority < 3:
            later = priority == 0 or (self._last is not None and self._last >= priority)
            if later:
                self.waiting.append(data)
                return
        self._last = priority
        self._do(data)

    def _do(self, data: ElementTree.Element) -> None:
        text = "".join(data.itertext()).strip()
        if not len(data) and re.match(r"[A-Za-z]+:\S", text):
            for line in text.split():
                name = line.removeprefix("Key:")
                if name != line and name in KEYS:
                    self.keys.append(name)
                    if name == "Home":
                        self.screen.clear()
            return
        self._show(data)

    def _show(self, page: ElementTree.Element) -> None:
        found = [element for element in page.iter() if element.tag.endswith("softkey")]
        keys = sorted(found, key=lambda element: int(element.get("index", "9")))
        self.screen.show(
            _flow(page),
            keys=[SoftKey(key.get("label", ""), key.get("action", "")) for key in keys],
        )

    def act(self, action: str) -> None:
        if action in ("SoftKey:Back", "SoftKey:Exit"):
            self.screen.clear()
        elif action.startswith("SoftKey:Fetch;"):
            self.start(asyncio.create_task(self._open(action.partition(";")[2])))

    async def _open(self, url: str) -> None:
        told = await ask(url, limit=16 * 1024)
        root = document(told.body)
        if told.content_type.partition(";")[0] == "text/html" and root is not None:
            self._show(root)


def _flow(element: ElementTree.Element) -> str:
    """XHTML as lines."""
    out: list[str] = []

    def walk(node: ElementTree.Element) -> None:
        tag = node.tag.rpartition("}")[2].lower()
        if tag in ("head", "title", "script", "style"):
            return
        if tag == "br":
            out.append("\n")
        if tag in _BLOCKS:
            out.append("\0")
        out.append(re.sub(r"\s+", " ", node.text or ""))
        for child in node:
            walk(child)
            out.append(re.sub(r"\s+", " ", child.tail or ""))
        if tag in _BLOCKS:
            out.append("\0")

    walk(element)
    return re.sub(r"[ \0]*\0[ \0]*", "\n", "".join(out)).strip("\n ")
