"""How does a model attend, and how can the attention of a few words be read without slowing it?

Two attention functions are registered with transformers' attention interface. `dsgkd_fused` is
PyTorch's scaled dot-product attention; `dsgkd_plain` is matmul, softmax, matmul, which is the
faster one on CPUs (`tests/benchmarks/bench_attention.py`). Both compute what they always compute
and, while an `AttentionTap` is open, the softmaxed rows of the requested query tokens besides:
[batch, heads, rows, length] instead of [batch, heads, length, length].
"""

from collections.abc import Callable
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask, sdpa_mask

AttentionOutput = tuple[Tensor, Tensor | None]

_open_tap: ContextVar["AttentionTap | None"] = ContextVar("open_tap", default=None)


def attention_for(device: torch.device | str) -> str:
    """Return the registered attention that is faster in training on `device`."""
    return "dsgkd_plain" if torch.device(device).type == "cpu" else "dsgkd_fused"


@dataclass
class AttentionTap:
    """Collects softmaxed attention rows of chosen query tokens, one tensor a layer.

    Use as a context manager around one forward pass; afterwards `rows[i]` is
    [batch, heads, rows, length] of the i-th attention layer, or None where not
    wanted or not plain multi-head attention.
    """

    positions: Tensor
    """Query tokens to read, [batch, rows] int64; unused places may repeat any token."""
    layers: frozenset[int]
    """Attention layers to read, counted from 1."""
    dropout: bool = False
    """Apply the model's attention dropout to the rows in training mode, as the paper does."""
    rows: list[Tensor | None] = field(default_factory=list)
    _token: Token | None = None

    def __enter__(self) -> Self:
        self._token = _open_tap.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._token is not None
        _open_tap.reset(self._token)

    def read(
        self,
        query: Tensor,  # [batch, heads, length, head width]
        key: Tensor,  # [batch, heads, length, head width]
        mask: Tensor | None,  # broadcastable to [batch, heads, length, length]
        scaling: float,
        dropout: float,
    ) -> None:
        """Append the wanted rows of one attention layer."""
        if len(self.rows) + 1 not in self.layers:
            self.rows.append(None)
            return
        heads, head_width = query.shape[1], query.shape[3]
        index = self.positions[:, None, :, None]  # [batch, 1, rows, 1]
        wanted = query.gather(2, index.expand(-1, heads, -1, head_width))
        # Softmax in float32 whatever the autocast, because the loss compares small probabilities.
        with torch.autocast(query.device.type, enabled=False):
            scores = wanted.float() @ key.float().transpose(2, 3) * scaling
            if mask is not None:
                scores = _masked(scores, mask, index)
            probabilities = scores.softmax(-1)
        if self.dropout and dropout:
            probabilities = F.dropout(probabilities, dropout)
        self.rows.append(probabilities)


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
    probabilities = F.dropout(scores.softmax(-1), dropout, training=module.training)
    return (probabilities @ value).transpose(1, 2).contiguous(), None


def _scaling(query: Tensor, scaling: float | None) -> float:
    return query.shape[-1] ** -0.5 if scaling is None else scaling


def _tapped(attention: Callable[..., AttentionOutput]) -> Callable[..., AttentionOutput]:
    def forward(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        dropout: float = 0.0,
        scaling: float | None = None,
        **kwargs: Any,
    ) -> AttentionOutput:
        # Heads that share keys, position biases and masks that are only implied (decoders).
        special = (
            query.shape[1] != key.shape[1]
            or kwargs.get("position_bias") is not None
            or (attention_mask is None and getattr(module, "is_causal", False))
        )
        tap = _open_tap.get()
        if tap is not None and special:
            tap.rows.append(None)
        elif tap is not None:
            tap.read(query, key, attention_mask, _scaling(query, scaling), dropout)
        return (sdpa_attention_forward if special else attention)(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )

    return forward


AttentionInterface.register("dsgkd_fused", _tapped(sdpa_attention_forward))
AttentionMaskInterface.register("dsgkd_fused", sdpa_mask)
AttentionInterface.register("dsgkd_plain", _tapped(_plain_attention))
AttentionMaskInterface.register("dsgkd_plain", eager_mask)
