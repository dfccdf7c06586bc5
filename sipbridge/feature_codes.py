"""Feature codes: digits on the agent's phone that do what a button does."""

from __future__ import annotations

from callshield.messages import Action
from callshield.settings import Settings


def feature_codes(settings: Settings) -> dict[str, Action]:
    """What each code asks for; the relay holds these digits back."""
    sip = settings.sip
    return {
        sip.end_code: Action.END,
        sip.help_code: Action.HELP,
        sip.skip_notice_code: Action.SKIP_NOTICE,
        sip.pause_code: Action.PAUSE_RECORDING,
        sip.levelling_code: Action.LEVELLING,
        sip.soften_code: Action.SOFTEN,
        sip.hand_over_code: Action.HAND_OVER,
    }
