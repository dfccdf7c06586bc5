"""What holds for every request before it reaches a route: sizes, origins, tokens, headers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from urllib.parse import parse_qsl, urlsplit

from fastapi import HTTPException
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from notifier.limits import Limits
from notifier.metrics import Metrics
from notifier.problems import Problem
from notifier.tokens import PREFIX

MAX_BODY_BYTES = 64 * 1024
_TOO_LARGE = f"A body may have {MAX_BODY_BYTES} bytes"
#: Only our own files and our own server; no inline script or style, no frame, no plug-in.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_DISCARD_BYTES = 32 * 1024 * 1024
_DISCARD_S = 5.0
_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "microphone=(), camera=(), geolocation=(), hid=(self)",
}
_TOKEN_PARAMETERS = frozenset({"token", "access_token", "bearer", "authorization", "auth"})


def origin_allowed(origin: str | None, host: str, allowed: Iterable[str]) -> bool:
    """Whether a browser on ``origin`` may talk to us.

    Args:
        origin: ``Origin`` header; ``None`` when a program, not a browser, connects.
        host: ``Host`` header. A TLS proxy in front changes the scheme, so only the authority
            is compared.
        allowed: ``web.allowed_origins``.
    """
    if origin is None:
        return True
    if origin in allowed:
        return True
    try:
        parts = urlsplit(origin)
    except ValueError:  # "http://[::1"
        return False
    return parts.scheme in ("http", "https") and bool(host) and parts.netloc == host


def carries_token(query: bytes) -> bool:
    """True when a query string holds a token: URLs end in logs, histories and referrers."""
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    return any(
        name.lower() in _TOKEN_PARAMETERS or value.startswith(PREFIX) for name, value in pairs
    )


class Shield:
    """ASGI middleware; the outermost layer.

    Args:
        app: what it protects.
        allowed_origins: ``web.allowed_origins``.
        metrics: counts refusals.
        limits: how much one token or address may ask.
    """

    def __init__(
        self, app: ASGIApp, allowed_origins: list[str], metrics: Metrics, limits: Limits
    ) -> None:
        self._app = app
        self._limits = limits
        self._allowed = allowed_origins
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        problem = self._refusal(scope)
        if scope["type"] == "websocket":
            if problem is None:
                await self._app(scope, receive, send)
            else:
                await WebSocket(scope, receive, send).send_denial_response(problem.response())
            return
        if problem is not None:
            if problem.status == 413:
                await _discard(receive)
            await problem.response()(scope, receive, _with_headers(scope, send))
            return
        await self._limited(scope, receive, _with_headers(scope, send))

    def _refusal(self, scope: Scope) -> Problem | None:
        too_many = self._limits.refusal(scope)
        if too_many is not None:
            self._metrics.refused.labels("too_many").inc()
            return too_many
        headers = Headers(scope=scope)
        if carries_token(scope["query_string"]):
            self._metrics.refused.labels("token_in_url").inc()
            return Problem(
                400,
                "token_in_url",
                "A token must not stand in a URL. Send it in the Authorization header; "
                "revoke this one, for URLs are logged.",
            )
        if not origin_allowed(headers.get("origin"), headers.get("host", ""), self._allowed):
            self._metrics.refused.labels("origin").inc()
            return Problem(
                403, "origin", "This page may not use this node: see web.allowed_origins."
            )
        declared = headers.get("content-length", "0")
        if not declared.isdigit() or int(declared) > MAX_BODY_BYTES:
            return self._too_large()
        return None

    def _too_large(self) -> Problem:
        self._metrics.refused.labels("too_large").inc()
        return Problem(413, "too_large", f"{_TOO_LARGE}.", {"Connection": "close"})

    async def _limited(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count a body that came without a length."""
        size = 0

        async def counted() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > MAX_BODY_BYTES:
                self._metrics.refused.labels("too_large").inc()
                await _discard(receive)
                # FastAPI lets this class through while it reads a body, and no other.
                raise HTTPException(413, _TOO_LARGE)
            return message

        await self._app(scope, counted, send)


async def _discard(receive: Receive) -> None:
    """Read on and forget, within bounds: a client whose body is left unread sees its connection
    reset instead of the refusal."""
    size = 0
    try:
        async with asyncio.timeout(_DISCARD_S):
            while size < _DISCARD_BYTES:
                message = await receive()
                size += len(message.get("body", b""))
                if not message.get("more_body", False):
                    return
    except TimeoutError:
        return


def _with_headers(scope: Scope, send: Send) -> Send:
    path: str = scope["path"]
    storing = "no-cache" if path.startswith("/console/") else "no-store"

    async def wrapped(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers[name] = value
            headers.setdefault("Cache-Control", storing)
        await send(message)

    return wrapped
