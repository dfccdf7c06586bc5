"""``/api/v1/oidc``: sign in with the house's accounts, and change that into a token of ours.

The browser goes ``login`` → provider → ``callback`` → the console's page, which fetches its token
by ``POST token``. The token stands in no URL and no cookie; what the cookies hold is good once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import structlog
from fastapi import APIRouter, Cookie, Query
from fastapi.responses import JSONResponse, RedirectResponse
from pydantic import BaseModel

from notifier.node import Node
from notifier.oidc_error import ATTEMPT_S, TICKET_S, OidcError
from notifier.problems import Problem
from notifier.routes import NodeDependency, problems

if TYPE_CHECKING:
    from notifier.oidc_sign_in import SignIn

log = structlog.get_logger()
sign_in = APIRouter(prefix="/api/v1/oidc", responses=problems(400, 403, 404, 422, 429, 502))

_BROWSER, _TICKET = "callshield_sign_in", "callshield_ticket"
_PATH = "/api/v1/oidc"
#: A code or state longer than this is no provider's.
Short = Annotated[str, Query(max_length=4096)]


class SignedIn(BaseModel):
    """A token of ours; keep it in the page's memory."""

    token: str
    role: str
    agent_id: str
    expires_ts: float


def _sign_in_of(node: Node) -> SignIn:
    if node.sign_in is None:
        raise Problem(404, "oidc_off", "Signing in is not configured here: use a token.")
    return node.sign_in


def _refused(node: Node, error: OidcError) -> Problem:
    node.metrics.refused.labels("oidc").inc()
    log.warning("sign_in_failed", reason=error.kind)
    return Problem(error.status, error.kind, error.sentence)


@sign_in.get("/login", status_code=303)
async def login(
    node: NodeDependency, page: Literal["agent", "supervisor"] = "agent"
) -> RedirectResponse:
    """Send the browser to the provider."""
    ours = _sign_in_of(node)
    attempt = ours.attempts.begin(f"/{page}", node.clock())
    try:
        answer = RedirectResponse(await ours.address(attempt), 303)
    except OidcError as error:
        raise _refused(node, error) from None
    # Lax: the provider's page sends the browser back, and the cookie must come along.
    answer.set_cookie(
        _BROWSER,
        attempt.browser,
        max_age=int(ATTEMPT_S),
        path=_PATH,
        secure=ours.secure,
        httponly=True,
        samesite="lax",
    )
    return answer


@sign_in.get("/callback", status_code=303)
async def callback(
    node: NodeDependency,
    state: Short = "",
    code: Short = "",
    error: Short = "",
    iss: Short = "",
    browser: Annotated[str, Cookie(alias=_BROWSER, max_length=256)] = "",
) -> RedirectResponse:
    """The browser comes back from the provider."""
    ours = _sign_in_of(node)
    try:
        attempt = ours.attempts.come_back(state, browser, node.clock())
        # RFC 9207: an answer of another provider must not be taken to this one.
        if iss and iss != ours.settings.issuer:
            raise OidcError("oidc_issuer", "The answer came from another provider.")
        if error or not code:
            raise OidcError("oidc_denied", "The provider did not sign you in.")
        agents, supervisors = node.settings.agents, node.settings.supervisors
        person = await ours.person(code, attempt, agents, supervisors, node.clock())
    except OidcError as fault:
        raise _refused(node, fault) from None
    ticket = ours.attempts.ticket(person, node.clock())
    answer = RedirectResponse(f"{attempt.page}#signed-in", 303)
    answer.delete_cookie(_BROWSER, path=_PATH)
    answer.set_cookie(
        _TICKET,
        ticket,
        max_age=int(TICKET_S),
        path=_PATH,
        secure=ours.secure,
        httponly=True,
        samesite="strict",
    )
    return answer


@sign_in.post("/token", responses=problems(401, 503))
async def token(
    node: NodeDependency,
    ticket: Annotated[str, Cookie(alias=_TICKET, max_length=256)] = "",
) -> JSONResponse:
    """Change a sign-in that just happened into a token, once."""
    ours = _sign_in_of(node)
    try:
        person = ours.attempts.redeem(ticket, node.clock())
    except OidcError as error:
        raise _refused(node, error) from None
    made, row = ours.token_for(person, node.clock())
    await node.store.add_token(row)
    log.info("signed_in", role=person.role, token_id=row["token_id"])
    signed = SignedIn(
        token=made, role=person.role, agent_id=person.agent_id, expires_ts=row["expires_ts"]
    )
    answer = JSONResponse(signed.model_dump())
    answer.delete_cookie(_TICKET, path=_PATH)
    return answer
