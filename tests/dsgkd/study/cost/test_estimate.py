from dataclasses import replace

import pytest

from dsgkd.study.cost.budget import Cost
from dsgkd.study.cost.estimate import (
    Estimate,
    LinkCost,
    StudyShape,
    at_most,
    disk_bytes,
    estimate_lines,
    expected,
)
from dsgkd.study.cost.profile import MethodCost
from dsgkd.study.search.config import PruningConfig

# An hour an epoch: 99 steps of 36 s, 20 s of evaluation and 16 s of saving.
PLAIN = MethodCost(0.0, 36.0, 99, 20.0, 16.0, checkpoint_bytes=300, model_bytes=100)
MLKD = replace(PLAIN, steps=199, evaluation_seconds=0.0, saving_seconds=36.0, storing_seconds=7200)
ESTIMATE = Estimate({"plain": PLAIN, "mlkd": MLKD})


def test_an_estimate_without_a_scheduler_is_arithmetic():
    assert (PLAIN.epoch_seconds, MLKD.epoch_seconds) == (3600.0, 7200.0)
    free = Estimate({"mlkd": MLKD})
    shape = StudyShape(
        {"mlkd": 4, "random-teacher": 2}, 3, {"mlkd": 2}, 2, workers=2, gpus=0.5, teachers=2
    )
    # 6 trials of 3 epochs of 2 h, two at a time; a method that was not timed costs the same.
    found = at_most(free, shape)
    assert found.search == Cost(18.0, 72.0, 36.0)
    assert found.confirm == Cost(6.0, 24.0, 12.0)
    assert found.storing == Cost(2.0, 4.0, 2.0)
    assert found.total == Cost(26.0, 100.0, 50.0)
    assert found.share == 1.0


def test_the_methods_cost_what_each_was_timed_at():
    shape = StudyShape({"plain": 1, "mlkd": 1}, 2, concurrent=2)
    found = at_most(ESTIMATE, shape).search
    last_predictions = 20 / 3600
    assert found.worker_hours == pytest.approx(2 + 4 + last_predictions)
    assert found.hours == pytest.approx(4)


def test_a_scheduler_is_expected_to_run_fewer_epochs_and_confirmation_all():
    shape = StudyShape({"mlkd": 30}, 9, {"mlkd": 3}, 3, pruning=PruningConfig("asha", 1, 3))
    most, likely = at_most(ESTIMATE, shape), expected(ESTIMATE, shape)
    # Were the rungs synchronous: 30 first epochs, 10 trials to the third and 3 to the ninth.
    halving = (30 * 1 + 10 * 2 + 3.33 * 6) / (30 * 9)
    assert halving < likely.share < 2 * halving
    assert likely.search.worker_hours == pytest.approx(likely.share * most.search.worker_hours)
    assert likely.confirm == most.confirm
    assert expected(ESTIMATE, replace(shape, pruning=PruningConfig("none"))) == most
    assert expected(ESTIMATE, StudyShape({}, 9, {"mlkd": 1})).search == Cost()
    # The first rung stops nobody before it is reached.
    later = replace(shape, pruning=PruningConfig("asha", 9, 3))
    assert expected(ESTIMATE, later).share == 1.0


def test_the_disk_holds_two_checkpoints_a_trial_the_confirmed_students_and_the_teachers():
    shape = StudyShape({"plain": 3, "mlkd": 2}, 1, {"plain": 2, "control": 1}, teacher_bytes=7)
    assert disk_bytes(ESTIMATE, shape) == (3 + 2 + 2 + 1) * 300 + 3 * 100 + 7


def test_the_lines_give_hours_money_and_disk():
    shape = StudyShape(
        {"mlkd": 4}, 3, {"mlkd": 2}, 2, gpus=0.5, pruning=PruningConfig("none"), teacher_bytes=200
    )
    lines = estimate_lines(ESTIMATE, shape, price=3.0)
    rows = {" ".join(line.split()[:-2]): line.split()[-2:] for line in lines}
    assert rows["worker-hours"] == ["36", "36"]
    assert rows["GPU-hours"] == ["18", "18"]
    assert rows["cost"] == ["54.00", "54.00"]
    assert rows["hours, 2 trials at a time"] == ["18", "18"]
    assert lines[-2].split() == ["disk", "2.2", "kB", "2.2", "kB"]
    assert "none is expected to run 100%" in lines[-1]
    without = estimate_lines(ESTIMATE, replace(shape, gpus=0.0), price=3.0)
    assert not any(line.startswith(("cost", "GPU")) for line in without)


def test_links_are_paid_by_the_stage_that_needs_them_and_keep_their_students():
    # An epoch of an hour, twice, and 20 s of last predictions.
    link = LinkCost("adapt (mlkd)", PLAIN, epochs=2, search=3, confirm=5)
    without = StudyShape({"mlkd": 4}, 3, {"mlkd": 2}, 2, workers=2, gpus=0.5)
    shape = replace(without, links=[link])
    one = 2 + 20 / 3600
    before, after = at_most(ESTIMATE, without), at_most(ESTIMATE, shape)
    assert after.search.worker_hours - before.search.worker_hours == pytest.approx(3 * 2 * one)
    assert after.confirm.hours - before.confirm.hours == pytest.approx(5 / 2 * one)
    assert after.links.gpu_hours == pytest.approx(8 * one)
    assert disk_bytes(ESTIMATE, shape) == disk_bytes(ESTIMATE, without) + 8 * 100
    lines = estimate_lines(ESTIMATE, shape)
    assert any(line.startswith("8 x adapt (mlkd)") and line.endswith("2.01 h") for line in lines)
    assert any(line.startswith("  of which links") for line in lines)


def test_a_study_without_a_search_is_not_said_to_stop_trials():
    shape = StudyShape({"mlkd": 0}, 3, {"mlkd": 2})
    assert at_most(ESTIMATE, shape).search == Cost()
    assert not any("expected to run" in line for line in estimate_lines(ESTIMATE, shape))
