"""The bridge's part of finding a caller's calls again: it knows the number, and tells a pseudonym.

With each call from outside, and each call that an agent makes, the notifier gets the keyed hash of
the number of whoever is not the agent (:mod:`callshield.caller_pseudonym`); where call-backs keep
numbers, the number too, encrypted. Of colleagues, of numbers that are withheld, and of numbers that
many people share, it gets nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from callshield.caller_pseudonym import CallerKeys, caller_number, load_caller_keys
from callshield.messages import Direction
from callshield.messages_privacy import CallerNumber
from callshield.settings import Settings
from sipbridge.call_plan import CallPlan
from sipbridge.ringback import shown_number
from sipbridge.sip_message import SipHeaders
from sipbridge.watched_keys import WatchedKeys


class CallerNumbers:
    """Pseudonyms of callers.

    Args:
        settings: the node's configuration.
        trouble: told a sentence when the key file cannot be used, ``""`` when it can again.
    """

    def __init__(self, settings: Settings, trouble: Callable[[str], None]) -> None:
        self._settings = settings
        self._keys: WatchedKeys[CallerKeys] = WatchedKeys(
            settings.caller_keys_path, load_caller_keys, trouble
        )

    def look_at_keys(self) -> None:
        """Make the key file where there is none; say at the start that it cannot be used."""
        if self._settings.privacy.find_by_number:
            self._keys.current()

    def of(self, plan: CallPlan, headers: SipHeaders) -> CallerNumber | None:
        """What the notifier is told of a new call's caller.

        Args:
            plan: of the call.
            headers: of its INVITE.
        """
        if not self._settings.privacy.find_by_number or plan.spared == "relay_service":
            return None
        match plan.direction:
            case Direction.INBOUND:
                shown = shown_number(headers)
            case Direction.OUTBOUND:
                shown = plan.dialled
            case Direction.INTERNAL:
                return None
        number = caller_number(shown, self._settings)
        keys = self._keys.current() if number else None
        if keys is None:
            return None
        pseudonym, key_id = keys.pseudonym(number)
        kept = self._settings.callbacks.keep_number and plan.call_back is not None
        return CallerNumber(
            call_id=plan.call_id,
            pseudonym=pseudonym,
            key_id=key_id,
            sealed=keys.seal(number, plan.call_id) if kept else "",
        )
