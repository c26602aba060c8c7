"""Where the words of a student's view lie in a teacher's view of the same texts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dsgkd.alignment._spans import UNKNOWN
from dsgkd.alignment.view import View
from dsgkd.data.ragged import Array, Ragged


@dataclass(frozen=True, repr=False, eq=False)
class Alignment:
    """The words that can be transferred between two views: both models have a span for them."""

    words: Ragged
    """(student start, student end, teacher start, teacher end, position among the words that the
    teacher has): `[words, 5]` int32."""
    unknown: Array
    """How many words of each text the teacher, and how many others the student, reads as its
    unknown token: `[texts, 2]` int64."""

    @classmethod
    def of(cls, student: View, teacher: View) -> "Alignment":
        """Align two views of the same texts, in which one rule has found the same words."""
        found = student.found
        spans = np.concatenate([found.flat(), teacher.found.flat()], axis=1)
        rows = found.rows()

        def per_text(which: Array) -> Array:
            return np.bincount(rows[which], minlength=len(found))

        # A running number of the teacher's words, counted anew in each text.
        known = np.concatenate([[0], np.cumsum(spans[:, 2] >= 0)])
        first = (np.cumsum(found.lengths) - found.lengths)[rows]
        position = known[:-1] - known[first]
        valid = np.all(spans >= 0, axis=1)
        unknown = np.equal(spans[:, [2, 0]], UNKNOWN)  # [words, teacher and student]
        unknown[:, 1] &= ~unknown[:, 0]
        words = np.column_stack([spans, position])[valid].astype(np.int32)
        counts = np.stack([per_text(side) for side in unknown.T], axis=1)
        return cls(Ragged.of_lengths(words, per_text(valid)), counts)

    def take(self, rows: Array) -> "Alignment":
        """Select texts, in the order given."""
        return Alignment(self.words.take(rows), self.unknown[rows])

    @classmethod
    def joined(cls, parts: Sequence["Alignment"]) -> "Alignment":
        """Return the texts of several alignments of one pair, one after the other."""
        if len(parts) == 1:
            return parts[0]
        words = Ragged.joined([part.words for part in parts])
        return cls(words, np.concatenate([part.unknown for part in parts]))
