"""``[mail]``: alerts by e-mail over SMTP; ids and levels only.

The standard library's client, in a thread of its own for each mail: there is at most one at a
time (:attr:`Mail.parallel`), and it says one thing every :attr:`Mail.spacing_s`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import smtplib
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from email.message import EmailMessage
from email.utils import formatdate
from typing import Any

import msgspec
import structlog

from callshield.errors import SetupError
from callshield.private_file import read_private
from callshield.settings import Settings
from callshield.settings_webhooks import MailSettings
from notifier.mail_texts import subject, text
from notifier.outbox import Letter, Undelivered

log = structlog.get_logger()

NAME = "mail"
_FIELDS = ("id", "type", "ts", "alert_id", "call_id", "kind", "level", "stage", "to")


def load_password(settings: MailSettings) -> str:
    """The password of ``mail.username``; empty where there is no login.

    Raises:
        SetupError: there is none, it lies open to others, or is no single line.
    """
    if settings.password_file is None:
        return ""
    password = read_private(settings.password_file, "mail.password_file", SetupError).strip()
    if not password or not password.isascii() or not password.isprintable():
        raise SetupError(
            f"mail.password_file {settings.password_file} must hold one line, the password of "
            "mail.username, in ASCII (what the login of SMTP is made for)"
        )
    return password


class Mail:
    """The mail server; a :class:`notifier.outbox.Channel`.

    Args:
        settings: the node's; ``mail.enabled`` is true.
        clock: seconds since the epoch.

    Raises:
        SetupError: its password or its authorities cannot be had.
    """

    name = NAME
    parallel = 1
    batch = 50

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        mail = settings.mail
        self.queue_limit = mail.queue_limit
        self.spacing_s = mail.spacing_s
        self.give_up_after_s = mail.give_up_after_h * 3600
        self._settings = mail
        self._language = settings.node.language
        self._node = settings.node.name
        self._clock = clock
        self._password = load_password(mail)
        self._context = _authorities(mail)

    def wants(self, kind: str) -> bool:
        """Alerts, raised or escalated."""
        return kind in ("alert.raised", "alert.escalated")

    def content(self, event: Mapping[str, Any]) -> dict[str, Any] | None:
        """Ids, kind and level of what the operator wants mailed."""
        if event["type"] == "alert.raised":
            wanted = event.get("kind") in self._settings.alerts
        else:
            stage = event.get("stage")
            wanted = stage is None or stage in self._settings.escalations
        if not wanted or not self._recipients([event]):
            return None
        return {key: event[key] for key in _FIELDS if key in event}

    def _recipients(self, events: Sequence[Mapping[str, Any]]) -> list[str]:
        people = self._settings.people
        found = list(self._settings.to)
        for event in events:
            found += [people[person] for person in event.get("to", []) if person in people]
        return list(dict.fromkeys(found))

    def message(self, letters: Sequence[Letter]) -> tuple[EmailMessage, list[str]]:
        """One mail about all of them, and who gets it.

        ``Message-ID`` is the same for the same letters, so that a second delivery is known.
        """
        events: list[dict[str, Any]] = [msgspec.json.decode(letter.body) for letter in letters]
        ids = hashlib.sha256("".join(letter.letter_id for letter in letters).encode()).hexdigest()
        recipients = self._recipients(events)
        mail = EmailMessage()
        mail["From"] = self._settings.sender
        # Who else is told concerns nobody.
        mail["To"] = self._settings.sender if len(recipients) != 1 else recipients[0]
        mail["Subject"] = subject(events, self._language, self._node)
        mail["Date"] = formatdate(self._clock(), localtime=True)
        mail["Message-ID"] = f"<{ids[:32]}@{self._settings.sender.rpartition('@')[2]}>"
        mail["Auto-Submitted"] = "auto-generated"  # RFC 3834 section 5: answer nobody
        mail.set_content(text(events, self._language))
        return mail, recipients

    async def send(self, letters: Sequence[Letter]) -> None:
        """Hand the server one mail, or one for each circle of recipients.

        Raises:
            Undelivered: it did not take it, or not in time.
        """
        circles: dict[tuple[str, ...], list[Letter]] = {}
        for letter in letters:
            told = self._recipients([msgspec.json.decode(letter.body)])
            circles.setdefault(tuple(told), []).append(letter)
        for circle in circles.values():
            await self._send(*self.message(circle))

    async def _send(self, mail: EmailMessage, recipients: list[str]) -> None:
        attempt = _Attempt(self._settings, self._password, self._context)
        work = asyncio.create_task(asyncio.to_thread(attempt.run, mail, recipients))
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                refused = await asyncio.shield(work)
        except TimeoutError:
            attempt.abort()
            await asyncio.wait({work})
            # It may have gone through just then.
            if work.exception() is not None:
                raise Undelivered(
                    f"the mail server did not take it in {self._settings.timeout_s:g} s"
                ) from None
            refused = work.result()
        except asyncio.CancelledError:
            attempt.abort()
            await asyncio.wait({work})
            work.exception()
            raise
        except (smtplib.SMTPException, OSError, ValueError) as error:
            raise _undelivered(error) from None
        if refused:
            log.warning("mail_refused_for_some", recipients=refused)

    async def close(self) -> None:
        """Nothing stays open between mails."""


class _Attempt:
    """One connection to the server, in a thread."""

    def __init__(self, settings: MailSettings, password: str, context: ssl.SSLContext) -> None:
        self._settings = settings
        self._password = password
        self._context = context
        self._server: smtplib.SMTP | None = None

    def run(self, mail: EmailMessage, recipients: list[str]) -> int:
        """Returns: how many recipients the server refused, not all."""
        settings = self._settings
        if settings.security == "tls":
            self._server = smtplib.SMTP_SSL(timeout=settings.timeout_s, context=self._context)
        else:
            self._server = smtplib.SMTP(timeout=settings.timeout_s)
        server = self._server
        try:
            # The name that the certificate is checked against.
            server._host = settings.host  # type: ignore[attr-defined]
            server.connect(settings.host, settings.port)
            if settings.security == "starttls":
                server.starttls(context=self._context)
            if settings.username:
                server.login(settings.username, self._password)
            refused = server.send_message(mail, settings.sender, recipients)
        except BaseException:
            server.close()
            raise
        # It has the mail: a server that hangs up at QUIT must not make us send it twice.
        with contextlib.suppress(smtplib.SMTPException, OSError):
            server.quit()
        return len(refused)

    def abort(self) -> None:
        """Break off whatever the thread waits for."""
        with contextlib.suppress(AttributeError, OSError):
            assert self._server is not None
            self._server.sock.shutdown(2)  # type: ignore[union-attr]


def _authorities(settings: MailSettings) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(
            cafile=None if settings.ca_file is None else str(settings.ca_file)
        )
    except (OSError, ssl.SSLError) as error:
        raise SetupError(f"mail.ca_file: {settings.ca_file} cannot be used ({error})") from None


def _undelivered(error: Exception) -> Undelivered:
    """What the server meant, without its words: they may quote addresses."""
    match error:
        case smtplib.SMTPAuthenticationError():
            return Undelivered(f"the mail server refused our login ({error.smtp_code})")
        case smtplib.SMTPRecipientsRefused():
            codes = [code for code, _ in error.recipients.values()]
            permanent = all(500 <= code < 600 for code in codes)
            return Undelivered(
                f"the mail server refused every recipient ({max(codes)})", permanent=permanent
            )
        case smtplib.SMTPResponseException():
            mail_itself = isinstance(error, smtplib.SMTPSenderRefused | smtplib.SMTPDataError)
            return Undelivered(
                f"the mail server answered {error.smtp_code}",
                permanent=mail_itself and 500 <= error.smtp_code < 600,
            )
        case smtplib.SMTPNotSupportedError():
            return Undelivered("the mail server cannot do what mail.security or the login asks for")
        case ssl.SSLCertVerificationError():
            return Undelivered("the mail server's certificate is not vouched for (mail.ca_file)")
        case _:
            return Undelivered(f"no connection to the mail server ({type(error).__name__})")
