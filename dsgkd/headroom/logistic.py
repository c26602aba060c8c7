"""Penalised logistic regressions, many at once: of several subsets, penalties and problems.

scikit-learn's takes milliseconds for a regression however small it is; a headroom needs
thousands. Here all regressions on one block of features are columns of the same matrix products.
"""

from typing import Any, NamedTuple

import numpy as np
from scipy.special import expit

from dsgkd.data.ragged import Array

MOST_STEPS, TOLERANCE = 100, 5e-3
_SMALLEST = 1e-10  # share of the largest squared singular value below which there is only rounding


class Rotated(NamedTuple):
    """Features of training and test notes, turned to their principal axes.

    The axes are those of the training notes, whose mean is zero and mean squared norm one. To turn
    changes nothing for a penalty on the squared norm of the weights.
    """

    train: Array
    """[train, axes]; columns are orthogonal to each other and to the constant."""
    test: Array
    """[test, axes]."""


def rotated(train: Any, test: Any, most: int | None = None) -> Rotated:
    """Turn features, dense or sparse, to at most `most` principal axes; None: to all."""
    mean = np.asarray(train.mean(axis=0)).ravel()
    if train.shape[1] <= train.shape[0]:
        train, test = (_dense(side) - mean for side in (train, test))
        squares, axes = np.linalg.eigh(train.T @ train)
        kept = _largest(squares, most)
        train, test = train @ axes[:, kept], test @ axes[:, kept]
    else:  # by inner products: the features may be very many
        inner, cross = _dense(train @ train.T), _dense(test @ train.T)
        level, offset = inner.mean(0), inner.mean()
        cross = cross - cross.mean(1, keepdims=True) - level + offset
        inner = inner - level[:, None] - level + offset
        squares, axes = np.linalg.eigh(inner)
        kept = _largest(squares, most)
        roots = np.sqrt(squares[kept])
        train, test = axes[:, kept] * roots, cross @ axes[:, kept] / roots
    norm = np.sqrt(max((train**2).sum() / len(train), 1e-12))
    return Rotated(train / norm, test / norm)


def fit(features: Array, truth: Array, subsets: Array, penalties: Array) -> Array:
    """Fit a logistic regression for every subset, penalty and problem.

    Each minimises, over weights w and an intercept that is not penalised,

        sum over its notes of log(1 + exp(-y z)) + |w|^2 / (2 C),   z = x w + b,   y = +-1

    by accelerated steps with a fixed bound of the curvature, X'X / 4 (Boehning and Lindsay, Annals
    of the Institute of Statistical Mathematics 40, 1988), which is diagonal in principal axes;
    momentum restarts where it leads uphill (O'Donoghue and Candes, arXiv 1204.3982).

    Args:
        features: [notes, axes], as `Rotated.train`.
        truth: [notes, problems] bool.
        subsets: [subsets, notes] bool, the notes that are learnt from.
        penalties: [penalties], C.

    Returns:
        [axes + 1, subsets, penalties, problems]: weights, then the intercept.
    """
    notes, axes = features.shape
    shape = (len(subsets), len(penalties), truth.shape[1])
    columns = int(np.prod(shape))

    def spread(array: Array) -> Array:
        """Lay [notes, subsets or 1, 1, problems or 1] out as [notes, columns]."""
        return np.broadcast_to(array, (notes, *shape)).reshape(notes, columns)

    known = spread(subsets.T[:, :, None, None]).astype(np.float64)
    target = spread(truth[:, None, None, :]) * known
    strength = np.broadcast_to((1 / penalties)[None, :, None], shape).reshape(columns)
    curvature = np.vstack(
        [((features**2).sum(0) / 4)[:, None] + strength, known.sum(0)[None] / 4 + 1e-12]
    )  # [axes + 1, columns]
    decay = np.vstack([np.broadcast_to(strength, (axes, columns)), np.zeros((1, columns))])
    weights, momentum = np.zeros((axes + 1, columns)), np.ones(columns)
    design = np.column_stack([features, np.ones(notes)])
    share = target.sum(0) / known.sum(0).clip(1)
    weights[-1] = np.log(share.clip(1e-3, 1 - 1e-3) / (1 - share).clip(1e-3, 1 - 1e-3))
    before = weights
    for _ in range(MOST_STEPS):
        further = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        ahead = weights + (momentum - 1) / further * (weights - before)
        error = expit(design @ ahead) * known - target
        slope = design.T @ error + decay * ahead
        step = slope / curvature
        before, weights = weights, ahead - step
        uphill = (slope * (weights - before)).sum(0) > 0
        momentum = np.where(uphill, 1.0, further)
        # What a step would still change of the logits, at most.
        if np.abs(design @ (weights - before)).max() < TOLERANCE:
            break
    return weights.reshape(axes + 1, *shape)


def fit_stack(features: Array, truth: Array, penalty: float = 1.0) -> Array:
    """Fit one logistic regression without negative weights: [features + 1], the intercept last.

    Newton's method; as long as some weight is negative, the most negative one is set to zero and
    the others are fitted again. A stack whose weights may be negative bets against probes that know
    nothing, and loses; without, it takes no notice of them (Breiman, Machine Learning 24, 1996).

    Args:
        features: [notes, features], few.
        truth: [notes] bool.
        penalty: C, as in `fit`.
    """
    kept = list(range(features.shape[1]))
    while True:
        weights = _newton(features[:, kept], truth, penalty)
        if not kept or weights[:-1].min() >= 0:
            break
        del kept[int(weights[:-1].argmin())]
    result = np.zeros(features.shape[1] + 1)
    result[[*kept, -1]] = weights
    return result


def _newton(features: Array, truth: Array, penalty: float) -> Array:
    design = np.column_stack([features, np.ones(len(features))])
    decay = np.append(np.full(features.shape[1], 1 / penalty), 1e-6)
    weights = np.zeros(design.shape[1])
    for _ in range(50):
        probability = expit(design @ weights)
        slope = design.T @ (probability - truth) + decay * weights
        curvature = (design.T * (probability * (1 - probability))) @ design + np.diag(decay)
        step = np.linalg.solve(curvature, slope)
        weights = weights - step
        if np.abs(step).max() < 1e-6:
            break
    return weights


def logits(features: Array, weights: Array) -> Array:
    """Return x w + b: [notes, ...] of features [notes, axes] and weights [axes + 1, ...]."""
    return np.tensordot(features, weights[:-1], 1) + weights[-1]


def _dense(matrix: Any) -> Array:
    return np.asarray(matrix.todense() if hasattr(matrix, "todense") else matrix, np.float64)


def _largest(squares: Array, most: int | None) -> Array:
    """Return the positions of the largest squared singular values, without what is rounding."""
    order = np.argsort(-squares)
    order = order[squares[order] > _SMALLEST * max(float(squares.max(initial=0)), 1e-300)]
    return order if most is None else order[:most]
