"""Attention functions that also pool the attention of a few words, without slowing the model.

Two attention functions are registered with transformers' attention interface. `dsgkd_fused` is
PyTorch's scaled dot-product attention; `dsgkd_plain` is matmul, softmax, matmul, which is the
faster one on CPUs (`make bench ONLY=choices`). Both compute what they always compute and, while
`AttentionTap`s are open, pool the softmaxed rows of the words' tokens besides. Plain attention has
these rows at hand, so that pooling is two small products; fused attention never shows them, so the
rows of the words' tokens, and no others, are computed again.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask, sdpa_mask

AttentionOutput = tuple[Tensor, Tensor | None]

_open_taps: ContextVar[tuple["AttentionTap", ...]] = ContextVar("open_taps", default=())


def attention_for(device: torch.device | str) -> str:
    """Return the registered attention that is faster in training on `device`."""
    return "dsgkd_plain" if torch.device(device).type == "cpu" else "dsgkd_fused"


@dataclass
class AttentionTap:
    """Collects what chosen layers' attention says about the words of a batch.

    Any number of them may be open, by `tapped`, around one forward pass; afterwards `rows[i]` is
    the mean attention row of each word in the i-th attention layer, [batch, heads, words, length]
    (or [..., words] with `columns`), float32, or None where not wanted or not plain multi-head
    attention.
    """

    pool: Tensor
    """Averages tokens into words, [batch, words, length]."""
    columns: Tensor | None
    """Sums the columns of a word's tokens, [batch, length, words]; None: columns stay tokens."""
    layers: frozenset[int]
    """Attention layers to read, counted from 1."""
    word_tokens: int | None = None
    """The most tokens of words in one text; None: unknown, so that all tokens are read."""
    dropout: bool = False
    """Read the probabilities after the attention dropout of training mode, as the paper does."""
    rows: list[Tensor | None] = field(default_factory=list)

    @property
    def wants_next(self) -> bool:
        """Whether the layer that comes next is to be read."""
        return len(self.rows) + 1 in self.layers

    def skip(self) -> None:
        """Pass over one attention layer."""
        self.rows.append(None)

    def read(self, probabilities: Tensor) -> None:
        """Pool the whole probabilities of one layer, [batch, heads, length, length]."""
        self._keep(self.pool, probabilities)

    def compute(
        self,
        query: Tensor,  # [batch, heads, length, head width]
        key: Tensor,  # [batch, heads, length, head width]
        mask: Tensor | None,  # broadcastable to [batch, heads, length, length]
        scaling: float,
        dropout: float,
    ) -> None:
        """Compute the rows of the words' tokens alone, where the layer itself keeps none."""
        heads, head_width = query.shape[1], query.shape[3]
        used = self.pool.sum(1) > 0  # [batch, length]
        order = used.int().argsort(dim=1, descending=True, stable=True)
        tokens = order[:, : self.word_tokens]  # [batch, rows]
        index = tokens[:, None, :, None]
        wanted = query.gather(2, index.expand(-1, heads, -1, head_width))
        # Softmax in float32 whatever the autocast, because the loss compares small probabilities.
        with torch.autocast(query.device.type, enabled=False):
            scores = wanted.float() @ key.float().transpose(2, 3) * scaling
            if mask is not None:
                scores = _masked(scores, mask, index)
            probabilities = scores.softmax(-1)  # [batch, heads, rows, length]
            if self.dropout:
                probabilities = F.dropout(probabilities, dropout)
            row_pool = self.pool.gather(2, tokens[:, None].expand(-1, self.pool.shape[1], -1))
            self._keep(row_pool, probabilities)

    def _keep(self, pool: Tensor, probabilities: Tensor) -> None:
        rows = pool.to(probabilities.dtype)[:, None] @ probabilities
        if self.columns is not None:
            rows = rows @ self.columns.to(rows.dtype)[:, None]
        self.rows.append(rows.float())


@contextmanager
def tapped(taps: Sequence[AttentionTap]) -> Iterator[None]:
    """Let taps read every attention layer of what runs inside."""
    token = _open_taps.set(tuple(taps))
    try:
        yield
    finally:
        _open_taps.reset(token)


def _masked(scores: Tensor, mask: Tensor, index: Tensor) -> Tensor:
    if mask.shape[2] > 1:  # one row of the mask for each query
        index = index.expand(scores.shape[0], mask.shape[1], -1, mask.shape[3])
        mask = mask.expand(scores.shape[0], -1, -1, -1).gather(2, index)
    if mask.dtype == torch.bool:
        return scores.masked_fill(~mask, float("-inf"))
    return scores + mask


def _plain_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **_: Any,
) -> AttentionOutput:
    scores = query @ key.transpose(2, 3) * _scaling(query, scaling)
    if attention_mask is not None:
        scores = scores + attention_mask
    probabilities = scores.softmax(-1)
    dropped = F.dropout(probabilities, dropout, training=module.training)
    for tap in _open_taps.get():
        tap.read(dropped if tap.dropout else probabilities) if tap.wants_next else tap.skip()
    return (dropped @ value).transpose(1, 2).contiguous(), None


def _fused_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> AttentionOutput:
    for tap in _open_taps.get():
        if tap.wants_next:
            tap.compute(query, key, attention_mask, _scaling(query, scaling), dropout)
        else:
            tap.skip()
    return sdpa_attention_forward(
        module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
    )


def _scaling(query: Tensor, scaling: float | None) -> float:
    return query.shape[-1] ** -0.5 if scaling is None else scaling


def _multi_head(attention: Callable[..., AttentionOutput]) -> Callable[..., AttentionOutput]:
    """Leave to PyTorch, untapped, what is not plain multi-head attention."""

    def forward(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        **kwargs: Any,
    ) -> AttentionOutput:
        # Heads that share keys, position biases and masks that are only implied (decoders).
        special = (
            query.shape[1] != key.shape[1]
            or kwargs.get("position_bias") is not None
            or (attention_mask is None and getattr(module, "is_causal", False))
        )
        if not special:
            return attention(module, query, key, value, attention_mask, **kwargs)
        for tap in _open_taps.get():
            tap.skip()
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)

    return forward


AttentionInterface.register("dsgkd_fused", _multi_head(_fused_attention))
AttentionMaskInterface.register("dsgkd_fused", sdpa_mask)
AttentionInterface.register("dsgkd_plain", _multi_head(_plain_attention))
AttentionMaskInterface.register("dsgkd_plain", eager_mask)
