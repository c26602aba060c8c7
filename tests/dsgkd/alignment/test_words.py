from itertools import pairwise

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from dsgkd.alignment.words import WordRule, find_words, separated
from dsgkd.errors import InputError

PIECES = [
    *("fever", "x", "V", "S", "é", "e\u0301", "Ⅳ", "3", "38", "₂", "ﬁ", "Ａ"),
    *("-", "/", "'", "’", "\u2011", ".", ",", " ", "(", ")", "_", "\n"),
    *("로", "환아", "は", "熱", "ж", "α", "\u0301", "\U0001f600"),
]
texts = st.lists(st.sampled_from(PIECES), max_size=20).map("".join)


def words(text: str, rule: WordRule = WordRule()) -> list[str]:  # noqa: B008
    return [text[start:end] for start, end in find_words(text, rule)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("상기 환아 V/S stable, x-ray 상 이상 없음", ["V/S", "stable", "x-ray"]),
        ("fever로 내원, ER에서 COVID-19의", ["fever", "ER", "COVID-19"]),
        ("熱fever熱 vomitingのため", ["fever", "vomiting"]),
        ("Crohn's Crohn’s don't- 'quoted'", ["Crohn's", "Crohn’s", "don't", "quoted"]),
        ("SpO₂ 98% 10cm² IV3회 5-HT3", ["SpO₂", "10cm²", "IV3", "5-HT3"]),
        ("cafe\u0301 naïve Ｆｅｖｅｒ Ⅳ", ["cafe\u0301", "naïve", "Ｆｅｖｅｒ", "Ⅳ"]),
        ("2021-03-04 38.5도 120/80 --", []),
        ("a--b a-/b -a/ x\u2011ray", ["a", "b", "a", "b", "a", "x\u2011ray"]),
        ("Ωmega жук", ["mega"]),
        ("", []),
    ],
)
def test_the_script_rule_finds_maximal_runs_and_leaves_particles_outside(text, expected):
    assert words(text) == expected


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("Han", ["熱性痙攣", "々"]),
        ("Cyrillic", ["жар-3"]),
        ("hangul", ["로"]),
        ("Hiragana", ["は"]),
    ],
)
def test_the_script_is_a_setting(script, expected):
    assert words("fever로 熱性痙攣は жар-3 々", WordRule(script=script)) == expected


def test_vowel_signs_and_zero_width_joiners_stay_inside_a_word():
    assert words("a हिन्दी b", WordRule(script="Devanagari")) == ["हिन्दी"]
    assert words("می\u200cخواهم ok", WordRule(script="Arabic")) == ["می\u200cخواهم"]


def test_the_paper_rule_takes_items_between_spaces_that_are_ascii_letters_only():
    text = "fever 환아 vomiting, V/S x-ray fever로 ER  café a\tb ok"
    assert words(text, WordRule("paper")) == ["fever", "ER", "ok"]


@given(texts)
def test_the_paper_rule_is_split_by_spaces(text):
    expected = [w for w in text.split(" ") if regex.fullmatch("[A-Za-z]+", w)]
    assert words(text, WordRule("paper")) == expected


@given(texts)
def test_script_words_are_ordered_runs_with_a_letter_that_nothing_could_be_added_to(text):
    spans = find_words(text, WordRule())
    part = regex.compile(r"[\p{Script=Latin}\p{Nd}₂]")
    for (_, end), (start, _) in pairwise(spans):
        assert end < start
    for start, end in spans:
        word = text[start:end]
        assert regex.search(r"\p{Script=Latin}", word)
        assert not regex.search(r"[\p{Hangul}\p{Han}\p{Hiragana}\p{Cyrillic}\p{Greek}\s]", word)
        assert part.match(word)
        assert not part.match(text[start - 1 : start])
        assert not regex.match(r"[\p{Script=Latin}\p{Nd}₂\p{M}]", text[end : end + 1])
    letters = {m.start() for m in regex.finditer(r"\p{Script=Latin}", text)}
    covered = {i for start, end in spans for i in range(start, end)}
    assert letters <= covered


def apart(text: str, rule: WordRule = WordRule()) -> str:  # noqa: B008
    return separated(text, find_words(text, rule))[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("vomiting으로 내원", "vomiting 으로 내원"),
        ("환아fever", "환아 fever"),
        ("a로b를c", "a 로 b 를 c"),
        ("熱fever熱, サーバーDBの", "熱 fever 熱, サーバー DB の"),
        ("IV3회 x-ray상 TNFα हिन्दीfever", "IV3 회 x-ray 상 TNF α हिन्दी fever"),
        ("fever, (ER)에서 /fever- 3일 38.5도", "fever, (ER)에서 /fever- 3일 38.5도"),
        ("5µg fever😀 _a_ café", "5µg fever😀 _a_ café"),
        ("fever 환아", "fever 환아"),
        ("", ""),
    ],
)
def test_words_are_separated_from_letters_of_other_scripts_and_from_nothing_else(text, expected):
    assert apart(text) == expected


def test_words_of_any_script_are_separated():
    assert apart("fever로 жар로", WordRule(script="Cyrillic")) == "fever로 жар 로"
    assert apart("AとB", WordRule(script="Hiragana")) == "A と B"


@given(texts)
def test_separating_adds_only_spaces_and_keeps_every_word(text):
    found = find_words(text, WordRule())
    spaced, spans = separated(text, found)
    assert [spaced[a:b] for a, b in spans] == [text[a:b] for a, b in found]
    assert find_words(spaced, WordRule()) == spans
    assert spaced.replace(" ", "") == text.replace(" ", "")
    assert separated(spaced, spans) == (spaced, spans)
    for start, end in spans:
        for neighbour in (spaced[start - 1 : start], spaced[end : end + 1]):
            assert not regex.match(r"[\p{Hangul}\p{Han}\p{Hiragana}\p{Cyrillic}]", neighbour)


@pytest.mark.parametrize("script", ["Klingon", "", "Latin}|.|\\p{Han", "^Latin"])
def test_an_unknown_script_is_an_input_error(script):
    with pytest.raises(InputError, match=r"script .* is not known"):
        WordRule(script=script)


def test_an_unknown_kind_is_an_input_error():
    with pytest.raises(InputError, match=r"kind: .words. does not fit: choose one of: script"):
        WordRule(kind="words")  # type: ignore[arg-type]


def test_a_long_text_without_any_word_takes_no_time():
    assert find_words("1-" * 200_000, WordRule()) == []
    assert find_words("3일전 " * 50_000, WordRule()) == []
