"""Requests for evidence, carried out: decisions stored and told, packages opened and recorded."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from typing import Literal

import msgspec
import structlog

from callshield.messages_care import RecordingsHeld
from callshield.messages_evidence import (
    EvidenceAnswer,
    EvidenceChanged,
    EvidenceExported,
    EvidenceMade,
    OpenEvidence,
)
from callshield.messages_fairness import RecordingOpened
from callshield.settings import Settings
from notifier.board import Board
from notifier.evidence import DAY_S, Decision, EvidenceRequests, Verdict, Wanted
from notifier.evidence_store import (
    decision_of,
    is_own_request,
    request_of_call,
)
from notifier.live import Entry
from notifier.rows import Row
from notifier.store import Store
from notifier.tokens import Identity

log = structlog.get_logger()

#: Roles that may make a package of an approved request.
EXPORTERS = frozenset({"supervisor", "admin"})
#: Packages that are being made at the same time; of more the oldest is forgotten and not recorded.
_MOST_OPEN = 64
_STILL_RUNS = "the call still runs: its package can be made when it has ended"
_NOT_OPENED = (
    "the notifier does not know that this package is being made (it was restarted meanwhile?): "
    "make it again"
)


class EvidenceDesk:
    """What is done with requests for evidence of one node.

    Args:
        settings: the node's configuration.
        requests: the open ones.
        board: which calls are live.
        clock: seconds since the epoch.
        record: stores and sends events.
        stored: waits until entries are stored.
        to_bridge: says something to the bridge; False when it is away.
    """

    def __init__(
        self,
        settings: Settings,
        requests: EvidenceRequests,
        board: Board,
        clock: Callable[[], float],
        record: Callable[[Sequence[Entry]], None],
        stored: Callable[[Sequence[Entry]], Awaitable[None]],
        to_bridge: Callable[[RecordingsHeld], bool],
    ) -> None:
        self._settings = settings
        self._requests = requests
        self._board = board
        self._clock = clock
        self._record = record
        self._stored = stored
        self._to_bridge = to_bridge
        self._being_made: dict[str, tuple[str, str]] = {}
        """Package id → call and token of whoever makes it."""
        self.store: Store | None = None
        """Set by the node; read only here."""
        self.identify: Callable[[str], Awaitable[Identity | None]] = _nobody
        """Set by the node: whom a token stands for, and whom that person sees."""

    def held(self) -> RecordingsHeld:
        """All calls whose recordings stay."""
        return RecordingsHeld(call_ids=self._requests.call_ids)

    # ----------------------------------------------------------------------------- who decides

    async def why_not(self, identity: Identity, agent_id: str) -> str:
        """Why this person does not decide on a request of that agent, a code; ``""``: may."""
        approvers = self._settings.evidence.approvers
        named = identity.role == "admin" or not approvers or identity.supervisor_id in approvers
        if not named:
            return "not_an_approver"
        assert self.store is not None
        own = identity.supervisor_id == agent_id
        if own or await is_own_request(self.store, identity.token_id, agent_id):
            return "own_request"
        return ""

    async def decide(
        self, request_id: str, verdict: Verdict, identity: Identity, reason: str = ""
    ) -> Wanted | None:
        """Approve or refuse; done when that is stored. ``None``: it cannot be decided so now."""
        now, found = self._clock(), self._requests.get(request_id)
        if found is None:
            return None
        held_s = self._settings.evidence.hold_after_refusal_days * DAY_S
        decision = Decision(
            request_id=request_id,
            call_id=found.said.call_id,
            state=verdict,
            ts=now,
            by_role=identity.role,
            by=identity.token_id,
            reason=reason,
            held_until_ts=now + held_s if verdict == "refused" else None,
        )
        decided = self._requests.decide(decision)
        if decided is None:
            return None
        event = EvidenceChanged(
            ts=now,
            call_id=decided.said.call_id,
            agent_id=decided.said.agent_id,
            request_id=request_id,
            state=verdict,
            pbx_call_id=decided.pbx_call_id,
            by_role=identity.role,
            by=identity.token_id,
            reason=reason,
            held_until_ts=decision.held_until_ts or 0.0,
        )
        row = Row("evidence_decisions", asdict(decision))
        await self._stored([Entry(event, decided.said.agent_id, rows=[row])])
        return decided

    async def done(self, request_id: str, by: str) -> Wanted | None:
        """The package was handed out; done when that is stored. ``None``: not approved and open."""
        done = self._requests.done(request_id, by, self._clock())
        if done is not None:
            await self._stored([self._over(done, "done")])
            self._to_bridge(self.held())
        return done

    def tick(self) -> None:
        """Once a second: let go of what nobody asked further about after a refusal."""
        over = self._requests.lapse(self._clock())
        if over:
            self._record([self._over(item, "lapsed") for item in over])
            self._to_bridge(self.held())

    def _over(self, item: Wanted, state: Literal["done", "lapsed"]) -> Entry:
        event = EvidenceChanged(
            ts=self._clock(),
            call_id=item.said.call_id,
            agent_id=item.said.agent_id,
            request_id=item.said.request_id,
            state=state,
            pbx_call_id=item.pbx_call_id,
        )
        return Entry(event, item.said.agent_id, kept=(item.said,))

    # -------------------------------------------------------------------- from the command line

    async def on_message(
        self,
        message: OpenEvidence | EvidenceMade,
        answer: Callable[[EvidenceAnswer], None],
    ) -> None:
        """Somebody makes a package: may he, and what became of it?"""
        identity, request_id, refusal = await self._may_export(message)
        if identity is None:
            answer(EvidenceAnswer(request_id=message.request_id, refusal=refusal))
            return
        whose = (message.call_id, identity.token_id)
        match message:
            case OpenEvidence():
                await self._opened(message, identity, request_id)
                self._being_made[message.package_id] = whose
                while len(self._being_made) > _MOST_OPEN:
                    del self._being_made[next(iter(self._being_made))]
            case EvidenceMade():
                if self._being_made.pop(message.package_id, None) != whose:
                    answer(EvidenceAnswer(request_id=message.request_id, refusal=_NOT_OPENED))
                    return
                await self._made(message, identity, request_id)
        answer(
            EvidenceAnswer(
                request_id=message.request_id,
                asked_by=request_id,
                by_role=identity.role,
                by=identity.token_id,
            )
        )

    async def _may_export(
        self, message: OpenEvidence | EvidenceMade
    ) -> tuple[Identity | None, str, str]:
        """Who asks, for which request; or why not."""
        assert self.store is not None
        identity = await self.identify(message.token)
        if identity is None or identity.role not in EXPORTERS:
            return (
                None,
                "",
                (
                    "give the token of a supervisor or an administrator, so that it is recorded "
                    "who made the package"
                ),
            )
        call_id = message.call_id
        if call_id in self._board.calls:
            return None, "", _STILL_RUNS
        agent_id = await self._agent_of(call_id)
        if not agent_id or (identity.watches_all and not identity.sees(agent_id)):
            # Another team's: the same answer as for a call that never was.
            return None, "", "this node's store does not know the call"
        request_id = await request_of_call(self.store, call_id)
        if request_id is None:
            return None, "", "its agent did not ask for the evidence of this call"
        decision = await decision_of(self.store, request_id)
        if decision is None or decision.state != "approved":
            what = "nobody has approved it yet" if decision is None else "it was refused"
            return None, "", f"the agent's request was not approved: {what}"
        return identity, request_id, ""

    async def _opened(self, message: OpenEvidence, identity: Identity, request_id: str) -> None:
        agent_id = await self._agent_of(message.call_id)
        event = RecordingOpened(
            ts=self._clock(),
            call_id=message.call_id,
            agent_id=agent_id,
            what="evidence_unredacted" if message.unredacted else "evidence",
            by_role=identity.role,
            by=identity.token_id,
            why="request",
            ref=request_id,
        )
        fields = msgspec.to_builtins(event)
        kept = {name: value for name, value in fields.items() if name not in ("type", "what")}
        row = Row("openings", {**kept, "opening_id": uuid.uuid4().hex})
        await self._stored([Entry(event, agent_id, rows=[row])])

    async def _made(self, message: EvidenceMade, identity: Identity, request_id: str) -> None:
        agent_id = await self._agent_of(message.call_id)
        event = EvidenceExported(
            ts=self._clock(),
            call_id=message.call_id,
            agent_id=agent_id,
            request_id=request_id,
            package_id=message.package_id,
            package_sha256=message.package_sha256,
            manifest_sha256=message.manifest_sha256,
            key_id=message.key_id,
            unredacted=message.unredacted,
            whole=message.whole,
            encryption=message.encryption,
            by_role=identity.role,
            by=identity.token_id,
        )
        await self._stored([Entry(event, agent_id)])
        log.info("evidence_exported", call_id=message.call_id, package_id=message.package_id)

    async def _agent_of(self, call_id: str) -> str:
        assert self.store is not None
        call = self._board.ended.get(call_id) or await self.store.ended_call(call_id)
        return call.agent_id if call else ""


async def _nobody(_token: str) -> None:
    return None
