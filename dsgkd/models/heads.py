"""Classification heads: how the states of an encoder become one vector a text, and its logits.

A head is chosen by its name in `dsgkd.models.names.HEADS` or as `package.module:Class`. A new one
is a subclass of `Head` in any installed module.
"""

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from dsgkd.errors import InputError
from dsgkd.models.names import HEADS
from dsgkd.models.projection import Projection
from dsgkd.models.taps import pooling_matrix
from dsgkd.plugins import find


class Encoded(NamedTuple):
    """What an encoder says of a batch of texts, and where their words are."""

    states: Tensor
    """Last hidden states, [batch, length, width]."""
    pooler_output: Tensor | None
    """[batch, width], or None where the encoder has no pooler."""
    attention_mask: Tensor | None
    """[batch, length], 1 for a token; None: no text is padded."""
    spans: Tensor | None
    """Half-open token spans of the words, [batch, words, 2], [0, 0] where absent; for heads that
    need words."""


class Head(nn.Module, ABC):
    """What stands on an encoder. Weights are drawn from the current random state."""

    needs_words: ClassVar[bool] = False
    """Whether it reads the states of the words, and so has to be told where they are."""
    needs_pooler: ClassVar[bool] = False
    """Whether it reads the output of the encoder's own pooler."""

    def __init__(self, width: int, num_classes: int, dropout: float) -> None:
        """Prepare for states of `width` features; `dropout` is a probability."""
        super().__init__()
        self.width, self.num_classes = width, num_classes
        self.dropout = nn.Dropout(dropout)

    @property
    def linear(self) -> nn.Linear | None:
        """The layer that alone makes logits of what the encoder says, which a linear probe fits."""
        return None

    def project(self, projection: Projection) -> None:
        """Look at the words through a projection, if the head does such a thing.

        Called before training, and before weights are loaded.
        """

    def encoder_part(self) -> nn.Module | None:
        """Return the part that learns at the rate of the encoder."""
        return None

    @abstractmethod
    def forward(self, encoded: Encoded) -> Tensor:
        """Return logits, [batch, classes]."""


class PaperHead(Head):
    """Pooler, dropout, linear(H -> H), GELU, dropout, linear(H -> classes).

    The head of the DSG-KD reference (arXiv 2409.14904). Encoders without a pooler give their
    first token's state.
    """

    needs_pooler = True

    def __init__(self, width: int, num_classes: int, dropout: float) -> None:
        super().__init__(width, num_classes, dropout)
        self.hidden = nn.Linear(width, width)
        self.output = nn.Linear(width, num_classes)

    def forward(self, encoded: Encoded) -> Tensor:
        """Return logits, [batch, classes]."""
        pooled = encoded.pooler_output
        pooled = encoded.states[:, 0] if pooled is None else pooled
        hidden = nn.functional.gelu(self.hidden(self.dropout(pooled)))
        logits: Tensor = self.output(self.dropout(hidden))
        return logits


class _Pooling(Head):
    """Pools the token states of a text, then dropout and one linear layer."""

    vectors: ClassVar[int] = 1
    """How many vectors of the encoder's width are laid side by side."""

    def __init__(self, width: int, num_classes: int, dropout: float) -> None:
        super().__init__(width, num_classes, dropout)
        self.output = nn.Linear(self.vectors * width, num_classes)

    @property
    def linear(self) -> nn.Linear:
        """The output layer."""
        return self.output

    @abstractmethod
    def pool(self, encoded: Encoded) -> Tensor:
        """Return [batch, vectors x width], from float32 states."""

    def forward(self, encoded: Encoded) -> Tensor:
        """Return logits, [batch, classes]."""
        # Sums over hundreds of tokens lose too much in bf16.
        states = encoded.states
        with torch.autocast(states.device.type, enabled=False):
            pooled = self.pool(encoded._replace(states=states.float())).to(states.dtype)
        logits: Tensor = self.output(self.dropout(pooled))
        return logits


class MeanHead(_Pooling):
    """The mean over a text's tokens, then a linear layer."""

    def pool(self, encoded: Encoded) -> Tensor:
        """Return the mean over the tokens, [batch, width]."""
        return mean_of_tokens(encoded.states, encoded.attention_mask)


class MaxHead(_Pooling):
    """The largest value of each feature over a text's tokens, then a linear layer."""

    def pool(self, encoded: Encoded) -> Tensor:
        """Return the largest values over the tokens, [batch, width]."""
        if encoded.attention_mask is None:
            return encoded.states.amax(1)
        is_token = encoded.attention_mask.bool()[..., None]  # [batch, length, 1]
        largest = encoded.states.masked_fill(~is_token, float("-inf")).amax(1)
        return largest.masked_fill(~is_token.any(1), 0.0)


class WordsHead(_Pooling):
    """The mean over a text's tokens beside the mean over its words, then a linear layer."""

    needs_words = True
    vectors = 2

    def pool(self, encoded: Encoded) -> Tensor:
        """Return [mean of tokens ; mean of words], [batch, 2 x width]."""
        text = mean_of_tokens(encoded.states, encoded.attention_mask)
        return torch.cat([text, mean_of_words(encoded.states, _spans(encoded))], dim=1)


class ProjectedHead(_Pooling):
    """Mean of a text's tokens, mean and maximum of its projected words, then a linear layer.

    The projection is the one that distillation has learnt, from the student's states of words to
    the teacher's. A squared error does not change under s -> A s, P -> P A^-1, so it makes the
    teacher's state decodable from the student's, not prominent in it; seen through P, what the
    teacher knows is prominent. Without a teacher the projection is the identity. A text without
    words has zeros in their place.
    """

    needs_words = True

    def __init__(self, width: int, num_classes: int, dropout: float) -> None:
        super().__init__(width, num_classes, dropout)
        projection = nn.Linear(width, width)
        nn.init.eye_(projection.weight)
        nn.init.zeros_(projection.bias)
        self._put(projection)

    def project(self, projection: Projection) -> None:
        """Start from a projection, with a new output layer where it has another width."""
        features, width = projection.weight.shape
        if features != self.projection.out_features:
            self._put(nn.Linear(width, features))
        with torch.no_grad():
            self.projection.weight.copy_(projection.weight)
            self.projection.bias.copy_(projection.bias)

    def _put(self, projection: nn.Linear) -> None:
        self.projection = projection
        self.output = nn.Linear(self.width + 2 * projection.out_features, self.num_classes)

    def encoder_part(self) -> nn.Module | None:
        """Return the projection."""
        return self.projection

    def pool(self, encoded: Encoded) -> Tensor:
        """Return [mean of tokens ; mean and maximum of projected words], [batch, features]."""
        spans = _spans(encoded)
        if not spans.shape[1]:  # there is no maximum of nothing
            spans = spans.new_zeros(len(spans), 1, 2)
        words = pooling_matrix(spans, encoded.states.shape[1]).to(encoded.states.dtype)
        projected = self.projection(words @ encoded.states)  # [batch, words, features]
        there = (spans[..., 1] > spans[..., 0])[..., None]  # [batch, words, 1]
        mean = (projected * there).sum(1) / there.sum(1).clamp(min=1)
        largest = projected.masked_fill(~there, float("-inf")).amax(1)
        largest = largest.masked_fill(~there.any(1), 0.0)
        text = mean_of_tokens(encoded.states, encoded.attention_mask)
        return torch.cat([text, mean, largest], dim=1)


def _spans(encoded: Encoded) -> Tensor:
    if encoded.spans is None:
        remedy = "classify with dsgkd predict or dsgkd.models.export.pipeline"
        raise InputError("words head", "nobody told it where the words are", remedy)
    return encoded.spans


def mean_of_tokens(states: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Return the mean state of each text's tokens, [batch, width]; zeros where it has none.

    Args:
        states: [batch, length, width].
        attention_mask: [batch, length], 1 for a token; None: no text is padded.
    """
    if attention_mask is None:
        return states.mean(1)
    weight = attention_mask.to(states.dtype)  # [batch, length]
    total = (weight[:, None] @ states).squeeze(1)
    return total / weight.sum(1, keepdim=True).clamp(min=1)


def mean_of_words(states: Tensor, spans: Tensor) -> Tensor:
    """Return the mean over each text's words of their tokens' mean, [batch, width]; zeros if none.

    Args:
        states: [batch, length, width].
        spans: half-open token spans, [batch, words, 2]; [0, 0] where there is no word.
    """
    weight = pooling_matrix(spans, states.shape[1]).sum(1)  # [batch, length]
    total = (weight[:, None].to(states.dtype) @ states).squeeze(1)
    words = (spans[..., 1] > spans[..., 0]).sum(1, keepdim=True)  # [batch, 1]
    return total / words.clamp(min=1)


def find_head(name: str) -> type[Head] | None:
    """Return the class of a head, or None for the architecture's own.

    Args:
        name: a name in `HEADS`, or `package.module:Class` of an installed subclass of `Head`.

    Raises:
        InputError: there is no such head.
    """
    found = find("head", name, HEADS)
    if not found:
        return None
    if isinstance(found, str):
        found = find("head", found, {})
    if not (isinstance(found, type) and issubclass(found, Head)):
        what = f"'{name}' is no subclass of dsgkd.models.heads.Head"
        raise InputError("head", what, f"use {', '.join(HEADS)}, or package.module:Class")
    return found
