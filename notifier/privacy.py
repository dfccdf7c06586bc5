"""What a caller may ask for, as it runs: his calls given out, or erased.

The command line and the API come here. Who asks gives a token of an administrator; what is given
out and what is erased is in the event log by the reference that the request has.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from callshield.caller_mark import load_mark_keys
from callshield.caller_pseudonym import caller_number, load_caller_keys
from callshield.messages_privacy import (
    CallerNumber,
    CallOutcome,
    EraseRecordings,
    FileGiven,
    PrivacyAnswer,
    PrivacyAnswered,
    PrivacyMessage,
    PrivacyRequest,
    RecordingsErased,
    Scope,
)
from callshield.settings import Settings
from notifier.board import Board
from notifier.cluster.erasures import owner_of
from notifier.erasing import Erasing
from notifier.erasure import agent_of, calls_of, known
from notifier.evidence_holds import Hold
from notifier.live import Entry
from notifier.permissions import ADMIN
from notifier.reading import reading, shown_to_agent
from notifier.store import Store
from notifier.tokens import Identity

_REF = re.compile(r"[\w .:/#-]{0,64}")
_CALL_ID = re.compile(r"[0-9a-f]{32}")
#: How long the command line is kept waiting for an erasure; it goes on afterwards.
COMMAND_S = 300.0
#: Calls that one request may be about: more are no one person's.
MOST_CALLS = 5000


#: What whoever reads for a caller without saying for which request is told.
NO_NAME = (
    "name the caller's request (ref), as it is called in your files: whose call it was is shown "
    "that it was read, and by it the reading is found again; no name of a person and no number"
)


class PrivacyRefused(Exception):
    """A request cannot be taken; the text is a sentence for whoever made it."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a request is about: a call, or a number by what is kept of it."""

    call_id: str = ""
    pseudonyms: tuple[str, ...] = ()
    ringback_marks: tuple[str, ...] = ()

    @property
    def scope(self) -> Scope:
        return "call" if self.call_id else "number"


def wanted_by_number(settings: Settings, shown: str) -> Wanted:
    """What is asked for by a number; the number goes no further than this.

    Args:
        settings: the node's configuration.
        shown: the number, as a person writes it.

    Raises:
        PrivacyRefused: it is no caller's, or calls are not found by number here.
        SetupError: the file of keys cannot be used.
    """
    if not settings.privacy.find_by_number:
        raise PrivacyRefused(
            "privacy.find_by_number is off: nothing is kept by which a number could be found; "
            "name the calls by their ids"
        )
    number = caller_number(shown, settings)
    if not number:
        raise PrivacyRefused(
            "that is no number by which a caller is found: it must be a whole one, and none that "
            "many people share (ringback.never, callers.relay_services)"
        )
    keys = load_caller_keys(settings.caller_keys_path, make=False)
    marks: list[str] = []
    if settings.ringback.enabled:
        marks = load_mark_keys(settings.ringback.key_file).marks(number)
    return Wanted("", tuple(keys.pseudonyms(number)), tuple(marks))


class Privacy:
    """Requests of callers, on one node.

    Args:
        board: what is true now; read only.
        store: of this node; read only here.
        stored: stores entries and waits for it.
        to_bridge: tells the bridge; False when there is none.
        held: why a call is kept as evidence; ``None``: it is not.
        forget_call: takes a call out of this process's memory; what that writes is stored then.
        forget_marks: takes marks of ``[ringback]`` away, by id.
        erase_marks: takes marks of ``[ringback]`` away by the hashes of a number; how many.
        settings: the node's configuration.
        clock: seconds since the epoch.
        others: names of the other nodes of ``[cluster]``, which answer for their own calls.
    """

    def __init__(
        self,
        board: Board,
        store: Store,
        stored: Callable[[Sequence[Entry]], Awaitable[None]],
        to_bridge: Callable[[EraseRecordings], bool],
        held: Callable[[str], Hold | None],
        forget_call: Callable[[str], Awaitable[None]],
        forget_marks: Callable[[Sequence[str]], None],
        erase_marks: Callable[[Sequence[str]], Awaitable[int]],
        settings: Settings,
        clock: Callable[[], float],
        others: Collection[str] = (),
    ) -> None:
        self._board = board
        self._others = others
        self._store = store
        self._stored = stored
        self._erase_marks = erase_marks
        self._clock = clock
        self.erasing = Erasing(
            board,
            store,
            stored,
            to_bridge,
            held,
            forget_call,
            forget_marks,
            settings,
            clock,
        )

    async def start(self) -> None:
        """Go on with what was asked of a former process."""
        await self.erasing.start()

    async def close(self) -> None:
        await self.erasing.close()

    # -------------------------------------------------------------------------------- the bus

    def from_bridge(self, message: CallerNumber | RecordingsErased) -> None:
        """The bridge tells by what a caller is found again, or that sound is gone."""
        if isinstance(message, RecordingsErased):
            self.erasing.recordings_erased(message)
        else:
            self._board.caller_is(
                message.call_id, message.pseudonym, message.key_id, message.sealed
            )

    async def on_message(
        self, message: PrivacyMessage, answer: Callable[[PrivacyAnswer], None]
    ) -> None:
        """Take a message of the command line."""
        match message:
            case PrivacyRequest():
                answer(await self._request(message))
            case FileGiven():
                answer(await self._file_given(message))
            case _:
                pass  # the bridge's, or ours to say

    async def _request(self, message: PrivacyRequest) -> PrivacyAnswer:
        wanted = Wanted(message.call_id, tuple(message.pseudonyms), tuple(message.ringback_marks))
        try:
            identity = await self._who(message.token)
            if message.kind == "erase":
                calls, marks = await self.erase(wanted, identity, message.ref, COMMAND_S)
            else:
                calls, marks = await self.access(wanted, identity, message.ref), 0
        except PrivacyRefused as refused:
            return PrivacyAnswer(request_id=message.request_id, ok=False, sentence=str(refused))
        return PrivacyAnswer(request_id=message.request_id, ok=True, calls=calls, marks=marks)

    async def _file_given(self, message: FileGiven) -> PrivacyAnswer:
        try:
            identity = await self._who(message.token)
        except PrivacyRefused as refused:
            return PrivacyAnswer(request_id=message.request_id, ok=False, sentence=str(refused))
        await self._answered(
            "access",
            message.scope,
            message.ref,
            identity,
            message.calls,
            message.running,
            message.sha256,
        )
        return PrivacyAnswer(request_id=message.request_id, ok=True)

    async def _who(self, token: str) -> Identity:
        identity = await self._store.identity(token, self._clock())
        if identity is None or identity.role != ADMIN:
            raise PrivacyRefused(
                "give the token of an administrator (--token-file), so that the record says "
                "through whom a caller's request was answered"
            )
        return identity

    # ----------------------------------------------------------------------- access and erasure

    async def access(
        self, wanted: Wanted, identity: Identity, ref: str, most: int = MOST_CALLS
    ) -> list[CallOutcome]:
        """Somebody gives a caller what is held on him: recorded for each call, before it is read,
        and from then on in its agent's list of what was opened.

        Args:
            wanted: which calls.
            identity: an administrator.
            ref: what the request is called where it is answered; never empty, so that a reading
                can be held against the request that it was for.
            most: calls that are given at once; no reading is recorded of those beyond.

        Returns:
            Which of them may be given; those that still run may not yet.

        Raises:
            PrivacyRefused: the reference or the id is none, or there are too many calls.
        """
        _check(wanted, ref)
        if not named(ref):
            raise PrivacyRefused(NO_NAME)
        given: list[str] = []
        outcomes: list[CallOutcome] = []
        for call_id in await self._calls(wanted):
            if call_id in self._board.calls:
                # What was said a minute ago in a running call would be a live call overheard.
                sentence = "the call still runs: ask again when it has ended"
                outcomes.append(CallOutcome(call_id=call_id, outcome="waits", sentence=sentence))
            elif len(given) == most:
                sentence = (
                    f"{most} calls are given at once: ask for this one by its id, or have all of "
                    "them written to one file (callshield privacy access)"
                )
                outcomes.append(CallOutcome(call_id=call_id, outcome="waits", sentence=sentence))
            elif not await self._store.asking(known, call_id):
                sentence = "nothing is held of such a call"
                outcomes.append(CallOutcome(call_id=call_id, outcome="unknown", sentence=sentence))
            else:
                given.append(call_id)
                outcomes.append(CallOutcome(call_id=call_id, outcome="given"))
        agents = await self._agents(given)
        now = self._clock()
        await self._stored(
            [
                shown_to_agent(
                    reading(
                        now,
                        call_id,
                        agents[call_id],
                        "access",
                        identity.role,
                        identity.token_id,
                        ref,
                    ),
                    "access",
                    ref,
                )
                for call_id in given
            ]
        )
        return outcomes

    async def erase(
        self, wanted: Wanted, identity: Identity, ref: str, within_s: float
    ) -> tuple[list[CallOutcome], int]:
        """Somebody erases a call, or all that is held of a number. It is stored of all calls first;
        what is not erased within ``within_s`` goes on without whoever asked.

        Returns:
            What came of each call, and how many marks of ``[ringback]`` went.

        Raises:
            PrivacyRefused: the reference or the id is none, or there are too many calls.
        """
        _check(wanted, ref)
        calls = await self._calls(wanted)
        outcomes = await self.erasing.ask(calls, ref, identity.role, identity.token_id, within_s)
        marks = await self._erase_marks(wanted.ringback_marks) if wanted.ringback_marks else 0
        erased = sum(item.outcome == "erased" for item in outcomes)
        waits = sum(item.outcome == "waits" for item in outcomes)
        await self._answered("erasure", wanted.scope, ref, identity, erased, waits)
        return outcomes, marks

    async def given(
        self, identity: Identity, scope: Scope, ref: str, outcomes: Sequence[CallOutcome]
    ) -> None:
        """Somebody was given what is held on a caller; for the log."""
        calls = sum(item.outcome == "given" for item in outcomes)
        running = sum(item.outcome == "waits" for item in outcomes)
        await self._answered("access", scope, ref, identity, calls, running)

    async def _calls(self, wanted: Wanted) -> list[str]:
        if wanted.call_id:
            await self._refuse_others(wanted.call_id)
            return [wanted.call_id]
        found = await self._store.asking(calls_of, wanted.pseudonyms)
        live = [
            call.call_id
            for call in self._board.calls.values()
            if call.caller_pseudonym in wanted.pseudonyms and call.call_id not in found
        ]
        if len(found) > MOST_CALLS:
            raise PrivacyRefused(
                f"{len(found)} calls are held of this number: that is no one person's. Put "
                "numbers that many people share into ringback.never, and answer by the calls' ids"
            )
        return [*found, *live]

    async def _refuse_others(self, call_id: str) -> None:
        """Of another node's call there is a copy here, and the whole of it there."""
        if not self._others or call_id in self._board.calls:
            return
        owner = await self._store.asking(owner_of, call_id, self._others)
        if owner:
            raise PrivacyRefused(
                f"node {owner} had this call: ask there; what the other nodes hold of it goes when "
                "it is erased there"
            )

    async def _agents(self, call_ids: Sequence[str]) -> dict[str, str]:
        """Agents of calls; of one whose row is gone, as its events say."""
        return {call_id: await self._store.asking(agent_of, call_id) for call_id in call_ids}

    async def _answered(
        self,
        kind: Literal["access", "erasure"],
        scope: Scope,
        ref: str,
        identity: Identity,
        calls: int,
        waiting: int,
        sha256: str = "",
    ) -> None:
        event = PrivacyAnswered(
            ts=self._clock(),
            kind=kind,
            scope=scope,
            ref=ref,
            by_role=identity.role,
            by=identity.token_id,
            calls=calls,
            waiting=waiting,
            sha256=sha256,
        )
        await self._stored([Entry(event, "")])


def named(ref: str) -> bool:
    """Whether a reference names a request at all."""
    return any(sign.isalnum() for sign in ref)


def _check(wanted: Wanted, ref: str) -> None:
    if not _REF.fullmatch(ref):
        raise PrivacyRefused(
            "name the request by at most 64 letters, digits and .:/#-; no name of a person and no "
            "number belongs there"
        )
    if wanted.call_id and not _CALL_ID.fullmatch(wanted.call_id):
        raise PrivacyRefused("a call's id has 32 small hexadecimal digits")
    if not wanted.call_id and not wanted.pseudonyms:
        raise PrivacyRefused("name a call, or a number by which calls are found")
