"""What `callshield edge` writes, refuses and says; Kamailio itself is tests/edge's affair."""

from __future__ import annotations

import hashlib
import json
import socket
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from callshield import edge_rpc
from callshield.cli import app
from callshield.doctor_edge import edge as doctor_edge
from callshield.edge_command import write_files
from callshield.edge_files import (
    EdgeError,
    auth_database,
    edge_files,
    location_database,
    rpc_socket,
    rtpengine_file,
)
from callshield.edge_rpc import ask, node_states, registered
from callshield.edge_users import (
    change_user,
    ha1,
    make_location_database,
    new_password,
    read_users,
    write_users,
)
from callshield.errors import ConfigurationError, SetupError
from callshield.settings import Settings, load_settings

DEPLOYED = Path(__file__).parent.parent / "deploy" / "kamailio"

LEAST: dict[str, Any] = {
    "bind": "192.0.2.4",
    "nodes": [{"name": "node-1", "uri": "sip:192.0.2.10:5060"}],
    "pbx": [{"name": "pbx", "networks": ["192.0.2.5"]}],
}


def settings(tmp_path: Path | None = None, **keys: Any) -> Settings:
    """A configuration with the least that an edge needs, and more."""
    places = {}
    if tmp_path is not None:
        places = {
            "secrets_file": tmp_path / "secrets",
            "state_dir": tmp_path / "state",
            "runtime_dir": tmp_path,
        }
    return Settings(edge={**LEAST, **places, **keys})  # type: ignore[arg-type]


def test_what_is_deployed_is_what_is_rendered() -> None:
    """``deploy/kamailio/rendered`` is made, not written:
    `callshield edge render` of the example beside it, for /etc/kamailio."""
    example = load_settings(DEPLOYED / "edge.example.toml")
    files = edge_files(example, Path("/etc/kamailio"))
    files["rtpengine.conf"] = rtpengine_file(example)
    found = {
        path.name: path.read_text(encoding="utf-8") for path in (DEPLOYED / "rendered").iterdir()
    }
    assert found == files


def test_the_script_is_the_same_everywhere(tmp_path: Path) -> None:
    one = edge_files(settings(), tmp_path)
    other = edge_files(settings(bind="2001:db8::4", port=5080, probe_s=9), tmp_path / "other")
    assert one["kamailio.cfg"] == other["kamailio.cfg"]
    assert "listen=udp:[2001:db8::4]:5080" in other["callshield-edge.cfg"]
    assert "tcp_source_ipv6=[2001:db8::4]" in other["callshield-edge.cfg"]


def test_nodes_pbx_and_phones_are_told_apart(tmp_path: Path) -> None:
    nodes = [
        {"name": "a", "uri": "sip:192.0.2.10:5060", "networks": ["192.0.2.110"]},
        {"name": "b", "uri": "sip:[2001:db8::b]:5061;transport=tcp"},
    ]
    pbx = [
        {"name": "old", "networks": ["192.0.2.5"]},
        {
            "name": "new",
            "networks": ["198.51.100.0/28"],
            "attests_notice": True,
            "outgoing": True,
        },
    ]
    files = edge_files(
        settings(nodes=nodes, pbx=pbx, phones=["10.1.0.0/16"], proxies=["192.0.2.30"]), tmp_path
    )
    rows = [line for line in files["address.list"].splitlines() if not line.startswith("#")]
    assert rows == [
        "1 192.0.2.10 32 0 a",
        "1 192.0.2.110 32 0 a",
        "1 2001:db8::b 128 0 b",
        "2 192.0.2.5 32 0 old",
        "2 198.51.100.0 28 0 new",
        "21 198.51.100.0 28 0 new",
        "22 198.51.100.0 28 0 new",
        "3 10.1.0.0 16 0 phones",
        "4 192.0.2.30 32 0 proxies",
    ]
    assert "1 sip:[2001:db8::b]:5061;transport=tcp 0 0 duid=b" in files["dispatcher.list"]


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"nodes": []}, "[[edge.nodes]], at least one"),
        ({"pbx": []}, "[[edge.pbx]], at least one"),
        ({"nodes": [*LEAST["nodes"], *LEAST["nodes"]]}, "a name of its own"),
        (
            {"nodes": [LEAST["nodes"][0], {"name": "b", "uri": "sip:192.0.2.10:5060"}]},
            "a uri of its own",
        ),
        ({"nodes": [{"name": "a", "uri": "sip:node@192.0.2.10"}]}, "without a user"),
        ({"nodes": [{"name": "a", "uri": "sip:node.example.com"}]}, "an address as the host"),
        ({"nodes": [{"name": "a", "uri": "sip:192.0.2.10;transport=tls"}]}, "[edge.tls]"),
        ({"nodes": [{"name": "a", "uri": "sip:192.0.2.4:5060"}]}, "other addresses or ports"),
        ({"pbx": [{**LEAST["pbx"][0], "tls_only": True}]}, "[edge.tls]"),
        ({"websocket": {"port": 8443}}, "[edge.tls] table for wss:"),
        ({"websocket": {"port": 5060, "tls": False}}, "that differ"),
        ({"websocket": {"port": 80, "allowed_origins": ["desk"]}}, "origins like"),
        ({"domain": 'sip"example'}, "a domain like"),
        ({"rtpengine": {"control": "localhost:2223"}}, "an address and a port"),
        ({"tls": {"certificate": "/a"}}, "certificate and private_key"),
        ({"phones": ["the office"]}, "addresses or networks"),
    ],
)
def test_what_cannot_be_is_refused(keys: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "edge.toml"
    table = {**LEAST, **keys}
    path.write_text(_toml(table), encoding="utf-8")
    with pytest.raises(ConfigurationError) as refused:
        load_settings(path)
    assert sentence in str(refused.value)


def _toml(table: dict[str, Any]) -> str:
    """Inline tables throughout: JSON's scalars and lists are TOML's."""

    def value(item: Any) -> str:
        if isinstance(item, dict):
            return "{" + ", ".join(f"{key} = {value(each)}" for key, each in item.items()) + "}"
        if isinstance(item, list):
            return "[" + ", ".join(value(each) for each in item) + "]"
        return json.dumps(item)

    return "[edge]\n" + "\n".join(f"{key} = {value(item)}" for key, item in table.items())


@pytest.mark.parametrize("folder", ['/etc/"kamailio', "/etc/kama ilio", "/etc/$kamailio", "/a!b"])
def test_path_that_would_leave_its_quotes_is_refused(folder: str) -> None:
    with pytest.raises(EdgeError, match="Kamailio cannot be told the path"):
        edge_files(settings(), Path(folder))


@pytest.mark.parametrize("uri", ["sip:192.0.2.5:5060;x=$du", "sip:192.0.2.5:5060;x=a!b"])
def test_words_that_kamailio_would_take_for_its_own_are_refused(uri: str, tmp_path: Path) -> None:
    with pytest.raises(EdgeError, match="Kamailio cannot be told"):
        edge_files(settings(pbx_uri=uri), tmp_path)


def test_browsers_need_no_certificate_where_phones_do(tmp_path: Path) -> None:
    tls = {
        "certificate": "/c",
        "private_key": "/k",
        "ca_file": "/a",
        "require_client_certificate": True,
    }
    files = edge_files(settings(tls=tls, websocket={"port": 8443}), tmp_path)
    default, browsers, client = files["tls.cfg"].split("\n[")[1:]
    assert default.startswith("server:default]")
    assert "require_certificate = yes" in default
    assert browsers.startswith("server:192.0.2.4:8443]")
    assert "require_certificate = no" in browsers
    assert client.startswith("client:default]")
    assert "verify_certificate = yes" in client


# --------------------------------------------------------------------------------------- users


def test_password_is_kept_nowhere(tmp_path: Path) -> None:
    edge = settings(tmp_path).edge
    change_user(edge, "1001", "correct horse")
    change_user(edge, "1002", "battery")
    wanted = hashlib.md5(b"1001:192.0.2.4:correct horse").hexdigest()
    assert read_users(edge)["1001"] == wanted == ha1("1001", "192.0.2.4", "correct horse")
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o600
    assert "horse" not in (tmp_path / "secrets").read_text()
    change_user(edge, "1002", None)
    assert list(read_users(edge)) == ["1001"]
    with pytest.raises(EdgeError, match="no user 1002"):
        change_user(edge, "1002", None)
    with pytest.raises(EdgeError, match="a user of letters"):
        change_user(edge, "10:01", "x")


def test_kamailios_copy_follows_the_file(tmp_path: Path) -> None:
    edge = settings(tmp_path).edge
    change_user(edge, "1001", "one")
    assert not auth_database(edge).exists()
    write_users(edge, read_users(edge))
    assert auth_database(edge).stat().st_mode & 0o777 == 0o600
    change_user(edge, "1002", "two")
    with sqlite3.connect(auth_database(edge)) as database:
        rows = database.execute("SELECT username, ha1 FROM subscriber ORDER BY username")
        assert dict(rows.fetchall()) == read_users(edge)
    make_location_database(edge)
    with sqlite3.connect(location_database(edge)) as database:
        database.execute("INSERT INTO location (ruid, username) VALUES ('r', '1001')")
    make_location_database(edge)  # what is registered stays
    with sqlite3.connect(location_database(edge)) as database:
        assert database.execute("SELECT count(*) FROM location").fetchone() == (1,)


@pytest.mark.parametrize(
    ("text", "mode", "sentence"),
    [
        (None, 0, "edge password USER` makes it"),
        ("1001:192.0.2.4:" + "0" * 32, 0o644, "others can"),
        ("1001:secret", 0o600, "line 1: a line like 1001:192.0.2.4:32 hex digits"),
        ("# phones\n1001:sip.example.com:" + "0" * 32, 0o600, "line 2: the password of 1001 was"),
    ],
)
def test_file_of_secrets_that_cannot_be_used(
    text: str | None, mode: int, sentence: str, tmp_path: Path
) -> None:
    path = tmp_path / "secrets"
    if text is not None:
        path.write_text(text, encoding="utf-8")
        path.chmod(mode)
    with pytest.raises(EdgeError) as refused:
        read_users(settings(tmp_path).edge)
    assert sentence in str(refused.value)


def test_passwords_can_be_typed_and_not_guessed() -> None:
    passwords = {new_password() for _ in range(200)}
    assert len(passwords) == 200
    assert {len(password) for password in passwords} == {20}
    # No digit that is taken for a letter on a desk phone's screen.
    assert not set("".join(passwords)) & set("015")


# ------------------------------------------------------------------------------------- commands


def test_render_replaces_only_what_differs(tmp_path: Path) -> None:
    files = edge_files(settings(), tmp_path)
    (tmp_path / "kamailio.cfg").write_text("# the distribution's own\n")
    assert set(write_files(files, tmp_path)) == set(files)
    assert (tmp_path / "kamailio.cfg.before-callshield").read_text() == "# the distribution's own\n"
    assert write_files(files, tmp_path) == []
    changed = edge_files(settings(nodes=[{"name": "b", "uri": "sip:192.0.2.11"}]), tmp_path)
    assert set(write_files(changed, tmp_path)) == {"dispatcher.list", "address.list"}
    assert not (tmp_path / "dispatcher.list.before-callshield").exists()


def test_doctor_says_what_lacks(tmp_path: Path) -> None:
    assert doctor_edge(Settings()) == "off"
    whole = settings(tmp_path)
    with pytest.raises(EdgeError, match="edge password"):
        doctor_edge(whole)
    change_user(whole.edge, "1001", "one")
    agents = {name: {"uri": f"sip:{name}@192.0.2.4"} for name in ("1001", "1002")}
    said = doctor_edge(Settings(edge=whole.edge.model_dump(), agents=agents))  # type: ignore[arg-type]
    assert said.startswith("1 nodes, 1 phones with a password (none for 1002); ")
    tls = {"certificate": "/absent.pem", "private_key": "/absent.key", "verify_server": False}
    with pytest.raises(SetupError, match=r"edge\.tls\.certificate: /absent\.pem"):
        doctor_edge(settings(tmp_path, tls=tls))


def test_without_an_edge_every_command_says_so(tmp_path: Path) -> None:
    config = tmp_path / "callshield.toml"
    config.write_text("[node]\n")
    for words in (["render"], ["status"], ["reload"], ["password", "1001"]):
        done = CliRunner().invoke(app, ["edge", *words, "--config", str(config)])
        assert isinstance(done.exception, EdgeError)
        assert "there is no [edge]" in str(done.exception)


def test_status_without_kamailio_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(EdgeError, match="does it run"):
        node_states(settings(tmp_path).edge)


def test_what_kamailio_says_of_its_nodes(tmp_path: Path) -> None:
    """Its answers, as version 5.6 gives them."""
    edge = settings(tmp_path).edge

    def target(name: str, flags: str, latency: dict[str, float]) -> dict[str, Any]:
        destination = {
            "URI": f"sip:{name}",
            "FLAGS": flags,
            "PRIORITY": 0,
            "ATTRS": {"BODY": f"duid={name}"},
            **({"LATENCY": latency} if latency else {}),
        }
        return {"DEST": destination}

    answers = {
        "dispatcher.list": {
            "NRSETS": 1,
            "RECORDS": [
                {
                    "SET": {
                        "ID": 1,
                        "TARGETS": [
                            target("node-2", "IP", {}),
                            target("node-1", "AP", {"AVG": 1.25}),
                        ],
                    }
                }
            ],
        },
        "stats.fetch": {"usrloc.location-contacts": "7"},
    }
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as kamailio:
        kamailio.bind(str(rpc_socket(edge)))

        def serve() -> None:
            for _ in range(3):
                data, who = kamailio.recvfrom(65536)
                asked = json.loads(data)
                known = answers.get(asked["method"])
                said = {"result": known} if known else {"error": {"message": "Method not found"}}
                kamailio.sendto(json.dumps({"jsonrpc": "2.0", "id": 1, **said}).encode(), who)

        serving = threading.Thread(target=serve)
        serving.start()
        one, two = node_states(edge)
        assert registered(edge) == 7
        with pytest.raises(EdgeError, match=r"Kamailio refused no\.such: Method not found"):
            ask(edge, "no.such")
        serving.join()
    assert (one.name, one.takes_calls, one.latency_ms) == ("node-1", True, 1.25)
    assert (two.name, two.takes_calls, two.latency_ms) == ("node-2", False, 0.0)
    # Nothing is left of the questions.
    assert not list(tmp_path.glob(".callshield-*"))


@pytest.mark.parametrize("refusals", [2, 1000])
def test_reload_soon_after_another_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusals: int
) -> None:
    """Kamailio refuses a second one for five seconds; for ever is told."""
    asked, now = [], 0.0

    class Clock:
        @staticmethod
        def monotonic() -> float:
            return now

        @staticmethod
        def sleep(seconds: float) -> None:
            nonlocal now
            now += seconds

    def kamailio(_: object, method: str) -> None:
        asked.append(method)
        if len(asked) <= refusals:
            raise EdgeError(f"Kamailio refused {method}: ongoing reload")

    monkeypatch.setattr(edge_rpc, "ask", kamailio)
    monkeypatch.setattr(edge_rpc, "time", Clock)
    edge = settings(tmp_path).edge
    if refusals == 2:
        assert edge_rpc.reload(edge) == ["permissions.addressReload", "dispatcher.reload"]
        assert asked == ["permissions.addressReload"] * 3 + ["dispatcher.reload"]
        assert 0 < now < 5
    else:
        with pytest.raises(EdgeError, match="ongoing reload"):
            edge_rpc.reload(edge)
        assert 5 < now < 12


def test_reload_that_is_refused_otherwise_is_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def kamailio(_: object, method: str) -> None:
        asked.append(method)
        raise EdgeError(f"Kamailio refused {method}: reload of address table failed")

    monkeypatch.setattr(edge_rpc, "ask", kamailio)
    with pytest.raises(EdgeError, match="table failed"):
        edge_rpc.reload(settings(tmp_path).edge)
    assert asked == ["permissions.addressReload"]
