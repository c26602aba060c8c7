"""Hidden states that single out the teacher's state of the same word among a batch's words."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from dsgkd.distillation.criteria.criterion import at_least_one, total
from dsgkd.distillation.criteria.projected import ProjectedHidden
from dsgkd.distillation.criteria.standardised import unexplained
from dsgkd.models.taps import WordStates

TEMPERATURE = 0.1
"""Of the cosines; those of unrelated states of 128 dimensions are about .09."""
_NONE = -1e4  # a similarity that leaves no probability, and no infinity


class ContrastiveHidden(ProjectedHidden):
    """Divergence between similarities to the teacher's words; see `contrastive_loss`.

    Calibration and projection are those of `projected`. With several workers, a word is told
    apart from the words of its worker's share of the batch.
    """

    @torch.no_grad()
    def explained(
        self, student: WordStates, teacher: WordStates, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the sums of squares, where a prediction's length is free: only directions count.

        So the share is the teacher's sum of squares along the projected states.
        """
        wanted = self.standardised(teacher)
        given = []
        for z, f in zip(wanted, self._projected(student), strict=True):
            direction = F.normalize(f, dim=-1)
            given.append((z * direction).sum(-1, keepdim=True).clamp(min=0) * direction)
        return unexplained(wanted, given, mask)

    def forward(
        self, student: WordStates, teacher: WordStates, mask: Tensor, count: Tensor | float
    ) -> Tensor:
        """Return the loss."""
        projected = self._projected(student)
        with torch.autocast(mask.device.type, enabled=False):
            return contrastive_loss(self.standardised(teacher), projected, mask, count)


def contrastive_loss(
    teacher: Sequence[Tensor],
    projected: Sequence[Tensor],
    mask: Tensor,
    count: Tensor | float,
    temperature: float = TEMPERATURE,
) -> Tensor:
    """Divergence between how teacher and student see the batch's words as the teacher states them.

    L = 1 / N * sum over words i of mean over layer pairs of KL(p_i || q_i)
    p_i = softmax over the batch's words j of cos(z_i, z_j) / T
    q_i = softmax over the batch's words j of cos(f_i, z_j) / T

    With p_i one-hot at i it is InfoNCE between student and teacher, as in CRD (arXiv 1910.10699)
    with the batch's other words as negatives. But a term comes up in many texts of a batch, and
    other occurrences of it are no negatives: p_i shares the probability among words that the
    teacher itself does not tell apart (as SEED does among images, arXiv 2101.04731).

    Args:
        teacher: z, one [batch, words, teacher width] per mapped pair, standardised.
        projected: f, the same shapes.
        mask: [batch, words] bool.
        count: N.
        temperature: T.
    """
    absent = ~mask.flatten()  # [batch * words]

    def log_shares(states: Tensor, anchors: Tensor) -> Tensor:
        scores = F.normalize(states, dim=-1) @ anchors.T / temperature
        return scores.masked_fill(absent, _NONE).log_softmax(-1)

    divergences = []
    for z, f in zip(teacher, projected, strict=True):
        z, f = z.flatten(0, 1), f.flatten(0, 1)  # [batch * words, width]
        anchors = F.normalize(z, dim=-1)
        log_p, log_q = log_shares(z, anchors), log_shares(f, anchors)
        rows = (log_p.exp() * (log_p - log_q)).sum(-1)
        divergences.append((rows * ~absent).sum())
    return total(divergences) / (at_least_one(count) * len(divergences))
