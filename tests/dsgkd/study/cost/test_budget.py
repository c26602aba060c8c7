import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from dsgkd.errors import InputError
from dsgkd.study.cost.budget import BudgetCallback, BudgetConfig, Cost, spent, spent_by_state

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


@dataclass(frozen=True)
class Spec:
    """What the meter looks at."""

    trial_id: str = "search-mlkd-000"
    workers: int = 1
    gpus_per_worker: float = 0.5


class Clock:
    hours = 0.0

    def __call__(self):
        return NOON + timedelta(hours=self.hours)


def report(worker_hours, gpu_hours=0.0):
    return {"worker_seconds": worker_hours * 3600, "gpu_seconds": gpu_hours * 3600}


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


def test_every_state_and_attempt_is_charged_but_a_seal_has_no_worker():
    rows = [
        row(0, 1, 1, state="pruned"),
        row(0, 1, 1, state="preempted", attempt=1),
        row(2, 3, 1, attempt=2),
        row(1, 2, 1, method="plain", state="failed"),
        row(3, 9, 0, stage="test", method=None, workers=None),
    ]
    assert spent(rows) == Cost(3.0, 4.0)
    by_state = spent_by_state(rows)
    assert by_state["search", "mlkd", "complete"] == Cost(1.0, 1.0)
    assert by_state["search", "plain", "failed"] == Cost(1.0, 1.0)
    assert by_state["test", None, "complete"] == Cost()
    assert sum(each.worker_hours for each in by_state.values()) == 4.0


def test_costs_add_up_and_have_a_price():
    assert Cost(1, 2, 4) + Cost(0.5, 1, 1) == Cost(1.5, 3, 5)
    assert Cost(1, 2, 4).cost(2.5) == 10.0


def test_the_meter_charges_by_the_clock_between_reports_and_by_the_report_at_the_end():
    clock = Clock()
    meter = BudgetCallback(BudgetConfig(), [row(-5, -4, 1, 0.5)], clock)
    spec = Spec(workers=2)
    assert meter.spent() == Cost(1.0, 1.0, 0.5)
    meter.started(spec)
    clock.hours = 1.0
    assert meter.spent() == Cost(2.0, 3.0, 1.5)
    meter.reported(spec, report(1.8, 0.9))
    assert meter.spent() == Cost(2.0, 2.8, 1.4)
    meter.started(spec)  # again: nothing is forgotten
    clock.hours = 1.5
    assert meter.spent() == Cost(2.5, 3.8, 1.9)
    meter.ended(spec, report(2.5, 1.25), "complete", "")
    clock.hours = 9.0
    assert meter.spent() == Cost(2.5, 3.5, 1.75)


def test_the_meter_charges_both_attempts_of_a_preempted_trial():
    clock = Clock()
    meter = BudgetCallback(BudgetConfig(), now=clock)
    meter.started(Spec())
    clock.hours = 1.0
    meter.ended(Spec(), None, "preempted", "its node was lost")  # never reported
    clock.hours = 2.0
    meter.started(Spec())
    clock.hours = 2.5
    meter.ended(Spec(), report(0.5, 0.25), "complete", "")
    assert meter.spent() == Cost(1.5, 1.5, 0.75)


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
    meter = BudgetCallback(config, [row(0, 1.8, 3.6, 3.6)], Clock())
    assert meter.exceeded(reserve) == phrase


def test_limits_are_amounts_and_money_needs_a_price():
    with pytest.raises(InputError, match="price_per_gpu_hour"):
        BudgetConfig(max_cost=5)
    with pytest.raises(InputError, match="max_hours"):
        BudgetConfig(max_hours=-1)
    with pytest.raises(InputError, match="no amount"):
        BudgetConfig(max_gpu_hours=float("nan"))


def test_what_the_meter_sums_up_is_what_its_rows_cost():
    chance, clock = random.Random(3), Clock()
    rows = [row(-9, -7, 2, 1), row(-8, -6, 2, 1)]
    meter = BudgetCallback(BudgetConfig(), rows, clock)
    running = {}
    for number in range(200):
        clock.hours += chance.choice((0.0, 0.1, 0.5))
        if running and (len(running) == 3 or chance.random() < 0.5):
            trial_id = chance.choice(sorted(running))
            began = running.pop(trial_id)
            hours = clock.hours - began
            rows.append(row(began, clock.hours, hours, hours / 2))
            meter.ended(Spec(trial_id), report(hours, hours / 2), "complete", "")
        else:
            running[str(number)] = clock.hours
            meter.started(Spec(str(number)))
        open_rows = [
            row(began, clock.hours, clock.hours - began, (clock.hours - began) / 2)
            for began in running.values()
        ]
        expected, found = spent([*rows, *open_rows]), meter.spent()
        assert found.hours == pytest.approx(expected.hours)
        assert found.worker_hours == pytest.approx(expected.worker_hours)
        assert found.gpu_hours == pytest.approx(expected.gpu_hours)
