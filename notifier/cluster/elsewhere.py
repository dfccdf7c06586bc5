"""Requests of this node's consoles about what another node has.

A request about one call or alert of another node is answered by that node
(:func:`answer_elsewhere`); lists are this node's own with the others' added.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import structlog
from fastapi import Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from callshield.messages import Reason
from callshield.messages_cluster import AlertState, CallState
from notifier.cluster.peers import Peer
from notifier.cluster.requests import ROUTES, from_elsewhere
from notifier.problems import Problem
from notifier.shadow import calm
from notifier.tokens import Identity

if TYPE_CHECKING:
    from notifier.node import Node

log = structlog.get_logger()

#: Operations about one thing, by route.
_BY_ROUTE = {route: op for op, route in ROUTES.items() if "{" in route[1]}
_WORDS = msgspec.json.Decoder(dict[str, list[Reason]])
Model = TypeVar("Model", bound=BaseModel)
#: A list waits no longer for the others.
LISTS_S = 3.0


class AnsweredElsewhere(Exception):
    """Another node has answered this request.

    Args:
        body: of the answer, JSON.
    """

    def __init__(self, body: bytes) -> None:
        super().__init__("answered by another node")
        self.body = body

    def response(self) -> JSONResponse:
        return JSONResponse(msgspec.json.decode(self.body))


async def answer_elsewhere(request: Request, node: Node, identity: Identity) -> None:
    """Let the node answer that has what the request is about; nothing happens where this one has
    it, or none.

    Raises:
        AnsweredElsewhere: it did.
        Problem: it refused, or cannot be asked.
    """
    cluster = node.cluster
    if cluster is None or not request.path_params:
        return
    op = _BY_ROUTE.get((request.method, request.scope["route"].path))
    of = str(next(iter(request.path_params.values())))
    peer = cluster.owner(of)
    if peer is None:
        return
    if op is None:
        # Of a call-back the number: none ever leaves the node that has it.
        raise Problem(409, "other_node", f"Node {peer.name} has this, and it is done there alone.")
    try:
        body = await request.json() if await request.body() else {}
    except ValueError:
        return  # the route itself says what is wrong with it
    if not isinstance(body, dict):
        return
    if op == "act":
        refusal = request.app.state.limits.action_refusal(request.headers, body.get("action"))
        if refusal is not None:
            raise refusal
    raise AnsweredElsewhere(await cluster.service.ask(peer, op, of, body, identity))


# ------------------------------------------------------------------------------------------- lists


async def calls(node: Node, identity: Identity) -> list[dict[str, Any]]:
    """Live calls of the other nodes, as :class:`notifier.routes.CallState` takes them."""
    cluster = node.cluster
    if cluster is None or from_elsewhere.get():
        return []
    words = await _words(node, identity)
    found = []
    for peer in cluster.peers:
        for call in peer.calls.values():
            if identity.sees(call.agent_id):
                view = _call_view(call, peer)
                if call.call_id in words:
                    view["reasons"] = words[call.call_id]
                found.append(view)
    return found


def _call_view(call: CallState, peer: Peer) -> dict[str, Any]:
    view: dict[str, Any] = msgspec.to_builtins(call)
    del view["help_asked"]
    if view.pop("hidden"):
        view = calm(view)
    return {**view, "node": peer.name, "unreachable": not peer.reachable}


async def _words(node: Node, identity: Identity) -> dict[str, Any]:
    """Why the agents of other nodes who asked for help did, for somebody who may come."""
    cluster = node.cluster
    if cluster is None or not identity.watches_all:
        return {}
    asked = [
        peer
        for peer in cluster.peers
        if peer.reachable
        and any(call.help_asked and identity.sees(call.agent_id) for call in peer.calls.values())
    ]
    bodies = await _from_all(node, asked, "words", identity)
    words: dict[str, Any] = {}
    for peer, body in bodies:
        try:
            found = _WORDS.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            log.warning("cluster_list_incomplete", op="words", node=peer.name, why="schema")
            continue
        # Of its own calls alone, and only where the agent asked.
        words |= {
            call_id: msgspec.to_builtins(reasons)
            for call_id, reasons in found.items()
            if (call := peer.calls.get(call_id)) is not None and call.help_asked
        }
    return words


def alerts(node: Node, identity: Identity) -> list[dict[str, Any]]:
    """Open alerts of the other nodes that can be taken, as :class:`notifier.routes.AlertState`
    takes them: those of a node that is away cannot."""
    cluster = node.cluster
    if cluster is None:
        return []
    return [
        _alert_view(alert, peer, identity)
        for peer in cluster.peers
        if peer.reachable
        for alert in peer.alerts.values()
        if identity.sees(alert.agent_id) and alert.alert_id not in node.board.alerts
    ]


def _alert_view(alert: AlertState, peer: Peer, identity: Identity) -> dict[str, Any]:
    view: dict[str, Any] = {**msgspec.to_builtins(alert), "node": peer.name}
    if not identity.watches_all:
        # What supervisors think of it no agent sees.
        view["verdict"] = ""
    return view


async def listed(
    node: Node, op: str, model: type[Model], ids: str, identity: Identity
) -> list[Model]:
    """Entries of the other nodes' lists.

    Args:
        node: this node.
        op: ``callbacks`` or ``requests``; they stand under this name in the answer.
        model: of one entry.
        ids: its member that names it.
        identity: whose list it is.
    """
    cluster = node.cluster
    if cluster is None or from_elsewhere.get():
        return []
    there = [peer for peer in cluster.peers if peer.reachable]
    found: list[Model] = []
    for peer, body in await _from_all(node, there, op, identity):
        try:
            answer = msgspec.json.decode(body)
            entries = [model.model_validate(one) for one in answer[op]]
        except (msgspec.MsgspecError, ValueError, KeyError, TypeError):
            log.warning("cluster_list_incomplete", op=op, node=peer.name, why="schema")
            continue
        cluster.peers.remember(peer.name, [str(getattr(one, ids)) for one in entries])
        found += entries
    return found


async def _from_all(
    node: Node, peers: list[Peer], op: str, identity: Identity
) -> list[tuple[Peer, bytes]]:
    """Answers by node; who does not answer, or refuses, is left out."""
    cluster = node.cluster
    assert cluster is not None

    async def one(peer: Peer) -> bytes | None:
        try:
            return await cluster.service.ask(peer, op, identity=identity, timeout_s=LISTS_S)
        except Problem as problem:
            log.warning("cluster_list_incomplete", op=op, node=peer.name, why=problem.kind)
            return None

    answers = await asyncio.gather(*(one(peer) for peer in peers))
    both = zip(peers, answers, strict=True)
    return [(peer, answer) for peer, answer in both if answer is not None]
