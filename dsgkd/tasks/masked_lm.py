"""Masked language modelling, from scratch or continued (BERT, arXiv 1810.04805, section 3.1)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from annotated_types import Gt, Lt
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from dsgkd.alignment.batch import Batch, Movable
from dsgkd.alignment.texts import EncodedTexts
from dsgkd.errors import InputError
from dsgkd.ledger.measures import Direction
from dsgkd.models.masked import load_masked
from dsgkd.models.student import StudentConfig
from dsgkd.tasks.task import Predictions


@dataclass(frozen=True, eq=False)
class MaskedTokens(Movable):
    """What stood at the masked positions of a batch, text after text."""

    tokens: Tensor
    """[masked] int64."""
    texts: Tensor
    """Position in the batch of each one's text: [masked] int64."""


@dataclass(frozen=True)
class MaskedLanguageModel:
    """Tokens are hidden and have to be predicted."""

    kind: str = "masked_lm"
    mask_share: Annotated[float, Gt(0), Lt(1)] = 0.15
    """Share of tokens to predict; of those 80 % masked, 10 % replaced, 10 % kept."""

    loss_name: ClassVar[str] = "mlm"
    measures: ClassVar[Mapping[str, Direction]] = {
        "loss": "minimise",
        "masked_accuracy": "maximise",
    }
    objective: ClassVar[str] = "loss"
    idle: ClassVar[bool] = False

    def new_student(
        self, config: StudentConfig, reference: str, classes: int, attention: str
    ) -> nn.Module:
        """Load the language model; a missing head is drawn from the current random state."""
        return load_masked(reference, attention)

    def bound(self, tokenizer: PreTrainedTokenizerBase) -> "MaskedLanguageModel":
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

    def check(self, validation: EncodedTexts, classes: int, measures: Sequence[str]) -> None:
        """Check nothing: unlabelled texts will do."""

    def prepare(self, batch: Batch, texts: EncodedTexts, seed: tuple[int, ...]) -> Batch:
        """Hide tokens, and note what stood there; a bound task only."""
        raise TypeError("bind the task to a tokenizer first")

    def examples(self, batch: Batch) -> Tensor:
        """Return the number of masked tokens."""
        return torch.full((), float(len(_targets(batch).tokens)), device=batch.labels.device)

    def loss(self, output: Any, batch: Batch, count: Tensor | float) -> Tensor:
        """Return the cross-entropy of the masked tokens."""
        truth = _targets(batch).tokens
        logits = output.logits[0, : len(truth)].float()
        return F.cross_entropy(logits, truth, reduction="sum") / count

    def predict(self, output: Any, batch: Batch) -> Tensor:
        """Return each text's sum of token losses, how many were right, and their number."""
        targets = _targets(batch)
        logits = output.logits[0, : len(targets.tokens)].float()
        loss = F.cross_entropy(logits, targets.tokens, reduction="none")
        right = (logits.argmax(-1) == targets.tokens).float()
        values = torch.stack([loss, right, torch.ones_like(loss)], dim=1)  # [masked, 3]
        return values.new_zeros(len(batch), 3).index_add_(0, targets.texts, values)

    def fit(
        self, predicted: Predictions, validation: EncodedTexts, training: EncodedTexts
    ) -> dict[str, float]:
        """Return nothing."""
        return {}

    def evaluate(
        self, predicted: Predictions, texts: EncodedTexts, fitted: Mapping[str, float]
    ) -> dict[str, float]:
        """Return loss (nats per masked token) and the share of masked tokens predicted exactly."""
        loss, right, count = predicted.astype(np.float64).sum(0).tolist()
        return {"loss": loss / max(count, 1.0), "masked_accuracy": right / max(count, 1.0)}

    def rows(self, predicted: Predictions, texts: EncodedTexts) -> Iterator[dict[str, Any]]:
        """Yield nothing: what a model guesses of a note is near to its text."""
        return iter(())


@dataclass(frozen=True)
class _Bound(MaskedLanguageModel):
    mask_id: int = 0
    special_ids: tuple[int, ...] = ()
    vocabulary: int = 0

    def prepare(self, batch: Batch, texts: EncodedTexts, seed: tuple[int, ...]) -> Batch:
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


def mask_tokens(
    ids: Tensor,
    mask_id: int,
    special_ids: Tensor,
    vocabulary: int,
    share: float,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Choose tokens to predict and hide them.

    Args:
        ids: [batch, length].
        mask_id: token id of the mask.
        special_ids: tokens that are never chosen, padding among them.
        vocabulary: number of tokens.
        share: share of the other tokens of the batch to choose; one at least.
        generator: source of randomness.

    Returns:
        The ids with 80 % of the chosen masked and 10 % replaced, and the choice, both
        [batch, length].
    """
    special = torch.isin(ids, special_ids)
    noise = torch.rand(ids.shape, generator=generator).masked_fill(special, -1.0)
    candidates = ids.numel() - int(special.sum())
    count = min(max(1, round(candidates * share)), candidates)
    chosen = torch.zeros(ids.numel(), dtype=torch.bool)
    chosen[noise.flatten().topk(count).indices] = True
    chosen = chosen.view(ids.shape)
    fate = torch.rand(ids.shape, generator=generator)
    masked = ids.masked_fill(chosen & (fate < 0.8), mask_id)
    random_ids = torch.randint(vocabulary, ids.shape, generator=generator)
    return torch.where(chosen & (fate >= 0.8) & (fate < 0.9), random_ids, masked), chosen


def _targets(batch: Batch) -> MaskedTokens:
    assert isinstance(batch.targets, MaskedTokens)
    return batch.targets
