"""Masked language models: what is hidden, and a head that reads the hidden positions only."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForMaskedLM, PreTrainedModel

from dsgkd.alignment.batch import Movable
from dsgkd.models.hub import load_model


class MaskedStudent(nn.Module):
    """A masked language model that predicts at chosen positions only.

    The logits of the whole vocabulary at all positions would be most of the work, so a hook takes
    the other positions away between encoder and head, whatever the architecture calls its head.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self._predicted: Tensor | None = None
        model.base_model.register_forward_hook(self._keep_predicted)

    @property
    def base_model(self) -> nn.Module:
        """The encoder."""
        encoder: nn.Module = self.model.base_model
        return encoder

    def _keep_predicted(self, module: nn.Module, inputs: object, output: Any) -> None:
        if self._predicted is not None:
            output.last_hidden_state = output.last_hidden_state[self._predicted][None]

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        output_hidden_states: bool = False,
        predicted: Tensor | None = None,
    ) -> Any:
        """Return logits [1, predicted, vocabulary], or of all positions, and hidden states."""
        self._predicted = predicted
        try:
            return self.model(
                input_ids=input_ids,
                attention_mask=attention_mask,
                output_hidden_states=output_hidden_states,
            )
        finally:
            self._predicted = None


def load_masked(reference: str, attention: str) -> MaskedStudent:
    """Load a masked language model; a head that the weights lack is drawn at random.

    Raises:
        InputError: it cannot be loaded.
    """
    return MaskedStudent(load_model(reference, attention, AutoModelForMaskedLM))


@dataclass(frozen=True, eq=False)
class MaskedTokens(Movable):
    """What stood at the masked positions of a batch, text after text."""

    tokens: Tensor
    """[masked] int64."""
    texts: Tensor
    """Position in the batch of each one's text: [masked] int64."""


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
