"""The adaptation of a recipe: a link like others, whose projection the head looks through."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from dsgkd.data.transfer_set import TransferConfig
from dsgkd.distillation.config import DistillationConfig
from dsgkd.distillation.store.config import StoreConfig
from dsgkd.models.student import Student
from dsgkd.storage.artefacts import Artefacts
from dsgkd.tasks.masked_lm import MaskedLanguageModel
from dsgkd.tasks.nothing import NoTask
from dsgkd.training.config import AdaptationConfig, LinkConfig, RunConfig
from dsgkd.training.opening import open_run
from dsgkd.training.recipe import links_of, make_links, resolved


@pytest.fixture
def adapted(
    make_config: Callable[..., RunConfig], transfer: TransferConfig, zoo: Path
) -> RunConfig:
    config = make_config(optimisation={"epochs": 1})
    return replace(
        config,
        student=replace(config.student, head="projected"),
        transfer=transfer,
        distillation=DistillationConfig(str(zoo / "teacher"), alpha=2.0, mapping="last-1"),
        adaptation=AdaptationConfig(steps=4, batch_size=8, evaluations=2),
    )


def test_an_adaptation_is_the_first_link(adapted: RunConfig) -> None:
    later = LinkConfig("later", MaskedLanguageModel())
    first, second = replace(adapted, links=(later,)).chain
    assert (first.name, first.task, second) == ("adapt", NoTask(), later)
    assert (first.optimisation.steps, first.optimisation.epochs) == (4, 2)
    assert not first.optimisation.probe
    masked = replace(adapted, adaptation=replace(adapted.adaptation, task="masked_lm"))
    assert masked.chain[0].task == MaskedLanguageModel()
    assert replace(adapted, adaptation=AdaptationConfig()).chain == ()


def test_a_single_weight_does_not_make_another_adaptation(adapted: RunConfig, cache: Path) -> None:
    def key(**changes: object) -> str:
        distillation = replace(adapted.distillation, **changes)  # type: ignore[arg-type]
        return links_of(replace(adapted, distillation=distillation), cache)[0].key

    same = {key(), key(alpha=5.0), key(weights="relative"), key(teacher_store="live")}
    assert len(same) == 1
    assert key(mapping="uniform") not in same
    assert key(teacher_weights="random") not in same


def test_the_head_looks_through_the_projection_that_was_learnt(
    adapted: RunConfig, cache: Path, tmp_path: Path
) -> None:
    artefacts = Artefacts(tmp_path / "artefacts")
    alone = open_run(replace(adapted, adaptation=AdaptationConfig()), cache).student
    make_links(adapted, artefacts, cache, StoreConfig())
    ready = resolved(adapted, artefacts, cache)
    assert ready.chain == ()
    student = open_run(ready, cache).student

    def projection(student: nn.Module) -> torch.Tensor:
        assert isinstance(student, Student)
        part = student.head.encoder_part()
        assert isinstance(part, nn.Linear)
        return part.weight

    unlearnt = projection(alone)
    assert torch.equal(unlearnt, torch.eye(len(unlearnt)))
    assert projection(student).shape[1] == unlearnt.shape[1]
    assert not torch.equal(projection(student)[: len(unlearnt)], unlearnt)
