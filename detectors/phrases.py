"""Why a level is what it is, as an agent reads it. No word of the caller's stands in here."""

from __future__ import annotations

from callshield.settings_notice import Language
from detectors.fusion import Reason, Rule

_PHRASES: dict[Language, dict[Rule, str]] = {
    "ko": {
        Rule.RAISED_VOICE: "고객의 목소리가 커졌습니다",
        Rule.SUSTAINED_EFFORT: "고객의 고성이 {seconds:.1f}초 이상 이어졌습니다",
        Rule.UNSURE_WORDS: "폭언일 수 있는 말이 들렸습니다. 아직 확실하지 않습니다",
        Rule.RUDE_WORDS: "고객이 무례한 말을 했습니다",
        Rule.ABUSIVE_WORDS: "고객이 폭언을 했습니다",
        Rule.CONFIRMED_WORDS: "폭언으로 들리는 말이 되풀이되었습니다",
        Rule.REPEATED_RUDENESS: "고객의 무례한 말이 되풀이되었습니다",
        Rule.REPEATED_ABUSE: "고객의 폭언이 되풀이되었습니다",
        Rule.GRAVE_WORDS: "고객이 심한 협박이나 성희롱 발언을 했습니다",
        Rule.SHOUTED_ABUSE: "고객이 고성을 지르며 폭언을 했습니다",
        Rule.AGENT_PRESS: "상담사가 심각한 상황이라고 알렸습니다",
        Rule.CALMED_DOWN: "고객의 목소리가 가라앉았습니다",
        Rule.NOTHING_SAID: "목소리는 컸지만 폭언은 없었습니다",
        Rule.NO_MORE_WORDS: "폭언이 더 이어지지 않았습니다",
        Rule.CRISIS: "고객이 위험한 상황일 수 있습니다",
    },
    "en": {
        Rule.RAISED_VOICE: "The caller's voice is raised",
        Rule.SUSTAINED_EFFORT: "The caller has been shouting for {seconds:.1f} s or more",
        Rule.UNSURE_WORDS: "Something that may be abusive was heard; it is not certain yet",
        Rule.RUDE_WORDS: "The caller said something rude",
        Rule.ABUSIVE_WORDS: "The caller said something abusive",
        Rule.CONFIRMED_WORDS: "Something that sounds abusive was heard again",
        Rule.REPEATED_RUDENESS: "The caller was rude again and again",
        Rule.REPEATED_ABUSE: "The caller was abusive again and again",
        Rule.GRAVE_WORDS: "The caller made a grave threat or harassed sexually",
        Rule.SHOUTED_ABUSE: "The caller shouted abuse",
        Rule.AGENT_PRESS: "The agent says that it is severe",
        Rule.CALMED_DOWN: "The caller's voice has calmed down",
        Rule.NOTHING_SAID: "The voice was loud, but nothing abusive was said",
        Rule.NO_MORE_WORDS: "Nothing abusive was said any more",
        Rule.CRISIS: "The caller may be in danger",
    },
    "zh": {
        Rule.RAISED_VOICE: "来电者提高了嗓门",
        Rule.SUSTAINED_EFFORT: "来电者持续大声喊叫 {seconds:.1f} 秒以上",
        Rule.UNSURE_WORDS: "听到疑似辱骂的话，尚未确认",
        Rule.RUDE_WORDS: "来电者说了无礼的话",
        Rule.ABUSIVE_WORDS: "来电者说了辱骂的话",
        Rule.CONFIRMED_WORDS: "再次听到疑似辱骂的话",
        Rule.REPEATED_RUDENESS: "来电者多次说无礼的话",
        Rule.REPEATED_ABUSE: "来电者多次辱骂",
        Rule.GRAVE_WORDS: "来电者严重威胁或性骚扰",
        Rule.SHOUTED_ABUSE: "来电者大声喊叫并辱骂",
        Rule.AGENT_PRESS: "座席表示情况严重",
        Rule.CALMED_DOWN: "来电者的声音已平静下来",
        Rule.NOTHING_SAID: "声音虽大，但没有辱骂的话",
        Rule.NO_MORE_WORDS: "没有再听到辱骂的话",
        Rule.CRISIS: "来电者可能处于危险之中",
    },
    "ja": {
        Rule.RAISED_VOICE: "お客様の声が大きくなっています",
        Rule.SUSTAINED_EFFORT: "お客様の大声が{seconds:.1f}秒以上続いています",
        Rule.UNSURE_WORDS: "暴言かもしれない言葉が聞こえました。まだ確かではありません",
        Rule.RUDE_WORDS: "お客様が失礼な言葉を言いました",
        Rule.ABUSIVE_WORDS: "お客様が暴言を言いました",
        Rule.CONFIRMED_WORDS: "暴言と思われる言葉が繰り返されました",
        Rule.REPEATED_RUDENESS: "お客様の失礼な言葉が繰り返されました",
        Rule.REPEATED_ABUSE: "お客様の暴言が繰り返されました",
        Rule.GRAVE_WORDS: "お客様が重大な脅迫または性的な嫌がらせを言いました",
        Rule.SHOUTED_ABUSE: "お客様が大声で暴言を言いました",
        Rule.AGENT_PRESS: "オペレーターが深刻な状況だと伝えました",
        Rule.CALMED_DOWN: "お客様の声が落ち着きました",
        Rule.NOTHING_SAID: "声は大きいですが、暴言はありませんでした",
        Rule.NO_MORE_WORDS: "暴言はその後ありませんでした",
        Rule.CRISIS: "お客様が危険な状況にあるかもしれません",
    },
}


def describe(reason: Reason, language: Language) -> str:
    """One reason as a sentence without words of the caller's."""
    return _PHRASES[language][reason.rule].format(seconds=reason.effort_s)


def describe_crisis(language: Language) -> str:
    """What a hint of crisis means."""
    return _PHRASES[language][Rule.CRISIS]
