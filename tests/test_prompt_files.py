"""The shipped announcements and demo voices are what their manifests say, and sound right."""

from __future__ import annotations

import hashlib
import json
import re
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
from sipbridge.prompts import korean, loudness, versions

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
    "abuse_prevention_objection",
    "abuse_prevention_consent",
    "recording_analysis",
    "recording_analysis_consent",
)
SPEECH = [f"{language}/{name}" for language in LANGUAGES for name in IDS]
#: How a file ends, by its rate.
SUFFIXES = {8000: ".wav", 16000: ".16k.wav"}
FILES = [(name, rate) for name in SPEECH for rate in SUFFIXES]
#: Hz within which nearly everything is (docs/prompts.md).
BANDS_HZ = {8000: (150, 3650), 16000: (75, 7200)}
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
    # Those with a key say more; nobody should have to listen for half a minute.
    "abuse_prevention_objection": (10.0, 20.0),
    "abuse_prevention_consent": (10.0, 20.0),
    "recording_analysis": (8.0, 14.0),
    "recording_analysis_consent": (10.0, 18.0),
}
KOREAN_LENGTHS = {"abuse_prevention": (6.0, 10.5), "closing": (5.0, 8.0)}

#: Each language's words for "software", "analyse", and for what it is done.
ANALYSIS_WORDS = {
    "ko": ("소프트웨어가", "분석", "성희롱"),
    "en": ("software", "analyzes", "harassment"),
    "zh": ("软件", "分析", "骚扰"),
    "ja": ("ソフトウェア", "分析", "ハラスメント"),
}
#: Words of which one has to be in a text that says so, in the order of LANGUAGES.
NAMED_BY: dict[str, tuple[tuple[str, ...], ...]] = {
    "analysis": (("분석",), ("analyzes",), ("分析",), ("分析",)),
    "voice": (("목소리",), ("voice",), ("声音",), ("声",)),
    "recording": (("녹음",), ("recorded",), ("录音",), ("録音",)),
    "details": (
        ("개인정보 처리방침",),
        ("privacy notice",),
        ("隐私声明",),
        ("プライバシーポリシー",),
    ),
}
PURPOSE_WORDS: dict[str, tuple[tuple[str, ...], ...]] = {
    "protection": (
        ("상담사 보호", "이를 위해"),
        ("protect our staff",),
        ("保护客服人员",),
        ("担当者を守", "そのためソフトウェア"),
    ),
    "quality": (
        ("상담 품질 향상",),
        ("improve our service",),
        ("提升服务质量",),
        ("サービスを良くす", "サービスを良くし"),
    ),
}
ACCUSING = {
    "ko": ("고객님", "귀하", "당신", "하셨", "하였", "했습니다"),
    "en": ("you ", "your", "you.", "have been", "was ", "were "),
    "zh": ("您", "你", "了。"),
    "ja": ("あなた", "貴方", "いました", "れました"),
}
RULE = {"ko": "있으면", "en": "A call with", "zh": "如有", "ja": "あった場合"}
GUILTY = {
    "ko": " 고객님께서 욕설을 하셨습니다.",
    "en": " You were abusive.",
    "zh": "您刚才辱骂了客服人员。",
    "ja": "暴言がありました。あなたの通話を終了します。",
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


def faults(path: Path, entry: dict[str, Any], rate: int = 8000) -> list[str]:
    """What is wrong with one speech file; nothing where it may be played to a caller."""
    shape, x = read(path)
    if shape != (rate, 2, 1):
        return [f"format {shape}"]
    found = []
    stated = entry["sha256" if rate == 8000 else "sha256_16k"]
    if hashlib.sha256(path.read_bytes()).hexdigest() != stated:
        found.append("sha256")
    if abs(len(x) * 1000 / rate - entry["duration_ms"]) > 1:
        found.append("duration")
    peak_dbfs = 20 * np.log10(np.max(np.abs(x)) + 1e-9)
    if peak_dbfs > -3.0:
        found.append(f"peak {peak_dbfs:.1f} dBFS")
    level = loudness.active_level_dbfs(x, rate)
    if not -21.0 <= level <= -19.0:
        found.append(f"level {level:.1f} dBFS")
    sounding = np.flatnonzero(np.abs(x) > 10 ** (-60 / 20))
    if len(sounding) == 0:
        return [*found, "silent"]
    lead_s, trail_s = sounding[0] / rate, (len(x) - 1 - sounding[-1]) / rate
    if not 0.1 <= lead_s <= 0.3:
        found.append(f"leading silence {lead_s:.2f} s")
    if not 0.1 <= trail_s <= 0.35:
        found.append(f"trailing silence {trail_s:.2f} s")
    if abs(float(np.mean(x))) > 1e-3:
        found.append("offset")
    return found


def test_every_announcement_is_there_and_nothing_else() -> None:
    tones = {"common/notice_tone", "common/ringing"}
    assert set(manifest(PROMPTS)) == set(texts(PROMPTS)) == {*SPEECH, *tones}
    on_disk = {f"{p.parent.name}/{p.name}" for p in PROMPTS.glob("*/*.wav")}
    wanted = {f"{name}{SUFFIXES[rate]}" for name, rate in FILES}
    wanted |= {f"{tone}.wav" for tone in tones}
    assert on_disk == wanted


@pytest.mark.parametrize(("name", "rate"), FILES)
def test_announcement_may_be_played_to_a_caller(name: str, rate: int) -> None:
    assert faults(PROMPTS / f"{name}{SUFFIXES[rate]}", manifest(PROMPTS)[name], rate) == []


def envelope(x: NDArray[np.float64], rate: int) -> NDArray[np.float64]:
    """Level of every 20 ms."""
    size = rate // 50
    frames = x[: len(x) // size * size].reshape(-1, size)
    return np.asarray(np.sqrt(np.mean(frames**2, axis=1)))


@pytest.mark.parametrize("name", SPEECH)
def test_both_files_of_an_announcement_say_the_same(name: str) -> None:
    """One synthesis, two rates: what the caller hears does not depend on the codec."""
    (_, narrow), (_, wide) = (read(PROMPTS / f"{name}{SUFFIXES[r]}") for r in SUFFIXES)
    assert abs(len(narrow) / 8000 - len(wide) / 16000) < 0.002
    own, other = envelope(narrow, 8000), envelope(wide, 16000)
    size = min(len(own), len(other))
    assert np.corrcoef(own[:size], other[:size])[0, 1] > 0.9
    # Negative control: another announcement's file.
    stranger = "warning_1" if not name.endswith("warning_1") else "warning_2"
    _, x = read(PROMPTS / name.split("/")[0] / f"{stranger}.16k.wav")
    other = envelope(x, 16000)
    size = min(len(own), len(other))
    assert np.corrcoef(own[:size], other[:size])[0, 1] < 0.6


def test_a_wide_file_has_what_the_telephone_band_has_not() -> None:
    """Else it were the other one, resampled."""
    for name in SPEECH:
        _, x = read(PROMPTS / f"{name}.16k.wav")
        power = np.abs(np.fft.rfft(x)) ** 2
        hz = np.fft.rfftfreq(len(x), 1 / 16000)
        above = 10 * np.log10(power[(hz > 4000) & (hz < 7000)].sum() / power.sum())
        assert above > -35, name


@pytest.mark.parametrize("name", SPEECH)
def test_announcement_is_neither_hurried_nor_endless(name: str) -> None:
    language, prompt_id = name.split("/")
    shortest, longest = LENGTHS[prompt_id]
    if language == "ko":
        shortest, longest = KOREAN_LENGTHS.get(prompt_id, (shortest, longest))
    assert shortest <= manifest(PROMPTS)[name]["duration_ms"] / 1000 <= longest


@pytest.mark.parametrize(("name", "rate"), FILES)
def test_announcement_stays_in_its_band(name: str, rate: int) -> None:
    _, x = read(PROMPTS / f"{name}{SUFFIXES[rate]}")
    power = np.abs(np.fft.rfft(x)) ** 2
    hz = np.fft.rfftfreq(len(x), 1 / rate)
    lowest, highest = BANDS_HZ[rate]
    outside = power[(hz < lowest) | (hz > highest)].sum() / power.sum()
    assert outside < 1e-3


@pytest.mark.parametrize("name", SPEECH)
def test_manifest_states_text_version_and_origin(name: str) -> None:
    entry, source = manifest(PROMPTS)[name], texts(PROMPTS)[name]
    for stated in ("text", "version", "names", "purposes", "covers", "key", "key_for"):
        assert entry.get(stated) == source.get(stated)
    assert entry["engine"]
    assert entry["voice"]
    assert entry["licence"] == "Apache-2.0"


def unstated(language: str, entry: dict[str, Any]) -> list[str]:
    """What an announcement's manifest says of its text, and the text does not say."""
    text, found = entry["text"], []
    for name in entry.get("names", []):
        if not any(word in text for word in NAMED_BY[name][LANGUAGES.index(language)]):
            found.append(name)
    for purpose in entry.get("purposes", []):
        if not any(word in text for word in PURPOSE_WORDS[purpose][LANGUAGES.index(language)]):
            found.append(purpose)
    key = entry.get("key", "")
    if key and not re.search(rf"(?<!\d){key}(?!\d)", text):
        found.append("key")
    return found


@pytest.mark.parametrize("name", SPEECH)
def test_an_announcement_says_what_its_manifest_says_that_it_says(name: str) -> None:
    """Presets of the law, purposes and keys are decided by these words."""
    assert unstated(name.split("/")[0], manifest(PROMPTS)[name]) == []


def test_a_notice_that_does_not_say_it_is_found() -> None:
    """Negative control: the wrong key, the wrong text, a purpose that is not there."""
    entry = manifest(PROMPTS)["ko/abuse_prevention_objection"]
    assert unstated("ko", entry | {"key": "1"}) == ["key"]
    assert unstated("ko", entry | {"purposes": ["quality"]}) == ["quality"]
    plain = entry | {"text": manifest(PROMPTS)["ko/abuse_prevention"]["text"]}
    assert unstated("ko", plain) == ["voice", "recording", "details", "key"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_notice_says_that_software_analyses_the_call_and_why(language: str) -> None:
    told = {n: e for n, e in manifest(PROMPTS).items() if "analysis" in e.get("names", [])}
    ours = {n.split("/")[1]: e for n, e in told.items() if n.startswith(language)}
    assert set(ours) == {
        "abuse_prevention",
        "abuse_prevention_objection",
        "abuse_prevention_consent",
        "recording_analysis",
        "recording_analysis_consent",
    }
    text = ours["abuse_prevention"]["text"]
    assert [word for word in ANALYSIS_WORDS[language] if word not in text] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_notice_with_a_key_is_found_by_its_name(language: str) -> None:
    """``ID_objection`` and ``ID_consent`` are played for ``ID``; without a key nobody names one."""
    for name, entry in manifest(PROMPTS).items():
        kind = name.rpartition("_")[2]
        wanted = {"objection": ("9", "objection"), "consent": ("1", "consent")}.get(kind, ("", ""))
        assert (entry.get("key", ""), entry.get("key_for", "")) == wanted, name
    consent = manifest(PROMPTS)[f"{language}/abuse_prevention_consent"]
    assert consent["covers"] == ["recording"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_first_warning_states_the_rule_and_accuses_nobody(language: str) -> None:
    """Point 7 of the notices: no "you", nothing that somebody did, and to both sides."""
    text = texts(PROMPTS)[f"{language}/warning_1"]["text"]
    for word in ACCUSING[language]:
        assert word not in text.lower(), word
    assert RULE[language] in text
    # Negative control: such a warning would be found.
    guilty = texts(PROMPTS)[f"{language}/warning_1"]["text"] + GUILTY[language]
    assert any(word in guilty.lower() for word in ACCUSING[language])


def test_korean_notice_names_the_law_and_its_words_are_the_call_centres() -> None:
    ours = {n: e["text"] for n, e in (texts(PROMPTS) | texts(DEMO)).items() if n[:2] == "ko"}
    assert "산업안전보건법" in ours["ko/abuse_prevention"]
    for name, text in ours.items():
        for word in ("상담원", "악성", "진상", "블랙컨슈머"):
            assert word not in text, name


def test_closing_says_why_that_it_ends_now_and_how_to_complain_otherwise() -> None:
    words = {
        "ko": ("상담사 보호", "지금 통화를 종료", "불만", "홈페이지", "서면"),
        "en": ("protect our staff", "now being ended", "complaints", "website", "in writing"),
        "zh": ("保护客服人员", "现在结束", "投诉", "网站", "书面"),
        "ja": ("担当者の保護", "ただいま通話を終了", "ご意見", "ホームページ", "文書"),
    }
    for language, said in words.items():
        text = texts(PROMPTS)[f"{language}/closing"]["text"]
        assert [word for word in said if word not in text] == []


def test_no_text_changed_under_its_version() -> None:
    """The stamp on a call names a version: what it said is known for ever."""
    history = versions.known(
        tomllib.loads((PROMPTS / "versions.toml").read_text("utf-8"))["version"]
    )
    entries = tomllib.loads((PROMPTS / "texts.toml").read_text("utf-8"))["prompt"]
    assert versions.contradictions(entries, history) == []
    assert tomllib.loads(versions.written(history))["version"]
    for (language, prompt_id, _), text in history.items():
        assert text, f"{language}/{prompt_id}"

    # Negative control: a changed text, and a version that nobody wrote down.
    changed = entries[0] | {"text": entries[0]["text"] + " "}
    (fault,) = versions.contradictions([changed], history)
    assert "no longer says what its version 1 said: give it another version" in fault
    assert versions.contradictions([changed | {"version": "2"}], history, complete=False) == []
    (fault,) = versions.contradictions([changed | {"version": "2"}], history)
    assert "is not in versions.toml: render it" in fault
    with pytest.raises(ValueError, match="twice"):
        versions.known([entries[0], entries[0]])


def test_what_has_shipped_is_never_forgotten() -> None:
    """The texts of the first version, by their hash: whoever edits history is told."""
    history = versions.known(
        tomllib.loads((PROMPTS / "versions.toml").read_text("utf-8"))["version"]
    )
    shipped = {key: text for key, text in history.items() if key[1] in IDS[:13] and key[2] == "1"}
    digest = hashlib.sha256(json.dumps(sorted(shipped.items())).encode()).hexdigest()
    assert (len(shipped), digest[:16]) == (52, "1e160aeb78bcdf6f")


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
        assert (prompt.text, prompt.own) == (entry["text"], False)
        assert (prompt.wide.sha256 if prompt.wide else None) == entry.get("sha256_16k")
        assert prompt.says.names == set(entry.get("names", []))


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


def test_ringing_tone_is_that_of_e_180_and_loops_without_a_click() -> None:
    path = PROMPTS / "common" / "ringing.wav"
    shape, x = read(path)
    assert shape == (8000, 2, 1)
    assert len(x) == 3 * 8000
    assert (
        hashlib.sha256(path.read_bytes()).hexdigest()
        == manifest(PROMPTS)["common/ringing"]["sha256"]
    )
    sounding = np.flatnonzero(np.abs(x) > 1e-4)
    assert (sounding[-1] - sounding[0]) / 8000 == pytest.approx(1.0, abs=0.01)
    tone = x[sounding[0] : sounding[-1] + 1]
    assert 10 * np.log10(np.mean(tone**2)) == pytest.approx(-28.0, abs=0.5)
    spectrum = np.abs(np.fft.rfft(tone * np.hanning(len(tone)), 8000))
    assert set(np.argsort(spectrum)[-2:]) == {440, 480}
    assert not np.abs(x[:400]).max() > 1e-4, "the loop begins in silence"


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
    assert sum(path.stat().st_size for path in files) < 27_000_000


def test_lock_file_pins_hashes_and_names_no_host() -> None:
    lock = (PROMPTS / "requirements-render.lock").read_text("utf-8")
    blocks = [line for line in lock.splitlines() if "==" in line]
    assert len(blocks) > 20
    assert lock.count("--hash=sha256:") >= len(blocks)
    assert "://" not in lock
