"""The media plane between real telephones: codecs, keys, streams, digits and the agent's ear.

What each side heard is read from its own recording, what went over the wire from tshark.
"""

from __future__ import annotations

import asyncio
import itertools
import time
import wave
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from callshield.g711 import PCMA, PCMU, decode
from callshield.heard import find
from callshield.tap import TapCodec
from tests.peers.baresip import Baresip, running_baresip
from tests.peers.capture import Capture, Packet, Stream, capturing
from tests.peers.node import running_node
from tests.peers.prompts import Prompts
from tests.peers.sound import RATE, blocks, purity, write_tone
from tests.peers.tap_copy import copying_tap

pytestmark = [pytest.mark.peers, pytest.mark.timeout(120)]

CALLER, PHONE = "127.0.3.4", "127.0.3.5"
#: Our own addresses: captures of tests that run beside these see nothing of them.
SIDES = ("127.0.3.2", "127.0.3.3")
CALLER_HZ, AGENT_HZ = 1000.0, 1600.0
#: A tone of the caller that the agent's shock guard has nothing against.
QUIET = 0.05
SRTP_TAG = 10  # bytes that AES_CM_128_HMAC_SHA1_80 appends


def tone_file(path: Path, hertz: float, level: float, channels: int = 1) -> Path:
    """A minute of a tone; baresip's file player wants the channels of the codec."""
    if channels == 1:
        return write_tone(path, hertz, 60, level)
    time = np.arange(60 * RATE) / RATE
    mono = (level * np.sin(2 * np.pi * hertz * time) * 32767).astype("<i2")
    with wave.open(str(path), "wb") as audio:
        audio.setparams((channels, 2, RATE, 0, "NONE", ""))
        audio.writeframes(np.repeat(mono, channels).tobytes())
    return path


def body(samples: NDArray[np.float32], start_s: float, end_s: float) -> list[NDArray[np.float32]]:
    """Blocks of a recording from one second to another; the end may count from its end."""
    return blocks(samples[int(start_s * RATE) : int(end_s * RATE) or None])


@dataclass(frozen=True)
class Case:
    """What both telephones are set to, and how the tap and the wire must look."""

    caller: str
    phone: str
    tapped: TapCodec
    caller_keys: str = ""
    phone_keys: str = ""
    channels: int = 1


SRTP, MANDATORY = ";mediaenc=srtp", ";mediaenc=srtp-mand"
A_LAW, MU_LAW = "pcma/8000/1", "pcmu/8000/1"
CASES = {
    "keys": Case(A_LAW, A_LAW, TapCodec.PCMA, MANDATORY, SRTP),
    "callerkeys": Case(MU_LAW, MU_LAW, TapCodec.PCMU, MANDATORY),
    "phonekeys": Case(A_LAW, A_LAW, TapCodec.PCMA, "", SRTP),
    "laws": Case(MU_LAW, A_LAW, TapCodec.PCMU),
    "wide": Case("g722/16000/1", "g722/16000/1", TapCodec.G722),
    "opus": Case("opus/48000/2", "opus/48000/2", TapCodec.OPUS, channels=2),
}


async def test_every_codec_with_and_without_keys_at_the_same_time(tmp_path: Path) -> None:
    """Six calls through one node; each is the other ones' control."""
    prompts = Prompts(tmp_path / "prompts")
    callers: dict[str, Baresip] = {}
    phones: dict[str, Baresip] = {}
    async with AsyncExitStack() as stack:
        for number, (name, case) in enumerate(CASES.items()):
            folder = tmp_path / name
            folder.mkdir()
            said = tone_file(folder / "caller.wav", CALLER_HZ, QUIET, case.channels)
            callers[name] = await stack.enter_async_context(
                running_baresip(
                    folder / "caller",
                    CALLER,
                    f"0101234{number:04}",  # nobody here: a colleague's call is not tapped
                    said,
                    codecs=case.caller,
                    options=case.caller_keys,
                )
            )
            said = tone_file(folder / "agent.wav", AGENT_HZ, 0.3, case.channels)
            phones[name] = await stack.enter_async_context(
                running_baresip(
                    folder / "agent", PHONE, name, said, codecs=case.phone, options=case.phone_keys
                )
            )
        keys = 'srtp = "optional"\nsrtp_over_plain = true'
        node = await stack.enter_async_context(
            running_node(
                tmp_path / "node",
                {name: phone.uri for name, phone in phones.items()},
                peer=CALLER,
                sides=SIDES,
                extra=prompts.toml,
                pbx_side=keys,
                phone_side=keys,
                agent_options="hearing_protection = false",
            )
        )
        tap = await stack.enter_async_context(copying_tap(node.settings.tap_path))
        console = await stack.enter_async_context(node.watch("supervisor"))
        pbx_side = await stack.enter_async_context(capturing(tmp_path / "pbx.pcap", SIDES[0]))
        phone_side = await stack.enter_async_context(capturing(tmp_path / "phone.pcap", SIDES[1]))
        for name, caller in callers.items():
            await caller.command("dial", node.uri(name))
        await console.wait("tap.started", count=len(CASES))
        await asyncio.sleep(2.5)  # a conversation: this is what is recorded
        for caller in callers.values():
            await caller.command("hangup")
        await console.wait("call.ended", count=len(CASES))
        calls = {e["agent_id"]: e["call_id"] for e in console.seen("call.started")}
        closed = await node.wait_for_log("media_closed", count=len(CASES))
        assert not node.logs("media_failed")
        from_us: list[Stream] = []
        wire: dict[tuple[str, str], list[Packet]] = {}
        for side, capture, ends in (("caller", pbx_side, callers), ("phone", phone_side, phones)):
            streams = await capture.streams(*await capture.media_ports())
            from_us += [stream for stream in streams if stream.source[0] in SIDES]
            for name, telephone in ends.items():
                wire[name, side] = await sent_to(capture, streams, telephone)

    load = node.logs("detector_load")[-1]  # the detector decoded every codec, and refused nothing
    assert load["frames"] > len(CASES) * 100
    assert (load["bad_packets"], load["bad_datagrams"], load["refused_frames"]) == (0, 0, 0)
    assert len({stream.ssrc for stream in from_us}) == 2 * len(CASES)
    assert [(stream.lost, stream.problems) for stream in from_us] == [(0, False)] * len(from_us)
    legs = [call[leg] for call in closed for leg in ("caller_leg", "agent_leg")]
    assert [leg["lost"] + leg["late"] + leg["duplicates"] for leg in legs] == [0] * len(legs)
    assert min(leg["mos"] for leg in legs) > 4.2
    notice = prompts.samples("recording")
    for name, case in CASES.items():
        heard = callers[name].heard()
        found = find(notice, heard)
        assert found is not None, name
        assert found.whole, (name, found)
        talk = body(heard, found.end_s + 0.5, -0.5)
        assert len(talk) >= 6, name
        assert min(purity(block, AGENT_HZ) for block in talk) > 0.95, name
        talk = body(phones[name].heard(), -2.0, -0.5)
        assert min(purity(block, CALLER_HZ) for block in talk) > 0.95, name
        codec, tapped = tap.sound(calls[name])
        assert codec is case.tapped, name
        assert min(purity(block, CALLER_HZ) for block in body(tapped, 0.5, 0)) > 0.95, name

        for side, keys, hertz in (
            ("caller", case.caller_keys, AGENT_HZ),
            ("phone", case.phone_keys, CALLER_HZ),
        ):
            codecs = case.caller if side == "caller" else case.phone
            if codecs not in (A_LAW, MU_LAW):
                continue
            packets = wire[name, side][-100:-25]
            assert {len(p.payload) for p in packets} == {160 + (SRTP_TAG if keys else 0)}
            plain = decode(b"".join(p.payload[:160] for p in packets), LAWS[codecs]) / 32768
            tone = min(purity(block, hertz) for block in blocks(plain.astype(np.float32)))
            # Only who has the keys hears the tone in it.
            assert (tone < 0.2) if keys else (tone > 0.95), (name, side, tone)


async def test_an_ordinary_call_is_one_clean_stream_on_each_leg(tmp_path: Path) -> None:
    """Notice, talk, digits, help by code, a warning, hold and resume, the closing: one call."""
    prompts = Prompts(tmp_path / "prompts")
    caller_tone = write_tone(tmp_path / "caller.wav", CALLER_HZ, 60, QUIET)
    agent_tone = write_tone(tmp_path / "agent.wav", AGENT_HZ, 60)
    async with (
        running_baresip(tmp_path / "agent", PHONE, "1001", agent_tone) as agent,
        running_baresip(tmp_path / "caller", CALLER, "01000000000", caller_tone) as caller,
        running_node(
            tmp_path / "node",
            {"1001": agent.uri},
            peer=CALLER,
            sides=SIDES,
            extra=prompts.toml,
        ) as node,
        node.watch("1001") as console,
        capturing(tmp_path / "pbx.pcap", SIDES[0]) as pbx_side,
        capturing(tmp_path / "phone.pcap", SIDES[1]) as phone_side,
    ):
        await caller.command("dial", node.uri("1001"))
        started = await console.wait("call.started")
        actions = f"/calls/{started['call_id']}/actions"
        await console.wait("tap.started")
        await asyncio.sleep(0.8)
        await agent.press("5")
        await asyncio.sleep(0.5)  # a press of its own
        await agent.press("*1")
        await asyncio.sleep(0.8)  # what was held is let go: two digits of 160 ms
        before_code = time.time()
        await agent.press("*8#")
        await console.wait("alert.raised", lambda event: event["kind"] == "help")
        after_code = time.time()
        assert (await node.post(actions, "1001", {"action": "warn"})).status_code == 200
        await console.wait("warning.played")
        await asyncio.sleep(0.5)
        await agent.command("hold")
        await asyncio.sleep(2)  # the hold itself
        await agent.command("resume")
        await asyncio.sleep(2.5)  # past a second report by RTCP
        assert (await node.post(actions, "1001", {"action": "end"})).status_code == 200
        await agent.wait("CALL_CLOSED")
        await caller.wait("CALL_CLOSED")
        await console.wait("call.ended")
        await console.wait("media.quality", count=2)

        for capture, other, side in (
            (pbx_side, phone_side, SIDES[0]),
            (phone_side, pbx_side, SIDES[1]),
        ):
            (port,), (other_port,) = await capture.media_ports(), await other.media_ports()
            streams = [s for s in await capture.streams(port) if s.source == (side, port)]
            assert len({stream.ssrc for stream in streams}) == 1
            assert all((s.lost, s.problems) == (0, False) for s in streams), (
                streams,
                await other.streams(other_port),
            )
            # Beside what the other telephone sent, late as it may be. A digit of ours takes the
            # voice's place; tshark takes the voice after it for late.
            to_us = (SIDES[1] if side == SIDES[0] else SIDES[0], other_port)
            came = [s for s in await other.streams(other_port) if s.destination == to_us]
            assert max(s.mean_jitter_ms for s in streams) < 2 + max(s.mean_jitter_ms for s in came)
            assert max(s.max_jitter_ms for s in streams) < max(s.max_jitter_ms for s in came) + (
                20 if side == SIDES[0] else 4
            )
            # No hole in what we send while anything comes from the other side (not so on hold).
            packets = await capture.packets(sent_by=port)
            came_s = np.array([packet.at_s for packet in await other.packets(sent_to=other_port)])
            for one, two in itertools.pairwise(packets):
                if two.at_s - one.at_s > 0.08:  # between two digits of ours there are 70 ms
                    assert not ((one.at_s + 0.03 < came_s) & (came_s < two.at_s - 0.03)).any(), side
            # Timestamps keep to the clock over all seams: a phone must not hold back more and more.
            voice = [packet for packet in packets if not is_event(packet)]
            ahead_s = [
                ((p.timestamp - voice[0].timestamp) & 0xFFFFFFFF) / 8000 - (p.at_s - voice[0].at_s)
                for p in voice
            ]
            first_s, last_s = (float(np.median(part)) for part in (ahead_s[:50], ahead_s[-50:]))
            assert abs(last_s - first_s) < 0.05, (side, first_s, last_s)
            await check_reports(capture, port, int(streams[0].ssrc, 16))

        # The digits: one at once, two as events of our own, a code not at all.
        (caller_port,), (phone_port,) = await pbx_side.media_ports(), await phone_side.media_ports()
        to_caller = await pbx_side.packets(sent_by=caller_port)
        by_agent = [p for p in await phone_side.packets(sent_to=phone_port) if is_event(p)]
        events = [packet for packet in to_caller if is_event(packet)]
        assert "".join(DIGITS[p.payload[0]] for p in first_of_each(events)) == "5*1"
        assert "".join(DIGITS[p.payload[0]] for p in first_of_each(by_agent)) == "5*1*8#"
        # At once: of what goes to the phone every 20 ms at most one packet goes meanwhile. Who
        # stood still sent that no sooner either, but in the same moment.
        assert events[0].at_s >= by_agent[0].at_s
        to_phone = await phone_side.packets(sent_by=phone_port)
        assert sum(by_agent[0].at_s < p.at_s < events[0].at_s - 0.005 for p in to_phone) <= 1
        assert [p.at_s for p in events if p.at_s >= before_code] == []
        meanwhile = [p for p in to_caller if before_code - 0.1 < p.at_s < after_code + 0.1]
        assert len(meanwhile) > 15
        gaps = [two.at_s - one.at_s for one, two in itertools.pairwise(meanwhile)]
        # Beside what the phone sent us in that time, late as it may be; its digits go on at its
        # pace, so that what is held back of them is a hole of ours alone.
        sent = await phone_side.packets(sent_to=phone_port)
        came_then = [p.at_s for p in sent if before_code - 0.1 < p.at_s < after_code + 0.1]
        late_s = max(two - one for one, two in itertools.pairwise(came_then)) - 0.02
        # And beside what we sent to the phone itself: who stood still held that back, too.
        beside = [p.at_s for p in to_phone if before_code - 0.1 < p.at_s < after_code + 0.1]
        late_s = max(late_s, max(two - one for one, two in itertools.pairwise(beside)) - 0.02)
        assert max(gaps) < 0.04 + max(0.0, late_s), (max(gaps), late_s)
        for number in range(3):
            start = first_of_each(events)[number].timestamp
            press = [p for p in events if p.timestamp == start]
            assert press[0].marker
            assert [bool(p.payload[1] & 0x80) for p in press[-3:]] == [True] * 3
            lengths = [int.from_bytes(p.payload[2:4], "big") for p in press]
            assert lengths == sorted(lengths)

    heard = caller.heard()
    position = 0.0
    for name in ("recording", "warning_1", "closing"):
        found = find(prompts.samples(name), heard, after_s=position)
        assert found is not None, name
        assert found.whole, (name, found)
        position = found.end_s - 0.1


DIGITS = "0123456789*#ABCD"


def is_event(packet: Packet) -> bool:
    """A telephone-event: four bytes, of a dynamic type."""
    return packet.payload_type >= 96 and len(packet.payload) == 4


def first_of_each(events: list[Packet]) -> list[Packet]:
    """The first packet of each press."""
    seen: dict[int, Packet] = {}
    for packet in events:
        seen.setdefault(packet.timestamp, packet)
    return list(seen.values())


async def check_reports(capture: Capture, port: int, ssrc: int) -> None:
    """Our RTCP of one leg, as tshark reads it: a sender report and a name in each packet."""
    lines = await capture.fields(
        f"udp.srcport=={port + 1}",
        *("rtcp.pt", "rtcp.senderssrc", "rtcp.sdes.type", "rtcp.length_check"),
        *("_ws.malformed", "_ws.expert.severity", "udp.dstport"),
        options=("-d", f"udp.port=={port + 1},rtcp"),
    )
    assert len(lines) >= 2
    for line in lines:
        kinds, sender, names, whole, malformed, complaints, to = line.split("\t")
        assert kinds in ("200,202", "201,202"), line
        assert int(sender.split(",")[0], 16) == ssrc, line
        assert (names.split(",")[0], whole) == ("1", "1"), line
        assert (malformed, complaints) == ("", ""), line
        assert int(to) & 1, line
    assert [line[:3] for line in lines].count("200") >= 2


LAWS = {A_LAW: PCMA, MU_LAW: PCMU}


async def sent_to(capture: Capture, streams: list[Stream], telephone: Baresip) -> list[Packet]:
    """What we sent to one telephone."""
    return await capture.packets(sent_by=port_towards(streams, telephone.media_ports))


def port_towards(streams: list[Stream], media_ports: tuple[int, int]) -> int:
    """From which port we send to a telephone; its range of ports says which stream that is.

    Our own ports lie on other addresses and may well have the same numbers: a stream that comes
    **to** us says nothing.
    """
    first, last = media_ports
    (ours,) = {
        stream.source[1]
        for stream in streams
        if stream.source[0] in SIDES and first <= stream.destination[1] <= last
    }
    return ours


def test_a_port_of_ours_with_the_number_of_a_telephones_is_not_the_telephones() -> None:
    """Seen once: one telephone was given 15000 to 15019, we used 15004 towards another one."""

    def stream(source: tuple[str, int], destination: tuple[str, int]) -> Stream:
        return Stream(source, destination, "0x1", "g711A", 100, 0, 20.0, 0.1, 0.2, problems=False)

    streams = [
        stream((SIDES[0], 15400), ("127.0.0.1", 15006)),
        stream(("127.0.0.1", 15006), (SIDES[0], 15400)),
        stream((SIDES[0], 15004), ("127.0.0.1", 18000)),
        stream(("127.0.0.1", 18000), (SIDES[0], 15004)),
    ]
    assert port_towards(streams, (15000, 15019)) == 15400
    assert port_towards(streams, (18000, 18019)) == 15004
