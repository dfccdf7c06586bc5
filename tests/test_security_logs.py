"""What far ends write into their messages does not come out in our logs, and forges no line there.

A whole node, two calls and a few refusals, every header that we read filled with an escape
sequence, a piece of JSON, line ends in every spelling, and a mark that is then looked for: in the
log of all processes, in /metrics, in every file of the node.
"""

from __future__ import annotations

import json
import re
import sqlite3
import unicodedata
from collections.abc import AsyncIterator, Collection
from contextlib import closing
from pathlib import Path

import httpx
import pjsua2 as pj
import pytest
import structlog

from callshield.logs import configure_logs
from sipbridge.pjsip_stack import _QuietLog
from tests.peers.node import Node, running_node
from tests.peers.signalling import End, Wire
from tests.test_peers_offer import said
from tests.test_security_strangers import moved, refer_from

pytestmark = [pytest.mark.peers, pytest.mark.timeout(60)]

SIDES = ("127.0.42.32", "127.0.42.33")
PBX, PHONE = "127.0.42.34", "127.0.42.35"
#: What a person's data looks like here: name, number, address, words.
NAME, NUMBER, HOST, WORDS = "홍길동marked", "01098765432", "marked-host.example", "markedwords"
MARKS = (NAME, NUMBER, HOST, WORDS, "marked", "forged")
HOSTILE = (
    '\x1b[31m\x9b2J\u202e\x07","event":"forged","level":"critical"}%0d%0a\\r\\n'
    '{"event":"forged"}\u2028\x85'
)


def hostile(mark: str) -> str:
    return f"{mark}{HOSTILE}{mark}"


def headers() -> str:
    """Every header that somebody here reads, or carries over, or might show."""
    return "".join(
        f"{name}: {value}\r\n"
        for name, value in {
            "P-Asserted-Identity": f'"{NAME}" <sip:{NUMBER}@{HOST}>',
            "Diversion": f"<sip:{NUMBER}@{HOST}>;reason={hostile('marked')}",
            "X-Asterisk-Uniqueid": hostile("1700000000.1"),
            "X-Name": hostile(NAME),
            "X-Callshield-Notice": hostile(WORDS),
            "X-Callshield-Call-ID": hostile(WORDS),
            "User-Agent": hostile(f"{NAME} PBX"),
            "Subject": hostile(WORDS),
            "Reason": f'Q.850;cause=16;text="{hostile(WORDS)}"',
            "Warning": f'399 {HOST} "{hostile(WORDS)}"',
            "Call-Info": f"<http://{HOST}/{NUMBER}>;purpose=info",
            "Referred-By": f"<sip:{NUMBER}@{HOST}>",
            "Authorization": f'Digest username="{NAME}", realm="{HOST}", response="{WORDS}"',
        }.items()
    )


@pytest.fixture
async def phone() -> AsyncIterator[End]:
    end = End(await Wire.udp(PHONE))
    yield end
    end.close()


@pytest.fixture
async def node(tmp_path: Path, phone: End) -> AsyncIterator[Node]:
    async with running_node(
        tmp_path / "node",
        {"1001": f"sip:1001@{PHONE}:{phone.wire.port}"},
        sides=SIDES,
        peer=PBX,
        extra='[notice]\nprompts = ["recording"]\n[detector]\nenabled = false\n',
    ) as node:
        yield node


async def pbx_of(node: Node) -> End:
    end = End(await Wire.udp(PBX, (SIDES[0], node.pbx_port)), node.uri("1001"))
    end.tag = "marked-tag"
    return end


def answer(phone: End, status: str, body: str = "") -> None:
    """A response of the phone with everything in it."""
    invite = phone._invite
    assert invite is not None
    phone.wire.send(
        f"SIP/2.0 {status}\r\nVia: {invite.header('Via')}\r\nFrom: {invite.header('From')}\r\n"
        f"To: {invite.header('To')};tag={phone.tag}\r\nCall-ID: {invite.header('Call-ID')}\r\n"
        f"CSeq: {invite.cseq}\r\nContact: {phone.contact}\r\n"
        f'Server: Yealink {HOSTILE}\r\nWarning: 399 {HOST} "{hostile(WORDS)}"\r\n'
        + ("Content-Type: application/sdp\r\n" if body else "")
        + f"Content-Length: {len(body.encode())}\r\n\r\n{body}"
    )


async def calls(node: Node, phone: End) -> None:
    """Two calls, a refused offer, a busy phone, a transfer, digits, and methods of nobody."""
    marked = f"a=rtpmap:96 {hostile(WORDS)}/8000\r\ni={hostile(NAME)}\r\n"
    refused = await pbx_of(node)
    assert (await refused.invite(said("96", marked), headers())).status in (400, 488)
    refused.close()
    refused = await pbx_of(node)
    escape = "a=rtpmap:96 \x1b[31m\x9b2J\u202e/8000\r\n"
    assert (await refused.invite(said("96", escape), headers())).status in (400, 488)
    refused.close()
    refused = await pbx_of(node)
    assert (await refused.invite(said("18", "a=rtpmap:18 G729/8000\r\n"), headers())).status == 488
    refused.close()

    for status in (f"486 {hostile(WORDS)}", "302"):
        pbx = await pbx_of(node)
        pbx.request("INVITE", said("8"), headers())
        await phone.invited()
        if status == "302":
            phone.wire.send(moved(phone, f'"{NAME}" <sip:{NUMBER}@{HOST}>'))
        else:
            answer(phone, status)
        assert (await pbx.final()).status in (302, 486)
        pbx.close()

    async with node.watch("1001") as console:
        pbx = await pbx_of(node)
        pbx.request("INVITE", said("8", f"i={NAME}\r\n"), headers())
        await phone.invited()
        answer(phone, "200 OK", said("8", address=PHONE, port=5000))
        assert (await pbx.final()).status == 200
        pbx.ack()
        await console.wait("call.answered")
        # Wait for the phone's own ACK, then what a phone may send in a dialog.
        await phone.next(lambda m: m.method == "ACK")
        refer_from(phone, f"sip:{NUMBER}@{HOST}")
        assert (await phone.next(lambda m: m.status >= 200)).status in (403, 491)
        for method in ("INFO", "MESSAGE", "SUBSCRIBE", "UPDATE"):
            pbx.request(method, "", headers() + "Content-Type: text/plain\r\n")
            await pbx.next(lambda m: m.status >= 200)
        pbx.request("BYE", "", headers())
        assert (await pbx.final("BYE")).status == 200
        await console.wait("call.ended")
        pbx.close()


def raw_control_characters(text: str) -> list[str]:
    """Those that a terminal or a log viewer would act upon."""
    return [
        f"U+{ord(c):04X}"
        for c in text
        if c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp")
    ]


async def test_nothing_of_a_call_is_in_the_logs_or_the_metrics_and_no_line_is_forged(
    node: Node, phone: End
) -> None:
    await calls(node, phone)
    async with httpx.AsyncClient(trust_env=False) as client:
        metrics = (await client.get(f"{node.base}/metrics")).text
    assert "callshield" in metrics
    await node.stop()

    text = node.log_path.read_text(encoding="utf-8")
    entries = [json.loads(line) for line in text.splitlines()]
    events = {entry["event"] for entry in entries}
    # The calls left their traces: what follows is not said of an empty log.
    assert {"offer_refused", "transfer_refused", "call_ended"} <= events
    assert all(re.fullmatch(r"[a-z_0-9]+", event) for event in events), events
    assert {entry["level"] for entry in entries} <= {"info", "warning", "error"}
    assert raw_control_characters(text) == []
    for mark in MARKS:
        assert mark not in text, [line for line in text.splitlines() if mark in line]
        assert mark not in metrics
    assert "Traceback" not in text

    # Of all files only the database holds any of it, and only what the PBX named its call.
    held = {
        path.name
        for path in node.folder.rglob("*")
        if path.is_file() and path != node.config
        if any(mark.encode() in path.read_bytes() for mark in MARKS)
    }
    (database,) = node.settings.node.state_dir.glob("*.sqlite3")
    assert held == {database.name}
    assert columns_that_hold(database, MARKS) == {("events", "body"), ("calls", "pbx_call_id")}
    assert columns_that_hold(database, set(MARKS) - {"forged"}) == set()


def columns_that_hold(database: Path, marks: Collection[str]) -> set[tuple[str, str]]:
    found = set()
    with closing(sqlite3.connect(database)) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        for (table,) in tables.fetchall():
            cursor = connection.execute(f'SELECT * FROM "{table}"')
            names = [column[0] for column in cursor.description]
            for row in cursor:
                for name, value in zip(names, row, strict=True):
                    shown = value.decode() if isinstance(value, bytes) else str(value)
                    if any(mark in shown for mark in marks):
                        found.add((str(table), str(name)))
    return found


@pytest.mark.parametrize("json_lines", [True, False])
def test_a_field_stays_within_its_line_whatever_it_holds(
    json_lines: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = structlog.get_config()
    try:
        configure_logs("test", json=json_lines)
        structlog.get_logger().warning(
            "offer_refused", detail=f"x\r\n{HOSTILE}", nested={"codecs": [HOSTILE]}
        )
        shown = capsys.readouterr().err
        assert shown.count("\n") == 1
        assert raw_control_characters(shown) == []
        assert "\ufffd[31m" in shown
        if json_lines:
            assert json.loads(shown)["event"] == "offer_refused"
            assert json.loads(shown)["level"] == "warning"
    finally:
        structlog.configure(**kept)


def test_without_the_processor_the_same_field_is_acted_upon() -> None:
    """The negative control."""
    rendered = structlog.processors.JSONRenderer(ensure_ascii=False)(
        None, "warning", {"event": "offer_refused", "detail": f"x\r\n{HOSTILE}"}
    )
    assert {"U+009B", "U+202E"} <= set(raw_control_characters(str(rendered)))


def test_what_pjsip_logs_itself_goes_nowhere(capfd: pytest.CaptureFixture[str]) -> None:
    """Its errors may quote a message, with numbers and digest responses: they are counted."""
    writer = _QuietLog()
    entry = pj.LogEntry()
    entry.level, entry.msg = 1, f"sip: Authorization: Digest {WORDS}"
    writer.write(entry)
    assert writer.errors == 1
    shown = capfd.readouterr()
    assert shown.out == shown.err == ""
