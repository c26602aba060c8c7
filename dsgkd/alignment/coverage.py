"""How many of the foreign words can be transferred, and where the others are lost."""

from dataclasses import dataclass

import numpy as np

from dsgkd.alignment.texts import EncodedTexts


@dataclass(frozen=True)
class Coverage:
    """Counts over a set of notes; the words transferred and those lost add up to those found."""

    texts: int
    """Number of texts."""
    texts_with_words: int
    """Texts of which at least one word is transferred."""
    words_found: int
    """Words that the rule finds."""
    words: int
    """Words that are transferred."""
    lost_to_alignment: int
    """Words that are not wholly inside both models' tokens, mostly cut off by the length limit."""
    unknown_to_teacher: int
    """Words of which the teacher reads a part as its unknown token."""
    unknown_to_student: int
    """Words of which only the student reads a part as its unknown token."""
    beyond_the_most: int
    """Words beyond the most that are transferred from one text."""
    max_words: int
    """The most words that are transferred from one text."""

    @property
    def words_per_text(self) -> float:
        """Mean number of words transferred from a text."""
        return self.words / max(self.texts, 1)

    @property
    def share_with_words(self) -> float:
        """Share of the texts of which at least one word is transferred."""
        return self.texts_with_words / max(self.texts, 1)

    def __str__(self) -> str:
        losses = (
            (self.lost_to_alignment, "cut off"),
            (self.unknown_to_teacher, "unknown to teacher"),
            (
                self.unknown_to_student,
                "to student" if self.unknown_to_teacher else "unknown to student",
            ),
            (self.beyond_the_most, f"beyond {self.max_words} a text"),
        )
        lost = ", ".join(f"{count:,} {how}" for count, how in losses if count) or "none lost"
        return (
            f"{self.words:,} of {self.words_found:,} words used ({lost}); "
            f"{self.words_per_text:.1f} a text, {100 * self.share_with_words:.0f} % of texts"
        )


def coverage(texts: EncodedTexts, max_words: int, teacher: int = 0) -> Coverage:
    """Count the words of a set of texts when at most `max_words` are taken from each text.

    Args:
        texts: encoded for at least one teacher.
        max_words: the most words that are transferred from one text.
        teacher: position of the teacher whose words are counted.
    """
    alignment, found = texts.alignments[teacher], texts.student.found.lengths
    transferable = alignment.words.lengths
    taken = np.minimum(transferable, max_words)
    unknown_to_teacher, unknown_to_student = alignment.unknown.sum(axis=0).tolist()
    return Coverage(
        texts=len(texts),
        texts_with_words=int((taken > 0).sum()),
        words_found=int(found.sum()),
        words=int(taken.sum()),
        lost_to_alignment=int((found - transferable).sum())
        - unknown_to_teacher
        - unknown_to_student,
        unknown_to_teacher=unknown_to_teacher,
        unknown_to_student=unknown_to_student,
        beyond_the_most=int((transferable - taken).sum()),
        max_words=max_words,
    )
