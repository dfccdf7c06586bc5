"""Transfers as pure state: what a REFER asks for, and what follows from each thing that happens.

A REFER (RFC 3515) of the agent's phone is passed on to the PBX, which knows its own dial plan and
moves the caller itself; where the PBX refuses, or the caller was called over a line and is not the
PBX's to move, we call the target ourselves and connect it. A REFER of the PBX is carried out by
ourselves: the target takes the caller's place. Attended
transfers (RFC 5589) carry Replaces (RFC 3891) in the Refer-To.

Nothing here knows a socket, a clock or pjsua2; :mod:`sipbridge.refer` is the shell.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import quote, unquote_to_bytes

#: How long the PBX may take to answer a REFER, or to say anything more after it took it.
PBX_PATIENCE_S = 40.0
#: How long a target that we call may ring, beyond the phone's own ring timeout.
RING_GRACE_S = 5.0

_USER = re.compile(r"^[A-Za-z0-9_.!~*'()&=+$,/%-]{1,64}\Z")
_HOST = re.compile(r"^(?:\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}))\Z")
_TEL = re.compile(r"^tel:(\+?[0-9*#().-]{1,32})(?:;.*)?\Z", re.IGNORECASE)
_CALL_ID = re.compile(r"^[\x21-\x2b\x2d-\x3a\x3c-\x7e]{1,256}\Z")  # no comma, no semicolon
_TAG = re.compile(r"^[A-Za-z0-9.!%*_+`'~-]{1,128}\Z")


@dataclass(frozen=True, slots=True)
class Replaces:
    """Which dialog an INVITE takes the place of (RFC 3891 section 6.1).

    The tags are named from the point of view of who receives it: ``to_tag`` is the receiver's own.
    """

    call_id: str
    to_tag: str
    from_tag: str
    early_only: bool = False

    def header(self) -> str:
        """The header's value."""
        early = ";early-only" if self.early_only else ""
        return f"{self.call_id};to-tag={self.to_tag};from-tag={self.from_tag}{early}"


@dataclass(frozen=True, slots=True)
class ReferTarget:
    """Whom a Refer-To names."""

    user: str
    host: str
    """Without brackets; ``""`` for a telephone number (``tel:``)."""
    port: int
    """0: not named."""
    replaces: Replaces | None

    def uri(self, host_port: str = "") -> str:
        """As a SIP URI, at another host and port if one is given."""
        if not host_port:
            host = f"[{self.host}]" if ":" in self.host else self.host
            host_port = f"{host}:{self.port}" if self.port else host
        return f"sip:{self.user}@{host_port}" if self.user else f"sip:{host_port}"


def read_replaces(value: str) -> Replaces | None:
    """Read a Replaces value; None when it is not one."""
    call_id, *parameters = (part.strip() for part in value.split(";"))
    tags = {"to-tag": "", "from-tag": ""}
    early_only = False
    for parameter in parameters:
        name, _, text = parameter.partition("=")
        name = name.strip().lower()
        if name in tags and not tags[name]:
            tags[name] = text.strip()
        elif name == "early-only":
            early_only = True
        elif name in tags:
            return None
    to_tag, from_tag = tags["to-tag"], tags["from-tag"]
    if not (_CALL_ID.match(call_id) and _TAG.match(to_tag) and _TAG.match(from_tag)):
        return None
    return Replaces(call_id, to_tag, from_tag, early_only)


def read_refer_to(values: list[str]) -> ReferTarget | int:
    """Read the Refer-To headers of a REFER.

    Only what an INVITE to a person needs gets through: user, host, port and Replaces. Other
    parameters and headers of the URI are dropped: they are the sender's word about a message of
    ours. Escapes are undone before anything is checked, so no line end can hide in them.

    Returns:
        The target, or the status of the refusal: 400 for what is not exactly one Refer-To (RFC
        3515 section 2.4.2) or not readable, 416 for a scheme that is not sip or tel, 403 for a
        method other than INVITE.
    """
    if len(values) != 1:
        return 400
    value = values[0].strip()
    enclosed = re.search(r"<([^<>]*)>", value)
    uri = (enclosed[1] if enclosed else value.split(";", 1)[0]).strip()
    if match := _TEL.match(uri):
        return ReferTarget(re.sub(r"[().-]", "", match[1]).replace("#", "%23"), "", 0, None)
    scheme, colon, rest = uri.partition(":")
    if not colon:
        return 400
    if scheme.lower() != "sip":
        return 416
    rest, _, headers = rest.partition("?")
    userinfo, at, hostport = rest.rpartition("@")
    # Parameters of the user part ("1002;phone-context=...") may stand before the @.
    user = userinfo.split(";", 1)[0].split(":", 1)[0]
    hostport, *parameters = hostport.split(";")
    if any(
        name.lower() == "method" and method.upper() != "INVITE"
        for name, _, method in (parameter.partition("=") for parameter in parameters)
    ):
        return 403
    host, port = _host_and_port(hostport)
    if (at and not _USER.match(user)) or not host:
        return 400
    replaces: Replaces | None = None
    for header in headers.split("&") if headers else ():
        name, _, text = header.partition("=")
        if name.lower() != "replaces":
            continue
        raw = unquote_to_bytes(text)
        replaces = read_replaces(raw.decode("ascii", "replace")) if replaces is None else None
        if replaces is None:
            return 400
    return ReferTarget(user, host.strip("[]"), port, replaces)


def _host_and_port(text: str) -> tuple[str, int]:
    match = re.match(r"^(\[[^\]]*\]|[^:]*)(?::(\d{1,5}))?\Z", text.strip())
    if match is None or not _HOST.match(match[1]):
        return "", 0
    port = int(match[2] or 0)
    return (match[1], port) if port < 65536 else ("", 0)


def write_refer_to(uri: str, replaces: Replaces | None) -> str:
    """A Refer-To value; Replaces is escaped as a header of the URI (RFC 3261 section 19.1.1)."""
    if replaces is None:
        return f"<{uri}>"
    return f"<{uri}?Replaces={quote(replaces.header(), safe='')}>"


def sipfrag_status(body: str) -> int:
    """The status in a message/sipfrag body (RFC 3420); 0 when there is none."""
    match = re.match(r"^\s*SIP/2\.0 ([1-6]\d\d)(?: |\r|\n|$)", body)
    return int(match[1]) if match else 0


# ------------------------------------------------------------------------------------ the steps


@dataclass(frozen=True, slots=True)
class Notify:
    """Tell who sent the REFER how it goes; ``final`` ends the subscription."""

    status: int
    final: bool


@dataclass(frozen=True, slots=True)
class SendRefer:
    """Pass the REFER on to the PBX."""


@dataclass(frozen=True, slots=True)
class CallTarget:
    """Call the target ourselves."""


@dataclass(frozen=True, slots=True)
class CancelTarget:
    """The target's call is not wanted any more."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Call :meth:`Transfer.on_timeout` after ``delay_s``; replaces a former one."""

    delay_s: float


@dataclass(frozen=True, slots=True)
class Over:
    """The transfer is over; after a success who asked for it leaves the call."""

    succeeded: bool


TransferStep = Notify | SendRefer | CallTarget | CancelTarget | Wait | Over


class TransferState(StrEnum):
    """Where a transfer stands."""

    ASKING = "asking"
    """The PBX has our REFER."""
    ACCEPTED = "accepted"
    """The PBX took it; its NOTIFYs tell the rest."""
    CALLING = "calling"
    """We call the target."""
    OVER = "over"


@dataclass(slots=True)
class Transfer:
    """One transfer, from the REFER that was taken to its last NOTIFY.

    Args:
        direct: there is nobody to pass the REFER on to: it came from the PBX, or a line is the
            other side.
        ring_timeout_s: how long a target that we call may ring.
    """

    direct: bool
    ring_timeout_s: float
    state: TransferState = TransferState.ASKING
    refused_with: int = 0
    """The PBX's status when it refused the REFER."""
    _last_notified: int = field(default=0)

    def begin(self) -> list[TransferStep]:
        """The REFER was answered 202: the first NOTIFY comes at once (RFC 3515 section 2.4.4)."""
        steps = self._notify(100)
        if self.direct:
            return steps + self._call()
        return [*steps, SendRefer(), Wait(PBX_PATIENCE_S)]

    def _call(self) -> list[TransferStep]:
        self.state = TransferState.CALLING
        return [CallTarget(), Wait(self.ring_timeout_s + RING_GRACE_S)]

    def _notify(self, status: int) -> list[TransferStep]:
        if status == self._last_notified:
            return []
        self._last_notified = status
        return [Notify(status, final=False)]

    def _over(self, status: int) -> list[TransferStep]:
        self.state = TransferState.OVER
        return [Notify(status, final=True), Over(succeeded=200 <= status < 300)]

    def on_pbx_answered(self, status: int) -> list[TransferStep]:
        """The PBX's final answer to our REFER."""
        if self.state is not TransferState.ASKING:
            return []
        if 200 <= status < 300:
            self.state = TransferState.ACCEPTED
            return [Wait(PBX_PATIENCE_S)]
        self.refused_with = status
        return self._call()

    def on_pbx_notified(self, status: int, *, terminated: bool) -> list[TransferStep]:
        """A NOTIFY of the PBX; ``status`` is that of its sipfrag, 0 without one.

        A NOTIFY may overtake the 202. A subscription that ends without a final status leaves the
        outcome open (RFC 3515 section 2.4.5): who asked is told what we know, and stays.
        """
        if self.state not in (TransferState.ASKING, TransferState.ACCEPTED):
            return []
        self.state = TransferState.ACCEPTED
        if status >= 200:
            return self._over(status)
        if terminated:
            return self._over(487)
        return [*(self._notify(status) if status else []), Wait(PBX_PATIENCE_S)]

    def on_caller_gone(self) -> list[TransferStep]:
        """The caller's leg ended: a PBX that took the REFER has moved the caller."""
        if self.state is TransferState.OVER:
            return []
        if self.state is TransferState.ACCEPTED:
            return self._over(200)
        cancel: list[TransferStep] = [CancelTarget()] if self.state is TransferState.CALLING else []
        return cancel + self._over(487)

    def on_target_ringing(self, status: int) -> list[TransferStep]:
        """A provisional response of the target that we call."""
        return self._notify(status) if self.state is TransferState.CALLING else []

    def on_target_answered(self) -> list[TransferStep]:
        """The target answered and is connected."""
        return self._over(200) if self.state is TransferState.CALLING else []

    def on_target_refused(self, status: int) -> list[TransferStep]:
        """The target's final refusal."""
        if self.state is not TransferState.CALLING:
            return []
        return self._over(status if 300 <= status <= 699 else 500)

    def on_timeout(self) -> list[TransferStep]:
        """Nothing more was heard for as long as :class:`Wait` said."""
        if self.state is TransferState.OVER:
            return []
        cancel: list[TransferStep] = [CancelTarget()] if self.state is TransferState.CALLING else []
        return cancel + self._over(408)


Allowed = Callable[[str], bool]
"""Says of a host whether a transfer may name it."""


def refusal_of(target: ReferTarget, allowed: Allowed) -> int:
    """403 when the target is outside of what the node may be made to call, 400 without a user.

    A telephone number has no host: it goes to the PBX, whose dial plan decides.
    """
    if not target.user and target.replaces is None:
        return 400
    if target.host and not allowed(target.host.lower()):
        return 403
    return 0
