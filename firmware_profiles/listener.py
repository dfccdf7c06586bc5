"""What phones send and fetch: *end* and *help* keys, events, Cisco's question, Cisco's screens.

A press goes to the notifier, which knows the agent's call, and what came of it is shown on the
phone. An event only says that the phone is there: this is no tool to watch agents. Paths hold
tokens and Cisco's question a password, so that nothing of a request is logged.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import ssl
import time
from collections.abc import Callable

import structlog

from callshield.errors import ConfigurationError, SetupError
from callshield.listening import listen
from callshield.messages_phones import PhoneKey, PhoneKeyDone
from callshield.private_file import read_private
from callshield.settings import Settings
from callshield.settings_phones import PhonesSettings
from callshield.settings_sip import SIP_URI, AgentSettings
from firmware_profiles.phone_answers import (
    AUTHORIZED,
    UN_AUTHORIZED,
    Outcome,
    PhoneAnswer,
    key_text,
)
from firmware_profiles.phone_request import PhoneRequest, Refused
from firmware_profiles.phone_server import PhoneServer
from firmware_profiles.phone_tokens import CISCO_PATH, TOKEN_LENGTH, PhoneTokens, load_tokens
from firmware_profiles.presses import KeyAction, Presses
from firmware_profiles.screen_keys import ScreenKeys
from firmware_profiles.screen_pages import LIVES_S, ScreenPages

log = structlog.get_logger()

#: Nobody said what came of a press: the phone says so, seconds. The bridge has three.
UNREACHED_S = 4.0

Send = Callable[[PhoneKey], bool]
Shown = Callable[[str, str], tuple[bytes, str] | None]


class Listener:
    """Answers phones; :func:`start_listener` makes one.

    Args:
        settings: the node's configuration.
        tokens: whose address is whose.
        send: hands a press to the notifier; False when it is not there.
        cisco_login: name and password that a Cisco phone's question must hold.
        shown: agent's id and a sentence to the document that the agent's phone shows, and its
            content type; ``None``: plain text.
        clock: monotonic seconds.
        now: seconds since the epoch.
    """

    def __init__(
        self,
        settings: Settings,
        tokens: PhoneTokens,
        send: Send,
        *,
        cisco_login: tuple[str, str] = ("", ""),
        shown: Shown = lambda agent_id, text: None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._tokens = tokens
        self._send = send
        self._cisco_login = cisco_login
        self._shown = shown
        self._clock = clock
        self._now = now
        self._presses = Presses()
        self._outcomes: dict[tuple[str, KeyAction], asyncio.Future[Outcome]] = {}
        self._waiting: dict[str, asyncio.Future[Outcome]] = {}
        self._pages = ScreenPages()
        self._keys = ScreenKeys()
        self._server: PhoneServer | None = None
        self.alive: dict[str, float] = {}
        """Agents whose phone called, and when last (monotonic seconds): it is there. In memory
        alone, and which event it was is not kept."""

    def start(self) -> None:
        """Listen.

        Raises:
            ConfigurationError: nobody could reach it.
            SetupError: the port is taken, the address is not this machine's, or certificate or
                key cannot be used.
        """
        networks = self._settings.sip.phone.networks
        if not networks:
            raise ConfigurationError(
                [("configuration", "sip.phone.networks", "nothing", "the networks of the phones")]
            )
        tls = tls_context(self._settings.phones)
        phones = self._settings.phones
        listening = listen(
            phones.bind, phones.port, table="phones", who="the process for the phones"
        )
        self._server = PhoneServer(listening, networks, self.answer, tls=tls, clock=self._clock)
        self._server.start()
        log.info(
            "phone_listener_ready",
            host=self._settings.phones.bind,
            port=self.port,
            tls=tls is not None,
        )

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._server is not None
        return self._server.port

    async def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            await self._server.close()

    def answered(self, done: PhoneKeyDone) -> None:
        """The notifier says what came of a press."""
        waiting = self._waiting.get(done.key_id)
        if waiting is not None and not waiting.done():
            waiting.set_result(done.outcome)

    def put_screen(self, body: bytes, content_type: str, lives_s: float = LIVES_S) -> str:
        """Let a phone fetch a screen.

        Args:
            body: the document.
            content_type: with its charset.
            lives_s: how long it can be fetched.

        Returns:
            Its whole address; not for a log.
        """
        path = self._pages.put(body, content_type, self._clock(), lives_s)
        return self._settings.phones.url + path

    def remove_screen(self, url: str) -> None:
        """It can no longer be fetched."""
        self._pages.remove(url.removeprefix(self._settings.phones.url))

    def screen_keys(self, agent_id: str) -> tuple[str, str]:
        """Whole addresses of *end* and *help* for one screen of an agent, good for as long as a
        screen is shown; not for a log."""
        url = self._settings.phones.url
        end, help_ = self._keys.make(agent_id, self._clock())
        return url + end, url + help_

    # ------------------------------------------------------------------------------- the answers

    async def answer(self, request: PhoneRequest, address: str) -> PhoneAnswer:
        """What a phone is told.

        Args:
            request: a whole one.
            address: the phone's.

        Raises:
            Refused: it asks for something in a way that nothing of ours does.
        """
        match request.path.split("/"):
            case ["", "p", token, "event"] if len(token) == TOKEN_LENGTH:
                return self._event(token)
            case ["", "p", token, "end" | "help" as action] if len(token) == TOKEN_LENGTH:
                pressed: KeyAction = "end" if action == "end" else "help"
                agent_id = self._tokens.agent(token, pressed)
                key = None if agent_id is None else (agent_id, pressed)
                return await self._key(request, key, address)
            case ["", "k", id_]:
                return await self._key(request, self._keys.find(id_, self._clock()), address)
            case ["", "s", id_]:
                page = self._pages.take(id_, self._clock())
                return PhoneAnswer(404) if page is None else PhoneAnswer(200, *page)
        if request.path == CISCO_PATH:
            return AUTHORIZED if self._may_push(request.fields()) else UN_AUTHORIZED
        return PhoneAnswer(404)

    def _event(self, token: str) -> PhoneAnswer:
        agent_id = self._tokens.agent(token, "event")
        if agent_id is None:
            return PhoneAnswer(404)
        self.alive[agent_id] = self._clock()
        return PhoneAnswer(200)

    async def _key(
        self, request: PhoneRequest, key: tuple[str, KeyAction] | None, address: str
    ) -> PhoneAnswer:
        if request.method != "GET":
            raise Refused(405)  # who only looks presses nothing
        if key is None:
            return PhoneAnswer(404)
        agent_id, action = key
        agent = self._settings.agents[agent_id]
        if self._settings.phones.keys_from == "own_address" and address != own_address(agent):
            log.warning("phone_key_from_elsewhere", agent_id=agent_id, action=action)
            return PhoneAnswer(403)
        self.alive[agent_id] = self._clock()
        outcome = await asyncio.shield(self._pressed(agent_id, action))
        sip = self._settings.sip
        text = key_text(
            action,
            outcome,
            agent.screen_language or self._settings.node.language,
            sip.end_code if action == "end" else sip.help_code,
        )
        status = 503 if outcome == "unreached" else 200
        document = self._shown(agent_id, text)
        if document is None:
            return PhoneAnswer(status, text.encode())
        return PhoneAnswer(status, *document)

    def _pressed(self, agent_id: str, action: KeyAction) -> asyncio.Future[Outcome]:
        """What comes of a press; of one that is the same as the last, what comes of that."""
        key_id, new = self._presses.press(agent_id, action, self._clock())
        if not new:
            return self._outcomes[agent_id, action]
        loop = asyncio.get_running_loop()
        waiting: asyncio.Future[Outcome] = loop.create_future()
        self._outcomes[agent_id, action] = self._waiting[key_id] = waiting

        def unreached() -> None:
            if not waiting.done():
                waiting.set_result("unreached")

        def over(_: asyncio.Future[Outcome]) -> None:
            timer.cancel()
            self._waiting.pop(key_id, None)
            self._presses.finished(agent_id, action, key_id)

        # Sent before anything is waited for: a phone that hangs up has pressed all the same.
        timer = loop.call_later(UNREACHED_S, unreached)
        waiting.add_done_callback(over)
        if not self._send(
            PhoneKey(ts=self._now(), agent_id=agent_id, action=action, key_id=key_id)
        ):
            unreached()
        return waiting

    def _may_push(self, fields: dict[str, str]) -> bool:
        told = {name.lower(): value for name, value in fields.items()}
        ours = self._cisco_login
        # Both are compared, whatever the first says.
        name_fits = hmac.compare_digest(told.get("userid", "").encode(), ours[0].encode())
        password_fits = hmac.compare_digest(told.get("password", "").encode(), ours[1].encode())
        return all(ours) and name_fits and password_fits


def own_address(agent: AgentSettings) -> str:
    """The address that an agent's phone has, as the configuration says it."""
    uri = SIP_URI.match(agent.uri)
    host = agent.phone_address or (uri["host"].strip("[]") if uri else "")
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return ""


def tls_context(phones: PhonesSettings) -> ssl.SSLContext | None:
    """For a listener with a certificate; ``None`` for one without.

    Raises:
        SetupError: certificate or key cannot be used, or the key is not private.
    """
    if phones.certificate is None or phones.private_key is None:
        return None
    read_private(phones.private_key, "phones.private_key", SetupError, max_bytes=64 * 1024)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(phones.certificate, phones.private_key, password=_no_password)
    except (OSError, ssl.SSLError) as error:
        raise SetupError(
            f"phones.certificate {phones.certificate} and phones.private_key cannot be used: "
            f"{getattr(error, 'reason', None) or error.strerror}"
        ) from None
    return context


def _no_password() -> str:
    # Without this OpenSSL asks on the terminal.
    raise SetupError("phones.private_key is encrypted: write it without a password, mode 0600")


def start_listener(
    settings: Settings,
    send: Send,
    *,
    cisco_login: tuple[str, str] = ("", ""),
    shown: Shown = lambda agent_id, text: None,
) -> Listener:
    """Listen for phones, as ``[phones]`` says; the running loop serves them.

    Args:
        settings: the node's configuration; ``phones.port`` is set.
        send: hands a press to the notifier; False when it is not there.
        cisco_login: see :class:`Listener`.
        shown: see :class:`Listener`.

    Raises:
        ConfigurationError: nobody could reach it.
        SetupError: the port is taken, or a key or certificate cannot be used.
    """
    listener = Listener(settings, load_tokens(settings), send, cisco_login=cisco_login, shown=shown)
    listener.start()
    return listener
