import random
from datetime import UTC, datetime, timedelta

import pytest
from trial_events import make_spec

from dsgkd.errors import InputError
from dsgkd.study.cost.budget import BudgetCallback, BudgetConfig, Cost, spent
from dsgkd.study.messages import Charge, TrialEnded

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)


def row(start, end, worker_hours, gpu_hours=0.0, workers=1, **others):
    """A row of `trials`; hours after noon."""
    return {
        "stage": "search",
        "method": "mlkd",
        "state": "complete",
        "workers": workers,
        "started_at": NOON + timedelta(hours=start),
        "ended_at": None if end is None else NOON + timedelta(hours=end),
        "worker_seconds": worker_hours * 3600,
        "gpu_seconds": gpu_hours * 3600,
    } | others


def at(hours):
    return NOON + timedelta(hours=hours)


def charge(hours, worker_hours, gpu_hours=0.0):
    return Charge(at(hours), worker_hours * 3600, gpu_hours * 3600)


def end(state, *amounts):
    return TrialEnded(state, "", charge(*amounts))


def test_hours_are_the_union_of_the_trials_and_leave_interruptions_out():
    rows = [
        row(0, 2, 2, 1),
        row(1, 3, 2, 1),  # overlaps
        row(1.5, 1.75, 0.25),  # inside
        row(10, 11, 1, 0.5),  # after a night
    ]
    assert spent(rows) == Cost(hours=4.0, worker_hours=5.25, gpu_hours=2.5)
    assert spent(reversed(rows)) == spent(rows)
    assert spent([]) == Cost()


def test_a_trial_without_an_end_counts_as_far_as_it_was_heard_of():
    assert spent([row(0, None, 3, workers=2)]).hours == 1.5
    silent = row(0, None, 0) | {"worker_seconds": None, "gpu_seconds": None}
    assert spent([silent]) == Cost()


def test_every_state_and_attempt_is_charged():
    rows = [
        row(0, 1, 1, state="pruned"),
        row(0, 1, 1, state="preempted", attempt=1),
        row(2, 3, 1, attempt=2),
        row(1, 2, 1, method="plain", state="failed"),
    ]
    assert spent(rows) == Cost(3.0, 4.0)


def test_costs_add_up_and_have_a_price():
    assert Cost(1, 2, 4) + Cost(0.5, 1, 1) == Cost(1.5, 3, 5)
    assert Cost(1, 2, 4).cost(2.5) == 10.0


def test_a_trial_is_charged_by_the_clock_between_reports_and_by_the_report_at_the_end():
    budget = BudgetCallback(BudgetConfig(), [row(-5, -4, 1, 0.5)])
    spec = make_spec(workers=2, gpus_per_worker=0.5)
    assert budget.spent(at(0)) == Cost(1.0, 1.0, 0.5)
    budget.on_start(spec, at(0))
    assert budget.spent(at(1)) == Cost(2.0, 3.0, 1.5)
    budget.on_epoch(spec, None, charge(1, 1.8, 0.9))
    assert budget.spent(at(1)) == Cost(2.0, 2.8, 1.4)
    assert budget.spent(at(1.5)) == Cost(2.5, 3.8, 1.9)
    budget.on_end(spec, end("complete", 1.5, 2.5, 1.25))
    assert budget.spent(at(9)) == Cost(2.5, 3.5, 1.75)


def test_both_attempts_of_a_preempted_trial_are_charged():
    budget = BudgetCallback(BudgetConfig())
    spec = make_spec(gpus_per_worker=0.5)
    budget.on_start(spec, at(0))
    budget.on_end(spec, end("preempted", 1, 1.0, 0.5))  # never reported
    budget.on_start(spec, at(2))
    budget.on_end(spec, end("complete", 2.5, 0.5, 0.25))
    assert budget.spent(at(3)) == Cost(1.5, 1.5, 0.75)


@pytest.mark.parametrize(
    ("config", "reserve", "phrase"),
    [
        (BudgetConfig(), Cost(), None),
        (BudgetConfig(max_hours=2), Cost(), None),
        (BudgetConfig(max_hours=2), Cost(0.1), None),
        (
            BudgetConfig(max_hours=2),
            Cost(0.3),
            "max-hours 2 (1.8 h spent, 0.3 h kept for confirmation)",
        ),
        (BudgetConfig(max_hours=1.5), Cost(), "max-hours 1.5 (1.8 h spent)"),
        (BudgetConfig(max_gpu_hours=3.5), Cost(), "max-gpu-hours 3.5 (3.6 GPU-h spent)"),
        (
            BudgetConfig(max_cost=10, price_per_gpu_hour=2.5),
            Cost(gpu_hours=0.5),
            "max-cost 10 (9 spent, 1.25 kept for confirmation)",
        ),
        (BudgetConfig(max_cost=10, price_per_gpu_hour=2.5), Cost(gpu_hours=0.3), None),
    ],
)
def test_a_limit_is_reached_by_what_is_spent_and_what_is_kept(config, reserve, phrase):
    budget = BudgetCallback(config, [row(0, 1.8, 3.6, 3.6)])
    assert budget.exceeded(at(9), reserve) == phrase


def test_limits_are_amounts_and_money_needs_a_price():
    with pytest.raises(InputError, match="price_per_gpu_hour"):
        BudgetConfig(max_cost=5)
    with pytest.raises(InputError, match="max_hours"):
        BudgetConfig(max_hours=-1)
    with pytest.raises(InputError, match="max_gpu_hours"):
        BudgetConfig(max_gpu_hours=float("nan"))


def test_what_is_summed_up_is_what_the_rows_cost():
    chance, now = random.Random(3), 0.0
    rows = [row(-9, -7, 2, 1), row(-8, -6, 2, 1)]
    budget = BudgetCallback(BudgetConfig(), rows)
    running = {}
    for number in range(200):
        now += chance.choice((0.0, 0.1, 0.5))
        if running and (len(running) == 3 or chance.random() < 0.5):
            trial_id = chance.choice(sorted(running))
            began = running.pop(trial_id)
            hours = now - began
            rows.append(row(began, now, hours, hours / 2))
            spec = make_spec(trial_id=trial_id, gpus_per_worker=0.5)
            budget.on_end(spec, end("complete", now, hours, hours / 2))
        else:
            running[str(number)] = now
            budget.on_start(make_spec(trial_id=str(number), gpus_per_worker=0.5), at(now))
        open_rows = [row(began, now, now - began, (now - began) / 2) for began in running.values()]
        expected, found = spent([*rows, *open_rows]), budget.spent(at(now))
        assert found.hours == pytest.approx(expected.hours)
        assert found.worker_hours == pytest.approx(expected.worker_hours)
        assert found.gpu_hours == pytest.approx(expected.gpu_hours)
