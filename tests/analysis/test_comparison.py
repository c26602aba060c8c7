"""Differences are paired by seed, and their intervals cover seeds and notes where they can."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from small_study import SEEDS, World

import analysis
from analysis import delong, predicted
from analysis.comparison import holm, over_seeds
from analysis.obuchowski_rockette import compare_arms

ARMS = {"plain": 0.8, "mlkd": 1.4, "random-teacher": 0.9}


def test_an_arm_of_any_name_may_be_the_baseline(tmp_path: Path) -> None:
    world = World(tmp_path, controls=("plain",))
    row = world.ledger.rows("studies")[0]
    arms = {"tuned-alone": {"role": "baseline"}, "plain": {"role": "control"}}
    world.ledger.write("studies", [row | {"arms": arms}], "study")
    world.confirm(levels={"plain": 0.8, "mlkd": 0.83, "tuned-alone": 0.81})
    found = analysis.differences(world.results())
    assert list(zip(found.method, found.against)) == [
        ("mlkd", "tuned-alone"),
        ("plain", "tuned-alone"),
        ("mlkd", "plain"),
    ]


def test_differences_are_paired_by_seed(study: World) -> None:
    results = study.results()
    found = analysis.differences(results).set_index(["method", "against"])
    assert found.index.tolist() == [
        ("mlkd", "plain"),
        ("random-teacher", "plain"),
        ("mlkd", "random-teacher"),
    ]
    runs = analysis.confirmed(results).pivot_table("test_auroc", "seed", "method")
    test = stats.ttest_rel(runs["mlkd"], runs["random-teacher"])
    low, high = test.confidence_interval(0.95)
    row = found.loc[("mlkd", "random-teacher")]
    assert (row["low"], row["high"]) == pytest.approx((low, high))
    assert row["mean"] == pytest.approx((runs["mlkd"] - runs["random-teacher"]).mean())
    assert row["pairs"] == len(SEEDS)
    unpaired = stats.ttest_ind(runs["mlkd"], runs["random-teacher"]).confidence_interval(0.95)
    assert high - low < (unpaired.high - unpaired.low) / 2


def test_a_seed_without_partner_is_left_out(study: World) -> None:
    study.trial("mlkd", "confirm", 0.1, seed=99)
    found = analysis.differences(study.results()).set_index(["method", "against"])
    assert found.pairs[("mlkd", "plain")] == len(SEEDS)


def test_one_pair_has_no_interval(world: World) -> None:
    world.confirm(seeds=(1,))
    found = analysis.differences(world.results())
    assert found.pairs.tolist() == [1, 1, 1]
    assert found.low.isna().all()
    assert found["mean"].notna().all()


def test_validation_and_other_measures_can_be_compared_too(study: World) -> None:
    found = analysis.differences(study.results(), "brier", "validation", baseline="random-teacher")
    assert found.against.unique().tolist() == ["random-teacher"]
    assert found.set_index("method")["mean"]["mlkd"] < 0


def test_the_interval_covers_the_true_mean_as_often_as_it_says() -> None:
    random = np.random.default_rng(1)
    hits = 0
    for _ in range(400):
        low, high = over_seeds(pd.Series(random.normal(1.0, 1.0, size=3)))[2:4]
        hits += low < 1.0 < high
    assert 0.92 < hits / 400 < 0.98


def arms(world: World, per_patient: int = 1) -> pd.DataFrame:
    world.confirm_with_predictions(ARMS, per_patient=per_patient)
    return analysis.differences(world.results()).set_index(["method", "against"])


def test_with_predictions_intervals_cover_notes_too(world: World) -> None:
    found = arms(world)
    assert found.interval.tolist() == ["OR"] * 3
    assert found.notes.tolist() == found.patients.tolist() == [120] * 3
    rows = world.results().predictions
    labels = rows.drop_duplicates("example_id").sort_values("example_id").label.to_numpy()
    runs = analysis.confirmed(world.results()).set_index(["method", "seed"]).trial_id
    scores = [
        [row[1] for row in rows[rows.trial_id == f"reading-of-{runs[arm, seed]}"].probability]
        for arm in ("mlkd", "plain")
        for seed in SEEDS
    ]
    value, covariance = delong.auroc(labels == 1, np.array(scores, float))
    shape = (2, len(SEEDS))
    expected = compare_arms(value.reshape(shape), covariance.reshape(*shape, *shape))
    row = found.loc[("mlkd", "plain")]
    assert row["mean"] == pytest.approx(expected.difference[0, 1], abs=1e-6)
    for name in ("df", "low", "high", "p"):
        assert row[name] == pytest.approx(getattr(expected, name)[0, 1], abs=1e-6)
    over = over_seeds(pd.Series(value.reshape(shape)[0] - value.reshape(shape)[1]))
    assert row["error"] > over.error


def test_patients_with_several_notes_are_left_out_as_a_whole(world: World) -> None:
    found = arms(world, per_patient=4)
    assert found.patients.tolist() == [30] * 3
    assert found.interval.tolist() == ["OR"] * 3


def test_where_one_run_has_no_predictions_its_arm_has_intervals_over_seeds(world: World) -> None:
    world.confirm_with_predictions(ARMS)
    results = world.results()
    runs = analysis.confirmed(results)
    lost = runs[runs.method == "random-teacher"].trial_id.iloc[0]
    rows = results.predictions
    vars(results)["predictions"] = rows[rows.trial_id != f"reading-of-{lost}"]
    found = analysis.differences(results).set_index(["method", "against"])
    assert found.interval.to_dict() == {
        ("mlkd", "plain"): "OR",
        ("random-teacher", "plain"): "t",
        ("mlkd", "random-teacher"): "t",
    }
    assert found.notes.notna().tolist() == [True, False, False]


def test_what_predictions_do_not_say_is_compared_over_seeds(world: World) -> None:
    """The small study's Brier score is invented: it is another measure than the predictions'."""
    world.confirm_with_predictions(ARMS)
    results = world.results()
    assert (analysis.differences(results, "brier").interval == "t").all()
    assert (analysis.differences(results, split="validation").interval == "t").all()


def test_the_first_reading_of_the_test_split_counts_in_predictions_too(world: World) -> None:
    world.confirm_with_predictions(ARMS)
    first = analysis.differences(world.results())
    world.test(again=True, change=-0.1)
    row = world.ledger.rows("predictions")[0]
    again = row | {"attempt": world.readings, "probability": [1.0, 0.0]}
    world.ledger.write("predictions", [again], "again")
    pd.testing.assert_frame_equal(analysis.differences(world.results()), first)


def test_p_is_adjusted_for_the_comparisons_of_distillation_alone(world: World) -> None:
    found = arms(world)
    family = found.loc[[("mlkd", "plain"), ("mlkd", "random-teacher")]]
    assert family.p_holm.tolist() == pytest.approx(holm(family.p.to_numpy()).tolist())
    assert np.isnan(found.p_holm[("random-teacher", "plain")])


def test_holm_multiplies_by_how_many_are_left_and_never_falls() -> None:
    found = holm(np.array([0.01, 0.04, np.nan, 0.03, 0.9]))
    assert found == pytest.approx([0.04, 0.09, np.nan, 0.09, 0.9], nan_ok=True)


def test_a_subgroup_is_measured_on_its_own_notes(world: World) -> None:
    world.confirm_with_predictions(ARMS)
    results = world.results()
    found = analysis.by_subgroup(results, "ward")
    assert found.category.tolist() == ["a"] * 3 + ["b"] * 3
    assert found.notes.tolist() == [60] * 6
    assert (found.interval == "OR").all()
    rows = predicted.of_runs(results, "first", "test")
    run = analysis.confirmed(results).query("method == 'mlkd'").trial_id
    part = rows[rows.run.isin(run) & (rows.subgroup_ward == "b")]
    values = [
        delong.auroc(own.label.to_numpy(int) == 1, np.array([[p[1] for p in own.probability]]))[0]
        for _, own in part.groupby("run")
    ]
    row = found[(found.category == "b") & (found.method == "mlkd")].iloc[0]
    assert row.mean_method == pytest.approx(np.mean(values))


def test_a_ledger_without_the_subgroup_has_an_empty_frame(study: World) -> None:
    found = analysis.by_frequency(study.results())
    assert found.empty
    assert {"category", "mean_method", "low", "p_holm"} <= set(found)
