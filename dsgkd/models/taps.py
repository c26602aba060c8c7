"""What a model says about the words of a batch: their hidden states and their attention.

One forward pass; no [length, length] tensor is stacked and no Python loop runs over words. A
word's state is the mean over its tokens, which is one batched product with a pooling matrix.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dsgkd.alignment.batch import Movable, Side, WordSpans
from dsgkd.errors import InputError
from dsgkd.models.attention import AttentionTap, tapped

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

    @classmethod
    def joined(cls, requests: Sequence["TapRequest"]) -> "TapRequest":
        """Return one request for all that several ask for.

        Raises:
            InputError: they want rows of attention that run over different columns.
        """
        asking = [one for one in requests if one.attention_layers]
        kinds = {(one.columns, one.attention_dropout) for one in asking}
        if len(kinds) > 1:
            raise InputError(
                "criteria", "attention by words and by positions at once", "choose one of the two"
            )
        columns, dropout = kinds.pop() if kinds else ("words", False)
        return cls(
            tuple(dict.fromkeys(layer for one in requests for layer in one.hidden_layers)),
            tuple(dict.fromkeys(layer for one in requests for layer in one.attention_layers)),
            columns,
            dropout,
        )


@dataclass(frozen=True)
class WordStates(Movable):
    """What one model says about the words of one batch, in float32."""

    hidden: dict[int, Tensor]
    """Layer -> mean hidden state of each word, [batch, words, width]."""
    attention: dict[int, Tensor]
    """Layer -> mean attention row of each word, [batch, heads, words, length or words]."""


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


def run_model(model: nn.Module, side: Side, hidden_states: bool = False) -> Any:
    """Run a model, on an empty batch too: the caller keeps `len(input_ids)` rows of its output.

    A worker's share of a batch may be empty, and models cannot reshape nothing. One dummy row
    stands in then, so that every parameter takes part in the backward pass, with zero gradient.
    """
    if not len(side.input_ids):
        side = _dummy(side)
    given = {}
    if getattr(model, "needs_words", False):
        given["spans"] = side.words.spans
    if side.predicted is not None:
        given["predicted"] = side.predicted
    return model(
        input_ids=side.input_ids,
        # To apply a mask that hides nothing costs.
        attention_mask=None if side.is_full else side.attention_mask,
        output_hidden_states=hidden_states,
        **given,
    )


def _dummy(side: Side) -> Side:
    def row(tensor: Tensor, value: int) -> Tensor:
        return tensor.new_full((1, *tensor.shape[1:]), value)

    predicted = None if side.predicted is None else row(side.predicted, 1)
    words = WordSpans(row(side.words.spans, 0))
    ids, mask = row(side.input_ids, 0), row(side.attention_mask, 1)
    return Side(ids, mask, words, predicted=predicted)


def forward_with_taps(
    model: nn.Module, side: Side, asked: Sequence[tuple[WordSpans, TapRequest]]
) -> tuple[Any, list[WordStates]]:
    """Run `model` once on its side of a batch and read what is asked of it.

    Args:
        model: the model.
        side: what it reads.
        asked: words, and which of their states are wanted; one entry for each teacher.

    Returns:
        The model's own output as `run_model` gives it, and the states for each entry of `asked`.

    Raises:
        InputError: attention was asked of a model that has no interface to read it from.
    """
    length = side.input_ids.shape[1]
    # Averages tokens into words: [batch, words, length].
    pools = [pooling_matrix(words.spans, length) for words, _ in asked]
    taps = [_tap(words, pool, request) for (words, request), pool in zip(asked, pools)]
    hidden_states = any(request.hidden_layers for _, request in asked)
    with tapped([tap for tap in taps if tap is not None]):
        output = run_model(model, side, hidden_states)
    states = []
    for (_, request), pool, tap in zip(asked, pools, taps):
        # In the model's own precision: under bf16 autocast, as the layer after it would read.
        hidden = {k: (pool @ output.hidden_states[k]).float() for k in request.hidden_layers}
        rows = {k: _rows(tap, k, model) for k in request.attention_layers} if tap else {}
        states.append(WordStates(hidden, rows))
    return output, states


def _tap(words: WordSpans, pool: Tensor, request: TapRequest) -> AttentionTap | None:
    if not request.attention_layers:
        return None
    # Probability mass on a word is the sum over its tokens, not their mean.
    columns = (pool > 0).float().transpose(1, 2) if request.columns == "words" else None
    layers = frozenset(request.attention_layers)
    return AttentionTap(pool, columns, layers, words.tokens, request.attention_dropout)


def _rows(tap: AttentionTap, layer: int, model: nn.Module) -> Tensor:
    rows = tap.rows[layer - 1] if layer <= len(tap.rows) else None
    if rows is None:
        raise InputError(type(model).__name__, "its attention cannot be read", "set beta to 0")
    return rows
