"""The web application: API, WebSocket, consoles, behind the shield."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import FileResponse, JSONResponse, RedirectResponse
from starlette.staticfiles import StaticFiles

from callshield import __version__
from notifier.cluster.elsewhere import AnsweredElsewhere
from notifier.limits import Limits
from notifier.node import Node
from notifier.problems import install
from notifier.routes import api, health
from notifier.routes_care import care_routes
from notifier.routes_delivery import deliveries
from notifier.routes_escalation import escalation
from notifier.routes_evidence import evidence_routes
from notifier.routes_fairness import fairness
from notifier.routes_hearing import hearing_routes
from notifier.routes_joins import join_routes
from notifier.routes_oidc import sign_in
from notifier.routes_oversight import oversight
from notifier.routes_own_calls import own_calls
from notifier.routes_pbx import care
from notifier.routes_privacy import privacy
from notifier.routes_sign_in import ways
from notifier.routes_verdicts import verdicts
from notifier.routes_wallboard import wallboard
from notifier.shield import Shield
from notifier.stream import stream

CONSOLE = Path(__file__).parent / "console"


def build_app(node: Node) -> FastAPI:
    """The application of one running node.

    FastAPI's own ``/docs`` fetches scripts from a host outside; ours is a static page that draws
    ``/openapi.json``, because a node may have no way out.
    """
    app = FastAPI(
        title="Callshield",
        version=__version__,
        description="Live calls, alerts and actions of one Callshield node.",
        docs_url=None,
        redoc_url=None,
    )
    app.state.node = node
    app.state.limits = limits = Limits(node.settings.limits)
    install(app)
    if node.cluster is not None:
        from notifier.cluster.operations import Operations

        node.cluster.service.operations = Operations(node).all()

        @app.exception_handler(AnsweredElsewhere)
        async def on_answer(_request: Request, answer: AnsweredElsewhere) -> JSONResponse:
            return answer.response()

    app.include_router(api)
    app.include_router(care)
    app.include_router(care_routes)
    app.include_router(evidence_routes)
    app.include_router(verdicts)
    app.include_router(escalation)
    app.include_router(fairness)
    app.include_router(oversight)
    app.include_router(join_routes)
    app.include_router(hearing_routes)
    app.include_router(privacy)
    app.include_router(sign_in)
    app.include_router(deliveries)
    app.include_router(own_calls)
    app.include_router(wallboard)
    app.include_router(ways)
    app.include_router(health)
    app.include_router(stream)
    app.mount("/console", StaticFiles(directory=CONSOLE), name="console")

    def page(path: str, name: str) -> None:
        async def show() -> FileResponse:
            return FileResponse(CONSOLE / name, headers={"Cache-Control": "no-cache"})

        app.add_api_route(path, show, include_in_schema=False)

    page("/agent", "agent.html")
    page("/supervisor", "supervisor.html")
    page("/wallboard", "wallboard.html")
    page("/docs", "docs.html")

    @app.get("/", include_in_schema=False)
    async def root() -> RedirectResponse:
        return RedirectResponse("/agent")

    origins = node.settings.web.allowed_origins
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type"],
        )
    # Added last, so it is the first to see a request.
    app.add_middleware(Shield, allowed_origins=origins, metrics=node.metrics, limits=limits)
    return app
