"""The NATS configuration that we ship: TLS, and each node speaks for itself alone."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import nats
import pytest
from nats.js.errors import Error as JetStreamError

from callshield.errors import CallshieldError
from callshield.settings import load_settings
from notifier.cluster.link import connect, load_secrets
from tests.cluster_kit import (
    FAST,
    NODES,
    all_heard,
    cluster_toml,
    desk_of,
    until,
    until_heard,
    write_node,
)
from tests.nats_server import NatsServer
from tests.postgres import Database
from tests.test_peers_tls import Authority

pytestmark = [pytest.mark.postgres, pytest.mark.nats, pytest.mark.timeout(300)]
SHIPPED = Path(__file__).parent.parent / "deploy/nats/callshield.conf"
PASSWORDS = {"node-a": "eins-geheim", "node-b": "zwei-geheim"}


@pytest.fixture
def house(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "house")


@pytest.fixture
def bus(house: Authority, monkeypatch: pytest.MonkeyPatch) -> Iterator[NatsServer]:
    """A server with what we ship, but for its address, its disk and the nodes' names."""
    certificate, key = house.issue("127.0.0.1")
    text = SHIPPED.read_text()
    for line in (r"^listen:.*$", r"^jetstream \{.*?^\}$"):
        text = re.sub(line, "", text, flags=re.MULTILINE | re.DOTALL if "{" in line else re.M)
    for what, name in (
        ("/etc/nats/server.pem", str(certificate)),
        ("/etc/nats/server.key", str(key)),
        ("/etc/nats/ca.pem", str(house.file)),
        ("node-1", "node-a"),
        ("node-2", "node-b"),
    ):
        assert what in text
        text = text.replace(what, name)
    monkeypatch.setenv("NODE_1_PASSWORD", PASSWORDS["node-a"])
    monkeypatch.setenv("NODE_2_PASSWORD", PASSWORDS["node-b"])
    server = NatsServer(text)
    server.url = f"tls://127.0.0.1:{server.port}"
    server.start()
    yield server
    server.remove()


def table_of(name: str, folder: Path, bus: NatsServer, ca: Path) -> str:
    secret = folder / f"{name}.secret"
    secret.write_text(PASSWORDS[name] + "\n")
    secret.chmod(0o600)
    more = f'{FAST}user = "{name}"\nsecret_file = "{secret}"\nca_file = "{ca}"\n'
    return cluster_toml([bus.url], more)


async def test_two_nodes_work_with_what_we_ship_and_none_speaks_for_the_other(
    tmp_path: Path, cluster_database: Database, bus: NatsServer, house: Authority
) -> None:
    configs = [
        write_node(
            tmp_path / name, name, cluster_database, table_of(name, tmp_path, bus, house.file)
        )
        for name in NODES
    ]
    async with desk_of(configs[0]) as a, desk_of(configs[1]) as b:
        async with b.bridge() as bridge, a.http(a.supervisor) as http, b.http(b.agent) as agent:
            call_id = bridge.start_call("1001")
            await until_heard(a, b)
            helped = await agent.post(f"/api/v1/calls/{call_id}/actions", json={"action": "help"})
            assert helped.status_code == 200
            await until_heard(a, b, alerts=1)
            assert all_heard(a, b)
            warned = await http.post(f"/api/v1/calls/{call_id}/actions", json={"action": "warn"})
            assert warned.status_code == 200, warned.text
        await nobody_speaks_for_another(a.settings.cluster)
    assert "Permissions Violation" not in before_our_trial(bus.log())


def before_our_trial(log: str) -> str:
    return log.partition("callshield trial")[0]


async def nobody_speaks_for_another(cluster: object) -> None:
    """With node a's own user."""
    violations: list[str] = []

    async def on_error(error: Exception) -> None:
        violations.append(str(error))

    link = await connect(cluster, load_secrets(cluster), "trial", on_error)  # type: ignore[arg-type]
    try:
        with pytest.raises((nats.errors.Error, JetStreamError)):
            await link.js.publish(link.events_of("node-b"), b"{}", timeout=1)
        await link.client.publish(link.beat_of("node-b"), b"{}")
        with pytest.raises(nats.errors.Error):
            await link.client.request(link.ask_of("node-a", "node-b"), b"{}", timeout=1)
        await link.client.subscribe("_INBOX_callshield_node-b.>")
        await link.client.subscribe(link.ask_of("node-b", "*"))
        await link.client.publish("$JS.API.STREAM.DELETE.callshield_events", b"")
        await link.client.flush()
        untold = {
            "callshield.events.node-b",
            "callshield.beat.node-b",
            "callshield.ask.node-a.node-b",
            "_inbox_callshield_node-b.>",
            "callshield.ask.node-b.*",
            "$js.api.stream.delete.callshield_events",
        }

        async def told() -> bool:
            untold.difference_update({s for s in untold for v in violations if s in v.lower()})
            return not untold

        with contextlib.suppress(TimeoutError):
            await until(told, 20)
    finally:
        await link.close()
    assert not untold


async def test_a_server_with_a_strangers_certificate_is_no_bus(
    tmp_path: Path, cluster_database: Database, bus: NatsServer
) -> None:
    other = Authority(tmp_path / "stranger")
    table = table_of("node-a", tmp_path, bus, other.file)
    config = write_node(tmp_path / "node-a", "node-a", cluster_database, table)
    settings = load_settings(config).cluster

    async def ignore(_error: Exception) -> None:
        return

    with pytest.raises(CallshieldError, match="certificate verify failed"):
        await connect(settings, load_secrets(settings), "node-a", ignore)
    assert msgspec.json.encode("eins") not in bus.log().encode()
