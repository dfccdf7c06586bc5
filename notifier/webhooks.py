"""``[webhooks.NAME]``: events by POST, signed as "Standard Webhooks" describes.

The signature is HMAC-SHA256 over ``<webhook-id>.<webhook-timestamp>.<body>``, in base64 behind
``v1,`` (https://www.standardwebhooks.com, version 1.0.0), so that a receiver can check it with a
library of any language. ``webhook-id`` is the letter's: the same at every attempt.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import msgspec

from callshield import __version__
from callshield.errors import SetupError
from callshield.private_file import read_private
from callshield.settings import Settings
from callshield.settings_webhooks import WebhookSettings
from notifier.outbox import Letter, Undelivered, matches
from notifier.outside import may_be_told, told

PREFIX = "webhook:"
_WHSEC = "whsec_"
_MIN_SECRET_BYTES = 24
#: Of an answer so much is read, so that the connection can be used again; none of it is kept.
_ANSWER_BYTES = 16 * 1024
#: Useless to try again: the far end does not want this one (any more).
_PERMANENT = frozenset({410, 413})


def load_secrets(name: str, settings: WebhookSettings) -> list[bytes]:
    """The keys of a webhook, the newest first.

    Raises:
        SetupError: there is none, it lies open to others, or is no key.
    """
    what = f"webhooks.{name}.secret_file"
    text = read_private(
        settings.secret_file,
        what,
        SetupError,
        missing=(
            f"there is no secret for the webhook {name}: write whsec_ and the output of `openssl "
            f"rand -base64 32` into {settings.secret_file} ({what}) with mode 0600"
        ),
    )
    lines = text.split()
    keys = [_key(line) for line in lines]
    if not 1 <= len(keys) <= 2 or any(len(key) < _MIN_SECRET_BYTES for key in keys):
        raise SetupError(
            f"{what} {settings.secret_file} must hold one line (two while it is being changed) of "
            f"whsec_ and at least {_MIN_SECRET_BYTES} bytes in base64: openssl rand -base64 32"
        )
    return keys


def _key(line: str) -> bytes:
    try:
        return base64.b64decode(line.removeprefix(_WHSEC), validate=True)
    except binascii.Error:
        return b""


def signature(key: bytes, letter_id: str, timestamp: int, body: bytes) -> str:
    """The value of ``webhook-signature`` by one key."""
    signed = f"{letter_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()


def payload(letter: Letter, node: str) -> bytes:
    """The body of the request: the same at every attempt."""
    when = datetime.fromtimestamp(letter.ts, UTC).isoformat(timespec="milliseconds")
    return msgspec.json.encode(
        {
            "type": letter.type,
            "timestamp": when.replace("+00:00", "Z"),
            "node": node,
            "data": msgspec.Raw(letter.body.encode()),
        }
    )


class Webhook:
    """One receiver; a :class:`notifier.outbox.Channel`.

    Args:
        name: of ``[webhooks.NAME]``.
        settings: its table.
        node: name of this node.
        clock: seconds since the epoch.

    Raises:
        SetupError: its secret or its authorities cannot be had, or it asks for a type that never
            leaves the node.
    """

    batch = 1
    spacing_s = 0.0

    def __init__(
        self,
        name: str,
        settings: WebhookSettings,
        node: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = PREFIX + name
        self.queue_limit = settings.queue_limit
        self.parallel = settings.parallel
        self.give_up_after_s = settings.give_up_after_h * 3600
        self._settings = settings
        self._node = node
        self._clock = clock
        self._keys = load_secrets(name, settings)
        for kind in settings.events:
            if not kind.endswith(".*") and not may_be_told(kind):
                raise SetupError(
                    f"webhooks.{name}.events: {kind} never leaves the node (docs/delivery.md): "
                    "take it out"
                )
        self._client = httpx.AsyncClient(
            verify=_authorities(name, settings),
            # The address in the configuration and no other: no proxy of the environment, no
            # credentials of ~/.netrc, no redirect.
            trust_env=False,
            follow_redirects=False,
            timeout=settings.timeout_s,
            limits=httpx.Limits(max_connections=settings.parallel),
            headers={"User-Agent": f"Callshield/{__version__}"},
        )

    def wants(self, kind: str) -> bool:
        """Whether the operator asked for this type and it may leave the node."""
        return may_be_told(kind) and matches(kind, self._settings.events)

    def content(self, event: Mapping[str, Any]) -> dict[str, Any] | None:
        """The event without what stays inside."""
        return told(event)

    async def send(self, letters: Sequence[Letter]) -> None:
        """POST one letter.

        Raises:
            Undelivered: no answer in time, or any but 2xx.
        """
        [letter] = letters
        body = payload(letter, self._node)
        timestamp = int(self._clock())
        headers = {
            "Content-Type": "application/json",
            "webhook-id": letter.letter_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": " ".join(
                signature(key, letter.letter_id, timestamp, body) for key in self._keys
            ),
        }
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                await self._post(body, headers)
        except (httpx.TimeoutException, TimeoutError):
            raise Undelivered(f"no answer within {self._settings.timeout_s:g} s") from None
        except (httpx.TransportError, httpx.InvalidURL, OSError) as error:
            # Its text may name the address, whose path is often a secret.
            raise Undelivered(f"no connection ({_cause(error)})") from None

    async def _post(self, body: bytes, headers: dict[str, str]) -> None:
        url = self._settings.url
        async with self._client.stream("POST", url, content=body, headers=headers) as answer:
            status = answer.status_code
            read = 0
            async for chunk in answer.aiter_raw():
                read += len(chunk)
                if read > _ANSWER_BYTES:
                    break
        if 200 <= status < 300:
            return
        reason = f"the far end answered {status}"
        if 300 <= status < 400:
            reason += ", a redirect, which is not followed"
        raise Undelivered(
            reason,
            permanent=status in _PERMANENT,
            retry_after_s=_retry_after_s(answer.headers.get("retry-after"), self._clock()),
        )

    async def close(self) -> None:
        """Close its connections."""
        await self._client.aclose()


def _authorities(name: str, settings: WebhookSettings) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(
            cafile=None if settings.ca_file is None else str(settings.ca_file)
        )
    except (OSError, ssl.SSLError) as error:
        raise SetupError(
            f"webhooks.{name}.ca_file: {settings.ca_file} cannot be used ({error})"
        ) from None


def _cause(error: BaseException) -> str:
    """A word for what went wrong beneath, without the far end's text."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, ssl.SSLCertVerificationError):
            return "its certificate is not vouched for"
        if isinstance(found, ConnectionRefusedError):
            return "refused"
        found = found.__cause__ or found.__context__
    return type(error).__name__


def _retry_after_s(value: str | None, now: float) -> float | None:
    """Retry-After, in seconds or as a date (RFC 9110 section 10.2.3)."""
    if value is None:
        return None
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, OverflowError):
        return None


def webhooks(settings: Settings, clock: Callable[[], float] = time.time) -> list[Webhook]:
    """Every webhook of the configuration.

    Raises:
        SetupError: one of them cannot be used.
    """
    return [
        Webhook(name, table, settings.node.name, clock) for name, table in settings.webhooks.items()
    ]
