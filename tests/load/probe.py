"""A few calls whose every packet is timed, among hundreds that nobody listens to.

Real calls through the node like all others: set up by hand-written SIP (:mod:`tests.peers.sip_ua`),
with RTP both ways. A packet is stamped by the sender just before ``sendto``, and by the kernel when
it arrives at the far end (``SO_TIMESTAMPNS``): that this process is late itself, on a machine as
busy as these runs make it, does not count against the node.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from callshield.free_ports import free_range
from sipbridge.bench_arrivals import FRAME_SAMPLES, HEADER, Arrivals
from tests.load.generator import quantiles_ms
from tests.peers.sip_ua import Dialog, Ua

_SO_TIMESTAMPNS = 35
_TIMESPEC = struct.Struct("@qq")
_PERIOD_S = 0.02
#: Both directions are through within this time after the answer; what comes so soon after that
#: does not count.
_OPEN_WITHIN_S, _SETTLE_S = 10.0, 1.0
#: The PBX played the notice (``attests_notice``): connected at once, and tapped.
_ATTESTED = ("X-Callshield-Notice: abuse_prevention, recording",)


class _End:
    """One party's RTP socket."""

    def __init__(self, address: str, rounds: int) -> None:
        self.address, self.port = address, free_range(address, 2)[0]
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self.socket.bind((address, self.port))
        self.sent_ns = np.zeros(rounds, np.int64)
        self.to: tuple[str, int] = ("", 0)

    def send(self, number: int, frame: bytes) -> None:
        packet = HEADER.pack(
            0x80, 0, number & 0xFFFF, number * FRAME_SAMPLES & 0xFFFFFFFF, 0x5000 + self.port
        )
        self.sent_ns[number] = time.time_ns()
        try:
            self.socket.sendto(packet + frame, self.to)
        except OSError:
            self.sent_ns[number] = 0


@dataclass(slots=True)
class Heard:
    """What the timed calls found."""

    calls: int = 0
    failed: list[str] = field(default_factory=list)
    sent: int = 0
    lost: int = 0
    late_ms: list[float] = field(default_factory=list)
    """Of every packet: from its sending to its arrival."""
    setup_ms: list[float] = field(default_factory=list)
    sip_bytes: int = 0
    """Of all messages of both legs, both ways."""

    def result(self) -> dict[str, object]:
        """For a report."""
        return {
            "calls": self.calls,
            "failed": self.failed[:3],
            "sent": self.sent,
            "lost": self.lost,
            "rtp_ms": quantiles_ms(self.late_ms),
            "setup_ms": quantiles_ms(self.setup_ms),
            "sip_bytes_per_call": round(self.sip_bytes / max(1, self.calls)),
        }


class Probe:
    """One timed call after another.

    Args:
        pbx, phone: the user agents; one probe each. The node takes this PBX's word that the notice
            was played, so that all it relays from the first packet on is the other party's.
        target: URI of the agent at the node.
        node: the node's host and port towards the PBX.
        talk_s: length of each call's audio.
    """

    def __init__(
        self,
        pbx: Ua,
        phone: Ua,
        target: str,
        node: tuple[str, int],
        *,
        talk_s: float,
    ) -> None:
        self._pbx, self._phone, self._target, self._node = pbx, phone, target, node
        self._talk_s = talk_s
        self.heard = Heard()
        self.done: list[str] = []
        """SIP Call-IDs of the calls that went as planned."""
        self.begun: list[str] = []
        self._task: asyncio.Task[None] | None = None
        self._stop = False

    def start(self) -> None:
        """Call, again and again."""
        self._task = asyncio.create_task(self._run())

    @property
    def started(self) -> bool:
        """It calls."""
        return self._task is not None

    def finish(self) -> None:
        """Begin no more calls."""
        self._stop = True

    async def finished(self, timeout_s: float) -> bool:
        """Wait for the end of the call that runs."""
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=timeout_s)
        return self._task is None or self._task.done()

    async def close(self) -> None:
        """Leave."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def take(self) -> Heard:
        """What was found since the last time."""
        found, self.heard = self.heard, Heard()
        return found

    async def _run(self) -> None:
        while not self._stop:
            try:
                await self._call()
            except (AssertionError, TimeoutError, OSError) as error:
                self.heard.failed.append(str(error).partition("\n")[0][:200])
                await asyncio.sleep(1.0)

    async def _call(self) -> None:
        rounds = int((self._talk_s + _OPEN_WITHIN_S) / _PERIOD_S)
        caller, agent = _End(self._pbx.address, rounds), _End(self._phone.address, rounds)
        loop = asyncio.get_running_loop()
        # What one sends arrives at the other.
        at_agent = np.zeros(rounds, np.int64)
        at_caller = np.zeros(rounds, np.int64)
        pairs = (
            (agent, Arrivals(caller.sent_ns, at_agent)),
            (caller, Arrivals(agent.sent_ns, at_caller)),
        )
        for end, arrivals in pairs:
            loop.add_reader(end.socket, _take, end.socket, arrivals)
        try:
            out, incoming = await self._set_up(caller, agent)
            await self._talk(caller, agent, at_agent)
            assert (await out.ask("BYE")).status == 200, "BYE was refused"
            bye = await self._phone.expect(
                lambda m: m.method == "BYE" and m["Call-ID"] == incoming.call_id, "BYE"
            )
            self._phone.reply(bye, 200)
        finally:
            for end, _ in pairs:
                loop.remove_reader(end.socket)
                end.socket.close()
        self.done.append(out.call_id)
        self.heard.calls += 1
        self._count(caller.sent_ns, at_agent)
        self._count(agent.sent_ns, at_caller)
        for ua in (self._pbx, self._phone):
            # Two marks stand before each message.
            self.heard.sip_bytes += sum(len(message.encode()) - 2 for message in ua.log)
            ua.log.clear()

    async def _set_up(self, caller: _End, agent: _End) -> tuple[Dialog, Dialog]:
        dialog = self._pbx.begin(self._target, *self._node)
        self.begun.append(dialog.call_id)
        began_s = time.monotonic()
        asking = asyncio.create_task(dialog.invite(body=_sdp(caller), headers=_ATTESTED))
        try:
            invite = await self._phone.request("INVITE")
        except BaseException:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            raise
        incoming = self._phone.accept(invite, body=_sdp(agent))
        await self._phone.request("ACK")
        answer = await asking
        assert answer.status == 200, f"the call was refused: {answer.start}"
        self.heard.setup_ms.append((time.monotonic() - began_s) * 1e3)
        caller.to = (answer.media_address, answer.media_port)
        agent.to = (invite.media_address, invite.media_port)
        return dialog, incoming

    async def _talk(self, caller: _End, agent: _End, at_agent: NDArray[np.int64]) -> None:
        """Both send all the time; how long is counted from when they hear each other."""
        loop = asyncio.get_running_loop()
        frame = b"\xff" * FRAME_SAMPLES  # silence
        due_s, number, opened_at = loop.time(), 0, -1
        last = len(caller.sent_ns)
        while number < last:
            caller.send(number, frame)
            agent.send(number, frame)
            number += 1
            due_s += _PERIOD_S
            await asyncio.sleep(max(0.0, due_s - loop.time()))
            if opened_at < 0 and at_agent.any():
                opened_at = number
            if opened_at >= 0 and number - opened_at >= self._talk_s / _PERIOD_S:
                break
        assert opened_at >= 0, "the agent never heard the caller"
        await asyncio.sleep(0.5)  # what is under way may arrive

    def _count(self, sent_ns: NDArray[np.int64], arrived_ns: NDArray[np.int64]) -> None:
        """From the first arrival on, and a little: before that the gate was closed."""
        came = np.flatnonzero(arrived_ns)
        if not len(came):
            return
        first = int(came[0]) + round(_SETTLE_S / _PERIOD_S)
        sent, arrived = sent_ns[first:], arrived_ns[first:]
        sent, arrived = sent[sent > 0], arrived[sent > 0]
        self.heard.sent += len(sent)
        self.heard.lost += int((arrived == 0).sum())
        took = (arrived - sent)[arrived > 0] / 1e6
        self.heard.late_ms += [float(one) for one in took]


def _sdp(end: _End) -> str:
    return (
        f"v=0\r\no=- 1 1 IN IP4 {end.address}\r\ns=-\r\nc=IN IP4 {end.address}\r\nt=0 0\r\n"
        f"m=audio {end.port} RTP/AVP 0 101\r\na=rtpmap:0 PCMU/8000\r\n"
        "a=rtpmap:101 telephone-event/8000\r\na=sendrecv\r\n"
    )


def _take(one: socket.socket, arrivals: Arrivals) -> None:
    with contextlib.suppress(BlockingIOError):
        while True:
            data, ancillary, _, _ = one.recvmsg(2048, 64)
            if ancillary:
                seconds, nanoseconds = _TIMESPEC.unpack_from(ancillary[0][2])
                arrivals.take(data, seconds * 1_000_000_000 + nanoseconds)


def merged(found: Sequence[Heard]) -> Heard:
    """Of several probes."""
    return Heard(
        calls=sum(one.calls for one in found),
        failed=[sentence for one in found for sentence in one.failed],
        sent=sum(one.sent for one in found),
        lost=sum(one.lost for one in found),
        late_ms=[value for one in found for value in one.late_ms],
        setup_ms=[value for one in found for value in one.setup_ms],
        sip_bytes=sum(one.sip_bytes for one in found),
    )
