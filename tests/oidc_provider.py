"""An OpenID Connect provider on 127.0.0.1 that keeps to the specifications, and can be told to lie.

Discovery 1.0, authorization code flow of Core 1.0 section 3.1 with PKCE (RFC 7636), client
authentication by Basic (RFC 6749 section 2.3.1), codes good once, RS256 keys that can be changed.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import secrets
import time
from collections.abc import Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import unquote_plus, urlencode

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response
from joserfc import jwt
from joserfc.jwk import RSAKey

from tests.notifier_kit import free_port

CLIENT_ID, SECRET = "callshield", "a secret: of the +client"


class ProviderDouble:
    """One provider with one person, who is always signed in there."""

    def __init__(self) -> None:
        self.port = free_port()
        self.issuer = f"http://127.0.0.1:{self.port}"
        self.redirect_url = ""
        self.claims: dict[str, Any] = {"sub": "person-1", "roles": ["cs-agents"]}
        """What the ID token says besides what it must."""
        self.lie: Callable[[dict[str, Any]], dict[str, Any]] = lambda claims: claims
        """Changes the claims of an ID token before it is signed."""
        self.forge = False
        """Sign with a key that is not published."""
        self.algorithm = "RS256"
        self.denies = False
        self.discovery: dict[str, Any] = {}
        self.keys_asked = 0
        self.token_requests = 0
        self._key = self._new_key()
        self._codes: dict[str, dict[str, str]] = {}
        self.app = self._routes()

    @staticmethod
    def _new_key() -> RSAKey:
        return RSAKey.generate_key(2048, {"kid": secrets.token_hex(4), "use": "sig"})

    def change_keys(self) -> None:
        """Sign with a new key from now on; the old one is published no more."""
        self._key = self._new_key()

    def _routes(self) -> FastAPI:
        app = FastAPI()

        @app.get("/.well-known/openid-configuration")
        async def discovery() -> dict[str, Any]:
            return {
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.issuer}/authorize",
                "token_endpoint": f"{self.issuer}/token",
                "jwks_uri": f"{self.issuer}/keys",
                "response_types_supported": ["code"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["RS256"],
                "token_endpoint_auth_methods_supported": ["client_secret_basic"],
                "code_challenge_methods_supported": ["S256"],
                "authorization_response_iss_parameter_supported": True,
                **self.discovery,
            }

        @app.get("/keys")
        async def keys() -> dict[str, Any]:
            self.keys_asked += 1
            return {"keys": [self._key.as_dict(private=False)]}

        @app.get("/authorize")
        async def authorize(request: Request) -> Response:
            asked = dict(request.query_params)
            if asked.get("client_id") != CLIENT_ID or asked["redirect_uri"] != self.redirect_url:
                return JSONResponse({"error": "invalid_client"}, 400)
            back = {"state": asked["state"], "iss": self.issuer}
            if self.denies or "openid" not in asked["scope"].split():
                back["error"] = "access_denied"
            else:
                assert asked["code_challenge_method"] == "S256"
                code = secrets.token_urlsafe(24)
                self._codes[code] = asked
                back["code"] = code
            return RedirectResponse(f"{self.redirect_url}?{urlencode(back)}", 302)

        @app.post("/token")
        async def token(request: Request) -> Response:
            self.token_requests += 1
            scheme, _, given = request.headers.get("authorization", "").partition(" ")
            name, _, secret = base64.b64decode(given).decode().partition(":")
            client = (unquote_plus(name), unquote_plus(secret))
            if scheme != "Basic" or client != (CLIENT_ID, SECRET):
                return JSONResponse({"error": "invalid_client"}, 401)
            form = await _form(request)
            asked = self._codes.pop(form.get("code", ""), None)
            if asked is None or form.get("redirect_uri") != asked["redirect_uri"]:
                return JSONResponse({"error": "invalid_grant"}, 400)
            verifier = form.get("code_verifier", "").encode()
            challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier).digest()).rstrip(b"=")
            if challenge.decode() != asked["code_challenge"]:
                return JSONResponse({"error": "invalid_grant"}, 400)
            return JSONResponse(self._tokens(asked["nonce"]))

        return app

    def _tokens(self, nonce: str) -> dict[str, Any]:
        now, access = int(time.time()), secrets.token_urlsafe(24)
        half = hashlib.sha256(access.encode()).digest()[:16]
        claims = {
            "iss": self.issuer,
            "aud": CLIENT_ID,
            "iat": now,
            "exp": now + 300,
            "nonce": nonce,
            "at_hash": base64.urlsafe_b64encode(half).rstrip(b"=").decode(),
            **self.claims,
        }
        key: Any = self._key
        header = {"alg": self.algorithm, "kid": self._key.kid}
        if self.forge:
            key = RSAKey.generate_key(2048)
        if self.algorithm == "none":
            body = [header, self.lie(claims)]
            parts = [base64.urlsafe_b64encode(_json(part)).rstrip(b"=").decode() for part in body]
            signed = f"{parts[0]}.{parts[1]}."
        else:
            signed = jwt.encode(header, self.lie(claims), key, algorithms=[self.algorithm])
        return {
            "access_token": access, "token_type": "Bearer", "expires_in": 300, "id_token": signed
        }  # fmt: skip

    @asynccontextmanager
    async def running(self) -> Any:
        """Serve in this event loop."""
        config = uvicorn.Config(
            self.app, host="127.0.0.1", port=self.port, log_level="error", lifespan="off"
        )
        server = uvicorn.Server(config)
        server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
        serving = asyncio.create_task(server.serve())
        async with asyncio.timeout(20):
            while True:
                if server.started:
                    break
                await asyncio.sleep(0.02)
        try:
            yield self
        finally:
            server.should_exit = True
            await serving


async def _form(request: Request) -> dict[str, str]:
    from urllib.parse import parse_qsl

    return dict(parse_qsl((await request.body()).decode()))


def _json(value: Any) -> bytes:
    import json

    return json.dumps(value).encode()
