"""The WebSocket: every event once, in order, to those who may see it."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
import websockets

from callshield.messages import CrisisHint
from notifier import cut, node, process, stream
from notifier.tokens import create_token, list_tokens, revoke_token
from tests.notifier_kit import WITHIN_S, Desk, desk_in_process


async def _close_code(desk: Desk, first: str | bytes | None) -> int:
    async with websockets.connect(desk.url()) as connection:
        if first is not None:
            await connection.send(first)
        with pytest.raises(websockets.ConnectionClosed) as closed:
            async with asyncio.timeout(WITHIN_S):
                await connection.recv()
        assert closed.value.rcvd is not None
        return closed.value.rcvd.code


async def _handshake_status(desk: Desk, url: str, **options: object) -> tuple[int, str]:
    with pytest.raises(websockets.InvalidStatus) as refused:
        await websockets.connect(url, **options)  # type: ignore[arg-type]
    response = refused.value.response
    return response.status_code, json.loads(response.body)["type"].split(":")[-1]


async def test_reconnecting_in_a_flood_misses_nothing_and_repeats_nothing(tmp_path: Path) -> None:
    async with desk_in_process(tmp_path) as desk, desk.bridge() as bridge:
        flooding = asyncio.Event()

        async def flood() -> None:
            for number in range(1500):
                bridge.start_call("1001" if number % 2 else "1002", answer=False)
                if number == 200:
                    flooding.set()
                if number % 20 == 0:
                    await asyncio.sleep(0)

        async with desk.console(desk.supervisor, 0) as whole:
            flood_task = asyncio.create_task(flood())
            await flooding.wait()
            ids: list[int] = []
            last = 0
            while len(ids) < 1500:
                # The line breaks in the middle; come back for the rest, again and again.
                async with desk.console(desk.supervisor, last) as console:
                    for _ in range(min(97, 1500 - len(ids))):
                        event = await console.until("call.started")
                        ids.append(event["id"])
                    last = console.last_id
                    console.connection.transport.abort()
            await flood_task
            expected = [(await whole.until("call.started"))["id"] for _ in range(1500)]
        assert ids == expected
        assert ids == sorted(set(ids))


async def test_an_agent_sees_the_own_calls_only(tmp_path: Path) -> None:
    async with (
        desk_in_process(tmp_path) as desk,
        desk.bridge() as bridge,
        desk.console(desk.agent) as live,
    ):
        theirs = bridge.start_call("1002")
        bridge.risk(theirs, 3)
        own = bridge.start_call("1001")
        await live.until("call.answered", call_id=own)
        async with desk.console(desk.agent, 0) as replayed:
            await replayed.until("call.answered", call_id=own)
        async with desk.console(desk.supervisor, 0) as everything:
            await everything.until("call.answered", call_id=own)
        for console in (live, replayed):
            assert {m["call_id"] for m in console.seen if m["type"] != "node.degraded"} == {own}
        # Control: the other call's events were there to be seen.
        assert theirs in {m.get("call_id") for m in everything.seen}


async def test_a_supervisor_gets_no_evidence_live_or_replayed(tmp_path: Path) -> None:
    async with (
        desk_in_process(tmp_path) as desk,
        desk.bridge() as bridge,
        desk.console(desk.supervisor) as live,
    ):
        call_id = bridge.start_call()
        bridge.risk(call_id, 2)
        seen = [await live.until("risk.changed")]
        async with desk.console(desk.supervisor, 0) as replayed:
            seen.append(await replayed.until("risk.changed"))
        async with desk.console(desk.agent, 0) as own:
            assert (await own.until("risk.changed"))["reasons"]
        assert seen[0] == seen[1]
        assert not {"reasons", "score"} & seen[0].keys()


async def test_a_supervisor_gets_words_live_and_replayed_once_the_agent_asked_for_help(
    tmp_path: Path,
) -> None:
    async with (
        desk_in_process(tmp_path) as desk,
        desk.bridge() as bridge,
        desk.console(desk.supervisor) as live,
        desk.console(desk.agent) as agent,
    ):
        call_id, other = bridge.start_call("1001"), bridge.start_call("1002")
        for call in (call_id, other):
            bridge.words(call, 2, "이 새끼")
            await live.until("risk.changed", call_id=call)
        # Numbered, or a reading of the past would be one of now.
        before = (await agent.until("risk.changed", call_id=call_id))["id"]
        async with desk.http(desk.agent) as http:
            path = f"/api/v1/calls/{call_id}/actions"
            assert (await http.post(path, json={"action": "help"})).status_code == 200
        await live.until("alert.raised", reason="help")
        bridge.words(call_id, 3, "죽여버린다")
        bridge.words(other, 3, "죽여버린다")
        now = await live.until("risk.changed", level=3, call_id=call_id)
        assert now["reasons"][0]["words"] == ["죽여버린다"]
        assert "reasons" not in await live.until("risk.changed", level=3, call_id=other)
        assert "새끼" not in str(live.seen), "what was said before stays the agent's until asked"
        async with desk.console(desk.supervisor, before - 1) as replayed:
            past = await replayed.until("risk.changed", level=2, call_id=call_id)
            assert past["reasons"][0]["words"] == ["이 새끼"]
        async with desk.http(desk.supervisor) as http:
            calls = {c["call_id"]: c for c in (await http.get("/api/v1/calls")).json()["calls"]}
        assert calls[call_id]["reasons"][0]["words"] == ["죽여버린다"]
        assert calls[other]["reasons"] is None


async def test_a_crisis_reaches_agent_supervisor_and_bridge(tmp_path: Path) -> None:
    async with (
        desk_in_process(tmp_path) as desk,
        desk.bridge() as bridge,
        desk.console(desk.agent) as agent,
        desk.console(desk.supervisor) as supervisor,
    ):
        call_id = bridge.start_call("1001")
        await agent.until("call.answered")
        async with desk.bridge("detector") as detector:
            detector.send(CrisisHint(ts=time.time(), call_id=call_id, words=["죽고 싶어요"]))
            told = await agent.until("crisis.hint")
            assert (told["number"], told["words"]) == ("109", ["죽고 싶어요"])
            watched = await supervisor.until("crisis.hint")
            assert watched["number"] == "109"
            assert "words" not in watched
            alert = await supervisor.until("alert.raised", reason="crisis")
            assert alert["level"] == 0
        async with asyncio.timeout(WITHIN_S):
            while not bridge.crises:
                bridge.asked.clear()
                await bridge.asked.wait()
        assert [hint.call_id for hint in bridge.crises] == [call_id]


async def test_tokens_that_are_missing_forged_or_expired_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with desk_in_process(tmp_path) as desk:
        short = await asyncio.to_thread(
            create_token, desk.settings, "supervisor", "short", expires=timedelta(microseconds=1)
        )
        forged = desk.supervisor[:-1] + ("A" if desk.supervisor[-1] != "A" else "B")
        assert await _close_code(desk, json.dumps({"token": short})) == stream.BAD_TOKEN
        assert await _close_code(desk, json.dumps({"token": forged})) == stream.BAD_TOKEN
        assert await _close_code(desk, json.dumps({"token": ""})) == stream.BAD_TOKEN
        assert await _close_code(desk, "hello") == stream.BAD_MESSAGE
        assert await _close_code(desk, b"\x00") == stream.BAD_MESSAGE
        monkeypatch.setattr(stream, "TOKEN_WITHIN_S", 0.2)
        assert await _close_code(desk, None) == stream.NO_TOKEN
        monkeypatch.setattr(stream, "TOKEN_WITHIN_S", WITHIN_S)
        async with desk.console(desk.supervisor):
            pass  # the control: the unforged one opens


async def test_a_revoked_token_closes_its_open_console(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node, "HEARTBEAT_S", 0.1)
    async with desk_in_process(tmp_path) as desk, desk.console(desk.supervisor) as console:
        beat = json.loads(await console.connection.recv())
        assert beat["type"] == "heartbeat"
        token_id = next(t["token_id"] for t in list_tokens(desk.settings) if t["name"] == "first")
        assert revoke_token(desk.settings, token_id)
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await console.next()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == stream.BAD_TOKEN


async def test_the_token_may_come_as_a_subprotocol_and_is_not_repeated(tmp_path: Path) -> None:
    async with desk_in_process(tmp_path) as desk:
        offered = [stream.PROTOCOL, f"callshield.bearer.{desk.agent}"]
        async with websockets.connect(desk.url(), subprotocols=offered) as connection:  # type: ignore[arg-type]
            assert connection.subprotocol == stream.PROTOCOL
            assert json.loads(await connection.recv())["role"] == "agent"
            assert connection.response is not None
            assert desk.agent not in str(connection.response.headers)


async def test_a_token_in_the_url_is_refused_even_a_good_one(tmp_path: Path) -> None:
    async with desk_in_process(tmp_path) as desk:
        for query in (f"token={desk.agent}", f"x={desk.agent}", "access_token=1"):
            assert await _handshake_status(desk, f"{desk.url()}?{query}") == (400, "token_in_url")
        async with desk.http(desk.agent) as http:
            answer = await http.get("/api/v1/calls", params={"token": desk.agent})
            assert answer.status_code == 400
            assert desk.agent not in answer.text


async def test_another_sites_page_may_not_connect(tmp_path: Path) -> None:
    allowed = 'allowed_origins = ["https://desk.example"]'
    async with desk_in_process(tmp_path, allowed) as desk:
        for origin in ("https://evil.example", "null", f"http://{desk.address}.evil.example"):
            status = await _handshake_status(desk, desk.url(), origin=origin)
            assert status == (403, "origin")
        for origin in (f"http://{desk.address}", "https://desk.example"):
            async with websockets.connect(desk.url(), origin=origin) as connection:  # type: ignore[arg-type]
                await connection.send(json.dumps({"token": desk.agent}))
                assert json.loads(await connection.recv())["type"] == "session.ready"


async def test_an_id_that_is_no_number_is_refused_and_one_of_the_future_is_told(
    tmp_path: Path,
) -> None:
    async with desk_in_process(tmp_path) as desk:
        for text in ("-1", "x", "1e3", "9" * 30):
            url = f"{desk.url()}?last_event_id={text}"
            assert await _handshake_status(desk, url) == (400, "invalid")
        async with desk.console(desk.agent, 10**9) as console:
            assert console.ready["reset"] is True
        async with desk.console(desk.agent, 0) as console:
            assert console.ready["reset"] is False


class _Sleeper:
    """A console that asks for everything and then never reads: a raw socket, by RFC 6455."""

    def __init__(self, desk: Desk) -> None:
        host, port = desk.address.split(":")
        self.socket = socket.create_connection((host, int(port)))
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.sendall(
            f"GET /api/v1/events HTTP/1.1\r\nHost: {desk.address}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            "Sec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        self.socket.setblocking(False)
        self._first = json.dumps({"token": desk.supervisor}).encode()

    async def sign_in(self) -> None:
        loop = asyncio.get_running_loop()
        assert b" 101 " in await loop.sock_recv(self.socket, 1024)
        head = bytes([0x81, 0x80 | len(self._first), 0, 0, 0, 0])
        await loop.sock_sendall(self.socket, head + self._first)

    async def read_all(self) -> bytes:
        """Read until the server closes, answer nothing; what came last."""
        loop = asyncio.get_running_loop()
        came = b""
        while chunk := await loop.sock_recv(self.socket, 65536):
            came = (came + chunk)[-1000:]
        return came

    async def ping_for_ever(self) -> None:
        """Write pings, read nothing; ends only by the server's reset."""
        loop = asyncio.get_running_loop()
        while True:
            await loop.sock_sendall(self.socket, b"\x89\x80\x00\x00\x00\x00")
            await asyncio.sleep(0.05)


async def _until_metric(http: httpx.AsyncClient, line: bytes) -> None:
    async with asyncio.timeout(WITHIN_S):
        while line not in (await http.get("/metrics")).content:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_a_console_that_never_reads_is_dropped_while_another_gets_everything(
    tmp_path: Path,
) -> None:
    async with (
        desk_in_process(tmp_path) as desk,
        desk.bridge() as bridge,
        desk.console(desk.supervisor) as awake,
        desk.http() as http,
    ):
        sleeper = _Sleeper(desk)
        await sleeper.sign_in()
        await _until_metric(http, b"callshield_consoles 2.0")
        sent = 0
        while b"callshield_consoles_dropped 1.0" not in (await http.get("/metrics")).content:
            for _ in range(200):
                bridge.start_call(answer=False)
            sent += 200
            assert sent < 50_000
            for _ in range(200):
                await awake.until("call.started")
        assert len({m["id"] for m in awake.seen}) == sent
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(sleeper.ping_for_ever(), WITHIN_S)
        sleeper.socket.close()


async def test_a_console_that_answers_no_pings_is_dropped_and_one_that_does_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Heartbeats both ways: a browser that froze reads perhaps, but its pongs stay away."""
    # Who stays must have time for his pong, also on a machine that stands still for a moment.
    monkeypatch.setattr(process, "_PING_S", 3.0)
    async with desk_in_process(tmp_path) as desk, desk.console(desk.supervisor) as awake:
        frozen = _Sleeper(desk)
        await frozen.sign_in()
        async with asyncio.timeout(WITHIN_S):
            last = await frozen.read_all()
        frozen.socket.close()
        # A close frame (RFC 6455 section 5.5.1) with 1011.
        assert b"\x88" in last
        assert last[last.rindex(b"\x88") + 2 :][:2] == (1011).to_bytes(2, "big")
        async with desk.bridge() as bridge:
            bridge.start_call()
            await awake.until("call.started")


def _noted_lines(monkeypatch: pytest.MonkeyPatch) -> list[cut.ConsoleProtocol]:
    """Every WebSocket of the server, as they come."""
    lines: list[cut.ConsoleProtocol] = []
    made = cut.ConsoleProtocol.connection_made

    def note(self: cut.ConsoleProtocol, transport: asyncio.BaseTransport) -> None:
        made(self, transport)
        lines.append(self)

    monkeypatch.setattr(cut.ConsoleProtocol, "connection_made", note)
    return lines


async def test_one_that_neither_reads_nor_answers_is_gone_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its buffers are full when the ping times out: an orderly close would wait for ever."""
    lines = _noted_lines(monkeypatch)
    monkeypatch.setattr(process, "_PING_S", 2.0)
    monkeypatch.setattr(cut, "LAST_CHANCE_S", 0.2)
    async with (
        desk_in_process(tmp_path) as desk,
        desk.bridge() as bridge,
        desk.console(desk.supervisor) as awake,
        desk.http() as http,
    ):
        sleeper = _Sleeper(desk)
        await sleeper.sign_in()
        await _until_metric(http, b"callshield_consoles 2.0")
        for _ in range(990):  # fewer than make it too slow, more than the kernel takes
            bridge.start_call(answer=False)
        for _ in range(990):
            await awake.until("call.started")
        assert lines[-1].transport.get_write_buffer_size() > 0
        await _until_metric(http, b"callshield_consoles 1.0")
        assert b"callshield_consoles_dropped 0.0" in (await http.get("/metrics")).content
        sleeper.socket.close()


async def test_pings_of_one_that_does_not_read_pile_up_no_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = _noted_lines(monkeypatch)
    async with desk_in_process(tmp_path) as desk:
        sleeper = _Sleeper(desk)
        await sleeper.sign_in()
        loop = asyncio.get_running_loop()
        ping = b"\x89\xfd" + bytes(4) + bytes(125)
        for _ in range(40):
            await loop.sock_sendall(sleeper.socket, ping * 1000)
        size = lines[-1].transport.get_write_buffer_size()
        assert size < 300_000, "of five megabytes of pongs"
        sleeper.socket.close()
