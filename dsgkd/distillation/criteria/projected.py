"""Hidden states through a learned projection onto the teacher's standardised states."""

from collections.abc import Sequence

import torch
from sklearn.linear_model import RidgeCV
from torch import Tensor, nn
from transformers import PretrainedConfig

from dsgkd.distillation.criteria.criterion import at_least_one, masked_square_sum, total
from dsgkd.distillation.criteria.standardised import StandardisedHidden, unexplained
from dsgkd.models.taps import WordStates


class ProjectedHidden(StandardisedHidden):
    """Squared error between standardised teacher states and projected student states.

    See `projected_hidden_loss`. Calibration standardises the teacher's states and starts the
    projections at ridge regression, its penalty chosen by leave-one-out error.
    """

    def build(self, student: PretrainedConfig, teacher: PretrainedConfig) -> None:
        """Make a projection and a standardisation for each pair of layers."""
        width = teacher.hidden_size
        self.projections = nn.ModuleList(nn.Linear(student.hidden_size, width) for _ in self.pairs)
        super().build(student, teacher)

    def start(self, pair: int, student: Tensor, standardised: Tensor) -> None:
        """Start a projection at ridge regression."""
        penalties = len(student) * torch.logspace(-3, 0, 4).double().numpy()
        ridge = RidgeCV(penalties).fit(student.numpy(), standardised.numpy())
        projection = self._projection(pair)
        projection.weight.copy_(torch.from_numpy(ridge.coef_))
        projection.bias.copy_(torch.from_numpy(ridge.intercept_))

    def affine(self, pair: int) -> tuple[Tensor, Tensor]:
        """Return the projection of one pair of layers."""
        projection = self._projection(pair)
        return projection.weight, projection.bias

    @torch.no_grad()
    def explained(
        self, student: WordStates, teacher: WordStates, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the sums of squares of residuals and of standardised states."""
        return unexplained(self.standardised(teacher), self._projected(student), mask)

    def forward(
        self, student: WordStates, teacher: WordStates, mask: Tensor, count: Tensor | float
    ) -> Tensor:
        """Return the loss."""
        projected = self._projected(student)
        return projected_hidden_loss(self.standardised(teacher), projected, mask, count)

    def _projected(self, student: WordStates) -> list[Tensor]:
        # The projection is a part of the model, so in the run's own precision.
        return [
            project(student.hidden[s]).float()
            for project, (s, _) in zip(self.projections, self.pairs)
        ]

    def _projection(self, pair: int) -> nn.Linear:
        projection = self.projections[pair]
        assert isinstance(projection, nn.Linear)
        return projection


def projected_hidden_loss(
    teacher: Sequence[Tensor], projected: Sequence[Tensor], mask: Tensor, count: Tensor | float
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
        count: N.
    """
    summed = total(
        masked_square_sum(t, s, mask) / t.shape[-1] for t, s in zip(teacher, projected, strict=True)
    )
    return summed / (at_least_one(count) * len(projected))
