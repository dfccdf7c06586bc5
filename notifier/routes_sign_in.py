"""``GET /api/v1/sign-in``: how a person can sign in here, for a page that has no token yet."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel

from notifier.routes import NodeDependency, problems

ways = APIRouter(prefix="/api/v1", responses=problems(429))


class Ways(BaseModel):
    """What a console offers besides a token."""

    oidc: bool
    """``GET /api/v1/oidc/login`` sends the browser to the organisation's own sign-in."""


@ways.get("/sign-in")
async def show_ways(node: NodeDependency) -> Ways:
    """Whether the organisation's own sign-in is configured. Needs no token."""
    return Ways(oidc=node.sign_in is not None)
