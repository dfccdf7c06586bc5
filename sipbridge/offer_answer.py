"""What may be agreed on a leg: codecs and keys by offer and answer (RFC 3264, RFC 4568).

The rules of the house:

* The two legs carry the same voice codec, passed through; only the two laws of G.711 are turned
  into each other. Anything else is refused with 488 and a reason.
* A leg whose ear is protected is offered only what the core can limit (G.711).
* telephone-event has the clock of the voice codec (RFC 4733 section 2.1).
* SRTP keys go only where the signalling is confidential, unless the configuration says otherwise.

Pure but for the random numbers of new keys, which come in as a function.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from callshield.errors import SdpError
from sipbridge.leg_policy import LegPolicy
from sipbridge.sdp import (
    G711,
    USUAL_PTIME_MS,
    VOICE_CODECS,
    AudioMedia,
    Codec,
    Negotiated,
    SessionDescription,
    parse,
    write_answer,
    write_offer,
)
from sipbridge.srtp_keys import (
    CryptoLine,
    agreed,
    answer_line,
    fresh_lines,
    usable_lines,
)

#: Payload types of our own offers where the far end has not fixed them.
_OWN_PAYLOAD_TYPES = {"PCMU": 0, "PCMA": 8, "G722": 9, "OPUS": 111}
#: Warn codes of 488 (RFC 3261 section 20.43).
WARN_ADDRESS, WARN_TRANSPORT, WARN_MEDIA, WARN_FORMAT = 301, 302, 304, 305
WARN_MISCELLANEOUS = 399


class OfferRefused(SdpError):
    """A session description that is well formed but cannot be agreed to: 488.

    Args:
        reason: identifier for logs and events.
        text: a sentence for the far end's operator; no key, no address.
        warn_code: of the Warning header (RFC 3261 section 20.43).
    """

    def __init__(self, reason: str, text: str, warn_code: int = WARN_FORMAT) -> None:
        super().__init__(text)
        self.reason = reason
        self.warn_code = warn_code

    def warning(self, host: str) -> tuple[str, str]:
        """The Warning header of the refusal."""
        text = str(self).replace("\\", "").replace('"', "'")
        agent = f"[{host}]" if ":" in host else host
        return "Warning", f'{self.warn_code} {agent} "{text}"'


def same_or_g711(one: Codec, other: Codec) -> bool:
    """The relay can carry one codec's packets to a leg with the other."""
    return one.name == other.name or (one.name in G711 and other.name in G711)


def require_same_or_g711(phone: Codec, caller: Codec) -> None:
    """Check the two codecs of a call.

    Raises:
        OfferRefused: neither the same nor the two laws of G.711.
    """
    if not same_or_g711(phone, caller):
        raise OfferRefused(
            "no_common_codec", f"the caller has {caller}, the phone changed to {phone}"
        )


def read_offer(message: str, policy: LegPolicy) -> SessionDescription | None:
    """The offer of an INVITE, its ``audio`` the line that we take; None when it carries none.

    Args:
        message: the whole SIP message.
        policy: of the leg that it came on.

    Raises:
        OfferRefused: unreadable, or nothing in it can be agreed to.
    """
    body = message.replace("\r\n", "\n").partition("\n\n")[2]
    if not body.strip():
        return None
    try:
        offer = parse(body)
    except SdpError as error:
        raise OfferRefused("bad_offer", str(error), WARN_MISCELLANEOUS) from None
    return choose_line(offer, policy)


def choose_line(offer: SessionDescription, policy: LegPolicy) -> SessionDescription:
    """The offer with the audio line that the policy prefers as its ``audio``.

    Raises:
        OfferRefused: no audio line fits; the reason is that of the first one.
    """
    refusals: list[OfferRefused] = []
    fitting: list[AudioMedia] = []
    for audio in offer.audio_lines:
        try:
            _check_line(audio, policy)
        except OfferRefused as refused:
            refusals.append(refused)
        else:
            fitting.append(audio)
    if not fitting:
        if refusals:
            raise refusals[0]
        raise OfferRefused(
            "no_audio", "there is no audio line of RTP/AVP or RTP/SAVP with a port", WARN_MEDIA
        )
    # A line with keys before one without (the sort is stable); with SRTP off none is left here.
    fitting.sort(key=lambda audio: not (audio.secure or _takes_keys(audio, policy)))
    return replace(offer, audio=fitting[0])


def _check_address(audio: AudioMedia, policy: LegPolicy) -> None:
    """A host name would be looked up while every other call of the node waits."""
    if audio.unspecified_address:
        return  # the old way to hold
    family = "IPv6" if policy.six else "IPv4"
    if not audio.address:
        raise OfferRefused(
            "media_address",
            f"the c= line names no {family} address of one receiver",
            WARN_ADDRESS,
        )
    if (":" in audio.address) != policy.six:
        raise OfferRefused(
            "media_family", f"the c= line is of another family than our {family}", WARN_ADDRESS
        )


def _check_line(audio: AudioMedia, policy: LegPolicy) -> None:
    _check_address(audio, policy)
    if audio.secure:
        if policy.srtp == "off":
            raise OfferRefused(
                "srtp_off", f"{audio.profile} is offered, SRTP is off here", WARN_TRANSPORT
            )
        if not policy.keys_may_travel:
            raise OfferRefused(
                "srtp_over_plain",
                "SRTP keys are taken over TLS only",
                WARN_TRANSPORT,
            )
        lines, why = usable_lines(audio.crypto, policy.suites)
        if not lines:
            raise OfferRefused("srtp_unusable", f"no usable SRTP key: {why}", WARN_TRANSPORT)
    elif policy.srtp == "required":
        raise OfferRefused(
            "srtp_required",
            f"{audio.profile} is offered, RTP/SAVP is required here",
            WARN_TRANSPORT,
        )
    if not any(codec.name in policy.codecs for codec in audio.voice):
        offered = ", ".join(str(codec) for codec in audio.codecs) or "no codec"
        taken = ", ".join(policy.codecs)
        why = f"{taken} are taken"
        if policy.protected:
            why += " (what hearing protection can limit)"
        raise OfferRefused("no_common_codec", f"offered {offered}; {why}")


def _takes_keys(audio: AudioMedia, policy: LegPolicy) -> bool:
    """Keys of the line will be used: RTP/SAVP, or RTP/AVP with keys where that is configured."""
    if policy.srtp == "off" or not policy.keys_may_travel:
        return False
    return audio.secure or (policy.srtp == "optional" and bool(audio.crypto))


def offered_onward(
    incoming: SessionDescription | None, outgoing_policy: LegPolicy, incoming_policy: LegPolicy
) -> tuple[Codec, ...]:
    """Voice codecs for our offer to whom we call: the incoming leg's, in its order.

    One law of G.711 brings the other with it, since we turn them into each other. Payload types
    are the incoming leg's, so that most packets need no change.

    Args:
        incoming: the INVITE's offer; None when it made none (late offer): then what both policies
            allow.
        outgoing_policy: of the leg that we call.
        incoming_policy: of the leg that the INVITE came on.

    Raises:
        OfferRefused: nothing is left.
    """
    if incoming is None:
        names = [name for name in outgoing_policy.codecs if name in incoming_policy.codecs]
        if any(name in G711 for name in incoming_policy.codecs):
            names += [name for name in outgoing_policy.codecs if name in G711 and name not in names]
        found = [_own(name) for name in names]
    else:
        assert incoming.audio is not None
        usable = [c for c in incoming.audio.voice if c.name in incoming_policy.codecs]
        found = [codec for codec in usable if codec.name in outgoing_policy.codecs]
        if any(codec.name in G711 for codec in usable):
            found += [
                _free(_own(name), found)
                for name in G711
                if name in outgoing_policy.codecs and all(codec.name != name for codec in found)
            ]
    if not found:
        offered = "nothing" if incoming is None else incoming.offered()
        why = " (hearing protection)" if outgoing_policy.protected else ""
        raise OfferRefused(
            "no_common_codec",
            f"offered {offered}; the other side takes {', '.join(outgoing_policy.codecs)}{why}",
        )
    first_of: dict[str, Codec] = {}
    for codec in found:
        first_of.setdefault(codec.name, codec)
    return tuple(first_of.values())


def offered_to_late_caller(phone: Codec, policy: LegPolicy) -> tuple[Codec, ...]:
    """Voice codecs of our offer to a caller that made none: what the phone took, and what can be
    turned into it."""
    names = [phone.name] if phone.name in policy.codecs else []
    if phone.name in G711:
        names += [name for name in policy.codecs if name in G711 and name not in names]
    return tuple(
        replace(phone, payload_type=_OWN_PAYLOAD_TYPES[name]) if name == phone.name else _own(name)
        for name in names
    )


def _own(name: str) -> Codec:
    clock_rate, channels = VOICE_CODECS[name]
    return Codec(_OWN_PAYLOAD_TYPES[name], name, clock_rate, channels)


def _free(codec: Codec, others: list[Codec]) -> Codec:
    """The codec under a payload type that no other one has."""
    taken = {other.payload_type for other in others}
    if codec.payload_type not in taken:
        return codec
    return replace(codec, payload_type=next(n for n in range(96, 128) if n not in taken))


@dataclass(slots=True)
class LegMedia:
    """The offers and answers of one leg, and what is in force on it.

    Args:
        policy: what may be agreed.
        address: our media address towards this leg.
        random: gives that many random bytes; for keys.
    """

    policy: LegPolicy
    address: str
    port: int = 0
    """Our RTP port, once reserved."""
    session_id: int = 0
    """Number in our o= lines."""
    random: Callable[[int], bytes] = field(default=os.urandom, repr=False)
    negotiated: Negotiated | None = None
    """In force since the last :meth:`answer` or :meth:`take_answer`."""
    _lines: tuple[CryptoLine, ...] = field(default=(), repr=False)
    """Of our open offer."""
    _offered_voices: tuple[Codec, ...] = ()
    _offered_noise: bool = False
    _in_force: tuple[CryptoLine, CryptoLine] | None = field(default=None, repr=False)
    """Our and their key."""

    def successor(self, policy: LegPolicy) -> LegMedia:
        """For a new far end in this leg's place (transfer): our ports, new keys, nothing agreed."""
        session_id = int.from_bytes(self.random(4), "big")
        return LegMedia(policy, self.address, self.port, session_id, self.random)

    # -------------------------------------------------------------------------- we offer

    def offer(
        self,
        voices: tuple[Codec, ...],
        *,
        events: bool = True,
        comfort_noise: bool = False,
        ptime_ms: int = USUAL_PTIME_MS,
    ) -> str:
        """Our offer; :meth:`take_answer` takes what comes back.

        With SRTP *required* it is RTP/SAVP, with *optional* RTP/AVP with keys beside it. Keys in
        force are offered again: an unchanged leg goes on under its packet counters.
        """
        secure = self.policy.srtp == "required"
        self._lines = ()
        if self._in_force is not None:
            ours = self._in_force[0]
            self._lines = (CryptoLine(1, ours.suite, ours.key),)
        elif self.policy.srtp != "off" and self.policy.keys_may_travel:
            self._lines = fresh_lines(self.policy.suites, self.random)
        self._offered_voices, self._offered_noise = voices, comfort_noise
        return write_offer(
            address=self.address,
            port=self.port,
            voices=voices,
            events=events,
            session_id=self.session_id,
            comfort_noise=comfort_noise,
            ptime_ms=ptime_ms,
            profile="RTP/SAVP" if secure else "RTP/AVP",
            crypto=[line.written() for line in self._lines],
        )

    def offer_in_force(self) -> str:
        """A fresh offer, sendrecv, of what is in force: how a late-offer PBX ends a hold."""
        assert self.negotiated is not None
        voice = self.negotiated.voice
        return self.offer(
            (voice,),
            events=self.negotiated.event is not None,
            comfort_noise=self.negotiated.comfort_noise is not None,
        )

    def take_answer(self, answer: SessionDescription) -> Negotiated:
        """The far end's answer to our last offer.

        Raises:
            OfferRefused: it took nothing of it, or something that we did not offer.
        """
        audio = answer.audio
        if audio is None:
            raise OfferRefused("no_audio", "the answer refuses the audio line", WARN_MEDIA)
        _check_address(audio, self.policy)
        names = {codec.name for codec in self._offered_voices}
        voice = next((codec for codec in audio.voice if codec.name in names), None)
        if voice is None:
            raise OfferRefused(
                "no_common_codec",
                f"answered {answer.offered()}; offered was {', '.join(sorted(names))}",
            )
        in_force, srtp = None, None
        if self._lines and audio.crypto:
            lines, why = usable_lines(audio.crypto, self.policy.suites)
            theirs = lines[0] if lines else None
            ours = next((own for own in self._lines if theirs and own.tag == theirs.tag), None)
            if theirs is None or ours is None or ours.suite != theirs.suite:
                if theirs is not None:
                    why = "the answer's tag or suite was not offered"
                raise OfferRefused("srtp_unusable", f"no usable SRTP key: {why}", WARN_TRANSPORT)
            in_force = (ours, theirs)
            srtp = agreed(ours, theirs)
        elif self.policy.srtp == "required" or audio.secure:
            raise OfferRefused("srtp_required", "the answer carries no SRTP key", WARN_TRANSPORT)
        self._in_force = in_force
        noise = audio.comfort_noise if self._offered_noise and voice.clock_rate == 8000 else None
        self.negotiated = Negotiated(voice, audio.event_at(voice.clock_rate), noise, srtp)
        return self.negotiated

    # ------------------------------------------------------------------------- they offer

    def accept(
        self,
        offer: SessionDescription,
        other: Codec | None,
        *,
        comfort_noise: bool = False,
    ) -> tuple[SessionDescription, Negotiated]:
        """What we would agree to, nothing changed yet.

        Args:
            offer: of the far end.
            other: the voice codec of the other leg, which the packets come from and go to; None
                when it has not chosen yet.
            comfort_noise: the other leg takes comfort noise too.

        Returns:
            the offer with the chosen audio line, and what is agreed; keys are not in it yet.

        Raises:
            OfferRefused: 488 (RFC 3261 section 14.2: the leg goes on as it was).
        """
        offer = choose_line(offer, self.policy)
        audio = offer.audio
        assert audio is not None
        usable = [codec for codec in audio.voice if codec.name in self.policy.codecs]
        voice = self._best(usable, other)
        noise = audio.comfort_noise if comfort_noise and voice.clock_rate == 8000 else None
        return offer, Negotiated(voice, audio.event_at(voice.clock_rate), noise)

    def _best(self, usable: list[Codec], other: Codec | None) -> Codec:
        if other is None:
            return usable[0]
        fitting = [codec for codec in usable if same_or_g711(codec, other)]
        if not fitting:
            raise OfferRefused(
                "no_common_codec",
                f"offered {', '.join(str(codec) for codec in usable)}; the other side of the call "
                f"has {other}, only PCMU and PCMA are turned into each other",
            )
        # No transcoding where it can be avoided, whatever the order of the offer.
        return next((codec for codec in fitting if codec.name == other.name), fitting[0])

    def answer(
        self,
        offer: SessionDescription,
        other: Codec | None,
        *,
        comfort_noise: bool = False,
        voice_fmtp: str = "",
    ) -> tuple[str, SessionDescription, Negotiated]:
        """Our answer to an offer; from now on it is in force.

        Args:
            offer: of the far end.
            other: as for :meth:`accept`.
            comfort_noise: as for :meth:`accept`.
            voice_fmtp: what the other leg's far end said of its receiver (Opus).

        Returns:
            the answer, the offer with the chosen audio line, and what is agreed.

        Raises:
            OfferRefused: as :meth:`accept`; nothing is changed then.
        """
        offer, negotiated = self.accept(offer, other, comfort_noise=comfort_noise)
        audio = offer.audio
        assert audio is not None
        written: list[str] = []
        in_force = None
        if _takes_keys(audio, self.policy):
            lines, _ = usable_lines(audio.crypto, self.policy.suites)
            if lines:  # RTP/AVP with keys that we cannot use goes on without
                ours = answer_line(lines[0], self._in_force, self.random)
                in_force = (ours, lines[0])
                written = [ours.written()]
                negotiated = replace(negotiated, srtp=agreed(ours, lines[0]))
        self._in_force = in_force
        self.negotiated = negotiated
        voice = replace(negotiated.voice, fmtp=voice_fmtp)
        text = write_answer(
            offer,
            address=self.address,
            port=self.port,
            negotiated=replace(negotiated, voice=voice),
            session_id=self.session_id,
            crypto=written,
        )
        return text, offer, negotiated
