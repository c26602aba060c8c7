import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from dsgkd.study.search import Search
from dsgkd.study.space import MLKD, PLAIN, SearchSpace
from dsgkd.training.run import RunConfig

DEPTHS = {"tiny-ko": 2, "teacher": 2}


def suggest(trial, method):
    return SearchSpace().suggest(trial, method, RunConfig(), ("teacher",), DEPTHS)


@pytest.fixture
def new_search(tmp_path):
    def new(budget=3, seed=17):
        first = {method: {"encoder_lr": 1e-4} for method in (MLKD, PLAIN)}
        budgets = {MLKD: budget, PLAIN: budget}
        return Search(tmp_path / "search.journal", "study", budgets, suggest, first, seed)

    return new


def optuna_study(tmp_path, method):
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "search.journal")))
    return optuna.load_study(study_name=f"study/{method}", storage=storage)


def finish(search, candidate, score):
    search.report(candidate.trial_id, 1, score)
    search.tell(candidate.trial_id, "complete", score)


def test_methods_take_turns_and_get_equal_budgets(new_search):
    search = new_search()
    asked = []
    while (candidate := search.ask()) is not None:
        asked.append(candidate.method)
        finish(search, candidate, 0.5)
    assert asked == [MLKD, PLAIN] * 3


def test_the_first_trial_is_the_enqueued_one(new_search):
    assert new_search().ask().run.optimisation.encoder_lr == 1e-4


def test_states_reach_optuna_as_what_they_are(new_search, tmp_path):
    search = new_search()
    complete, _, pruned, _, failed = (search.ask() for _ in range(5))
    finish(search, complete, 0.7)
    search.report(pruned.trial_id, 1, 0.9)
    search.report(pruned.trial_id, 2, 0.6)
    search.tell(pruned.trial_id, "pruned", 0.9)
    search.tell(failed.trial_id, "failed", None)
    trials = optuna_study(tmp_path, MLKD).trials
    assert [trial.state.name for trial in trials] == ["COMPLETE", "PRUNED", "FAIL"]
    assert trials[1].intermediate_values == {1: 0.9, 2: 0.6}


def test_a_score_that_is_no_number_fails_the_trial_and_leaves_nothing_running(new_search, tmp_path):
    search = new_search()
    candidate = search.ask()
    search.report(candidate.trial_id, 1, float("nan"))
    search.tell(candidate.trial_id, "complete", float("nan"))
    (trial,) = optuna_study(tmp_path, MLKD).trials
    assert trial.state.name == "FAIL"
    assert trial.intermediate_values == {}


def test_the_best_is_a_complete_trial_not_a_pruned_one(new_search):
    search = new_search()
    good, _, pruned = search.ask(), search.ask(), search.ask()
    finish(search, good, 0.6)
    search.report(pruned.trial_id, 1, 0.99)
    search.tell(pruned.trial_id, "pruned", 0.99)
    assert search.best(MLKD) == good.run
    assert search.best(PLAIN) is None


def test_a_new_search_asks_again_for_what_was_running_and_then_for_the_rest(new_search):
    search = new_search()
    done, running = search.ask(), search.ask()
    finish(search, done, 0.5)
    resumed = new_search()
    again = resumed.ask()
    assert (again.trial_id, again.run) == (running.trial_id, running.run)
    rest = []
    while (candidate := resumed.ask()) is not None:
        rest.append(candidate.trial_id)
    assert len(rest) == 4
    assert done.trial_id not in rest


def test_a_larger_budget_extends_a_finished_search(new_search):
    search = new_search(budget=1)
    while (candidate := search.ask()) is not None:
        finish(search, candidate, 0.5)
    extended = new_search(budget=2)
    assert extended.ask().trial_id == "search-mlkd-001"


def test_the_same_seed_asks_the_same_questions(tmp_path):
    def asked(folder, seed):
        folder.mkdir()
        search = Search(folder / "j", "study", {MLKD: 6}, suggest, {}, seed)
        runs = []
        while (candidate := search.ask()) is not None:
            runs.append(candidate.run)
            finish(search, candidate, candidate.run.distillation.alpha)
        return runs

    assert asked(tmp_path / "a", 1) == asked(tmp_path / "b", 1)
    assert asked(tmp_path / "c", 2) != asked(tmp_path / "d", 1)
