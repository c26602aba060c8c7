"""How often training has seen the rarest foreign word of a text."""

from collections import Counter
from collections.abc import Sequence

from dsgkd.alignment.words import WordRule, find_words

RAREST_WORD = "rarest_word"
"""The name of these categories among the subgroups of predictions."""


def rarest_words(training: Sequence[str], texts: Sequence[str], rule: WordRule) -> list[str]:
    """Return for each text how often its rarest word to transfer occurs in the training texts.

    Words are compared without regard to case, and known neither by the student's tokens nor by
    its teachers', so that every arm of a study has the same categories.

    Returns:
        `never`, `1-2` or `3+` occurrences; `none` for a text without such a word.
    """
    counts = Counter(word for text in training for word in _words(text, rule))
    return [_category(min((counts[w] for w in _words(text, rule)), default=None)) for text in texts]


def _words(text: str, rule: WordRule) -> list[str]:
    return [text[start:end].casefold() for start, end in find_words(text, rule)]


def _category(least: int | None) -> str:
    if least is None:
        return "none"
    return "never" if least == 0 else "1-2" if least < 3 else "3+"
