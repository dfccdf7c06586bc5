"""What protects the agent's ear, measured from outside: bytes in, bytes out."""

from __future__ import annotations

import csv
import math
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callshield import g711
from callshield.settings import EarSettings
from sipbridge.ear_measure import (
    RATE,
    Samples,
    Signal,
    a_weighting_db,
    active_level_dbfs,
    at_active_level,
    hear,
    level_dbfs,
    load,
    mixed,
    noise,
    over_g711,
    pauses,
    short_time_dbfs,
    to_samples,
    tones,
    whistle,
)
from sipbridge.relay_core import Ear

ROOT = Path(__file__).parent.parent
PROMPTS = ROOT / "sipbridge" / "prompts"
CEILING = 32768.0 * 10.0 ** (-6.0 / 20.0)
#: Settled this far below the RMS ceiling of -18 dBFS, a tone is harmless.
SAFE_DBFS = -38.0


@cache
def speech(active_dbfs: float = -26.0) -> Samples:
    """About half a minute of three languages, as it comes over the line."""
    names = ("ko/recording", "en/recording", "ja/recording", "ko/abuse_prevention")
    gap = np.zeros(RATE // 2, np.int16)
    parts = [part for name in names for part in (load(PROMPTS / f"{name}.wav"), gap)]
    return over_g711(at_active_level(np.concatenate(parts), active_dbfs))


def ear_of(profile: dict[str, Any]) -> Ear:
    """An ear with some keys of its profile set."""
    return Ear(**profile)


def test_settings_and_signal_processing_agree_on_every_key() -> None:
    assert EarSettings.model_validate({}).profile() == {
        k: v[0] for k, v in Ear.profile_fields.items()
    }
    for name, (standard, low, high) in Ear.profile_fields.items():
        assert low <= standard <= high
        for bound in (low, high):
            EarSettings.model_validate({name: bound})
            ear_of({name: bound})
        with pytest.raises(ValueError, match=name):
            EarSettings.model_validate({name: high + 1})
        with pytest.raises(ValueError, match=name):
            ear_of({name: high + 1})


# ---------------------------------------------------------------- nothing to do, nothing done


def test_normal_sound_passes_untouched() -> None:
    for quiet in (noise(-30.0, 2.0), speech(-33.0), np.zeros(8000, np.int16)):
        ear = Ear()
        assert np.array_equal(hear(ear, quiet), quiet)
        assert ear.counters()["packets_changed"] == 0


# ---------------------------------------------------------------- limiter

lengths = st.integers(1, 480)
profiles = st.fixed_dictionaries(
    {},
    optional={name: st.floats(low, high) for name, (_, low, high) in Ear.profile_fields.items()},
)


def wild(seed: int, kind: str, amplitude: float, n: int) -> Samples:
    rng = np.random.default_rng(seed)
    t = np.arange(n)
    shape = {
        "noise": rng.standard_normal(n),
        "square": np.where((t // int(rng.integers(1, 60))) % 2, 1.0, -1.0),
        "dc": np.ones(n),
        "sparse": np.where(rng.random(n) < 0.01, rng.choice([-1.0, 1.0], n), 0.0),
        "gated": rng.standard_normal(n) * (rng.random(n // 80 + 1).repeat(80)[:n] > 0.7),
        "silence": np.zeros(n),
        "sweep": np.sin(2e-5 * t * t + rng.random()),
    }[kind]
    return to_samples(amplitude * shape)


sounds = st.lists(
    st.builds(
        wild,
        st.integers(0, 2**32),
        st.sampled_from(["noise", "square", "dc", "sparse", "gated", "silence", "sweep"]),
        st.sampled_from([1e-4, 0.01, 0.1, 0.5, 1.0, 30.0]),
        st.integers(1, 4000),
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=150, deadline=None)
@given(sounds, lengths, profiles, st.booleans(), st.booleans(), st.sampled_from([0, 8]))
def test_nothing_ever_leaves_above_the_ceiling(
    parts: list[Samples],
    packet: int,
    profile: dict[str, Any],
    soften: bool,
    levelling: bool,
    law: int,
) -> None:
    """Any sound, packet size and profile; also after G.711 has rounded it once more."""
    ear = Ear(soften=soften, levelling=levelling, **profile)
    sound = np.concatenate(parts)
    out = hear(ear, sound, packet)
    ceiling = 32768.0 * 10.0 ** (profile.get("limit_peak_dbfs", -6.0) / 20.0)
    assert len(out) == len(sound)
    assert np.max(np.abs(out.astype(int))) <= ceiling
    assert np.max(np.abs(over_g711(out, law).astype(int))) <= ceiling
    total, samples = ear.take_dose()
    assert samples == len(sound)
    assert math.isfinite(total)
    assert 0.0 <= total <= 4.0 * len(sound)
    # Nothing of it sticks: half a second later quiet speech-like noise has its own level again,
    # which a NaN in the state, or a gain that never comes back, would not allow.
    ear.set(False, False)
    ear.reset()
    calm = noise(-55.0, 0.5)
    assert abs(level_dbfs(hear(ear, calm)[800:]) - level_dbfs(calm[800:])) < 0.1


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=4000), lengths, st.booleans(), st.booleans())
def test_any_bytes_are_only_sound(raw: bytes, packet: int, soften: bool, levelling: bool) -> None:
    ear = Ear(soften=soften, levelling=levelling)
    sound = np.frombuffer(raw[: len(raw) // 2 * 2], "<i2").astype(np.int16)
    out = hear(ear, sound, packet)
    assert len(out) == len(sound)
    assert not len(out) or np.max(np.abs(out.astype(int))) <= CEILING


def test_sanitizers_find_nothing(tmp_path: Path) -> None:
    """The same in C, where a byte too far and an overflow would be seen (tests/fuzz_ear.c)."""
    core = ROOT / "sipbridge" / "relay_core"
    sources = [core / f"{name}.c" for name in ("ear", "ear_shock", "ear_output")]
    program = tmp_path / "fuzz_ear"
    flags = ["-std=c11", "-g", "-O1", "-Wall", "-Wextra", "-Werror", f"-I{core}"]
    flags += ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    files: list[str | Path] = [ROOT / "tests" / "fuzz_ear.c", *sources, "-lm", "-o", program]
    subprocess.run(["cc", *flags, *files], check=True)
    done = subprocess.run([program, "20000", "3"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing found" in done.stdout


def distortion(samples: Samples, hz: float) -> float:
    """Energy outside a tone of `hz`, relative to it; whole periods in the window."""
    spectrum = np.abs(np.fft.rfft(samples[: RATE // 2].astype(float)))
    spectrum[0] = 0.0
    line = round(hz / 2.0)
    tone = float(spectrum[line] ** 2)
    return math.sqrt((float(np.sum(spectrum**2)) - tone) / tone)


def test_the_limiter_turns_down_instead_of_clipping() -> None:
    loud = tones([200.0], -3.3, 2.0)
    # Only the peak limiter is left to work here.
    ear = Ear(shock_tone_dbfs=0.0, limit_rms_dbfs=0.0, shock_jump_db=60.0)
    limited = hear(ear, loud)[RATE:]
    assert np.max(np.abs(limited)) <= CEILING
    assert distortion(limited, 200.0) < 0.002
    clipped = np.clip(loud, -int(CEILING), int(CEILING)).astype(np.int16)[RATE:]
    assert distortion(clipped, 200.0) > 0.05  # negative control: what clipping would do


def test_gain_moves_smoothly_down_and_up_again() -> None:
    """A signal of one magnitude shows the gain of every sample."""
    signs = np.random.default_rng(5).choice([-1.0, 1.0], 3 * RATE)
    quiet, loud = 0.02, 0.9
    magnitude = np.where((np.arange(3 * RATE) // RATE) == 1, loud, quiet)
    sound = to_samples(signs * magnitude)
    gain = np.abs(hear(Ear(), sound) / sound)
    steps = np.abs(np.diff(gain))
    # The attack itself may clip for 5 ms: it starts with the packet, nothing came before it.
    assert gain[RATE + 40] < 0.3
    steps[RATE - 2 : RATE + 40] = 0.0
    assert np.max(steps) < 0.02
    # Release: no pumping back at once, but back in half a second.
    assert gain[2 * RATE + 800] < 0.9
    assert gain[-1] > 0.97


def test_loud_for_long_is_held_at_the_rms_ceiling() -> None:
    for sound in (noise(-8.0, 4.0), speech(-10.0)):
        out = hear(Ear(), sound)
        windows = short_time_dbfs(out, 500.0)
        assert np.max(windows[1:]) < -17.0
    assert np.max(short_time_dbfs(speech(-10.0), 500.0)) > -10.0


# ---------------------------------------------------------------- acoustic shock

SINGLE = {"400 Hz": [400.0], "CNG": [1100.0], "CED": [2100.0], "3 kHz": [3000.0]}
DTMF = {"1": [697.0, 1209.0], "6": [770.0, 1477.0], "D": [941.0, 1633.0]}


def danger_ms(sound: Samples, start: int, packet: int = 160, **profile: float) -> float:
    """How long after `start` the level over 10 ms was last above the safe level."""
    out = hear(ear_of(profile), over_g711(sound), packet)[start:] / 32768.0
    power = np.convolve(np.square(out), np.ones(80) / 80.0, "full")[: len(out)]
    above = np.flatnonzero(power > 10.0 ** (SAFE_DBFS / 10.0))
    # The window of 10 ms looks back; what was loud ended before it.
    return max((float(above[-1]) + 1.0 - 79.0) / 8.0, 0.0) if len(above) else 0.0


@pytest.mark.parametrize("packet", [80, 160, 240, 480])
@pytest.mark.parametrize("level", [-6.2, -12.0, -22.0])
@pytest.mark.parametrize("name", [*SINGLE, *DTMF])
def test_a_loud_tone_is_gone_within_20_ms(name: str, level: float, packet: int) -> None:
    tone = tones({**SINGLE, **DTMF}[name], level, 0.5)
    for offset in range(0, 160, 31):
        before = np.concatenate((speech()[:8000], np.zeros(offset, np.int16)))
        assert danger_ms(np.concatenate((before, tone)), len(before), packet) <= 20.0


def test_without_the_guard_the_tone_would_stay() -> None:
    """Negative control of the test above."""
    assert danger_ms(tones([1100.0], -12.0, 0.5), 0, shock_tone_dbfs=0.0) > 400.0


def test_howl_with_overtones_is_gone_within_120_ms() -> None:
    for frequencies, weights in (
        ([900.0, 1800.0, 2700.0], [1.0, 0.3, 0.1]),
        ([500.0, 1500.0, 2500.0, 3500.0], [1.0, 1 / 3, 1 / 5, 1 / 7]),
        ([350.0, 440.0], [1.0, 1.0]),
    ):
        tone = tones(frequencies, -8.0, 1.0, weights)
        assert danger_ms(np.concatenate((speech()[:8000], tone)), 8000) <= 120.0


def test_a_callers_whistle_is_gone_within_80_ms() -> None:
    """It wavers, so it is harder to tell from a voice than a pure tone."""
    for level in (-8.0, -20.0):
        sound = np.concatenate((speech()[:8000], whistle(level, 0.6)))
        assert danger_ms(sound, 8000) <= 80.0


def test_a_burst_comes_out_near_the_talkers_level() -> None:
    for talker in (-26.0, -36.0):
        calm = speech(talker)[: 4 * RATE]
        burst = noise(-7.0, 0.1, seed=3)
        ear = Ear()
        out = hear(ear, np.concatenate((calm, burst, calm[: 2 * RATE])))
        during = short_time_dbfs(out[len(calm) : len(calm) + len(burst)])
        assert np.max(during[1:]) < talker + 6.0
        assert ear.counters()["shock_bursts"] == 1
        after = slice(len(calm) + len(burst) + 4000, None)
        assert abs(level_dbfs(out[after]) - level_dbfs(calm[4000 : 2 * RATE])) < 2.0


def test_tones_and_bursts_are_not_heard_in_speech() -> None:
    for active in (-40.0, -26.0, -16.0):
        ear = Ear()
        hear(ear, speech(active))
        counters = ear.counters()
        assert (counters["shock_tones"], counters["shock_bursts"]) == (0, 0)


def recordings(data_dir: Path, corpus: str, emotions: set[str], most: int) -> list[Samples]:
    table = data_dir / "audio" / "manifest.tsv"
    with table.open(encoding="utf-8") as lines:
        paths = [
            row["path"]
            for row in csv.DictReader(lines, delimiter="\t")
            if row["corpus"] == corpus and row["emotion"] in emotions
        ]
    return [load(data_dir / "audio" / path) for path in paths[:most]]


@pytest.mark.data
def test_shouting_is_rarely_taken_for_a_tone(data_dir: Path) -> None:
    ear = Ear()
    seconds = 0.0
    for clip in recordings(data_dir, "emodb", {"anger", "fear"}, 120):
        seconds += len(clip) / RATE
        hear(ear, over_g711(at_active_level(clip, -16.0)))
    per_minute = (ear.counters()["shock_tones"] + ear.counters()["shock_bursts"]) * 60.0 / seconds
    assert per_minute < 0.6


# ---------------------------------------------------------------- softening


def bands(samples: Samples) -> Signal:
    """Level in dB of 15 bands every 20 ms: what words are made of. Shape (frames, 15)."""
    frames = samples[: len(samples) // 160 * 160].reshape(-1, 160) * np.hanning(160)
    power = np.square(np.abs(np.fft.rfft(frames, 256)))[:, 10:110]
    result: Signal = np.log10(power[:, : 15 * 6].reshape(len(power), 15, 6).sum(axis=2) + 1e4)
    return result


def test_shouting_comes_near_to_calm_and_calm_stays() -> None:
    ear = Ear(soften=True)
    hear(ear, speech(-26.0))
    calm = active_level_dbfs(hear(ear, speech(-26.0)))
    shout = hear(ear, speech(-12.0))
    assert abs(calm - -26.0) < 2.5
    assert active_level_dbfs(shout) - calm < 6.0  # of the 14 dB between them
    assert np.max(short_time_dbfs(shout)) < -15.0
    assert ear.counters()["packets_softened"] > 100


def test_words_are_left_in_a_softened_shout() -> None:
    """Consonants are not gated: band levels keep their course in time, and quiet ones rise."""
    loud = speech(-14.0)
    ear = Ear(soften=True)
    hear(ear, loud)
    out = hear(ear, loud)
    before, after = bands(loud), bands(out)
    heard = short_time_dbfs(loud)[: len(before)] > -45.0
    alike = [np.corrcoef(before[heard, b], after[heard, b])[0, 1] for b in range(15)]
    assert min(alike) > 0.9
    # Negative control: a gate that takes the quiet half away is seen by this measure.
    gated = loud.reshape(-1)[: len(before) * 160].reshape(-1, 160).copy()
    gated[short_time_dbfs(loud)[: len(before)] < -22.0] = 0
    cut = bands(gated.reshape(-1))
    assert min(np.corrcoef(before[heard, b], cut[heard, b])[0, 1] for b in range(15)) < 0.8


# ---------------------------------------------------------------- levelling


@pytest.mark.parametrize("snr", [None, 30.0, 15.0])
@pytest.mark.parametrize("active", [-45.0, -40.0, -30.0, -20.0, -15.0])
def test_every_talker_comes_to_one_level(active: float, snr: float | None) -> None:
    sound = speech(active)
    if snr is not None:
        sound = mixed(sound, noise(active - snr, len(sound) / RATE))
    out = hear(Ear(levelling=True), over_g711(sound))
    assert abs(active_level_dbfs(out[2 * RATE :]) - -26.0) <= 3.0


def test_noise_in_pauses_falls_and_never_rises() -> None:
    for active in (-42.0, -26.0):
        clean = speech(active)
        sound = over_g711(mixed(clean, noise(active - 20.0, len(clean) / RATE)))
        out = hear(Ear(levelling=True), sound)
        found = [p for p in pauses(clean, active - 30.0, 450.0) if p[0] > 2 * RATE]
        assert found
        for start, end in found:
            rest = slice(start + 3200, end)  # speech is given 0.2 s to go on, and closing 0.2 s
            assert level_dbfs(out[rest]) - level_dbfs(sound[rest]) < -6.0


def test_levelling_fades_when_it_is_switched() -> None:
    signs = np.random.default_rng(6).choice([-1.0, 1.0], 2 * RATE)
    syllables = np.tile(np.repeat([0.012, 0.0005], [1200, 400]), 10)
    sound = to_samples(signs * syllables)
    ear = Ear(levelling=True)
    hear(ear, sound)
    ear.set(False, False)
    gain = np.abs(hear(ear, sound) / sound)
    assert gain[200] > 1.5
    talking = syllables > 0.01
    assert np.all(gain[talking][-400:] == 1.0)
    assert np.max(np.abs(np.diff(gain))[talking[1:] & talking[:-1]]) < 0.1


# ---------------------------------------------------------------- dose


@pytest.mark.parametrize("hz", [100, 160, 250, 500, 1000, 2000, 3000, 3400])
def test_a_weighting_follows_the_curve(hz: int) -> None:
    """IEC 61672-1; class 1 allows 1 dB and more over this range."""
    tone = tones([float(hz)], -30.0, 1.0)
    ear = Ear()
    hear(ear, tone[:4000])
    ear.take_dose()
    hear(ear, tone[4000:])
    total, samples = ear.take_dose()
    weighted_db = 10.0 * math.log10(total / samples) - level_dbfs(tone[4000:])
    assert abs(weighted_db - a_weighting_db(hz)) < 0.15


def test_the_dose_counts_what_the_agent_hears() -> None:
    loud = noise(-8.0, 2.0)
    ear = Ear()
    out = hear(ear, loud)
    limited = ear.take_dose()
    assert ear.take_dose() == (0.0, 0)
    again = Ear(limit_peak_dbfs=0.0, limit_rms_dbfs=0.0, shock_jump_db=60.0)
    assert np.array_equal(hear(again, out), out)
    assert limited == pytest.approx(again.take_dose(), rel=1e-3)


# ---------------------------------------------------------------- the type


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(TypeError, match="no field volume"):
        Ear(volume=3.0)
    with pytest.raises(TypeError, match="keyword"):
        Ear(1.0)  # type: ignore[call-arg,arg-type]
    with pytest.raises(ValueError, match="limit_peak_dbfs"):
        Ear(limit_peak_dbfs=math.nan)
    with pytest.raises(ValueError, match="int16"):
        Ear().process(b"\0")


def test_a_packet_of_any_length_is_its_parts() -> None:
    """More than 480 samples are cut into pieces: the same as sending the pieces."""
    sound = speech(-14.0)[:4800].astype("<i2").tobytes()
    one, other = Ear(soften=True), Ear(soften=True)
    assert one.process(sound) == b"".join(
        other.process(sound[i : i + 960]) for i in range(0, len(sound), 960)
    )
    assert one.process(b"") == b""


def test_g711_silence_stays_silence() -> None:
    for law in g711.VOICE_PAYLOAD_TYPES:
        sound = g711.decode(g711.SILENCE[law] * 8000, law)
        assert np.array_equal(hear(Ear(soften=True), sound), sound)
