"""``callshield doctor --pbx``: each configured PBX, asked and called from here."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

from callshield.errors import CallshieldError
from callshield.findings import Finding, note, problem
from callshield.settings import Settings
from callshield.settings_sip import SideSettings

#: All peers together; each step has a limit of its own besides.
EVERYTHING_WITHIN_S = 600.0


def examine_pbx(settings: Settings, show: Callable[[Finding | str], None]) -> None:
    """Ask and call every peer.

    Args:
        settings: the node's.
        show: gets each finding as it is made, and sentences on what is being done.
    """

    async def examine() -> None:
        async with asyncio.timeout(EVERYTHING_WITHIN_S):
            async for finding in _examine(settings, show):
                show(finding)

    try:
        asyncio.run(examine())
    except TimeoutError:
        show(
            problem(
                "time", f"not done after {EVERYTHING_WITHIN_S:.0f} s", "examine fewer peers at once"
            )
        )


async def _examine(
    settings: Settings, say: Callable[[Finding | str], None]
) -> AsyncIterator[Finding]:
    from callshield.doctor_listening import examine_listening
    from sipbridge.pbx_probe import PbxProbe, examine_options

    if not settings.peers:
        yield problem("peers", "no [[peers]]", "nobody may send calls: add the PBX's address")
        return
    probe: PbxProbe | None = None
    try:
        for peer in settings.peers:
            name = f"peer {peer.name}"
            findings, open_ = await examine_options(peer, settings, say)
            for finding in findings:
                yield replace(finding, subject=name)
            if peer.echo_uri is None or not open_:
                left_out = _no_echo() if peer.echo_uri is None else _LEFT_OUT
                yield replace(left_out, subject=name)
                continue
            try:
                if probe is None:
                    probe = PbxProbe(_with_free_ports(settings))
                    probe.start()
                async for finding in probe.examine_call(peer.echo_uri, say):
                    yield replace(finding, subject=name)
            except CallshieldError as error:
                yield replace(
                    problem("test call", str(error), "mend this, then ask again"), subject=name
                )
    finally:
        if probe is not None:
            probe.stop()
    for finding in await examine_listening(settings, say):
        yield finding


_LEFT_OUT = note("test call", "left out: see above", "")


def _no_echo() -> Finding:
    return note(
        "test call",
        "left out: this peer has no echo_uri",
        "only a call shows codec, audio and digits; give the peer "
        'echo_uri = "sip:echo@PBX:5060"'
        " where deploy/asterisk is used, else any extension that answers and echoes",
    )


def _with_free_ports(settings: Settings) -> Settings:
    """The same node on SIP ports that are free now, so that a running one is not disturbed.

    The addresses stay: by them the PBX knows its trunk. RTP ports stay too: firewalls let them
    pass, and those in use are skipped.
    """
    sip = settings.sip
    pbx = _moved(sip.pbx)
    phone = _moved(sip.phone)
    return settings.model_copy(
        update={"sip": sip.model_copy(update={"pbx": pbx, "phone": phone, "admission_limit": 1})}
    )


def _moved(side: SideSettings) -> SideSettings:
    update: dict[str, object] = {"port": _free_port(side.bind)}
    if side.tls.enabled:
        update["tls"] = side.tls.model_copy(update={"port": _free_port(side.bind)})
    return side.model_copy(update=update)


def _free_port(address: str) -> int:
    """A port that is free for UDP and TCP now.

    Raises:
        CallshieldError: the address is not one of this machine.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    for _ in range(50):
        with contextlib.ExitStack() as stack:
            datagram = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
            stream = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
            try:
                datagram.bind((address, 0))
                port = int(datagram.getsockname()[1])
            except OSError as error:
                raise CallshieldError(
                    f"sip.pbx.bind or sip.phone.bind: {address} is not an address here "
                    f"({error.strerror})"
                ) from None
            with contextlib.suppress(OSError):
                stream.bind((address, port))
                return port
    raise CallshieldError(f"no free port on {address}")
