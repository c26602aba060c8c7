"""Hidden states through a learned projection onto the teacher's standardised states."""

from collections.abc import Sequence

import torch
from sklearn.linear_model import RidgeCV
from torch import Tensor, nn
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


class ProjectedHidden(Criterion):
    """Squared error between standardised teacher states and projected student states.

    See `projected_hidden_loss`. Calibration standardises the teacher's states and starts the
    projections at ridge regression, its penalty chosen by leave-one-out error.
    """

    teacher_mean: Tensor
    teacher_scale: Tensor

    def build(self, student: PretrainedConfig, teacher: PretrainedConfig) -> None:
        """Make a projection and a standardisation for each pair of layers."""
        width = teacher.hidden_size
        self.projections = nn.ModuleList(nn.Linear(student.hidden_size, width) for _ in self.pairs)
        self.register_buffer("teacher_mean", torch.zeros(len(self.pairs), width))
        self.register_buffer("teacher_scale", torch.ones(len(self.pairs), width))

    @classmethod
    def requests(cls, pairs: Pairs) -> tuple[TapRequest, TapRequest]:
        """Return the hidden states of all mapped layers."""
        return TapRequest(distinct(s for s, _ in pairs)), TapRequest(distinct(t for _, t in pairs))

    @torch.no_grad()
    def calibrate(self, student: WordStates, teacher: WordStates) -> None:
        """Standardise the teacher's states, and start the projections at ridge regression."""
        for i, (ours, theirs) in enumerate(self.pairs):
            known, wanted = student.hidden[ours].double(), teacher.hidden[theirs].double()
            mean, scale = wanted.mean(0), wanted.std(0).clamp(min=1e-3)
            self.teacher_mean[i], self.teacher_scale[i] = mean, scale
            penalties = len(known) * torch.logspace(-3, 0, 4).double().numpy()
            ridge = RidgeCV(penalties).fit(known.numpy(), ((wanted - mean) / scale).numpy())
            projection = self.projections[i]
            assert isinstance(projection, nn.Linear)
            projection.weight.copy_(torch.from_numpy(ridge.coef_))
            projection.bias.copy_(torch.from_numpy(ridge.intercept_))

    def projection(self, layer: int) -> tuple[Tensor, Tensor] | None:
        """Return the projection of a mapped layer."""
        for project, (ours, _) in zip(self.projections, self.pairs):
            if ours == layer:
                assert isinstance(project, nn.Linear)
                return project.weight.detach(), project.bias.detach()
        return None

    @torch.no_grad()
    def explained(
        self, student: WordStates, teacher: WordStates, mask: Tensor
    ) -> tuple[Tensor, Tensor] | None:
        """Return the sums of squares of residuals and of standardised states."""
        wanted, given = self._compared(student, teacher)
        missed = total(masked_square_sum(t, s, mask) for t, s in zip(wanted, given, strict=True))
        return missed, total(masked_square_sum(t, torch.zeros_like(t), mask) for t in wanted)

    def forward(
        self, student: WordStates, teacher: WordStates, mask: Tensor, count: Tensor | float
    ) -> Tensor:
        """Return the loss."""
        return projected_hidden_loss(*self._compared(student, teacher), mask, count)

    def _compared(
        self, student: WordStates, teacher: WordStates
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return the standardised states and the projected ones of each mapped pair."""
        standardised = [
            (teacher.hidden[t] - mean) / scale
            for (_, t), mean, scale in zip(self.pairs, self.teacher_mean, self.teacher_scale)
        ]
        # The projection is a part of the model, so in the run's own precision.
        projected = [
            project(student.hidden[s]).float()
            for project, (s, _) in zip(self.projections, self.pairs)
        ]
        return standardised, projected


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
