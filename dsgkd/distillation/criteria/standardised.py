"""What criteria on hidden states have in common: the teacher's states on a scale of their own."""

from collections.abc import Sequence

import torch
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
from dsgkd.models.taps import TapRequest, WordStates


class StandardisedHidden(Criterion):
    """A criterion on the teacher's hidden states, standardised in each dimension at calibration."""

    teacher_mean: Tensor
    teacher_scale: Tensor

    def build(self, student: PretrainedConfig, teacher: PretrainedConfig) -> None:
        """Make a standardisation for each pair of layers."""
        width = teacher.hidden_size
        self.register_buffer("teacher_mean", torch.zeros(len(self.pairs), width))
        self.register_buffer("teacher_scale", torch.ones(len(self.pairs), width))

    @classmethod
    def requests(cls, pairs: Pairs) -> tuple[TapRequest, TapRequest]:
        """Return the hidden states of all mapped layers."""
        return TapRequest(distinct(s for s, _ in pairs)), TapRequest(distinct(t for _, t in pairs))

    @torch.no_grad()
    def calibrate(self, student: WordStates, teacher: WordStates) -> None:
        """Standardise the teacher's states, then start each pair of layers."""
        for i, (ours, theirs) in enumerate(self.pairs):
            known, wanted = student.hidden[ours].double(), teacher.hidden[theirs].double()
            mean, scale = wanted.mean(0), wanted.std(0).clamp(min=1e-3)
            self.teacher_mean[i], self.teacher_scale[i] = mean, scale
            self.start(i, known, (wanted - mean) / scale)

    def start(self, pair: int, student: Tensor, standardised: Tensor) -> None:
        """Start one pair of layers from a sample of words.

        Args:
            pair: its position.
            student: [words, student width] float64.
            standardised: the teacher's, [words, teacher width] float64.
        """

    def standardised(self, teacher: WordStates) -> list[Tensor]:
        """Return the teacher's standardised states of each pair of layers."""
        return [
            (teacher.hidden[t] - mean) / scale
            for (_, t), mean, scale in zip(self.pairs, self.teacher_mean, self.teacher_scale)
        ]

    @torch.no_grad()
    def projection(self, layer: int) -> tuple[Tensor, Tensor] | None:
        """Return the maps of all pairs with a student layer, side by side."""
        found = [self.affine(i) for i, (ours, _) in enumerate(self.pairs) if ours == layer]
        maps = [one for one in found if one is not None]
        if not maps:
            return None
        return torch.cat([weight for weight, _ in maps]), torch.cat([bias for _, bias in maps])

    def affine(self, pair: int) -> tuple[Tensor, Tensor] | None:
        """Return the map from student to standardised teacher of one pair; None: there is none."""
        return None


def relative_loss(
    wanted: Sequence[Tensor],
    given: Sequence[Tensor],
    variances: Sequence[Tensor | float],
    mask: Tensor,
    count: Tensor | float,
) -> Tensor:
    """Squared error as a share of the variance of what is to be reached.

    L = 1 / N * sum over words of mean over layer pairs of |y - f|^2 / V

    1 is the loss of a student that knows nothing but the mean, whatever the widths.

    Args:
        wanted: y, one [batch, words, width] per mapped pair.
        given: f, the same shapes.
        variances: V, the mean of |y|^2 at calibration, one scalar per pair.
        mask: [batch, words] bool.
        count: N.
    """
    summed = total(
        masked_square_sum(y, f, mask) / v for y, f, v in zip(wanted, given, variances, strict=True)
    )
    return summed / (at_least_one(count) * len(wanted))


def unexplained(
    wanted: Sequence[Tensor], given: Sequence[Tensor], mask: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the sums of squares of what is missed, and of standardised states.

    Args:
        wanted: one [batch, words, teacher width] per mapped pair, standardised.
        given: the predictions, the same shapes.
        mask: [batch, words] bool.
    """
    missed = total(masked_square_sum(z, f, mask) for z, f in zip(wanted, given, strict=True))
    return missed, total((z.square().sum(-1) * mask).sum() for z in wanted)


def procrustes(student: Tensor, wanted: Tensor) -> Tensor:
    """Return the matrix with orthonormal rows or columns that best carries one sample to another.

    P = U W^T, where U S W^T is the singular value decomposition of Y^T X: it maximises
    tr(P X^T Y) (Schoenemann, Psychometrika 1966).

    Args:
        student: X, [words, in], centred.
        wanted: Y, [words, out], centred.

    Returns:
        P, [out, in].
    """
    left, _, right = torch.linalg.svd(wanted.T @ student, full_matrices=False)
    return left @ right


def principal_directions(states: Tensor, count: int) -> Tensor:
    """Return the leading principal directions of centred states, [count, width], orthonormal.

    Args:
        states: [words, width].
        count: at most `width`.
    """
    return torch.linalg.eigh(states.T @ states).eigenvectors.flip(-1)[:, :count].T
