"""Words of an answer to a caller, in the four languages: what happened, and what the files are."""

from __future__ import annotations

from collections.abc import Mapping

#: What each event that a caller is given says; a test holds this to the inventory.
EVENTS: Mapping[str, Mapping[str, str]] = {
    "ko": {
        "alert.acknowledged": "관리자가 알림을 확인함",
        "alert.escalated": "알림이 관리자에게 전달됨",
        "alert.raised": "관리자에게 알림",
        "alert.refused": "관리자가 갈 수 없다고 답함",
        "alert.unanswered": "아무도 응답하지 않음",
        "alert.withheld": "시범 운영 중이라 보내지 않은 알림",
        "call.analysed": "통화 분석 요약(점수)",
        "call.answered": "통화 연결",
        "call.ended": "통화 종료",
        "call.ending": "안내 후 종료 시작",
        "call.length": "통화 시간 안내 기준 도달",
        "call.marked": "품질 평가·처리 시간·설문에서 제외",
        "call.started": "통화 시작",
        "callback.changed": "다시 전화하기로 한 약속",
        "callback.spoken": "다시 전화한다는 안내가 재생됨",
        "crisis.hint": "위기 상황 가능성 감지",
        "evidence.exported": "증거자료로 내보냄",
        "hand_over.unanswered": "책임자가 응답하지 않음",
        "helper.changed": "관리자 참여 상태",
        "hold.changed": "보류 상태",
        "media.quality": "통화 품질",
        "media.silent": "음성 끊김",
        "notice.finished": "안내 멘트 끝",
        "notice.started": "안내 멘트 시작",
        "pause.changed": "녹음·분석 일시 중지 상태",
        "prompt.played": "안내 멘트 재생",
        "protection.changed": "고객의 선택에 따른 분석 여부",
        "record.read": "통화 내용 열람",
        "recording.changed": "녹음 상태",
        "recording.opened": "녹음 열람",
        "ringback.marked": "안내 후 종료된 번호로 표시됨",
        "ringback.seen": "최근 안내 후 종료된 번호로 확인됨",
        "risk.changed": "소프트웨어가 판단한 위험도",
        "tap.started": "소프트웨어 분석 시작",
        "warning.played": "경고 안내 재생",
    },
    "en": {
        "alert.acknowledged": "a supervisor took the alert",
        "alert.escalated": "the alert was taken to supervisors",
        "alert.raised": "supervisors were alerted",
        "alert.refused": "a supervisor could not come",
        "alert.unanswered": "nobody came",
        "alert.withheld": "an alert that was kept back during a trial",
        "call.analysed": "figures of the analysis",
        "call.answered": "the call was answered",
        "call.ended": "the call ended",
        "call.ending": "the end was announced",
        "call.length": "the call reached a set length",
        "call.marked": "left out of quality scoring, handling time and surveys",
        "call.started": "the call began",
        "callback.changed": "a promise to call back",
        "callback.spoken": "it was announced that somebody calls back",
        "crisis.hint": "software heard that the caller may be in danger",
        "evidence.exported": "a package of evidence was made of the call",
        "hand_over.unanswered": "the manager did not answer",
        "helper.changed": "a supervisor or manager in the call",
        "hold.changed": "hold",
        "media.quality": "quality of the line",
        "media.silent": "silence on the line",
        "notice.finished": "the notice was over",
        "notice.started": "the notice began",
        "pause.changed": "pause of recording and analysis",
        "prompt.played": "an announcement was played",
        "protection.changed": "the caller's choice about analysis",
        "record.read": "somebody was shown what was said",
        "recording.changed": "recording",
        "recording.opened": "somebody opened the recording",
        "ringback.marked": "the number was marked as one whose call was ended",
        "ringback.seen": "the number was known as one whose call was ended",
        "risk.changed": "the level that software found",
        "tap.started": "analysis by software began",
        "warning.played": "a warning was played",
    },
    "zh": {
        "alert.acknowledged": "主管已接收提醒",
        "alert.escalated": "提醒已转给主管",
        "alert.raised": "已提醒主管",
        "alert.refused": "主管表示无法到场",
        "alert.unanswered": "无人应答",
        "alert.withheld": "试运行期间未发出的提醒",
        "call.analysed": "通话分析数据（分数）",
        "call.answered": "通话接通",
        "call.ended": "通话结束",
        "call.ending": "开始播放结束语",
        "call.length": "通话达到设定时长",
        "call.marked": "不计入质量评估、处理时长和满意度调查",
        "call.started": "通话开始",
        "callback.changed": "回电承诺",
        "callback.spoken": "已告知将会回电",
        "crisis.hint": "软件听到客户可能处于危险",
        "evidence.exported": "已将通话制作成证据资料",
        "hand_over.unanswered": "负责人未接听",
        "helper.changed": "主管参与状态",
        "hold.changed": "保持状态",
        "media.quality": "线路质量",
        "media.silent": "线路无声",
        "notice.finished": "提示语播放完毕",
        "notice.started": "开始播放提示语",
        "pause.changed": "录音与分析暂停状态",
        "prompt.played": "播放提示语",
        "protection.changed": "客户对分析的选择",
        "record.read": "有人查看了通话内容",
        "recording.changed": "录音状态",
        "recording.opened": "有人打开了录音",
        "ringback.marked": "号码被标记为曾被结束通话",
        "ringback.seen": "识别为近期曾被结束通话的号码",
        "risk.changed": "软件判断的等级",
        "tap.started": "软件分析开始",
        "warning.played": "播放警告",
    },
    "ja": {
        "alert.acknowledged": "管理者が通知を確認",
        "alert.escalated": "通知が管理者に送られた",
        "alert.raised": "管理者に通知",
        "alert.refused": "管理者が対応できないと回答",
        "alert.unanswered": "誰も応答しなかった",
        "alert.withheld": "試験運用中のため送らなかった通知",
        "call.analysed": "通話分析の数値",
        "call.answered": "通話開始（応答）",
        "call.ended": "通話終了",
        "call.ending": "終了アナウンスの開始",
        "call.length": "通話が所定の長さに達した",
        "call.marked": "品質評価・処理時間・アンケートの対象外",
        "call.started": "通話の開始",
        "callback.changed": "折り返し電話の約束",
        "callback.spoken": "折り返し電話をお伝えした",
        "crisis.hint": "お客様に危険が及ぶ可能性をソフトウェアが検知",
        "evidence.exported": "通話を証拠資料として書き出し",
        "hand_over.unanswered": "責任者が応答しなかった",
        "helper.changed": "管理者・責任者の参加状況",
        "hold.changed": "保留",
        "media.quality": "回線品質",
        "media.silent": "無音",
        "notice.finished": "案内の終了",
        "notice.started": "案内の開始",
        "pause.changed": "録音・分析の一時停止",
        "prompt.played": "案内の再生",
        "protection.changed": "分析についてのお客様の選択",
        "record.read": "通話内容の閲覧",
        "recording.changed": "録音",
        "recording.opened": "録音の閲覧",
        "ringback.marked": "通話を終了した番号として記録",
        "ringback.seen": "最近通話を終了した番号として確認",
        "risk.changed": "ソフトウェアが判断したレベル",
        "tap.started": "ソフトウェアによる分析の開始",
        "warning.played": "警告の再生",
    },
}

#: How a call began, by its direction, where that says more than :data:`EVENTS`.
STARTED: Mapping[str, Mapping[str, str]] = {
    "ko": {"inbound": "전화가 걸려 옴", "outbound": "고객에게 전화를 검"},
    "en": {"inbound": "the call came in", "outbound": "the caller was called"},
    "zh": {"inbound": "来电", "outbound": "致电客户"},
    "ja": {"inbound": "着信", "outbound": "お客様へ発信"},
}

#: Levels 0-3.
LEVELS: Mapping[str, tuple[str, ...]] = {
    "ko": ("정상", "주의", "위험", "심각"),
    "en": ("calm", "caution", "serious", "severe"),
    "zh": ("正常", "注意", "危险", "严重"),
    "ja": ("正常", "注意", "危険", "深刻"),
}

#: Categories of abuse; what is missing stands as it is.
CATEGORIES: Mapping[str, Mapping[str, str]] = {
    "ko": {
        "shouting": "고성",
        "profanity": "욕설·폭언",
        "insult": "모욕·인격비하",
        "threat": "협박",
        "sexual_harassment": "성희롱",
        "hate": "혐오·차별 발언",
    },
    "en": {"sexual_harassment": "sexual harassment"},
    "zh": {
        "shouting": "大声吼叫",
        "profanity": "辱骂",
        "insult": "侮辱人格",
        "threat": "威胁",
        "sexual_harassment": "性骚扰",
        "hate": "仇恨·歧视言论",
    },
    "ja": {
        "shouting": "大声",
        "profanity": "暴言",
        "insult": "侮辱・人格否定",
        "threat": "脅迫",
        "sexual_harassment": "セクシュアルハラスメント",
        "hate": "差別・ヘイト発言",
    },
}

#: Values of fields that a person reads; what is missing stands as it is.
VALUES: Mapping[str, Mapping[str, str]] = {
    "ko": {
        "caller_changed": "다른 사람으로 바뀌어 끊김",
        "protection": "상담사 보호",
        "analysis": "소프트웨어 분석",
        "recording": "녹음",
        "quality": "상담 품질 평가",
        "calibration": "판단 기준 조정",
        "played": "끝까지 재생됨",
        "upstream": "교환기가 재생함",
        "skipped": "긴급 건너뜀",
        "failed": "실패",
        "internal": "내부 통화",
        "objected": "고객이 거부함",
        "calling": "호출 중",
        "joined": "참여함",
        "took_over": "이어받음",
        "left": "나감",
        "unreachable": "연결되지 않음",
        "paused": "일시 중지",
        "stopped": "끝",
        "promised": "약속됨",
        "spoken": "안내됨",
        "done": "완료",
        "overdue": "기한 지남",
        "caller_hangup": "고객이 끊음",
        "agent_hangup": "상담사가 끊음",
        "ended_with_announcement": "안내 후 종료",
        "no_answer": "응답 없음",
        "busy": "통화 중",
        "cancelled": "취소됨",
        "agent:console": "상담사가 화면에서 누름",
        "agent:dtmf": "상담사가 전화기에서 누름",
        "agent:phone": "상담사가 전화기에서 누름",
        "supervisor": "관리자가 누름",
        "policy": "자동",
        "access": "본인 요청에 따른 열람",
        "audio": "음성",
        "words": "인용",
        "help_asked": "상담사가 관리자를 호출함",
        "evidence": "증거자료 작성",
        "evidence_unredacted": "증거자료 작성(가리지 않은 녹취록 포함)",
        "request": "증거자료로 쓰기 위해",
        "complaint": "민원 처리",
        "draw": "상담 품질 평가",
        "number": "다시 전화하기 위한 번호 확인",
        "hangup": "통화가 끝나 끊김",
        "hold": "보류로 끊김",
        "superseded": "다른 안내·조작으로 끊김",
        "fault": "재생 오류",
        "objection": "거부",
        "consent": "동의",
        "no_consent": "동의 없음",
        "no_objection": "거부 없음",
    },
    "en": {
        "caller_changed": "cut off: somebody else was on the line",
        "protection": "protection of agents",
        "analysis": "analysis by software",
        "quality": "scoring for quality",
        "calibration": "finding thresholds",
        "played": "heard to its end",
        "upstream": "played by the exchange",
        "objected": "the caller objected",
        "took_over": "took over",
        "caller_hangup": "the caller hung up",
        "agent_hangup": "the agent hung up",
        "ended_with_announcement": "ended with announcement",
        "no_answer": "no answer",
        "agent:console": "the agent, on the screen",
        "agent:dtmf": "the agent, on the phone",
        "agent:phone": "the agent, on the phone",
        "supervisor": "a supervisor",
        "policy": "automatically",
        "access": "for an answer to the caller",
        "audio": "sound",
        "words": "quotations",
        "help_asked": "the agent had asked for help",
        "skipped": "skipped in an emergency",
        "objection": "the caller objected",
        "evidence": "for a package of evidence",
        "evidence_unredacted": "for a package of evidence, with an unmasked transcript",
        "request": "to be used as evidence",
        "complaint": "a complaint",
        "draw": "scoring for quality",
        "number": "the number, to call back",
        "hangup": "cut off: the call ended",
        "hold": "cut off: hold",
        "superseded": "cut off: something else came first",
        "fault": "cut off: it could not be played",
        "no_consent": "no consent",
        "no_objection": "no objection",
    },
    "zh": {
        "caller_changed": "因通话方变更中断",
        "protection": "保护坐席",
        "analysis": "软件分析",
        "recording": "录音",
        "quality": "服务质量评估",
        "calibration": "调整判断标准",
        "played": "已完整播放",
        "upstream": "由交换机播放",
        "skipped": "紧急跳过",
        "failed": "失败",
        "internal": "内部通话",
        "objected": "客户拒绝",
        "calling": "呼叫中",
        "joined": "已加入",
        "took_over": "已接手",
        "left": "已离开",
        "unreachable": "未接通",
        "paused": "暂停",
        "stopped": "结束",
        "promised": "已承诺",
        "spoken": "已告知",
        "done": "已完成",
        "overdue": "已逾期",
        "caller_hangup": "客户挂断",
        "agent_hangup": "坐席挂断",
        "ended_with_announcement": "播放结束语后结束",
        "no_answer": "无人接听",
        "busy": "占线",
        "cancelled": "已取消",
        "agent:console": "坐席在屏幕上操作",
        "agent:dtmf": "坐席在话机上操作",
        "agent:phone": "坐席在话机上操作",
        "supervisor": "主管操作",
        "policy": "自动",
        "access": "应本人请求查阅",
        "audio": "声音",
        "words": "引用",
        "help_asked": "坐席已求助",
        "evidence": "制作证据资料",
        "evidence_unredacted": "制作证据资料（含未遮盖的文字记录）",
        "request": "用作证据",
        "complaint": "处理投诉",
        "draw": "服务质量评估",
        "number": "查看号码以便回电",
        "hangup": "因通话结束中断",
        "hold": "因保持中断",
        "superseded": "因其他提示或操作中断",
        "fault": "播放故障",
        "objection": "拒绝",
        "consent": "同意",
        "no_consent": "未同意",
        "no_objection": "未拒绝",
    },
    "ja": {
        "caller_changed": "相手が替わったため中断",
        "protection": "オペレーターの保護",
        "analysis": "ソフトウェアによる分析",
        "recording": "録音",
        "quality": "応対品質の評価",
        "calibration": "判断基準の調整",
        "played": "最後まで再生",
        "upstream": "交換機が再生",
        "skipped": "緊急スキップ",
        "failed": "失敗",
        "internal": "内線通話",
        "objected": "お客様が拒否",
        "calling": "呼び出し中",
        "joined": "参加",
        "took_over": "引き継ぎ",
        "left": "退出",
        "unreachable": "つながらず",
        "paused": "一時停止",
        "stopped": "終了",
        "promised": "約束済み",
        "spoken": "案内済み",
        "done": "完了",
        "overdue": "期限超過",
        "caller_hangup": "お客様が切断",
        "agent_hangup": "オペレーターが切断",
        "ended_with_announcement": "案内後に終了",
        "no_answer": "応答なし",
        "busy": "話中",
        "cancelled": "取り消し",
        "agent:console": "オペレーターが画面で操作",
        "agent:dtmf": "オペレーターが電話機で操作",
        "agent:phone": "オペレーターが電話機で操作",
        "supervisor": "管理者が操作",
        "policy": "自動",
        "access": "ご本人の請求による閲覧",
        "audio": "音声",
        "words": "引用",
        "help_asked": "オペレーターが応援を要請",
        "evidence": "証拠資料の作成",
        "evidence_unredacted": "証拠資料の作成（伏せ字のない書き起こしを含む）",
        "request": "証拠として使用するため",
        "complaint": "苦情対応",
        "draw": "応対品質の評価",
        "number": "折り返しのための番号確認",
        "hangup": "通話終了により中断",
        "hold": "保留により中断",
        "superseded": "別の案内・操作により中断",
        "fault": "再生の不具合",
        "objection": "拒否",
        "consent": "同意",
        "no_consent": "同意なし",
        "no_objection": "拒否なし",
    },
}

#: Single words.
WORDS: Mapping[str, Mapping[str, str]] = {
    "ko": {
        "yes": "예",
        "no": "아니요",
        "call": "통화",
        "level": "최고 위험도",
        "purposes": "안내된 이용 목적",
        "recording": "녹음(고객 음성만)",
        "no_recording": "보관 중인 녹음 없음",
        "held": "증거로 보존 중: 보존이 끝날 때까지 README.txt의 "
        "보관 기간보다 오래 보관하며 삭제도 그때 이루어집니다",
        "agent_text": "상담사의 말(사람이 적은 글)",
    },
    "en": {
        "yes": "yes",
        "no": "no",
        "call": "Call",
        "level": "highest level",
        "purposes": "purposes that the notice named",
        "recording": "recording (the caller's side only)",
        "no_recording": "no recording is held",
        "held": "held as evidence: kept beyond the periods in "
        "README.txt, and erased only when that is over",
        "agent_text": "what the agent said (written down by a person)",
    },
    "zh": {
        "yes": "是",
        "no": "否",
        "call": "通话",
        "level": "最高等级",
        "purposes": "提示语告知的用途",
        "recording": "录音（仅客户一方）",
        "no_recording": "没有留存录音",
        "held": "作为证据留存中：留存结束前会超过 README.txt 所列期限保存，删除也在那时进行",
        "agent_text": "坐席所说内容（由人工记录）",
    },
    "ja": {
        "yes": "はい",
        "no": "いいえ",
        "call": "通話",
        "level": "最高レベル",
        "purposes": "案内でお伝えした利用目的",
        "recording": "録音（お客様の音声のみ）",
        "no_recording": "保存中の録音なし",
        "held": "証拠として保全中：保全が終わるまで README.txt "
        "の保存期間を超えて保存し、消去もその時に行います",
        "agent_text": "オペレーターの発言（人が書き起こしたもの）",
    },
}

#: Kinds of what is kept (:mod:`notifier.retention_table`), as a caller reads them.
KEPT: Mapping[str, Mapping[str, str]] = {
    "ko": {
        "calls": "통화 기록",
        "events": "통화 중 일어난 일",
        "words": "말씀하신 내용의 인용",
        "recordings": "녹음",
        "ringback": "안내 후 종료된 번호 표시",
    },
    "en": {
        "calls": "records of calls",
        "events": "what happened in them",
        "words": "quotations of what you said",
        "recordings": "recordings",
        "ringback": "marks of numbers whose call was ended",
    },
    "zh": {
        "calls": "通话记录",
        "events": "通话中发生的事件",
        "words": "您所说内容的引用",
        "recordings": "录音",
        "ringback": "曾被结束通话的号码标记",
    },
    "ja": {
        "calls": "通話の記録",
        "events": "通話中の出来事",
        "words": "ご発言の引用",
        "recordings": "録音",
        "ringback": "通話を終了した番号の記録",
    },
}
DAYS: Mapping[str, str] = {"ko": "{}일", "en": "{} days", "zh": "{}天", "ja": "{}日"}

#: What the zip holds; ``{made}`` is when, ``{count}`` how many calls, ``{reference}`` the request.
README: Mapping[str, str] = {
    "ko": """\
귀하에 관해 이 통화 보호 시스템(Callshield)이 보관하고 있는 내용입니다.

작성 일시: {made}   요청 번호: {reference}   통화 수: {count}

- data.json: 보관 내용 전체(기계 판독용)
- calls/…/call.txt: 통화별 내용(읽기용)
- calls/…/caller.wav: 녹음 중 귀하의 음성

소프트웨어는 욕설·폭언으로부터 상담사를 보호하기 위해 귀하의 음성만 분석합니다. 위험도와 점수는
소프트웨어의 판단이며 틀릴 수 있습니다. 통화를 끝낼지는 사람이 정하며, 예외적으로 자동 종료가 설정된
경우에는 위 기록에 표시됩니다.

상담사와 관리자의 이름과 번호는 "{agent}", "{staff}"로 바꾸었습니다. 다른 사람의 권리를 보호하기
위해 상담사의 음성, 상담사의 근무·건강·평가에 관한 기록, 직원이 직접 쓴 글은 포함하지 않았습니다.
전화번호는 저장하지 않으며, 번호로 통화를 다시 찾기 위해 가명처리한 값만 보관합니다. 다시
전화드리기로 약속한 경우에는 그 일이 끝날 때까지만 번호를 암호화해 보관할 수 있습니다.

보관 기간
{kept}

정정, 삭제, 처리 정지를 요구하시거나 이의를 제기하시려면 이 파일을 보낸 곳으로 연락해 주십시오.
전화 교환기(PBX)와 다른 시스템의 기록은 이 파일에 없습니다.
""",
    "en": """\
This is what the call protection system (Callshield) holds on you.

Made: {made}   Request: {reference}   Calls: {count}

- data.json: all of it, for machines
- calls/…/call.txt: each call, to read
- calls/…/caller.wav: your side of its recording

Software analyses your side of a call alone, to protect agents from abuse. Levels and scores are its
judgement, and can be wrong. Whether a call is ended a person decides; where an automatic end was
configured, the record says so.

Names and numbers of agents and supervisors were replaced by "{agent}" and "{staff}". To protect the
rights of others, the agent's voice, records of the agent's work, health and scores, and what staff
wrote in their own words are not in here. Your telephone number is not stored: only a pseudonym by
which your calls are found again, and, where somebody promised to call you back, the number itself,
encrypted, until that is done.

How long it is kept
{kept}

To have something corrected or erased, to object, or to complain, turn to whoever sent you this
file. What the telephone exchange (PBX) and other systems hold is not in here.
""",
    "zh": """\
以下是本通话保护系统（Callshield）留存的与您有关的内容。

生成时间：{made}   请求编号：{reference}   通话数：{count}

- data.json：全部内容（供机器读取）
- calls/…/call.txt：每次通话的内容（供阅读）
- calls/…/caller.wav：录音中您的声音

软件仅分析您一方的声音，用于保护坐席免受辱骂。等级和分数是软件的判断，可能有误。是否结束通话由人
决定；如设置了自动结束，记录中会注明。

坐席和主管的姓名与编号已替换为“{agent}”和“{staff}”。为保护他人权利，不包含坐席的声音、坐席的
工作·健康·评分记录，以及工作人员自行书写的文字。系统不保存您的电话号码，只保存用于查找您通话的
假名化数值；如承诺给您回电，则在回电完成之前可能加密保存号码。

保存期限
{kept}

如需更正、删除、提出异议或投诉，请联系向您提供此文件的单位。电话交换机（PBX）及其他系统的记录不在
此文件中。
""",
    "ja": """\
お客様について、この通話保護システム（Callshield）が保有している内容です。

作成日時：{made}   請求番号：{reference}   通話数：{count}

- data.json：全内容（機械可読）
- calls/…/call.txt：通話ごとの内容（閲覧用）
- calls/…/caller.wav：録音のうちお客様の音声

ソフトウェアは、暴言からオペレーターを守るため、お客様側の音声のみを分析します。レベルと点数は
ソフトウェアの判断であり、誤ることがあります。通話を終了するかどうかは人が決めます。自動終了が設定
されている場合は、記録にその旨が示されます。

オペレーターと管理者の氏名・番号は「{agent}」「{staff}」に置き換えました。他の方の権利を守るため、
オペレーターの音声、勤務・健康・評価の記録、従業員が自ら書いた文章は含まれていません。お客様の電話
番号は保存しておらず、通話を探すための仮名化した値だけを保有しています。折り返しのお電話をお約束した
場合に限り、完了するまで番号を暗号化して保有することがあります。

保存期間
{kept}

訂正、削除、利用停止の請求や苦情は、このファイルをお送りした窓口までご連絡ください。電話交換機
（PBX）や他のシステムの記録はこのファイルには含まれません。
""",
}
