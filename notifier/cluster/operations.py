"""What a person of another node may do here: the functions of the HTTP routes, unchanged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, TypeAdapter

from callshield.messages_cluster import Ask
from notifier import routes_care as care
from notifier import routes_evidence as evidence
from notifier import routes_fairness as fairness
from notifier import routes_verdicts as verdicts
from notifier.cluster.service import Operation
from notifier.problems import Problem
from notifier.routes import (
    ActionRequest,
    acknowledge,
    do,
    list_calls,
)
from notifier.routes_escalation import AcceptRequest, RefuseRequest, accept, refuse
from notifier.tokens import Identity

if TYPE_CHECKING:
    from notifier.node import Node

_AFTER: TypeAdapter[Any] = TypeAdapter(care.AfterRequest)


class Operations:
    """By name, as :data:`notifier.cluster.requests.ROUTES` has them.

    Args:
        node: this node.
    """

    def __init__(self, node: Node) -> None:
        self._node = node

    def all(self) -> Mapping[str, Operation]:
        return {
            "words": self._words,
            "act": self._act,
            "after": self._after,
            "call_verdict": self._call_verdict,
            "acknowledge": self._acknowledge,
            "accept": self._accept,
            "refuse": self._refuse,
            "verdict": self._verdict,
            "callbacks": self._callbacks,
            "callback_done": self._callback_done,
            "requests": self._requests,
            "request_approve": self._request_approve,
            "request_refuse": self._request_refuse,
            "request_done": self._request_done,
        }

    async def _words(self, ask: Ask, identity: Identity) -> dict[str, Any]:
        """Reasons, quotations among them, of live calls whose agent asked for help: what the route
        shows this person here, and it records that it was shown."""
        if not identity.watches_all:
            raise Problem(403, "role", "Your role does not include this.")
        shown = await list_calls(self._node, identity)
        return {call.call_id: call.reasons for call in shown.calls if call.reasons}

    async def _act(self, ask: Ask, identity: Identity) -> BaseModel:
        wanted = ActionRequest.model_validate(ask.body)
        metrics = self._node.metrics.actions
        try:
            answer = await do(_of(ask), wanted, self._node, identity)
        except Problem as problem:
            metrics.labels(wanted.action, problem.kind).inc()
            raise
        metrics.labels(wanted.action, answer.status).inc()
        return answer

    async def _after(self, ask: Ask, identity: Identity) -> BaseModel:
        word = _AFTER.validate_python(ask.body)
        return await care.say_after(_of(ask), word, self._node, identity)

    async def _call_verdict(self, ask: Ask, identity: Identity) -> BaseModel:
        word = fairness.CallVerdictRequest.model_validate(ask.body)
        return await fairness.judge_call(_of(ask), word, self._node, identity)

    async def _acknowledge(self, ask: Ask, identity: Identity) -> BaseModel:
        return await acknowledge(_of(ask), self._node, identity)

    async def _accept(self, ask: Ask, identity: Identity) -> BaseModel:
        return await accept(_of(ask), AcceptRequest.model_validate(ask.body), self._node, identity)

    async def _refuse(self, ask: Ask, identity: Identity) -> BaseModel:
        return await refuse(_of(ask), RefuseRequest.model_validate(ask.body), self._node, identity)

    async def _verdict(self, ask: Ask, identity: Identity) -> BaseModel:
        word = verdicts.VerdictRequest.model_validate(ask.body)
        return await verdicts.say_verdict(_of(ask), word, self._node, identity)

    async def _callbacks(self, ask: Ask, identity: Identity) -> BaseModel:
        return await care.list_callbacks(self._node, identity)

    async def _callback_done(self, ask: Ask, identity: Identity) -> BaseModel:
        return await care.callback_done(_of(ask), self._node, identity)

    async def _requests(self, ask: Ask, identity: Identity) -> BaseModel:
        return await evidence.list_requests(self._node, identity)

    async def _request_approve(self, ask: Ask, identity: Identity) -> BaseModel:
        return await evidence.approve_request(_of(ask), self._node, identity)

    async def _request_refuse(self, ask: Ask, identity: Identity) -> BaseModel:
        why = evidence.RefuseEvidence.model_validate(ask.body)
        return await evidence.refuse_request(_of(ask), why, self._node, identity)

    async def _request_done(self, ask: Ask, identity: Identity) -> BaseModel:
        return await evidence.request_done(_of(ask), self._node, identity)


def _of(ask: Ask) -> str:
    if not ask.of:
        raise Problem(422, "invalid", "The request does not fit /openapi.json.")
    return ask.of
