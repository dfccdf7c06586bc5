"""The connection to the PBX: login, loss, return, and a PBX that refuses, hangs or lies."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from pathlib import Path

import pytest

from callshield.errors import SetupError
from callshield.settings import AmiSettings
from notifier import ami_client
from notifier.ami_client import AmiAway, AmiBusy, AmiClient, AmiLate
from notifier.ami_protocol import Message
from notifier.ami_secret import VARIABLE, load_secret
from tests.ami_double import AmiDouble

WITHIN_S = 60.0


class Watched:
    """A client with what it said."""

    def __init__(self, double: AmiDouble, secret: str = "", **settings: object) -> None:
        self.ups = 0
        self.downs: list[str] = []
        self.events: list[Message] = []
        self._changed = asyncio.Event()
        values = {"host": double.host, "port": double.port, "ping_s": 1, **settings}
        self.client = AmiClient(
            AmiSettings.model_validate(values),
            secret or double.secret,
            on_up=self._up,
            on_down=self._down,
            on_event=self._event,
        )

    def _up(self) -> None:
        self.ups += 1
        self._changed.set()

    def _down(self, reason: str) -> None:
        self.downs.append(reason)
        self._changed.set()

    def _event(self, message: Message) -> None:
        self.events.append(message)
        self._changed.set()

    async def until(self, *, ups: int = 0, downs: int = 0, events: int = 0) -> None:
        async with asyncio.timeout(WITHIN_S):
            while self.ups < ups or len(self.downs) < downs or len(self.events) < events:
                self._changed.clear()
                await self._changed.wait()

    async def __aenter__(self) -> Watched:
        self.client.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ami_client, "FIRST_RETRY_S", 0.05)
    monkeypatch.setattr(ami_client, "REQUEST_TIMEOUT_S", WITHIN_S)
    monkeypatch.setattr(ami_client, "REFUSED_RETRY_S", 0.1)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a PBX that does not answer; one that does may be slow, as this machine is."""
    monkeypatch.setattr(ami_client, "REQUEST_TIMEOUT_S", 1.0)


async def test_it_logs_in_without_saying_the_secret_and_asks() -> None:
    async with AmiDouble() as pbx, Watched(pbx) as watched:
        await watched.until(ups=1)
        assert watched.client.version == "7.0.3"
        assert (await watched.client.request("Ping")).response.get("Ping") == "Pong"
        answer = await watched.client.request("QueuePause", [("Interface", "nobody")])
        assert (answer.ok, answer.text) == (False, "Interface not found")
        assert "s3cret" not in str(pbx.heard)
        pbx.event("QueueMemberPause", Interface="Local/1001@a/n")
        await watched.until(events=1)
        assert watched.events[-1].event == "QueueMemberPause"
        assert watched.events[-1].get("interface") == "Local/1001@a/n"


async def test_a_wrong_secret_is_said_and_tried_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ami_client, "REFUSED_RETRY_S", 30.0)
    async with AmiDouble() as pbx, Watched(pbx, secret="wrong") as watched:
        await watched.until(downs=1)
        assert "ami.username" in watched.downs[0]
        assert "wrong" not in watched.downs[0]
        with pytest.raises(AmiAway):
            await watched.client.request("Ping")
        await asyncio.sleep(0.3)  # ten tries with the usual back-off
        assert len(pbx.asked("Login")) == 1


@pytest.mark.usefixtures("impatient")
async def test_a_pbx_that_offers_no_challenge_does_not_get_the_secret() -> None:
    async with AmiDouble(hang={"Challenge"}) as pbx, Watched(pbx) as watched:
        await watched.until(downs=1)
        assert "Challenge" in watched.downs[0]
        assert pbx.asked("Login") == []


async def test_it_comes_back_and_logs_in_anew_after_a_restart() -> None:
    async with AmiDouble() as pbx, Watched(pbx) as watched:
        await watched.until(ups=1)
        await pbx.stop()
        await watched.until(downs=1)
        with pytest.raises(AmiAway):
            await watched.client.request("Ping")
        await pbx.start()
        await watched.until(ups=2)
        assert (await watched.client.request("Ping")).ok
        assert pbx.logins == 2


async def test_requests_under_way_fail_when_the_connection_is_lost() -> None:
    async with AmiDouble(hang={"Setvar"}) as pbx, Watched(pbx) as watched:
        await watched.until(ups=1)
        asking = [
            asyncio.create_task(watched.client.request("Setvar", [("Value", str(number))]))
            for number in range(40)
        ]
        await pbx.until(lambda: len(pbx.asked("Setvar")) == ami_client.AT_ONCE)
        pbx.drop()
        ends = await asyncio.gather(*asking, return_exceptions=True)
        assert {type(end) for end in ends} == {AmiAway}
        await watched.until(ups=2)
        assert (await watched.client.request("Ping")).ok


@pytest.mark.usefixtures("impatient")
async def test_a_late_answer_fails_its_request_and_no_other() -> None:
    async with AmiDouble(hang={"Setvar"}) as pbx, Watched(pbx, ping_s=60) as watched:
        await watched.until(ups=1)
        with pytest.raises(AmiLate, match="Setvar"):
            await watched.client.request("Setvar", [("Variable", "X"), ("Value", "1")])
        assert (await watched.client.request("Ping")).ok
        assert watched.ups == 1


@pytest.mark.usefixtures("impatient")
async def test_a_pbx_that_hangs_is_noticed_by_the_ping() -> None:
    async with AmiDouble() as pbx, Watched(pbx) as watched:
        await watched.until(ups=1)
        pbx.hang.add("Ping")
        await watched.until(downs=1)
        assert "Ping" in watched.downs[0]
        pbx.hang.clear()
        await watched.until(ups=2)


@pytest.mark.usefixtures("impatient")
async def test_too_many_requests_are_refused_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ami_client, "WAITING_LIMIT", 20)
    async with AmiDouble(hang={"Setvar"}) as pbx, Watched(pbx) as watched:
        await watched.until(ups=1)
        asking = [asyncio.create_task(watched.client.request("Setvar")) for _ in range(25)]
        ends = await asyncio.gather(*asking, return_exceptions=True)
        assert sum(isinstance(end, AmiBusy) for end in ends) == watched.client.refused == 5


@pytest.mark.parametrize(
    "lie",
    [
        b"x" * 100_000,
        b"Response: Success\r\n" * 20_000,
        b"\x00\xff\r\n\r\n\r\n: \r\n\r\nEvent\r\n\r\n" * 1000,
        b"Response: Success\r\nActionID: cs-\r\n\r\n" * 1000,
    ],
)
async def test_a_pbx_that_lies_costs_a_connection_at_most(lie: bytes) -> None:
    async with AmiDouble() as pbx, Watched(pbx) as watched:
        await watched.until(ups=1)
        pbx.raw(lie)
        async with asyncio.timeout(WITHIN_S):
            while True:
                try:
                    assert (await watched.client.request("Ping")).ok
                    break
                except AmiAway:
                    await watched.until(ups=watched.ups + 1)


async def test_another_service_on_the_port_is_named() -> None:
    async with AmiDouble(banner=b"220 smtp ready\r\n") as pbx, Watched(pbx) as watched:
        await watched.until(downs=1)
        assert "ami.host" in watched.downs[0]


def _pair(folder: Path, name: str) -> tuple[Path, Path]:
    key, certificate = folder / f"{name}.key", folder / f"{name}.crt"
    subject = f"-subj /CN={name} -addext subjectAltName=IP:127.0.45.1"
    curve = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1"
    command = f"openssl req -x509 {curve} -nodes -days 2 {subject}".split()
    subprocess.run(
        [*command, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True
    )
    return key, certificate


async def test_tls_is_checked_against_the_named_authority(tmp_path: Path) -> None:
    key, certificate = _pair(tmp_path, "pbx")
    _, stranger = _pair(tmp_path, "stranger")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    async with AmiDouble(tls=context) as pbx:
        async with Watched(pbx, tls=True, ca_file=certificate) as watched:
            await watched.until(ups=1)
            assert (await watched.client.request("Ping")).ok
        logins = pbx.logins
        async with Watched(pbx, tls=True, ca_file=stranger) as watched:
            await watched.until(downs=1)
            assert "TLS" in watched.downs[0]
        assert pbx.logins == logins


# ---------------------------------------------------------------------------------- the secret


def test_the_secret_comes_from_a_private_file_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    path = tmp_path / "ami.secret"
    settings = AmiSettings.model_validate({"host": "192.0.2.1", "secret_file": path})
    with pytest.raises(SetupError, match="0600"):
        load_secret(settings)
    path.write_text("s3cret\n")
    path.chmod(0o640)
    with pytest.raises(SetupError, match="chmod 600"):
        load_secret(settings)
    path.chmod(0o600)
    assert load_secret(settings) == "s3cret"
    path.write_text("two\nlines\n")
    with pytest.raises(SetupError, match="one line"):
        load_secret(settings)
    monkeypatch.setenv(VARIABLE, "other")
    assert load_secret(settings) == "other"
