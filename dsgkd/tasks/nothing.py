"""No task: the terms alone train the student, as in distillation on a transfer set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from dsgkd.configuration import config
from dsgkd.ledger.measures import Direction
from dsgkd.models.config import StudentConfig
from dsgkd.tasks.task import Predictions, Task

if TYPE_CHECKING:
    from torch import Tensor, nn

    from dsgkd.alignment.batch import Batch
    from dsgkd.alignment.texts import EncodedTexts


@config
class NoTask(Task):
    """The student is trained and judged by the terms of its loss, on held-out texts.

    `loss` is their weighted sum, `explained` the share of the teachers' variance that they reach.
    """

    kind: Literal["none"] = "none"

    loss_name: ClassVar[str] = "task"
    measures: ClassVar[Mapping[str, Direction]] = {"loss": "minimise", "explained": "maximise"}
    idle: ClassVar[bool] = True

    def new_student(
        self, config: StudentConfig, reference: str, classes: int, attention: str
    ) -> nn.Module:
        """Load the bare encoder."""
        from dsgkd.models.hub import load_model

        return load_model(reference, attention)

    def loss(self, output: Any, batch: Batch, count: Tensor | float) -> Tensor:
        """Return zero."""
        return batch.labels.new_zeros(()).float()

    def predict(self, output: Any, batch: Batch) -> Tensor:
        """Return nothing of any text, [batch, 0]."""
        return batch.labels.new_zeros(len(batch), 0).float().cpu()

    def evaluate(
        self, predicted: Predictions, texts: EncodedTexts, fitted: Mapping[str, float]
    ) -> dict[str, float]:
        """Return nothing: the terms are evaluated by the loop, for it has the teachers."""
        return {}
