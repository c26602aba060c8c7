"""How a word spreads its attention over the other transferred words of its text."""

from collections.abc import Sequence

import torch
from torch import Tensor

from dsgkd.distillation.criteria.criterion import Criterion, Pairs, at_least_one, distinct
from dsgkd.models.taps import TapRequest, WordStates

_SMOOTHING = 1e-6  # attention mass added to each word, so that no logarithm meets zero


class WordAttention(Criterion):
    """Divergence between the attention from word to word; see `word_attention_loss`."""

    @classmethod
    def requests(cls, pairs: Pairs) -> tuple[TapRequest, TapRequest]:
        """Return the attention of all mapped layers; the embedding output has none."""
        ours, theirs = (distinct(pair[side] for pair in pairs if pair[0] > 0) for side in (0, 1))
        return TapRequest((), ours), TapRequest((), theirs)

    def forward(
        self, student: WordStates, teacher: WordStates, mask: Tensor, count: Tensor | float
    ) -> Tensor:
        """Return the loss."""
        pairs = [(s, t) for s, t in self.pairs if s > 0]
        return word_attention_loss(
            [teacher.attention[t] for _, t in pairs],
            [student.attention[s] for s, _ in pairs],
            mask,
            count,
        )


def word_attention_loss(
    teacher: Sequence[Tensor], student: Sequence[Tensor], mask: Tensor, count: Tensor | float
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
        count: N.
    """
    summed = torch.zeros((), device=mask.device)
    for t, s in zip(teacher, student, strict=True):
        if t.shape[1] != s.shape[1]:
            t, s = t.mean(1, keepdim=True), s.mean(1, keepdim=True)
        log_t, log_s = _log_rows(t, mask), _log_rows(s, mask)  # [batch, heads, words, words]
        divergence = (log_t.exp() * (log_t - log_s)).sum(-1).mean(1)  # [batch, words]
        summed = summed + (divergence * mask).sum()
    return summed / (at_least_one(count) * len(student))


def _log_rows(mass: Tensor, mask: Tensor) -> Tensor:
    """Log-probabilities over the existing words; the columns of absent words count nothing."""
    present = mask[:, None, None, :]
    mass = torch.where(present, mass.float() + _SMOOTHING, 0.0)
    rows = mass / mass.sum(-1, keepdim=True).clamp(min=_SMOOTHING)
    return torch.where(present, rows, 1.0).log()
