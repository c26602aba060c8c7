import warnings

import numpy as np
import pytest
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    f1_score,
    log_loss,
    precision_score,
    recall_score,
    roc_auc_score,
)

from dsgkd.ledger.measures import improvement
from dsgkd.tasks.measures import (
    MEASURES,
    auroc_by_chance,
    expected_calibration_error,
    f1_threshold,
    measures,
)


@pytest.fixture(autouse=True)
def _warnings_are_errors() -> None:
    warnings.simplefilter("error")


def binary(*positive: float) -> np.ndarray:
    return np.array([[1 - p, p] for p in positive], np.float32)


def test_binary_measures_are_those_computed_by_hand() -> None:
    labels = np.array([0, 0, 1, 1, 1])
    measured = measures(labels, binary(0.1, 0.6, 0.5, 0.8, 0.9), threshold=0.55)

    # Called 1: the notes with 0.6, 0.8 and 0.9; of the six pairs one is the wrong way round.
    assert measured["accuracy"] == pytest.approx(3 / 5)
    assert measured["precision"] == pytest.approx(2 / 3)
    assert measured["recall"] == pytest.approx(2 / 3)
    assert measured["f1"] == pytest.approx(2 / 3)
    assert measured["auroc"] == pytest.approx(5 / 6)
    assert measured["auprc"] == pytest.approx((1 + 1 + 3 / 4) / 3)
    assert measured["brier"] == pytest.approx((0.01 + 0.36 + 0.25 + 0.04 + 0.01) / 5)
    assert measured["loss"] == pytest.approx(-np.log([0.9, 0.4, 0.5, 0.8, 0.9]).mean())


def test_measures_of_three_classes_are_those_computed_by_hand() -> None:
    labels = np.array([0, 1, 2, 2])
    probability = np.array([[0.8, 0.1, 0.1], [0.2, 0.5, 0.3], [0.1, 0.6, 0.3], [0.0, 0.1, 0.9]])
    measured = measures(labels, probability, threshold=0.999)

    assert measured["accuracy"] == pytest.approx(3 / 4)
    assert measured["precision"] == pytest.approx((1 + 1 / 2 + 1) / 3)
    assert measured["recall"] == pytest.approx((1 + 1 + 1 / 2) / 3)
    assert measured["f1"] == pytest.approx((1 + 2 / 3 + 2 / 3) / 3)
    # Class 1 loses one of three pairs; class 2 has 0.3 and 0.9 against 0.1 and 0.3: half a pair.
    assert measured["auroc"] == pytest.approx((1 + 2 / 3 + 3.5 / 4) / 3)
    assert measured["brier"] == pytest.approx((0.06 + 0.38 + 0.86 + 0.02) / 4)
    assert measured["loss"] == pytest.approx(-np.log([0.8, 0.5, 0.3, 0.9]).mean())


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_measures_agree_with_scikit_learn(classes: int) -> None:
    draw = np.random.default_rng(classes)
    labels = draw.integers(0, classes, 200)
    logits = draw.normal(size=(200, classes)) + 1.5 * np.eye(classes)[labels]
    probability = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    measured = measures(labels, probability)

    binary_task = classes == 2
    scores = probability[:, 1] if binary_task else probability
    truth = labels if binary_task else np.eye(classes)[labels]
    predicted = probability.argmax(1)
    average = "binary" if binary_task else "macro"
    expected = {
        "loss": log_loss(labels, probability),
        "accuracy": (labels == predicted).mean(),
        "auroc": roc_auc_score(labels, scores, multi_class="ovr"),
        "auprc": average_precision_score(truth, scores, average="macro"),
        "f1": f1_score(labels, predicted, average=average),
        "precision": precision_score(labels, predicted, average=average),
        "recall": recall_score(labels, predicted, average=average),
        "brier": brier_score_loss(labels, scores),
    }
    assert {name: measured[name] for name in expected} == pytest.approx(expected)
    assert tuple(measured) == tuple(MEASURES)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("label", [0, 1])
def test_with_one_class_only_ranks_are_undefined_and_all_else_is_a_number(
    classes: int, label: int
) -> None:
    probability = np.random.default_rng(0).dirichlet(np.ones(classes), 6)
    measured = measures(np.full(6, label), probability)

    undefined = {name for name, value in measured.items() if np.isnan(value)}
    assert undefined == {"auroc", "auprc"}


def test_a_class_without_notes_is_left_out_of_the_ranks() -> None:
    labels = np.array([0, 0, 1, 1])
    probability = np.array([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.5, 0.4, 0.1]])

    assert measures(labels, probability)["auroc"] == 1.0


def test_a_note_that_is_called_impossible_costs_a_finite_loss() -> None:
    assert measures(np.array([0, 1]), binary(0.0, 0.0))["loss"] == pytest.approx(
        27.63 / 2, abs=0.01
    )


def test_a_calibrated_model_has_no_calibration_error() -> None:
    labels = np.array([1] * 8 + [0] * 2 + [0] * 6 + [1] * 4)

    assert expected_calibration_error(labels, binary(*[0.8] * 10, *[0.4] * 10)) == pytest.approx(
        0, abs=1e-6
    )


def test_an_overconfident_model_errs_by_how_much_it_is_too_sure() -> None:
    labels = np.array([1] * 6 + [0] * 4)

    assert expected_calibration_error(labels, binary(*[1.0] * 10)) == pytest.approx(0.4)


def test_calibration_errors_of_opposite_sign_do_not_cancel() -> None:
    labels = np.array([1] * 5 + [0] * 5 + [1] * 10)
    # 0.8 sure and right half of the time; 0.7 sure and always right.
    error = expected_calibration_error(labels, binary(*[0.8] * 10, *[0.7] * 10))

    assert error == pytest.approx((0.3 + 0.3) / 2, abs=1e-6)


def test_the_threshold_has_the_best_f1_of_all() -> None:
    draw = np.random.default_rng(3)
    labels = draw.integers(0, 2, 60)
    probability = binary(*np.clip(0.3 * labels + draw.random(60) * 0.7, 0, 1))

    chosen = f1_threshold(labels, probability[:, 1])
    reached = measures(labels, probability, chosen)["f1"]
    every = [measures(labels, probability, float(t))["f1"] for t in probability[:, 1]]
    assert reached == max(every)
    assert min(every) < reached


def test_the_threshold_itself_counts_as_positive() -> None:
    labels, probability = np.array([0, 0, 1, 1]), binary(0.1, 0.2, 0.3, 0.9)

    assert f1_threshold(labels, probability[:, 1]) == probability[2, 1]
    assert measures(labels, probability, float(probability[2, 1]))["f1"] == 1.0


def test_without_positive_notes_the_threshold_is_one_half() -> None:
    assert f1_threshold(np.zeros(3, np.int64), np.array([0.1, 0.2, 0.3])) == 0.5


@pytest.mark.parametrize("measure", MEASURES)
def test_better_is_larger_after_the_sign_is_set(measure: str) -> None:
    labels = np.array([0, 1, 0, 1, 0, 1])
    good = measures(labels, binary(0.1, 0.9, 0.1, 0.9, 0.1, 0.9))[measure]
    bad = measures(labels, binary(0.9, 0.1, 0.8, 0.3, 0.9, 0.6))[measure]

    direction = MEASURES[measure]
    assert improvement(good, direction) > improvement(bad, direction)
    assert improvement(improvement(good, direction), direction) == good


@pytest.mark.parametrize("counts", [(30, 30), (50, 10), (20, 20, 20)])
def test_scores_without_information_exceed_chance_once_in_forty_samples_or_less(
    counts: tuple[int, ...],
) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    score = np.random.default_rng(0).random((4000, len(labels), len(counts)))  # of each class
    pairs = [
        score[:, labels == k, k][:, :, None] > score[:, labels != k, k][:, None]
        for k in range(1 if len(counts) == 2 else 0, len(counts))
    ]
    found = np.mean([pair.mean((1, 2)) for pair in pairs], axis=0)

    exceeding = (found > auroc_by_chance(counts)).mean()

    assert exceeding < 0.031
    assert exceeding > 0.019 or len(counts) > 2


def test_what_chance_reaches_is_the_mann_whitney_variance_computed_by_hand() -> None:
    assert auroc_by_chance([30, 10]) == pytest.approx(0.5 + 1.96 * (41 / 3600) ** 0.5, abs=1e-5)
    assert auroc_by_chance([30, 10, 0]) == auroc_by_chance([30, 10])
    assert np.isnan(auroc_by_chance([30, 0]))
