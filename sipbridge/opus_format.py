"""Format parameters of Opus (RFC 7587 section 6.1) as they may cross the bridge.

Opus packets pass through unchanged, so what one side says about its receiver must reach the
other side's sender. Only known parameters with valid values are written again; nothing of a
stranger's text is echoed. ``stereo`` and ``sprop-stereo`` stay behind: a telephone call is mono.
"""

from __future__ import annotations

#: Parameter → lowest and highest value (RFC 7587 section 6.1).
_RANGES = {
    "maxplaybackrate": (8000, 48000),
    "sprop-maxcapturerate": (8000, 48000),
    "maxaveragebitrate": (6000, 510000),
    "minptime": (3, 120),
    "cbr": (0, 1),
    "useinbandfec": (0, 1),
    "usedtx": (0, 1),
}


def opus_parameters(fmtp: str) -> dict[str, int]:
    """The known parameters of an ``a=fmtp`` value that are valid; the first of a name counts."""
    found: dict[str, int] = {}
    for part in fmtp.split(";"):
        name, equals, value = part.strip().partition("=")
        name, value = name.strip().lower(), value.strip()
        limits = _RANGES.get(name)
        if limits is None or not equals or name in found:
            continue
        if value.isascii() and value.isdigit() and len(value) <= 6:
            number = int(value)
            if limits[0] <= number <= limits[1]:
                found[name] = number
    return found


def written_opus_parameters(fmtp: str) -> str:
    """The value of our own ``a=fmtp`` line after a far end's; ``""`` when nothing is left."""
    found = opus_parameters(fmtp)
    return ";".join(f"{name}={found[name]}" for name in _RANGES if name in found)
