"""The web application: API, WebSocket, consoles, behind the shield."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import FileResponse, RedirectResponse
from starlette.staticfiles import StaticFiles

from callshield import __version__
from notifier.node import Node
from notifier.problems import install
from notifier.routes import api, health
from notifier.routes_pbx import care
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
    install(app)
    app.include_router(api)
    app.include_router(care)
    app.include_router(health)
    app.include_router(stream)
    app.mount("/console", StaticFiles(directory=CONSOLE), name="console")

    def page(path: str, name: str) -> None:
        async def show() -> FileResponse:
            return FileResponse(CONSOLE / name, headers={"Cache-Control": "no-cache"})

        app.add_api_route(path, show, include_in_schema=False)

    page("/agent", "agent.html")
    page("/supervisor", "supervisor.html")
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
    app.add_middleware(Shield, allowed_origins=origins, metrics=node.metrics)
    return app
