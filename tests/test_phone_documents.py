"""What stands on a phone's screen: any text, every family, always whole XML that fits."""

from __future__ import annotations

import unicodedata
from itertools import product
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_profiles import documents
from firmware_profiles.catalogue import shipped
from firmware_profiles.documents import (
    Key,
    answer_document,
    cisco_page,
    clear_document,
    execute_document,
    posted,
    text_document,
)
from firmware_profiles.schema import PushMethod
from firmware_profiles.screen_text import (
    Screen,
    Words,
    clean,
    cut,
    over_words,
    trial_words,
    width,
    words,
    wrapped,
)

LANGUAGES = ("ko", "en", "zh", "ja")
METHODS = {
    f"{profile.id}-{method.id}": method
    for profile in shipped().phones.values()
    for method in profile.push
    if method.document
}
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
NASTY = "<b>&amp;</b> ]]> \u202eevil\u202c \x00\x1b[31m\ud800 \u200f\u2066א\u2028ب" + "가" * 200
KEYS = [Key("종료", "http://192.0.2.5:8089/k/abc/end?x=1&y=2"), Key("도움", "http://a/b"), Key("x")]
#: Categories of Unicode that no screen should get.
UNDRAWN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def made(method: PushMethod, said: Words, keys: list[Key] | None = None) -> bytes:
    if method.document == "cisco_execute":
        return cisco_page(method, said, keys or [])
    return text_document(method, said, keys or [])


def lines_of(document: bytes) -> list[str]:
    """Lines that a screen would draw, the title first."""
    root = ElementTree.fromstring(document)
    for item in [*root.iter("SoftKey"), *root.iter("SoftKeyItem"), *root.iter("softkey")]:
        item.clear()
    text = ElementTree.tostring(root, encoding="unicode")
    for tag in ("</Title>", "</h1>", "<br />", "<br/>"):
        text = text.replace(tag, f"{tag}\n")
    plain = "".join(ElementTree.fromstring(text).itertext())
    return [line.strip() for line in plain.splitlines() if line.strip()]


@every_method
@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("level", [1, 2, 3])
def test_every_warning_fits_every_display(method: PushMethod, language: str, level: int) -> None:
    for status, crisis in product(("", "warned", "asked", "coming", "nobody"), (False, True)):
        screen = Screen(level, ("sexual_harassment", "threat", "hate"), crisis, status, 2)  # type: ignore[arg-type]
        said = words(screen, language, "*9#", "*8#")
        document = made(method, said, KEYS)
        lines = lines_of(document)
        assert len(lines) <= method.lines
        assert all(width(line) <= method.characters for line in lines)
        if method.document != "cisco_execute":
            assert len(document) <= method.max_bytes
        # Whatever else falls off: ending is never what has to go.
        assert any("*9#" in line for line in lines), lines


@every_method
def test_markup_direction_and_200_characters_break_nothing(method: PushMethod) -> None:
    document = made(method, Words(NASTY, (NASTY, NASTY)), [Key(NASTY, "http://a/?<>&\"'")])
    text = document.decode(method.encoding)
    ElementTree.fromstring(document)
    assert not {unicodedata.category(c) for c in text if c != "\n"} & UNDRAWN
    assert "<b>" not in text
    for line in lines_of(document):
        assert width(line) <= method.characters


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(list(METHODS.values())),
    st.text(st.characters(codec=None), max_size=300),
    st.lists(st.text(st.characters(codec=None), max_size=300), max_size=6),
    st.integers(100, 2000),
    st.booleans(),
    st.sampled_from(["utf-8", "iso-8859-1"]),
)
def test_any_text_in_any_room_is_whole_xml_that_fits(
    method: PushMethod, title: str, lines: list[str], room: int, keyed: bool, encoding: str
) -> None:
    smaller = method.model_copy(update={"max_bytes": room, "encoding": encoding})
    said = Words(title, tuple(lines))
    document = made(smaller, said, KEYS if keyed else [])
    ElementTree.fromstring(document)
    bare = made(smaller, Words(""))
    if method.document != "cisco_execute":
        assert len(document) <= max(room, len(bare))


def test_escaping_that_is_left_out_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control of the two above."""
    monkeypatch.setattr(documents, "escape", lambda text: text)
    method = METHODS["yealink-t-xml-notify"]
    with pytest.raises(ElementTree.ParseError):
        ElementTree.fromstring(made(method, Words("<b>&")))


@every_method
def test_a_screen_can_be_taken_away(method: PushMethod) -> None:
    document = clear_document(method, over_words("ko"))
    root = ElementTree.fromstring(document)
    text = document.decode()
    match method.clears_by:
        case "timeout":
            assert 0 < int(root.attrib["Timeout"]) <= 5
        case "key":
            assert (method.clear_key or "-") in text
        case "exit_command":
            assert "phone://mb_exit" in text or "Init:Services" in text
        case "empty_text":
            assert not "".join(root.itertext()).strip()
        case _:
            pytest.fail("nothing takes it away")


def test_soft_keys_give_way_before_words_do() -> None:
    method = METHODS["poly-vvx-push"]
    said = words(Screen(3, ("threat",)), "ko", "*9#", "*8#")
    long = [
        Key("종료", "http://192.0.2.5/" + "a" * 500),
        Key("도움", "http://192.0.2.5/" + "b" * 500),
    ]
    assert b"softkey" in text_document(method, said, KEYS)
    squeezed = text_document(method, said, long)
    assert b"softkey" not in squeezed
    assert "*9#" in squeezed.decode()
    assert len(squeezed) <= method.max_bytes


def test_an_execute_names_an_address_and_nothing_else() -> None:
    document = execute_document(METHODS["cisco-enterprise-cgi-execute"], 'http://a/?x=1&y="<>')
    (item,) = ElementTree.fromstring(document)
    assert item.attrib == {"Priority": "0", "URL": 'http://a/?x=1&y="<>'}


def test_it_is_posted_as_the_family_wants_it() -> None:
    body = "<a>가&</a>".encode()
    assert posted(METHODS["poly-vvx-push"], body) == body
    assert posted(METHODS["yealink-t-xml-http"], body) == b"xml=" + body
    form = posted(METHODS["cisco-enterprise-cgi-execute"], body)
    assert form.startswith(b"XML=%3Ca%3E%EA%B0%80%26")


@every_method
def test_an_answer_to_a_key_is_a_document_of_that_phone(method: PushMethod) -> None:
    answer = answer_document(method, NASTY)
    if answer is not None:
        ElementTree.fromstring(answer[0])
        assert "charset=" in answer[1]


def test_help_comes_first_for_a_caller_in_danger_and_ending_stays() -> None:
    said = words(Screen(0, (), crisis=True), "ko", "*9#", "*8#")
    assert said.title == "위기 고객"
    assert said.lines[:2] == ("관리자 호출 *8#", "안내 후 종료 *9#")


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_state_has_words_in_every_language(language: str) -> None:
    states = ("warned", "asked", "seen", "coming", "joined", "took_over", "nobody")
    told = {words(Screen(2, (), False, state), language, "1", "2").lines for state in states}  # type: ignore[arg-type]
    assert len(told) == len(states)
    assert trial_words(language).title
    assert words(Screen(2), "xx", "1", "2") == words(Screen(2), "en", "1", "2")


def test_width_and_cut() -> None:
    assert width("가a") == 3
    assert cut("가나다", 5) == "가나"
    assert cut("e\u0301e\u0301", 1) == "e\u0301"
    assert wrapped("가나 다라 abcdefgh", 5) == ["가나", "다라", "abcde", "fgh"]
    assert clean("a\u202eb\r\n c\x00") == "ab c"


def test_no_words_of_ours_hold_what_agents_are_not_called() -> None:
    for screen in (Screen(3, ("threat",), status="asked"), Screen(0, (), True)):
        text = repr(words(screen, "ko", "*9#", "*8#"))
        assert not any(word in text for word in ("상담원", "악성", "진상", "블랙"))


def test_a_key_does_not_show_its_address() -> None:
    assert "abc" not in repr(KEYS)
