"""Masked language modelling, from scratch or continued (BERT, arXiv 1810.04805, section 3.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import numpy as np

from dsgkd.configuration import Part, Whole, config
from dsgkd.errors import InputError
from dsgkd.ledger.measures import Direction
from dsgkd.models.config import StudentConfig
from dsgkd.tasks.task import Predictions, Task

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase

    from dsgkd.alignment.batch import Batch
    from dsgkd.alignment.texts import EncodedTexts
    from dsgkd.models.masked import MaskedTokens


@config
class MaskedLanguageModel(Task):
    """Tokens are hidden and have to be predicted."""

    kind: Literal["masked_lm"] = "masked_lm"
    mask_share: Part = 0.15
    """Share of tokens to predict; of those 80 % masked, 10 % replaced, 10 % kept."""

    loss_name: ClassVar[str] = "mlm"
    measures: ClassVar[Mapping[str, Direction]] = {
        "loss": "minimise",
        "masked_accuracy": "maximise",
    }

    def new_student(
        self, config: StudentConfig, reference: str, classes: int, attention: str
    ) -> nn.Module:
        """Load the language model; a missing head is drawn from the current random state."""
        from dsgkd.models.masked import load_masked

        return load_masked(reference, attention)

    def bound(self, tokenizer: PreTrainedTokenizerBase) -> MaskedLanguageModel:
        """Return the task with the tokens that hide others.

        Raises:
            InputError: the tokenizer has no mask.
        """
        if tokenizer.mask_token_id is None:
            remedy = "give a masked language model"
            raise InputError("masked_lm", "the student's tokenizer has no mask token", remedy)
        return _Bound(
            mask_share=self.mask_share,
            mask_id=int(tokenizer.mask_token_id),
            special_ids=tuple(sorted(tokenizer.all_special_ids)),
            vocabulary=len(tokenizer),
        )

    def prepare(self, batch: Batch, texts: EncodedTexts, seed: tuple[int, ...]) -> Batch:
        """Hide tokens, and note what stood there; a bound task only."""
        raise TypeError("bind the task to a tokenizer first")

    def examples(self, batch: Batch) -> Tensor:
        """Return the number of masked tokens."""
        return batch.labels.new_full((), len(_targets(batch).tokens)).float()

    def loss(self, output: Any, batch: Batch, count: Tensor | float) -> Tensor:
        """Return the cross-entropy of the masked tokens."""
        from torch.nn.functional import cross_entropy

        truth = _targets(batch).tokens
        logits = _logits(output, truth).float()
        return cross_entropy(logits, truth, reduction="sum") / count

    def predict(self, output: Any, batch: Batch) -> Tensor:
        """Return each text's sum of token losses, how many were right, and their number."""
        import torch

        targets = _targets(batch)
        logits = _logits(output, targets.tokens).float()
        loss = torch.nn.functional.cross_entropy(logits, targets.tokens, reduction="none")
        right = (logits.argmax(-1) == targets.tokens).float()
        values = torch.stack([loss, right, torch.ones_like(loss)], dim=1)  # [masked, 3]
        return values.new_zeros(len(batch), 3).index_add_(0, targets.texts, values)

    def evaluate(
        self, predicted: Predictions, texts: EncodedTexts, fitted: Mapping[str, float]
    ) -> dict[str, float]:
        """Return loss (nats per masked token) and the share of masked tokens predicted exactly."""
        loss, right, count = predicted.astype(np.float64).sum(0).tolist()
        return {"loss": loss / max(count, 1.0), "masked_accuracy": right / max(count, 1.0)}


@config
class _Bound(MaskedLanguageModel):
    mask_id: Whole = 0
    special_ids: tuple[Whole, ...] = ()
    vocabulary: Whole = 0

    def prepare(self, batch: Batch, texts: EncodedTexts, seed: tuple[int, ...]) -> Batch:
        import torch

        from dsgkd.models.masked import MaskedTokens, mask_tokens

        ids = batch.student.input_ids
        state = np.random.SeedSequence(seed).generate_state(1, np.uint64)[0]
        generator = torch.Generator().manual_seed(int(state >> np.uint64(1)))
        special = torch.tensor(self.special_ids)
        masked, chosen = mask_tokens(
            ids, self.mask_id, special, self.vocabulary, self.mask_share, generator
        )
        targets = MaskedTokens(ids[chosen], chosen.nonzero()[:, 0])
        side = replace(batch.student, input_ids=masked, predicted=chosen)
        return replace(batch, student=side, targets=targets)


def _logits(output: Any, truth: Tensor) -> Tensor:
    """Return the logits of the masked positions, [masked, vocabulary]."""
    logits: Tensor = output.logits.flatten(0, 1)
    # Backward through an index copies as much as the logits; a worker without texts has a dummy.
    return logits if len(logits) == len(truth) else logits[: len(truth)]


def _targets(batch: Batch) -> MaskedTokens:
    return cast("MaskedTokens", batch.targets)
