"""Hidden states through a projection that cannot hide what the student is to learn.

A free projection makes the teacher's state decodable from the student's, not prominent in it:
|z - P s|^2 stays the same under s -> A s, P -> P A^-1. With orthonormal rows (VkD, arXiv
2403.06213) the teacher's directions have the variance in the student that they have in the
teacher, so that a classifier with few labels sees them.
"""

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import orthogonal
from transformers import PretrainedConfig

from dsgkd.distillation.criteria.standardised import (
    StandardisedHidden,
    principal_directions,
    procrustes,
    relative_loss,
    unexplained,
)
from dsgkd.models.taps import WordStates


class OrthonormalHidden(StandardisedHidden):
    """Squared error between principal components of the teacher and the rotated student.

    With z the teacher's standardised state, E its leading principal directions [k, teacher
    width], k the smaller of the two widths, and P [k, student width] with orthonormal rows:

    L = 1 / N * sum over words of mean over layer pairs of |E z - (a P s + b)|^2 / V

    as in `relative_loss`. Calibration finds E, starts P at the orthogonal Procrustes solution, and
    fixes the scalar a such that the student's variance, all of it along the rows of P, would be
    the teacher's: a^2 = E|E z|^2 / E|s - mean|^2. Were a learned, it could shrink what the student
    has to show. P and b are learned.
    """

    directions: Tensor
    variance: Tensor
    scale: Tensor

    def build(self, student: PretrainedConfig, teacher: PretrainedConfig) -> None:
        """Make a standardisation, principal directions and a rotation for each pair of layers."""
        super().build(student, teacher)
        pairs, rows = len(self.pairs), min(student.hidden_size, teacher.hidden_size)
        first = torch.eye(rows, teacher.hidden_size).repeat(pairs, 1, 1)
        self.register_buffer("directions", first)
        self.register_buffer("variance", torch.full((pairs,), float(rows)))
        self.register_buffer("scale", torch.ones(pairs))
        self.make_maps(student.hidden_size, rows)

    def make_maps(self, width: int, rows: int) -> None:
        """Make what maps student states [.., width] to [.., rows]."""
        # The Cayley map around the start needs one linear system, not a matrix exponential.
        self.rotations = nn.ModuleList(
            orthogonal(nn.Linear(width, rows), orthogonal_map="cayley") for _ in self.pairs
        )

    def set_map(self, pair: int, rotation: Tensor, bias: Tensor) -> None:
        """Start the map of one pair of layers."""
        linear = self.rotations[pair]
        assert isinstance(linear, nn.Linear)
        linear.weight = rotation.float()
        linear.bias.copy_(bias)

    def map_of(self, pair: int) -> tuple[Tensor, Tensor]:
        """Return P, [k, student width], and b, [k], of one pair of layers."""
        linear = self.rotations[pair]
        assert isinstance(linear, nn.Linear)
        return linear.weight, linear.bias

    def start(self, pair: int, student: Tensor, standardised: Tensor) -> None:
        """Find the principal directions, and start at the Procrustes solution."""
        mean = student.mean(0)
        directions = principal_directions(standardised, len(self.directions[pair]))
        wanted, centred = standardised @ directions.T, student - mean
        variance = wanted.square().sum(1).mean()
        spread = centred.square().sum(1).mean().clamp(min=1e-6)
        scale = (variance / spread).sqrt()
        rotation = procrustes(centred, wanted)
        self.directions[pair], self.variance[pair], self.scale[pair] = directions, variance, scale
        self.set_map(pair, rotation, -scale * (rotation @ mean))

    def affine(self, pair: int) -> tuple[Tensor, Tensor]:
        """Return the map of one pair of layers, to the teacher's leading principal components."""
        rotation, bias = self.map_of(pair)
        return self.scale[pair] * rotation, bias

    @torch.no_grad()
    def explained(
        self, student: WordStates, teacher: WordStates, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the sums of squares, those of the other principal components among them."""
        given = [f @ e for f, e in zip(self._rotated(student), self.directions)]
        return unexplained(self.standardised(teacher), given, mask)

    def forward(
        self, student: WordStates, teacher: WordStates, mask: Tensor, count: Tensor | float
    ) -> Tensor:
        """Return the loss."""
        rotated = self._rotated(student)
        # In bf16 the rows would not be orthonormal any more.
        with torch.autocast(mask.device.type, enabled=False):
            wanted = [z @ e.T for z, e in zip(self.standardised(teacher), self.directions)]
        return relative_loss(wanted, rotated, list(self.variance), mask, count)

    def _rotated(self, student: WordStates) -> list[Tensor]:
        """Return a P s + b of each pair of layers, [batch, words, k]."""
        rotated = []
        with torch.autocast(self.scale.device.type, enabled=False):
            for i, (ours, _) in enumerate(self.pairs):
                rotation, bias = self.map_of(i)
                rotated.append(self.scale[i] * (student.hidden[ours] @ rotation.T) + bias)
        return rotated


class FixedHidden(OrthonormalHidden):
    """The same with P and b as calibration has found them: the student alone moves."""

    rotation: Tensor
    bias: Tensor

    def make_maps(self, width: int, rows: int) -> None:
        """Make what maps student states [.., width] to [.., rows]."""
        first = torch.eye(rows, width).repeat(len(self.pairs), 1, 1)
        self.register_buffer("rotation", first)
        self.register_buffer("bias", torch.zeros(len(self.pairs), rows))

    def set_map(self, pair: int, rotation: Tensor, bias: Tensor) -> None:
        """Set the map of one pair of layers for good."""
        self.rotation[pair], self.bias[pair] = rotation, bias

    def map_of(self, pair: int) -> tuple[Tensor, Tensor]:
        """Return P, [k, student width], and b, [k], of one pair of layers."""
        return self.rotation[pair], self.bias[pair]
