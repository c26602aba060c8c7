"""The first epoch at which early stopping may compare trials, chosen from whole learning curves.

Stopping a trial early is right where the epochs until then say how it will end. In small studies of
ours the ranks at epoch 3 of 10 said nothing (correlation .04 with the end), so the first rung is
looked up in curves that nobody has stopped.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CURVES = 8
"""Whole curves, over all methods, from which the first rung is chosen. The choice is made once:
what is whole later has survived the stopping, and would make epochs look better than they are."""
CORRELATION = 0.7
"""Rank correlation with the end from which an epoch is taken to say how a trial ends."""


@dataclass(frozen=True)
class FirstRung:
    """The choice."""

    epoch: int
    """No trial is stopped before it; 0: no epoch says how a trial ends, and none is stopped."""
    correlation: float
    """Rank correlation of this epoch with the end; of the best one where no epoch was chosen."""
    curves: int
    """Whole curves that were looked at."""

    def __str__(self) -> str:
        """Return the choice as a sentence."""
        if self.epoch:
            return (
                f"first rung: epoch {self.epoch}, whose ranks correlate by {self.correlation:.2f} "
                f"with the end in {self.curves} whole curves"
            )
        return (
            f"no early stopping: no epoch's ranks correlate by {CORRELATION} with the end in "
            f"{self.curves} whole curves (at best by {self.correlation:.2f})"
        )


def first_rung(
    curves: Mapping[str, Sequence[Sequence[float]]], threshold: float = CORRELATION
) -> FirstRung:
    """Return the earliest epoch whose best scores so far rank trials as their ends do.

    With b[i, e] the best score of curve i up to epoch e, it is the first e before the last epoch E
    for which Spearman's correlation of b[., e] and b[., E] is at least the threshold. Ranks are
    taken within each method and centred there, because trials are compared with those of their own
    method; where methods differ, all epochs would seem to predict the end. For one method this is
    Spearman's coefficient, with mean ranks for ties.

    Args:
        curves: method -> whole curves, each the scores after every epoch, more is better. One that
            ended by its own patience keeps its best from there on.
        threshold: of the correlation.
    """
    count = sum(map(len, curves.values()))
    last = max((len(curve) for group in curves.values() for curve in group), default=0)
    groups = [_best_so_far(group, last) for group in curves.values() if group]
    found = {epoch: _correlation(groups, epoch) for epoch in range(1, last)}
    chosen = next((e for e, correlation in found.items() if correlation >= threshold), 0)
    if chosen:
        return FirstRung(chosen, found[chosen], count)
    return FirstRung(0, max(found.values(), default=0.0), count)


def _best_so_far(curves: Sequence[Sequence[float]], last: int) -> NDArray[np.float64]:
    """Return the best score up to each epoch, [curves, last]; minus infinity before any."""
    scores = np.full((len(curves), last), -np.inf)
    for row, curve in zip(scores, curves):
        row[: len(curve)] = [score if math.isfinite(score) else -math.inf for score in curve]
    best: NDArray[np.float64] = np.maximum.accumulate(scores, axis=1)
    return best


def _correlation(groups: Sequence[NDArray[np.float64]], epoch: int) -> float:
    """Return the correlation of an epoch's ranks with the last one's; 0 where all are equal."""
    now = np.concatenate([_centred_ranks(best[:, epoch - 1]) for best in groups])
    end = np.concatenate([_centred_ranks(best[:, -1]) for best in groups])
    scale = math.sqrt(float(now @ now) * float(end @ end))
    return float(now @ end) / scale if scale else 0.0


def _centred_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ranks less their mean, [values]; equal values share the mean of their ranks."""
    below = (values[:, None] > values).sum(1) + 0.5 * (values[:, None] == values).sum(1)
    ranks: NDArray[np.float64] = below - len(values) / 2
    return ranks
