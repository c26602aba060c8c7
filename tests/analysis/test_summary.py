"""Are the best configurations, the comparison and the paired differences the right ones?"""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from small_study import LEVEL, SEEDS, World

import analysis
from analysis import summary


def test_best_is_the_best_complete_search_trial_of_each_method(study: World) -> None:
    study.trial("mlkd", "search", 0.99, "pruned", objective=0.99)
    study.trial("mlkd", "confirm", 0.99, seed=99)
    found = analysis.best(study.results()).set_index("method")
    assert found.index.tolist() == ["mlkd", "plain"]
    assert found.objective.tolist() == pytest.approx([LEVEL["mlkd"], LEVEL["plain"]])
    assert found.alpha["mlkd"] == 4.0
    assert found.encoder_lr["plain"] == pytest.approx(4e-4)


def test_best_is_the_smallest_where_smaller_is_better(tmp_path: Path) -> None:
    brier = World(tmp_path, "brier", objective="brier")
    for value in (0.3, 0.1, 0.2):
        brier.trial("plain", "search", value)
    assert analysis.best(brier.results()).objective.tolist() == [0.1]


def test_of_several_attempts_the_latest_counts(world: World) -> None:
    first = world.trial("plain", "search", 0.95)
    world.trial("plain", "search", 0.70)
    world.trial("plain", "search", 0.60, trial_id=first, attempt=1)
    assert analysis.best(world.results()).objective.tolist() == [0.70]


def test_the_objective_is_read_from_the_configuration(tmp_path: Path) -> None:
    assert summary.objective(World(tmp_path, "a", objective="f1").results()) == "f1"
    assert summary.objective(World(tmp_path, "b", objective="unheard of").results()) == "auroc"
    assert summary.objective(analysis.load(tmp_path), "a") == "f1"


def test_validation_is_measured_at_the_best_epoch_and_not_at_the_last(world: World) -> None:
    world.trial("plain", "confirm", 0.8, best_epoch=1)
    row = analysis.confirmed(world.results()).iloc[0]
    assert row.validation_auroc == pytest.approx(0.8 - 2 * 0.05)
    assert row.test_auroc == pytest.approx(0.79)


def test_the_best_epoch_may_lie_in_an_earlier_attempt(world: World) -> None:
    trial = world.trial("plain", "confirm", 0.8, "preempted", best_epoch=3)
    key = {"study_id": "first", "trial_id": trial, "attempt": 1}
    world.ledger.write(
        "trials",
        [{**key, "stage": "confirm", "state": "complete", "method": "plain", "best_epoch": 3}],
        "second-attempt",
    )
    world.ledger.write(
        "metrics", [{**key, "epoch": 4, "split": "validation", "auroc": 0.5}], "second-attempt"
    )
    assert analysis.confirmed(world.results()).validation_auroc.tolist() == pytest.approx([0.8])


def test_a_test_split_that_is_read_again_counts_with_its_first_reading(world: World) -> None:
    world.trial("plain", "confirm", 0.8)
    world.trial("plain", "test", 0.9)
    runs = analysis.confirmed(world.results())
    assert runs.test_auroc.tolist() == pytest.approx([0.79])


def test_a_reading_of_the_test_split_in_a_trial_of_its_own_joins_its_run(world: World) -> None:
    trial = world.trial("plain", "confirm", 0.8)
    key = {"study_id": "first", "trial_id": trial, "attempt": 0}
    world.ledger.write(
        "metrics", [{**key, "epoch": 3, "split": "validation", "auroc": 0.8}], f"{trial}-0"
    )
    world.trial("plain", "test", 0.77, best_epoch=None, objective=None)
    runs = analysis.confirmed(world.results())
    assert runs.validation_auroc.tolist() == [0.8]
    assert runs.test_auroc.tolist() == pytest.approx([0.76])


def test_of_several_confirmed_configurations_validation_chooses(world: World) -> None:
    for seed in (1, 2):
        world.trial("mlkd", "confirm", 0.80, seed=seed, alpha=1.0)
        better = world.trial("mlkd", "confirm", 0.85, seed=seed, alpha=2.0)
        key = {"study_id": "first", "trial_id": better, "attempt": 0, "epoch": 3}
        world.ledger.write(
            "metrics",
            [
                {**key, "split": "validation", "auroc": 0.85},
                {**key, "split": "test", "auroc": 0.10},
            ],
            f"{better}-0",
        )
    found = analysis.compare(world.results()).iloc[0]
    assert found.seeds == 2
    assert found.validation_auroc_mean == pytest.approx(0.85)
    assert found.test_auroc_mean == pytest.approx(0.10)


def test_compare_gives_mean_and_deviation_over_seeds_and_puts_the_control_last(
    study: World,
) -> None:
    results = study.results()
    found = analysis.compare(results, ("auroc", "brier")).set_index("method")
    assert found.index.tolist() == ["plain", "mlkd", "random-teacher"]
    trials = results.trials[(results.trials.method == "mlkd") & (results.trials.stage == "confirm")]
    values = trials.objective.to_numpy()
    assert found.seeds["mlkd"] == len(SEEDS)
    assert found.validation_auroc_mean["mlkd"] == pytest.approx(values.mean())
    assert found.validation_auroc_sd["mlkd"] == pytest.approx(values.std(ddof=1))
    assert found.test_brier_mean["mlkd"] == pytest.approx(1 - values.mean() + 0.01)


def test_a_failed_confirmation_run_is_not_compared(study: World) -> None:
    study.trial("mlkd", "confirm", 0.1, "failed", seed=99)
    found = analysis.compare(study.results()).set_index("method")
    assert found.seeds["mlkd"] == len(SEEDS)


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


def test_studies_are_not_mixed(study: World, tmp_path: Path) -> None:
    World(tmp_path, "second").confirm(seeds=(1, 2))
    results = analysis.load(tmp_path)
    assert analysis.compare(results).groupby("study_id").seeds.max().tolist() == [len(SEEDS), 2]
    assert analysis.differences(results).groupby("study_id").pairs.max().tolist() == [len(SEEDS), 2]


def test_a_study_without_trials_gives_empty_frames_with_columns(world: World) -> None:
    results = world.results()
    for frame in (
        analysis.best(results),
        analysis.confirmed(results),
        analysis.compare(results),
        analysis.differences(results),
    ):
        assert isinstance(frame, pd.DataFrame)
        assert frame.empty
        assert "method" in frame


def test_the_interval_covers_the_true_mean_as_often_as_it_says() -> None:
    random = np.random.default_rng(1)
    hits = 0
    for _ in range(400):
        low, high = summary.interval(pd.Series(random.normal(1.0, 1.0, size=3)))
        hits += low < 1.0 < high
    assert 0.92 < hits / 400 < 0.98
