import random

import pytest

from dsgkd.errors import InputError
from dsgkd.study.search.config import PruningConfig
from dsgkd.study.search.pruning import EarlyStopper

SCHEDULERS = ("asha", "hyperband", "median", "none")


def curves(count=30, epochs=9, seed=0):
    draw = random.Random(seed)
    return {
        f"search-mlkd-{i:03d}": [draw.random() + 0.1 * epoch for epoch in range(epochs)]
        for i in range(count)
    }


def play(stopper, trials, epochs=9):
    """Run trials one after the other; return how many epochs each ran."""
    ran = {}
    for trial_id, scores in trials.items():
        for epoch, score in enumerate(scores, 1):
            stopper.report(trial_id, epoch, score)
            ran[trial_id] = epoch
            if epoch < epochs and stopper.should_stop(trial_id):
                stopper.end(trial_id, "pruned")
                break
        else:
            stopper.end(trial_id, "complete")
    return ran


def stopper_of(scheduler):
    return EarlyStopper(PruningConfig(scheduler, 1, 3, 2), epochs=9)


def test_successive_halving_by_hand():
    """Rungs at epochs 1, 3 and 9; of those that came so far, the best third goes on."""
    stopper = stopper_of("asha")
    ran = play(stopper, {f"t{i}": [score] * 9 for i, score in enumerate([5, 1, 6, 2, 7, 5.5])})
    # 5 is alone; 1 is not the best of two; 6 is the best of three; 2 not of four; 7 is of five;
    # of six, the two best are 7 and 6.
    assert list(ran.values()) == [9, 1, 9, 1, 9, 1]


def test_the_median_by_hand():
    stopper = stopper_of("median")
    ran = play(stopper, {f"t{i}": [score] * 9 for i, score in enumerate([1, 3, 1.9, 2.5])})
    assert list(ran.values()) == [9, 9, 1, 9]  # below 2, the median of 1 and 3


def test_none_stops_nobody():
    assert set(play(stopper_of("none"), curves()).values()) == {9}


def test_hyperband_gives_some_trials_a_later_first_rung():
    ran = play(stopper_of("hyperband"), curves(count=90)).values()
    plain = play(stopper_of("asha"), curves(count=90)).values()
    assert set(ran) == {1, 3, 9}
    assert sum(ran) > sum(plain)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_the_record_is_the_reports_whatever_their_order(scheduler):
    """What a study knew when it was interrupted is read back from its ledger."""
    trials = curves()
    lived, read = stopper_of(scheduler), stopper_of(scheduler)
    ran = play(lived, trials)
    for trial_id in sorted(trials, reverse=True):
        for epoch in range(1, ran[trial_id] + 1):
            read.report(trial_id, epoch, trials[trial_id][epoch - 1])
        read.end(trial_id, "complete" if ran[trial_id] == 9 else "pruned")
    stopped = 0
    for trial_id, scores in curves(count=200, seed=1).items():
        name = trial_id.replace("mlkd", "plain")
        for epoch, score in enumerate(scores[:3], 1):
            lived.report(name, epoch, score)
            read.report(name, epoch, score)
            assert lived.should_stop(name) == read.should_stop(name)
            stopped += lived.should_stop(name)
    assert (stopped > 0) == (scheduler != "none")


def test_epochs_that_a_resumed_trial_repeats_count_once():
    stopper = stopper_of("asha")
    stopper.report("good", 1, 2.0)
    stopper.report("bad", 1, 1.0)
    assert stopper.should_stop("bad")
    stopper.report("bad", 1, 9.0)
    assert stopper.should_stop("bad")


def test_a_score_that_is_no_number_says_nothing():
    stopper = stopper_of("asha")
    stopper.report("a", 1, float("nan"))
    assert not stopper.should_stop("a")
    stopper.end("a", "failed")
    stopper.report("b", 1, 1.0)
    assert not stopper.should_stop("b")


@pytest.mark.parametrize(
    "change", [{"grace_epochs": -1}, {"reduction_factor": 1}, {"startup_trials": 0}]
)
def test_bad_settings_are_input_errors(change):
    with pytest.raises(InputError):
        PruningConfig(**change)
