"""What does a model say about the words of a batch? Their hidden states and their attention.

One forward pass; no [length, length] tensor is stacked and no Python loop runs over words. A
word's state is the mean over its tokens, which is one batched product with a pooling matrix.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from dsgkd.alignment.batches import Side
from dsgkd.errors import InputError
from dsgkd.models.attention import AttentionTap

Columns = Literal["positions", "words"]


@dataclass(frozen=True)
class TapRequest:
    """Which parts of a model the loss needs."""

    hidden_layers: tuple[int, ...] = ()
    """Hidden states, 0 = embedding output, k = output of layer k."""
    attention_layers: tuple[int, ...] = ()
    """Attention layers, counted from 1."""
    columns: Columns = "words"
    """What a row of attention runs over: the model's token positions, or the batch's words."""
    attention_dropout: bool = False
    """In training mode, take rows after attention dropout (the paper's choice)."""


@dataclass(frozen=True)
class WordStates:
    """What one model says about the words of one batch, in float32."""

    hidden: dict[int, Tensor]
    """Layer -> mean hidden state of each word, [batch, words, width]."""
    attention: dict[int, Tensor]
    """Layer -> mean attention row of each word, [batch, heads, words, length or words]."""

    def to(self, device: torch.device, non_blocking: bool = True) -> Self:
        """Return the same on another device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """Return the same in page-locked memory, from which copies to a GPU are asynchronous."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        hidden = {layer: change(tensor) for layer, tensor in self.hidden.items()}
        attention = {layer: change(tensor) for layer, tensor in self.attention.items()}
        return type(self)(hidden, attention)


def pooling_matrix(spans: Tensor, length: int) -> Tensor:
    """Return the matrix that averages tokens into words.

    Args:
        spans: [batch, words, 2] half-open token spans; [0, 0] where there is no word.
        length: number of token positions.

    Returns:
        [batch, words, length] float32: 1/n on the n tokens of a word; zero rows where no word.
    """
    start, end = spans[..., :1], spans[..., 1:]  # [batch, words, 1]
    position = torch.arange(length, device=spans.device)
    inside = (position >= start) & (position < end)  # [batch, words, length]
    return inside / (end - start).clamp(min=1)


def run_model(
    model: nn.Module, input_ids: Tensor, attention_mask: Tensor, hidden_states: bool = False
) -> Any:
    """Run a model, on an empty batch too: the caller keeps `len(input_ids)` rows of its output.

    A worker's share of a batch may be empty, and models cannot reshape nothing. One dummy row
    stands in then, so that every parameter takes part in the backward pass, with zero gradient.
    """
    if not len(input_ids):
        shape = (1, input_ids.shape[1])
        input_ids, attention_mask = input_ids.new_zeros(shape), attention_mask.new_ones(shape)
    return model(
        input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=hidden_states
    )


def forward_with_taps(model: nn.Module, side: Side, request: TapRequest) -> tuple[Any, WordStates]:
    """Run `model` once on its side of a batch and read what `request` names.

    Returns:
        The model's own output as `run_model` gives it, and the states of the words.

    Raises:
        InputError: attention was asked of a model that has no interface to read it from.
    """
    inputs = (side.input_ids, side.attention_mask, bool(request.hidden_layers))
    pool = pooling_matrix(side.spans, side.input_ids.shape[1])  # [batch, words, length]
    attention: dict[int, Tensor] = {}
    if request.attention_layers:
        # Probability mass on a word is the sum over its tokens, not their mean.
        columns = (pool > 0).float().transpose(1, 2) if request.columns == "words" else None
        layers = frozenset(request.attention_layers)
        with AttentionTap(
            pool, columns, layers, side.word_tokens, request.attention_dropout
        ) as tap:
            output = run_model(model, *inputs)
        attention = {layer: _rows(tap, layer, model) for layer in request.attention_layers}
    else:
        output = run_model(model, *inputs)
    # Averaged in the model's own precision: under bf16 autocast, as the layer after it would read.
    hidden = {
        layer: (pool @ output.hidden_states[layer]).float() for layer in request.hidden_layers
    }
    return output, WordStates(hidden, attention)


def _rows(tap: AttentionTap, layer: int, model: nn.Module) -> Tensor:
    rows = tap.rows[layer - 1] if layer <= len(tap.rows) else None
    if rows is None:
        raise InputError(type(model).__name__, "its attention cannot be read", "set beta to 0")
    return rows
