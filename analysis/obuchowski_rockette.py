"""Differences between arms, where both the seeds and the notes of the test set are a sample.

An interval over seeds alone says what other seeds would have given on *these* notes. Two arms
differ on other notes, too, by what all their seeds have in common; the analysis of Obuchowski and
Rockette, made for readers (here: seeds) who read the same cases under several modalities (arms),
adds that part.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Differences(NamedTuple):
    """Differences of all pairs of arms, each [arms, arms]: the first minus the second."""

    difference: Array
    standard_error: Array
    df: Array
    """Degrees of freedom; infinite where seeds do not differ."""
    low: Array
    high: Array
    p: Array
    """Two-sided."""


def compare_arms(
    values: Array, covariance: Array, pooled: bool = False, level: float = 0.95
) -> Differences:
    """Compare arms that were trained with the same seeds and measured on the same notes.

    For I arms and J seeds, arms fixed, seeds and notes random:

        den = MS(arm x seed) + max(J (Cov2 - Cov3), 0)
        df = den^2 / (MS(arm x seed)^2 / ((I - 1) (J - 1)))
        difference of two arms' means +- t(df) sqrt(2 den / J)

    Cov2 is the covariance of one arm's measure with different seeds, Cov3 that of different arms
    with different seeds, over test sets. Each pair of arms is an analysis of its own (I = 2), in
    which MS is half the variance over seeds of the difference: arms spread differently, and one
    with a few stuck runs would widen, or one of calm runs narrow, the intervals of all the others.

    Obuchowski & Rockette, Communications in Statistics 24 (1995) 285; df: Hillis, Statistics in
    Medicine 26 (2007) 596; Hillis, Statistics in Medicine 33 (2014) 330.

    Args:
        values: the measure, [arms, seeds].
        covariance: of the measures over test sets, [arms, seeds, arms, seeds].
        pooled: estimate den once, from all arms.
        level: of the intervals.

    Returns:
        Everything but the difference is missing where there are fewer than two seeds.
    """
    arms, seeds = values.shape
    differences = values[:, None] - values[None]  # [arms, arms, seeds]
    mean = differences.mean(-1)
    if seeds < 2:
        nothing = np.full((arms, arms), np.nan)
        return Differences(mean, nothing, nothing, nothing, nothing, nothing)
    from scipy.special import stdtr, stdtrit

    ms = differences.var(-1, ddof=1) / 2
    same_seed = np.einsum("ajbj->ab", covariance)
    between = (covariance.sum((1, 3)) - same_seed) / (seeds * (seeds - 1))  # Cov2; off it, Cov3
    own = np.diag(between)
    of_cases = (own[:, None] + own[None]) / 2 - between
    freedom = seeds - 1
    if pooled:
        pairs = ~np.eye(arms, dtype=bool)
        ms, of_cases = (np.where(pairs, part[pairs].mean(), 0.0) for part in (ms, of_cases))
        freedom *= arms - 1
    den = ms + seeds * np.maximum(of_cases, 0)
    error = np.sqrt(2 * den / seeds)
    with np.errstate(divide="ignore", invalid="ignore"):
        df = np.where(ms > 0, den**2 / (ms**2 / freedom), np.inf)
        p = 2 * stdtr(df, -np.abs(mean) / error)  # no spread at all: 0 / 0, nothing can be said
    half = stdtrit(df, (1 + level) / 2) * error
    return Differences(mean, error, df, mean - half, mean + half, p)
