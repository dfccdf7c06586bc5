"""Whether an rtpengine is set up as the configuration says: tried with a call of nobody.

Used by the media worker before it takes calls, and by ``callshield doctor``. A fault that would
show as a notice that nobody hears, as a tap that stays empty or as a key of objection that nobody
sees shows here.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import struct
from collections.abc import Iterator
from typing import Any

from callshield.errors import CallshieldError, SetupError
from callshield.settings import Settings
from callshield.settings_media import host_port
from sipbridge.ng_client import NgClient, NgRefused
from sipbridge.ng_protocol import media_of, session_description
from sipbridge.prompt_catalogue import Prompts
from sipbridge.rtpengine_dtmf import DtmfLog

#: Names of one answer to *list*: what certainly fits a datagram.
_LISTED = 500
_ROUNDS = 20
#: How long a copy or a key may take, and how often it is tried.
_HEARD_WITHIN_S, _TRIES = 0.5, 6
_EVENTS = 101
_MULAW_SILENCE = b"\xff" * 160


def node_prefix(settings: Settings) -> str:
    """What this node's call ids in rtpengine begin with: several nodes may share one."""
    return f"callshield:{settings.node.name}:"  # no name holds a colon


async def clear_leftovers(ng: NgClient, prefix: str) -> int:
    """Take out calls that an earlier process of this node left behind.

    Args:
        ng: rtpengine.
        prefix: of this node's call ids.

    Returns:
        how many there were.

    Raises:
        NgUnreachable: it does not answer.
    """
    cleared = 0
    for _ in range(_ROUNDS):
        listed = (await ng.ask("list", {"limit": _LISTED})).get("calls", [])
        ours = [name for name in listed if isinstance(name, str) and name.startswith(prefix)]
        if not ours:
            break
        for name in ours:
            with contextlib.suppress(NgRefused):
                await ng.ask("delete", {"call-id": name, "from-tag": "caller", "delete delay": 0})
                cleared += 1
    return cleared


async def probe(ng: NgClient, settings: Settings, keys: DtmfLog | None) -> str:
    """Try one call of nobody.

    Args:
        ng: rtpengine.
        settings: of the node.
        keys: where keys are logged to; ``None``: somebody else listens there, and it is not tried.

    Returns:
        a sentence about it.

    Raises:
        SetupError: rtpengine is not as the configuration says.
        NgUnreachable: it does not answer.
    """
    await ng.ask("ping")
    sip, media = settings.sip, settings.media.rtpengine
    call_id = f"{node_prefix(settings)}probe-{secrets.token_hex(8)}"
    call = {"call-id": call_id, "from-tag": "caller"}
    try:
        with _sockets(media.tap_address or sip.pbx.bind) as (caller, copies):
            target = await _set_up(ng, settings, call, caller)
            await _playable(ng, settings, call)
            await _copied(ng, settings, call, target, caller, copies)
            if keys is not None:
                await _pressed(keys, settings, call_id, target, caller)
    except NgRefused as refused:
        raise SetupError(f"{refused}; see its log") from None
    finally:
        with contextlib.suppress(CallshieldError):
            await ng.ask("delete", {**call, "delete delay": 0})
    return (
        f"{media.control} answers, with sides at {sip.pbx.media_advertised} and "
        f"{sip.phone.media_advertised}; it plays our prompts, copies the caller"
        + (" and logs keys" if keys is not None else "; the running node listens to its keys")
    )


@contextlib.contextmanager
def _sockets(address: str) -> Iterator[tuple[socket.socket, socket.socket]]:
    """One that calls, and one to which its sound is copied."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with (
        socket.socket(family, socket.SOCK_DGRAM) as caller,
        socket.socket(family, socket.SOCK_DGRAM) as copies,
    ):
        for one in (caller, copies):
            try:
                one.bind((address, 0))
            except OSError as error:
                raise SetupError(
                    f"media.rtpengine.tap_address: {address} is no address of this machine "
                    f"({error.strerror})"
                ) from None
            one.setblocking(False)
        yield caller, copies


async def _set_up(
    ng: NgClient, settings: Settings, call: dict[str, Any], caller: socket.socket
) -> tuple[str, int]:
    """Where the caller sends to.

    Raises:
        SetupError: a side of rtpengine is elsewhere.
    """
    sip, media = settings.sip, settings.media.rtpengine
    sdp = session_description(*caller.getsockname()[:2], event_payload_types=[_EVENTS])
    common: dict[str, Any] = {
        **call,
        "ICE": "remove",
        "flags": ["trust-address", "port-latching", "asymmetric"],
        "sdp": sdp,
    }
    interfaces = [media.pbx_interface, media.phone_interface]
    offered = await ng.ask("offer", {**common, "direction": interfaces})
    answered = await ng.ask("answer", {**common, "to-tag": "agent"})
    target = ("", 0)
    for side, interface, configured, answer in (
        ("phone", media.phone_interface, sip.phone.media_advertised, offered),
        ("pbx", media.pbx_interface, sip.pbx.media_advertised, answered),
    ):
        target = media_of(str(answer.get("sdp", "")))
        if target[0] != configured:
            raise SetupError(
                f"rtpengine's interface {interface} is at {target[0]}, and sip.{side} says "
                f"{configured}: start it with interface = {interface}/{configured}, or write "
                f'media.rtpengine.{side}_interface = "the name of that one"'
            )
    # Nobody is to hear the silence that is sent here.
    await ng.ask("block DTMF", call)
    return target


async def _playable(ng: NgClient, settings: Settings, call: dict[str, Any]) -> None:
    """rtpengine reads the prompts by itself: it must be able to."""
    prompts = await asyncio.to_thread(Prompts, settings)
    for path in (prompts.of(settings.notice.language).closing.path, prompts.notice_tone.path):
        try:
            await ng.ask("play media", {**call, "file": str(path.resolve())})
            await ng.ask("stop media", call)
        except NgRefused as refused:
            raise SetupError(
                f"rtpengine cannot play {path} ({refused.reason}): let the user that it runs as "
                "read the file, on the machine where it runs, and take one with transcoding"
            ) from None


def _packet(number: int, kind: int, payload: bytes) -> bytes:
    return struct.pack("!BBHII", 0x80, kind, number, 160 * number, 1) + payload


async def _copied(
    ng: NgClient,
    settings: Settings,
    call: dict[str, Any],
    target: tuple[str, int],
    caller: socket.socket,
    copies: socket.socket,
) -> None:
    """The tap's way: what the caller sends comes to us once more."""
    interface = settings.media.rtpengine.pbx_interface
    await ng.ask("subscribe request", {**call, "to-tag": "tap", "interface": interface})
    sdp = session_description(
        *copies.getsockname()[:2], event_payload_types=[_EVENTS], direction="recvonly"
    )
    await ng.ask("subscribe answer", {"call-id": call["call-id"], "to-tag": "tap", "sdp": sdp})
    loop = asyncio.get_running_loop()
    for number in range(_TRIES):
        caller.sendto(_packet(number, 0, _MULAW_SILENCE), target)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_HEARD_WITHIN_S):
                while (await loop.sock_recv(copies, 2048))[12:] != _MULAW_SILENCE:
                    pass
                return
    raise SetupError(
        f"rtpengine's copy of a caller does not come to {copies.getsockname()[0]}: let UDP "
        "through from its interface for the PBX to media.rtpengine.tap_address"
    )


async def _pressed(
    keys: DtmfLog, settings: Settings, call_id: str, target: tuple[str, int], caller: socket.socket
) -> None:
    """The way of an agent's code and of a caller's objection."""
    with keys.awaited(call_id) as came:
        for attempt in range(_TRIES):
            for number in range(3):
                end, duration = (0x80 if number == 2 else 0), 160 * (number + 1)
                event = struct.pack("!BBH", 0, end | 10, duration)
                kind = _EVENTS | (0x80 if number == 0 else 0)
                header = struct.pack(
                    "!BBHII", 0x80, kind, 100 + 3 * attempt + number, 8000 * (attempt + 4), 1
                )
                caller.sendto(header + event, target)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_HEARD_WITHIN_S):
                    await came.wait()
                    return
    logged = host_port(settings.media.rtpengine.dtmf_log)
    raise SetupError(
        f"rtpengine logs no key to {logged[0]} port {logged[1]}: start it with dtmf-log-dest = "
        f"{settings.media.rtpengine.dtmf_log}, or the codes on agents' phones and what callers "
        "press would go unseen"
    )
