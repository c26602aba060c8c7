"""Linear probing: what is fitted, what it is told, and that a run goes on from it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from dsgkd.errors import InputError
from dsgkd.storage.checkpoint import Checkpoints
from dsgkd.training.config import RunConfig
from dsgkd.training.evaluation import predict
from dsgkd.training.loop import BEST, train
from dsgkd.training.opening import open_run
from dsgkd.training.probe import logistic_regression


@pytest.mark.parametrize("classes", [2, 3])
def test_logits_of_features_as_they_are_agree_with_scikit_learn(classes: int) -> None:
    draw = np.random.default_rng(0)
    known = draw.normal(3, [0.1, 1, 20], (200, 3))
    labels = (known[:, 1] > 3).astype(int) + (classes == 3) * (known[:, 2] > 20)
    weight, bias, loss = logistic_regression(known, labels, known[:50], labels[:50], classes, [0.1])

    standard = (known - known.mean(0)) / known.std(0)
    expected = LogisticRegression(C=0.1, max_iter=1000).fit(standard, labels)
    probability = torch.from_numpy(known @ weight.T + bias).softmax(1).numpy()
    np.testing.assert_allclose(probability, expected.predict_proba(standard), atol=1e-6)
    of_truth = probability[np.arange(200), labels]
    assert loss == pytest.approx(-np.log(of_truth).mean(), abs=1e-6)


def test_the_penalty_is_the_one_that_does_best_on_held_out_examples() -> None:
    draw = np.random.default_rng(1)
    known, held_out = draw.normal(size=(60, 40)), draw.normal(size=(400, 40))
    labels, others = (known[:, 0] > 0).astype(int), draw.integers(0, 2, 400)
    none = logistic_regression(known, labels, held_out, others, 2)[0]  # nothing holds there
    some = logistic_regression(known, labels, held_out, (held_out[:, 0] > 0).astype(int), 2)[0]
    assert np.abs(none).max() < 0.1 * np.abs(some).max()


def test_a_class_without_an_example_is_the_least_likely() -> None:
    draw = np.random.default_rng(2)
    known = draw.normal(size=(50, 4))
    labels = 2 * (known[:, 0] > 0).astype(int)  # 0 and 2 of three
    weight, bias, _ = logistic_regression(known, labels, known, labels, 3)
    assert ((known @ weight.T + bias).argmin(1) == 1).all()


@pytest.fixture
def probed(make_config: Callable[..., RunConfig]) -> RunConfig:
    config = make_config(optimisation={"epochs": 2, "probe": True})
    return replace(config, student=replace(config.student, head="words"))


def test_the_probe_is_the_first_epoch_and_moves_the_head_alone(
    probed: RunConfig, cache: Path, tmp_path: Path
) -> None:
    run, checkpoints = open_run(probed, cache), Checkpoints(tmp_path / "run")
    before = {name: value.clone() for name, value in run.student.state_dict().items()}
    results = train(run, checkpoints)
    first = next(results)

    assert (first.epoch, first.step, list(first.weighted)) == (1, 0, ["ce"])
    after = run.student.state_dict()
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert moved == {"head.output.weight", "head.output.bias"}
    kept = checkpoints.load(BEST)["student"]
    assert torch.equal(kept["head.output.weight"], after["head.output.weight"])
    assert [(r.epoch, r.step > 0) for r in results] == [(2, True), (3, True)]


def test_a_run_that_was_cut_off_after_its_probe_goes_on_bit_for_bit(
    probed: RunConfig, cache: Path, tmp_path: Path
) -> None:
    whole = open_run(probed, cache)
    expected = list(train(whole, Checkpoints(tmp_path / "whole")))
    cut = train(open_run(probed, cache), Checkpoints(tmp_path / "cut"))
    next(cut)
    cut.close()
    resumed = open_run(probed, cache)
    found = list(train(resumed, Checkpoints(tmp_path / "cut")))

    assert [r.validation for r in found] == [r.validation for r in expected[1:]]
    assert np.array_equal(predict(resumed, resumed.validation), predict(whole, whole.validation))


def test_a_head_of_several_layers_is_refused(
    make_config: Callable[..., RunConfig], cache: Path, tmp_path: Path
) -> None:
    run = open_run(make_config(optimisation={"epochs": 1, "probe": True}), cache)
    with pytest.raises(InputError, match="choose the head mean, max, words or projected"):
        next(train(run, Checkpoints(tmp_path / "run")))
