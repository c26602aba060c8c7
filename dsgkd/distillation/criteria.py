"""The distillation losses, as pure functions of tensors.

Every loss is a sum over words divided by `words`, the number of words it is averaged over. With
several workers the caller passes the global number divided by the number of workers, so that the
mean of the workers' gradients is the gradient of the whole batch. No words: the loss is zero and
still attached to the graph.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

_SMOOTHING = 1e-6  # attention mass added to each word, so that no logarithm meets zero


def paper_hidden_loss(
    teacher: Sequence[Tensor], student: Sequence[Tensor], mask: Tensor, words: Tensor | float
) -> Tensor:
    """Mean squared error between word states (DSG-KD, arXiv 2409.14904, hidden term).

    L = 1 / (N (l+1) H) * sum over words and layers k = 0..l of |m_teacher - m_student|^2

    Args:
        teacher: one [batch, words, width] per layer, embedding output first.
        student: the same shapes.
        mask: [batch, words] bool, true where there is a word.
        words: N.
    """
    total = _total(_masked_square_sum(t, s, mask) for t, s in zip(teacher, student, strict=True))
    width = student[0].shape[-1]
    return total / (_at_least_one(words) * len(student) * width)


def paper_attention_loss(
    teacher: Sequence[Tensor],
    student: Sequence[Tensor],
    mask: Tensor,
    words: Tensor | float,
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
        words: N.
        positions: M, at least `length`; None: `length`.
    """
    rows = mask[:, None]  # [batch, 1, words]
    total = _total(_masked_square_sum(t, s, rows) for t, s in zip(teacher, student, strict=True))
    _, heads, _, length = student[0].shape
    return total / (_at_least_one(words) * len(student) * heads * (positions or length))


def projected_hidden_loss(
    teacher: Sequence[Tensor], projected: Sequence[Tensor], mask: Tensor, words: Tensor | float
) -> Tensor:
    """Mean squared error between standardised teacher states and projected student states.

    L = 1 / N * sum over words of mean over layer pairs and teacher dimensions of (z_t - P z_s)^2

    The projection is the learned linear map of TinyBERT (arXiv 1909.10351, section 3.1), here
    from student width to teacher width. Because the teacher's states have unit variance, 1 is
    the loss of a student that knows nothing: alpha in [0, 10] weighs that against the
    cross-entropy.

    Args:
        teacher: one [batch, words, teacher width] per mapped pair, standardised.
        projected: the same shapes.
        mask: [batch, words] bool.
        words: N.
    """
    total = _total(
        _masked_square_sum(t, s, mask) / t.shape[-1]
        for t, s in zip(teacher, projected, strict=True)
    )
    return total / (_at_least_one(words) * len(projected))


def word_attention_loss(
    teacher: Sequence[Tensor], student: Sequence[Tensor], mask: Tensor, words: Tensor | float
) -> Tensor:
    """Divergence between how teacher and student spread a word's attention over the words.

    L = 1 / N * sum over words of mean over layer pairs and heads of KL(r_teacher || r_student)

    A row holds the attention mass that one word gives to each transferred word of its text
    (summed over that word's tokens), renormalised over those words. So the columns mean the same
    on both sides whatever the tokenisers. Where the two have different numbers of heads, heads
    are averaged first: single heads of unrelated models have no correspondence. KL, unlike a
    squared error over hundreds of near-empty columns, has gradients of the order of the hidden
    term's (`tests/dsgkd/distillation/test_criteria.py`).

    Args:
        teacher: one [batch, teacher heads, words, words] per mapped pair, unnormalised mass.
        student: one [batch, student heads, words, words] per mapped pair.
        mask: [batch, words] bool.
        words: N.
    """
    total = torch.zeros((), device=mask.device)
    for t, s in zip(teacher, student, strict=True):
        if t.shape[1] != s.shape[1]:
            t, s = t.mean(1, keepdim=True), s.mean(1, keepdim=True)
        log_t, log_s = _log_rows(t, mask), _log_rows(s, mask)  # [batch, heads, words, words]
        divergence = (log_t.exp() * (log_t - log_s)).sum(-1).mean(1)  # [batch, words]
        total = total + (divergence * mask).sum()
    return total / (_at_least_one(words) * len(student))


def _log_rows(mass: Tensor, mask: Tensor) -> Tensor:
    """Log-probabilities over the existing words; the columns of absent words count nothing."""
    present = mask[:, None, None, :]
    mass = torch.where(present, mass.float() + _SMOOTHING, 0.0)
    rows = mass / mass.sum(-1, keepdim=True).clamp(min=_SMOOTHING)
    return torch.where(present, rows, 1.0).log()


def _total(terms: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(terms)).sum()


def _masked_square_sum(teacher: Tensor, student: Tensor, mask: Tensor) -> Tensor:
    return ((teacher - student).square().sum(-1) * mask).sum()


def _at_least_one(words: Tensor | float) -> Tensor | float:
    return words.clamp(min=1e-9) if isinstance(words, Tensor) else max(words, 1e-9)
