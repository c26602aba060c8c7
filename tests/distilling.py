"""Batches, distillers and losses, put together as a run does it."""

from collections.abc import Sequence

from torch import Tensor, nn

from dsgkd.alignment.batch import Batch, Collator
from dsgkd.alignment.texts import EncodedTexts
from dsgkd.data.transfer_set import FixedMix
from dsgkd.distillation.config import DistillationConfig
from dsgkd.distillation.distiller import Distiller, new_terms
from dsgkd.distillation.teachers.teacher import LiveTeacher, Teacher
from dsgkd.tasks import Classification


def sampler_of(texts: EncodedTexts, size: int, seed: int) -> FixedMix:
    return FixedMix(texts.lengths, texts.sources, texts.source_names, {}, size, seed)


def batches_of(
    texts: EncodedTexts,
    size: int = 8,
    most: int = 32,
    seed: int = 0,
    epoch: int = 0,
    **collation: object,
) -> list[Batch]:
    """All batches of one epoch."""
    sampler, collate = sampler_of(texts, size, seed), Collator(most, **collation)
    steps = range(sampler.steps * epoch, sampler.steps * (epoch + 1))
    return [collate(texts, sampler.draw(step)) for step in steps]


def distiller_of(
    config: DistillationConfig, student: nn.Module, *teachers: nn.Module, max_length: int = 64
) -> tuple[Distiller, list[LiveTeacher]]:
    """A distiller and its live teachers."""
    configs = [getattr(model, "encoder", model).config for model in (student, *teachers)]
    terms = new_terms(config, configs[0], configs[1:], max_length)
    distiller = Distiller(student, Classification(), terms)
    live = [LiveTeacher(t, distiller.requests(at)[1]) for at, t in enumerate(teachers)]
    return distiller, live


def losses_of(
    distiller: Distiller,
    teachers: Sequence[Teacher],
    batch: Batch,
    examples: Tensor | float | None = None,
    words: Tensor | float | None = None,
) -> dict[str, Tensor]:
    """Every part of the loss with its weight, by its name."""
    losses = distiller(
        batch,
        [teacher.word_states(pair) for teacher, pair in zip(teachers, batch.pairs)],
        len(batch) if examples is None else examples,
        [pair.mask.sum() if words is None else words for pair in batch.pairs],
    )
    return dict(zip(distiller.names, losses.weighted, strict=False))
