"""Whom an agent may ask into a call, and what the caller is told of it; fixed at the INVITE."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from callshield.settings import Settings
from sipbridge.leg_policy import LegPolicy, phone_policy
from sipbridge.prompt_catalogue import HelpPrompts

Role = Literal["supervisor", "manager"]


@dataclass(frozen=True, slots=True)
class Helper:
    """One person of ``[supervisors.ID]``."""

    helper_id: str
    uri: str
    role: Role
    policy: LegPolicy
    """What may be agreed with this phone."""


@dataclass(frozen=True, slots=True)
class HelpPlan:
    """The configured helpers and the announcements about them."""

    helpers: tuple[Helper, ...]
    manager: str
    """Id of the responsible manager; ``""`` when there is none."""
    ring_timeout_s: float
    prompts: HelpPrompts

    def find(self, helper_id: str) -> Helper | None:
        """The helper of this id; the first one for ``""``."""
        for helper in self.helpers:
            if helper_id in ("", helper.helper_id):
                return helper
        return None


def help_plan(settings: Settings, prompts: HelpPrompts | None) -> HelpPlan | None:
    """The node's helpers; ``None`` when no supervisor's phone is configured, or none is called."""
    if prompts is None or not settings.help.phones:
        return None
    helpers = tuple(
        Helper(helper_id, supervisor.uri, supervisor.role, phone_policy(settings, supervisor))
        for helper_id, supervisor in settings.supervisors.items()
    )
    managers = [helper.helper_id for helper in helpers if helper.role == "manager"]
    manager = settings.help.manager or (managers[0] if managers else "")
    return HelpPlan(helpers, manager, settings.help.ring_timeout_s, prompts)
