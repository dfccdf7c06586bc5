"""G.711 against the standard library's own and the Recommendation, and what mixing does."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from callshield import g711
from tests.rtp_peer import strength, tone

EVERY_SAMPLE = np.arange(-32768, 32768, dtype=np.int32).astype(np.int16)
EVERY_CODE = bytes(range(256))


@pytest.mark.parametrize("law", g711.VOICE_PAYLOAD_TYPES)
def test_tables_are_those_of_the_standard_library(law: int) -> None:
    with warnings.catch_warnings():
        # Deprecated, and gone from Python 3.13: where it is, it is the judge.
        warnings.simplefilter("ignore", DeprecationWarning)
        audioop = pytest.importorskip("audioop")
    encode, decode = {
        g711.PCMU: (audioop.lin2ulaw, audioop.ulaw2lin),
        g711.PCMA: (audioop.lin2alaw, audioop.alaw2lin),
    }[law]
    assert g711.encode(EVERY_SAMPLE, law) == encode(EVERY_SAMPLE.tobytes(), 2)
    assert g711.decode(EVERY_CODE, law).tobytes() == decode(EVERY_CODE, 2)


@pytest.mark.parametrize("law", g711.VOICE_PAYLOAD_TYPES)
def test_what_was_decoded_is_encoded_to_the_same(law: int) -> None:
    samples = g711.decode(EVERY_CODE, law)
    again = g711.decode(g711.encode(samples, law), law)
    assert np.array_equal(again, samples)


def test_transcoding_keeps_a_tone_and_the_same_law_needs_no_table() -> None:
    table = g711.transcoding_table(g711.PCMU, g711.PCMA)
    assert table is not None
    payload = g711.encode(tone(440, 0.5), g711.PCMU).translate(table)
    assert strength(g711.decode(payload, g711.PCMA), 440) > 0.99
    # The negative control: the bytes of one law are noise in the other.
    assert strength(g711.decode(g711.encode(tone(440, 0.5), 0), g711.PCMA), 440) < 0.9
    assert g711.transcoding_table(g711.PCMA, g711.PCMA) is None


def test_ulaw_decodes_the_corner_values_of_the_recommendation() -> None:
    # G.711 table 2: 0x80 and 0x00 are the extremes, 0xFF and 0x7F the two zeros.
    assert g711.decode(bytes([0x00, 0x80, 0x7F, 0xFF, 0xF0]), g711.PCMU).tolist() == [
        -32124,
        32124,
        0,
        0,
        120,
    ]


def test_alaw_decodes_the_corner_values_of_the_recommendation() -> None:
    # G.711 table 1: codes are sent with even bits inverted (0x55).
    assert g711.decode(bytes([0xAA, 0x2A, 0xD5, 0x55]), g711.PCMA).tolist() == [
        32256,
        -32256,
        8,
        -8,
    ]


def test_encoding_a_decoded_code_gives_the_code_back() -> None:
    assert g711.encode(g711.decode(EVERY_CODE, g711.PCMA), g711.PCMA) == EVERY_CODE
    again = g711.encode(g711.decode(EVERY_CODE, g711.PCMU), g711.PCMU)
    # µ-law has a negative zero that no linear sample can tell from the positive one.
    assert [c for c in range(256) if again[c] != c] == [0x7F]


@pytest.mark.parametrize("law", g711.VOICE_PAYLOAD_TYPES)
def test_quantisation_error_stays_under_the_step_of_its_segment(law: int) -> None:
    pcm = np.arange(-32000, 32001, dtype=np.int16)
    error = np.abs(g711.decode(g711.encode(pcm, law), law).astype(int) - pcm.astype(int))
    assert np.all(error <= np.maximum(np.abs(pcm.astype(int)) / 16, 16))
