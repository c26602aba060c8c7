"""The first rung of early stopping, chosen from curves."""

import math
import random
from dataclasses import replace

import pytest
from trial_events import ended, make_epoch, make_spec

from dsgkd.study.history import TrialHistory
from dsgkd.study.search.config import MANY_TRIALS, PruningConfig
from dsgkd.study.search.pruning import PruningCallback
from dsgkd.study.search.rungs import CURVES, FirstRung, first_rung

EPOCHS = 10
CHOSEN = PruningConfig("asha", grace_epochs=0, reduction_factor=2, startup_trials=4)


def curve(rng, quality, known_from):
    """Scores that are noise until an epoch, and from there on say how good a configuration is."""
    scores = [rng.random() for _ in range(known_from - 1)]
    return [*scores, *(quality + 2 + 0.01 * e for e in range(EPOCHS - known_from + 1))]


def crossing(known_from, count=CURVES, seed=0, level=0.0):
    rng = random.Random(seed)
    return [
        [level + score for score in curve(rng, number / count, known_from)]
        for number in range(count)
    ]


@pytest.mark.parametrize("known_from", [1, 4, 7])
def test_the_first_rung_is_where_epochs_begin_to_predict_the_end(known_from):
    found = first_rung({"mlkd": crossing(known_from)})
    assert (found.epoch, found.curves) == (known_from, CURVES)
    assert found.correlation == pytest.approx(1.0)


def test_where_no_epoch_predicts_the_end_nothing_is_stopped():
    found = first_rung({"mlkd": crossing(EPOCHS)})
    assert found.epoch == 0
    assert found.correlation < 0.7
    assert "no early stopping" in str(found)


def test_the_correlation_is_spearmans_by_hand():
    """Ranks 1 2 3 4 and 2 1 4 3: 1 - 6 * 4 / (4 * 15) = .6."""
    curves = [[1.0, 20.0], [2.0, 10.0], [3.0, 40.0], [4.0, 30.0]]
    assert first_rung({"mlkd": curves}, 0.6) == FirstRung(1, pytest.approx(0.6), 4)
    assert first_rung({"mlkd": curves}, 0.61).epoch == 0


def test_methods_that_differ_do_not_make_an_epoch_predict():
    """All trials of one method lie above all of the other, at every epoch."""
    both = {"plain": crossing(EPOCHS), "mlkd": crossing(EPOCHS, seed=1, level=100.0)}
    assert first_rung(both).epoch == 0
    pooled = [*both["plain"], *both["mlkd"]]
    assert first_rung({"one": pooled}).epoch == 1  # as if they were one


def test_the_best_so_far_counts_and_what_is_no_number_does_not():
    fading = [[1.0, math.nan, 0.0], [2.0, 0.0, 0.0], [3.0, 0.0]]
    assert first_rung({"mlkd": fading}).epoch == 1
    assert first_rung({}) == FirstRung(0, 0.0, 0)
    assert first_rung({"mlkd": [[1.0, 1.0]] * 3}).epoch == 0  # all alike


def test_auto_stops_nobody_in_studies_of_few_trials():
    auto = PruningConfig()
    assert auto.resolved(MANY_TRIALS - 1).scheduler == "none"
    assert auto.resolved(MANY_TRIALS).scheduler == "asha"
    assert PruningConfig("median").resolved(1).scheduler == "median"


class Played:
    """Trials that are told to early stopping one after the other."""

    def __init__(self, config=CHOSEN):
        self.config, self.chosen, self.ran = config, [], {}
        self.callback = PruningCallback(config, EPOCHS, on_choice=self.chosen.append)

    def play(self, method, number, scores, callback=None):
        callback = callback or self.callback
        spec = make_spec(number, method)
        for epoch, score in enumerate(scores, 1):
            message = make_epoch(spec, epoch, score)
            callback.on_epoch(spec, message, ended(spec, "complete").charge)
            if epoch < len(scores) and callback.should_stop(spec):
                break
        state = "complete" if epoch == len(scores) else "pruned"
        callback.on_end(spec, ended(spec, state, message))
        self.ran[spec.trial_id] = (method, scores[:epoch], state)
        return epoch

    def history(self):
        at = ended(make_spec(), "complete").charge.at
        return [
            history(trial_id, method, scores, state, replace_second(at, number))
            for number, (trial_id, (method, scores, state)) in enumerate(self.ran.items())
        ]


def replace_second(at, number):
    return at.replace(microsecond=number)


def history(trial_id, method, scores, state, at):
    return TrialHistory(
        *(trial_id, method, "search", state, "", 1),
        *(dict(enumerate(scores, 1)), len(scores), {}, 0.0, {}, {}, 0.0),
        row={"ended_at": at},
    )


def test_the_first_trials_run_to_their_end_then_rungs_begin_where_curves_say():
    lab = Played()
    for number, scores in enumerate(crossing(4)):
        assert lab.play("mlkd", number, scores) == EPOCHS
    assert [rung.epoch for rung in lab.chosen] == [4]
    assert lab.callback.rung == lab.chosen[0]
    assert lab.play("mlkd", 20, [9.0, 9.0, 9.0, *[0.0] * 7]) == 4
    # Of another method, nothing is known yet.
    for number in range(CHOSEN.startup_trials):
        assert lab.play("plain", number, [1.0 - 0.1 * number] * EPOCHS) == EPOCHS
    assert lab.play("plain", 20, [0.0] * EPOCHS) == 4
    assert len(lab.chosen) == 1


def test_without_an_epoch_that_predicts_no_trial_is_stopped():
    lab = Played()
    for number, scores in enumerate(crossing(EPOCHS)):
        lab.play("mlkd", number, scores)
    assert [rung.epoch for rung in lab.chosen] == [0]
    assert lab.play("mlkd", 20, [0.0] * EPOCHS) == EPOCHS


def test_a_resumed_study_decides_what_it_would_have_decided():
    """Interrupted after every trial; its state is what the ledger says."""
    rng = random.Random(3)
    trials = [
        (method, number, curve(rng, rng.random(), 4))
        for number in range(16)
        for method in ("mlkd", "plain")
    ]
    whole, broken = Played(), Played()
    for method, number, scores in trials:
        whole.play(method, number, scores)
        past = broken.history()
        again = PruningCallback(CHOSEN, EPOCHS, reversed(past))
        broken.play(method, number, scores, again)
        # What was written down when it was chosen says the same.
        given = PruningCallback(CHOSEN, EPOCHS, past, rung=again.rung)
        assert given.rung == again.rung
    assert broken.ran == whole.ran
    assert any(state == "pruned" for _, _, state in whole.ran.values())


def test_a_fixed_first_rung_is_not_looked_up():
    lab = Played(replace(CHOSEN, grace_epochs=2))
    for number, scores in enumerate(crossing(4)):
        lab.play("mlkd", number, scores)
    assert lab.chosen == []
    assert any(state == "pruned" for _, _, state in lab.ran.values())
