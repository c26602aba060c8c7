from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from watched_runs import assert_same_weights, disturb, facts, weights

from dsgkd.data.transfer_set import TransferConfig
from dsgkd.models.randomness import random_state
from dsgkd.models.student import encoder_of
from dsgkd.storage.checkpoint import Checkpoints, load_state
from dsgkd.tasks.nothing import NoTask
from dsgkd.training import loop
from dsgkd.training.config import RunConfig
from dsgkd.training.gradients import (
    clip_gradients,
    gradient_norms,
    gradient_shares,
    scale_terms,
    shared_parameters,
)
from dsgkd.training.loop import LAST, train
from dsgkd.training.opening import OpenRun, open_run
from dsgkd.training.probe import linear_head
from dsgkd.training.workers import Workers

MakeConfig = Callable[..., RunConfig]
STEPS = range(3)


def norms_of(run: OpenRun, steps: Sequence[int] = STEPS) -> list[float]:
    return gradient_norms(run, run.sampler().state(), steps, Workers()).tolist()


@pytest.fixture
def open_relative(make_config: MakeConfig, cache: Path) -> Callable[..., OpenRun]:
    """Open a run with alpha, beta and their scale measured on three batches."""

    def make(alpha: float, beta: float, **changes: Any) -> OpenRun:
        terms = {"alpha": alpha, "beta": beta, "weights": "relative"}
        run = open_run(make_config(teacher="teacher", distillation=terms, **changes), cache)
        scale_terms(run, run.sampler().state(), STEPS, Workers())
        return run

    return make


def test_the_size_of_a_gradient_is_the_mean_of_the_batches_norms_without_dropout_or_pooler(
    make_config: MakeConfig, cache: Path
) -> None:
    run = open_run(make_config(), cache)
    collate, sampler, expected = run.collator(), run.sampler(), []
    run.student.eval()
    for step in STEPS:
        batch = collate(run.texts, sampler.draw(step))
        run.student.zero_grad()
        run.task.loss(run.distiller.output(batch), batch, len(batch)).backward()
        encoder = encoder_of(run.student)
        parts = [p.grad for p in (*encoder.embeddings.parameters(), *encoder.encoder.parameters())]
        expected.append(float(torch.cat([p.flatten() for p in parts if p is not None]).norm()))

    (found,) = norms_of(run)

    assert found == pytest.approx(sum(expected) / 3, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 1.0), (0.25, 3.0)])
def test_relative_weights_are_the_terms_gradients_in_units_of_the_tasks(
    open_relative: Callable[..., OpenRun], alpha: float, beta: float
) -> None:
    run = open_relative(alpha, beta)

    task, hidden, attention = norms_of(run)

    assert [hidden / task, attention / task] == pytest.approx([alpha, beta], rel=1e-4)
    assert not run.distiller.needs_scales


@pytest.mark.slow
def test_without_a_task_weights_are_in_units_of_the_first_term(
    open_relative: Callable[..., OpenRun], transfer: TransferConfig
) -> None:
    selection = {"objective": "loss", "stop_when_stale": ()}
    run = open_relative(2.0, 0.5, task=NoTask(), transfer=transfer, selection=selection)

    task, hidden, attention = norms_of(run)

    assert task == 0
    assert attention == pytest.approx(hidden / 4, rel=1e-4)
    assert run.distiller.weights[0] == 2


def test_measuring_gradients_changes_nothing_that_training_sees(
    make_config: MakeConfig, cache: Path
) -> None:
    run = open_run(make_config(teacher="teacher", distillation={"beta": 0.5}), cache)
    run.distiller.train()
    before, state = weights(run), torch.get_rng_state()
    held = run.sampler().state()

    shares = gradient_shares(run, held, STEPS, Workers())

    assert list(shares) == ["ce", "hidden", "attention"]
    assert sum(shares.values()) == pytest.approx(1)
    assert all(share > 0 for share in shares.values())
    assert_same_weights(weights(run), before)
    assert torch.equal(random_state()["torch"], state)
    assert run.student.training
    assert all(parameter.grad is None for parameter in run.distiller.parameters())
    assert held == run.sampler().state()


def test_a_run_without_terms_or_with_a_frozen_encoder_has_no_shares(
    make_config: MakeConfig, cache: Path
) -> None:
    plain = open_run(make_config(), cache)
    frozen = open_run(make_config(teacher="teacher"), cache)
    encoder_of(frozen.student).requires_grad_(False)

    for run in (plain, frozen):
        assert gradient_shares(run, run.sampler().state(), STEPS, Workers()) == {}


@pytest.mark.slow
def test_the_scale_is_measured_after_a_probe(
    make_config: MakeConfig, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(
        teacher="teacher", distillation={"weights": "relative"}, optimisation={"probe": True}
    )
    run = open_run(replace(config, student=replace(config.student, head="mean")), cache)
    measured = []

    def scale(*given: Any) -> None:
        measured.append(linear_head(run).weight.clone())
        scale_terms(*given)

    monkeypatch.setattr(loop, "scale_terms", scale)
    results = train(run, Checkpoints(tmp_path))
    probe = next(results)
    probed = linear_head(run).weight.clone()

    assert (probe.share, measured) == ({}, [])
    assert sum(next(results).share.values()) == pytest.approx(1)
    assert len(measured) == 1
    assert torch.equal(measured[0], probed)


@pytest.mark.slow
def test_a_run_with_relative_weights_measures_once_and_goes_on_bit_for_bit(
    make_config: MakeConfig, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(teacher="teacher", distillation={"weights": "relative"})
    whole = open_run(config, cache)
    expected = list(train(whole, Checkpoints(tmp_path / "whole")))

    first = train(open_run(config, cache), Checkpoints(tmp_path / "cut"))
    before = [next(first)]
    first.close()
    disturb()
    monkeypatch.setattr(loop, "scale_terms", None)  # to measure again would fail
    second = open_run(config, cache)
    after = list(train(second, Checkpoints(tmp_path / "cut")))

    assert facts(before + after) == facts(expected)
    assert_same_weights(weights(second), weights(whole))
    scale = load_state(tmp_path / "cut" / LAST)["distiller"]["scales"].item()
    assert scale not in (0, 1)
    for result in expected:
        assert result.weighted["hidden"] == pytest.approx(scale * result.raw["hidden"], rel=1e-5)
        assert sum(result.share.values()) == pytest.approx(1)


@pytest.mark.slow
def test_the_shares_of_the_epochs_do_not_change_the_run(
    make_config: MakeConfig, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(teacher="teacher")
    measured = open_run(config, cache)
    with_shares = list(train(measured, Checkpoints(tmp_path / "with")))
    monkeypatch.setattr(loop, "gradient_shares", lambda *_: {})
    plain = open_run(config, cache)
    without = list(train(plain, Checkpoints(tmp_path / "without")))

    assert_same_weights(weights(measured), weights(plain))
    assert [result.raw for result in with_shares] == [result.raw for result in without]
    assert all(set(result.share) == {"ce", "hidden"} for result in with_shares)


def test_in_groups_a_large_gradient_of_a_projection_leaves_the_encoders_alone(
    make_config: MakeConfig, cache: Path
) -> None:
    config = make_config(teacher="teacher", optimisation={"clip": "group", "clip_norm": 0.5})
    run = open_run(config, cache)
    encoder = shared_parameters(run.student)
    for parameter in run.distiller.parameters():
        parameter.grad = torch.full_like(parameter, 1e-3)
    for parameter in run.distiller.terms.parameters():
        parameter.grad = torch.full_like(parameter, 1e3)
    before = [parameter.grad for parameter in encoder]

    clip_gradients(run.distiller, config.optimisation)

    projections = [parameter.grad for parameter in run.distiller.terms.parameters()]
    assert float(nn.utils.get_total_norm(projections)) == pytest.approx(0.5)
    assert all(torch.equal(p.grad, b) for p, b in zip(encoder, before))
