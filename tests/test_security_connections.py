"""TCP and TLS connections to the SIP ports: who gets one, how many, and for how long in silence.

The child process and its peers are those of :mod:`tests.test_pjsip_guard`; it has no filter in the
kernel, so that the guard's own answer is seen. :func:`shield_listeners` is tested on sockets of the
test's own.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from sipbridge.listener_shield import BACKLOG, shield_listeners, source_filter
from tests.test_pjsip_guard import PATIENCE_S, PBX, STRANGER, Bridge, Peer, bridge, pbx

__all__ = ["bridge", "pbx"]  # fixtures

HALF = b"INVITE sip:7001@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/TCP x;branch=z9hG4bKx\r\nX-Filler: "


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def connect(stack: ExitStack, address: str, bridge: Bridge) -> socket.socket:
    found = stack.enter_context(socket.socket())
    found.bind((address, 0))
    found.settimeout(PATIENCE_S)
    found.connect(("127.0.0.1", bridge.tcp_port))
    return found


def closed(found: socket.socket) -> bool:
    """Whether the far end closes it, without a word, before our patience ends."""
    try:
        return found.recv(65536) == b""
    except ConnectionResetError:
        return True


def ask(found: socket.socket, peer: Peer) -> bytes:
    """The answer to an OPTIONS on a connection."""
    options = peer.request("OPTIONS").replace(b"SIP/2.0/UDP", b"SIP/2.0/TCP")
    found.sendall(options)
    return found.recv(65536)


def descriptors(bridge: Bridge) -> int:
    return len(list(Path(f"/proc/{bridge.pid}/fd").iterdir()))


def test_a_strangers_connection_is_closed_before_it_is_read(
    bridge: Bridge, pbx: Peer, stack: ExitStack
) -> None:
    before = descriptors(bridge)
    strangers = [connect(stack, STRANGER, bridge) for _ in range(4)]
    strangers[0].sendall(pbx.request("OPTIONS"))
    assert all(closed(one) for one in strangers)
    counters = bridge.counters()
    assert counters["refused_connections"] == 4
    assert counters["open_connections"] == 0
    assert counters["received_requests"] == 0  # nothing of theirs was read
    assert descriptors(bridge) == before
    # The control: the PBX's connection is taken, and answered.
    assert ask(connect(stack, PBX, bridge), pbx).startswith(b"SIP/2.0 200")
    assert bridge.counters()["open_connections"] == 1


def test_one_address_holds_so_many_connections_and_takes_nobody_elses(
    bridge: Bridge, pbx: Peer, stack: ExitStack
) -> None:
    bridge.call("set_allowed_networks", [(PBX, 32), ("127.0.0.3", 32)])
    bridge.call("set_connection_limits", 3, 5, 0)
    mine = [connect(stack, PBX, bridge) for _ in range(3)]
    assert all(ask(one, pbx).startswith(b"SIP/2.0 200") for one in mine)
    assert closed(connect(stack, PBX, bridge))
    others = [connect(stack, "127.0.0.3", bridge) for _ in range(2)]
    assert all(ask(one, pbx).startswith(b"SIP/2.0 200") for one in others)
    assert closed(connect(stack, "127.0.0.3", bridge))  # its third, but the sixth of all
    # The first ones go on, and a place that is given back is taken again.
    mine[0].close()
    deadline = time.monotonic() + PATIENCE_S
    while bridge.counters()["open_connections"] > 4:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert ask(connect(stack, PBX, bridge), pbx).startswith(b"SIP/2.0 200")
    assert ask(mine[1], pbx).startswith(b"SIP/2.0 200")
    assert bridge.counters()["refused_connections"] == 2


def test_a_flood_of_forged_datagrams_leaves_the_connections_share_alone(
    bridge: Bridge, pbx: Peer, stack: ExitStack
) -> None:
    """UDP may come from anybody who writes the PBX's address on it; its connection is the PBX's."""
    bridge.call("set_rate_limit", 0.001, 2)
    connection = connect(stack, PBX, bridge)
    forged = [pbx.ask(pbx.request("OPTIONS"))[0] for _ in range(3)]
    assert forged == [200, 200, 503]
    assert [ask(connection, pbx)[8:11] for _ in range(3)] == [b"200", b"200", b"503"]


def test_who_connects_and_says_half_a_message_is_let_go(
    bridge: Bridge, pbx: Peer, stack: ExitStack
) -> None:
    """Slowloris: nothing, half a request, a byte now and then; a real peer's connection stays."""
    bridge.call("set_connection_limits", 100, 100, 1)
    silent, half, dripping = (connect(stack, PBX, bridge) for _ in range(3))
    good = connect(stack, PBX, bridge)
    assert ask(good, pbx).startswith(b"SIP/2.0 200")
    half.sendall(HALF)
    dripping.sendall(HALF)
    dripping.settimeout(0.2)
    over, drops = False, 0
    while not over and drops < PATIENCE_S / 0.2:
        try:
            drops += 1
            dripping.sendall(b"a")
            over = dripping.recv(1) == b""
        except TimeoutError:
            continue
        except OSError:
            over = True
    assert over
    # Three seconds of its own: a machine that stands still lets nothing drip either.
    assert drops <= 15
    assert closed(silent)
    assert closed(half)
    assert ask(good, pbx).startswith(b"SIP/2.0 200")
    assert bridge.counters()["open_connections"] == 1


def test_the_negative_control_without_limits_they_stay_for_ever(
    bridge: Bridge, pbx: Peer, stack: ExitStack
) -> None:
    silent, half = connect(stack, PBX, bridge), connect(stack, PBX, bridge)
    half.sendall(HALF)
    silent.settimeout(2)
    with pytest.raises(TimeoutError):
        silent.recv(1)
    assert bridge.counters()["open_connections"] == 2


def test_a_message_without_an_end_costs_one_buffer(
    bridge: Bridge, pbx: Peer, stack: ExitStack
) -> None:
    """64 MB of one header, and the most that a Content-Length can claim: the connection ends."""
    bridge.call("set_connection_limits", 100, 100, 5)

    def resident_kb() -> int:
        status = Path(f"/proc/{bridge.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0])

    before = resident_kb()
    for start in (HALF, b"OPTIONS sip:x SIP/2.0\r\nContent-Length: 2147483647\r\n\r\n"):
        endless = connect(stack, PBX, bridge)
        with pytest.raises(OSError):  # noqa: PT011  closed while we send: which error is chance
            endless.sendall(start + b"a" * (64 << 20))
    assert resident_kb() - before < 1024
    assert pbx.ask(pbx.request("OPTIONS"))[0] == 200


# ------------------------------------------------------------------------- in the kernel


@pytest.mark.parametrize(
    ("networks", "inside", "outside"),
    [
        ([("127.0.42.4", 32)], ["127.0.42.4"], ["127.0.42.5", "127.0.0.1"]),
        ([("127.0.42.128", 25)], ["127.0.42.129"], ["127.0.42.127"]),
        ([("127.0.42.130", 31)], ["127.0.42.131"], ["127.0.42.132"]),
        ([("10.0.0.0", 8), ("127.0.42.7", 32)], ["127.0.42.7"], ["127.0.42.8"]),
        ([("0.0.0.0", 0)], ["127.0.42.9"], []),
        ([("::", 0)], [], ["127.0.42.4"]),  # all of IPv6 is not all of IPv4
        ([], [], ["127.0.42.4"]),
    ],
)
def test_the_kernel_takes_connections_of_the_networks_only(
    stack: ExitStack, networks: list[tuple[str, int]], inside: list[str], outside: list[str]
) -> None:
    listener = stack.enter_context(socket.socket())
    listener.bind(("127.0.42.2", 0))
    listener.listen(1)
    port = listener.getsockname()
    other = stack.enter_context(socket.socket())  # a listener of another port is left alone
    other.bind(("127.0.42.2", 0))
    other.listen(1)
    assert shield_listeners([port], networks) == 1
    for address in inside + outside:
        client = stack.enter_context(socket.socket())
        client.bind((address, 0))
        client.settimeout(PATIENCE_S if address in inside else 0.3)
        if address in inside:
            client.connect(port)
            served, _ = listener.accept()
            stack.enter_context(served)
            client.sendall(b"x")
            assert served.recv(1) == b"x"
        else:
            with pytest.raises(TimeoutError):
                client.connect(port)
        aside = stack.enter_context(socket.socket())
        aside.bind((address, 0))
        aside.connect(other.getsockname())
        stack.enter_context(other.accept()[0])


def test_ipv6_is_filtered_word_by_word(stack: ExitStack) -> None:
    for networks, taken in (
        ([("::1", 128)], True),
        ([("2001:db8::", 32)], False),
        ([("2001:db8::", 32), ("::", 64)], True),
        ([("::2", 127)], False),
        ([("::0", 127)], True),
    ):
        listener = stack.enter_context(socket.socket(socket.AF_INET6))
        listener.bind(("::1", 0))
        listener.listen(1)
        assert shield_listeners([listener.getsockname()[:2]], networks) == 1
        client = stack.enter_context(socket.socket(socket.AF_INET6))
        client.settimeout(PATIENCE_S if taken else 0.3)
        if taken:
            client.connect(listener.getsockname())
        else:
            with pytest.raises(TimeoutError):
                client.connect(listener.getsockname())


def test_too_many_networks_for_the_kernel_are_a_warning_and_the_guard_stays(
    stack: ExitStack, capsys: pytest.CaptureFixture[str]
) -> None:
    listener = stack.enter_context(socket.socket())
    listener.bind(("127.0.42.2", 0))
    listener.listen(1)
    many = [(f"10.{n >> 8}.{n & 255}.0", 24) for n in range(2000)]
    assert len(source_filter(4, many)) > 4096
    assert shield_listeners([listener.getsockname()], many) == 0
    assert "listener_not_shielded" in capsys.readouterr().out


def test_a_burst_of_connections_finds_room(stack: ExitStack) -> None:
    """PJSIP listens with room for five: the sixth PBX would wait a second for its second SYN."""
    listener = stack.enter_context(socket.socket())
    listener.bind(("127.0.42.2", 0))
    listener.listen(5)

    def connects_at_once(count: int) -> int:
        clients = [stack.enter_context(socket.socket()) for _ in range(count)]
        for client in clients:
            client.settimeout(0.3)
        done = 0
        for client in clients:
            try:
                client.connect(listener.getsockname())
            except TimeoutError:
                return done
            done += 1
        return done

    assert connects_at_once(100) < 10
    shield_listeners([listener.getsockname()], [("127.0.0.0", 8)])
    assert BACKLOG > 100
    assert connects_at_once(100) == 100
