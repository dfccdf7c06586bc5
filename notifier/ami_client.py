"""A connection to the PBX's manager interface that stays, and comes back by itself.

The shell round :mod:`notifier.ami_protocol`: TCP or TLS, login by MD5 challenge, a ping with a
deadline, back-off with jitter after a loss. Nothing is queued while the PBX is away: what the PBX
should know is worked out anew when it is there (:mod:`notifier.pbx`), because an old wish may be
wrong by then. Requests beyond :data:`WAITING_LIMIT` are refused and counted.
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import socket
import ssl
import time
from collections.abc import Callable

import structlog

from callshield.errors import AmiError, AmiProtocolError
from callshield.settings import AmiSettings
from notifier.ami_protocol import Answer, Banner, Connection, Event, Fields, Message, login_key

log = structlog.get_logger()

CONNECT_TIMEOUT_S = 5.0
#: One time for every request, a list to its end included.
REQUEST_TIMEOUT_S = 5.0
FIRST_RETRY_S = 0.5
LAST_RETRY_S = 15.0
#: After a refused login: a PBX may lock out whoever tries often.
REFUSED_RETRY_S = 30.0
#: A connection that lived this long was a good one: the next loss is tried again at once.
GOOD_AFTER_S = 10.0
#: Requests under way at the PBX.
AT_ONCE = 16
#: Requests that wait for their turn.
WAITING_LIMIT = 500
#: What the PBX has not read yet; beyond it the connection is given up.
UNREAD_LIMIT_BYTES = 256 * 1024


class AmiAway(AmiError):
    """There is no connection now."""


class AmiBusy(AmiError):
    """:data:`WAITING_LIMIT` requests wait for the PBX already."""


class AmiLate(AmiError):
    """The PBX did not answer in :data:`REQUEST_TIMEOUT_S`."""


class AmiLoginRefused(AmiError):
    """The PBX does not let this user in."""


class AmiClient:
    """The connection, and the requests on it.

    Args:
        settings: ``[ami]``; ``host`` must be given.
        secret: of the user.
        on_up: called after each login.
        on_down: called with a sentence when a connection is lost or cannot be made; also for
            every further try that fails.
        on_event: called with every event, in order; must not block.
    """

    def __init__(
        self,
        settings: AmiSettings,
        secret: str,
        *,
        on_up: Callable[[], None] = lambda: None,
        on_down: Callable[[str], None] = lambda _reason: None,
        on_event: Callable[[Message], None] = lambda _message: None,
    ) -> None:
        self._settings = settings
        self._secret = secret
        self._on_up = on_up
        self._on_down = on_down
        self._on_event = on_event
        self._tag = "cs-" + secrets.token_hex(4)
        self._sessions = 0
        self._protocol = Connection(self._tag)
        self._writer: asyncio.StreamWriter | None = None
        self._answers: dict[str, asyncio.Future[Answer]] = {}
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0
        self._task: asyncio.Task[None] | None = None
        self._banner = asyncio.Event()
        self.connected = False
        """Logged in."""
        self.version = ""
        """What the banner said."""
        self.refused = 0
        """Requests that found too many before them."""

    def start(self) -> None:
        """Begin connecting in the background."""
        self._task = asyncio.create_task(self._run(), name="ami")

    async def close(self) -> None:
        """Stop; nothing is said about it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def request(self, action: str, fields: Fields = ()) -> Answer:
        """Ask the PBX for something.

        Args:
            action: name of the action.
            fields: its headers.

        Returns:
            The answer, which may be a refusal (:attr:`Answer.ok`).

        Raises:
            AmiAway: not connected, or the connection was lost meanwhile.
            AmiBusy: too many wait already; this one is dropped, and counted in :attr:`refused`.
            AmiLate: no answer in time.
            AmiProtocolError: a value cannot be sent.
        """
        if not self.connected:
            raise AmiAway("the PBX's manager interface is not connected")
        if self._waiting >= WAITING_LIMIT:
            self.refused += 1
            log.error("ami_request_refused", action=action, waiting=self._waiting)
            raise AmiBusy(f"{self._waiting} requests wait for the PBX already")
        self._waiting += 1
        session = self._sessions
        try:
            async with self._turns:
                if not self.connected or session != self._sessions:
                    raise AmiAway("the PBX's manager interface was lost meanwhile")
                return await self._ask(action, fields)
        finally:
            self._waiting -= 1

    # -------------------------------------------------------------------------- one connection

    async def _ask(self, action: str, fields: Fields = ()) -> Answer:
        writer = self._writer
        if writer is None or writer.is_closing():
            raise AmiAway("the PBX's manager interface is not connected")
        action_id, data = self._protocol.request(action, fields)
        if writer.transport.get_write_buffer_size() > UNREAD_LIMIT_BYTES:
            writer.transport.abort()
            raise AmiAway("the PBX does not read what it is asked")
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._answers[action_id] = answer
        protocol = self._protocol
        try:
            writer.write(data)
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                return await answer
        except TimeoutError:
            raise AmiLate(
                f"the PBX did not answer {action} within {REQUEST_TIMEOUT_S:g} s"
            ) from None
        finally:
            protocol.forget(action_id)
            self._answers.pop(action_id, None)

    async def _run(self) -> None:
        delay_s, said = FIRST_RETRY_S, ""
        while True:
            began, before = time.monotonic(), self._sessions
            try:
                await self._session()
            except AmiLoginRefused as error:
                reason, delay_s = str(error), REFUSED_RETRY_S
            except (AmiError, AmiProtocolError) as error:
                reason = str(error)
            except ssl.SSLError as error:
                reason = f"TLS with the PBX failed: {error.reason or 'see ami.ca_file'}"
            except TimeoutError:
                reason = "the PBX's manager interface does not answer"
            except socket.gaierror:
                reason = "ami.host is a name that cannot be looked up"
            except OSError as error:
                why = os.strerror(error.errno) if error.errno else type(error).__name__
                reason = f"the PBX's manager interface cannot be reached ({why})"
            except Exception:  # it is the only way to the PBX: say it and try again
                log.exception("ami_failed")
                reason = "the connection to the PBX failed: see the log"
            if reason != said or self._sessions != before:
                log.warning("ami_down", reason=reason)
            said = reason
            self._on_down(reason)
            if time.monotonic() - began > GOOD_AFTER_S:
                delay_s = FIRST_RETRY_S
            # Jitter: after a restart of the PBX its clients must not all come at one moment.
            await asyncio.sleep(delay_s * random.uniform(0.5, 1.0))
            delay_s = min(2 * delay_s, LAST_RETRY_S)

    def _tls(self) -> ssl.SSLContext | None:
        if not self._settings.tls:
            return None
        ca_file = self._settings.ca_file
        try:
            return ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
        except (OSError, ssl.SSLError):
            raise AmiError(f"ami.ca_file {ca_file} cannot be read as PEM") from None

    async def _session(self) -> None:
        """Connect, log in, and stay until something ends it; raises what that was."""
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(
                self._settings.host, self._settings.port, ssl=self._tls()
            )
        self._sessions += 1
        self._protocol = Connection(f"{self._tag}-{self._sessions}")
        self._writer = writer
        self._banner.clear()
        reading = asyncio.create_task(self._read(reader))
        living = asyncio.create_task(self._live())
        try:
            done, _ = await asyncio.wait({reading, living}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            self.connected = False
            self._writer = None
            for task in (reading, living):
                task.cancel()
            await asyncio.gather(reading, living, return_exceptions=True)
            lost = AmiAway("the PBX's manager interface was lost before it answered")
            for answer in self._answers.values():
                if not answer.done():
                    answer.set_exception(lost)
            writer.transport.abort()

    async def _live(self) -> None:
        async with asyncio.timeout(REQUEST_TIMEOUT_S):
            await self._banner.wait()
        challenge = await self._ask("Challenge", [("AuthType", "MD5")])
        if not challenge.ok or not challenge.response.get("Challenge"):
            raise AmiLoginRefused("the PBX offers no MD5 challenge: its secret is not sent without")
        answer = await self._ask(
            "Login",
            [
                ("AuthType", "MD5"),
                ("Username", self._settings.username),
                ("Key", login_key(challenge.response.get("Challenge"), self._secret)),
            ],
        )
        if not answer.ok:
            raise AmiLoginRefused(
                "the PBX refuses the login: compare ami.username and the secret with its "
                "manager.conf, and its permit lines with our address"
            )
        self.connected = True
        log.info("ami_up", version=self.version)
        self._on_up()
        while True:
            await asyncio.sleep(self._settings.ping_s)
            if not (await self._ask("Ping")).ok:
                raise AmiError("the PBX does not answer a ping as it should")

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while True:
            data = await reader.read(64 * 1024)
            if not data:
                raise AmiAway(
                    "the PBX closed its manager interface: if it does so each time, its permit "
                    "lines do not name the address from which this machine connects"
                )
            for happening in self._protocol.receive(data):
                match happening:
                    case Banner(version):
                        self.version = version
                        self._banner.set()
                    case Event(message):
                        self._tell(message)
                    case Answer():
                        answer = self._answers.get(happening.action_id)
                        if answer is not None and not answer.done():
                            answer.set_result(happening)

    def _tell(self, message: Message) -> None:
        if not self.connected:
            return  # before on_up, after which everything is asked for anyway
        try:
            self._on_event(message)
        except Exception:  # one event must not cost the connection
            log.exception("ami_event_failed", ami_event=message.event[:40])
