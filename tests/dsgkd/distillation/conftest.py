"""A model whose hidden states and attention are given, read through the real taps."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PretrainedConfig
from transformers.modeling_outputs import SequenceClassifierOutput


class StoredModel(nn.Module):
    """Answers every batch with the same states, attention and logits.

    Its attention layers attend by query = log A and key = identity, whose softmax is A.
    """

    def __init__(
        self,
        hidden: Tensor,  # [layers + 1, batch, length, width]
        attention: Tensor | None = None,  # [layers, batch, heads, length, length]
        logits: Tensor | None = None,  # [batch, classes]
    ) -> None:
        super().__init__()
        self.hidden = nn.Parameter(hidden)
        self.attention = nn.Parameter(hidden.new_zeros(0) if attention is None else attention)
        self.logits = nn.Parameter(
            hidden.new_zeros(hidden.shape[1], 2) if logits is None else logits
        )
        self.config = PretrainedConfig(
            num_hidden_layers=len(hidden) - 1,
            hidden_size=hidden.shape[-1],
            num_attention_heads=1 if attention is None else attention.shape[2],
        )

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, output_hidden_states: bool = False
    ) -> SequenceClassifierOutput:
        attend = AttentionInterface()["dsgkd_plain"]
        for weights in self.attention:
            key = torch.eye(weights.shape[-1], dtype=weights.dtype).expand_as(weights)
            attend(self, weights.clamp(min=1e-30).log(), key, key, None, scaling=1.0)
        states: Sequence[Tensor] | None = tuple(self.hidden) if output_hidden_states else None
        return SequenceClassifierOutput(logits=self.logits, hidden_states=states)


@pytest.fixture(scope="session")
def stored_model() -> type[StoredModel]:
    return StoredModel
