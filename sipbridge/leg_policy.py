"""What the configuration allows on a leg: codecs, SRTP, where its keys may travel."""

from __future__ import annotations

from dataclasses import dataclass

from callshield.settings import Settings
from callshield.settings_sip import PhoneSettings, SrtpMode
from sipbridge.sdp import G711
from sipbridge.srtp_keys import SUITES


@dataclass(frozen=True, slots=True)
class LegPolicy:
    """What may be agreed on one leg."""

    codecs: tuple[str, ...] = G711
    """Names of voice codecs; the order counts where we are the first to offer."""
    srtp: SrtpMode = "off"
    """``optional``: RTP/SAVP and RTP/AVP with or without keys; ``required``: RTP/SAVP only."""
    keys_may_travel: bool = False
    """The leg's signalling is TLS, or the configuration lets keys go in the clear."""
    suites: tuple[str, ...] = tuple(SUITES)
    """SRTP suites, in the order of our offers."""
    six: bool = False
    """Our media address on this leg is an IPv6 one; the far end's must be of the same family."""
    protected: bool = False
    """Hearing protection is why the codecs are what they are; for the reason's sentence."""


#: G.711 over plain RTP.
PLAIN = LegPolicy()


def caller_policy(settings: Settings, *, over_tls: bool) -> LegPolicy:
    """The caller's leg, whose signalling goes over TLS or not."""
    side = settings.sip.pbx
    return LegPolicy(
        codecs=tuple(side.codecs),
        srtp=side.srtp,
        keys_may_travel=over_tls or side.srtp_over_plain,
        six=":" in side.media_advertised,
        suites=tuple(side.srtp_suites),
    )


def phone_policy(
    settings: Settings, agent: PhoneSettings, *, over_tls: bool | None = None
) -> LegPolicy:
    """The leg of a phone of ours; a protected ear gets only what the core can limit.

    Args:
        settings: the node's configuration.
        agent: whose phone.
        over_tls: whether its INVITE came over TLS; None: we call it, at its configured URI.
    """
    side = settings.sip.phone
    encrypted = agent.over_tls if over_tls is None else over_tls
    codecs = [c for c in side.codecs if not agent.hearing_protection or c in G711]
    return LegPolicy(
        codecs=tuple(codecs),
        srtp=agent.srtp or side.srtp,
        keys_may_travel=encrypted or side.srtp_over_plain,
        six=":" in side.media_advertised,
        suites=tuple(side.srtp_suites),
        protected=agent.hearing_protection,
    )
