"""Type-consistent shuffling: in every text, a teacher reads the same other word in place of a word.

A permutation control (a control task in the sense of Hewitt and Liang, EMNLP 2019): each word type
has one partner, so its states are as consistent as the real ones and can be learnt just as well,
but they are those of another word. What a student gains from them is not gained from knowing what
its words mean. Because the words are replaced before the teacher reads, nothing else of the run
knows about it: the k-th word of a text goes with the k-th word of what the teacher reads instead.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np

from dsgkd.alignment.words import WordRule, find_words

_NEIGHBOURS = 8
"""Types of similar frequency among which partners are drawn: enough for other partners with other
seeds, few enough that the frequency of a state stays about what it was."""


def count_words(texts: Iterable[str], rule: WordRule) -> Counter[str]:
    """Return how often each word to transfer is written in texts."""
    # No word reaches over a space, and texts repeat their pieces.
    pieces = Counter(piece for text in texts for piece in text.split(" "))
    counts: Counter[str] = Counter()
    for piece, times in pieces.items():
        for start, end in find_words(piece, rule):
            counts[piece[start:end]] += times
    return counts


@dataclass(frozen=True)
class Substitution:
    """Which word is read in place of which.

    Two with one fingerprint are equal.
    """

    fingerprint: str
    """SHA-256 of the rule and of all partners."""
    rule: WordRule = field(compare=False)
    partners: Mapping[str, str] = field(compare=False, repr=False)
    """Word -> what is read in its place."""
    _forms: Sequence[str] = field(compare=False, repr=False)
    """All that is read in place of a word, in order."""

    @classmethod
    def drawn(
        cls, counts: Mapping[str, int], kinds: Mapping[str, Hashable], rule: WordRule, seed: int
    ) -> "Substitution":
        """Draw partners: a permutation of word types in which no type keeps its place.

        Words that differ in case only are one type, if they are of one kind; what is read for it is
        its most frequent form. Types of one kind are sorted by frequency (equal ones at random) and
        cut into groups of neighbours, and the types of each group stand in a random ring in which
        each is replaced by the next. A type that is alone of its kind stays.

        Args:
            counts: word -> how often it is written.
            kinds: word -> what partners must have in common, such as which models know them.
            rule: by which the words were found.
            seed: decides who is whose partner.
        """
        random = np.random.default_rng(np.random.SeedSequence([seed]))
        types: dict[tuple[str, str], list[str]] = {}
        for word in sorted(counts):
            types.setdefault((repr(kinds[word]), word.casefold()), []).append(word)
        ties = dict(zip(types, random.random(len(types)).tolist()))
        totals = {key: sum(counts[word] for word in words) for key, words in types.items()}
        written = {key: max(words, key=counts.__getitem__) for key, words in types.items()}
        ordered = sorted(types, key=lambda key: (key[0], -totals[key], ties[key]))
        partners: dict[str, str] = {}
        for _, of_kind in groupby(ordered, key=lambda key: key[0]):
            alike = list(of_kind)
            for group in np.array_split(np.arange(len(alike)), -(-len(alike) // _NEIGHBOURS)):
                ring = [alike[at] for at in random.permutation(group)]
                for key, following in zip(ring, [*ring[1:], ring[0]], strict=True):
                    partners |= dict.fromkeys(types[key], written[following])
        facts = [rule.kind, rule.script, sorted(partners.items())]
        fingerprint = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
        return cls(fingerprint, rule, partners, sorted(set(written.values())))

    def applied(self, texts: Sequence[str]) -> list[str]:
        """Return what is read in place of texts, with as many words in each.

        A partner is a whole word in the place of a whole word, so the rule finds it again.
        """
        read: dict[str, str] = {}
        for piece in {piece for text in texts for piece in text.split(" ")}:
            parts, done = [], 0
            for start, end in find_words(piece, self.rule):
                parts += [piece[done:start], self._partner(piece[start:end])]
                done = end
            read[piece] = "".join([*parts, piece[done:]])
        return [" ".join(read[piece] for piece in text.split(" ")) for text in texts]

    def _partner(self, word: str) -> str:
        """Return what is read for a word; for one that no partner was drawn for, one by its hash.

        Such words are those of held-out texts alone. None is read as itself, or the control would
        know something of them.
        """
        if word in self.partners or not self._forms:
            return self.partners.get(word, word)
        digest = hashlib.sha256(f"{self.fingerprint}{word.casefold()}".encode()).digest()
        at = int.from_bytes(digest[:8], "big") % len(self._forms)
        if self._forms[at].casefold() == word.casefold():
            at = (at + 1) % len(self._forms)
        return self._forms[at]
