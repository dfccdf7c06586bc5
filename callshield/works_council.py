"""The paper for the works council (노사협의회 설명자료), from the configuration in force.

근로자참여 및 협력증진에 관한 법률 제20조제1항제14호 makes equipment that can watch workers a matter
for consultation. The paper says what this node does, by its own settings; what no setting knows
stands as :data:`OPEN` for a person to fill in. It holds no date and no id of a person, so that the
same configuration gives the same paper.
"""

from __future__ import annotations

import hashlib
import json
from urllib.parse import urlsplit

from callshield.settings import Settings
from notifier.policy import Policies, Policy
from notifier.rota import Teams
from sipbridge.prompt_catalogue import Prompts

#: What a person has to fill in.
OPEN = "(기재 필요)"
_LANGUAGES = {"ko": "한국어", "en": "영어", "zh": "중국어", "ja": "일본어", "detect": "자동 판별"}
_LEVELS = {1: "주의", 2: "위험", 3: "심각"}
_TOLD = {
    "nobody": "알리지 않음",
    "in_turn": "팀 관리자에게 순서대로",
    "all": "팀 관리자 모두에게",
    "manager": "책임자와 팀 관리자 모두에게",
}
#: How a line begins that names a statute, or quotes an announcement.
_SOURCE, _QUOTED = "  - ", "> "
#: Tables of the configuration that say what is done with people's data; the fingerprint is theirs.
_TABLES = (
    "law", "help", "notice", "callers", "detector", "transcriber", "recording", "alerts",
    "aftercare", "breaks", "callbacks", "evidence", "crisis", "ear", "hearing", "quality",
    "reports", "ringback", "shadow", "retention", "privacy", "media",
)  # fmt: skip


def paper(settings: Settings) -> str:
    """The whole paper, as Markdown in Korean.

    Args:
        settings: the configuration in force.

    Raises:
        SetupError: the announcements cannot be read, so that nobody can say what callers hear.
    """
    prompts = Prompts(settings)
    sections = [
        ("1. 왜 협의하는가", _why(settings)),
        ("2. 무엇을 처리하는가", _what(settings)),
        ("3. 처리 목적", _purposes(settings)),
        ("4. 고객이 듣는 안내", _notices(settings, prompts)),
        ("5. 누가 무엇을 보는가", _who_sees(settings)),
        ("6. 시스템이 스스로 하는 일", _automatic(settings)),
        ("7. 폭언 뒤의 보호 조치", _aftercare(settings)),
        ("8. 보관 기간", _retention(settings)),
        ("9. 밖으로 나가는 정보", _outside(settings)),
        ("10. 하지 않는 일", _never(settings)),
        ("11. 상담사의 권리", _rights(settings)),
        ("12. 문의와 고충", _contacts(settings)),
        ("13. 확인 방법", _checks(settings)),
    ]
    lines = [
        "# 상담사 보호 시스템(Callshield) 노사협의회 설명자료",
        "",
        f"- 사업장: {OPEN}",
        f"- 협의일: {OPEN}",
        f"- 설정 지문: `{fingerprint(settings)}`",
        "",
        "이 자료는 지금 적용 중인 설정에서 자동으로 만든 것입니다. 설정이 바뀌면 지문이 바뀌므로 "
        "다시 만들어 협의해야 합니다. 법률 자문이 아닙니다.",
    ]
    public = all(team.preset == "public" for team in settings.teams.values()) and (
        bool(settings.teams) or settings.alerts.preset == "public"
    )
    for title, body in sections:
        text = [f"## {title}", "", *body]
        lines += ["", *(_for_public(text) if public else text)]
    return "\n".join(lines) + "\n"


def _for_public(lines: list[str]) -> list[str]:
    """A public body's paper speaks of 민원인, as its consoles do; quotations stay as they are."""
    return [
        line if line.startswith((_SOURCE, _QUOTED)) else line.replace("고객", "민원인")
        for line in lines
    ]


def fingerprint(settings: Settings) -> str:
    """First 16 digits of the SHA-256 of what the paper depends on; no person's data are in it."""
    tables = {name: getattr(settings, name).model_dump(mode="json") for name in _TABLES}
    tables["teams"] = {
        name: table.model_dump(mode="json", include={"preset", "policy"})
        for name, table in sorted(settings.teams.items())
    }
    tables["outside"] = _outside(settings)
    text = json.dumps(tables, ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _on(value: bool) -> str:
    return "켜짐" if value else "꺼짐"


def _voice(settings: Settings) -> str:
    """What else the bit of the agent's own voice is for."""
    if not settings.hearing.times_speech:
        return ""
    after = _span(settings.hearing.voice_hint_after_s)
    return f"와 {after} 넘게 쉬지 않고 말했을 때 본인에게 목을 쉬도록 안내하는 데"


def _span(seconds: float) -> str:
    """A length of time as people say it."""
    if seconds >= 3600 and seconds % 3600 == 0:
        return f"{seconds / 3600:g}시간"
    return f"{seconds / 60:g}분" if seconds >= 60 else f"{seconds:g}초"


def _why(settings: Settings) -> list[str]:
    preset = settings.law.chosen
    lines = [
        "- 통화를 분석하는 설비는 사업장 내 근로자 감시 설비에 해당할 수 있어 노사협의회 협의 "
        "사항입니다(근로자참여 및 협력증진에 관한 법률 제20조제1항제14호).",
        "- 이 시스템은 고객의 폭언으로부터 상담사를 보호하기 위한 것입니다(산업안전보건법 제41조).",
    ]
    if preset is None:
        return [*lines, "- 적용한 법령 프리셋: 없음. 적용할 법령은 따로 확인해야 합니다."]
    lines.append(
        f"- 적용한 법령 프리셋: `{preset.id}` 버전 {preset.version} (근거 확인일 {preset.checked})."
    )
    sources = list(dict.fromkeys(r.source for r in preset.rules if r.kind != "chosen"))
    return [*lines, "- 프리셋이 따르는 법령:", *(f"  - {source}" for source in sources)]


def _what(settings: Settings) -> list[str]:
    detector, recording = settings.detector, settings.recording
    words = detector.enabled and settings.transcriber.workers > 0
    spoken = ", ".join(_LANGUAGES[one] for one in settings.caller_languages)
    kept = f"양쪽 음성을 암호화하여 저장, {recording.retention_days}일 뒤 삭제"
    when = "상담사가 요청한 때부터" if recording.begin == "on_request" else "안내가 끝난 뒤부터"
    voice = detector.enabled and detector.acoustic
    return [
        "| 대상 | 처리 | 상태 |",
        "|---|---|---|",
        "| 고객의 음성 | 안내가 끝난 뒤부터 위험 수준(정상·주의·위험·심각)을 판단 | "
        f"{_on(detector.enabled)} |",
        f"| 고객의 목소리 크기와 세기 | 음향 모델로 판단 | {_on(voice)} |",
        f"| 고객의 말 | 글로 옮겨 폭언인지 판단({spoken}), 개인정보는 지우고 내보냄 | {_on(words)} "
        "|",
        _agents_voice(settings),
        f"| 녹취 | {when} {kept} | {_on(recording.enabled)} |",
        "| 상담사 사이의 통화(내선) | **분석도 녹취도 하지 않음** | 항상 |",
        _agents_ear(settings),
        "| 고객의 전화번호 | 고객이 자기 자료를 요청할 때 찾을 수 있도록 키를 쓴 해시값만 저장 | "
        f"{_on(settings.privacy.find_by_number)} |",
        f"| 재연락을 약속한 고객의 전화번호 | 재연락할 때까지만 암호화하여 저장 | "
        f"{_on(settings.callbacks.keep_number)} |",
        "| 고객의 전화번호 | 사람이 통화를 종료한 고객이 다시 걸면 상담사에게 표시(번호 대신 키를 "
        "쓴 "
        f"해시값, {settings.ringback.days}일). 통화는 그대로 연결 | "
        f"{_on(settings.ringback.enabled)} |",
    ]


def _by_rtpengine(settings: Settings) -> bool:
    """The audio goes through an rtpengine, which protects no ear and hears nobody speak."""
    return bool(settings.media.plane == "rtpengine")


def _agents_voice(settings: Settings) -> str:
    told = (
        "| 상담사의 음성 | **분석하지 않음.** 고객에게 전달하고, 녹취가 켜진 통화에서만 함께 저장."
    )
    if _by_rtpengine(settings):
        return "| 상담사의 음성 | **분석하지 않음.** 고객에게 전달만 하고 저장하지 않음 | 항상 |"
    return (
        f"{told} 말하고 있는지 여부(1비트)만 소리 되울림을 가리는 데{_voice(settings)} 쓰고 "
        "저장하지 않음 | 항상 |"
    )


def _agents_ear(settings: Settings) -> str:
    if _by_rtpengine(settings):
        return (
            "| 상담사의 청력 | **이 시스템은 소리를 제한하지 않고 소음 노출량도 재지 않음**"
            "(rtpengine 사용). 전화기나 헤드셋의 음량 제한 기능으로 보호해야 함 | 꺼짐 |"
        )
    return (
        "| 상담사의 청력 | 들리는 소리를 제한하고 소음 노출량을 잼. 개인별 수치는 본인에게만 보임. "
        "안전 담당을 위해 주별로 5명 이상 묶음의 추세만 감사 담당자·근로자 대표·시스템 "
        "관리자가 봄 | 항상 |"
    )


def _purposes(settings: Settings) -> list[str]:
    lines = [
        "- 폭언을 상담사와 관리자에게 알리고, 상담사가 경고·도움 요청·이관·종료를 할 수 있게 함",
        "- 폭언 뒤의 휴식과 증거자료 지원",
        *([] if _by_rtpengine(settings) else ["- 상담사의 청력 보호"]),
    ]
    if settings.quality.per_agent:
        lines.append(
            f"- 상담 품질 평가: 매월 상담사마다 {settings.quality.per_agent}건을 추첨(사람이 고를 "
            "수 "
            "없고, 폭언 통화는 제외)"
        )
    else:
        lines.append("- 상담 품질 평가에는 쓰지 않음")
    return [*lines, "- 그 밖의 목적(인사고과, 근태 확인, 상담사 비교)에는 쓰지 않음"]


def _notices(settings: Settings, prompts: Prompts) -> list[str]:
    lines = ["분석과 녹취는 고객이 아래 안내를 끝까지 들은 뒤에 시작합니다."]
    for language in settings.notice.spoken:
        said = prompts.of(language).notice
        lines += ["", f"{_LANGUAGES[language]}:", ""]
        lines += [
            f"{_QUOTED}{prompt.text or OPEN} (`{prompt.prompt_id}` 버전 {prompt.version})"
            for prompt in said
        ]
    keys = []
    if key := settings.notice.objection_key:
        keys.append(f"- 고객이 {key}번을 누르면 분석과 녹취 없이 통화가 계속됩니다(보호 꺼짐).")
    if key := settings.notice.consent_key:
        keys.append(f"- 고객이 {key}번을 누르지 않으면 분석과 녹취 없이 통화가 계속됩니다.")
    keys = keys or ["- 고객이 번호를 눌러 보호를 끌 수는 없습니다."]
    return [*lines, "", *keys]


def _who_sees(settings: Settings) -> list[str]:
    given = "상담사의 음성 포함" if settings.privacy.agent_channel == "include" else "고객의 음성만"
    return [
        "| 누구 | 보는 것 | 보지 못하는 것 |",
        "|---|---|---|",
        "| 상담사 본인 | 자기 통화의 위험 수준·이유·들린 말(개인정보 삭제), 자기 휴식·기록·평가, "
        "누가 자기 녹취를 열었는지 | 다른 상담사의 통화 |",
        "| 관리자 | 담당 팀(사람에 묶이지 않은 토큰은 전체) 통화의 위험 수준·유형·시간, 알림. "
        "상담사가 "
        "**도움을 요청한 뒤에만** 들린 말 | 통화 음성, 상담사가 누른 버튼과 점수의 비교, 상담사의 "
        "평가 점수 목록 |",
        "| 감사 담당자 | 적용 중인 정책, 누가 무엇을 열람했는지, 5명 이상 묶음의 통계 | 통화 내용 "
        "|",
        "| 근로자 대표 | 적용 중인 정책, 열람 횟수, 5명 이상 묶음의 통계, 기록의 검증값 | 통화, "
        "개인별 수치 |",
        "| 시스템 관리자 | 설정, 장애, 전송 상태, 모든 팀에 대하여 관리자와 같은 것 | 관리자와 "
        "같음 |",
        "",
        "- 녹취는 추첨, 상담사 본인의 증거자료 요청, 이름이 붙은 민원, 고객 본인의 개인정보 열람 "
        f"요구({given}) 중 하나가 있어야 열 수 있고, 열면 그 상담사에게 바로 알립니다.",
        f"- 주간 보고는 5명 이상 묶음으로만 만듭니다({_on(settings.reports.weekly)}). 개인별 "
        "보고는 없습니다.",
    ]


def _automatic(settings: Settings) -> list[str]:
    teams = Teams(settings)
    policies = Policies(settings, teams)
    lines = [
        "통화를 끝내는 버튼은 사람이 누릅니다. 아래는 팀마다 적용 중인 정책입니다.",
        "",
        "| 팀 | 위험 수준별로 먼저 알리는 사람 | 도움 요청 | 자동 경고 멘트 | 통화 시간 안내 | "
        "자동 종료 |",
        "|---|---|---|---|---|---|",
    ]
    for team in sorted(teams.all(), key=lambda one: one.name):
        policy = policies.named(team.name)
        levels = "; ".join(f"{_LEVELS[n]}: {_TOLD[policy.at_level(n)]}" for n in _LEVELS)
        lines.append(
            f"| {team.name or '(팀 없음)'} | {levels} | {_TOLD[policy.help]} | "
            f"{'확인된 폭언에만' if policy.automatic_warnings else '없음'} | {_lengths(policy)} | "
            f"{'권장 시간 뒤 자동 종료' if policy.length_end_automatically else '없음'} |"
        )
    number, name = settings.crisis_line
    lines += [
        "",
        "- 소리만으로는 위험(2단계)을 넘지 않으며 아무것도 자동으로 하지 않습니다.",
        "- 고객이 위험한 상황일 수 있다는 말이 들리면 상담사와 관리자에게 알리고 연결할 번호"
        f"({' '.join(part for part in (name, number) if part)})를 보여 줍니다. 폭언으로 보지 "
        "않으며 자동 "
        "조치를 모두 막습니다.",
    ]
    if (level := settings.ear.soften_from_level) in _LEVELS:
        lines.append(
            f"- {_LEVELS[level]}부터 고객의 고성을 상담사의 귀에서만 낮춥니다. 상담사가 끌 수 "
            "있습니다."
        )
    if settings.shadow.groups:
        groups = ", ".join(sorted(settings.shadow.groups))
        lines.append(
            f"- 시험 운영 그룹({groups}): 상담사에게만 보이고, 도움을 요청하기 전에는 관리자에게 "
            "알리지 "
            "않습니다."
        )
    return lines


def _lengths(policy: Policy) -> str:
    if not policy.length_notice_min and not policy.length_end_min:
        return "없음"
    notice = f"{policy.length_notice_min}분 안내" if policy.length_notice_min else ""
    end = f"{policy.length_end_min}분 종료 권유" if policy.length_end_min else ""
    return ", ".join(part for part in (notice, end) if part)


def _aftercare(settings: Settings) -> list[str]:
    care = settings.aftercare
    if not care.rest_s:
        rest = "- 보호휴식: 설정되어 있지 않음"
    else:
        level = _LEVELS[care.from_level]
        ended = " 또는 안내 후 종료한 통화" if care.after_end else ""
        rest = (
            f"- 보호휴식: {level} 이상이었던 통화{ended} 뒤 {_span(care.rest_s)}. 상담사가 한 번에 "
            f"{_span(care.extend_s)}씩, 모두 {_span(care.longest_s)}까지 늘릴 수 있고, 관리자는 "
            "줄이거나 끝낼 수 없음"
        )
    counselling = " ".join(part for part in (care.counselling, care.counselling_number) if part)
    return [
        rest,
        f"- 치료·상담 지원: {counselling or OPEN}",
        f"- {_LEVELS[care.exclude_from_level]} 이상이었거나, 안내 후 종료했거나, 상담사가 "
        "폭언이라고 "
        "알린 통화는 품질 평가·처리 시간·만족도 조사에서 뺌",
        f"- 계획된 휴게시간({len(settings.breaks.plans)}개 계획)을 폭언 통화가 침해하면 그만큼 "
        "돌려줌",
        "- 증거자료 요청: 상담사가 통화 뒤 24시간 안에 요청하면 처리될 때까지 그 통화의 녹취와 "
        "기록을 모두 지우지 않음. 거절하려면 사유를 적어야 하고 상담사가 그 사유를 그대로 읽음. "
        f"거절된 뒤에도 {settings.evidence.hold_after_refusal_days}일 동안 보존하며 고충 처리로 "
        f"이의를 낼 수 있음. 결정하는 사람: {_approvers(settings)}",
        f"- 책임자 이관에 아무도 응답하지 않으면: {_callback(settings)}",
    ]


def _approvers(settings: Settings) -> str:
    """How many, not who: the paper names nobody."""
    named = len(settings.evidence.approvers)
    who = f"따로 정한 {named}명" if named else "담당 팀 관리자"
    return f"{who}, 시스템 관리자(본인의 요청은 제외)"


def _callback(settings: Settings) -> str:
    within = settings.callbacks.within_s
    return f"{_span(within)} 안에 책임자가 다시 전화" if within else "회신 약속 없음"


def _retention(settings: Settings) -> list[str]:
    days = settings.retention.days
    rows = [
        ("고객의 말 인용(개인정보 삭제)", days("words")),
        ("통화에서 일어난 일의 기록", days("events")),
        ("알림", days("alerts")),
        ("통화 기록과 분석 수치", days("calls")),
        ("보내지 못한 외부 전송", days("dead_letters")),
        ("만료된 접속 토큰", settings.retention.tokens_days),
    ]
    if settings.recording.enabled:
        rows.append(("녹취 파일(증거자료 요청 중인 것은 제외)", settings.recording.retention_days))
    if settings.ringback.enabled:
        rows.append(("종료 후 재발신 표시(전화번호 대신 해시값)", settings.ringback.days))
    lines = ["| 종류 | 보관 일수 |", "|---|---|", *(f"| {name} | {n} |" for name, n in rows)]
    by = (
        "기간이 지나면 시스템이 스스로 지우고, 지웠다는 사실을 기록합니다."
        if settings.retention.enabled
        else "자동 삭제가 꺼져 있습니다. 담당자가 `callshield retention run`으로 지워야 합니다."
    )
    return [*lines, "", by]


def _outside(settings: Settings) -> list[str]:
    lines = [
        f"- 웹훅 `{name}` ({urlsplit(hook.url).hostname}): {', '.join(sorted(hook.events))}. 오간 "
        "말은 "
        "보내지 않음"
        for name, hook in sorted(settings.webhooks.items())
    ]
    if settings.mail.host:
        lines.append(f"- 전자우편({settings.mail.host}): 알림의 종류·수준·번호만")
    if settings.ami.enabled:
        lines.append(f"- 교환기({settings.ami.host}): 휴식 중 대기열 정지, 통화 상태, 제외 표시")
    if settings.store.url:
        host = urlsplit(settings.store.url).hostname or "이 서버"
        lines.append(f"- 데이터베이스({host}): 위 8항의 기록")
    if settings.oidc.issuer:
        lines.append(f"- 회사 계정 로그인({urlsplit(settings.oidc.issuer).hostname}): 로그인 확인")
    lines = lines or ["- 없음"]
    return [*lines, "- 음성의 분석과 음성 인식은 모두 이 서버 안에서 합니다."]


def _never(settings: Settings) -> list[str]:
    lines = [
        "- 통화를 몰래 듣거나 읽는 기능이 없습니다. 관리자는 상담사가 요청했을 때만, 고객과 "
        "상담사 모두에게 안내가 나간 뒤에 통화에 들어옵니다.",
        "- 상담사의 음성·감정·말투를 분석하거나 점수를 매기지 않습니다.",
        "- 상담사를 비교하거나 순위를 매기지 않습니다. 5명 미만의 수치는 만들지 않습니다.",
        "- 상담사가 누른 버튼을 시스템의 판단과 맞대어 보여 주지 않습니다.",
        "- 안내가 끝나기 전에는 아무것도 분석하거나 녹취하지 않습니다.",
        "- 목소리로 누구인지 알아내지 않습니다(성문을 만들거나 저장하지 않음).",
        "- 기록(로그)에 이름·전화번호·오간 말을 남기지 않습니다.",
    ]
    if not settings.quality.per_agent:
        lines.append("- 녹취를 품질 평가용으로 열 수 없습니다(추첨 건수 0).")
    if _by_rtpengine(settings):
        lines.append(
            "- 다만 통화 음성은 별도 서버(rtpengine)를 거칩니다. 이 서버의 제어 포트나 관리자 "
            "계정에 접근할 수 있는 사람은 기술적으로 통화를 엿들을 수 있습니다. 접근할 수 있는 "
            f"사람과 접근을 막는 방법: {OPEN}"
        )
    return lines


def _rights(settings: Settings) -> list[str]:
    lines = [
        "- 모든 버튼(경고 멘트, 관리자 호출, 책임자 이관, 안내 후 종료)은 위험 수준과 관계없이 "
        "언제나 "
        "쓸 수 있고, 어떤 설정도 종료 버튼을 숨기거나 늦추거나 막지 못합니다.",
        "- 상담사가 폭언이라고 알리면 시스템의 판단과 같은 효과가 있습니다. 통화 뒤 24시간까지 "
        "알릴 수 있습니다.",
        "- 보호 조치를 요구했다는 이유로 해고 등 불리한 처우를 받지 않습니다(산업안전보건법 "
        "제41조제3항).",
        "- 자기 녹취를 누가 언제 왜 열었는지 볼 수 있습니다.",
        "- 녹취와 분석을 일시중지할 수 있습니다(카드번호 등).",
    ]
    if settings.quality.per_agent:
        lines.append(
            f"- 품질 평가 점수는 본인만 보며, {settings.quality.contest_within_days}일 안에 이의를 "
            "제기하면 다른 사람이 다시 평가하고 나은 점수가 남습니다."
        )
    return lines


def _contacts(settings: Settings) -> list[str]:
    return [
        f"- 고충 처리: {settings.law.grievance_contact or OPEN}",
        f"- 개인정보 문의: {settings.law.privacy_contact or OPEN}",
        f"- 시스템 운영 부서: {OPEN}",
    ]


def _checks(settings: Settings) -> list[str]:
    return [
        "- 근로자 대표에게는 전용 토큰을 드립니다: `callshield token create --role "
        "representative`. 적용 중인 "
        "정책, 열람 기록의 횟수, 5명 이상 묶음의 통계, 기록 사슬의 검증값을 직접 볼 수 있습니다.",
        "- 이 자료의 지문은 같은 설정에서 언제나 같습니다: `callshield compliance works-council`.",
        "- 교환기 자체의 청취 기능은 이 시스템 밖에 있습니다. `callshield doctor --pbx`가 찾아서 "
        "알려 주는 것을 함께 확인하십시오.",
    ]
