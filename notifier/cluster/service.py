"""What this node does for the others: tells how it stands, and does what a person asks for there.

A person's wish is checked here as if it had come by HTTP: the token is looked up in the shared
table (is it good now, which role, whose), the signature proves that the asking node was shown it
(:mod:`notifier.cluster.proof`), and then the very function of that HTTP route decides. Words are
given to whoever may read them by that route, after it is stored that they were.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec
import nats.errors
import structlog
from nats.aio.msg import Msg
from pydantic import BaseModel, ValidationError
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from callshield.messages_cluster import (
    MAX_BYTES,
    PAGE,
    Answer,
    Ask,
    OpenCallback,
    Snapshot,
    decode_answer,
    decode_ask,
)
from notifier.cluster.link import Link
from notifier.cluster.peers import Peer, Peers
from notifier.cluster.proof import HEADER, Once, is_proof, proof
from notifier.cluster.refusals import Refusals
from notifier.cluster.requests import ROUTES, from_elsewhere
from notifier.cluster.views import alert_state, call_state
from notifier.permissions import allowed
from notifier.problems import Problem
from notifier.schema import tokens
from notifier.tokens import Identity

if TYPE_CHECKING:
    from notifier.node import Node

log = structlog.get_logger()

#: Requests of others that are answered at once; more are told to come again.
IN_FLIGHT = 64
#: Tokens looked up at once for others: the database has connections left for our own consoles.
_LOOKED_UP_AT_ONCE = 3
#: How long a person waits for another node: it waits itself for its bridge and its database.
ANSWER_S = 8.0
STATE_S = 4.0
Operation = Callable[[Ask, Identity], Awaitable[Any]]


class Service:
    """Requests to and from other nodes.

    Args:
        node: this node.
        peers: the others.
        boot: of this run.
        refused: counts messages by why they were refused.
    """

    def __init__(self, node: Node, peers: Peers, boot: str, refused: Refusals) -> None:
        self._node = node
        self._peers = peers
        self._boot = boot
        self._refused = refused
        self._once = Once()
        self._looking_up = asyncio.Semaphore(_LOOKED_UP_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self._link: Link | None = None
        self.operations: Mapping[str, Operation] = {}
        """Of persons; set by :func:`notifier.cluster.operations.install`."""
        self.answered: Counter[tuple[str, int]] = Counter()
        """Operation and status."""

    async def begin(self, link: Link) -> None:
        """Take requests from this connection."""
        self._link = link
        await link.client.subscribe(
            link.ask_of(self._node.name, "*"),
            cb=self._take,
            pending_msgs_limit=4 * IN_FLIGHT,
            pending_bytes_limit=4 * IN_FLIGHT * 4096,
        )

    def end(self) -> None:
        """The connection is gone."""
        self._link = None

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # ------------------------------------------------------------------------------------- asked

    async def _take(self, message: Msg) -> None:
        sender = message.subject.rpartition(".")[2]
        ask = self._read(message, sender)
        if ask is None:
            return
        if len(self._tasks) >= IN_FLIGHT:
            self._refused.add("busy", sender)
            await self._answer(
                message, ask, Problem(503, "busy", "That node has too much to do: press again.")
            )
            return
        task = asyncio.create_task(self._serve(message, ask))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _read(self, message: Msg, sender: str) -> Ask | None:
        why = ""
        ask = None
        if self._peers.get(sender) is None:
            why = "unknown_node"
        elif len(message.data) > MAX_BYTES // 8:
            why = "too_large"
        else:
            try:
                ask = decode_ask(message.data)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                why = "schema"
        if ask is not None and (ask.node != sender or ask.to != self._node.name):
            why = "wrong_node"
        elif ask is not None and not self._once.is_new(ask.id, ask.ts, self._node.clock()):
            why = "old_or_repeated"
        if why:
            self._refused.add(why)
            return None
        return ask

    async def _serve(self, message: Msg, ask: Ask) -> None:
        from_elsewhere.set(True)
        result: Any
        try:
            if ask.op == "state":
                result = self._state(ask)
            else:
                identity = await self._identity(message, ask)
                result = await self.operations[ask.op](ask, identity)
        except Problem as problem:
            result = problem
        except ValidationError:
            result = Problem(422, "invalid", "The request does not fit /openapi.json.")
        except SQLAlchemyError:
            result = Problem(
                503, "store_failing", "That node's database does not answer: try again."
            )
        except Exception:  # a fault of ours must not leave a person without an answer
            log.exception("cluster_request_failed", op=ask.op)
            result = Problem(500, "fault", "Callshield failed at this request.")
        await self._answer(message, ask, result)

    async def _identity(self, message: Msg, ask: Ask) -> Identity:
        """The person whose wish it is.

        Raises:
            Problem: 401 for a token that is not good or a signature that is not right, 403 for a
                role that may not.
        """
        async with self._looking_up:
            found = await self._node.store.rows(
                select(tokens).where(tokens.c.token_id == ask.token_id)
            )
        row = found[0] if found else None
        given = (message.headers or {}).get(HEADER, "")
        now = self._node.clock()
        good = (
            row is not None
            and is_proof(given, str(row["sha256"]), message.subject, message.data)
            and row["revoked_ts"] is None
            and row["expires_ts"] > now
        )
        if row is None or not good:
            self._refused.add("proof", ask.node)
            raise Problem(401, "token", "The token is not good at the node that has the call.")
        identity = Identity(
            row["token_id"], row["role"], row["agent_id"], row["expires_ts"], row["supervisor_id"]
        )
        if not allowed(identity.role, *ROUTES[ask.op]):
            raise Problem(403, "role", "Your role does not include this.")
        hidden = self._node.escalating.teams.hidden_from(identity.supervisor_id)
        return dataclasses.replace(identity, hidden=hidden)

    async def _answer(self, message: Msg, ask: Ask, result: Any) -> None:
        answer = Answer(id=ask.id, node=self._node.name, status=200)
        if isinstance(result, Problem):
            answer = msgspec.structs.replace(
                answer,
                status=result.status,
                kind=result.kind,
                detail=result.detail[:1000],
                retry_after=(result.headers or {}).get("Retry-After", ""),
                body=msgspec.Raw(msgspec.json.encode(result.members)),
            )
        else:
            if isinstance(result, BaseModel):
                result = result.model_dump(mode="json")
            answer = msgspec.structs.replace(answer, body=msgspec.Raw(msgspec.json.encode(result)))
        self.answered[ask.op, answer.status] += 1
        with contextlib.suppress(nats.errors.Error, OSError):  # the asker's time runs out
            await message.respond(msgspec.json.encode(answer))

    def _state(self, ask: Ask) -> Snapshot:
        """One page: calls first, then alerts, then call-backs, each in the order of their ids."""
        node, board = self._node, self._node.board
        at = ask.page * PAGE

        def page(items: list[Any]) -> list[Any]:
            return items[at : at + PAGE]

        calls = sorted(board.calls)
        alerts = sorted(board.alerts)
        owed = node.aftercare.callbacks.open
        return Snapshot(
            node=node.name,
            boot=self._boot,
            epoch=0 if node.cluster is None else node.cluster.outgoing.epoch,
            as_of=node.hub.last_id,
            calls=[
                call_state(board.calls[one], help_asked=board.help_was_asked(one))
                for one in page(calls)
            ],
            alerts=[
                alert_state(board.alerts[one], node.escalating.state(one)) for one in page(alerts)
            ],
            degraded={
                name[:64]: event.reason[:1000]
                for name, event in list(board.degraded.items())[:100]
                if not name.startswith(("cluster", "node:"))
            },
            callbacks=[
                OpenCallback(agent_id=one.agent_id, due_ts=one.due_ts) for one in page(owed)
            ],
            more=max(len(calls), len(alerts), len(owed)) > at + PAGE,
        )

    # ------------------------------------------------------------------------------------- asking

    async def ask(
        self,
        peer: Peer,
        op: str,
        of: str = "",
        body: dict[str, Any] | None = None,
        identity: Identity | None = None,
        *,
        page: int = 0,
        timeout_s: float = ANSWER_S,
    ) -> bytes:
        """Let another node do something.

        Args:
            peer: which one.
            op: of :data:`notifier.cluster.requests.ROUTES`, or ``state``.
            of: the call or alert.
            body: of the request by HTTP.
            identity: whose wish it is.
            page: of ``state``.
            timeout_s: how long it may take.

        Returns:
            The body of the answer, as JSON.

        Raises:
            Problem: as that node refused it, or 503 where it cannot be asked, 504 where it did not
                answer in time.
        """
        link = self._link
        if link is None or link.client.is_closed:
            raise _away("bus_away", f"The bus to node {peer.name} is away: try again in a moment.")
        if not peer.reachable:
            raise _away(
                "node_away", f"Node {peer.name}, which has this call, is not heard at present."
            )
        subject = link.ask_of(peer.name, self._node.name)
        ask = Ask(
            id=uuid.uuid4().hex,
            node=self._node.name,
            to=peer.name,
            ts=self._node.clock(),
            op=op,  # type: ignore[arg-type]
            token_id="" if identity is None else identity.token_id,
            of=of,
            page=page,
            body=body or {},
        )
        data = msgspec.json.encode(ask)
        headers = None
        if identity is not None:
            headers = {HEADER: proof(await self._sha256_of(identity), subject, data)}
        try:
            reply = await link.client.request(subject, data, timeout=timeout_s, headers=headers)
        except nats.errors.NoRespondersError:
            raise _away("node_away", f"Node {peer.name} does not take requests now.") from None
        except nats.errors.TimeoutError:
            raise Problem(
                504, "node_late", f"Node {peer.name} did not answer in time: press again."
            ) from None
        except (nats.errors.Error, OSError):
            raise _away("bus_away", f"The bus to node {peer.name} broke: try again.") from None
        return self._read_answer(peer, ask, reply)

    async def _sha256_of(self, identity: Identity) -> str:
        query = select(tokens.c.sha256).where(tokens.c.token_id == identity.token_id)
        rows = await self._node.store.rows(query)
        if not rows:
            raise Problem(401, "token", "The token is not good any more.")
        return str(rows[0]["sha256"])

    def _read_answer(self, peer: Peer, ask: Ask, reply: Msg) -> bytes:
        try:
            if len(reply.data) > 4 * MAX_BYTES:
                raise msgspec.MsgspecError
            answer = decode_answer(reply.data)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            self._refused.add("schema", peer.name)
            raise Problem(
                502, "node_unclear", f"The answer of node {peer.name} cannot be read."
            ) from None
        if answer.node != peer.name or answer.id != ask.id:
            self._refused.add("wrong_node", peer.name)
            raise Problem(502, "node_unclear", "Another node answered than the one that was asked.")
        if answer.status == 200:
            return bytes(answer.body)
        members = msgspec.json.decode(answer.body)
        headers = {"Retry-After": answer.retry_after} if answer.retry_after.isdigit() else None
        known = ("acknowledged_by", "acknowledged_ts")
        kept = {k: v for k, v in members.items() if k in known} if isinstance(members, dict) else {}
        raise Problem(answer.status, answer.kind, answer.detail, headers, **kept)


def _away(kind: str, detail: str) -> Problem:
    return Problem(503, kind, detail, {"Retry-After": "2"})
