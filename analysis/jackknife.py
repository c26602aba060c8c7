"""A measure of several models, and its values with one patient left out at a time.

The values give the covariance over test sets of any measure, also where a patient has several
notes. No measure is computed anew for each patient: sums lose that patient's part.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from analysis.delong import components

Array = NDArray[np.float64]
Whole = NDArray[np.int64]

_ECE_BINS = 15  # as in the ledger's measure


class Sample(NamedTuple):
    """The predictions of several models for the same notes."""

    labels: Whole
    """Class of each note, [notes]."""
    probability: Array
    """[models, notes, classes]."""
    patients: Whole
    """Number of each note's patient, from 0 on without gaps, [notes]."""
    thresholds: Array
    """From which probability on two classes are told apart, [models]."""

    def sums(self, values: Array) -> tuple[Array, Array]:
        """Sum [models, notes, ...] over notes: all of them, and with each patient left out.

        Returns:
            [models, ...] and [models, patients, ...].
        """
        total = values.sum(1)
        of_patient = np.zeros((self.patients.max() + 1, len(values), *values.shape[2:]))
        np.add.at(of_patient, self.patients, np.moveaxis(values, 1, 0))
        return total, total[:, None] - np.moveaxis(of_patient, 0, 1)


Values = tuple[Array, Array]
"""A measure of each model, [models], and with each patient left out, [models, patients]."""


def covariance(left_out: Array) -> Array:
    """Return the jackknife covariance [models, models] of values [models, patients].

    (G - 1) / G sum over G patients of (x - mean) (y - mean): Efron & Stein, Annals of Statistics
    1981; whole patients are left out because their notes resemble one another.
    """
    patients = left_out.shape[-1]
    centred = left_out - left_out.mean(-1, keepdims=True)
    return centred @ centred.T * (patients - 1) / patients


def auroc(sample: Sample) -> Values:
    """Return the AUROC of class 1 of two, otherwise the mean over classes against the rest."""
    ranked = [
        _one_auroc(sample.labels == k, sample.probability[..., k], sample.patients)
        for k in _ranked(sample)
    ]
    return _mean(ranked)


def _one_auroc(positive: NDArray[np.bool_], scores: Array, patients: Whole) -> Values:
    """Return the AUROC without each patient, from the pairs of notes that the patient takes away.

    The pairs won, S, lose those of the patient's positives (negatives x V10) and negatives
    (positives x V01); a pair of two notes of the patient has been taken away twice.
    """
    v10, v01 = components(positive, scores)
    positives, negatives = v10.shape[-1], v01.shape[-1]
    groups = patients.max() + 1
    of_x, of_y = patients[positive], patients[~positive]
    lost = _by_group(v10 * negatives, of_x, groups) + _by_group(v01 * positives, of_y, groups)
    first, second = _within(of_x, of_y)
    x, y = scores[:, positive][:, first], scores[:, ~positive][:, second]
    twice = _by_group((x > y) + 0.5 * (x == y), of_x[first], groups)
    pairs = positives - np.bincount(of_x, minlength=groups)
    pairs *= negatives - np.bincount(of_y, minlength=groups)
    won = v10.sum(-1, keepdims=True) * negatives
    return v10.mean(-1), _ratio(won - lost + twice, pairs)


def _within(of_x: Whole, of_y: Whole) -> tuple[Whole, Whole]:
    """Return all pairs (positive, negative) of notes of one patient, as two arrays of places."""
    order = np.argsort(of_y, kind="stable")
    start = np.searchsorted(of_y[order], of_x, "left")
    count = np.searchsorted(of_y[order], of_x, "right") - start
    first = np.repeat(np.arange(len(of_x)), count)
    step = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    return first, order[np.repeat(start, count) + step]


def _by_group(values: Array, groups: Whole, count: int) -> Array:
    """Sum [models, notes] by group: [models, groups]."""
    return np.stack([np.bincount(groups, weights=row, minlength=count) for row in values])


def auprc(sample: Sample) -> Values:
    """Return average precision, sum of (R_n - R_(n-1)) P_n, of class 1 or as a mean over classes.

    Precision is needed at every note for every patient left out; notes are sorted once.
    """
    ranked = []
    for k in _ranked(sample):
        positive = (sample.labels == k).astype(float)
        found = [
            _average_precision(positive, scores, sample.patients)
            for scores in sample.probability[..., k]
        ]
        ranked.append((np.array([a for a, _ in found]), np.stack([b for _, b in found])))
    return _mean(ranked)


def _average_precision(positive: Array, scores: Array, patients: Whole) -> tuple[float, Array]:
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)  # of equal scores
    positive, patients = positive[order], patients[order]

    def value(kept: Array) -> Array:  # [..., notes]
        hits = np.cumsum(kept * positive, -1)[..., ends]
        above = np.cumsum(kept, -1)[..., ends]
        new = np.diff(hits, axis=-1, prepend=0.0)
        return _ratio((new * _ratio(hits, above, 0.0)).sum(-1), hits[..., -1])

    groups = patients.max() + 1
    blocks = np.array_split(np.arange(groups), groups * len(order) // 2_000_000 + 1)
    left_out = [value((patients != block[:, None]).astype(float)) for block in blocks]
    return float(value(np.ones(len(order)))), np.concatenate(left_out)


def loss(sample: Sample) -> Values:
    """Return the mean cross-entropy."""
    given = sample.probability[:, np.arange(len(sample.labels)), sample.labels]
    return _note_mean(sample, -np.log(np.maximum(given, 1e-12)))


def brier(sample: Sample) -> Values:
    """Return the mean squared error of class 1 of two, otherwise summed over classes."""
    classes = sample.probability.shape[-1]
    error = ((sample.probability - np.eye(classes)[sample.labels]) ** 2).sum(-1)
    return _note_mean(sample, error / (2 if classes == 2 else 1))


def accuracy(sample: Sample) -> Values:
    """Return the share of notes whose class is predicted."""
    return _note_mean(sample, (_predicted(sample) == sample.labels).astype(float))


def ece(sample: Sample) -> Values:
    """Return the expected calibration error: sum over bins of |right - confidence| / notes."""
    confidence = sample.probability.max(-1)
    gap = (sample.probability.argmax(-1) == sample.labels) - confidence
    index = np.minimum((confidence * _ECE_BINS).astype(int), _ECE_BINS - 1)
    gaps = sample.sums(gap[..., None] * np.eye(_ECE_BINS)[index])
    whole, left_out = (np.abs(part).sum(-1) for part in gaps)
    notes, fewer = sample.sums(np.ones(gap.shape))
    return _ratio(whole, notes), _ratio(left_out, fewer)


def f1(sample: Sample) -> Values:
    """Return F1 of class 1 of two, otherwise its mean over classes."""
    return _of_counts(sample, lambda hits, called, true: (2 * hits, called + true))


def precision(sample: Sample) -> Values:
    """Return precision of class 1 of two, otherwise its mean over classes."""
    return _of_counts(sample, lambda hits, called, _: (hits, called))


def recall(sample: Sample) -> Values:
    """Return recall of class 1 of two, otherwise its mean over classes."""
    return _of_counts(sample, lambda hits, _, true: (hits, true))


MEASURES: dict[str, Callable[[Sample], Values]] = {
    "auroc": auroc,
    "auprc": auprc,
    "loss": loss,
    "brier": brier,
    "accuracy": accuracy,
    "ece": ece,
    "f1": f1,
    "precision": precision,
    "recall": recall,
}
"""The ledger's measures that predictions are enough for."""


def _ranked(sample: Sample) -> list[int]:
    """Return the classes that are ranked: those that some notes have and others have not."""
    if sample.probability.shape[-1] == 2:
        return [1]
    return [int(k) for k in np.unique(sample.labels) if (sample.labels != k).any()]


def _mean(values: list[Values]) -> Values:
    whole, left_out = zip(*values)
    return np.mean(whole, axis=0), np.mean(left_out, axis=0)


def _note_mean(sample: Sample, values: Array) -> Values:
    total, left_out = sample.sums(values)
    notes, fewer = sample.sums(np.ones(values.shape))
    return _ratio(total, notes), _ratio(left_out, fewer)


def _predicted(sample: Sample) -> Whole:
    if sample.probability.shape[-1] == 2:
        return (sample.probability[..., 1] >= sample.thresholds[:, None]).astype(np.int64)
    return sample.probability.argmax(-1)


def _of_counts(
    sample: Sample, terms: Callable[[Array, Array, Array], tuple[Array, Array]]
) -> Values:
    """Return a ratio of hits, notes called so and notes that are so, by class, 0 / 0 being 0."""
    classes = sample.probability.shape[-1]
    called, true = np.eye(classes)[_predicted(sample)], np.eye(classes)[sample.labels]
    counts = np.stack([called * true, called, np.broadcast_to(true, called.shape)])
    values = []
    for hits, calls, are in zip(*(sample.sums(count) for count in counts)):
        by_class = _ratio(*terms(hits, calls, are), 0.0)
        values.append(by_class)
    return _over_classes(sample, counts, values)


def _over_classes(sample: Sample, counts: Array, values: list[Array]) -> Values:
    if sample.probability.shape[-1] == 2:
        return values[0][..., 1], values[1][..., 1]
    # Classes that a model neither calls nor meets do not count, as in scikit-learn.
    met = (counts[1:].sum((0, 2)) > 0).astype(float)  # [models, classes]
    whole = (values[0] * met).sum(-1) / met.sum(-1)
    return whole, (values[1] * met[:, None]).sum(-1) / met.sum(-1)[:, None]


def _ratio(above: Array, below: Array, otherwise: float = np.nan) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(below > 0, above / below, otherwise)
