"""What a note looks like to a probe: its words, its text, and the models' states of its words."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array
from sklearn.feature_extraction.text import CountVectorizer

from dsgkd.alignment.words import WordRule, find_words
from dsgkd.data.ragged import Array
from dsgkd.headroom.crossvalidation import TEXT, WORDS, Block

TEACHER, RANDOM, SHUFFLED = "teacher", "random", "shuffled"
STUDENT_TOKENS, STUDENT_WORDS = "student tokens", "student words"
NGRAMS = (2, 4)
MOST_NGRAMS = 50_000


class StateName(NamedTuple):
    """Which states a block holds."""

    model: str
    features: str
    """`TEACHER`, `RANDOM`, `SHUFFLED`, `STUDENT_TOKENS` or `STUDENT_WORDS`."""
    layer: int
    draw: int = 0
    """Which of several draws of random weights."""

    def __str__(self) -> str:
        return f"{self.model} {self.features} {self.layer} {self.draw}"


@dataclass(frozen=True, eq=False)
class Material:
    """All that a headroom is measured from."""

    labels: Array
    """[notes] int64."""
    groups: Array
    """[notes] int64, the number of each note's patient."""
    words: csr_array
    """How often each type of foreign word stands in each note: [notes, types]."""
    text: csr_array
    """Counts of character n-grams: [notes, n-grams]."""
    states: Mapping[StateName, Array]
    """[notes, width]; rows of NaN where a note has no word."""
    covered: float = float("nan")
    """Of the word types that stand in one note only, the share that the unlabelled texts have."""

    def blocks(self) -> dict[str, Block]:
        """Return every block by its name."""
        states = {str(name): Block(values) for name, values in self.states.items()}
        return {
            WORDS: Block(self.words, "presence"),
            TEXT: Block(self.text, "tfidf"),
        } | states


def bag_of_words(texts: Sequence[str], rule: WordRule) -> tuple[csr_array, tuple[str, ...]]:
    """Count the words to transfer, in lower case: [texts, types], and the types."""
    counter = CountVectorizer(analyzer=lambda text: list(words_of(text, rule)), lowercase=False)
    try:
        counts = csr_array(counter.fit_transform(texts))
    except ValueError:  # no text has a word
        return csr_array((len(texts), 0), dtype=np.int64), ()
    return counts, tuple(counter.get_feature_names_out().tolist())


def words_of(text: str, rule: WordRule) -> Iterator[str]:
    """Yield the words of a text that are transferred, in lower case."""
    for start, end in find_words(text, rule):
        yield text[start:end].lower()


def character_ngrams(texts: Sequence[str]) -> csr_array:
    """Count the n-grams of 2 to 4 characters that stand in two texts or more: [texts, n-grams]."""
    for least in (2, 1):
        counter = CountVectorizer(
            analyzer="char", ngram_range=NGRAMS, min_df=least, max_features=MOST_NGRAMS
        )
        try:
            return csr_array(counter.fit_transform(texts).astype(np.float64))
        except ValueError:  # nothing is common to two texts
            continue
    return csr_array((len(texts), 1))


@dataclass(frozen=True, eq=False)
class Occurrences:
    """The words of the notes that one teacher transfers."""

    rows: Array
    """Position of each word's note: [words] int64."""
    types: Array
    """Number of each word's type: [words] int64."""
    notes: int

    def mean(self, states: Array) -> Array:
        """Return the mean state of each note's words, [notes, width]; NaN where it has none."""
        share = self._per_note()
        pooled = np.asarray(share @ states, np.float64)
        pooled[np.diff(share.indptr) == 0] = np.nan
        return pooled

    def of_types(self, states: Array) -> Array:
        """Return the mean state of each type over its occurrences: [types, width]."""
        amount = int(self.types.max()) + 1 if len(self.types) else 0
        counts = np.bincount(self.types, minlength=amount)
        places = (self.types, np.arange(len(self.types)))
        share = csr_array((1 / counts[self.types], places), shape=(amount, len(self.types)))
        return np.asarray(share @ states, np.float64)

    def dealt(self, states: Array, seed: int) -> Array:
        """Return the mean of each note's words, where each type has the mean state of another.

        A uniformly random cyclic permutation of the types: none keeps its own, every state is
        still there, and a type has the same state in all notes. What is left is that words differ,
        not what they mean.
        """
        means = self.of_types(states)
        order = np.random.default_rng(seed).permutation(len(means))
        source = np.empty(len(means), np.int64)
        source[order] = np.roll(order, 1)
        return self.mean(means[source][self.types])

    def _per_note(self) -> csr_array:
        counts = np.bincount(self.rows, minlength=self.notes)
        values = 1 / counts[self.rows]
        places = (self.rows, np.arange(len(self.rows)))
        return csr_array((values, places), shape=(self.notes, len(self.rows)))
