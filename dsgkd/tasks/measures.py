"""Measures of predicted class probabilities.

The measures are scikit-learn's, which is imported when there is something to measure; multi-class
ones are unweighted means over classes.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dsgkd.ledger.measures import Direction

MEASURES: dict[str, Direction] = {
    "loss": "minimise",
    "accuracy": "maximise",
    "auroc": "maximise",
    "auprc": "maximise",
    "f1": "maximise",
    "precision": "maximise",
    "recall": "maximise",
    "brier": "minimise",
    "ece": "minimise",
}

_Z = 1.959964  # the normal distribution's quantile .975


def f1_threshold(labels: NDArray[np.int64], probability: NDArray[np.floating]) -> float:
    """Return the threshold with the best F1 of the positive class; 0.5 if there is none.

    Args:
        labels: [n], 0 or 1.
        probability: [n], of class 1.
    """
    from sklearn.metrics import precision_recall_curve

    if not labels.any():
        return 0.5
    precision, recall, thresholds = precision_recall_curve(labels, probability)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    return float(thresholds[f1[:-1].argmax()])


def auroc(labels: NDArray[np.int64], probability: NDArray[np.floating]) -> float:
    """Return the area under the ROC curve; arguments as for `measures`."""
    from sklearn.metrics import roc_auc_score

    probability = probability.astype(np.float64)
    truth = np.eye(probability.shape[1])[labels]
    return _mean([roc_auc_score(truth[:, k], probability[:, k]) for k in _present(truth)])


def auroc_by_chance(counts: Sequence[int] | NDArray[np.int64]) -> float:
    """Return the AUROC that scores without any information exceed in 2.5 % of samples.

    Of two classes 1/2 + z s with s^2 = (n1 + n0 + 1) / (12 n1 n0), the variance of the Mann-Whitney
    statistic under the null hypothesis (Mann and Whitney 1947, doi 10.1214/aoms/1177730491), and z
    the quantile .975 of the normal distribution. The mean over more classes of one against the rest
    varies at most as much as the mean of their s, which is reached where they vary together.

    Args:
        counts: examples of each class; classes without any, or alone, do not count.
    """
    total = sum(counts)
    present = [int(n) for n in counts if 0 < n < total]
    spread = [math.sqrt((total + 1) / (12 * n * (total - n))) for n in present]
    return 0.5 + _Z * _mean(spread)


def measures(
    labels: NDArray[np.int64], probability: NDArray[np.floating], threshold: float = 0.5
) -> dict[str, float]:
    """Compute every measure of `MEASURES`.

    Args:
        labels: [n] class indices.
        probability: [n, classes], rows sum to one.
        threshold: binary tasks call class 1 from this probability on; ignored otherwise.

    Returns:
        loss: mean cross-entropy in nats. accuracy, f1, precision, recall: of class 1 at the
        threshold (binary), macro over classes at the most probable class (otherwise). auroc:
        one class against the rest, macro. auprc: average precision, macro. brier: mean squared
        error of the probability of class 1 (binary), or summed over classes (otherwise).
        ece: expected calibration error of the most probable class's probability, 15 equal bins.
        A measure that is undefined on these labels (only one class present) is NaN.
    """
    from sklearn.metrics import (
        average_precision_score,
        f1_score,
        precision_score,
        recall_score,
    )

    probability = probability.astype(np.float64)
    classes = probability.shape[1]
    rows = np.arange(len(labels))
    truth = np.eye(classes)[labels]  # [n, classes]
    binary = classes == 2
    predicted = (
        (probability[:, 1] >= threshold).astype(np.int64) if binary else probability.argmax(1)
    )
    average = "binary" if binary else "macro"
    present = _present(truth)
    kind = {"average": average, "zero_division": 0.0}
    return {
        "loss": float(-np.log(np.maximum(probability[rows, labels], 1e-12)).mean()),
        "accuracy": float((predicted == labels).mean()),
        "auroc": auroc(labels, probability),
        "auprc": _mean([average_precision_score(truth[:, k], probability[:, k]) for k in present]),
        "f1": float(f1_score(labels, predicted, **kind)),
        "precision": float(precision_score(labels, predicted, **kind)),
        "recall": float(recall_score(labels, predicted, **kind)),
        "brier": float(((probability - truth) ** 2).sum(1).mean() / (2 if binary else 1)),
        "ece": expected_calibration_error(labels, probability),
    }


def expected_calibration_error(
    labels: NDArray[np.int64], probability: NDArray[np.floating], bins: int = 15
) -> float:
    """Return the mean gap between confidence and accuracy (Guo et al., arXiv 1706.04599, eq. 3)."""
    confidence = probability.max(1)
    correct = probability.argmax(1) == labels
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [
        abs(correct[index == b].mean() - confidence[index == b].mean()) * (index == b).mean()
        for b in np.unique(index)
    ]
    return float(sum(gaps))


def _present(truth: NDArray[np.float64]) -> list[int]:
    """Return the classes that can be ranked: those with examples and others; of two the second."""
    present = [k for k, count in enumerate(truth.sum(0)) if 0 < count < len(truth)]
    return [1] if truth.shape[1] == 2 and present else present


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
