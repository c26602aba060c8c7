"""Hidden states pulled to a fixed image of the teacher's in the student's own space."""

import torch
from torch import Tensor
from transformers import PretrainedConfig

from dsgkd.distillation.criteria.standardised import (
    StandardisedHidden,
    principal_directions,
    procrustes,
    relative_loss,
    unexplained,
)
from dsgkd.models.taps import WordStates


class ReverseHidden(StandardisedHidden):
    """Squared error between standardised student states and a fixed image of the teacher's.

    With u the student's state and z the teacher's, both standardised in each dimension at
    calibration, and Q [student width, teacher width]:

    L = 1 / N * sum over words of mean over layer pairs of |Q z - u|^2 / student width

    The image fills the student's space: what the student has in directions that the teacher does
    not use is pulled to its mean, which a projection of the student would not see. Q = c P^T E is
    fixed at calibration: E the teacher's leading principal directions, P the orthogonal Procrustes
    solution from u to E z, and c such that the image has the student's variance, E|Q z|^2 = E|u|^2.
    Feature regression of this direction with a fixed map is that of VkD (arXiv 2403.06213) turned
    round.
    """

    student_mean: Tensor
    student_scale: Tensor
    images: Tensor
    returns: Tensor

    def build(self, student: PretrainedConfig, teacher: PretrainedConfig) -> None:
        """Make two standardisations and two maps for each pair of layers."""
        super().build(student, teacher)
        pairs, ours, theirs = len(self.pairs), student.hidden_size, teacher.hidden_size
        self.register_buffer("student_mean", torch.zeros(pairs, ours))
        self.register_buffer("student_scale", torch.ones(pairs, ours))
        self.register_buffer("images", torch.eye(ours, theirs).repeat(pairs, 1, 1))
        self.register_buffer("returns", torch.eye(theirs, ours).repeat(pairs, 1, 1))

    def start(self, pair: int, student: Tensor, standardised: Tensor) -> None:
        """Standardise the student's states, and fix the image and its inverse."""
        mean, spread = student.mean(0), student.std(0).clamp(min=1e-3)
        own = (student - mean) / spread
        count = min(own.shape[1], standardised.shape[1])
        directions = principal_directions(standardised, count)
        components = standardised @ directions.T
        carried = procrustes(own, components).T @ directions  # [student width, teacher width]
        size = (own.square().sum() / components.square().sum().clamp(min=1e-6)).sqrt()
        self.student_mean[pair], self.student_scale[pair] = mean, spread
        self.images[pair], self.returns[pair] = size * carried, carried.T / size

    def affine(self, pair: int) -> tuple[Tensor, Tensor]:
        """Return the inverse of the image of one pair of layers."""
        weight = self.returns[pair] / self.student_scale[pair]
        return weight, -weight @ self.student_mean[pair]

    @torch.no_grad()
    def explained(
        self, student: WordStates, teacher: WordStates, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the sums of squares, as the inverse of the image predicts the teacher."""
        given = [u @ back.T for u, back in zip(self._own(student), self.returns)]
        return unexplained(self.standardised(teacher), given, mask)

    def forward(
        self, student: WordStates, teacher: WordStates, mask: Tensor, count: Tensor | float
    ) -> Tensor:
        """Return the loss."""
        own = self._own(student)
        with torch.autocast(mask.device.type, enabled=False):
            images = [z @ q.T for z, q in zip(self.standardised(teacher), self.images)]
        return relative_loss(images, own, [u.shape[-1] for u in own], mask, count)

    def _own(self, student: WordStates) -> list[Tensor]:
        """Return the student's standardised states of each pair of layers."""
        return [
            (student.hidden[s] - mean) / scale
            for (s, _), mean, scale in zip(self.pairs, self.student_mean, self.student_scale)
        ]
