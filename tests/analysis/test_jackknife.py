"""The jackknife leaves out whole patients, and gives what computing everything anew would give."""

from functools import lru_cache

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import rankdata

from analysis import jackknife
from analysis.delong import auroc, midranks
from analysis.jackknife import MEASURES, Sample
from dsgkd.tasks.measures import measures


def sample(classes: int, notes: int = 30, patients: int = 8, models: int = 2) -> Sample:
    random = np.random.default_rng(classes)
    labels = random.integers(classes, size=notes)
    logits = random.normal(size=(models, notes, classes)) + 1.2 * np.eye(classes)[labels]
    probability = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    probability = np.round(probability, 2)  # ties
    of = np.concatenate([np.arange(patients), random.integers(patients, size=notes - patients)])
    return Sample(labels, probability, of, random.uniform(0.4, 0.6, size=models))


@lru_cache
def anew(classes: int) -> tuple[list[dict[str, float]], list[list[dict[str, float]]]]:
    """Measure all notes, and all but those of each patient, with scikit-learn."""
    given = sample(classes)

    def measured(model: int, kept: NDArray[np.bool_]) -> dict[str, float]:
        probability = given.probability[model, kept]
        return measures(given.labels[kept], probability, given.thresholds[model])

    everyone = np.full(len(given.labels), True)
    patients = range(given.patients.max() + 1)
    return (
        [measured(model, everyone) for model in range(2)],
        [[measured(model, given.patients != one) for one in patients] for model in range(2)],
    )


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("name", MEASURES)
def test_values_without_a_patient_are_those_computed_anew(name: str, classes: int) -> None:
    whole, left_out = MEASURES[name](sample(classes))
    expected, without = anew(classes)
    assert whole == pytest.approx(np.array([row[name] for row in expected]))
    assert left_out == pytest.approx(np.array([[row[name] for row in rows] for rows in without]))


def test_a_measure_that_loses_its_only_positive_is_not_a_number() -> None:
    given = Sample(np.array([1, 0, 0]), np.full((1, 3, 2), 0.5), np.arange(3), np.array([0.5]))
    for name in ("auroc", "auprc"):
        whole, left_out = MEASURES[name](given)
        assert np.isfinite(whole).all()
        assert np.isnan(left_out[0, 0])
        assert np.isfinite(left_out[0, 1:]).all()


def test_midranks_are_those_of_scipy() -> None:
    values = np.random.default_rng(3).integers(6, size=(4, 3, 50)).astype(float)
    assert (midranks(values) == rankdata(values, axis=-1)).all()


def test_delongs_covariance_is_the_one_of_all_pairs_of_notes() -> None:
    random = np.random.default_rng(4)
    positive = random.random(60) < 0.4
    scores = np.round(random.normal(size=(3, 60)) + positive, 1)
    x, y = scores[:, positive], scores[:, ~positive]
    won = (x[:, :, None] > y[:, None]) + 0.5 * (x[:, :, None] == y[:, None])
    expected = np.cov(won.mean(2)) / x.shape[1] + np.cov(won.mean(1)) / y.shape[1]
    value, covariance = auroc(positive, scores)
    assert value == pytest.approx(won.mean((1, 2)))
    assert covariance == pytest.approx(expected)


def test_the_jackknife_agrees_with_delong_where_each_patient_has_one_note() -> None:
    given = sample(2, notes=400, patients=400)
    _, left_out = jackknife.auroc(given)
    _, covariance = auroc(given.labels == 1, given.probability[..., 1])
    assert jackknife.covariance(left_out) == pytest.approx(covariance, rel=0.02)


def test_notes_that_repeat_one_another_are_no_more_evidence_than_one() -> None:
    given = sample(2, notes=200, patients=200)
    three = Sample(
        *(np.repeat(part, 3, axis=axis) for part, axis in zip(given[:3], (0, 1, 0))), given[3]
    )
    once, thrice = (jackknife.covariance(jackknife.auroc(part)[1]) for part in (given, three))
    assert thrice == pytest.approx(once, rel=1e-6)
