"""Personal data goes, whatever it is written in; what a complaint lives of stays."""

from __future__ import annotations

import time

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from detectors.redaction import Kind, redact
from detectors.redaction import numbers as numbers_module
from detectors.redaction.checks import (
    chinese_resident,
    japanese_individual,
    korean_resident,
    luhn,
    social_security,
)
from detectors.redaction.marks import ANY_MARK

#: language, what was said, and the kind that must be found; no letter or digit of the part in
#: braces may stay.
GOES: list[tuple[str, str, Kind]] = [
    # Korean: as a recogniser writes it.
    ("ko", "제 번호는 {010-1234-5678}이에요", Kind.PHONE),
    ("ko", "{01012345678}로 전화 주세요", Kind.PHONE),
    ("ko", "{010 1234 5678}이요", Kind.PHONE),
    ("ko", "{０１０－１２３４－５６７８}", Kind.PHONE),
    ("ko", "{공일공 일이삼사 오육칠팔}입니다", Kind.PHONE),
    ("ko", "{공일공에 일이삼사에 오육칠팔}이요", Kind.PHONE),
    ("ko", "{공 일 공 일 이 삼 사 오 육 칠 팔}", Kind.PHONE),
    ("ko", "제번호는{공일공일이삼사오육칠팔}입니다", Kind.PHONE),
    ("ko", "{공일공, 음, 일이삼사, 어, 오육칠팔}이라고요", Kind.PHONE),
    ("ko", "{공하나공 하나둘셋넷 오육칠팔}", Kind.PHONE),
    ("ko", "{공일공 1234 5678}이에요", Kind.PHONE),
    ("ko", "집은 {공이 삼사오육 칠팔구공}이고요", Kind.PHONE),
    ("ko", "전화 {02-345-6789}", Kind.PHONE),
    ("ko", "{제로 원 제로 투 쓰리 포 파이브 식스 세븐 에잇}", Kind.NUMBER),
    ("ko", "카드번호 {4111 1111 1111 1111}로 결제", Kind.CARD),
    ("ko", "{사일일일 일일일일 일일일일 일일일일}, 이게 카드예요", Kind.CARD),
    ("ko", "주민번호 {900101-1234567} 맞아요", Kind.NATIONAL_ID),
    ("ko", "{900101-1******}", Kind.NATIONAL_ID),
    ("ko", "외국인등록번호는 {900101-5234567}입니다", Kind.NATIONAL_ID),
    ("ko", "{구공공일공일 다시 일이삼사오육칠}이요", Kind.NATIONAL_ID),
    ("ko", "여권 {M12345678}", Kind.NATIONAL_ID),
    ("ko", "국민은행 {123456-01-234567}로 보내세요", Kind.ACCOUNT),
    ("ko", "계좌번호 {일일공 이삼사 오육칠팔구공}입니다", Kind.ACCOUNT),
    ("ko", "{hong.gildong@naver.com}으로 보내 주세요", Kind.EMAIL),
    ("ko", "메일은 {홍길동 골뱅이 네이버 점 컴}이에요", Kind.EMAIL),
    ("ko", "{에이 비 씨 일이삼 골뱅이 지메일 닷컴}이요", Kind.EMAIL),
    ("ko", "메일 주소는 {gildong 골뱅이 naver.com}", Kind.EMAIL),
    ("ko", "비밀번호 {1234}요", Kind.SECRET),
    ("ko", "카드 뒷자리 {구팔칠육}이에요", Kind.SECRET),
    ("ko", "인증번호는 {382910}입니다", Kind.SECRET),
    ("ko", "생년월일은 {900101}이에요", Kind.BIRTH_DATE),
    ("ko", "생일이 {1990-01-01}이에요", Kind.BIRTH_DATE),
    ("ko", "{서울 강남구 테헤란로 123, 101동 1203호}로 배송", Kind.ADDRESS),
    ("ko", "{수원시 영통구 매탄동 백이십삼 번지}예요", Kind.ADDRESS),
    ("ko", "{101동 1203호}요", Kind.ADDRESS),
    # English.
    ("en", "call me at {415-555-2671} please", Kind.PHONE),
    ("en", "it's {+1 (415) 555-2671}", Kind.PHONE),
    ("en", "my number is {four one five five five five two six seven one}", Kind.PHONE),
    ("en", "{four one five, triple five, two six seven one}", Kind.PHONE),
    ("en", "{Oh two oh seven nine four six oh nine five eight}", Kind.PHONE),
    ("en", "{eight hundred, five five five, one two one two}", Kind.PHONE),
    ("en", "{4111-1111-1111-1111}", Kind.CARD),
    ("en", "{" + "four" + " one" * 15 + "}", Kind.CARD),
    ("en", "{forty-one eleven, eleven eleven, eleven eleven, eleven eleven}", Kind.CARD),
    ("en", "SSN {123-45-6789}", Kind.NATIONAL_ID),
    ("en", "my social is {one two three, four five, six seven eight nine}", Kind.NATIONAL_ID),
    ("en", "account number {12345678}", Kind.ACCOUNT),
    ("en", "{john.smith@example.com} please", Kind.EMAIL),
    ("en", "write to {john dot smith at gmail dot com}", Kind.EMAIL),
    ("en", "it's {j o h n underscore s at example dot co dot uk}", Kind.EMAIL),
    ("en", "the last four are {4321}", Kind.SECRET),
    ("en", "my pin is {one two three}", Kind.SECRET),
    ("en", "my date of birth is {01/31/1990}", Kind.BIRTH_DATE),
    ("en", "I live at {12 Oak Street, Springfield, IL 62704}", Kind.ADDRESS),
    ("en", "it's {forty two old mill road}", Kind.ADDRESS),
    ("en", "postcode {SW1A 1AA}", Kind.ADDRESS),
    ("en", "it's {flat 3, 221B Baker Street, London NW1 6XE}", Kind.ADDRESS),
    ("en", "reach me on {+44 20 7946 0958}", Kind.PHONE),
    ("en", "my email is {j dot doe ninety nine at yahoo dot co dot uk}", Kind.EMAIL),
    ("ko", "이메일은 {abc 일이삼 골뱅이 한메일 쩜 넷}", Kind.EMAIL),
    ("ko", "접수번호가 {20241122-00123} 이에요", Kind.NUMBER),
    ("ko", "카드 번호가 {오삼육이 공공일이 삼사오육 칠팔구공}이에요", Kind.CARD),
    ("ko", "유효기간 {공육에 이칠}이에요", Kind.SECRET),
    # Chinese.
    ("zh", "座机{010-62345678转8001}", Kind.NUMBER),
    ("zh", "身份证后四位是{零零二X}", Kind.SECRET),
    ("zh", "我的电话是{13800138000}", Kind.PHONE),
    ("zh", "我的手机号{138 0013 8000}", Kind.PHONE),
    ("zh", "{一三八零零一三八零零零}", Kind.PHONE),
    ("zh", "{幺三八，零零幺三，八零零零}", Kind.PHONE),
    ("zh", "身份证{11010519491231002X}", Kind.NATIONAL_ID),
    ("zh", "号码{一一零一零五一九四九一二三一零零二X}", Kind.NATIONAL_ID),
    ("zh", "卡号{6222 0212 3456 7890 123}", Kind.CARD),
    ("zh", "账号是{12345678901}", Kind.ACCOUNT),
    ("zh", "邮箱 {abc@qq.com}", Kind.EMAIL),
    ("zh", "邮箱是{小明艾特163点com}", Kind.EMAIL),
    ("zh", "验证码{382910}", Kind.SECRET),
    ("zh", "尾号{四三二一}", Kind.SECRET),
    ("zh", "生日是{1990-01-01}", Kind.BIRTH_DATE),
    ("zh", "我住在{北京市海淀区中山路12号3栋2单元501室}", Kind.ADDRESS),
    ("zh", "寄到{南京西路一百二十三号}", Kind.ADDRESS),
    # Japanese.
    ("ja", "電話は{090-1234-5678}です", Kind.PHONE),
    ("ja", "{０３ー１２３４ー５６７８}です", Kind.PHONE),
    ("ja", "{03の1234の5678}です", Kind.PHONE),
    ("ja", "{ゼロキュウゼロ、イチニサンヨン、ゴロクナナハチ}です", Kind.PHONE),
    ("ja", "{ゼロキューゼロのイチニーサンヨンのゴーロクナナハチ}", Kind.PHONE),
    ("ja", "{ｾﾞﾛｷｭｳｾﾞﾛｲﾁﾆｻﾝﾖﾝｺﾞﾛｸﾅﾅﾊﾁ}", Kind.PHONE),
    ("ja", "{〇九〇一二三四五六七八}です", Kind.PHONE),
    ("ja", "マイナンバーは{123456789018}です", Kind.NATIONAL_ID),
    ("ja", "カードは{4111111111111111}", Kind.CARD),
    ("ja", "口座番号は{1234567}です", Kind.ACCOUNT),
    ("ja", "{tanaka@example.co.jp}です", Kind.EMAIL),
    ("ja", "メールは{tanaka アットマーク ジーメール ドット コム}です", Kind.EMAIL),
    ("ja", "暗証番号は{1234}です", Kind.SECRET),
    ("ja", "生年月日は{1990/01/01}です", Kind.BIRTH_DATE),
    ("ja", "{東京都新宿区西新宿2丁目8番1号}に住んでます", Kind.ADDRESS),
    ("ja", "{西新宿二丁目八の一}です", Kind.ADDRESS),
    ("ja", "{〒160-0023}", Kind.ADDRESS),
    # Disguised, mixed.
    ("ko", "{010\u200b1234\u200b5678}", Kind.PHONE),
    ("ko", "\u202e{8765-4321-010\u202c}", Kind.ACCOUNT),
    ("ko", "{0️⃣1️⃣0️⃣1️⃣2️⃣3️⃣4️⃣5️⃣6️⃣7️⃣8️⃣}", Kind.PHONE),
    ("ko", "{010📞1234📞5678}", Kind.PHONE),
    ("en", "{٠١٠١٢٣٤٥٦٧٨}", Kind.PHONE),
    ("en", "{𝟜𝟙𝟝𝟝𝟝𝟝𝟚𝟞𝟟𝟙}", Kind.PHONE),
    ("en", "내 번호 {공일공 one two three four 오육칠팔} ok", Kind.PHONE),
    ("zh", "我叫Kim，{010-1234-5678}，서울", Kind.PHONE),
]  # fmt: skip

STAYS: list[tuple[str, str]] = [
    ("ko", "35,000원을 두 번 결제했어요"),
    ("ko", "35000원 결제하고 3개 주문했는데 2024년 11월 22일 14:30에 왔어요"),
    ("ko", "₩1,299,000 환불해 주세요, 1299000원이요"),
    ("ko", "삼만 오천 원이고 이십오 일에 샀어요"),
    ("ko", "백이십만 원 넘게 썼고 삼십이 번 전화했어요"),
    ("ko", "2024-11-22에 샀고 2024.11.25에 왔어요"),
    ("ko", "오후 3시 30분, 12:30, 5월 5일"),
    ("ko", "이 일이 사이가 안 좋아서 이사 갔어요"),
    ("ko", "삼사 일 기다리고 일이 주 또 기다렸어요"),
    ("ko", "앞으로 3일, 카드로 3만원, 그대로 2개, 바로 2024년에"),
    ("ko", "골뱅이 무침 시켰는데 골뱅이가 없어요"),
    ("ko", "하나 둘 셋 세고 시작할게요"),
    ("ko", "야 이 씨발 새끼야 시발점이고 새끼손가락"),
    ("ko", "119에 신고하고 112 부를 거예요"),
    ("ko", "100번 넘게 전화했다고요, 100%요"),
    ("ko", "죽여버린다 너 어디 사는지 다 알아"),
    ("ko", "사과 오이 구이 사요"),
    ("ko", "오오오오오오 이야, 퇴출시켜야트로이김치노"),
    ("en", "oh oh oh oh oh my god"),
    ("en", "RT @somebody said @another_one is at fault"),
    ("en", "I paid $1,299.99 on 11/22/2024 at 10:30 for 3 items"),
    ("en", "one two three testing, one on one, twenty five dollars"),
    ("en", "since nineteen eighty four, in 2019, 12,000 people"),
    ("en", "I waited 3 hours on the road with 2 people in the street"),
    ("en", "look at the dog, at the end of the day dot dot dot"),
    ("en", "35000 won, 250 bucks, 10 percent, 120000 points"),
    ("en", "you called me two or three times, to the one for all"),
    ("en", "five to six business days, nine to five"),
    ("en", "a hundred and twenty dollars, nineteen ninety nine, 24/7 support"),
    ("en", "at 7 pm for two people on the 3rd of May 2024"),
    ("ko", "영 하나도 안 들려요 오늘 이사 가요"),
    ("en", "for order 2 of 3, page 12, version 3.11"),
    ("zh", "二〇二四年十一月二十二日花了三千五百块"),
    ("zh", "三三两两的人，七七八八的事，一五一十地说"),
    ("zh", "退我1299.5元，2024年11月22日下午3点30分，3件"),
    ("zh", "等了两三个小时，打了五六次，三百二十一块"),
    ("zh", "一个一个来，一天一次，不三不四"),
    ("zh", "2024-11-22 14:30，￥35,000"),
    ("ja", "3,500円を2回払った。2024年11月22日14時30分"),
    ("ja", "ごご三時に二人で、さんざん待って、いちにち"),
    ("ja", "二、三日で三千五百円返してください"),
    ("ja", "ここに三人、あそこに四人、いちいちうるさい"),
    ("ja", "アットホームな店だと思った"),
    ("ja", "10000円、15000ポイント、100%"),
]  # fmt: skip


@pytest.mark.parametrize(("language", "said", "kind"), GOES)
def test_personal_data_goes(language: str, said: str, kind: Kind) -> None:
    before, _, rest = said.partition("{")
    secret, _, after = rest.partition("}")
    seen = redact(before + secret + after, language)
    assert kind in seen.found, seen.text
    bare = ANY_MARK.sub("", seen.text)
    left = bare.removeprefix(before).removesuffix(after)
    assert bare.startswith(before), seen.text
    assert bare.endswith(after), seen.text
    assert not any(char.isalnum() for char in left), seen.text


@pytest.mark.parametrize(("language", "said"), STAYS)
def test_what_is_clearly_something_else_stays(language: str, said: str) -> None:
    seen = redact(said, language)
    assert seen.text == said
    assert seen.found == ()


def test_the_cases_would_notice_a_redaction_that_finds_too_little(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Negative control: without its finder of numbers, most made cases leak."""
    monkeypatch.setattr("detectors.redaction.find_numbers", lambda text, language: [])
    leaks = [said for language, said, kind in GOES if kind not in redact(said, language).found]
    assert len(leaks) > len(GOES) // 2


def test_the_cases_would_notice_a_redaction_that_takes_too_much(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Negative control: were every number one to hide, the complaints would be spoiled."""
    monkeypatch.setattr(numbers_module, "find_amounts", lambda text: [])
    monkeypatch.setattr(numbers_module, "find_dates", lambda text: [])
    monkeypatch.setattr(numbers_module, "_written_enough", lambda run, text: True)
    monkeypatch.setattr(numbers_module, "_spoken_enough", lambda run, text: True)
    spoiled = [said for language, said in STAYS if redact(said, language).text != said]
    assert len(spoiled) > len(STAYS) // 2


def test_marks_are_in_the_language_of_the_call() -> None:
    said = "010-1234-5678"
    assert redact(said, "ko").text == "[전화번호]"
    assert redact(said, "en").text == "[phone]"
    assert redact(said, "zh").text == "[电话号码]"
    assert redact(said, "ja").text == "[電話番号]"
    assert redact(said, "de").text == "[phone]"


def test_an_excerpt_is_cut_from_the_redacted_text() -> None:
    said = "야 이 새끼야 010-1234-5678 전화해 죽여버린다"
    seen = redact(said, "ko")

    def excerpt(words: str) -> str:
        start = said.index(words)
        return seen.excerpt(start, start + len(words))

    assert excerpt("새끼야") == "새끼야"
    assert excerpt("죽여버린다") == "죽여버린다"
    assert excerpt("새끼야 010-12") == "새끼야 [전화번호]"
    assert excerpt("34-5678 전화해") == "[전화번호] 전화해"
    assert excerpt("1234") == "[전화번호]"
    assert seen.excerpt(-5, 10_000) == seen.text
    assert seen.excerpt(7, 7) == seen.excerpt(9, 3) == ""


def test_check_digits() -> None:
    assert luhn("4111111111111111")
    assert not luhn("4111111111111112")
    assert not luhn("0000000000000000")
    assert chinese_resident("11010519491231002X")
    assert not chinese_resident("110105194912310021")
    assert japanese_individual("123456789018")
    assert not japanese_individual("123456789012")
    assert korean_resident("9001011234567")
    assert not korean_resident("9013011234567")
    assert social_security("123456789")
    assert not social_security("666456789")


digit = st.sampled_from("0123456789")
LANGUAGES = ("ko", "en", "zh", "ja")
_SPOKEN = {
    "ko": "공일이삼사오육칠팔구",
    "zh": "零一二三四五六七八九",
    "en": ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    "ja": ("ゼロ", "イチ", "ニ", "サン", "ヨン", "ゴ", "ロク", "ナナ", "ハチ", "キュウ"),
}


@given(
    numbers=st.text(digit, min_size=9, max_size=16),
    cuts=st.lists(st.integers(1, 15), max_size=4),
    glue=st.sampled_from([" ", "-", ".", " - ", "\u200b", "·", "–"]),
    language=st.sampled_from(LANGUAGES),
    wide=st.booleans(),
)
def test_no_long_number_stays_however_it_is_cut(
    numbers: str, cuts: list[int], glue: str, language: str, wide: bool
) -> None:
    parts = [numbers[a:b] for a, b in zip([0, *sorted(cuts)], [*sorted(cuts), 99], strict=True)]
    written = glue.join(part for part in parts if part)
    if wide:
        written = written.translate({48 + k: 0xFF10 + k for k in range(10)})
    seen = redact(f"음 {written} 네", language)
    left = "".join(char for char in seen.text if char.isdecimal())
    # A date of eight digits set apart by hyphens or dots may stand at an end of it.
    assert len(left) <= 8, seen.text
    assert seen.found


@given(
    numbers=st.text(digit, min_size=7, max_size=18),
    spaced=st.lists(st.booleans(), min_size=18, max_size=18),
    language=st.sampled_from(LANGUAGES),
)
def test_no_long_number_stays_when_it_is_spoken_digit_by_digit(
    numbers: str, spaced: list[bool], language: str
) -> None:
    assume(len(set(numbers)) > 1)  # "오오오오오오오" is a shout
    words = [_SPOKEN[language][int(char)] for char in numbers]
    spoken = "".join(
        word + (" " if space or language == "en" else "")
        for word, space in zip(words, spaced[: len(words)], strict=True)
    ).strip()
    seen = redact(spoken, language)
    assert ANY_MARK.sub("", seen.text).strip() == "", seen.text


text = st.text(
    st.one_of(
        st.characters(exclude_categories=["Cs"]),
        st.sampled_from(
            "0123456789 -.@,:공일이삼사오육칠팔구영원년月日号路零一二三丁目番ゼロイチニ"
            "골뱅이at\u200b\u202e"
        ),
    ),
    max_size=200,
)


@given(said=text, language=st.sampled_from(LANGUAGES))
def test_any_text_has_an_answer_whose_marks_fit_the_original(said: str, language: str) -> None:
    seen = redact(said, language)
    done, pieces = 0, []
    for span in seen.spans:
        assert done <= span.start < span.end <= len(said)
        assert ANY_MARK.fullmatch(seen.text[span.marked_start : span.marked_end])
        pieces += [said[done : span.start], seen.text[span.marked_start : span.marked_end]]
        done = span.end
    assert "".join([*pieces, said[done:]]) == seen.text
    assert seen.excerpt(0, len(said)) == seen.text


@given(said=text, language=st.sampled_from(LANGUAGES))
def test_redacting_twice_shows_no_more_digits_than_once(said: str, language: str) -> None:
    once = redact(said, language).text
    twice = redact(once, language).text
    assert sum(map(str.isdecimal, twice)) <= sum(map(str.isdecimal, once))
    for whole in ANY_MARK.findall(once):
        assert whole in twice


_HOSTILE = (
    "1", "1 ", "a@", "@", "일이삼사", "공 일 ", "로1길", "강남구 ", "一", "市路", "北京市中山路",
    "に", "東京都新宿", "one ", "12 oak ", ". ", "골뱅이 ", "at a dot ", " ", "(", "1,", "1,234",
    "1:1", "路", "😀", "\u200b", "\u1112\u1161", "-", "1원", "card 4111 ", "twenty ", "1*",
    "1동 ", "번호 12 ", "공일공 010-1234 a@b.c at x dot com 中山路12号 ",
)  # fmt: skip


@pytest.mark.parametrize("piece", _HOSTILE)
def test_time_grows_with_the_text_and_no_faster(piece: str) -> None:
    """A quadratic rule would take a hundred times as long for ten times the text."""

    def cost(size: int) -> float:
        said = (piece * (size // len(piece) + 1))[:size]
        best = float("inf")
        for _ in range(2):
            begun = time.process_time()
            redact(said, "ko")
            best = min(best, time.process_time() - begun)
        return best

    small = max(cost(4_000), 1e-3)
    assert cost(40_000) < 40 * small


def test_a_megabyte_of_mixed_talk_is_answered() -> None:
    said = "공일공 일이삼사 오육칠팔, 35,000원 call 415-555-2671 中山路12号 ゼロイチニサンヨン. "
    seen = redact(said * (1_000_000 // len(said)), "ko")
    # The spoken number at a piece's end runs into the one that begins the next.
    assert len(seen.spans) >= 3 * (1_000_000 // len(said))
    assert "415" not in seen.text
    assert seen.text.count("35,000원") == 1_000_000 // len(said)
