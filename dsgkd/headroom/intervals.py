"""Intervals of what cross-validation has measured."""

from typing import NamedTuple

import numpy as np
from scipy.stats import t

from dsgkd.data.ragged import Array


class Interval(NamedTuple):
    """A value, and between what it lies."""

    value: float
    low: float
    high: float

    @property
    def is_defined(self) -> bool:
        """Whether there was anything to measure."""
        return bool(np.isfinite(self.value))


UNDEFINED = Interval(float("nan"), float("nan"), float("nan"))


def corrected(values: Array, folds: int, confidence: float) -> Interval:
    """Return the mean over folds, with the corrected resampled t interval.

    Folds of one cross-validation learn from the same notes, and repeats predict the same ones, so
    their variance s^2 is too small by far for a mean of J. With n_test / n_train = 1 / (folds - 1):

        se^2 = (1 / J + n_test / n_train) s^2,   df = J - 1

    (Nadeau and Bengio, Machine Learning 52, 2003, eq. 12; over repeated cross-validation Bouckaert
    and Frank, PAKDD 2004.) With fewer training notes than that (a learning curve) the folds'
    training sets overlap less, and the same correction is cautious.

    Args:
        values: [J], one a fold, of all repeats; NaN where a fold has nothing to measure.
        folds: of one repeat.
        confidence: such as .95.
    """
    mean, error, freedom = _error(values, folds)
    return _interval(mean, error, freedom, confidence)


def beyond(values: Array, draws: Array, folds: int, confidence: float) -> Interval:
    """Return how far values lie above those of random draws, on average.

    Each of M draws (of random weights) has a gain of its own, by luck; a teacher that knows nothing
    would be one draw more. So the variance of a further draw around the mean of M joins that of
    the corrected t interval, with Satterthwaite's degrees of freedom:

        se^2 = se_folds^2 + (1 + 1/M) s_draws^2

    Args:
        values: [J], one a fold.
        draws: [M, J], of the same folds.
        folds: of one repeat.
        confidence: such as .95.
    """
    mean, error, freedom = _error(values - draws.mean(0), folds)
    if len(draws) > 1 and np.isfinite(error):
        between = (1 + 1 / len(draws)) * float(np.nanmean(draws, axis=1).var(ddof=1))
        total = error**2 + between
        if total > 0:
            freedom = total**2 / (error**4 / freedom + between**2 / (len(draws) - 1))
        error = float(np.sqrt(total))
    return _interval(mean, error, freedom, confidence)


def _error(values: Array, folds: int) -> tuple[float, float, float]:
    """Return mean, standard error and degrees of freedom."""
    known = values[np.isfinite(values)]
    if len(known) < max(2, len(values) / 2):
        return float("nan"), float("nan"), 1.0
    variance = (1 / len(known) + 1 / (folds - 1)) * known.var(ddof=1)
    return float(known.mean()), float(np.sqrt(variance)), len(known) - 1.0


def _interval(mean: float, error: float, freedom: float, confidence: float) -> Interval:
    if not np.isfinite(error):
        return UNDEFINED
    reach = float(t.ppf((1 + confidence) / 2, freedom)) * error
    return Interval(mean, mean - reach, mean + reach)
