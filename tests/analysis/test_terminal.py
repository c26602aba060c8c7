"""Does the report fit a terminal, and does it claim no more than the numbers allow?"""

from pathlib import Path

import pandas as pd
import pytest
from small_study import World

import analysis
from analysis.terminal import WIDTH, verdict


def flat(text: str) -> str:
    return " ".join(text.split())


def test_the_report_shows_configurations_methods_differences_and_cost(study: World) -> None:
    report = flat(analysis.report(study.results()))
    assert "Study first" in report
    assert "mlkd 0.830 trial first-007" in report
    assert "alpha=4" in report
    assert "warm_up=0.25" in report
    assert "mlkd - random-teacher +0.02" in report
    assert "mlkd is better than plain on test auroc" in report
    assert "Its teacher beats the random teacher" in report
    assert "22 (20 complete, 1 pruned, 1 failed); worker time 11 min 0 s" in report


def test_every_line_fits_whatever_the_names(tmp_path: Path) -> None:
    world = World(tmp_path, "a-study-with-a-name-" + 8 * "of-many-words-")
    method = "a-method-with-a-long-name"
    for stage in ("search", "confirm"):
        world.trial(method, stage, 0.8, student="/a/path/" * 20, other={"x" * 60: "y" * 60})
    world.confirm()
    report = analysis.report(world.results())
    assert max(map(len, report.splitlines())) <= WIDTH
    assert method in report


def test_fewer_than_three_seeds_allow_no_claim(world: World) -> None:
    world.confirm(seeds=(1, 2), noise=0.0001)
    report = analysis.report(world.results())
    assert "No claim can be made about mlkd: 2 paired seeds, at least 3 are needed." in report
    assert "better" not in report.replace("higher is better", "")


def test_a_study_that_has_only_searched_says_so(world: World) -> None:
    world.search()
    report = analysis.report(world.results())
    assert "No method was confirmed on fresh seeds." in report
    assert "Differences" not in report


def test_a_study_without_trials_has_a_report(world: World) -> None:
    report = analysis.report(world.results())
    assert "No trial of the search is complete yet." in report
    assert "Trials: 0" in report


def test_without_a_baseline_there_is_no_claim(world: World) -> None:
    for seed in range(4):
        world.trial("mlkd", "confirm", 0.8, seed=seed)
    assert "No claim can be made" in analysis.report(world.results())


def test_where_the_test_split_was_not_read_validation_is_compared_and_named(world: World) -> None:
    world.confirm()
    metrics = world.ledger.read("metrics").to_pylist()
    for path in (Path(world.ledger.root) / "metrics").glob("first-*.parquet"):
        path.unlink()
    world.ledger.write("metrics", [row for row in metrics if row["split"] != "test"], "all")
    report = analysis.report(world.results())
    assert "(validation auroc, 95 % interval over seeds)" in report
    assert "test auroc" not in report


def test_attempts_are_counted_and_charged(world: World) -> None:
    trial = world.trial("plain", "search", 0.8, "preempted")
    world.trial("plain", "search", 0.8, trial_id=trial, attempt=1, gpu_seconds=7200.0)
    report = analysis.report(world.results())
    assert "Trials: 1 (1 complete) in 2 attempts; worker time 1 min 0 s, GPU time 2 h" in report


def test_each_study_has_its_own_section(study: World, tmp_path: Path) -> None:
    World(tmp_path, "second")
    report = analysis.report(analysis.load(tmp_path))
    assert report.index("Study first") < report.index("Study second")


PLAIN = {"method": "mlkd", "against": "plain", "measure": "auroc", "split": "test", "pairs": 5}
BETTER, UNCLEAR, WORSE = (
    {"low": 0.01, "high": 0.03},
    {"low": -0.01, "high": 0.03},
    {"low": -0.03, "high": -0.01},
)


@pytest.mark.parametrize(
    ("plain", "random", "measure", "expected"),
    [
        (BETTER, BETTER, "auroc", ["mlkd is better than plain", "beats the random teacher"]),
        (BETTER, UNCLEAR, "auroc", ["mlkd is better than plain", "no credit to its knowledge"]),
        (BETTER, None, "auroc", ["mlkd is better than plain", "Without a random-teacher control"]),
        (UNCLEAR, BETTER, "auroc", ["cannot be told apart", "beats the random teacher"]),
        (WORSE, WORSE, "auroc", ["mlkd is worse than plain", "worse than a random one"]),
        (BETTER, WORSE, "brier", ["mlkd is worse than plain", "beats the random teacher"]),
        (None, BETTER, "auroc", ["was not compared with plain", "beats the random teacher"]),
    ],
)
def test_the_verdict_says_what_the_intervals_say(
    plain: dict[str, float] | None,
    random: dict[str, float] | None,
    measure: str,
    expected: list[str],
) -> None:
    rows = [{**PLAIN, **plain, "measure": measure}] if plain else []
    rows += [{**PLAIN, "against": "random-teacher", **random, "measure": measure}] if random else []
    sentence = verdict(pd.DataFrame(rows))
    for words in expected:
        assert words in sentence
