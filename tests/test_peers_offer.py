"""Offer and answer as they go over the wire: a real bridge, a PBX and a phone that say exactly
what a test wants, and what the media worker is told."""

from __future__ import annotations

import base64
import wave
from pathlib import Path

import pytest

from callshield.messages import LegName
from callshield.messages_media import FlowUpdate, LegUpdate
from sipbridge import sdp
from sipbridge.srtp_keys import CryptoLine, parse_crypto
from tests.peers.baresip import running_baresip
from tests.peers.signalling import AGENT_RTP, PHONE, End, Message, Signalling, Wire, signalling

pytestmark = [pytest.mark.peers, pytest.mark.timeout(60)]

OPUS = "a=rtpmap:96 opus/48000/2\r\na=fmtp:96 useinbandfec=1;stereo=1;x-evil=1\r\n"
EVENT_8K = "a=rtpmap:101 telephone-event/8000\r\n"
EVENT_48K = "a=rtpmap:102 telephone-event/48000\r\n"
OPEN = "hearing_protection = false\n"
SHA1 = "AES_CM_128_HMAC_SHA1_80"


def said(formats: str, rest: str = "", *, address: str = "127.0.0.4", port: int = 4000) -> str:
    """A description of one audio line; ``rest`` begins with the profile when it is not AVP."""
    profile = "RTP/AVP"
    if rest.startswith("RTP/"):
        profile, _, rest = rest.partition(" ")
    return (
        f"v=0\r\no=- 1 1 IN IP4 {address}\r\ns=-\r\nc=IN IP4 {address}\r\nt=0 0\r\n"
        f"m=audio {port} {profile} {formats}\r\n{rest}"
    )


def key(fill: int, length: int = 30) -> str:
    return base64.b64encode(bytes([fill]) * length).decode()


def crypto(tag: int, fill: int, suite: str = SHA1, length: int = 30) -> str:
    return f"a=crypto:{tag} {suite} inline:{key(fill, length)}\r\n"


def audio(message: Message) -> sdp.AudioMedia:
    found = sdp.parse(message.body).audio
    assert found is not None, message.text
    return found


def keys(message: Message) -> list[CryptoLine]:
    return [parse_crypto(value) for value in audio(message).crypto]


async def phone_end(kind: str = "udp") -> End:
    assert kind == "udp"
    return End(await Wire.udp(PHONE))


async def talk(
    bridge: Signalling, pbx: End, phone: End, offer: str, answer: str
) -> tuple[Message, Message]:
    """A call up to its confirmed state: what the phone was offered and the PBX was answered."""
    pbx.request("INVITE", offer)
    invite = await phone.pick_up(answer)
    accepted = await pbx.final()
    assert accepted.status == 200, accepted.text
    if offer:
        pbx.ack()
        await bridge.media.leg(LegName.CALLER)
    return invite, accepted


async def hang_up(bridge: Signalling, pbx: End) -> None:
    pbx.request("BYE")
    assert (await pbx.final("BYE")).status == 200
    await bridge.media.call_closed()


def uri(phone: End, extra: str = "", keys_of: str = "") -> dict[str, str]:
    return {"1001": f'uri = "sip:1001@{PHONE}:{phone.wire.port}{extra}"\n{keys_of}'}


@pytest.mark.parametrize(
    ("chosen", "answer_rest", "codec", "caller_type", "phone_type", "events"),
    [
        ("9 101", EVENT_8K, "G722", 9, 9, (101, 101)),
        (
            "111 102",
            "a=rtpmap:111 opus/48000/2\r\na=fmtp:111 maxplaybackrate=16000;z=1\r\n" + EVENT_48K,
            "OPUS",
            96,
            111,
            (102, 102),
        ),
        ("0 101 13", EVENT_8K, "PCMU", 0, 0, (101, 101)),
    ],
)
async def test_the_phones_choice_of_what_the_caller_has(
    tmp_path: Path,
    chosen: str,
    answer_rest: str,
    codec: str,
    caller_type: int,
    phone_type: int,
    events: tuple[int, int],
) -> None:
    phone = await phone_end()
    async with signalling(tmp_path, uri(phone, keys_of=OPEN)) as bridge:
        pbx = await bridge.caller()
        rest = OPUS + EVENT_8K + EVENT_48K + "a=ptime:30\r\na=rtcp:4777\r\n"
        invite, accepted = await talk(
            bridge,
            pbx,
            phone,
            said("96 9 0 13 101 102", rest),
            said(chosen, answer_rest, address=PHONE, port=5000),
        )
        offered = audio(invite)
        assert [c.name for c in offered.voice] == ["OPUS", "G722", "PCMU", "PCMA"]
        assert "a=fmtp:96 useinbandfec=1\r\n" in invite.body
        assert "evil" not in invite.body
        assert (offered.address, offered.port, offered.ptime_ms) == ("127.0.0.3", AGENT_RTP, 30)
        answered = audio(accepted)
        assert [(c.name, c.payload_type) for c in answered.voice] == [(codec, caller_type)]
        assert answered.ptime_ms == 30
        caller, agent = (
            await bridge.media.leg(LegName.CALLER),
            await bridge.media.leg(LegName.AGENT),
        )
        assert (caller.codec, caller.payload_type) == (codec, caller_type)
        assert (agent.codec, agent.payload_type) == (codec, phone_type)
        assert (caller.event_payload_type, agent.event_payload_type) == events
        noise = 13 if codec == "PCMU" else -1
        assert (caller.comfort_noise_type, agent.comfort_noise_type) == (noise, noise)
        assert (caller.ptime_ms, caller.rtcp_port, agent.rtcp_port) == (30, 4777, 0)
        assert caller.srtp is None
        if codec == "OPUS":
            assert "a=fmtp:96 maxplaybackrate=16000\r\n" in accepted.body
        await hang_up(bridge, pbx)
    phone.close()


async def test_a_protected_ear_is_offered_g711_and_the_other_law_too(tmp_path: Path) -> None:
    phone = await phone_end()
    async with signalling(tmp_path, uri(phone)) as bridge:
        pbx = await bridge.caller()
        invite, accepted = await talk(
            bridge, pbx, phone, said("9 8"), said("0", address=PHONE, port=5000)
        )
        assert [c.name for c in audio(invite).voice] == ["PCMA", "PCMU"]
        assert [c.name for c in audio(accepted).voice] == ["PCMA"]
        caller, agent = (
            await bridge.media.leg(LegName.CALLER),
            await bridge.media.leg(LegName.AGENT),
        )
        assert (caller.codec, agent.codec) == ("PCMA", "PCMU")
        await hang_up(bridge, pbx)

        # What cannot be limited is refused with a reason that an operator can act on.
        refused = await (await bridge.caller()).invite(said("9"))
        assert refused.status == 488
        assert refused.header("Warning").startswith("305 127.0.0.2 ")
        assert "hearing protection" in refused.header("Warning")
    phone.close()


async def test_a_call_changes_its_codec_only_where_it_fits(tmp_path: Path) -> None:
    phone = await phone_end()
    async with signalling(tmp_path, uri(phone, keys_of=OPEN)) as bridge:
        pbx = await bridge.caller()
        await talk(bridge, pbx, phone, said("8 0"), said("8", address=PHONE, port=5000))
        before = len(bridge.media.updates(LegName.CALLER))

        refused = await pbx.invite(said("9", port=4100))
        assert refused.status == 488
        moved = await pbx.invite(said("0", port=4200))
        assert [c.name for c in audio(moved).voice] == ["PCMU"]
        update = await bridge.media.leg(LegName.CALLER, count=before + 1)
        # The refused offer changed nothing: the next update is that of the accepted one.
        assert (update.codec, update.port) == ("PCMU", 4200)
        kept = await pbx.invite(said("9 8", port=4300))
        assert [c.name for c in audio(kept).voice] == ["PCMA"]
        update = await bridge.media.leg(LegName.CALLER, count=before + 2)
        assert (update.codec, update.port) == ("PCMA", 4300)
        assert not bridge.logs("leg_callback_failed")
        await hang_up(bridge, pbx)
    phone.close()


@pytest.mark.parametrize(
    ("hold", "mirrored"),
    [
        ("a=sendonly\r\n", "a=recvonly"),
        ("a=inactive\r\n", "a=inactive"),
        ("c=IN IP4 0.0.0.0\r\n", "a=sendrecv"),
    ],
)
async def test_hold_in_every_dialect(tmp_path: Path, hold: str, mirrored: str) -> None:
    phone = await phone_end()
    async with signalling(tmp_path, uri(phone)) as bridge:
        pbx = await bridge.caller()
        await talk(bridge, pbx, phone, said("8"), said("8", address=PHONE, port=5000))
        await bridge.media.wait(FlowUpdate, lambda flow: flow.agent_to_caller)
        held = await pbx.invite(said("8", hold))
        assert mirrored in held.body
        flow = await bridge.media.wait(FlowUpdate, lambda flow: flow.on_hold)
        assert not flow.tap
        back = await pbx.invite(said("8"))
        assert "a=sendrecv" in back.body
        await bridge.media.wait(
            FlowUpdate, lambda flow: flow.agent_to_caller and not flow.on_hold, count=2
        )
        await hang_up(bridge, pbx)
    phone.close()


# ------------------------------------------------------------------------------- late offer


@pytest.mark.parametrize(
    ("phone_takes", "rest", "offered", "caller_takes", "codec"),
    [
        ("9 101", EVENT_8K, ["G722"], "9 101", "G722"),
        ("0 101", EVENT_8K, ["PCMU", "PCMA"], "8 101", "PCMA"),
    ],
)
async def test_invite_without_an_offer_is_offered_what_the_phone_took(
    tmp_path: Path, phone_takes: str, rest: str, offered: list[str], caller_takes: str, codec: str
) -> None:
    phone = await phone_end()
    async with signalling(tmp_path, uri(phone, keys_of=OPEN)) as bridge:
        pbx = await bridge.caller()
        invite, accepted = await talk(
            bridge, pbx, phone, "", said(phone_takes, rest, address=PHONE, port=5000)
        )
        assert [c.name for c in audio(invite).voice] == ["PCMU", "PCMA", "G722", "OPUS"]
        assert any(m.status == 180 for m in pbx.seen)
        assert [c.name for c in audio(accepted).voice] == offered
        pbx.ack(said(caller_takes, EVENT_8K + "a=ptime:40\r\n", port=4400))
        caller = await bridge.media.leg(LegName.CALLER)
        assert (caller.codec, caller.address, caller.port) == (codec, "127.0.0.4", 4400)
        assert (caller.event_payload_type, caller.ptime_ms) == (101, 40)
        assert bridge.media.updates(LegName.AGENT)[0].codec == offered[0]
        await bridge.media.wait(FlowUpdate, lambda flow: flow.agent_to_caller)
        # And once more in the middle of the call: a PBX ends a hold this way.
        pbx.request("INVITE")
        again = await pbx.final()
        assert codec in [c.name for c in audio(again).voice]
        pbx.ack(said(caller_takes, EVENT_8K, port=4500))
        moved = await bridge.media.leg(LegName.CALLER, count=2)
        assert (moved.codec, moved.port) == (codec, 4500)
        await hang_up(bridge, pbx)
    phone.close()


async def test_late_answer_that_takes_nothing_ends_the_call(tmp_path: Path) -> None:
    phone = await phone_end()
    async with signalling(tmp_path, uri(phone)) as bridge:
        pbx = await bridge.caller()
        await talk(bridge, pbx, phone, "", said("8", address=PHONE, port=5000))
        pbx.ack(said("9"))
        await pbx.next(lambda message: message.method == "BYE")
        await bridge.media.call_closed()
        assert not bridge.media.updates(LegName.CALLER)
    phone.close()


# ------------------------------------------------------------------------------------- SRTP


@pytest.mark.parametrize(
    ("suite", "length"),
    [
        (SHA1, 30),
        ("AES_CM_128_HMAC_SHA1_32", 30),
        ("AEAD_AES_256_GCM", 44),
        ("AEAD_AES_128_GCM", 28),
    ],
)
async def test_srtp_on_both_legs_with_keys_of_their_own(
    tmp_path: Path, suite: str, length: int
) -> None:
    phone = await phone_end()
    side = 'srtp = "required"\nsrtp_over_plain = true\n'
    async with signalling(tmp_path, uri(phone), pbx=side, phone=side) as bridge:
        pbx = await bridge.caller()
        order = [SHA1, "AES_CM_128_HMAC_SHA1_32", "AEAD_AES_256_GCM", "AEAD_AES_128_GCM"]
        tag = order.index(suite) + 1
        invite, accepted = await talk(
            bridge,
            pbx,
            phone,
            said("8", "RTP/SAVP " + crypto(4, 1, suite, length)),
            said("8", "RTP/SAVP " + crypto(tag, 2, suite, length), address=PHONE, port=5000),
        )
        assert audio(invite).profile == audio(accepted).profile == "RTP/SAVP"
        assert [line.suite for line in keys(invite)] == order
        (ours,) = keys(accepted)
        assert (ours.tag, ours.suite) == (4, suite)
        caller, agent = (
            await bridge.media.leg(LegName.CALLER),
            await bridge.media.leg(LegName.AGENT),
        )
        assert caller.srtp is not None
        assert agent.srtp is not None
        assert (caller.srtp.suite, agent.srtp.suite) == (suite, suite)
        assert (caller.srtp.send, caller.srtp.receive) == (ours.key, b"\x01" * length)
        assert (agent.srtp.send, agent.srtp.receive) == (
            keys(invite)[tag - 1].key,
            b"\x02" * length,
        )

        # An unchanged key goes on; a changed one changes ours.
        held = await pbx.invite(said("8", "RTP/SAVP a=sendonly\r\n" + crypto(4, 1, suite, length)))
        assert keys(held) == [ours]
        rekeyed = await pbx.invite(said("8", "RTP/SAVP " + crypto(1, 3, suite, length)))
        assert keys(rekeyed)[0].key != ours.key
        update = await bridge.media.leg(LegName.CALLER, count=3)
        assert update.srtp is not None
        assert update.srtp.receive == b"\x03" * length
        assert update.srtp.send == keys(rekeyed)[0].key
        await hang_up(bridge, pbx)
    phone.close()
    shown = bridge.log_path.read_text()
    for secret in (key(1, length)[:12], key(2, length)[:12], "inline", ours.key.hex()[:12]):
        assert secret not in shown


@pytest.mark.parametrize(
    ("side", "offer", "says"),
    [
        ("", said("8", "RTP/SAVP " + crypto(1, 1)), "SRTP is off"),
        ('srtp = "optional"\n', said("8", "RTP/SAVP " + crypto(1, 1)), "over TLS only"),
        (
            'srtp = "required"\nsrtp_over_plain = true\n',
            said("8", crypto(1, 1)),
            "RTP/SAVP is required",
        ),
        (
            'srtp = "optional"\nsrtp_over_plain = true\n',
            said("8", "RTP/SAVP " + crypto(1, 1).replace("\r\n", "|2^31|1:4\r\n")),
            "MKI",
        ),
    ],
)
async def test_srtp_that_may_not_be_is_refused_with_a_reason(
    tmp_path: Path, side: str, offer: str, says: str
) -> None:
    agents = {"1001": f'uri = "sip:1001@{PHONE}:5999"\n'}
    async with signalling(tmp_path, agents, pbx=side) as bridge:
        pbx = await bridge.caller()
        refused = await pbx.invite(offer)
        assert refused.status == 488
        assert refused.header("Warning").startswith("302 ")
        assert says in refused.header("Warning")
        assert key(1)[:12] not in refused.text + bridge.log_path.read_text()


async def test_optional_keys_on_both_sides_and_a_phone_without(tmp_path: Path) -> None:
    phone = await phone_end()
    side = 'srtp = "optional"\nsrtp_over_plain = true\n'
    async with signalling(tmp_path, uri(phone), pbx=side, phone=side) as bridge:
        pbx = await bridge.caller()
        invite, accepted = await talk(
            bridge,
            pbx,
            phone,
            said("8", crypto(1, 1)),
            said("8", address=PHONE, port=5000),
        )
        assert audio(invite).profile == "RTP/AVP"
        assert len(keys(invite)) == 4
        assert len(keys(accepted)) == 1
        caller: LegUpdate = await bridge.media.leg(LegName.CALLER)
        agent: LegUpdate = await bridge.media.leg(LegName.AGENT)
        assert caller.srtp is not None
        assert agent.srtp is None
        await hang_up(bridge, pbx)
    phone.close()


async def test_odd_bodies_get_an_answer_and_harm_nothing(tmp_path: Path) -> None:
    from tests.test_sdp_torture import ACCEPTED, REFUSED

    agents = {"1001": f'uri = "sip:1001@{PHONE}:5999"\n'}
    async with signalling(tmp_path, agents) as bridge:
        for name, body in {**ACCEPTED, **REFUSED}.items():
            if len(body) > 8000 or not body.isascii():
                continue
            pbx = await bridge.caller()
            pbx.request("INVITE", body)
            if name in ACCEPTED or not body.strip():
                continue  # the phone is not there: it rings until the end
            answer = await pbx.final()
            assert answer.status in (400, 415, 488), (name, answer.text)
        assert not bridge.logs("invite_failed")
        assert not bridge.logs("leg_callback_failed")


@pytest.mark.parametrize(
    ("codecs", "options", "side", "codec", "suite"),
    [
        ("pcma/8000/1", ";mediaenc=srtp-mand", "required", "PCMA", SHA1),
        ("pcmu/8000/1", ";mediaenc=srtp", "optional", "PCMU", SHA1),
        ("g722/16000/1", "", "off", "G722", ""),
        ("opus/48000/2", "", "off", "OPUS", ""),
    ],
)
async def test_a_real_phone_agrees(
    tmp_path: Path, codecs: str, options: str, side: str, codec: str, suite: str
) -> None:
    """baresip as the phone: what it makes of our offers, with and without keys."""
    sound = tmp_path / "silence.wav"
    with wave.open(str(sound), "wb") as file:
        # baresip's file player wants the channels of the codec, and two for Opus.
        file.setnchannels(2 if codec == "OPUS" else 1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(64000))
    keys_of = f'srtp = "{side}"\nsrtp_over_plain = true\n'
    async with running_baresip(
        tmp_path / "phone", PHONE, "1001", sound, codecs=codecs, options=options
    ) as phone:
        agents = {"1001": f'uri = "{phone.uri}"\n{OPEN}'}
        async with signalling(tmp_path / "bridge", agents, phone=keys_of) as bridge:
            pbx = await bridge.caller()
            accepted = await pbx.invite(said("96 9 0 8 101", OPUS + EVENT_8K))
            assert accepted.status == 200, accepted.text
            assert [c.name for c in audio(accepted).voice] == [codec]
            agent = await bridge.media.leg(LegName.AGENT)
            assert agent.codec == codec
            assert (agent.srtp.suite if agent.srtp else "") == suite
            await hang_up(bridge, pbx)
