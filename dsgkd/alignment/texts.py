"""Texts as the models of a run read them: the student's view, and an aligned view per teacher."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

from dsgkd.alignment.alignment import Alignment
from dsgkd.alignment.substitution import Substitution
from dsgkd.alignment.view import View
from dsgkd.alignment.words import WordRule
from dsgkd.data.ragged import Array
from dsgkd.data.sources import Notes, TextSource

UNLABELLED = -1
"""The label of a text that has none."""


@dataclass(frozen=True, repr=False, eq=False)
class EncodedTexts:
    """A set of texts, encoded for a student and any number of teachers."""

    example_ids: Array
    """Keyed hash of each text: `[texts]` str."""
    group_ids: Array
    """Keyed hash of each text's patient, or None: `[texts]` object."""
    labels: Array
    """Class of each text, or `UNLABELLED`: `[texts]` int64."""
    splits: Array
    """Name of each text's split: `[texts]` str."""
    sources: Array
    """Position of each text's source in `source_names`: `[texts]` int64."""
    source_names: tuple[str, ...]
    student: View
    teachers: tuple[View, ...] = ()
    alignments: tuple[Alignment, ...] = ()
    """One for each teacher."""

    @classmethod
    def of(
        cls,
        notes: Notes | TextSource,
        student: PreTrainedTokenizerBase,
        teachers: Sequence[PreTrainedTokenizerBase],
        max_length: int,
        rule: WordRule,
        cache: Path,
        source: str = "labelled",
        substitutions: Sequence[Substitution] = (),
    ) -> "EncodedTexts":
        """Encode texts of one source.

        The student reads the text as it is written. A teacher, which has to know the words but
        not the language around them, reads the words apart from letters attached to them, or other
        words in their place: `substitutions` has none or one for each teacher.

        Raises:
            InputError: as `dsgkd.alignment.view.encoded`.
        """
        own = View.of(notes, student, max_length, rule, cache)
        read: Sequence[Substitution | None] = substitutions or [None] * len(teachers)
        others = tuple(
            View.of(notes, teacher, max_length, rule, cache, True, substitution)
            for teacher, substitution in zip(teachers, read, strict=True)
        )
        table = notes.table
        return cls(
            np.asarray(table["example_id"].to_pylist(), object),
            np.asarray(table["group_id"].to_pylist(), object),
            table["label"].to_numpy(),
            np.asarray(table["split"].to_pylist(), dtype=str),
            np.zeros(len(table), np.int64),
            (source,),
            own,
            others,
            tuple(Alignment.of(own, other) for other in others),
        )

    @classmethod
    def of_view(cls, view: View, source: str = "", split: str = "") -> "EncodedTexts":
        """Return texts of which nothing is known but how the student reads them."""
        count = len(view)
        return cls(
            np.full(count, "", object),
            np.full(count, None, object),
            np.full(count, UNLABELLED, np.int64),
            np.full(count, split),
            np.zeros(count, np.int64),
            (source,),
            view,
        )

    @classmethod
    def joined(cls, parts: Sequence["EncodedTexts"]) -> "EncodedTexts":
        """Return the texts of several sources, one source after the other."""
        if len(parts) == 1:
            return parts[0]
        teachers = range(len(parts[0].teachers))
        ends = np.cumsum([len(part.source_names) for part in parts])
        return cls(
            np.concatenate([part.example_ids for part in parts]),
            np.concatenate([part.group_ids for part in parts]),
            np.concatenate([part.labels for part in parts]),
            np.concatenate([part.splits for part in parts]),
            np.concatenate(
                [end - len(part.source_names) + part.sources for end, part in zip(ends, parts)]
            ),
            tuple(name for part in parts for name in part.source_names),
            View.joined([part.student for part in parts]),
            tuple(View.joined([part.teachers[at] for part in parts]) for at in teachers),
            tuple(Alignment.joined([part.alignments[at] for part in parts]) for at in teachers),
        )

    def take(self, rows: Array) -> "EncodedTexts":
        """Select texts, in the order given; token ids are shared, not copied."""
        return replace(
            self,
            example_ids=self.example_ids[rows],
            group_ids=self.group_ids[rows],
            labels=self.labels[rows],
            splits=self.splits[rows],
            sources=self.sources[rows],
            student=self.student.take(rows),
            teachers=tuple(view.take(rows) for view in self.teachers),
            alignments=tuple(alignment.take(rows) for alignment in self.alignments),
        )

    def split(self, name: str) -> "EncodedTexts":
        """Return the texts of one split, in their order."""
        return self.take(np.flatnonzero(self.splits == name))

    def alone(self) -> "EncodedTexts":
        """Return the same without teachers."""
        return replace(self, teachers=(), alignments=())

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> Array:
        """Length of each text in the student's tokens: `[texts]` int64."""
        return self.student.lengths

    def words_transferred(self, most: int) -> Array:
        """Return how many words of each text are transferred, over all teachers: `[texts]`."""
        counts = [np.minimum(a.words.lengths, most) for a in self.alignments]
        return np.max(counts, axis=0) if counts else np.zeros(len(self), np.int64)
