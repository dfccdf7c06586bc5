"""G.711 under the name that the bridge's modules use; the tables are :mod:`callshield.g711`."""

from __future__ import annotations

from callshield.g711 import (
    PCMA,
    PCMU,
    SAMPLE_RATE_HZ,
    SILENCE,
    VOICE_PAYLOAD_TYPES,
    decode,
    encode,
    mix,
    transcoding_table,
)

__all__ = (
    "PCMA",
    "PCMU",
    "SAMPLE_RATE_HZ",
    "SILENCE",
    "VOICE_PAYLOAD_TYPES",
    "decode",
    "encode",
    "mix",
    "transcoding_table",
)
