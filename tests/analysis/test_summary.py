"""The best configurations, the comparison and the paired differences are the right ones."""

from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from small_study import LEVEL, SEEDS, START, World

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


def test_objective_and_directions_are_the_studies_own(tmp_path: Path) -> None:
    World(tmp_path, "a", objective="f1")
    World(tmp_path, "b", objective="wer", measures={"wer": "minimise"})
    results = analysis.load(tmp_path)
    assert (results.objective("a"), results.objective("b")) == ("f1", "wer")
    assert next(iter(results.measures("a"))) == "f1"
    assert summary.is_minimised(results, "b")
    assert not summary.is_minimised(results, "a")
    assert summary.is_minimised(results, "a", "brier")
    assert not summary.is_minimised(results, "a", "wer")


def test_validation_is_measured_at_the_best_epoch_and_not_at_the_last(world: World) -> None:
    world.trial("plain", "confirm", 0.8, best_epoch=1)
    world.test()
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
        "metrics",
        [{**key, "epoch": 4, "split": "validation", "measures": {"auroc": 0.5}}],
        "second-attempt",
    )
    assert analysis.confirmed(world.results()).validation_auroc.tolist() == pytest.approx([0.8])


@pytest.mark.parametrize("second", ["complete", "preempted", "running"])
def test_a_test_split_that_is_read_again_counts_with_its_first_reading(
    world: World, second: str
) -> None:
    world.trial("plain", "confirm", 0.8, seed=1)
    world.test()
    world.trial("plain", "confirm", 0.9, seed=2)
    world.test(second, START + timedelta(days=2), again=True, change=-0.5)
    runs = analysis.confirmed(world.results())
    assert runs.seed.tolist() == [1, 2]
    read = [0.79, 0.4] if second == "complete" else [0.79, np.nan]
    assert runs.test_auroc.tolist() == pytest.approx(read, nan_ok=True)


def test_a_reading_of_the_test_split_joins_the_run_whose_weights_it_used(world: World) -> None:
    for seed in (1, 2, 3):
        world.trial("plain", "confirm", 0.8 + seed / 100, seed=seed)
    world.test()
    runs = analysis.confirmed(world.results())
    assert runs.validation_auroc.tolist() == pytest.approx([0.81, 0.82, 0.83])
    assert runs.test_auroc.tolist() == pytest.approx([0.80, 0.81, 0.82])
    assert runs.trial_id.tolist() == ["run-001", "run-002", "run-003"]


def test_of_several_confirmed_configurations_validation_chooses(world: World) -> None:
    for seed in (1, 2):
        world.trial("mlkd", "confirm", 0.80, configuration=3, seed=seed)
        # As good a configuration as any, but for a value that has no column of its own.
        world.trial("mlkd", "confirm", 0.85, configuration=7, seed=seed)
    world.test()
    found = analysis.confirmed(world.results())
    assert found.validation_auroc.tolist() == pytest.approx([0.85, 0.85])
    assert found.test_auroc.tolist() == pytest.approx([0.84, 0.84])
    assert analysis.compare(world.results()).seeds.tolist() == [2]


def test_what_the_test_split_says_chooses_nothing(world: World) -> None:
    for seed in (1, 2):
        world.trial("mlkd", "confirm", 0.85, configuration=1, seed=seed)
    world.test(change=-0.5)
    for seed in (1, 2):
        world.trial("mlkd", "confirm", 0.80, configuration=2, seed=seed)
    world.test(begun=START + timedelta(days=2), change=+0.1)
    assert analysis.compare(world.results()).test_auroc_mean.tolist() == pytest.approx([0.35])


def test_the_study_says_which_arms_are_controls(world: World) -> None:
    levels = {"plain": 0.8, "mlkd": 0.83, "shuffled-words": 0.81, "a-new-one": 0.82}
    world.confirm(levels=levels)
    results = world.results()
    assert analysis.compare(results).method.tolist() == [
        "plain",
        "mlkd",
        "a-new-one",
        "shuffled-words",
    ]
    found = analysis.differences(results)
    assert list(zip(found.method, found.against)) == [
        ("mlkd", "plain"),
        ("a-new-one", "plain"),
        ("shuffled-words", "plain"),
        ("mlkd", "a-new-one"),
        ("mlkd", "shuffled-words"),
    ]
    assert found.role.tolist() == ["baseline"] * 3 + ["control"] * 2


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
