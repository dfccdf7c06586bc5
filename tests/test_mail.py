"""Mail to a real SMTP server: ids and levels only, in the node's language, and never lost."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope, LoginPassword

from callshield.errors import ConfigurationError, SetupError
from callshield.settings import load_settings
from callshield.settings_webhooks import MailSettings
from notifier import outbox
from notifier.mail import Mail
from notifier.mail_texts import subject, text
from notifier.outbox import Letter, Undelivered
from tests.mentions import mentioned
from tests.notifier_kit import WITHIN_S, desk_in_process, free_port, write_config
from tests.test_webhooks import make_certificate

PASSWORD = "a pass word"


class Box:
    """What the server took, and what it answers."""

    def __init__(self) -> None:
        self.mails: list[Envelope] = []
        self.answer = "250 OK"
        self.refused: set[str] = set()
        self.logins: list[str] = []

    async def handle_RCPT(
        self, server: Any, session: Any, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address in self.refused:
            return "550 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Envelope) -> str:
        if self.answer.startswith("250"):
            self.mails.append(envelope)
        return self.answer

    def authenticate(
        self, server: Any, session: Any, envelope: Any, mechanism: str, data: Any
    ) -> AuthResult:
        assert isinstance(data, LoginPassword)
        self.logins.append(data.login.decode())
        good = data.password == PASSWORD.encode()
        return AuthResult(success=good, handled=good)

    def messages(self) -> list[EmailMessage]:
        found = []
        for envelope in self.mails:
            assert isinstance(envelope.content, bytes)
            parsed = message_from_bytes(envelope.content, policy=policy.default)
            assert isinstance(parsed, EmailMessage)
            found.append(parsed)
        return found

    async def until(self, count: int) -> list[EmailMessage]:
        async with asyncio.timeout(WITHIN_S):
            while len(self.mails) < count:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        return self.messages()


class Server(Controller):
    """aiosmtpd in its own thread, on a port that was free a moment ago."""

    def __init__(self, box: Box, **options: Any) -> None:
        # Its thread may have to wait for its turn on a busy machine.
        options["ready_timeout"] = WITHIN_S
        super().__init__(box, hostname="127.0.0.1", port=free_port(), **options)


@pytest.fixture
def box() -> Box:
    return Box()


@pytest.fixture
def server(box: Box) -> Iterator[Server]:
    running = Server(box)
    running.start()
    yield running
    running.stop()


def _table(port: int, *lines: str) -> str:
    return "\n".join(
        [
            "[mail]",
            'host = "127.0.0.1"',
            f"port = {port}",
            'security = "none"',
            'sender = "callshield@example.com"',
            'to = ["duty@example.com"]',
            "spacing_s = 0",
            *lines,
        ]
    )


def _mail(folder: Path, port: int, *lines: str) -> Mail:
    return Mail(load_settings(write_config(folder, free_port(), _table(port, *lines))))


def _letter(number: int = 1, **fields: Any) -> Letter:
    event = {
        "id": number,
        "type": "alert.raised",
        "ts": 1763800000.0,
        "alert_id": f"{number:032x}",
        "call_id": "c" * 32,
        "kind": "help",
        "level": 2,
        **fields,
    }
    return Letter(f"{number:032x}", "mail", number, event["type"], 1763800000.0, json.dumps(event))


async def test_a_call_for_help_is_mailed_with_ids_and_level_alone(
    tmp_path: Path, box: Box, server: Server
) -> None:
    async with desk_in_process(tmp_path, _table(server.port)) as desk, desk.bridge() as bridge:
        call_id = bridge.start_call()
        bridge.words(call_id, 3, "이 새끼")  # an alert of kind risk, which nobody wants mailed
        async with desk.console(desk.agent, 0) as console:
            await console.until("alert.raised", level=3)
        async with desk.http(desk.agent) as http:
            answer = await http.post(f"/api/v1/calls/{call_id}/actions", json={"action": "help"})
            alert_id = answer.json()["alert_id"]
        [mail] = await box.until(1)
    assert mail["To"] == "duty@example.com"
    assert mail["From"] == "callshield@example.com"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail["Subject"] == "[Callshield node-1] 관리자 호출 (심각)"
    body = mail.get_content()
    assert alert_id in body
    assert call_id in body
    whole = mail.as_string() + body
    for secret in ("새끼", "1763.42", "profanity"):
        assert secret not in whole
    # Ids and times of a mail may hold anybody's digits: the agent is named by none of its own.
    assert not mentioned("1001", whole)
    assert len(box.mails) == 1


@pytest.mark.parametrize("language", ["ko", "en", "zh", "ja"])
def test_every_language_has_every_text(language: str) -> None:
    events = [
        {"type": "alert.raised", "ts": 1.0, "kind": kind, "level": level, "alert_id": "a"}
        for kind in ("risk", "help", "crisis", "notice_failed", "node", "?")
        for level in (0, 1, 2, 3)
    ]
    events += [
        {"type": "alert.escalated", "ts": 1.0, "kind": "help", "level": 1, "stage": stage}
        for stage in ("person", "all", "manager", "nobody", "?")
    ]
    lines = {subject([event], language, "n") for event in events}
    assert len(lines) == len(events), "each says something of its own"
    assert all(text([event], language) for event in events)
    assert "28" in subject(events, language, "n")


async def test_what_comes_together_goes_in_one_mail(
    tmp_path: Path, box: Box, server: Server
) -> None:
    mail = _mail(tmp_path, server.port)
    await mail.send([_letter(1), _letter(2), _letter(3)])
    [one] = box.messages()
    assert "외 2건" in one["Subject"]
    for number in (1, 2, 3):
        assert f"{number:032x}" in one.get_content()


async def test_an_escalation_goes_to_the_person_it_is_for_and_nobody_learns_of_others(
    tmp_path: Path, box: Box, server: Server
) -> None:
    mail = _mail(
        tmp_path,
        server.port,
        'escalations = ["person", "nobody"]',
        '[mail.people]\nkim = "kim@example.com"\nlee = "lee@example.com"',
    )
    base = {"type": "alert.escalated", "ts": 1.0, "alert_id": "a" * 32, "call_id": "c" * 32}
    assert mail.content({**base, "stage": "manager", "to": ["kim"]}) is None
    told = [
        mail.content({**base, "stage": "person", "to": ["kim"], "agent_id": "1001"}),
        mail.content({**base, "stage": "nobody", "to": []}),
    ]
    assert all(one is not None and "agent_id" not in one for one in told)
    await mail.send(
        [
            Letter(f"{n:032x}", "mail", n, "alert.escalated", 1.0, json.dumps(one))
            for n, one in enumerate(told)
        ]
    )
    assert [envelope.rcpt_tos for envelope in box.mails] == [
        ["duty@example.com", "kim@example.com"],
        ["duty@example.com"],
    ]
    assert box.messages()[0]["To"] == "callshield@example.com"


async def test_a_mail_server_that_is_away_gets_it_later(
    tmp_path: Path, box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "FIRST_RETRY_S", 0.05)
    monkeypatch.setattr(outbox, "LONGEST_RETRY_S", 0.2)
    server = Server(box)
    table = _table(server.port, 'alerts = ["risk"]')
    async with (
        desk_in_process(tmp_path, table) as desk,
        desk.bridge() as bridge,
        desk.console(desk.supervisor) as console,
    ):
        bridge.risk(bridge.start_call(), 3)
        down = await console.until("node.degraded", component="mail", degraded=True)
        assert "no connection to the mail server" in down["reason"]
        server.start()
        try:
            await box.until(1)
            await console.until("node.degraded", component="mail", degraded=False)
        finally:
            server.stop()


@pytest.mark.parametrize(
    ("answer", "permanent"), [("451 later", False), ("554 not this one", True)]
)
async def test_the_servers_word_decides_whether_it_is_tried_again(
    tmp_path: Path, box: Box, server: Server, answer: str, permanent: bool
) -> None:
    box.answer = answer
    with pytest.raises(Undelivered) as failed:
        await _mail(tmp_path, server.port).send([_letter()])
    assert failed.value.permanent is permanent
    assert answer[:3] in failed.value.reason
    assert answer[4:] not in failed.value.reason


async def test_one_refused_mailbox_of_two_is_no_failure_and_two_are(
    tmp_path: Path, box: Box, server: Server
) -> None:
    mail = _mail(tmp_path, server.port, '[mail.people]\nkim = "kim@example.com"')
    escalated = _letter(type="alert.escalated", to=["kim"], stage="nobody")
    box.refused = {"kim@example.com"}
    await mail.send([escalated])
    assert box.mails[0].rcpt_tos == ["duty@example.com"]
    box.refused.add("duty@example.com")
    with pytest.raises(Undelivered, match="every recipient") as failed:
        await mail.send([escalated])
    assert failed.value.permanent
    assert "example.com" not in failed.value.reason


async def test_a_server_that_says_nothing_does_not_hold_us(tmp_path: Path) -> None:
    silent = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    mail = _mail(tmp_path, port, "timeout_s = 0.3")
    with pytest.raises(Undelivered, match=r"0\.3 s|no connection"):
        async with asyncio.timeout(WITHIN_S):
            await mail.send([_letter()])
    silent.close()


@pytest.fixture
async def secured(
    tmp_path: Path, box: Box, request: pytest.FixtureRequest
) -> AsyncIterator[tuple[Server, str]]:
    pem, context = make_certificate(tmp_path, "127.0.0.1")
    options: dict[str, Any] = {
        "authenticator": box.authenticate,
        "auth_required": True,
        "auth_require_tls": True,
    }
    if request.param == "tls":
        # aiosmtpd takes a connection that is TLS from the start for an open one.
        options |= {"ssl_context": context, "auth_require_tls": False}
    else:
        options |= {"tls_context": context, "require_starttls": True}
    server = Server(box, **options)
    server.start()
    secret = tmp_path / "mail.password"
    secret.write_text(PASSWORD + "\n")
    secret.chmod(0o600)
    more = f'security = "{request.param}"\nusername = "node"\npassword_file = "{secret}"'
    yield server, more + f'\nca_file = "{pem}"'
    server.stop()


@pytest.mark.parametrize("secured", ["starttls", "tls"], indirect=True)
async def test_login_over_tls_to_a_certificate_that_is_vouched_for(
    tmp_path: Path, box: Box, secured: tuple[Server, str]
) -> None:
    server, lines = secured
    table = _table(server.port).replace('security = "none"\n', "")
    settings = load_settings(write_config(tmp_path, free_port(), f"{table}\n{lines}"))
    await Mail(settings).send([_letter()])
    assert box.logins == ["node"]
    assert len(box.mails) == 1
    other, _ = make_certificate(tmp_path, "127.0.0.2")
    wrong = settings.mail.model_copy(update={"ca_file": other})
    with pytest.raises(Undelivered, match="not vouched for"):
        await Mail(settings.model_copy(update={"mail": wrong})).send([_letter()])
    (tmp_path / "mail.password").write_text("wrong")
    with pytest.raises(Undelivered, match="refused our login"):
        await Mail(settings).send([_letter()])
    assert len(box.mails) == 1


def test_mail_that_would_go_open_or_to_nobody_is_refused(tmp_path: Path) -> None:
    def fails(*lines: str) -> str:
        with pytest.raises(ConfigurationError) as refused:
            load_settings(write_config(tmp_path, free_port(), "[mail]\n" + "\n".join(lines)))
        return str(refused.value)

    host = 'host = "192.0.2.25"\nsender = "a@example.com"'
    assert "to = [addresses]" in fails(host)
    assert "allow_plain" in fails(host, 'to = ["b@example.com"]', 'security = "none"')
    assert "password_file" in fails(host, 'to = ["b@example.com"]', 'username = "x"')
    for address in ("b", "b@example.com\\nBcc: c@example.com", "b@x, c@x", "<b@example.com>"):
        assert "a mail address" in fails(host, f'to = ["{address}"]')
    assert "a mail address" in fails('host = "x"', 'to = ["b@example.com"]')


def test_a_password_that_others_can_read_is_refused(tmp_path: Path) -> None:
    secret = tmp_path / "mail.password"
    secret.write_text(PASSWORD)
    secret.chmod(0o640)
    table = _table(1, 'username = "x"', f'password_file = "{secret}"')
    settings = load_settings(write_config(tmp_path, free_port(), table))
    with pytest.raises(SetupError, match="chmod 600"):
        Mail(settings)
    assert MailSettings().enabled is False
