"""Distillation criteria: how far a student's word states are from a teacher's.

To add one, write a class like those beside this file and name it as `package.module:Class`, or in
`CRITERIA`. Its loss is a sum over words divided by `count`, the number of words it is averaged
over. With several workers the caller passes the global number divided by the number of workers, so
that the mean of the workers' gradients is the gradient of the whole batch. Without any word the
loss is zero and still attached to the graph.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import ClassVar

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from dsgkd.models.taps import TapRequest, WordStates

Pairs = tuple[tuple[int, int], ...]
"""(student layer, teacher layer), 0 = embedding output."""


class Criterion(nn.Module, ABC):
    """A distance between the word states of a student and of one teacher.

    Args:
        pairs: mapped layers.
        student: the student's architecture.
        teacher: the teacher's architecture.
        max_length: the most tokens of a text.

    Raises:
        InputError: the two architectures cannot be compared so.
    """

    same_length: ClassVar[bool] = False
    """Whether both models' texts have to be padded to one length."""

    def __init__(
        self,
        pairs: Pairs,
        student: PretrainedConfig,
        teacher: PretrainedConfig,
        max_length: int,
    ) -> None:
        super().__init__()
        self.pairs, self.max_length = pairs, max_length
        self.build(student, teacher)

    def build(self, student: PretrainedConfig, teacher: PretrainedConfig) -> None:
        """Make what the criterion learns, and refuse architectures that it cannot compare."""

    @classmethod
    @abstractmethod
    def requests(cls, pairs: Pairs) -> tuple[TapRequest, TapRequest]:
        """Return what is read of the student and of the teacher."""

    def calibrate(self, student: WordStates, teacher: WordStates) -> None:
        """Start from a sample of words: hidden states only, [words, width] in each layer."""

    def projection(self, layer: int) -> tuple[Tensor, Tensor] | None:
        """Return the affine map from a student layer's states to the teacher's standardised space.

        Where it is matched with several teacher layers, the maps stand side by side.

        Args:
            layer: of the student.

        Returns:
            Weight [out, student width] and bias [out], without gradient; None: there is no map.
        """
        return None

    def explained(
        self, student: WordStates, teacher: WordStates, mask: Tensor
    ) -> tuple[Tensor, Tensor] | None:
        """Return what the student leaves unexplained of the teacher's states, and what there is.

        On held-out words, one minus the ratio of the two is the share of the teacher's variance
        that is explained: 1 where its states follow from the student's, 0 where the mean of
        calibration is as good a guess.

        Args:
            student: as in `forward`.
            teacher: as in `forward`.
            mask: as in `forward`.

        Returns:
            Sum of squared residuals, and sum of squares around the mean of calibration, in units
            of calibration, over words, layers and dimensions; None: the criterion predicts no
            states.
        """
        return None

    @abstractmethod
    def forward(
        self, student: WordStates, teacher: WordStates, mask: Tensor, count: Tensor | float
    ) -> Tensor:
        """Return the loss, a scalar, without any weight.

        Runs under the run's autocast: states come in float32, and a product of matrices that has
        to be exact must turn autocast off for itself.

        Args:
            student: states of the student's layers that were asked for.
            teacher: states of the teacher's.
            mask: [batch, words] bool, true where there is a word.
            count: number of words that the loss is averaged over.
        """


def at_least_one(count: Tensor | float) -> Tensor | float:
    """Return a number of words that can be divided by."""
    return count.clamp(min=1e-9) if isinstance(count, Tensor) else max(count, 1e-9)


def masked_square_sum(teacher: Tensor, student: Tensor, mask: Tensor) -> Tensor:
    """Return the sum over words of the squared distance of two states."""
    return ((teacher - student).square().sum(-1) * mask).sum()


def total(terms: Iterable[Tensor]) -> Tensor:
    """Return the sum of scalars."""
    return torch.stack(list(terms)).sum()


def distinct(layers: Iterable[int]) -> tuple[int, ...]:
    """Return layers, each once, in their order."""
    return tuple(dict.fromkeys(layers))
