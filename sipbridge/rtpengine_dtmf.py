"""What rtpengine says of pressed keys: its DTMF log, a JSON object a key, in one datagram each.

::

    {"callid": "…", "source_tag": "…", "type": "DTMF", "event": 9, "duration": 120, …}

Anybody who can send to the port could press keys: only rtpengine's address is listened to (or, on
one machine, that of the port itself, which the kernel then lets rtpengine send from), and call ids
cannot be guessed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from callshield.errors import SetupError

DIGITS = "0123456789*#ABCD"


class DtmfEvent(msgspec.Struct, frozen=True):
    """One key, when it was let go."""

    callid: str
    source_tag: str
    event: int
    """RFC 4733 section 3.2."""

    @property
    def digit(self) -> str:
        """The key; ``""`` for an event that is none."""
        return DIGITS[self.event] if 0 <= self.event < len(DIGITS) else ""


class DtmfLog(asyncio.DatagramProtocol):
    """The port to which rtpengine logs; make it with :meth:`open`.

    Args:
        heard_from: addresses that rtpengine may have.
        on_event: told of each key.
    """

    _transport: asyncio.DatagramTransport

    def __init__(self, heard_from: frozenset[str], on_event: Callable[[DtmfEvent], None]) -> None:
        self._heard_from = heard_from
        self._on_event = on_event
        self._decoder = msgspec.json.Decoder(DtmfEvent)
        self._awaited: dict[str, asyncio.Event] = {}
        self.refused = 0
        """Datagrams of others, or that were no keys."""

    @classmethod
    async def open(
        cls,
        address: tuple[str, int],
        heard_from: frozenset[str],
        on_event: Callable[[DtmfEvent], None],
    ) -> DtmfLog:
        """Listen.

        Raises:
            SetupError: the port is taken, or no address of this machine.
        """
        loop = asyncio.get_running_loop()
        try:
            transport, log = await loop.create_datagram_endpoint(
                lambda: cls(heard_from, on_event), local_addr=address
            )
        except OSError as error:
            raise SetupError(
                f"media.rtpengine.dtmf_log: {address[0]} port {address[1]} cannot be opened "
                f"({error.strerror}): stop what uses it, or choose another here and as "
                "rtpengine's dtmf-log-dest"
            ) from None
        log._transport = transport
        return log

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        try:
            event = self._decoder.decode(data)
        except msgspec.MsgspecError:
            self.refused += 1
            return
        if addr[0] not in self._heard_from or not event.digit:
            self.refused += 1
            return
        if event.callid in self._awaited:
            self._awaited[event.callid].set()
        else:
            self._on_event(event)

    @contextlib.contextmanager
    def awaited(self, call_id: str) -> Iterator[asyncio.Event]:
        """An event that is set by the first key of this call; its keys are told to nobody else.

        Args:
            call_id: rtpengine's.
        """
        came = self._awaited[call_id] = asyncio.Event()
        try:
            yield came
        finally:
            del self._awaited[call_id]

    def close(self) -> None:
        self._transport.close()
