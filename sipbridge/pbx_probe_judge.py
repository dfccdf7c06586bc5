"""What a probe's observations mean, and what an operator should do: pure functions.

Each check gives one finding; the order is that in which one would mend things.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from callshield.errors import SdpError
from callshield.findings import Finding, note, ok, problem
from sipbridge import sdp
from sipbridge.pbx_probe_seen import CallSeen, OptionsSeen, Reach
from sipbridge.sip_message import (
    SipHeaders,
    address_uri,
    source_host,
    uri_host_port,
)

#: A PBX that takes longer to answer OPTIONS has trouble, or the network between has.
SLOW_OPTIONS_MS = 500.0
CERTIFICATE_DAYS = 30
#: An echo extension answers at once; a caller notices more than this.
SLOW_ANSWER_MS = 4000.0
#: Private and shared addresses (RFC 1918, RFC 6598, RFC 4193) and link-local ones.
_PRIVATE = tuple(
    ipaddress.ip_network(network)
    for network in (
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",
        "169.254.0.0/16",
        "fc00::/7",
        "fe80::/10",
    )
)


@dataclass(frozen=True, slots=True)
class Ours:
    """Our side of it.

    Args:
        bind: ``sip.pbx.bind``.
        networks: whose media is taken besides the address in the SDP (``sip.pbx.networks``).
        codecs: ``sip.pbx.codecs``.
        session_expires_s: ``sip.session_expires_s``.
        rtp_timeout_s: ``sip.rtp_timeout_s``.
        srtp: ``sip.pbx.srtp``.
    """

    bind: str
    networks: tuple[str, ...] = ()
    codecs: tuple[str, ...] = ("PCMU", "PCMA")
    session_expires_s: int = 1800
    rtp_timeout_s: float = 60.0
    srtp: str = "off"


# ----------------------------------------------------------------------------- OPTIONS


def judge_options(seen: OptionsSeen, *, needed: bool, bind: str) -> Finding:
    """Whether the PBX can be reached over one transport.

    Args:
        seen: what came of it.
        needed: this transport is the one in use; otherwise silence is only worth a note.
        bind: our address, for the sentence.
    """
    name = f"reachable over {seen.transport.upper()}"
    bad = problem if needed else note
    where = seen.target
    if seen.reach is Reach.SILENT:
        words = f" ({seen.error})" if seen.error else ""
        again = f" to {seen.sent} requests" if seen.sent > 1 else ""
        return bad(
            name,
            f"{where}: no answer at all{again}{words}",
            "silence is a firewall that drops, a wrong address or a machine that is off: ping it, "
            f"and watch on the PBX whether anything comes (tcpdump -ni any host {bind})",
        )
    if seen.reach is Reach.REFUSED:
        return bad(
            name,
            f"{where}: the machine is there, nothing listens on this port ({seen.error})",
            "start the PBX, or mend the port (Asterisk: `pjsip show transports`)"
            if needed
            else "nothing, unless calls should come this way",
        )
    if seen.reach is Reach.UNREACHABLE:
        return bad(
            name,
            f"{where}: no way there from {bind} ({seen.error})",
            "mend the route, or sip.pbx.bind (`ip route get`)",
        )
    if seen.reach is Reach.TLS_FAILED:
        return bad(
            name,
            f"{where}: connected, but no TLS session ({seen.error})",
            "give sip.pbx.tls.ca_file the authority that signed the PBX's certificate; the "
            "certificate must name this very address (subjectAltName), and the PBX must know ours",
        )
    if seen.reach is Reach.CLOSED:
        return bad(
            name,
            f"{where}: connected, then closed without an answer ({seen.error})",
            "let the PBX take SIP from this address (access list, fail2ban)",
        )
    return _answered(name, seen, needed=needed, bind=bind)


def _answered(name: str, seen: OptionsSeen, *, needed: bool, bind: str) -> Finding:
    status, headers = seen.status, seen.headers
    reason = headers.start_line[8:60]
    detail = f"{seen.target}: {reason} after {seen.round_trip_ms or 0:.0f} ms"
    if seen.tls_version:
        detail += f", {seen.tls_version}"
    software = (headers.all("Server") + headers.all("User-Agent") + [""])[0]
    if software:
        detail += f", {software[:60]}"
    bad = problem if needed else note
    if status in (401, 403, 407):
        return bad(
            name,
            detail,
            f"the PBX does not know {bind} as a trunk: name this address there (Asterisk: "
            f"`match={bind}` in a section of type=identify)",
        )
    if status in (500, 503, 504):
        return bad(name, detail, "the PBX says that it cannot serve: look at its log")
    if seen.certificate_days is not None and seen.certificate_days < CERTIFICATE_DAYS:
        return note(
            name,
            f"{detail}; its certificate expires in {seen.certificate_days:.0f} days",
            "renew the PBX's certificate",
        )
    if seen.sent > 1:
        return note(
            name,
            f"{detail}, but only to request number {seen.sent}",
            "packets are lost on the way, or the PBX is overloaded: look at both",
        )
    if (seen.round_trip_ms or 0) > SLOW_OPTIONS_MS:
        return note(name, detail, "that is slow: look at the network and at the PBX's load")
    return ok(name, detail)


def judge_our_address(seen: OptionsSeen) -> Finding | None:
    """Whether the PBX sees us where we say we are (RFC 3581); None when it does not tell."""
    if seen.reach is not Reach.ANSWERED:
        return None
    via = SipHeaders(seen.response).first("Via")
    received = re.search(r";\s*received=\[?([0-9A-Fa-f.:]+)", via)
    rport = re.search(r";\s*rport=(\d+)", via)
    announced_host, announced_port = source_host(seen.announced), seen.announced.rpartition(":")[2]
    name = "our address as the PBX sees it"
    if received is None and rport is None:
        return note(
            name,
            "the PBX did not say where our request came from (no received, no rport in Via)",
            "nothing, unless there is NAT between: then switch it on (Asterisk: force_rport=yes)",
        )
    host = received[1] if received else announced_host
    port = rport[1] if rport else announced_port
    if host != announced_host:
        return problem(
            name,
            f"we say {announced_host}, the PBX sees {host}: address translation between us",
            f'set sip.pbx.advertised = "{host}" and forward the SIP and RTP ports, or give the PBX '
            "a way to our own address",
        )
    if port != announced_port:
        return note(
            name,
            f"{host}, but from port {port} instead of {announced_port}: ports are translated",
            "let the firewall keep ports (no source-port rewriting) between here and the PBX",
        )
    return ok(name, f"{host}, as we say (port kept)")


# ----------------------------------------------------------------------------- the call


def judge_answer(call: CallSeen, ours: Ours) -> Finding:
    """Whether the echo extension answered, and how fast."""
    name = "test call"
    rang = ", ".join(f"{p.status} after {p.after_ms:.0f} ms" for p in call.provisional)
    rang = f" ({rang})" if rang else ""
    if call.answered:
        detail = f"answered after {call.answered_after_ms or 0:.0f} ms{rang}"
        if (call.answered_after_ms or 0) > SLOW_ANSWER_MS:
            return note(
                name, detail, "slow: let the extension Answer() before it does anything else"
            )
        return ok(name, detail)
    if not call.final_response and call.final_status in (0, 408):
        return problem(
            name,
            f"{call.target}: no answer to the INVITE{rang}",
            "does the extension exist, and answer by itself? (Asterisk: Answer(), then Echo())"
            if call.provisional
            else "the PBX was silent: see its reachability above",
        )
    if not call.final_response:
        return problem(
            name,
            f"{call.target}: the INVITE could not be sent ({call.final_status})",
            "see the reachability above",
        )
    status = call.final_status
    reason = call.headers.start_line[8:60]
    warning = call.headers.first("Warning") or call.headers.first("Reason")
    detail = f"refused: {reason}" + (f" ({warning[:120]})" if warning else "") + rang
    return problem(name, detail, _refusal_advice(status, ours))


def _refusal_advice(status: int, ours: Ours) -> str:
    if status in (401, 403, 407):
        return (
            f"the PBX does not take calls from {ours.bind} as a trunk: name this address there "
            "(Asterisk: type=identify, match=), and let its context reach the echo extension"
        )
    if status in (404, 484, 604):
        return "there is no such extension in the trunk's context: make it, or mend echo_uri"
    if status in (415, 488, 606):
        return (
            f"no codec in common: we offer {', '.join(ours.codecs)} over "
            f"{'SRTP' if ours.srtp == 'required' else 'plain RTP'}; allow one of them for the "
            "trunk (Asterisk: allow=alaw,ulaw in the endpoint; media_encryption=no, or sdes for "
            "SRTP)"
        )
    if status == 422:
        return "the PBX wants longer session timers than sip.session_expires_s allows: raise it"
    if status in (480, 486, 503, 600):
        return "the extension is busy or the PBX is full: try again, then look at its log"
    return "look at the PBX's log (Asterisk: `pjsip set logger on`)"


def judge_media_address(call: CallSeen, audio: sdp.AudioMedia, ours: Ours) -> Finding:
    """Whether the addresses in SDP, Contact and on the wire are the same."""
    name = "media address"
    source = source_host(call.response_source)
    contact = uri_host_port(address_uri(call.headers.first("Contact")))[0]
    described = audio.address
    came = sorted({packet.source[0] for packet in call.packets})
    if not described:
        return problem(
            name,
            "the SDP names a host, or 0.0.0.0, instead of an address",
            "let the PBX write its address into c= (Asterisk: media_address=)",
        )
    known = (described, call.moved_to)
    strange = [a for a in came if a not in known and not _within(a, ours.networks)]
    if strange:
        return problem(
            name,
            f"the SDP says {described}, media comes from {', '.join(strange)}",
            f"Callshield drops media from elsewhere: set the PBX's media address right (Asterisk: "
            f'media_address=, external_media_address=), or sip.pbx.networks = ["{strange[0]}"]',
        )
    if is_private(described) and source and not is_private(source):
        return problem(
            name,
            f"the SDP says {described}, a private address, but the PBX answers from {source}",
            "the PBX is behind NAT and does not know it (Asterisk: external_media_address and "
            "external_signaling_address in the transport, local_net=)",
        )
    if contact and source and contact != source and _is_address(contact):
        verdict = problem if is_private(contact) and not is_private(source) else note
        return verdict(
            name,
            f"SDP {described}; Contact says {contact}, but the answer came from {source}",
            "requests inside calls go to the Contact where it lies in a peer's networks, and else "
            "back to where the answer came from: let it name the PBX's own address (Asterisk: "
            "external_signaling_address=)",
        )
    if call.moved_to:
        return note(
            name,
            f"{described}; during the call the PBX moved the media to {call.moved_to}",
            "direct media takes the PBX out of the audio's way: set direct_media=no on the trunk",
        )
    if source and described != source:
        return note(
            name,
            f"SDP {described}, signalling from {source}",
            "all right if the PBX has a media address of its own; audio below tells",
        )
    return ok(name, f"SDP, Contact and source agree: {described}")


def judge_timer(call: CallSeen, ours: Ours) -> Finding:
    """Session timers (RFC 4028)."""
    name = "session timer"
    headers = call.headers
    value = headers.first("Session-Expires") or headers.first("x")
    supported = "timer" in ",".join(headers.all("Supported")).lower().replace(" ", "").split(",")
    asked = f"; it first wanted at least {call.min_se_s} s (422)" if call.invites > 1 else ""
    if value:
        seconds = value.split(";")[0].strip()
        refresher = re.search(r"refresher\s*=\s*(uac|uas)", value, re.IGNORECASE)
        who = {"uac": "we refresh", "uas": "the PBX refreshes"}.get(
            refresher[1].lower() if refresher else "", "nobody is named to refresh"
        )
        detail = f"{seconds} s, {who}{asked}"
        if not refresher:
            return note(name, detail, "the answer lacks refresher= (RFC 4028 section 9)")
        return ok(name, detail)
    if supported:
        return note(
            name,
            f"the PBX knows session timers but uses none for this call{asked}",
            f"a peer that dies is noticed only when no audio came for {ours.rtp_timeout_s:.0f} s "
            "(Asterisk: timers=yes, or always)",
        )
    return note(
        name,
        f"the PBX has no session timers{asked}",
        f"a peer that dies is noticed only when no audio came for {ours.rtp_timeout_s:.0f} s "
        "(Asterisk: timers=yes)",
    )


def judge_keys(call: CallSeen, ours: Ours) -> Finding:
    """Whether audio is encrypted; ``call`` is the one whose offer had keys, if there was one."""
    name = "encryption"
    secure_signalling = call.transport == "tls"
    where = "TLS" if secure_signalling else call.transport.upper()
    if not call.keys_offered:
        return ok(name, f"signalling over {where}, audio in the clear (sip.pbx.srtp is off)")
    if not call.answered:
        reason = call.headers.start_line[8:60] if call.final_response else "no answer"
        return problem(
            name,
            f"signalling over {where}; an offer with SRTP keys was refused ({reason})",
            "switch SRTP on at the PBX (Asterisk: media_encryption=sdes), or sip.pbx.srtp off",
        )
    try:
        audio = sdp.parse(call.answer).audio
    except SdpError:
        audio = None
    if audio is not None and audio.crypto:
        suite = audio.crypto[0].split(" ")[1] if " " in audio.crypto[0] else "?"
        return ok(name, f"signalling over {where}, SRTP taken ({suite})")
    bad = problem if ours.srtp == "required" else note
    return bad(
        name,
        f"signalling over {where}; the PBX left our SRTP keys aside",
        "switch SRTP on at the PBX (Asterisk: media_encryption=sdes)",
    )


def judge_end(call: CallSeen) -> Finding | None:
    """How the call ended; None when we ended it and the PBX agreed."""
    name = "end of the call"
    if call.contact_asked and not call.contact_answers:
        contact = uri_host_port(address_uri(call.headers.first("Contact")))[1]
        return problem(
            name,
            f"requests inside the call go to the Contact, {contact}, which does not answer: the "
            "PBX got no BYE",
            "the PBX must be reachable at its Contact, or calls stay open there after everybody "
            "has hung up (Asterisk: external_signaling_address=)",
        )
    if call.ended_by_pbx:
        return note(
            name,
            f"the PBX hung up after {call.sent_ms / 1000:.1f} s",
            "an echo extension should last until the caller hangs up",
        )
    return None


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_private(host: str) -> bool:
    """An address that needs NAT to be reached from elsewhere."""
    return _is_address(host) and any(ipaddress.ip_address(host) in network for network in _PRIVATE)


def _within(address: str, networks: tuple[str, ...]) -> bool:
    return any(
        ipaddress.ip_address(address) in ipaddress.ip_network(network, strict=False)
        for network in networks
    )
