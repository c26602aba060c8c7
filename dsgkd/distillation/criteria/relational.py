"""Distances and angles between words, which need no projection and no equal widths."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from dsgkd.distillation.criteria.criterion import at_least_one, total
from dsgkd.distillation.criteria.standardised import StandardisedHidden
from dsgkd.models.taps import WordStates

ANGLE_WEIGHT = 2.0
"""Weight of angles beside distances, as in RKD-DA."""
_TINY = 1e-8  # under a root, whose slope at zero is infinite


class RelationalHidden(StandardisedHidden):
    """Difference between the relations of words; see `relational_loss`.

    Calibration standardises the teacher's states, so that no dimension outweighs the others. With
    several workers, distances are those within a worker's share of the batch.
    """

    def forward(
        self, student: WordStates, teacher: WordStates, mask: Tensor, count: Tensor | float
    ) -> Tensor:
        """Return the loss."""
        ours = [student.hidden[s] for s, _ in self.pairs]
        # Distances are small differences of large products, which bf16 does not have.
        with torch.autocast(mask.device.type, enabled=False):
            return relational_loss(self.standardised(teacher), ours, mask, count)


def relational_loss(
    teacher: Sequence[Tensor], student: Sequence[Tensor], mask: Tensor, count: Tensor | float
) -> Tensor:
    """Difference between how the words lie to each other in teacher and student.

    L = 1 / N * sum over words of mean over layer pairs of (D + 2 A), where for word j
    D_j = mean over the batch's other words i of h(|t_i - t_j| / m_t - |s_i - s_j| / m_s)
    A_j = mean over pairs i, k of other words of its text of h(cos t_ijk - cos s_ijk)

    with m the mean distance in the batch, cos x_ijk the cosine of the angle at j, and h Huber's
    loss: half the square up to 1, then linear. Relational knowledge distillation (arXiv
    1904.05068) on words, as CKD (arXiv 2109.08359) relates words of a text. A word alone has no
    relations and no loss.

    Args:
        teacher: t, one [batch, words, teacher width] per mapped pair.
        student: s, one [batch, words, student width] per mapped pair.
        mask: [batch, words] bool.
        count: N.
    """
    flat = mask.flatten()
    others = _apart(flat[None])[0]  # [batch * words, batch * words]
    inside = _apart(mask)  # [batch, words, words]
    # Three different words, the second one at the angle: [batch, j, i, k].
    triples = inside[:, :, :, None] & inside[:, :, None, :] & inside[:, None]
    losses = []
    for t, s in zip(teacher, student, strict=True):
        far = [_distances(x.flatten(0, 1)[None])[0] for x in (t, s)]
        ours, theirs = (x / _mean(x, others, (0, 1)).clamp(min=_TINY) for x in reversed(far))
        by_distance = _mean(F.huber_loss(ours, theirs, reduction="none"), others, (1,))
        angles = F.huber_loss(_cosines(s), _cosines(t), reduction="none")
        by_angle = _mean(angles, triples, (2, 3)).flatten()
        losses.append(((by_distance + ANGLE_WEIGHT * by_angle) * flat).sum())
    return total(losses) / (at_least_one(count) * len(losses))


def _apart(mask: Tensor) -> Tensor:
    """Return whether two words of a row exist and differ: [rows, words, words]."""
    itself = torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device)
    return mask[:, :, None] & mask[:, None, :] & ~itself


def _mean(values: Tensor, mask: Tensor, dims: tuple[int, ...]) -> Tensor:
    return (values * mask).sum(dims) / mask.sum(dims).clamp(min=1)


def _distances(states: Tensor) -> Tensor:
    """Return the distances between the words of each row: [rows, words, words]."""
    products = states @ states.transpose(1, 2)
    squares = products.diagonal(dim1=1, dim2=2)
    squared = squares[:, :, None] + squares[:, None, :] - 2 * products
    return (squared.clamp(min=0) + _TINY).sqrt()


def _cosines(states: Tensor) -> Tensor:
    """Return the cosine of the angle at word j between words i and k: [batch, j, i, k]."""
    products = states @ states.transpose(1, 2)  # [batch, words, words]
    own = products.diagonal(dim1=1, dim2=2)[:, :, None, None]
    edges = products[:, None] - products[:, :, :, None] - products[:, :, None, :] + own
    lengths = _distances(states)
    return edges / (lengths[:, :, :, None] * lengths[:, :, None, :])
