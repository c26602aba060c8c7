"""AUROC with DeLong's components: how much of it each positive and each negative note carries."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def midranks(values: Array) -> Array:
    """Return the ranks from 1 on along the last axis; equal values share the mean of theirs."""
    order = np.argsort(values, axis=-1, kind="stable")
    ordered = np.take_along_axis(values, order, axis=-1)
    places = np.broadcast_to(np.arange(values.shape[-1], dtype=float), values.shape)
    new = np.ones(values.shape, bool)
    new[..., 1:] = ordered[..., 1:] != ordered[..., :-1]
    last = np.ones(values.shape, bool)
    last[..., :-1] = new[..., 1:]
    first = np.maximum.accumulate(np.where(new, places, -np.inf), axis=-1)
    end = np.where(last, places, np.inf)[..., ::-1]
    ends = np.minimum.accumulate(end, axis=-1)[..., ::-1]
    ranks = np.empty(values.shape)
    np.put_along_axis(ranks, order, (first + ends) / 2 + 1, axis=-1)
    return ranks


def components(positive: NDArray[np.bool_], scores: Array) -> tuple[Array, Array]:
    """Return DeLong's structural components; the mean of either is the AUROC.

    V10(i) is the share of negatives that positive i is above, V01(j) the share of positives above
    negative j; ties count half. With midranks T among all, T_X among positives and T_Y among
    negatives, V10 = (T - T_X) / negatives and V01 = 1 - (T - T_Y) / positives.

    DeLong, DeLong & Clarke-Pearson, Biometrics 1988; midranks: Sun & Xu, IEEE SPL 2014.

    Args:
        positive: [notes].
        scores: [..., notes], of any number of models.

    Returns:
        V10 [..., positives] and V01 [..., negatives].
    """
    x, y = scores[..., positive], scores[..., ~positive]
    pooled = midranks(np.concatenate([x, y], axis=-1))
    count = x.shape[-1]
    v10 = (pooled[..., :count] - midranks(x)) / y.shape[-1]
    v01 = 1 - (pooled[..., count:] - midranks(y)) / count
    return v10, v01


def auroc(positive: NDArray[np.bool_], scores: Array) -> tuple[Array, Array]:
    """Return the AUROC of models on the same notes, and their covariance over test sets.

    Covariance = S10 / positives + S01 / negatives, where S10 and S01 are those of the components.

    Args:
        positive: [notes].
        scores: [models, notes].

    Returns:
        AUROC [models] and covariance [models, models].
    """
    v10, v01 = components(positive, scores)
    covariance = _covariance(v10) / v10.shape[-1] + _covariance(v01) / v01.shape[-1]
    return v10.mean(-1), covariance


def _covariance(values: Array) -> Array:
    centred = values - values.mean(-1, keepdims=True)
    return centred @ centred.T / (values.shape[-1] - 1)
