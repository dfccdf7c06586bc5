"""Signing in at this node: the provider, what is under way, and the token at the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from callshield.settings_oidc import OidcSettings
from notifier.oidc import Attempt, Attempts, Person, authorization_url, person_of
from notifier.oidc_provider import Provider
from notifier.tokens import token_row


class SignIn:
    """What ``/api/v1/oidc`` works with.

    Args:
        settings: ``[oidc]``.
        secret: of our client id at the provider.
    """

    def __init__(self, settings: OidcSettings, secret: str) -> None:
        self.settings = settings
        self.provider = Provider(settings, secret)
        self.attempts = Attempts()
        self.secure = settings.redirect_url.startswith("https:")
        """Cookies go over TLS alone."""

    async def address(self, attempt: Attempt) -> str:
        """Where a browser is sent to sign in.

        Raises:
            OidcError: the provider is away.
        """
        endpoint = await self.provider.endpoint("authorization_endpoint")
        return authorization_url(self.settings, endpoint, attempt)

    async def person(
        self,
        code: str,
        attempt: Attempt,
        agents: Mapping[str, Any],
        supervisors: Mapping[str, Any],
        now: float,
    ) -> Person:
        """Who came back with a code.

        Raises:
            OidcError: it is not good, or the person has no role here.
        """
        claims = await self.provider.claims(code, attempt.verifier, attempt.nonce, now)
        return person_of(self.settings, agents, supervisors, claims)

    def token_for(self, person: Person, now: float) -> tuple[str, dict[str, Any]]:
        """A token for one shift, and its row; the person's name is in neither."""
        made, row = token_row(
            person.role,
            "signed in",
            person.agent_id,
            now,
            self.settings.session_s,
            person.supervisor_id,
        )
        return made, {**row, "source": "oidc", "subject_sha256": person.subject_sha256}
