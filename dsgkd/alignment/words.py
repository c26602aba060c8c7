"""The words of a text that are in the foreign script, and so are transferred."""

from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Literal

import regex

from dsgkd.configuration import Text, config, shown
from dsgkd.errors import InputError

Span = tuple[int, int]

TERM = "{term}"
"""Stands for a word in a sentence that is made to carry it."""

# What may stand between two parts of one word: hyphens (also U+2010 and the non-breaking U+2011),
# a slash ("V/S"), apostrophes (also U+2019), and the zero-width joiners of Arabic and Indic words.
_JOINERS = r"[\-\u2010\u2011/'\u2019\u200c\u200d]"
# Decimal digits, and the raised and lowered ones of "SpO₂" and "cm²".
_DIGITS = r"\p{Nd}\u00b2\u00b3\u00b9\u2070\u2074-\u2079\u2080-\u2089"
# A letter or vowel sign that belongs to some script: the micro sign of "µg" belongs to none, and
# the Japanese long vowel mark, by its script extensions, to Hiragana and Katakana.
_SCRIPT_LETTER = regex.compile(
    r"[[\p{L}\p{M}]--\p{Script_Extensions=Common}--\p{Script_Extensions=Inherited}]", regex.V1
)
_PAPER_WORD = regex.compile(r"(?<![^ ])[A-Za-z]+(?![^ ])")


@config
class WordRule:
    """What counts as a word to transfer.

    Raises:
        InputError: the kind or the script is not known.
    """

    kind: Literal["script", "paper"] = "script"
    """`script`: runs of one script; `paper`: items of `text.split(" ")` of ASCII letters only."""
    script: Text = "Latin"
    """Unicode script of the words to transfer, by its name (`Latin`, `Han`, `Cyrillic`, ...)."""

    def __post_init__(self) -> None:
        _script_patterns(self.script)


def find_words(text: str, rule: WordRule) -> list[Span]:
    """Return the half-open character spans of the words to transfer, in order.

    Under the `script` rule a word is a maximal run of letters of the script, their combining
    marks, and digits, joined by single inner hyphens, slashes and apostrophes, with at least one
    letter in it. Letters of any other script, such as a Korean particle attached to the word, end
    it. Under the `paper` rule (the DSG-KD reference) it is an item of `text.split(" ")` that
    consists of ASCII letters only.
    """
    if rule.kind == "paper":
        return [match.span() for match in _PAPER_WORD.finditer(text)]
    run, letter = _script_patterns(rule.script)
    spans = (match.span() for match in run.finditer(text))
    return [(start, end) for start, end in spans if letter.search(text, start, end)]


def separated(text: str, spans: Sequence[Span]) -> tuple[str, list[Span]]:
    """Put a space between each word and a letter of another script right before or after it.

    A model of one language often has no token for a word with a foreign particle attached, such
    as "vomiting으로", and reads all of it as its unknown token; "vomiting 으로" it reads in part.

    Args:
        text: the text.
        spans: what `find_words` finds in it under the `script` rule, by which every letter that
            touches a word is one of another script.

    Returns:
        The text with the spaces, and the spans of the same words in it.
    """
    cuts = [
        place
        for start, end in spans
        for place, neighbour in ((start, text[start - 1 : start]), (end, text[end : end + 1]))
        if _is_script_letter(neighbour)
    ]
    if not cuts:
        return text, list(spans)
    spaced = " ".join(text[start:end] for start, end in pairwise([0, *cuts, len(text)]))
    shifts = [bisect_right(cuts, start) for start, _ in spans]
    return spaced, [(start + by, end + by) for (start, end), by in zip(spans, shifts, strict=True)]


@lru_cache(maxsize=4096)
def _is_script_letter(character: str) -> bool:
    return _SCRIPT_LETTER.match(character) is not None


@lru_cache
def _script_patterns(script: str) -> tuple[regex.Pattern[str], regex.Pattern[str]]:
    """Compile the pattern of a run of the script with digits, and that of one of its letters."""
    # The Roman numerals of Script=Latin are numbers (Nl), and letters for our purpose.
    letter = rf"[\p{{Script={script}}}&&[\p{{L}}\p{{Nl}}]]"
    part = rf"(?:[{letter}{_DIGITS}]\p{{M}}*+)++"
    try:
        if not regex.fullmatch(r"[A-Za-z][A-Za-z_ -]*", script):
            raise regex.error("not a name")
        run = regex.compile(rf"{part}(?:{_JOINERS}{part})*+", regex.V1)
        return run, regex.compile(letter, regex.V1)
    except (regex.error, ValueError, OverflowError):  # of a name that reads as a number
        remedy = "use the name of a Unicode script, such as Latin, Han, Hangul or Cyrillic"
        raise InputError("word rule", f"script {shown(script)} is not known", remedy) from None
