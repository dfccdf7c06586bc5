"""What may be agreed on a leg, and why something may not."""

from __future__ import annotations

import base64

import pytest

from callshield.settings import Settings
from sipbridge import sdp
from sipbridge.leg_policy import LegPolicy, caller_policy, phone_policy
from sipbridge.offer_answer import (
    LegMedia,
    OfferRefused,
    choose_line,
    offered_onward,
    offered_to_late_caller,
    read_offer,
)
from sipbridge.opus_format import opus_parameters, written_opus_parameters
from sipbridge.sdp import Codec, SessionDescription
from sipbridge.srtp_keys import parse_crypto

ALL = ("PCMU", "PCMA", "G722", "OPUS")
OPEN = LegPolicy(codecs=ALL)
EAR = LegPolicy(protected=True)
SECURE = LegPolicy(codecs=ALL, srtp="required", keys_may_travel=True)
EITHER = LegPolicy(codecs=ALL, srtp="optional", keys_may_travel=True)
SHA1 = "AES_CM_128_HMAC_SHA1_80"
HEAD = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n"
OPUS = "a=rtpmap:96 opus/48000/2\r\n"
EVENTS = "a=rtpmap:101 telephone-event/8000\r\na=rtpmap:102 telephone-event/48000\r\n"


def inline(fill: int, length: int = 30) -> str:
    return base64.b64encode(bytes([fill]) * length).decode()


def crypto(tag: int = 1, fill: int = 7, suite: str = SHA1, length: int = 30) -> str:
    return f"a=crypto:{tag} {suite} inline:{inline(fill, length)}\r\n"


def line(formats: str, rest: str = "", profile: str = "RTP/AVP", port: int = 4000) -> str:
    return f"m=audio {port} {profile} {formats}\r\n{rest}"


def description(*lines: str) -> SessionDescription:
    return sdp.parse(HEAD + "".join(lines))


def names(codecs: tuple[Codec, ...]) -> list[str]:
    return [codec.name for codec in codecs]


def leg(policy: LegPolicy, port: int = 30000) -> LegMedia:
    numbers = iter(range(200, 256))
    return LegMedia(
        policy,
        "198.51.100.7",
        port=port,
        session_id=9,
        random=lambda length: bytes([next(numbers)]) * length,
    )


def agree(caller: SessionDescription, phone: LegMedia, answer: str) -> sdp.Negotiated:
    """The phone is offered what the caller has and answers with these lines."""
    audio = caller.audio
    assert audio is not None
    phone.offer(
        offered_onward(caller, phone.policy, OPEN),
        comfort_noise=audio.comfort_noise is not None,
    )
    return phone.take_answer(description(answer))


# --------------------------------------------------------------------------------- codecs


def test_phone_is_offered_the_callers_codecs_in_the_callers_order() -> None:
    caller = description(line("9 96 8 0 18", OPUS))
    assert names(offered_onward(caller, OPEN, OPEN)) == ["G722", "OPUS", "PCMA", "PCMU"]
    # The caller's numbers stay, so that packets pass as they are.
    assert [c.payload_type for c in offered_onward(caller, OPEN, OPEN)] == [9, 96, 8, 0]


def test_one_law_of_g711_brings_the_other() -> None:
    assert names(offered_onward(description(line("8")), OPEN, OPEN)) == ["PCMA", "PCMU"]
    assert names(offered_onward(description(line("9 0")), OPEN, OPEN)) == ["G722", "PCMU", "PCMA"]
    assert names(offered_onward(description(line("9")), OPEN, OPEN)) == ["G722"]


def test_a_protected_ear_is_offered_only_what_can_be_limited() -> None:
    caller = description(line("96 9 8", OPUS))
    assert names(offered_onward(caller, EAR, OPEN)) == ["PCMA", "PCMU"]
    with pytest.raises(OfferRefused, match="hearing protection") as refused:
        offered_onward(description(line("96 9", OPUS)), EAR, OPEN)
    assert refused.value.reason == "no_common_codec"


def test_own_law_does_not_take_a_number_that_the_caller_uses_otherwise() -> None:
    caller = description(line("0 8", "a=rtpmap:8 G722/8000\r\n"))
    assert [(c.name, c.payload_type) for c in offered_onward(caller, OPEN, OPEN)] == [
        ("PCMU", 0),
        ("G722", 8),
        ("PCMA", 96),
    ]


@pytest.mark.parametrize(
    ("phone_takes", "voice", "payload_type"),
    [("9", "G722", 9), ("111", "OPUS", 96), ("0", "PCMU", 0), ("8", "PCMA", 8)],
)
def test_the_phones_choice_decides_and_the_caller_gets_the_same(
    phone_takes: str, voice: str, payload_type: int
) -> None:
    caller = description(line("0 96 9 8 101 102", OPUS + EVENTS))
    phone = leg(OPEN)
    rest = "a=rtpmap:111 opus/48000/2\r\n" if phone_takes == "111" else ""
    negotiated = agree(caller, phone, line(phone_takes, rest))
    text, _, agreed = leg(OPEN).answer(caller, negotiated.voice)
    assert (agreed.voice.name, agreed.voice.payload_type) == (voice, payload_type)
    again = sdp.parse(text).audio
    assert again is not None
    assert names(again.voice) == [voice]


def test_laws_are_turned_into_each_other_and_nothing_else_is() -> None:
    _, _, agreed = leg(OPEN).answer(description(line("0")), Codec(8, "PCMA", 8000))
    assert agreed.voice.name == "PCMU"
    for offered, other in (
        ("9", Codec(8, "PCMA", 8000)),
        ("0", Codec(9, "G722", 8000)),
        ("0 8 9", Codec(96, "OPUS", 48000, 2)),
    ):
        with pytest.raises(OfferRefused, match="the other side of the call has") as refused:
            leg(OPEN).answer(description(line(offered)), other)
        name, value = refused.value.warning("198.51.100.7")
        assert name == "Warning"
        assert value.startswith('305 198.51.100.7 "offered ')


def test_events_have_the_clock_of_the_voice() -> None:
    """RFC 4733 section 2.1: they share one timestamp line."""
    caller = description(line("96 0 101 102", OPUS + EVENTS))
    opus = Codec(96, "OPUS", 48000, 2)
    _, _, agreed = leg(OPEN).answer(caller, opus)
    assert agreed.event == Codec(102, "telephone-event", 48000)
    _, _, agreed = leg(OPEN).answer(caller, Codec(0, "PCMU", 8000))
    assert agreed.event == Codec(101, "telephone-event", 8000)
    only_8k = description(line("96 0 101", OPUS + EVENTS.split("\r\n")[0] + "\r\n"))
    text, _, agreed = leg(OPEN).answer(only_8k, opus)
    assert agreed.event is None
    assert "telephone-event" not in text


def test_our_offer_has_an_event_for_every_clock() -> None:
    offer = leg(OPEN).offer((Codec(101, "OPUS", 48000, 2), Codec(0, "PCMU", 8000)))
    audio = sdp.parse(offer).audio
    assert audio is not None
    assert audio.event_at(48000) == Codec(102, "telephone-event", 48000)
    assert audio.event_at(8000) == Codec(103, "telephone-event", 8000)


def test_comfort_noise_only_where_both_sides_have_it() -> None:
    with_noise, without = description(line("0 13")), description(line("0"))
    phone = leg(OPEN)
    noisy = agree(with_noise, phone, line("0 13"))
    assert noisy.comfort_noise == Codec(13, "CN", 8000)
    text, _, agreed = leg(OPEN).answer(with_noise, noisy.voice, comfort_noise=True)
    assert agreed.comfort_noise is not None
    assert "m=audio 30000 RTP/AVP 0 13\r\n" in text
    quiet = agree(with_noise, leg(OPEN), line("0"))
    assert quiet.comfort_noise is None
    assert leg(OPEN).answer(with_noise, quiet.voice)[2].comfort_noise is None
    # A phone that says CN although it was not offered does not get it.
    assert agree(without, leg(OPEN), line("0 13")).comfort_noise is None


def test_opus_parameters_cross_checked_and_stereo_stays_behind() -> None:
    said = (
        "maxplaybackrate=16000; useinbandfec=1;stereo=1; sprop-stereo=1;usedtx=2;cbr=0;cbr=1;"
        "maxaveragebitrate=999999999999;x-evil=a b;minptime=10"
    )
    assert opus_parameters(said) == {
        "maxplaybackrate": 16000,
        "useinbandfec": 1,
        "cbr": 0,
        "minptime": 10,
    }
    written = "maxplaybackrate=16000;minptime=10;cbr=0;useinbandfec=1"
    assert written_opus_parameters(said) == written
    caller = description(line("96", OPUS + f"a=fmtp:96 {said}\r\n"))
    offer = leg(OPEN).offer(offered_onward(caller, OPEN, OPEN))
    assert f"a=rtpmap:96 opus/48000/2\r\na=fmtp:96 {written}\r\n" in offer
    text, _, _ = leg(OPEN).answer(caller, None, voice_fmtp="useinbandfec=0;evil\r\na=x")
    assert "a=fmtp:96 useinbandfec=0\r\n" in text
    assert "evil" not in text + offer


@pytest.mark.parametrize(
    ("said", "held_to"),
    [
        ("a=ptime:30\r\n", 30),
        ("a=ptime:60\r\n", 60),
        ("a=ptime:10\r\n", 10),
        ("a=ptime:5\r\n", 10),
        ("a=ptime:200\r\n", 60),
        ("a=ptime:0\r\n", 20),
        ("a=ptime:-20\r\n", 20),
        ("a=ptime:99999999999\r\n", 20),
        ("a=ptime:40\r\na=maxptime:30\r\n", 30),
        ("a=maxptime:10\r\n", 10),
        ("", 20),
    ],
)
def test_packet_length_is_the_offerers(said: str, held_to: int) -> None:
    text, offer, _ = leg(OPEN).answer(description(line("0", said)), None)
    assert offer.audio is not None
    assert offer.audio.ptime_ms == held_to
    assert f"a=ptime:{held_to}\r\n" in text


@pytest.mark.parametrize(
    ("said", "port"),
    [
        ("a=rtcp:4010\r\n", 4010),
        ("a=rtcp:4010 IN IP4 192.0.2.9\r\n", 4010),
        ("a=rtcp:0\r\n", 0),
        ("a=rtcp:70000\r\n", 0),
        ("a=rtcp:\r\n", 0),
        ("", 0),
    ],
)
def test_rtcp_port(said: str, port: int) -> None:
    audio = description(line("0", said)).audio
    assert audio is not None
    assert audio.rtcp_port == port


# ---------------------------------------------------------------------- in the middle of a call


def test_changed_codec_is_taken_where_it_fits_the_other_leg() -> None:
    media = leg(OPEN)
    other = Codec(8, "PCMA", 8000)
    media.answer(description(line("8 0")), other)
    assert media.answer(description(line("0")), other)[2].voice.name == "PCMU"
    # What needs no transcoding comes first, whatever the order: a hold changes no codec.
    assert media.answer(description(line("0 8")), other)[2].voice.name == "PCMA"
    assert media.answer(description(line("9 8")), other)[2].voice.name == "PCMA"


def test_refused_offer_leaves_the_leg_as_it_was() -> None:
    """RFC 3261 section 14.2."""
    media = leg(SECURE)
    other = Codec(8, "PCMA", 8000)
    media.answer(description(line("8", crypto(), "RTP/SAVP")), other)
    before = media.negotiated
    assert before is not None
    assert before.srtp is not None
    for offer in (line("9", crypto(fill=8), "RTP/SAVP"), line("8"), line("8", profile="RTP/SAVP")):
        with pytest.raises(OfferRefused):
            media.answer(description(offer), other)
        assert media.negotiated is before
    # And goes on under its own keys.
    _, _, after = media.answer(description(line("8", crypto(), "RTP/SAVP")), other)
    assert after.srtp == before.srtp


def test_late_offer_names_what_the_phone_took() -> None:
    g722 = Codec(9, "G722", 8000)
    assert names(offered_to_late_caller(g722, OPEN)) == ["G722"]
    assert names(offered_to_late_caller(Codec(8, "PCMA", 8000), OPEN)) == ["PCMA", "PCMU"]
    assert names(offered_onward(None, OPEN, OPEN)) == list(ALL)
    assert names(offered_onward(None, EAR, OPEN)) == ["PCMU", "PCMA"]
    narrow = LegPolicy(codecs=("PCMA",))
    assert names(offered_onward(None, EAR, narrow)) == ["PCMA", "PCMU"]
    assert names(offered_to_late_caller(Codec(0, "PCMU", 8000), narrow)) == ["PCMA"]


def test_late_answer_must_be_of_our_offer() -> None:
    media = leg(OPEN)
    media.offer((Codec(8, "PCMA", 8000),))
    with pytest.raises(OfferRefused, match="offered was PCMA"):
        media.take_answer(description(line("9")))
    with pytest.raises(OfferRefused, match="refuses"):
        media.take_answer(description(line("8", port=0)))
    assert media.take_answer(description(line("8"))).voice.name == "PCMA"


# --------------------------------------------------------------------------------------- SRTP


@pytest.mark.parametrize(
    ("policy", "offer", "reason"),
    [
        (OPEN, line("0", crypto(), "RTP/SAVP"), "srtp_off"),
        (
            LegPolicy(codecs=ALL, srtp="optional"),
            line("0", crypto(), "RTP/SAVP"),
            "srtp_over_plain",
        ),
        (SECURE, line("0"), "srtp_required"),
        (SECURE, line("0", crypto()), "srtp_required"),
        (EITHER, line("0", "", "RTP/SAVP"), "srtp_unusable"),
        (EITHER, line("0", crypto().replace("\r\n", "|1:4\r\n"), "RTP/SAVP"), "srtp_unusable"),
        (EITHER, line("0", "", "UDP/TLS/RTP/SAVP"), "no_audio"),
        (OPEN, line("18"), "no_common_codec"),
        (OPEN, line("0", port=0), "no_audio"),
        (OPEN, "m=video 4000 RTP/AVP 31\r\n", "no_audio"),
    ],
)
def test_refusals_say_why(policy: LegPolicy, offer: str, reason: str) -> None:
    with pytest.raises(OfferRefused) as refused:
        choose_line(description(offer), policy)
    assert refused.value.reason == reason
    name, value = refused.value.warning("::1")
    assert name == "Warning"
    assert value[3:10] == " [::1] "
    assert inline(7)[:10] not in value


def test_secure_line_is_taken_where_it_may_be() -> None:
    both = (line("0", crypto(), "RTP/SAVP", 4000), line("0", "", "RTP/AVP", 4002))
    for offer in (both, both[::-1]):
        secure = choose_line(description(*offer), EITHER).audio
        plain = choose_line(description(*offer), OPEN).audio
        assert secure is not None
        assert plain is not None
        assert (secure.profile, plain.profile) == ("RTP/SAVP", "RTP/AVP")
    text, _, agreed = leg(EITHER).answer(description(*both[::-1]), None)
    assert agreed.srtp is not None
    assert [m for m in text.split("\r\n") if m.startswith("m=")] == [
        "m=audio 0 RTP/AVP 0",
        "m=audio 30000 RTP/SAVP 0",
    ]


@pytest.mark.parametrize(
    ("suite", "length"),
    [
        (SHA1, 30),
        ("AES_CM_128_HMAC_SHA1_32", 30),
        ("AEAD_AES_256_GCM", 44),
        ("AEAD_AES_128_GCM", 28),
    ],
)
def test_answer_has_the_offered_tag_and_suite(suite: str, length: int) -> None:
    offer = description(line("0", crypto(3, 7, suite, length) + crypto(4), "RTP/SAVP"))
    text, _, agreed = leg(SECURE).answer(offer, None)
    assert agreed.srtp is not None
    assert (agreed.srtp.suite, agreed.srtp.receive) == (suite, b"\x07" * length)
    assert agreed.srtp.send == bytes([200]) * length
    (written,) = [a for a in text.split("\r\n") if a.startswith("a=crypto:")]
    ours = parse_crypto(written.removeprefix("a=crypto:"))
    assert (ours.tag, ours.suite, ours.key) == (3, suite, agreed.srtp.send)
    assert "RTP/SAVP" in text


def test_optional_keys_beside_a_plain_profile() -> None:
    offer = description(line("0", crypto()))
    assert leg(EITHER).answer(offer, None)[2].srtp is not None
    # Off, or nothing confidential to carry a key: the call is plain and no key is written.
    for policy in (OPEN, LegPolicy(codecs=ALL, srtp="optional")):
        text, _, agreed = leg(policy).answer(offer, None)
        assert agreed.srtp is None
        assert "crypto" not in text
    # Keys that nobody can use leave such a call plain.
    mki = description(line("0", crypto().replace("\r\n", "|1:4\r\n")))
    assert leg(EITHER).answer(mki, None)[2].srtp is None


def test_rekey_when_theirs_changes_and_only_then() -> None:
    media = leg(SECURE)
    first = media.answer(description(line("0", crypto(), "RTP/SAVP")), None)[2].srtp
    held = media.answer(description(line("0", crypto() + "a=sendonly\r\n", "RTP/SAVP")), None)[2]
    assert held.srtp == first
    changed = media.answer(description(line("0", crypto(fill=9), "RTP/SAVP")), None)[2].srtp
    assert first is not None
    assert changed is not None
    assert changed.receive == b"\x09" * 30
    assert changed.send != first.send


def test_our_offer_with_keys_and_the_phones_answer() -> None:
    media = leg(SECURE)
    voices = (Codec(0, "PCMU", 8000),)
    offer = sdp.parse(media.offer(voices)).audio
    assert offer is not None
    assert offer.profile == "RTP/SAVP"
    lines = [parse_crypto(value) for value in offer.crypto]
    assert [found.tag for found in lines] == [1, 2, 3, 4]
    answered = description(line("0", crypto(3, 5, "AEAD_AES_256_GCM", 44), "RTP/SAVP"))
    keys = media.take_answer(answered).srtp
    assert keys is not None
    assert (keys.suite, keys.send, keys.receive) == (
        "AEAD_AES_256_GCM",
        lines[2].key,
        b"\x05" * 44,
    )
    # Offered again in the middle of the call it is the same key: counters go on.
    again = sdp.parse(media.offer_in_force()).audio
    assert again is not None
    assert [parse_crypto(value).key for value in again.crypto] == [lines[2].key]


@pytest.mark.parametrize(
    "answer",
    [
        line("0", crypto(9), "RTP/SAVP"),  # a tag that was not offered
        line("0", crypto(2), "RTP/SAVP"),  # tag 2 was another suite
        line("0", "", "RTP/SAVP"),
        line("0"),
    ],
)
def test_phone_that_answers_without_our_keys_gets_no_call(answer: str) -> None:
    media = leg(SECURE)
    media.offer((Codec(0, "PCMU", 8000),))
    with pytest.raises(OfferRefused):
        media.take_answer(description(answer))


def test_optional_offer_may_be_answered_without_keys() -> None:
    media = leg(EITHER)
    offer = media.offer((Codec(0, "PCMU", 8000),))
    assert "RTP/AVP 0" in offer
    assert offer.count("a=crypto:") == 4
    assert media.take_answer(description(line("0"))).srtp is None
    media.offer((Codec(0, "PCMU", 8000),))
    assert media.take_answer(description(line("0", crypto(1)))).srtp is not None


def test_no_key_is_shown_by_a_leg() -> None:
    media = leg(SECURE)
    _, offer, agreed = media.answer(description(line("0", crypto(), "RTP/SAVP")), None)
    shown = f"{media!r} {offer!r} {agreed!r}"
    assert inline(7)[:10] not in shown
    assert repr(b"\x07" * 8)[2:-1] not in shown
    assert repr(bytes([200]) * 8)[2:-1] not in shown


# ------------------------------------------------------------------------------ INVITE, settings


def test_invite_without_a_body_is_a_late_offer() -> None:
    head = "INVITE sip:1001@192.0.2.1 SIP/2.0\r\nContent-Length: 0\r\n\r\n"
    assert read_offer(head, OPEN) is None
    offer = read_offer(head + HEAD + line("0"), OPEN)
    assert offer is not None
    assert offer.audio is not None
    with pytest.raises(OfferRefused) as refused:
        read_offer(head + "hello", OPEN)
    assert refused.value.reason == "bad_offer"


def settings(**phone: object) -> Settings:
    return Settings.model_validate(
        {
            "peers": [{"name": "pbx", "networks": ["192.0.2.1"]}],
            "sip": {"phone": {"srtp_over_plain": True, **phone}},
            "agents": {
                "1": {"uri": "sip:1@192.0.2.2"},
                "2": {"uri": "sip:2@192.0.2.2", "hearing_protection": False, "srtp": "required"},
            },
        }
    )


def test_policy_of_a_leg_is_what_is_configured() -> None:
    configured = settings(codecs=["G722", "PCMA"])
    protected = phone_policy(configured, configured.agents["1"])
    assert (protected.codecs, protected.srtp, protected.protected) == (("PCMA",), "off", True)
    free = phone_policy(configured, configured.agents["2"])
    assert (free.codecs, free.srtp, free.keys_may_travel) == (("G722", "PCMA"), "required", True)
    assert not caller_policy(configured, over_tls=False).keys_may_travel
    assert caller_policy(configured, over_tls=True).keys_may_travel
