"""Messages about what a caller may ask for: finding his calls, giving them out, erasing them.

No message of these is for anybody's screen. The events say that something was asked and done, in
the words of a reference; never who asked, no number and no pseudonym.
"""

from __future__ import annotations

from typing import Literal, get_args

import msgspec

from callshield.message_base import Message

Scope = Literal["call", "number"]
#: What an erasure waits for: evidence was asked for, the call runs or has just ended, or its
#: recording cannot be deleted now.
Waits = Literal["", "evidence", "call", "recordings"]


class ErasedRange(msgspec.Struct, frozen=True, kw_only=True):
    """Events that follow each other and were erased. Their rows stay, empty, with their hashes; the
    two hashes say what stands before and at the end, so that neither side can be changed now that
    what joined them is gone."""

    from_id: int
    to_id: int
    from_hash: str
    """Hash of the event before ``from_id``."""
    to_hash: str
    """Hash of event ``to_id``."""


class CallErased(Message, tag="call.erased", frozen=True, kw_only=True):
    """A call was erased on request: its row, its words, its recording, and its events but those
    that are its agent's own. Part of the hash chain, which it keeps verifiable. To webhooks the
    call's id, so that copies go too."""

    ts: float
    call_id: str
    ref: str
    """What the request is called in the files of whoever answers it."""
    by_role: str
    """A role."""
    by: str
    """Token id; never a name."""
    events: list[ErasedRange]
    files: int = 0
    """Of its recording, that were deleted."""
    held: list[int] = []
    """Numbers of its events that had been put aside while it was held as evidence, and went too."""


class ErasureAsked(Message, tag="erasure.asked", frozen=True, kw_only=True):
    """An erasure was asked for; it is carried out as soon as it can be."""

    ts: float
    call_id: str
    ref: str
    by_role: str
    by: str
    waits: Waits
    """For what, at this moment."""


class PrivacyAnswered(Message, tag="privacy.answered", frozen=True, kw_only=True):
    """A caller's request was answered. For the log."""

    ts: float
    kind: Literal["access", "erasure"]
    scope: Scope
    ref: str
    by_role: str
    by: str
    calls: int
    """Calls that were given out, or erased."""
    waiting: int = 0
    """Calls whose erasure waits, or that run."""
    sha256: str = ""
    """Of the file that was written for the caller; empty where none was."""
    call_id: str = ""
    """Always empty: it is no one call's."""


PrivacyEvent = CallErased | ErasureAsked | PrivacyAnswered

#: The same, for :func:`isinstance`.
PRIVACY_EVENTS: tuple[type, ...] = get_args(PrivacyEvent)

# ------------------------------------------------------- between processes, stored by nobody


class CallerNumber(Message, tag="caller.number", frozen=True, kw_only=True):
    """From the bridge: the pseudonym of the number of a call's caller, and the number itself,
    encrypted, where somebody may be promised a call-back."""

    call_id: str
    pseudonym: str
    """HMAC-SHA256, 64 hexadecimal digits."""
    key_id: str
    sealed: str = ""


class EraseRecordings(Message, tag="recordings.erase", frozen=True, kw_only=True):
    """To the bridge: delete every recording of this call, now."""

    call_id: str


class RecordingsErased(Message, tag="recordings.erased", frozen=True, kw_only=True):
    """From the bridge: what came of one :class:`EraseRecordings`."""

    call_id: str
    files: int
    problem: str = ""
    """Why some are still there, a sentence; empty: there is none left."""


class PrivacyRequest(Message, tag="privacy.request", frozen=True, kw_only=True):
    """From the command line: somebody answers a caller's request. The number stays where it was
    typed; its hashes come."""

    request_id: str
    kind: Literal["access", "erase"]
    token: str
    ref: str
    call_id: str = ""
    pseudonyms: list[str] = []
    """Instead of ``call_id``: of the number, one a key."""
    ringback_marks: list[str] = []
    """Of the same number, by the keys of ``[ringback]``."""


class FileGiven(Message, tag="privacy.file", frozen=True, kw_only=True):
    """From the command line: the file for the caller is written; this is its hash."""

    request_id: str
    token: str
    ref: str
    scope: Scope
    calls: int
    running: int
    sha256: str


class CallOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one call."""

    call_id: str
    outcome: Literal["given", "erased", "waits", "already", "unknown"]
    sentence: str = ""
    """For the person who asked; empty where the word says all."""


class PrivacyAnswer(Message, tag="privacy.answer", frozen=True, kw_only=True):
    """To the command line: what came of one :class:`PrivacyRequest` or :class:`FileGiven`."""

    request_id: str
    ok: bool
    sentence: str = ""
    """Why not; empty when it worked."""
    calls: list[CallOutcome] = []
    marks: int = 0
    """Marks of ``[ringback]`` that were held, or erased."""


PrivacyMessage = (
    CallerNumber | EraseRecordings | RecordingsErased | PrivacyRequest | FileGiven | PrivacyAnswer
)
