"""Criteria of given widths, and samples of word states for them."""

import torch
from transformers import PretrainedConfig

from dsgkd.distillation.criteria import CRITERIA, Criterion
from dsgkd.models.taps import WordStates


def criterion_of(
    name: str, student: int = 8, teacher: int = 6, pairs=((1, 3), (2, 5))
) -> Criterion:
    widths = (
        PretrainedConfig(hidden_size=width, num_attention_heads=2) for width in (student, teacher)
    )
    torch.manual_seed(3)
    return CRITERIA[name](pairs, *widths, 64)


def words_of(
    count: int, student: int = 8, teacher: int = 6, seed: int = 0, noise: float = 0.05
) -> tuple[WordStates, WordStates]:
    """States of words in the two layers that are mapped, the teacher's nearly a linear image."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(student, teacher, generator=torch.Generator().manual_seed(9))
    ours = {k: 2 + torch.randn(count, student, generator=generator) for k in (1, 2)}
    theirs = {
        k + s: ours[s] @ image + 5 + noise * torch.randn(count, teacher, generator=generator)
        for s, k in ((1, 2), (2, 3))
    }
    return WordStates(ours, {}), WordStates(theirs, {})


def as_batch(states: WordStates, texts: int) -> WordStates:
    return WordStates({k: v.view(texts, -1, v.shape[-1]) for k, v in states.hidden.items()}, {})
