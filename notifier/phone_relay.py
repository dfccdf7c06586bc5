"""Between the process that writes on phones' screens and who reaches the phones.

A :class:`SendNotify` goes to the bridge, or to the PBX by the manager connection that is there for
queues and recordings anyway; the answer goes back to whoever asked. And that process is told what
each agent's phone calls itself, of all that is known the best (:mod:`notifier.phones`).

Screens come after pauses: few NOTIFYs are under way at the PBX at once, so that a rest, or card
data's pause of a recording, never waits behind them.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Literal

import structlog

from callshield.bus import Peer
from callshield.errors import AmiError, AmiProtocolError
from callshield.messages import NodeMessage
from callshield.messages_phones import NotifySent, PhoneSeen, SendNotify
from callshield.settings_sip import AgentSettings
from notifier.ami_client import AmiAway, AmiClient
from notifier.phones import Phone, Phones
from notifier.pjsip_notify import send_notify

log = structlog.get_logger()

ROLE = "phones"
#: Event of a NOTIFY that names none (RFC 6665 section 8.2.1 wants one); what Snom is known to take.
DEFAULT_EVENT = "xml"
#: NOTIFYs under way at the PBX; :data:`notifier.ami_client.AT_ONCE` is for everything.
MAX_AT_PBX = 4
#: And waiting for their turn there.
MAX_WAITING = 64
FOLD_BYTES = 400
#: Requests at the bridge whose answer has not come.
REMEMBERED = 1024
#: The PBX took it; what the phone said it does not tell (RFC 3261 section 21.2.2).
TAKEN = 202
_SOURCES: dict[str, Literal["bridge", "pbx", "configured"]] = {
    "configuration": "configured",
    "pbx": "pbx",
    "call": "bridge",
}


class PhoneRelay:
    """What goes to phones and what is known of them.

    Args:
        agents: ``[agents.ID]``.
        phones: what is known of their phones.
        client: the PBX's manager interface; ``None`` without one.
        peers: who is on the bus now.
        limit_s: how long the PBX may take.
    """

    def __init__(
        self,
        agents: dict[str, AgentSettings],
        phones: Phones,
        client: AmiClient | None,
        peers: Callable[[], Iterable[Peer[NodeMessage]]],
        limit_s: float,
    ) -> None:
        self._agents = agents
        self._phones = phones
        self._client = client
        self._peers = peers
        self._limit_s = limit_s
        self._asked: OrderedDict[str, Peer[NodeMessage]] = OrderedDict()
        """Who asked, by request, while the bridge has it."""
        self._told: dict[str, PhoneSeen] = {}
        self._turns = asyncio.Semaphore(MAX_AT_PBX)
        self._tasks: set[asyncio.Task[None]] = set()

    # --------------------------------------------------------------------------- what is known

    def came(self, peer: Peer[NodeMessage]) -> None:
        """The process is on the bus: it hears what is known."""
        self._look()
        for seen in self._told.values():
            peer.send(seen)

    def seen(self, message: PhoneSeen) -> None:
        """The bridge heard what a phone calls itself."""
        self._phones.answered(message.agent_id, message.user_agent)
        self.changed()

    def changed(self) -> None:
        """Something about phones may be known that was not: what is new is told."""
        for seen in self._look():
            for peer in self._peers():
                if peer.role == ROLE:
                    peer.send(seen)

    def _look(self) -> list[PhoneSeen]:
        new = []
        for agent_id in self._agents:
            seen = _as_seen(self._phones.get(agent_id))
            if seen is not None and self._told.get(agent_id) != seen:
                self._told[agent_id] = seen
                new.append(seen)
        return new

    # ------------------------------------------------------------------------ what is to be sent

    def wanted(self, peer: Peer[NodeMessage], message: SendNotify) -> None:
        """Pass a request on; whoever asked hears what became of it."""
        if not message.event:
            message = SendNotify(
                request_id=message.request_id,
                agent_id=message.agent_id,
                via=message.via,
                event=DEFAULT_EVENT,
                content_type=message.content_type,
                body=message.body,
            )
        if peer.role != ROLE:
            refusal = "this process may not ask for it"
        elif message.via == "pbx":
            refusal = self._by_pbx(peer, message)
        else:
            refusal = self._by_bridge(peer, message)
        if refusal:
            _say(peer, message, 0, refusal)

    def _by_bridge(self, peer: Peer[NodeMessage], message: SendNotify) -> str:
        bridge = next((one for one in self._peers() if one.role == "bridge"), None)
        if bridge is None:
            return "the bridge is not connected"
        self._asked[message.request_id] = peer
        while len(self._asked) > REMEMBERED:
            self._asked.popitem(last=False)
        bridge.send(message)
        return ""

    def sent(self, message: NotifySent) -> None:
        """The bridge says what became of a request."""
        peer = self._asked.pop(message.request_id, None)
        if peer is not None:
            peer.send(message)

    def gone(self, peer: Peer[NodeMessage]) -> None:
        """Whoever asked is gone, or the bridge that should have answered."""
        for request_id, asker in list(self._asked.items()):
            if asker is peer:
                del self._asked[request_id]
            elif peer.role == "bridge":
                del self._asked[request_id]
                asker.send(
                    NotifySent(request_id=request_id, status=0, detail="the bridge went away")
                )

    def _by_pbx(self, peer: Peer[NodeMessage], message: SendNotify) -> str:
        agent = self._agents.get(message.agent_id)
        if self._client is None:
            return "there is no [ami]"
        if agent is None or not agent.endpoint:
            return "the agent has no endpoint at the PBX: set agents.ID.endpoint"
        if len(self._tasks) >= MAX_AT_PBX + MAX_WAITING:
            return f"{MAX_WAITING} requests wait for the PBX already"
        task = asyncio.create_task(self._ask_pbx(self._client, agent.endpoint, peer, message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return ""

    async def _ask_pbx(
        self, client: AmiClient, endpoint: str, peer: Peer[NodeMessage], message: SendNotify
    ) -> None:
        status, detail = 0, ""
        try:
            async with asyncio.timeout(self._limit_s), self._turns:
                await send_notify(
                    client, endpoint, message.event, message.content_type, folded(message.body)
                )
            status = TAKEN
        except TimeoutError:
            detail = f"the PBX has not taken it within {self._limit_s:g} s"
        except AmiAway:
            detail = "the PBX's manager interface is not connected"
        except AmiProtocolError as error:
            detail = str(error)
        except AmiError:
            # Its own words may name the phone.
            detail = (
                "the PBX refuses: its manager user needs the class system, and agents.ID.endpoint "
                "must be a PJSIP endpoint with a registered phone"
            )
        except Exception:  # whoever asked waits for an answer
            log.exception("notify_by_pbx_failed", agent_id=message.agent_id)
            detail = "it failed: see the log of the notifier"
        _say(peer, message, status, detail)

    async def close(self) -> None:
        """Stop; what waits is not sent."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def folded(body: str) -> str:
    """A document of which no line is too long for the PBX.

    AMI's lines hold 1024 bytes, and what has to be escaped counts twice. Between two elements a
    line break means nothing to a phone; a line that cannot be broken so is refused later.
    """
    return "\n".join(
        line.replace("><", ">\n<") if len(line.encode()) > FOLD_BYTES else line
        for line in body.split("\n")
    )


def _say(peer: Peer[NodeMessage], message: SendNotify, status: int, detail: str) -> None:
    if status != TAKEN:
        log.info("notify_failed", agent_id=message.agent_id, via=message.via, detail=detail)
    peer.send(NotifySent(request_id=message.request_id, status=status, detail=detail))


def _as_seen(phone: Phone) -> PhoneSeen | None:
    source = _SOURCES.get(phone.source)
    if source is None or not phone.model:
        return None
    return PhoneSeen(agent_id=phone.agent_id, user_agent=phone.model, source=source)
