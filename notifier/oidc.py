"""OpenID Connect, the part that decides: attempts to sign in, and what an ID token says. Pure.

Authorization code flow (OpenID Connect Core 1.0 section 3.1) with PKCE (RFC 7636), ``state`` bound
to the browser, ``nonce`` bound to the ID token, and the issuer of the answer (RFC 9207).
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from authlib.oauth2.rfc7636 import create_s256_code_challenge
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from callshield.settings_oidc import OidcSettings
from notifier.oidc_error import ATTEMPT_S, TICKET_S, OidcError

#: What may sign an ID token: no secret that both sides hold, and never nothing.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA")
#: Clocks of two machines.
LEEWAY_S = 60
_MOST = 1000


@dataclass(frozen=True, slots=True)
class Person:
    """Who signed in, as far as it concerns us."""

    role: str
    agent_id: str
    subject_sha256: str
    supervisor_id: str = ""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One browser on its way to the provider."""

    state: str
    nonce: str
    verifier: str
    browser: str
    """Value of the cookie that this browser was given."""
    page: str
    """Where it goes in the end."""
    until: float


def _random() -> str:
    return secrets.token_urlsafe(32)


class Attempts:
    """What is under way; each is good once, and for a while.

    Args:
        random: makes unguessable texts of 43 characters.
    """

    def __init__(self, random: Callable[[], str] = _random) -> None:
        self._random = random
        self._open: OrderedDict[str, Attempt] = OrderedDict()
        self._tickets: OrderedDict[str, tuple[Person, float]] = OrderedDict()

    def begin(self, page: str, now: float) -> Attempt:
        """A browser wants to sign in."""
        attempt = Attempt(
            state=self._random(),
            nonce=self._random(),
            # 43 characters, the shortest that RFC 7636 section 4.1 allows: 256 random bits.
            verifier=self._random(),
            browser=self._random(),
            page=page,
            until=now + ATTEMPT_S,
        )
        self._open[attempt.state] = attempt
        while len(self._open) > _MOST:
            self._open.popitem(last=False)
        return attempt

    def come_back(self, state: str, browser: str, now: float) -> Attempt:
        """A browser came back from the provider.

        Raises:
            OidcError: this is not the browser that left, or it took too long, or came before.
        """
        attempt = self._open.pop(state, None)
        good = (
            attempt is not None
            and hmac.compare_digest(attempt.browser.encode(), browser.encode())
            and 0 <= attempt.until - now <= ATTEMPT_S
        )
        if attempt is None or not good:
            raise OidcError(
                "oidc_state", "This sign-in is not under way any more: begin anew.", 400
            )
        return attempt

    def ticket(self, person: Person, now: float) -> str:
        """Something that the signed-in browser changes into a token, once."""
        ticket = self._random()
        self._tickets[_hash(ticket)] = (person, now + TICKET_S)
        while len(self._tickets) > _MOST:
            self._tickets.popitem(last=False)
        return ticket

    def redeem(self, ticket: str, now: float) -> Person:
        """Who holds a ticket.

        Raises:
            OidcError: there is no such ticket any more.
        """
        person, until = self._tickets.pop(_hash(ticket), (None, 0.0))
        if person is None or not 0 <= until - now <= TICKET_S:
            raise OidcError("oidc_ticket", "There is no sign-in to finish: begin anew.", 401)
        return person


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def authorization_url(settings: OidcSettings, endpoint: str, attempt: Attempt) -> str:
    """Where the browser is sent (RFC 6749 section 4.1.1, RFC 7636 section 4.3)."""
    query = {
        "response_type": "code",
        "client_id": settings.client_id,
        "redirect_uri": settings.redirect_url,
        "scope": " ".join(settings.scopes),
        "state": attempt.state,
        "nonce": attempt.nonce,
        "code_challenge": create_s256_code_challenge(attempt.verifier),
        "code_challenge_method": "S256",
    }
    return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(query)}"


def check_id_token(
    settings: OidcSettings, token: str, keys: KeySet, nonce: str, access_token: str, now: float
) -> Mapping[str, Any]:
    """The claims of an ID token (OpenID Connect Core 1.0 section 3.1.3.7).

    Args:
        settings: issuer and client id to expect.
        token: as the provider's token endpoint gave it.
        keys: the provider's.
        nonce: of the attempt.
        access_token: that came with it, for ``at_hash``; may be empty.
        now: seconds since the epoch.

    Raises:
        OidcError: signature, issuer, audience, nonce or time are not right.
    """
    options = {
        "iss": {"essential": True, "value": settings.issuer},
        "aud": {"essential": True, "value": settings.client_id},
        "nonce": {"essential": True, "value": nonce},
    }
    params = {"nonce": nonce, "client_id": settings.client_id, "access_token": access_token}
    try:
        decoded = jwt.decode(token, keys, algorithms=list(ALGORITHMS))
        claims = CodeIDToken(decoded.claims, decoded.header, options, params)
        claims.validate(now=int(now), leeway=LEEWAY_S)
    except (JoseError, ValueError, TypeError, KeyError) as error:
        raise OidcError(
            "oidc_token", f"The provider's answer is not good ({type(error).__name__})."
        ) from None
    return dict(claims)


def person_of(
    settings: OidcSettings,
    agents: Mapping[str, Any],
    supervisors: Mapping[str, Any],
    claims: Mapping[str, Any],
) -> Person:
    """Role and agent, or supervisor, of the person that the claims are about.

    Raises:
        OidcError: no role of ours, or no such agent or supervisor.
    """
    found = _at(claims, settings.role_claim)
    theirs = {found} if isinstance(found, str) else set()
    if isinstance(found, list):
        theirs = {item for item in found if isinstance(item, str)}
    role = next((ours for name, ours in settings.roles.items() if name in theirs), None)
    if role is None:
        raise OidcError("oidc_role", "Your account has no role here: ask your administrator.")
    agent_id = ""
    if role == "agent":
        claimed = _at(claims, settings.agent_claim)
        if not isinstance(claimed, str) or claimed not in agents:
            raise OidcError(
                "oidc_agent", "Your account is no agent of this node: ask your administrator."
            )
        agent_id = claimed
    supervisor_id = ""
    claimed = _at(claims, settings.supervisor_claim)
    if role == "supervisor" and claimed is not None:
        # One that is mistyped must not become one that sees every team.
        if not isinstance(claimed, str) or claimed not in supervisors:
            raise OidcError(
                "oidc_supervisor",
                "Your account is no supervisor of this node: ask your administrator.",
            )
        supervisor_id = claimed
    return Person(role, agent_id, _hash(f"{claims['iss']}\n{claims['sub']}"), supervisor_id)


def _at(claims: Mapping[str, Any], name: str) -> Any:
    """A claim by its whole name, or by dots into objects."""
    if name in claims:
        return claims[name]
    value: Any = claims
    for part in name.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(part)
    return value
