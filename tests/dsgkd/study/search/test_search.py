from dataclasses import replace
from datetime import UTC, datetime

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from trial_events import charge, ended, make_epoch, make_spec

from dsgkd.errors import InputError
from dsgkd.ledger import Ledger
from dsgkd.study.callbacks.ledger import LedgerCallback
from dsgkd.study.config import StudyConfig
from dsgkd.study.history import close_lost, read_history
from dsgkd.study.search.arms import MLKD, PLAIN, arms
from dsgkd.study.search.config import PruningConfig, SearchConfig
from dsgkd.study.search.pruning import PruningCallback
from dsgkd.study.search.search import Search
from dsgkd.study.search.space import SearchSpace, point_of
from dsgkd.training.config import OptimisationConfig, RunConfig, paper_preset

DEPTHS = {"tiny-ko": 2, "teacher": 2}
ARMS = {arm.method: arm for arm in arms(())}
RUN = RunConfig(optimisation=OptimisationConfig(epochs=4))
SPACE = SearchSpace()
TEACHERS = {"teacher": "teacher"}


def suggest(trial, method):
    return SPACE.suggest(trial, ARMS[method], RUN, TEACHERS, DEPTHS)


class Lab:
    """A search with its ledger, and made-up trials."""

    def __init__(self, folder, name="study", methods=(MLKD, PLAIN), seed=17, **config):
        self.folder, self.name, self.methods, self.seed = folder, name, methods, seed
        self.config = SearchConfig(**{"trials": 6} | config)
        self.ledger = Ledger(str(folder / "ledger"))
        self.open()

    def open(self, trials=None, initial_points=()):
        past = {}
        if self.ledger.exists():
            close_lost(self.ledger, read_history(self.ledger, "auroc"))
            past = read_history(self.ledger, "auroc")
        share = (trials or self.config.trials) // len(self.methods)
        self.past = past
        self.search = self.new_search(dict.fromkeys(self.methods, share), initial_points)
        self.pruning = PruningCallback(
            PruningConfig("asha", grace_epochs=1, reduction_factor=2), 4, past.values()
        )
        names = ["auroc", *self.config.objectives, "recall"]
        self.recorded = LedgerCallback(self.ledger, names)
        self.callbacks = (self.recorded, self.search, self.pruning)
        return self

    def new_search(self, budgets, initial_points):
        return Search(
            self.folder / "search.journal",
            self.name,
            self.config,
            RUN,
            budgets,
            suggest,
            initial_points,
            self.seed,
            self.past,
        )

    def ask(self):
        candidate = self.search.ask()
        if candidate is None:
            return None
        known = self.past.get(candidate.trial_id)
        spec = make_spec(
            trial_id=candidate.trial_id,
            attempt=known.attempts + 1 if known else 1,
            method=candidate.method,
            run=candidate.run,
            parameters=candidate.parameters,
            known_epochs=known.epochs if known else 0,
        )
        self.recorded.on_start(spec, datetime.now(UTC))
        return spec

    def report(self, spec, number, score, **changes):
        epoch = make_epoch(spec, number, score)
        epoch = replace(epoch, validation=epoch.validation | changes)
        for callback in self.callbacks:
            callback.on_epoch(spec, epoch, charge(spec, 10.0))
        return epoch

    def end(self, spec, epoch, state="complete", seconds=10.0):
        for callback in self.callbacks:
            callback.on_end(spec, ended(spec, state, epoch, seconds=seconds))

    def finish(self, spec, score, state="complete", seconds=10.0, **changes):
        self.end(spec, self.report(spec, 1, score, **changes), state, seconds)

    def run_all(self, score=lambda spec: spec.run.distillation.alpha):
        asked = []
        while (spec := self.ask()) is not None:
            asked.append(spec)
            self.finish(spec, score(spec))
        return asked

    def optuna(self, method):
        storage = JournalStorage(JournalFileBackend(str(self.folder / "search.journal")))
        return optuna.load_study(study_name=f"{self.name}/{method}", storage=storage)

    def record(self, method=MLKD):
        """What an Optuna study says, in comparable form."""
        return [
            (t.number, t.state.name, t.params, t.values, t.intermediate_values)
            for t in self.optuna(method).trials
        ]


@pytest.fixture
def lab(tmp_path):
    return Lab(tmp_path)


def test_methods_take_turns_and_get_equal_budgets(lab):
    assert [spec.method for spec in lab.run_all()] == [MLKD, PLAIN] * 3


def test_methods_can_get_equal_seconds_instead(tmp_path):
    lab = Lab(tmp_path, equal="seconds", trials=12)
    asked = []
    while (spec := lab.ask()) is not None:
        asked.append(spec.method)
        lab.finish(spec, 0.5, seconds=30.0 if spec.method == MLKD else 10.0)
    assert len(asked) == 12
    assert asked.count(PLAIN) == 9  # a third as long, three times as many


def test_points_are_tried_first_as_far_as_they_lie_in_the_space(tmp_path):
    lab = Lab(tmp_path).open(initial_points=(point_of(RUN), point_of(paper_preset(RUN))))
    first = {spec.trial_id: spec.run for spec in (lab.ask() for _ in range(4))}
    base, paper = first["search-mlkd-000"], first["search-mlkd-001"]
    assert base.optimisation.encoder_lr == RUN.optimisation.encoder_lr
    assert base.distillation.mapping == RUN.distillation.mapping
    assert (paper.distillation.alpha, paper.distillation.max_transfer_words) == (0.6, 32)
    assert paper.distillation.mapping == "uniform+emb"
    assert paper.optimisation.classifier_lr == 5e-3
    assert paper.distillation.beta == 0  # the space does not search it
    assert first["search-plain-001"].optimisation.classifier_lr == 5e-3
    outside = Lab(tmp_path / "other").open(initial_points=({"alpha": 1e6, "cs_max_len": 7},))
    assert outside.ask().run.distillation.alpha < 1e6


def test_states_reach_optuna_as_what_they_are(lab):
    complete, _, pruned, _, failed = (lab.ask() for _ in range(5))
    lab.finish(complete, 0.7)
    lab.report(pruned, 1, 0.9)
    lab.end(pruned, lab.report(pruned, 2, 0.6), "pruned")
    lab.end(failed, None, "failed")
    trials = lab.optuna(MLKD).trials
    assert [trial.state.name for trial in trials] == ["COMPLETE", "PRUNED", "FAIL"]
    assert trials[1].intermediate_values == {1: 0.9, 2: 0.6}


def test_a_preempted_trial_stays_open_and_is_told_later(lab):
    spec = lab.ask()
    lab.end(spec, lab.report(spec, 1, 0.9), "preempted")
    assert lab.optuna(MLKD).trials[0].state.name == "RUNNING"
    again = replace(spec, attempt=2, known_epochs=1)
    lab.recorded.on_start(again, datetime.now(UTC))
    lab.end(again, lab.report(again, 2, 0.8))
    (trial,) = lab.optuna(MLKD).trials
    assert (trial.state.name, trial.intermediate_values) == ("COMPLETE", {1: 0.9, 2: 0.8})


def test_a_score_that_is_no_number_fails_the_trial_and_leaves_nothing_running(lab):
    lab.finish(lab.ask(), float("nan"))
    (trial,) = lab.optuna(MLKD).trials
    assert (trial.state.name, trial.intermediate_values) == ("FAIL", {})


def test_the_best_are_complete_trials_in_order(lab):
    good, _, better, _, pruned = (lab.ask() for _ in range(5))
    lab.finish(good, 0.6)
    lab.finish(better, 0.7)
    lab.finish(pruned, 0.99, "pruned")
    assert [one.run for one in lab.search.best(MLKD, 3)] == [better.run, good.run]
    assert lab.search.best(PLAIN) == []


def test_a_trial_below_the_others_at_a_rung_is_stopped(lab):
    good, _, bad = lab.ask(), lab.ask(), lab.ask()
    lab.report(good, 1, 0.9)
    lab.report(bad, 1, 0.1)
    assert lab.pruning.should_stop(bad)
    assert not lab.pruning.should_stop(good)


def test_the_same_seed_asks_the_same_questions(tmp_path):
    def asked(name, seed):
        return [spec.run for spec in Lab(tmp_path / name, seed=seed, trials=16).run_all()]

    assert asked("a", 1) == asked("b", 1)
    assert asked("c", 2) != asked("d", 1)


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["tpe", "random", "cma-es", "gp", "nsga2", "grid"])
def test_an_interrupted_search_goes_on_as_if_nothing_had_been(tmp_path, sampler):
    """Interrupted after every trial, and in the middle of each."""

    def score(spec):
        return 1 - abs(spec.run.optimisation.encoder_lr - 4e-4) * 100

    whole = Lab(tmp_path / "whole", sampler=sampler, trials=20)
    expected = [spec.run for spec in whole.run_all(score)]
    broken = Lab(tmp_path / "broken", sampler=sampler, trials=20)
    got = []
    while (spec := broken.ask()) is not None:
        broken.report(spec, 1, score(spec) - 1)
        again = broken.open().ask()
        assert (again.trial_id, again.run, again.attempt) == (spec.trial_id, spec.run, 2)
        assert again.known_epochs == 1
        got.append(again.run)
        broken.end(again, broken.report(again, 2, score(again)))
        broken.open()
    assert len(got) >= 19  # the baseline's grid has nine points
    assert got == expected


@pytest.mark.slow
def test_a_journal_that_is_behind_torn_or_gone_is_brought_to_agree_with_the_ledger(lab):
    for state in ("complete", "complete", "pruned", "failed"):
        lab.finish(lab.ask(), 0.5, state)
    running = lab.ask()
    lab.report(running, 1, 0.4)
    journal = lab.folder / "search.journal"
    whole, content = lab.record(), journal.read_bytes()
    lines = content.splitlines(keepends=True)
    for cut in [0, *range(1, len(content), len(content) // 25), len(content)]:
        journal.write_bytes(content[:cut])
        lab.open()
        assert lab.record() == whole, cut
        assert lab.ask().trial_id == running.trial_id
    journal.write_bytes(b"".join(lines[:3]) + b"no journal\n" + b"".join(lines[3:]))
    lab.open()
    assert lab.record() == whole
    assert list(lab.folder.glob("search.damaged-*"))
    journal.unlink()
    lab.open()
    assert lab.record() == whole


def test_a_study_that_is_deleted_in_the_dashboard_goes_on_and_comes_back(lab):
    first = lab.ask()
    storage = JournalStorage(JournalFileBackend(str(lab.folder / "search.journal")))
    for study in storage.get_all_studies():
        storage.delete_study(study._study_id)
    lab.finish(first, 0.5)
    asked = [first, *lab.run_all()]
    whole = lab.search.best(MLKD, 3)
    lab.open()
    assert lab.ask() is None
    of_mlkd = [spec for spec in asked if spec.method == MLKD]
    assert len(lab.record()) == len(of_mlkd) > 1
    assert [c.trial_id for c in lab.search.best(MLKD, 3)] == [c.trial_id for c in whole]


def test_a_larger_budget_extends_a_finished_search_with_all_that_is_known(lab):
    before = lab.run_all()
    lab.open(trials=10)
    after = lab.run_all()
    assert [spec.trial_id for spec in after] == [
        f"search-{method}-{number:03d}" for number in (3, 4) for method in (MLKD, PLAIN)
    ]
    assert len(lab.optuna(MLKD).trials) == 5
    whole = Lab(lab.folder / "whole", trials=10).run_all()
    assert [spec.run for spec in before + after] == [spec.run for spec in whole]


def test_two_studies_in_one_folder_are_never_merged(tmp_path):
    one, other = Lab(tmp_path / "x", name="one"), Lab(tmp_path / "x", name="other")
    one.finish(one.ask(), 0.5)
    assert len(one.optuna(MLKD).trials) == 1
    assert other.optuna(MLKD).trials == []


def test_a_grid_is_searched_whole_and_once_conditions_included(tmp_path):
    lab = Lab(tmp_path, methods=(PLAIN,), sampler="grid", trials=50, grid_points=3)
    rates = [
        (spec.run.optimisation.encoder_lr, spec.run.optimisation.classifier_lr)
        for spec in lab.run_all()
    ]
    assert len(rates) == len(set(rates)) == 9
    assert sorted({rate for rate, _ in rates}) == pytest.approx([5e-5, (5e-5 * 1e-3) ** 0.5, 1e-3])


def test_several_objectives_keep_what_no_other_beats(tmp_path):
    lab = Lab(tmp_path, sampler="nsga2", objectives=("worker_seconds",), methods=(MLKD,))
    scores = [(0.9, 100.0), (0.8, 10.0), (0.7, 50.0), (0.85, 40.0)]
    specs = [lab.ask() for _ in scores]
    for spec, (score, seconds) in zip(specs, scores):
        lab.finish(spec, score, seconds=seconds)
    names = [one.trial_id for one in lab.search.best(MLKD, 9)]
    assert names == [specs[i].trial_id for i in (0, 3, 1)]  # 2 is beaten by 1
    assert lab.optuna(MLKD).trials[0].values == [0.9, 100.0]
    # Trials are still stopped, by the first objective.
    good, bad = lab.ask(), lab.ask()
    lab.report(good, 1, 0.95)
    lab.report(bad, 1, 0.1)
    assert lab.pruning.should_stop(bad)
    lab.end(bad, lab.report(bad, 2, 0.1), "pruned")
    assert lab.optuna(MLKD).trials[5].state.name == "PRUNED"
    (lab.folder / "search.journal").unlink()
    lab.open()
    assert [one.trial_id for one in lab.search.best(MLKD, 9)] == names


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["tpe", "gp", "nsga2"])
def test_the_best_keeps_to_the_constraints(tmp_path, sampler):
    lab = Lab(tmp_path, sampler=sampler, constraints=("recall>=0.9",), methods=(MLKD,), trials=12)
    recalls = [0.95, 0.5, 0.92] * 4
    for at, recall in enumerate(recalls):
        lab.finish(lab.ask(), 0.5 + 0.1 * (at % 3 == 1) + at * 0.001, recall=recall)
    best = lab.search.best(MLKD, 12)
    assert len(best) == 8
    assert best[0].trial_id == "search-mlkd-011"
    lab.open()
    assert [one.trial_id for one in lab.search.best(MLKD, 12)] == [one.trial_id for one in best]


@pytest.mark.parametrize(
    "config",
    [
        {"objectives": ("beauty",)},
        {"constraints": ("recall>0.9",)},
        {"constraints": ("beauty>=1",)},
        {"objectives": ("brier",), "sampler": "cma-es"},
        {"grid_points": 0},
    ],
)
def test_bad_configurations_are_input_errors(config, tmp_path):
    with pytest.raises(InputError):
        StudyConfig(name="x", out=tmp_path, search=SearchConfig(**config))


def test_what_was_drawn_is_in_the_ledger(lab):
    spec = lab.ask()
    (row,) = lab.ledger.rows("trials")
    parameters = row["parameters"]
    assert parameters["alpha"]["value"] == spec.run.distillation.alpha
    assert parameters["alpha"]["distribution"]["attributes"]["log"] is True
    assert row["configuration"]["optimisation"]["epochs"] == 4


def test_a_full_disk_under_the_journal_is_one_clear_line(lab, monkeypatch):
    def full(self, *arguments, **keywords):
        raise OSError(28, "No space left on device")

    spec = lab.ask()
    monkeypatch.setattr("pathlib.Path.open", full)
    with pytest.raises(InputError, match="no space left"):
        lab.search.on_epoch(spec, make_epoch(spec, 1), charge(spec, 1))


def my_space(space, trial, arm, base, teachers, depths):
    """A conditional space: a small alpha only with many words."""
    words = trial.suggest_categorical("cs_max_len", [8, 32])
    low = 0.1 if words == 32 else 1.0
    alpha = trial.suggest_float(f"alpha_{words}", low, 10.0, log=True)
    distillation = replace(
        base.distillation, teacher="teacher", alpha=alpha, max_transfer_words=words
    )
    return replace(base, distillation=distillation)


def test_a_conditional_space_is_an_importable_function(tmp_path):
    space = SearchSpace(function=f"{__name__}:my_space")
    trial = optuna.trial.FixedTrial({"cs_max_len": 8, "alpha_8": 2.0})
    run = space.suggest(trial, ARMS[MLKD], RUN, TEACHERS, DEPTHS)
    assert (run.distillation.max_transfer_words, run.distillation.alpha) == (8, 2.0)
    plain = space.suggest(trial, ARMS[PLAIN], RUN, TEACHERS, DEPTHS)
    assert not plain.distillation.teacher
    with pytest.raises(InputError, match="cannot be imported"):
        SearchSpace(function="nowhere:nothing")
