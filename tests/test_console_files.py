"""The consoles' files: words, contrast, no host outside, nothing inline."""

from __future__ import annotations

import re
from itertools import product

import pytest

from notifier.app import CONSOLE

FILES = sorted(CONSOLE.iterdir())
SCRIPTS = {file.name: file.read_text(encoding="utf-8") for file in FILES if file.suffix == ".js"}
PAGES = {file.name: file.read_text(encoding="utf-8") for file in FILES if file.suffix == ".html"}
STYLE = (CONSOLE / "style.css").read_text(encoding="utf-8")
LANGUAGES = ("ko", "en")
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
    assert words["accept"] == "수락"
    assert words["category.shouting"] == "고성"


def forbidden_in(text: str) -> list[str]:
    return [word for word in FORBIDDEN if word in text]


def test_no_file_uses_a_forbidden_term() -> None:
    for name, text in {**SCRIPTS, **PAGES}.items():
        assert forbidden_in(text) == [], name
    assert forbidden_in("상담원이 진상 고객과") == ["상담원", "진상"], "the search finds them"


def test_every_language_has_every_string_and_every_placeholder() -> None:
    korean, english = (strings(language) for language in LANGUAGES)
    assert len(korean) > 100
    assert korean.keys() == english.keys()
    for key, text in korean.items():
        assert set(re.findall(r"{\w+}", text)) == set(re.findall(r"{\w+}", english[key])), key


def test_every_string_that_a_page_asks_for_exists() -> None:
    known = strings("ko").keys()
    asked: set[str] = set()
    for text in PAGES.values():
        asked |= set(re.findall(r'data-t(?:-label)?="([\w.]+)"', text))
    for text in SCRIPTS.values():
        asked |= set(re.findall(r'\bt\("([\w.]+)"', text))
    assert len(asked) > 40
    assert asked - known == set()
    for action, outcome in product(("warn", "help", "end", "skip_notice"), ("done", "already")):
        assert f"{outcome}.{action}" in known


def test_nothing_comes_from_another_host_and_nothing_is_inline() -> None:
    for name, text in PAGES.items():
        assert not re.search(r"(src|href)=\"(?!/|#)", text), name
        assert not re.search(r"\sstyle=|\son\w+=|<style", text), name
        assert re.findall(r"<script[^>]*>([^<]*)", text) == [""], name
    for name, text in SCRIPTS.items():
        without_namespace = text.replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://", without_namespace), name
        assert "innerHTML" not in text, name
        assert "eval(" not in text, name


def test_the_token_is_kept_in_the_tab_only_and_taken_out_of_the_address() -> None:
    link = SCRIPTS["link.js"]
    assert "sessionStorage.setItem(TOKEN" in link
    assert "history.replaceState" in link
    assert not any("localStorage" in text for text in (link, SCRIPTS["page.js"]))
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


TEXT_PAIRS = [
    ("text", "page"),
    ("text", "card"),
    ("soft", "page"),
    ("soft", "card"),
    ("accent-text", "accent"),
    ("bad-text", "bad"),
    ("bad-text", "card"),
    ("good-text", "good"),
    *[(f"{level}-text", level) for level in ("none", "calm", "caution", "serious", "severe")],
]
SHAPE_PAIRS = [
    *[(f"{level}-shape", level) for level in ("none", "calm", "caution", "serious", "severe")],
    ("calm-shape", "card"),
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


def test_the_contrast_formula_gives_the_known_values() -> None:
    assert contrast("#ffffff", "#000000") == pytest.approx(21.0)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


def test_movement_is_for_serious_levels_only_and_for_those_who_want_it() -> None:
    animated = re.findall(r"([^{}]*)\{[^{}]*animation:", STYLE)
    assert len(animated) == 1
    assert 'data-level="2"' in animated[0]
    assert 'data-level="0"' not in animated[0]
    before = STYLE[: STYLE.index("animation:")]
    assert before.rindex("prefers-reduced-motion: no-preference") > before.rindex("@media") - 1


def test_every_button_has_a_key_that_is_no_character() -> None:
    keys = dict(
        re.findall(r'id="(\w+)" class="act[^"]*" aria-keyshortcuts="(F\d+)"', PAGES["agent.html"])
    )
    assert keys == {"warn": "F2", "help": "F8", "end": "F9", "skip_notice": "F10"}
    for action, key in keys.items():
        assert f'{key}: "{action}"' in SCRIPTS["agent.js"]
