"""``callshield doctor``: webhooks and mail, as far as can be seen without sending anything."""

from __future__ import annotations

from urllib.parse import urlsplit

from callshield.settings import Settings


def webhooks(settings: Settings) -> str:
    """Secrets, authorities and types of every webhook.

    Raises:
        CallshieldError: one of them cannot be used.
    """
    from notifier.webhooks import Webhook

    if not settings.webhooks:
        return "off"
    told = []
    for name, table in settings.webhooks.items():
        Webhook(name, table, settings.node.name)
        parts = urlsplit(table.url)
        # The path is often a secret.
        told.append(f"{name} to {parts.scheme}://{parts.hostname}, {', '.join(table.events)}")
    return "; ".join(told)


def mail(settings: Settings) -> str:
    """Password and authorities of the mail server.

    Raises:
        CallshieldError: one of them cannot be used.
    """
    from notifier.mail import Mail

    if not settings.mail.enabled:
        return "off"
    Mail(settings)
    server = settings.mail
    carried = "not encrypted" if server.security == "none" else server.security.upper()
    known = set(settings.supervisors)
    strange = sorted(set(server.people) - known)
    note = f"; mail.people names nobody of [supervisors]: {', '.join(strange)}" if strange else ""
    return f"{server.host}:{server.port}, {carried}, alerts {', '.join(server.alerts)}{note}"
