"""The shipped announcements and demo voices are what their manifests say, and sound right."""

from __future__ import annotations

import hashlib
import shutil
import tomllib
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from callshield.errors import SetupError
from sipbridge.prompt_catalogue import load_prompt
from sipbridge.prompts import korean, loudness

ROOT = Path(__file__).parent.parent
PROMPTS = ROOT / "sipbridge" / "prompts"
DEMO = ROOT / "callshield" / "demo_audio"

LANGUAGES = ("ko", "en", "zh", "ja")
IDS = (
    "abuse_prevention",
    "recording",
    "warning_1",
    "warning_2",
    "warning_3",
    "closing",
    "joined",
    "handing_over",
    "hold_on",
    "handed_over",
    "call_back",
    "objection_accepted",
    "recording_resumed",
)
SPEECH = [f"{language}/{name}" for language in LANGUAGES for name in IDS]
DEMO_LINES = ("calm_1", "calm_2", "shout_1", "shout_2", "agent_1")

#: Shortest and longest, seconds. Korean is what most callers hear, and is held to the brief.
LENGTHS = {
    "abuse_prevention": (6.0, 11.5),
    "recording": (4.0, 6.0),
    "warning_1": (5.0, 10.5),
    "warning_2": (5.0, 10.5),
    "warning_3": (4.0, 8.0),
    "closing": (5.0, 9.5),
    "joined": (2.5, 6.0),
    "handing_over": (2.5, 6.0),
    "hold_on": (2.5, 6.0),
    "handed_over": (2.0, 5.0),
    "call_back": (4.0, 8.0),
    "objection_accepted": (2.5, 6.0),
    "recording_resumed": (1.5, 4.0),
}
KOREAN_LENGTHS = {"abuse_prevention": (6.0, 10.5), "closing": (5.0, 8.0)}

#: Each language's words for "software", "analyse", and for what it is done.
ANALYSIS_WORDS = {
    "ko": ("소프트웨어가", "분석", "성희롱"),
    "en": ("software", "analyzes", "harassment"),
    "zh": ("软件", "分析", "骚扰"),
    "ja": ("ソフトウェア", "分析", "ハラスメント"),
}


def read(path: Path) -> tuple[tuple[int, int, int], NDArray[np.float64]]:
    """``(rate, bytes a sample, channels)`` and the samples, full scale 1.0."""
    with wave.open(str(path), "rb") as audio:
        shape = (audio.getframerate(), audio.getsampwidth(), audio.getnchannels())
        raw = np.frombuffer(audio.readframes(audio.getnframes()), "<i2")
    return shape, raw / 32768.0


def manifest(folder: Path) -> dict[str, dict[str, Any]]:
    entries = tomllib.loads((folder / "manifest.toml").read_text("utf-8"))["prompt"]
    return {f"{e['language']}/{e['id']}": e for e in entries}


def texts(folder: Path) -> dict[str, dict[str, Any]]:
    entries = tomllib.loads((folder / "texts.toml").read_text("utf-8"))["prompt"]
    return {f"{e['language']}/{e['id']}": e for e in entries}


def faults(path: Path, entry: dict[str, Any]) -> list[str]:
    """What is wrong with one speech file; nothing where it may be played to a caller."""
    shape, x = read(path)
    if shape != (8000, 2, 1):
        return [f"format {shape}"]
    found = []
    if hashlib.sha256(path.read_bytes()).hexdigest() != entry["sha256"]:
        found.append("sha256")
    if abs(len(x) / 8 - entry["duration_ms"]) > 1:
        found.append("duration")
    peak_dbfs = 20 * np.log10(np.max(np.abs(x)) + 1e-9)
    if peak_dbfs > -3.0:
        found.append(f"peak {peak_dbfs:.1f} dBFS")
    level = loudness.active_level_dbfs(x)
    if not -21.0 <= level <= -19.0:
        found.append(f"level {level:.1f} dBFS")
    sounding = np.flatnonzero(np.abs(x) > 10 ** (-60 / 20))
    if len(sounding) == 0:
        return [*found, "silent"]
    lead_s, trail_s = sounding[0] / 8000, (len(x) - 1 - sounding[-1]) / 8000
    if not 0.1 <= lead_s <= 0.3:
        found.append(f"leading silence {lead_s:.2f} s")
    if not 0.1 <= trail_s <= 0.35:
        found.append(f"trailing silence {trail_s:.2f} s")
    if abs(float(np.mean(x))) > 1e-3:
        found.append("offset")
    return found


def test_every_announcement_is_there_and_nothing_else() -> None:
    assert set(manifest(PROMPTS)) == set(texts(PROMPTS)) == {*SPEECH, "common/notice_tone"}
    on_disk = {f"{p.parent.name}/{p.stem}" for p in PROMPTS.glob("*/*.wav")}
    assert on_disk == set(manifest(PROMPTS))


@pytest.mark.parametrize("name", SPEECH)
def test_announcement_may_be_played_to_a_caller(name: str) -> None:
    assert faults(PROMPTS / f"{name}.wav", manifest(PROMPTS)[name]) == []


@pytest.mark.parametrize("name", SPEECH)
def test_announcement_is_neither_hurried_nor_endless(name: str) -> None:
    language, prompt_id = name.split("/")
    shortest, longest = LENGTHS[prompt_id]
    if language == "ko":
        shortest, longest = KOREAN_LENGTHS.get(prompt_id, (shortest, longest))
    assert shortest <= manifest(PROMPTS)[name]["duration_ms"] / 1000 <= longest


@pytest.mark.parametrize("name", SPEECH)
def test_announcement_stays_in_the_telephone_band(name: str) -> None:
    _, x = read(PROMPTS / f"{name}.wav")
    power = np.abs(np.fft.rfft(x)) ** 2
    hz = np.fft.rfftfreq(len(x), 1 / 8000)
    outside = power[(hz < 150) | (hz > 3650)].sum() / power.sum()
    assert outside < 1e-3


@pytest.mark.parametrize("name", SPEECH)
def test_manifest_states_text_version_and_origin(name: str) -> None:
    entry, source = manifest(PROMPTS)[name], texts(PROMPTS)[name]
    assert (entry["text"], entry["version"]) == (source["text"], source["version"])
    assert entry["engine"]
    assert entry["voice"]
    assert entry["licence"] == "Apache-2.0"


@pytest.mark.parametrize("language", LANGUAGES)
def test_notice_says_that_software_analyses_the_call_and_why(language: str) -> None:
    text = texts(PROMPTS)[f"{language}/abuse_prevention"]["text"]
    assert [word for word in ANALYSIS_WORDS[language] if word not in text] == []


def test_korean_notice_names_the_law_and_its_words_are_the_call_centres() -> None:
    ours = {n: e["text"] for n, e in (texts(PROMPTS) | texts(DEMO)).items() if n[:2] == "ko"}
    assert "산업안전보건법" in ours["ko/abuse_prevention"]
    for name, text in ours.items():
        for word in ("상담원", "악성", "진상", "블랙컨슈머"):
            assert word not in text, name


def test_closing_says_where_to_turn_instead() -> None:
    places = {"ko": "홈페이지", "en": "website", "zh": "网站", "ja": "ホームページ"}
    for language, place in places.items():
        assert place in texts(PROMPTS)[f"{language}/closing"]["text"]


def test_joined_names_the_supervisor_and_handed_over_the_one_responsible() -> None:
    """Principle 4: both parties hear who comes, before anybody does."""
    words = {
        "joined": {"ko": "관리자", "en": "supervisor", "zh": "主管", "ja": "管理者"},
        "handed_over": {"ko": "책임자", "en": "manager", "zh": "负责人", "ja": "責任者"},
        "handing_over": {"ko": "책임자", "en": "manager", "zh": "负责人", "ja": "責任者"},
    }
    for prompt_id, word_of in words.items():
        for language, word in word_of.items():
            assert word in texts(PROMPTS)[f"{language}/{prompt_id}"]["text"]


def test_every_announcement_loads_through_the_catalogue() -> None:
    for name, entry in manifest(PROMPTS).items():
        language, prompt_id = name.split("/")
        prompt = load_prompt(PROMPTS, language, prompt_id)
        assert (prompt.version, prompt.sha256) == (entry["version"], entry["sha256"])


@pytest.mark.parametrize("kind", ["one bit", "cut", "too loud", "too quiet", "no lead"])
def test_a_corrupted_copy_is_found(tmp_path: Path, kind: str) -> None:
    """Negative control: every check above can fail."""
    name = "ko/closing"
    path = tmp_path / "ko" / "closing.wav"
    path.parent.mkdir()
    shutil.copy(PROMPTS / f"{name}.wav", path)
    shutil.copy(PROMPTS / "manifest.toml", tmp_path / "manifest.toml")
    entry = manifest(PROMPTS)[name]
    assert faults(path, entry) == []
    _, x = read(path)
    damaged = {
        "one bit": np.where(np.arange(len(x)) == 8000, x + 2 / 32768, x),
        "cut": x[:-800],
        "too loud": np.clip(x * 2, -1, 0.999),
        "too quiet": x / 2,
        "no lead": x[1200:],
    }[kind]
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(8000)
        out.writeframes(np.round(damaged * 32768).astype("<i2").tobytes())
    wanted = {
        "one bit": {"sha256"},
        "cut": {"sha256", "duration"},
        "too loud": {"sha256", "level", "peak"},
        "too quiet": {"sha256", "level"},
        "no lead": {"sha256", "duration", "leading"},
    }[kind]
    assert wanted <= {fault.split()[0] for fault in faults(path, entry)}
    with pytest.raises(SetupError, match="sha256 differs"):
        load_prompt(tmp_path, "ko", "closing")


def test_notice_tone_is_soft_and_loops_without_a_click() -> None:
    path = PROMPTS / "common" / "notice_tone.wav"
    shape, x = read(path)
    entry = manifest(PROMPTS)["common/notice_tone"]
    assert shape == (8000, 2, 1)
    assert len(x) == 4 * 8000
    assert hashlib.sha256(path.read_bytes()).hexdigest() == entry["sha256"]
    sounding = np.abs(x) > 1e-4
    level = 10 * np.log10(np.mean(x[sounding] ** 2))
    assert level == pytest.approx(-35.0, abs=1.0)
    assert not sounding[:400].any()
    assert not sounding[-400:].any()
    np.testing.assert_array_equal(x[:16000], x[16000:])
    # No step larger than the tone's own slope: 880 Hz at its amplitude.
    assert np.max(np.abs(np.diff(x))) <= 2 * np.pi * 880 / 8000 * np.max(np.abs(x)) * 1.01


def test_active_level_of_speech_with_pauses_is_that_of_its_speech() -> None:
    """P.56's purpose: silence round a signal does not change its level."""
    n = np.arange(16000)
    tone = 0.1 * np.sqrt(2) * np.sin(2 * np.pi * 500 * n / 8000)
    padded = np.concatenate([np.zeros(24000), tone, np.zeros(24000)])
    assert loudness.active_level_dbfs(tone) == pytest.approx(-20.0, abs=0.3)
    assert loudness.active_level_dbfs(padded) == pytest.approx(-20.0, abs=0.6)
    assert loudness.active_level_dbfs(np.zeros(8000)) == float("-inf")


def test_limiter_never_exceeds_its_ceiling() -> None:
    x = np.random.default_rng(1).laplace(0, 0.2, 16000)
    y = loudness.limit_peaks(x, 0.5)
    assert np.max(np.abs(x)) > 1.0
    assert np.max(np.abs(y)) <= 0.5 + 1e-12
    quiet = 0.1 * x
    np.testing.assert_allclose(loudness.limit_peaks(quiet, 0.5), quiet)


def test_tempo_changes_length_and_keeps_pitch() -> None:
    n = np.arange(24000)
    x = np.sin(2 * np.pi * 200 * n / 24000)
    y = loudness.change_tempo(x, 24000, 1.25)
    assert len(y) == 19200
    peak_hz = np.argmax(np.abs(np.fft.rfft(y[:19200]))) * 24000 / 19200
    assert peak_hz == pytest.approx(200, abs=2)


@pytest.mark.parametrize(
    ("said", "phonemes"),
    [
        ("고가", "koɡa"),
        ("상담사", "saŋdamsa"),
        ("부탁뜨림니다.", "putʰakʔtɯɾimnida."),
        ("시간, 바로", "ɕiɡan, paɾo"),
        ("무니나 '불만", "munina pulman"),
        ("갈라", "kalla"),
    ],
)
def test_korean_sounds(said: str, phonemes: str) -> None:
    assert korean.phonemes(said) == phonemes


@pytest.mark.parametrize("said", ["있습니다", "ABC", "값"])
def test_korean_that_is_not_spelled_as_said_is_refused(said: str) -> None:
    with pytest.raises(ValueError, match=r"pronounced|not Hangul"):
        korean.phonemes(said)


@pytest.mark.parametrize("line", DEMO_LINES)
def test_demo_line_is_what_its_manifest_says(line: str) -> None:
    shape, x = read(DEMO / f"{line}.wav")
    entry = manifest(DEMO)[f"ko/{line}"]
    assert shape == (8000, 2, 1)
    assert hashlib.sha256((DEMO / f"{line}.wav").read_bytes()).hexdigest() == entry["sha256"]
    assert entry["text"] == texts(DEMO)[f"ko/{line}"]["text"]
    assert entry["simulated_effort"] == (1.0 if line.startswith("shout") else 0.0)
    assert 4.0 <= len(x) / 8000 <= 8.0
    assert np.max(np.abs(x)) < 10 ** (-0.9 / 20)


def alpha_ratio_db(x: NDArray[np.float64]) -> float:
    """Mean energy of 1-3.4 kHz over 0.3-1 kHz in the frames within 25 dB of the loudest."""
    frames = np.lib.stride_tricks.sliding_window_view(x, 320)[::160] * np.hanning(320)
    power = np.abs(np.fft.rfft(frames, 512)) ** 2
    hz = np.fft.rfftfreq(512, 1 / 8000)
    loud = power.sum(1) > power.sum(1).max() * 10**-2.5
    high = power[:, (hz >= 1000) & (hz < 3400)].sum(1)
    low = power[:, (hz >= 300) & (hz < 1000)].sum(1)
    return float(np.mean(10 * np.log10(high[loud] / low[loud])))


def test_simulated_shouts_differ_from_the_calm_lines_as_shouting_does() -> None:
    """Louder and at least 8 dB brighter; EmoDB's anger over neutral is 8.7 dB (docs/prompts.md)."""
    calm = [read(DEMO / f"{line}.wav")[1] for line in ("calm_1", "calm_2", "agent_1")]
    shouts = [read(DEMO / f"{line}.wav")[1] for line in ("shout_1", "shout_2")]
    brightest_calm = max(alpha_ratio_db(x) for x in calm)
    assert all(alpha_ratio_db(x) > brightest_calm + 8.0 for x in shouts)
    loudest_calm = max(loudness.active_level_dbfs(x) for x in calm)
    assert all(loudness.active_level_dbfs(x) > loudest_calm + 10.0 for x in shouts)


def test_shipped_audio_stays_small() -> None:
    files = [*PROMPTS.glob("*/*.wav"), *DEMO.glob("*.wav")]
    assert sum(path.stat().st_size for path in files) < 8_000_000


def test_lock_file_pins_hashes_and_names_no_host() -> None:
    lock = (PROMPTS / "requirements-render.lock").read_text("utf-8")
    blocks = [line for line in lock.splitlines() if "==" in line]
    assert len(blocks) > 20
    assert lock.count("--hash=sha256:") >= len(blocks)
    assert "://" not in lock
