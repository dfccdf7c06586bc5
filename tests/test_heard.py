"""The judge of every "the caller heard it" in this project must be able to say no."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from callshield.g711 import PCMU, decode, encode
from callshield.heard import find, read_growing_wav, read_wav
from sipbridge.prompt_catalogue import SHIPPED
from tests.peers.sound import write_wav

CLOSING = read_wav(SHIPPED / "ko" / "closing.wav")
NOTICE = read_wav(SHIPPED / "ko" / "recording.wav")


def as_heard(samples: np.ndarray) -> np.ndarray:
    """Through µ-law, at half the level, as a telephone would record it."""
    coded = decode(encode((samples * 32767 / 2).astype(np.int16), PCMU), PCMU)
    return (coded / 32768).astype(np.float32)


def silence(seconds: float) -> np.ndarray:
    return np.zeros(int(8000 * seconds), dtype=np.float32)


def test_whole_prompt_is_found_where_it_was_played() -> None:
    recording = np.concatenate([silence(3.1), as_heard(CLOSING), silence(1)])
    found = find(CLOSING, recording)
    assert found is not None
    assert found.whole
    assert found.start_s == pytest.approx(3.1, abs=0.01)


def test_two_lost_packets_shift_but_do_not_break_it() -> None:
    coded = as_heard(CLOSING)
    recording = np.concatenate([silence(1), coded[:24000], silence(0.04), coded[24000:]])
    found = find(CLOSING, recording)
    assert found is not None
    assert found.share > 0.9


@pytest.mark.parametrize("kept", [0.5, 0.9])
def test_a_prompt_cut_short_is_not_whole(kept: float) -> None:
    recording = np.concatenate([silence(1), as_heard(CLOSING)[: int(len(CLOSING) * kept)]])
    found = find(CLOSING, np.concatenate([recording, silence(5)]))
    assert found is not None
    assert not found.whole


def test_a_hole_in_the_middle_is_not_whole() -> None:
    coded = as_heard(CLOSING)
    coded[20000:28000] = 0
    found = find(CLOSING, np.concatenate([silence(1), coded]))
    assert found is not None
    assert not found.whole


def test_silence_in_front_may_be_missed_but_no_speech() -> None:
    """Behind a PBX our first packets may come before the telephone is answered."""
    coded = as_heard(CLOSING)
    first = int(np.argmax(np.abs(CLOSING) > 0.02 * np.max(np.abs(CLOSING))))
    assert first > 800
    found = find(CLOSING, np.concatenate([coded[800:], silence(1)]))
    assert found is not None
    assert found.whole
    assert found.start_s == pytest.approx(-0.1, abs=0.01)
    found = find(CLOSING, np.concatenate([coded[first + 800 :], silence(1)]))
    assert found is not None
    assert not found.whole


def test_the_last_word_counts() -> None:
    """Though the speech is no whole number of half-seconds long."""
    audible = np.flatnonzero(np.abs(CLOSING) > 0.02 * np.max(np.abs(CLOSING)))
    coded = as_heard(CLOSING)
    coded[audible[-1] - 3200 :] = 0
    found = find(CLOSING, np.concatenate([silence(1), coded, silence(1)]))
    assert found is not None
    assert not found.whole


def test_another_prompt_noise_or_silence_is_not_this_one() -> None:
    noise = np.random.default_rng(1).normal(0, 0.1, 80000).astype(np.float32)
    for recording in (as_heard(NOTICE), noise, silence(10), silence(0.1)):
        found = find(CLOSING, recording)
        assert found is None or found.share < 0.2


def test_looks_only_behind_the_given_point() -> None:
    recording = np.concatenate([as_heard(CLOSING), silence(10)])
    found = find(CLOSING, recording, after_s=len(CLOSING) / 8000)
    assert found is None or not found.whole


def test_a_growing_file_is_read_to_its_end(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", NOTICE.astype(np.float64))
    raw = bytearray(path.read_bytes())
    raw[40:44] = b"\0\0\0\0"  # a recorder that has not written the length yet
    path.write_bytes(raw)
    assert len(read_growing_wav(path)) == len(NOTICE)
