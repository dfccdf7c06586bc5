"""Screens that a phone fetches itself, as Cisco's ``Execute`` tells it to. Pure, clock given.

The address is an id that cannot be guessed and lives for a short time; it is told to one phone.
What lies there is what would be shown anyway: no names, no numbers, no words.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

#: How long a screen can be fetched unless something else is said, seconds.
LIVES_S = 30.0
#: How often: a phone asks again when the first answer got lost.
FETCHES = 3
#: Kept at once; beyond it the oldest goes.
_MOST = 2000
_ID_BYTES = 16


@dataclass(slots=True)
class _Page:
    body: bytes
    content_type: str
    until_s: float
    left: int


class ScreenPages:
    """Screens waiting to be fetched.

    Args:
        new_id: unguessable; 128 bits in characters that every phone takes in a URL.
    """

    def __init__(self, new_id: Callable[[], str] = lambda: secrets.token_hex(_ID_BYTES)) -> None:
        self._new_id = new_id
        self._pages: OrderedDict[str, _Page] = OrderedDict()

    def __len__(self) -> int:
        return len(self._pages)

    def put(self, body: bytes, content_type: str, now_s: float, lives_s: float = LIVES_S) -> str:
        """Keep a screen.

        Args:
            body: the document, encoded.
            content_type: with its charset.
            now_s: monotonic.
            lives_s: from now on.

        Returns:
            Its path at the listener; not for a log.
        """
        self._drop_old(now_s)
        while len(self._pages) >= _MOST:
            self._pages.popitem(last=False)
        id_ = self._new_id()
        self._pages[id_] = _Page(body, content_type, now_s + lives_s, FETCHES)
        return f"/s/{id_}"

    def take(self, id_: str, now_s: float) -> tuple[bytes, str] | None:
        """A screen that is fetched: body and content type; ``None`` where there is none (now)."""
        page = self._pages.get(id_)
        if page is None or now_s >= page.until_s:
            self._pages.pop(id_, None)
            return None
        page.left -= 1
        if page.left <= 0:
            del self._pages[id_]
        return page.body, page.content_type

    def remove(self, path: str) -> None:
        """The screen is out of date: it can no longer be fetched."""
        self._pages.pop(path.removeprefix("/s/"), None)

    def _drop_old(self, now_s: float) -> None:
        # They differ in how long they live, so that all are looked at.
        for id_ in [id_ for id_, page in self._pages.items() if now_s >= page.until_s]:
            del self._pages[id_]
