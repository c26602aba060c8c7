"""Layer mappings: which student layer learns from which teacher layer."""

import re
from dataclasses import dataclass
from typing import Literal, Self

from dsgkd.errors import InputError

_NOTATION = re.compile(
    r"(?:(uniform)(?:-([1-9]\d*))?|(last|first)-([1-9]\d*)|(\d+:\d+(?:,\d+:\d+)*))(\+emb)?"
)


@dataclass(frozen=True)
class LayerMapping:
    """Pairs of student and teacher layers, valid for any two depths.

    Written `uniform`, `uniform-2`, `last-2`, `first-2`, `1:3,2:6` (student:teacher), each with
    `+emb` behind it if the embedding outputs are matched too.
    """

    kind: Literal["uniform", "last", "first", "explicit"] = "uniform"
    count: int | None = None
    """Number of student layers mapped; None: all (uniform only)."""
    pairs: tuple[tuple[int, int], ...] = ()
    """(student layer, teacher layer), counted from 1; explicit only."""
    embeddings: bool = False
    """Match the embedding outputs (layer 0) as well."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the notation above.

        Raises:
            InputError: it is none.
        """
        match = _NOTATION.fullmatch(text.strip())
        if match is None:
            raise InputError(
                "layer mapping",
                f"'{text}' not understood",
                "write uniform, last-2, first-2 or 1:3,2:6",
            )
        uniform, uniform_count, end, end_count, pairs, embeddings = match.groups()
        plus = embeddings is not None
        if pairs:
            numbers = [tuple(map(int, pair.split(":"))) for pair in pairs.split(",")]
            return cls("explicit", None, tuple((s, t) for s, t in numbers), plus)
        if uniform:
            return cls("uniform", int(uniform_count) if uniform_count else None, (), plus)
        return cls("last" if end == "last" else "first", int(end_count), (), plus)

    def __str__(self) -> str:
        if self.kind == "explicit":
            base = ",".join(f"{student}:{teacher}" for student, teacher in self.pairs)
        else:
            base = self.kind if self.count is None else f"{self.kind}-{self.count}"
        return base + ("+emb" if self.embeddings else "")

    def resolve(self, student_depth: int, teacher_depth: int) -> tuple[tuple[int, int], ...]:
        """Return (student layer, teacher layer) pairs for two models; 0 is the embedding output.

        `uniform` spreads over the depth as TinyBERT does (arXiv 1909.10351: student layer m takes
        teacher layer g*m with g = teacher depth / student depth), rounded to the nearest layer,
        halves up.

        Raises:
            InputError: a layer does not exist.
        """
        layers = self._layers(student_depth, teacher_depth)
        for student, teacher in layers:
            if not (1 <= student <= student_depth and 1 <= teacher <= teacher_depth):
                raise InputError(
                    f"layer mapping {self}",
                    f"pair {student}:{teacher} does not exist (student has {student_depth} layers, "
                    f"teacher {teacher_depth})",
                    "map fewer layers",
                )
        return (((0, 0),) if self.embeddings else ()) + tuple(layers)

    def _layers(self, student_depth: int, teacher_depth: int) -> list[tuple[int, int]]:
        if self.kind == "explicit":
            return list(self.pairs)
        count = student_depth if self.count is None else self.count
        if self.kind == "first":
            return [(k, k) for k in range(1, count + 1)]
        if self.kind == "last":
            return [
                (student_depth - count + k, teacher_depth - count + k) for k in range(1, count + 1)
            ]
        if count > student_depth:
            raise InputError(
                f"layer mapping {self}", f"student has {student_depth} layers", "map fewer layers"
            )
        students = [_nearest(student_depth * k, count) for k in range(1, count + 1)]
        return [(s, max(1, _nearest(teacher_depth * s, student_depth))) for s in students]


def _nearest(numerator: int, denominator: int) -> int:
    """Return the quotient rounded, halves up: Python's halves to even would spread unevenly."""
    return (2 * numerator + denominator) // (2 * denominator)
