"""``[trunks.NAME]`` and ``[outbound]``: which numbers agents may call, and over which line.

Nothing can be dialled that no pattern names: toll fraud begins where a rule is wider than meant, so
a pattern that would match an empty or an emergency number is refused when the file is read.
"""

from __future__ import annotations

import re
from typing import Literal

from pydantic import BaseModel, Field, field_validator, model_validator

from callshield.settings_base import SECTION, DigestSettings, Port, address

#: What a number may be made of once it is read from a request's URI.
DIALLED = re.compile(r"[0-9*#+]{1,32}")
#: A repeated group with a repetition inside: such a pattern can take minutes to fail.
_NESTED_REPEAT = re.compile(r"\((?:[^()\\]|\\.)*(?:[*+]|\{\d*,\d*\})(?:[^()\\]|\\.)*\)(?:[*+]|\{)")


class TrunkSettings(DigestSettings):
    """``[trunks.NAME]``: a line over which agents' calls go out, at the PBX or at a carrier."""

    host: str
    """Its address."""
    port: Port = 5060
    """Its SIP port."""
    transport: Literal["udp", "tcp", "tls"] = "udp"
    """What carries SIP to it; ``tls`` needs ``[sip.pbx.tls]``."""
    caller_id: str = Field("", pattern=r"^[0-9*+]{0,32}$")
    """The number that called parties see; the one in the agent's INVITE when empty."""
    caller_id_in: Literal["from", "p_asserted_identity"] = "from"
    """Where the caller id goes: into From, or into P-Asserted-Identity with ``username`` in From,
    as many carriers want it."""

    @field_validator("host")
    @classmethod
    def _is_address(cls, value: str) -> str:
        return address(value)

    @model_validator(mode="after")
    def _is_whole(self) -> TrunkSettings:
        if self.caller_id_in == "p_asserted_identity" and not self.caller_id:
            raise ValueError("caller_id, which is to go into P-Asserted-Identity")
        return self

    def uri(self, user: str) -> str:
        """A user at this line, as a SIP URI."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        tail = "" if self.transport == "udp" else f";transport={self.transport}"
        return f"sip:{user}@{host}:{self.port}{tail}"


class OutboundSettings(BaseModel):
    """``[outbound]``: calls that agents begin (docs/sip.md).

    A call goes out only when its peer has ``outgoing = true``, the agent may call
    (``agents.ID.outgoing``) and the number matches ``patterns`` and not ``deny``.
    """

    model_config = SECTION

    patterns: list[str] = []
    """Regular expressions for the whole number (signs ``0-9 * # +``, at most 32), such as
    ``"0[0-9]{8,10}"``; a number that none matches gets 403."""
    extensions: list[str] = ["[1-9][0-9]{1,4}"]
    """Regular expressions for the PBX's own numbers. Where a peer has ``outgoing = true``, a
    transfer of a phone that we place ourselves goes there, to a colleague, or to what the agent may
    dial."""
    deny: list[str] = []
    """Regular expressions for numbers that are refused all the same, such as ``"060[0-9]+"``."""
    emergency: list[str] = ["112", "119"]
    """Emergency numbers: the PBX itself must place these calls, also when this machine is off, so
    a pattern that matches one is an error."""
    agent_header: str = Field("X-Callshield-Agent", pattern=r"^[A-Za-z0-9-]{1,64}$")
    """Header in which the PBX names the agent who calls; it makes an INVITE an outgoing one."""
    trunk_header: str = Field("X-Callshield-Trunk", pattern=r"^[A-Za-z0-9-]{1,64}$")
    """Header in which the PBX may name one of its peer's ``trunks``."""
    internal_header: str = Field("X-Callshield-Internal", pattern=r"^[A-Za-z0-9-]{1,64}$")
    """Header by which the PBX says ``yes`` for a call between colleagues: never analysed, never
    recorded, no notice."""
    calls_per_agent: int = Field(2, ge=1, le=100)
    """Outgoing calls of one agent at once, those on hold included: what stolen credentials of one
    phone may cost."""
    ring_timeout_s: float = Field(90.0, ge=5, le=600)
    """A called party that has not answered by then is cancelled; the PBX gets 480."""

    @field_validator("patterns", "extensions", "deny")
    @classmethod
    def _are_patterns(cls, value: list[str]) -> list[str]:
        for text in value:
            try:
                pattern = re.compile(text, re.ASCII)
            except (re.error, OverflowError, RecursionError) as error:
                raise ValueError(
                    f"regular expressions for whole numbers; {text!r} is none ({error})"
                ) from None
            if len(text) > 256 or _NESTED_REPEAT.search(text):
                raise ValueError(
                    f"patterns without a repeated group that repeats something itself, and of at "
                    f"most 256 signs; not {text[:64]!r}, which could take minutes to fail"
                )
            if pattern.fullmatch(""):
                raise ValueError(f"patterns that do not match the empty number, unlike {text!r}")
        return value

    @field_validator("emergency")
    @classmethod
    def _are_numbers(cls, value: list[str]) -> list[str]:
        for number in value:
            if not DIALLED.fullmatch(number):
                raise ValueError(f"numbers of 0-9, *, # and +, not {number!r}")
        return value

    @model_validator(mode="after")
    def _leaves_emergencies_alone(self) -> OutboundSettings:
        for number in self.emergency:
            for text in self.patterns:
                if re.compile(text, re.ASCII).fullmatch(number):
                    raise ValueError(
                        f"patterns that leave out {number}: emergency calls are the PBX's own to "
                        f"place; {text!r} matches it"
                    )
        return self

    def allows(self, number: str) -> bool:
        """Whether agents may dial this; ``deny`` goes before ``patterns``."""
        return self._names(self.patterns, number)

    def is_extension(self, number: str) -> bool:
        """Whether this is a number of the PBX's own; ``deny`` goes before ``extensions``."""
        return self._names(self.extensions, number)

    def _names(self, patterns: list[str], number: str) -> bool:
        if not DIALLED.fullmatch(number) or number in self.emergency:
            return False
        if any(re.compile(text, re.ASCII).fullmatch(number) for text in self.deny):
            return False
        return any(re.compile(text, re.ASCII).fullmatch(number) for text in patterns)
