"""The consoles' files: words, contrast, no host outside, nothing inline."""

from __future__ import annotations

import re
from itertools import product

import pytest

from notifier.app import CONSOLE

FILES = sorted(CONSOLE.iterdir())
SCRIPTS = {file.name: file.read_text(encoding="utf-8") for file in FILES if file.suffix == ".js"}
PAGES = {file.name: file.read_text(encoding="utf-8") for file in FILES if file.suffix == ".html"}
STYLES = {file.name: file.read_text(encoding="utf-8") for file in FILES if file.suffix == ".css"}
STYLE = STYLES["style.css"]
LANGUAGES = ("ko", "en", "zh", "ja")
CATEGORIES = {
    "profanity": "욕설·폭언",
    "insult": "모욕·인격비하",
    "threat": "협박",
    "sexual_harassment": "성희롱",
    "hate": "혐오·차별 발언",
    "shouting": "고성",
    "crisis": "위기 고객",
}
ACTIONS = (
    "warn",
    "help",
    "end",
    "skip_notice",
    "hand_over",
    "soften",
    "pause_recording",
    "resume_recording",
    "promise_call_back",
    "extend",
    "abusive",
)
FORBIDDEN = ("상담원", "악성고객", "악성 고객", "진상", "블랙컨슈머", "블랙 컨슈머")


def strings(language: str) -> dict[str, str]:
    text = SCRIPTS[f"strings.{language}.js"]
    return dict(re.findall(r'^\s+"?([\w.]+)"?: "(.*)",$', text, re.MULTILINE))


def test_korean_says_what_a_korean_call_centre_says() -> None:
    words = strings("ko")
    assert [words[f"level.{n}"] for n in range(4)] == ["정상", "주의", "위험", "심각"]
    assert words["action.warn"] == "경고 멘트"
    assert words["action.help"] == "관리자 호출"
    assert words["action.end"] == "안내 후 종료"
    assert [words[f"action.{name}"] for name in ("hand_over", "soften", "pause")] == [
        "책임자 이관",
        "소리 낮추기",
        "녹취 일시중지",
    ]
    assert words["action.promise_call_back"] == words["callbacks"] == "회신 약속"
    assert [words["warnings.nth"].format(n=n) for n in (1, 2)] == ["1차", "2차"]
    assert words["warnings.last"] == "최종"
    assert words["after.evidence"] == "증거자료 요청"
    assert words["rest.title"] == words["after.rest"] == "보호휴식"
    assert (words["accept.seen"], words["refuse"], words["refuse.why"]) == ("수락", "불가", "사유")
    assert words["request.taken.join"] == "관리자가 오고 있습니다"
    assert {key: words[f"category.{key}"] for key in CATEGORIES} == CATEGORIES


def forbidden_in(text: str) -> list[str]:
    return [word for word in FORBIDDEN if word in text]


def test_no_file_uses_a_forbidden_term() -> None:
    for name, text in {**SCRIPTS, **PAGES}.items():
        assert forbidden_in(text) == [], name
    assert forbidden_in("상담원이 진상 고객과") == ["상담원", "진상"], "the search finds them"


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_has_every_string_and_every_placeholder(language: str) -> None:
    korean, other = strings("ko"), strings(language)
    assert len(korean) > 300
    assert list(other) == list(korean), "the same keys in the same order"
    for key, text in korean.items():
        assert other[key].strip(), key
        assert sorted(re.findall(r"{\w+}", text)) == sorted(re.findall(r"{\w+}", other[key])), key


def test_no_key_of_a_language_stands_twice() -> None:
    for language in LANGUAGES:
        text = SCRIPTS[f"strings.{language}.js"]
        lines = re.findall(r"^ {2}", text, re.MULTILINE)
        comments = re.findall(r"^ {2}//", text, re.MULTILINE)
        assert len(strings(language)) == len(lines) - len(comments), language


def asked_for() -> set[str]:
    """Every string that a page or a script names in full."""
    asked: set[str] = set()
    for text in PAGES.values():
        asked |= set(re.findall(r'data-t(?:-label)?="([\w.]+)"', text))
    for name, text in SCRIPTS.items():
        if not name.startswith("strings."):
            asked |= set(re.findall(r'\bt\("([\w.]+)"', text))
            asked |= set(re.findall(r'\bfeedback\("([\w.]+)"', text))
    return asked


def test_every_string_that_a_page_asks_for_exists() -> None:
    known = strings("ko").keys()
    asked = asked_for()
    assert len(asked) > 100
    assert asked - known == set()
    for action, outcome in product(ACTIONS, ("done", "already")):
        assert f"{outcome}.{action}" in known


#: Families whose last word is an id that comes from the server, and the ids that it may send.
FAMILIES = {
    "level.": "0 1 2 3",
    "category.": " ".join(CATEGORIES),
    "alert.": "risk help crisis notice_failed node callback node_away",
    "component.": "bridge detector cluster node at other",
    "down.": "draining",
    "notice.": "playing played upstream skipped failed internal",
    "request.taken.": "join take_over seen",
    "request.calling.": "supervisor manager",
    "request.": "help crisis risk all manager nobody refused next joined unreachable",
    "length.": "notice end_offered extended",
    "callback.": "promised spoken done overdue",
    "stage.": "person all manager nobody you",
    "wished.": "rest evidence abusive note",
    "judge.": "confirmed refuted missed",
    "opened.why.": "draw request complaint other",
    "role.": "agent supervisor admin auditor representative other",
    "joined.": "joined took_over",
    "joined.role.": "supervisor manager other",
    "joined.asked.": "joined took_over",
    "request.kind.": "rest evidence abusive note other",
    "evidence.state.": "requested approved refused done lapsed",
    "evidence.told.": "approve refuse done",
    "headset.state.": "absent insecure none asking unchosen refused no_control elsewhere closed"
    " ready lost",
    "headset.mute.": "on off unknown none",
    "headset.sign.": "off lamp ring other",
    "headset.key.": "none hook flash hold redial speed_dial voice_mail programmable other",
}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_id_that_the_server_may_send_has_a_word(family: str) -> None:
    known = strings("ko")
    for name in FAMILIES[family].split():
        assert known.get(family + name), family + name


def test_nothing_comes_from_another_host_and_nothing_is_inline() -> None:
    for name, text in PAGES.items():
        assert not re.search(r"(src|href)=\"(?!/[^/]|#)", text), name
        assert not re.search(r"\sstyle=|\son\w+=|<style", text), name
        assert re.findall(r"<script[^>]*>([^<]*)", text) == [""], name
    for name, text in SCRIPTS.items():
        without_namespace = text.replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://", without_namespace), name
        assert "innerHTML" not in text, name
        assert "eval(" not in text, name
    for name, text in STYLES.items():
        assert not re.search(r"@import|url\(", text), name


def test_the_token_is_kept_in_the_tab_only_and_taken_out_of_the_address() -> None:
    link = SCRIPTS["link.js"]
    assert "sessionStorage.setItem(TOKEN" in link
    assert "history.replaceState" in link
    keeping = {name for name, text in SCRIPTS.items() if "localStorage" in text}
    choices = {"strings.js", "sound.js", "headset_choices.js"}
    assert keeping == choices, "a language and a switch are no secret"
    assert not re.search(r"[?&]token=", "".join(SCRIPTS.values()))


def variables(block: str) -> dict[str, str]:
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block))


def luminance(colour: str) -> float:
    """Relative luminance, WCAG 2.2."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """Contrast ratio, WCAG 2.2 success criterion 1.4.3."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def themes() -> dict[str, dict[str, str]]:
    light, dark = re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)
    return {"light": variables(light), "dark": {**variables(light), **variables(dark)}}


LEVELS = ("none", "calm", "caution", "serious", "severe")
TEXT_PAIRS = [
    ("text", "page"),
    ("text", "card"),
    ("soft", "page"),
    ("soft", "card"),
    ("accent-text", "accent"),
    ("accent", "accent-text"),
    ("bad-text", "bad"),
    ("bad-text", "card"),
    ("good-text", "good"),
    *[(f"{level}-text", level) for level in LEVELS],
]
SHAPE_PAIRS = [
    *[(f"{level}-shape", level) for level in LEVELS],
    ("calm-shape", "card"),
    ("caution-shape", "card"),
    ("caution-shape", "page"),
    ("soft", "card"),
    ("accent", "card"),
    ("focus", "page"),
    ("focus", "card"),
]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_and_shapes_keep_the_contrast_of_wcag_aa(theme: str) -> None:
    colours = themes()[theme]
    for ink, ground in TEXT_PAIRS:
        ratio = contrast(colours[ink], colours[ground])
        assert ratio >= 4.5, f"{ink} on {ground}: {ratio:.2f}"
    for shape, ground in SHAPE_PAIRS:
        ratio = contrast(colours[shape], colours[ground])
        assert ratio >= 3.0, f"{shape} on {ground}: {ratio:.2f}"


def rules() -> list[tuple[str, str, str]]:
    """Every rule of every style sheet: file, selector, declarations."""
    found = []
    for name, text in STYLES.items():
        plain = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
        found += [
            (name, selector.strip(), body)
            for selector, body in re.findall(r"([^{}]+)\{([^{}]*)\}", plain)
        ]
    return found


def test_every_rule_that_sets_ink_and_ground_uses_a_pair_that_is_measured() -> None:
    checked = {*TEXT_PAIRS, ("ink", "ground")}
    pairs = []
    for name, selector, body in rules():
        ink = re.search(r"(?<![\w-])color: var\(--([\w-]+)\)", body)
        ground = re.search(r"background: var\(--([\w-]+)\)", body)
        if ink and ground:
            pairs.append((ink[1], ground[1]))
            assert (ink[1], ground[1]) in checked, f"{name}: {selector}"
    assert len(pairs) > 15


def test_no_colour_stands_outside_the_two_schemes() -> None:
    for name, selector, body in rules():
        if selector != ":root":
            literal = re.findall(r"#[0-9a-fA-F]{3,8}\b|\b(?:rgb|hsl)a?\(", body)
            assert literal == [], f"{name}: {selector}"
            assert "opacity: 0" not in body, f"{name}: {selector} would wash a measured pair out"


def test_the_contrast_formula_gives_the_known_values() -> None:
    assert contrast("#ffffff", "#000000") == pytest.approx(21.0)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


def test_movement_is_for_serious_levels_only_and_for_those_who_want_it() -> None:
    everything = "".join(STYLES.values())
    assert "transition" not in everything
    animated = re.findall(r"([^{}]*)\{[^{}]*animation:", everything)
    assert len(animated) == 1
    assert 'data-level="2"' in animated[0]
    assert 'data-level="0"' not in animated[0]
    before = everything[: everything.index("animation:")]
    assert before.rindex("prefers-reduced-motion: no-preference") > before.rindex("@media") - 1


def test_every_button_of_a_call_has_a_key_that_is_no_character() -> None:
    keys = dict(
        re.findall(r'id="(\w+)" class="[^"]*" aria-keyshortcuts="(F\d+)"', PAGES["agent.html"])
    )
    assert keys == {
        "extend": "F1",
        "warn": "F2",
        "promise_call_back": "F3",
        "hand_over": "F4",
        "soften": "F5",
        "abusive": "F6",
        "pause": "F7",
        "help": "F8",
        "end": "F9",
        "skip_notice": "F10",
    }
    for action, key in keys.items():
        assert f'{key}: "{action}"' in SCRIPTS["agent.js"]


def test_no_screen_plays_audio_of_a_call_and_none_shows_a_score() -> None:
    for name, text in {**PAGES, **SCRIPTS}.items():
        assert not re.search(r"<audio|<video|new Audio\(|getUserMedia|mediaDevices", text), name
        assert not re.search(r"\.(score|effort_score|word_score)\b", text), name
    supervisors = [SCRIPTS[name] for name in ("supervisor.js", "alert_queue.js", "wallboard.js")]
    assert not any("warnings" in text for text in supervisors), "what agents do is theirs"
