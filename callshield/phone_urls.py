"""The addresses of our listener that are written into an agent's phone, and looked for there."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from callshield.findings import Finding
from callshield.settings import Settings

if TYPE_CHECKING:
    from firmware_profiles.rendering import Values
    from firmware_profiles.schema import Profile


def has_listener(settings: Settings) -> bool:
    """Phones can call us."""
    return bool(settings.phones.port and settings.phones.url)


def with_urls(values: Values, settings: Settings, *, make: bool = True) -> Values:
    """Values with the agent's addresses at our listener; the same where there is none.

    Args:
        values: of the agent's phone.
        settings: the node's.
        make: make the key where there is none yet.

    Raises:
        SetupError: the key that they are made from cannot be read or made.
    """
    from firmware_profiles.phone_tokens import CISCO_PATH, load_tokens

    if not has_listener(settings):
        return values
    tokens, url = load_tokens(settings, make=make), settings.phones.url
    return replace(
        values,
        action_url=url + tokens.path(values.agent, "event"),
        end_url=url + tokens.path(values.agent, "end"),
        help_url=url + tokens.path(values.agent, "help"),
        authentication_url=url + CISCO_PATH,
    )


def token_findings(
    settings: Settings, profile: Profile, raw: bytes, agent_id: str
) -> list[Finding]:
    """Every address of our listener in a phone's configuration, and whose it is.

    Raises:
        SetupError: the key cannot be read, or the file cannot.
    """
    from firmware_profiles.phone_tokens import load_tokens
    from firmware_profiles.reading import read
    from firmware_profiles.token_check import check_tokens

    found = read(profile.provisioning.format, raw)
    return check_tokens(found, load_tokens(settings, make=False), agent_id, settings.phones.url)
