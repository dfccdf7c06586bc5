"""What of a call is fixed when its INVITE arrives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from callshield.messages import Direction, LegName
from sipbridge.help_plan import HelpPlan
from sipbridge.leg_policy import PLAIN, LegPolicy
from sipbridge.prompt_catalogue import Prompt
from sipbridge.sdp import SessionDescription


@dataclass(frozen=True, slots=True)
class CallPlan:
    """What is fixed when the INVITE arrives.

    Two legs have roles, and keep them: the agent's, and the caller's, who is whoever is not the
    agent. Which of them the INVITE came on is :attr:`incoming`; the other one we call.

    Raises:
        ValueError: a call between colleagues that would be analysed, recorded or announced.
    """

    call_id: str
    agent_id: str
    pbx_call_id: str
    pbx: str
    offer: SessionDescription | None
    """The INVITE's offer, its ``audio`` the line that we take; None when the INVITE carried none
    (late offer, RFC 3261 section 13.2.1)."""
    pbx_address: str
    """Our media address on the caller's leg."""
    phone_address: str
    """Our media address on the agent's leg."""
    notice: tuple[Prompt, ...]
    closing: Prompt
    warnings: tuple[Prompt, ...]
    notice_tone: Prompt
    attested: tuple[str, ...] = ()
    """Ids of configured prompts that a trusted PBX has already played; not in ``notice``."""
    tap_allowed: bool = True
    ring_timeout_s: float = 60.0
    record_allowed: bool = False
    """Recording is switched on; the notice gate decides the rest."""
    agent_hears: Literal["tone", "prompt"] = "tone"
    """What the agent hears while the caller hears an announcement."""
    help: HelpPlan | None = None
    """``None``: nobody can be asked into this call."""
    levelling: bool = True
    """Whether levelling is on when the call begins."""
    soften_level: int = 2
    """The risk level from which shouting is softened by itself; 4: only when the agent asks."""
    caller_policy: LegPolicy = PLAIN
    """What may be agreed on the caller's leg."""
    phone_policy: LegPolicy = PLAIN
    """What may be agreed on the agent's leg."""
    direction: Direction = Direction.INBOUND
    incoming: LegName = LegName.CALLER
    """The leg that the INVITE came on."""
    called_uri: str = ""
    """Whom we call on the other leg."""
    trunk: str = ""
    """NAME of the ``[trunks.NAME]`` over which we call; ``""``: a phone."""
    dialled: str = ""
    """The number that the agent dialled; ``""`` when the agent is the one who is called."""
    pbx_channel: str = ""
    """The PBX's name of its channel; ``""`` when it sent none."""

    def __post_init__(self) -> None:
        watched = self.tap_allowed or self.record_allowed
        if self.internal and (watched or self.notice or self.help is not None):
            raise ValueError("a call between colleagues has no notice, tap, recording or helper")

    @property
    def outgoing(self) -> LegName:
        """The leg that we call."""
        return LegName.AGENT if self.incoming is LegName.CALLER else LegName.CALLER

    @property
    def internal(self) -> bool:
        """Between colleagues: never analysed, recorded or announced."""
        return self.direction is Direction.INTERNAL

    def policy(self, leg: LegName) -> LegPolicy:
        """What may be agreed on one of the two legs."""
        return self.caller_policy if leg is LegName.CALLER else self.phone_policy
