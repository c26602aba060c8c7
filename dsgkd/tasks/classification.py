"""Classification of notes: cross-entropy on the labelled ones, probabilities, thresholds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from dsgkd.configuration import config
from dsgkd.errors import InputError
from dsgkd.ledger.measures import Direction
from dsgkd.models.config import StudentConfig
from dsgkd.tasks.measures import MEASURES, auroc, auroc_by_chance, f1_threshold, measures
from dsgkd.tasks.task import Predictions, Task

if TYPE_CHECKING:
    from torch import Tensor, nn

    from dsgkd.alignment.batch import Batch
    from dsgkd.alignment.texts import EncodedTexts

UNLABELLED = -1  # as in dsgkd.alignment.texts


@config
class Classification(Task):
    """Each labelled note has one class."""

    kind: Literal["classification"] = "classification"
    threshold: Literal["validation", "prevalence"] = "validation"
    """How a threshold for two classes is found: best F1 on validation, or the share of positives
    in training (DSG-KD)."""

    loss_name: ClassVar[str] = "ce"
    measures: ClassVar[Mapping[str, Direction]] = MEASURES
    objective: ClassVar[str] = "auroc"

    def new_student(
        self, config: StudentConfig, reference: str, classes: int, attention: str
    ) -> nn.Module:
        """Build an encoder with a classification head."""
        from dsgkd.models.student import new_student

        return new_student(config, reference, classes, attention)

    def check(self, validation: EncodedTexts, classes: int, measures: Sequence[str]) -> None:
        """Refuse a single class, or validation notes of one class only.

        Raises:
            InputError: it is so.
        """
        guess = np.full((len(validation), classes), 1 / classes, np.float32)
        measured = self.evaluate(guess, validation, {})
        for measure in measures:
            if np.isnan(measured[measure]):
                what = f"one class only, so '{measure}' is undefined"
                raise InputError("validation", what, "split otherwise")

    def examples(self, batch: Batch) -> Tensor:
        """Return the number of labelled notes."""
        return (batch.labels != UNLABELLED).sum().float()

    def loss(self, output: Any, batch: Batch, count: Tensor | float) -> Tensor:
        """Return the cross-entropy of the labelled notes."""
        from torch.nn.functional import cross_entropy

        logits = output.logits[: len(batch)].float()
        summed = cross_entropy(logits, batch.labels, reduction="sum", ignore_index=UNLABELLED)
        return summed / count

    def predict(self, output: Any, batch: Batch) -> Tensor:
        """Return class probabilities, [batch, classes]."""
        probabilities: Tensor = output.logits[: len(batch)].float().softmax(-1)
        return probabilities

    def fit(
        self, predicted: Predictions, validation: EncodedTexts, training: EncodedTexts
    ) -> dict[str, float]:
        """Return the threshold for two classes; 0.5 for more."""
        if predicted.shape[1] != 2:
            return {"threshold": 0.5}
        if self.threshold == "prevalence":
            labels = training.labels[training.labels != UNLABELLED]
            return {"threshold": float(labels.mean())}
        return {"threshold": f1_threshold(validation.labels, predicted[:, 1])}

    def evaluate(
        self, predicted: Predictions, texts: EncodedTexts, fitted: Mapping[str, float]
    ) -> dict[str, float]:
        """Return the measures of `dsgkd.tasks.measures`."""
        return measures(texts.labels, predicted, fitted.get("threshold", 0.5))

    def at_chance(self, predicted: Predictions, texts: EncodedTexts) -> bool:
        """Whether the AUROC is one that scores without any information may reach."""
        counts = np.bincount(texts.labels, minlength=predicted.shape[1])
        return auroc(texts.labels, predicted) <= auroc_by_chance(counts)

    def rows(self, predicted: Predictions, texts: EncodedTexts) -> Iterator[dict[str, Any]]:
        """Yield label and class probabilities of each note."""
        for label, row in zip(texts.labels.tolist(), predicted, strict=True):
            yield {"label": label, "probability": np.asarray(row).tolist()}
