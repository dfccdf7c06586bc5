"""Answers to re-INVITE and UPDATE where nothing may be negotiated anew (RFC 3264 section 8).

A kept call has its audio and its two session descriptions, but no negotiation behind them. What a
far end sends to refresh its session (RFC 4028) is the description that it had, or one with more
codecs again: the one in force stays. One that differs in its direction holds, or resumes, and is
agreed to. Anything else (a new address, another codec, new keys) is refused, and the session stays
as it was (RFC 3261 section 14.2).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from callshield.errors import SdpError
from sipbridge import sdp
from sipbridge.sdp import AudioMedia, Direction, Negotiated, SessionDescription

_ORIGIN = re.compile(r"^o=(\S+) (\d+) (\d+) (.*?)\r?$", re.MULTILINE)
_DIRECTION = re.compile(r"^a=(?:sendrecv|sendonly|recvonly|inactive)\r?\n", re.MULTILINE)
_AUDIO = re.compile(r"^m=audio [1-9]\d* .*\n(?:[cbi]=.*\n)*", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Refreshed:
    """What is in force after an offer that was agreed to."""

    local: str
    """Our answer."""
    remote: str
    """The far end's, its offer."""
    held: bool
    """The far end holds."""


def answer_refresh(local: str, remote: str, offer: str) -> Refreshed | None:
    """Answer an offer that changes nothing, or the direction alone.

    Args:
        local: our session description in force.
        remote: the far end's.
        offer: what it sends now.

    Returns:
        None when it wants something else.
    """
    try:
        ours, before, after = (sdp.parse(text).audio for text in (local, remote, offer))
        offered = sdp.parse(offer)
    except SdpError:
        return None
    if ours is None or before is None or after is None or not _same_place(before, after):
        return None
    if after.crypto or before.crypto:
        # Keys stay what they are: only the very same description is agreed to.
        if replace(after, direction=before.direction) != before:
            return None
        answer = _with_direction(local, after.direction.mirrored)
    else:
        in_force = _in_force(ours, before)
        if in_force is None or not _has(after, in_force):
            return None
        answer = _written(offered, ours, in_force)
    return Refreshed(_versioned(answer, local), offer, after.held)


def _same_place(before: AudioMedia, after: AudioMedia) -> bool:
    """0.0.0.0, the old way to hold, is no other place."""
    if before.unspecified_address or after.unspecified_address:
        return before.profile == after.profile
    return (before.address, before.port, before.profile, before.rtcp_port) == (
        after.address,
        after.port,
        after.profile,
        after.rtcp_port,
    )


def _in_force(ours: AudioMedia, theirs: AudioMedia) -> Negotiated | None:
    """What both descriptions name, as the one that answered wrote it: one voice codec."""
    common = [codec for codec in theirs.voice if codec in ours.voice]
    if not common:
        return None
    voice = common[0] if len(ours.voice) > 1 else ours.voice[0]
    event = next(
        (
            codec
            for codec in theirs.codecs
            if codec.name == "telephone-event"
            and codec.clock_rate == voice.clock_rate
            and codec in ours.codecs
        ),
        None,
    )
    noise = theirs.comfort_noise if theirs.comfort_noise in ours.codecs else None
    return Negotiated(voice, event, noise)


def _has(offered: AudioMedia, in_force: Negotiated) -> bool:
    wanted = (in_force.voice, in_force.event, in_force.comfort_noise)
    return all(codec is None or codec in offered.codecs for codec in wanted)


def _written(offer: SessionDescription, ours: AudioMedia, in_force: Negotiated) -> str:
    return sdp.write_answer(
        offer, address=ours.address, port=ours.port, negotiated=in_force, session_id=1
    )


def _with_direction(text: str, direction: Direction) -> str:
    return _AUDIO.sub(lambda m: f"{m[0]}a={direction.value}\r\n", _DIRECTION.sub("", text), count=1)


def _versioned(answer: str, local: str) -> str:
    """The answer with the origin that we had, one version on (RFC 3264 section 8); ours as it was
    where nothing else differs."""
    origin = _ORIGIN.search(local)
    if origin is None or _lines(answer) == _lines(local):
        return local
    line = f"o={origin[1]} {origin[2]} {int(origin[3]) + 1} {origin[4]}\r"
    return _ORIGIN.sub(lambda _: line, answer, count=1)


def _lines(text: str) -> list[str]:
    """A description as a set of statements: its origin and sendrecv, which is said or not, left
    out."""
    return sorted(
        line
        for line in text.replace("\r\n", "\n").split("\n")
        if line and not line.startswith(("o=", "s=")) and line != "a=sendrecv"
    )
