"""The report fits a terminal, and claims no more than the numbers allow."""

from datetime import timedelta
from pathlib import Path

import pandas as pd
import pytest
from small_study import SEEDS, START, World

import analysis
from analysis.terminal import WIDTH, first_screen


def flat(text: str) -> str:
    return " ".join(text.split())


def test_the_report_shows_configurations_methods_differences_and_cost(study: World) -> None:
    report = flat(analysis.report(study.results()))
    assert "Study first" in report
    assert "mlkd 0.830 trial search-mlkd-007" in report
    assert "alpha=4" in report
    assert "warm_up=0.25" in report
    assert "mlkd - random-teacher +.02" in report
    assert "Domain knowledge moved: mlkd (en-med) beats the control (random-teacher +.02" in report
    assert "and the baseline (plain +.0" in report
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
    assert "No claim: mlkd (en-med) and plain share 2 seeds, at least 3 are needed." in report
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
    assert "No claim: no method was confirmed beside a baseline" in analysis.report(world.results())


def test_where_the_test_split_was_not_read_validation_is_compared_and_named(world: World) -> None:
    world.confirm(test=False)
    report = analysis.report(world.results())
    assert "(validation auroc; interval over seeds alone)" in report
    assert "No claim before the test split is read" in report
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


def test_the_report_names_every_control_and_draws_none_as_a_method(world: World) -> None:
    levels = {"plain": 0.8, "mlkd": 0.83, "random-teacher": 0.80, "shuffled-words": 0.829}
    world.confirm(levels=levels, noise=0.006)
    report = flat(analysis.report(world.results()))
    assert "mlkd - random-teacher" in report
    assert "mlkd - shuffled-words" in report
    assert "what helps is distilling as such" in report
    assert "shuffled-words - plain" not in report


@pytest.mark.slow
def test_with_six_arms_what_was_found_fits_a_screen(world: World) -> None:
    arms = ("plain", "mlkd", "masked-lm", "random-teacher", "shuffled-words", "wrong-domain")
    row = world.ledger.rows("studies")[0]
    roles = ("baseline", "method", "baseline", "control", "control", "control")
    roles = {arm: {"role": role} for arm, role in zip(arms, roles)}
    world.ledger.write("studies", [row | {"arms": roles}], "study")
    world.confirm_with_predictions(dict.fromkeys(arms, 0.8), seeds=(1, 2, 3), notes=40)
    results = world.results()
    first = results.trials.method.isin(["plain", "masked-lm"]) & (results.trials.seed == 1)
    vars(results)["trials"] = results.trials.assign(stuck=first)
    lines = first_screen(results, "first", "Study first")
    assert len(lines) <= 24
    assert max(map(len, lines)) <= WIDTH
    assert lines[2].startswith("No claim: mlkd (en-med)")
    assert "Differences paired by seed (test auroc; interval over seeds and notes)" in lines


def test_what_was_estimated_beforehand_is_said_again(world: World) -> None:
    results = world.results()
    rows = {"study_id": ["first", "other"], "verdict": ["There is headroom.", "There is none."]}
    vars(results)["headroom"] = pd.DataFrame(rows)
    assert "Beforehand: There is headroom.\n" in analysis.report(results)


def test_runs_that_got_stuck_count_and_are_named(world: World) -> None:
    world.confirm()
    results = world.results()
    stuck = (results.trials.method == "plain") & (results.trials.seed == SEEDS[0])
    trials = results.trials.assign(stuck=stuck.astype(object).where(stuck, None))
    vars(results)["trials"] = trials
    frame = analysis.compare(results).set_index("method")
    assert frame.stuck.to_dict() == {"plain": 1, "mlkd": 0, "random-teacher": 0}
    assert frame.seeds["plain"] == len(SEEDS)
    rest = analysis.confirmed(results).query("method == 'plain' and not stuck").test_auroc
    without = analysis.compare(results, with_stuck=False).set_index("method")
    assert without.test_auroc_mean["plain"] == pytest.approx(rest.mean())
    assert without.seeds["plain"] == len(SEEDS) - 1
    report = flat(analysis.report(results))
    figure = f"{rest.mean():.3f} ± {rest.std():.3f}".replace("0.", ".")
    assert f"Stuck: plain (seeds {SEEDS[0]}; without: {figure})." in report
