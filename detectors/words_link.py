"""What the detector and its transcribers say to each other, over :mod:`callshield.bus`.

The detector listens on ``words.sock``; each transcriber connects, says who it is, and then gets
one :class:`Transcribe` at a time. Audio goes one way, redacted text the other.
"""

from __future__ import annotations

import msgspec

from detectors.text_pipeline import JudgedText


class TranscriberState(msgspec.Struct, frozen=True, kw_only=True, tag="state"):
    """A transcriber's first word on every connection, and its news later."""

    name: str
    """``transcriber-1``, …: the part's name at the process supervisor."""
    pid: int
    ready: bool
    """It has a model."""
    detail: str
    """The model; or a sentence: why there is none."""
    lacking: str = ""
    """What it works without; empty when it has everything."""


class Transcribe(msgspec.Struct, frozen=True, kw_only=True, tag="transcribe"):
    """Speech of one caller."""

    number: int
    """Of the turn; the answer carries it."""
    call_id: str
    """32 hexadecimal digits."""
    language: str
    """``ko``, …; empty: detect it."""
    expected: dict[str, float] = {}
    """For detecting: how likely each language is by what the call said before, the likeliest 1."""
    samples: bytes
    """int16 at 8 kHz, little-endian; at most 16 s."""


class Transcribed(msgspec.Struct, frozen=True, kw_only=True, tag="transcribed"):
    """The answer to one :class:`Transcribe`."""

    number: int
    call_id: str
    language: str
    language_odds: dict[str, float]
    """Where it was detected: how likely each is by this speech alone, 0..1."""
    avg_logprob: float
    no_speech: float
    rejected: str
    """Why nothing was believed (:data:`detectors.asr.protocol.Rejection`)."""
    cpu_s: float
    """Processor time that it took."""
    words: JudgedText


LinkMessage = TranscriberState | Transcribe | Transcribed
"""Everything that travels on ``words.sock``."""
