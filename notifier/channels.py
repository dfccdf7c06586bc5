"""The ways out that a configuration names."""

from __future__ import annotations

import time
from collections.abc import Callable

from callshield.settings import Settings
from notifier.mail import Mail
from notifier.outbox import Channel
from notifier.webhooks import webhooks


def channels(settings: Settings, clock: Callable[[], float] = time.time) -> list[Channel]:
    """Every webhook, and the mail where it is switched on.

    Raises:
        SetupError: a secret, a password or a certificate cannot be had.
    """
    found: list[Channel] = list(webhooks(settings, clock))
    if settings.mail.enabled:
        found.append(Mail(settings, clock))
    return found
