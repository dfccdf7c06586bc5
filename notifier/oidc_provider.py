"""Talking to the OpenID Connect provider: discovery, keys, and the code for an ID token."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote_plus

import httpx
import structlog
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from callshield.settings_oidc import OidcSettings, is_safe
from notifier.oidc import check_id_token
from notifier.oidc_error import OidcError

log = structlog.get_logger()

_TIMEOUT_S = 5.0
#: Discovery and keys are fetched again after this time ...
_FRESH_S = 3600.0
#: ... and keys at once when a token names one that we do not know, but not more often than this.
_AGAIN_S = 5.0
_MAX_BYTES = 256 * 1024
_AWAY = "The sign-in service does not answer: try again, or use a token."


class Provider:
    """The provider of ``[oidc]``.

    Args:
        settings: issuer and client id.
        secret: of our client id.
        monotonic: seconds of a clock that cannot be set.
    """

    def __init__(
        self,
        settings: OidcSettings,
        secret: str,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._secret = secret
        self._monotonic = monotonic
        context = ssl.create_default_context(cafile=settings.ca_file)
        self._http = httpx.AsyncClient(timeout=_TIMEOUT_S, verify=context, trust_env=False)
        self._lock = asyncio.Lock()
        self._metadata: Mapping[str, Any] = {}
        self._keys = KeySet([])
        self._metadata_at = self._keys_at = float("-inf")

    async def close(self) -> None:
        await self._http.aclose()

    async def endpoint(self, name: str) -> str:
        """One of the provider's addresses.

        Raises:
            OidcError: it is away, calls itself otherwise, or names an address that is not safe.
        """
        async with self._lock:
            if self._monotonic() - self._metadata_at > _FRESH_S:
                await self._discover()
        url = self._metadata.get(name)
        if not isinstance(url, str) or not is_safe(url):
            log.error("oidc_discovery_unusable", missing=name)
            raise OidcError("oidc_provider", _AWAY, 502)
        return url

    async def _discover(self) -> None:
        base = self._settings.issuer.rstrip("/")
        found = await self._get(f"{base}/.well-known/openid-configuration")
        # Discovery 1.0 section 4.3: exactly the issuer that was asked.
        if found.get("issuer") != self._settings.issuer:
            log.error("oidc_issuer_differs")
            raise OidcError("oidc_provider", _AWAY, 502)
        self._metadata, self._metadata_at = found, self._monotonic()

    async def claims(self, code: str, verifier: str, nonce: str, now: float) -> Mapping[str, Any]:
        """Change a code into an ID token, and check that.

        Raises:
            OidcError: the provider refuses or is away, or the token is not good.
        """
        answer = await self._exchange(code, verifier)
        token, access = answer.get("id_token"), answer.get("access_token", "")
        if not isinstance(token, str):
            raise OidcError("oidc_token", "The provider gave no ID token.")
        access = access if isinstance(access, str) else ""
        keys = await self._current_keys()
        try:
            return check_id_token(self._settings, token, keys, nonce, access, now)
        except OidcError:
            # The provider may have changed its keys since.
            newer = await self._current_keys(older_than_s=_AGAIN_S)
            if newer is keys:
                raise
            return check_id_token(self._settings, token, newer, nonce, access, now)

    async def _exchange(self, code: str, verifier: str) -> Mapping[str, Any]:
        url = await self.endpoint("token_endpoint")
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._settings.redirect_url,
            "code_verifier": verifier,
        }
        known = self._metadata.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        auth: httpx.BasicAuth | None = None
        if "client_secret_basic" in known:
            auth = httpx.BasicAuth(_quoted(self._settings.client_id), _quoted(self._secret))
        else:
            form |= {"client_id": self._settings.client_id, "client_secret": self._secret}
        return await self._ask("POST", url, data=form, auth=auth)

    async def _current_keys(self, older_than_s: float = _FRESH_S) -> KeySet:
        url = await self.endpoint("jwks_uri")
        async with self._lock:
            if self._monotonic() - self._keys_at > older_than_s:
                found = await self._get(url)
                try:
                    self._keys = KeySet.import_key_set(found)  # type: ignore[arg-type]
                except (JoseError, ValueError, KeyError, TypeError):
                    raise OidcError("oidc_provider", _AWAY, 502) from None
                self._keys_at = self._monotonic()
        return self._keys

    async def _get(self, url: str) -> Mapping[str, Any]:
        return await self._ask("GET", url)

    async def _ask(self, method: str, url: str, **more: Any) -> Mapping[str, Any]:
        try:
            async with self._http.stream(method, url, **more) as answer:
                body = b""
                async for piece in answer.aiter_bytes():
                    body += piece
                    if len(body) > _MAX_BYTES:
                        raise OidcError("oidc_provider", _AWAY, 502)
                if answer.status_code != 200:
                    log.warning("oidc_refused", status=answer.status_code)
                    raise OidcError("oidc_provider", _AWAY, 502)
                found = httpx.Response(200, content=body).json()
        except (httpx.HTTPError, ValueError) as error:
            log.warning("oidc_away", error=type(error).__name__)
            raise OidcError("oidc_provider", _AWAY, 502) from None
        if not isinstance(found, dict):
            raise OidcError("oidc_provider", _AWAY, 502)
        return found


def _quoted(text: str) -> str:
    """RFC 6749 section 2.3.1: form-urlencoded before Basic."""
    return quote_plus(text)
