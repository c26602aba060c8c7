import math
from datetime import UTC, datetime, timedelta

import pytest

from dsgkd.errors import InputError
from dsgkd.ledger import Ledger
from dsgkd.study.cost.curves import Curve, curves
from dsgkd.study.cost.replay import replay
from dsgkd.study.cost.replay_table import replay_lines
from dsgkd.study.history import read_history
from dsgkd.study.search.config import PruningConfig

NONE = PruningConfig("none")
HALVING = PruningConfig("asha", grace_epochs=1, reduction_factor=2)
HOUR = 3600.0


def curve(number, scores, hours=1.0, method="mlkd", **others):
    """A whole trial whose epochs take some hours each."""
    settings = {"whole": True} | others
    return Curve(
        f"search-{method}-{number:03d}",
        method,
        tuple(scores),
        (hours * HOUR,) * len(scores),
        **settings,
    )


def test_three_trials_on_two_slots_take_what_the_arithmetic_says():
    three = [curve(0, [0.5] * 3), curve(1, [0.6] * 1), curve(2, [0.7] * 4, 0.5)]
    # Slot 0: 3 h. Slot 1: 1 h, then 4 epochs of half an hour.
    found = replay(three, 2, NONE)
    assert (found.hours, found.worker_hours, found.lost_hours) == (3.0, 6.0, 0.0)
    assert (found.epochs_run, found.pruned, found.cut_short) == (8, 0, 0)
    assert found.best == {"mlkd": 0.7}
    assert replay(three, 1, NONE).hours == 6.0
    assert replay(three, 8, NONE).hours == 3.0


def test_workers_gpus_and_the_opening_are_charged():
    one = curve(0, [0.5, 0.6], opening=0.5 * HOUR, workers=2, gpus=1.0)
    found = replay([one], 1, NONE)
    assert (found.hours, found.worker_hours, found.gpu_hours) == (2.5, 5.0, 2.5)


def test_halving_stops_the_worse_after_the_first_rung_and_frees_its_slot():
    good, bad, late = curve(0, [0.8] * 4), curve(1, [0.5] * 4), curve(2, [0.4] * 4)
    found = replay([good, bad, late], 1, HALVING)
    assert (found.hours, found.epochs_run, found.pruned) == (6.0, 6, 2)
    assert found.best == {"mlkd": 0.8}
    # Another method is not compared with these.
    other = curve(3, [0.1] * 4, method="plain")
    found = replay([good, bad, other], 1, HALVING)
    assert (found.hours, found.best) == (9.0, {"mlkd": 0.8, "plain": 0.1})


def test_a_trial_that_reaches_its_last_epoch_is_complete_whatever_its_score():
    short = curve(1, [0.1])
    found = replay([curve(0, [0.8, 0.8]), short], 1, HALVING)
    assert (found.pruned, found.epochs_run) == (0, 3)


def test_a_record_that_ends_early_is_counted_where_it_would_have_gone_on():
    stopped = curve(1, [0.5], whole=False)
    found = replay([curve(0, [0.8] * 4), stopped], 1, NONE)
    assert (found.hours, found.cut_short, found.is_lower_bound) == (5.0, 1, True)
    # Where the scheduler stops it too, nothing is unknown.
    found = replay([curve(0, [0.8] * 4), stopped], 1, HALVING)
    assert (found.cut_short, found.pruned, found.is_lower_bound) == (0, 1, False)


def test_a_failed_trial_costs_and_is_not_chosen():
    found = replay([curve(0, [0.9], failed=True), curve(1, [0.6, math.nan])], 1, NONE)
    assert (found.hours, found.best) == (3.0, {"mlkd": 0.6})


def test_preemptions_are_the_seeds_and_cost_time_but_no_epoch():
    many = [curve(number, [0.5] * 5, 0.25) for number in range(8)]
    calm = replay(many, 2, NONE)
    stormy = replay(many, 2, NONE, 1.0, seed=3, startup_seconds=360)
    assert stormy == replay(many, 2, NONE, 1.0, seed=3, startup_seconds=360)
    assert stormy != replay(many, 2, NONE, 1.0, seed=4, startup_seconds=360)
    assert calm.lost_hours == 0
    assert stormy.lost_hours > 0
    assert stormy.epochs_run == calm.epochs_run == 40
    assert stormy.worker_hours == pytest.approx(calm.worker_hours + stormy.lost_hours)
    assert stormy.hours > calm.hours


@pytest.mark.slow
def test_the_mean_loss_is_that_of_a_poisson_process():
    # Restarting work of length s after every event of rate r takes (exp(r s) - 1) / r on average.
    one = [curve(0, [0.5], 1.0)]
    runs = [replay(one, 1, NONE, 1.0, seed) for seed in range(4000)]
    mean = sum(run.hours for run in runs) / len(runs)
    assert mean == pytest.approx(math.e - 1, rel=0.05)


def test_impossible_replays_are_refused():
    one = [curve(0, [0.5], 10.0)]
    with pytest.raises(InputError, match="10 h"):
        replay(one, 1, NONE, preemptions_per_hour=1.0)
    with pytest.raises(InputError, match="slots"):
        replay(one, 0, NONE)
    with pytest.raises(InputError, match="no trial"):
        replay_lines([])


START = datetime(2026, 5, 4, 12, tzinfo=UTC)


def trial(name, start, state="complete", attempt=1, worker_seconds=0.0, **others):
    return {
        "study_id": "s",
        "trial_id": name,
        "attempt": attempt,
        "stage": "search",
        "method": name.split("-")[1],
        "state": state,
        "workers": 1,
        "started_at": START + timedelta(seconds=start),
        "worker_seconds": worker_seconds,
        "gpu_seconds": worker_seconds / 2,
    } | others


def epoch(name, number, loss, attempt=1):
    key = {"study_id": "s", "trial_id": name, "attempt": attempt, "epoch": number}
    return [
        key | {"split": "train", "seconds": 10.0},
        key
        | {"split": "validation", "seconds": 2.0, "loss": loss, "measures": {"brier": loss / 2}},
    ]


def test_curves_are_read_from_the_ledger_and_attempts_are_joined(tmp_path):
    trials = [
        trial("search-mlkd-001", 50, "pruned", worker_seconds=15.0),
        trial("search-mlkd-000", 0, "preempted", worker_seconds=30.0),
        trial("search-mlkd-000", 90, attempt=2, worker_seconds=20.0),
        trial("search-plain-000", 10, "failed", worker_seconds=5.0),
        trial("confirm-mlkd-000-000", 300, stage="confirm"),
    ]
    best_again = epoch("search-mlkd-000", 1, 0.5, 2)[1] | {"seconds": None}
    metrics = [
        *epoch("search-mlkd-000", 1, 0.5),
        *epoch("search-mlkd-000", 2, 0.75, attempt=2),
        best_again,
        *epoch("search-mlkd-001", 1, 0.9),
        *epoch("confirm-mlkd-000-000", 1, 0.1),
        epoch("search-mlkd-000", 1, 0.3)[1] | {"split": "test"},
    ]
    expected = [
        Curve("search-mlkd-000", "mlkd", (-0.5, -0.75), (12.0, 12.0), True, 8.0, gpus=0.5),
        Curve("search-mlkd-001", "mlkd", (-0.9,), (12.0,), False, 3.0, gpus=0.5),
    ]
    ledger = Ledger(tmp_path)
    ledger.write("trials", trials, "all")
    ledger.write("metrics", metrics, "all")
    assert curves(read_history(ledger, "loss", "minimise").values()) == expected
    by_brier = curves(read_history(ledger, "brier", "minimise").values())
    assert by_brier[0].scores == (-0.25, -0.375)
    with pytest.raises(InputError, match="no trial has the objective"):
        curves(read_history(ledger, "applause").values())
    with pytest.raises(InputError, match="no search trial"):
        curves([])


@pytest.fixture
def record():
    """Twelve trials on half a GPU each, the earlier the better; a third had been stopped."""
    return [
        curve(
            number,
            [0.9 - 0.01 * number] * (2 if number % 3 == 0 else 6),
            0.25,
            method=("mlkd", "plain")[number % 2],
            whole=number % 3 != 0,
            gpus=0.5,
        )
        for number in range(12)
    ]


def test_the_table_compares_costs_and_regret(record):
    lines = replay_lines(
        record, PruningConfig("asha", 3), slots=(1, 4), price=4.0, spot_factor=0.25, draws=3
    )
    assert max(map(len, lines)) <= 100
    title = lines[0].split()
    rows = [dict(zip(title, line.split())) for line in lines[1 : 1 + 2 * 4 * 3]]
    steady = {(row["slots"], row["scheduler"]): row for row in rows if row["taken/h"] == "0"}
    none = steady["1", "none"]
    # 8 trials of 6 epochs and 4 of 2, a quarter of an hour each, on half a GPU at 4 an hour.
    assert (none["hours"], none["epochs"], none["GPU-h"], none["cost"]) == (
        "14",
        "56",
        "7",
        "28.00",
    )
    assert none["lost-h"] == "0"
    assert none["regret"] == "≤0.0000"
    assert float(steady["1", "asha"]["hours"]) < 14
    assert float(steady["4", "none"]["hours"]) < 5
    assert any(line.startswith("≤") for line in lines)


def test_regret_is_that_of_the_method_which_is_served_worst():
    slow = curve(1, [0.5, 0.9])  # would have won
    two = [curve(0, [0.6, 0.6]), slow, curve(2, [0.3, 0.3], method="plain")]
    for scheduler, regret in (("none", "0.0000"), ("asha", "0.3000")):
        lines = replay_lines(two, HALVING, (1,), (scheduler,), (0.0,))
        assert lines[1].split()[-1] == regret


def test_the_table_has_no_money_without_gpus(record):
    plain = [curve(number, [0.5] * 3, 0.1) for number in range(3)]
    lines = replay_lines(plain, slots=(2,), schedulers=("none",), rates=(0.0,), price=4.0)
    assert "cost" not in lines[0]
    assert "GPU-h" not in lines[0]
    assert not any("≤" in line for line in lines)
