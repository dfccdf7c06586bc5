"""The 16 kHz file for legs with G.722 or Opus, the 8 kHz one for the others, and which it was."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from callshield.audio_codecs import decoder
from callshield.messages import LegName
from callshield.messages_media import PlayFinished
from callshield.tap import TapCodec
from sipbridge.notice_stamps import played_stamps
from sipbridge.prompt_catalogue import SHIPPED, files_of, load_prompt
from sipbridge.prompt_manifest import Says
from tests.rtp_peer import Bridge, Call, Heard, WorkerThread, node_settings, tone, write_wav

PCMU, G722 = 0, 9
#: A tone that no 8 kHz file can hold, and one that says which file it was.
WIDE_HZ, NARROW_HZ = 6000.0, 700.0


@pytest.fixture
async def bridge(tmp_path: Path) -> AsyncIterator[Bridge]:
    settings = node_settings(tmp_path)
    worker = await WorkerThread.start(settings)
    made = Bridge(settings)
    yield made
    await made.close()
    await worker.close()


def files(folder: Path) -> tuple[Path, Path]:
    at_s = np.arange(16000) / 16000
    wide = (1500 * np.sin(2 * np.pi * WIDE_HZ * at_s)).astype(np.int16)
    return (
        write_wav(folder / "notice.wav", tone(NARROW_HZ, 1.0)),
        write_wav(folder / "notice.16k.wav", wide, 16000),
    )


def loudest_hz(heard: list[Heard], codec: TapCodec) -> float:
    stream = decoder(codec)
    sound = np.concatenate([stream.decode(packet.payload) for packet in heard])
    return float(np.abs(np.fft.rfft(sound)).argmax()) * stream.rate_hz / len(sound)


@pytest.mark.parametrize(
    ("payload_type", "named", "hz", "wide"),
    [
        (G722, "both", WIDE_HZ, True),
        (PCMU, "both", NARROW_HZ, False),
        # A prompt that has no such file, or a bridge that names none.
        (G722, "empty", NARROW_HZ, True),
        (G722, "none", NARROW_HZ, True),
    ],
)
async def test_the_leg_s_codec_decides_which_file_is_played(
    bridge: Bridge, tmp_path: Path, payload_type: int, named: str, hz: float, wide: bool
) -> None:
    narrow_file, wide_file = files(tmp_path)
    call = await Call.set_up(bridge, caller_type=payload_type, agent_type=payload_type)
    more = {"both": [str(wide_file)], "empty": [""], "none": []}[named]
    call.play(1, LegName.CALLER, [narrow_file], wide_files=more)
    finished = await bridge.expect(PlayFinished)
    call.hang_up()
    assert (finished.complete, finished.wide) == (True, wide)
    codec = TapCodec.G722 if payload_type == G722 else TapCodec.PCMU
    assert loudest_hz(call.caller.heard, codec) == pytest.approx(hz, abs=20)


async def test_every_prompt_of_a_notice_has_its_own_file(bridge: Bridge, tmp_path: Path) -> None:
    """One with two files and one with a single one, in one play."""
    narrow_file, wide_file = files(tmp_path)
    other = write_wav(tmp_path / "other.wav", tone(1100, 1.0))
    call = await Call.set_up(bridge, caller_type=G722, agent_type=G722)
    call.play(1, LegName.CALLER, [narrow_file, other], wide_files=[str(wide_file), ""])
    finished = await bridge.expect(PlayFinished)
    call.hang_up()
    assert len(finished.spans) == 2
    heard = call.caller.heard
    assert loudest_hz(heard[:50], TapCodec.G722) == pytest.approx(WIDE_HZ, abs=20)
    assert loudest_hz(heard[52:], TapCodec.G722) == pytest.approx(1100, abs=20)


async def test_a_wide_file_that_is_gone_is_not_replaced_in_secret(
    bridge: Bridge, tmp_path: Path
) -> None:
    narrow_file, wide_file = files(tmp_path)
    wide_file.unlink()
    call = await Call.set_up(bridge, caller_type=G722, agent_type=G722)
    call.play(1, LegName.CALLER, [narrow_file], wide_files=[str(wide_file)])
    finished = await bridge.expect(PlayFinished)
    call.hang_up()
    assert not finished.complete
    assert "notice.16k.wav is missing" in finished.error


def finished(*, wide: bool) -> PlayFinished:
    return PlayFinished(
        call_id="c",
        play_id=1,
        leg=LegName.CALLER,
        complete=True,
        spans=[(1.0, 2.0), (2.0, 3.0)],
        wide=wide,
    )


def test_the_stamp_has_the_hash_of_the_file_that_was_played_and_what_it_tells() -> None:
    notice = load_prompt(SHIPPED, "ko", "abuse_prevention_objection")
    assert notice.wide is not None
    plain = replace(load_prompt(SHIPPED, "ko", "recording"), wide=None, says=Says())
    narrow, _ = played_stamps([notice, plain], finished(wide=False))
    wide, other = played_stamps([notice, plain], finished(wide=True))
    assert narrow.sha256 == notice.sha256
    assert wide.sha256 == notice.wide.sha256 != notice.sha256
    assert wide.names == ["analysis", "details", "recording", "voice"]
    assert wide.purposes == ["protection"]
    # It has one file, whatever the codec.
    assert (other.sha256, other.names) == (plain.sha256, [])


def test_a_play_names_a_wide_file_for_each_or_nothing() -> None:
    notice = load_prompt(SHIPPED, "ko", "recording")
    tone_ = load_prompt(SHIPPED, "common", "notice_tone")
    files = files_of([notice, tone_])
    assert files["wide_files"] == [str(SHIPPED / "ko" / "recording.16k.wav"), ""]
    assert files["sha256"] == [notice.sha256, tone_.sha256]
    assert notice.wide is not None
    assert files["wide_sha256"] == [notice.wide.sha256, ""]


def test_the_words_survive_every_codec_at_16_khz() -> None:
    """Encoded as the player does, the shipped wide notice keeps its band with both codecs."""
    from sipbridge import prompt_file

    prompt = prompt_file.load_prompt(SHIPPED / "en" / "recording.16k.wav")
    for codec in (TapCodec.G722, TapCodec.OPUS):
        stream = decoder(codec, 16000)
        sound = np.concatenate([stream.decode(packet) for packet in prompt.frames(codec, 20)])
        assert share_above(sound, 4000) == pytest.approx(share_above(prompt.pcm, 4000), rel=0.5)
    narrow = prompt_file.load_prompt(SHIPPED / "en" / "recording.wav")
    stream = decoder(TapCodec.G722, 16000)
    sound = np.concatenate([stream.decode(p) for p in narrow.frames(TapCodec.G722, 20)])
    assert share_above(sound, 4000) < 0.1 * share_above(prompt.pcm, 4000), "the control"


def share_above(sound: NDArray[np.int16], hz: float) -> float:
    power = np.abs(np.fft.rfft(sound.astype(float))) ** 2
    return float(power[np.fft.rfftfreq(len(sound), 1 / 16000) > hz].sum() / power.sum())
