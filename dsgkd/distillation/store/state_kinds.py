"""The kinds of state of a teacher that can be stored, and how much room they take."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from transformers import PretrainedConfig

from dsgkd.models.taps import TapRequest

Kind = Literal["hidden", "words", "positions"]

BYTES = 2
"""Bytes of a stored number: float16."""


@dataclass(frozen=True, order=True)
class StateKind:
    """One kind of state in one layer.

    A text of n words and t tokens has `size` vectors of it, one after the other:

        hidden      n      the word's mean hidden state (width numbers)
        words       n * n  attention from word to word, row by row (one number a head)
        positions   n * t  attention from word to token, row by row (one number a head)
    """

    kind: Kind
    layer: int

    def __str__(self) -> str:
        return f"{self.kind}.{self.layer}"

    @classmethod
    def parse(cls, name: str) -> "StateKind":
        """Read back what `str` wrote."""
        kind, layer = name.split(".")
        if kind not in ("hidden", "words", "positions"):
            raise ValueError(f"no kind of state: {kind}")
        return cls(kind, int(layer))  # type: ignore[arg-type]

    def size(self, words: NDArray[np.integer], tokens: NDArray[np.integer]) -> NDArray[np.int64]:
        """Return how many vectors texts of so many words and tokens have."""
        n = words.astype(np.int64)
        if self.kind == "hidden":
            return n
        return n * n if self.kind == "words" else n * tokens.astype(np.int64)

    def width(self, config: PretrainedConfig) -> int:
        """Return how many numbers one vector has."""
        return int(config.hidden_size if self.kind == "hidden" else config.num_attention_heads)


def kinds_of(request: TapRequest) -> tuple[StateKind, ...]:
    """Return the parts that answer a request."""
    hidden = [StateKind("hidden", layer) for layer in request.hidden_layers]
    return (*hidden, *(StateKind(request.columns, layer) for layer in request.attention_layers))


def request_of(parts: Sequence[StateKind]) -> TapRequest:
    """Return the request that a model answers with these parts; attention is of one kind only."""
    attention = [part for part in parts if part.kind != "hidden"]
    kinds = {part.kind for part in attention}
    if len(kinds) > 1:
        raise ValueError("word-by-word attention and whole rows are filled one after the other")
    return TapRequest(
        tuple(part.layer for part in parts if part.kind == "hidden"),
        tuple(part.layer for part in attention),
        "positions" if kinds == {"positions"} else "words",
    )


def bytes_needed(
    parts: Sequence[StateKind],
    config: PretrainedConfig,
    words: NDArray[np.integer],
    tokens: NDArray[np.integer],
) -> int:
    """Return the bytes that texts of so many words and tokens take."""
    return sum(
        BYTES * part.width(config) * int(part.size(words, tokens).sum()) for part in set(parts)
    )
