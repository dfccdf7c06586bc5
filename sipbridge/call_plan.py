"""What of a call is fixed when its INVITE arrives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sipbridge.help_plan import HelpPlan
from sipbridge.leg_policy import PLAIN, LegPolicy
from sipbridge.prompt_catalogue import Prompt
from sipbridge.sdp import SessionDescription


@dataclass(frozen=True, slots=True)
class CallPlan:
    """What is fixed when the INVITE arrives."""

    call_id: str
    agent_id: str
    pbx_call_id: str
    pbx: str
    offer: SessionDescription | None
    """The caller's offer, its ``audio`` the line that we take; None when the INVITE carried none
    (late offer, RFC 3261 section 13.2.1)."""
    pbx_address: str
    """Our media address towards the PBX."""
    phone_address: str
    """Our media address towards the phone."""
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
    """What may be agreed with the PBX."""
    phone_policy: LegPolicy = PLAIN
    """What may be agreed with the agent's phone."""
