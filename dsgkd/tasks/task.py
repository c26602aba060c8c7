"""What a student is trained for and judged by.

A task is a configuration: its fields are its settings, its methods say what it does. Those here
import PyTorch in the methods, so that `--help` need not wait for it. To add one, write a class like
those beside this file and name it as `package.module:Class`, or in `TASKS`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from dsgkd.ledger.measures import Direction
from dsgkd.models.config import StudentConfig

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase

    from dsgkd.alignment.batch import Batch
    from dsgkd.alignment.texts import EncodedTexts

Predictions = NDArray[np.float32]
"""What a student says of each text, [texts, ...], in the task's own columns."""


class Task(ABC):
    """A task, whole; what most tasks need not do is done here."""

    kind: str
    """Its name in a configuration."""
    loss_name: ClassVar[str]
    """The name of its part of the loss in the ledger."""
    measures: ClassVar[Mapping[str, Direction]]
    """What it is judged by."""
    objective: ClassVar[str] = "loss"
    """The measure that chooses weights unless told otherwise."""
    idle: ClassVar[bool] = False
    """It has no loss of its own: the terms alone train the student, and judge it."""

    @abstractmethod
    def new_student(
        self, config: StudentConfig, reference: str, classes: int, attention: str
    ) -> nn.Module:
        """Build the model that is trained; a new head is drawn from the current random state.

        Args:
            config: of the student.
            reference: local folder or hub id of its weights.
            classes: number of classes of the labelled notes; 0 where there are none.
            attention: name of a registered attention function.
        """

    def bound(self, tokenizer: PreTrainedTokenizerBase) -> Task:
        """Return the task with what it needs to know of the student's tokenizer.

        Raises:
            InputError: the tokenizer cannot serve it.
        """
        return self

    def check(self, validation: EncodedTexts, classes: int, measures: Sequence[str]) -> None:  # noqa: B027
        """Refuse texts on which the task cannot be trained, or these measures are undefined.

        Raises:
            InputError: says which.
        """

    def prepare(self, batch: Batch, texts: EncodedTexts, seed: tuple[int, ...]) -> Batch:
        """Return the batch with the inputs and targets that the task wants; runs on the CPU.

        Args:
            batch: as it was collated.
            texts: those that it is a batch of.
            seed: of whatever is drawn at random; another one for each step and worker.
        """
        return batch

    def examples(self, batch: Batch) -> Tensor:
        """Return, as a float scalar, how many examples the loss of a batch is averaged over."""
        return batch.labels.new_full((), len(batch)).float()

    @abstractmethod
    def loss(self, output: Any, batch: Batch, count: Tensor | float) -> Tensor:
        """Return the sum of the examples' losses, divided by `count`.

        `output` can have a row more than the batch where a worker's share of it is empty.
        """

    @abstractmethod
    def predict(self, output: Any, batch: Batch) -> Tensor:
        """Return what is kept of each text for `evaluate`, [batch, ...] float32."""

    def fit(
        self, predicted: Predictions, validation: EncodedTexts, training: EncodedTexts
    ) -> dict[str, float]:
        """Return what is chosen on validation and then holds for every split, like a threshold."""
        return {}

    @abstractmethod
    def evaluate(
        self, predicted: Predictions, texts: EncodedTexts, fitted: Mapping[str, float]
    ) -> dict[str, float]:
        """Return every measure by its name; not a number where it is undefined."""

    def at_chance(self, predicted: Predictions, texts: EncodedTexts) -> bool:
        """Whether predictions may be no better than chance; never, where nobody can tell."""
        return False

    def rows(self, predicted: Predictions, texts: EncodedTexts) -> Iterator[dict[str, Any]]:
        """Yield what the ledger's `predictions` keep of each text; nothing where it keeps none."""
        return iter(())
