"""Local messages: nothing waits, what cannot be sent is kept within a bound, oldest dropped."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import msgspec
import pytest

from callshield.bus import BusClient, BusServer, Codec, Peer
from callshield.errors import BusError
from callshield.messages import Action, Command, Hello, NodeDegraded, NodeMessage, RiskChanged


def degraded(number: int) -> NodeDegraded:
    return NodeDegraded(ts=float(number), component="media", degraded=True)


class Sink:
    """A server that keeps what it hears."""

    def __init__(self, path: Path) -> None:
        self.heard: list[NodeMessage] = []
        self.news = asyncio.Condition()
        self.peers: list[Peer[NodeMessage]] = []
        self.server: BusServer[NodeMessage] = BusServer(path, NodeMessage, self._hear)

    async def _hear(self, peer: Peer[NodeMessage], message: NodeMessage) -> None:
        if isinstance(message, Hello):
            peer.role = message.role
            self.peers.append(peer)
        async with self.news:
            self.heard.append(message)
            self.news.notify_all()

    async def until(self, count: int) -> None:
        async with asyncio.timeout(30), self.news:
            await self.news.wait_for(lambda: len(self.heard) >= count)


def client(path: Path, heard: list[NodeMessage], limit: int = 100) -> BusClient[NodeMessage]:
    async def hear(message: NodeMessage) -> None:
        heard.append(message)

    return BusClient(
        path, NodeMessage, hear, lambda: [Hello(role="bridge", pid=1, node="n")], limit=limit
    )


async def test_messages_arrive_in_order_after_the_hello(tmp_path: Path) -> None:
    sink = Sink(tmp_path / "bus.sock")
    await sink.server.start()
    peer = client(tmp_path / "bus.sock", [])
    for number in range(20):
        peer.send(degraded(number))
    peer.start()
    await sink.until(21)
    assert isinstance(sink.heard[0], Hello)
    assert sink.heard[1:] == [degraded(number) for number in range(20)]
    await peer.close()
    await sink.server.close()


async def test_queue_keeps_the_newest_while_the_server_is_away(tmp_path: Path) -> None:
    peer = client(tmp_path / "bus.sock", [], limit=5)
    peer.start()
    for number in range(12):
        peer.send(degraded(number))
    assert peer.dropped == 7
    sink = Sink(tmp_path / "bus.sock")
    await sink.server.start()
    await sink.until(6)
    assert [m.ts for m in sink.heard if isinstance(m, NodeDegraded)] == [7, 8, 9, 10, 11]
    await peer.close()
    await sink.server.close()


async def test_client_comes_back_and_introduces_itself_again(tmp_path: Path) -> None:
    sink = Sink(tmp_path / "bus.sock")
    await sink.server.start()
    peer = client(tmp_path / "bus.sock", [])
    peer.start()
    await sink.until(1)
    await sink.server.close()
    again = Sink(tmp_path / "bus.sock")
    await again.server.start()
    await again.until(1)
    peer.send(degraded(1))
    await again.until(2)
    assert [type(m) for m in again.heard] == [Hello, NodeDegraded]
    await peer.close()
    await again.server.close()


async def test_server_answers_on_the_same_connection(tmp_path: Path) -> None:
    sink = Sink(tmp_path / "bus.sock")
    await sink.server.start()
    heard: asyncio.Queue[NodeMessage] = asyncio.Queue()
    peer: BusClient[NodeMessage] = BusClient(
        tmp_path / "bus.sock", NodeMessage, heard.put, lambda: [Hello(role="bridge", pid=1)]
    )
    peer.start()
    await sink.until(1)
    command = Command(command_id="1", call_id="c", action=Action.END, by="agent:console")
    sink.peers[0].send(command)
    async with asyncio.timeout(30):
        assert await heard.get() == command
    await peer.close()
    await sink.server.close()


async def test_garbage_costs_the_connection_and_nothing_else(tmp_path: Path) -> None:
    sink = Sink(tmp_path / "bus.sock")
    await sink.server.start()
    reader, writer = await asyncio.open_unix_connection(str(tmp_path / "bus.sock"))
    writer.write(b"\x00\x00\x00\x03abc")
    assert await reader.read() == b""
    writer.close()
    peer = client(tmp_path / "bus.sock", [])
    peer.start()
    await sink.until(1)
    await peer.close()
    await sink.server.close()


async def test_overlong_message_is_refused_before_it_is_read() -> None:
    reader = asyncio.StreamReader()
    reader.feed_data(b"\xff\xff\xff\xff")
    codec: Codec[NodeMessage] = Codec(NodeMessage)
    with pytest.raises(BusError, match="too long"):
        await codec.read(reader)


async def test_socket_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 120) / "bus.sock"
    with pytest.raises(BusError, match=r"choose a node\.runtime_dir"):
        await Sink(path).server.start()


def test_socket_is_private(tmp_path: Path) -> None:
    async def run() -> int:
        sink = Sink(tmp_path / "bus.sock")
        await sink.server.start()
        mode = (tmp_path / "bus.sock").stat().st_mode & 0o777
        await sink.server.close()
        return mode

    assert asyncio.run(run()) == 0o600


async def test_unknown_fields_of_a_newer_node_are_passed_over() -> None:
    event = RiskChanged(ts=1.0, call_id="c", level=2, previous=0, categories=[], score=0.5)
    body = msgspec.msgpack.encode({**msgspec.to_builtins(event), "not_yet_invented": 1})
    reader = asyncio.StreamReader()
    reader.feed_data(len(body).to_bytes(4, "big") + body)
    codec: Codec[NodeMessage] = Codec(NodeMessage)
    assert await codec.read(reader) == event


async def test_a_message_that_cannot_be_encoded_costs_itself_only(tmp_path: Path) -> None:
    sink = Sink(tmp_path / "bus.sock")
    await sink.server.start()
    peer = client(tmp_path / "bus.sock", [])
    peer.send(NodeDegraded(ts=1.0, component="caf\udce9", degraded=True))
    peer.send(degraded(2))
    peer.start()
    await sink.until(2)
    assert sink.heard[1:] == [degraded(2)]
    assert peer.dropped == 1
    await peer.close()
    await sink.server.close()


async def test_a_handler_that_fails_costs_neither_side_the_connection(tmp_path: Path) -> None:
    heard: list[NodeMessage] = []
    twice = asyncio.Event()

    async def fail(peer: Peer[NodeMessage], message: NodeMessage) -> None:
        heard.append(message)
        peer.send(message)
        if len(heard) == 2:
            twice.set()
        raise ValueError("a fault of ours")

    async def fail_too(message: NodeMessage) -> None:
        raise ValueError("another fault of ours")

    server: BusServer[NodeMessage] = BusServer(tmp_path / "bus.sock", NodeMessage, fail)
    await server.start()
    peer: BusClient[NodeMessage] = BusClient(
        tmp_path / "bus.sock", NodeMessage, fail_too, lambda: [Hello(role="bridge", pid=1)]
    )
    peer.start()
    await peer.connected.wait()
    peer.send(degraded(1))
    async with asyncio.timeout(30):
        await twice.wait()
    assert [type(message) for message in heard] == [Hello, NodeDegraded]
    await peer.close()
    await server.close()


async def test_closing_is_no_loss(tmp_path: Path) -> None:
    sink = Sink(tmp_path / "bus.sock")
    await sink.server.start()
    lost: list[str] = []

    async def ignore(message: NodeMessage) -> None:
        return

    peers: list[BusClient[NodeMessage]] = [
        BusClient(
            tmp_path / "bus.sock", NodeMessage, ignore, list, on_disconnect=lambda: lost.append("x")
        )
        for _ in range(2)
    ]
    for peer in peers:
        peer.start()
        await peer.connected.wait()
    await peers[0].close()
    assert lost == []
    await sink.server.close()  # negative control: this one is a loss
    async with asyncio.timeout(30):
        while not lost:  # noqa: ASYNC110 - a callback, not an event
            await asyncio.sleep(0.01)
    await peers[1].close()


@pytest.mark.parametrize("unread", [0, 3])
async def test_the_last_words_of_a_peer_that_died_are_heard(tmp_path: Path, unread: int) -> None:
    """We speak to it before we have read them, or it died with words of ours unread."""
    path, codec = tmp_path / "bus.sock", Codec[NodeMessage](NodeMessage)
    heard: list[NodeMessage] = []
    gone = asyncio.Event()
    with socket.socket(socket.AF_UNIX) as dying:

        async def hear(peer: Peer[NodeMessage], message: NodeMessage) -> None:
            heard.append(message)
            if isinstance(message, Hello):
                for number in range(unread):
                    peer.send(degraded(number))
                for number in range(20):
                    dying.sendall(codec.frame(degraded(number)))
                dying.close()
                peer.send(degraded(0))

        server: BusServer[NodeMessage] = BusServer(path, NodeMessage, hear, lambda _: gone.set())
        await server.start()
        dying.connect(str(path))
        dying.sendall(codec.frame(Hello(role="bridge", pid=1, node="n")))
        async with asyncio.timeout(30):
            await gone.wait()
    await server.close()
    assert heard[1:] == [degraded(number) for number in range(20)]


async def test_the_last_words_of_a_server_that_died_are_heard(tmp_path: Path) -> None:
    """The same at the client's side; what it could not say any more goes to the next server."""
    path, codec = tmp_path / "bus.sock", Codec[NodeMessage](NodeMessage)
    heard: list[NodeMessage] = []
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        speaker = client(path, heard)
        speaker.start()
        dying, _ = await asyncio.to_thread(listening.accept)
        dying.sendall(b"".join(codec.frame(degraded(number)) for number in range(20)))
        dying.close()  # with the Hello unread
        for number in range(20, 40):
            speaker.send(degraded(number))
    async with asyncio.timeout(30):
        await speaker.connected.wait()
        while speaker.connected.is_set():  # noqa: ASYNC110
            await asyncio.sleep(0)
    assert heard == [degraded(number) for number in range(20)]
    sink = Sink(path)
    await sink.server.start()
    await sink.until(21)
    assert sink.heard[1:] == [degraded(number) for number in range(20, 40)]
    await speaker.close()
    await sink.server.close()


async def test_a_message_is_said_before_the_next_step(tmp_path: Path) -> None:
    """A process killed right after it has told something has told it."""
    path, codec = tmp_path / "bus.sock", Codec[NodeMessage](NodeMessage)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        speaker = client(path, [])
        speaker.start()
        await speaker.connected.wait()
        heard, _ = listening.accept()
        with heard:
            heard.recv(65536)  # the Hello
            speaker.send(degraded(1))
            assert heard.recv(65536, socket.MSG_DONTWAIT) == codec.frame(degraded(1))
        await speaker.close()
