"""The pure parts of the PBX probe: the echo in samples, figures of packets, and judgements."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from numpy.typing import NDArray

from callshield import g711
from callshield.findings import Finding
from callshield.free_ports import free_port
from callshield.settings import Settings
from callshield.settings_sip import PeerSettings
from sipbridge import sdp
from sipbridge.pbx_probe import judge_call, options_uri, target_of
from sipbridge.pbx_probe_audio import (
    DIGIT,
    MIN_CORRELATION,
    RATE_HZ,
    digit_packets,
    has_digit_tones,
    look_for,
    loudest_dbfs,
    read_rtp,
    reports_about,
    rtp_packet,
    sender_report,
    signal,
    stream_figures,
    timeline,
)
from sipbridge.pbx_probe_judge import Ours, judge_options, judge_our_address
from sipbridge.pbx_probe_options import Asker, ask, complete
from sipbridge.pbx_probe_seen import CallSeen, EchoSeen, OptionsSeen, Reach, Report, RtpSeen

ADDRESS = "127.0.44.7"


# ------------------------------------------------------------------------------- the echo


def decode(payload: bytes) -> NDArray[np.int16]:
    return g711.decode(payload, g711.PCMA)


def echoed(
    delay_ms: float, *, gain: float = 1.0, jitter: bool = False, lose: tuple[int, ...] = ()
) -> list[RtpSeen]:
    """The first 6 s of the signal as a PBX sends it back."""
    samples = (signal(45)[: 6 * RATE_HZ] * gain).astype(np.int16)
    packets = []
    for number in range(len(samples) // 160):
        if number in lose:
            continue
        late = 0.03 if jitter and number % 7 == 3 else 0.0
        payload = g711.encode(samples[number * 160 : (number + 1) * 160], g711.PCMA)
        data = rtp_packet(8, number == 0, 100 + number, 1600 + number * 160, 77, payload)
        packet = read_rtp(data, number * 0.02 + delay_ms / 1000 + late, ("192.0.2.1", 4000))
        assert packet is not None
        packets.append(packet)
    return packets


@pytest.mark.parametrize("delay_ms", [0.0, 20.0, 333.0, 2500.0])
@pytest.mark.parametrize("gain", [1.0, 0.25])
def test_an_echo_is_found_with_its_delay_and_level(delay_ms: float, gain: float) -> None:
    heard = timeline(echoed(delay_ms, gain=gain), decode, 8000, 9)
    found = look_for(signal(45) / 32768, heard, 0.0)
    assert found is not None
    assert found.correlation > 0.98
    assert found.delay_ms == pytest.approx(delay_ms, abs=1)
    assert found.gain_db == pytest.approx(20 * np.log10(gain), abs=0.3)


def test_jitter_and_loss_do_not_hide_an_echo() -> None:
    packets = echoed(100, jitter=True, lose=tuple(range(10, 300, 10)))
    found = look_for(signal(45) / 32768, timeline(packets, decode, 8000, 9), 0.0)
    assert found is not None
    assert found.correlation > 0.9
    assert found.delay_ms == pytest.approx(100, abs=1)


def test_a_stream_that_begins_anew_is_placed_by_the_clock() -> None:
    """Another SSRC and other timestamps in the middle: a PBX after its announcement."""
    packets = echoed(40)
    changed = [
        replace(p, ssrc=99, timestamp=p.timestamp + 1_000_000) if p.at_s > 1 else p for p in packets
    ]
    found = look_for(signal(45) / 32768, timeline(changed, decode, 8000, 9), 0.0)
    assert found is not None
    assert found.correlation > 0.98


@pytest.mark.parametrize("what", ["noise", "tone", "other part", "nothing"])
def test_something_else_is_no_echo(what: str) -> None:
    count = 9 * RATE_HZ
    random = np.random.Generator(np.random.PCG64(1))
    heard = {
        "noise": random.standard_normal(count) * 0.1,
        "tone": np.sin(2 * np.pi * 440 * np.arange(count) / RATE_HZ) * 0.3,
        "other part": signal(45)[20 * RATE_HZ : 29 * RATE_HZ] / 32768,
        "nothing": np.zeros(count),
    }[what]
    found = look_for(signal(45) / 32768, heard, 0.0)
    assert found is None or abs(found.correlation) < MIN_CORRELATION / 2


def test_the_signal_sounds_like_speech_to_a_level_meter() -> None:
    level = loudest_dbfs(signal(10) / 32768)
    assert level is not None
    assert -23 < level < -17
    assert loudest_dbfs(np.zeros(RATE_HZ)) is None


def test_the_digit_as_tones_is_told_from_the_signal() -> None:
    times = np.arange(RATE_HZ // 8) / RATE_HZ
    tones = 0.1 * (np.sin(2 * np.pi * 770 * times) + np.sin(2 * np.pi * 1336 * times))
    other = 0.1 * (np.sin(2 * np.pi * 697 * times) + np.sin(2 * np.pi * 1209 * times))
    quiet = np.zeros(RATE_HZ)
    assert has_digit_tones(np.concatenate([quiet, tones, quiet]))
    assert not has_digit_tones(np.concatenate([quiet, other, quiet]))
    assert not has_digit_tones(signal(5) / 32768)


# ------------------------------------------------------------------------------- packets


def test_rtp_is_read_with_extension_csrc_and_padding() -> None:
    plain = rtp_packet(8, True, 65535, 2**32 - 1, 7, b"abcd")
    seen = read_rtp(plain, 1.5, ("192.0.2.1", 4000))
    assert seen is not None
    assert (seen.payload_type, seen.marker, seen.sequence) == (8, True, 65535)
    assert (seen.timestamp, seen.ssrc, seen.payload) == (2**32 - 1, 7, b"abcd")
    decorated = bytes([0xB1]) + plain[1:12] + b"CSRC" + b"\0\0\0\1" + b"EXTN" + b"abcd" + b"\0\2"
    seen = read_rtp(decorated, 0, ("", 0))
    assert seen is not None
    assert seen.payload == b"abcd"


@pytest.mark.parametrize(
    "data", [b"", b"\x80" * 11, b"\x00" * 40, b"\x90" + b"\0" * 11, b"\xa0" + b"\0" * 11 + b"\xff"]
)
def test_what_is_not_rtp_is_told(data: bytes) -> None:
    assert read_rtp(data, 0, ("", 0)) is None


def test_figures_count_loss_doubles_and_a_wrapped_sequence() -> None:
    packets = [
        RtpSeen(n * 0.02, ("", 0), 8, False, (65500 + n) & 0xFFFF, n * 160, 1, b"x")
        for n in range(100)
        if n not in (50, 51)
    ]
    packets.insert(11, packets[10])
    figures = stream_figures(packets, {8}, 8000)
    assert (figures.received, figures.expected) == (98, 100)
    assert figures.lost_pct == pytest.approx(2.0)
    assert figures.ptime_ms == 20
    assert figures.jitter_ms < 2


def test_events_fill_their_place_in_the_numbers_but_are_no_jitter() -> None:
    voice = [RtpSeen(n * 0.02, ("", 0), 8, False, n, n * 160, 1, b"x") for n in range(100)]
    packets = [
        replace(p, payload_type=101, timestamp=0) if 60 <= p.sequence < 71 else p for p in voice
    ]
    figures = stream_figures(packets, {8}, 8000)
    assert figures.lost_pct == 0
    assert figures.jitter_ms < 0.1


def test_jitter_is_that_of_rfc_3550() -> None:
    late = [
        RtpSeen(n * 0.02 + (n % 2) * 0.01, ("", 0), 8, False, n, n * 160, 1, b"")
        for n in range(400)
    ]
    assert stream_figures(late, {8}, 8000).jitter_ms == pytest.approx(10, abs=0.5)


def test_a_report_about_us_is_found_in_a_compound_packet() -> None:
    block = (7).to_bytes(4, "big") + b"\x10\x00\x00\x05" + (321).to_bytes(4, "big")
    block += (80).to_bytes(4, "big") + bytes(8)
    other = (8).to_bytes(4, "big") + bytes(20)
    report = bytes([0x82, 201, 0, 13]) + bytes(4) + other + block
    compound = sender_report(5, 1.0, 2, 3, 4) + report
    assert reports_about(compound, 7) == [Report(321, 5, 10.0)]
    assert reports_about(compound[:-1], 7) == []
    assert reports_about(b"\x81\xc9", 7) == []


def test_the_digit_begins_once_and_ends_three_times() -> None:
    packets = digit_packets()
    assert [marker for marker, _ in packets] == [True] + [False] * (len(packets) - 1)
    assert all(payload[0] == DIGIT for _, payload in packets)
    assert [payload[1] >> 7 for _, payload in packets] == [0] * (len(packets) - 3) + [1] * 3


# ------------------------------------------------------------------------------- OPTIONS


def test_a_response_in_pieces_is_whole_only_with_its_body() -> None:
    head = b"\r\n\r\nSIP/2.0 200 OK\r\nContent-Length: 4\r\n\r\n"
    assert complete(head[:-2]) is None
    assert complete(head + b"v=0") is None
    whole = complete(head + b"v=0\n")
    assert whole is not None
    assert whole.startswith("SIP/2.0 200 OK")


def options(**changes: object) -> OptionsSeen:
    seen = OptionsSeen(
        "udp",
        "192.0.2.1:5060",
        Reach.ANSWERED,
        response="SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 10.0.0.2:5070;rport=5070;branch=z\r\n\r\n",
        round_trip_ms=3.0,
        announced="10.0.0.2:5070",
    )
    return replace(seen, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "verdict", "words"),
    [
        ({}, "ok", "200 OK after 3 ms"),
        ({"response": "SIP/2.0 404 Not Found\r\n\r\n"}, "ok", "404 Not Found"),
        ({"response": "SIP/2.0 503 Full\r\n\r\n"}, "problem", "cannot serve"),
        ({"response": "SIP/2.0 403 Forbidden\r\n\r\n"}, "problem", "match=10.0.0.2"),
        ({"sent": 3}, "note", "only to request number 3"),
        ({"round_trip_ms": 900.0}, "note", "slow"),
        ({"certificate_days": 4.0}, "note", "expires in 4 days"),
        ({"reach": Reach.SILENT, "sent": 4}, "problem", "silence is a firewall"),
        ({"reach": Reach.REFUSED}, "problem", "nothing listens on this port"),
        ({"reach": Reach.UNREACHABLE}, "problem", "no way there from 10.0.0.2"),
        ({"reach": Reach.TLS_FAILED, "error": "self-signed"}, "problem", "sip.pbx.tls.ca_file"),
        ({"reach": Reach.CLOSED}, "problem", "fail2ban"),
    ],
)
def test_what_an_options_means(changes: dict[str, object], verdict: str, words: str) -> None:
    finding = judge_options(options(**changes), needed=True, bind="10.0.0.2")
    assert (finding.verdict, words in f"{finding.detail} {finding.advice}") == (verdict, True)
    other = judge_options(options(**changes), needed=False, bind="10.0.0.2")
    assert other.verdict != "problem"  # a way that nobody uses


@pytest.mark.parametrize(
    ("via", "verdict", "words"),
    [
        ("10.0.0.2:5070;rport=5070;branch=z", "ok", "port kept"),
        ("10.0.0.2:5070;received=203.0.113.9;rport=5070", "problem", 'advertised = "203.0.113.9"'),
        ("10.0.0.2:5070;received=10.0.0.2;rport=33333", "note", "ports are translated"),
        ("10.0.0.2:5070;branch=z", "note", "did not say"),
    ],
)
def test_where_the_pbx_sees_us(via: str, verdict: str, words: str) -> None:
    finding = judge_our_address(
        options(response=f"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP {via}\r\n\r\n")
    )
    assert finding is not None
    assert (finding.verdict, words in f"{finding.detail} {finding.advice}") == (verdict, True)


def certificate(folder: Path, name: str, address: str) -> tuple[Path, Path]:
    """A self-signed certificate for an address, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=9.5))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / f"{name}.pem", folder / f"{name}.key"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return paths


async def test_options_over_tls_checks_the_certificate(tmp_path: Path) -> None:
    good = certificate(tmp_path, "pbx", ADDRESS)
    other = certificate(tmp_path, "other", "192.0.2.99")

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"SIP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    async def seen(served: tuple[Path, Path], ca_file: Path, *, verify: bool = True) -> OptionsSeen:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*served)
        server = await asyncio.start_server(answer, ADDRESS, free_port(ADDRESS), ssl=context)
        async with server:
            port = server.sockets[0].getsockname()[1]
            asker = Asker(ADDRESS, ADDRESS, "test", ca_file, verify)
            return await ask(f"sip:{ADDRESS}:{port}", (ADDRESS, port), "tls", asker)

    trusted = await seen(good, good[0])
    assert (trusted.reach, trusted.status) == (Reach.ANSWERED, 200)
    assert trusted.tls_version.startswith("TLSv1.")
    assert trusted.certificate_days == pytest.approx(9.5, abs=0.1)
    unknown = await seen(good, other[0])
    assert unknown.reach is Reach.TLS_FAILED
    assert "self-signed" in unknown.error
    misnamed = await seen(other, other[0])
    assert misnamed.reach is Reach.TLS_FAILED
    assert "mismatch" in misnamed.error
    assert (await seen(other, good[0], verify=False)).reach is Reach.ANSWERED


async def test_a_plain_port_that_is_no_tls_and_one_that_hangs_up(tmp_path: Path) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.close()

    # Outside of the ports that clients get: who asks a closed one must not reach himself.
    async with await asyncio.start_server(hang_up, ADDRESS, free_port(ADDRESS)) as server:
        target = (ADDRESS, server.sockets[0].getsockname()[1])
        asker = Asker(ADDRESS, ADDRESS, "test")
        assert (await ask("sip:x", target, "tcp", asker)).reach is Reach.CLOSED
        assert (await ask("sip:x", target, "tls", asker)).reach is Reach.TLS_FAILED
    assert (await ask("sip:x", target, "tcp", asker)).reach is Reach.REFUSED
    assert (await ask("sip:x", target, "udp", asker)).reach is Reach.REFUSED


# ------------------------------------------------------------------------------- whom to ask


def settings(peer: dict[str, object], agent: str = "sip:1001@192.0.2.20") -> Settings:
    return Settings(
        peers=[PeerSettings.model_validate({"name": "p", **peer})], agents={"1001": {"uri": agent}}
    )


@pytest.mark.parametrize(
    ("peer", "agent", "uri"),
    [
        ({"networks": ["192.0.2.1"]}, "sip:1@198.51.100.2", "sip:192.0.2.1:5060"),
        (
            {"networks": ["192.0.2.0/24", "2001:db8::1"]},
            "sip:1@198.51.100.2",
            "sip:[2001:db8::1]:5060",
        ),
        ({"networks": ["192.0.2.0/24"]}, "sip:1@192.0.2.9:5080", "sip:192.0.2.9:5080"),
        ({"networks": ["192.0.2.0/24"]}, "sip:1@198.51.100.2", None),
        (
            {"networks": ["192.0.2.1"], "echo_uri": "sip:603@192.0.2.7:5070;transport=tcp"},
            "sip:1@192.0.2.9",
            "sip:192.0.2.7:5070;transport=tcp",
        ),
        (
            {
                "networks": ["192.0.2.1"],
                "options_uri": "sip:192.0.2.8",
                "echo_uri": "sip:6@192.0.2.7",
            },
            "sip:1@192.0.2.9",
            "sip:192.0.2.8",
        ),
    ],
)
def test_whom_options_asks(peer: dict[str, object], agent: str, uri: str | None) -> None:
    made = settings(peer, agent)
    assert options_uri(made.peers[0], made) == uri


def test_the_port_of_a_uri() -> None:
    assert target_of("sip:192.0.2.1", "udp") == ("192.0.2.1", 5060)
    assert target_of("sip:603@192.0.2.1:5070;transport=tcp", "tcp") == ("192.0.2.1", 5070)
    assert target_of("sips:192.0.2.1", "tls") == ("192.0.2.1", 5061)
    assert target_of("sip:[2001:db8::1]:5070", "udp") == ("2001:db8::1", 5070)
    assert target_of("sip:[2001:db8::1]", "udp") == ("2001:db8::1", 5060)


# ------------------------------------------------------------------------------- the call

ANSWER = (
    "v=0\r\no=- 1 1 IN IP4 {address}\r\ns=-\r\nc=IN IP4 {address}\r\nt=0 0\r\n"
    "m=audio 4000 {profile} 8 101\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:101 telephone-event/8000\r\n"
    "a=ptime:20\r\n{more}"
)


def call(
    *,
    address: str = "203.0.113.5",
    source: str = "203.0.113.5",
    contact: str = "203.0.113.5",
    headers: str = "Session-Expires: 1800;refresher=uac\r\n",
    profile: str = "RTP/AVP",
    more: str = "",
    **changes: object,
) -> CallSeen:
    packets = [
        RtpSeen(n * 0.02, (address, 4000), 8, False, n, n * 160, 1, b"\xd5" * 160)
        for n in range(300)
    ]
    response = (
        f"SIP/2.0 200 OK\r\nContact: <sip:603@{contact}:5060>\r\n{headers}"
        "Content-Type: application/sdp\r\n\r\n"
        + ANSWER.format(address=address, profile=profile, more=more)
    )
    seen = CallSeen(
        "udp",
        "203.0.113.5:5060",
        offered=("PCMU", "PCMA"),
        final_status=200,
        final_response=response,
        answered_after_ms=20.0,
        response_source=f"{source}:5060",
        sent_packets=325,
        codec="PCMA",
        packets=packets,
        echo=EchoSeen(0.99, 30, 0.0),
        heard_dbfs=-20.0,
        listened=True,
        digit_sent=True,
        digit_events_back=11,
        local_address="198.51.100.2",
        local_port=20000,
    )
    for name, value in changes.items():
        setattr(seen, name, value)
    return seen


def judged(seen: CallSeen, keyed: CallSeen | None = None, **ours: object) -> dict[str, Finding]:
    found = judge_call(seen, keyed or seen, Ours(bind="198.51.100.2", **ours))  # type: ignore[arg-type]
    return {finding.name: finding for finding in found}


def test_a_good_call_is_good_in_every_respect() -> None:
    """Negative control of the table below."""
    assert {finding.verdict for finding in judged(call()).values()} == {"ok"}


SILENT: dict[str, object] = {"packets": [], "echo": None, "heard_dbfs": None}


@pytest.mark.parametrize(
    ("changes", "name", "verdict", "words"),
    [
        # Addresses.
        ({"address": "10.0.0.7"}, "media address", "problem", "10.0.0.7, a private address"),
        ({"contact": "10.0.0.7"}, "media address", "problem", "Contact says 10.0.0.7"),
        ({"contact": "203.0.113.8"}, "media address", "note", "Contact says 203.0.113.8"),
        (
            {"source": "203.0.113.8", "contact": "203.0.113.8"},
            "media address",
            "note",
            "signalling from 203.0.113.8",
        ),
        ({"address": "0.0.0.0"}, "media address", "problem", "instead of an address"),
        ({"moved_to": "203.0.113.77"}, "media address", "note", "direct_media=no"),
        # Audio.
        (
            {**SILENT, "reports": [Report(300, 0, 1.0)]},
            "audio both ways",
            "problem",
            "not reach us",
        ),
        ({**SILENT, "rtcp_packets": 2}, "audio both ways", "problem", "not reach the PBX"),
        ({**SILENT, "icmp_errors": 9}, "audio both ways", "problem", "nothing listens"),
        ({**SILENT, "send_error": "No route"}, "audio both ways", "problem", "cannot send"),
        ({**SILENT}, "audio both ways", "problem", "either direction may be closed"),
        (
            {"echo": EchoSeen(0.05, 9, 0)},
            "audio both ways",
            "problem",
            "something else at -20 dBFS",
        ),
        (
            {"echo": EchoSeen(0.05, 9, 0), "heard_dbfs": None},
            "audio both ways",
            "problem",
            "silence",
        ),
        ({"echo": EchoSeen(0.9, 9, -12)}, "audio both ways", "note", "changes the level"),
        ({"echo": EchoSeen(-0.9, 900, 0)}, "audio both ways", "note", "that is long"),
        ({"reports": [Report(300, 30, 1.0)]}, "loss and jitter", "problem", "9.2 % lost"),
        # Digits, timers, keys, the end.
        ({"digit_events_back": 0, "digit_tones_back": True}, "digits (DTMF)", "note", "as tones"),
        ({"headers": ""}, "session timer", "note", "no session timers"),
        ({"headers": "Supported: timer\r\n"}, "session timer", "note", "uses none for this call"),
        ({"headers": "Session-Expires: 90\r\n"}, "session timer", "note", "lacks refresher="),
        ({"keys_offered": True}, "encryption", "note", "left our SRTP keys aside"),
        (
            {
                "keys_offered": True,
                "profile": "RTP/SAVP",
                "more": "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:x\r\n",
            },
            "encryption",
            "ok",
            "SRTP taken (AES_CM_128_HMAC_SHA1_80)",
        ),
        ({"listened": False}, "audio both ways", "note", "srtp is required"),
        ({"ended_by_pbx": True, "sent_ms": 3000}, "end of the call", "note", "after 3.0 s"),
        ({"answered_after_ms": 9000.0}, "test call", "note", "slow"),
        # No call.
        ({"final_status": 408, "final_response": ""}, "test call", "problem", "no answer"),
        ({"final_status": 503, "final_response": ""}, "test call", "problem", "could not be sent"),
        (
            {"final_status": 488, "final_response": "SIP/2.0 488 Not Acceptable\r\n\r\n"},
            "test call",
            "problem",
            "no codec in common",
        ),
        (
            {"final_status": 407, "final_response": "SIP/2.0 407 Proxy\r\n\r\n"},
            "test call",
            "problem",
            "type=identify",
        ),
    ],
)
def test_what_a_call_means(changes: dict[str, object], name: str, verdict: str, words: str) -> None:
    finding = judged(call(**changes))[name]  # type: ignore[arg-type]
    assert (finding.verdict, words in f"{finding.detail} {finding.advice}") == (verdict, True), (
        finding
    )


def test_media_from_elsewhere_is_a_problem_unless_the_network_is_allowed() -> None:
    seen = call()
    seen.packets = [replace(p, source=("203.0.113.66", 4000)) for p in seen.packets]
    finding = judged(seen)["media address"]
    assert finding.verdict == "problem"
    assert 'sip.pbx.networks = ["203.0.113.66"]' in finding.advice
    assert judged(seen, networks=("203.0.113.0/24",))["media address"].verdict == "ok"


def test_keys_that_were_refused_are_a_problem_where_the_plain_call_worked() -> None:
    refused = call(
        keys_offered=True, final_status=488, final_response="SIP/2.0 488 No SRTP\r\n\r\n"
    )
    found = judged(call(), refused, srtp="optional")
    assert found["encryption"].verdict == "problem"
    assert "488 No SRTP" in found["encryption"].detail
    assert found["audio both ways"].verdict == "ok"


def test_an_answer_without_usable_audio_is_said_once() -> None:
    seen = call(final_response="SIP/2.0 200 OK\r\n\r\nv=0\r\nm=audio 0 RTP/AVP 8\r\n")
    found = judged(seen)
    assert found["session description"].verdict == "problem"
    assert set(found) == {"test call", "session description"}


def test_an_answer_with_another_codec_names_it() -> None:
    seen = call(more="")
    seen.final_response = seen.final_response.replace(
        "RTP/AVP 8 101\r\na=rtpmap:8 PCMA/8000", "RTP/AVP 18"
    )
    assert "answered G729/8000" in judged(seen)["codec"].detail
    assert sdp.parse(seen.answer).audio is not None
