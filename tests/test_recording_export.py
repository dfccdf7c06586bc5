"""Export: both sides where they were heard, silence where nothing was recorded."""

from __future__ import annotations

import json
import os
import wave
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from callshield import g711
from callshield.errors import RecordingDamaged, RecordingError, SetupError
from sipbridge.recording_export import Decoder, Export, export_call, usual_decoder
from sipbridge.recording_keys import KeyRing
from sipbridge.recording_store import RecordingStore
from sipbridge.recording_timeline import Placement, frame_units, place
from sipbridge.recording_writer import CallMeta, RecordingWriter
from tests.recording_kit import call_id, record

KEY = bytes(range(32))
KEYS = KeyRing((KEY,), "test")
START = 1_763_800_000_000_000_000
MS = 10**6
FRAME = 160


def tone(hz: float, samples: int, rate: int = 8000, level: float = 8000) -> NDArray[np.int16]:
    return np.rint(level * np.sin(2 * np.pi * hz * np.arange(samples) / rate)).astype(np.int16)


def ulaw_frames(samples: NDArray[np.int16]) -> list[bytes]:
    return [
        g711.encode(samples[begin : begin + FRAME], 0) for begin in range(0, len(samples), FRAME)
    ]


class Scene:
    """Writes a recording frame by frame, at the times that a test wants."""

    def __init__(self, folder: Path, call: str = "") -> None:
        self.folder = folder
        self.call = call or call_id()
        self.store = RecordingStore(folder / "recordings", make=True)

    def writer(self, started_ns: int = START) -> RecordingWriter:
        descriptor, stored = self.store.create(self.call, started_ns)
        return RecordingWriter(descriptor, stored, KEY, started_ns, CallMeta())

    def add(
        self,
        writer: RecordingWriter,
        channel: int,
        payload: bytes,
        timestamp: int,
        ms: float,
        codec: int = 0,
    ) -> None:
        """A frame that arrived ``ms`` after the scene's start."""
        at_ns = START + int(ms * MS)
        packed = record(self.call, channel, payload, timestamp=timestamp, at_ns=at_ns, codec=codec)
        writer.add(packed[16:])

    def end(self, writer: RecordingWriter, ms: float) -> None:
        writer.finish("stopped", START + int(ms * MS))
        os.close(writer.release())

    def export(self, **options: object) -> tuple[Export, NDArray[np.int16], int]:
        """The export, its samples of shape (n, 2), and their rate."""
        out = self.folder / "out.wav"
        made = export_call(
            self.store,
            list(self.store.stored()),
            KEYS,
            out,
            overwrite=True,
            **options,  # type: ignore[arg-type]
        )
        with wave.open(str(out), "rb") as file:
            assert file.getnchannels() == 2
            assert file.getsampwidth() == 2
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)
            return made, samples, file.getframerate()


def test_left_is_the_caller_and_right_the_agent_sample_for_sample(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    caller, agent = tone(440, 8000), tone(1000, 8000)
    writer = scene.writer()
    for n, (one, other) in enumerate(zip(ulaw_frames(caller), ulaw_frames(agent), strict=True)):
        scene.add(writer, 0, one, 1000 + n * FRAME, 20 * n)
        scene.add(writer, 1, other, 77 + n * FRAME, 20 * n)
    scene.end(writer, 1000)
    made, samples, rate = scene.export()
    assert rate == 8000
    assert samples.shape == (8000, 2)
    assert np.array_equal(samples[:, 0], g711.decode(g711.encode(caller, 0), 0))
    assert np.array_equal(samples[:, 1], g711.decode(g711.encode(agent, 0), 0))
    assert made.path.stat().st_mode & 0o777 == 0o600
    sidecar = json.loads((tmp_path / "out.wav.json").read_text())
    assert sidecar == made.sidecar
    assert sidecar["length_s"] == 1.0
    assert sidecar["parts"][0]["complete"] is True


def test_jitter_order_doubles_and_losses_leave_every_frame_in_its_place(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    random = np.random.default_rng(7)
    spoken = ulaw_frames(random.integers(-9000, 9000, 400 * FRAME).astype(np.int16))
    wobble = random.exponential(15, len(spoken))
    lost = {50, 51, 120}
    arrivals = sorted(
        [(20 * n + wobble[n], n) for n in range(len(spoken)) if n not in lost]
        + [(20 * n + wobble[n] + 30, n) for n in (10, 77)]
    )
    order = [n for _, n in arrivals]
    assert any(after < before for before, after in pairwise(order)), "nothing is out of order"
    writer = scene.writer()
    for ms, n in arrivals:
        # The timestamp passes 2**32 on its way.
        scene.add(writer, 0, spoken[n], n * FRAME - 9000, ms)
        if n % 100 == 0:
            writer.flush()
    scene.end(writer, 8000)
    made, samples, _ = scene.export()
    heard = samples[:, 0]
    expected = g711.decode(b"".join(spoken), 0).copy()
    for n in lost:
        expected[n * FRAME : (n + 1) * FRAME] = 0
    # The anchor may sit some milliseconds off (the smallest delay met), and no frame moves.
    shifts = [
        s for s in range(100) if np.array_equal(heard[s : 8 * FRAME], expected[: 8 * FRAME - s])
    ]
    assert len(shifts) == 1
    shift = shifts[0]
    assert shift <= 16, "two milliseconds"
    assert np.array_equal(heard[shift:60000], expected[: 60000 - shift])
    caller = made.sidecar["channels"]["caller"]
    assert caller["duplicates"] == 2
    assert caller["missing_s"] == 0.06


def test_a_late_first_frame_squeezes_nothing(tmp_path: Path) -> None:
    """The recording begins when it was due; else all of it plays a 160th too fast."""
    scene = Scene(tmp_path)
    spoken = ulaw_frames(np.random.default_rng(8).integers(-9000, 9000, 150 * FRAME).astype("<i2"))
    writer = scene.writer()
    for n, frame in enumerate(spoken):
        scene.add(writer, 0, frame, n * FRAME, max(20 * n - 100, 0.1 * n))  # a burst of six
    scene.end(writer, 3200)
    _, samples, _ = scene.export()
    expected = g711.decode(b"".join(spoken), 0)
    shifts = [s for s in range(9) if np.array_equal(samples[s : s + len(expected), 0], expected)]
    assert len(shifts) == 1


def test_two_sides_stay_together_through_an_hour_of_drift() -> None:
    """Clocks 100 parts in a million apart: 0.36 s an hour if nobody followed."""
    count = 180_000
    rng = np.random.default_rng(3)
    true_s = 0.02 * np.arange(count)
    ends = []
    for drift in (1.0, 1 + 100e-6):
        at_ns = ((true_s * drift + rng.exponential(0.004, count)) * 1e9).astype(np.int64)
        placed = place_all(at_ns, np.arange(count) * FRAME)
        error_s = placed.start / 8000 - true_s * drift
        assert np.abs(error_s).max() < 0.006
        # Nothing but single samples was put in or taken out.
        assert set(np.unique(placed.samples)) <= {FRAME - 1, FRAME, FRAME + 1}
        assert np.array_equal(placed.start[1:], (placed.start + placed.samples)[:-1])
        ends.append(placed.end)
    assert abs(ends[1] - ends[0] - 0.36 * 8000) < 100


def place_all(at_ns: NDArray[np.int64], timestamp: NDArray[np.int64]) -> Placement:
    count = len(at_ns)
    return place(
        np.full(count, 8000, np.int64),
        (timestamp % 2**32).astype(np.uint32),
        at_ns,
        np.full(count, FRAME, np.int64),
        zero_ns=0,
        rate_hz=8000,
    )


def test_a_jump_of_the_timestamps_is_a_new_stretch_at_its_own_time() -> None:
    at_ns = np.arange(200) * 20 * MS
    timestamp = np.arange(200) * FRAME
    timestamp[100:] += 1_000_000_007
    placed = place_all(at_ns, timestamp)
    assert np.array_equal(placed.start, np.arange(200) * FRAME)


def test_silence_that_was_not_sent_is_as_long_as_it_was() -> None:
    n = np.concatenate((np.arange(50), np.arange(500, 550)))
    placed = place_all(n * 20 * MS, n * FRAME)
    assert np.array_equal(placed.start, n * FRAME)
    assert placed.missing_s == pytest.approx(9.0)


def test_a_pause_is_silence_and_is_listed(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    loud = g711.encode(np.full(FRAME, 5000, np.int16), 0)
    writer = scene.writer()
    for n in range(50):
        scene.add(writer, 0, loud, n * FRAME, 20 * n)
    writer.pause(START + 1000 * MS)
    writer.resume(START + 2000 * MS)
    for n in range(100, 150):
        scene.add(writer, 0, loud, n * FRAME, 20 * n)
    writer.pause(START + 3000 * MS)
    scene.end(writer, 4000)
    made, samples, _ = scene.export()
    heard = samples[:, 0].reshape(4, 8000)
    assert [bool(second.any()) for second in heard] == [True, False, True, False]
    assert made.sidecar["pauses"] == [[1.0, 2.0], [3.0, None]]


def test_parts_of_one_call_share_a_time_line(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    loud = g711.encode(np.full(FRAME, 5000, np.int16), 0)
    first = scene.writer()
    for n in range(50):
        scene.add(first, 1, loud, n * FRAME, 20 * n)
    first.flush()
    os.close(first.release())  # killed
    second = scene.writer(START + 3000 * MS)
    for n in range(50):
        scene.add(second, 1, loud, 5 + n * FRAME, 3000 + 20 * n)
    scene.end(second, 4000)
    made, samples, _ = scene.export()
    heard = samples[:, 1].reshape(4, 8000)
    assert [bool(second.any()) for second in heard] == [True, False, False, True]
    assert [part["complete"] for part in made.sidecar["parts"]] == [False, True]


class Wideband:
    """A codec with a memory, 2 samples a byte: what comes out shows whether the order was kept."""

    rate_hz = 16000

    def __init__(self) -> None:
        self.total = 0

    def decode(self, payload: bytes) -> NDArray[np.int16]:
        if payload[0] == 0xEE:
            raise ValueError("not of this codec")
        self.total += payload[0]
        return np.full(2 * len(payload), self.total, np.int16)


def decoders(codec: int) -> Decoder:
    return Wideband() if codec == 9 else usual_decoder(codec)


def test_a_wide_band_side_makes_the_file_16_khz_and_the_other_side_follows(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    speech = tone(400, 100 * FRAME)
    writer = scene.writer()
    for n, payload in enumerate(ulaw_frames(speech)):
        if not 40 <= n < 60:
            scene.add(writer, 0, payload, n * FRAME, 20 * n)
    for n in (0, 2, 1, 3, *range(4, 100)):
        # G.722 counts 8000 a second for its 16000 samples (RFC 3551 section 4.5.2).
        scene.add(writer, 1, bytes([1]) * FRAME, n * FRAME, 20 * max(n, 2 * (n == 1)), codec=9)
    scene.end(writer, 2000)
    made, samples, rate = scene.export(make_decoder=decoders)
    assert rate == 16000
    assert samples.shape == (32000, 2)
    assert np.array_equal(samples[:, 1], np.repeat(np.arange(1, 101), 320))
    expected = tone(400, 32000, 16000).astype(float)
    inside = slice(1000, 12000)
    error = samples[inside, 0] - expected[inside]
    assert np.sqrt(np.mean(error**2)) < 0.03 * np.sqrt(np.mean(expected**2))
    # Digital silence, but for the ringing of the filter next to it.
    assert not samples[13000:19000, 0].any()
    assert made.sidecar["channels"]["agent"]["codecs"] == ["G722"]


def test_a_payload_that_cannot_be_decoded_is_silence_and_counted(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    writer = scene.writer()
    for n in range(10):
        payload = (b"\xee" if n == 4 else b"\x01") * FRAME
        scene.add(writer, 0, payload, n * FRAME, 20 * n, codec=9)
    scene.end(writer, 200)
    made, samples, _ = scene.export(make_decoder=decoders)
    assert made.sidecar["channels"]["caller"]["undecodable"] == 1
    assert not samples[4 * 320 : 5 * 320, 0].any()
    assert samples[5 * 320, 0] == 5


def test_a_frame_that_claims_to_be_from_another_week_is_left_out(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    writer = scene.writer()
    for n in range(50):
        scene.add(writer, 0, b"\x10" * FRAME, n * FRAME, 20 * n)
    for days in (-7, 7, 70_000):
        scene.add(writer, 0, b"\x10" * FRAME, 0, days * 86_400_000)
    writer.flush()
    os.close(writer.release())
    made, samples, _ = scene.export()
    assert made.sidecar["channels"]["caller"]["misplaced"] == 3
    assert len(samples) == 50 * FRAME


def test_a_missing_decoder_is_a_sentence_and_leaves_no_file(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    writer = scene.writer()
    scene.add(writer, 0, b"\x78" * 40, 0, 0, codec=111)
    scene.end(writer, 20)

    def missing(codec: int) -> Decoder:
        raise SetupError(f"codec {codec} cannot be decoded here")

    with pytest.raises(SetupError, match="codec 111 cannot be decoded"):
        scene.export(make_decoder=missing)
    assert not (tmp_path / "out.wav").exists()


def test_a_changed_recording_is_not_exported(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    writer = scene.writer()
    for n in range(100):
        scene.add(writer, 0, b"\x10" * FRAME, n * FRAME, 20 * n)
    scene.end(writer, 2000)
    (item,) = scene.store.stored()
    path = tmp_path / "recordings" / item.day / item.name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(RecordingDamaged, match="chunk 1 was changed"):
        scene.export()
    assert not (tmp_path / "out.wav").exists()


def test_a_call_that_still_runs_cannot_be_listened_to(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    writer = scene.writer()
    scene.add(writer, 0, b"\x10" * FRAME, 0, 0)
    writer.flush()
    with pytest.raises(RecordingError, match="is being recorded: export it when it has ended"):
        scene.export()
    scene.end(writer, 20)
    scene.export()


def test_a_file_that_is_there_is_kept(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.end(scene.writer(), 1000)
    out = tmp_path / "mine.wav"
    out.write_text("mine")
    items = list(scene.store.stored())
    with pytest.raises(RecordingError, match="--overwrite"):
        export_call(scene.store, items, KEYS, out)
    assert out.read_text() == "mine"
    export_call(scene.store, items, KEYS, out, overwrite=True)
    with wave.open(str(out), "rb") as file:
        assert file.getnframes() == 8000
    link = tmp_path / "link.wav"
    link.symlink_to(tmp_path / "nowhere")
    with pytest.raises(RecordingError):
        export_call(scene.store, items, KEYS, link)
    assert not (tmp_path / "nowhere").exists()


def test_progress_rises_to_one(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    writer = scene.writer()
    for n in range(20):
        scene.add(writer, 0, b"\x10" * FRAME, n * FRAME, 20 * n)
        writer.flush()
    scene.end(writer, 400)
    seen: list[float] = []
    scene.export(progress=seen.append)
    assert seen == sorted(seen)
    assert len(seen) > 20
    assert seen[-1] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("first_bytes", "milliseconds"),
    [
        (b"\x78", 20),  # CELT fullband, one frame of 20 ms
        (b"\x08", 20),  # SILK narrowband, one frame of 20 ms
        (b"\x18", 60),
        (b"\x79", 40),  # two frames
        (b"\x7b\x03", 60),  # three, counted in the second byte
        (b"\xe0", 2.5),
        (b"\x7b\x3f", 0),  # more than 120 ms is none (RFC 6716 section 3.2.5)
        (b"\x7b", 0),
        (b"", 0),
    ],
)
def test_opus_says_its_length(first_bytes: bytes, milliseconds: float) -> None:
    assert frame_units(111, first_bytes) == 48 * milliseconds


FRAMES = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.sampled_from([0, 8, 9]),
        st.integers(0, 2**32 - 1),
        st.integers(-5000, 20000),
        st.integers(1, 400),
    ),
    max_size=25,
)


@given(FRAMES)
@settings(max_examples=60, deadline=None)
def test_arbitrary_frames_are_exported_without_a_crash(
    tmp_path_factory: pytest.TempPathFactory, arbitrary: list[tuple[int, int, int, int, int]]
) -> None:
    scene = Scene(tmp_path_factory.mktemp("scene"))
    writer = scene.writer()
    for channel, codec, timestamp, ms, size in arbitrary:
        scene.add(writer, channel, b"\x10" * size, timestamp, ms, codec)
    scene.end(writer, 1000)
    made, samples, _ = scene.export(make_decoder=decoders)
    assert len(samples) / made.sidecar["sample_rate_hz"] < 60
    played = made.sidecar["channels"]
    assert sum(played[side]["frames"] for side in played) == len(arbitrary)


@pytest.mark.parametrize("complete", [True, False])
def test_one_side_alone_is_mono_and_holds_no_sample_of_the_other(
    tmp_path: Path, complete: bool
) -> None:
    """What a caller is given: his own side, on the same time line."""
    scene = Scene(tmp_path)
    writer = scene.writer()
    caller, agent = tone(440, 50 * FRAME), tone(1000, 50 * FRAME)
    for number, (one, other) in enumerate(
        zip(ulaw_frames(caller), ulaw_frames(agent), strict=True)
    ):
        scene.add(writer, 0, one, number * FRAME, 20 * (number + 1))
        scene.add(writer, 1, other, number * FRAME, 20 * (number + 1))
    if complete:
        scene.end(writer, 1000)
    else:
        writer.flush()
        os.close(writer.release())
    _, both, rate = scene.export()
    out = tmp_path / "one.wav"
    asked: list[int] = []

    def decoders(codec: int) -> Decoder:
        asked.append(codec)
        return usual_decoder(codec)

    made = export_call(
        scene.store, list(scene.store.stored()), KEYS, out, sides=(0,), make_decoder=decoders
    )
    with wave.open(str(out), "rb") as file:
        assert (file.getnchannels(), file.getframerate()) == (1, rate)
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    assert np.array_equal(samples, both[: len(samples), 0])
    assert np.abs(samples).max() > 4000
    assert made.sidecar["left"] == "caller"
    assert "right" not in made.sidecar
    assert made.sidecar["channels"].keys() == {"caller"}
    # Negative control: the other side is another sound.
    assert not np.array_equal(samples, both[: len(samples), 1])
