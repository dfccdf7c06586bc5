"""Pushing to a phone over HTTP, without trusting what answers.

Only addresses inside ``sip.phone.networks`` (checked anew for each request), never a name; no
redirect is followed, no proxy of the environment used; at most 64 KiB of an answer are read, and
all of it ends after ``phones.limit_s``. A password is shown to the phone's address alone, and
nothing of a request is logged.
"""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
from collections.abc import Mapping

import httpx

from callshield.errors import CallshieldError, SetupError
from callshield.settings import Settings
from callshield.settings_phones import FamilySettings
from firmware_profiles.choosing import Plan
from firmware_profiles.documents import posted
from firmware_profiles.online import phone_address
from firmware_profiles.push_result import Result

_LARGEST_BYTES = 64 * 1024
#: Cisco says in a 200 that it did nothing: ``<CiscoIPPhoneError Number="4"/>``.
_CISCO_ERROR = re.compile(rb'<CiscoIPPhoneError\s+Number="(\d{1,4})"')
_CISCO_STATUS = re.compile(rb'<ResponseItem\s[^>]{0,500}?Status="(\d{1,4})"')
#: Fanvil, too: ``<RetCode>1</RetCode>``.
_FANVIL_CODE = re.compile(rb"<RetCode>\s*(-?\d{1,4})\s*</RetCode>")

# Their lines hold addresses with passcodes and agents' tokens in them.
for _name in ("httpx", "httpcore"):
    logging.getLogger(_name).setLevel(logging.WARNING)


class HttpPush:
    """Sends documents to phones.

    Args:
        settings: the node's.
        passwords: by profile.

    Raises:
        SetupError: a ``ca_file`` cannot be used.
    """

    def __init__(self, settings: Settings, passwords: Mapping[str, str]) -> None:
        self._settings = settings
        self._passwords = passwords
        self._clients: dict[str, httpx.AsyncClient] = {}
        self._auths: dict[tuple[str, str], httpx.Auth] = {}
        for profile_id, family in settings.phones.families.items():
            if family.tls:
                self._clients[profile_id] = _client(
                    _context(profile_id, family), settings.phones.limit_s
                )
        self._plain = _client(True, settings.phones.limit_s)

    async def close(self) -> None:
        """Close what is open."""
        for client in (self._plain, *self._clients.values()):
            await client.aclose()

    async def send(self, plan: Plan, body: bytes) -> Result:
        """Send one document; one try, and it never raises but when cancelled.

        Args:
            plan: whose phone; its ``via`` is ``http``.
            body: the document.
        """
        family = self._settings.phones.families.get(
            plan.profile.id,
            FamilySettings(),  # type: ignore[call-arg]
        )
        try:
            host = phone_address(plan.host, self._settings.sip.phone.networks)
        except CallshieldError:
            return Result("refused", "the phone's address is outside sip.phone.networks")
        scheme = "https" if family.tls else "http"
        port = family.port or (443 if family.tls else 80)
        literal = f"[{host}]" if ":" in host else host
        method = plan.method
        headers = {
            "Accept": "*/*",
            # Some compare who sends with their list of servers by this (Yealink, Mitel, Fanvil).
            "Referer": self._settings.sip.phone.signalling_advertised,
            "User-Agent": self._settings.sip.user_agent,
            "Content-Type": _content_type(method.content_type, method.encoding),
        }
        request = (self._clients.get(plan.profile.id) or self._plain).build_request(
            "POST",
            f"{scheme}://{literal}:{port}{method.path}",
            content=posted(method, body),
            headers=headers,
        )
        try:
            async with asyncio.timeout(self._settings.phones.limit_s):
                return await self._exchange(plan, family, request)
        except TimeoutError:
            return Result("failed", f"no whole answer within {self._settings.phones.limit_s:g} s")
        except httpx.TimeoutException:
            return Result("failed", f"no whole answer within {self._settings.phones.limit_s:g} s")
        except httpx.ConnectError:
            return Result("failed", "no connection: the phone is off, or its web server is")
        except (httpx.HTTPError, httpx.StreamError):
            return Result("failed", "the connection broke before the answer was whole")
        except (KeyError, ValueError, httpx.InvalidURL):
            # A challenge in words that nobody knows, a header that is none.
            return Result("refused", "the phone's answer cannot be understood")

    async def _exchange(self, plan: Plan, family: FamilySettings, request: httpx.Request) -> Result:
        # Step by step: httpx itself would read the whole body of a challenge, however large.
        flow = self._auth(plan, family).auth_flow(request)
        request = next(flow)
        client = self._clients.get(plan.profile.id) or self._plain
        while True:
            response = await client.send(request, auth=None, stream=True)
            try:
                if 300 <= response.status_code < 400:
                    return Result("refused", f"{response.status_code}, a redirect: not followed")
                answer = bytearray()
                async for chunk in response.aiter_raw():
                    answer += chunk
                    if len(answer) > _LARGEST_BYTES:
                        return Result("refused", "more than 64 KiB in answer: is this a phone?")
            finally:
                await response.aclose()
            try:
                request = flow.send(response)
            except StopIteration:
                return _judged(plan, response.status_code, bytes(answer))
            except (httpx.ProtocolError, NotImplementedError):
                return Result("refused", "the phone's answer cannot be understood")

    def _auth(self, plan: Plan, family: FamilySettings) -> httpx.Auth:
        password = self._passwords.get(plan.profile.id, "")
        if family.user and password:
            match plan.method.auth:
                case "digest":
                    # Kept by phone: the next request answers the last challenge at once. And by
                    # family: a phone that turns out to be another one has another password.
                    kept = self._auths.get((plan.agent_id, plan.profile.id))
                    if kept is None:
                        kept = httpx.DigestAuth(family.user, password)
                        self._auths[plan.agent_id, plan.profile.id] = kept
                    return kept
                case "basic":
                    return httpx.BasicAuth(family.user, password)
        return httpx.Auth()


def _judged(plan: Plan, status: int, answer: bytes) -> Result:
    if status in plan.method.success:
        if plan.method.document in ("cisco_execute", "cisco_text"):
            error = _CISCO_ERROR.search(answer)
            if error is not None:
                return Result("refused", f"the phone answers error {int(error[1])}")
            items = [int(number) for number in _CISCO_STATUS.findall(answer)]
            if items and all(items):
                return Result("refused", f"the phone answers status {items[0]}")
        if plan.method.document == "fanvil_text":
            code = _FANVIL_CODE.search(answer)
            if code is not None and int(code[1]):
                return Result("refused", f"the phone answers code {int(code[1])}")
        return Result("taken")
    if status in (401, 403):
        return Result("refused", f"{status}: name, password, or who may push is not in order")
    if status >= 500:
        return Result("failed", f"{status}: the phone could not")
    return Result("refused", f"{status}: the phone takes no screen there")


def _client(verify: ssl.SSLContext | bool, limit_s: float) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        follow_redirects=False,
        trust_env=False,
        verify=verify,
        timeout=limit_s,
        # Kept just for the answer to a challenge: a phone may have restarted since.
        limits=httpx.Limits(
            max_connections=None, max_keepalive_connections=100, keepalive_expiry=1.0
        ),
    )


def _context(profile_id: str, family: FamilySettings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=family.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise SetupError(
            f"phones.families.{profile_id}.ca_file {family.ca_file} cannot be used: {error}"
        ) from None
    if not family.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _content_type(content_type: str, encoding: str) -> str:
    # A parameter only where it is needed: strict phones compare the whole header.
    return content_type if encoding == "utf-8" else f"{content_type}; charset={encoding}"
