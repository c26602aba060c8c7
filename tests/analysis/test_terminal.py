"""The report fits a terminal, and claims no more than the numbers allow."""

from datetime import timedelta
from pathlib import Path

import pandas as pd
import pytest
from small_study import START, World

import analysis
from analysis.terminal import WIDTH, verdict


def flat(text: str) -> str:
    return " ".join(text.split())


def test_the_report_shows_configurations_methods_differences_and_cost(study: World) -> None:
    report = flat(analysis.report(study.results()))
    assert "Study first" in report
    assert "mlkd 0.830 trial search-mlkd-007" in report
    assert "alpha=4" in report
    assert "warm_up=0.25" in report
    assert "mlkd - random-teacher +0.02" in report
    assert "mlkd is better than plain on test auroc" in report
    assert "It beats random-teacher: what the teacher knows made a difference" in report
    assert "34 (32 complete, 1 pruned, 1 failed); worker time 13 min 0 s" in report
    assert "complete 12 min 0 s (92%), failed 30 s (4%), pruned 30 s (4%)." in report
    assert "GPU time" not in report
    assert "Test split: read once, on 2026-03-02, by 12 models." in report


def test_every_line_fits_whatever_the_names(tmp_path: Path) -> None:
    world = World(tmp_path, "a-study-with-a-name-" + 8 * "of-many-words-")
    method = "a-method-with-a-long-name"
    for stage in ("search", "confirm"):
        world.trial(method, stage, 0.8, student="a-word-" * 20, **{"x" * 60: "y" * 60})
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
    world.confirm(test=False)
    report = analysis.report(world.results())
    assert "(validation auroc, 95 % interval over seeds)" in report
    assert "test auroc" not in report
    assert "Test split: sealed: not read yet." in report


@pytest.mark.slow
def test_every_report_after_a_second_reading_says_so(world: World) -> None:
    world.confirm()
    world.test(begun=START + timedelta(days=2), again=True, change=0.1)
    report = flat(analysis.report(world.results()))
    assert (
        "Test split: read 2 times (2026-03-02, 2026-03-03): figures are those of the first "
        "reading of each model." in report
    )
    first = analysis.confirmed(world.results())
    assert (first.test_auroc < first.validation_auroc).all()
    world.test("running", begun=START + timedelta(days=3), again=True)
    report = flat(analysis.report(world.results()))
    assert "read 3 times" in report
    assert "the last reading is not finished" in report


def test_a_test_split_that_was_read_without_a_seal_is_told(world: World) -> None:
    trial = world.trial("plain", "confirm", 0.8)
    key = {"study_id": "first", "trial_id": trial, "attempt": 0}
    world.ledger.write("metrics", [{**key, "split": "test", "measures": {"auroc": 0.7}}], "old")
    assert "Test split: read, but nothing says when." in analysis.report(world.results())


def test_attempts_are_counted_and_charged(world: World) -> None:
    trial = world.trial("plain", "search", 0.8, "preempted")
    world.trial("plain", "search", 0.8, trial_id=trial, attempt=1, gpu_seconds=7200.0)
    report = analysis.report(world.results())
    assert "Trials: 1 (1 complete) in 2 attempts; worker time 1 min 0 s, GPU time 2 h" in report
    assert "Worker time by how attempts ended: complete 30 s (50%), preempted 30 s (50%)." in report
    assert "GPU time by how attempts ended: complete 2 h 0 min (100%)." in report


@pytest.mark.slow
def test_each_study_has_its_own_section(study: World, tmp_path: Path) -> None:
    World(tmp_path, "second")
    report = analysis.report(analysis.load(tmp_path))
    assert report.index("Study first") < report.index("Study second")


PLAIN = {"method": "mlkd", "against": "plain", "role": "baseline", "pairs": 5, "split": "test"}
PLAIN |= {"measure": "auroc", "direction": "maximise"}
CONTROL = PLAIN | {"role": "control"}
BETTER, UNCLEAR, WORSE = (
    {"low": 0.01, "high": 0.03},
    {"low": -0.01, "high": 0.03},
    {"low": -0.03, "high": -0.01},
)


RANDOM, SHUFFLED, WRONG = "random-teacher", "shuffled-words", "wrong-domain"
CREDIT, NO_CREDIT = "what the teacher knows made a difference", "no credit to the teacher's"


@pytest.mark.parametrize(
    ("found", "measure", "expected"),
    [
        ({"plain": BETTER, RANDOM: BETTER}, "auroc", ["better than plain", "beats random", CREDIT]),
        ({"plain": BETTER, RANDOM: UNCLEAR}, "auroc", ["better than plain", NO_CREDIT]),
        ({"plain": BETTER}, "auroc", ["better than plain", "Without a control no gain"]),
        ({"plain": UNCLEAR, RANDOM: BETTER}, "auroc", ["cannot be told apart", CREDIT]),
        ({"plain": WORSE, RANDOM: WORSE}, "auroc", ["worse than plain", "worse than random-"]),
        ({"plain": BETTER, RANDOM: WORSE}, "brier", ["worse than plain", "beats random", CREDIT]),
        ({RANDOM: BETTER}, "auroc", ["was not compared with a baseline", CREDIT]),
        (
            {"plain": BETTER, RANDOM: BETTER, SHUFFLED: BETTER, WRONG: BETTER},
            "auroc",
            ["It beats random-teacher and shuffled-words and wrong-domain: " + CREDIT],
        ),
        (
            {"plain": BETTER, RANDOM: BETTER, SHUFFLED: UNCLEAR},
            "auroc",
            ["cannot be told apart from shuffled-words, beats random-teacher: " + NO_CREDIT],
        ),
        (
            {"plain": BETTER, WRONG: WORSE, SHUFFLED: UNCLEAR},
            "auroc",
            [f"apart from shuffled-words, does worse than wrong-domain: {NO_CREDIT}"],
        ),
    ],
)
def test_the_verdict_says_what_the_intervals_say(
    found: dict[str, dict[str, float]], measure: str, expected: list[str]
) -> None:
    direction = {"brier": "minimise"}.get(measure, "maximise")
    rows = [
        {**(PLAIN if name == "plain" else CONTROL), "against": name, **bounds}
        | {"measure": measure, "direction": direction}
        for name, bounds in found.items()
    ]
    sentence = verdict(pd.DataFrame(rows))
    for words in expected:
        assert words in sentence
    assert (CREDIT in sentence) != (NO_CREDIT in sentence or "Without a control" in sentence)


def test_a_control_that_was_run_with_too_few_seeds_allows_no_claim() -> None:
    rows = [{**PLAIN, **BETTER}, {**CONTROL, **BETTER, "against": RANDOM, "pairs": 2}]
    assert "No claim can be made about mlkd: 2 paired seeds" in verdict(pd.DataFrame(rows))


def test_the_report_names_every_control_and_draws_none_as_a_method(world: World) -> None:
    world.confirm(levels={"plain": 0.8, "mlkd": 0.83, RANDOM: 0.80, SHUFFLED: 0.825}, noise=0.006)
    report = flat(analysis.report(world.results()))
    assert "mlkd - random-teacher" in report
    assert "mlkd - shuffled-words" in report
    assert "cannot be told apart from shuffled-words, beats random-teacher" in report
    assert "shuffled-words is" not in report
