"""The Asterisk Manager Interface as bytes: framing, matching, refusals. No sockets, no clock.

A message is lines of ``Name: value`` ended by CR LF, and an empty line behind them. The first line
of a connection is a banner, ``Asterisk Call Manager/7.0.3``. We say *actions*; the PBX says
*responses*, which carry our ActionID, and *events*. The answer to some actions is a list: a
response with ``EventList: start``, then events with the same ActionID, the last of which says
``EventList: Complete`` (https://docs.asterisk.org, "AMI v2 Specification").

Nothing here trusts the other end: a line, a message and a list have a bound each, and beyond it
the connection is not usable any more (:class:`callshield.errors.AmiProtocolError`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from callshield.errors import AmiProtocolError

#: Asterisk reads a line of at most 1024 bytes and throws a longer one away.
MAX_SENT_LINE_BYTES = 1000
#: Headers of one action that Asterisk keeps (``AST_MAX_MANHEADERS``), less some of ours.
MAX_SENT_LINES = 100
MAX_LINE_BYTES = 16 * 1024
MAX_MESSAGE_BYTES = 256 * 1024
MAX_LIST_ITEMS = 20_000
_BANNER = "Asterisk Call Manager/"

Fields = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Message:
    """One response or event.

    Attributes:
        lines: names and values as they came; names are compared without case, some come twice.
    """

    lines: tuple[tuple[str, str], ...]

    def get(self, name: str, default: str = "") -> str:
        """The first value of this name."""
        wanted = name.lower()
        for key, value in self.lines:
            if key.lower() == wanted:
                return value
        return default

    @property
    def event(self) -> str:
        """Name of the event; empty for a response."""
        return self.get("Event")


@dataclass(frozen=True, slots=True)
class Banner:
    """The PBX's first line."""

    version: str


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened at the PBX."""

    message: Message

    @property
    def name(self) -> str:
        return self.message.event


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one action.

    Attributes:
        action_id: of the action.
        response: the first message.
        items: the events of a list without the one that ends it.
    """

    action_id: str
    response: Message
    items: tuple[Message, ...] = ()

    @property
    def ok(self) -> bool:
        """The PBX did it."""
        return self.response.get("Response").lower() in ("success", "goodbye")

    @property
    def text(self) -> str:
        """The PBX's sentence."""
        return self.response.get("Message")


Happening = Banner | Event | Answer


@dataclass(slots=True)
class _Pending:
    response: Message | None = None
    items: list[Message] = field(default_factory=list)


def encode(action: str, fields: Fields, action_id: str) -> bytes:
    """One action as bytes.

    Args:
        action: its name.
        fields: names and values in order; a name may come twice (``Variable``).
        action_id: comes back in everything that belongs to it.

    Raises:
        AmiProtocolError: a name or value holds CR, LF or NUL, with which somebody could add
            headers or whole actions of his own, or it is too long for the PBX.
    """
    lines = []
    for name, value in (("Action", action), ("ActionID", action_id), *fields):
        if not name or not name.isascii() or ":" in name or _splits(name):
            raise AmiProtocolError(f"{name[:40]!r} cannot be the name of a manager header")
        if _splits(value):
            raise AmiProtocolError(
                f"a line break in the value of {name}: the PBX would read what follows as its own "
                "header; it was not sent"
            )
        try:
            line = f"{name}: {value}".encode()
        except UnicodeEncodeError:
            raise AmiProtocolError(f"the value of {name} is no text; it was not sent") from None
        if len(line) > MAX_SENT_LINE_BYTES:
            raise AmiProtocolError(
                f"the value of {name} is {len(line)} bytes long, the PBX reads "
                f"{MAX_SENT_LINE_BYTES}: shorten it"
            )
        lines.append(line)
    if len(lines) > MAX_SENT_LINES:
        raise AmiProtocolError(f"{len(lines)} headers in one action, the PBX reads fewer")
    return b"\r\n".join(lines) + b"\r\n\r\n"


def _splits(text: str) -> bool:
    return any(character in text for character in "\r\n\0")


def login_key(challenge: str, secret: str) -> str:
    """The answer to ``Challenge`` with ``AuthType: MD5``: the secret itself never travels."""
    return hashlib.md5(f"{challenge}{secret}".encode(), usedforsecurity=False).hexdigest()


class Connection:
    """One connection's state: bytes in, happenings out.

    Args:
        tag: begins every ActionID, so that those of an earlier connection fit nothing.
    """

    def __init__(self, tag: str) -> None:
        self._tag = tag
        self._number = 0
        self._buffer = bytearray()
        self._lines: list[tuple[str, str]] = []
        self._size = 0
        self._pending: dict[str, _Pending] = {}
        self._greeted = False
        self.strays = 0
        """Responses that answered nothing that we asked, or not any more."""

    def request(self, action: str, fields: Fields = ()) -> tuple[str, bytes]:
        """An action to send.

        Returns:
            Its ActionID, with which the :class:`Answer` will come, and the bytes.

        Raises:
            AmiProtocolError: see :func:`encode`.
        """
        self._number += 1
        action_id = f"{self._tag}-{self._number}"
        data = encode(action, fields, action_id)
        self._pending[action_id] = _Pending()
        return action_id, data

    def forget(self, action_id: str) -> None:
        """Nobody waits for this answer any more; when it comes it is a stray."""
        self._pending.pop(action_id, None)

    def receive(self, data: bytes) -> list[Happening]:
        """Take what came, split in whatever way.

        Raises:
            AmiProtocolError: it is no manager interface, or something exceeds its bound.
        """
        self._buffer += data
        happenings: list[Happening] = []
        while True:
            end = self._buffer.find(b"\n")
            if end < 0:
                if len(self._buffer) > MAX_LINE_BYTES:
                    raise AmiProtocolError("the PBX sent a line without an end")
                return happenings
            if end > MAX_LINE_BYTES:
                raise AmiProtocolError(f"the PBX sent a line of {end} bytes")
            line = bytes(self._buffer[:end]).removesuffix(b"\r").decode("utf-8", "replace")
            del self._buffer[: end + 1]
            happening = self._line(line)
            if happening is not None:
                happenings.append(happening)

    def _line(self, line: str) -> Happening | None:
        if not self._greeted:
            if not line.startswith(_BANNER):
                raise AmiProtocolError(
                    "there is no Asterisk manager interface at ami.host and ami.port: the first "
                    "line was another"
                )
            self._greeted = True
            return Banner(line.removeprefix(_BANNER)[:40])
        if line:
            self._size += len(line)
            if self._size > MAX_MESSAGE_BYTES:
                raise AmiProtocolError(f"the PBX sent a message above {MAX_MESSAGE_BYTES} bytes")
            name, colon, value = line.partition(":")
            # A line without a name is output of a command, which we never ask for.
            if colon:
                self._lines.append((name.strip(), value.removeprefix(" ")))
            return None
        lines, self._lines, self._size = tuple(self._lines), [], 0
        return self._message(Message(lines)) if lines else None

    def _message(self, message: Message) -> Happening | None:
        action_id = message.get("ActionID")
        pending = self._pending.get(action_id) if action_id else None
        if message.event:
            if pending is None:
                # An event may carry an ActionID that is another program's, or an old one of ours.
                return Event(message)
            return self._item(action_id, pending, message)
        if pending is None or pending.response is not None:
            self.strays += 1
            return None
        pending.response = message
        if message.get("EventList").lower() == "start":
            return None
        del self._pending[action_id]
        return Answer(action_id, message)

    def _item(self, action_id: str, pending: _Pending, message: Message) -> Happening | None:
        if pending.response is None:
            # Some events of an action come before its response: they are news like any other.
            return Event(message)
        if message.get("EventList").lower() in ("complete", "cancelled"):
            del self._pending[action_id]
            return Answer(action_id, pending.response, tuple(pending.items))
        if len(pending.items) >= MAX_LIST_ITEMS:
            raise AmiProtocolError(f"the PBX sent a list of more than {MAX_LIST_ITEMS} entries")
        pending.items.append(message)
        return None
