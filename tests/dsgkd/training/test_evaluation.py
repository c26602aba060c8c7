from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dsgkd.alignment.texts import EncodedTexts
from dsgkd.alignment.view import View
from dsgkd.data.sources import read_notes
from dsgkd.storage.checkpoint import Checkpoints
from dsgkd.tasks.classification import Classification
from dsgkd.tasks.measures import MEASURES, f1_threshold
from dsgkd.training.config import RunConfig
from dsgkd.training.evaluation import evaluate, evaluate_validation, predict
from dsgkd.training.loop import train
from dsgkd.training.opening import OpenRun, open_notes, open_run

MakeConfig = Callable[..., RunConfig]


@pytest.fixture(scope="module")
def trained(
    make_config: MakeConfig, cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> OpenRun:
    """A run after some training, so that predictions differ between notes."""
    run = open_run(make_config(), cache)
    list(train(run, Checkpoints(tmp_path_factory.mktemp("run"))))
    return run


def batched(run: OpenRun, size: int) -> OpenRun:
    optimisation = replace(run.config.optimisation, evaluation_batch_size=size)
    return replace(run, config=replace(run.config, optimisation=optimisation))


def test_probabilities_sum_to_one_and_differ_between_notes(trained: OpenRun) -> None:
    probability = predict(trained, trained.validation)

    assert probability.shape == (17, 2)
    assert probability.dtype == np.float32
    assert probability.sum(1) == pytest.approx(np.ones(17))
    assert probability[:, 1].std() > 0.01


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_predictions_do_not_depend_on_the_batch_size(trained: OpenRun, size: int) -> None:
    notes = trained.texts

    np.testing.assert_allclose(
        predict(batched(trained, size), notes), predict(trained, notes), atol=2e-6
    )


def test_predictions_do_not_depend_on_the_order_of_the_notes(trained: OpenRun) -> None:
    table = read_notes(trained.config.data, b"key").table.to_pylist()
    texts = [row["text"] for row in table if row["split"] == "train"]
    config = trained.config
    view = View.once(texts[::-1], trained.tokenizer, config.max_length, config.words)
    turned = EncodedTexts.of_view(view)

    np.testing.assert_allclose(
        predict(batched(trained, 5), turned)[::-1],
        predict(trained, trained.texts),
        atol=2e-6,
    )


def test_predicting_draws_no_dropout_and_leaves_the_mode_as_it_was(
    trained: OpenRun, cache: Path
) -> None:
    notes, student = open_notes(trained.config, cache).split("test"), trained.student
    assert len(notes) == 9
    for training in (True, False):
        trained.distiller.train(training)
        before = torch.get_rng_state()
        assert np.array_equal(predict(trained, notes), predict(trained, notes))
        assert torch.equal(torch.get_rng_state(), before)
        assert student.training is training


def test_the_threshold_follows_the_rule_of_the_task(trained: OpenRun) -> None:
    notes = trained.validation
    probability = predict(trained, notes)

    chosen = trained.task.fit(probability, notes, trained.texts)
    prevalence = Classification(threshold="prevalence").fit(probability, notes, trained.texts)

    assert chosen == {"threshold": f1_threshold(notes.labels, probability[:, 1])}
    assert prevalence == {"threshold": trained.texts.labels.mean()}
    assert chosen != prevalence


def test_a_prevalence_counts_labelled_texts_only(trained: OpenRun) -> None:
    labels = trained.texts.labels.copy()
    labels[::2] = -1
    half = replace(trained.texts, labels=labels)

    fitted = Classification(threshold="prevalence").fit(np.zeros((17, 2)), trained.validation, half)
    assert fitted["threshold"] == labels[1::2].mean()


def test_more_than_two_classes_have_no_threshold(trained: OpenRun) -> None:
    guess = np.full((17, 3), 1 / 3, np.float32)
    assert trained.task.fit(guess, trained.validation, trained.texts) == {"threshold": 0.5}


def test_the_test_split_is_measured_with_what_was_fitted_on_validation(
    trained: OpenRun, cache: Path
) -> None:
    validation = evaluate_validation(trained)
    fitted = {k: v for k, v in validation.measured.items() if k not in trained.task.measures}
    test = evaluate(trained, open_notes(trained.config, cache).split("test"), fitted)

    assert fitted == {"threshold": validation.measured["threshold"]}
    assert set(test.measured) == {*MEASURES, "threshold"}
    assert test.measured["threshold"] == fitted["threshold"]
    assert test.predicted.shape == (9, 2)


@pytest.mark.parametrize("classes", [2, 3])
def test_only_predictions_that_know_something_are_better_than_chance(
    trained: OpenRun, classes: int
) -> None:
    labels = np.arange(40) % classes
    texts = replace(trained.validation.take(np.zeros(40, np.int64)), labels=labels)
    right = np.eye(classes, dtype=np.float32)[labels]

    assert not Classification().at_chance(right, texts)
    assert Classification().at_chance(1 - right, texts)
    assert Classification().at_chance(np.full_like(right, 1 / classes), texts)
    # One class only: nobody can tell.
    assert not Classification().at_chance(right, replace(texts, labels=np.zeros_like(labels)))
