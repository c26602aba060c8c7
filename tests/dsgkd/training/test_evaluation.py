from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dsgkd.alignment.encoding import EncodedNotes
from dsgkd.data.sources import read_notes
from dsgkd.tasks.measures import f1_threshold
from dsgkd.training.evaluation import predict, validation_threshold
from dsgkd.training.loop import train
from dsgkd.training.run import OpenRun, RunConfig, open_run

MakeConfig = Callable[..., RunConfig]


@pytest.fixture(scope="module")
def trained(
    make_config: MakeConfig, cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> OpenRun:
    """A run after some training, so that predictions differ between notes."""
    run = open_run(make_config(), cache)
    list(train(run, tmp_path_factory.mktemp("run")))
    return run


def batched(run: OpenRun, size: int) -> OpenRun:
    optimisation = replace(run.config.optimisation, evaluation_batch_size=size)
    return replace(run, config=replace(run.config, optimisation=optimisation))


def test_probabilities_sum_to_one_and_differ_between_notes(trained: OpenRun) -> None:
    probability = predict(trained, trained.notes.split("validation"))

    assert probability.shape == (17, 2)
    assert probability.dtype == np.float32
    assert probability.sum(1) == pytest.approx(np.ones(17))
    assert probability[:, 1].std() > 0.01


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_predictions_do_not_depend_on_the_batch_size(trained: OpenRun, size: int) -> None:
    notes = trained.notes.split("train")

    np.testing.assert_allclose(
        predict(batched(trained, size), notes), predict(trained, notes), atol=2e-6
    )


def test_predictions_do_not_depend_on_the_order_of_the_notes(trained: OpenRun) -> None:
    table = read_notes(trained.config.data, b"key").table.to_pylist()
    texts = [row["text"] for row in table if row["split"] == "train"]
    turned = EncodedNotes.unlabelled(texts[::-1], trained.tokenizer, trained.config.max_length)

    np.testing.assert_allclose(
        predict(batched(trained, 5), turned)[::-1],
        predict(trained, trained.notes.split("train")),
        atol=2e-6,
    )


def test_predicting_draws_no_dropout_and_leaves_the_mode_as_it_was(trained: OpenRun) -> None:
    notes, student = trained.notes.split("test"), trained.distiller.student
    for training in (True, False):
        student.train(training)
        before = torch.get_rng_state()
        assert np.array_equal(predict(trained, notes), predict(trained, notes))
        assert torch.equal(torch.get_rng_state(), before)
        assert student.training is training


def test_the_threshold_follows_the_rule_of_the_run(trained: OpenRun) -> None:
    notes = trained.notes.split("validation")
    probability = predict(trained, notes)
    prevalence = replace(
        trained,
        config=replace(
            trained.config, selection=replace(trained.config.selection, threshold="prevalence")
        ),
    )

    chosen = validation_threshold(trained, notes.labels, probability)
    assert chosen == f1_threshold(notes.labels, probability[:, 1])
    share = trained.notes.split("train").labels.mean()
    assert validation_threshold(prevalence, notes.labels, probability) == share
    assert chosen != share


def test_more_than_two_classes_have_no_threshold(trained: OpenRun) -> None:
    run = replace(trained, label_names=("a", "b", "c"))

    assert validation_threshold(run, np.array([0, 1, 2]), np.eye(3)) == 0.5
