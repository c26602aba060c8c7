"""Intervals of differences between arms hold for other seeds and other notes."""

import numpy as np
import pytest
from scipy.special import stdtrit

from analysis.delong import Array, auroc
from analysis.obuchowski_rockette import compare_arms

NOTES, SEEDS = 800, 8


def study(random: np.random.Generator, skill: float = 0.06) -> tuple[Array, Array]:
    """Return AUROC and covariance of two arms of equal truth, [2, seeds] and twice [2, seeds]."""
    labels = np.arange(NOTES) < NOTES // 2
    scores = (1.35 + skill * random.normal(size=(2, SEEDS, 1))) * labels
    scores = scores + random.normal(size=NOTES) + 0.55 * random.normal(size=(2, 1, NOTES))
    scores = scores + 0.25 * random.normal(size=(2, SEEDS, NOTES))
    values, covariance = auroc(labels, scores.reshape(-1, NOTES))
    return values.reshape(2, SEEDS), covariance.reshape(2, SEEDS, 2, SEEDS)


def case_error(covariance: Array) -> float:
    """Return the standard error that a difference of means keeps with any number of seeds."""
    a, b = covariance[0, 0, 0, 1], covariance[1, 0, 1, 1]
    return float(max(a + b - 2 * covariance[0, 0, 1, 1], 0) ** 0.5)


@pytest.mark.slow
def test_the_interval_covers_the_truth_where_one_over_seeds_does_not() -> None:
    """Measured at 250 studies, nominal .95: .952; Student's t over the seeds: .704."""
    random = np.random.default_rng(11)
    covered, narrow, spread, errors = [], [], [], []
    for _ in range(250):
        values, covariance = study(random)
        found = compare_arms(values, covariance)
        covered.append(found.low[0, 1] < 0 < found.high[0, 1])
        d = values[0] - values[1]
        half = stdtrit(SEEDS - 1, 0.975) * d.std(ddof=1) / SEEDS**0.5
        narrow.append(abs(d.mean()) < half)
        spread.append(values.std(1, ddof=1).mean())
        errors.append(case_error(covariance))
    assert np.mean(spread) == pytest.approx(0.010, abs=0.002)
    assert np.mean(errors) == pytest.approx(0.011, abs=0.001)
    assert 0.92 < np.mean(covered) < 0.98
    assert np.mean(narrow) < 0.75


def test_seeds_that_predict_alike_leave_delongs_test() -> None:
    values, covariance = study(np.random.default_rng(2))
    values = np.repeat(values[:, :1], SEEDS, axis=1)
    one = covariance[:, :1, :, :1]
    found = compare_arms(values, np.broadcast_to(one, covariance.shape))
    variance = one[0, 0, 0, 0] + one[1, 0, 1, 0] - 2 * one[0, 0, 1, 0]
    assert found.standard_error[0, 1] == pytest.approx(variance**0.5)
    assert np.isinf(found.df[0, 1])
    half = 1.959964 * variance**0.5
    assert found.high[0, 1] - found.difference[0, 1] == pytest.approx(half)


def test_without_a_part_of_the_notes_it_is_students_t() -> None:
    values, covariance = study(np.random.default_rng(3))
    found = compare_arms(values, np.zeros_like(covariance))
    d = values[0] - values[1]
    assert found.standard_error[0, 1] == pytest.approx(d.std(ddof=1) / SEEDS**0.5)
    assert found.df[0, 1] == pytest.approx(SEEDS - 1)


def test_pooled_it_is_the_published_formula() -> None:
    random = np.random.default_rng(4)
    arms, seeds = 3, 5
    values = random.normal(size=(arms, seeds))
    root = random.normal(size=(arms * seeds, 40))
    covariance = (root @ root.T / 40).reshape(arms, seeds, arms, seeds) + 0.1
    found = compare_arms(values, covariance, pooled=True)
    residual = values - values.mean(1, keepdims=True) - values.mean(0) + values.mean()
    ms = (residual**2).sum() / ((arms - 1) * (seeds - 1))
    other = ~np.eye(seeds, dtype=bool)
    cov2 = np.mean([covariance[a, :, a][other] for a in range(arms)])
    cov3 = np.mean([covariance[a, :, b][other] for a in range(arms) for b in range(arms) if a != b])
    den = ms + max(seeds * (cov2 - cov3), 0)
    assert found.standard_error[0, 1] == pytest.approx((2 * den / seeds) ** 0.5)
    assert found.df[0, 1] == pytest.approx(den**2 / (ms**2 / ((arms - 1) * (seeds - 1))))


def test_an_arm_that_spreads_widens_no_other_arms_interval() -> None:
    values, covariance = study(np.random.default_rng(5))
    wild = np.linspace(0.5, 0.8, SEEDS)
    both = np.concatenate([values, wild[None]])
    wider = np.zeros((3, SEEDS, 3, SEEDS))
    wider[:2, :, :2] = covariance
    alone, beside = compare_arms(values, covariance), compare_arms(both, wider)
    assert beside.standard_error[0, 1] == pytest.approx(alone.standard_error[0, 1])
    assert compare_arms(both, wider, pooled=True).standard_error[0, 1] > alone.standard_error[0, 1]


def test_one_seed_has_a_difference_and_no_interval() -> None:
    values, covariance = study(np.random.default_rng(6))
    found = compare_arms(values[:, :1], covariance[:, :1, :, :1])
    assert np.isfinite(found.difference).all()
    assert np.isnan([found.low, found.p]).all()
