"""The two criteria of the DSG-KD paper (arXiv 2409.14904), for the `paper` preset."""

from collections.abc import Sequence

from torch import Tensor
from transformers import PretrainedConfig

from dsgkd.distillation.criteria.criterion import (
    Criterion,
    Pairs,
    at_least_one,
    distinct,
    masked_square_sum,
    total,
)
from dsgkd.errors import InputError
from dsgkd.models.taps import TapRequest, WordStates


class PaperHidden(Criterion):
    """Raw mean squared error between word states; see `paper_hidden_loss`."""

    def build(self, student: PretrainedConfig, teacher: PretrainedConfig) -> None:
        """Refuse models of different widths."""
        if student.hidden_size != teacher.hidden_size:
            raise InputError(
                "criterion paper_hidden",
                f"student width {student.hidden_size} and teacher width {teacher.hidden_size} "
                "differ",
                "use the criterion projected",
            )

    @classmethod
    def requests(cls, pairs: Pairs) -> tuple[TapRequest, TapRequest]:
        """Return the hidden states of all mapped layers."""
        return TapRequest(distinct(s for s, _ in pairs)), TapRequest(distinct(t for _, t in pairs))

    def forward(
        self, student: WordStates, teacher: WordStates, mask: Tensor, count: Tensor | float
    ) -> Tensor:
        """Return the loss."""
        return paper_hidden_loss(
            [teacher.hidden[t] for _, t in self.pairs],
            [student.hidden[s] for s, _ in self.pairs],
            mask,
            count,
        )


class PaperAttention(Criterion):
    """Squared error between attention rows over positions; see `paper_attention_loss`."""

    same_length = True

    def build(self, student: PretrainedConfig, teacher: PretrainedConfig) -> None:
        """Refuse different numbers of attention heads."""
        ours, theirs = student.num_attention_heads, teacher.num_attention_heads
        if ours != theirs:
            raise InputError(
                "criterion paper_attention",
                f"student has {ours} attention heads and teacher {theirs}",
                "use the criterion word_attention, or beta 0",
            )

    @classmethod
    def requests(cls, pairs: Pairs) -> tuple[TapRequest, TapRequest]:
        """Return the attention of all mapped layers, the student's after dropout."""
        ours, theirs = (distinct(pair[side] for pair in pairs if pair[0] > 0) for side in (0, 1))
        return TapRequest((), ours, "positions", True), TapRequest((), theirs, "positions")

    def forward(
        self, student: WordStates, teacher: WordStates, mask: Tensor, count: Tensor | float
    ) -> Tensor:
        """Return the loss."""
        pairs = [(s, t) for s, t in self.pairs if s > 0]
        return paper_attention_loss(
            [teacher.attention[t] for _, t in pairs],
            [student.attention[s] for s, _ in pairs],
            mask,
            count,
            self.max_length,
        )


def paper_hidden_loss(
    teacher: Sequence[Tensor], student: Sequence[Tensor], mask: Tensor, count: Tensor | float
) -> Tensor:
    """Mean squared error between word states (DSG-KD, arXiv 2409.14904, hidden term).

    L = 1 / (N (l+1) H) * sum over words and layers k = 0..l of |m_teacher - m_student|^2

    Args:
        teacher: one [batch, words, width] per layer, embedding output first.
        student: the same shapes.
        mask: [batch, words] bool, true where there is a word.
        count: N.
    """
    summed = total(masked_square_sum(t, s, mask) for t, s in zip(teacher, student, strict=True))
    width = student[0].shape[-1]
    return summed / (at_least_one(count) * len(student) * width)


def paper_attention_loss(
    teacher: Sequence[Tensor],
    student: Sequence[Tensor],
    mask: Tensor,
    count: Tensor | float,
    positions: int | None = None,
) -> Tensor:
    """Mean squared error between attention rows over positions (DSG-KD, attention term).

    L = 1 / (N l h M) * sum over words, layers, heads and the M positions of (r_t - r_s)^2

    The two tokenisations differ, so column j is not the same word on both sides. The paper pads
    every text to M; padding has no attention, so fewer columns give the same sum. Kept for the
    `paper` preset only.

    Args:
        teacher: one [batch, heads, words, length] per layer.
        student: the same shapes.
        mask: [batch, words] bool.
        count: N.
        positions: M, at least `length`; None: `length`.
    """
    rows = mask[:, None]  # [batch, 1, words]
    summed = total(masked_square_sum(t, s, rows) for t, s in zip(teacher, student, strict=True))
    _, heads, _, length = student[0].shape
    return summed / (at_least_one(count) * len(student) * heads * (positions or length))
