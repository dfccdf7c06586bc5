"""One configured PBX, looked at from where Callshield stands: OPTIONS, then a test call.

Works beside a running node and before there ever was one: SIP ports of its own, RTP ports that
are free now, nothing written.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

from callshield.errors import SdpError
from callshield.findings import Finding, note, problem
from callshield.settings import Settings
from callshield.settings_sip import PeerSettings, SideSettings, uri_transport
from sipbridge import sdp
from sipbridge.leg_policy import caller_policy
from sipbridge.pbx_probe_audio import MIN_CORRELATION, stream_figures
from sipbridge.pbx_probe_call import TestCaller
from sipbridge.pbx_probe_judge import (
    Ours,
    judge_answer,
    judge_end,
    judge_keys,
    judge_media_address,
    judge_options,
    judge_our_address,
    judge_timer,
)
from sipbridge.pbx_probe_judge_audio import (
    judge_audio,
    judge_codec,
    judge_digits,
    judge_ptime,
    judge_stream,
)
from sipbridge.pbx_probe_options import Asker, ask, bracketed
from sipbridge.pbx_probe_seen import CallSeen, OptionsSeen, Reach
from sipbridge.pjsip_stack import PjsipStack
from sipbridge.sip_message import uri_host_port

Say = Callable[[str], None]


def options_uri(peer: PeerSettings, settings: Settings) -> str | None:
    """Where to ask a peer: configured, or the echo's host, or that of agents' phones behind it,
    or its only address; None when there is nothing to go by."""
    if peer.options_uri:
        return peer.options_uri
    networks = [ipaddress.ip_network(network) for network in peer.networks]
    if peer.echo_uri:
        return _without_user(peer.echo_uri)
    for agent in settings.agents.values():
        host = uri_host_port(agent.uri)[0]
        if any(ipaddress.ip_address(host) in network for network in networks):
            return _without_user(agent.uri)
    single = [network for network in networks if network.num_addresses == 1]
    return f"sip:{bracketed(str(single[0].network_address))}:5060" if single else None


def _without_user(uri: str) -> str:
    scheme, _, rest = uri.partition(":")
    return f"{scheme}:{rest.rpartition('@')[2]}"


def target_of(uri: str, transport: str) -> tuple[str, int]:
    """Address and port of a SIP URI whose host is an address (RFC 3263 section 4)."""
    host, host_port = uri_host_port(uri)
    port = host_port.rpartition(":")[2] if host_port != host and host_port[-1:] != "]" else ""
    return host, int(port) if port.isdigit() else 5061 if transport == "tls" else 5060


async def examine_options(
    peer: PeerSettings, settings: Settings, say: Say
) -> tuple[list[Finding], bool]:
    """Ask over UDP and TCP, and over TLS where it is configured.

    Returns:
        the findings, and whether a call makes sense: False when its way is closed for certain.
    """
    uri = options_uri(peer, settings)
    if uri is None:
        nowhere = note(
            "reachable",
            "no single address to ask: this peer has only networks",
            'give it options_uri = "sip:ADDRESS:5060", and echo_uri',
        )
        return [nowhere], True
    side = settings.sip.pbx
    used = uri_transport(peer.echo_uri or uri)
    wanted = ["udp", "tcp", "tls"] if side.tls.enabled or used == "tls" else ["udp", "tcp"]
    asker = _asker(side, settings.sip.user_agent)
    host, port = target_of(uri, uri_transport(uri))
    say(f"asking {host} by OPTIONS over {', '.join(name.upper() for name in wanted)}")
    questions = []
    for transport in wanted:
        there = port if transport == uri_transport(uri) else _usual_port(port, transport, uri)
        plain = f"sip:{bracketed(host)}:{there}"
        whole = plain if transport == "udp" else f"{plain};transport={transport}"
        questions.append(ask(whole, (host, there), transport, asker))
    answers: list[OptionsSeen] = await asyncio.gather(*questions)
    findings = [
        judge_options(seen, needed=seen.transport == used, bind=side.bind) for seen in answers
    ]
    told = [seen for seen in answers if seen.reach is Reach.ANSWERED]
    told.sort(key=lambda seen: seen.transport != used)
    if told and (finding := judge_our_address(told[0])) is not None:
        findings.append(finding)
    closed = any(
        seen.transport == used and seen.reach in (Reach.REFUSED, Reach.UNREACHABLE)
        for seen in answers
    )
    # The echo may live on another machine than the one that was asked.
    same = peer.echo_uri is None or target_of(peer.echo_uri, used) == target_of(uri, used)
    return findings, not (closed and same)


def _usual_port(port: int, transport: str, uri: str) -> int:
    """The port of another transport than the URI's: TLS lies one above, the others together."""
    if transport == "tls":
        return port + 1
    return port - 1 if uri_transport(uri) == "tls" else port


def _asker(side: SideSettings, user_agent: str) -> Asker:
    tls = side.tls
    pair = (tls.certificate, tls.private_key)
    return Asker(
        bind=side.bind,
        announced=side.signalling_advertised,
        user_agent=user_agent,
        ca_file=tls.ca_file,
        verify=tls.verify_server,
        certificate=pair if pair[0] is not None and pair[1] is not None else None,  # type: ignore[arg-type]
    )


class PbxProbe:
    """Test calls to several peers over one SIP stack.

    Args:
        settings: the node's, with SIP ports that are free now in ``sip.pbx`` and ``sip.phone``.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stack = PjsipStack(settings, asyncio.get_running_loop(), self._on_request)
        self._caller: TestCaller | None = None

    def start(self) -> None:
        """Open the ports.

        Raises:
            SetupError: pjsua2 or a port is missing.
        """
        self._stack.start()
        self._stack.set_ready(True)
        sip = self._settings.sip
        self._caller = TestCaller(self._stack, sip.pbx, sip.dscp_media)

    def stop(self) -> None:
        """Close them."""
        if self._caller is not None:
            self._caller.close()
            self._caller = None
        self._stack.stop()

    def _on_request(self, token: int, call: int, message: bytes) -> None:
        if self._caller is not None:
            self._caller.on_request(token, call, message)

    async def examine_call(self, echo_uri: str, say: Say) -> AsyncIterator[Finding]:
        """Call an echo extension and judge it; a second call with SRTP keys where that is on."""
        assert self._caller is not None
        side = self._settings.sip.pbx
        ours = Ours(
            bind=side.bind,
            networks=tuple(side.networks),
            codecs=tuple(side.codecs),
            session_expires_s=self._settings.sip.session_expires_s,
            rtp_timeout_s=self._settings.sip.rtp_timeout_s,
            srtp=side.srtp,
        )
        policy = caller_policy(self._settings, over_tls=uri_transport(echo_uri) == "tls")
        say(f"calling {echo_uri.partition(':')[2].partition(';')[0]}")
        # The test signal goes in the clear; where that is not allowed only the answer is looked at.
        listen = policy.srtp != "required"
        first = replace(policy, srtp="off") if listen else policy
        call = keyed = await self._caller.place(echo_uri, first, say, listen=listen)
        if policy.srtp == "optional":
            say("calling again, with SRTP keys")
            keyed = await self._caller.place(echo_uri, policy, say, listen=False)
        for finding in judge_call(call, keyed, ours):
            yield finding


def judge_call(call: CallSeen, keyed: CallSeen, ours: Ours) -> list[Finding]:
    """Everything that a test call tells.

    Args:
        call: the one with audio.
        keyed: the one whose offer carried SRTP keys; ``call`` itself where SRTP is off.
        ours: our side.
    """
    findings = [judge_answer(call, ours)]
    if not call.answered:
        if keyed is not call:
            findings.append(judge_keys(keyed, ours))
        return findings
    try:
        audio = sdp.parse(call.answer).audio
        unusable = "it refuses the audio line"
    except SdpError as error:
        audio, unusable = None, str(error)
    if audio is None:
        findings.append(
            problem(
                "session description",
                f"the answer cannot be used: {unusable}",
                "look at the PBX's log; it answered without usable audio",
            )
        )
        return findings
    findings += [
        judge_codec(call, audio),
        judge_media_address(call, audio, ours),
        *_judge_heard(call, audio),
        judge_timer(call, ours),
        judge_keys(keyed, ours),
    ]
    if (end := judge_end(call)) is not None:
        findings.append(end)
    return findings


def _judge_heard(call: CallSeen, audio: sdp.AudioMedia) -> list[Finding]:
    """What only the audio tells."""
    if not call.listened:
        return [
            note(
                "audio both ways",
                "not tried: sip.pbx.srtp is required, and the test signal goes in the clear only",
                "to have it tried, set sip.pbx.srtp to optional for the time of this check",
            )
        ]
    found = call.echo is not None and abs(call.echo.correlation) >= MIN_CORRELATION
    clock = audio.voice[0].clock_rate if audio.voice else 8000
    figures = stream_figures(call.packets, {codec.payload_type for codec in audio.voice}, clock)
    return [
        judge_ptime(audio, call.answer, figures),
        judge_audio(call, audio, found=found),
        judge_stream(call, figures),
        judge_digits(call, audio),
    ]
