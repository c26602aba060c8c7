"""A search in which all methods keep the best learning rates of the baseline."""

import pytest
from test_search import DEPTHS, RUN, SPACE, TEACHERS, Lab

from dsgkd.study.search.arms import MASKED_LM, MLKD, PLAIN, RANDOM_TEACHER, arms
from dsgkd.study.search.search import Search

ARMS = {arm.method: arm for arm in arms(("random",), adapted=True)}
METHODS = (MLKD, PLAIN, MASKED_LM, RANDOM_TEACHER)
RATES = ("encoder_lr", "classifier_lr")


def suggest(trial, method):
    return SPACE.suggest(trial, ARMS[method], RUN, TEACHERS, DEPTHS)


class Matched(Lab):
    """A search with a reference, in a folder with a ledger."""

    def __init__(self, folder, top=1, **config):
        self.top, self.told = top, []
        super().__init__(folder, methods=METHODS, **{"trials": 12} | config)

    def new_search(self, budgets, initial_points):
        return Search(
            *(self.folder / "search.journal", self.name, self.config, RUN),
            *(budgets, suggest, initial_points, self.seed, self.past),
            *(PLAIN, self.top, self.told.append),
        )


def rates(run):
    return run.optimisation.encoder_lr, run.optimisation.classifier_lr


def score(spec):
    """The best encoder rate is 4e-4 for plain, and another one for the others."""
    best = 4e-4 if spec.method == PLAIN else 1e-4
    return 1 - abs(spec.run.optimisation.encoder_lr - best) * 100


def test_the_baseline_is_searched_first_and_the_others_keep_its_best_rates(tmp_path):
    lab = Matched(tmp_path)
    plain = [lab.ask() for _ in range(3)]
    assert {spec.method for spec in plain} == {PLAIN}
    assert lab.ask() is None
    assert lab.search.waits  # for the first two are not over
    for spec in plain:
        lab.finish(spec, score(spec))
    others = lab.run_all(score)
    assert not lab.search.waits
    best = max(plain, key=score)
    assert {rates(spec.run) for spec in others} == {rates(best.run)}
    assert [tuple(point) for point in lab.told[0]] == [RATES]
    asked = [spec.method for spec in others]
    assert asked.count(MLKD) == asked.count(RANDOM_TEACHER) == 3
    assert asked.count(MASKED_LM) == 1  # nothing is left to search
    assert len({spec.run.distillation.alpha for spec in others if spec.method == MLKD}) == 3
    for method in METHODS:
        (found,) = lab.search.best(method)
        assert rates(found.run) == rates(best.run)


def test_points_that_are_tried_first_get_the_kept_rates(tmp_path):
    own = dict(zip(RATES, (3e-4, 1e-3))) | {"alpha": 2.5}
    lab = Matched(tmp_path).open(initial_points=(own,))
    first = lab.ask()
    assert rates(first.run) == (3e-4, 1e-3)
    for spec, value in ((first, 0.1), (lab.ask(), 0.9), (lab.ask(), 0.2)):
        lab.finish(spec, value)
    mlkd = lab.ask()
    assert mlkd.run.distillation.alpha == 2.5
    assert rates(mlkd.run) == rates(lab.search.best(PLAIN)[0].run) != (3e-4, 1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["tpe", "random", "cma-es", "gp", "nsga2", "grid"])
def test_every_sampler_keeps_the_rates_and_goes_on_after_an_interruption(tmp_path, sampler):
    whole = Matched(tmp_path / "whole", sampler=sampler, trials=16)
    expected = [(spec.trial_id, spec.run) for spec in whole.run_all(score)]
    broken = Matched(tmp_path / "broken", sampler=sampler, trials=16)
    got = []
    while (spec := broken.ask()) is not None:
        broken.report(spec, 1, score(spec) - 1)
        again = broken.open().ask()
        assert (again.trial_id, again.run) == (spec.trial_id, spec.run)
        got.append((again.trial_id, again.run))
        broken.end(again, broken.report(again, 2, score(again)))
        broken.open()
    assert got == expected
    kept = rates(broken.search.best(PLAIN)[0].run)
    others = [run for name, run in got if f"-{PLAIN}-" not in name]
    assert len(others) == 4 + 1 + 4
    assert {rates(run) for run in others} == {kept}


def test_so_many_rates_are_kept_as_configurations_are_confirmed(tmp_path):
    lab = Matched(tmp_path, top=2, trials=24)
    lab.run_all(score)
    best = [rates(one.run) for one in lab.search.best(PLAIN, 2)]
    assert len(set(best)) == 2
    for method in METHODS:
        assert [rates(one.run) for one in lab.search.best(method, 2)] == best
    tried = [spec.params for spec in lab.optuna(MLKD).trials]
    assert sorted(sum(p["encoder_lr"] == best[at][0] for p in tried) for at in (0, 1)) == [3, 3]
    assert len(lab.optuna(MASKED_LM).trials) == 2


def test_where_more_trials_find_better_rates_the_others_are_confirmed_at_these(tmp_path):
    lab = Matched(tmp_path)
    lab.run_all(lambda spec: 0.1 if spec.method == PLAIN else 0.9)
    before = rates(lab.search.best(PLAIN)[0].run)
    lab.open(trials=24)
    added = lab.run_all(lambda spec: 0.5)
    now = rates(lab.search.best(PLAIN)[0].run)
    assert now != before
    assert [spec.method for spec in added[:3]] == [PLAIN] * 3
    assert {rates(spec.run) for spec in added[3:]} == {now}
    for method in METHODS:  # although those of before had a higher score
        assert rates(lab.search.best(method)[0].run) == now


def test_equal_seconds_are_divided_among_those_that_wait(tmp_path):
    lab = Matched(tmp_path, equal="seconds", trials=24)
    asked = []
    while (spec := lab.ask()) is not None:
        asked.append(spec.method)
        lab.finish(spec, score(spec), seconds=10.0 if spec.method == MLKD else 20.0)
    assert asked[:6] == [PLAIN] * 6
    assert asked.count(PLAIN) == 6
    assert asked.count(MASKED_LM) == 1
    assert asked.count(MLKD) > asked.count(RANDOM_TEACHER) > 0


def test_where_no_trial_of_the_baseline_is_complete_each_is_searched_for_itself(tmp_path):
    lab = Matched(tmp_path)
    for _ in range(3):
        lab.finish(lab.ask(), 0.5, "failed")
    others = lab.run_all()
    assert len({rates(spec.run) for spec in others}) == len(others) == 9
    assert lab.search.best(PLAIN) == []
    assert len(lab.search.best(MLKD)) == 1


def test_a_run_of_the_baseline_that_goes_on_elsewhere_is_waited_for(tmp_path):
    lab = Matched(tmp_path)
    first, second, third = (lab.ask() for _ in range(3))
    for spec in (first, second):
        lab.finish(spec, 0.5)
    lab.end(third, lab.report(third, 1, 0.9), "preempted")
    assert lab.ask() is None
    assert lab.search.waits
    again = lab.open().ask()
    assert again.trial_id == third.trial_id
    lab.end(again, lab.report(again, 2, 0.95))
    assert rates(lab.ask().run) == rates(third.run)
