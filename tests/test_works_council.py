"""The paper for the works council says what the configuration in force does, and nothing else."""

from __future__ import annotations

import re
from typing import Any

import pytest

from callshield.settings import Settings
from callshield.works_council import _TABLES, OPEN, fingerprint, paper

TEAM = {
    "supervisors": {"kim": {"uri": "sip:2000@192.0.2.21:5060", "role": "manager"}},
    "teams": {"north": {"supervisors": ["kim"]}},
}


def written(**tables: Any) -> str:
    law = {"preset": "kr-private", **tables.pop("law", {})}
    return paper(Settings(**{"law": law, **TEAM, **tables}))


def test_the_same_configuration_gives_the_same_paper() -> None:
    assert written() == written()
    assert not re.search(r"20\d\d-\d\d-\d\d \d\d:", written()), "no time of its making"


def test_the_paper_says_what_is_in_force() -> None:
    text = written(
        recording={"enabled": True, "retention_days": 45},
        retention={"words_days": 12},
        quality={"per_agent": 3, "contest_within_days": 21},
        law={"grievance_contact": "고충처리위원 내선 1234", "privacy_contact": "보호책임자"},
        aftercare={"counselling": "마음건강실", "counselling_number": "1588-0000"},
    )
    assert "프리셋: `kr-private` 버전 1" in text
    assert "근로자참여 및 협력증진에 관한 법률 제20조제1항제14호" in text
    assert "암호화하여 저장, 45일 뒤 삭제 | 켜짐 |" in text
    assert "| 녹취 파일(증거자료 요청 중인 것은 제외) | 45 |" in text
    assert "| 고객의 말 인용(개인정보 삭제) | 12 |" in text
    assert "매월 상담사마다 3건" in text
    assert "21일 안에 이의" in text
    assert "뒤 10분." in text, "the preset's own rest"
    assert "치료·상담 지원: 마음건강실 1588-0000" in text
    assert "고충 처리: 고충처리위원 내선 1234" in text
    assert "개인정보 문의: 보호책임자" in text
    assert "소프트웨어가 통화를 분석합니다. (`abuse_prevention` 버전 1)" in text


@pytest.mark.parametrize(
    ("tables", "line"),
    [
        ({"detector": {"enabled": False}}, "위험 수준(정상·주의·위험·심각)을 판단 | 꺼짐 |"),
        (
            {"detector": {"acoustic": False}},
            "| 고객의 목소리 크기와 세기 | 음향 모델로 판단 | 꺼짐 |",
        ),
        ({"transcriber": {"workers": 0}}, "개인정보는 지우고 내보냄 | 꺼짐 |"),
        ({}, "| 녹취 | 안내가 끝난 뒤부터 양쪽 음성을 암호화하여 저장, 90일 뒤 삭제 | 꺼짐 |"),
        (
            {"recording": {"enabled": True, "begin": "on_request"}},
            "| 녹취 | 상담사가 요청한 때부터",
        ),
        ({"law": {"preset": ""}}, "적용한 법령 프리셋: 없음"),
        ({"law": {"preset": ""}}, "보호휴식: 설정되어 있지 않음"),
        ({"retention": {"enabled": False}}, "자동 삭제가 꺼져 있습니다"),
        ({"shadow": {"groups": ["trial"]}}, "시험 운영 그룹(trial)"),
        ({"ringback": {"enabled": True, "days": 7}}, "해시값) | 7 |"),
        (
            {"teams": {"north": {"supervisors": ["kim"], "policy": {"automatic_warnings": True}}}},
            "| 확인된 폭언에만 |",
        ),
        (
            {"teams": {"north": {"supervisors": ["kim"], "policy": {"level_3": "manager"}}}},
            "심각: 책임자와 팀 관리자 모두에게",
        ),
        ({"law": {"preset": ""}, "notice": {"consent_key": "1"}}, "1번을 누르지 않으면"),
        (
            {
                "webhooks": {
                    "crm": {"url": "https://crm.example.com/x?token=secret", "secret_file": "/x"}
                }
            },
            "- 웹훅 `crm` (crm.example.com): alert.escalated",
        ),
        ({"mail": {"host": "mail.example.com"}}, "전자우편(mail.example.com)"),
    ],
)
def test_each_setting_is_told_and_not_told_where_it_is_not_so(
    tables: dict[str, Any], line: str
) -> None:
    if "mail" in tables:
        tables["mail"] |= {"sender": "c@example.com", "to": ["d@example.com"]}
    assert line in written(**tables)
    other = written(
        recording={"enabled": True},
        law={"preset": "kr-public"},
        teams={"north": {"supervisors": ["kim"], "policy": {"level_3": "nobody"}}},
    )
    assert line not in other, "the control: a paper of another configuration does not say so"


def test_every_table_about_people_is_in_the_fingerprint() -> None:
    """A new table of the configuration is told, or named here because it is about machines."""
    machines = {
        *("node", "sip", "peers", "agents", "supervisors", "teams", "headsets", "trunks"),
        *("outbound", "web", "ami", "store", "oidc", "phones", "webhooks", "mail", "limits"),
        *("cluster", "edge"),
    }
    assert set(Settings.model_fields) ^ (set(_TABLES) | machines) == set()
    assert fingerprint(Settings(**TEAM)) != fingerprint(
        Settings(**TEAM, privacy={"agent_channel": "include"})
    )


def test_the_voice_the_evidence_and_the_callers_own_request_are_told() -> None:
    text = written()
    assert "15분 넘게 쉬지 않고 말했을 때" in text
    assert "거절된 뒤에도 90일 동안 보존" in text
    assert "열람 요구(고객의 음성만)" in text
    other = written(
        hearing={"voice_hint_after_s": 0},
        evidence={"approvers": ["kim"], "hold_after_refusal_days": 30},
        privacy={"agent_channel": "include", "find_by_number": False},
    )
    assert "쉬지 않고" not in other
    assert "거절된 뒤에도 30일 동안 보존" in other
    assert "따로 정한 1명" in other
    assert "열람 요구(상담사의 음성 포함)" in other
    assert "해시값만 저장 | 꺼짐 |" in other


def test_nothing_secret_and_no_person_is_in_it() -> None:
    text = written(
        webhooks={"crm": {"url": "https://crm.example.com/x?token=secret", "secret_file": "/x"}},
        agents={"1001-hong": {"uri": "sip:1001@192.0.2.20:5060"}},
        store={"url": "postgresql://callshield@db.example.com/callshield"},
    )
    for word in ("secret", "1001-hong", "192.0.2.20", "callshield@db", "kim"):
        assert word not in text, word
    assert "데이터베이스(db.example.com)" in text


def test_what_no_setting_knows_stands_open() -> None:
    assert written().count(OPEN) >= 5
    named = written(
        law={"grievance_contact": "가", "privacy_contact": "나"}, aftercare={"counselling": "다"}
    )
    assert named.count(OPEN) == written().count(OPEN) - 3


def test_a_public_bodys_paper_speaks_of_petitioners_and_quotes_as_it_is() -> None:
    text = written(law={"preset": "kr-public"})
    assert "| 민원인의 음성 |" in text
    assert "고객응대업무 매뉴얼" in text, "a statute's own word"
    assert [
        line for line in text.splitlines() if "고객" in line and line[:2] not in ("  ", "> ")
    ] == []
    assert "민원인" not in written()
    # A team of the operator's own word is no public one.
    assert "| 고객의 음성 |" in written(
        law={"preset": "kr-public"}, teams={"north": {"supervisors": ["kim"], "preset": "kr"}}
    )


def test_the_fingerprint_changes_with_what_the_paper_depends_on_and_with_nothing_else() -> None:
    base = {"law": {"preset": "kr-private"}, **TEAM}
    one = fingerprint(Settings(**base))
    assert f"`{one}`" in paper(Settings(**base))
    assert fingerprint(Settings(**base, web={"port": 9000})) == one
    assert fingerprint(Settings(**base, agents={"7": {"uri": "sip:7@192.0.2.7"}})) == one
    for changed in (
        {"retention": {"words_days": 1}},
        {"aftercare": {"counselling": "x"}},
        {"webhooks": {"crm": {"url": "https://crm.example.com", "secret_file": "/x"}}},
        {"teams": {"north": {"supervisors": ["kim"], "policy": {"automatic_warnings": True}}}},
    ):
        assert fingerprint(Settings(**{**base, **changed})) != one, changed


def test_words_that_a_korean_call_centre_does_not_use_are_not_in_it() -> None:
    text = written() + written(law={"preset": "kr-public"})
    for word in ("상담원", "악성고객", "악성 고객", "진상", "블랙컨슈머"):
        assert word not in text


def test_another_media_plane_is_told_with_what_it_takes_away() -> None:
    usual = written()
    assert "들리는 소리를 제한하고" in usual
    assert "rtpengine" not in usual
    text = written(
        media={"plane": "rtpengine"},
        ear={"limiter": False, "levelling": False, "soften_from_level": 4},
        hearing={"dose_warnings_pct": [], "voice_hint_after_s": 0},
        notice={"agent_hears": "nothing"},
        help={"phones": False},
        recording={"enabled": False},
    )
    assert "들리는 소리를 제한하고" not in text
    assert "소리를 제한하지 않고 소음 노출량도 재지 않음" in text
    assert "기술적으로 통화를 엿들을 수 있습니다" in text
    assert "1비트" not in text
