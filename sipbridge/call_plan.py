"""What of a call is fixed when its INVITE arrives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sipbridge.help_plan import HelpPlan
from sipbridge.prompt_catalogue import Prompt
from sipbridge.sdp import Negotiated, SessionDescription


@dataclass(frozen=True, slots=True)
class CallPlan:
    """What is fixed when the INVITE arrives."""

    call_id: str
    agent_id: str
    pbx_call_id: str
    pbx: str
    offer: SessionDescription
    negotiated: Negotiated
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
