"""What of a call is fixed when its INVITE arrives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from callshield.messages import Direction, LegName
from callshield.messages_notice import Spared
from sipbridge.caller_choice import NO_KEYS, NoticeKeys
from sipbridge.help_plan import HelpPlan
from sipbridge.leg_policy import PLAIN, LegPolicy
from sipbridge.prompt_catalogue import Prompt
from sipbridge.ringback import SeenEnd
from sipbridge.sdp import SessionDescription

#: Where the caller hears the notice: when both sides answered; of a call that we have answered, or
#: as early media, before the agent's phone rings.
Place = Literal["answer", "before_ringing", "early_media"]
PLACES: tuple[Place, ...] = get_args(Place)


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
    place: Place = "answer"
    ringing: Prompt | None = None
    """What the caller hears while the phone rings after a notice that came before."""
    attested: Mapping[str, str] = field(default_factory=dict)
    """Ids of configured prompts that a trusted PBX has already played (not in ``notice``), each
    with the version that it names."""
    attested_purposes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Of those, what they tell the caller that the call is used for."""
    keys: NoticeKeys = NO_KEYS
    """What the caller may press; nothing unless the notice names a key."""
    objection_accepted: Prompt | None = None
    """What the caller hears after an objection."""
    record_on_request: Prompt | None = None
    """Recording waits for the agent's wish; what the caller hears then."""
    resumed: Prompt | None = None
    """What the caller hears before recording goes on after a pause; ``None``: nothing."""
    spared: Spared = ""
    """Nothing is done automatically in this call, and why."""
    tap_allowed: bool = True
    ring_timeout_s: float = 60.0
    record_allowed: bool = False
    """Recording is switched on; the notice gate decides the rest."""
    agent_hears: Literal["tone", "prompt", "nothing"] = "tone"
    """What the agent hears while the caller hears an announcement."""
    ear_can_be_set: bool = True
    """The media plane softens and levels; else the agent's keys for it change nothing."""
    help: HelpPlan | None = None
    """``None``: nobody can be asked into this call."""
    call_back: Prompt | None = None
    """What the caller hears when nobody came: somebody will call back. ``None``: none promised."""
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
    recent_end: SeenEnd | None = None
    """A person ended a call of this caller not long ago."""

    def __post_init__(self) -> None:
        watched = self.tap_allowed or self.record_allowed
        if self.internal and (watched or self.notice or self.help is not None):
            raise ValueError("a call between colleagues has no notice, tap, recording or helper")
        if self.place != "answer":
            told = bool(self.notice) and self.incoming is LegName.CALLER and self.offer is not None
            if not told or self.ringing is None:
                raise ValueError("only a caller who made an offer can hear a notice before ringing")

    @property
    def tells_first(self) -> bool:
        """The caller hears the notice before the agent's phone rings."""
        return self.place != "answer"

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
