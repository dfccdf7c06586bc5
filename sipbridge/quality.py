"""Mean opinion score from what a leg received: the E-model (ITU-T G.107), narrow band.

The rating ``R = 93.2 - Id - Ie_eff`` with the delay's share after the simplification of Cole and
Rosenbluth ("Voice over IP performance monitoring", 2001) and the equipment impairment of ITU-T
G.113 appendix I for random loss: an estimate for comparing calls, not a listening test.
"""

from __future__ import annotations

#: ``(Ie, Bpl)`` of a codec: impairment without loss, and how well it hides loss (G.113 appendix I;
#: G.711 and the wide-band codecs with packet loss concealment in the phone).
_CODECS = {"PCMU": (0.0, 25.1), "PCMA": (0.0, 25.1), "G722": (0.0, 13.0), "OPUS": (0.0, 25.0)}
#: A jitter buffer holds about twice the jitter, at least two packets.
_LEAST_BUFFER_MS = 40.0


def mean_opinion_score(
    codec: str, *, loss_pct: float, jitter_ms: float, rtt_ms: float = -1.0
) -> float:
    """Estimate how a leg's audio sounds to whoever hears it.

    Args:
        codec: encoding name.
        loss_pct: packets that never came, 0-100.
        jitter_ms: interarrival jitter (RFC 3550 section 6.4.1).
        rtt_ms: round trip by RTCP; negative when unknown, then no way at all is assumed.

    Returns:
        1.0 to 4.5 (ITU-T P.800.1, MOS-CQE).
    """
    impairment, robustness = _CODECS.get(codec, (0.0, 25.1))
    delay_ms = max(rtt_ms, 0.0) / 2 + max(2 * jitter_ms, _LEAST_BUFFER_MS)
    delay_share = 0.024 * delay_ms + (0.11 * (delay_ms - 177.3) if delay_ms > 177.3 else 0.0)
    loss_share = impairment + (95.0 - impairment) * loss_pct / (loss_pct + robustness)
    rating = min(max(93.2 - delay_share - loss_share, 0.0), 100.0)
    # Annex B; for the lowest ratings its polynomial would leave the scale.
    return max(1.0, 1.0 + 0.035 * rating + rating * (rating - 60.0) * (100.0 - rating) * 7e-6)
