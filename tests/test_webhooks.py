"""Webhooks: signed, at least once, in time again, nothing inside told, nothing lost."""

from __future__ import annotations

import asyncio
import base64
import datetime
import hashlib
import hmac
import ipaddress
import json
import secrets
import signal
import ssl
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from callshield import doctor_delivery
from callshield.errors import CallshieldError, SetupError
from callshield.settings import load_settings
from callshield.settings_webhooks import WebhookSettings
from callshield.webhooks_command import webhooks_drop, webhooks_retry
from notifier import outbox
from notifier.outbox import Letter, Undelivered
from notifier.outside import told
from notifier.tokens import create_token
from notifier.webhooks import Webhook, load_secrets, payload, signature
from tests.notifier_kit import WITHIN_S, Desk, Process, desk_in_process, write_config
from tests.receiver import Received, Receiver, receiver

KEY = secrets.token_bytes(32)


def _secret_file(folder: Path, *keys: bytes) -> Path:
    path = folder / "webhook.secret"
    lines = ["whsec_" + base64.b64encode(key).decode() for key in keys or (KEY,)]
    path.write_text("\n".join(lines) + "\n")
    path.chmod(0o600)
    return path


def webhook_table(folder: Path, far_end: Receiver, *lines: str) -> str:
    """``[webhooks.crm]`` with a secret of its own, to this receiver; one letter an alert unless the
    lines say otherwise."""
    if not any(line.startswith("events") for line in lines):
        lines = (*lines, 'events = ["alert.raised"]')
    return "\n".join(
        [
            "[webhooks.crm]",
            f'url = "http://127.0.0.1:{far_end.port}/callshield"',
            f'secret_file = "{_secret_file(folder)}"',
            *lines,
        ]
    )


def _genuine(request: Received, key: bytes = KEY) -> bool:
    """As a receiver checks it: by the published description, not by our own function."""
    signed = b".".join(
        [
            request.headers["webhook-id"].encode(),
            request.headers["webhook-timestamp"].encode(),
            request.body,
        ]
    )
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return f"v1,{expected}" in request.headers["webhook-signature"].split()


def _letter(**fields: Any) -> Letter:
    body = json.dumps({"id": 7, "type": "alert.raised", **fields})
    return Letter("ab" * 16, "webhook:crm", 7, "alert.raised", 1763.25, body)


def _hook(folder: Path, far_end: Receiver, **more: Any) -> Webhook:
    settings = WebhookSettings(
        url=f"http://127.0.0.1:{far_end.port}/x",
        secret_file=_secret_file(folder),
        **more,
    )
    return Webhook("crm", settings, "node-1")


def test_the_signature_is_that_of_the_published_example() -> None:
    """The example of the Standard Webhooks' own libraries."""
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    found = signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert found == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


async def test_an_alert_arrives_signed_and_without_words(tmp_path: Path) -> None:
    async with receiver() as far_end:
        table = webhook_table(
            tmp_path, far_end, 'events = ["alert.raised", "risk.changed", "call.ended"]'
        )
        async with desk_in_process(tmp_path, table) as desk, desk.bridge() as bridge:
            call_id = bridge.start_call()
            bridge.words(call_id, 3, "이 새끼")
            bridge.end_call(call_id)
            got = await far_end.until(3)
            assert all(_genuine(request) for request in got)
            by_type = {request.event["type"]: request for request in got}
            assert by_type.keys() == {"risk.changed", "alert.raised", "call.ended"}
            raised = by_type["alert.raised"].event
            assert (raised["call_id"], raised["kind"], raised["level"]) == (call_id, "risk", 3)
            assert raised["agent_id"] == "1001"
            assert by_type["alert.raised"].path == "/callshield"
            assert all("새끼" not in request.body.decode() for request in got)
            assert "reasons" not in by_type["risk.changed"].event
            body = json.loads(by_type["alert.raised"].body)
            assert body["node"] == "node-1"
            assert body["timestamp"].endswith("Z")
            assert len({request.letter_id for request in got}) == 3


async def test_a_changed_body_or_another_key_is_no_genuine_letter(tmp_path: Path) -> None:
    """Negative control of what the tests above believe."""
    async with receiver() as far_end:
        hook = _hook(tmp_path, far_end)
        await hook.send([_letter()])
        await hook.close()
        [request] = far_end.got
        assert _genuine(request)
        assert not _genuine(request, secrets.token_bytes(32))
        assert not _genuine(Received(request.path, request.headers, request.body + b" "))
        later = {**request.headers, "webhook-timestamp": "1"}
        assert not _genuine(Received(request.path, later, request.body))


async def test_while_a_secret_is_changed_both_sign(tmp_path: Path) -> None:
    new = secrets.token_bytes(32)
    async with receiver() as far_end:
        settings = WebhookSettings(
            url=f"http://127.0.0.1:{far_end.port}/x", secret_file=_secret_file(tmp_path, new, KEY)
        )
        hook = Webhook("crm", settings, "node-1")
        await hook.send([_letter()])
        await hook.close()
        assert _genuine(far_end.got[0], new)
        assert _genuine(far_end.got[0], KEY)


async def test_a_far_end_that_fails_is_asked_again_with_the_same_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "FIRST_RETRY_S", 0.05)
    async with receiver() as far_end:
        far_end.answer = lambda request: (200, {}) if len(far_end.got) >= 4 else (500, {})
        async with (
            desk_in_process(tmp_path, webhook_table(tmp_path, far_end)) as desk,
            desk.bridge() as bridge,
            desk.console(desk.supervisor) as console,
        ):
            bridge.risk(bridge.start_call(), 3)
            got = await far_end.until(5)
            assert len({request.letter_id for request in got}) == 1
            assert len({request.body for request in got}) == 1
            # After three failures the node said so, and after the success that it is over.
            down = await console.until("node.degraded", component="webhook:crm", degraded=True)
            assert down["reason"] == "the far end answered 500"
            await console.until("node.degraded", component="webhook:crm", degraded=False)
            await until_counts(desk, waiting=0, dead=0)


async def until_counts(desk: Desk, **wanted: int) -> dict[str, Any]:
    """Wait until the one channel has so many letters ``waiting`` or ``dead``."""
    admin = await asyncio.to_thread(create_token, desk.settings, "admin", "it")
    async with asyncio.timeout(WITHIN_S), desk.http(admin) as http:
        while True:
            answer = (await http.get("/api/v1/deliveries")).json()
            [channel] = answer["channels"]
            if all(channel[key] == count for key, count in wanted.items()):
                found: dict[str, Any] = answer
                return found
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("answer", "permanent", "reason"),
    [
        ((302, {"Location": "http://127.0.0.2/"}), False, "redirect"),
        ((307, {"Location": "/callshield/elsewhere"}), False, "redirect"),
        ((404, {}), False, "404"),
        ((410, {}), True, "410"),
        ((503, {"Retry-After": "77"}), False, "503"),
        (None, False, "no answer within 0.3 s"),
    ],
)
async def test_what_is_no_success_is_a_failure(
    tmp_path: Path, answer: tuple[int, dict[str, str]] | None, permanent: bool, reason: str
) -> None:
    async with receiver() as far_end:
        far_end.answer = lambda request: answer
        # Who answers at once has time for it, also on a machine that stands still for a moment.
        hook = _hook(tmp_path, far_end, timeout_s=0.3 if answer is None else 30.0)
        with pytest.raises(Undelivered) as failed:
            await hook.send([_letter()])
        await hook.close()
        assert failed.value.permanent is permanent
        assert reason in failed.value.reason
        assert "127.0.0" not in failed.value.reason, "the address may be a secret"
        if answer == (503, {"Retry-After": "77"}):
            assert failed.value.retry_after_s == 77.0
        assert len(far_end.got) == 1, "no redirect was followed"


async def test_a_far_end_that_drips_its_answer_does_not_hold_us(tmp_path: Path) -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
            while True:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.02)
        except ConnectionError:
            writer.close()

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    settings = WebhookSettings(
        url=f"http://127.0.0.1:{port}/x", secret_file=_secret_file(tmp_path), timeout_s=0.3
    )
    hook = Webhook("crm", settings, "node-1")
    began = time.monotonic()
    with pytest.raises(Undelivered):
        await hook.send([_letter()])
    assert time.monotonic() - began < WITHIN_S / 2
    await hook.close()
    server.close()


async def test_kill_9_loses_no_letter(tmp_path: Path) -> None:
    """The far end is away, the node is killed, both come back: everything arrives."""
    async with receiver() as far_end:
        port = far_end.port
        notifier = Process(tmp_path, webhook_table(tmp_path, far_end))
        await far_end.stop()
        await notifier.start()
        try:
            async with notifier.desk.bridge() as bridge:
                async with notifier.desk.console(notifier.desk.supervisor) as console:
                    calls = [bridge.start_call() for _ in range(5)]
                    for call_id in calls:
                        bridge.risk(call_id, 3)
                    for _ in calls:
                        await console.until("alert.raised")
                assert await notifier.end(signal.SIGKILL) == -signal.SIGKILL
                await far_end.start(port=port)
                await notifier.start()
                got = await far_end.until(5)
                assert {request.event["call_id"] for request in got} == set(calls)
                await until_counts(notifier.desk, waiting=0, dead=0)
        finally:
            await notifier.end(signal.SIGTERM)


DIES_AFTER_SENDING = """
    import os, signal, sys
    from notifier.outbox_store import OutboxStore
    from notifier.process import main

    async def die(self, letters):
        os.kill(os.getpid(), signal.SIGKILL)

    OutboxStore.delivered = die
    main()
"""


async def test_killed_between_sending_and_noting_it_sends_again_with_the_same_id(
    tmp_path: Path,
) -> None:
    async with receiver() as far_end:
        notifier = Process(tmp_path, webhook_table(tmp_path, far_end))
        await notifier.start(sys.executable, "-c", textwrap.dedent(DIES_AFTER_SENDING))
        async with notifier.desk.bridge() as bridge:
            bridge.risk(bridge.start_call(), 3)
            await far_end.until(1)
            async with asyncio.timeout(WITHIN_S):
                assert notifier.process is not None
                await notifier.process.wait()
            await notifier.start()
            try:
                got = await far_end.until(2)
                assert len({request.letter_id for request in got}) == 1
            finally:
                await notifier.end(signal.SIGTERM)


async def test_a_full_queue_leaves_the_rest_in_the_record_and_tells_it_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "FIRST_RETRY_S", 0.05)
    monkeypatch.setattr(outbox, "LONGEST_RETRY_S", 0.2)
    async with receiver() as far_end:
        far_end.answer = lambda request: (500, {})
        table = webhook_table(tmp_path, far_end, "queue_limit = 3", 'events = ["alert.raised"]')
        async with desk_in_process(tmp_path, table) as desk, desk.bridge() as bridge:
            calls = [bridge.start_call() for _ in range(20)]
            for call_id in calls:
                bridge.risk(call_id, 3)
            await far_end.until(10)
            await until_counts(desk, waiting=3)
            assert len({request.letter_id for request in far_end.got}) == 3
            far_end.got.clear()
            far_end.answer = lambda request: (200, {})
            async with asyncio.timeout(WITHIN_S):
                while {r.event["call_id"] for r in far_end.got} != set(calls):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            await until_counts(desk, waiting=0, dead=0)


async def test_dead_letters_are_shown_retried_and_dropped_by_admins_alone(tmp_path: Path) -> None:
    async with receiver() as far_end:
        far_end.answer = lambda request: (410, {})
        async with (
            desk_in_process(tmp_path, webhook_table(tmp_path, far_end)) as desk,
            desk.bridge() as bridge,
        ):
            bridge.risk(bridge.start_call(), 3)
            bridge.risk(bridge.start_call(), 3)
            answer = await until_counts(desk, dead=2)
            first, second = answer["letters"]
            assert first["failure"] == "the far end answered 410"
            assert first["attempts"] == 1
            for token in (desk.agent, desk.supervisor):
                async with desk.http(token) as http:
                    assert (await http.get("/api/v1/deliveries")).status_code == 403
                    path = f"/api/v1/deliveries/{first['letter_id']}"
                    assert (await http.post(f"{path}/drop")).status_code == 403
                    assert (await http.post(f"{path}/retry")).status_code == 403
            far_end.answer = lambda request: (200, {})
            admin = await asyncio.to_thread(create_token, desk.settings, "admin", "it")
            async with desk.http(admin) as http:
                path = f"/api/v1/deliveries/{first['letter_id']}"
                assert (await http.post(f"{path}/retry")).status_code == 200
                await until_counts(desk, waiting=0, dead=1)
                assert far_end.got[-1].letter_id == first["letter_id"]
                assert (await http.post(f"{path}/retry")).status_code == 404
                path = f"/api/v1/deliveries/{second['letter_id']}"
                assert (await http.post(f"{path}/drop")).status_code == 200
                await until_counts(desk, waiting=0, dead=0)


async def test_the_command_line_retries_while_the_node_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with receiver() as far_end:
        far_end.answer = lambda request: (410, {})
        async with (
            desk_in_process(tmp_path, webhook_table(tmp_path, far_end)) as desk,
            desk.bridge() as bridge,
        ):
            config = tmp_path / "callshield.toml"
            bridge.risk(bridge.start_call(), 3)
            await until_counts(desk, dead=1)
            far_end.answer = lambda request: (200, {})
            await asyncio.to_thread(webhooks_retry, "", True, "webhook:crm", config)
            assert capsys.readouterr().out.endswith("1 to be sent again\n")
            await until_counts(desk, waiting=0, dead=0)
            with pytest.raises(CallshieldError, match="webhooks list"):
                await asyncio.to_thread(webhooks_drop, "", True, "", config)
            with pytest.raises(CallshieldError, match="one letter"):
                webhooks_drop("", False, "", config)


# ---------------------------------------------------------------------------------------- TLS


def make_certificate(folder: Path, host: str) -> tuple[Path, ssl.SSLContext]:
    """A self-signed certificate for an address, and a server's context with it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))]), False
        )
        .sign(key, hashes.SHA256())
    )
    pem = folder / f"{host}.pem"
    pem.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return pem, context


async def test_https_only_to_a_certificate_that_is_vouched_for(tmp_path: Path) -> None:
    pem, context = make_certificate(tmp_path, "127.0.0.1")
    other, _ = make_certificate(tmp_path, "127.0.0.2")
    async with receiver(context) as far_end:
        for ca_file, good in ((pem, True), (other, False), (None, False)):
            settings = WebhookSettings(
                url=f"https://127.0.0.1:{far_end.port}/x",
                secret_file=_secret_file(tmp_path),
                ca_file=ca_file,
            )
            hook = Webhook("crm", settings, "node-1")
            if good:
                await hook.send([_letter()])
            else:
                with pytest.raises(Undelivered, match="not vouched for"):
                    await hook.send([_letter()])
            await hook.close()
        assert len(far_end.got) == 1


# ------------------------------------------------------------------------------ configuration


@pytest.mark.parametrize(
    "url",
    [
        "http://crm.example.com/x",
        "http://192.0.2.7/x",
        "https://user:word@crm.example.com/",
        "https://crm.example.com/#x",
        "ftp://crm.example.com/",
        "https:///x",
        "https://crm.example.com:99999/",
        "https://crm.example.com/ x",
    ],
)
def test_addresses_that_are_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(ValueError, match="https"):
        WebhookSettings(url=url, secret_file=tmp_path / "s")


@pytest.mark.parametrize(
    "url", ["https://crm.example.com/x?y=1", "http://localhost:8/x", "http://[::1]:8/x"]
)
def test_addresses_that_are_taken(tmp_path: Path, url: str) -> None:
    assert WebhookSettings(url=url, secret_file=tmp_path / "s").url == url
    open_way = WebhookSettings(
        url="http://192.0.2.7/x", secret_file=tmp_path / "s", allow_http=True
    )
    assert open_way.allow_http


def test_a_secret_that_others_can_read_or_that_is_short_is_refused(tmp_path: Path) -> None:
    path = _secret_file(tmp_path)
    settings = WebhookSettings(url="https://crm.example.com/", secret_file=path)
    assert load_secrets("crm", settings) == [KEY]
    path.chmod(0o644)
    with pytest.raises(SetupError, match="chmod 600"):
        load_secrets("crm", settings)
    path.chmod(0o600)
    for text in ("", "whsec_short\n", base64.b64encode(b"x" * 23).decode(), "not base64!\n" * 2):
        path.write_text(text)
        with pytest.raises(SetupError, match="openssl rand"):
            load_secrets("crm", settings)
    path.unlink()
    with pytest.raises(SetupError, match=r"webhooks\.crm\.secret_file"):
        load_secrets("crm", settings)


async def test_types_that_only_the_agent_sees_cannot_be_asked_for(tmp_path: Path) -> None:
    for kind in ("warning.played", "ear.dose", "alert.judged", "recording.changed"):
        settings = WebhookSettings(
            url="https://crm.example.com/", secret_file=_secret_file(tmp_path), events=[kind]
        )
        with pytest.raises(SetupError, match=kind):
            Webhook("crm", settings, "node-1")
    # Nor do they come in with their family.
    family = WebhookSettings(
        url="https://crm.example.com/", secret_file=_secret_file(tmp_path), events=["alert.*"]
    )
    hook = Webhook("crm", family, "node-1")
    assert hook.wants("alert.raised")
    assert not hook.wants("alert.judged")


def test_what_machines_are_told_of_the_agent_is_what_they_must_act_upon() -> None:
    rest = {
        "id": 3,
        "type": "rest.changed",
        "ts": 1.0,
        "agent_id": "1001",
        "call_id": "0" * 32,
        "state": "resting",
        "until_ts": 2.0,
        "reason": "ended",
        "by": "",
    }
    assert told(rest) == {
        "id": 3,
        "type": "rest.changed",
        "ts": 1.0,
        "agent_id": "1001",
        "state": "resting",
        "until_ts": 2.0,
    }
    assert told({"id": 1, "type": "warning.played", "ts": 1.0, "grade": 2}) is None
    refused = told({"id": 1, "type": "alert.refused", "ts": 1.0, "by": "kim", "reason": "회의"})
    assert refused is not None
    assert "reason" not in refused


def test_doctor_tells_where_letters_go_and_what_is_missing(tmp_path: Path) -> None:
    secret = _secret_file(tmp_path)
    table = f'[webhooks.crm]\nurl = "https://crm.example.com/s3cret"\nsecret_file = "{secret}"\n'
    mail = '[mail]\nhost = "mail.example.com"\nsender = "a@example.com"\nto = ["b@example.com"]\n'
    settings = load_settings(write_config(tmp_path, 8099, table + mail))
    told = doctor_delivery.webhooks(settings)
    assert "crm to https://crm.example.com" in told
    assert "s3cret" not in told, "the path of an address is often a secret"
    assert doctor_delivery.mail(settings).startswith("mail.example.com:587, STARTTLS")
    secret.unlink()
    with pytest.raises(SetupError, match="openssl rand"):
        doctor_delivery.webhooks(settings)
    off = load_settings(write_config(tmp_path, 8099))
    assert (doctor_delivery.webhooks(off), doctor_delivery.mail(off)) == ("off", "off")


async def test_a_secret_that_is_missing_stops_the_start_with_one_sentence(tmp_path: Path) -> None:
    table = f'[webhooks.crm]\nurl = "https://crm.example.com/"\nsecret_file = "{tmp_path / "no"}"\n'
    config = write_config(tmp_path, 8099, table)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "notifier.process", "--config", str(config)),
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    assert process.returncode == 2
    assert "webhooks.crm.secret_file" in said.decode()
    assert len(said.decode().strip().splitlines()) == 1
    assert load_settings(config).webhooks["crm"].events


def test_the_body_is_the_same_at_every_attempt() -> None:
    letter = _letter(level=3)
    assert payload(letter, "node-1") == payload(letter, "node-1")
    assert json.loads(payload(letter, "node-1"))["timestamp"] == "1970-01-01T00:29:23.250Z"
