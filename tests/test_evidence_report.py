"""The printed report: embedded fonts, every language, what it says, and what it must not say."""

from __future__ import annotations

import io
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from callshield.errors import EvidenceError
from callshield.messages import (
    AlertAcknowledged,
    AlertEscalated,
    AlertRaised,
    CallAnswered,
    CallEnded,
    CallEnding,
    CallStarted,
    CrisisHint,
    Direction,
    Event,
    HelperChanged,
    HoldChanged,
    MediaSilent,
    NoticeFinished,
    NoticeStarted,
    PauseChanged,
    PromptStamp,
    Reason,
    RecordingChanged,
    RecordRead,
    RiskChanged,
    TapStarted,
    WarningPlayed,
)
from callshield.messages_care import CallbackChanged, EvidenceRequested
from callshield.messages_escalation import AlertRefused, AlertUnanswered
from callshield.messages_evidence import EvidenceChanged, EvidenceExported
from callshield.messages_fairness import RecordingOpened
from callshield.messages_notice import PromptPlayed, ProtectionChanged
from detectors.transcript import Spoken
from notifier.care import Said
from notifier.chain import Head
from notifier.evidence import Decision
from notifier.evidence_font import PLACES, find_faces
from notifier.evidence_manifest import ChainedEvent
from notifier.evidence_plot import Sound, offset
from notifier.evidence_record import EVIDENCE_TYPES, CallRecord
from notifier.evidence_report import Report, Transcript, make_report
from notifier.evidence_texts import LANGUAGES, texts
from notifier.evidence_timeline import _TELLERS, timeline
from notifier.sealed import seal
from sipbridge.recording_flac import envelope

CALL, T = "0123456789abcdef" * 2, 1_795_300_000.0
QUOTE = "씨* 진짜 죽고 싶냐"
IDS: dict[str, Any] = {"call_id": CALL}
WHO: dict[str, Any] = {"call_id": CALL, "agent_id": "1001"}
ALERT = "e" * 32


def stamp(name: str, begin_s: float, end_s: float) -> PromptStamp:
    return PromptStamp(
        prompt_id=name,
        version="2026-10-01",
        sha256="ab" * 32,
        started_ts=T + begin_s,
        finished_ts=T + end_s,
        complete=True,
        language="ko",
    )


def story() -> list[Event]:
    """A bad call from ring to package."""
    loud = RiskChanged(ts=T + 60, level=1, previous=0, categories=["shouting"], score=0.61, **IDS)
    severe = RiskChanged(
        ts=T + 95,
        level=3,
        previous=1,
        categories=["profanity", "threat"],
        score=0.87,
        reasons=[Reason(kind="words", score=0.93, rule="abusive_words", words=[QUOTE])],
        **IDS,
    )
    fallen = RiskChanged(ts=T + 150, level=1, previous=3, categories=[], score=0.1, **IDS)
    notices = [stamp("recording", 4.2, 8.1), stamp("abuse_prevention", 8.2, 12.4)]
    helper = {"role": "supervisor", "helper_id": "lee", **WHO}
    opener = {"by_role": "admin", "by": "9f8e7d6c"}
    return [
        CallStarted(ts=T, pbx_call_id="1763812345.118", **WHO),
        CallAnswered(ts=T + 4, **WHO),
        NoticeStarted(ts=T + 4.2, **WHO),
        NoticeFinished(ts=T + 12.4, source="played", prompts=notices, tapped=True, key="1", **WHO),
        TapStarted(ts=T + 12.5, **IDS),
        RecordingChanged(ts=T + 12.5, state="recording", **IDS),
        loud,
        WarningPlayed(ts=T + 90, grade=1, complete=True, **WHO),
        severe,
        AlertRaised(ts=T + 95, alert_id=ALERT, kind="risk", level=3, **WHO),
        AlertEscalated(ts=T + 95, alert_id=ALERT, step=1, stage="person", to=["lee"], **IDS),
        AlertRefused(ts=T + 99, alert_id=ALERT, by="lee", reason="in_call", **IDS),
        AlertEscalated(ts=T + 110, alert_id=ALERT, step=2, stage="all", to=["lee", "park"], **IDS),
        AlertUnanswered(ts=T + 112, alert_id=ALERT, offers=["end"], **IDS),
        AlertAcknowledged(
            ts=T + 115, alert_id=ALERT, by="1a2b3c4d", how="join", supervisor_id="lee", **IDS
        ),
        HelperChanged(ts=T + 118, state="calling", **helper),
        HelperChanged(ts=T + 121, state="joined", **helper),
        PauseChanged(ts=T + 130, paused=True, **WHO),
        PauseChanged(ts=T + 141, paused=False, **WHO),
        HoldChanged(ts=T + 142, held=True, **WHO),
        MediaSilent(ts=T + 143, leg="caller", silent=True, **IDS),
        ProtectionChanged(ts=T + 144, protected=False, reason="objection", key="2", **WHO),
        PromptPlayed(ts=T + 145, stamp=stamp("objection_accepted", 144, 145), **WHO),
        CrisisHint(ts=T + 146, detail="…", **IDS),
        fallen,
        CallbackChanged(
            ts=T + 151, callback_id=ALERT, state="promised", owner="kim", due_ts=T, **WHO
        ),
        CallEnding(ts=T + 171, by="agent:console", **WHO),
        CallEnded(ts=T + 180, reason="ended_with_announcement", duration_s=176, **WHO),
        EvidenceRequested(ts=T + 300, request_id="f" * 32, **WHO),
        EvidenceChanged(ts=T + 4000, request_id="f" * 32, state="approved", **opener, **WHO),
        RecordingOpened(ts=T + 4100, what="evidence", why="request", ref="f" * 32, **opener, **WHO),
        RecordRead(ts=T + 100, what="words", why="help_asked", by_role="supervisor", by="x", **WHO),
        EvidenceExported(
            ts=T + 4000,
            request_id="f" * 32,
            package_id="9" * 32,
            package_sha256="a" * 64,
            manifest_sha256="b" * 64,
            key_id="c" * 64,
            unredacted=False,
            whole=True,
            encryption="none",
            **opener,
            **WHO,
        ),
    ]


def chained(told: list[Event]) -> list[ChainedEvent]:
    rows = []
    for number, event in enumerate(told, 101):
        body, words = seal(msgspec.to_builtins(event))
        rows.append(
            ChainedEvent(
                id=number,
                ts=body["ts"],
                type=body["type"],
                call_id=CALL,
                agent_id="1001",
                body=msgspec.json.encode(body).decode(),
                words=words,
                hash="0" * 64,
                previous="0" * 64,
            )
        )
    return rows


def voice(loudness: float, seed: int) -> io.BytesIO:
    """Two minutes and a half of talk that comes and goes, with a pause of the recording."""
    chance, count = np.random.default_rng(seed), int(158.5 * 8000)
    time_s = np.arange(count) / 8000
    talking = (np.sin(2 * np.pi * time_s / 7 + seed) > 0) * (time_s < 150)
    talking &= ~((time_s > 117.5) & (time_s < 128.5))
    loud = 1 + 1.5 * ((time_s > 45) & (time_s < 90))
    noise = chance.normal(0, 6000 * loudness, count) * talking * loud
    return io.BytesIO(np.clip(noise, -32768, 32767).astype("<i2").tobytes())


def report(language: str, *, sound: bool = True, public: bool = False) -> bytes:
    words, rows = texts(language, public=public), chained(story())
    call = {
        "call_id": CALL,
        "pbx_call_id": "1763812345.118",
        "agent_id": "1001",
        "started_ts": T,
        "answered_ts": T + 4,
        "ended_ts": T + 180,
        "duration_s": 176.0,
        "end_reason": "ended_with_announcement",
        "peak_level": 3,
        "categories": '["shouting","profanity","threat"]',
    }
    request = Said("f" * 32, CALL, "1001", "evidence", T + 300)
    decision = Decision("f" * 32, CALL, "approved", T + 4000, "admin", "9f8e7d6c")
    record = CallRecord(call, request, decision, rows, Head(1234, "c0ffee" + "0" * 58))
    spoken = [
        Spoken(5, 8, "ko", "지난달 요금이 왜 이렇게 많이 나왔어요?", None),
        Spoken(30, 36, "ko", "제 번호는 [전화번호]이고요, 빨리 처리해 주세요.", None),
        Spoken(70, 75, "ja", "ふざけるな、責任者を出せ。", None),
        Spoken(100, 104, "zh", "你们这是什么服务，马上给我解决。", None),
        Spoken(110, 111, "en", "", None),
    ]
    shown = (
        Sound(envelope(voice(0.5, 1), 1200), envelope(voice(0.2, 4), 1200), T + 12.5, 158.5,
              [(117.5, 128.5)])
        if sound
        else None
    )  # fmt: skip
    return make_report(
        Report(
            record=record,
            timeline=timeline(rows, words),
            sound=shown,
            transcript=Transcript(spoken, "whisper-base") if sound else Transcript((), "", "why"),
            package_id="9c1f" * 8,
            made_ts=T + 4105,
            node="node-1",
            key_id="ab" * 32,
            head=record.head,
            zone="Asia/Seoul",
        ),
        words,
        find_faces(None, language),
    )


def text_of(pdf: bytes) -> str:
    """As a viewer copies it."""
    done = subprocess.run(
        ["pdftotext", "-layout", "-", "-"], input=pdf, capture_output=True, check=True
    )
    # Copied spaces are as wide as they were set.
    return re.sub(r"[ \t]+", " ", done.stdout.decode())


#: Words of each part of the report.
PARTS = {
    "ko": (
        "통화 증거자료 보고서",
        "욕설·폭언",
        "위험 단계 1 (주의) → 3 (심각)",
        "안내 후 종료",
        "상담사",
    ),
    "en": ("Evidence of a call", "profanity", "Risk level 1 (caution) → 3 (severe)", "Agent"),
    "zh": ("通话证据材料报告", "辱骂", "风险等级 1 (注意) → 3 (严重)", "播报后结束"),
    "ja": ("通話の証拠資料報告書", "暴言", "危険レベル 1 (注意) → 3 (深刻)", "案内して終了"),
}


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_report_says_all_of_it_in_each_language(language: str, tmp_path: Path) -> None:
    pdf = report(language)
    text = text_of(pdf)
    for part in PARTS[language]:
        assert part in text, part
    for fact in (CALL, "1763812345.118", "ab" * 32, f"1234:c0ffee{'0' * 58}", "lee, park", "1:35"):
        assert fact in text, fact
    assert QUOTE in text
    assert f"SHA-256 {'ab' * 32}" in text
    # Each language of the callers, whatever the report's own is.
    for said in ("지난달 요금이", "責任者を出せ", "马上给我解决", "[전화번호]"):
        assert said in text, said
    # No score of the model, and nothing that the agent alone said.
    assert not re.search(r"0\.(61|87|93)", text)
    # Every font is in the file, a part of it: it looks the same anywhere.
    fonts = subprocess.run(["pdffonts", "-"], input=pdf, capture_output=True, check=True)
    lines = fonts.stdout.decode().splitlines()[2:]
    assert len(lines) == 2
    for line in lines:
        assert "NotoSansCJK" in line
        assert line.split()[-5:-2] == ["yes", "yes", "yes"], "embedded, subset, with text"
    assert len(pdf) < 400_000


def test_the_report_drawn(tmp_path: Path) -> None:
    """Rendered: both waveforms and the level are there, nothing at the margins, no empty page."""
    pages = drawn(report("ko"), tmp_path)
    assert 2 <= len(pages) <= 4
    for colours in pages:
        page = colours.min(axis=2)
        assert (page.shape[0], page.shape[1] // 2) == (702, 248), "A4"
        assert (page < 200).sum() > 2000, "no page is empty"
        assert page[:, :25].min() > 250
        assert page[:, -25:].min() > 250, "nothing runs out of the page"
    bare = drawn(report("ko", sound=False), tmp_path)
    for ink in ((150, 40, 40), (40, 80, 150)):
        assert coloured(pages[0], ink) > 300, "a side's waveform"
        assert coloured(bare[0], ink) == 0
    for level in ((200, 225, 200), (250, 225, 150), (225, 100, 90)):
        assert coloured(pages[0], level) > 100, "a level of the caller's"


def drawn(pdf: bytes, folder: Path) -> list[np.ndarray[Any, Any]]:
    """Its pages as pictures, (height, width, 3)."""
    path = folder / "drawn.pdf"
    path.write_bytes(pdf)
    for old in folder.glob("drawn*.ppm"):
        old.unlink()
    subprocess.run(["pdftoppm", "-r", "60", str(path), str(folder / "drawn")], check=True)
    found = []
    for page in sorted(folder.glob("drawn*.ppm")):
        kind, size, depth, data = page.read_bytes().split(b"\n", 3)
        assert (kind, depth) == (b"P6", b"255")
        width, height = map(int, size.split())
        found.append(np.frombuffer(data, np.uint8).reshape(height, width, 3))
    return found


def coloured(page: np.ndarray[Any, Any], colour: tuple[int, int, int]) -> int:
    """Pixels about this colour."""
    return int((np.abs(page.astype(int) - colour).max(axis=2) < 12).sum())


def test_without_a_recording_the_report_says_so() -> None:
    text = text_of(report("ko", sound=False))
    assert "녹취가 포함되지 않은 자료입니다" in text
    assert "발화 기록이 만들어지지 않았습니다: why" in text


def test_a_public_body_says_민원인() -> None:
    text = text_of(report("ko", public=True))
    assert "민원인에게 들려준 안내" in text
    assert "고객" not in text
    assert "고객" in text_of(report("ko"))


def test_every_language_has_the_same_texts_with_the_same_places() -> None:
    folder = Path(texts.__code__.co_filename).parent

    def flat(value: Any, path: str = "") -> Any:
        if isinstance(value, dict):
            for name, item in value.items():
                yield from flat(item, f"{path}.{name}")
        else:
            count = len(value) if isinstance(value, list) else 0
            yield path, (sorted(re.findall(r"\{(\w+)\}", str(value))), count)

    found = {
        name: dict(flat(tomllib.loads((folder / f"{name}.toml").read_text(encoding="utf-8"))))
        for name in LANGUAGES
    }
    assert len(found["ko"]) > 150
    for name in LANGUAGES:
        assert found[name] == found["ko"], name
    # As a Korean call centre writes it.
    korean = (folder / "ko.toml").read_text(encoding="utf-8")
    assert not re.search("상담원|악성|진상|블랙컨슈머", korean)


def test_every_event_of_a_package_has_a_text_or_is_left_out_on_purpose() -> None:
    assert set(_TELLERS) == EVIDENCE_TYPES
    for language in LANGUAGES:
        rows = chained(story())
        told = timeline(rows, texts(language))
        silent = {row.id for row in rows} - {m.event_id for m in (*told.moments, *told.custody)}
        assert silent == set()
    assert [level for _, level in told.levels] == [0, 1, 3, 1]
    assert [one.prompt for one in told.notices] == [
        *("recording", "abuse_prevention", "objection_accepted"),
    ]
    assert [one.key for one in told.notices] == ["", "1", ""]


def test_a_call_that_the_agent_made_is_told_as_such() -> None:
    started, answered, *_ = story()
    outbound = msgspec.structs.replace(started, direction=Direction.OUTBOUND)
    for language in LANGUAGES:
        words = texts(language)
        told = [
            [moment.text for moment in timeline(chained([first, answered]), words).moments]
            for first in (started, outbound)
        ]
        assert told[0] == [words.say("event.call_started"), words.say("event.call_answered")]
        assert not set(told[0]) & set(told[1]), (language, told)
    assert told[1] == ["オペレーターが発信", "お客様が応答"] or language != "ja"


def test_offsets_and_fonts(tmp_path: Path) -> None:
    assert [offset(s) for s in (-1, 0, 59.9, 61, 3725)] == [
        "0:00",
        "0:00",
        "0:59",
        "1:01",
        "1:02:05",
    ]
    faces = {language: find_faces(None, language).regular.number for language in LANGUAGES}
    assert len({faces["ko"], faces["ja"], faces["zh"]}) == 3, "each country's own shapes"
    assert find_faces(None, "ko").bold.path.name == "NotoSansCJK-Bold.ttc"
    with pytest.raises(EvidenceError, match="there is no file"):
        find_faces(tmp_path / "none.ttc", "ko")
    (tmp_path / "no.ttc").write_bytes(b"ttcf and nothing")
    with pytest.raises(EvidenceError, match="cannot be used"):
        find_faces(tmp_path / "no.ttc", "ko")


def test_a_machine_without_the_font_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("notifier.evidence_font.PLACES", ("/nowhere/x.ttc",))
    with pytest.raises(EvidenceError, match="apt-get install fonts-noto-cjk"):
        find_faces(None, "ko")
    assert any(Path(place).is_file() for place in PLACES)


def test_a_character_that_the_font_lacks_is_in_no_log(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """The library would say which one it was: a piece of what somebody said."""
    from fpdf import FPDF

    faces = find_faces(None, "ko")
    pdf = FPDF()
    pdf.add_font("x", "", faces.regular.path, collection_font_number=faces.regular.number)
    pdf.add_page()
    pdf.set_font("x", size=9)
    pdf.cell(0, 5, "\U0001f92c ሀ")
    pdf.output()
    assert "missing" not in caplog.text
    assert "missing" not in capsys.readouterr().err
